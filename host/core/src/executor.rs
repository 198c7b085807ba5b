//! The port to the runtime: one attempt of one task in, a typed outcome and what it used out.
//!
//! A guest's failure is a value ([`Outcome::Failed`]); the host's own is an error ([`HostError`]) and is not charged to
//! the attempt.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{Digest, RunId};
use crate::limits::Limits;
use crate::scarce::Scarce;
use crate::stop::Stop;

/// One attempt to be made.
#[derive(Debug, Clone)]
pub struct Attempt {
    pub run: RunId,
    /// The step's name in its pipeline.
    pub step: String,
    /// 1 for the first.
    pub number: u32,
    /// Of the plugin's package.
    pub package: Digest,
    /// The same for every attempt of this step.
    pub idempotency_key: String,
    /// The input record as JSON, already checked against the task's input type; artifacts by reference.
    pub input: Value,
    /// Input field -> unique ID of the value that feeds it (`output_001_faces_array`); absent for a literal or a
    /// default.
    pub origins: BTreeMap<String, String>,
    /// In force: the manifest's, under the host's maxima and the step's timeout.
    pub limits: Limits,
    /// The models that were chosen for the run: opening any model of a kind opens this one, and no other. A kind that
    /// is not here is the executor's to choose.
    pub models: Models,
}

/// How a step, or an attempt at it, ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Outcome {
    /// The output record as JSON.
    Succeeded {
        output: Value,
    },
    Failed {
        failure: Failure,
    },
}

/// Why an attempt failed: the guest's own error or what the host stopped it for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    pub kind: FailureKind,
    /// Stable and snake_case: the task's own (`no_face_found`) or the host's (`out_of_memory`, `timeout`, ...).
    pub code: String,
    /// For people.
    pub message: String,
    /// The same input may succeed later.
    pub retryable: bool,
    /// The earliest useful retry, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// For machines.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, Value>,
    /// Frames of the guest, the innermost first, or the panic's file and line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backtrace: Vec<String>,
}

/// The closed set that the failure policy acts upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The input does not satisfy the task. Never retried.
    InvalidInput,
    Cancelled,
    /// A service of the host failed. Retried if `retryable`.
    Unavailable,
    /// The task's own failure. Retried if `retryable`.
    Failed,
    /// The attempt's time was over. Retried.
    Timeout,
    /// The guest broke a rule of the machine (unreachable, out of bounds, a forged handle). Never retried.
    Trap,
    /// The guest panicked. Never retried.
    Panic,
    /// A limit other than time. Never retried.
    Limit,
    /// What it returned cannot be recorded (too large, not UTF-8). Never retried.
    BadOutput,
    /// The worker died while it ran. Retried, counted apart.
    LostWorker,
}

impl Failure {
    /// Whether the failure policy lets another attempt be made, attempts permitting.
    #[must_use]
    pub fn may_retry(&self) -> bool {
        match self.kind {
            FailureKind::Timeout | FailureKind::LostWorker => true,
            FailureKind::Unavailable | FailureKind::Failed => self.retryable,
            FailureKind::InvalidInput
            | FailureKind::Cancelled
            | FailureKind::Trap
            | FailureKind::Panic
            | FailureKind::Limit
            | FailureKind::BadOutput => false,
        }
    }

    /// A failure without details that is not retryable.
    pub fn new(kind: FailureKind, code: impl Into<String>, message: impl Into<String>) -> Self {
        let (code, message) = (code.into(), message.into());
        Self {
            kind,
            code,
            message,
            retryable: false,
            retry_after_ms: None,
            details: BTreeMap::new(),
            backtrace: Vec::new(),
        }
    }
}

/// A model that took part, for the lineage.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct ModelUse {
    pub name: String,
    pub digest: Digest,
}

/// Kind of model ([`crate::vision::ModelKind::name`]) -> the model that was chosen for a run.
pub type Models = BTreeMap<String, ModelUse>;

/// What an attempt used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// Wall time in microseconds, from the first instruction of the instance until its output is read, host calls
    /// included.
    pub wall_us: u64,
    /// Of it, time spent in host functions, in microseconds.
    pub host_us: u64,
    /// Processor time of the guest's own code, in microseconds: what its thread used, at most the wall time outside
    /// host functions. On a machine that is busy with others it is less than that.
    #[serde(default)]
    pub guest_cpu_us: u64,
    /// The most linear memory held at once, in bytes.
    pub peak_memory: u64,
    /// Of the input as JSON, in bytes; artifacts by reference.
    #[serde(default)]
    pub input_bytes: u64,
    /// Of the output as JSON, in bytes.
    pub output_bytes: u64,
    /// Host function -> calls: every one that was called, the host's own (`dovetail:vision/faces.detector.detect`) and
    /// WASI's (`wasi:clocks/wall-clock.now`). That a handle is dropped is none.
    pub host_calls: BTreeMap<String, u64>,
}

/// One line that the guest logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// Microseconds since the attempt began.
    pub at_us: u64,
    /// `trace`, `debug`, `info`, `warn` or `error`; standard output is `info`, standard error `warn`.
    pub level: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, Value>,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    pub outcome: Outcome,
    pub usage: Usage,
    /// In the order of their first use.
    pub models: Vec<ModelUse>,
    /// What the host found odd and worked with all the same (a picture whose file is damaged): for the reader of the
    /// run. Sentences, a bounded number of them.
    pub warnings: Vec<String>,
    pub log: Vec<LogLine>,
    /// Lines that the log's limit dropped.
    pub log_dropped: u64,
}

/// Code of a failed step whose job names an artifact that is not stored.
pub const MISSING_ARTIFACT: &str = "missing_artifact";
/// Code of a failed step whose job names a package that is not stored.
pub const MISSING_PACKAGE: &str = "missing_package";

/// The host could not make the attempt; the task is not to blame.
#[derive(Debug, thiserror::Error)]
#[error("{operation}")]
pub struct HostError {
    /// What was tried (`load package sha256:...`).
    pub operation: String,
    /// Whether trying again may help.
    pub transient: bool,
    /// The code of a failure of the job, where the job names something that its store does not have. No worker can
    /// make the attempt then, and none of them is at fault.
    pub missing: Option<&'static str>,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl HostError {
    /// What the system refused this process, if that is the cause.
    #[must_use]
    pub fn scarce(&self) -> Option<Scarce> {
        Scarce::behind(self.source.as_deref()?)
    }
}

/// Runs one attempt. Blocking, on the caller's own OS thread.
pub trait Executor: Send + Sync {
    /// Makes the attempt and says what came of it. Artifacts it wrote are stored before this returns.
    ///
    /// # Errors
    /// Only for what is the host's own fault.
    fn execute(&self, attempt: &Attempt, stop: &Stop) -> Result<Report, HostError>;

    /// Gets a package ready, so that the first attempt at a step of it need not wait for its bytes or for the compiler.
    /// Best effort: what cannot be had now is told when it is needed.
    fn prepare(&self, package: &Digest) {
        let _: &Digest = package;
    }

    /// The models that this executor would open for these kinds, and those that they use in turn. A kind of which it
    /// has no model is left out.
    ///
    /// # Errors
    /// If the installed models cannot be read.
    fn choose_models(&self, kinds: &[&str]) -> Result<Models, HostError> {
        let _: &[&str] = kinds;
        Ok(Models::new())
    }
}
