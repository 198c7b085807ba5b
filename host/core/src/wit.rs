//! WIT types as data: what a task takes and gives, without wasmtime. Names are kebab-case here, as in WIT; JSON has
//! them in snake_case.

use serde::{Deserialize, Serialize};

#[cfg(test)]
pub(crate) mod arbitrary;
pub mod assign;
pub mod json;
pub mod names;
pub mod schema;
pub mod show;
#[cfg(any(test, feature = "testing"))]
pub mod text;

pub use assign::{Assign, assign, coerce};
pub use json::ValueError;
pub use names::{kebab, snake};

/// A WIT type as far as a task's interface may use it. Futures, streams, maps and foreign resources are refused before
/// one of these is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Type {
    Bool,
    S8,
    U8,
    S16,
    U16,
    S32,
    U32,
    S64,
    U64,
    F32,
    F64,
    Char,
    String,
    List(Box<Self>),
    Tuple(Vec<Self>),
    Record(Vec<Field>),
    Variant(Vec<Case>),
    Enum(Vec<String>),
    Flags(Vec<String>),
    Option(Box<Self>),
    Result {
        ok: Option<Box<Self>>,
        err: Option<Box<Self>>,
    },
    /// `own<dovetail:vision/images.image>`.
    Image,
    /// `own<dovetail:task/artifacts.artifact>`.
    Artifact,
}

/// A field of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// kebab-case.
    pub name: String,
    pub ty: Type,
}

/// A case of a variant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// kebab-case.
    pub name: String,
    pub ty: Option<Type>,
}

/// What a task's `run` takes and gives; its error type is always `dovetail:task/types.task-error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// The exported interface (`dovetail:face-detection/task@1.0.0`).
    pub interface: String,
    /// The fields of the input record, in WIT order.
    pub input: Vec<Field>,
    /// The fields of the output record, in WIT order; empty for a task that returns nothing.
    pub output: Vec<Field>,
}
