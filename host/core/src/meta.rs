//! The port to a metadata store that is a system of its own: write-once records, and the index of open runs. Together with
//! [`crate::window::Window`] an adapter in flow makes a [`crate::ledger::Ledger`] of it.
//!
//! Only inserts with a unique key and point reads are on the safe path: it is all that a standalone MongoDB, or a stand-in without atomic
//! updates, is trusted with.

use crate::blobs::StoreError;
use crate::ledger::{Kind, Listing, Record, RunKey};

/// What an insert came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    Created,
    /// The record was there before; this is its value.
    Exists(Vec<u8>),
}

/// Write-once records. Blocking. Safe to call from many threads and processes.
pub trait MetaStore: Send + Sync {
    /// Inserts each record unless its key is taken; durable when it returns. After an error nothing is known, and all may be sent again.
    ///
    /// # Errors
    /// `Unavailable`, `Refused` or `Corrupt`.
    fn put(&self, records: &[Record]) -> Result<Vec<Put>, StoreError>;

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

    /// Notes that a run is open: before its record is written, so that no open run is ever missing here.
    ///
    /// # Errors
    /// `Unavailable`.
    fn open(&self, run: &RunKey) -> Result<(), StoreError>;

    /// Forgets an open run: after its outcome is recorded and the window has closed it.
    ///
    /// # Errors
    /// `Unavailable`.
    fn forget(&self, run: &RunKey) -> Result<(), StoreError>;

    /// Open runs, the oldest first.
    ///
    /// # Errors
    /// `Unavailable`.
    fn open_runs(&self, limit: usize) -> Result<Vec<RunKey>, StoreError>;
}
