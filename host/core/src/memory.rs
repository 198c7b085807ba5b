//! The ports in memory. This is the reference implementation for the conformance suite, and the backend of flow's
//! tests. Nothing survives the process.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::blobs::{BlobKind, Blobs, StoreError, StoreErrorKind};
use crate::clock::Clock;
use crate::id::Digest;
use crate::keys::NodeId;
use crate::ledger::{
    Claimed, HeldStep, Job, Kind, Lease, Ledger, Listing, Operation, Record, Renewal, Reply, Requirements, RunKey,
    Scope, Wait,
};
use crate::retention::{Archive, BlobVisitor, Owned, RemovableBlobs};
use crate::sync::lock;

/// A clock that moves only when a test advances it.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall_ms(&self) -> u64 {
        1_700_000_000_000 + self.mono_ms()
    }

    fn mono_us(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// [`Blobs`] in memory.
#[derive(Debug, Default)]
pub struct MemoryBlobs(Mutex<HashMap<(BlobKind, Digest), TimedBlob>>, Mutex<Option<String>>);

/// The bytes, and the time at which they were last stored.
type TimedBlob = (Vec<u8>, Instant);

impl Blobs for MemoryBlobs {
    fn put(&self, kind: BlobKind, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        lock(&self.0).insert((kind, digest), (bytes.to_vec(), Instant::now()));
        Ok(digest)
    }

    fn get(&self, kind: BlobKind, digest: &Digest, max: u64) -> Result<Vec<u8>, StoreError> {
        let operation = || format!("read {} {digest}", kind.folder());
        let blobs = lock(&self.0);
        let (bytes, _) =
            blobs.get(&(kind, *digest)).ok_or_else(|| StoreError::plain(StoreErrorKind::Missing, operation()))?;
        if bytes.len() as u64 > max {
            return Err(StoreError::new(
                StoreErrorKind::Refused,
                operation(),
                format!("it has {} bytes, at most {max} are allowed", bytes.len()),
            ));
        }
        Ok(bytes.clone())
    }

    fn size(&self, kind: BlobKind, digest: &Digest) -> Result<Option<u64>, StoreError> {
        Ok(lock(&self.0).get(&(kind, *digest)).map(|(b, _)| b.len() as u64))
    }
}

impl MemoryBlobs {
    /// Forgets the owner, like an operator who removes the stored note.
    pub fn disown(&self) {
        *lock(&self.1) = None;
    }
}

impl Owned for MemoryBlobs {
    fn owner(&self) -> Result<Option<String>, StoreError> {
        Ok(lock(&self.1).clone())
    }

    fn own(&self, records: &str) -> Result<String, StoreError> {
        Ok(lock(&self.1).get_or_insert_with(|| records.to_owned()).clone())
    }

    fn is_empty(&self) -> Result<bool, StoreError> {
        Ok(lock(&self.0).is_empty())
    }

    fn place(&self) -> String {
        "memory".to_owned()
    }
}

impl RemovableBlobs for MemoryBlobs {
    fn walk(&self, kind: BlobKind, visit: &mut BlobVisitor<'_>) -> Result<(), StoreError> {
        // The lock is not held during the calls: the visitor may remove the blobs.
        let found: Vec<(Digest, u64)> = {
            let blobs = lock(&self.0);
            blobs.iter().filter(|((k, _), _)| *k == kind).map(|((_, d), (b, _))| (*d, b.len() as u64)).collect()
        };
        found.into_iter().try_for_each(|(digest, bytes)| visit(digest, bytes))
    }

    fn age(&self, kind: BlobKind, digest: &Digest) -> Result<Option<Duration>, StoreError> {
        Ok(lock(&self.0).get(&(kind, *digest)).map(|(_, stored)| stored.elapsed()))
    }

    fn remove(&self, kind: BlobKind, digest: &Digest, at_least: Duration) -> Result<bool, StoreError> {
        let mut blobs = lock(&self.0);
        let old = blobs.get(&(kind, *digest)).is_some_and(|(_, stored)| stored.elapsed() >= at_least);
        Ok(old && blobs.remove(&(kind, *digest)).is_some())
    }
}

#[derive(Debug, Clone)]
struct Queued {
    step: NodeId,
    needs: Vec<NodeId>,
    attempt: u32,
    crashes: u32,
    verify: bool,
    due: u64,
    requirements: Requirements,
    /// The token and the expiry time of the lease, in milliseconds of the clock.
    lease: Option<(u64, u64)>,
}

#[derive(Debug, Default)]
struct State {
    records: BTreeMap<(Kind, String), Vec<u8>>,
    order: Vec<(Kind, String)>,
    succeeded: BTreeSet<(RunKey, NodeId)>,
    open: Vec<RunKey>,
    jobs: Vec<(RunKey, Queued)>,
    token: u64,
    wakes: u64,
    /// For each worker, its heartbeat and the time until which it counts as living.
    workers: BTreeMap<String, (Vec<u8>, u64)>,
}

impl State {
    fn put(&mut self, record: &Record) -> Reply {
        let key = (record.kind, record.key.clone());
        if let Some(current) = self.records.get(&key) {
            return Reply::Exists(current.clone());
        }
        self.records.insert(key.clone(), record.value.clone());
        self.order.push(key);
        Reply::Created
    }

    fn has(&self, kind: Kind, key: &str) -> bool {
        self.records.contains_key(&(kind, key.to_owned()))
    }

    fn job(&mut self, lease: &Lease) -> Option<&mut Queued> {
        self.jobs.iter_mut().find(|(run, job)| *run == lease.run && job.step == lease.step).map(|(_, job)| job)
    }

    fn owned(&mut self, lease: &Lease) -> Option<&mut Queued> {
        self.job(lease).filter(|job| job.lease.is_some_and(|(token, _)| token == lease.token))
    }

    fn enqueue(&mut self, run: &RunKey, jobs: &[Job], verify: bool) {
        for job in jobs {
            let ready = job.needs.iter().all(|need| self.succeeded.contains(&(run.clone(), need.clone())));
            let known = self.jobs.iter().any(|(r, q)| r == run && q.step == job.step)
                || self.has(Kind::Outcome, &run.step(&job.step));
            if ready && !known {
                let queued = Queued {
                    step: job.step.clone(),
                    needs: job.needs.clone(),
                    attempt: job.attempt,
                    crashes: 0,
                    verify,
                    due: 0,
                    requirements: job.requirements.clone(),
                    lease: None,
                };
                self.jobs.push((run.clone(), queued));
            }
        }
    }

    fn close(&mut self, run: &RunKey) {
        self.jobs.retain(|(r, _)| r != run);
        self.open.retain(|r| r != run);
    }

    fn apply(&mut self, item: &Operation, now: u64) -> Reply {
        match item {
            Operation::Put { record } => self.put(record),
            Operation::Reopen { run, record } => {
                if !self.has(Kind::Run, run.run.as_str()) {
                    return Reply::Closed;
                }
                if !self.open.contains(run) {
                    self.open.push(run.clone());
                }
                self.put(record)
            }
            Operation::Inherit { record } => {
                if let Some((run, step)) = RunKey::of_outcome(&record.key) {
                    self.succeeded.insert((run, step));
                }
                self.put(record)
            }
            Operation::Submit { run, record, jobs, .. } => {
                let reply = self.put(record);
                if reply == Reply::Created {
                    self.open.push(run.clone());
                    self.enqueue(run, jobs, false);
                }
                reply
            }
            Operation::Recover { run, jobs, .. } => {
                if self.has(Kind::RunOutcome, &run.key()) || !self.has(Kind::Run, run.run.as_str()) {
                    self.close(run);
                    return Reply::Closed;
                }
                if !self.open.contains(run) {
                    self.open.push(run.clone());
                }
                self.enqueue(run, jobs, true);
                Reply::Created
            }
            Operation::Finish { lease, record, succeeded, close, children } => {
                if let exists @ Reply::Exists(_) = self.put(record) {
                    return exists;
                }
                let run = &lease.run;
                if *succeeded {
                    self.succeeded.insert((run.clone(), lease.step.clone()));
                }
                if self.has(Kind::RunOutcome, &run.key()) {
                    self.close(run);
                    return Reply::Closed;
                }
                if self.has(Kind::Cancel, &run.key()) {
                    return Reply::Cancelled;
                }
                if let Some(close) = close {
                    self.put(close);
                    self.close(run);
                    return Reply::Created;
                }
                self.enqueue(run, children, false);
                if !self.jobs.iter().any(|(r, q)| r == run && q.step != lease.step) {
                    return Reply::Last;
                }
                self.jobs.retain(|(r, q)| !(r == run && q.step == lease.step));
                Reply::Created
            }
            Operation::Retry { lease, record, delay } => {
                if self.owned(lease).is_none() {
                    return Reply::NotOwner;
                }
                let reply = self.put(record);
                if reply == Reply::Created
                    && let Some(job) = self.owned(lease)
                {
                    job.attempt += 1;
                    job.lease = None;
                    job.verify = true;
                    job.due = now + u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                }
                reply
            }
            Operation::Release { lease, delay } => match self.owned(lease) {
                Some(job) => {
                    job.lease = None;
                    job.due = now + u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                    Reply::Created
                }
                None => Reply::NotOwner,
            },
            Operation::Cancel { run, record } => {
                if self.has(Kind::RunOutcome, &run.key()) {
                    return Reply::Closed;
                }
                self.put(record)
            }
            Operation::Close { run, record } => {
                let reply = self.put(record);
                self.close(run);
                reply
            }
        }
    }

    fn claim(&mut self, scope: &Scope, want: usize, lease_ms: u64, now: u64) -> Vec<Claimed> {
        let mut out = Vec::new();
        // Jobs of the oldest open run come first, so that started runs end before new runs start.
        let mut order: Vec<usize> = (0..self.jobs.len()).collect();
        order.sort_by_key(|at| self.open.iter().position(|run| *run == self.jobs[*at].0));
        for at in order {
            if out.len() == want {
                break;
            }
            let (run, job) = &mut self.jobs[at];
            if !scope.has(&run.run, &job.requirements) || job.due > now {
                continue;
            }
            if let Some((_, expiry)) = job.lease {
                if expiry > now {
                    continue;
                }
                job.crashes += 1;
                job.verify = true;
            }
            self.token += 1;
            job.lease = Some((self.token, now + lease_ms));
            let (run, job) = (run.clone(), job.clone());
            let record = self.records.get(&(Kind::Run, run.run.to_string())).cloned().unwrap_or_default();
            let needs = job
                .needs
                .iter()
                .filter_map(|n| Some((n.clone(), self.records.get(&(Kind::Outcome, run.step(n)))?.clone())))
                .collect();
            let verify = job.verify || self.has(Kind::Cancel, &run.key());
            let lease = Lease { run, step: job.step, token: self.token };
            out.push(Claimed { lease, attempt: job.attempt, crashes: job.crashes, verify, run: record, needs });
        }
        out
    }
}

/// [`Ledger`] in memory.
pub struct MemoryLedger {
    state: Mutex<State>,
    changed: Condvar,
    clock: Arc<dyn Clock>,
}

impl MemoryLedger {
    /// An empty ledger. Leases and delays follow `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), clock }
    }
}

