//! A [`Ledger`] of two systems: records in a [`MetaStore`], work in a [`Window`] that may be lost at any moment. The order of the steps is
//! the protocol (`docs/window.md`): records first, then the window, which acknowledges; the un-acknowledged job is the outbox.
//!
//! Not here: what is to be done (the rest of flow), and how the window keeps its promises (its backend).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dovetail_core::bell::Bell;
use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::ledger::{Claimed, Item, Job, Kind, Lease, Ledger, Listing, Record, Renewal, Reply, RunKey, Scope, Wait};
use dovetail_core::meta::{MetaStore, Put};
use dovetail_core::record::{Form, OutcomeRecord};
use dovetail_core::window::{Change, Delivery, Held, Status, Window, WindowLease};

/// How often a claimer looks although no bell rang: bells are best effort.
const LOOK_ROUND: Duration = Duration::from_secs(1);
/// Outcomes above this are not carried by the window but read by whoever needs them, in bytes.
const MAX_CARRIED: usize = 24 << 10;
/// Stands in the window for an outcome that is not carried.
const NOT_CARRIED: &[u8] = b"@";
/// How often a rebuild is tried anew because the window was lost meanwhile.
const REBUILDS: u32 = 5;

/// A step with its outcome where that was a success.
type DoneStep = (String, Option<Vec<u8>>);

struct Mine {
    lease: WindowLease,
    attempt: u32,
    verify: bool,
}

/// Records here, work there.
pub struct FleetLedger {
    meta: Arc<dyn MetaStore>,
    window: Arc<dyn Window>,
    bell: Arc<Bell>,
    mine: Mutex<(u64, HashMap<u64, Mine>)>,
}

impl FleetLedger {
    /// Of these two.
    #[must_use]
    pub fn new(meta: Arc<dyn MetaStore>, window: Arc<dyn Window>) -> Self {
        let bell = Arc::new(Bell::default());
        let ringer = bell.clone();
        window.listen(Box::new(move || ringer.ring()));
        Self { meta, window, bell, mine: Mutex::default() }
    }

