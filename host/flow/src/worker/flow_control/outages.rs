//! The stores that do not answer: when to tell of them, and whether new work waits for them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dovetail_core::blobs::Store;

/// How often it is told that a store still fails.
pub(in super::super) const TELL: Duration = Duration::from_secs(30);

/// A store that failed.
#[derive(Debug, Clone, Copy)]
struct Outage {
    since: Instant,
    told: Instant,
    /// It did not take what was done: nothing new is claimed until it does.
    keeps: bool,
}

/// The stores that failed and have not answered since. None: whichever it was.
#[derive(Debug, Default)]
pub(super) struct Outages(BTreeMap<Option<Store>, Outage>);

impl Outages {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a store did not take what was done.
    pub(super) fn hold_back(&self) -> bool {
        self.0.values().any(|outage| outage.keeps)
    }

    /// A store failed at `now`, with something that was done (`keeps`) or with a claim. How long it has, where it is
    /// time to tell that: at first, and then now and then.
    pub(super) fn failed(&mut self, store: Option<Store>, keeps: bool, now: Instant) -> Option<Duration> {
        let before = self.0.get(&store).copied();
        let mut outage = before.unwrap_or(Outage { since: now, told: now, keeps });
        let tell = before.is_none() || now - outage.told >= TELL;
        outage.keeps |= keeps;
        outage.told = if tell { now } else { outage.told };
        self.0.insert(store, outage);
        tell.then_some(now - outage.since)
    }

    /// Those of these stores that had failed: they answer again. `took`: what was done was recorded.
    pub(super) fn answered(&mut self, stores: &[Store], took: bool) -> Vec<Option<Store>> {
        // A store without a name is the only one.
        let again: Vec<_> =
            self.0.keys().filter(|store| store.is_none_or(|store| stores.contains(&store))).copied().collect();
        self.0.retain(|store, outage| {
            outage.keeps &= !took;
            !again.contains(store)
        });
        again
    }
}
