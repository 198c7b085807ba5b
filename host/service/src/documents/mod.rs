//! The answers of the service as documents: each JSON that a front door gives is one of these types (or one of
//! [`dovetail_flow::documents`]), printed in the order of its fields. [`schemas`] makes their JSON Schemas, which stand
//! as files in `schemas/`.
//!
//! Others script against them: a key that stands here stays; later versions may add keys.

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
    Amount, DoctorCheck, DoctorDocument, GcDocument, GcFormat, InstalledModel, ModelDocument, ModelSummary,
    PulledModels, RemovedBlobs, WorkerDocument,
};
pub use pipelines::{
    CapabilitiesDocument, CheckDocument, FindingDocument, GraphDocument, PinnedStep, PipelineDocument, PipelineSummary,
    PushedPipeline, StepCapabilities, UpdatedPipeline,
};
pub use runs::{
    CancelledRun, DemoDocument, DemoSummary, RunsDocument, RunsSummary, SubmittedFile, SubmittedFiles, SubmittedRun,
};
pub use schema::{SCHEMAS, Schema, schema, schema_of};
pub(crate) use tasks::grants;
pub use tasks::{
    AcceptedTask, FieldDocument, ImportDocument, PackedTask, PushedTask, RefusedTask, SignatureDocument, TaskCheck,
    TaskDocument, TaskFinding, TaskRun, TaskRunFormat, TaskRunState, TaskSizes, TaskSummary,
};

/// What is printed with --output json when a command could not do what it was told: exit code 2 (wrong usage, nothing
/// is recorded) or 3 (the host failed).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "An error of dovetail", extend("$id" = "urn:dovetail:error:1"))]
#[serde(deny_unknown_fields)]
pub struct ErrorDocument {
    pub error: ErrorBody,
}

/// What is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ErrorBody {
    /// Stable and snake_case.
    #[schemars(regex(pattern = "^[a-z][a-z0-9_]*$"))]
    pub code: String,
    /// What is wrong and where.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The same for machines.
    pub details: Map<String, Value>,
}

/// An entry of a list: a record, or the name of a record that cannot be read. Those that cannot be read stand behind the
/// others.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Entry<T, K> {
    Readable(T),
    Unreadable(Unreadable<K>),
}

/// A record that is there and cannot be read: a newer dovetail wrote it, or it is damaged.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Unreadable<K> {
    #[serde(flatten)]
    pub key: K,
    /// Why it cannot be read.
    pub unreadable: ErrorBody,
}

/// Names a run.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RunName {
    pub run_id: String,
}

/// Names a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PipelineName {
    /// NAME@VERSION
    pub pipeline: String,
}

/// Names a task.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct TaskName {
    pub name: String,
    pub version: String,
}

/// Names a model.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ModelName {
    pub name: String,
}
