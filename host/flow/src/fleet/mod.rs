//! A [`Ledger`] of two systems: records in a [`MetaStore`], work in a [`Window`] that may be lost at any moment. The
//! order of the steps is the protocol (`docs/window.md`): records first, then the window, which acknowledges; the
//! un-acknowledged job is the outbox.
//!
//! Many changes share each round trip, at two desks ([`FlatCombiner`]): at one records are written (`records.rs`), at the other
//! one the window is told (`work.rs`), and while one waits for its server the other goes on. Whoever waits for a change
//! and finds a desk free does it himself; each has a thread for what is left there. Not here: what is to be done (the
//! rest of flow), and how the window keeps its promises (its backend).

#[cfg(test)]
mod hands;
mod leases;
pub(crate) mod pair;
mod records;
mod search;
#[cfg(test)]
mod tests;
mod work;

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{SendError, Sender};
use dovetail_core::bell::Bell;
use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::flat_combining::FlatCombiner;
use dovetail_core::ledger::{
    Claimed, HeldStep, Item, Kind, Lease, Ledger, Listing, Renewal, Reply, RunKey, Scope, Then, Wait,
};
use dovetail_core::meta::MetaStore;
use dovetail_core::panics::contain;
use dovetail_core::scarce::Scarce;
use dovetail_core::window::{Change, Ring, Stamp, Status, Window};

use self::leases::Leases;
use self::records::{Forget, RecordsDesk, Repair, Request, Role, ToRecords};
use self::search::Sweep;
use self::work::{ClaimRequest, ToWindow, WorkDesk};

/// How often a claimer looks although no bell rang: bells are best effort.
const LOOK_ROUND: Duration = Duration::from_secs(30);
/// How often whoever waits for runs reads their records although no bell rang.
const READ_ROUND: Duration = Duration::from_secs(10);
/// Whoever waits for so many runs lets their ends gather before he looks through all of them: so long for each, and at
/// most so long. For fewer, a sleep costs more than looking.
const GATHERED: usize = 64;
const GATHER: Duration = Duration::from_micros(2);
const LONGEST_GATHER: Duration = Duration::from_millis(10);
/// Outcomes above this are not carried by the window but read by whoever needs them, in bytes.
const MAX_CARRIED: usize = 24 << 10;
/// Stands in the window for an outcome that is not carried.
const NOT_CARRIED: &[u8] = b"@";
/// Ended runs that are remembered for those who will ask.
const REMEMBERED: usize = 100_000;

/// Runs whose end was heard, the oldest first; bounded.
#[derive(Default)]
struct HeardOf {
    order: VecDeque<RunKey>,
    set: HashSet<RunKey>,
    /// Notifications may have been missed since the records were read.
    missed: bool,
}

impl HeardOf {
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

/// What the threads share.
struct Shared {
    meta: Arc<dyn MetaStore>,
    window: Arc<dyn Window>,
    bell: Bell,
    leases: Mutex<Leases>,
    /// Of the last answer of the window, and when it came.
    stamp: Mutex<Option<(Stamp, Instant)>>,
    over: Mutex<HeardOf>,
    told: Mutex<Vec<EndListener>>,
    sweep: Mutex<Sweep>,
    /// Whether the window is known to belong to these records.
    paired: AtomicBool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn new(meta: Arc<dyn MetaStore>, window: Arc<dyn Window>) -> Self {
        Self {
            meta,
            window,
            bell: Bell::default(),
            leases: Mutex::default(),
            stamp: Mutex::default(),
            over: Mutex::default(),
            told: Mutex::default(),
            sweep: Mutex::default(),
            paired: AtomicBool::new(false),
        }
    }

