//! The document `dovetail.run/1`: what a run was given, what it gave, and how, computed from its records alone.
//! [`crate::documents`] has its type.

use std::collections::BTreeSet;
use std::time::Duration;

use dovetail_core::RunId;
use dovetail_core::ledger::{HeldStep, RunKey, capability_in_words};
use dovetail_core::pipeline::{Edge, EdgeKind, Pipeline, Step};
use dovetail_core::record::{AttemptRecord, OutcomeRecord, RunState, StepEnd};
use dovetail_core::worker_status::WorkerStatus;
use serde_json::Value;

use crate::documents::{
    AttemptDocument, ProcessingSummary, RunDocument, RunError, RunFormat, RunStatus, StepDocument, StepState, Timestamp,
};
use crate::listing::readable;
use crate::truth::{Truth, current, is_stopped, load_value};
use crate::{FlowError, Ports};

/// The document of a run, finished or not: of its last generation.
///
/// # Errors
/// `unknown_run`; a store's failure.
pub fn document(parts: &Ports, run: &RunId) -> Result<RunDocument, FlowError> {
    document_of(parts, &current(parts, run)?)
}

/// The document of one generation of a run.
///
/// # Errors
/// `unknown_run`; a store's failure.
pub fn document_of(parts: &Ports, key: &RunKey) -> Result<RunDocument, FlowError> {
    let truth = Truth::read_generation(parts, key)?;
    let held = held(parts, &truth)?;
    let state = state(&truth, &held);
    let inputs = truth.inputs(parts)?;
    let output = if state == RunStatus::Succeeded { output(parts, &truth, &inputs)? } else { Value::Null };
    let finished_ms = truth.outcome.as_ref().map(|o| o.finished_ms);
    let started_ms = truth.outcomes.values().map(|o| o.started_ms).min();
    let waiting = waiting(&truth, &held, || able(parts))?;
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

/// Of a run that is over: the steps whose attempts may still be stopping, and for how long it has been over. A step
/// whose needs succeeded can have been running when its run ended, and what its attempt came to is recorded once it has
/// stopped; if its worker lives.
///
/// # Errors
/// `unknown_run`; a store's failure.
pub fn unrecorded(parts: &Ports, run: &RunId) -> Result<(Vec<String>, Duration), FlowError> {
    let truth = Truth::read(parts, run)?;
    let Some(end) = &truth.outcome else { return Ok((Vec::new(), Duration::ZERO)) };
    let may_run = |step: &&Step| !truth.outcomes.contains_key(&step.name) && ready_now(&truth.pipeline, &truth, step);
    let since = Duration::from_millis(parts.clock.wall_ms().saturating_sub(end.finished_ms));
    Ok((truth.pipeline.steps.iter().filter(may_run).map(Step::id).collect(), since))
}

/// `queued`, `running`, `succeeded`, `failed` or `cancelled`. An open run on which nobody works waits in the queue,
/// however far it is.
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

fn output(parts: &Ports, truth: &Truth, inputs: &Value) -> Result<Value, FlowError> {
    use dovetail_core::blobs::{StoreError, StoreErrorKind};
    let mut outputs = std::collections::BTreeMap::new();
    for (name, outcome) in &truth.outcomes {
        if let Some(stored) = outcome.output() {
            outputs.insert(name.as_str(), load_value(parts, stored.clone())?);
        }
    }
    let result = truth.pipeline.result(inputs, &|step| outputs.get(step));
    Ok(result.map_err(|e| {
        StoreError::new(StoreErrorKind::Corrupt, format!("put the output of run {} together", truth.key.run), e)
    })?)
}

/// Of so many open runs, the oldest first: how many wait for what no living worker has, and what that is: grants by
/// name, `model:NAME` and `model_kind:KIND`.
///
/// # Errors
/// A store's failure.
pub fn unserved(parts: &Ports, limit: usize) -> Result<(usize, BTreeSet<String>), FlowError> {
    let (able, mut runs, mut lacking) = (able(parts)?, 0, BTreeSet::new());
    for key in parts.ledger.open_runs(limit)? {
        // One that a newer dovetail wrote hides no other; lists name it.
        let Some(truth) = readable(Truth::read(parts, &key.run))? else { continue };
        let waiting = waiting(&truth, &held(parts, &truth)?, || Ok(able.clone()))?;
        runs += usize::from(!waiting.is_empty());
        lacking.extend(waiting.into_values().flatten());
    }
    Ok((runs, lacking))
}

/// What this run waits for and no living worker has, in words: one line a step.
///
/// # Errors
/// A store's failure.
pub fn waits(parts: &Ports, run: &RunId) -> Result<Vec<String>, FlowError> {
    let truth = Truth::read(parts, run)?;
    let waiting = waiting(&truth, &held(parts, &truth)?, || able(parts))?;
    Ok(told(&truth, &waiting).collect())
}

/// Its steps that somebody has leased.
fn held(parts: &Ports, truth: &Truth) -> Result<Vec<HeldStep>, FlowError> {
    Ok(if truth.outcome.is_some() { Vec::new() } else { parts.ledger.held(&truth.key)? })
}

fn holder<'h>(held: &'h [HeldStep], step: &Step) -> Option<&'h HeldStep> {
    held.iter().find(|held| held.step.name() == step.name)
}

