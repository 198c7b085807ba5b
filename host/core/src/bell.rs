//! How the claimers of one process sleep and wake: a counter of changes. A claimer that found no work compares the
//! counter with its earlier value, and so notices a change in between.
//!
//! Backends of [`crate::ledger::Ledger`] use this if work also arrives from outside the process (a file, another
//! system). Each backend decides which events count as changes.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Counts changes, and wakes the threads that wait for one: an event count, made of a mutex and a condition variable.
#[derive(Debug, Default)]
pub struct Bell {
    rung: Mutex<u64>,
    changed: Condvar,
}

impl Bell {
    fn count(&self) -> MutexGuard<'_, u64> {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a change, and wakes all sleeping threads.
    pub fn ring(&self) {
        *self.count() += 1;
        self.changed.notify_all();
    }

    /// The number of changes so far. A thread reads it before it looks for work, and passes it to [`Bell::sleep`].
    #[must_use]
    pub fn rung(&self) -> u64 {
        *self.count()
    }

    /// Sleeps until the next change, for at most `at_most`. Returns at once if there was a change since `seen` was
    /// read.
    pub fn sleep(&self, seen: u64, at_most: Duration) {
        drop(
            self.changed
                .wait_timeout_while(self.count(), at_most, |rung| *rung == seen)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }
}
