//! The first half of a fleet's change: the flat combiner that writes the records of many changes at a time (group
//! commit). The changes of the window that follow go on to `work.rs`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender};
use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::flat_combining::{CombinerGuard, FlatCombiner};
use dovetail_core::keys::NodeId;
use dovetail_core::ledger::{Job, Kind, Lease, Operation, Record, Reply, RunKey};
use dovetail_core::meta::{Put, Writes};
use dovetail_core::panics::{Panicked, contain};
use dovetail_core::record::{Form, OutcomeRecord};
use dovetail_core::sync::lock;
use dovetail_core::window::{Change, Stamp, Status};

use super::in_flight::{Following, RecordedRequest, Request, Slot, answer};
use super::work::{ToWindow, leave};
use super::{MAX_CARRIED, NOT_CARRIED, REMEMBERED, Shared};

/// The most requests of one write: enough that all waiting requests share a write, few enough that the first ones are
/// answered soon.
const GROUP: usize = 256;
/// Closed runs are removed from the index of open runs after this time, or when this many are waiting.
const FORGET: Duration = Duration::from_secs(1);
const FORGOTTEN: usize = 64;
/// A submission uses the stamp of an earlier answer up to this age. An older stamp is safe: the window then answers
/// `Stale` more often, and the run is rebuilt.
const STAMP_AGE: Duration = Duration::from_secs(2);
/// How many times a rebuild is tried if the window is lost during each.
const REBUILDS: u32 = 5;

/// A step that has an outcome. The outcome's bytes are there only if the step succeeded.
type DoneStep = (NodeId, Option<Vec<u8>>);

/// A message to the records' combiner.
pub(super) enum ToRecords {
    Commit(Request),
    /// Runs that the window has closed: the index of open runs can forget them. No caller waits for this. If it gets
    /// lost, the search for lost runs (`search.rs`) finds these runs in the index.
    Forget(Vec<RunKey>),
    End,
}

/// The arguments of [`Shared::rebuild`].
pub(super) struct Repair {
    pub(super) run: RunKey,
    pub(super) jobs: Vec<Job>,
    /// All steps of the run.
    pub(super) steps: Arc<[NodeId]>,
}

pub(super) fn reply(put: Option<Put>) -> Reply {
    match put {
        Some(Put::Exists(value)) => Reply::Exists(value),
        Some(Put::Created) | None => Reply::Created,
    }
}

fn count(steps: &[NodeId]) -> u32 {
    u32::try_from(steps.len()).unwrap_or(u32::MAX)
}

pub(super) type RecordsCombiner = FlatCombiner<Forget, ToRecords>;

/// The combiner's thread: writes the requests of its inbox until it reads [`ToRecords::End`] or no sender is left.
pub(super) fn run(shared: &Shared, combiner: &RecordsCombiner, to_window: &Sender<ToWindow>) {
    loop {
        let due = combiner.lock().due();
        let first = match combiner.wait(due) {
            Ok(first) => Some(first),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(ToRecords::End),
        };
        let write = || {
            if let Some(recorded) = write_with_others(shared, combiner.lock(), first, &Holder::Thread) {
                leave(to_window, ToWindow::Changes(recorded));
            }
        };
        // The channels of these requests close; later requests are served.
        drop(contain("write records", write));
        if combiner.lock().ending {
            return;
        }
    }
}

/// The thread that holds the combiner.
pub(super) enum Holder<'a> {
    /// The combiner's own thread.
    Thread,
    /// A caller with a change of its own. It passes runs to be forgotten on to the combiner's thread, because only that
    /// thread wakes up when they are due.
    Caller(&'a Sender<ToRecords>),
}

