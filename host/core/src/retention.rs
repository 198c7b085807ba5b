//! The ports that removing needs: what is old and no longer referred to. Nothing else in the house removes a record or
//! a blob.
//!
//! A blob may be stored again at the very moment at which it is to go, and the record that names it comes later. So
//! storing a blob again makes it young ([`crate::blobs::Blobs::put`]), and only what is old goes.

use std::time::Duration;

use crate::blobs::{BlobKind, StoreError};
use crate::id::Digest;
use crate::ledger::Kind;

/// A blob that is stored again makes its age zero if it was older than this. What is to go must be older still.
pub const YOUNG: Duration = Duration::from_secs(3600);

/// Write-once records that can be removed. Blocking.
pub trait Archive: Send + Sync {
    /// Records of a kind in the order of their keys, from the first one after `after`, at most `limit`.
    ///
    /// # Errors
    /// `Unavailable`.
    fn scan(&self, kind: Kind, after: &str, limit: usize) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// Removes records; a key that is not there is none of them.
    ///
    /// # Errors
    /// `Unavailable` or `Refused`: some may be gone, and all may be named again.
    fn remove(&self, kind: Kind, keys: &[String]) -> Result<(), StoreError>;
}

/// Content-addressed bytes that can be removed. Blocking.
pub trait Shelf: Send + Sync {
    /// Blobs of a kind with their sizes in bytes, in the order of their digests, from the first one after `after`, at
    /// most `limit`.
    ///
    /// # Errors
    /// `Unavailable`.
    fn scan(&self, kind: BlobKind, after: Option<&Digest>, limit: usize) -> Result<Vec<(Digest, u64)>, StoreError>;

    /// How long ago the blob was stored for the last time, by the store's own clock; none if it is not there.
    ///
    /// # Errors
    /// `Unavailable`.
    fn age(&self, kind: BlobKind, digest: &Digest) -> Result<Option<Duration>, StoreError>;

    /// Removes the blob if it is at least so old; whether it did.
    ///
    /// # Errors
    /// `Unavailable` or `Refused`.
    fn remove(&self, kind: BlobKind, digest: &Digest, at_least: Duration) -> Result<bool, StoreError>;

    /// Removes what writers left half-written that are no more, and says how many bytes it was; with `look_only` it
    /// stays. Most stores have no such thing.
    ///
    /// # Errors
    /// `Unavailable` or `Refused`.
    fn remove_abandoned(&self, look_only: bool) -> Result<u64, StoreError> {
        let _: bool = look_only;
        Ok(0)
    }
}
