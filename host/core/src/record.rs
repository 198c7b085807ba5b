//! The stored form of each record: JSON with a `format` that names the form and its version. A record of a newer
//! version is refused, and the error names the record.

mod outcome;

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::blobs::{StoreError, StoreErrorKind};
use crate::executor::{Failure, ModelUse, Models, Usage};
use crate::id::Digest;
use crate::keys::NodeId;
use crate::manifest::Grant;
use crate::required_engine::RequiredEngine;

pub use self::outcome::{OutcomeRecord, StepEnd};

/// A stored form of a record, with its name and version.
pub trait Form: Serialize + DeserializeOwned {
    /// Name and version, such as `dovetail.outcome/1`.
    const FORMAT: &'static str;
    /// Later versions of the form, the oldest first. Each is written only for records that the versions before it
    /// cannot hold. So an older dovetail refuses only those records, by name, and still reads all others.
    const EXTENDED: &'static [&'static str] = &[];

    /// The version in which this record is written.
    fn format(&self) -> &'static str {
        Self::FORMAT
    }

    /// The stored bytes.
    ///
    /// # Panics
    /// Never: these types are plain data with string keys.
    fn encode(&self) -> Vec<u8> {
        let tagged = Tagged { format: self.format(), body: self };
        serde_json::to_vec(&tagged).expect("plain data with string keys always serialises")
    }

    /// Parses stored bytes. `what` names the record in errors.
    ///
    /// # Errors
    /// `Newer` for a form that this dovetail does not know; `Corrupt` for bytes that cannot be parsed.
    fn decode(bytes: &[u8], what: &str) -> Result<Self, StoreError> {
        #[derive(Deserialize)]
        struct Head {
            format: String,
        }
        let read = || format!("read the record of {what}");
        // Our own encoder writes `format` first, so most records are parsed once. Any other record is parsed for its
        // format first.
        let ours = bytes.strip_prefix(br#"{"format":""#).and_then(|rest| rest.strip_prefix(Self::FORMAT.as_bytes()));
        if ours.is_some_and(|rest| rest.starts_with(b"\"")) {
            return serde_json::from_slice(bytes).map_err(|e| StoreError::new(StoreErrorKind::Corrupt, read(), e));
        }
        let head: Head =
            serde_json::from_slice(bytes).map_err(|e| StoreError::new(StoreErrorKind::Corrupt, read(), e))?;
        if head.format != Self::FORMAT && !Self::EXTENDED.contains(&head.format.as_str()) {
            let why = format!(
                "its form is `{}`; this dovetail reads `{}`: use the version that wrote it, or a newer one",
                head.format,
                Self::EXTENDED.last().unwrap_or(&Self::FORMAT)
            );
            return Err(StoreError::new(StoreErrorKind::Newer, read(), why));
        }
        serde_json::from_slice(bytes).map_err(|e| StoreError::new(StoreErrorKind::Corrupt, read(), e))
    }
}

#[derive(Serialize)]
struct Tagged<'a, T> {
    format: &'a str,
    #[serde(flatten)]
    body: &'a T,
}

/// A submitted run.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "RunForm")]
pub struct RunRecord {
    /// The key of the pinned pipeline: `name@version#revision`.
    pub pipeline: String,
    /// The checked inputs with their defaults. Artifacts are references. Inputs above
    /// [`crate::limits::MAX_INLINE_VALUE`] are a blob, so that each delivery of one of the run's jobs stays small.
    pub inputs: StoredValue,
    /// The time of submission, in milliseconds since 1970.
    pub submitted_ms: u64,
    /// The models that were chosen at submission. If a kind is missing here, its model is chosen when the first step
    /// that opens such a model starts ([`ModelChoiceRecord`]).
    /// The engine that is required for the run, stored as `engine`, is among them.
    pub models: Models,
}

/// The stored form of a [`RunRecord`]. Version 1 has `inputs`; version 2 has `inputs_blob` instead. Version 3 has
/// either, and `engine`: a version that does not know the requirement must not make jobs of the run.
#[derive(Deserialize)]
struct RunForm {
    pipeline: String,
    #[serde(default)]
    inputs: Value,
    inputs_blob: Option<BlobForm>,
    submitted_ms: u64,
    #[serde(default)]
    models: BTreeMap<String, ModelUse>,
    engine: Option<RequiredEngine>,
}

#[derive(Serialize, Deserialize)]
struct BlobForm {
    digest: Digest,
    bytes: u64,
}

impl From<RunForm> for RunRecord {
    fn from(form: RunForm) -> Self {
        let inputs = match form.inputs_blob {
            Some(BlobForm { digest, bytes }) => StoredValue::Blob { digest, bytes },
            None => StoredValue::Inline(form.inputs),
        };
        let models = Models { by_kind: form.models, engine: form.engine };
        Self { pipeline: form.pipeline, inputs, submitted_ms: form.submitted_ms, models }
    }
}