/// Writes `first` and the messages of the inbox in one write. Returns the requests whose records are written, for the
/// window; `None` if there are none. Failed requests have got their error.
pub(super) fn write_with_others(
    shared: &Shared,
    mut guard: CombinerGuard<'_, Forget, ToRecords>,
    first: Option<ToRecords>,
    holder: &Holder<'_>,
) -> Option<Vec<RecordedRequest>> {
    let (mut requests, mut forgotten, mut ends) = (Vec::new(), Vec::new(), false);
    for message in first.into_iter().chain(guard.take_waiting(GROUP)) {
        match message {
            ToRecords::Commit(request) => requests.push(request),
            ToRecords::Forget(mut runs) => forgotten.append(&mut runs),
            // Remembered, not acted upon at once: messages may follow it in the inbox, and it comes only once.
            ToRecords::End => ends = true,
        }
    }
    guard.ending |= ends;
    let ending = guard.ending;
    match holder {
        Holder::Caller(thread) if !forgotten.is_empty() => drop(thread.send(ToRecords::Forget(forgotten))),
        _ => guard.add(forgotten),
    }
    if requests.is_empty() && !ending && !guard.is_due() {
        return None;
    }
    let forget = if ending || guard.is_due() { guard.take() } else { Vec::new() };
    let mut writes = Writes { forget, ..Writes::default() };
    match write_contained(shared, &requests, &mut writes) {
        Ok(slots) => {
            let recorded = |(request, slots): (Request, _)| RecordedRequest { slots, then: request.then };
            Some(requests.into_iter().zip(slots).map(recorded).collect())
        }
        Err(error) => {
            if !ending && writes.forget.len() < REMEMBERED {
                guard.add(writes.forget);
            }
            // The store may have refused the record of one request only, or the host may have panicked over it: write
            // each request by itself.
            let is_of_one = error.kind != StoreErrorKind::Unavailable || Panicked::is_behind(&error);
            if requests.len() > 1 && is_of_one {
                return Some(requests.into_iter().filter_map(|request| write_alone(shared, request)).collect());
            }
            drop(guard);
            for request in requests {
                answer(request.then, Err(error.again()));
            }
            None
        }
    }
}

/// Writes one request by itself. `None`: the write failed, and the request has got the error.
fn write_alone(shared: &Shared, request: Request) -> Option<RecordedRequest> {
    match write_contained(shared, std::slice::from_ref(&request), &mut Writes::default()) {
        Ok(mut slots) => Some(RecordedRequest { slots: slots.pop().unwrap_or_default(), then: request.then }),
        Err(error) => {
            answer(request.then, Err(error));
            None
        }
    }
}

/// [`write`], with a panic as an error.
fn write_contained(shared: &Shared, requests: &[Request], writes: &mut Writes) -> Result<Vec<Vec<Slot>>, StoreError> {
    let written = contain("write records", || write(shared, requests, writes));
    written.unwrap_or_else(|panic| Err(StoreError::new(StoreErrorKind::Unavailable, "write records", panic)))
}

/// Closed runs that the index of open runs is to forget. They are gathered until there are [`FORGOTTEN`] of them or the
/// first one is [`FORGET`] old: no caller waits for the removal, and in every write it would delay the callers that
/// wait for their records.
#[derive(Default)]
pub(super) struct Forget {
    runs: Vec<RunKey>,
    since: Option<Instant>,
    /// The ledger is being dropped: write the rest, then end the thread.
    ending: bool,
}

impl Forget {
    fn add(&mut self, mut runs: Vec<RunKey>) {
        if runs.is_empty() {
            return;
        }
        self.runs.append(&mut runs);
        self.since.get_or_insert_with(Instant::now);
    }

    fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + FORGET)
    }

    fn is_due(&self) -> bool {
        self.runs.len() >= FORGOTTEN || self.due().is_some_and(|due| due <= Instant::now())
    }

    fn take(&mut self) -> Vec<RunKey> {
        self.since = None;
        std::mem::take(&mut self.runs)
    }
}

/// The record that an item inserts, and the record that is inserted after it if the first one was new.
fn records_of(item: &Operation) -> Option<(&Record, Option<&Record>)> {
    match item {
        Operation::Finish { record, close, .. } => Some((record, close.as_ref())),
        Operation::Submit { record, .. }
        | Operation::Reopen { record, .. }
        | Operation::Put { record }
        | Operation::Inherit { record }
        | Operation::Retry { record, .. }
        | Operation::Close { record, .. } => Some((record, None)),
        Operation::Release { .. } | Operation::Recover { .. } | Operation::Cancel { .. } => None,
    }
}

