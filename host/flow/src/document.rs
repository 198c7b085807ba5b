//! The document `dovetail.run/1`: a run's inputs, output, steps and times, computed from the run's records.
//! [`crate::documents`] has its type.

use std::collections::BTreeSet;
use std::time::Duration;

use dovetail_core::RunId;
use dovetail_core::keys::NodeId;
use dovetail_core::ledger::{HeldStep, RunKey, capability_in_words};
use dovetail_core::pipeline::{Edge, EdgeKind, Pipeline, Step};
use dovetail_core::record::{AttemptRecord, OutcomeRecord, RunState, StepEnd};
use dovetail_core::worker_status::WorkerStatus;
use serde_json::Value;
use time::OffsetDateTime;

use crate::documents::{
    AttemptDocument, ProcessingSummary, RunDocument, RunError, RunFormat, RunStatus, StepDocument, StepState, Timestamp,
};
use crate::listing::readable;
use crate::truth::{Truth, current, is_stopped, load_value};
use crate::{FlowError, Ports};

/// The document of a run's last generation. The run may be open.
///
/// # Errors
/// `unknown_run`; a store's failure.
pub fn document(ports: &Ports, run: &RunId) -> Result<RunDocument, FlowError> {
    document_of(ports, &current(ports, run)?)
}

/// The document of one generation of a run.
///
/// # Errors
/// `unknown_run`; a store's failure.
pub fn document_of(ports: &Ports, key: &RunKey) -> Result<RunDocument, FlowError> {
    let truth = Truth::read_generation(ports, key)?;
    let held = held(ports, &truth)?;
    let state = state(&truth, &held);
    let inputs = truth.inputs(ports)?;
    let output = if state == RunStatus::Succeeded { output(ports, &truth, &inputs)? } else { Value::Null };
    let finished_ms = truth.outcome.as_ref().map(|o| o.finished_ms);
    let started_ms = truth.outcomes.values().map(|o| o.started_ms).min();
    let waiting = waiting(&truth, &held, || worker_capabilities(ports))?;
    Ok(RunDocument {
        format: RunFormat::V1,
        run_id: key.run.clone(),
        generation: key.generation,
        pipeline: truth.pipeline.reference(),
        state,
        inputs,
        output,
        processing_summary: summary(&truth, &held, &waiting, finished_ms),
        submitted_at: timestamp(truth.run.submitted_ms),
        started_at: started_ms.map(timestamp),
        finished_at: finished_ms.map(timestamp),
        warnings: warnings(&truth, &waiting),
        error: error(&truth),
    })
}

/// The IDs of the steps of an ended run whose attempts may still be stopping, and the time since the run's end. A step
/// whose prerequisites succeeded can have been running when the run ended. Its outcome is recorded after its attempt
/// has stopped, unless its worker died. Of an open run: no steps and no time.
///
/// # Errors
/// `unknown_run`; a store's failure.
pub fn unrecorded(ports: &Ports, run: &RunId) -> Result<(Vec<String>, Duration), FlowError> {
    let truth = Truth::read(ports, run)?;
    let Some(end) = &truth.outcome else { return Ok((Vec::new(), Duration::ZERO)) };
    let may_run = |step: &&Step| truth.outcome_of(&step.name).is_none() && ready_now(&truth.pipeline, &truth, step);
    let since = Duration::from_millis(ports.clock.wall_ms().saturating_sub(end.finished_ms));
    Ok((truth.pipeline.steps.iter().filter(may_run).map(Step::id).collect(), since))
}

/// The state of a run. An open run of which no worker holds a step is `queued`, even if some of its steps have ended.
pub(crate) fn state(truth: &Truth, held: &[HeldStep]) -> RunStatus {
    match &truth.outcome {
        Some(outcome) => outcome.state.into(),
        None if truth.cancel.is_some() => RunStatus::Cancelled,
        None if held.is_empty() => RunStatus::Queued,
        None => RunStatus::Running,
    }
}

impl From<RunState> for RunStatus {
    fn from(state: RunState) -> Self {
        match state {
            RunState::Succeeded => Self::Succeeded,
            RunState::Failed => Self::Failed,
            RunState::Cancelled => Self::Cancelled,
        }
    }
}

