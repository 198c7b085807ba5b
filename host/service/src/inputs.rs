//! Inputs of a pipeline or a task: their types, their values as strict JSON, and the artifacts that the values refer
//! to.

mod strict;

use std::collections::BTreeMap;

use dovetail_core::Digest;
use dovetail_core::blobs::{ArtifactRef, BlobKind, Blobs};
use dovetail_core::pipeline::Pipeline;
use dovetail_core::wit::names::nearest;
use dovetail_core::wit::{Signature, ValueError};
use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::{Map, Value};

pub use dovetail_core::wit::{Type, snake};
pub use strict::DuplicateKey;

use crate::Error;
use crate::media::sniff;
use strict::{FirstDuplicate, Strict};

/// The inputs of a pipeline or a task, with their types.
#[derive(Debug, Default)]
pub struct InputTypes {
    /// The pipeline or task, for messages: `face-processing@1.0.0`.
    pub of: String,
    /// Name in snake_case, and type, of each input.
    pub types: Vec<(String, Type)>,
}

impl InputTypes {
    /// The inputs of a pipeline.
    pub(crate) fn of_pipeline(pipeline: &Pipeline) -> Self {
        Self {
            of: pipeline.reference(),
            types: pipeline.inputs.iter().map(|input| (input.name.clone(), input.ty.clone())).collect(),
        }
    }

    /// The inputs of a task.
    pub(crate) fn of_task(name: &str, signature: &Signature) -> Self {
        Self {
            of: name.to_owned(),
            types: signature.input.iter().map(|field| (snake(&field.name), field.ty.clone())).collect(),
        }
    }

    /// The error for values that do not fit these types.
    pub(crate) fn misfits(&self, errors: &[ValueError]) -> Error {
        let inputs: Vec<String> = self.types.iter().map(|(name, ty)| format!("{name}: {}", ty.short())).collect();
        Error::values(errors).help(format!("the inputs of {} are {}", self.of, inputs.join(", ")))
    }

    /// The type of the input of this name.
    ///
    /// # Errors
    /// `unknown_input`.
    pub fn ty(&self, name: &str) -> Result<&Type, Error> {
        self.types.iter().find(|(other, _)| other == name).map(|(_, ty)| ty).ok_or_else(|| {
            let names = self.types.iter().map(|(name, _)| name.as_str());
            let help = match nearest(name, names.clone()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    format!("its inputs are {}", names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))
                }
            };
            Error::usage("unknown_input", format!("{} has no input `{name}`", self.of)).help(help).detail("input", name)
        })
    }
}

/// Values of inputs, and the artifacts that came with them. The artifacts are not stored yet.
#[derive(Debug, Default)]
pub struct Inputs {
    /// The value of each input, by name.
    pub values: Map<String, Value>,
    bytes: BTreeMap<Digest, Vec<u8>>,
}

impl Inputs {
    /// Values that no artifacts come with.
    #[must_use]
    pub fn of(values: Map<String, Value>) -> Self {
        Self { values, bytes: BTreeMap::new() }
    }

    /// Adds an artifact, and gives the value that refers to it. The media type is guessed from the bytes.
    pub fn artifact(&mut self, bytes: Vec<u8>, name: Option<String>) -> Value {
        let reference = ArtifactRef { digest: Digest::of(&bytes), media_type: sniff(&bytes).to_owned(), name };
        self.bytes.insert(reference.digest, bytes);
        reference.to_json()
    }

    /// Stores the artifacts that came with the values. Artifacts that the values only name are checked when the run is
    /// submitted.
    ///
    /// # Errors
    /// A store's failure.
    pub fn store(&self, blobs: &dyn Blobs) -> Result<(), Error> {
        for bytes in self.bytes.values() {
            blobs.put(BlobKind::Artifact, bytes)?;
        }
        Ok(())
    }

    /// Whether the artifact of this digest came with the values.
    pub(crate) fn brings(&self, digest: &Digest) -> bool {
        self.bytes.contains_key(digest)
    }
}

/// Why a text is not a value.
#[derive(Debug)]
pub enum JsonError {
    /// The text is not JSON.
    Syntax(serde_json::Error),
    /// An object has a key twice: one of the two values would be dropped silently.
    DuplicateKey(DuplicateKey),
}

/// Reads a text as JSON without duplicate keys.
///
/// # Errors
/// [`JsonError`].
pub fn value(text: &str) -> Result<Value, JsonError> {
    let first_duplicate = FirstDuplicate::default();
    // An error of syntax is reported before a duplicate key.
    let value = strict::value(text, &first_duplicate).map_err(JsonError::Syntax)?;
    first_duplicate.take().map_or(Ok(value), |duplicate_key| Err(JsonError::DuplicateKey(duplicate_key)))
}

/// Reads a text as a JSON object, and gives its members in order. Duplicate members are included, so that the caller
/// can report them as duplicate inputs.
///
/// # Errors
/// [`JsonError`], also for a duplicate key within a member.
pub fn members(text: &str) -> Result<Vec<(String, Value)>, JsonError> {
    struct Members<'t>(&'t FirstDuplicate);
    impl<'de> Visitor<'de> for Members<'_> {
        type Value = Vec<(String, Value)>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(name) = map.next_key::<String>()? {
                let value = map.next_value_seed(Strict { place: format!("/{name}"), first_duplicate: self.0 })?;
                members.push((name, value));
            }
            Ok(members)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let first_duplicate = FirstDuplicate::default();
    let members = reader.deserialize_map(Members(&first_duplicate)).and_then(|members| reader.end().map(|()| members));
    let members = members.map_err(JsonError::Syntax)?;
    first_duplicate.take().map_or(Ok(members), |duplicate_key| Err(JsonError::DuplicateKey(duplicate_key)))
}

/// The error for a duplicate key within `what`: `duplicate_key`.
#[must_use]
pub fn duplicate(DuplicateKey { key, place }: &DuplicateKey, what: &str) -> Error {
    let within = if place.is_empty() { what.to_owned() } else { format!("`{place}` of {what}") };
    Error::usage("duplicate_key", format!("the key `{key}` occurs twice in {within}"))
        .help("remove or rename one of them")
        .detail("key", key.as_str())
        .detail("place", place.as_str())
}
