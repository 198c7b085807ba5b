//! The errors of flow.

use dovetail_core::blobs::{Store, StoreError, StoreErrorKind};
use dovetail_core::executor::HostError;
use dovetail_core::panics::Panicked;
use dovetail_core::scarce::Scarce;

pub(crate) const MISSING_VALUE: &str = "missing_value";
pub(crate) const MISSING_PIPELINE: &str = "missing_pipeline";

/// An error of flow.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// A store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The runtime failed, and the task is not at fault.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Something that a job names is not stored: no worker can run the job.
    #[error("{source}")]
    Missing {
        /// Stable and snake_case: `missing_value`, `missing_pipeline`.
        code: &'static str,
        source: StoreError,
    },
    /// This program panicked while it handled a step.
    #[error("{0}")]
    Panic(String),
    /// The request cannot be served, and the caller can correct it.
    #[error("{message}")]
    Refused {
        /// Stable and snake_case.
        code: &'static str,
        message: String,
        /// What the caller can do.
        help: Option<String>,
    },
}

impl FlowError {
    pub(crate) fn refused(code: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Refused { code, message: message.into(), help: Some(help.into()) }
    }

    /// The error for a panic of the host during `operation`.
    pub(crate) fn panicked(operation: &str, panic: &Panicked) -> Self {
        Self::Panic(format!("{operation}: {panic}"))
    }

    /// Whether this program panicked.
    pub(crate) fn is_panic(&self) -> bool {
        matches!(self, Self::Panic(_)) || Panicked::is_behind(self)
    }

    /// Whether the error is transient: the same call may succeed a little later.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Store(error) => error.kind == StoreErrorKind::Unavailable,
            Self::Host(error) => error.transient,
            Self::Missing { .. } | Self::Panic(_) | Self::Refused { .. } => false,
        }
    }

    /// The error's code, if something that the job names is not stored.
    pub(crate) fn missing(&self) -> Option<&'static str> {
        match self {
            Self::Missing { code, .. } => Some(code),
            Self::Host(error) => error.missing,
            Self::Store(_) | Self::Panic(_) | Self::Refused { .. } => None,
        }
    }

    /// [`FlowError::Missing`] with this code if the store does not have the value, otherwise [`FlowError::Store`].
    pub(crate) fn of_the_job(code: &'static str, error: StoreError) -> Self {
        match error.kind {
            StoreErrorKind::Missing => Self::Missing { code, source: error },
            _ => Self::Store(error),
        }
    }

    /// A copy of the error, for a further run that it concerns. Of an error of the host or a panic only the text is
    /// kept.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Missing { code, source } => Self::Missing { code, source: source.again() },
            Self::Refused { code, message, help } => {
                Self::Refused { code, message: message.clone(), help: help.clone() }
            }
            Self::Store(error) => Self::Store(error.again()),
            Self::Host(_) | Self::Panic(_) => Self::Panic(self.in_words()),
        }
    }

    /// The texts of the error and of its causes, without repetitions, for a record or a person.
    pub(crate) fn in_words(&self) -> String {
        let first = Some(self as &(dyn std::error::Error + 'static));
        let mut texts: Vec<String> = Vec::new();
        for error in std::iter::successors(first, |error| error.source()) {
            let text = error.to_string();
            if texts.last() != Some(&text) {
                texts.push(text);
            }
        }
        texts.join(": ")
    }

    /// The store that failed, if that is known.
    pub(crate) fn store(&self) -> Option<Store> {
        match self {
            Self::Store(error) | Self::Missing { source: error, .. } => error.store,
            Self::Host(_) | Self::Panic(_) | Self::Refused { .. } => None,
        }
    }

    /// The failed operation, if the content of one stored thing cannot be read. Other jobs may not need that thing.
    pub(crate) fn unreadable(&self) -> Option<String> {
        let chain = std::iter::successors(Some(self as &(dyn std::error::Error + 'static)), |error| error.source());
        let error = chain.filter_map(|error| error.downcast_ref::<StoreError>()).next()?;
        matches!(error.kind, StoreErrorKind::Corrupt | StoreErrorKind::Newer).then(|| error.operation.clone())
    }

    /// What the worker's operator can do, if this worker lacks something that other workers may have.
    pub(crate) fn help(&self) -> Option<&'static str> {
        if Scarce::behind(self).is_some() {
            return Some(
                "raise the limits of this process (`ulimit -v`, `-n`, `-u`, its container), or use a smaller --jobs",
            );
        }
        let mut chain = std::iter::successors(Some(self as &(dyn std::error::Error + 'static)), |error| error.source());
        let missing = chain
            .any(|error| error.downcast_ref::<StoreError>().is_some_and(|error| error.kind == StoreErrorKind::Missing));
        missing.then_some(
            "all processes of a fleet need the same `meta` and `blobs`; \
             run `dovetail doctor` with this worker's settings",
        )
    }

    /// Stable and snake_case, for machines.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Store(_) => "store",
            Self::Missing { code, .. } => code,
            Self::Host(_) => "host",
            Self::Panic(_) => "host_panicked",
            Self::Refused { code, .. } => code,
        }
    }
}
