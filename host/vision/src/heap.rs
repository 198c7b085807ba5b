//! Limits of the C library's heap, which serves OpenCV's buffers and our own large buffers.
//!
//! With glibc's defaults (8 arenas a core, and an mmap threshold that grows with the freed buffers) each thread keeps
//! memory that no other thread can use, and pictures leave holes between small allocations. On the face pipeline this
//! costs a worker about 40 MB (measured in docs/performance.md). On other C libraries this module does nothing.

/// glibc arenas for each core: with two a core, threads seldom wait for one another's allocations.
const ARENAS_A_CORE: usize = 2;
/// From this size on, in bytes, glibc maps a buffer by itself and unmaps it when it is freed; pictures are larger. With
/// a threshold below 1 MiB the networks' own buffers would be mapped as well, and a pass would take a tenth longer.
const OF_ITS_OWN: i32 = 2 << 20;
/// Free bytes that the heap keeps at its end. Setting this value also stops glibc from raising the mmap threshold.
const KEPT: i32 = 16 << 20;
/// The largest page size of the supported systems, in bytes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const PAGE: usize = 64 << 10;

/// Limits the heaps of this process. Existing arenas stay.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the C library's heap has no safe interface")]
pub(crate) fn bound() {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let arenas = i32::try_from(cores * ARENAS_A_CORE).unwrap_or(i32::MAX);
    // SAFETY: any thread may call `mallopt` at any time. An option that it cannot set stays unchanged.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, arenas);
        libc::mallopt(libc::M_MMAP_THRESHOLD, OF_ITS_OWN);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}

/// Returns the heap's free memory to the system: the temporary memory of loading a network, or the memory of ended
/// tasks. It takes milliseconds.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the C library's heap has no safe interface")]
pub fn give_back() {
    // SAFETY: `malloc_trim` releases only pages that no allocation uses, and takes the heap's own locks.
    unsafe { libc::malloc_trim(0) };
}

/// A buffer of zeros for pixels. A large one is a mapping of its own, and asks for huge pages: touching 7 MB for the
/// first time page by page takes up to 4 ms in a virtual machine, and less than 1 ms with huge pages.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "advice about memory has no safe interface")]
pub(crate) fn zeroed(length: usize) -> Vec<u8> {
    let mut buffer: Vec<u8> = vec![0; length];
    if length >= OF_ITS_OWN as usize {
        let before = buffer.as_ptr().align_offset(PAGE);
        let length = (length - before) / PAGE * PAGE;
        // SAFETY: the range consists of whole pages inside the buffer, which this function owns. The advice changes no
        // content. The kernel may ignore the advice, and then nothing is lost.
        unsafe { libc::madvise(buffer.as_mut_ptr().add(before).cast(), length, libc::MADV_HUGEPAGE) };
    }
    buffer
}

/// A buffer of zeros for pixels.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn zeroed(length: usize) -> Vec<u8> {
    vec![0; length]
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn bound() {}

/// Does nothing on this platform.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn give_back() {}
