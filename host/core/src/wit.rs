//! WIT types as data: the types of a task's input and output, without wasmtime. Names are kebab-case here, as in WIT;
//! in JSON they are snake_case.

use schemars::JsonSchema;
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

/// A WIT type that a task's interface may use. The runtime refuses a component with futures, streams, maps or foreign
/// resources before it builds such a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Type {
    /// `bool`.
    Bool,
    /// `s8`: an integer of 8 bits with a sign.
    S8,
    /// `u8`: an integer of 8 bits without a sign.
    U8,
    /// `s16`.
    S16,
    /// `u16`.
    U16,
    /// `s32`.
    S32,
    /// `u32`.
    U32,
    /// `s64`.
    S64,
    /// `u64`.
    U64,
    /// `f32`.
    F32,
    /// `f64`.
    F64,
    /// `char`: one Unicode scalar value.
    Char,
    /// `string`.
    String,
    /// `list<T>`.
    List(Box<Self>),
    /// `tuple<T, U, ...>`.
    Tuple(Vec<Self>),
    /// `record`: named fields.
    Record(Vec<Field>),
    /// `variant`: named cases, each with or without a payload.
    Variant(Vec<Case>),
    /// `enum`: the names of the cases.
    Enum(Vec<String>),
    /// `flags`: the names of the flags.
    Flags(Vec<String>),
    /// `option<T>`.
    Option(Box<Self>),
    /// `result<T, E>`.
    Result {
        /// The payload of a success, if there is one.
        ok: Option<Box<Self>>,
        /// The payload of an error, if there is one.
        err: Option<Box<Self>>,
    },
    /// `own<dovetail:vision/images.image>`: a handle to an image.
    Image,
    /// `own<dovetail:task/artifacts.artifact>`: a handle to a file.
    Artifact,
}

/// A field of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Field {
    /// In kebab-case.
    pub name: String,
    /// The type of the field.
    pub ty: Type,
}

/// A case of a variant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Case {
    /// In kebab-case.
    pub name: String,
    /// The type of the payload, if the case has one.
    pub ty: Option<Type>,
}

/// The types of a task's function `run`. Its error type is always `dovetail:task/types.task-error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Signature {
    /// The interface that exports `run`: `dovetail:face-detection/task@1.0.0`.
    pub interface: String,
    /// The fields of the input record, in WIT order.
    pub input: Vec<Field>,
    /// The fields of the output record, in WIT order; empty for a task that returns nothing.
    pub output: Vec<Field>,
}
