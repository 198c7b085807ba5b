//! Documents about pipelines.

use std::collections::BTreeSet;

use dovetail_core::Digest;
use dovetail_core::pipeline::{Checked, Code, Finding, Pipeline, Severity};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The output of `dovetail pipeline check --output json`. The exit code is 1 if there are errors, else 0.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "Findings in a pipeline file", extend("$id" = "urn:dovetail:check:1"))]
pub struct CheckDocument {
    /// The errors. Without errors the pipeline can be published.
    pub errors: Vec<FindingDocument>,
    pub warnings: Vec<FindingDocument>,
    /// The number of findings that are left out. At most 200 are listed, errors first. Absent if none is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub omitted: Option<usize>,
}

impl CheckDocument {
    /// The document of a check.
    #[must_use]
    pub fn of(checked: &Checked) -> Self {
        let of =
            |severity| checked.findings.iter().filter(|f| f.severity == severity).map(FindingDocument::of).collect();
        Self {
            errors: of(Severity::Error),
            warnings: of(Severity::Warning),
            omitted: Some(checked.omitted).filter(|n| *n > 0),
        }
    }
}

/// An error or a warning about a pipeline file.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FindingDocument {
    /// A stable name in snake_case.
    #[schemars(with = "String", regex(pattern = "^[a-z][a-z0-9_]*$"))]
    pub code: Code,
    /// The description of the error or warning.
    pub message: String,
    /// The place as a JSON Pointer into the file; empty for the whole file.
    #[schemars(regex(pattern = "^(/.*)?$"))]
    pub path: String,
    /// The line in the file, from 1.
    #[schemars(range(min = 1))]
    pub line: u32,
    /// The column in characters, from 1.
    #[schemars(range(min = 1))]
    pub column: u32,
    /// The values that the message mentions, by name.
    pub details: Map<String, Value>,
    /// What to do about the finding; absent if the message says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl FindingDocument {
    pub(crate) fn of(finding: &Finding) -> Self {
        Self {
            code: finding.code,
            message: finding.message.clone(),
            path: finding.pointer.clone(),
            line: finding.line,
            column: finding.column,
            details: finding.details.clone(),
            help: finding.help.clone(),
        }
    }
}

/// The output of `dovetail pipeline push --output json`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "A published pipeline", extend("$id" = "urn:dovetail:pushed-pipeline:1"))]
pub struct PushedPipeline {
    #[serde(flatten)]
    pub check: CheckDocument,
    /// NAME@VERSION
    pub pipeline: String,
    /// The revision, from 1. Each revision pins exact plugins.
    pub revision: u32,
    /// False if the same pipeline was published before.
    pub created: bool,
}

/// The output of `dovetail pipeline update --output json`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "An updated pipeline", extend("$id" = "urn:dovetail:updated-pipeline:1"))]
pub struct UpdatedPipeline {
    #[serde(flatten)]
    pub check: CheckDocument,
    /// NAME@VERSION
    pub pipeline: String,
    pub revision: u32,
    /// Whether there is a new revision.
    pub updated: bool,
    /// A line for each plugin that changes.
    pub differences: Vec<String>,
}

/// A pipeline in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PipelineSummary {
    /// NAME@VERSION
    pub pipeline: String,
    pub revision: u32,
    pub description: Option<String>,
    pub steps: Vec<PinnedStep>,
}

/// A step, and the plugin that it is pinned to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PinnedStep {
    /// The step's ID in documents, such as `face_detection_001`.
    pub id: String,
    /// The name of the step in the pipeline.
    pub step: String,
    /// NAME@VERSION
    pub task: String,
    pub package: Digest,
}

/// The output of `dovetail pipeline show --output json`: the record `dovetail.pipeline/1`, and its revision.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "The record of a published pipeline", extend("$id" = "urn:dovetail:pipeline-record:1"))]
pub struct PipelineDocument {
    #[serde(flatten)]
    pub pipeline: Pipeline,
    pub revision: u32,
}

/// The output of `dovetail pipeline show --capabilities --output json`: the grants and models that a pipeline's tasks
/// use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Grants and models of a pipeline's steps", extend("$id" = "urn:dovetail:capabilities:1"))]
pub struct CapabilitiesDocument {
    /// NAME@VERSION
    pub pipeline: String,
    pub revision: u32,
    /// The grants of all steps.
    pub grants: BTreeSet<String>,
    pub steps: Vec<StepCapabilities>,
}

/// The capabilities that a step asks of its worker: grants, and required models by name or by kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepCapabilities {
    /// The step's ID in documents, such as `face_detection_001`.
    pub id: String,
    /// The name of the step in the pipeline.
    pub step: String,
    /// NAME@VERSION
    pub task: String,
    pub grants: Vec<String>,
    pub models: Vec<String>,
    /// Kinds of models of which the step needs any one.
    pub model_kinds: Vec<String>,
}

/// The output of `dovetail pipeline graph --output json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "A drawing of a pipeline", extend("$id" = "urn:dovetail:graph:1"))]
pub struct GraphDocument {
    /// NAME@VERSION
    pub pipeline: String,
    /// The drawing, as text or in Mermaid.
    pub graph: String,
}
