//! The commit of a job's change, and its consequences: the run is closed or continued, the job leaves the worker, and
//! the listener gets an event. A change that a store did not accept is kept and sent again. Its lease is renewed until
//! the change is recorded or the worker is aborted.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use dovetail_core::blobs::{Store, StoreError, StoreErrorKind};
use dovetail_core::ledger::{Operation, Reply};
use dovetail_core::panics::{Panicked, contain};

use super::job::{Ended, JobInHand, Kept, Sent};
use super::{Event, Worker};
use crate::FlowError;
use crate::shutdown::Shutdown;
use crate::step::Conclusion;

/// How long a change that a store did not accept waits until it is sent again.
const RESEND_DELAY: Duration = Duration::from_millis(500);

/// A message to the settle thread.
pub(super) enum ToSettle {
    /// The ledger has replied to the job's change.
    Answered(JobInHand<Sent>, Result<Reply, FlowError>),
    /// A store did not accept the job's change, which is to be sent again after [`RESEND_DELAY`].
    Kept(JobInHand<Kept>),
    /// The worker claims no more jobs, and the slots have ended. Every job that is still in hand is with the ledger, in
    /// this channel or with the settle thread.
    NoMoreJobs,
}

/// A job whose change the ledger has. The settle thread gets the job with the ledger's reply, or with an error if the
/// ledger drops this value without a reply.
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
            // The receiver lives until no job is in hand.
            drop(self.settle.send(ToSettle::Answered(job, reply)));
        }
    }
}

impl Drop for AwaitedAnswer {
    fn drop(&mut self) {
        if self.job.is_some() {
            // The ledger panicked over this change or over another change of the same batch.
            self.pass_on(Err(FlowError::Panic("commit: the change was dropped unanswered".into())));
        }
    }
}

/// The reply to a commit of one change.
fn single_reply(replies: Result<Vec<Reply>, StoreError>) -> Result<Reply, FlowError> {
    let missing = || StoreError::plain(StoreErrorKind::Corrupt, "commit: an answer is missing");
    Ok(replies?.pop().ok_or_else(missing)?)
}

/// A job that is not settled yet although the ledger has replied to its change.
enum Unsettled {
    /// A further change is to be committed.
    Send(JobInHand<Ended>),
    /// A store failed, and the change is to be sent again.
    Keep(JobInHand<Kept>),
}

impl Worker {
    /// Commits a job's change. The settle thread gets the reply. But if no other job waits or runs, this thread has
    /// nothing else to do: it commits and settles the job itself and saves waking another thread.
    pub(super) fn commit(&self, job: JobInHand<Ended>, settle: &Sender<ToSettle>) {
        if self.jobs.flow.is_last_in_hand() {
            self.commit_here(job, settle);
        } else {
            self.send(job, settle);
        }
    }

    /// Commits the job's change, and each change that follows from it, on this thread.
    fn commit_here(&self, mut job: JobInHand<Ended>, settle: &Sender<ToSettle>) {
        loop {
            job = match self.settle_committed(job) {
                None => return,
                Some(job) => job,
            };
            job.mark_sent();
            let Some(change) = job.change() else { continue };
            // A panic must not drop the job with its outcome, because the step would run again.
            let reply = contain("commit a change", || self.ports.ledger.commit(std::slice::from_ref(change)));
            let reply = reply.map_err(|panic| self.commit_panic(&job, &panic)).and_then(single_reply);
            match self.settle(job, reply) {
                None => return,
                Some(Unsettled::Send(next)) => job = next,
                Some(Unsettled::Keep(kept)) => return drop(settle.send(ToSettle::Kept(kept))),
            }
        }
    }

    /// Hands the job's change to the ledger. The reply is sent to the settle thread.
    fn send(&self, job: JobInHand<Ended>, settle: &Sender<ToSettle>) {
        let Some(job) = self.settle_committed(job) else { return };
        let Some(change) = job.change().cloned() else { return };
        let awaited = AwaitedAnswer { job: Some(job.send()), settle: settle.clone() };
        self.ports.ledger.commit_then(vec![change], Box::new(move |replies| awaited.answered(single_reply(replies))));
    }

