//! The port to the runtime. It takes one attempt at one task, and returns a typed outcome and the resources that the
//! attempt used.
//!
//! A guest's failure is a value ([`Outcome::Failed`]). The host's own failure is an error ([`HostError`]), and is not
//! charged to the attempt.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{Digest, RunId};
use crate::keys::NodeId;
use crate::limits::Limits;
use crate::required_engine::RequiredEngine;
use crate::scarce::Scarce;
use crate::stop::Stop;
use crate::vision::Engine;

/// One attempt to be made.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The run that the step belongs to.
    pub run: RunId,
    /// The step of the run.
    pub step: NodeId,
    /// The number of the attempt; 1 for the first.
    pub number: u32,
    /// The digest of the plugin's package.
    pub package: Digest,
    /// The same key for every attempt at this step of the run.
    pub idempotency_key: String,
    /// The input record as JSON, already checked against the task's input type. Artifacts are references.
    pub input: Value,
    /// For each input field, the unique ID of the value that feeds it (`output_001_faces_array`). A field that is fed
    /// by a literal or a default has no entry.
    pub origins: BTreeMap<String, String>,
    /// The limits in force: those of the manifest, within the host's maxima and the step's timeout.
    pub limits: Limits,
    /// The models that were chosen for the run. If the task opens any model of a kind, it gets the chosen model, and no
    /// other. For a kind without an entry, the executor chooses. An attempt whose networks ran in another engine than
    /// the required one is the host's failure.
    pub models: Models,
}

/// How a step or an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Outcome {
    /// With an output record.
    Succeeded {
        /// The output record as JSON.
        output: Value,
    },
    /// Without an output.
    Failed {
        /// The reason.
        failure: Failure,
    },
}

/// Why an attempt failed: the guest's own error, or the reason for which the host stopped the guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// The kind of failure, from which the failure policy decides.
    pub kind: FailureKind,
    /// A stable code in snake_case: the task's own (`no_face_found`) or the host's (`out_of_memory`, `timeout`, ...).
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// Whether the same input may succeed later.
    pub retryable: bool,
    /// The shortest delay after which a retry is useful, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Details for programs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, Value>,
    /// Frames of the guest, the innermost first; or, for a panic, its file and line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backtrace: Vec<String>,
}

/// The closed set of failures that the failure policy distinguishes. A cancellation is never retried.
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
    /// The attempt took longer than its time limit. Retried.
    Timeout,
    /// The guest broke a rule of WebAssembly (unreachable, out of bounds) or forged a handle. Never retried.
    Trap,
    /// The guest panicked. Never retried.
    Panic,
    /// The attempt exceeded a limit other than time. Never retried.
    Limit,
    /// The output cannot be recorded (too large, not UTF-8). Never retried.
    BadOutput,
    /// The worker died while the attempt ran. Retried, and counted separately.
    LostWorker,
}

impl Failure {
    /// Whether the kind of failure permits another attempt. The number of attempts is not considered.
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

/// A model that an attempt used; part of the lineage.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct ModelUse {
    /// The name of the model.
    pub name: String,
    /// The digest of the model's file.
    pub digest: Digest,
    /// The engine that ran the model's network. Absent for a model without a network, for a model that no operation
    /// used, in records of earlier versions, and in the choice of models for a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
}

impl ModelUse {
    /// The model with this name and digest, which no engine has run.
    pub fn new(name: impl Into<String>, digest: Digest) -> Self {
        Self { name: name.into(), digest, engine: None }
    }
}

/// For each kind of model ([`crate::vision::ModelKind::name`]), one model.
pub type ModelsByKind = BTreeMap<String, ModelUse>;

/// The models and the engine that were chosen for a run. The same for all its steps and all its generations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Models {
    /// The chosen models.
    pub by_kind: ModelsByKind,
    /// The engine that must run the networks of all models, also of those that a task opens by name. `None`: each
    /// worker uses its own engine.
    pub engine: Option<RequiredEngine>,
}

