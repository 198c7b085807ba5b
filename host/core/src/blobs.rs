//! The port to content-addressed bytes (packages, artifacts, models, large values, logs), and the JSON form of a
//! reference to an artifact.

use crate::error_chain::error_chain;
use crate::panics::Panicked;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::id::Digest;

/// An error of a store. The kind is for programs; the chain of causes is for people.
#[derive(Debug, thiserror::Error)]
#[error("{operation}")]
pub struct StoreError {
    /// Tells the caller how to react.
    pub kind: StoreErrorKind,
    /// The store that failed, if the backend is made of several stores.
    pub store: Option<Store>,
    /// What was tried, with its subject (`read blob sha256:...`).
    pub operation: String,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// One of the stores of a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Store {
    /// The queue of jobs (the window).
    Queue,
    /// The write-once records.
    Records,
    /// The content-addressed bytes.
    Blobs,
}

impl Store {
    /// The name in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Records => "records",
            Self::Blobs => "blobs",
        }
    }
}

/// How to react to a [`StoreError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// The store cannot do it now: try again later.
    Unavailable,
    /// The object is not there.
    Missing,
    /// The stored content contradicts its name: the digest differs, or the record cannot be read.
    Corrupt,
    /// Another writer stored a different value first.
    Conflict,
    /// The store is read-only, or this process may not write there.
    Refused,
    /// Like [`Self::Refused`], because the disk or the server has no space left.
    Full,
    /// A newer version of dovetail wrote the object.
    Newer,
    /// The URL or the keys that were to open the store are malformed; no store was contacted.
    Invalid,
}

impl StoreError {
    /// An error with a cause.
    pub fn new(
        kind: StoreErrorKind,
        operation: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { kind, store: None, operation: operation.into(), source: Some(source.into()) }
    }

    /// An error without a cause.
    pub fn plain(kind: StoreErrorKind, operation: impl Into<String>) -> Self {
        Self { kind, store: None, operation: operation.into(), source: None }
    }

    /// Adds the store that failed.
    #[must_use]
    pub fn of(self, store: Store) -> Self {
        Self { store: Some(store), ..self }
    }

    /// A copy of the error for a further caller, whose change was in the same group commit. The chain of causes becomes
    /// one text.
    #[must_use]
    pub fn again(&self) -> Self {
        let panic = self.source.as_deref().and_then(|error| error.downcast_ref::<Panicked>());
        let source = match panic {
            Some(panic) => Some(panic.clone().into()),
            None => self.source.as_deref().map(|error| error_chain(error).into()),
        };
        Self { kind: self.kind, store: self.store, operation: self.operation.clone(), source }
    }
}

/// The purpose of a blob, which chooses its folder or key prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlobKind {
    /// A plugin's package.
    Package,
    /// A file that a task reads or writes.
    Artifact,
    /// A file of a model.
    Model,
    /// A value above [`crate::limits::MAX_INLINE_VALUE`] as JSON: a step's output or a run's inputs.
    Value,
    /// The log of a step, one JSON object per line.
    Log,
}

impl BlobKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Package, Self::Artifact, Self::Model, Self::Value, Self::Log];

    /// `packages`, `artifacts`, `models`, `values` or `logs`.
    #[must_use]
    pub fn folder(self) -> &'static str {
        match self {
            Self::Package => "packages",
            Self::Artifact => "artifacts",
            Self::Model => "models",
            Self::Value => "values",
            Self::Log => "logs",
        }
    }
}

/// Content-addressed bytes. A blob is durable when `put` returns, and `get` compares the bytes with their digest before
/// it returns them. All functions block.
pub trait Blobs: Send + Sync {
    /// Stores `bytes` under their digest, and returns the digest. If the blob is there already, only its age changes:
    /// it counts as new ([`crate::retention::YOUNG`]).
    ///
    /// # Errors
    /// `Unavailable` or `Refused`; no half-written blob is left.
    fn put(&self, kind: BlobKind, bytes: &[u8]) -> Result<Digest, StoreError>;

    /// Reads a blob of at most `max` bytes.
    ///
    /// # Errors
    /// `Missing`; `Corrupt` if the bytes do not have this digest; `Refused` if the blob has more than `max` bytes.
    fn get(&self, kind: BlobKind, digest: &Digest, max: u64) -> Result<Vec<u8>, StoreError>;

    /// The size in bytes; `None` if the blob is not there.
    ///
    /// # Errors
    /// `Unavailable`.
    fn size(&self, kind: BlobKind, digest: &Digest) -> Result<Option<u64>, StoreError>;

    /// Whether the stored blob has at most `max` bytes and matches its digest; `None` if it is not there. Checks the
    /// store itself, never a local cache of it.
    ///
    /// # Errors
    /// As [`Blobs::get`], except for the faults that the answer expresses: missing, corrupt, too large.
    fn is_whole(&self, kind: BlobKind, digest: &Digest, max: u64) -> Result<Option<bool>, StoreError> {
        match self.size(kind, digest)? {
            None => Ok(None),
            Some(bytes) if bytes > max => Ok(Some(false)),
            Some(_) => match self.get(kind, digest, max) {
                Ok(_) => Ok(Some(true)),
                Err(error) if error.kind == StoreErrorKind::Corrupt => Ok(Some(false)),
                Err(error) if error.kind == StoreErrorKind::Missing => Ok(None),
                Err(error) => Err(error),
            },
        }
    }
}

/// The JSON form of an `image` or `artifact`: `{"$artifact": "sha256:...", "media_type": "image/jpeg", "name":
/// "photo.jpg"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtifactRef {
    /// The digest of the bytes; the blob has the kind [`BlobKind::Artifact`].
    #[serde(rename = "$artifact")]
    pub digest: Digest,
    /// Such as `image/jpeg`.
    pub media_type: String,
    /// The name of the file, if the artifact was read from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl ArtifactRef {
    /// The JSON form.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut value = json!({ "$artifact": self.digest, "media_type": self.media_type });
        if let Some(name) = &self.name {
            value["name"] = json!(name);
        }
        value
    }

    /// Reads the JSON form; `None` if `value` is no reference to an artifact.
    #[must_use]
    pub fn from_json(value: &Value) -> Option<Self> {
        value.get("$artifact")?;
        serde_json::from_value(value.clone()).ok()
    }

    /// Every artifact named anywhere in `value`.
    #[must_use]
    pub fn all_in(value: &Value) -> Vec<Self> {
        let mut found = Vec::new();
        let mut rest = vec![value];
        while let Some(value) = rest.pop() {
            if let Some(artifact) = Self::from_json(value) {
                found.push(artifact);
                continue;
            }
            match value {
                Value::Array(items) => rest.extend(items),
                Value::Object(fields) => rest.extend(fields.values()),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        found
    }
}