impl Serialize for RunRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut form = serializer.serialize_struct("RunRecord", 5)?;
        form.serialize_field("pipeline", &self.pipeline)?;
        match &self.inputs {
            StoredValue::Inline(inputs) => form.serialize_field("inputs", inputs)?,
            StoredValue::Blob { digest, bytes } => {
                form.serialize_field("inputs_blob", &BlobForm { digest: *digest, bytes: *bytes })?;
            }
        }
        form.serialize_field("submitted_ms", &self.submitted_ms)?;
        if !self.models.by_kind.is_empty() {
            form.serialize_field("models", &self.models.by_kind)?;
        }
        if let Some(engine) = &self.models.engine {
            form.serialize_field("engine", engine)?;
        }
        form.end()
    }
}

impl Form for RunRecord {
    const FORMAT: &'static str = "dovetail.run_record/1";
    const EXTENDED: &'static [&'static str] = &["dovetail.run_record/2", "dovetail.run_record/3"];

    fn format(&self) -> &'static str {
        match self.inputs {
            _ if self.models.engine.is_some() => "dovetail.run_record/3",
            StoredValue::Inline(_) => Self::FORMAT,
            StoredValue::Blob { .. } => "dovetail.run_record/2",
        }
    }
}

/// The model of a kind that was chosen for a run after its submission. Key: `run:kind`; valid for all generations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelChoiceRecord {
    /// The chosen model.
    pub model: ModelUse,
    /// The time of the choice, in milliseconds since 1970.
    pub chosen_ms: u64,
}

impl Form for ModelChoiceRecord {
    const FORMAT: &'static str = "dovetail.model_choice/1";
}

/// A stored value: inside its record, or as a blob if it is large.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoredValue {
    /// The value itself.
    Inline(Value),
    /// A reference to a blob of the kind [`crate::blobs::BlobKind::Value`]; `bytes` is its size.
    Blob { digest: Digest, bytes: u64 },
}

/// One attempt at a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// The number of the attempt; 1 for the first.
    pub number: u32,
    /// The time at which the attempt started, in milliseconds since 1970.
    pub started_ms: u64,
    /// The duration of the attempt, in microseconds.
    pub duration_us: u64,
    /// Why the attempt failed; `None` if it succeeded.
    pub error: Option<Failure>,
    /// The resources that the attempt used.
    pub usage: Usage,
    /// The models that were used, in the order of their first use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<ModelUse>,
    /// See [`crate::executor::Report::warnings`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The process that ran the attempt.
    pub worker: String,
    /// The number of workers that had this attempt in hand before, and died or were cut off. The queue supplies the
    /// number; a rebuilt window has forgotten it. The resources that those workers used are unknown.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost_workers: u32,
    /// The attempt does not count towards the step's attempts, because an object that the job names was not stored.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uncharged: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A further attempt is made, because the attempt before it failed. Key: `run:step:generation:number`, with the number
/// of the further attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetryRecord {
    /// The attempt that failed.
    pub failed: AttemptRecord,
    /// The delay before the further attempt, in milliseconds.
    #[serde(default)]
    pub delay_ms: u64,
}

impl Form for RetryRecord {
    const FORMAT: &'static str = "dovetail.attempt/1";
}

/// A value that a step consumed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Consumed {
    /// The ID of the input field: `input_002_faces_array`.
    pub input: String,
    /// The origin of the value (`output_001_faces_array`, `input.image`); `None` for a literal.
    pub origin: Option<String>,
    /// The digest of the value as canonical JSON.
    pub digest: Digest,
}

/// A value that a step produced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Produced {
    /// The ID of the output field: `output_001_faces_array`.
    pub output: String,
    /// The digest of the value as canonical JSON.
    pub digest: Digest,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// All steps succeeded.
    Succeeded,
    /// A step failed for good, or the run's time was over.
    Failed,
    /// The run was cancelled.
    Cancelled,
}

impl RunState {
    /// `succeeded`, `failed` or `cancelled`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The end of a run. Key: `run:generation`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunOutcomeRecord {
    /// How the run ended.
    pub state: RunState,
    /// The step whose failure ended the run.
    pub failed_step: Option<NodeId>,
    /// The failure, if no outcome record of `failed_step` holds it: the run's pipeline could not be read.
    pub failure: Option<Failure>,
    /// The time of the end, in milliseconds since 1970.
    pub finished_ms: u64,
}

impl Form for RunOutcomeRecord {
    const FORMAT: &'static str = "dovetail.run_outcome/1";
}

/// A request to cancel a run. Key: `run:generation`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CancelRecord {
    /// The time of the request, in milliseconds since 1970.
    pub requested_ms: u64,
    /// The reason for people: `ctrl-c`, `timeout`, ...
    pub reason: String,
}

impl Form for CancelRecord {
    const FORMAT: &'static str = "dovetail.cancel/1";
}

/// A further generation of a run (a re-run): its reason, and the outcomes that it inherits. Key: `run:generation`, from
/// 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GenerationRecord {
    /// The steps whose successes are taken over from the generation before.
    pub inherited: Vec<NodeId>,
    /// The time of the request, in milliseconds since 1970.
    pub requested_ms: u64,
    /// The reason for people.
    pub reason: String,
}

