//! The port to content-addressed bytes (packages, artifacts, models), and how a value refers to them.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::id::Digest;

/// What a store could not do. The kind is for machines, the chain of causes for people.
#[derive(Debug, thiserror::Error)]
#[error("{operation}")]
pub struct StoreError {
    /// How to react.
    pub kind: StoreErrorKind,
    /// Which of several stores it was, where there are several.
    pub store: Option<Store>,
    /// What was tried, with its subject (`read blob sha256:...`).
    pub operation: String,
    /// Why it failed.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// One of those that a fleet keeps its things in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Store {
    Queue,
    Records,
    Blobs,
}

impl Store {
    /// As people are told of it.
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
    /// Try again later.
    Unavailable,
    /// It is not there.
    Missing,
    /// What is there is not what its name promises (a digest that differs, a record that cannot be read).
    Corrupt,
    /// Somebody else's write came first and says otherwise.
    Conflict,
    /// It is read-only, or we may not write there.
    Refused,
    /// As [`Self::Refused`], because the disk has no room, or the server.
    Full,
    /// Written by a newer version of dovetail.
    Newer,
    /// What it was to be opened with (a URL, keys) is no such thing; nobody was asked.
    Invalid,
}

impl StoreError {
    /// With its cause.
    pub fn new(
        kind: StoreErrorKind,
        operation: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { kind, store: None, operation: operation.into(), source: Some(source.into()) }
    }

    /// Without a cause.
    pub fn plain(kind: StoreErrorKind, operation: impl Into<String>) -> Self {
        Self { kind, store: None, operation: operation.into(), source: None }
    }

    /// Says which store it was.
    #[must_use]
    pub fn of(self, store: Store) -> Self {
        Self { store: Some(store), ..self }
    }

    /// The same error once more, for one more of those whose change it concerns: its causes as one text.
    #[must_use]
    pub fn again(&self) -> Self {
        let first = self.source.as_deref().map(|error| error as &(dyn std::error::Error + 'static));
        let causes: Vec<String> =
            std::iter::successors(first, |error| error.source()).map(ToString::to_string).collect();
        Self {
            kind: self.kind,
            store: self.store,
            operation: self.operation.clone(),
            source: (!causes.is_empty()).then(|| causes.join(": ").into()),
        }
    }
}

/// What a blob is for: the folder or prefix it stands under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlobKind {
    Package,
    Artifact,
    Model,
    /// A step's output above [`crate::limits::MAX_INLINE_VALUE`], as JSON.
    Value,
    /// What a step logged, one JSON object a line.
    Log,
}

impl BlobKind {
    /// Every kind.
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

/// Content-addressed bytes. Durable when `put` returns; what `get` returns has been compared with its digest.
pub trait Blobs: Send + Sync {
    /// Stores `bytes` under their own digest. Storing them again has no effect but that they count as new
    /// ([`crate::retention::YOUNG`]).
    ///
    /// # Errors
    /// `Unavailable` or `Refused`; then nothing is half-written.
    fn put(&self, kind: BlobKind, bytes: &[u8]) -> Result<Digest, StoreError>;

    /// The bytes, at most `max` of them.
    ///
    /// # Errors
    /// `Missing`; `Corrupt` if they do not have this digest; `Refused` if there are more than `max`.
    fn get(&self, kind: BlobKind, digest: &Digest, max: u64) -> Result<Vec<u8>, StoreError>;

    /// The size in bytes, or none if it is not there.
    ///
    /// # Errors
    /// `Unavailable`.
    fn size(&self, kind: BlobKind, digest: &Digest) -> Result<Option<u64>, StoreError>;

    /// Whether it is whole, in at most `max` bytes, or none if it is not there: in the store itself, whatever is kept
    /// of it near by.
    ///
    /// # Errors
    /// As [`Blobs::get`], but for what this tells.
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

/// How an `image` or `artifact` stands in JSON: `{"$artifact": "sha256:...", "media_type": "image/jpeg", "name":
/// "photo.jpg"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtifactRef {
    #[serde(rename = "$artifact")]
    pub digest: Digest,
    pub media_type: String,
    /// The file's name where the artifact came from a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl ArtifactRef {
    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut value = json!({ "$artifact": self.digest, "media_type": self.media_type });
        if let Some(name) = &self.name {
            value["name"] = json!(name);
        }
        value
    }

    /// From JSON; `None` if `value` is no such object.
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
