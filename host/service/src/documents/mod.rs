//! The answers of the service as documents. Each JSON that a front door gives is one of these types, or one of
//! [`dovetail_flow::documents`], with its keys in the order of the fields. [`SCHEMAS`] has their JSON Schemas, which
//! are stored as files in `schemas/`.
//!
//! Users write programs against these documents: no key is ever removed or renamed; later versions may add keys.

mod machine;
mod pipelines;
mod runs;
mod schema;
mod tasks;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use dovetail_core::executor::{LogLine, ModelUse, Usage};
pub use dovetail_core::pipeline::Severity;
pub use dovetail_core::worker_status::WorkerStatus;
pub use dovetail_flow::documents::{
    AttemptDocument, LineageDocument, ProcessingSummary, RunDocument, RunError, RunStatus, RunSummary, StepDocument,
    StepLineage, StepLog, StepState, Timestamp,
};
pub use machine::{
    Amount, DoctorCheck, DoctorDocument, GcDocument, GcFormat, InstalledEngine, InstalledModel, ModelDocument,
    ModelSummary, PulledModels, RemovedBlobs, WorkerDocument,
};
pub use pipelines::{
    CapabilitiesDocument, CheckDocument, FindingDocument, GraphDocument, PinnedStep, PipelineDocument, PipelineSummary,
    PushedPipeline, StepCapabilities, UpdatedPipeline,
};
pub use runs::{
    CancelledRun, DemoDocument, DemoSummary, RunsDocument, RunsSummary, SubmittedFile, SubmittedFiles, SubmittedRun,
};
pub use schema::{SCHEMAS, Schema};
pub use tasks::{
    AcceptedTask, FieldDocument, ImportDocument, PackedTask, PushedTask, RefusedTask, SignatureDocument, TaskCheck,
    TaskDocument, TaskFinding, TaskRun, TaskRunFormat, TaskRunState, TaskSizes, TaskSummary,
};

/// The output of a command with --output json that fails with exit code 2 (wrong usage; nothing is recorded) or 3 (the
/// host failed).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "An error", extend("$id" = "urn:dovetail:error:1"))]
#[serde(deny_unknown_fields)]
pub struct ErrorDocument {
    pub error: ErrorBody,
}

/// Code, message and remedy of an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ErrorBody {
    /// A stable name in snake_case.
    #[schemars(regex(pattern = "^[a-z][a-z0-9_]*$"))]
    pub code: String,
    /// The failed operation, its place, and the causes.
    pub message: String,
    /// What the user can do about the error.
    pub help: Option<String>,
    /// The values that the message mentions, by name.
    pub details: Map<String, Value>,
}

/// An entry of a list: a record, or the name of a record that cannot be read. Entries that cannot be read come last.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Entry<T, K> {
    Readable(T),
    Unreadable(Unreadable<K>),
}

/// A record that cannot be read: a newer dovetail wrote it, or it is damaged.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Unreadable<K> {
    /// The name of the record.
    #[serde(flatten)]
    pub key: K,
    /// Why the record cannot be read.
    pub unreadable: ErrorBody,
}

/// The name of a run.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RunName {
    pub run_id: String,
}

/// The name of a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PipelineName {
    /// NAME@VERSION
    pub pipeline: String,
}

/// The name of a task.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct TaskName {
    pub name: String,
    pub version: String,
}

/// The name of a model.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ModelName {
    pub name: String,
}
