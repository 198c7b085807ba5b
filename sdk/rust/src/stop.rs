//! Checks for cancellation.

use crate::{Error, TaskError};

/// Returns an error of the kind `cancelled` if the attempt must end. A task calls this between units of work, with `?`.
/// The check is cheap.
///
/// # Errors
/// `cancelled` if the attempt was cancelled or its time is over.
pub fn check() -> Result<(), Error> {
    if crate::control::cancelled() { Err(Error::from(TaskError::Cancelled)) } else { Ok(()) }
}
