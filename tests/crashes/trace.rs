//! Runs a program and kills it as it enters the k-th of its system calls that may change what other processes see: a
//! file written, synced, cut, named or removed. Death between two such calls leaves what death before the second one
//! leaves, so these are all the moments there are, but for those amid a call, which is the kernel's, and for writes
//! into shared memory, which SQLite makes again from its log.
//!
//! Or it fills the disk there: from the k-th write into a folder on, none succeeds. Or syncs take long from there on.
//!
//! It is ptrace(2), as in strace: no part of the program knows that it is tested.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How the program ended.
pub(crate) struct Traced {
    /// The call at which it was killed, or of which it was first told that the disk is full, if it came to it.
    pub(crate) died: Option<&'static str>,
    /// Its exit code, if no signal ended it.
    pub(crate) code: Option<i32>,
}

/// As the kernel numbers them here. Opening counts where it may create.
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

/// What happens at a call.
#[derive(Clone, Copy)]
pub(crate) enum Fault<'a> {
    Death,
    /// No room on the disk of this folder: writes into its files fail with ENOSPC, from that call on.
    Full(&'a Path),
    /// Each sync takes so long, from that call on. Other threads go on meanwhile.
    SlowSync(Duration),
}

impl Fault<'_> {
    /// Whether a call that a stopped thread is about to make is one of those that this fault counts.
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

/// A call that counts, and what of its arguments is asked for here.
struct Call {
    name: &'static str,
    first: u64,
    third: u64,
}

/// Seconds after which a program that does not end is ended by SIGALRM: nothing here takes a tenth of that.
const PATIENCE: libc::c_uint = 60;

#[track_caller]
fn asked(request: libc::c_uint, thread: i32, address: usize, data: usize) -> libc::c_long {
    #[expect(unsafe_code, reason = "the standard library does not trace")]
    // SAFETY: the thread is stopped and ours to trace; where data is an address, the caller's buffer is as long as
    // address says.
    let answer = unsafe { libc::ptrace(request, thread, address, data) };
    answer
}

/// The call that a stopped thread is about to make, if it is one that counts.
fn entered(thread: i32) -> Option<Call> {
    // The kernel's ptrace_syscall_info: op, arch, two addresses, then the call's number and its six arguments, 80 bytes
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
    // SAFETY: all zeroes are registers.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    assert_eq!(asked(libc::PTRACE_GETREGS, thread, 0, (&raw mut registers) as usize), 0);
    to(&mut registers);
    assert_eq!(asked(libc::PTRACE_SETREGS, thread, 0, (&raw mut registers) as usize), 0);
}

/// The call that a thread is about to make becomes none.
fn skip(thread: i32) {
    change(thread, |registers| registers.orig_rax = u64::MAX);
}

/// What a skipped call returns.
fn answer(thread: i32, errno: i32) {
    change(thread, |registers| registers.rax = i64::from(-errno).cast_unsigned());
}

/// The next change of a process or thread that this thread traces; none: nothing has changed, and `wait` is not set.
fn next(wait: bool) -> Option<(i32, i32)> {
    let mut status = 0;
    let options = libc::__WALL | libc::__WNOTHREAD | if wait { 0 } else { libc::WNOHANG };
    #[expect(unsafe_code, reason = "the standard library waits for whole processes only")]
    // SAFETY: waitpid(2) writes one number. Only this thread's own children are waited for, so tests do not take one
    // another's.
    let thread = unsafe { libc::waitpid(-1, &raw mut status, options) };
    assert!(thread >= 0, "waitpid: {}", std::io::Error::last_os_error());
    (thread > 0).then_some((thread, status))
}

/// Runs it to its end, with a fault at its call of that number, counted from zero: before which it is killed, or from
/// which on the disk is full.
#[expect(clippy::zombie_processes, reason = "`next` waits for it, as for its threads")]
pub(crate) fn run(command: &mut Command, point: usize, fault: Fault<'_>) -> Traced {
    let trace_me = || {
        #[expect(unsafe_code, reason = "the standard library does not trace")]
        // SAFETY: this request reads nothing; an alarm outlives exec.
        let answer = unsafe {
            libc::alarm(PATIENCE);
            libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0)
        };
        if answer == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    #[expect(unsafe_code, reason = "runs between fork and exec")]
    // SAFETY: it makes two system calls and allocates nothing.
    unsafe {
        command.pre_exec(trace_me);
    }
    let mut child = command.spawn().unwrap();
    let process = i32::try_from(child.id()).unwrap();
    let first = next(true);
    assert!(
        first.is_some_and(|(thread, status)| thread == process && libc::WIFSTOPPED(status)),
        "it stops as it begins"
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
            // A new thread, and the word of the one that made it.
            libc::SIGTRAP | libc::SIGSTOP => {}
            signal => pass = signal,
        }
        // It may have been killed meanwhile: then its end is what comes next.
        asked(libc::PTRACE_SYSCALL, thread, 0, usize::try_from(pass).unwrap());
    }
}