impl Ledger for MemoryLedger {
    fn commit(&self, items: &[Operation]) -> Result<Vec<Reply>, StoreError> {
        let mut state = lock(&self.state);
        let now = self.clock.mono_ms();
        let replies = items.iter().map(|item| state.apply(item, now)).collect();
        state.wakes += 1;
        self.changed.notify_all();
        Ok(replies)
    }

    fn claim(&self, scope: &Scope, want: usize, lease: Duration, wait: Wait) -> Result<Vec<Claimed>, StoreError> {
        let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        let mut state = lock(&self.state);
        let claimed = state.claim(scope, want, lease_ms, self.clock.mono_ms());
        if !claimed.is_empty() || wait.at_most.is_zero() {
            return Ok(claimed);
        }
        let waiting = self.changed.wait_timeout_while(state, wait.at_most, |state| state.wakes == wait.seen);
        (state, _) = waiting.unwrap_or_else(PoisonError::into_inner);
        Ok(state.claim(scope, want, lease_ms, self.clock.mono_ms()))
    }

    fn renew(&self, leases: &[Lease], lease: Duration) -> Result<Vec<Renewal>, StoreError> {
        let mut state = lock(&self.state);
        let expiry = self.clock.mono_ms() + u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        let renew = |lease: &Lease| {
            if state.has(Kind::Cancel, &lease.run.key()) {
                return Renewal::Lost;
            }
            match state.owned(lease) {
                Some(job) => {
                    job.lease = Some((lease.token, expiry));
                    Renewal::Renewed
                }
                None => Renewal::Lost,
            }
        };
        Ok(leases.iter().map(renew).collect())
    }