/// What each living worker can serve.
type Able = Vec<Vec<String>>;

fn able(parts: &Ports) -> Result<Able, FlowError> {
    Ok(parts.ledger.workers()?.iter().map(|(_, about)| WorkerStatus::read(about).able).collect())
}

/// Steps that are ready, and what no living worker has that they need.
type Waiting = std::collections::BTreeMap<String, Vec<String>>;

/// `workers` is asked only where a step needs something of its worker.
fn waiting(
    truth: &Truth,
    held: &[HeldStep],
    workers: impl FnOnce() -> Result<Able, FlowError>,
) -> Result<Waiting, FlowError> {
    if truth.outcome.is_some() || truth.cancel.is_some() {
        return Ok(Waiting::new());
    }
    let ready = |step: &&Step| {
        !truth.outcomes.contains_key(&step.name)
            && holder(held, step).is_none()
            && ready_now(&truth.pipeline, truth, step)
            && !step.lane.as_str().is_empty()
    };
    let ready: Vec<&Step> = truth.pipeline.steps.iter().filter(ready).collect();
    if ready.is_empty() {
        return Ok(Waiting::new());
    }
    let workers = workers()?;
    if workers.is_empty() {
        // Nobody lives who could lack something. A program that runs its own runs has no need to say that it lives.
        return Ok(Waiting::new());
    }
    let needs = |step: &Step| {
        let lane = step.lane.with_models(&truth.models);
        let unserved = !workers.iter().any(|able| lane.is_served_by(able));
        // What nobody has at all is what is missing; where each has a part, it is the whole.
        let missing: Vec<String> = lane
            .needs()
            .filter(|need| !workers.iter().any(|able| able.iter().any(|a| a == need)))
            .map(str::to_owned)
            .collect();
        let missing = if missing.is_empty() { lane.needs().map(str::to_owned).collect() } else { missing };
        unserved.then_some((step.name.clone(), missing))
    };
    Ok(ready.into_iter().filter_map(needs).collect())
}

/// Times count from the run's acceptance: waiting in the queue is part of what a run takes.
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

/// Whether a value has gone this way: its maker gave it, and its taker was called with it or the run gave it out.
fn happened(truth: &Truth, edge: &Edge) -> bool {
    let gave = |step: &String| truth.outcomes.get(step).is_some_and(OutcomeRecord::succeeded);
    let skipped = |outcome: &OutcomeRecord| matches!(outcome.end, StepEnd::Skipped { .. });
    let took = |step: &String| truth.outcomes.get(step).is_some_and(|outcome| !skipped(outcome));
    edge.from_step.as_ref().is_none_or(gave)
        && match edge.kind {
            EdgeKind::Given | EdgeKind::Passed => edge.to_step.as_ref().is_none_or(took),
            EdgeKind::Made => true,
            EdgeKind::Result => truth.outcome.as_ref().is_some_and(|outcome| outcome.state == RunState::Succeeded),
        }
}

/// What running steps side by side saved: the durations of the attempts at steps that could run side by side (those of
/// one stage of the graph, two or more), over the time in which at least one of them ran; over several such stages, the
/// sums of both. Time in which none ran (one waited for a model, or the run was run again later) is in neither. 1 where
/// nothing was saved, and where the pipeline has no such stage. None before the run is over, and where fewer than two
/// of a stage ran.
fn speedup(truth: &Truth) -> Option<f64> {
    truth.outcome.as_ref()?;
    let stages = truth.pipeline.stages();
    let wide: Vec<_> = stages.iter().filter(|stage| stage.len() > 1).collect();
    if wide.is_empty() {
        return Some(1.0);
    }
    let spans = |stage: &Vec<&Step>| -> Option<Vec<Span>> {
        let outcomes: Vec<&OutcomeRecord> = stage.iter().filter_map(|step| truth.outcomes.get(&step.name)).collect();
        // One that ended alone tells nothing about ending together.
        (outcomes.len() > 1)
            .then(|| outcomes.iter().flat_map(|o| &o.attempts).map(|a| (a.started_ms * 1000, a.duration_us)).collect())
    };
    saved(&wide.into_iter().filter_map(spans).collect::<Vec<_>>())
}

