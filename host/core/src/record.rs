//! The stored forms of records: JSON, each with its `format` and version. A newer version is refused, never guessed at.

mod outcome;

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::blobs::{StoreError, StoreErrorKind};
use crate::executor::{Failure, ModelUse, Models, Usage};
use crate::id::Digest;

pub use self::outcome::{OutcomeRecord, StepEnd};

/// A stored form: its name and version.
pub trait Form: Serialize + DeserializeOwned {
    /// `dovetail.outcome/1`.
    const FORMAT: &'static str;
    /// A later version of the form, written only for records that the first version cannot hold: an older dovetail
    /// refuses those by name and still reads all others.
    const EXTENDED: Option<&'static str> = None;

    /// The version that this record needs.
    fn format(&self) -> &'static str {
        Self::FORMAT
    }

    /// As it is stored.
    ///
    /// # Panics
    /// Never: these types are plain data with string keys.
    fn encode(&self) -> Vec<u8> {
        let tagged = Tagged { format: self.format(), body: self };
        serde_json::to_vec(&tagged).expect("plain data with string keys always serialises")
    }

    /// From what is stored.
    ///
    /// # Errors
    /// `Newer` for a form of a newer dovetail, `Corrupt` for anything else that cannot be read; both name the record.
    fn decode(bytes: &[u8], what: &str) -> Result<Self, StoreError> {
        #[derive(Deserialize)]
        struct Head {
            format: String,
        }
        let read = || format!("read the record of {what}");
        // As we write it ourselves; only another one is read for its name first.
        let ours = bytes.strip_prefix(br#"{"format":""#).and_then(|rest| rest.strip_prefix(Self::FORMAT.as_bytes()));
        if ours.is_some_and(|rest| rest.starts_with(b"\"")) {
            return serde_json::from_slice(bytes).map_err(|e| StoreError::new(StoreErrorKind::Corrupt, read(), e));
        }
        let head: Head =
            serde_json::from_slice(bytes).map_err(|e| StoreError::new(StoreErrorKind::Corrupt, read(), e))?;
        if head.format != Self::FORMAT && Some(head.format.as_str()) != Self::EXTENDED {
            let why = format!(
                "its form is `{}`; this dovetail reads `{}`: use the version that wrote it, or a newer one",
                head.format,
                Self::EXTENDED.unwrap_or(Self::FORMAT)
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
    /// `name@version#revision`: the key of the pinned pipeline.
    pub pipeline: String,
    /// The checked inputs with their defaults; artifacts by reference. As outputs: in the record up to
    /// [`crate::limits::MAX_INLINE_VALUE`], so that a delivery of one of the run's jobs stays small.
    pub inputs: StoredValue,
    /// Milliseconds since 1970.
    pub submitted_ms: u64,
    /// The models that were chosen as it was submitted. A kind that is missing here is chosen when the first step that
    /// opens one starts ([`ModelChoiceRecord`]).
    pub models: Models,
}

/// How a [`RunRecord`] is stored: version 1 has `inputs`, version 2 `inputs_blob` in their place.
#[derive(Deserialize)]
struct RunForm {
    pipeline: String,
    #[serde(default)]
    inputs: Value,
    inputs_blob: Option<BlobForm>,
    submitted_ms: u64,
    #[serde(default)]
    models: Models,
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
        Self { pipeline: form.pipeline, inputs, submitted_ms: form.submitted_ms, models: form.models }
    }
}

impl Serialize for RunRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut form = serializer.serialize_struct("RunRecord", 4)?;
        form.serialize_field("pipeline", &self.pipeline)?;
        match &self.inputs {
            StoredValue::Inline(inputs) => form.serialize_field("inputs", inputs)?,
            StoredValue::Blob { digest, bytes } => {
                form.serialize_field("inputs_blob", &BlobForm { digest: *digest, bytes: *bytes })?;
            }
        }
        form.serialize_field("submitted_ms", &self.submitted_ms)?;
        if !self.models.is_empty() {
            form.serialize_field("models", &self.models)?;
        }
        form.end()
    }
}

impl Form for RunRecord {
    const FORMAT: &'static str = "dovetail.run_record/1";
    const EXTENDED: Option<&'static str> = Some("dovetail.run_record/2");

    fn format(&self) -> &'static str {
        match self.inputs {
            StoredValue::Inline(_) => Self::FORMAT,
            StoredValue::Blob { .. } => "dovetail.run_record/2",
        }
    }
}

/// The model of a kind that was chosen for a run after its submission. Key: `run:kind`, for all generations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelChoiceRecord {
    pub model: ModelUse,
    /// Milliseconds since 1970.
    pub chosen_ms: u64,
}

impl Form for ModelChoiceRecord {
    const FORMAT: &'static str = "dovetail.model_choice/1";
}

