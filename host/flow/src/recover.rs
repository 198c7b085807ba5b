//! Bringing the jobs of a run in line with its records. One path serves everybody who cannot trust what he holds: a
//! worker that finished the last step, one whose outcome was there before, a resumed run, a re-run, the reconciler.

use std::sync::Arc;

use dovetail_core::RunId;
use dovetail_core::keys::{NodeId, RunKey};
use dovetail_core::ledger::{Item, Job, Kind, Record, Reply};
use dovetail_core::pipeline::{Pipeline, Step, ready};
use dovetail_core::record::{Form, GenerationRecord, RunState};

use crate::models::with_models;
use crate::truth::{Standing, Truth, current, end, unknown};
use crate::{FlowError, Ports};

/// A step as a job.
pub(crate) fn job(pipeline: &Pipeline, step: &Step) -> Job {
    let needs = pipeline.needs(step).into_iter().map(NodeId::of_step).collect();
    Job { step: NodeId::of_step(&step.name), needs, attempt: 1, lane: step.lane.clone() }
}

/// The nodes of a run of this pipeline.
pub(crate) fn steps(pipeline: &Pipeline) -> Arc<[NodeId]> {
    pipeline.steps.iter().map(|step| NodeId::of_step(&step.name)).collect()
}

/// Closes the run if it is over, else enqueues whatever is ready and missing. Doing it twice changes nothing.
///
/// # Errors
/// A store's failure; `unknown_run`.
pub fn recover(parts: &Ports, run: &RunId) -> Result<(), FlowError> {
    reconcile(parts, &current(parts, run)?).map(drop)
}

/// The steps of a run that are left to do: that have no outcome while it is open, or, if it is to be run `again`, that
/// did not succeed.
///
/// # Errors
/// A store's failure; `unknown_run`.
pub fn left_to_do(parts: &Ports, run: &RunId, again: bool) -> Result<Vec<Step>, FlowError> {
    let truth = Truth::read(parts, run)?;
    let over = truth.outcome.is_some();
    let is_left = |step: &Step| match truth.outcomes.get(&step.name) {
        None => again || !over,
        Some(outcome) => again && !outcome.succeeded(),
    };
    Ok(truth.pipeline.steps.iter().filter(|step| is_left(step)).cloned().collect())
}

/// As [`recover`], of one generation; tells how it ended, if it did so now or before.
pub(crate) fn reconcile(parts: &Ports, key: &RunKey) -> Result<Option<RunState>, FlowError> {
    let mut truth = Truth::read_generation(parts, key)?;
    if truth.outcome.is_none() && inherit(parts, &truth)? {
        truth = Truth::read_generation(parts, key)?;
    }
    let steps = steps(&truth.pipeline);
    match truth.standing() {
        Standing::Over => {
            // Whatever jobs are left of it go.
            parts.ledger.commit(&[Item::Recover { run: truth.key, jobs: vec![], steps }])?;
            Ok(truth.outcome.map(|o| o.state))
        }
        Standing::Close { state, failed_step } => {
            let record = end(parts, &truth.key, state, failed_step);
            parts.ledger.commit(&[Item::Close { run: truth.key, record }])?;
            Ok(Some(state))
        }
        Standing::Open => {
            let done = truth.outcomes.iter().filter(|(_, o)| o.succeeded()).map(|(name, _)| name.clone()).collect();
            let next = ready(&truth.pipeline, &done).into_iter().filter(|s| !truth.outcomes.contains_key(&s.name));
            let jobs =
                next.map(|step| Job { attempt: truth.attempt(&step.name), ..job(&truth.pipeline, step) }).collect();
            let jobs = with_models(jobs, &truth.models);
            parts.ledger.commit(&[Item::Recover { run: truth.key, jobs, steps }])?;
            Ok(None)
        }
    }
}

/// Copies what a re-run takes over and does not have yet: whoever made the generation may have died before he had
/// copied all. True: there was something to copy.
fn inherit(parts: &Ports, truth: &Truth) -> Result<bool, FlowError> {
    let key = &truth.key;
    let Some(before) = key.generation.checked_sub(1) else { return Ok(false) };
    let Some(bytes) = parts.ledger.get(Kind::Generation, &[key.key()])?.pop().flatten() else { return Ok(false) };
    let generation = GenerationRecord::decode(&bytes, &format!("generation {} of run {}", key.generation, key.run))?;
    let missing: Vec<&String> =
        generation.inherited.iter().filter(|step| !truth.outcomes.contains_key(*step)).collect();
    let earlier = RunKey { run: key.run.clone(), generation: before };
    let keys: Vec<String> = missing.iter().map(|step| earlier.step(step)).collect();
    let found = parts.ledger.get(Kind::Outcome, &keys)?;
    let copies = missing.iter().zip(found).filter_map(|(step, value)| {
        Some(Item::Inherit { record: Record { kind: Kind::Outcome, key: key.step(step), value: value? } })
    });
    let copies: Vec<Item> = copies.collect();
    if copies.is_empty() {
        return Ok(false);
    }
    parts.ledger.commit(&copies)?;
    Ok(true)
}

/// Runs a run again that failed or was cancelled: what had succeeded is taken over, the rest is tried anew, as a
/// further generation. The records of the one before stay as they are.
///
/// # Errors
/// `unknown_run`; `run_open` while it is not over; `nothing_to_retry` if it succeeded; a store's failure.
pub fn retry(parts: &Ports, run: &RunId, reason: &str) -> Result<RunKey, FlowError> {
    let truth = Truth::read(parts, run)?;
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
        truth.outcomes.iter().filter(|(_, outcome)| outcome.succeeded()).map(|(name, _)| name.clone()).collect();
    let record = GenerationRecord { inherited, requested_ms: parts.clock.wall_ms(), reason: reason.to_owned() };
    let record = Record { kind: Kind::Generation, key: key.key(), value: record.encode() };
    // Two who ask at once make one generation: the second one finds the first one's record, and both bring it on its
    // way.
    if parts.ledger.commit(&[Item::Reopen { run: key.clone(), record }])?.first() == Some(&Reply::Closed) {
        // It was removed meanwhile, because it is old.
        return Err(unknown(run));
    }
    reconcile(parts, &key)?;
    Ok(key)
}
