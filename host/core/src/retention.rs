//! The ports for removing old objects that no record refers to. No other part of dovetail removes a record or a blob.
//!
//! A process may store a blob again at the very moment at which another process removes it, and write the record that
//! names the blob afterwards. Therefore storing a blob again resets its age ([`crate::blobs::Blobs::put`]), and only
//! old blobs are removed.

use std::time::Duration;

use crate::blobs::{BlobKind, StoreError, StoreErrorKind};
use crate::id::Digest;
use crate::ledger::Kind;

/// `put` resets the age of a blob that is older than this. Removal must require a greater age than this.
pub const YOUNG: Duration = Duration::from_secs(3600);

/// The number of records that one page of [`Archive::each`] holds.
const PAGE: usize = 500;

/// A callback for records: it gets the key and the value of each. An error ends the walk.
pub type RecordVisitor<'a> = dyn FnMut(String, &[u8]) -> Result<(), StoreError> + 'a;

/// A callback for blobs: it gets the digest and the size in bytes of each. An error ends the walk.
pub type BlobVisitor<'a> = dyn FnMut(Digest, u64) -> Result<(), StoreError> + 'a;

/// Write-once records that can be removed. All functions block.
pub trait Archive: Send + Sync {
    /// Lists records of a kind in the order of their keys: at most `limit` records with keys after `after`.
    ///
    /// # Errors
    /// `Unavailable`.
    fn scan(&self, kind: Kind, after: &str, limit: usize) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// Calls `visit` for every record of a kind, in the order of their keys. The callback may remove the record at
    /// once. The default reads pages; a store may override it with one walk.
    ///
    /// # Errors
    /// `Unavailable`; or the error of `visit`, which ends the walk.
    fn each(&self, kind: Kind, visit: &mut RecordVisitor<'_>) -> Result<(), StoreError> {
        let mut after = String::new();
        loop {
            let page = self.scan(kind, &after, PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after.clone_from(last);
            for (key, value) in page {
                visit(key, &value)?;
            }
        }
    }

    /// Removes records. Keys without a record are ignored.
    ///
    /// # Errors
    /// `Unavailable` or `Refused`. Some records may be gone, and the caller may name all of them again.
    fn remove(&self, kind: Kind, keys: &[String]) -> Result<(), StoreError>;

    /// Removes each record whose value is still the value in `found`. A record that was written anew in the meantime
    /// stays.
    ///
    /// # Errors
    /// As [`Archive::remove`].
    fn remove_unchanged(&self, kind: Kind, found: &[(String, Vec<u8>)]) -> Result<(), StoreError>;
}

/// A blob store that records its owner: the one set of records whose blobs it holds. Two sets of records on one store
/// would each remove the blobs that only the other one refers to (docs/decisions/0012). All functions block.
pub trait Owned: Send + Sync {
    /// The identity of the records that own this store; `None` if no owner is recorded.
    ///
    /// # Errors
    /// `Unavailable`, `Refused`; `Corrupt` if the recorded text is not an identity.
    fn owner(&self) -> Result<Option<String>, StoreError>;

    /// Records `records` as the owner, unless an owner is recorded already. Returns the owner from now on.
    ///
    /// # Errors
    /// As [`Owned::owner`], and `Full`.
    fn own(&self, records: &str) -> Result<String, StoreError>;

    /// Whether the store holds no blob of any kind.
    ///
    /// # Errors
    /// `Unavailable` or `Refused`.
    fn is_empty(&self) -> Result<bool, StoreError>;

    /// The place of the store for people. Never a key.
    fn place(&self) -> String;
}

/// The longest identity of an owner, in bytes.
pub const MAX_IDENTITY: u64 = 256;

/// Reads the identity that a blob store recorded as its owner. `place` is the place of that note, for the message.
///
/// # Errors
/// `Corrupt` if the text is not an identity.
pub fn identity_of(written: &[u8], place: &str) -> Result<String, StoreError> {
    let text = std::str::from_utf8(written).unwrap_or_default().trim_end();
    if text.is_empty() || text.len() as u64 > MAX_IDENTITY || !text.bytes().all(|b| b.is_ascii_graphic()) {
        let why = "it names no set of records: it was damaged; if you know that one set of records alone uses this \
                   store, remove it, and the next process that writes writes it again";
        return Err(StoreError::new(StoreErrorKind::Corrupt, format!("read the owner of the blobs from {place}"), why));
    }
    Ok(text.to_owned())
}

/// Content-addressed bytes that can be removed. All functions block.
pub trait RemovableBlobs: Owned {
    /// Calls `visit` for every blob of a kind with its size in bytes, in any order, in one walk through the store. The
    /// callback may remove the blob at once. The walk may or may not visit blobs that are stored or removed during the
    /// walk.
    ///
    /// # Errors
    /// `Unavailable`; or the error of `visit`, which ends the walk.
    fn walk(&self, kind: BlobKind, visit: &mut BlobVisitor<'_>) -> Result<(), StoreError>;

    /// The time since the blob was last stored, by the store's own clock; `None` if the blob is not there.
    ///
    /// # Errors
    /// `Unavailable`.
    fn age(&self, kind: BlobKind, digest: &Digest) -> Result<Option<Duration>, StoreError>;

    /// Removes the blob if its age is at least `at_least`. Returns whether it was removed.
    ///
    /// # Errors
    /// `Unavailable` or `Refused`.
    fn remove(&self, kind: BlobKind, digest: &Digest, at_least: Duration) -> Result<bool, StoreError>;

    /// Removes the half-written files of writers that no longer exist, and returns their total size in bytes. With
    /// `look_only`, nothing is removed. Most stores have no such files.
    ///
    /// # Errors
    /// `Unavailable` or `Refused`.
    fn remove_abandoned(&self, look_only: bool) -> Result<u64, StoreError> {
        let _: bool = look_only;
        Ok(0)
    }
}
