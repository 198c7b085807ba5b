//! That a queue and records belong together. A worker on the queue of other records would be handed steps of which it
//! knows nothing, and whoever waits for them would wait for ever: it is a setting that one machine lacks.
//!
//! Records have an identity, written once, and the queue keeps that of the records whose work it holds. Whoever only
//! looks claims nothing.

use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::keys::RECORDS;
use dovetail_core::ledger::{Item, Kind, Ledger, Record};
use dovetail_core::meta::{MetaStore, Put};
use dovetail_core::window::Window;

use crate::submit::new_run_id;

fn identity(meta: &dyn MetaStore) -> Result<Option<String>, StoreError> {
    Ok(meta
        .get(Kind::Identity, &[RECORDS.to_owned()])?
        .pop()
        .flatten()
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// Whether they belong to one another already.
///
/// # Errors
/// `Refused` if the queue belongs to other records; a store's failure.
pub(super) fn look(meta: &dyn MetaStore, window: &dyn Window) -> Result<bool, StoreError> {
    let Some(owner) = window.belongs(None)? else {
        return Ok(false);
    };
    if identity(meta)?.as_deref() == Some(&owner) { Ok(true) } else { Err(strangers()) }
}

/// The same, and a queue that belongs to nobody belongs to these records from now on.
///
/// # Errors
/// As [`look`].
pub(super) fn take(meta: &dyn MetaStore, window: &dyn Window) -> Result<(), StoreError> {
    // Whoever does not belong here leaves records that have no identity yet as they are.
    look(meta, window)?;
    let mine = make(meta)?;
    if window.belongs(Some(&mine))?.as_deref() == Some(&mine) { Ok(()) } else { Err(strangers()) }
}

fn make(meta: &dyn MetaStore) -> Result<String, StoreError> {
    let new = new_identity()?;
    let record = Record { kind: Kind::Identity, key: RECORDS.to_owned(), value: new.clone().into_bytes() };
    Ok(match meta.put(&[record])?.pop() {
        Some(Put::Exists(first)) => String::from_utf8_lossy(&first).into_owned(),
        _ => new,
    })
}

/// An identity that no other records have.
pub(crate) fn new_identity() -> Result<String, StoreError> {
    let failed = |e| StoreError::new(StoreErrorKind::Unavailable, "give the records an identity", e);
    Ok(new_run_id().map_err(failed)?.to_string())
}

/// Whether records can be written in a fleet, tried with one that is there: whoever belongs to a queue since long
/// writes none to find out.
///
/// # Errors
/// As [`take`]; `Refused` without the right to.
pub fn may_write(ledger: &dyn Ledger) -> Result<(), StoreError> {
    // What belongs together has an identity.
    ledger.commit(&[])?;
    let record = Record { kind: Kind::Identity, key: RECORDS.to_owned(), value: Vec::new() };
    ledger.commit(&[Item::Put { record }]).map(drop)
}

fn strangers() -> StoreError {
    let why = "it holds the work of other records than these. All of a fleet need the same ones: name one database for every machine \
               (`meta`, DOVETAIL_META), or, on one machine with `sqlite:`, give every process the same data folder (`--data`). Two fleets on one \
               Redis need names of their own (`fleet`). If the other records are gone for good, delete the fleet's keys in Redis: \
               `dovetail:{FLEET}:*`";
    StoreError::new(StoreErrorKind::Refused, "use the queue with these records", why)
}
