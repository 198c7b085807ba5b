//! One data folder: `dovetail.db` (records and jobs), `blobs/` (content-addressed bytes), `processes/` (a lock file for
//! each live process) and `bells/` (sockets of the processes that run steps or wait).

pub(crate) mod apply;
pub(crate) mod claimers;
pub(crate) mod files;
pub(crate) mod notifications;
pub(crate) mod presence;
pub(crate) mod reading;
pub(crate) mod schema;
pub(crate) mod sqlite;
pub(crate) mod writer;
pub(crate) mod writer_lock;

use std::io;
use std::path::Path;
use std::time::Duration;

use dovetail_core::blobs::{StoreError, StoreErrorKind};

/// Wraps an I/O error, with the operation that failed.
pub(crate) fn io_error(operation: &str, path: &Path, error: io::Error) -> StoreError {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => StoreErrorKind::Missing,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => StoreErrorKind::Refused,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreErrorKind::Full,
        _ => StoreErrorKind::Unavailable,
    };
    StoreError::new(kind, format!("{operation} {}", path.display()), error)
}

/// A duration in milliseconds, the unit of the ledger's clock.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Makes the folder and its parents, so that they survive a power failure.
pub(crate) fn make_folder(path: &Path) -> Result<(), StoreError> {
    crate::folders::make_folder(path).map_err(|e| io_error("make the folder", path, e))
}
