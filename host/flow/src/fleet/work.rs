//! The second half of a fleet's change: the flat combiner that changes the window after the records are written, and
//! claims jobs in the same round trip.

use std::time::Duration;

use crossbeam_channel::{SendError, Sender};
use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::flat_combining::{CombinerGuard, FlatCombiner};
use dovetail_core::ledger::{Reply, RunKey, Scope};
use dovetail_core::panics::contain;
use dovetail_core::sync::lock;
use dovetail_core::window::{Delivery, Status};

use super::Shared;
use super::in_flight::{Following, RecordedRequest, Slot, answer, ended};
use super::records::ToRecords;

/// The most requests of one call. Redis serves no other client during a call.
const GROUP: usize = 256;

/// The jobs of a claim, and in how many milliseconds the next job becomes free by itself.
pub(super) type ClaimedJobs = Result<(Vec<Delivery>, Option<u64>), StoreError>;

pub(super) struct ClaimRequest {
    pub(super) scope: Scope,
    pub(super) want: usize,
    pub(super) lease: Duration,
    pub(super) reply: Sender<ClaimedJobs>,
}

/// A message to the window's combiner.
pub(super) enum ToWindow {
    Changes(Vec<RecordedRequest>),
    Claim(ClaimRequest),
}

/// Leaves the message to the combiner's thread. If that thread has ended, no caller may wait for ever: the requests get
/// an error, and a claimer's reply channel is closed.
pub(super) fn leave(to_window: &Sender<ToWindow>, message: ToWindow) {
    if let Err(SendError(ToWindow::Changes(lost))) = to_window.send(message) {
        lost.into_iter().for_each(|request| answer(request.then, Err(ended())));
    }
}

pub(super) type WindowCombiner = FlatCombiner<(), ToWindow>;

/// The combiner's thread: serves the messages of its inbox until no sender is left.
pub(super) fn run(shared: &Shared, combiner: &WindowCombiner, to_records: &Sender<ToRecords>) {
    while let Ok(first) = combiner.wait(None) {
        // The channels of these requests close; later requests are served.
        drop(contain("change the window", || call_with_others(shared, &combiner.lock(), first, to_records)));
    }
}

/// Serves `first` and the messages of the inbox, in as few round trips as possible.
pub(super) fn call_with_others(
    shared: &Shared,
    guard: &CombinerGuard<'_, (), ToWindow>,
    first: ToWindow,
    to_records: &Sender<ToRecords>,
) {
    let (mut requests, mut claims) = (Vec::new(), Vec::new());
    for message in std::iter::once(first).chain(guard.take_waiting(GROUP)) {
        match message {
            ToWindow::Changes(more) => requests.extend(more),
            ToWindow::Claim(claim) => claims.push(claim),
        }
    }
    while !requests.is_empty() {
        let rest = requests.split_off(requests.len().min(GROUP));
        // One claim shares the call of the last changes, so that it can get the jobs that they enqueue.
        let claim = if rest.is_empty() { claims.pop() } else { None };
        call(shared, requests, claim, to_records);
        requests = rest;
    }
    for claim in claims {
        call(shared, Vec::new(), Some(claim), to_records);
    }
}

/// One round trip to the window.
fn call(shared: &Shared, requests: Vec<RecordedRequest>, claim: Option<ClaimRequest>, to_records: &Sender<ToRecords>) {
    // A claim alone changes nothing, so it must not wake a sleeping claimer.
    let changed = !requests.is_empty();
    let (mut changes, mut plans) = (Vec::new(), Vec::with_capacity(requests.len()));
    for RecordedRequest { slots, then } in requests {
        let plan = slots.into_iter().map(|slot| match slot {
            Slot::Done(reply) => Ok(reply),
            Slot::Ask(change, following) => {
                if let Following::Back { lease } = &following {
                    lock(&shared.leases).set_releasing(*lease, true);
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
        let called = contain("change the window", || shared.call(&changes, scope, want, lease));
        let called = called
            .unwrap_or_else(|panic| Err(StoreError::new(StoreErrorKind::Unavailable, "change the window", panic)));
        called.map(|called| (called.statuses, called.jobs, called.next_ms))
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
                // Every item takes its own answer, also after an item that failed: the answers of all requests stand in
                // one list.
                let replies: Vec<Result<Reply, StoreError>> = plan.into_iter().map(reply).collect();
                answers.push((then, replies.into_iter().collect()));
            }
            // Before any request is answered: a caller that has its answer may drop the ledger, and the records' thread
            // does nothing that it gets after `End`.
            if !forget.is_empty() {
                drop(to_records.send(ToRecords::Forget(forget)));
            }
            for (then, replies) in answers {
                answer(then, replies);
            }
            if let Some(claim) = claim {
                // If the claimer has gone, the leases expire.
                drop(claim.reply.send(Ok((jobs, next_ms))));
            }
            if changed {
                shared.changes.notify();
            }
        }
        Err(error) => {
            for (plan, then) in plans {
                // The release may not have reached the window and is sent again: the lease is kept until then.
                for following in plan.iter().filter_map(|planned| planned.as_ref().err()) {
                    if let Following::Back { lease } = following {
                        lock(&shared.leases).set_releasing(*lease, false);
                    }
                }
                answer(then, Err(error.again()));
            }
            if let Some(claim) = claim {
                drop(claim.reply.send(Err(error)));
            }
        }
    }
}

impl Shared {
    /// Does the work that follows from the window's answer, and returns the item's reply. Closed runs are added to
    /// `forget`.
    fn reply(&self, following: Following, status: Status, forget: &mut Vec<RunKey>) -> Result<Reply, StoreError> {
        let drop_lease = |token: u64| lock(&self.leases).remove(token);
        Ok(match following {
            Following::Submitted(repair) => {
                // This process may remember the end of an earlier run with this ID that `gc` has removed.
                lock(&self.ended).forget(&repair.run);
                match status {
                    Status::Stale => drop(self.rebuild(&repair)?),
                    // The run is recorded and open. The search for lost runs enqueues it when the queue has room.
                    Status::Full => {
                        let run = &repair.run.run;
                        tracing::warn!(
                            %run,
                            "the queue is full; the run is recorded and starts when the queue has room"
                        );
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
                    // No job of the run is left, or the window was lost. In both cases the job is not acknowledged, and
                    // the worker reads the records next.
                    Status::Last | Status::Lost | Status::Stale | Status::Full => Reply::Last,
                }
            }
            Following::Closed { run, lease, reply } => {
                if let Some(lease) = lease {
                    drop_lease(lease);
                }
                lock(&self.ended).add(run.clone());
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
