//! Jobs that name something which is not stored: an artifact, a package, a value, or the pipeline. No worker can run
//! such a job, and none of the workers is at fault.

use std::time::Duration;

use dovetail_core::executor::{Failure, FailureKind, Usage};
use dovetail_core::ledger::{Claimed, Kind, Operation, Record};
use dovetail_core::policy;
use dovetail_core::record::{AttemptRecord, Form as _, RetryRecord, RunOutcomeRecord, RunState};

use super::work::{Work, uncharged};
use super::{Conclusion, JobOutcome, StepFailure, StepRunner, failed};
use crate::FlowError;
use crate::truth::retries;

impl StepRunner {
    /// Something that the job names is not stored. The job is retried a few times without a charge, by this worker or
    /// another one (`policy::LOOK_AGAIN`); then the step fails.
    ///
    /// # Errors
    /// `error` itself if it is another error; a store's failure.
    pub(super) fn look_again(&self, work: Work<'_>, error: FlowError) -> Result<JobOutcome, FlowError> {
        let Some(failure) = missing(&error) else { return Err(error) };
        let this = AttemptRecord { uncharged: true, ..self.no_attempt(work.claimed, failure.clone()) };
        match policy::LOOK_AGAIN.get(work.uncharged() as usize) {
            Some(delay) => Ok(retry(work.claimed, this, *delay)),
            None => self.finish(work, failed(failure), this),
        }
    }

    /// As [`StepRunner::look_again`], for a job whose pipeline cannot be read. The last failure ends the run, because
    /// no worker can read the run's steps.
    ///
    /// # Errors
    /// As [`StepRunner::look_again`].
    pub(crate) fn look_again_for_the_plan(&self, claimed: &Claimed, error: FlowError) -> Result<JobOutcome, FlowError> {
        let Some(failure) = missing(&error) else { return Err(error) };
        let lease = &claimed.lease;
        let before = retries(&self.ports, &lease.run, &lease.step, claimed.attempt)?;
        let this = AttemptRecord { uncharged: true, ..self.no_attempt(claimed, failure.clone()) };
        if let Some(delay) = policy::LOOK_AGAIN.get(uncharged(&before) as usize) {
            return Ok(retry(claimed, this, *delay));
        }
        let (state, short) = (RunState::Failed, StepFailure::of(&failure));
        let finished_ms = self.ports.clock.wall_ms();
        let end =
            RunOutcomeRecord { state, failed_step: Some(lease.step.clone()), failure: Some(failure), finished_ms };
        let record = Record { kind: Kind::RunOutcome, key: lease.run.key(), value: end.encode() };
        let change = Some(Operation::Close { run: lease.run.clone(), record });
        let conclusion = Conclusion::Finished { failure: Some(short), micros: 0 };
        Ok(JobOutcome { change, conclusion, run_state: Some(state) })
    }

    /// The record of an attempt that ended before the task was called.
    pub(super) fn no_attempt(&self, claimed: &Claimed, failure: Failure) -> AttemptRecord {
        AttemptRecord {
            number: claimed.attempt,
            started_ms: self.ports.clock.wall_ms(),
            duration_us: 0,
            error: Some(failure),
            usage: Usage::default(),
            models: Vec::new(),
            warnings: Vec::new(),
            worker: self.worker.clone(),
            lost_workers: 0,
            uncharged: false,
        }
    }
}

/// The change that records the failed attempt and requeues the job for the next one after `delay`.
pub(super) fn retry(claimed: &Claimed, this: AttemptRecord, delay: Duration) -> JobOutcome {
    let (lease, uncharged) = (&claimed.lease, this.uncharged);
    let code = this.error.as_ref().map_or_else(String::new, |e| e.code.clone());
    let key = lease.run.attempt(&lease.step, claimed.attempt + 1);
    let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    let record = Record { kind: Kind::Attempt, key, value: RetryRecord { failed: this, delay_ms }.encode() };
    let change = Operation::Retry { lease: lease.clone(), record, delay };
    JobOutcome::commit(change, Conclusion::Retried { code, delay, uncharged })
}

/// The failure of a job that names something which is not stored. `None` for any other error.
fn missing(error: &FlowError) -> Option<Failure> {
    Some(Failure::new(FailureKind::Unavailable, error.missing()?, error.in_words()))
}