/// When something began and how long it took, in microseconds.
type Span = (u64, u64);

/// The sum of all lengths over the sum of what the stages' spans cover, to two places.
fn saved(stages: &[Vec<Span>]) -> Option<f64> {
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
    let outcome = truth.outcomes.get(&step.name);
    StepDocument {
        number: step.number,
        id: step.id(),
        step: step.name.clone(),
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

/// Those recorded so far, the first one first.
fn attempts<'t>(truth: &'t Truth, step: &Step) -> Vec<&'t AttemptRecord> {
    match truth.outcomes.get(&step.name) {
        Some(outcome) => outcome.attempts.iter().collect(),
        None => truth.retries.get(&step.name).into_iter().flatten().map(|retry| &retry.failed).collect(),
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
    pipeline.needs(step).iter().all(|need| truth.outcomes.get(*need).is_some_and(OutcomeRecord::succeeded))
}

/// Why a run failed.
fn error(truth: &Truth) -> Option<RunError> {
    let end = truth.outcome.as_ref()?;
    let step = end.failed_step.as_ref().and_then(|name| truth.pipeline.step(name));
    let outcome = step.and_then(|step| truth.outcomes.get(&step.name));
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
        let dropped = truth.outcomes.get(&step.name)?.log_dropped;
        (dropped > 0).then(|| {
            format!("{}: {dropped} log lines were dropped, over the limit of {} bytes", step.id(), step.limits.log)
        })
    });
    let cancelled = truth.cancel.iter().map(|c| format!("cancelled: {}", c.reason));
    // Each attempt at a step opens the same pictures: their warnings are told once a step.
    let of_attempts = truth.pipeline.steps.iter().flat_map(|step| {
        let all: BTreeSet<&String> = attempts(truth, step).into_iter().flat_map(|a| &a.warnings).collect();
        all.into_iter().map(|warning| format!("{}: {warning}", step.id()))
    });
    dropped.chain(of_attempts).chain(cancelled).chain(told(truth, waiting)).collect()
}

fn told<'t>(truth: &'t Truth, waiting: &'t Waiting) -> impl Iterator<Item = String> + 't {
    truth.pipeline.steps.iter().filter_map(|step| {
        let needs = waiting.get(&step.name)?;
        Some(format!(
            "{} waits: no living worker has {} (a grant is in its `worker.grants`; a model comes with `dovetail models pull` or `add`)",
            step.id(),
            needs.iter().map(|need| capability_in_words(need)).collect::<Vec<_>>().join(" and ")
        ))
    })
}

/// How long a run took, as people are told it everywhere: `0.41s`.
#[must_use]
pub fn seconds(ms: u64) -> String {
    let hundredths = (ms + 5) / 10;
    format!("{}.{:02}s", hundredths / 100, hundredths % 100)
}

/// RFC 3339 in UTC, to the millisecond.
pub(crate) fn timestamp(ms: u64) -> Timestamp {
    let (days, rest) = (ms / 86_400_000, ms % 86_400_000);
    // Days since 1970 to a date of the Gregorian calendar, by eras of 400 years that begin in March (H. Hinnant,
    // "chrono-compatible low-level date algorithms").
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second, milli) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60, rest % 1000);
    Timestamp(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_speed_up_is_the_sum_of_lengths_over_the_time_in_which_some_step_ran() {
        assert_eq!(saved(&[vec![(0, 400), (0, 400)]]), Some(2.0), "wholly side by side");
        assert_eq!(saved(&[vec![(0, 400), (400, 400)]]), Some(1.0), "one after the other");
        assert_eq!(saved(&[vec![(1000, 300), (1100, 300)]]), Some(1.5));
        assert_eq!(saved(&[vec![(0, 400), (0, 400)], vec![(900, 100), (1000, 100)]]), Some(1.67), "stages add up");
        assert_eq!(saved(&[vec![(0, 100), (300, 100)]]), Some(1.0), "waiting between them does not count");
        assert_eq!(
            saved(&[vec![(1_000_000, 100), (0, 400), (100, 100)]]),
            Some(1.2),
            "in whatever order they are, one within another"
        );
        assert_eq!(saved(&[]), None);
    }

    #[test]
    fn times_are_written_as_people_and_programs_read_them() {
        let at = |ms| timestamp(ms).0;
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(at(1_795_459_507_123), "2026-11-23T18:45:07.123Z");
        assert_eq!(at(4_102_444_799_999), "2099-12-31T23:59:59.999Z");
        assert_eq!(seconds(412), "0.41s");
        assert_eq!(seconds(61_996), "62.00s");
    }
}
