//! Recovery: makes the jobs of a run agree with the run's records. All cases in which a job cannot be trusted use this
//! one path: a worker that finished the last step, a worker whose outcome existed before, a resumed run, a retried run,
//! a run that the search for lost runs found.

use std::sync::Arc;

use dovetail_core::RunId;
use dovetail_core::blobs::StoreError;
use dovetail_core::keys::{NodeId, RunKey};
use dovetail_core::ledger::{Job, Kind, Operation, Record, Reply};
use dovetail_core::pipeline::{Pipeline, Step, ready};
use dovetail_core::record::{Form, GenerationRecord, RunOutcomeRecord, RunState};

use crate::models::with_models;
use crate::truth::{RunProgress, Truth, current, end, unknown};
use crate::{FlowError, Ports};

/// A step as a job.
pub(crate) fn job(pipeline: &Pipeline, step: &Step) -> Job {
    let needs = pipeline.needs(step).into_iter().map(NodeId::of_step).collect();
    Job { step: NodeId::of_step(&step.name), needs, attempt: 1, requirements: step.requirements.clone() }
}

/// The nodes of a run of this pipeline.
pub(crate) fn steps(pipeline: &Pipeline) -> Arc<[NodeId]> {
    pipeline.steps.iter().map(|step| NodeId::of_step(&step.name)).collect()
}

/// How a run ended that was to be closed as `state`: another worker may have closed the run first, in another state.
///
/// # Errors
/// `Corrupt` or `Newer` for an outcome that cannot be read.
pub(crate) fn recorded_state(state: RunState, reply: Option<&Reply>, what: &str) -> Result<RunState, StoreError> {
    match reply {
        Some(Reply::Exists(bytes)) => Ok(RunOutcomeRecord::decode(bytes, what)?.state),
        _ => Ok(state),
    }
}

/// Closes the run if all its steps have ended, otherwise enqueues the missing jobs of ready steps. Idempotent.
///
/// # Errors
/// A store's failure; `unknown_run`.
pub fn recover(ports: &Ports, run: &RunId) -> Result<(), FlowError> {
    reconcile(ports, &current(ports, run)?).map(drop)
}

/// The steps of a run that are left to do: of an open run, the steps without an outcome; with `again` (for a retry),
/// the steps that did not succeed.
///
/// # Errors
/// A store's failure; `unknown_run`.
pub fn left_to_do(ports: &Ports, run: &RunId, again: bool) -> Result<Vec<Step>, FlowError> {
    let truth = Truth::read(ports, run)?;
    let over = truth.outcome.is_some();
    let is_left = |step: &Step| match truth.outcome_of(&step.name) {
        None => again || !over,
        Some(outcome) => again && !outcome.succeeded(),
    };
    Ok(truth.pipeline.steps.iter().filter(|step| is_left(step)).cloned().collect())
}

/// As [`recover`], for one generation. Returns the state of the run's outcome, whether recorded now or before. `None`:
/// the run is open.
///
/// # Errors
/// A store's failure; `unknown_run`.
pub(crate) fn reconcile(ports: &Ports, key: &RunKey) -> Result<Option<RunState>, FlowError> {
    let mut truth = Truth::read_generation(ports, key)?;
    if truth.outcome.is_none() && inherit(ports, &truth)? {
        truth = Truth::read_generation(ports, key)?;
    }
    let steps = steps(&truth.pipeline);
    match truth.progress() {
        RunProgress::Over => {
            // Removes the jobs that are left of the run.
            ports.ledger.commit(&[Operation::Recover { run: truth.key, jobs: vec![], steps }])?;
            Ok(truth.outcome.map(|o| o.state))
        }
        RunProgress::Close { state, failed_step } => {
            let record = end(ports, &truth.key, state, failed_step);
            let what = format!("run {}", truth.key.run);
            let reply = ports.ledger.commit(&[Operation::Close { run: truth.key, record }])?.pop();
            Ok(Some(recorded_state(state, reply.as_ref(), &what)?))
        }
        RunProgress::Open => {
            let done =
                truth.outcomes.iter().filter(|(_, o)| o.succeeded()).map(|(node, _)| node.name().to_owned()).collect();
            let next = ready(&truth.pipeline, &done).into_iter().filter(|s| truth.outcome_of(&s.name).is_none());
            let jobs =
                next.map(|step| Job { attempt: truth.attempt(&step.name), ..job(&truth.pipeline, step) }).collect();
            let jobs = with_models(jobs, &truth.models);
            ports.ledger.commit(&[Operation::Recover { run: truth.key, jobs, steps }])?;
            Ok(None)
        }
    }
}

