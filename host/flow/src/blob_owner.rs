//! Checks that a blob store and records belong together (docs/decisions/0012). If two sets of records shared one store,
//! the garbage collection of each would remove the blobs that only the other one names.
//!
//! The first process that stores a blob writes the identity of its records into the blob store, once. Processes with
//! other records are refused before they write or remove a blob. A process that only reads does not bind the store to
//! its records and is not refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dovetail_core::Digest;
use dovetail_core::blobs::{BlobKind, Blobs, Store, StoreError, StoreErrorKind};
use dovetail_core::clock::Clock;
use dovetail_core::keys::RECORDS;
use dovetail_core::ledger::{Kind, Ledger, Listing, Operation, Record, Reply};
use dovetail_core::retention::Owned;

use crate::FlowError;
use crate::fleet::pair;

/// How long a process relies on its last check of the owner, in milliseconds.
const RELIED_ON: u64 = 60_000;
/// The owner was not checked yet.
const NEVER: u64 = u64::MAX;

/// The owner of a blob store, relative to these records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    Ours,
    /// The store has no identity: it is new, or older than this check.
    Nobodys {
        /// The store has no blobs.
        empty: bool,
    },
    OfOthers,
}

/// The owner of the store. Changes nothing.
///
/// # Errors
/// A store's failure.
pub fn ownership(ledger: &dyn Ledger, store: &dyn Owned) -> Result<Ownership, StoreError> {
    let Some(owner) = store.owner()? else {
        return Ok(Ownership::Nobodys { empty: store.is_empty()? });
    };
    Ok(if identity(ledger)?.as_deref() == Some(&owner) { Ownership::Ours } else { Ownership::OfOthers })
}

/// Binds the store to these records, if it is bound to no records. `together`: store and records are in one data
/// folder, where no blobs of other records are expected. Without `together`, a store that holds blobs but no identity
/// is bound only to records that hold something too: a new machine with a wrong setting must not bind the fleet's store
/// to its own empty records.
///
/// # Errors
/// `foreign_blobs` if the store belongs, or may belong, to other records; a store's failure.
pub fn own_blobs(ledger: &dyn Ledger, store: &dyn Owned, together: bool) -> Result<(), FlowError> {
    own_as_found(ledger, store, together, ownership(ledger, store)?)
}

fn own_as_found(ledger: &dyn Ledger, store: &dyn Owned, together: bool, found: Ownership) -> Result<(), FlowError> {
    match found {
        Ownership::Ours => return Ok(()),
        Ownership::OfOthers => return Err(of_others(store)),
        Ownership::Nobodys { empty }
            if empty || together || holds_any(ledger, &[Kind::Run, Kind::Plugin, Kind::Model])? => {}
        Ownership::Nobodys { .. } => return Err(of_unknown_records(store, "these records hold nothing yet")),
    }
    let mine = make(ledger)?;
    if store.own(&mine)? == mine { Ok(()) } else { Err(of_others(store)) }
}

/// As [`own_blobs`], for a worker. Without `together`, a worker must not start on an empty store while the records name
/// packages: the packages are in another store, and every step would fail because its package is missing.
///
/// # Errors
/// As [`own_blobs`]; `empty_blobs` if the store is empty and the records name packages.
pub fn own_blobs_to_work(ledger: &dyn Ledger, store: &dyn Owned, together: bool) -> Result<(), FlowError> {
    let found = ownership(ledger, store)?;
    if found == (Ownership::Nobodys { empty: true }) && !together && holds_any(ledger, &[Kind::Plugin])? {
        let message = format!("{} holds no blobs, and the records name packages that must be there", store.place());
        let help = "name the store that the other processes of this fleet use (`blobs`, DOVETAIL_BLOBS); if its \
                    content is lost, store it again first with `dovetail task push` and `dovetail models pull`";
        return Err(FlowError::refused("empty_blobs", message, help));
    }
    own_as_found(ledger, store, together, found)
}

/// Checks that blobs which these records do not name may be removed. A store that holds blobs must already be bound to
/// these records; with `look_only` it may also be bound to no records.
///
/// # Errors
/// As [`own_blobs`].
pub(crate) fn may_remove(ledger: &dyn Ledger, store: &dyn Owned, look_only: bool) -> Result<(), FlowError> {
    match ownership(ledger, store)? {
        Ownership::Ours | Ownership::Nobodys { empty: true } => Ok(()),
        Ownership::Nobodys { .. } if look_only => Ok(()),
        Ownership::Nobodys { .. } => Err(of_unknown_records(store, "these records have stored nothing there since")),
        Ownership::OfOthers => Err(of_others(store)),
    }
}