impl Models {
    /// Nothing is chosen.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing is chosen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_kind.is_empty() && self.engine.is_none()
    }

    /// The chosen model of this kind.
    #[must_use]
    pub fn get(&self, kind: &str) -> Option<&ModelUse> {
        self.by_kind.get(kind)
    }
}

/// The resources that an attempt used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// Wall time in microseconds, from the first instruction of the instance until its output is read. Includes the
    /// time in host functions.
    pub wall_us: u64,
    /// The part of the wall time that was spent in host functions, in microseconds.
    pub host_us: u64,
    /// Processor time of the guest's own code, in microseconds: the time that its thread used, at most the wall time
    /// outside host functions. It is less than that on a machine that is busy with other work.
    #[serde(default)]
    pub guest_cpu_us: u64,
    /// The most linear memory that was held at one time, in bytes.
    pub peak_memory: u64,
    /// Size of the input as JSON, in bytes. Artifacts count as references.
    #[serde(default)]
    pub input_bytes: u64,
    /// Size of the output as JSON, in bytes.
    pub output_bytes: u64,
    /// The number of calls of each host function: the host's own (`dovetail:vision/faces.detector.detect`) and WASI's
    /// (`wasi:clocks/wall-clock.now`). Dropping a handle does not count as a call.
    pub host_calls: BTreeMap<String, u64>,
}

/// A line that the guest logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// Microseconds since the attempt began.
    pub at_us: u64,
    /// `trace`, `debug`, `info`, `warn` or `error`. Standard output is `info`, standard error is `warn`.
    pub level: String,
    /// The text.
    pub message: String,
    /// The fields that the guest gave with the line.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, Value>,
}

/// The result of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// How the attempt ended.
    pub outcome: Outcome,
    /// What the attempt used.
    pub usage: Usage,
    /// The models that were used, in the order of their first use.
    pub models: Vec<ModelUse>,
    /// Sentences for the reader of the run about inputs that the host accepted although something is wrong with them,
    /// such as a damaged image file. Their number is bounded.
    pub warnings: Vec<String>,
    /// The lines that the guest logged, in order.
    pub log: Vec<LogLine>,
    /// The number of lines that were dropped because of the log's limit.
    pub log_dropped: u64,
}

/// The failure code of a step whose job names an artifact that is not stored.
pub const MISSING_ARTIFACT: &str = "missing_artifact";
/// The failure code of a step whose job names a package that is not stored.
pub const MISSING_PACKAGE: &str = "missing_package";

/// The host could not make the attempt. The task is not at fault.
#[derive(Debug, thiserror::Error)]
#[error("{operation}")]
pub struct HostError {
    /// What was tried (`load package sha256:...`).
    pub operation: String,
    /// Whether trying again may help.
    pub transient: bool,
    /// The failure code for the step, if the job names an object that its store does not have. In that case no worker
    /// can make the attempt, and no worker is at fault.
    pub missing: Option<&'static str>,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl HostError {
    /// The system resource that was refused to this process, if that is the cause.
    #[must_use]
    pub fn scarce(&self) -> Option<Scarce> {
        Scarce::behind(self.source.as_deref()?)
    }
}

/// Runs attempts. Blocks; each attempt runs on the caller's own OS thread.
pub trait Executor: Send + Sync {
    /// Makes the attempt and reports its result. Artifacts that the task wrote are stored before this returns.
    ///
    /// # Errors
    /// Only if the host itself failed.
    fn execute(&self, attempt: &Attempt, stop: &Stop) -> Result<Report, HostError>;

    /// Prepares a package, so that the first attempt at one of its steps waits neither for the package's bytes nor for
    /// the compiler. Best effort: an error is reported by the attempt that needs the package.
    fn prepare(&self, package: &Digest) {
        let _: &Digest = package;
    }

    /// The models that this executor would open for these kinds, and the models that those use in turn. A kind without
    /// an installed model has no entry.
    ///
    /// # Errors
    /// If the installed models cannot be read.
    fn choose_models(&self, kinds: &[&str]) -> Result<ModelsByKind, HostError> {
        let _: &[&str] = kinds;
        Ok(ModelsByKind::new())
    }
}
