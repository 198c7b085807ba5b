//! Checks that a queue and records belong together. Without the check, a machine that lacks a setting combines a
//! fleet's queue with other records: its worker claims steps of runs that it cannot read, and callers that wait for
//! those runs wait for ever.
//!
//! The records have an identity, which is written once. The queue keeps the identity of the records whose work it
//! holds. A process that only reads does not bind a queue to its records.

use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::keys::RECORDS;
use dovetail_core::ledger::{Kind, Ledger, Operation, Record};
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

/// Whether the queue is bound to these records. `false`: it is bound to no records.
///
/// # Errors
/// `Refused` if the queue belongs to other records; a store's failure.
pub(super) fn look(meta: &dyn MetaStore, window: &dyn Window) -> Result<bool, StoreError> {
    let Some(owner) = window.belongs(None)? else {
        return Ok(false);
    };
    if identity(meta)?.as_deref() == Some(&owner) { Ok(true) } else { Err(other_records()) }
}

/// Binds the queue to these records, unless it is bound already.
///
/// # Errors
/// As [`look`].
pub(super) fn take(meta: &dyn MetaStore, window: &dyn Window) -> Result<(), StoreError> {
    // First without a change: a process with the wrong records must not give those records an identity.
    look(meta, window)?;
    let mine = make(meta)?;
    if window.belongs(Some(&mine))?.as_deref() == Some(&mine) { Ok(()) } else { Err(other_records()) }
}

fn make(meta: &dyn MetaStore) -> Result<String, StoreError> {
    let new = new_identity();
    let record = Record { kind: Kind::Identity, key: RECORDS.to_owned(), value: new.clone().into_bytes() };
    Ok(match meta.put(&[record])?.pop() {
        Some(Put::Exists(first)) => String::from_utf8_lossy(&first).into_owned(),
        _ => new,
    })
}

/// A new, random identity for records.
pub(crate) fn new_identity() -> String {
    new_run_id().to_string()
}

/// Checks that this process may write records: inserts the identity again, which exists already. Without this check, a
/// process whose queue is already bound writes nothing at its start and would find out late.
///
/// # Errors
/// `Refused` if the queue belongs to other records, or if this process has no right to write; a store's failure.
pub fn may_write(ledger: &dyn Ledger) -> Result<(), StoreError> {
    // An empty commit binds queue and records, which gives the records their identity.
    ledger.commit(&[])?;
    let record = Record { kind: Kind::Identity, key: RECORDS.to_owned(), value: Vec::new() };
    ledger.commit(&[Operation::Put { record }]).map(drop)
}

fn other_records() -> StoreError {
    let why = "it holds the work of other records than these. All machines of a fleet need the same records: name \
               one database for every machine (`meta`, DOVETAIL_META), or, on one machine with `sqlite:`, give every \
               process the same data folder (`--data`). Two fleets on one Redis need names of their own (`fleet`). If \
               the other records are gone for good, delete the fleet's keys in Redis: `dovetail:{FLEET}:*`";
    StoreError::new(StoreErrorKind::Refused, "use the queue with these records", why)
}
