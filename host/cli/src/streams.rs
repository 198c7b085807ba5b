//! Records whether standard input and standard output were open when the process was started.
//!
//! Before `main`, the standard library opens `/dev/null` for each closed standard stream. A result that is written to
//! it is lost without an error, and an input is empty. So the check must run before the standard library starts.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

static INPUT_CLOSED: AtomicBool = AtomicBool::new(false);
static OUTPUT_CLOSED: AtomicBool = AtomicBool::new(false);

/// The loader calls the functions in this section before `main`.
#[used]
#[expect(unsafe_code, reason = "nothing else runs before the standard library's own start")]
#[cfg_attr(target_os = "macos", unsafe(link_section = "__DATA,__mod_init_func"))]
#[cfg_attr(not(target_os = "macos"), unsafe(link_section = ".init_array"))]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    INPUT_CLOSED.store(rustix::io::fcntl_getfd(io::stdin()).is_err(), Ordering::Relaxed);
    OUTPUT_CLOSED.store(rustix::io::fcntl_getfd(io::stdout()).is_err(), Ordering::Relaxed);
}

/// `EBADF` if standard input was closed at the start.
pub(crate) fn input() -> io::Result<()> {
    open(&INPUT_CLOSED)
}

/// `EBADF` if standard output was closed at the start.
pub(crate) fn output() -> io::Result<()> {
    open(&OUTPUT_CLOSED)
}

fn open(closed: &AtomicBool) -> io::Result<()> {
    if closed.load(Ordering::Relaxed) { Err(rustix::io::Errno::BADF.into()) } else { Ok(()) }
}
