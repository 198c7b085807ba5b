//! The first half of a fleet's change: its records, many changes at a time. What follows from them goes on to the
//! window.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender};
use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::flat_combining::{FlatCombiner, Seat};
use dovetail_core::keys::NodeId;
use dovetail_core::ledger::{Item, Job, Kind, Lease, Record, Reply, RunKey, Then};
use dovetail_core::meta::{Put, Writes};
use dovetail_core::panics::contain;
use dovetail_core::record::{Form, OutcomeRecord};
use dovetail_core::window::{Change, Stamp, Status};

use super::work::{Following, InFlight, Slot, ToWindow, leave};
use super::{MAX_CARRIED, NOT_CARRIED, REMEMBERED, Shared, answer, locked};

/// Changes taken into one write: enough to share it among all that wait, few enough to answer the first ones soon.
const GROUP: usize = 256;
/// How long runs that are over wait until the index forgets them, and how many wait at most.
const FORGET: Duration = Duration::from_secs(1);
const FORGOTTEN: usize = 64;
/// A stamp of an earlier answer serves a submission for so long: an older one is only the more careful.
const STAMP_AGE: Duration = Duration::from_secs(2);
/// How often a rebuild is tried anew because the window was lost meanwhile.
const REBUILDS: u32 = 5;

/// A step with its outcome where that was a success.
type DoneStep = (NodeId, Option<Vec<u8>>);

pub(super) struct Request {
    pub(super) items: Vec<Item>,
    pub(super) then: Then,
}

pub(super) enum ToRecords {
    Commit(Request),
    /// Runs that the window has closed: the index of open runs can forget them. Nobody waits for it; the sweep finds
    /// what it misses.
    Forget(Vec<RunKey>),
    End,
}

/// What a rebuild needs to know.
pub(super) struct Repair {
    pub(super) run: RunKey,
    pub(super) jobs: Vec<Job>,
    /// All of the run.
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

/// Where records are written.
pub(super) type RecordsDesk = FlatCombiner<Forget, ToRecords>;

/// Writes what is left for it until there is nobody who could leave more, or it is told to end.
pub(super) fn run(shared: &Shared, desk: &RecordsDesk, work: &Sender<ToWindow>) {
    loop {
        let due = desk.sit().due();
        let first = match desk.wait(due) {
            Ok(first) => Some(first),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(ToRecords::End),
        };
        let turn = || {
            if let Some(flying) = write_with_others(shared, desk.sit(), first, &Role::Thread) {
                leave(work, ToWindow::Changes(flying));
            }
        };
        // The requests of this turn hear that their channels close; later ones are served.
        drop(contain("write records", turn));
        if desk.sit().ending {
            return;
        }
    }
}

/// Who sits at the desk.
pub(super) enum Role<'a> {
    Thread,
    /// Somebody with a change of his own. What can wait he leaves to the thread, which alone knows when it is due.
    Visitor(&'a Sender<ToRecords>),
}

/// One write of what `first` asks and of what others have left: gives back what follows from it for the window, if
/// anything was written for somebody who waits. Those whom it could not serve have been told.
pub(super) fn write_with_others(
    shared: &Shared,
    mut seat: Seat<'_, Forget, ToRecords>,
    first: Option<ToRecords>,
    role: &Role<'_>,
) -> Option<Vec<InFlight>> {
    let (mut requests, mut forgotten, mut ends) = (Vec::new(), Vec::new(), false);
    for message in first.into_iter().chain(seat.left(GROUP)) {
        match message {
            ToRecords::Commit(request) => requests.push(request),
            ToRecords::Forget(mut runs) => forgotten.append(&mut runs),
            // Wherever it stands among others: nobody says it twice.
            ToRecords::End => ends = true,
        }
    }
    seat.ending |= ends;
    let ending = seat.ending;
    match role {
        Role::Visitor(thread) if !forgotten.is_empty() => drop(thread.send(ToRecords::Forget(forgotten))),
        _ => seat.add(forgotten),
    }
    if requests.is_empty() && !ending && !seat.is_due() {
        return None;
    }
    let forget = if ending || seat.is_due() { seat.take() } else { Vec::new() };
    let mut writes = Writes { forget, ..Writes::default() };
    match write(shared, &requests, &mut writes) {
        Ok(slots) => Some(
            requests.into_iter().zip(slots).map(|(request, slots)| InFlight { slots, then: request.then }).collect(),
        ),
        Err(error) => {
            if !ending && writes.forget.len() < REMEMBERED {
                seat.add(writes.forget);
            }
            // What the store does not take of one request is not held against the others.
            if requests.len() > 1 && error.kind != StoreErrorKind::Unavailable {
                return Some(requests.into_iter().filter_map(|request| write_alone(shared, request)).collect());
            }
            drop(seat);
            for request in requests {
                answer(request.then, Err(error.again()));
            }
            None
        }
    }
}

/// The same for one request. None: it has been told why it could not be served.
fn write_alone(shared: &Shared, request: Request) -> Option<InFlight> {
    match write(shared, std::slice::from_ref(&request), &mut Writes::default()) {
        Ok(mut slots) => Some(InFlight { slots: slots.pop().unwrap_or_default(), then: request.then }),
        Err(error) => {
            answer(request.then, Err(error));
            None
        }
    }
}

/// Runs that the index of open runs is to forget: when there are many, or some have waited for a while. Nobody waits
/// for it, and with each change it would make those longer that somebody waits for.
#[derive(Default)]
pub(super) struct Forget {
    runs: Vec<RunKey>,
    since: Option<Instant>,
    /// Whoever could leave something has gone.
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

/// The record that an item inserts, and the one that is inserted after it if it was new.
fn records_of(item: &Item) -> Option<(&Record, Option<&Record>)> {
    match item {
        Item::Finish { record, close, .. } => Some((record, close.as_ref())),
        Item::Submit { record, .. }
        | Item::Reopen { record, .. }
        | Item::Put { record }
        | Item::Inherit { record }
        | Item::Retry { record, .. }
        | Item::Close { record, .. } => Some((record, None)),
        Item::Release { .. } | Item::Recover { .. } | Item::Cancel { .. } => None,
    }
}

/// One write for all the requests, added to `writes`, and what the window is to be told of each item.
fn write(shared: &Shared, requests: &[Request], writes: &mut Writes) -> Result<Vec<Vec<Slot>>, StoreError> {
    for item in requests.iter().flat_map(|request| &request.items) {
        if let Item::Submit { run, .. } | Item::Reopen { run, .. } = item {
            writes.open.push(run.clone());
        }
        writes.records.extend(records_of(item).map(|(record, then)| (record.clone(), then.cloned())));
    }
    // Before anything is read or written: what the window knew at that time is the least that it must know later.
    let stamp = if writes.open.is_empty() { None } else { Some(shared.stamp()?) };
    let answers =
        if writes.records.is_empty() && writes.forget.is_empty() { Vec::new() } else { shared.meta.write(writes)? };
    if answers.len() != writes.records.len() {
        return Err(StoreError::plain(StoreErrorKind::Corrupt, "write records: an answer is missing"));
    }
    let mut answers = answers.into_iter();
    let slots = |request: &Request| {
        let slot = |item: &Item| {
            // As many answers as it has records: the next ones are another item's.
            let put = records_of(item).and_then(|_| answers.next());
            shared.following(item, put, stamp.as_ref())
        };
        request.items.iter().map(slot).collect()
    };
    Ok(requests.iter().map(slots).collect())
}

impl Shared {
    /// A request that has no records.
    pub(super) fn unrecorded(&self, request: Request) -> InFlight {
        let slots = request.items.iter().map(|item| self.following(item, None, None)).collect();
        InFlight { slots, then: request.then }
    }

