//! What an attempt may use: asked for in a plugin's manifest, granted up to the host's maxima.

use serde::{Deserialize, Serialize};

/// The most that one value may take as JSON, in bytes.
pub const MAX_VALUE: u64 = 4 << 20;
/// Values above this are kept as blobs, by reference, in bytes.
pub const MAX_INLINE_VALUE: usize = 16 << 10;

/// Limits of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Linear memory of all the instances together, in bytes.
    pub memory: u64,
    /// Wall time of one attempt, in milliseconds.
    pub time_ms: u64,
    /// The output as JSON, in bytes.
    pub output: u64,
    /// Log text kept, in bytes; what comes after is dropped and counted.
    pub log: u64,
    /// Images, artifacts, models and writers held at once.
    pub handles: u32,
}

impl Limits {
    /// What a plugin gets whose manifest asks for nothing.
    pub const DEFAULT: Self = Self { memory: 64 << 20, time_ms: 30_000, output: MAX_VALUE, log: 256 << 10, handles: 1024 };
    /// The most that a manifest may ask for.
    pub const MAXIMA: Self = Self { memory: 256 << 20, time_ms: 600_000, output: MAX_VALUE, log: 4 << 20, handles: 10_000 };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
