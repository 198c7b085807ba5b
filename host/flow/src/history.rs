//! What was: runs by age, the field-level lineage of one, and what its steps logged.

use dovetail_core::RunId;
use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::keys::{RunKey, reference_of, split_reference};
use dovetail_core::ledger::{Kind, Listing};
use dovetail_core::pipeline::Step;
use dovetail_core::record::{Consumed, Form, Produced, RunOutcomeRecord, RunRecord};

use crate::document::{state, timestamp};
use crate::documents::{
    ConsumedValue, LineageDocument, LineageEdge, LineageFormat, ProducedValue, RunSummary, StepLineage, StepLog,
};
use crate::truth::{Truth, current, load_log};
use crate::{FlowError, List, Ports};

/// Runs, the newest first.
///
/// # Errors
/// A store's failure.
pub fn runs(parts: &Ports, limit: usize) -> Result<List<RunSummary>, FlowError> {
    let rows = parts.ledger.list(Kind::Run, &Listing { prefix: String::new(), limit, newest_first: true })?;
    let ids = rows.iter().map(|(id, _)| {
        id.parse().map_err(|e: dovetail_core::id::BadRunId| StoreError::new(StoreErrorKind::Corrupt, "list runs", e))
    });
    let mut keys =
        ids.map(|run| Ok(RunKey { run: run?, generation: 0 })).collect::<Result<Vec<RunKey>, StoreError>>()?;
    // Re-runs are few: all are asked about at once, and only those that are some are looked at further.
    let second: Vec<String> = keys.iter().map(|key| RunKey { generation: 1, ..key.clone() }.key()).collect();
    for (key, again) in keys.iter_mut().zip(parts.ledger.get(Kind::Generation, &second)?) {
        if again.is_some() {
            *key = current(parts, &key.run)?;
        }
    }
    let ends = parts.ledger.get(Kind::RunOutcome, &keys.iter().map(RunKey::key).collect::<Vec<_>>())?;
    let mut found = List::default();
    for (((id, bytes), key), end) in rows.into_iter().zip(keys).zip(ends) {
        found.take(&id, summary(parts, key, &bytes, end.as_deref()))?;
    }
    Ok(found)
}

fn summary(parts: &Ports, key: RunKey, record: &[u8], end: Option<&[u8]>) -> Result<RunSummary, FlowError> {
    let what = format!("run {}", key.run);
    let record = RunRecord::decode(record, &what)?;
    let end = end.map(|bytes| RunOutcomeRecord::decode(bytes, &what)).transpose()?;
    let state = match &end {
        Some(end) => end.state.into(),
        // Open runs are few; what is recorded about them is read whole.
        None => state(&Truth::read(parts, &key.run)?, &parts.ledger.held(&key)?),
    };
    Ok(RunSummary {
        run_id: key.run,
        pipeline: reference_of(&record.pipeline).to_owned(),
        state,
        submitted_at: timestamp(record.submitted_ms),
        total_time_ms: end.map(|e| e.finished_ms.saturating_sub(record.submitted_ms)),
    })
}

/// How many of the newest runs are looked through for the end of an ID.
const LOOKED_THROUGH: usize = 1000;

/// The one run whose ID begins so; or, since runs of one time begin alike, the one of the newest thousand whose ID ends
/// so.
///
/// # Errors
/// `unknown_run`, `ambiguous_run`; a store's failure.
pub fn find_run(parts: &Ports, text: &str) -> Result<RunId, FlowError> {
    let list = |prefix: &str, limit| {
        parts.ledger.list(Kind::Run, &Listing { prefix: prefix.to_owned(), limit, newest_first: true })
    };
    let mut found: Vec<String> = list(text, 2)?.into_iter().map(|(id, _)| id).collect();
    if found.len() != 1 && !text.is_empty() {
        let ending: Vec<String> =
            list("", LOOKED_THROUGH)?.into_iter().map(|(id, _)| id).filter(|id| id.ends_with(text)).collect();
        if ending.len() == 1 || found.is_empty() {
            found = ending;
        }
    }
    match found.as_slice() {
        [id] => Ok(id
            .parse()
            .map_err(|e: dovetail_core::id::BadRunId| StoreError::new(StoreErrorKind::Corrupt, "find a run", e))?),
        [] => Err(FlowError::refused("unknown_run", format!("there is no run `{text}`"), "see `dovetail runs list`")),
        _ => Err(FlowError::refused(
            "ambiguous_run",
            format!("several runs begin or end with `{text}`"),
            "write more of the ID; see `dovetail runs list`",
        )),
    }
}

