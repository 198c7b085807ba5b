//! Asking whether to go on.

use crate::{Error, TaskError};

/// An error of the kind `cancelled` when the attempt must end, to be handed on with `?` between units of work. Cheap.
///
/// # Errors
/// When the attempt was cancelled or its time is over.
pub fn check() -> Result<(), Error> {
    if crate::control::cancelled() { Err(Error::from(TaskError::Cancelled)) } else { Ok(()) }
}
