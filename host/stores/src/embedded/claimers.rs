//! Those who wait for jobs: each has a place of its own at which it hears of them, so that a change that is none of its
//! business wakes nobody.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dovetail_core::blobs::StoreError;
use dovetail_core::ledger::{Claimed, Scope};

use super::writer::ReplyTo;

/// How often a claimer looks for the work of other processes on the same folder although no bell rang (`bells.rs`); our
/// own is handed to it.
pub(crate) const LOOK_ROUND: Duration = Duration::from_secs(1);

/// What a claimer asks for.
pub(crate) struct Wanted {
    pub(crate) claimer: u64,
    pub(crate) scope: Scope,
    pub(crate) want: usize,
    pub(crate) lease_ms: u64,
    /// Where there is nothing it waits until there is.
    pub(crate) stays: bool,
    /// How often it looks without a bell.
    pub(crate) round: Duration,
    pub(crate) reply: ReplyTo<Wakeup>,
}

impl Wanted {
    /// Whoever asked may have gone; then the leases lapse.
    pub(crate) fn hears(&self, heard: Result<Wakeup, StoreError>) {
        drop(self.reply.send(heard));
    }
}

/// What a claimer hears.
pub(crate) enum Wakeup {
    /// Its jobs, or that there are none and that it does not stay. The last that it hears.
    Jobs(Vec<Claimed>),
    /// There are none yet, and when the next one becomes free by itself.
    Nothing(Option<u64>),
    /// Somebody wants it to look whether it should still wait.
    Woken,
}

struct Waiting {
    reply: ReplyTo<Wakeup>,
    /// It waits for the end of some runs, too.
    ends: bool,
}

/// Those of this process.
#[derive(Default)]
pub(crate) struct Claimers {
    next: AtomicU64,
    here: Mutex<HashMap<u64, Waiting>>,
}

impl Claimers {
    /// From now on it hears of [`Claimers::wake`].
    pub(crate) fn enter(&self, scope: &Scope, reply: ReplyTo<Wakeup>) -> WaitingClaimer<'_> {
        let claimer = self.next.fetch_add(1, Ordering::Relaxed);
        self.here().insert(claimer, Waiting { reply, ends: matches!(scope, Scope::Runs(_)) });
        WaitingClaimer { claimers: self, claimer }
    }

    pub(crate) fn wake(&self) {
        self.wake_those(|_| true);
    }

    /// Those who work on some runs alone, which may have ended elsewhere.
    pub(crate) fn wake_for_ends(&self) {
        self.wake_those(|waiting| waiting.ends);
    }

    fn wake_those(&self, whom: impl Fn(&Waiting) -> bool) {
        for waiting in self.here().values().filter(|waiting| whom(waiting)) {
            // It may be about to leave.
            drop(waiting.reply.send(Ok(Wakeup::Woken)));
        }
    }

    fn here(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Until it is dropped.
pub(crate) struct WaitingClaimer<'c> {
    claimers: &'c Claimers,
    pub(crate) claimer: u64,
}

impl Drop for WaitingClaimer<'_> {
    fn drop(&mut self) {
        self.claimers.here().remove(&self.claimer);
    }
}
