//! The stores that do not answer: when to report them, and whether claims wait for them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dovetail_core::blobs::Store;

/// How often a store that still fails is reported.
pub(in super::super) const REPORT_INTERVAL: Duration = Duration::from_secs(30);

/// A store that failed.
#[derive(Debug, Clone, Copy)]
struct Outage {
    since: Instant,
    reported: Instant,
    /// The store did not accept an outcome. The worker claims no jobs until an outcome is recorded.
    keeps_outcomes: bool,
}

/// The stores that failed and have not answered since. The key `None` stands for a store whose name is not known.
#[derive(Debug, Default)]
pub(super) struct Outages(BTreeMap<Option<Store>, Outage>);

impl Outages {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a store did not accept an outcome, so that outcomes are kept.
    pub(super) fn keep_outcomes(&self) -> bool {
        self.0.values().any(|outage| outage.keeps_outcomes)
    }

    /// A store failed at `now`: it did not accept an outcome (`is_outcome`), or a claim failed. If the failure is to be
    /// reported, returns the time since the store's first failure. The first failure is reported, and then one in each
    /// [`REPORT_INTERVAL`].
    pub(super) fn failed(&mut self, store: Option<Store>, is_outcome: bool, now: Instant) -> Option<Duration> {
        let before = self.0.get(&store).copied();
        let mut outage = before.unwrap_or(Outage { since: now, reported: now, keeps_outcomes: is_outcome });
        let is_due = before.is_none() || now - outage.reported >= REPORT_INTERVAL;
        outage.keeps_outcomes |= is_outcome;
        outage.reported = if is_due { now } else { outage.reported };
        self.0.insert(store, outage);
        is_due.then_some(now - outage.since)
    }

    /// These stores answer. Returns the ones that had failed. `is_recorded`: an outcome was recorded, so none of the
    /// stores keeps the worker from claiming.
    pub(super) fn answered(&mut self, stores: &[Store], is_recorded: bool) -> Vec<Option<Store>> {
        // A store without a name counts as answering, because it is usually the only store.
        let recovered: Vec<_> =
            self.0.keys().filter(|store| store.is_none_or(|store| stores.contains(&store))).copied().collect();
        self.0.retain(|store, outage| {
            outage.keeps_outcomes &= !is_recorded;
            !recovered.contains(store)
        });
        recovered
    }
}
