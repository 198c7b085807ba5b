//! Documents about tasks.

use std::collections::BTreeMap;

use dovetail_core::Digest;
use dovetail_core::executor::{Failure, LogLine, ModelUse, Usage};
use dovetail_core::keys::VersionKey;
use dovetail_core::limits::Limits;
use dovetail_core::manifest::Grant;
use dovetail_core::vision::ModelKind;
use dovetail_core::wit::{Field, Signature, schema, snake};
use schemars::JsonSchema;
use semver::Version;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The output of `dovetail task check --output json`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "The inspection of a plugin", extend("$id" = "urn:dovetail:task-check:1"))]
#[serde(untagged)]
pub enum TaskCheck {
    Accepted(Box<AcceptedTask>),
    Refused(RefusedTask),
}

/// A plugin that can be published.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct AcceptedTask {
    /// Always true.
    #[schemars(extend("const" = true))]
    pub accepted: bool,
    pub name: String,
    pub version: Version,
    pub description: String,
    /// The SPDX expression in the manifest.
    pub license: Option<String>,
    /// The digest of the package that would be published.
    pub package: Digest,
    /// Whether the same input gives the same output: the component imports no clock, randomness or network.
    pub pure: bool,
    pub imports: Vec<ImportDocument>,
    /// The models that the task requires, according to its manifest; null if the manifest does not say.
    pub models: Option<Vec<String>>,
    /// The kinds of models that the component opens.
    pub model_kinds: Vec<ModelKind>,
    pub signature: SignatureDocument,
    pub limits: Limits,
    /// The grants that the manifest asks for.
    pub grants: BTreeMap<String, Grant>,
    pub sizes: TaskSizes,
    /// Always empty.
    pub errors: Vec<TaskFinding>,
}

/// A plugin that is refused.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RefusedTask {
    /// Always false.
    #[schemars(extend("const" = false))]
    pub accepted: bool,
    /// The reasons, at least one.
    pub errors: Vec<TaskFinding>,
}

/// A reason to refuse a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TaskFinding {
    /// A stable name in snake_case.
    pub code: &'static str,
    pub message: String,
    /// What to do about the finding.
    pub help: String,
    /// `plugin.toml`, if the place is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<&'static str>,
    /// The line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The column in characters, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
}

impl TaskFinding {
    pub(crate) fn new(code: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: help.into(), path: None, line: None, column: None }
    }

    /// The finding with its line and column in `plugin.toml`.
    pub(crate) fn at(self, place: Option<(u32, u32)>) -> Self {
        let (line, column) = place.unzip();
        Self { path: place.map(|_| "plugin.toml"), line, column, ..self }
    }
}

/// An interface that a component imports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ImportDocument {
    pub name: String,
    /// `host`, `inert`, `granted:GRANT` or `refused`.
    pub class: String,
}

/// Sizes of a plugin, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TaskSizes {
    pub package: usize,
    pub component: u64,
    /// The compiled code.
    pub code: u64,
    /// The linear memory of a new instance.
    pub initial_memory: Option<u64>,
}

/// The input and output types of a task.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SignatureDocument {
    /// `acme:face-count/task@1.2.0`
    pub interface: String,
    pub input: Vec<FieldDocument>,
    pub output: Vec<FieldDocument>,
    /// A JSON Schema of the input record.
    pub input_schema: Value,
    /// A JSON Schema of the output record.
    pub output_schema: Value,
}

/// A field of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FieldDocument {
    /// The name in snake_case, as in JSON.
    pub name: String,
    /// The type in WIT.
    #[serde(rename = "type")]
    pub ty: String,
}

impl SignatureDocument {
    pub(crate) fn of(signature: &Signature) -> Self {
        let fields = |fields: &[Field]| {
            fields.iter().map(|f| FieldDocument { name: snake(&f.name), ty: f.ty.to_string() }).collect()
        };
        Self {
            interface: signature.interface.clone(),
            input: fields(&signature.input),
            output: fields(&signature.output),
            input_schema: schema::record("input", &signature.input),
            output_schema: schema::record("output", &signature.output),
        }
    }
}

/// The output of `dovetail task pack --output json`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "A package", extend("$id" = "urn:dovetail:packed-task:1"))]
pub struct PackedTask {
    /// The path of the package. A byte that is not UTF-8 is written as `\xe9`.
    pub file: String,
    pub name: String,
    pub version: Version,
    pub package: Digest,
    pub bytes: usize,
}

/// The output of `dovetail task push --output json` for each plugin.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "A published task", extend("$id" = "urn:dovetail:pushed-task:1"))]
pub struct PushedTask {
    pub name: String,
    pub version: Version,
    pub package: Digest,
    /// False if the same package was published before.
    pub created: bool,
    /// True if the stored package was damaged or missing, and was stored again.
    pub repaired: bool,
}

impl PushedTask {
    /// The name and the version: `face-detection@1.0.0`.
    #[must_use]
    pub fn reference(&self) -> String {
        VersionKey::new(&self.name, &self.version).to_string()
    }
}

/// A task in a list.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct TaskSummary {
    pub name: String,
    pub version: Version,
    pub description: String,
    pub package: Digest,
    /// Whether the same input gives the same output.
    pub pure: bool,
    /// The grants that the task got when it was published.
    pub grants: BTreeMap<String, Grant>,
}

/// The output of `dovetail task show --output json`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "A published task with its types", extend("$id" = "urn:dovetail:task:1"))]
pub struct TaskDocument {
    #[serde(flatten)]
    pub summary: TaskSummary,
    pub limits: Limits,
    pub signature: SignatureDocument,
}

/// The version of [`TaskRun`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TaskRunFormat {
    #[serde(rename = "dovetail.task_run/1")]
    V1,
}

/// How a single attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskRunState {
    Succeeded,
    Failed,
}

/// The output of `dovetail task run --output json`: one attempt of a single task. Nothing is recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "dovetail.task_run/1", extend("$id" = "urn:dovetail:task-run:1"))]
pub struct TaskRun {
    pub format: TaskRunFormat,
    /// NAME@VERSION
    pub task: String,
    pub package: Digest,
    pub state: TaskRunState,
    /// Null if the attempt failed.
    #[schemars(extend("type" = ["object", "null"]))]
    pub output: Value,
    /// Null if the attempt succeeded.
    pub error: Option<Failure>,
    pub usage: Usage,
    /// The models that the attempt opened, in the order of their first use.
    pub models: Vec<ModelUse>,
    pub warnings: Vec<String>,
    pub log: Vec<LogLine>,
    /// The number of log lines that were dropped because of the limit.
    pub log_dropped: u64,
    /// The paths of the files that `--save` wrote.
    pub saved: Vec<String>,
}
