//! Documents about pipelines.

use std::collections::BTreeSet;

use dovetail_core::Digest;
use dovetail_core::pipeline::{Checked, Code, Finding, Pipeline, Severity};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What `dovetail pipeline check --output json` prints: exit code 1 if there are errors, else 0.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "What was found in a pipeline file", extend("$id" = "urn:dovetail:check:1"))]
pub struct CheckDocument {
    /// The pipeline can be published if there are none.
    pub errors: Vec<FindingDocument>,
    pub warnings: Vec<FindingDocument>,
    /// How many more there are than the 200 that are told, errors first; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub omitted: Option<usize>,
}

impl CheckDocument {
    /// Of what a check came to.
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
    /// Stable and snake_case.
    #[schemars(with = "String", regex(pattern = "^[a-z][a-z0-9_]*$"))]
    pub code: Code,
    /// What is wrong.
    pub message: String,
    /// Where, as a JSON Pointer into the file; empty for the whole of it.
    #[schemars(regex(pattern = "^(/.*)?$"))]
    pub path: String,
    /// Where in the text, from 1.
    #[schemars(range(min = 1))]
    pub line: u32,
    /// In characters, from 1.
    #[schemars(range(min = 1))]
    pub column: u32,
    /// The same for machines.
    pub details: Map<String, Value>,
    /// What to do about it, if there is something to say.
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

/// What `dovetail pipeline push --output json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "A published pipeline", extend("$id" = "urn:dovetail:pushed-pipeline:1"))]
pub struct PushedPipeline {
    #[serde(flatten)]
    pub check: CheckDocument,
    /// NAME@VERSION
    pub pipeline: String,
    /// Counts from 1; a revision pins exact plugins.
    pub revision: u32,
    /// False if the same pipeline was published before.
    pub created: bool,
}

/// What `dovetail pipeline update --output json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "A pipeline and the newest plugins that its file allows", extend("$id" = "urn:dovetail:updated-pipeline:1"))]
pub struct UpdatedPipeline {
    #[serde(flatten)]
    pub check: CheckDocument,
    /// NAME@VERSION
    pub pipeline: String,
    pub revision: u32,
    /// Whether there is a new revision.
    pub updated: bool,
    /// A line for each plugin that is another one.
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

/// A step with the plugin that it is pinned to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PinnedStep {
    /// `face_detection_001`
    pub id: String,
    /// The name of the step in the pipeline.
    pub step: String,
    /// NAME@VERSION
    pub task: String,
    pub package: Digest,
}

/// What `dovetail pipeline show --output json` prints: the record `dovetail.pipeline/1` with its revision.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "A published pipeline, whole", extend("$id" = "urn:dovetail:pipeline-record:1"))]
pub struct PipelineDocument {
    #[serde(flatten)]
    #[schemars(with = "Map<String, Value>")]
    pub pipeline: Pipeline,
    pub revision: u32,
}

/// What `dovetail pipeline show --capabilities --output json` prints: what the tasks of a pipeline may reach.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "What a pipeline's tasks may reach", extend("$id" = "urn:dovetail:capabilities:1"))]
pub struct CapabilitiesDocument {
    /// NAME@VERSION
    pub pipeline: String,
    pub revision: u32,
    /// Of all steps.
    pub grants: BTreeSet<String>,
    pub steps: Vec<StepCapabilities>,
}

/// What a step asks of its worker: grants, and the models that it cannot do without, by name or by kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepCapabilities {
    /// `face_detection_001`
    pub id: String,
    /// The name of the step in the pipeline.
    pub step: String,
    /// NAME@VERSION
    pub task: String,
    pub grants: Vec<String>,
    pub models: Vec<String>,
    /// Kinds of which any model will do.
    pub model_kinds: Vec<String>,
}

/// What `dovetail pipeline graph --output json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "A pipeline, drawn", extend("$id" = "urn:dovetail:graph:1"))]
pub struct GraphDocument {
    /// NAME@VERSION
    pub pipeline: String,
    /// Text, or Mermaid.
    pub graph: String,
}