/// Writes the records of all requests together with `writes`. Returns the slots of each request's items.
fn write(shared: &Shared, requests: &[Request], writes: &mut Writes) -> Result<Vec<Vec<Slot>>, StoreError> {
    for item in requests.iter().flat_map(|request| &request.items) {
        if let Operation::Submit { run, .. } | Operation::Reopen { run, .. } = item {
            writes.open.push(run.clone());
        }
        writes.records.extend(records_of(item).map(|(record, then)| (record.clone(), then.cloned())));
    }
    // The stamp is taken before anything is written: if the window loses data afterwards, it answers `Stale`.
    let stamp = if writes.open.is_empty() { None } else { Some(shared.stamp()?) };
    let answers =
        if writes.records.is_empty() && writes.forget.is_empty() { Vec::new() } else { shared.meta.write(writes)? };
    if answers.len() != writes.records.len() {
        return Err(StoreError::plain(StoreErrorKind::Corrupt, "write records: an answer is missing"));
    }
    let mut answers = answers.into_iter();
    let slots = |request: &Request| {
        let slot = |item: &Operation| {
            // An item without a record takes no answer: the next answer belongs to another item.
            let put = records_of(item).and_then(|_| answers.next());
            shared.following(item, put, stamp.as_ref())
        };
        request.items.iter().map(slot).collect()
    };
    Ok(requests.iter().map(slots).collect())
}

impl Shared {
    /// A request that has no records to be written.
    pub(super) fn unrecorded(&self, request: Request) -> RecordedRequest {
        let slots = request.items.iter().map(|item| self.following(item, None, None)).collect();
        RecordedRequest { slots, then: request.then }
    }

    /// The stamp of the window's last answer if that is younger than [`STAMP_AGE`], otherwise a new one.
    fn stamp(&self) -> Result<Stamp, StoreError> {
        if let Some((stamp, at)) = lock(&self.stamp).as_ref()
            && at.elapsed() < STAMP_AGE
        {
            return Ok(stamp.clone());
        }
        self.window.peek()
    }

    /// The state of an item after its record was written (`put`): its reply, or the change of the window.
    fn following(&self, item: &Operation, put: Option<Put>, stamp: Option<&Stamp>) -> Slot {
        match item {
            Operation::Put { .. }
            | Operation::Inherit { .. }
            | Operation::Reopen { .. }
            | Operation::Recover { .. }
            | Operation::Cancel { .. } => Slot::Done(reply(put)),
            Operation::Submit { run, record, jobs, steps } => match (put, stamp) {
                // The record is new, so no step of the run can have an outcome, and no job needs to be verified.
                (Some(Put::Created), Some(stamp)) => {
                    let change = Change::Open {
                        run: run.clone(),
                        stamp: stamp.clone(),
                        verify: false,
                        envelope: record.value.clone(),
                        steps: count(steps),
                        done: Vec::new(),
                        jobs: jobs.clone(),
                    };
                    let repair = Repair { run: run.clone(), jobs: jobs.clone(), steps: steps.clone() };
                    Slot::Ask(change, Following::Submitted(repair))
                }
                // The index may now name a run that is over. The submitter calls recovery next, which removes the run
                // from the index.
                (put, _) => Slot::Done(reply(put)),
            },
            Operation::Finish { lease, record, succeeded, close, children } => {
                if let Some(Put::Exists(value)) = put {
                    // Another outcome was recorded first. The worker runs recovery next, which needs no lease.
                    lock(&self.leases).remove(lease.token);
                    return Slot::Done(Reply::Exists(value));
                }
                if close.is_some() {
                    return Slot::Ask(
                        Change::Close { run: lease.run.clone() },
                        Following::Closed { run: lease.run.clone(), lease: Some(lease.token), reply: Reply::Created },
                    );
                }
                let value = if record.value.len() <= MAX_CARRIED { record.value.clone() } else { NOT_CARRIED.to_vec() };
                let change = Change::Finish {
                    lease: lock(&self.leases).known(lease),
                    succeeded: *succeeded,
                    value,
                    children: children.clone(),
                };
                Slot::Ask(change, Following::Finished { lease: lease.token })
            }
            Operation::Retry { lease, delay, .. } => {
                // `put` is not looked at: the record may exist from an earlier call whose answer was lost.
                let attempt = lock(&self.leases).facts(lease).map_or(2, |(attempt, _)| attempt + 1);
                self.back(lease, attempt, true, *delay)
            }
            Operation::Release { lease, delay } => {
                let (attempt, verify) = lock(&self.leases).facts(lease).unwrap_or((1, true));
                self.back(lease, attempt, verify, *delay)
            }
            Operation::Close { run, .. } => Slot::Ask(
                Change::Close { run: run.clone() },
                Following::Closed { run: run.clone(), lease: None, reply: reply(put) },
            ),
        }
    }

