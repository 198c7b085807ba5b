//! Documents of the submission of runs, of several runs, and of the demo.

use dovetail_core::RunId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ErrorBody, RunDocument};

/// A run that was submitted and that nobody waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "A submitted run", extend("$id" = "urn:dovetail:submitted:1"))]
pub struct SubmittedRun {
    pub run_id: RunId,
}

/// A run that was submitted for one of several files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SubmittedFile {
    pub run_id: RunId,
    /// Its path. A byte that is not UTF-8 is written as `\xe9`.
    pub file: Option<String>,
}

/// What `dovetail run --each --detach --output json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Submitted runs", extend("$id" = "urn:dovetail:submitted-files:1"))]
pub struct SubmittedFiles {
    pub runs: Vec<SubmittedFile>,
    /// Only if not all files were submitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
}

/// What `dovetail runs cancel --output json` prints for each run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "A cancelled run", extend("$id" = "urn:dovetail:cancelled:1"))]
pub struct CancelledRun {
    pub run_id: RunId,
    /// False if the run was over before.
    pub cancelled: bool,
}

/// What `dovetail run --each --output json` prints, and `dovetail runs resume --output json` of several runs. Keys may
/// be added in later versions; those named here stay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Several runs of dovetail", extend("$id" = "urn:dovetail:runs:1"))]
pub struct RunsDocument {
    /// In the order of the files, of the named runs, or of submission.
    pub runs: Vec<RunDocument>,
    pub summary: RunsSummary,
    /// Only if not all was done: the host failed, or some files or runs were refused. Exit code 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
}

/// How many runs came to which end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunsSummary {
    /// All runs.
    pub total: usize,
    pub succeeded: usize,
    pub failed: usize,
    pub cancelled: usize,
    /// Submitted and not over: `dovetail runs resume --all` goes on with them.
    pub open: usize,
    /// Files for which there is no run, after an interruption or an error.
    pub not_submitted: usize,
    /// Of the command.
    pub total_time_ms: u64,
}

/// What `dovetail demo --output json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "The face pipeline on a folder of photographs", extend("$id" = "urn:dovetail:demo:1"))]
pub struct DemoDocument {
    /// One for each photograph, in the order of their names.
    pub runs: Vec<RunDocument>,
    pub summary: DemoSummary,
}

/// What the demo came to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DemoSummary {
    pub photographs: usize,
    pub faces: usize,
    pub failed: usize,
    pub total_time_ms: f64,
}
