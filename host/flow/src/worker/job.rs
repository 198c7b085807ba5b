//! A job in hand: one owned value, from the claim until the job is settled, given back or left to its lease.
//!
//! A state is a type, and a transition is a method that consumes the value: a job cannot be in two states, and a
//! transition that the table does not have does not compile.
//!
//! | state | where the job is | counted as | next states |
//! |---|---|---|---|
//! | [`Claimed`] | the job waits for a slot | waiting | `start`: Started; `give_back`: Ended |
//! | [`Started`] | a slot works on the job | running | `end`, `give_back`: Ended; *lease* |
//! | [`Ended`] | it has an outcome | as before | `send`: Sent; `keep`: Kept; `committed`: Committed; *lease* |
//! | [`Sent`] | the ledger has the change and has not replied | sent | `answered`: Ended |
//! | [`Kept`] | a store did not accept the change | kept | `resend`: Ended; *lease* |
//! | [`Committed`] | all changes are recorded | as before | `settle`: none |
//!
//! *lease*: `leave_to_lease` drops the job, which has no next state. *As before*: the count of the state before: for
//! example, an `Ended` job that comes from `Started` is still counted as running.
//!
//! A job gives up its resources in one place, when the value is dropped. The resources are its count in flow control,
//! its entry in the table of leases (so that the lease is not renewed any more), and the ledger's memory of the lease.
//!
//! A job that is dropped before a change of it was sent is given back, uncharged. In all other cases the job is left to
//! its lease: unless the change was recorded, the job can be claimed again when the lease expires. The other cases
//! include the abort of this process and a panic of the thread that drops the job. A lease that expires counts as a
//! crash, so a job over which every worker panics fails in the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dovetail_core::keys::NodeId;
use dovetail_core::ledger::{self, Lease, Operation, RunKey};
use dovetail_core::panics::contain;
use dovetail_core::record::RunState;

use super::flow_control::Counted;
use super::in_hand::{HeldLease, JobsInHand};
use crate::shutdown::Shutdown;
use crate::step::{Conclusion, JobOutcome};

/// If the host panics this many times over the commits of one job, the job is left to its lease. So a job over which
/// every worker panics is charged with crashes and fails in the end.
const MAX_COMMIT_PANICS: u32 = 3;

/// A claimed job that this worker must settle, give back or leave to its lease.
pub(super) struct JobInHand<State> {
    hold: Hold,
    state: State,
}

/// The job waits for a slot.
pub(super) struct Claimed(ledger::Claimed);

/// A slot works on the job.
pub(super) struct Started(ledger::Claimed);

/// The job has an outcome, or is to be given back. Its change is not with the ledger.
pub(super) struct Ended {
    /// The number of panics of the host over commits of this job.
    panics: u32,
    attempt: u32,
    outcome: JobOutcome,
}

/// The ledger has the job's change and has not replied.
pub(super) struct Sent(Ended);

/// A store did not accept the job's change.
pub(super) struct Kept(Ended);

/// All changes of the job are recorded.
pub(super) struct Committed {
    attempt: u32,
    conclusion: Conclusion,
    run_state: Option<RunState>,
}

/// The resources that a job holds in every state, until it is dropped.
struct Hold {
    jobs: Arc<JobsInHand>,
    lease: Arc<HeldLease>,
    shutdown: Shutdown,
    counted: Counted,
    /// When a slot started the job. `None`: no slot has started the job, or the job has left its slot.
    started_at: Option<Instant>,
    /// The job ended with a result, so its duration counts in the mean duration of steps.
    ran: bool,
    /// Whether to give the job back when it is dropped: no change of the job was sent, and the job was not left to its
    /// lease.
    release_on_drop: bool,
    /// How the run ended, if it ended with this job.
    run_state: Option<RunState>,
}

impl Hold {
    fn count_as(&mut self, next: Counted) {
        let duration = if next == Counted::Running { None } else { self.leave_slot() };
        self.jobs.flow.recount(self.counted, next, duration);
        self.counted = next;
    }

