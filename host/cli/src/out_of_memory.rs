//! What becomes of this process when the system refuses memory that cannot be done without: it ends as it does for any
//! other fault of the machine, with exit code 3 and an error that says what to do, and not by SIGABRT.
#![expect(unsafe_code, reason = "an allocator and a handler of a signal have no safe interface")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// The system's allocator, which notes that it had no memory. Whoever can do without goes on.
struct Noting;

static REFUSED: AtomicBool = AtomicBool::new(false);

#[global_allocator]
static ALLOCATOR: Noting = Noting;

const TOLD: &[u8] = b"error: the system gives this process no more memory (no_memory)\n\nhelp: raise the limit of \
address space (`ulimit -v`), give the machine or the container more memory, or let fewer tasks run at once with --jobs; \
what was recorded stays, and `dovetail runs resume --all` goes on with it\n";

fn noted(memory: *mut u8) -> *mut u8 {
    if memory.is_null() {
        REFUSED.store(true, Ordering::Relaxed);
    }
    memory
}

// SAFETY: each call is handed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Noting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promised.
        noted(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promised.
        noted(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promised.
        noted(unsafe { System.realloc(memory, layout, size) })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// Takes care of it from now on.
pub(crate) fn exit_when_refused() {
    let abort = || {
        if REFUSED.load(Ordering::Relaxed) {
            // SAFETY: standard error is not closed while the process ends.
            rustix::io::write(unsafe { BorrowedFd::borrow_raw(2) }, TOLD).ok();
            signal_hook::low_level::exit(3);
        }
        // Returning from here ends the process by SIGABRT.
    };
    // SAFETY: the action makes only calls that a handler of a signal may make, and allocates nothing.
    let registered = unsafe { signal_hook::low_level::register(signal_hook::consts::SIGABRT, abort) };
    if let Err(error) = registered {
        tracing::debug!(%error, "a refused allocation will end the process by SIGABRT");
    }
}
