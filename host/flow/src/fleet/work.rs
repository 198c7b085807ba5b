//! The second half of a fleet's change: the window is told what the records say, and hands out work in the same round
//! trip.

use std::time::Duration;

use crossbeam_channel::{SendError, Sender};
use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::flat_combining::{FlatCombiner, Seat};
use dovetail_core::ledger::{Reply, RunKey, Scope, Then};
use dovetail_core::panics::contain;
use dovetail_core::window::{Change, Delivery, Status};

use super::records::{Repair, ToRecords};
use super::{Shared, locked};

/// Changes of one call: Redis does nothing else meanwhile.
const GROUP: usize = 256;

/// What follows from the window's answer to a change.
pub(super) enum Following {
    Submitted(Repair),
    Finished { lease: u64 },
    Closed { run: RunKey, lease: Option<u64>, reply: Reply },
    Back { lease: u64 },
}

/// Where an item of a request stands.
pub(super) enum Slot {
    Done(Reply),
    Ask(Change, Following),
}

/// A request whose records are written.
pub(super) struct InFlight {
    pub(super) slots: Vec<Slot>,
    pub(super) then: Then,
}

/// What was handed out, and when the next job becomes free by itself, in milliseconds.
pub(super) type Handed = Result<(Vec<Delivery>, Option<u64>), StoreError>;

pub(super) struct ClaimRequest {
    pub(super) scope: Scope,
    pub(super) want: usize,
    pub(super) lease: Duration,
    pub(super) reply: Sender<Handed>,
}

pub(super) enum ToWindow {
    Changes(Vec<InFlight>),
    Claim(ClaimRequest),
}

/// Leaves it for the desk's thread. Were that gone, nobody may wait for ever: a claimer hears it by his channel, the
/// others are told.
pub(super) fn leave(work: &Sender<ToWindow>, message: ToWindow) {
    if let Err(SendError(ToWindow::Changes(lost))) = work.send(message) {
        lost.into_iter().for_each(|request| super::answer(request.then, Err(super::gone())));
    }
}

/// Where the window is told of changes and asked for work. It needs nothing but its turn.
pub(super) type WorkDesk = FlatCombiner<(), ToWindow>;

/// Tells the window what is left for it until nobody is there who could leave more.
pub(super) fn run(shared: &Shared, desk: &WorkDesk, records: &Sender<ToRecords>) {
    while let Ok(first) = desk.wait(None) {
        // The requests of this turn hear that their channels close; later ones are served.
        drop(contain("change the window", || tell_with_others(shared, &desk.sit(), first, records)));
    }
}

/// Tells what `first` brings and what others have left, in as few round trips as it takes.
pub(super) fn tell_with_others(
    shared: &Shared,
    seat: &Seat<'_, (), ToWindow>,
    first: ToWindow,
    records: &Sender<ToRecords>,
) {
    let (mut flying, mut claims) = (Vec::new(), Vec::new());
    for message in std::iter::once(first).chain(seat.left(GROUP)) {
        match message {
            ToWindow::Changes(more) => flying.extend(more),
            ToWindow::Claim(claim) => claims.push(claim),
        }
    }
    while !flying.is_empty() {
        let rest = flying.split_off(flying.len().min(GROUP));
        // The first claimer comes along with the last of the changes: what they enqueue, it may get.
        let claim = if rest.is_empty() { claims.pop() } else { None };
        tell(shared, flying, claim, records);
        flying = rest;
    }
    for claim in claims {
        tell(shared, Vec::new(), Some(claim), records);
    }
}

