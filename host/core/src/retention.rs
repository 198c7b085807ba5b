//! The ports that removing needs: what is old and no longer referred to. Nothing else in the house removes a record or
//! a blob.
//!
//! A blob may be stored again at the very moment at which it is to go, and the record that names it comes later. So
//! storing a blob again makes it young ([`crate::blobs::Blobs::put`]), and only what is old goes.

use std::time::Duration;

use crate::blobs::{BlobKind, StoreError, StoreErrorKind};
use crate::id::Digest;
use crate::ledger::Kind;

/// A blob that is stored again makes its age zero if it was older than this. What is to go must be older still.
pub const YOUNG: Duration = Duration::from_secs(3600);

/// Records that are read at once.
const PAGE: usize = 500;

/// Is told of records, each with its key and its value; an error ends the walk.
pub type RecordVisitor<'a> = dyn FnMut(String, &[u8]) -> Result<(), StoreError> + 'a;

/// Is told of blobs, each with its size in bytes; an error ends the walk.
pub type BlobVisitor<'a> = dyn FnMut(Digest, u64) -> Result<(), StoreError> + 'a;

/// Write-once records that can be removed. Blocking.
pub trait Archive: Send + Sync {
    /// Records of a kind in the order of their keys, from the first one after `after`, at most `limit`.
    ///
    /// # Errors
    /// `Unavailable`.
    fn scan(&self, kind: Kind, after: &str, limit: usize) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// Tells of every record of a kind in the order of their keys; what is told of may be removed at once. In pages,
    /// and in one walk where the store can do that.
    ///
    /// # Errors
    /// `Unavailable`; whatever `told` says, which ends the walk.
    fn each(&self, kind: Kind, told: &mut RecordVisitor<'_>) -> Result<(), StoreError> {
        let mut after = String::new();
        loop {
            let page = self.scan(kind, &after, PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after.clone_from(last);
            for (key, value) in page {
                told(key, &value)?;
            }
        }
    }

    /// Removes records; a key that is not there is none of them.
    ///
    /// # Errors
    /// `Unavailable` or `Refused`: some may be gone, and all may be named again.
    fn remove(&self, kind: Kind, keys: &[String]) -> Result<(), StoreError>;

    /// Removes records that are still what was read under their keys; one that is another by now stays.
    ///
    /// # Errors
    /// As `remove`.
    fn remove_unchanged(&self, kind: Kind, found: &[(String, Vec<u8>)]) -> Result<(), StoreError>;
}

/// A blob store that knows whose it is: two sets of records on one store would each remove what only the other one
/// names (docs/decisions/0012). Blocking.
pub trait Owned: Send + Sync {
    /// The identity of the records that it belongs to; none: it is not written down yet.
    ///
    /// # Errors
    /// `Unavailable`, `Refused`; `Corrupt` where what is written down is no identity.
    fn owner(&self) -> Result<Option<String>, StoreError>;

    /// Writes down that it belongs to the records of this identity, unless it belongs to some already; whose it is
    /// from now on.
    ///
    /// # Errors
    /// As [`Owned::owner`]; `Full`.
    fn own(&self, records: &str) -> Result<String, StoreError>;

    /// Whether it holds no blob of any kind.
    ///
    /// # Errors
    /// `Unavailable` or `Refused`.
    fn is_empty(&self) -> Result<bool, StoreError>;

    /// Where it is, for people; never a key.
    fn place(&self) -> String;
}

/// What is written down of an owner is at most this long, in bytes.
pub const MAX_IDENTITY: u64 = 256;

/// Reads what a blob store wrote down of its owner.
///
/// # Errors
/// `Corrupt` where it is no identity; `place` is where it stands.
pub fn identity_of(written: &[u8], place: &str) -> Result<String, StoreError> {
    let text = std::str::from_utf8(written).unwrap_or_default().trim_end();
    if text.is_empty() || text.len() as u64 > MAX_IDENTITY || !text.bytes().all(|b| b.is_ascii_graphic()) {
        let why = "it names no set of records: it was damaged; if you know that one set of records alone uses this \
                   store, remove it, and the next process that writes writes it again";
        return Err(StoreError::new(StoreErrorKind::Corrupt, format!("read whose blobs these are from {place}"), why));
    }
    Ok(text.to_owned())
}

/// Content-addressed bytes that can be removed. Blocking.
pub trait RemovableBlobs: Owned {
    /// Tells of every blob of a kind with its size in bytes, in any order, in one walk through the store; what is told
    /// of may be removed at once. A blob that comes or goes meanwhile is told of or not.
    ///
    /// # Errors
    /// `Unavailable`; whatever `told` says, which ends the walk.
    fn walk(&self, kind: BlobKind, told: &mut BlobVisitor<'_>) -> Result<(), StoreError>;

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