fn output(ports: &Ports, truth: &Truth, inputs: &Value) -> Result<Value, FlowError> {
    use dovetail_core::blobs::{StoreError, StoreErrorKind};
    let mut outputs = std::collections::BTreeMap::new();
    for (name, outcome) in &truth.outcomes {
        if let Some(stored) = outcome.output() {
            outputs.insert(name.as_str(), load_value(ports, stored.clone())?);
        }
    }
    let result = truth.pipeline.result(inputs, &|step| outputs.get(step));
    Ok(result.map_err(|e| {
        StoreError::new(StoreErrorKind::Corrupt, format!("put the output of run {} together", truth.key.run), e)
    })?)
}

/// Looks at the oldest `limit` open runs. Returns the number of runs that wait for a capability which no living worker
/// has, and these capabilities: grants by name, `model:NAME` and `model_kind:KIND`.
///
/// # Errors
/// A store's failure.
pub fn unserved(ports: &Ports, limit: usize) -> Result<(usize, BTreeSet<String>), FlowError> {
    let (worker_capabilities, mut runs, mut lacking) = (worker_capabilities(ports)?, 0, BTreeSet::new());
    for key in ports.ledger.open_runs(limit)? {
        // A run that a newer dovetail wrote is passed over here, and named by lists.
        let Some(truth) = readable(Truth::read(ports, &key.run))? else { continue };
        let waiting = waiting(&truth, &held(ports, &truth)?, || Ok(worker_capabilities.clone()))?;
        runs += usize::from(!waiting.is_empty());
        lacking.extend(waiting.into_values().flatten());
    }
    Ok((runs, lacking))
}

/// The capabilities that this run waits for and that no living worker has, as text: one line for each step.
///
/// # Errors
/// A store's failure.
pub fn waits(ports: &Ports, run: &RunId) -> Result<Vec<String>, FlowError> {
    let truth = Truth::read(ports, run)?;
    let waiting = waiting(&truth, &held(ports, &truth)?, || worker_capabilities(ports))?;
    Ok(in_words(&truth, &waiting).collect())
}

/// The leased steps of the run.
fn held(ports: &Ports, truth: &Truth) -> Result<Vec<HeldStep>, FlowError> {
    Ok(if truth.outcome.is_some() { Vec::new() } else { ports.ledger.held(&truth.key)? })
}

fn holder<'h>(held: &'h [HeldStep], step: &Step) -> Option<&'h HeldStep> {
    held.iter().find(|held| held.step.name() == step.name)
}

/// The capabilities of each living worker.
type WorkerCapabilities = Vec<Vec<String>>;

fn worker_capabilities(ports: &Ports) -> Result<WorkerCapabilities, FlowError> {
    Ok(ports.ledger.workers()?.iter().map(|(_, about)| WorkerStatus::read(about).able).collect())
}

/// By the name of a ready step: the capabilities that the step needs and that no living worker has.
type Waiting = std::collections::BTreeMap<String, Vec<String>>;

/// `workers` is called only if a ready step has requirements on its worker.
fn waiting(
    truth: &Truth,
    held: &[HeldStep],
    workers: impl FnOnce() -> Result<WorkerCapabilities, FlowError>,
) -> Result<Waiting, FlowError> {
    if truth.outcome.is_some() || truth.cancel.is_some() {
        return Ok(Waiting::new());
    }
    let ready = |step: &&Step| {
        truth.outcome_of(&step.name).is_none()
            && holder(held, step).is_none()
            && ready_now(&truth.pipeline, truth, step)
            && !step.requirements.as_str().is_empty()
    };
    let ready: Vec<&Step> = truth.pipeline.steps.iter().filter(ready).collect();
    if ready.is_empty() {
        return Ok(Waiting::new());
    }
    let workers = workers()?;
    if workers.is_empty() {
        // Nothing to report: there may be a program that runs its own runs, and such a program does not register.
        return Ok(Waiting::new());
    }
    let needs = |step: &Step| {
        let requirements = step.requirements.with_models(&truth.models);
        let unserved = !workers.iter().any(|able| requirements.is_served_by(able));
        // The missing capabilities are those that no worker has. If some worker has each of them but none has all, all
        // are reported.
        let missing: Vec<String> = requirements
            .needs()
            .filter(|need| !workers.iter().any(|able| able.iter().any(|a| a == need)))
            .map(str::to_owned)
            .collect();
        let missing = if missing.is_empty() { requirements.needs().map(str::to_owned).collect() } else { missing };
        unserved.then_some((step.name.clone(), missing))
    };
    Ok(ready.into_iter().filter_map(needs).collect())
}