/// The generation of a run that is meant: `RUN`, as for [`find_run`], is the last one; `RUN@0` what was submitted,
/// `RUN@1` what it was run again as at first, and so on.
///
/// # Errors
/// `unknown_run`, `ambiguous_run`, `unknown_generation`; a store's failure.
pub fn find_generation(parts: &Ports, text: &str) -> Result<RunKey, FlowError> {
    let (run, wanted) = split_reference(text);
    let last = current(parts, &find_run(parts, run)?)?;
    let Some(wanted) = wanted else { return Ok(last) };
    match wanted.parse::<u32>() {
        Ok(generation) if generation <= last.generation => Ok(RunKey { generation, ..last }),
        _ => {
            let newest = (0..=last.generation).rev().take(5).map(|generation| RunKey { generation, ..last.clone() });
            let known = newest.map(|key| key.numbered_reference()).collect::<Vec<_>>().join(", ");
            let message = format!("run {} has no generation `{wanted}`", last.run);
            Err(FlowError::refused(
                "unknown_generation",
                message,
                format!("it has: {known}{}", if last.generation >= 5 { ", ..." } else { "" }),
            ))
        }
    }
}

/// Field-level lineage of a generation of a run: for every step what went in and what came out, with digests, and what
/// computed it.
///
/// # Errors
/// `unknown_run`; a store's failure.
pub fn lineage(parts: &Ports, key: &RunKey) -> Result<LineageDocument, FlowError> {
    let truth = Truth::read_generation(parts, key)?;
    // What a run made that was run again has a name of its own.
    let of = key.reference();
    let within = |id: &str| format!("{of}/{id}");
    let consumed = |c: &Consumed| ConsumedValue {
        input: within(&c.input),
        origin: c.origin.as_deref().map(within),
        digest: c.digest,
    };
    let produced = |p: &Produced| {
        let all = truth.outcomes.values().flat_map(|o| &o.consumed);
        let consumers = all.filter(|c| c.origin.as_ref() == Some(&p.output)).map(|c| within(&c.input)).collect();
        ProducedValue { output: within(&p.output), digest: p.digest, consumers }
    };
    let step = |step: &Step| {
        let outcome = truth.outcomes.get(&step.name)?;
        Some(StepLineage {
            number: step.number,
            id: step.id(),
            step: step.name.clone(),
            task: step.task_reference(),
            package: outcome.package,
            attempt: outcome.attempts.last().map(|a| a.number),
            models: outcome.models.clone(),
            consumed: outcome.consumed.iter().map(consumed).collect(),
            produced: outcome.produced.iter().map(produced).collect(),
        })
    };
    let edges = truth.pipeline.edges().into_iter().map(|e| LineageEdge { from: e.from, to: e.to }).collect();
    Ok(LineageDocument {
        format: LineageFormat::V1,
        run_id: key.run.clone(),
        generation: key.generation,
        pipeline: truth.pipeline.reference(),
        inputs: truth.inputs(parts)?,
        steps: truth.pipeline.steps.iter().filter_map(step).collect(),
        edges,
    })
}

/// What the steps of a generation of a run logged, in the pipeline's order.
///
/// # Errors
/// `unknown_run`; a store's failure.
pub fn logs(parts: &Ports, key: &RunKey) -> Result<Vec<StepLog>, FlowError> {
    let truth = Truth::read_generation(parts, key)?;
    let mut found = Vec::new();
    for step in &truth.pipeline.steps {
        let Some(outcome) = truth.outcomes.get(&step.name) else {
            continue;
        };
        let lines = load_log(parts, outcome)?;
        found.push(StepLog { step: step.name.clone(), id: step.id(), lines, dropped: outcome.log_dropped });
    }
    Ok(found)
}