    fn mine(&self) -> MutexGuard<'_, (u64, HashMap<u64, Mine>)> {
        self.mine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, record: &Record) -> Result<Put, StoreError> {
        let mut answers = self.meta.put(std::slice::from_ref(record))?;
        answers.pop().ok_or_else(|| StoreError::plain(StoreErrorKind::Corrupt, "insert a record"))
    }

    fn has(&self, kind: Kind, key: String) -> Result<bool, StoreError> {
        Ok(self.meta.get(kind, &[key])?.pop().flatten().is_some())
    }

    fn change(&self, change: Change) -> Result<Status, StoreError> {
        let called = self.window.call(std::slice::from_ref(&change), 0, Duration::ZERO)?;
        called.statuses.first().copied().ok_or_else(|| StoreError::plain(StoreErrorKind::Corrupt, "change the window"))
    }

    /// The window closes the run, then the index forgets it: in this order an open run is never missing from the index.
    fn close(&self, run: &RunKey) -> Result<(), StoreError> {
        self.change(Change::Close { run: run.clone() })?;
        self.meta.forget(run)
    }

    /// The lease as the window knows it. A lease of an earlier process is no lease.
    fn known(&self, lease: &Lease) -> WindowLease {
        let none = || WindowLease { run: lease.run.clone(), step: lease.step.clone(), token: String::new(), epoch: String::new() };
        self.mine().1.get(&lease.token).map_or_else(none, |mine| mine.lease.clone())
    }

    fn drop_lease(&self, lease: &Lease) {
        self.mine().1.remove(&lease.token);
    }

    fn apply(&self, item: &Item) -> Result<Reply, StoreError> {
        match item {
            Item::Put { record } => Ok(reply(self.put(record)?)),
            Item::Submit { run, record, jobs } => self.submit(run, record, jobs),
            Item::Finish { lease, record, succeeded, close, children } => self.finish(lease, record, *succeeded, close.as_ref(), children),
            Item::Retry { lease, record, delay } => {
                // The record may be there already, from a call whose answer was lost.
                self.put(record)?;
                let attempt = self.mine().1.get(&lease.token).map_or(2, |mine| mine.attempt + 1);
                self.back(lease, attempt, true, *delay)
            }
            Item::Release { lease, delay } => {
                let (attempt, verify) = self.mine().1.get(&lease.token).map_or((1, true), |mine| (mine.attempt, mine.verify));
                self.back(lease, attempt, verify, *delay)
            }
            Item::Recover { run, jobs } => self.rebuild(run, jobs),
            Item::Cancel { run, record } => {
                if self.has(Kind::RunOutcome, run.key())? {
                    return Ok(Reply::Closed);
                }
                let put = self.put(record)?;
                self.change(Change::Cancel { run: run.clone() })?;
                Ok(reply(put))
            }
            Item::Close { run, record } => {
                let put = self.put(record)?;
                self.close(run)?;
                Ok(reply(put))
            }
        }
    }

    fn submit(&self, run: &RunKey, record: &Record, jobs: &[Job]) -> Result<Reply, StoreError> {
        let stamp = self.window.peek()?;
        self.meta.open(run)?;
        if let exists @ Put::Exists(_) = self.put(record)? {
            // The index may now name a run that is over; recovery, which follows, puts that right.
            return Ok(reply(exists));
        }
        // This caller's insert was the first: no step of the run can have an outcome, and nothing needs to be verified.
        let open = Change::Open { run: run.clone(), stamp, verify: false, envelope: record.value.clone(), done: Vec::new(), jobs: jobs.to_vec() };
        if self.change(open)? == Status::Stale {
            self.rebuild(run, jobs)?;
        }
        Ok(Reply::Created)
    }

    fn finish(&self, lease: &Lease, record: &Record, succeeded: bool, close: Option<&Record>, children: &[Job]) -> Result<Reply, StoreError> {
        if let exists @ Put::Exists(_) = self.put(record)? {
            return Ok(reply(exists));
        }
        if let Some(end) = close {
            let put = self.put(end)?;
            self.close(&lease.run)?;
            self.drop_lease(lease);
            return Ok(if put == Put::Created { Reply::Created } else { Reply::Closed });
        }
        let value = if record.value.len() <= MAX_CARRIED { record.value.clone() } else { NOT_CARRIED.to_vec() };
        let finish = Change::Finish { lease: self.known(lease), succeeded, value, children: children.to_vec() };
        let reply = match self.change(finish)? {
            Status::Ok => Reply::Created,
            Status::Closed => Reply::Closed,
            Status::Cancelled => Reply::Cancelled,
            Status::NotOwner => Reply::NotOwner,
            // The last one, or the window was lost: either way nothing is acknowledged, and this worker reads the records next.
            Status::Last | Status::Lost | Status::Stale => Reply::Last,
        };
        self.drop_lease(lease);
        Ok(reply)
    }

    fn back(&self, lease: &Lease, attempt: u32, verify: bool, delay: Duration) -> Result<Reply, StoreError> {
        let status = self.change(Change::Back { lease: self.known(lease), attempt, verify, delay })?;
        self.drop_lease(lease);
        Ok(if status == Status::Ok { Reply::Created } else { Reply::NotOwner })
    }

    /// Puts the window in line with the records, which are read after its stamp was taken.
    fn rebuild(&self, run: &RunKey, jobs: &[Job]) -> Result<Reply, StoreError> {
        for _ in 0..REBUILDS {
            let stamp = self.window.peek()?;
            if self.has(Kind::RunOutcome, run.key())? {
                self.close(run)?;
                return Ok(Reply::Closed);
            }
            self.meta.open(run)?;
            let Some(envelope) = self.meta.get(Kind::Run, &[run.run.to_string()])?.pop().flatten() else {
                return Err(StoreError::plain(StoreErrorKind::Missing, format!("read run {}", run.run)));
            };
            let done = self.outcomes(run)?;
            let open = Change::Open { run: run.clone(), stamp, verify: true, envelope, done, jobs: jobs.to_vec() };
            match self.change(open)? {
                Status::Stale => {}
                Status::Closed => return Ok(Reply::Closed),
                _ => {
                    if self.has(Kind::Cancel, run.key())? {
                        self.change(Change::Cancel { run: run.clone() })?;
                    }
                    return Ok(Reply::Created);
                }
            }
        }
        Err(StoreError::plain(StoreErrorKind::Unavailable, format!("rebuild the window of run {}: it is lost again and again", run.run)))
    }

    fn outcomes(&self, run: &RunKey) -> Result<Vec<DoneStep>, StoreError> {
        let listing = Listing { prefix: format!("{}:", run.run), limit: usize::MAX, newest_first: false };
        let (ending, beginning) = (format!(":{}", run.generation), listing.prefix.len());
        let mut done = Vec::new();
        for (key, value) in self.meta.list(Kind::Outcome, &listing)? {
            let Some(step) = key.get(beginning..).and_then(|rest| rest.strip_suffix(&ending)) else { continue };
            let succeeded = OutcomeRecord::decode(&value, &format!("step {step} of run {}", run.run))?.failure.is_none();
            let carried = if value.len() <= MAX_CARRIED { value } else { NOT_CARRIED.to_vec() };
            done.push((step.to_owned(), succeeded.then_some(carried)));
        }
        Ok(done)
    }

    fn claimed(&self, delivery: Delivery) -> Result<Claimed, StoreError> {
        let Delivery { lease, attempt, crashes, mut verify, envelope, values } = delivery;
        let run = if envelope.is_empty() {
            // The window forgot the run and kept the job: the records have it, and whoever runs this looks at them first.
            verify = true;
            self.meta.get(Kind::Run, &[lease.run.run.to_string()])?.pop().flatten().unwrap_or_default()
        } else {
            envelope
        };
        let mut needs = Vec::with_capacity(values.len());
        for (step, value) in values {
            let value = if value == NOT_CARRIED { self.meta.get(Kind::Outcome, &[lease.run.step(&step)])?.pop().flatten() } else { Some(value) };
            if let Some(value) = value {
                needs.push((step, value));
            }
        }
        let mut mine = self.mine();
        mine.0 += 1;
        let token = mine.0;
        let ours = Lease { run: lease.run.clone(), step: lease.step.clone(), token };
        mine.1.insert(token, Mine { lease, attempt, verify });
        Ok(Claimed { lease: ours, attempt, crashes, verify, run, needs })
    }
}

