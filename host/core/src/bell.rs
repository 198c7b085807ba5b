//! How claimers of one process sleep: a count of changes, so that whoever found nothing can tell whether something came
//! since. For the backends of [`crate::ledger::Ledger`] whose work is elsewhere (a file, another system); what rings it
//! is theirs to say.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Counts changes and wakes those who wait for one.
#[derive(Debug, Default)]
pub struct Bell {
    rung: Mutex<u64>,
    changed: Condvar,
}

impl Bell {
    fn count(&self) -> MutexGuard<'_, u64> {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something changed: whoever sleeps wakes up.
    pub fn ring(&self) {
        *self.count() += 1;
        self.changed.notify_all();
    }

    /// How often it rang: taken before looking, and given to [`Bell::sleep`].
    #[must_use]
    pub fn rung(&self) -> u64 {
        *self.count()
    }

    /// Sleeps until it rings, at most so long, and not at all if it rang since `seen` was taken.
    pub fn sleep(&self, seen: u64, at_most: Duration) {
        drop(
            self.changed
                .wait_timeout_while(self.count(), at_most, |rung| *rung == seen)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }
}