    fn get(&self, kind: Kind, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let state = lock(&self.state);
        Ok(keys.iter().map(|key| state.records.get(&(kind, key.clone())).cloned()).collect())
    }

    fn list(&self, kind: Kind, listing: &Listing) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let state = lock(&self.state);
        let mut keys: Vec<&(Kind, String)> =
            state.order.iter().filter(|(k, key)| *k == kind && key.starts_with(&listing.prefix)).collect();
        if listing.newest_first {
            keys.reverse();
        }
        Ok(keys
            .into_iter()
            .take(listing.limit)
            .filter_map(|key| Some((key.1.clone(), state.records.get(key)?.clone())))
            .collect())
    }

    fn open_runs(&self, limit: usize) -> Result<Vec<RunKey>, StoreError> {
        Ok(lock(&self.state).open.iter().take(limit).cloned().collect())
    }

    fn held(&self, run: &RunKey) -> Result<Vec<HeldStep>, StoreError> {
        let now = self.clock.mono_ms();
        let state = lock(&self.state);
        // This backend belongs to one process, so the one living worker of that process holds every lease.
        let worker = state.workers.iter().find(|(_, (_, until))| *until > now).map(|(name, _)| name.clone());
        let held = state.jobs.iter().filter(|(r, job)| r == run && job.lease.is_some_and(|(_, expiry)| expiry > now));
        Ok(held.map(|(_, job)| HeldStep { step: job.step.clone(), worker: worker.clone() }).collect())
    }

    fn over(&self, runs: &[RunKey], wait: Wait) -> Result<Vec<RunKey>, StoreError> {
        let ended = |state: &State| {
            runs.iter().filter(|run| state.has(Kind::RunOutcome, &run.key())).cloned().collect::<Vec<_>>()
        };
        let mut state = lock(&self.state);
        if ended(&state).is_empty() && !wait.at_most.is_zero() {
            let waiting = self
                .changed
                .wait_timeout_while(state, wait.at_most, |state| state.wakes == wait.seen && ended(state).is_empty());
            (state, _) = waiting.unwrap_or_else(PoisonError::into_inner);
        }
        Ok(ended(&state))
    }

    fn beat(&self, worker: &str, about: &[u8], keep: Duration) -> Result<(), StoreError> {
        let until = self.clock.mono_ms() + u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
        lock(&self.state).workers.insert(worker.to_owned(), (about.to_vec(), until));
        Ok(())
    }

    fn workers(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let now = self.clock.mono_ms();
        let state = lock(&self.state);
        Ok(state
            .workers
            .iter()
            .filter(|(_, (_, until))| *until > now)
            .map(|(name, (about, _))| (name.clone(), about.clone()))
            .collect())
    }

    fn wake(&self) {
        lock(&self.state).wakes += 1;
        self.changed.notify_all();
    }

    fn wakes(&self) -> u64 {
        lock(&self.state).wakes
    }
}

impl Archive for MemoryLedger {
    fn scan(&self, kind: Kind, after: &str, limit: usize) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let state = lock(&self.state);
        let found = state.records.iter().filter(|((k, key), _)| *k == kind && key.as_str() > after).take(limit);
        Ok(found.map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn remove(&self, kind: Kind, keys: &[String]) -> Result<(), StoreError> {
        let mut state = lock(&self.state);
        for key in keys {
            state.records.remove(&(kind, key.clone()));
            state.order.retain(|(k, known)| *k != kind || known != key);
        }
        Ok(())
    }

    fn remove_unchanged(&self, kind: Kind, found: &[(String, Vec<u8>)]) -> Result<(), StoreError> {
        let mut state = lock(&self.state);
        for (key, value) in found {
            let place = (kind, key.clone());
            if state.records.get(&place) == Some(value) {
                state.records.remove(&place);
                state.order.retain(|known| *known != place);
            }
        }
        Ok(())
    }
}
