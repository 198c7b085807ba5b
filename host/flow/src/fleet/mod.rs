//! A [`Ledger`] of two systems: records in a [`MetaStore`], and a queue in a [`Window`] that may be lost at any moment.
//!
//! The order of the writes is the protocol (`docs/window.md`): the records are written first, then the window is
//! changed, and that change acknowledges the job. The unacknowledged job is the transactional outbox.
//!
//! Changes share round trips at two flat combiners (`in_flight.rs`): one writes records (`records.rs`), the other one
//! changes the window (`work.rs`). The two work at the same time: one can write while the other waits for its server.
//!
//! This module does not decide which jobs exist (the rest of flow does), nor how the window keeps its promises (its
//! backend does).

mod in_flight;
mod leases;
pub(crate) mod pair;
mod records;
mod search;
#[cfg(test)]
mod tests;
mod work;

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::event_count::EventCount;
use dovetail_core::ledger::{
    Claimed, HeldStep, Kind, Lease, Ledger, Listing, Operation, Renewal, Reply, RunKey, Scope, Then, Wait,
};
use dovetail_core::meta::MetaStore;
use dovetail_core::panics::contain;
use dovetail_core::sync::lock;
use dovetail_core::window::{Called, Change, Notification, Stamp, Status, Window};

use self::in_flight::{InFlight, Request};
use self::leases::Leases;
use self::records::Repair;
use self::search::Sweep;

/// A claimer looks at the queue after this time even without a notification, because notifications are best effort.
const LOOK_ROUND: Duration = Duration::from_secs(30);
/// A caller that waits for runs reads their records after this time even without a notification.
const READ_ROUND: Duration = Duration::from_secs(10);
/// A caller that waits for at least this many runs sleeps after each notification, so that several ends gather before
/// it looks through all its runs. For fewer runs a sleep costs more than the look.
const GATHERED: usize = 64;
/// The length of that sleep for each run, and its upper limit.
const GATHER: Duration = Duration::from_micros(2);
const LONGEST_GATHER: Duration = Duration::from_millis(10);
/// The largest outcome that the window carries, in bytes. A worker reads a larger one from the records.
const MAX_CARRIED: usize = 24 << 10;
/// The value that the window carries in place of an outcome above [`MAX_CARRIED`].
const NOT_CARRIED: &[u8] = b"@";
/// How many ended runs this process remembers.
const REMEMBERED: usize = 100_000;

/// Runs that are known to have ended, the oldest first. At most [`REMEMBERED`].
#[derive(Default)]
struct EndedRuns {
    order: VecDeque<RunKey>,
    set: HashSet<RunKey>,
    /// Notifications may have been missed since the records were read last.
    missed: bool,
}

impl EndedRuns {
    fn add(&mut self, run: RunKey) {
        if self.set.insert(run.clone()) {
            self.order.push_back(run);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
    }

    fn forget(&mut self, run: &RunKey) {
        if self.set.remove(run) {
            self.order.retain(|known| known != run);
        }
    }
}

type EndListener = Box<dyn Fn(&RunKey) + Send + Sync>;

/// The state that callers of the ledger and its threads share.
struct Shared {
    meta: Arc<dyn MetaStore>,
    window: Arc<dyn Window>,
    changes: EventCount,
    leases: Mutex<Leases>,
    /// The stamp of the window's last answer, and when the answer came.
    stamp: Mutex<Option<(Stamp, Instant)>>,
    ended: Mutex<EndedRuns>,
    end_listeners: Mutex<Vec<EndListener>>,
    sweep: Mutex<Sweep>,
    /// The window is known to belong to these records.
    paired: AtomicBool,
}

impl Shared {
    fn new(meta: Arc<dyn MetaStore>, window: Arc<dyn Window>) -> Self {
        Self {
            meta,
            window,
            changes: EventCount::default(),
            leases: Mutex::default(),
            stamp: Mutex::default(),
            ended: Mutex::default(),
            end_listeners: Mutex::default(),
            sweep: Mutex::default(),
            paired: AtomicBool::new(false),
        }
    }

