//! The error of a task: the host's `task-error`, or an ordinary error that `?` converts.

use std::any::Any;
use std::io;
use std::time::Duration;

use crate::{Failure, Json, TaskError};

/// The result of a task.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a task has no output.
///
/// `?` converts every [`std::error::Error`] into this type. An error that is a [`TaskError`] of the host, or has one
/// among its causes, becomes that error. Any other error becomes `failed` with the code `error`, and the whole chain of
/// causes is the message. Like `anyhow::Error`, this type is not a `std::error::Error` itself.
#[derive(Clone, PartialEq)]
pub struct Error(TaskError);

impl Error {
    /// The stable code; `cancelled` for a cancellation.
    #[must_use]
    pub fn code(&self) -> &str {
        self.failure().map_or("cancelled", |f| &f.code)
    }

    /// The message for people.
    #[must_use]
    pub fn message(&self) -> &str {
        self.failure().map_or("the attempt was cancelled", |f| &f.message)
    }

    /// The error that the host gets.
    #[must_use]
    pub fn as_task_error(&self) -> &TaskError {
        &self.0
    }

    /// Marks the error as retryable: the same input may succeed later. This has no effect on a cancellation, and the
    /// host never retries `invalid-input`.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        if let Some(f) = self.failure_mut() {
            f.retryable = true;
        }
        self
    }

    /// Marks the error as retryable after at least `wait`.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        let mut this = self.retryable();
        if let Some(f) = this.failure_mut() {
            f.retry_after_ms = Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        }
        this
    }

    /// Adds a detail for programs.
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
        // The compiler decides this branch for each error type. So a task that has only errors of the host does not
        // contain the code that prints chains of causes.
        if let Some(own) = (&mut error as &mut dyn Any).downcast_mut::<Option<TaskError>>().and_then(Option::take) {
            return Self(own);
        }
        error.map_or(Self(TaskError::Cancelled), |other| convert(&other))
    }
}

/// Shows the message. A failure is, for example, the reason why one face could not be examined.
impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Converts an error that is not directly a `TaskError`. Not generic, so that a component contains this code once.
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

/// The input does not meet the task's requirements. Never retried. The message should name the field and the expected
/// value.
pub fn invalid_input(code: impl Into<String>, message: impl Into<String>) -> Error {
    Error(TaskError::InvalidInput(failure(code.into(), message.into())))
}

/// A service that the task depends on does not work now. Retried; see [`Error::retry_after`].
pub fn unavailable(code: impl Into<String>, message: impl Into<String>) -> Error {
    Error(TaskError::Unavailable(failure(code.into(), message.into()))).retryable()
}

/// Any other failure. Not retried, unless it is marked with [`Error::retryable`].
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
