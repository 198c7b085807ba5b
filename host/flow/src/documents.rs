//! The types of the documents about runs: `dovetail.run/1`, `dovetail.lineage/1`, entries of lists, logs.
//!
//! Each document is printed as JSON in the order of its fields. Users' scripts read these documents, so no key is
//! removed or renamed; later versions may add keys. The JSON Schemas are made from these types and their docstrings.

use std::collections::BTreeMap;

use dovetail_core::executor::{Failure, FailureKind, LogLine, ModelUse, Usage};
use dovetail_core::keys::{NodeId, RunKey};
use dovetail_core::{Digest, RunId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// The run is open, and no worker executes a step of the run.
    Queued,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

impl RunStatus {
    /// The name of the state in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the run has an outcome, or its cancellation is recorded: its steps may still be stopping.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// The state of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// The step needs the output of another step that has not succeeded.
    Blocked,
    /// The step waits in the queue.
    Ready,
    /// A worker executes the step.
    Running,
    Succeeded,
    Failed,
    /// The run ended while the step ran.
    Stopped,
    /// No attempt was made, and none will be: the run ended before the step could start, or another step had failed
    /// (`on_failure: finish`).
    NotRun,
}

impl StepState {
    /// The name of the state in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::NotRun => "not_run",
        }
    }
}

/// The version of [`RunDocument`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RunFormat {
    #[serde(rename = "dovetail.run/1")]
    V1,
}

/// One run of a pipeline, as `dovetail run --output json` and `dovetail runs show --output json` print it. Keys may be
/// added in later versions; those named here stay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "dovetail.run/1", extend("$id" = "urn:dovetail:run:1"))]
#[schemars(extend("if" = { "properties": { "state": { "const": "failed" } } }, "then" = { "required": ["error"] }))]
pub struct RunDocument {
    pub format: RunFormat,
    pub run_id: RunId,
    /// The number of times that `dovetail runs retry` has run the run again: 0 for the run as submitted. `runs show
    /// RUN@0` shows an earlier generation.
    pub generation: u32,
    /// NAME@VERSION
    #[schemars(regex(pattern = r"^[a-z][a-z0-9-]*@[0-9]+\.[0-9]+\.[0-9]+"))]
    pub pipeline: String,
    pub state: RunStatus,
    /// The checked inputs with their defaults; files by reference.
    #[schemars(extend("type" = "object"))]
    pub inputs: Value,
    /// The output that the pipeline declares; null unless the run succeeded.
    #[schemars(extend("type" = ["object", "null"]))]
    pub output: Value,
    pub processing_summary: ProcessingSummary,
    pub submitted_at: Timestamp,
    /// The time at which the first attempt of the run began.
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// Faults that did not fail the run. Each warning names its step, picture or cause.
    pub warnings: Vec<String>,
    /// Present only if the run failed or a failure cancelled the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
}

/// RFC 3339 in UTC, to the millisecond.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Timestamp(
    #[schemars(regex(pattern = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$"))] pub String,
);

/// Times, lineage and steps of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessingSummary {
    /// The time from the first submission to the run's outcome, in seconds: `0.41s`. It includes the time in the queue
    /// and, after `dovetail runs retry`, the earlier generations and the time between them. Null before the outcome.
    #[schemars(regex(pattern = r"^[0-9]+\.[0-9]{2}s$"))]
    pub total_time: Option<String>,
    /// The total time in milliseconds.
    pub total_time_ms: Option<u64>,
    /// The speed-up by running steps in parallel. The sum of the durations of all attempts at steps that can run in
    /// parallel (steps of a stage of the pipeline with two or more steps), divided by the time in which at least one of
    /// these attempts ran; time in which all of them waited does not count. 1 if no attempts overlapped, or if the
    /// pipeline has no such stage. Null before the run is over, and if fewer than two steps of a stage ran.
    pub parallel_speedup: Option<f64>,
    /// The flow of values so far: `face_detection -> output_001_faces_array`, `output_001_faces_array ->
    /// input_002_faces_array`, ... The list is complete once the run has succeeded.
    #[schemars(inner(regex(pattern = " -> ")))]
    pub data_lineage: Vec<String>,
    pub steps: Vec<StepDocument>,
}

/// A step of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepDocument {
    #[schemars(range(min = 1))]
    pub number: u32,
    /// `face_detection_001`
    #[schemars(regex(pattern = r"^[a-z][a-z0-9_]*_[0-9]{3,}(\[[0-9]+\])*$"))]
    pub id: String,
    /// The step of the run: the name of the step in the pipeline, and indices if the step runs more than once.
    pub step: NodeId,
    /// NAME@VERSION
    #[schemars(regex(pattern = r"^[a-z][a-z0-9-]*@[0-9]+\.[0-9]+\.[0-9]+"))]
    pub task: String,
    /// The package that the pipeline pins.
    pub package: Digest,
    /// `input_001`
    pub input_id: String,
    /// `output_001`
    pub output_id: String,
    pub state: StepState,
    /// The time at which the step's first attempt began, in milliseconds after the submission.
    pub started_ms: Option<u64>,
    /// The duration of all attempts together, in milliseconds.
    pub duration_ms: Option<u64>,
    /// The models that the step used, in the order of their first use.
    pub models: Vec<ModelUse>,
    /// The recorded attempts, oldest first.
    pub attempts: Vec<AttemptDocument>,
    /// The worker that executes the step; absent if no worker does. Null if a program that runs its own runs executes
    /// the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Option<String>>,
    /// The capabilities that the step requires: a grant by its name, `model:NAME`, `model_kind:KIND`. Present only if
    /// the step is ready and no living worker may run the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<Vec<String>>,
    /// The number of log lines that were dropped because of the limit. Absent if no line was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub log_lines_dropped: Option<u64>,
}

