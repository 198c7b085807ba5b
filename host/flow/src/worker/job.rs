//! A job in hand: one owned value from the claim until the job is settled or given back.
//!
//! A state is a type, and a transition is a method that consumes the value: a job cannot be in two states, and a
//! transition that the table does not have does not compile.
//!
//! | state | where the job is | counted as | next states |
//! |---|---|---|---|
//! | [`Claimed`] | the job waits for a slot | waiting | `start`: Started; `give_back`: Ended |
//! | [`Started`] | a slot works on the job | running | `end`, `give_back`: Ended; `leave_to_lease`: nothing |
//! | [`Ended`] | its change is to be committed | as before | `send`: Sent; `keep`: Kept; `committed`: Committed |
//! | [`Sent`] | the ledger has the change, and has not answered | sent | `answered`: Ended |
//! | [`Kept`] | a store did not take the change | kept | `again`: Ended; `leave_to_lease`: nothing |
//! | [`Committed`] | the outcome is recorded, with all that follows from the outcome | as before | `settle`: nothing |
//!
//! What a job holds is let go in one place, when the value is dropped: its count in flow control, its entry in the
//! table of leases (so that the lease is renewed no more), and what the ledger remembers of the lease. A job that is
//! dropped before a change of it was sent is given back, uncharged. In all other cases the lease decides: the job comes
//! again when its lease expires, unless the change was recorded. Two cases among them: this process is told to stop at
//! once, or the thread panics over the job. A lease that expires counts as a crash, so that a job over which workers
//! panic each time is given up in the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dovetail_core::keys::NodeId;
use dovetail_core::ledger::{self, Item, Lease, RunKey};
use dovetail_core::panics::contain;
use dovetail_core::record::RunState;

use super::flow_control::Counted;
use super::in_hand::{HeldLease, JobsInHand};
use crate::shutdown::Shutdown;
use crate::step::{Conclusion, JobOutcome};

/// A change over which the host panics is committed so often; then the job is left to its lease, so that a job over
/// which every worker panics is given up in the end.
const MAX_COMMIT_PANICS: u32 = 3;

/// A claimed job that is this worker's to bring to an end.
pub(super) struct JobInHand<State> {
    hold: Hold,
    state: State,
}

/// The job waits for a slot.
pub(super) struct Claimed(ledger::Claimed);

/// A slot works on the job.
pub(super) struct Started(ledger::Claimed);

/// The outcome is known.
pub(super) struct Ended {
    /// How often the host panicked over the change of this job.
    panics: u32,
    attempt: u32,
    outcome: JobOutcome,
}

/// The ledger has the outcome's change.
pub(super) struct Sent(Ended);

/// A store did not take the outcome's change.
pub(super) struct Kept(Ended);

/// The outcome is recorded.
pub(super) struct Committed {
    attempt: u32,
    conclusion: Conclusion,
    run_state: Option<RunState>,
}

/// What a job holds, until it is dropped.
struct Hold {
    jobs: Arc<JobsInHand>,
    lease: Arc<HeldLease>,
    shutdown: Shutdown,
    counted: Counted,
    /// A slot is busy with the job since then.
    began: Option<Instant>,
    /// The step was really run: its time tells how long steps take.
    ran: bool,
    /// No change of the job was sent, and the lease is not known to be lost.
    gives_back: bool,
    /// How the run ended, if it ended with this job.
    run_state: Option<RunState>,
}

impl Hold {
    fn count_as(&mut self, next: Counted) {
        let took = self.leaves_slot(next == Counted::Running);
        self.jobs.flow.moves(self.counted, next, took);
        self.counted = next;
    }

    /// How long the step took, when the job leaves its slot.
    fn leaves_slot(&mut self, stays: bool) -> Option<Duration> {
        if stays {
            return None;
        }
        self.began.take().filter(|_| self.ran).map(|began| began.elapsed())
    }

    fn give_back(&self) {
        let release = Item::Release { lease: self.lease.lease(), delay: Duration::ZERO };
        let (run, step) = (&self.lease.run.run, &self.lease.step);
        // A panic must not keep the rest from being let go.
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
        if self.gives_back && !self.shutdown.aborting() && !std::thread::panicking() {
            self.give_back();
        }
        let took = self.leaves_slot(false);
        // A panic must not leave a destructor: the thread may be panicking already.
        drop(contain("let a job go", || self.jobs.let_go(&self.lease, self.counted, took, self.run_state)));
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

    fn ends(self, attempt: u32, outcome: impl FnOnce(State) -> JobOutcome) -> JobInHand<Ended> {
        let lease = self.hold.lease.end();
        let mut outcome = outcome(self.state);
        outcome.hold_by(lease);
        JobInHand { hold: self.hold, state: Ended { panics: 0, attempt, outcome } }
    }
}

fn release(lease: &Lease, delay: Duration) -> JobOutcome {
    JobOutcome::commit(Item::Release { lease: lease.clone(), delay }, Conclusion::Released)
}

impl JobInHand<Claimed> {
    /// Takes a job that is counted as waiting already and whose lease is in the table.
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
            began: None,
            ran: false,
            gives_back: true,
            run_state: None,
        };
        Self { hold, state: Claimed(job) }
    }

    /// A slot begins to work on the job.
    pub(super) fn start(mut self) -> JobInHand<Started> {
        self.hold.began = Some(Instant::now());
        self.hold.count_as(Counted::Running);
        JobInHand { hold: self.hold, state: Started(self.state.0) }
    }

    /// The job goes back untouched after `delay`.
    pub(super) fn give_back(self, delay: Duration) -> JobInHand<Ended> {
        let attempt = self.state.0.attempt;
        self.ends(attempt, |Claimed(job)| release(&job.lease, delay))
    }
}

