//! The port to time. Only the edge of the program reads real clocks; core, flow and stores get the time through this
//! port.

/// A wall clock and a monotonic clock. Their values must never be compared with each other.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970 (UTC), for people and records. May jump in both directions.
    fn wall_ms(&self) -> u64;

    /// Microseconds of a monotonic clock with an arbitrary start, for measuring durations. It never goes back, and it
    /// counts while the machine sleeps.
    fn mono_us(&self) -> u64;

    /// The same clock in milliseconds, for leases and delays.
    fn mono_ms(&self) -> u64 {
        self.mono_us() / 1000
    }
}
