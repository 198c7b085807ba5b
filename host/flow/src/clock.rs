//! The system's clocks. Only this module reads the time for records and leases.

use std::time::{SystemTime, UNIX_EPOCH};

use dovetail_core::clock::Clock;
use rustix::time::{ClockId, clock_gettime};

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
        let time = clock_gettime(ClockId::Boottime);
        u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_go_as_fast_as_time_does() {
        let (clock, began) = (SystemClock, std::time::Instant::now());
        let (wall, mono) = (clock.wall_ms(), clock.mono_us());
        std::thread::sleep(std::time::Duration::from_millis(20));
        let passed = clock.mono_us() - mono;
        let most = u64::try_from(began.elapsed().as_micros()).unwrap();
        assert!((20_000..=most + 1).contains(&passed), "{passed} us of at most {most}");
        assert!(wall > 1_700_000_000_000, "{wall}");
    }
}