    /// The job leaves its slot. Returns the duration of its step. `None`: the step did not run, or the job has left its
    /// slot before.
    fn leave_slot(&mut self) -> Option<Duration> {
        self.started_at.take().filter(|_| self.ran).map(|started_at| started_at.elapsed())
    }

    fn give_back(&self) {
        let release = Operation::Release { lease: self.lease.lease(), delay: Duration::ZERO };
        let (run, step) = (&self.lease.run.run, &self.lease.step);
        // A panic must not prevent the rest of the destructor.
        match contain("give a job back", || self.jobs.ledger.commit(&[release])) {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                let err = &error as &dyn std::error::Error;
                tracing::warn!(%run, %step, err, "a job could not be given back: its lease expires instead");
            }
            Err(_) => {
                tracing::error!(%run, %step, "a job could not be given back: its lease expires instead");
            }
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.lease.end();
        if self.release_on_drop && !self.shutdown.aborting() && !std::thread::panicking() {
            self.give_back();
        }
        let duration = self.leave_slot();
        // A panic must not leave a destructor: if the thread is panicking already, it would abort the process.
        drop(contain("remove a job", || self.jobs.remove(&self.lease, self.counted, duration, self.run_state)));
    }
}

impl<State> JobInHand<State> {
    pub(super) fn run(&self) -> &RunKey {
        &self.hold.lease.run
    }

    pub(super) fn step(&self) -> &NodeId {
        &self.hold.lease.step
    }

    pub(super) fn held_lease(&self) -> &Arc<HeldLease> {
        &self.hold.lease
    }

    /// Ends the attempt. The change in `outcome` is made with the lease that holds the job now.
    fn into_ended(self, attempt: u32, outcome: impl FnOnce(State) -> JobOutcome) -> JobInHand<Ended> {
        let lease = self.hold.lease.end();
        let mut outcome = outcome(self.state);
        outcome.hold_by(lease);
        JobInHand { hold: self.hold, state: Ended { panics: 0, attempt, outcome } }
    }
}

/// The outcome of a job that goes back to the queue untouched.
fn release(lease: &Lease, delay: Duration) -> JobOutcome {
    JobOutcome::commit(Operation::Release { lease: lease.clone(), delay }, Conclusion::Released)
}

impl JobInHand<Claimed> {
    /// A job whose lease is in the table and which is counted as waiting already.
    pub(super) fn new(
        jobs: &Arc<JobsInHand>,
        job: ledger::Claimed,
        lease: Arc<HeldLease>,
        shutdown: &Shutdown,
    ) -> Self {
        let hold = Hold {
            jobs: jobs.clone(),
            lease,
            shutdown: shutdown.clone(),
            counted: Counted::Waiting,
            started_at: None,
            ran: false,
            release_on_drop: true,
            run_state: None,
        };
        Self { hold, state: Claimed(job) }
    }

    /// A slot starts the job.
    pub(super) fn start(mut self) -> JobInHand<Started> {
        self.hold.started_at = Some(Instant::now());
        self.hold.count_as(Counted::Running);
        JobInHand { hold: self.hold, state: Started(self.state.0) }
    }

    /// Gives the job back, uncharged. The job can be claimed again after `delay`.
    pub(super) fn give_back(self, delay: Duration) -> JobInHand<Ended> {
        let attempt = self.state.0.attempt;
        self.into_ended(attempt, |Claimed(job)| release(&job.lease, delay))
    }
}

impl JobInHand<Started> {
    pub(super) fn job(&self) -> &ledger::Claimed {
        &self.state.0
    }

    /// The job's records are to be read before the step runs, because another worker may have claimed the job.
    pub(super) fn verify(&mut self) {
        self.state.0.verify = true;
    }

    /// The attempt ended with this outcome. `ran`: its duration counts in the mean duration of steps.
    pub(super) fn end(mut self, outcome: JobOutcome, ran: bool) -> JobInHand<Ended> {
        self.hold.ran = ran;
        let attempt = self.state.0.attempt;
        self.into_ended(attempt, |_| outcome)
    }

