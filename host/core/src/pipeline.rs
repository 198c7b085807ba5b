//! Pipelines: the declared graph, checked against the types of its tasks and pinned to exact packages.
//!
//! [`check()`] reads a file and finds everything that is wrong with it; what it returns when nothing is, a
//! [`Pipeline`], needs no further checking: its steps exist, are pinned, stand in an order in which they can run, and
//! every value that flows fits. Nothing here runs one.

use std::fmt::{self, Display, Formatter};

use semver::Version;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::id::Digest;
use crate::keys::VersionKey;
use crate::ledger::Requirements;
use crate::limits::Limits;
use crate::wit::{Signature, Type, snake};

mod bind;
mod catalogue;
mod check;
mod declared;
mod diff;
#[cfg(any(test, feature = "testing"))]
pub mod faces;
mod finding;
mod graph;
mod infer;
mod lineage;
mod order;
mod reference;
pub mod schema;
mod text;

pub use bind::Unbound;
pub use catalogue::{Catalogue, Listed, TaskVersion, Unresolved, newest, task_reference};
pub use check::{Checked, check};
pub use diff::diff;
pub use finding::{Code, Finding, Severity};
pub use lineage::{Edge, EdgeKind};
pub use order::ready;

/// The longest pipeline file, in bytes.
pub const MAX_SOURCE: usize = 1 << 20;
/// The most steps of a pipeline.
pub const MAX_STEPS: usize = 1000;
/// The largest number of a step.
pub const MAX_NUMBER: u32 = 9999;
/// The longest `timeout` of a pipeline: 7 days, in milliseconds.
pub const MAX_PIPELINE_TIMEOUT_MS: u64 = 7 * 86_400_000;
/// The most attempts that `retry` may ask for.
pub const MAX_ATTEMPTS: u32 = 10;
/// The longest `backoff` and `max_backoff`: an hour, in milliseconds.
pub const MAX_BACKOFF_MS: u64 = 3_600_000;

/// A checked pipeline, pinned to exact packages. As JSON it is the record `dovetail.pipeline/1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pipeline {
    pub format: Format,
    /// kebab-case.
    pub name: String,
    pub version: Version,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Of a whole run, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    pub on_failure: OnFailure,
    /// In the order of the file.
    pub inputs: Vec<Input>,
    /// Every step after those whose outputs it reads; otherwise by number.
    pub steps: Vec<Step>,
    /// In the order of the file.
    pub output: Vec<Output>,
    /// The file as written: checking it again pins the newest packages.
    pub source: String,
}

/// What becomes of running steps when one has failed for good; new ones never start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// They are cancelled.
    #[default]
    Cancel,
    /// They may end.
    Finish,
}

impl OnFailure {
    /// As it is written in a file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Finish => "finish",
        }
    }
}

/// An input of a pipeline. Its type is inferred from what it feeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// snake_case.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub ty: Type,
    /// In normal form. `null` is a default as well as any other.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// It may be left out: it has a default or feeds nothing but options.
    pub optional: bool,
}

fn present<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(reader).map(Some)
}

/// A step, pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Unique in the pipeline.
    pub number: u32,
    /// snake_case, unique in the pipeline.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// kebab-case.
    pub task: String,
    pub version: Version,
    /// Of the plugin's package.
    pub package: Digest,
    pub signature: Signature,
    /// In the order of the task's input record; a field that is not mapped is an option and has no entry.
    pub inputs: Vec<Binding>,
    pub retry: Retry,
    /// Of one attempt: the task's own, its time replaced by the step's `timeout` if there is one.
    pub limits: Limits,
    /// What it asks of a worker.
    #[serde(default)]
    pub lane: Requirements,
}

/// How often and how soon a step is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// In all, the first one included.
    pub max_attempts: u32,
    /// Before the second attempt, in milliseconds; doubled for each further one.
    pub backoff_ms: u64,
    /// The most to wait, in milliseconds.
    pub max_backoff_ms: u64,
}

impl Retry {
    /// What a step gets that asks for nothing.
    pub const DEFAULT: Self = Self { max_attempts: 3, backoff_ms: 500, max_backoff_ms: 30_000 };
}