/// Times count from the run's submission, so they include the time in the queue.
fn summary(truth: &Truth, held: &[HeldStep], waiting: &Waiting, finished_ms: Option<u64>) -> ProcessingSummary {
    let begin = truth.run.submitted_ms;
    let total_ms = finished_ms.map(|end| end.saturating_sub(begin));
    ProcessingSummary {
        total_time: total_ms.map(seconds),
        total_time_ms: total_ms,
        parallel_speedup: speedup(truth),
        data_lineage: truth.pipeline.lineage(|edge| happened(truth, edge)),
        steps: truth.pipeline.steps.iter().map(|step| step_document(truth, held, waiting, step, begin)).collect(),
    }
}

/// Whether a value went along this edge: its producer succeeded, and its consumer was called with it, or the run
/// returned it.
fn happened(truth: &Truth, edge: &Edge) -> bool {
    let gave = |step: &String| truth.outcome_of(step).is_some_and(OutcomeRecord::succeeded);
    let skipped = |outcome: &OutcomeRecord| matches!(outcome.end, StepEnd::Skipped { .. });
    let took = |step: &String| truth.outcome_of(step).is_some_and(|outcome| !skipped(outcome));
    edge.from_step.as_ref().is_none_or(gave)
        && match edge.kind {
            EdgeKind::Given | EdgeKind::Passed => edge.to_step.as_ref().is_none_or(took),
            EdgeKind::Made => true,
            EdgeKind::Result => truth.outcome.as_ref().is_some_and(|outcome| outcome.state == RunState::Succeeded),
        }
}

/// The speed-up by running steps side by side: the sum of the durations of all attempts at the steps of stages with two
/// or more steps, divided by the time in which at least one of these attempts ran, summed over these stages. Time in
/// which none of them ran (a step waited for a model, or the run was retried later) is in neither sum. 1 if the
/// pipeline has no such stage. `None` before the run's end, and if fewer than two steps of every such stage have an
/// outcome.
fn speedup(truth: &Truth) -> Option<f64> {
    truth.outcome.as_ref()?;
    let stages = truth.pipeline.stages();
    let wide: Vec<_> = stages.iter().filter(|stage| stage.len() > 1).collect();
    if wide.is_empty() {
        return Some(1.0);
    }
    let spans = |stage: &Vec<&Step>| -> Option<Vec<Span>> {
        let outcomes: Vec<&OutcomeRecord> = stage.iter().filter_map(|step| truth.outcome_of(&step.name)).collect();
        // A stage of which only one step ended has no steps that ran side by side.
        (outcomes.len() > 1)
            .then(|| outcomes.iter().flat_map(|o| &o.attempts).map(|a| (a.started_ms * 1000, a.duration_us)).collect())
    };
    speedup_of(&wide.into_iter().filter_map(spans).collect::<Vec<_>>())
}

/// The begin and the length of an attempt, in microseconds.
type Span = (u64, u64);

/// The sum of all lengths, divided by the sum of the times that the spans of each stage cover, rounded to two places.
fn speedup_of(stages: &[Vec<Span>]) -> Option<f64> {
    let together: u64 = stages.iter().flatten().map(|(_, length)| length).sum();
    let covered = |spans: &Vec<Span>| {
        let mut spans = spans.clone();
        spans.sort_unstable();
        let (mut covered, mut until) = (0, 0);
        for (begin, length) in spans {
            let end = begin + length;
            covered += end.saturating_sub(begin.max(until));
            until = until.max(end);
        }
        covered
    };
    let covered: u64 = stages.iter().map(covered).sum();
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a run are far below 2^52")]
    let ratio = (covered > 0).then(|| together as f64 / covered as f64);
    ratio.map(|ratio| (ratio * 100.0).round() / 100.0)
}

