//! The port to time. Core, flow and stores are told the time; only the program's edge reads it.

/// Two clocks that are never compared with each other.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970, for people and records; it may jump.
    fn wall_ms(&self) -> u64;

    /// Microseconds of a clock that never goes back and counts while the machine sleeps; its start is arbitrary. For
    /// lengths.
    fn mono_us(&self) -> u64;

    /// The same in milliseconds, for leases and delays.
    fn mono_ms(&self) -> u64 {
        self.mono_us() / 1000
    }
}