fn reply(put: Put) -> Reply {
    match put {
        Put::Created => Reply::Created,
        Put::Exists(value) => Reply::Exists(value),
    }
}

impl Ledger for FleetLedger {
    fn commit(&self, items: &[Item]) -> Result<Vec<Reply>, StoreError> {
        let replies = items.iter().map(|item| self.apply(item)).collect();
        self.bell.ring();
        replies
    }

    fn claim(&self, scope: &Scope, want: usize, lease: Duration, wait: Wait) -> Result<Vec<Claimed>, StoreError> {
        if *scope != Scope::All {
            let why = "a fleet's queue hands out the work of all runs; start `dovetail worker`";
            return Err(StoreError::new(StoreErrorKind::Refused, "claim the work of some runs only", why));
        }
        let until = Instant::now() + wait.at_most;
        loop {
            let called = self.window.call(&[], want, lease)?;
            if !called.jobs.is_empty() {
                return called.jobs.into_iter().map(|job| self.claimed(job)).collect();
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.bell.rung() != wait.seen {
                return Ok(Vec::new());
            }
            let free = called.next_ms.map_or(LOOK_ROUND, |ms| Duration::from_millis(ms.max(1)));
            let nap = left.min(LOOK_ROUND).min(free);
            self.bell.sleep(wait.seen, nap);
        }
    }

    fn renew(&self, leases: &[Lease], lease: Duration) -> Result<Vec<Renewal>, StoreError> {
        let known: Vec<WindowLease> = leases.iter().map(|lease| self.known(lease)).collect();
        let renewal = |held| match held {
            // What the window forgot, it will be told again by a rebuild; the step goes on.
            Held::Renewed | Held::Unknown => Renewal::Renewed,
            Held::Gone => Renewal::Lost,
        };
        let answers: Vec<Renewal> = self.window.renew(&known, lease)?.into_iter().map(renewal).collect();
        let unknown = |token: &str| token.is_empty();
        Ok(answers.into_iter().zip(known).map(|(answer, lease)| if unknown(&lease.token) { Renewal::Lost } else { answer }).collect())
    }

    fn get(&self, kind: Kind, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.meta.get(kind, keys)
    }

    fn list(&self, kind: Kind, listing: &Listing) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.meta.list(kind, listing)
    }

    fn open_runs(&self, limit: usize) -> Result<Vec<RunKey>, StoreError> {
        self.meta.open_runs(limit)
    }

    fn held(&self, run: &RunKey) -> Result<Vec<String>, StoreError> {
        // Of other processes' leases the window does not tell yet.
        Ok(self.mine().1.values().filter(|mine| mine.lease.run == *run).map(|mine| mine.lease.step.clone()).collect())
    }

    fn wake(&self) {
        self.bell.ring();
    }

    fn wakes(&self) -> u64 {
        self.bell.rung()
    }
}
