//! Why a component or a package cannot be taken: one sentence about what is wrong and where, one about what to do.

use serde::Serialize;

use crate::text;

/// A component or package that is refused. Its author is to blame, not the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Stable and snake_case (`missing_grant`, `unknown_import`, `no_run`, `two_runs`, ...).
    pub code: &'static str,
    /// What is wrong and where: names the import, the field or the entry.
    pub message: String,
    /// What to do about it; may be empty.
    pub help: String,
}

impl Refusal {
    /// Both texts are bounded and cleaned here: they quote names of the component, which may be long and strange.
    pub(crate) fn new(code: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code, message: text::message(&message.into()), help: text::message(&help.into()) }
    }
}

/// What came of looking at a component: it is refused, or the host failed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The component or package cannot be taken.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The host's own fault.
    #[error(transparent)]
    Host(#[from] dovetail_core::executor::HostError),
}