impl JobInHand<Started> {
    pub(super) fn job(&self) -> &ledger::Claimed {
        &self.state.0
    }

    /// The records are to be read before the step runs: the lease may have passed to another worker.
    pub(super) fn verify(&mut self) {
        self.state.0.verify = true;
    }

    /// The job came to this. `ran`: the step was really run.
    pub(super) fn end(mut self, outcome: JobOutcome, ran: bool) -> JobInHand<Ended> {
        self.hold.ran = ran;
        let attempt = self.state.0.attempt;
        self.ends(attempt, |_| outcome)
    }

    /// The job goes back after `delay`, uncharged.
    pub(super) fn give_back(self, delay: Duration) -> JobInHand<Ended> {
        let attempt = self.state.0.attempt;
        self.ends(attempt, |Started(job)| release(&job.lease, delay))
    }

    /// The lease is lost, or expires.
    pub(super) fn leave_to_lease(mut self) {
        self.hold.gives_back = false;
    }
}

impl JobInHand<Ended> {
    /// The change to be committed next.
    pub(super) fn change(&self) -> Option<&Item> {
        self.state.outcome.change.as_ref()
    }

    /// For the step runner, which makes of a reply what follows from it.
    pub(super) fn outcome(&mut self) -> &mut JobOutcome {
        &mut self.state.outcome
    }

    /// The ledger is about to get the change: from now on only its reply, or the lease, tells where the job is.
    pub(super) fn is_being_sent(&mut self) {
        self.hold.gives_back = false;
    }

    /// The change goes to the ledger, whose answer another thread will hear: the slot is free.
    pub(super) fn send(mut self) -> JobInHand<Sent> {
        self.is_being_sent();
        self.hold.count_as(Counted::Sent);
        JobInHand { hold: self.hold, state: Sent(self.state) }
    }

    /// A store did not take the change: the slot is free, and the lease is renewed until the change is sent again.
    pub(super) fn keep(mut self) -> JobInHand<Kept> {
        self.hold.count_as(Counted::Kept);
        JobInHand { hold: self.hold, state: Kept(self.state) }
    }

    /// Everything is recorded.
    ///
    /// # Errors
    /// The job itself, while a change is left to be committed.
    #[expect(clippy::result_large_err, reason = "the caller goes on with the job: nothing has failed")]
    pub(super) fn committed(mut self) -> Result<JobInHand<Committed>, Self> {
        if self.change().is_some() {
            return Err(self);
        }
        self.hold.gives_back = false;
        let Ended { attempt, outcome: JobOutcome { conclusion, run_state, .. }, .. } = self.state;
        Ok(JobInHand { hold: self.hold, state: Committed { attempt, conclusion, run_state } })
    }

    /// The host panicked as it committed or settled this job. False: it did so too often, and the lease is to decide.
    pub(super) fn may_try_again_after_panic(&mut self) -> bool {
        self.state.panics += 1;
        self.state.panics < MAX_COMMIT_PANICS
    }

    /// The reply cannot be acted upon: the lease decides.
    pub(super) fn leave_to_lease(mut self) {
        self.hold.gives_back = false;
    }
}

impl JobInHand<Sent> {
    pub(super) fn answered(self) -> JobInHand<Ended> {
        JobInHand { hold: self.hold, state: self.state.0 }
    }
}

impl JobInHand<Kept> {
    pub(super) fn again(self) -> JobInHand<Ended> {
        JobInHand { hold: self.hold, state: self.state.0 }
    }

    /// This process is told to stop at once.
    pub(super) fn leave_to_lease(mut self) {
        self.hold.gives_back = false;
    }
}

impl JobInHand<Committed> {
    /// The attempt, and what is to be told of it.
    pub(super) fn conclusion(&self) -> (u32, &Conclusion) {
        (self.state.attempt, &self.state.conclusion)
    }

    /// The job is this worker's no more; where its run ended with it, that is told.
    pub(super) fn settle(mut self) {
        self.hold.run_state = self.state.run_state;
    }
}

#[cfg(test)]
mod tests;
