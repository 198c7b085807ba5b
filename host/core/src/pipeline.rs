//! Pipelines: a declared graph of steps, checked against the types of its tasks and pinned to exact packages.
//!
//! [`check()`] parses a pipeline file and reports all its errors. If there are none, it returns a [`Pipeline`] that
//! needs no further checking: its steps exist and are pinned, they are in an order in which they can run, and every
//! value fits where it goes. This module does not run pipelines.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use semver::Version;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::id::Digest;
use crate::keys::{VersionKey, documented};
use crate::ledger::Requirements;
use crate::limits::Limits;
use crate::wit::{Signature, Type};

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
pub use catalogue::{Catalogue, ListCatalogue, TaskVersion, Unresolved, newest, task_reference};
pub use check::{Checked, check};
pub use diff::diff;
pub use finding::{Code, Finding, Severity};
pub use lineage::{Edge, EdgeKind};
pub use order::ready;

/// The longest pipeline file, in bytes.
pub const MAX_SOURCE: usize = 1 << 20;
/// The most steps of a pipeline.
pub const MAX_STEPS: usize = 1000;
/// The largest number that a step may have.
pub const MAX_NUMBER: u32 = 9999;
/// The longest `timeout` of a pipeline: 7 days, in milliseconds.
pub const MAX_PIPELINE_TIMEOUT_MS: u64 = 7 * 86_400_000;
/// The most attempts that `retry` may allow.
pub const MAX_ATTEMPTS: u32 = 10;
/// The longest `backoff` and `max_backoff`: one hour, in milliseconds.
pub const MAX_BACKOFF_MS: u64 = 3_600_000;

/// A checked pipeline, pinned to exact packages. Its JSON form is the record `dovetail.pipeline/1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pipeline {
    /// The version of the record.
    pub format: Format,
    /// In kebab-case.
    pub name: String,
    /// The version of the pipeline.
    pub version: Version,
    /// For people, as in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The longest time that the attempts of a run may take in all, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// What happens to running steps after a failure.
    pub on_failure: OnFailure,
    /// The inputs, in the order of the file.
    pub inputs: Vec<Input>,
    /// The steps. Each comes after its prerequisites; steps without such a relation are ordered by number.
    pub steps: Vec<Step>,
    /// The fields of the output, in the order of the file.
    pub output: Vec<Output>,
    /// The text of the file. Checking it again pins the newest packages.
    pub source: String,
}

/// What happens to running steps when a step has failed for good. No new step starts in either case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Running steps are cancelled.
    #[default]
    Cancel,
    /// Running steps may end.
    Finish,
}

impl OnFailure {
    /// The name in a pipeline file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Finish => "finish",
        }
    }
}

/// An input of a pipeline. Its type is inferred from the fields that it feeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Input {
    /// In snake_case.
    pub name: String,
    /// For people, as in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The inferred type.
    pub ty: Type,
    /// The default, in normal form. `Some(Null)` is a default too.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// Whether a run may leave the input out: it has a default, or it feeds only options.
    pub optional: bool,
}

fn present<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(reader).map(Some)
}

/// A step, pinned to an exact package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// Unique in the pipeline, from 1.
    pub number: u32,
    /// In snake_case; unique in the pipeline.
    pub name: String,
    /// For people, as in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The name of the task, in kebab-case.
    pub task: String,
    /// The version of the task.
    pub version: Version,
    /// The digest of the plugin's package.
    pub package: Digest,
    /// The types of the task's input and output.
    pub signature: Signature,
    /// The sources of the input fields, in the order of the task's input record. A field without an entry is an option
    /// that gets no value.
    pub inputs: Vec<Binding>,
    /// How often and how soon the step is attempted again.
    pub retry: Retry,
    /// The limits of one attempt: those of the task, with the step's `timeout` in place of the time if there is one.
    pub limits: Limits,
    /// The requirements on the worker that runs the step.
    #[serde(default, rename = "lane")]
    pub requirements: Requirements,
}

/// How often and how soon a step is attempted again after failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Retry {
    /// The most attempts in all, including the first one.
    pub max_attempts: u32,
    /// The delay before the second attempt, in milliseconds. It doubles for each further attempt.
    pub backoff_ms: u64,
    /// The longest delay, in milliseconds.
    pub max_backoff_ms: u64,
}

impl Retry {
    /// The policy of a step whose file asks for none.
    pub const DEFAULT: Self = Self { max_attempts: 3, backoff_ms: 500, max_backoff_ms: 30_000 };
}

impl Default for Retry {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The source of one field of a step's input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Binding {
    /// The name of the field, in snake_case.
    pub field: String,
    /// Where the value comes from.
    pub source: Source,
    /// The type that the source gives.
    pub from: Type,
    /// The type that the field takes. `from` is assignable to it.
    pub to: Type,
}