/// A value where it was produced: in the record, or as a blob when it is large.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoredValue {
    Inline(Value),
    /// Of kind [`crate::blobs::BlobKind::Value`], with its size in bytes.
    Blob {
        digest: Digest,
        bytes: u64,
    },
}

/// One attempt at a step, as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// 1 for the first.
    pub number: u32,
    /// Milliseconds since 1970.
    pub started_ms: u64,
    pub duration_us: u64,
    /// None if it succeeded.
    pub error: Option<Failure>,
    pub usage: Usage,
    /// In the order of their first use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<ModelUse>,
    /// As in [`crate::executor::Report`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Which process ran it.
    pub worker: String,
    /// How many workers had this attempt in hand before and were not heard of any more, as far as the queue knows: a
    /// window that is rebuilt has forgotten it. What they used is lost with them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost_workers: u32,
    /// It does not count towards the step's attempts: something that the job names was not stored.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uncharged: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// That a further attempt is made, and why the one before it failed. Key: `run:step:generation:number` of the further
/// one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetryRecord {
    pub failed: AttemptRecord,
    /// How long the further attempt was put off, in milliseconds.
    #[serde(default)]
    pub delay_ms: u64,
}

impl Form for RetryRecord {
    const FORMAT: &'static str = "dovetail.attempt/1";
}

/// A value that a step consumed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Consumed {
    /// The field's own ID (`input_002_faces_array`).
    pub input: String,
    /// Where it came from (`output_001_faces_array`, `input.image`); none for a literal.
    pub origin: Option<String>,
    /// Of the value as canonical JSON.
    pub digest: Digest,
}

/// A value that a step produced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Produced {
    /// `output_001_faces_array`.
    pub output: String,
    /// Of the value as canonical JSON.
    pub digest: Digest,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    Succeeded,
    Failed,
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

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunOutcomeRecord {
    pub state: RunState,
    /// The step whose failure ended it.
    pub failed_step: Option<String>,
    /// When the run's own time was over, or it was cancelled: why.
    pub failure: Option<Failure>,
    /// Milliseconds since 1970.
    pub finished_ms: u64,
}

impl Form for RunOutcomeRecord {
    const FORMAT: &'static str = "dovetail.run_outcome/1";
}

/// That somebody asked for a run's end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CancelRecord {
    pub requested_ms: u64,
    /// For people: `ctrl-c`, `timeout`, ...
    pub reason: String,
}

impl Form for CancelRecord {
    const FORMAT: &'static str = "dovetail.cancel/1";
}

/// A further generation of a run: why it is, and what it takes over. Key: `run:generation`, from 1 on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GenerationRecord {
    /// Steps whose successes stand in the generation before.
    pub inherited: Vec<String>,
    pub requested_ms: u64,
    /// For people.
    pub reason: String,
}

impl Form for GenerationRecord {
    const FORMAT: &'static str = "dovetail.generation/1";
}

/// A published version of a plugin: the pointer from its name to its package.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PluginRecord {
    pub name: String,
    pub version: semver::Version,
    pub package: Digest,
    pub description: String,
    pub signature: crate::wit::Signature,
    pub limits: crate::limits::Limits,
    /// What was granted when it was pushed.
    pub grants: BTreeMap<String, Value>,
    /// It imports no clock, randomness or network.
    pub pure: bool,
    /// Models without which it cannot run, as its manifest names them.
    #[serde(default)]
    pub models: Vec<String>,
    /// Kinds of models ([`crate::vision::ModelKind::name`]) of which its component opens one; empty if its manifest
    /// says which models it needs.
    #[serde(default)]
    pub model_kinds: Vec<String>,
    pub pushed_ms: u64,
}

impl Form for PluginRecord {
    const FORMAT: &'static str = "dovetail.plugin/1";
}

/// A model of a fleet: its manifest as its machine has it, and where its files are ([`crate::blobs::BlobKind::Model`]).
/// Key: its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelRecord {
    pub manifest: String,
    /// In the manifest's order.
    pub files: Vec<ModelFile>,
    pub pushed_ms: u64,
}

/// A file of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelFile {
    pub digest: Digest,
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
        let newer = text.replace("record/1", "record/3");
        let error = RunRecord::decode(newer.as_bytes(), "run r").unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Newer);
        assert!(error.source.unwrap().to_string().contains("reads `dovetail.run_record/2`"));
    }

    #[test]
    fn garbage_is_corrupt() {
        assert_eq!(CancelRecord::decode(b"{}", "it").unwrap_err().kind, StoreErrorKind::Corrupt);
        assert_eq!(CancelRecord::decode(b"\xff", "it").unwrap_err().kind, StoreErrorKind::Corrupt);
    }
}
