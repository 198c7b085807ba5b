//! The port to a metadata store that is a system of its own: write-once records, and the index of open runs. Together
//! with [`crate::window::Window`] an adapter in flow makes a [`crate::ledger::Ledger`] of it.
//!
//! Only inserts with a unique key and point reads are on the safe path: it is all that a standalone MongoDB, or a
//! stand-in without atomic updates, is trusted with.

use crate::blobs::StoreError;
use crate::ledger::{Kind, Listing, Record, RunKey};

/// What an insert came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    Created,
    /// The record was there before; this is its value.
    Exists(Vec<u8>),
}

/// Changes that are made together: see [`MetaStore::write`].
#[derive(Debug, Clone, Default)]
pub struct Writes {
    pub open: Vec<RunKey>,
    /// A record, and one that is inserted after it if it was new.
    pub records: Vec<(Record, Option<Record>)>,
    pub forget: Vec<RunKey>,
}

/// Write-once records. Blocking. Safe to call from many threads and processes.
pub trait MetaStore: Send + Sync {
    /// Inserts each record unless its key is taken; durable when it returns. After an error nothing is known, and all
    /// may be sent again.
    ///
    /// # Errors
    /// `Unavailable`, `Refused` or `Corrupt`.
    fn put(&self, records: &[Record]) -> Result<Vec<Put>, StoreError>;

    /// Changes the index of open runs and inserts records, each with another one that is inserted only if the first was
    /// new. What `writes` opens is open before any of its records is there. One change where the store can do that,
    /// several in this order where it cannot.
    ///
    /// # Errors
    /// As `put`.
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

    /// Records by key.
    ///
    /// # Errors
    /// `Unavailable`.
    fn get(&self, kind: Kind, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError>;

    /// Records by the beginning of their key, in the order in which they were inserted.
    ///
    /// # Errors
    /// `Unavailable`.
    fn list(&self, kind: Kind, listing: &Listing) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// Notes that runs are open: before their records are written, so that no open run is ever missing here.
    ///
    /// # Errors
    /// `Unavailable`.
    fn open(&self, runs: &[RunKey]) -> Result<(), StoreError>;

    /// Forgets open runs: after their outcomes are recorded and the window has closed them.
    ///
    /// # Errors
    /// `Unavailable`.
    fn forget(&self, runs: &[RunKey]) -> Result<(), StoreError>;

    /// Open runs, the oldest first.
    ///
    /// # Errors
    /// `Unavailable`.
    fn open_runs(&self, limit: usize) -> Result<Vec<RunKey>, StoreError>;
}