    /// What the window knew when it was last heard, or is asked now.
    fn stamp(&self) -> Result<Stamp, StoreError> {
        if let Some((stamp, at)) = locked(&self.stamp).as_ref()
            && at.elapsed() < STAMP_AGE
        {
            return Ok(stamp.clone());
        }
        self.window.peek()
    }

    fn following(&self, item: &Item, put: Option<Put>, stamp: Option<&Stamp>) -> Slot {
        match item {
            Item::Put { .. }
            | Item::Inherit { .. }
            | Item::Reopen { .. }
            | Item::Recover { .. }
            | Item::Cancel { .. } => Slot::Done(reply(put)),
            Item::Submit { run, record, jobs, steps } => match (put, stamp) {
                // This caller's insert was the first: no step of the run can have an outcome, and nothing needs to be
                // verified.
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
                // The index may now name a run that is over; recovery, which follows, puts that right.
                (put, _) => Slot::Done(reply(put)),
            },
            Item::Finish { lease, record, succeeded, close, children } => {
                if let Some(Put::Exists(value)) = put {
                    // Another's outcome counts: the job goes as the records say, and not by this lease.
                    locked(&self.leases).remove(lease.token);
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
                    lease: locked(&self.leases).known(lease),
                    succeeded: *succeeded,
                    value,
                    children: children.clone(),
                };
                Slot::Ask(change, Following::Finished { lease: lease.token })
            }
            Item::Retry { lease, delay, .. } => {
                // The record may be there already, from a call whose answer was lost.
                let attempt = locked(&self.leases).facts(lease).map_or(2, |(attempt, _)| attempt + 1);
                self.back(lease, attempt, true, *delay)
            }
            Item::Release { lease, delay } => {
                let (attempt, verify) = locked(&self.leases).facts(lease).unwrap_or((1, true));
                self.back(lease, attempt, verify, *delay)
            }
            Item::Close { run, .. } => Slot::Ask(
                Change::Close { run: run.clone() },
                Following::Closed { run: run.clone(), lease: None, reply: reply(put) },
            ),
        }
    }

    fn back(&self, lease: &Lease, attempt: u32, verify: bool, delay: Duration) -> Slot {
        Slot::Ask(
            Change::Back { lease: locked(&self.leases).known(lease), attempt, verify, delay },
            Following::Back { lease: lease.token },
        )
    }

    /// Puts the window in line with the records, which are read after its stamp was taken.
    pub(super) fn rebuild(&self, repair: &Repair) -> Result<Reply, StoreError> {
        let run = &repair.run;
        for _ in 0..REBUILDS {
            let stamp = self.window.peek()?;
            if self.has(Kind::RunOutcome, run.key())? {
                // The window closes the run, then the index forgets it: in this order an open run is never missing from
                // the index.
                self.change(Change::Close { run: run.clone() })?;
                self.meta.forget(std::slice::from_ref(run))?;
                return Ok(Reply::Closed);
            }
            let Some(envelope) = self.meta.get(Kind::Run, &[run.run.to_string()])?.pop().flatten() else {
                // It was removed because it is old. What else is known of it is left alone: it may be that of
                // somebody who submits it anew at this moment.
                return Ok(Reply::Closed);
            };
            self.meta.open(std::slice::from_ref(run))?;
            let done = self.outcomes(run, &repair.steps)?;
            let (steps, jobs) = (count(&repair.steps), repair.jobs.clone());
            match self.change(Change::Open { run: run.clone(), stamp, verify: true, envelope, steps, done, jobs })? {
                Status::Stale => {}
                Status::Closed => return Ok(Reply::Closed),
                Status::Full => {
                    let why = "it is full: the run is recorded, and begins when there is room";
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
