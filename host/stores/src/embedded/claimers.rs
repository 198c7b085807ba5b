//! The waiting claimers of this process. Each has a channel of its own, so that a change wakes only the claimers that
//! it concerns.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::ledger::{Claimed, Scope};
use dovetail_core::panics::Panicked;
use dovetail_core::sync::lock;

use super::writer::ReplyTo;

/// How often a claimer looks for the work of other processes on the same folder without a notification
/// (`notifications.rs`). The writer hands it the work of its own process.
pub(crate) const LOOK_ROUND: Duration = Duration::from_secs(1);

/// The request of a claimer.
pub(crate) struct PendingClaim {
    pub(crate) claimer: u64,
    pub(crate) scope: Scope,
    pub(crate) want: usize,
    pub(crate) lease_ms: u64,
    /// Whether the claimer waits if there is no job.
    pub(crate) waits: bool,
    /// How often the claimer looks for jobs without a notification.
    pub(crate) round: Duration,
    pub(crate) reply: ReplyTo<Wakeup>,
}

impl PendingClaim {
    /// Sends a message to the claimer. If the claimer is gone, the leases of its jobs expire.
    pub(crate) fn send(&self, message: Result<Wakeup, StoreError>) {
        drop(self.reply.send(message));
    }
}

/// A message to a claimer.
pub(crate) enum Wakeup {
    /// The claimer's jobs, or none if there is no job and the claimer does not wait. This is the last message.
    Jobs(Vec<Claimed>),
    /// There is no job yet. The value is the time at which the next job becomes free without a change.
    Nothing(Option<u64>),
    /// The claimer must check whether it should still wait.
    Woken,
}

struct Waiting {
    reply: ReplyTo<Wakeup>,
    /// Whether the claimer also waits for the end of runs.
    ends: bool,
}

/// The claimers of this process.
#[derive(Default)]
pub(crate) struct Claimers {
    next: AtomicU64,
    here: Mutex<HashMap<u64, Waiting>>,
}

impl Claimers {
    /// Registers a claimer. From now on [`Claimers::wake`] reaches it.
    pub(crate) fn enter(&self, scope: &Scope, reply: ReplyTo<Wakeup>) -> WaitingClaimer<'_> {
        let claimer = self.next.fetch_add(1, Ordering::Relaxed);
        self.here().insert(claimer, Waiting { reply, ends: matches!(scope, Scope::Runs(_)) });
        WaitingClaimer { claimers: self, claimer }
    }

    pub(crate) fn wake(&self) {
        self.wake_those(|_| true);
    }

    /// Wakes the claimers whose scope is a set of runs: these runs may have ended in another process.
    pub(crate) fn wake_for_ends(&self) {
        self.wake_those(|waiting| waiting.ends);
    }

    /// Gives every claimer this panic of the writer as its answer: the writer may have forgotten the claimer.
    pub(crate) fn fail(&self, panic: &Panicked) {
        for waiting in self.here().values() {
            let error = StoreError::new(StoreErrorKind::Unavailable, "claim jobs from the database", panic.clone());
            drop(waiting.reply.send(Err(error)));
        }
    }

    fn wake_those(&self, selected: impl Fn(&Waiting) -> bool) {
        for waiting in self.here().values().filter(|waiting| selected(waiting)) {
            // Ignore a closed channel: the claimer may be about to leave.
            drop(waiting.reply.send(Ok(Wakeup::Woken)));
        }
    }

    fn here(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        lock(&self.here)
    }
}

/// Removes the claimer from the list when it is dropped.
pub(crate) struct WaitingClaimer<'c> {
    claimers: &'c Claimers,
    pub(crate) claimer: u64,
}

impl Drop for WaitingClaimer<'_> {
    fn drop(&mut self) {
        self.claimers.here().remove(&self.claimer);
    }
}
