//! The outcome of a job: the change to be committed, and the conclusion that is reported after the commit.

use std::time::Duration;

use dovetail_core::executor::Failure;
use dovetail_core::keys::NodeId;
use dovetail_core::ledger::{Lease, Operation, Reply, RunKey};
use dovetail_core::record::RunState;

use super::StepRunner;
use crate::FlowError;
use crate::recover::{reconcile, recorded_state};
use crate::truth::{end, is_stopped};

/// Why a step did not succeed, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepFailure {
    pub code: String,
    pub message: String,
    /// The attempt was stopped because the run had ended. The step itself did not fail.
    pub stopped: bool,
}

impl StepFailure {
    pub(super) fn of(failure: &Failure) -> Self {
        Self { code: failure.code.clone(), message: failure.message.clone(), stopped: is_stopped(failure) }
    }
}

/// How a job ended, for the worker's listener and for its back-off.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Conclusion {
    /// The step ended.
    Finished { failure: Option<StepFailure>, micros: u64 },
    /// The step was skipped, since this step had failed.
    Skipped { failed_step: NodeId },
    /// The step will be tried again.
    Retried {
        code: String,
        delay: Duration,
        /// No attempt was made: something that the job names is not stored.
        uncharged: bool,
    },
    /// The job was given back, and nothing was done for it.
    Released,
    /// The attempt was stopped with its worker, and the job was given back.
    Stopped,
    /// The job needed nothing, or another worker's outcome counts.
    Superseded,
}

/// The change that a job needs next, and how it ended.
#[derive(Debug)]
pub(crate) struct JobOutcome {
    /// The change to be committed next. `None`: everything is recorded, and the conclusion can be reported.
    pub(crate) change: Option<Operation>,
    pub(crate) conclusion: Conclusion,
    /// How the run ended, if it ended with this job.
    pub(crate) run_state: Option<RunState>,
}

impl JobOutcome {
    /// Nothing is to be recorded for the job.
    pub(crate) fn superseded(run_state: Option<RunState>) -> Self {
        Self { change: None, conclusion: Conclusion::Superseded, run_state }
    }

    /// The job is held by this lease, which may be another one than the attempt began with.
    pub(crate) fn hold_by(&mut self, held: Lease) {
        if let Some(
            Operation::Finish { lease, .. } | Operation::Retry { lease, .. } | Operation::Release { lease, .. },
        ) = &mut self.change
        {
            *lease = held;
        }
    }

    /// A change that does not end the run.
    pub(crate) fn commit(change: Operation, conclusion: Conclusion) -> Self {
        Self { change: Some(change), conclusion, run_state: None }
    }
}

impl StepRunner {
    /// Applies the ledger's reply to the job's change. Afterwards the job is settled (`outcome` has no change), or a
    /// further change is to be committed.
    ///
    /// # Errors
    /// A store's failure: the outcome is as before, and its change can be sent again.
    pub(crate) fn settle(&self, run: &RunKey, outcome: &mut JobOutcome, reply: &Reply) -> Result<(), FlowError> {
        let mut next = None;
        match (&outcome.change, reply) {
            (Some(Operation::Retry { .. } | Operation::Finish { .. }), Reply::Created) => {}
            (Some(Operation::Retry { .. }), _) | (Some(Operation::Finish { .. }), Reply::Exists(_)) => {
                // Another worker's record was first.
                outcome.run_state = reconcile(&self.ports, run)?;
                outcome.conclusion = Conclusion::Superseded;
            }
            (Some(Operation::Finish { succeeded: true, .. }), Reply::Complete) => {
                // All steps of the run have succeeded: this worker closes the run without reading a record.
                let state = RunState::Succeeded;
                next = Some(Operation::Close { run: run.clone(), record: end(&self.ports, run, state, None) });
                outcome.run_state = Some(state);
            }
            // `Last`, `Cancelled` and `Closed`: recovery reads how the run ends and closes it, unless it is closed.
            (Some(Operation::Finish { .. }), _) => outcome.run_state = reconcile(&self.ports, run)?,
            // The run's outcome is recorded, by this worker or by another one.
            (Some(Operation::Close { .. }), reply) => {
                if let Some(state) = outcome.run_state {
                    outcome.run_state = Some(recorded_state(state, Some(reply), &format!("run {}", run.run))?);
                }
            }
            // A release is settled by any reply.
            _ => {}
        }
        outcome.change = next;
        Ok(())
    }
}
