//! The types of the documents about runs: `dovetail.run/1`, `dovetail.lineage/1`, entries of lists, logs.
//!
//! Each document is printed as JSON in the order of its fields. Users' scripts read these documents, so no key is
//! removed or renamed; later versions may add keys. The JSON Schemas are made from these types and their docstrings.

use std::collections::BTreeMap;

use dovetail_core::executor::{Failure, FailureKind, LogLine, ModelUse, Usage};
use dovetail_core::keys::NodeId;
use dovetail_core::{Digest, RunId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Open, and nobody works on a step of the run.
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

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// The step needs the output of another step that has not succeeded.
    Blocked,
    /// The step waits in the queue.
    Ready,
    /// A worker has the step.
    Running,
    Succeeded,
    Failed,
    /// The run ended while the step ran.
    Stopped,
    /// The run ended before the step could start.
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
    /// How often the run had been run again by `dovetail runs retry`: 0 for what was submitted. `runs show RUN@0`
    /// shows an earlier generation.
    pub generation: u32,
    /// NAME@VERSION
    #[schemars(regex(pattern = r"^[a-z][a-z0-9-]*@[0-9]+\.[0-9]+\.[0-9]+"))]
    pub pipeline: String,
    pub state: RunStatus,
    /// The checked inputs with their defaults; files by reference.
    #[schemars(extend("type" = "object"))]
    pub inputs: Value,
    /// As the pipeline declares it; null unless the run succeeded.
    #[schemars(extend("type" = ["object", "null"]))]
    pub output: Value,
    pub processing_summary: ProcessingSummary,
    pub submitted_at: Timestamp,
    /// When the first attempt of the run began.
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// What was odd and did not fail the run. Each warning names its step, picture or cause.
    pub warnings: Vec<String>,
    /// Only of a run that failed or was cancelled by a failure.
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
    /// From the first submission to the run's outcome, in seconds: `0.41s`. The time in the queue is part of it. Of a
    /// run that was run again, so is everything since its submission. Null before the outcome.
    #[schemars(regex(pattern = r"^[0-9]+\.[0-9]{2}s$"))]
    pub total_time: Option<String>,
    /// The same in milliseconds.
    pub total_time_ms: Option<u64>,
    /// What running steps side by side saved. The durations of the attempts at steps that could run side by side (those
    /// of one stage of the pipeline, two or more), together, over the time in which at least one of them ran: the time
    /// for which they waited in between is not in it. 1 if nothing was saved, or if the pipeline has no such stage.
    /// Null before the run is over, and if fewer than two steps of a stage ran.
    pub parallel_speedup: Option<f64>,
    /// `face_detection -> output_001_faces_array`, `output_001_faces_array -> input_002_faces_array`, ...: what has
    /// happened. The list is complete once the run has succeeded.
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
    /// When the step's first attempt began, in milliseconds after the submission.
    pub started_ms: Option<u64>,
    /// Of all attempts together.
    pub duration_ms: Option<u64>,
    /// The models that took part, in the order of their first use.
    pub models: Vec<ModelUse>,
    /// Those recorded so far, the first one first.
    pub attempts: Vec<AttemptDocument>,
    /// Only of a step on which somebody works: the worker. Null if that is a program that runs its own runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Option<String>>,
    /// Only of a step that is ready and that no living worker may run: the capabilities that it needs. A grant by its
    /// name, `model:NAME`, `model_kind:KIND`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<Vec<String>>,
    /// Only if there are some: lines of its log over the limit.
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
    /// What the attempt used. A record of an earlier version lacks some of it.
    pub usage: Usage,
    pub models: Vec<ModelUse>,
    /// The process that made the attempt.
    pub worker: String,
    /// Only if there are some: files that were damaged and could be read all the same (`picture NAME: libjpeg warned:
    /// ...`), each picture once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Only if it is not 0: how many workers had this attempt in hand before, and died or were not heard of any more.
    /// What they used is in no usage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub lost_workers: Option<u32>,
}

/// Why a run failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunError {
    /// Stable and snake_case. `timeout`: the time was over.
    #[schemars(regex(pattern = "^[a-z][a-z0-9_]*$"))]
    pub code: String,
    pub message: String,
    /// The name of the step whose failure ended the run.
    pub step: Option<String>,
    /// Its ID: `face_detection_001`
    pub id: Option<String>,
    /// The attempt that failed last.
    #[schemars(range(min = 1))]
    pub attempt: Option<u32>,
    pub kind: FailureKind,
    /// The same input may succeed later.
    pub retryable: bool,
    /// For machines.
    pub details: BTreeMap<String, Value>,
    /// Frames of the guest, the innermost first, or the panic's file and line.
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
    /// From submission to end; null before the end.
    pub total_time_ms: Option<u64>,
}

/// What one step logged in its last attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepLog {
    /// The name of the step in the pipeline.
    pub step: String,
    /// `face_detection_001`
    pub id: String,
    pub lines: Vec<LogLine>,
    /// Lines over the limit.
    pub dropped: u64,
}

/// The version of [`LineageDocument`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LineageFormat {
    #[serde(rename = "dovetail.lineage/1")]
    V1,
}

/// Field-level lineage of a run, as `dovetail runs lineage --output json` prints it: for every step the values that
/// went in and came out, with digests, and what computed them.
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

/// What computed a step's outputs, and from which values.
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
    /// The attempt that gave the outputs.
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
    /// The value that it came from: `RUN/output_001_faces_array`. Null for a literal of the pipeline.
    pub origin: Option<String>,
    /// Of the value as canonical JSON.
    pub digest: Digest,
}

/// A value that a step produced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProducedValue {
    /// `RUN/output_001_faces_array`
    pub output: String,
    /// Of the value as canonical JSON.
    pub digest: Digest,
    /// The inputs that took the value.
    pub consumers: Vec<String>,
}

/// A connection of the pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LineageEdge {
    pub from: String,
    pub to: String,
}