/// Copies the outcomes that a retry takes over and does not have yet: the process that made the generation may have
/// died before it had copied all. Returns whether an outcome was copied.
fn inherit(ports: &Ports, truth: &Truth) -> Result<bool, FlowError> {
    let key = &truth.key;
    let Some(before) = key.generation.checked_sub(1) else { return Ok(false) };
    let Some(bytes) = ports.ledger.get(Kind::Generation, &[key.key()])?.pop().flatten() else { return Ok(false) };
    let generation = GenerationRecord::decode(&bytes, &format!("generation {} of run {}", key.generation, key.run))?;
    let missing: Vec<&NodeId> =
        generation.inherited.iter().filter(|step| !truth.outcomes.contains_key(*step)).collect();
    let earlier = RunKey { run: key.run.clone(), generation: before };
    let keys: Vec<String> = missing.iter().map(|step| earlier.step(step)).collect();
    let found = ports.ledger.get(Kind::Outcome, &keys)?;
    let copies = missing.iter().zip(found).filter_map(|(step, value)| {
        Some(Operation::Inherit { record: Record { kind: Kind::Outcome, key: key.step(step), value: value? } })
    });
    let copies: Vec<Operation> = copies.collect();
    if copies.is_empty() {
        return Ok(false);
    }
    ports.ledger.commit(&copies)?;
    Ok(true)
}

/// Retries a run that failed or was cancelled, as a further generation: outcomes of succeeded steps are taken over, and
/// all other steps run again. The records of the earlier generation stay unchanged.
///
/// # Errors
/// `unknown_run`; `run_open` while the run has no outcome; `nothing_to_retry` if it succeeded; a store's failure.
pub fn retry(ports: &Ports, run: &RunId, reason: &str) -> Result<RunKey, FlowError> {
    let truth = Truth::read(ports, run)?;
    match truth.outcome.as_ref().map(|outcome| outcome.state) {
        None => {
            return Err(FlowError::refused(
                "run_open",
                format!("run {run} is not over"),
                format!("cancel it first: `dovetail runs cancel {run}`"),
            ));
        }
        Some(RunState::Succeeded) => {
            return Err(FlowError::refused(
                "nothing_to_retry",
                format!("run {run} succeeded"),
                "submit a new run to do the same again",
            ));
        }
        Some(RunState::Failed | RunState::Cancelled) => {}
    }
    let key = RunKey { run: run.clone(), generation: truth.key.generation + 1 };
    let inherited =
        truth.outcomes.iter().filter(|(_, outcome)| outcome.succeeded()).map(|(node, _)| node.clone()).collect();
    let record = GenerationRecord { inherited, requested_ms: ports.clock.wall_ms(), reason: reason.to_owned() };
    let record = Record { kind: Kind::Generation, key: key.key(), value: record.encode() };
    // Two concurrent calls make one generation: the second call finds the record of the first one, and both enqueue the
    // jobs.
    if ports.ledger.commit(&[Operation::Reopen { run: key.clone(), record }])?.first() == Some(&Reply::Closed) {
        // `gc` has removed the run since it was read.
        return Err(unknown(run));
    }
    reconcile(ports, &key)?;
    Ok(key)
}
