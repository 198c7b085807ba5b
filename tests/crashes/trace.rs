//! Runs a program and kills it as it enters the k-th of its system calls that may change what other processes see: a file written, synced,
//! cut, named or removed. Death between two such calls leaves what death before the second one leaves, so these are all the moments there
//! are, but for those amid a call, which is the kernel's, and for writes into shared memory, which SQLite makes again from its log.
//!
//! It is ptrace(2), as in strace: no part of the program knows that it is tested.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// How the program ended.
pub(crate) struct Traced {
    /// The call at which it was killed, if it came to it.
    pub(crate) died: Option<&'static str>,
    /// Its exit code, if it was not killed.
    pub(crate) code: Option<i32>,
}

/// As the kernel numbers them here. Opening counts where it may create.
const CALLS: [(libc::c_long, &str); 17] = [
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
    (libc::SYS_renameat2, "renameat2"),
    (libc::SYS_linkat, "linkat"),
    (libc::SYS_unlinkat, "unlinkat"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, "rename"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, "unlink"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mkdir, "mkdir"),
];

#[track_caller]
fn asked(request: libc::c_uint, thread: i32, address: usize, data: usize) -> libc::c_long {
    #[expect(unsafe_code, reason = "the standard library does not trace")]
    // SAFETY: the thread is stopped and ours to trace; where data is an address, the caller's buffer is as long as address says.
    let answer = unsafe { libc::ptrace(request, thread, address, data) };
    answer
}

/// The call that a stopped thread is about to make, if it is one that counts.
fn entered(thread: i32) -> Option<&'static str> {
    // The kernel's ptrace_syscall_info: op, arch, two addresses, then the call's number and its six arguments, 80 bytes with the padding.
    let mut info = [0u64; 11];
    let size = asked(libc::PTRACE_GET_SYSCALL_INFO, thread, size_of_val(&info), info.as_mut_ptr() as usize);
    let op = info[0].to_le_bytes()[0];
    if size <= 0 || op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    let (number, third) = (info[3], info[6]);
    let (_, name) = CALLS.iter().find(|(call, _)| u64::try_from(*call) == Ok(number))?;
    let creates = third & u64::try_from(libc::O_CREAT).unwrap() != 0;
    (*name != "openat" || creates).then_some(*name)
}

/// The next change of a process or thread that this thread traces.
fn next() -> (i32, i32) {
    let mut status = 0;
    #[expect(unsafe_code, reason = "the standard library waits for whole processes only")]
    // SAFETY: waitpid(2) writes one number. Only this thread's own children are waited for, so tests do not take one another's.
    let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
    assert!(thread > 0, "waitpid: {}", std::io::Error::last_os_error());
    (thread, status)
}

/// Runs it to its end, or to its call of that number, counted from zero, before which it is killed.
#[expect(clippy::zombie_processes, reason = "`next` waits for it, as for its threads")]
pub(crate) fn dies_at(command: &mut Command, point: usize) -> Traced {
    let trace_me = || {
        #[expect(unsafe_code, reason = "the standard library does not trace")]
        // SAFETY: this request reads nothing.
        let answer = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
        if answer == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    #[expect(unsafe_code, reason = "runs between fork and exec")]
    // SAFETY: it makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(trace_me);
    }
    let mut child = command.spawn().unwrap();
    let process = i32::try_from(child.id()).unwrap();
    let first = next();
    assert!(first.0 == process && libc::WIFSTOPPED(first.1), "it stops as it begins");
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL;
    assert_eq!(asked(libc::PTRACE_SETOPTIONS, process, 0, usize::try_from(options).unwrap()), 0);
    assert_eq!(asked(libc::PTRACE_SYSCALL, process, 0, 0), 0);
    let (mut calls, mut died) = (0, None);
    loop {
        let (thread, status) = next();
        if !libc::WIFSTOPPED(status) {
            if thread == process {
                return Traced { died, code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)) };
            }
            continue;
        }
        let mut pass = 0;
        match libc::WSTOPSIG(status) {
            stop if stop == libc::SIGTRAP | 0x80 => {
                if let Some(call) = entered(thread).filter(|_| died.is_none()) {
                    if calls == point {
                        died = Some(call);
                        child.kill().unwrap();
                    }
                    calls += 1;
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