    /// Before anything is written or claimed.
    fn pair(&self) -> Result<(), StoreError> {
        if !self.paired.load(Ordering::Acquire) {
            pair::take(&*self.meta, &*self.window)?;
            self.paired.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn tell_listeners(&self, run: &RunKey) {
        for listener in locked(&self.told).iter() {
            // The thread that hears notifications must outlive a listener that panics.
            drop(contain("tell of the end of a run", || listener(run)));
        }
    }

    fn heard(&self, ring: Ring) {
        match ring {
            Ring::Jobs => {}
            Ring::Missed => locked(&self.over).missed = true,
            Ring::Cancelled(run) => self.tell_listeners(&run),
            Ring::Over(run) => {
                self.tell_listeners(&run);
                locked(&self.over).add(run);
            }
        }
        self.bell.ring();
    }

    fn call(
        &self,
        changes: &[Change],
        scope: &Scope,
        want: usize,
        lease: Duration,
    ) -> Result<dovetail_core::window::Called, StoreError> {
        let called = self.window.call(changes, scope, want, lease)?;
        *locked(&self.stamp) = Some((called.stamp.clone(), Instant::now()));
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

/// The two desks, and where work is left for their threads.
struct Desks {
    records: Arc<RecordsDesk>,
    to_records: Sender<ToRecords>,
    work: Arc<WorkDesk>,
    to_work: Sender<ToWindow>,
}

/// Records here, work there.
pub struct FleetLedger {
    shared: Arc<Shared>,
    /// Until it is dropped.
    desks: Option<Desks>,
    threads: Vec<JoinHandle<()>>,
}

impl FleetLedger {
    /// Of these two.
    ///
    /// # Errors
    /// `Refused` if the window holds the work of other records; `Unavailable` if its threads cannot be started.
    pub fn new(meta: Arc<dyn MetaStore>, window: Arc<dyn Window>) -> Result<Self, StoreError> {
        let paired = pair::look(&*meta, &*window)?;
        let shared = Arc::new(Shared::new(meta, window.clone()));
        shared.paired.store(paired, Ordering::Release);
        let ringer = Arc::downgrade(&shared);
        window.listen(Box::new(move |ring| {
            if let Some(shared) = ringer.upgrade() {
                shared.heard(ring);
            }
        }));
        let (records, to_records) = FlatCombiner::new(Forget::default());
        let (work, to_work) = FlatCombiner::new(());
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let failed = |error: std::io::Error| {
                let operation = format!("start the thread {name}");
                StoreError::new(StoreErrorKind::Unavailable, operation, Scarce::thread(&error))
            };
            std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(failed)
        };
        let (here, desk, on) = (shared.clone(), records.clone(), to_work.clone());
        let writing = spawn("fleet-records", Box::new(move || records::run(&here, &desk, &on)))?;
        let (here, desk, back) = (shared.clone(), work.clone(), to_records.clone());
        let telling = spawn("fleet-work", Box::new(move || work::run(&here, &desk, &back)))?;
        Ok(Self { shared, desks: Some(Desks { records, to_records, work, to_work }), threads: vec![writing, telling] })
    }

    fn one(&self, item: &Item) -> Result<Reply, StoreError> {
        match item {
            Item::Recover { run, jobs, steps } => {
                self.shared.rebuild(&Repair { run: run.clone(), jobs: jobs.clone(), steps: steps.clone() })
            }
            Item::Cancel { run, record } => {
                if self.shared.has(Kind::RunOutcome, run.key())? {
                    return Ok(Reply::Closed);
                }
                let put = self.shared.meta.put(std::slice::from_ref(record))?.pop();
                self.shared.change(Change::Cancel { run: run.clone() })?;
                Ok(records::reply(put))
            }
            Item::Reopen { run, .. } if !self.shared.has(Kind::Run, run.run.to_string())? => Ok(Reply::Closed),
            other => self.send_and_wait(vec![other.clone()])?.pop().ok_or_else(gone),
        }
    }

    fn desks(&self) -> Result<&Desks, StoreError> {
        self.desks.as_ref().ok_or_else(gone)
    }

    fn send_and_wait(&self, items: Vec<Item>) -> Result<Vec<Reply>, StoreError> {
        let (reply, told) = crossbeam_channel::bounded(1);
        let request = Request { items, then: Box::new(move |replies| drop(reply.send(replies))) };
        let desks = self.desks()?;
        if request.items.iter().all(needs_no_records) {
            self.tell(desks, ToWindow::Changes(vec![self.shared.unrecorded(request)]));
            return told.recv().map_err(|_| gone())?;
        }
        match desks.records.try_sit() {
            Some(seat) => {
                if let Some(flying) = records::write_with_others(
                    &self.shared,
                    seat,
                    Some(ToRecords::Commit(request)),
                    &Role::Visitor(&desks.to_records),
                ) {
                    self.tell(desks, ToWindow::Changes(flying));
                }
            }
            None => self.send(request),
        }
        told.recv().map_err(|_| gone())?
    }

    /// For whoever waits for the answer.
    fn tell(&self, desks: &Desks, message: ToWindow) {
        match desks.work.try_sit() {
            Some(seat) => work::tell_with_others(&self.shared, &seat, message, &desks.to_records),
            None => work::leave(&desks.to_work, message),
        }
    }

    fn send(&self, request: Request) {
        match &self.desks {
            Some(desks) if request.items.iter().all(needs_no_records) => {
                work::leave(&desks.to_work, ToWindow::Changes(vec![self.shared.unrecorded(request)]));
            }
            Some(desks) => {
                if let Err(SendError(ToRecords::Commit(Request { then, .. }))) =
                    desks.to_records.send(ToRecords::Commit(request))
                {
                    then(Err(gone()));
                }
            }
            None => (request.then)(Err(gone())),
        }
    }
}

impl Drop for FleetLedger {
    fn drop(&mut self) {
        // The second thread ends after the first one, when nobody can leave anything for it.
        if let Some(desks) = self.desks.take() {
            drop(desks.to_records.send(ToRecords::End));
        }
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
        // If the window cannot be told, these leases expire.
        drop(self.shared.give_back_owed());
    }
}

/// Gives a caller its replies. A receiver that panics must not keep the other callers from theirs.
fn answer(then: Then, replies: Result<Vec<Reply>, StoreError>) {
    drop(contain("answer a change", || then(replies)));
}

fn gone() -> StoreError {
    StoreError::plain(StoreErrorKind::Unavailable, "the fleet's ledger has ended")
}

/// Whether an item needs records read and is served on the caller's own thread.
fn is_slow(item: &Item) -> bool {
    matches!(item, Item::Recover { .. } | Item::Cancel { .. } | Item::Reopen { .. })
}

/// Whether an item is only told to the window. It must not wait for the records, nor fail with them: a job goes back
/// because something does not work, which may be the records.
fn needs_no_records(item: &Item) -> bool {
    matches!(item, Item::Release { .. })
}

impl Ledger for FleetLedger {
    fn commit(&self, items: &[Item]) -> Result<Vec<Reply>, StoreError> {
        self.shared.pair()?;
        // In order, and what can share a round trip does.
        let mut replies = Vec::with_capacity(items.len());
        for part in items.chunk_by(|a, b| !is_slow(a) && !is_slow(b)) {
            if let [one] = part {
                replies.push(self.one(one)?);
                continue;
            }
            replies.extend(self.send_and_wait(part.to_vec())?);
        }
        self.shared.bell.ring();
        Ok(replies)
    }

    fn commit_then(&self, items: Vec<Item>, then: Then) {
        if let Err(error) = self.shared.pair() {
            then(Err(error));
        } else if items.iter().any(is_slow) {
            then(self.commit(&items));
        } else {
            self.send(Request { items, then });
        }
    }

    fn claim(&self, scope: &Scope, want: usize, lease: Duration, wait: Wait) -> Result<Vec<Claimed>, StoreError> {
        if matches!(scope, Scope::Runs(_)) {
            let why = "a fleet's queue hands out the work of all runs; start `dovetail worker`";
            return Err(StoreError::new(StoreErrorKind::Refused, "claim the work of some runs only", why));
        }
        self.shared.pair()?;
        self.shared.give_back_owed()?;
        let until = Instant::now() + wait.at_most;
        loop {
            let (reply, answer) = crossbeam_channel::bounded(1);
            let request = ClaimRequest { scope: scope.clone(), want, lease, reply };
            self.tell(self.desks()?, ToWindow::Claim(request));
            let (jobs, next_ms) = answer.recv().map_err(|_| gone())??;
            if !jobs.is_empty() {
                return self.shared.take(jobs);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.shared.bell.rung() != wait.seen {
                return Ok(Vec::new());
            }
            let free = next_ms.map_or(LOOK_ROUND, |ms| Duration::from_millis(ms.max(1)));
            self.shared.bell.sleep(wait.seen, left.min(LOOK_ROUND).min(free));
        }
    }

    fn renew(&self, leases: &[Lease], lease: Duration) -> Result<Vec<Renewal>, StoreError> {
        self.shared.renew(leases, lease)
    }

    fn let_go(&self, lease: &Lease) {
        locked(&self.shared.leases).remove(lease.token);
    }

    fn get(&self, kind: Kind, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.shared.meta.get(kind, keys)
    }

    fn list(&self, kind: Kind, listing: &Listing) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.shared.meta.list(kind, listing)
    }

    fn open_runs(&self, limit: usize) -> Result<Vec<RunKey>, StoreError> {
        let open = self.shared.meta.open_runs(limit)?;
        // The index forgets a run a little later than it ends.
        let heard = locked(&self.shared.over);
        Ok(open.into_iter().filter(|run| !heard.set.contains(run)).collect())
    }

    fn held(&self, run: &RunKey) -> Result<Vec<HeldStep>, StoreError> {
        self.shared.window.held(run)
    }

    fn over(&self, runs: &[RunKey], wait: Wait) -> Result<Vec<RunKey>, StoreError> {
        let until = Instant::now() + wait.at_most;
        let mut read_at = None;
        loop {
            let (mut ended, missed) = {
                let mut heard = locked(&self.shared.over);
                let ended: Vec<RunKey> = runs.iter().filter(|run| heard.set.contains(run)).cloned().collect();
                // Forgotten only by whoever reads the records for it, below.
                let missed = ended.is_empty() && std::mem::take(&mut heard.missed);
                (ended, missed)
            };
            let now = Instant::now();
            let left = until.saturating_duration_since(now);
            // Notifications are best effort; and who only asks wants to know.
            if ended.is_empty()
                && (missed || wait.at_most.is_zero() || read_at.is_some_and(|at: Instant| now - at > READ_ROUND))
            {
                let keys: Vec<String> = runs.iter().map(RunKey::key).collect();
                let found = self.shared.meta.get(Kind::RunOutcome, &keys)?;
                ended = runs
                    .iter()
                    .zip(found)
                    .filter(|(_, outcome)| outcome.is_some())
                    .map(|(run, _)| run.clone())
                    .collect();
                read_at = Some(now);
            }
            if !ended.is_empty() || left.is_zero() || self.shared.bell.rung() != wait.seen {
                return Ok(ended);
            }
            read_at.get_or_insert(now);
            self.shared.bell.sleep(wait.seen, left.min(READ_ROUND));
            // Many end at nearly the same time: whoever waits for many lets some of them gather, instead of looking
            // through all for each.
            if runs.len() >= GATHERED {
                std::thread::sleep(
                    GATHER.saturating_mul(u32::try_from(runs.len()).unwrap_or(u32::MAX)).min(LONGEST_GATHER),
                );
            }
        }
    }

    fn on_end(&self, told: Box<dyn Fn(&RunKey) + Send + Sync>) {
        locked(&self.shared.told).push(told);
    }

    fn beat(&self, worker: &str, about: &[u8], keep: Duration) -> Result<(), StoreError> {
        let stamp = self.shared.window.beat(worker, about, keep)?;
        *locked(&self.shared.stamp) = Some((stamp, Instant::now()));
        Ok(())
    }

    fn workers(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.shared.window.workers()
    }

    fn lost(&self) -> Result<Vec<RunKey>, StoreError> {
        self.shared.lost()
    }

    fn wake(&self) {
        self.shared.bell.ring();
    }

    fn wakes(&self) -> u64 {
        self.shared.bell.rung()
    }
}