impl Default for Retry {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What feeds one field of a step's input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// snake_case.
    pub field: String,
    pub source: Source,
    /// What the source gives.
    pub from: Type,
    /// What the field takes; `from` is assignable to it.
    pub to: Type,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Source {
    /// The run's inputs.
    Input {
        name: String,
        /// Fields of records to follow; snake_case.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        path: Vec<String>,
    },
    /// Another step.
    Output {
        step: String,
        /// A field of its output, then fields of records to follow; snake_case, at least one.
        path: Vec<String>,
    },
    /// Written in the file; in normal form.
    Literal { value: Value },
}

/// One field of a run's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// snake_case.
    pub name: String,
    pub source: Source,
    pub ty: Type,
}

impl Pipeline {
    /// Whether the other one comes from a file of the same content. Spaces and line ends between the parts of a file are
    /// not content: an editor or a version control system may have changed them.
    #[must_use]
    pub fn is_of_the_same_file(&self, other: &Self) -> bool {
        let parsed = |source: &str| serde_json::from_str::<Value>(source).ok();
        self.source == other.source
            || parsed(&self.source).zip(parsed(&other.source)).is_some_and(|(one, two)| one == two)
    }

    /// Whether both are the same pipeline, pinned alike.
    #[must_use]
    pub fn is_the_same(&self, other: &Self) -> bool {
        self.is_of_the_same_file(other) && Self { source: self.source.clone(), ..other.clone() } == *self
    }

    /// `face-processing@1.0.0`.
    #[must_use]
    pub fn reference(&self) -> String {
        VersionKey::new(&self.name, &self.version).to_string()
    }

    /// By name.
    #[must_use]
    pub fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.name == name)
    }

    /// By name.
    #[must_use]
    pub fn input(&self, name: &str) -> Option<&Input> {
        self.inputs.iter().find(|input| input.name == name)
    }

    /// The record `dovetail.pipeline/1`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        // Maps have string keys and every part serialises, so that this does not fail.
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Reads what [`Pipeline::to_json`] wrote.
    ///
    /// # Errors
    /// A record of a newer format, or one that is none.
    pub fn from_json(value: &Value) -> Result<Self, FormatError> {
        let found = value.get("format").and_then(Value::as_str).unwrap_or_default();
        if found != FORMAT && found.starts_with(FAMILY) {
            return Err(FormatError::Newer { found: found.to_owned() });
        }
        Self::deserialize(value).map_err(FormatError::Malformed)
    }
}

impl Step {
    /// `face_detection_001`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}_{:03}", snake(&self.task), self.number)
    }

    /// `face_detection_input_001`.
    #[must_use]
    pub fn input_id(&self) -> String {
        format!("{}_input_{:03}", snake(&self.task), self.number)
    }

    /// `face_detection_output_001`.
    #[must_use]
    pub fn output_id(&self) -> String {
        format!("{}_output_{:03}", snake(&self.task), self.number)
    }

    /// `input_002_faces_array`.
    #[must_use]
    pub fn input_field_id(&self, field: &str) -> String {
        format!("input_{:03}_{field}", self.number)
    }

    /// `output_001_faces_array`.
    #[must_use]
    pub fn output_field_id(&self, field: &str) -> String {
        format!("output_{:03}_{field}", self.number)
    }

    /// `face-detection@1.0.0`.
    #[must_use]
    pub fn task_reference(&self) -> String {
        VersionKey::new(&self.task, &self.version).to_string()
    }

    /// The binding of this field, unless it is an option that nothing feeds.
    #[must_use]
    pub fn binding(&self, field: &str) -> Option<&Binding> {
        self.inputs.iter().find(|binding| binding.field == field)
    }
}

const FAMILY: &str = "dovetail.pipeline/";
const FORMAT: &str = "dovetail.pipeline/1";

/// The version of the record: written as `dovetail.pipeline/1`, and nothing else is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Format;

impl Display for Format {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(FORMAT)
    }
}

impl Serialize for Format {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(FORMAT)
    }
}

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let found = String::deserialize(d)?;
        if found == FORMAT {
            Ok(Self)
        } else {
            Err(serde::de::Error::custom(format!("expected the format `{FORMAT}`, found `{found}`")))
        }
    }
}

/// Why a stored pipeline cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Written by a newer version of dovetail.
    #[error(
        "the stored pipeline has the format `{found}`, and this dovetail reads `{FORMAT}`: use the version that wrote it, or a newer one"
    )]
    Newer { found: String },
    /// Not a pipeline.
    #[error("the stored pipeline cannot be read")]
    Malformed(#[source] serde_json::Error),
}

#[cfg(test)]
mod tests;
