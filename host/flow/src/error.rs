//! What flow answers when it cannot do what was asked.

use dovetail_core::blobs::StoreError;
use dovetail_core::executor::HostError;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// A store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The runtime failed by its own fault.
    #[error(transparent)]
    Host(#[from] HostError),
    /// This program panicked over a step.
    #[error("{0}")]
    Panic(String),
    /// What was asked for cannot be: the caller's to mend.
    #[error("{message}")]
    Refused {
        /// Stable and snake_case.
        code: &'static str,
        message: String,
        /// What to do.
        help: Option<String>,
    },
}

impl FlowError {
    pub(crate) fn refused(code: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Refused { code, message: message.into(), help: Some(help.into()) }
    }

    /// Stable and snake_case, for machines.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Store(_) => "store",
            Self::Host(_) => "host",
            Self::Panic(_) => "host_panicked",
            Self::Refused { code, .. } => code,
        }
    }
}
