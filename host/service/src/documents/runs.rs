//! Documents about submitted runs, about several runs, and about the demo.

use dovetail_core::RunId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ErrorBody, RunDocument};

/// A submitted run that the command does not wait for: `dovetail run --detach --output json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "A submitted run", extend("$id" = "urn:dovetail:submitted:1"))]
pub struct SubmittedRun {
    pub run_id: RunId,
}

/// A submitted run, and the file that it was submitted for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SubmittedFile {
    pub run_id: RunId,
    /// The path of the file. A byte that is not UTF-8 is written as `\xe9`.
    pub file: Option<String>,
}

/// The output of `dovetail run --each --detach --output json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Submitted runs", extend("$id" = "urn:dovetail:submitted-files:1"))]
pub struct SubmittedFiles {
    pub runs: Vec<SubmittedFile>,
    /// Why not all files were submitted; absent if all were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
}

/// The output of `dovetail runs cancel --output json` for each run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "A cancelled run", extend("$id" = "urn:dovetail:cancelled:1"))]
pub struct CancelledRun {
    pub run_id: RunId,
    /// False if the run was already over.
    pub cancelled: bool,
}

/// The output of `dovetail run --each --output json`, and of `dovetail runs resume --output json` for several runs.
/// Later versions may add keys, and never remove one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Several runs", extend("$id" = "urn:dovetail:runs:1"))]
pub struct RunsDocument {
    /// In the order of the files, of the named runs, or of submission.
    pub runs: Vec<RunDocument>,
    pub summary: RunsSummary,
    /// Why not all runs were submitted or finished: the host failed, or files or runs were refused. Absent if all were.
    /// The exit code is 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
}

/// The number of runs in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunsSummary {
    /// The number of all runs.
    pub total: usize,
    pub succeeded: usize,
    pub failed: usize,
    pub cancelled: usize,
    /// The number of submitted runs that are not over. `dovetail runs resume --all` continues them.
    pub open: usize,
    /// The number of files for which no run was submitted, because of an interruption or an error.
    pub not_submitted: usize,
    /// The duration of the command.
    pub total_time_ms: u64,
}

/// The output of `dovetail demo --output json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "The face pipeline on a folder of photographs", extend("$id" = "urn:dovetail:demo:1"))]
pub struct DemoDocument {
    /// One run for each photograph, in the order of their names.
    pub runs: Vec<RunDocument>,
    pub summary: DemoSummary,
}

/// The totals of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DemoSummary {
    pub photographs: usize,
    /// The number of faces that were found.
    pub faces: usize,
    /// The number of runs that did not succeed.
    pub failed: usize,
    /// The duration of the command.
    pub total_time_ms: f64,
}
