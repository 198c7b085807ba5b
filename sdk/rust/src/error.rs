//! The error of a task: the host's `task-error`, or an ordinary error turned into one by `?`.

use std::any::Any;
use std::io;
use std::time::Duration;

use crate::{Failure, Json, TaskError};

/// What a task returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a task has no result.
///
/// `?` makes one of every [`std::error::Error`]. One that is, or carries, a [`TaskError`] of the host keeps it; any
/// other becomes `failed`, with the whole chain of causes as the message and the code `error`. Like `anyhow::Error` it
/// is no `std::error::Error` itself.
#[derive(Clone, PartialEq)]
pub struct Error(TaskError);

impl Error {
    /// The stable code; `cancelled` for a cancellation.
    #[must_use]
    pub fn code(&self) -> &str {
        self.failure().map_or("cancelled", |f| &f.code)
    }

    /// For people.
    #[must_use]
    pub fn message(&self) -> &str {
        self.failure().map_or("the attempt was cancelled", |f| &f.message)
    }

    /// As the host sees it.
    #[must_use]
    pub fn as_task_error(&self) -> &TaskError {
        &self.0
    }

    /// Says that the same input may succeed later. Without effect on a cancellation and on `invalid-input`, which is
    /// never retried.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        if let Some(f) = self.failure_mut() {
            f.retryable = true;
        }
        self
    }

    /// The same, and not before `wait` has passed.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        let mut this = self.retryable();
        if let Some(f) = this.failure_mut() {
            f.retry_after_ms = Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        }
        this
    }

    /// Adds a fact for machines.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Json>) -> Self {
        if let Some(f) = self.failure_mut() {
            f.details.push((key.to_owned(), value.into().into_text()));
        }
        self
    }

    fn failure(&self) -> Option<&Failure> {
        match &self.0 {
            TaskError::InvalidInput(f) | TaskError::Unavailable(f) | TaskError::Failed(f) => Some(f),
            TaskError::Cancelled => None,
        }
    }

    fn failure_mut(&mut self) -> Option<&mut Failure> {
        match &mut self.0 {
            TaskError::InvalidInput(f) | TaskError::Unavailable(f) | TaskError::Failed(f) => Some(f),
            TaskError::Cancelled => None,
        }
    }
}

impl std::fmt::Debug for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code(), self.message())
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.message())
    }
}

impl From<Error> for TaskError {
    fn from(error: Error) -> Self {
        error.0
    }
}

impl<E: std::error::Error + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        let mut error = Some(error);
        // Decided by the compiler for each type: a task whose errors are all the host's does not carry the code that
        // prints chains of causes.
        if let Some(own) = (&mut error as &mut dyn Any).downcast_mut::<Option<TaskError>>().and_then(Option::take) {
            return Self(own);
        }
        error.map_or(Self(TaskError::Cancelled), |other| convert(&other))
    }
}

/// One face that could not be looked at, for instance.
impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Outside the generic conversion, so that it exists once in a component.
fn convert(error: &(dyn std::error::Error + 'static)) -> Error {
    let mut message = String::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(own) = carried(cause) {
            return Error(own);
        }
        if !message.is_empty() {
            message.push_str(": ");
        }
        message.push_str(&cause.to_string());
        next = cause.source();
    }
    failed("error", message)
}

/// The host's error in `cause` itself, or in the `io::Error` that wraps it (whose `source()` would skip it).
fn carried(cause: &(dyn std::error::Error + 'static)) -> Option<TaskError> {
    let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    if let Some(own) = cause.downcast_ref::<TaskError>().or_else(|| inner.and_then(|e| e.downcast_ref())) {
        return Some(own.clone());
    }
    let failure = cause.downcast_ref::<Failure>()?;
    Some(TaskError::Failed(failure.clone()))
}

/// The input does not satisfy the task: never retried. Name the field, and say what it should be.
pub fn invalid_input(code: impl Into<String>, message: impl Into<String>) -> Error {
    Error(TaskError::InvalidInput(failure(code.into(), message.into())))
}

/// Something that the task depends on does not work now: retried (see [`Error::retry_after`]).
pub fn unavailable(code: impl Into<String>, message: impl Into<String>) -> Error {
    Error(TaskError::Unavailable(failure(code.into(), message.into()))).retryable()
}

/// Any other failure: not retried, unless [`Error::retryable`] says so.
pub fn failed(code: impl Into<String>, message: impl Into<String>) -> Error {
    Error(TaskError::Failed(failure(code.into(), message.into())))
}

fn failure(code: String, message: String) -> Failure {
    Failure { code, message, retryable: false, retry_after_ms: None, details: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<u32> {
        Ok(text.parse()?)
    }

    #[test]
    fn an_ordinary_error_becomes_failed() {
        let TaskError::Failed(f) = TaskError::from(parse("x").unwrap_err()) else { panic!("wrong kind") };
        assert_eq!(
            (f.code.as_str(), f.message.as_str(), f.retryable),
            ("error", "invalid digit found in string", false)
        );
    }

    #[test]
    fn causes_are_told() {
        #[derive(Debug)]
        struct Outer(std::num::ParseIntError);
        impl std::fmt::Display for Outer {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("read the count")
            }
        }
        impl std::error::Error for Outer {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.0)
            }
        }
        let error = Error::from(Outer("x".parse::<u32>().unwrap_err()));
        assert_eq!(error.message(), "read the count: invalid digit found in string");
    }

    #[test]
    fn the_hosts_error_is_kept_also_inside_an_io_error() {
        let own = TaskError::InvalidInput(failure("undecodable".into(), "cut off".into()));
        assert_eq!(Error::from(own.clone()).as_task_error(), &own);
        assert_eq!(Error::from(io::Error::other(own.clone())).as_task_error(), &own);
        assert_eq!(Error::from(io::Error::other(TaskError::Cancelled)).code(), "cancelled");
        assert_eq!(Error::from(io::Error::other("disk")).code(), "error");
    }

    #[test]
    fn a_failure_of_one_face_may_fail_the_task() {
        let error = Error::from(failure("empty_area".into(), "outside".into()));
        assert!(matches!(error.as_task_error(), TaskError::Failed(f) if f.code == "empty_area"));
    }

    #[test]
    fn retries_and_facts() {
        let error = unavailable("busy", "try later")
            .retry_after(Duration::from_millis(1500))
            .with("queue", "a\"b")
            .with("length", 3);
        let TaskError::Unavailable(f) = error.as_task_error() else { panic!("wrong kind") };
        assert!(f.retryable);
        assert_eq!(f.retry_after_ms, Some(1500));
        assert_eq!(f.details, [("queue".to_owned(), "\"a\\\"b\"".to_owned()), ("length".to_owned(), "3".to_owned())]);
    }
}
