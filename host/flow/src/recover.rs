//! Bringing the jobs of a run in line with its records. One path serves everybody who cannot trust what he holds: a worker that finished
//! the last step, one whose outcome was there before, a resumed run, the reconciler.

use dovetail_core::RunId;
use dovetail_core::ledger::{Item, Job};
use dovetail_core::pipeline::{Pipeline, Step, ready};
use dovetail_core::record::RunState;

use crate::truth::{Standing, Truth, end};
use crate::{FlowError, Parts};

/// A step as a job.
pub(crate) fn job(pipeline: &Pipeline, step: &Step) -> Job {
    Job { step: step.name.clone(), needs: pipeline.needs(step).into_iter().map(str::to_owned).collect(), attempt: 1 }
}

/// Closes the run if it is over, else enqueues whatever is ready and missing. Doing it twice changes nothing.
///
/// # Errors
/// A store's failure; `unknown_run`.
pub fn recover(parts: &Parts, run: &RunId) -> Result<(), FlowError> {
    reconcile(parts, run).map(drop)
}

/// As [`recover`]; tells how the run ended, if it did so now or before.
pub(crate) fn reconcile(parts: &Parts, run: &RunId) -> Result<Option<RunState>, FlowError> {
    let truth = Truth::read(parts, run)?;
    match truth.standing() {
        Standing::Over => {
            // Whatever jobs are left of it go.
            parts.ledger.commit(&[Item::Recover { run: truth.key, jobs: vec![] }])?;
            Ok(truth.outcome.map(|o| o.state))
        }
        Standing::Close { state, failed_step } => {
            let record = end(parts, &truth.key, state, failed_step);
            parts.ledger.commit(&[Item::Close { run: truth.key, record }])?;
            Ok(Some(state))
        }
        Standing::Open => {
            let done = truth.outcomes.iter().filter(|(_, o)| o.failure.is_none()).map(|(name, _)| name.clone()).collect();
            let next = ready(&truth.pipeline, &done).into_iter().filter(|s| !truth.outcomes.contains_key(&s.name));
            let jobs = next.map(|step| Job { attempt: truth.attempt(&step.name), ..job(&truth.pipeline, step) }).collect();
            parts.ledger.commit(&[Item::Recover { run: truth.key, jobs }])?;
            Ok(None)
        }
    }
}
