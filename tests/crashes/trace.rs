//! Runs a program and kills it as it enters the k-th of its system calls that may change what other processes see: a
//! file written, synced, cut, named or removed. A death between two such calls leaves the same state as a death before
//! the second call. So these are all moments of death, with two exceptions: a death within a call, which the kernel
//! handles, and a death between writes to shared memory, which SQLite rebuilds from its log.
//!
//! Two other faults begin at the k-th call: the disk is full (writes into a folder fail), or each sync takes long.
//!
//! The calls are intercepted with ptrace(2), as strace does: no part of the program knows that it is tested.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How the program ended.
pub(crate) struct Traced {
    /// The call at which the program was killed, or the first call that failed because the disk is full; `None` if the
    /// program did not reach it.
    pub(crate) died: Option<&'static str>,
    /// The exit code; `None` if a signal ended the program.
    pub(crate) code: Option<i32>,
}

/// The calls that count, by their x86-64 numbers. `openat` counts if it may create a file.
const CALLS: [(libc::c_long, &str); 19] = [
    (libc::SYS_openat, "openat"),
    (libc::SYS_write, "write"),
    (libc::SYS_writev, "writev"),
    (libc::SYS_pwrite64, "pwrite64"),
    (libc::SYS_pwritev, "pwritev"),
    (libc::SYS_copy_file_range, "copy_file_range"),
    (libc::SYS_sendto, "sendto"),
    (libc::SYS_fsync, "fsync"),
    (libc::SYS_fdatasync, "fdatasync"),
    (libc::SYS_ftruncate, "ftruncate"),
    (libc::SYS_mkdirat, "mkdirat"),
    (libc::SYS_renameat, "renameat"),
    (libc::SYS_renameat2, "renameat2"),
    (libc::SYS_linkat, "linkat"),
    (libc::SYS_unlinkat, "unlinkat"),
    (libc::SYS_rename, "rename"),
    (libc::SYS_link, "link"),
    (libc::SYS_unlink, "unlink"),
    (libc::SYS_mkdir, "mkdir"),
];

/// The fault that begins at a call.
#[derive(Clone, Copy)]
pub(crate) enum Fault<'a> {
    Death,
    /// The disk of this folder is full: from that call on, writes into its files fail with ENOSPC.
    Full(&'a Path),
    /// From that call on, each sync takes this long. Other threads continue meanwhile.
    SlowSync(Duration),
}

impl Fault<'_> {
    /// Whether this fault counts the call that a stopped thread is about to make.
    fn counts(self, thread: i32, call: &Call) -> bool {
        let folder = match self {
            Self::Death => return true,
            Self::SlowSync(_) => return matches!(call.name, "fsync" | "fdatasync"),
            Self::Full(folder) => folder,
        };
        let file = match call.name {
            "write" | "writev" | "pwrite64" | "pwritev" | "ftruncate" => call.first,
            "copy_file_range" => call.third,
            _ => return false,
        };
        std::fs::read_link(format!("/proc/{thread}/fd/{file}")).is_ok_and(|path| path.starts_with(folder))
    }
}

/// A call that counts, with the arguments that are used here.
struct Call {
    name: &'static str,
    first: u64,
    third: u64,
}

/// Seconds after which SIGALRM ends a program that does not end by itself: no test takes a tenth of this time.
const PATIENCE: libc::c_uint = 60;

#[track_caller]
fn asked(request: libc::c_uint, thread: i32, address: usize, data: usize) -> libc::c_long {
    #[expect(unsafe_code, reason = "the standard library does not trace")]
    // SAFETY: the thread is stopped, and this thread traces it. Where `data` is an address, the caller's buffer has
    // `address` bytes.
    let answer = unsafe { libc::ptrace(request, thread, address, data) };
    answer
}

/// The call that a stopped thread is about to make, if the call counts.
fn entered(thread: i32) -> Option<Call> {
    // The kernel's ptrace_syscall_info: `op`, `arch`, two addresses, the call's number and its six arguments, 80 bytes
    // with the padding.
    let mut info = [0u64; 11];
    let size = asked(libc::PTRACE_GET_SYSCALL_INFO, thread, size_of_val(&info), info.as_mut_ptr() as usize);
    let op = info[0].to_le_bytes()[0];
    if size <= 0 || op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    let (number, first, third) = (info[3], info[4], info[6]);
    let (_, name) = CALLS.iter().find(|(call, _)| u64::try_from(*call) == Ok(number))?;
    let creates = third & u64::try_from(libc::O_CREAT).unwrap() != 0;
    (*name != "openat" || creates).then_some(Call { name, first, third })
}

