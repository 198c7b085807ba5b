//! The system's clocks. Only this module reads the time for records and leases.

use std::time::{SystemTime, UNIX_EPOCH};

use dovetail_core::clock::Clock;

/// Wall time, and the time since the machine started (`CLOCK_BOOTTIME`: it counts while the machine sleeps, and all
/// processes of the machine see the same value).
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn mono_us(&self) -> u64 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        #[expect(unsafe_code, reason = "std has no clock that all processes share and that counts through suspend")]
        // SAFETY: the pointer is to a local `timespec`, which the call fills; the clock exists on every Linux since
        // 2.6.39.
        let status = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
        debug_assert_eq!(status, 0, "CLOCK_BOOTTIME exists");
        u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1000
    }
}