fn of_others(store: &dyn Owned) -> FlowError {
    let message = format!("the blobs in {} belong to other records than these", store.place());
    let help = "each set of records needs blobs of its own: name another prefix (`blobs = \"s3://BUCKET/PREFIX?...\"`, \
                DOVETAIL_BLOBS), or another data folder (`--data`); or, if this machine is to be one of the fleet \
                that has them, name its `queue` and `meta`, too. If those records are gone for good, remove `owner` \
                there";
    FlowError::refused("foreign_blobs", message, help)
}

fn of_unknown_records(store: &dyn Owned, why: &str) -> FlowError {
    let message = format!(
        "the blobs in {} are older than the record of their owner, and may belong to other records: {why}",
        store.place()
    );
    let help = "let the records that they belong to store something first (start a worker, or `dovetail task push`): \
                that writes the record of the owner; or name another prefix \
                (`blobs = \"s3://BUCKET/PREFIX?...\"`, DOVETAIL_BLOBS)";
    FlowError::refused("foreign_blobs", message, help)
}

fn identity(ledger: &dyn Ledger) -> Result<Option<String>, StoreError> {
    let found = ledger.get(Kind::Identity, &[RECORDS.to_owned()])?.pop().flatten();
    Ok(found.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

fn make(ledger: &dyn Ledger) -> Result<String, StoreError> {
    if let Some(known) = identity(ledger)? {
        return Ok(known);
    }
    let new = pair::new_identity();
    let record = Record { kind: Kind::Identity, key: RECORDS.to_owned(), value: new.clone().into_bytes() };
    Ok(match ledger.commit(&[Operation::Put { record }])?.pop() {
        Some(Reply::Exists(first)) => String::from_utf8_lossy(&first).into_owned(),
        _ => new,
    })
}

fn holds_any(ledger: &dyn Ledger, kinds: &[Kind]) -> Result<bool, StoreError> {
    let one = Listing { prefix: String::new(), limit: 1, newest_first: false };
    for kind in kinds {
        if !ledger.list(*kind, &one)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// [`Blobs`] that bind the store to the records before the first write, and check the owner again every minute of use.
pub struct OwnBlobs {
    blobs: Arc<dyn Blobs>,
    store: Arc<dyn Owned>,
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    together: bool,
    /// When the owner was checked last, in milliseconds of [`Clock::mono_ms`]; [`NEVER`] at first.
    checked_ms: AtomicU64,
}

impl OwnBlobs {
    /// `blobs` are those of `store`, maybe with a cache. `together` is as for [`own_blobs`]. The store is not asked
    /// yet.
    #[must_use]
    pub fn new(
        blobs: Arc<dyn Blobs>,
        store: Arc<dyn Owned>,
        ledger: Arc<dyn Ledger>,
        clock: Arc<dyn Clock>,
        together: bool,
    ) -> Self {
        Self { blobs, store, ledger, clock, together, checked_ms: AtomicU64::new(NEVER) }
    }

    fn own(&self) -> Result<(), StoreError> {
        let now = self.clock.mono_ms();
        let checked = self.checked_ms.load(Ordering::Relaxed);
        if checked != NEVER && now.saturating_sub(checked) < RELIED_ON {
            return Ok(());
        }
        own_blobs(&*self.ledger, &*self.store, self.together).map_err(|error| match error {
            FlowError::Store(error) => error,
            FlowError::Refused { message, help, .. } => {
                let why = help.unwrap_or_default();
                StoreError::new(StoreErrorKind::Refused, message, why).of(Store::Blobs)
            }
            other => StoreError::new(StoreErrorKind::Refused, "store a blob", other).of(Store::Blobs),
        })?;
        self.checked_ms.store(now, Ordering::Relaxed);
        Ok(())
    }
}

impl Blobs for OwnBlobs {
    fn put(&self, kind: BlobKind, bytes: &[u8]) -> Result<Digest, StoreError> {
        self.own()?;
        self.blobs.put(kind, bytes)
    }

    fn get(&self, kind: BlobKind, digest: &Digest, max: u64) -> Result<Vec<u8>, StoreError> {
        self.blobs.get(kind, digest, max)
    }

    fn size(&self, kind: BlobKind, digest: &Digest) -> Result<Option<u64>, StoreError> {
        self.blobs.size(kind, digest)
    }

    fn is_whole(&self, kind: BlobKind, digest: &Digest, max: u64) -> Result<Option<bool>, StoreError> {
        self.blobs.is_whole(kind, digest, max)
    }
}
