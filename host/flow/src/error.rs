//! What flow answers when it cannot do what was asked.

use dovetail_core::blobs::{Store, StoreError, StoreErrorKind};
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

    /// A store that does not answer now, or has no room: the same may succeed a little later.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Store(error) => error.kind == StoreErrorKind::Unavailable,
            Self::Host(error) => error.transient,
            Self::Panic(_) | Self::Refused { .. } => false,
        }
    }

    /// Which store failed, where that is known.
    pub(crate) fn store(&self) -> Option<Store> {
        match self {
            Self::Store(error) => error.store,
            Self::Host(_) | Self::Panic(_) | Self::Refused { .. } => None,
        }
    }

    /// What a worker's operator can do about it, where it is something that this worker lacks and others may have.
    pub(crate) fn help(&self) -> Option<&'static str> {
        let mut chain = std::iter::successors(Some(self as &(dyn std::error::Error + 'static)), |error| error.source());
        let missing = chain
            .any(|error| error.downcast_ref::<StoreError>().is_some_and(|error| error.kind == StoreErrorKind::Missing));
        missing.then_some("all processes of a fleet need the same `meta` and `blobs`; run `dovetail doctor` with this worker's settings")
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
