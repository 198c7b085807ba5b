//! Documents about a machine or a fleet: models, workers, `doctor`, `gc`.

use dovetail_core::Digest;
use dovetail_core::keys::Capability;
use dovetail_core::vision::{Model, ModelKind};
use dovetail_core::worker_status::WorkerStatus;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelDocument {
    pub name: String,
    pub kind: ModelKind,
    /// Other names of the model.
    pub aliases: Vec<String>,
    /// The digest of the installed model.
    pub digest: Digest,
    /// The labels of an emotion classifier, in the order of its probabilities; empty for other kinds.
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
    /// Where the model comes from, according to its manifest.
    pub source: Option<String>,
    /// The licence, according to the model's manifest.
    pub license: Option<String>,
    /// The total size of the model's files.
    pub bytes: u64,
}

/// The result of installing a model: `dovetail models add --output json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "An installed model", extend("$id" = "urn:dovetail:installed-model:1"))]
pub struct InstalledModel {
    #[serde(flatten)]
    pub model: ModelDocument,
    /// False if the model was installed before.
    pub installed: bool,
    /// True if the model was installed before, and a damaged or missing file was replaced.
    pub repaired: bool,
}

/// The pinned library of an engine in the data folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InstalledEngine {
    /// `onnxruntime`
    pub name: String,
    pub version: String,
    /// The path of the library.
    pub library: String,
    /// The digest of the library.
    pub digest: Digest,
    /// False if the library was installed before.
    pub installed: bool,
}

/// The output of `dovetail models pull --output json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "The default models", extend("$id" = "urn:dovetail:pulled-models:1"))]
pub struct PulledModels {
    /// The models of the package; empty if all were installed and no package was needed.
    pub models: Vec<InstalledModel>,
    /// The library of ONNX Runtime; null if it is not installed, so that networks run in OpenCV, or if the settings
    /// name another library.
    pub engine: Option<InstalledEngine>,
    /// The paths of copied photographs.
    pub photographs: Vec<String>,
    /// Always true.
    pub complete: bool,
}

/// A living worker: `dovetail workers list --output json` prints a list of these.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerDocument {
    #[serde(flatten)]
    pub status: WorkerStatus,
    /// The worker's name, as in the records.
    pub name: String,
}

impl WorkerDocument {
    /// The number of models that the worker has. The heartbeat of an earlier version has no such number; then the
    /// capabilities are counted, which include aliases.
    #[must_use]
    pub fn models(&self) -> usize {
        let is_model =
            |name: &&String| matches!(Capability::parse(name), Capability::Model(_) | Capability::ExactModel { .. });
        self.status.models.unwrap_or_else(|| self.status.able.iter().filter(is_model).count())
    }

    /// The grants that the worker's tasks can have.
    pub fn grants(&self) -> impl Iterator<Item = &str> {
        let is_grant = |name: &&String| matches!(Capability::parse(name), Capability::Grant(_));
        self.status.able.iter().filter(is_grant).map(String::as_str)
    }
}

/// The output of `dovetail doctor --output json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Checks of a machine and its fleet", extend("$id" = "urn:dovetail:doctor:1"))]
pub struct DoctorDocument {
    /// True if no check found a problem.
    pub ok: bool,
    pub checks: Vec<DoctorCheck>,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DoctorCheck {
    /// The subject of the check, such as `data folder`.
    pub what: String,
    /// False for a problem.
    pub ok: bool,
    /// True if the subject works but should be changed.
    pub warning: bool,
    /// What the check found.
    pub found: String,
    /// What to do about the problem or the warning; empty if there is nothing to do.
    pub remedy: String,
}

/// The version of [`GcDocument`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GcFormat {
    #[serde(rename = "dovetail.gc/1")]
    V1,
}

/// The output of `dovetail gc --output json`: what was removed, or with `dry_run` what would be removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Removed runs, blobs and compiled code", extend("$id" = "urn:dovetail:gc:1"))]
#[serde(deny_unknown_fields)]
pub struct GcDocument {
    pub format: GcFormat,
    pub dry_run: bool,
    /// The number of runs that ended longer ago than --keep-runs.
    pub runs: u64,
    /// The number of records of these runs.
    pub records: u64,
    /// Blobs that no record refers to, by kind.
    pub blobs: RemovedBlobs,
    /// The size of incomplete blobs, whose writers were killed.
    pub unfinished_bytes: u64,
    /// Compiled code that was not used for --keep-compiled.
    pub compiled: Amount,
}

/// Removed blobs, by kind.
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

/// The number of files, and their total size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Amount {
    pub number: u64,
    pub bytes: u64,
}
