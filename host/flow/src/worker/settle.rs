//! What follows when a job's change has been recorded: the run is closed or brought on its way, the job is let go, and
//! the listener is told. A change that a store did not take is kept and sent again, with its lease renewed, for as long
//! as the worker may.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use dovetail_core::blobs::{Store, StoreError, StoreErrorKind};
use dovetail_core::ledger::{Item, Reply};
use dovetail_core::panics::contain;

use super::job::{Ended, JobInHand, Kept, Sent};
use super::{Event, Worker, panicked};
use crate::FlowError;
use crate::shutdown::Shutdown;
use crate::step::Conclusion;

/// How long a change waits that a store did not take.
const AGAIN: Duration = Duration::from_millis(500);

pub(super) enum ToSettle {
    Answered(JobInHand<Sent>, Result<Reply, FlowError>),
    /// A store did not take it: it is to be sent again a little later.
    Kept(JobInHand<Kept>),
    /// Nothing is claimed any more, and the slots have ended: a job that is still in hand is on its way here.
    NoMoreJobs,
}

/// A change that the ledger has. The settle thread gets the job back with the ledger's answer, also when the ledger
/// drops the change unanswered.
struct AwaitedAnswer {
    job: Option<JobInHand<Sent>>,
    settle: Sender<ToSettle>,
}

impl AwaitedAnswer {
    fn answered(mut self, reply: Result<Reply, FlowError>) {
        self.pass_on(reply);
    }

    fn pass_on(&mut self, reply: Result<Reply, FlowError>) {
        if let Some(job) = self.job.take() {
            // The receiver stays until all jobs are let go.
            drop(self.settle.send(ToSettle::Answered(job, reply)));
        }
    }
}

impl Drop for AwaitedAnswer {
    fn drop(&mut self) {
        if self.job.is_some() {
            // A panic of the ledger over this change, or over another one of the same batch.
            self.pass_on(Err(FlowError::Panic("commit: the change was dropped unanswered".into())));
        }
    }
}

fn only(replies: Result<Vec<Reply>, StoreError>) -> Result<Reply, FlowError> {
    let missing = || StoreError::plain(StoreErrorKind::Corrupt, "commit: an answer is missing");
    Ok(replies?.pop().ok_or_else(missing)?)
}

/// What is left to do for a job whose change was answered.
enum Unsettled {
    /// A further change is to be committed.
    Send(JobInHand<Ended>),
    /// A store did not take the change.
    Keep(JobInHand<Kept>),
}

impl Worker {
    /// Sends a job's change on its way. The settle thread hears the answer, unless this is the only job in hand: then
    /// no other thread needs to be woken for it.
    pub(super) fn commit(&self, job: JobInHand<Ended>, settle: &Sender<ToSettle>) {
        if self.jobs.flow.is_last_in_hand() {
            self.commit_here(job, settle);
        } else {
            self.send(job, settle);
        }
    }

    /// Commits the job's change on this thread, with all that follows from it.
    fn commit_here(&self, mut job: JobInHand<Ended>, settle: &Sender<ToSettle>) {
        loop {
            job = match self.settle_committed(job) {
                None => return,
                Some(job) => job,
            };
            job.is_being_sent();
            let Some(change) = job.change() else { continue };
            // A panic must not drop an outcome: the step would run again.
            let reply = contain("commit a change", || self.parts.ledger.commit(std::slice::from_ref(change)));
            let reply = reply.map_err(|panic| self.panicked_over(&job, &panic)).and_then(only);
            match self.settle(job, reply) {
                None => return,
                Some(Unsettled::Send(next)) => job = next,
                Some(Unsettled::Keep(kept)) => return drop(settle.send(ToSettle::Kept(kept))),
            }
        }
    }

    /// Hands the job's change to the ledger; the answer comes to the receiver of `settle`.
    fn send(&self, job: JobInHand<Ended>, settle: &Sender<ToSettle>) {
        let Some(job) = self.settle_committed(job) else { return };
        let Some(change) = job.change().cloned() else { return };
        let awaited = AwaitedAnswer { job: Some(job.send()), settle: settle.clone() };
        self.parts.ledger.commit_then(vec![change], Box::new(move |replies| awaited.answered(only(replies))));
    }

