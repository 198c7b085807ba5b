//! Opens a backend for a URL: the scheme chooses the backend.

use std::path::Path;
use std::sync::Arc;

use dovetail_core::blobs::{Blobs, StoreError, StoreErrorKind};
use dovetail_core::clock::Clock;
use dovetail_core::meta::MetaStore;
use dovetail_core::retention::{Archive, RemovableBlobs};
use dovetail_core::window::Window;

use crate::{CachedBlobs, Credentials, FileBlobs, S3Blobs, SqliteLedger};

/// Capacity of the local cache of a remote blob store, in bytes.
const CACHE: u64 = 2 << 30;

fn unknown(what: &str, known: &str) -> StoreError {
    StoreError::new(
        StoreErrorKind::Invalid,
        format!("open the {what}"),
        format!("its URL has a scheme that is not known here; known are {known}"),
    )
}

pub(crate) fn unknown_window() -> StoreError {
    unknown("queue", "`redis://[user:password@]host[:port]/[db]` and `rediss://...`")
}

fn unknown_blobs() -> StoreError {
    unknown("blob store", "`file:` and `s3://BUCKET?endpoint=http://HOST:PORT`")
}

pub(crate) fn unknown_meta() -> StoreError {
    unknown("metadata store", "`mongodb://[user:password@]host[:port]/database` and `sqlite:`")
}

/// The store for reading and writing, possibly through a cache, and the store behind the cache.
pub(crate) type BlobStore = (Arc<dyn Blobs>, Arc<dyn RemovableBlobs>);

/// Opens blobs in the data folder (`file:`), or in a bucket (`s3://...`, [`S3Blobs::open`]) with a bounded cache in the
/// data folder.
///
/// # Errors
/// `Invalid` for a URL or credentials that cannot be used. Opening does not contact an S3 server.
pub fn open_blobs(url: &str, data: &Path) -> Result<Arc<dyn Blobs>, StoreError> {
    open_blobs_to_write(url, data).map(|(blobs, _)| blobs)
}

/// As [`open_blobs`], and returns the store behind the cache, too, which can tell the owner of its blobs.
///
/// # Errors
/// As [`open_blobs`].
pub fn open_blobs_to_write(url: &str, data: &Path) -> Result<BlobStore, StoreError> {
    match url.split_once(':') {
        Some(("file", "")) => {
            let files = Arc::new(FileBlobs::new(data));
            Ok((files.clone(), files))
        }
        Some(("s3", _)) => {
            let far = Arc::new(S3Blobs::open(url, Credentials::from_env()?)?);
            Ok((Arc::new(CachedBlobs::open(&data.join("blob-cache"), far.clone(), CACHE)?), far))
        }
        _ => Err(unknown_blobs()),
    }
}

/// Opens the same store without the cache, to remove blobs from it. The cache is bounded and evicts by itself.
///
/// # Errors
/// As [`open_blobs`].
pub fn open_removable_blobs(url: &str, data: &Path) -> Result<Arc<dyn RemovableBlobs>, StoreError> {
    match url.split_once(':') {
        Some(("file", "")) => Ok(Arc::new(FileBlobs::new(data))),
        Some(("s3", _)) => Ok(Arc::new(S3Blobs::open(url, Credentials::from_env()?)?)),
        _ => Err(unknown_blobs()),
    }
}

/// Opens the queue of a fleet: `redis://...` or, over TLS, `rediss://...`. `caller` is an ID that is new for each
/// process.
///
/// # Errors
/// `Invalid` or `Refused`, with the remedy, for a URL or server that cannot be used. `Unavailable` if no server
/// answers.
pub fn open_window(url: &str, fleet: &str, caller: &str) -> Result<Arc<dyn Window>, StoreError> {
    match url.split_once(':') {
        #[cfg(feature = "redis")]
        Some(("redis" | "rediss", _)) => Ok(Arc::new(crate::RedisWindow::open(url, fleet, caller)?)),
        _ => {
            let (_, _) = (fleet, caller);
            Err(unknown_window())
        }
    }
}

/// A store for records, with both of its ports.
trait Records: MetaStore + Archive {}

impl<T: MetaStore + Archive> Records for T {}

fn open_records(url: &str, data: &Path, fleet: &str, clock: Arc<dyn Clock>) -> Result<Arc<dyn Records>, StoreError> {
    match url.split_once(':') {
        Some(("sqlite", "")) => Ok(Arc::new(SqliteLedger::open(data, clock)?)),
        #[cfg(feature = "mongodb")]
        Some(("mongodb", _)) => Ok(Arc::new(crate::MongoMeta::open(url, fleet, clock)?)),
        _ => {
            let (_, _) = (fleet, clock);
            Err(unknown_meta())
        }
    }
}

/// Opens the records of a fleet: `mongodb://...`, or the data folder of one machine (`sqlite:`).
///
/// # Errors
/// `Invalid` or `Refused`, with the remedy, for a URL or server that cannot be used. `Unavailable` if no server
/// answers.
pub fn open_meta(url: &str, data: &Path, fleet: &str, clock: Arc<dyn Clock>) -> Result<Arc<dyn MetaStore>, StoreError> {
    Ok(open_records(url, data, fleet, clock)?)
}

/// Opens the same store, to remove records from it.
///
/// # Errors
/// As [`open_meta`].
pub fn open_archive(
    url: &str,
    data: &Path,
    fleet: &str,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn Archive>, StoreError> {
    Ok(open_records(url, data, fleet, clock)?)
}