/// An attempt at a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptDocument {
    #[schemars(range(min = 1))]
    pub number: u32,
    /// Null if the attempt succeeded.
    pub error: Option<Failure>,
    pub duration_us: u64,
    /// The resources that the attempt used. A record of an earlier version of dovetail lacks some of them.
    pub usage: Usage,
    pub models: Vec<ModelUse>,
    /// The process that ran the attempt.
    pub worker: String,
    /// Damaged files that could still be read (`picture NAME: libjpeg warned: ...`), each picture once. Absent if there
    /// are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The number of workers that claimed this attempt earlier and died or lost contact. The resources that these
    /// workers used are not part of any `usage`. Absent if it is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub lost_workers: Option<u32>,
}

/// Why a run failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunError {
    /// A stable name in snake_case. `timeout`: the time limit was exceeded.
    #[schemars(regex(pattern = "^[a-z][a-z0-9_]*$"))]
    pub code: String,
    pub message: String,
    /// The name of the step whose failure ended the run.
    pub step: Option<String>,
    /// The ID of this step: `face_detection_001`
    pub id: Option<String>,
    /// The number of the last failed attempt.
    #[schemars(range(min = 1))]
    pub attempt: Option<u32>,
    pub kind: FailureKind,
    /// Whether the same input may succeed later.
    pub retryable: bool,
    /// Details for programs.
    pub details: BTreeMap<String, Value>,
    /// Frames of the guest, the innermost first; or, for a panic, its file and line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backtrace: Vec<String>,
}

/// A run in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunSummary {
    pub run_id: RunId,
    /// NAME@VERSION
    pub pipeline: String,
    pub state: RunStatus,
    pub submitted_at: Timestamp,
    /// The time from the submission to the run's outcome, in milliseconds; null before the outcome.
    pub total_time_ms: Option<u64>,
}

/// The log of one step's last attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepLog {
    /// The step of the run: the name of the step in the pipeline, and indices if the step runs more than once.
    pub step: NodeId,
    /// `face_detection_001`
    pub id: String,
    pub lines: Vec<LogLine>,
    /// The number of log lines that were dropped because of the limit.
    pub dropped: u64,
}

/// The version of [`LineageDocument`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LineageFormat {
    #[serde(rename = "dovetail.lineage/1")]
    V1,
}

/// Field-level lineage of a run, as `dovetail runs lineage --output json` prints it: for each step the consumed and
/// produced values with their digests, and the package and models that computed the outputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "dovetail.lineage/1", extend("$id" = "urn:dovetail:lineage:1"))]
pub struct LineageDocument {
    pub format: LineageFormat,
    pub run_id: RunId,
    pub generation: u32,
    /// NAME@VERSION
    pub pipeline: String,
    /// The checked inputs; files by reference.
    #[schemars(extend("type" = "object"))]
    pub inputs: Value,
    /// The steps that have an outcome.
    pub steps: Vec<StepLineage>,
    /// Every connection of the pipeline.
    pub edges: Vec<LineageEdge>,
}

impl LineageDocument {
    /// The reference that the names of this run's values begin with: `RUN`, or `RUN@GENERATION` of a retried run.
    #[must_use]
    pub fn reference(&self) -> String {
        RunKey { run: self.run_id.clone(), generation: self.generation }.reference()
    }
}

/// The package, the models and the consumed values from which a step's outputs were computed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepLineage {
    pub number: u32,
    /// `face_detection_001`
    pub id: String,
    /// The step of the run: the name of the step in the pipeline, and indices if the step runs more than once.
    pub step: NodeId,
    /// NAME@VERSION
    pub task: String,
    pub package: Digest,
    /// The number of the attempt that produced the outputs.
    pub attempt: Option<u32>,
    pub models: Vec<ModelUse>,
    pub consumed: Vec<ConsumedValue>,
    pub produced: Vec<ProducedValue>,
}

/// A value that a step consumed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConsumedValue {
    /// `RUN/input_002_faces_array`
    pub input: String,
    /// The source of the value: `RUN/output_001_faces_array`. Null for a literal of the pipeline.
    pub origin: Option<String>,
    /// The digest of the value as canonical JSON.
    pub digest: Digest,
}

/// A value that a step produced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProducedValue {
    /// `RUN/output_001_faces_array`
    pub output: String,
    /// The digest of the value as canonical JSON.
    pub digest: Digest,
    /// The inputs that consumed the value.
    pub consumers: Vec<String>,
}

/// A connection of the pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LineageEdge {
    pub from: String,
    pub to: String,
}