    /// The work of the settle thread: settles the jobs whose changes have a reply, until the slots have ended and no
    /// job is in hand.
    pub(super) fn settle_all(&self, messages: &Receiver<ToSettle>, settle: &Sender<ToSettle>, shutdown: &Shutdown) {
        let (mut kept, mut no_more_jobs): (Vec<(Instant, JobInHand<Kept>)>, bool) = (Vec::new(), false);
        loop {
            if no_more_jobs && self.jobs.flow.is_empty() {
                return;
            }
            let due = kept.iter().map(|(due, _)| *due).min();
            let message = match due {
                None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => messages.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            let handle = || match message {
                Ok(ToSettle::NoMoreJobs) => no_more_jobs = true,
                Ok(ToSettle::Kept(job)) => kept.extend(keep(job, shutdown)),
                Ok(ToSettle::Answered(job, reply)) => match self.settle(job.answered(), reply) {
                    None => {}
                    Some(Unsettled::Send(job)) => self.send(job, settle),
                    Some(Unsettled::Keep(job)) => kept.extend(keep(job, shutdown)),
                },
                Err(RecvTimeoutError::Timeout) => {
                    let now = Instant::now();
                    for (_, job) in kept.extract_if(.., |(due, _)| *due <= now) {
                        self.send(job.resend(), settle);
                    }
                }
                // Impossible, because `settle` is a sender of this channel.
                Err(RecvTimeoutError::Disconnected) => no_more_jobs = true,
            };
            // This is a panic of the host. Its job is left to the lease, and the other jobs are settled.
            if let Err(panic) = contain("settle a step", handle) {
                let error = FlowError::panicked("settle a step", &panic);
                tracing::error!(err = &error as &dyn std::error::Error, "the host panicked while it settled a step");
                self.fail(error);
            }
        }
    }

    /// Handles the reply to the job's change. `None`: the job is settled, or is left to its lease.
    fn settle(&self, mut job: JobInHand<Ended>, reply: Result<Reply, FlowError>) -> Option<Unsettled> {
        let run = job.run().clone();
        // The stores that have answered if the change is settled without an error.
        let answering: &[Store] = match (job.change(), &reply) {
            // A release writes no record.
            (Some(Operation::Release { .. }), _) => &[Store::Queue],
            (_, Ok(Reply::Exists(_))) => &[Store::Records],
            _ => &[Store::Queue, Store::Records, Store::Blobs],
        };
        let settled = reply.and_then(|reply| {
            let settled = contain("settle a change", || self.runner.settle(&run, job.outcome(), &reply));
            settled.unwrap_or_else(|panic| Err(self.commit_panic(&job, &panic)))
        });
        match settled {
            Ok(()) => {
                if job.change().is_none() {
                    self.report_store_answers(answering, answering.contains(&Store::Records));
                }
                self.settle_committed(job).map(Unsettled::Send)
            }
            // No store is at fault for a panic, so claims go on.
            Err(error) if self.is_daemon() && error.is_panic() && job.may_try_again_after_panic() => {
                let (run, step, err) = (&run.run, job.step(), &error as &dyn std::error::Error);
                tracing::error!(%run, %step, err, "the outcome of a step is kept and recorded again");
                Some(Unsettled::Keep(job.keep()))
            }
            Err(error) if self.is_daemon() && !error.is_panic() => {
                self.store_failed("record an outcome", true, &error);
                Some(Unsettled::Keep(job.keep()))
            }
            Err(error) => {
                let (run, step, err) = (&run.run, job.step(), &error as &dyn std::error::Error);
                tracing::error!(%run, %step, err, "the outcome of a step could not be recorded");
                self.fail(error);
                job.leave_to_lease();
                None
            }
        }
    }

    /// The error for a panic of the host over the job's change.
    fn commit_panic(&self, job: &JobInHand<Ended>, panic: &Panicked) -> FlowError {
        let (step, run) = (job.step(), &job.run().run);
        FlowError::panicked(&format!("record the outcome of step {step} of run {run}"), panic)
    }

    /// If no change is left to be committed, reports the conclusion to the listener and settles the job. Otherwise
    /// returns the job.
    fn settle_committed(&self, job: JobInHand<Ended>) -> Option<JobInHand<Ended>> {
        let job = match job.committed() {
            Ok(job) => job,
            Err(job) => return Some(job),
        };
        let (run, step) = (job.run().run.clone(), job.step().clone());
        let (attempt, conclusion) = job.conclusion();
        match conclusion.clone() {
            Conclusion::Finished { failure, micros } => {
                self.emit(|| Event::StepFinished { run, step, attempt, failure, millis: micros / 1000 });
            }
            Conclusion::Skipped { failed_step } => self.emit(|| Event::StepSkipped { run, step, failed_step }),
            Conclusion::Retried { code, delay, .. } => {
                let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                self.emit(|| Event::StepRetried { run, step, attempt, code, delay_ms });
            }
            Conclusion::Stopped => self.emit(|| Event::StepReleased { run, step, attempt }),
            Conclusion::Released | Conclusion::Superseded => {}
        }
        job.settle();
        None
    }

    /// Notes that a store failed. The listener gets an event at the first failure and then one in each
    /// `REPORT_INTERVAL`, however many failures there are. `is_outcome`: an outcome
    /// could not be recorded and is kept; otherwise a claim failed.
    pub(super) fn store_failed(&self, operation: &str, is_outcome: bool, error: &FlowError) {
        tracing::debug!(operation, err = error as &dyn std::error::Error, "a store failed");
        let store = error.store();
        if let Some(since) = self.jobs.flow.store_failed(store, is_outcome) {
            let kept = self.jobs.unrecorded();
            self.emit(|| Event::StoreFailed {
                store,
                operation: operation.to_owned(),
                error: error.in_words(),
                since,
                kept,
            });
        }
    }

    /// Notes that these stores have answered, and reports each one that had failed. `is_recorded`: an outcome was
    /// recorded.
    pub(super) fn report_store_answers(&self, stores: &[Store], is_recorded: bool) {
        for store in self.jobs.flow.stores_answered(stores, is_recorded) {
            self.emit(|| Event::StoreAnswers { store });
        }
    }
}

/// The job of a change that a store did not accept, and the time at which the change is sent again. `None`: this
/// process is being aborted, so the job is left to its lease.
fn keep(job: JobInHand<Kept>, shutdown: &Shutdown) -> Option<(Instant, JobInHand<Kept>)> {
    if shutdown.aborting() {
        job.leave_to_lease();
        return None;
    }
    Some((Instant::now() + RESEND_DELAY, job))
}