fn step_document(truth: &Truth, held: &[HeldStep], waiting: &Waiting, step: &Step, begin: u64) -> StepDocument {
    let outcome = truth.outcome_of(&step.name);
    StepDocument {
        number: step.number,
        id: step.id(),
        step: NodeId::of_step(&step.name),
        task: step.task_reference(),
        package: step.package,
        input_id: step.input_id(),
        output_id: step.output_id(),
        state: step_state(truth, held, step, outcome),
        started_ms: outcome.map(|o| o.started_ms.saturating_sub(begin)),
        duration_ms: outcome.map(|o| o.attempts.iter().map(|a| a.duration_us).sum::<u64>() / 1000),
        models: outcome.map(|o| o.models.clone()).unwrap_or_default(),
        attempts: attempts(truth, step).into_iter().map(attempt_document).collect(),
        worker: holder(held, step).filter(|_| outcome.is_none()).map(|holder| holder.worker.clone()),
        waits_for: waiting.get(&step.name).cloned(),
        log_lines_dropped: outcome.map(|o| o.log_dropped).filter(|dropped| *dropped > 0),
    }
}

/// The recorded attempts at a step, in order.
fn attempts<'t>(truth: &'t Truth, step: &Step) -> Vec<&'t AttemptRecord> {
    match truth.outcome_of(&step.name) {
        Some(outcome) => outcome.attempts.iter().collect(),
        None => {
            truth.retries.get(&NodeId::of_step(&step.name)).into_iter().flatten().map(|retry| &retry.failed).collect()
        }
    }
}

fn attempt_document(attempt: &AttemptRecord) -> AttemptDocument {
    AttemptDocument {
        number: attempt.number,
        error: attempt.error.clone(),
        duration_us: attempt.duration_us,
        usage: attempt.usage.clone(),
        models: attempt.models.clone(),
        worker: attempt.worker.clone(),
        warnings: attempt.warnings.clone(),
        lost_workers: Some(attempt.lost_workers).filter(|lost| *lost > 0),
    }
}

fn step_state(truth: &Truth, held: &[HeldStep], step: &Step, outcome: Option<&OutcomeRecord>) -> StepState {
    match outcome.map(|outcome| &outcome.end) {
        Some(StepEnd::Succeeded(_)) => StepState::Succeeded,
        Some(StepEnd::Skipped { .. }) => StepState::NotRun,
        Some(StepEnd::Failed(failure)) if is_stopped(failure) => StepState::Stopped,
        Some(StepEnd::Failed(_)) => StepState::Failed,
        None if holder(held, step).is_some() => StepState::Running,
        None if truth.outcome.is_some() || truth.cancel.is_some() => StepState::NotRun,
        None if ready_now(&truth.pipeline, truth, step) => StepState::Ready,
        None => StepState::Blocked,
    }
}

fn ready_now(pipeline: &Pipeline, truth: &Truth, step: &Step) -> bool {
    pipeline.needs(step).iter().all(|need| truth.outcome_of(need).is_some_and(OutcomeRecord::succeeded))
}

/// The error of a failed run.
fn error(truth: &Truth) -> Option<RunError> {
    let end = truth.outcome.as_ref()?;
    let step = end.failed_step.as_ref().and_then(|name| truth.pipeline.step(name.name()));
    let outcome = step.and_then(|step| truth.outcome_of(&step.name));
    let failure = outcome.and_then(OutcomeRecord::failure).or(end.failure.as_ref())?.clone();
    Some(RunError {
        code: failure.code,
        message: failure.message,
        step: step.map(|s| s.name.clone()),
        id: step.map(Step::id),
        attempt: outcome.and_then(|o| o.attempts.last()).map(|a| a.number),
        kind: failure.kind,
        retryable: failure.retryable,
        details: failure.details,
        backtrace: failure.backtrace,
    })
}