    fn back(&self, lease: &Lease, attempt: u32, verify: bool, delay: Duration) -> Slot {
        Slot::Ask(
            Change::Back { lease: lock(&self.leases).known(lease), attempt, verify, delay },
            Following::Back { lease: lease.token },
        )
    }

    /// Makes the window agree with the records: reads the records after it has taken the window's stamp, then opens or
    /// closes the run in the window.
    ///
    /// # Errors
    /// A failure of either store; `Unavailable` if the window is full, or is lost during every try.
    pub(super) fn rebuild(&self, repair: &Repair) -> Result<Reply, StoreError> {
        let run = &repair.run;
        for _ in 0..REBUILDS {
            let stamp = self.window.peek()?;
            if self.has(Kind::RunOutcome, run.key())? {
                // The window closes the run before the index forgets it. With this order the index never lacks a run
                // that the window has open.
                self.change(Change::Close { run: run.clone() })?;
                self.meta.forget(std::slice::from_ref(run))?;
                return Ok(Reply::Closed);
            }
            let Some(envelope) = self.meta.get(Kind::Run, &[run.run.to_string()])?.pop().flatten() else {
                // `gc` has removed the run. Its other records are left alone: they may belong to a submission of the
                // same run that is under way now.
                return Ok(Reply::Closed);
            };
            self.meta.open(std::slice::from_ref(run))?;
            let done = self.outcomes(run, &repair.steps)?;
            let (steps, jobs) = (count(&repair.steps), repair.jobs.clone());
            match self.change(Change::Open { run: run.clone(), stamp, verify: true, envelope, steps, done, jobs })? {
                Status::Stale => {}
                Status::Closed => return Ok(Reply::Closed),
                Status::Full => {
                    let why = "the queue is full; the run is recorded and starts when the queue has room";
                    return Err(StoreError::new(
                        StoreErrorKind::Unavailable,
                        format!("put run {} into the queue", run.run),
                        why,
                    ));
                }
                _ => {
                    if self.has(Kind::Cancel, run.key())? {
                        self.change(Change::Cancel { run: run.clone() })?;
                    }
                    return Ok(Reply::Created);
                }
            }
        }
        Err(StoreError::plain(
            StoreErrorKind::Unavailable,
            format!("rebuild the window of run {}: it is lost again and again", run.run),
        ))
    }

    fn outcomes(&self, run: &RunKey, steps: &[NodeId]) -> Result<Vec<DoneStep>, StoreError> {
        let keys: Vec<String> = steps.iter().map(|step| run.step(step)).collect();
        let mut done = Vec::new();
        for (step, value) in steps.iter().cloned().zip(self.meta.get(Kind::Outcome, &keys)?) {
            let Some(value) = value else { continue };
            let succeeded = OutcomeRecord::decode(&value, &format!("step {step} of run {}", run.run))?.succeeded();
            let carried = if value.len() <= MAX_CARRIED { value } else { NOT_CARRIED.to_vec() };
            done.push((step, succeeded.then_some(carried)));
        }
        Ok(done)
    }
}