    /// Settles jobs as their changes are answered, until the slots have ended and every job was let go.
    pub(super) fn settle_all(&self, answers: &Receiver<ToSettle>, settle: &Sender<ToSettle>, shutdown: &Shutdown) {
        let (mut later, mut no_more): (Vec<(Instant, JobInHand<Kept>)>, bool) = (Vec::new(), false);
        loop {
            if no_more && self.jobs.flow.is_empty() {
                return;
            }
            let due = later.iter().map(|(due, _)| *due).min();
            let message = match due {
                None => answers.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => answers.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            let handle = || match message {
                Ok(ToSettle::NoMoreJobs) => no_more = true,
                Ok(ToSettle::Kept(job)) => later.extend(keep(job, shutdown)),
                Ok(ToSettle::Answered(job, reply)) => match self.settle(job.answered(), reply) {
                    None => {}
                    Some(Unsettled::Send(job)) => self.send(job, settle),
                    Some(Unsettled::Keep(job)) => later.extend(keep(job, shutdown)),
                },
                Err(RecvTimeoutError::Timeout) => {
                    let now = Instant::now();
                    for (_, job) in later.extract_if(.., |(due, _)| *due <= now) {
                        self.send(job.again(), settle);
                    }
                }
                // It cannot be: `settle` is a sender.
                Err(RecvTimeoutError::Disconnected) => no_more = true,
            };
            // A panic here is our own: the job that it hit is left to its lease, and the others are settled.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(handle)) {
                let error = panicked("settle a step", panic.as_ref());
                tracing::error!(err = &error as &dyn std::error::Error, "the host panicked as it settled a step");
                self.fail(error);
            }
        }
    }

    /// What follows from the reply to the job's change. None: the job is let go.
    fn settle(&self, mut job: JobInHand<Ended>, reply: Result<Reply, FlowError>) -> Option<Unsettled> {
        let run = job.run().clone();
        let asked: &[Store] = match (job.change(), &reply) {
            // Nothing was to be recorded.
            (Some(Item::Release { .. }), _) => &[Store::Queue],
            (_, Ok(Reply::Exists(_))) => &[Store::Records],
            _ => &[Store::Queue, Store::Records, Store::Blobs],
        };
        let settled = reply.and_then(|reply| {
            let settled = contain("settle a change", || self.runner.settle(&run, job.outcome(), &reply));
            settled.unwrap_or_else(|panic| Err(self.panicked_over(&job, &panic)))
        });
        match settled {
            Ok(()) => {
                if job.change().is_none() {
                    self.store_answers(asked, true);
                }
                self.settle_committed(job).map(Unsettled::Send)
            }
            Err(error)
                if self.is_daemon() && (!matches!(error, FlowError::Panic(_)) || job.may_try_again_after_panic()) =>
            {
                self.store_failed("record what was done", true, &error);
                Some(Unsettled::Keep(job.keep()))
            }
            Err(error) => {
                let (run, step, err) = (&run.run, job.step(), &error as &dyn std::error::Error);
                tracing::error!(%run, %step, err, "what came of a step could not be recorded");
                self.fail(error);
                job.leave_to_lease();
                None
            }
        }
    }

    fn panicked_over(&self, job: &JobInHand<Ended>, panic: &str) -> FlowError {
        let (step, run) = (job.step(), &job.run().run);
        FlowError::Panic(format!("record the outcome of step {step} of run {run}: the host panicked: {panic}"))
    }

    /// Settles the job, if everything is committed: the listener is told, and the job is let go. Otherwise the job
    /// comes back.
    fn settle_committed(&self, job: JobInHand<Ended>) -> Option<JobInHand<Ended>> {
        let job = match job.committed() {
            Ok(job) => job,
            Err(job) => return Some(job),
        };
        let (run, step) = (job.run().run.clone(), job.step().clone());
        let (attempt, conclusion) = job.conclusion();
        match conclusion.clone() {
            Conclusion::Finished { failure, micros } => {
                self.tell(|| Event::StepFinished { run, step, attempt, failure, millis: micros / 1000 });
            }
            Conclusion::Skipped { failed_step } => self.tell(|| Event::StepSkipped { run, step, failed_step }),
            Conclusion::Retried { code, delay, .. } => {
                let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                self.tell(|| Event::StepRetried { run, step, attempt, code, delay_ms });
            }
            Conclusion::Stopped => self.tell(|| Event::StepReleased { run, step, attempt }),
            Conclusion::Released | Conclusion::Superseded => {}
        }
        job.settle();
        None
    }

    /// Told once and then now and then, however many changes it is that wait. `keeps`: it is something that was done.
    pub(super) fn store_failed(&self, operation: &str, keeps: bool, error: &FlowError) {
        tracing::debug!(operation, err = error as &dyn std::error::Error, "a store failed");
        let store = error.store();
        if let Some(since) = self.jobs.flow.store_failed(store, keeps) {
            let kept = self.jobs.unrecorded();
            self.tell(|| Event::StoreFailed {
                store,
                operation: operation.to_owned(),
                error: error.in_words(),
                since,
                kept,
            });
        }
    }

    pub(super) fn store_answers(&self, asked: &[Store], took: bool) {
        for store in self.jobs.flow.answered_by(asked, took) {
            self.tell(|| Event::StoreAnswers { store });
        }
    }
}

/// When a change that was not taken is due again. None: this process is told to stop at once, and the lease decides.
fn keep(job: JobInHand<Kept>, shutdown: &Shutdown) -> Option<(Instant, JobInHand<Kept>)> {
    if shutdown.aborting() {
        job.leave_to_lease();
        return None;
    }
    Some((Instant::now() + AGAIN, job))
}