fn warnings(truth: &Truth, waiting: &Waiting) -> Vec<String> {
    let dropped = truth.pipeline.steps.iter().filter_map(|step| {
        let dropped = truth.outcome_of(&step.name)?.log_dropped;
        (dropped > 0).then(|| {
            format!("{}: {dropped} log lines were dropped, over the limit of {} bytes", step.id(), step.limits.log)
        })
    });
    let cancelled = truth.cancel.iter().map(|c| format!("cancelled: {}", c.reason));
    // Every attempt at a step opens the same pictures, so each warning appears once for each step.
    let of_attempts = truth.pipeline.steps.iter().flat_map(|step| {
        let all: BTreeSet<&String> = attempts(truth, step).into_iter().flat_map(|a| &a.warnings).collect();
        all.into_iter().map(|warning| format!("{}: {warning}", step.id()))
    });
    dropped.chain(of_attempts).chain(cancelled).chain(in_words(truth, waiting)).collect()
}

fn in_words<'t>(truth: &'t Truth, waiting: &'t Waiting) -> impl Iterator<Item = String> + 't {
    truth.pipeline.steps.iter().filter_map(|step| {
        let needs = waiting.get(&step.name)?;
        Some(format!(
            "{} waits: no living worker has {} \
             (a grant is in its `worker.grants`; a model comes with `dovetail models pull` or `add`; an engine by \
             `vision.engine`, and ONNX Runtime comes with `dovetail models pull`)",
            step.id(),
            needs.iter().map(|need| capability_in_words(need)).collect::<Vec<_>>().join(" and ")
        ))
    })
}

/// A duration in seconds with two places, as every output for people has it: `0.41s`.
#[must_use]
pub fn seconds(ms: u64) -> String {
    let hundredths = (ms + 5) / 10;
    format!("{}.{:02}s", hundredths / 100, hundredths % 100)
}

/// A time in milliseconds since 1970, as RFC 3339 in UTC with milliseconds. A time after the year 9999 is the end of
/// that year.
pub(crate) fn timestamp(ms: u64) -> Timestamp {
    let since = time::Duration::milliseconds(i64::try_from(ms).unwrap_or(i64::MAX));
    let at = OffsetDateTime::UNIX_EPOCH.saturating_add(since);
    let ((year, month, day), (hour, minute, second, milli)) = (at.to_calendar_date(), at.to_hms_milli());
    let month = u8::from(month);
    Timestamp(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_speed_up_is_the_sum_of_lengths_over_the_time_in_which_some_step_ran() {
        assert_eq!(speedup_of(&[vec![(0, 400), (0, 400)]]), Some(2.0), "wholly side by side");
        assert_eq!(speedup_of(&[vec![(0, 400), (400, 400)]]), Some(1.0), "one after the other");
        assert_eq!(speedup_of(&[vec![(1000, 300), (1100, 300)]]), Some(1.5));
        assert_eq!(speedup_of(&[vec![(0, 400), (0, 400)], vec![(900, 100), (1000, 100)]]), Some(1.67), "stages add up");
        assert_eq!(speedup_of(&[vec![(0, 100), (300, 100)]]), Some(1.0), "waiting between them does not count");
        assert_eq!(
            speedup_of(&[vec![(1_000_000, 100), (0, 400), (100, 100)]]),
            Some(1.2),
            "in any order, and one within another"
        );
        assert_eq!(speedup_of(&[]), None);
    }

    #[test]
    fn times_are_written_as_people_and_programs_read_them() {
        let at = |ms| timestamp(ms).0;
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(at(1_795_459_507_123), "2026-11-23T18:45:07.123Z");
        assert_eq!(at(4_102_444_799_999), "2099-12-31T23:59:59.999Z");
        assert_eq!(at(253_402_300_799_999), "9999-12-31T23:59:59.999Z");
        assert_eq!(at(u64::MAX), at(253_402_300_799_999), "a damaged record's time has the schema's form, too");
        assert_eq!(seconds(412), "0.41s");
        assert_eq!(seconds(61_996), "62.00s");
    }
}
