//! Why a component or a package is refused: one sentence about the fault and its place, and one about the remedy.

use serde::Serialize;

use crate::text;

/// A component or package that is refused. Its author is at fault, not the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Stable and snake_case (`missing_grant`, `unknown_import`, `no_run`, `two_runs`, ...).
    pub code: &'static str,
    /// The fault and its place: names the import, the field or the entry.
    pub message: String,
    /// The remedy; may be empty.
    pub help: String,
}

impl Refusal {
    /// Bounds and cleans both texts, because they quote names of the component, which may be long and contain control
    /// characters.
    pub(crate) fn new(code: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code, message: text::message(&message.into()), help: text::message(&help.into()) }
    }
}

/// Why a component cannot be loaded: it is refused, or the host failed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The component or package is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The host's own failure.
    #[error(transparent)]
    Host(#[from] dovetail_core::executor::HostError),
}
