//! The port to a metadata store that is a separate system: write-once records, and the index of open runs. An adapter
//! in flow makes one [`crate::ledger::Ledger`] of this port and [`crate::window::Window`].
//!
//! Safety depends only on inserts under a unique key and on point reads. A standalone MongoDB, or a stand-in without
//! atomic updates, provides both.

use crate::blobs::StoreError;
use crate::ledger::{Kind, Listing, Record, RunKey};

/// The result of an insert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// The record was inserted.
    Created,
    /// A record with this key was inserted earlier; this is its value.
    Exists(Vec<u8>),
}

/// Changes for one call of [`MetaStore::write`].
#[derive(Debug, Clone, Default)]
pub struct Writes {
    /// Runs to add to the index of open runs.
    pub open: Vec<RunKey>,
    /// Records to insert, each with an optional second record. The second one is inserted only if the first one is new.
    pub records: Vec<(Record, Option<Record>)>,
    /// Runs to remove from the index of open runs.
    pub forget: Vec<RunKey>,
}

/// Write-once records. All functions block. Many threads and processes may use one store.
pub trait MetaStore: Send + Sync {
    /// Inserts each record unless its key is taken. The records are durable when this returns.
    ///
    /// # Errors
    /// `Unavailable`, `Refused` or `Corrupt`. Each record may or may not have been inserted, and the caller may send
    /// all of them again.
    fn put(&self, records: &[Record]) -> Result<Vec<Put>, StoreError>;

    /// Applies `writes`: first opens runs, then inserts records, then removes runs from the index. A run is in the
    /// index before any of its records is stored.
    ///
    /// A store that can do so makes this one atomic change. Other stores make several changes, in this order.
    ///
    /// # Errors
    /// As [`MetaStore::put`].
    fn write(&self, writes: &Writes) -> Result<Vec<Put>, StoreError> {
        if !writes.open.is_empty() {
            self.open(&writes.open)?;
        }
        let first: Vec<Record> = writes.records.iter().map(|(record, _)| record.clone()).collect();
        let answers = self.put(&first)?;
        let then = writes.records.iter().zip(&answers).filter(|(_, answer)| **answer == Put::Created);
        let then: Vec<Record> = then.filter_map(|((_, then), _)| then.clone()).collect();
        if !then.is_empty() {
            self.put(&then)?;
        }
        if !writes.forget.is_empty() {
            self.forget(&writes.forget)?;
        }
        Ok(answers)
    }

    /// Reads records by key. Returns one entry for each key, in order; `None` if there is no such record.
    ///
    /// # Errors
    /// `Unavailable`.
    fn get(&self, kind: Kind, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError>;

    /// Lists records by the beginning of their key, in the order of insertion.
    ///
    /// # Errors
    /// `Unavailable`.
    fn list(&self, kind: Kind, listing: &Listing) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// Adds runs to the index of open runs. Callers do this before they write the runs' records, so that no open run is
    /// ever missing from the index.
    ///
    /// # Errors
    /// `Unavailable`.
    fn open(&self, runs: &[RunKey]) -> Result<(), StoreError>;

    /// Removes runs from the index of open runs. Callers do this after the runs' outcomes are recorded and the window
    /// has closed the runs.
    ///
    /// # Errors
    /// `Unavailable`.
    fn forget(&self, runs: &[RunKey]) -> Result<(), StoreError>;

    /// The runs in the index, the oldest first, at most `limit`.
    ///
    /// # Errors
    /// `Unavailable`.
    fn open_runs(&self, limit: usize) -> Result<Vec<RunKey>, StoreError>;
}
