//! What an attempt may use: asked for in a plugin's manifest, granted up to the host's maxima.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most that the inputs of a run, the input of a step and its output may each take as JSON, in bytes.
pub const MAX_VALUE: u64 = 4 << 20;
/// Values above this are kept as blobs, by reference, in bytes.
pub const MAX_INLINE_VALUE: u64 = 16 << 10;
/// Logs above this, as JSON lines, are kept as blobs, in bytes: a blob costs a file's sync or a server's answer before
/// the step counts as done.
pub const MAX_INLINE_LOG: usize = 2 << 10;

/// What an artifact counts at the least, in bytes: a file takes a block of the disk, however short it is.
pub const LEAST_ARTIFACT: u64 = 4 << 10;

/// Limits of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// Artifacts stored in all, in bytes, whether they are still held or not; each counts as [`LEAST_ARTIFACT`] at
    /// least.
    #[serde(default = "artifacts")]
    pub artifacts: u64,
}

/// Of records made before there was this limit.
fn artifacts() -> u64 {
    Limits::DEFAULT.artifacts
}

impl Limits {
    /// What a plugin gets whose manifest asks for nothing.
    pub const DEFAULT: Self = Self {
        memory: 64 << 20,
        time_ms: 30_000,
        output: MAX_VALUE,
        log: 256 << 10,
        handles: 1024,
        artifacts: 256 << 20,
    };
    /// The most that a manifest may ask for.
    pub const MAXIMA: Self = Self {
        memory: 256 << 20,
        time_ms: 600_000,
        output: MAX_VALUE,
        log: 4 << 20,
        handles: 10_000,
        artifacts: 4 << 30,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
