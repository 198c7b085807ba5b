//! Documents about this machine and a fleet: models, workers, `doctor`, `gc`.

use dovetail_core::Digest;
use dovetail_core::vision::{Model, ModelKind};
use dovetail_core::worker_status::WorkerStatus;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelDocument {
    pub name: String,
    pub kind: ModelKind,
    /// Other names that the model answers to.
    pub aliases: Vec<String>,
    /// Of the model's file as installed.
    pub digest: Digest,
    /// What an emotion classifier gives probabilities for, in its order; empty for the others.
    pub labels: Vec<String>,
}

impl ModelDocument {
    pub(crate) fn of(model: &Model) -> Self {
        Self {
            name: model.name.clone(),
            kind: model.kind,
            aliases: model.aliases.clone(),
            digest: model.digest,
            labels: model.labels.clone(),
        }
    }
}

/// An installed model in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelSummary {
    #[serde(flatten)]
    pub model: ModelDocument,
    /// Where it comes from, as its manifest says.
    pub source: Option<String>,
    /// As its manifest says.
    pub license: Option<String>,
    /// Of all its files.
    pub bytes: u64,
}

/// A model after it was to be installed: `dovetail models add --output json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "An installed model", extend("$id" = "urn:dovetail:installed-model:1"))]
pub struct InstalledModel {
    #[serde(flatten)]
    pub model: ModelDocument,
    /// False if the model was there before.
    pub installed: bool,
    /// The model was there, and a file of it was damaged or gone.
    pub repaired: bool,
}

/// What `dovetail models pull --output json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "The default models", extend("$id" = "urn:dovetail:pulled-models:1"))]
pub struct PulledModels {
    /// Those that were looked at; none if all are installed.
    pub models: Vec<InstalledModel>,
    /// Paths of photographs that were copied.
    pub photographs: Vec<String>,
    /// True.
    pub complete: bool,
}

/// A living worker: `dovetail workers list --output json` prints a list of these.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerDocument {
    #[serde(flatten)]
    pub status: WorkerStatus,
    /// As in the records.
    pub name: String,
}

/// What `dovetail doctor --output json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Whether this machine has what dovetail needs", extend("$id" = "urn:dovetail:doctor:1"))]
pub struct DoctorDocument {
    /// Whether there is no problem.
    pub ok: bool,
    pub checks: Vec<DoctorCheck>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DoctorCheck {
    pub what: String,
    /// False for a problem.
    pub ok: bool,
    /// It works, and could be better.
    pub warning: bool,
    pub found: String,
    /// What to do about it; empty if there is nothing to do.
    pub remedy: String,
}

/// The version of [`GcDocument`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GcFormat {
    #[serde(rename = "dovetail.gc/1")]
    V1,
}

/// What `dovetail gc --output json` prints; with `dry_run`, what would be removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "What was removed", extend("$id" = "urn:dovetail:gc:1"))]
#[serde(deny_unknown_fields)]
pub struct GcDocument {
    pub format: GcFormat,
    pub dry_run: bool,
    /// That ended longer ago than --keep-runs.
    pub runs: u64,
    /// Of these runs.
    pub records: u64,
    /// By what they were for.
    pub blobs: RemovedBlobs,
    /// Of blobs whose writers were killed while they wrote.
    pub unfinished_bytes: u64,
    /// Native code that nobody used.
    pub compiled: Amount,
}

/// Removed blobs, by what they were for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemovedBlobs {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packages: Option<Amount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<Amount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<Amount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<Amount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs: Option<Amount>,
}

/// How many files, and how long they are together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Amount {
    pub number: u64,
    pub bytes: u64,
}