    /// Makes sure that window and records belong together. Called before any write and any claim.
    fn pair(&self) -> Result<(), StoreError> {
        if !self.paired.load(Ordering::Acquire) {
            pair::take(&*self.meta, &*self.window)?;
            self.paired.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn notified(&self, notification: Notification) {
        match notification {
            Notification::Jobs => {}
            Notification::Missed => lock(&self.ended).missed = true,
            Notification::Cancelled(run) => self.tell_end_listeners(&run),
            Notification::Over(run) => {
                self.tell_end_listeners(&run);
                lock(&self.ended).add(run);
            }
        }
        self.changes.notify();
    }

    fn tell_end_listeners(&self, run: &RunKey) {
        for listener in lock(&self.end_listeners).iter() {
            // The thread that hears notifications must outlive a listener that panics.
            drop(contain("tell of the end of a run", || listener(run)));
        }
    }

    fn call(&self, changes: &[Change], scope: &Scope, want: usize, lease: Duration) -> Result<Called, StoreError> {
        let called = self.window.call(changes, scope, want, lease)?;
        *lock(&self.stamp) = Some((called.stamp.clone(), Instant::now()));
        Ok(called)
    }

    fn change(&self, change: Change) -> Result<Status, StoreError> {
        let called = self.call(std::slice::from_ref(&change), &Scope::All, 0, Duration::ZERO)?;
        called.statuses.first().copied().ok_or_else(|| StoreError::plain(StoreErrorKind::Corrupt, "change the window"))
    }

    fn has(&self, kind: Kind, key: String) -> Result<bool, StoreError> {
        Ok(self.meta.get(kind, &[key])?.pop().flatten().is_some())
    }
}

/// A ledger whose records are in a [`MetaStore`] and whose queue is in a [`Window`].
pub struct FleetLedger {
    shared: Arc<Shared>,
    in_flight: InFlight,
}

impl FleetLedger {
    /// A ledger of these records and this window. Starts two threads, which end when the ledger is dropped.
    ///
    /// # Errors
    /// `Refused` if the window holds the work of other records; `Unavailable` if the threads cannot be started.
    pub fn new(meta: Arc<dyn MetaStore>, window: Arc<dyn Window>) -> Result<Self, StoreError> {
        let paired = pair::look(&*meta, &*window)?;
        let shared = Arc::new(Shared::new(meta, window.clone()));
        shared.paired.store(paired, Ordering::Release);
        // Weak, because the window holds this listener and `Shared` holds the window.
        let listening = Arc::downgrade(&shared);
        window.listen(Box::new(move |notification| {
            if let Some(shared) = listening.upgrade() {
                shared.notified(notification);
            }
        }));
        let in_flight = InFlight::start(&shared)?;
        Ok(Self { shared, in_flight })
    }

    fn commit_one(&self, item: &Operation) -> Result<Reply, StoreError> {
        match item {
            Operation::Recover { run, jobs, steps } => {
                self.shared.rebuild(&Repair { run: run.clone(), jobs: jobs.clone(), steps: steps.clone() })
            }
            Operation::Cancel { run, record } => {
                if self.shared.has(Kind::RunOutcome, run.key())? {
                    return Ok(Reply::Closed);
                }
                let put = self.shared.meta.put(std::slice::from_ref(record))?.pop();
                self.shared.change(Change::Cancel { run: run.clone() })?;
                Ok(records::reply(put))
            }
            Operation::Reopen { run, .. } if !self.shared.has(Kind::Run, run.run.to_string())? => Ok(Reply::Closed),
            other => self.in_flight.submit_and_wait(vec![other.clone()])?.pop().ok_or_else(in_flight::ended),
        }
    }
}

/// Whether an item reads records before it is applied. The caller's own thread serves such an item.
fn reads_records(item: &Operation) -> bool {
    matches!(item, Operation::Recover { .. } | Operation::Cancel { .. } | Operation::Reopen { .. })
}

impl Ledger for FleetLedger {
    fn commit(&self, items: &[Operation]) -> Result<Vec<Reply>, StoreError> {
        self.shared.pair()?;
        // The items are applied in order. Neighbours that read no records share a round trip.
        let mut replies = Vec::with_capacity(items.len());
        for chunk in items.chunk_by(|a, b| !reads_records(a) && !reads_records(b)) {
            if let [one] = chunk {
                replies.push(self.commit_one(one)?);
                continue;
            }
            replies.extend(self.in_flight.submit_and_wait(chunk.to_vec())?);
        }
        self.shared.changes.notify();
        Ok(replies)
    }

    fn commit_then(&self, items: Vec<Operation>, then: Then) {
        if let Err(error) = self.shared.pair() {
            then(Err(error));
        } else if items.iter().any(reads_records) {
            then(self.commit(&items));
        } else {
            self.in_flight.submit(Request { items, then });
        }
    }

    fn claim(&self, scope: &Scope, want: usize, lease: Duration, wait: Wait) -> Result<Vec<Claimed>, StoreError> {
        if matches!(scope, Scope::Runs(_)) {
            let why = "a fleet's queue hands out the work of all runs; start `dovetail worker`";
            return Err(StoreError::new(StoreErrorKind::Refused, "claim the work of some runs only", why));
        }
        self.shared.pair()?;
        self.shared.release_unread()?;
        let until = Instant::now() + wait.at_most;
        loop {
            let (jobs, next_ms) = self.in_flight.claim(scope, want, lease)?;
            if !jobs.is_empty() {
                return self.shared.take(jobs);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.shared.changes.count() != wait.seen {
                return Ok(Vec::new());
            }
            let next_job = next_ms.map_or(LOOK_ROUND, |ms| Duration::from_millis(ms.max(1)));
            self.shared.changes.sleep(wait.seen, left.min(LOOK_ROUND).min(next_job));
        }
    }

    fn renew(&self, leases: &[Lease], lease: Duration) -> Result<Vec<Renewal>, StoreError> {
        self.shared.renew(leases, lease)
    }

    fn let_go(&self, lease: &Lease) {
        lock(&self.shared.leases).remove(lease.token);
    }

    fn get(&self, kind: Kind, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.shared.meta.get(kind, keys)
    }

    fn list(&self, kind: Kind, listing: &Listing) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.shared.meta.list(kind, listing)
    }

    fn open_runs(&self, limit: usize) -> Result<Vec<RunKey>, StoreError> {
        let open = self.shared.meta.open_runs(limit)?;
        // The index of open runs drops a run some time after the run's end.
        let ended = lock(&self.shared.ended);
        Ok(open.into_iter().filter(|run| !ended.set.contains(run)).collect())
    }

    fn held(&self, run: &RunKey) -> Result<Vec<HeldStep>, StoreError> {
        self.shared.window.held(run)
    }

    fn over(&self, runs: &[RunKey], wait: Wait) -> Result<Vec<RunKey>, StoreError> {
        let until = Instant::now() + wait.at_most;
        let mut read_at = None;
        loop {
            let (mut ended, missed) = {
                let mut known = lock(&self.shared.ended);
                let ended: Vec<RunKey> = runs.iter().filter(|run| known.set.contains(run)).cloned().collect();
                // Cleared only by a caller that reads the records because of the flag, below.
                let missed = ended.is_empty() && std::mem::take(&mut known.missed);
                (ended, missed)
            };
            let now = Instant::now();
            let left = until.saturating_duration_since(now);
            // Notifications are best effort, so the records are read now and then. A caller that does not wait at all
            // gets its answer from the records at once.
            if ended.is_empty()
                && (missed || wait.at_most.is_zero() || read_at.is_some_and(|at: Instant| now - at > READ_ROUND))
            {
                let keys: Vec<String> = runs.iter().map(RunKey::key).collect();
                let found = self.shared.meta.get(Kind::RunOutcome, &keys).inspect_err(|_| {
                    // The next caller reads the records instead.
                    lock(&self.shared.ended).missed |= missed;
                })?;
                ended = runs
                    .iter()
                    .zip(found)
                    .filter(|(_, outcome)| outcome.is_some())
                    .map(|(run, _)| run.clone())
                    .collect();
                read_at = Some(now);
            }
            if !ended.is_empty() || left.is_zero() || self.shared.changes.count() != wait.seen {
                return Ok(ended);
            }
            read_at.get_or_insert(now);
            self.shared.changes.sleep(wait.seen, left.min(READ_ROUND));
            // Many runs end at nearly the same time: let some ends gather instead of looking through all runs for each.
            if runs.len() >= GATHERED {
                std::thread::sleep(
                    GATHER.saturating_mul(u32::try_from(runs.len()).unwrap_or(u32::MAX)).min(LONGEST_GATHER),
                );
            }
        }
    }

    fn on_end(&self, listener: Box<dyn Fn(&RunKey) + Send + Sync>) {
        lock(&self.shared.end_listeners).push(listener);
    }

    fn beat(&self, worker: &str, about: &[u8], keep: Duration) -> Result<(), StoreError> {
        let stamp = self.shared.window.beat(worker, about, keep)?;
        *lock(&self.shared.stamp) = Some((stamp, Instant::now()));
        Ok(())
    }

    fn workers(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.shared.window.workers()
    }

    fn lost(&self) -> Result<Vec<RunKey>, StoreError> {
        self.shared.lost()
    }

    fn wake(&self) {
        self.shared.changes.notify();
    }

    fn wakes(&self) -> u64 {
        self.shared.changes.count()
    }
}
