//! Inputs of a pipeline or a task: their types, their values as strict JSON, and the bytes that the values refer to.

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
pub use strict::Twin;

use crate::Error;
use crate::media::sniff;
use strict::{Strict, Twins};

/// The inputs that there are, with their types.
#[derive(Debug, Default)]
pub struct InputTypes {
    /// Their owner, for messages: `face-processing@1.0.0`.
    pub of: String,
    /// By name, in snake_case.
    pub types: Vec<(String, Type)>,
}

impl InputTypes {
    /// Of a pipeline.
    #[must_use]
    pub fn of_pipeline(pipeline: &Pipeline) -> Self {
        Self {
            of: pipeline.reference(),
            types: pipeline.inputs.iter().map(|input| (input.name.clone(), input.ty.clone())).collect(),
        }
    }

    /// Of a task.
    #[must_use]
    pub fn of_task(name: &str, signature: &Signature) -> Self {
        Self {
            of: name.to_owned(),
            types: signature.input.iter().map(|field| (snake(&field.name), field.ty.clone())).collect(),
        }
    }

    /// Values that do not fit.
    pub(crate) fn misfits(&self, errors: &[ValueError]) -> Error {
        let inputs: Vec<String> = self.types.iter().map(|(name, ty)| format!("{name}: {}", ty.short())).collect();
        Error::values(errors).help(format!("the inputs of {} are {}", self.of, inputs.join(", ")))
    }

    /// The type of an input.
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

/// Values, and the bytes that they refer to, which are not stored yet.
#[derive(Debug, Default)]
pub struct Inputs {
    pub values: Map<String, Value>,
    bytes: BTreeMap<Digest, Vec<u8>>,
}

impl Inputs {
    /// Values whose bytes are stored.
    #[must_use]
    pub fn of(values: Map<String, Value>) -> Self {
        Self { values, bytes: BTreeMap::new() }
    }

    /// Takes the bytes of an artifact: the value that refers to them.
    pub fn artifact(&mut self, bytes: Vec<u8>, name: Option<String>) -> Value {
        let reference = ArtifactRef { digest: Digest::of(&bytes), media_type: sniff(&bytes).to_owned(), name };
        self.bytes.insert(reference.digest, bytes);
        reference.to_json()
    }

    /// Stores the bytes that came with the values. Artifacts that the values only name are looked for where the run is
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

    /// Whether an artifact of this digest came with the values.
    #[must_use]
    pub fn brings(&self, digest: &Digest) -> bool {
        self.bytes.contains_key(digest)
    }
}

/// Why a text is no value.
#[derive(Debug)]
pub enum NoValue {
    /// The text is no JSON.
    Syntax(serde_json::Error),
    /// A key stands twice: one of two values would be dropped without a word.
    Twin(Twin),
}

/// The JSON value of a text in which no key stands twice.
///
/// # Errors
/// If the text is no JSON, or if a key stands twice.
pub fn value(text: &str) -> Result<Value, NoValue> {
    let twins = Twins::default();
    // Twins in a text that is no JSON are not its fault.
    let value = strict::value(text, &twins).map_err(NoValue::Syntax)?;
    twins.take().map_or(Ok(value), |twin| Err(NoValue::Twin(twin)))
}

/// The members of a JSON object in their order, members of one name included: the caller tells which input stands twice.
///
/// # Errors
/// If the text is no JSON object, or if a key stands twice within a member.
pub fn members(text: &str) -> Result<Vec<(String, Value)>, NoValue> {
    struct Members<'t>(&'t Twins);
    impl<'de> Visitor<'de> for Members<'_> {
        type Value = Vec<(String, Value)>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(name) = map.next_key::<String>()? {
                let value = map.next_value_seed(Strict { place: format!("/{name}"), twins: self.0 })?;
                members.push((name, value));
            }
            Ok(members)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let twins = Twins::default();
    let members = reader.deserialize_map(Members(&twins)).and_then(|members| reader.end().map(|()| members));
    let members = members.map_err(NoValue::Syntax)?;
    twins.take().map_or(Ok(members), |twin| Err(NoValue::Twin(twin)))
}

/// A key that stands twice, within `what`.
#[must_use]
pub fn duplicate(Twin { key, place }: &Twin, what: &str) -> Error {
    let within = if place.is_empty() { what.to_owned() } else { format!("`{place}` of {what}") };
    Error::usage("duplicate_key", format!("the key `{key}` stands twice in {within}"))
        .help("remove or rename one of them")
        .detail("key", key.as_str())
        .detail("place", place.as_str())
}