/// Changes the registers of a stopped thread.
fn change(thread: i32, to: impl FnOnce(&mut libc::user_regs_struct)) {
    #[expect(unsafe_code, reason = "numbers that the kernel fills in")]
    // SAFETY: all zeroes are valid registers.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    assert_eq!(asked(libc::PTRACE_GETREGS, thread, 0, (&raw mut registers) as usize), 0);
    to(&mut registers);
    assert_eq!(asked(libc::PTRACE_SETREGS, thread, 0, (&raw mut registers) as usize), 0);
}

/// Replaces the call that a thread is about to make with no call.
fn skip(thread: i32) {
    change(thread, |registers| registers.orig_rax = u64::MAX);
}

/// Sets the error that a skipped call returns.
fn answer(thread: i32, errno: i32) {
    change(thread, |registers| registers.rax = i64::from(-errno).cast_unsigned());
}

/// The next event of a process or thread that this thread traces. `None`: there is no event, and `wait` is false.
fn next(wait: bool) -> Option<(i32, i32)> {
    let mut status = 0;
    let options = libc::__WALL | libc::__WNOTHREAD | if wait { 0 } else { libc::WNOHANG };
    #[expect(unsafe_code, reason = "the standard library waits for whole processes only")]
    // SAFETY: waitpid(2) writes one number. `__WNOTHREAD` waits only for this thread's own children, so no test takes
    // another test's event.
    let thread = unsafe { libc::waitpid(-1, &raw mut status, options) };
    assert!(thread >= 0, "waitpid: {}", std::io::Error::last_os_error());
    (thread > 0).then_some((thread, status))
}

/// Runs the program to its end. The fault begins at the program's call with the number `point`, counted from zero.
#[expect(clippy::zombie_processes, reason = "`next` waits for it, as for its threads")]
pub(crate) fn run(command: &mut Command, point: usize, fault: Fault<'_>) -> Traced {
    let trace_me = || {
        #[expect(unsafe_code, reason = "the standard library does not trace")]
        // SAFETY: PTRACE_TRACEME reads no memory; an alarm outlives exec.
        let answer = unsafe {
            libc::alarm(PATIENCE);
            libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0)
        };
        if answer == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    #[expect(unsafe_code, reason = "runs between fork and exec")]
    // SAFETY: the closure makes two system calls and allocates nothing.
    unsafe {
        command.pre_exec(trace_me);
    }
    let mut child = command.spawn().unwrap();
    let process = i32::try_from(child.id()).unwrap();
    let first = next(true);
    assert!(
        first.is_some_and(|(thread, status)| thread == process && libc::WIFSTOPPED(status)),
        "the program does not stop at its start"
    );
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL;
    assert_eq!(asked(libc::PTRACE_SETOPTIONS, process, 0, usize::try_from(options).unwrap()), 0);
    assert_eq!(asked(libc::PTRACE_SYSCALL, process, 0, 0), 0);
    let (mut calls, mut died, mut skipped, mut syncing) = (0, None, BTreeSet::new(), Vec::<(i32, Instant)>::new());
    loop {
        let now = Instant::now();
        for (thread, _) in syncing.extract_if(.., |(_, until)| *until <= now) {
            asked(libc::PTRACE_SYSCALL, thread, 0, 0);
        }
        let Some((thread, status)) = next(syncing.is_empty()) else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        if !libc::WIFSTOPPED(status) {
            if thread == process {
                return Traced { died, code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)) };
            }
            continue;
        }
        let mut pass = 0;
        match libc::WSTOPSIG(status) {
            stop if stop == libc::SIGTRAP | 0x80 => {
                if skipped.remove(&thread) {
                    answer(thread, libc::ENOSPC);
                } else if let Some(call) = entered(thread).filter(|call| fault.counts(thread, call)) {
                    if calls == point {
                        died = Some(call.name);
                    }
                    calls += 1;
                    match fault {
                        Fault::SlowSync(by) if calls > point => {
                            syncing.push((thread, now + by));
                            continue;
                        }
                        Fault::Death if calls == point + 1 => child.kill().unwrap(),
                        Fault::Full(_) if calls > point => {
                            skip(thread);
                            skipped.insert(thread);
                        }
                        _ => {}
                    }
                }
            }
            // SIGSTOP of a new thread, or SIGTRAP of the thread that created it.
            libc::SIGTRAP | libc::SIGSTOP => {}
            signal => pass = signal,
        }
        // If the thread has been killed meanwhile, ptrace fails, and the thread's end is the next event.
        asked(libc::PTRACE_SYSCALL, thread, 0, usize::try_from(pass).unwrap());
    }
}
