//! The C library's heap, which OpenCV's and our own large buffers come from.
//!
//! With glibc's own limits (8 arenas a core, and a threshold that grows with the buffers that are freed) threads keep
//! what no other one gets, and pictures leave holes between small things: some 40 MB more in a worker on the face
//! pipeline. Measured in docs/performance.md. Elsewhere nothing is done.

/// Heaps that threads share: two a core let them allocate side by side.
const ARENAS_A_CORE: usize = 2;
/// From this size on a buffer comes from the system and goes back to it, in bytes: pictures do. Below 1 MiB the
/// networks' own buffers would come under it, and take a tenth more time.
const OF_ITS_OWN: i32 = 2 << 20;
/// What the heap keeps free at its end, in bytes. (Setting it keeps the threshold above from growing.)
const KEPT: i32 = 16 << 20;

/// Bounds the heaps of this process. Those that exist stay.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the C library's heap has no safe interface")]
pub(crate) fn bound() {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let arenas = i32::try_from(cores * ARENAS_A_CORE).unwrap_or(i32::MAX);
    // SAFETY: `mallopt` may be called at any time from any thread; what it cannot do it leaves alone.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, arenas);
        libc::mallopt(libc::M_MMAP_THRESHOLD, OF_ITS_OWN);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}

/// Gives back to the system what the heap keeps free: what loading a network took beyond the network, or tasks that
/// have ended. It takes milliseconds.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the C library's heap has no safe interface")]
pub fn give_back() {
    // SAFETY: it touches only pages that no allocation uses, under the heap's own locks.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn bound() {}

/// Nothing is done here.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn give_back() {}
