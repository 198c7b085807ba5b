//! Limits of an attempt: a plugin's manifest asks for them, up to the host's maxima.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most bytes of JSON that the inputs of a run, the input of a step and the output of a step may each have.
pub const MAX_VALUE: u64 = 4 << 20;
/// A value with more bytes of JSON than this is stored as a blob, and its record holds a reference.
pub const MAX_INLINE_VALUE: u64 = 16 << 10;
/// A log with more bytes of JSON lines than this is stored as a blob. Smaller logs stay in the outcome record, because
/// a blob costs the sync of a file or a round trip to a server before the step counts as done.
pub const MAX_INLINE_LOG: usize = 2 << 10;

/// The least that an artifact counts against [`Limits::artifacts`], in bytes: even a short file occupies a block of the
/// disk.
pub const LEAST_ARTIFACT: u64 = 4 << 10;

/// The limits of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Limits {
    /// Linear memory of all instances together, in bytes.
    pub memory: u64,
    /// Wall time of one attempt, in milliseconds.
    pub time_ms: u64,
    /// Size of the output as JSON, in bytes.
    pub output: u64,
    /// Log text that is kept, in bytes. Further lines are dropped and counted.
    pub log: u64,
    /// The number of images, artifacts, models and writers that are held at one time.
    pub handles: u32,
    /// The total size of the artifacts that are stored, in bytes, whether or not the task still holds them. Each
    /// artifact counts at least 4 KiB.
    #[serde(default = "artifacts")]
    pub artifacts: u64,
}

/// The limit of records that were written before this limit existed.
fn artifacts() -> u64 {
    Limits::DEFAULT.artifacts
}

impl Limits {
    /// The limits of a plugin whose manifest asks for none.
    pub const DEFAULT: Self = Self {
        memory: 64 << 20,
        time_ms: 30_000,
        output: MAX_VALUE,
        log: 256 << 10,
        handles: 1024,
        artifacts: 256 << 20,
    };
    /// The largest limits that a manifest may ask for.
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