/// One round trip.
fn tell(shared: &Shared, flying: Vec<InFlight>, claim: Option<ClaimRequest>, records: &Sender<ToRecords>) {
    // A claim alone changes nothing: it must not wake the claimer that sleeps next.
    let changed = !flying.is_empty();
    let (mut changes, mut plans) = (Vec::new(), Vec::with_capacity(flying.len()));
    for InFlight { slots, then } in flying {
        let plan = slots.into_iter().map(|slot| match slot {
            Slot::Done(reply) => Ok(reply),
            Slot::Ask(change, following) => {
                if let Following::Back { lease } = &following {
                    locked(&shared.leases).set_leaving(*lease, true);
                }
                changes.push(change);
                Err(following)
            }
        });
        plans.push((plan.collect::<Vec<_>>(), then));
    }
    let called = if changes.is_empty() && claim.is_none() {
        Ok((Vec::new(), Vec::new(), None))
    } else {
        let (scope, want, lease) =
            claim.as_ref().map_or((&Scope::All, 0, Duration::ZERO), |claim| (&claim.scope, claim.want, claim.lease));
        shared.call(&changes, scope, want, lease).map(|called| (called.statuses, called.jobs, called.next_ms))
    };
    match called {
        Ok((statuses, jobs, next_ms)) => {
            let mut statuses = statuses.into_iter();
            let (mut forget, mut answers) = (Vec::new(), Vec::with_capacity(plans.len()));
            for (plan, then) in plans {
                let reply = |planned: Result<Reply, Following>| match planned {
                    Ok(reply) => Ok(reply),
                    Err(following) => {
                        let status = statuses.next().ok_or_else(|| {
                            StoreError::plain(StoreErrorKind::Corrupt, "change the window: an answer is missing")
                        })?;
                        shared.reply(following, status, &mut forget)
                    }
                };
                // Each item takes its own answer, also after one that fails: the answers are those of all requests.
                let replies: Vec<Result<Reply, StoreError>> = plan.into_iter().map(reply).collect();
                answers.push((then, replies.into_iter().collect()));
            }
            // Before anybody is answered: who waited may end with that, and what is left after the end is not done.
            if !forget.is_empty() {
                drop(records.send(ToRecords::Forget(forget)));
            }
            for (then, answer) in answers {
                super::answer(then, answer);
            }
            if let Some(claim) = claim {
                // Whoever asked waits; were he gone, the leases would lapse.
                drop(claim.reply.send(Ok((jobs, next_ms))));
            }
            if changed {
                shared.bell.ring();
            }
        }
        Err(error) => {
            for (plan, then) in plans {
                // It is not known to be back, and is sent again: until then its lease is kept.
                for following in plan.iter().filter_map(|planned| planned.as_ref().err()) {
                    if let Following::Back { lease } = following {
                        locked(&shared.leases).set_leaving(*lease, false);
                    }
                }
                super::answer(then, Err(error.again()));
            }
            if let Some(claim) = claim {
                drop(claim.reply.send(Err(error)));
            }
        }
    }
}

impl Shared {
    fn reply(&self, following: Following, status: Status, forget: &mut Vec<RunKey>) -> Result<Reply, StoreError> {
        let drop_lease = |token: u64| locked(&self.leases).remove(token);
        Ok(match following {
            Following::Submitted(repair) => {
                // An earlier run of this name may have been over, before it was removed.
                locked(&self.over).forget(&repair.run);
                match status {
                    Status::Stale => drop(self.rebuild(&repair)?),
                    // It is recorded and open: whoever looks for lost runs puts it in when there is room.
                    Status::Full => {
                        tracing::warn!(run = %repair.run.run, "the queue is full: the run is recorded, and begins when there is room");
                    }
                    _ => {}
                }
                Reply::Created
            }
            Following::Finished { lease } => {
                drop_lease(lease);
                match status {
                    Status::Ok => Reply::Created,
                    Status::Complete => Reply::Complete,
                    Status::Closed => Reply::Closed,
                    Status::Cancelled => Reply::Cancelled,
                    Status::NotOwner => Reply::NotOwner,
                    // The last one, or the window was lost: either way nothing is acknowledged, and this worker reads
                    // the records next.
                    Status::Last | Status::Lost | Status::Stale | Status::Full => Reply::Last,
                }
            }
            Following::Closed { run, lease, reply } => {
                if let Some(lease) = lease {
                    drop_lease(lease);
                }
                locked(&self.over).add(run.clone());
                forget.push(run);
                reply
            }
            Following::Back { lease } => {
                drop_lease(lease);
                if status == Status::Ok { Reply::Created } else { Reply::NotOwner }
            }
        })
    }
}
