//! From a URL to a backend: the scheme chooses.

use std::path::Path;
use std::sync::Arc;

use dovetail_core::blobs::{Blobs, StoreError, StoreErrorKind};
use dovetail_core::clock::Clock;
use dovetail_core::meta::MetaStore;
use dovetail_core::retention::{Archive, RemovableBlobs};
use dovetail_core::window::Window;

use crate::{CachedBlobs, Credentials, FileBlobs, S3Blobs, SqliteLedger};

/// What is kept of a far blob store on this machine's disk, in bytes.
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

/// What is read and written, maybe by way of a cache, and the store itself.
pub(crate) type BlobStore = (Arc<dyn Blobs>, Arc<dyn RemovableBlobs>);

/// Blobs in the data folder (`file:`), or in a bucket (`s3://...`, [`S3Blobs::open`]) with a bounded cache in the data
/// folder.
///
/// # Errors
/// `Invalid` for a URL or credentials that cannot be used. An S3 server is not asked yet.
pub fn open_blobs(url: &str, data: &Path) -> Result<Arc<dyn Blobs>, StoreError> {
    open_blobs_to_write(url, data).map(|(blobs, _)| blobs)
}

/// The same, with the store itself, which says whose blobs it holds.
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

/// The same store, for whoever removes blobs from it: what this machine keeps of a bucket is bounded and goes by
/// itself.
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

/// The queue of a fleet: `redis://...` or, over TLS, `rediss://...`. `caller` is new for each process.
///
/// # Errors
/// `Invalid` or `Refused` for what cannot be used, with the remedy; `Unavailable` where nobody answers.
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

/// A store for records, from either side.
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

/// The records of a fleet: `mongodb://...`, or the data folder of one machine (`sqlite:`).
///
/// # Errors
/// `Invalid` or `Refused` for what cannot be used, with the remedy; `Unavailable` where nobody answers.
pub fn open_meta(url: &str, data: &Path, fleet: &str, clock: Arc<dyn Clock>) -> Result<Arc<dyn MetaStore>, StoreError> {
    Ok(open_records(url, data, fleet, clock)?)
}

/// The same store, for whoever removes records from it.
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
