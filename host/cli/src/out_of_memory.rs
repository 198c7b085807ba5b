//! The end of this process if the system refuses memory for an infallible allocation. The process exits with code 3, as
//! for any other fault of the host, and with an error that has a remedy. Without this it would end by SIGABRT.
#![expect(unsafe_code, reason = "an allocator and a handler of a signal have no safe interface")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// The system's allocator. It notes each refused allocation. Callers that handle the refusal go on.
struct Noting;

static REFUSED: AtomicBool = AtomicBool::new(false);

#[global_allocator]
static ALLOCATOR: Noting = Noting;

const TOLD: &[u8] = b"error: the system gives this process no more memory (no_memory)\n\nhelp: raise the limit of \
address space (`ulimit -v`), give the machine or the container more memory, or let fewer tasks run at once with \
--jobs; records are kept, and `dovetail runs resume --all` goes on with open runs\n";

/// What the C library asks the system for, at least, if its heap cannot grow in place.
const LEAST_GROWTH: usize = 1 << 20;

/// Whether the system refuses memory now. The C library aborts if one of its own small allocations is refused, which
/// does not go through [`Noting`].
fn is_refused_now() -> bool {
    let (access, kind) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: a new mapping, at an address that the system chooses.
    match unsafe { mmap_anonymous(std::ptr::null_mut(), LEAST_GROWTH, access, kind) } {
        Ok(mapped) => {
            // SAFETY: the mapping of the line above, which nothing refers to.
            unsafe { munmap(mapped, LEAST_GROWTH) }.ok();
            false
        }
        Err(error) => error == Errno::NOMEM,
    }
}

fn noted(memory: *mut u8) -> *mut u8 {
    if memory.is_null() {
        REFUSED.store(true, Ordering::Relaxed);
    }
    memory
}

// SAFETY: each call is passed unchanged to the system's allocator.
unsafe impl GlobalAlloc for Noting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller upholds the contract of this method, which is that of the system's allocator.
        noted(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller upholds the contract of this method, which is that of the system's allocator.
        noted(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller upholds the contract of this method, which is that of the system's allocator.
        noted(unsafe { System.realloc(memory, layout, size) })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller upholds the contract of this method, which is that of the system's allocator.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// Installs a handler of SIGABRT, which exits with code 3 if an allocation was refused, or would be refused now.
pub(crate) fn exit_when_refused() {
    let abort = || {
        if REFUSED.load(Ordering::Relaxed) || is_refused_now() {
            rustix::io::write(rustix::stdio::stderr(), TOLD).ok();
            signal_hook::low_level::exit(3);
        }
        // After the handler returns, SIGABRT ends the process.
    };
    // SAFETY: the action makes only async-signal-safe calls, and does not allocate.
    let registered = unsafe { signal_hook::low_level::register(signal_hook::consts::SIGABRT, abort) };
    if let Err(error) = registered {
        tracing::debug!(%error, "a refused allocation will end the process by SIGABRT");
    }
}