/// The origin of a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Source {
    /// An input of the run.
    Input {
        /// The name of the input.
        name: String,
        /// The fields of nested records to follow, in snake_case.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        path: Vec<String>,
    },
    /// The output of another step.
    Output {
        /// The name of the step.
        step: String,
        /// A field of the step's output, then fields of nested records to follow. In snake_case; never empty.
        path: Vec<String>,
    },
    /// A literal in the file, in normal form.
    Literal { value: Value },
}

/// One field of a run's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Output {
    /// In snake_case.
    pub name: String,
    /// Where the value comes from.
    pub source: Source,
    /// The type that the source gives.
    pub ty: Type,
}

impl Pipeline {
    /// Whether the other pipeline comes from a file with the same content. White space between tokens is not content,
    /// because an editor or a version control system may change it.
    #[must_use]
    pub fn is_of_the_same_file(&self, other: &Self) -> bool {
        let parsed = |source: &str| serde_json::from_str::<Value>(source).ok();
        self.source == other.source
            || parsed(&self.source).zip(parsed(&other.source)).is_some_and(|(one, two)| one == two)
    }

    /// Whether both are the same pipeline with the same pins.
    #[must_use]
    pub fn is_the_same(&self, other: &Self) -> bool {
        self.is_of_the_same_file(other) && Self { source: self.source.clone(), ..other.clone() } == *self
    }

    /// The name and the version: `face-processing@1.0.0`.
    #[must_use]
    pub fn reference(&self) -> String {
        VersionKey::new(&self.name, &self.version).to_string()
    }

    /// The step with this name.
    #[must_use]
    pub fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.name == name)
    }

    /// The input with this name.
    #[must_use]
    pub fn input(&self, name: &str) -> Option<&Input> {
        self.inputs.iter().find(|input| input.name == name)
    }

    /// The JSON form, which is the record `dovetail.pipeline/1`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        // The maps have string keys and every part can be serialised, so this does not fail.
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Parses the JSON form.
    ///
    /// # Errors
    /// `Newer` for a record of a newer format; `Malformed` for any other value.
    pub fn from_json(value: &Value) -> Result<Self, FormatError> {
        let found = value.get("format").and_then(Value::as_str).unwrap_or_default();
        if found != FORMAT && found.starts_with(FAMILY) {
            return Err(FormatError::Newer { found: found.to_owned() });
        }
        Self::deserialize(value).map_err(FormatError::Malformed)
    }
}

impl Step {
    /// The unique ID of the step: `face_detection_001`.
    #[must_use]
    pub fn id(&self) -> String {
        documented::step(&self.task, self.number)
    }

    /// The unique ID of the input record: `face_detection_input_001`.
    #[must_use]
    pub fn input_id(&self) -> String {
        documented::input(&self.task, self.number)
    }

    /// The unique ID of the output record: `face_detection_output_001`.
    #[must_use]
    pub fn output_id(&self) -> String {
        documented::output(&self.task, self.number)
    }

    /// The unique ID of an input field: `input_002_faces_array`.
    #[must_use]
    pub fn input_field_id(&self, field: &str) -> String {
        documented::input_field(self.number, field)
    }

    /// The unique ID of an output field: `output_001_faces_array`.
    #[must_use]
    pub fn output_field_id(&self, field: &str) -> String {
        documented::output_field(self.number, field)
    }

    /// The task and its version: `face-detection@1.0.0`.
    #[must_use]
    pub fn task_reference(&self) -> String {
        VersionKey::new(&self.task, &self.version).to_string()
    }

    /// The binding of this input field; `None` if the field is an option that gets no value.
    #[must_use]
    pub fn binding(&self, field: &str) -> Option<&Binding> {
        self.inputs.iter().find(|binding| binding.field == field)
    }
}

const FAMILY: &str = "dovetail.pipeline/";
const FORMAT: &str = "dovetail.pipeline/1";

/// The version of the record. It is written as `dovetail.pipeline/1`, and no other text is accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Format;

impl Display for Format {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(FORMAT)
    }
}

impl JsonSchema for Format {
    fn schema_name() -> Cow<'static, str> {
        "pipeline_format".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "const": FORMAT })
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

/// A stored pipeline cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// A newer version of dovetail wrote the record.
    #[error(
        "the stored pipeline has the format `{found}`, and this dovetail reads `{FORMAT}`: use the version that wrote \
         it, or a newer one"
    )]
    Newer {
        /// The format of the record.
        found: String,
    },
    /// The value is not a pipeline.
    #[error("the stored pipeline cannot be read")]
    Malformed(#[source] serde_json::Error),
}

#[cfg(test)]
mod tests;