    /// Gives the job back, uncharged. The job can be claimed again after `delay`.
    pub(super) fn give_back(self, delay: Duration) -> JobInHand<Ended> {
        let attempt = self.state.0.attempt;
        self.into_ended(attempt, |Started(job)| release(&job.lease, delay))
    }

    /// The lease is lost: another worker may have the job.
    pub(super) fn leave_to_lease(mut self) {
        self.hold.release_on_drop = false;
    }
}

impl JobInHand<Ended> {
    /// The change to be committed next. `None`: all changes are recorded.
    pub(super) fn change(&self) -> Option<&Operation> {
        self.state.outcome.change.as_ref()
    }

    /// For the step runner, which applies a reply to the outcome.
    pub(super) fn outcome(&mut self) -> &mut JobOutcome {
        &mut self.state.outcome
    }

    /// The ledger is about to get the change. From now on a drop must not give the job back, because only the reply
    /// shows whether the ledger has acknowledged the job.
    pub(super) fn mark_sent(&mut self) {
        self.hold.release_on_drop = false;
    }

    /// The ledger gets the change, and another thread gets the reply: the slot is free.
    pub(super) fn send(mut self) -> JobInHand<Sent> {
        self.mark_sent();
        self.hold.count_as(Counted::Sent);
        JobInHand { hold: self.hold, state: Sent(self.state) }
    }

    /// A store did not accept the change. The slot is free, and the lease is renewed until the change is sent again.
    pub(super) fn keep(mut self) -> JobInHand<Kept> {
        self.hold.count_as(Counted::Kept);
        JobInHand { hold: self.hold, state: Kept(self.state) }
    }

    /// The job as committed, if no change is left to be committed.
    ///
    /// # Errors
    /// The job itself, if a change is left to be committed.
    #[expect(clippy::result_large_err, reason = "the caller goes on with the job: nothing has failed")]
    pub(super) fn committed(mut self) -> Result<JobInHand<Committed>, Self> {
        if self.change().is_some() {
            return Err(self);
        }
        self.hold.release_on_drop = false;
        let Ended { attempt, outcome: JobOutcome { conclusion, run_state, .. }, .. } = self.state;
        Ok(JobInHand { hold: self.hold, state: Committed { attempt, conclusion, run_state } })
    }

    /// Counts a panic of the host while it committed or settled this job. False: the panics have reached
    /// [`MAX_COMMIT_PANICS`], and the job is to be left to its lease.
    pub(super) fn may_try_again_after_panic(&mut self) -> bool {
        self.state.panics += 1;
        self.state.panics < MAX_COMMIT_PANICS
    }

    /// The reply could not be handled.
    pub(super) fn leave_to_lease(mut self) {
        self.hold.release_on_drop = false;
    }
}

impl JobInHand<Sent> {
    /// The ledger has replied, or has dropped the change.
    pub(super) fn answered(self) -> JobInHand<Ended> {
        JobInHand { hold: self.hold, state: self.state.0 }
    }
}

impl JobInHand<Kept> {
    /// The change is to be sent again.
    pub(super) fn resend(self) -> JobInHand<Ended> {
        JobInHand { hold: self.hold, state: self.state.0 }
    }

    /// This process is being aborted, so the change is not sent again.
    pub(super) fn leave_to_lease(mut self) {
        self.hold.release_on_drop = false;
    }
}

impl JobInHand<Committed> {
    /// The attempt, and its conclusion for the listener.
    pub(super) fn conclusion(&self) -> (u32, &Conclusion) {
        (self.state.attempt, &self.state.conclusion)
    }

    /// The job leaves the worker. If its run ended with it, the run's end is reported.
    pub(super) fn settle(mut self) {
        self.hold.run_state = self.state.run_state;
    }
}

#[cfg(test)]
mod tests;
