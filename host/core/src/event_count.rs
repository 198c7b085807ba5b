//! How the claimers of one process sleep and wake: a counter of changes. A claimer that found no work compares the
//! counter with its earlier value, and so notices a change in between.
//!
//! Backends of [`crate::ledger::Ledger`] use this if work also arrives from outside the process (a file, another
//! system). Each backend decides which events count as changes.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::sync::lock;

/// Counts changes, and wakes the threads that wait for one: an event count, made of a mutex and a condition variable.
#[derive(Debug, Default)]
pub struct EventCount {
    changes: Mutex<u64>,
    changed: Condvar,
}

impl EventCount {
    fn lock(&self) -> MutexGuard<'_, u64> {
        lock(&self.changes)
    }

    /// Counts a change, and wakes all sleeping threads.
    pub fn notify(&self) {
        *self.lock() += 1;
        self.changed.notify_all();
    }

    /// The number of changes so far. A thread reads it before it looks for work, and passes it to
    /// [`EventCount::sleep`].
    #[must_use]
    pub fn count(&self) -> u64 {
        *self.lock()
    }

    /// Sleeps until the next change, for at most `at_most`. Returns at once if there was a change since `seen` was
    /// read.
    pub fn sleep(&self, seen: u64, at_most: Duration) {
        drop(
            self.changed
                .wait_timeout_while(self.lock(), at_most, |changes| *changes == seen)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }
}