impl Form for GenerationRecord {
    const FORMAT: &'static str = "dovetail.generation/1";
}

/// A published version of a plugin, which refers to its package. Key: `name@version`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PluginRecord {
    /// The task's name, in kebab-case.
    pub name: String,
    /// The published version.
    pub version: semver::Version,
    /// The digest of the package.
    pub package: Digest,
    /// One line for people, from the manifest.
    pub description: String,
    /// The types of the task's input and output.
    pub signature: crate::wit::Signature,
    /// The limits of each attempt, from the manifest.
    pub limits: crate::limits::Limits,
    /// The grants that were given when the plugin was pushed.
    pub grants: BTreeMap<String, Grant>,
    /// The component imports no clock, no randomness and no network.
    pub pure: bool,
    /// The names of the models that the plugin cannot run without, from its manifest.
    #[serde(default)]
    pub models: Vec<String>,
    /// The kinds ([`crate::vision::ModelKind::name`]) of which the component opens some model. Empty if the manifest
    /// names the models.
    #[serde(default)]
    pub model_kinds: Vec<String>,
    /// The time at which it was pushed, in milliseconds since 1970.
    pub pushed_ms: u64,
}

impl Form for PluginRecord {
    const FORMAT: &'static str = "dovetail.plugin/1";
}

/// A model of a fleet: the manifest, and references to the files ([`crate::blobs::BlobKind::Model`]). Key: the model's
/// name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelRecord {
    /// The text of the model's manifest, as on the machine that pushed it.
    pub manifest: String,
    /// The files, in the order of the manifest.
    pub files: Vec<ModelFile>,
    /// The time at which it was pushed, in milliseconds since 1970.
    pub pushed_ms: u64,
}

/// A file of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelFile {
    /// The digest of the file.
    pub digest: Digest,
    /// The size of the file, in bytes.
    pub bytes: u64,
}

impl Form for ModelRecord {
    const FORMAT: &'static str = "dovetail.model/1";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cancel() -> CancelRecord {
        CancelRecord { requested_ms: 7, reason: "ctrl-c".into() }
    }

    #[test]
    fn a_record_reads_what_it_writes() {
        assert_eq!(CancelRecord::decode(&cancel().encode(), "it").unwrap(), cancel());
    }

    #[test]
    fn a_newer_form_is_refused_and_named() {
        let text = String::from_utf8(cancel().encode()).unwrap().replace("cancel/1", "cancel/2");
        let error = CancelRecord::decode(text.as_bytes(), "run r").unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Newer);
        assert!(error.operation.contains("run r"));
        assert!(error.source.unwrap().to_string().contains("dovetail.cancel/2"));
    }

    #[test]
    fn a_runs_large_inputs_stand_apart_in_a_form_that_an_older_dovetail_refuses() {
        let run = |inputs| RunRecord { pipeline: "p@1.0.0#1".into(), inputs, submitted_ms: 7, models: Models::new() };
        let small = run(StoredValue::Inline(serde_json::json!({ "x": 1 })));
        let text = r#"{"format":"dovetail.run_record/1","pipeline":"p@1.0.0#1","inputs":{"x":1},"submitted_ms":7}"#;
        assert_eq!(String::from_utf8(small.encode()).unwrap(), text, "as every version before wrote it");
        assert_eq!(RunRecord::decode(text.as_bytes(), "run r").unwrap(), small);
        let large = run(StoredValue::Blob { digest: Digest::of(b"v"), bytes: 1 << 20 });
        assert!(large.encode().starts_with(br#"{"format":"dovetail.run_record/2""#));
        assert_eq!(RunRecord::decode(&large.encode(), "run r").unwrap(), large);
        let newer = text.replace("record/1", "record/4");
        let error = RunRecord::decode(newer.as_bytes(), "run r").unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Newer);
        assert!(error.source.unwrap().to_string().contains("reads `dovetail.run_record/3`"));
    }

    #[test]
    fn the_required_engine_of_a_run_is_recorded_in_a_form_that_an_older_dovetail_refuses() {
        let models = Models { engine: Some("onnxruntime@1.28.0".parse().unwrap()), ..Models::new() };
        let inputs = StoredValue::Inline(serde_json::json!({}));
        let run = RunRecord { pipeline: "p@1.0.0#1".into(), inputs, submitted_ms: 7, models };
        let text = String::from_utf8(run.encode()).unwrap();
        assert!(text.starts_with(r#"{"format":"dovetail.run_record/3""#), "{text}");
        assert!(text.ends_with(r#""submitted_ms":7,"engine":"onnxruntime@1.28.0"}"#), "{text}");
        assert_eq!(RunRecord::decode(text.as_bytes(), "run r").unwrap(), run);
    }

    #[test]
    fn garbage_is_corrupt() {
        assert_eq!(CancelRecord::decode(b"{}", "it").unwrap_err().kind, StoreErrorKind::Corrupt);
        assert_eq!(CancelRecord::decode(b"\xff", "it").unwrap_err().kind, StoreErrorKind::Corrupt);
    }
}
