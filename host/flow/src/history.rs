//! Queries about past runs: lists by age, the field-level lineage of a run, and the logs of its steps.

use dovetail_core::RunId;
use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::keys::documented::in_run;
use dovetail_core::keys::{NodeId, RunKey, reference_of, split_reference};
use dovetail_core::ledger::{Kind, Listing};
use dovetail_core::pipeline::Step;
use dovetail_core::record::{Consumed, Form, Produced, RunOutcomeRecord, RunRecord};

use crate::document::{state, timestamp};
use crate::documents::{
    ConsumedValue, LineageDocument, LineageEdge, LineageFormat, ProducedValue, RunSummary, StepLineage, StepLog,
};
use crate::truth::{Truth, current, load_log};
use crate::{FlowError, List, Ports};

/// The newest `limit` runs, the newest first.
///
/// # Errors
/// A store's failure. A record that this version cannot read is in [`List::unread`].
pub fn runs(ports: &Ports, limit: usize) -> Result<List<RunSummary>, FlowError> {
    let rows = ports.ledger.list(Kind::Run, &Listing { prefix: String::new(), limit, newest_first: true })?;
    let mut found = List::default();
    let (mut readable, mut keys) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    for row in rows {
        match row.0.parse::<RunId>() {
            Ok(run) => {
                keys.push(RunKey { run, generation: 0 });
                readable.push(row);
            }
            Err(error) => {
                found.take(&row.0, Err(StoreError::new(StoreErrorKind::Corrupt, "list runs", error).into()))?;
            }
        }
    }
    // Few runs were retried: one read asks for the second generation of all runs, and only retried runs are read
    // further.
    let second: Vec<String> = keys.iter().map(|key| RunKey { generation: 1, ..key.clone() }.key()).collect();
    for (key, again) in keys.iter_mut().zip(ports.ledger.get(Kind::Generation, &second)?) {
        if again.is_some() {
            *key = current(ports, &key.run)?;
        }
    }
    let ends = ports.ledger.get(Kind::RunOutcome, &keys.iter().map(RunKey::key).collect::<Vec<_>>())?;
    for (((id, bytes), key), end) in readable.into_iter().zip(keys).zip(ends) {
        found.take(&id, summary(ports, key, &bytes, end.as_deref()))?;
    }
    Ok(found)
}

fn summary(ports: &Ports, key: RunKey, record: &[u8], end: Option<&[u8]>) -> Result<RunSummary, FlowError> {
    let what = format!("run {}", key.run);
    let record = RunRecord::decode(record, &what)?;
    let end = end.map(|bytes| RunOutcomeRecord::decode(bytes, &what)).transpose()?;
    let state = match &end {
        Some(end) => end.state.into(),
        // Few runs are open, so all records of an open run are read.
        None => state(&Truth::read(ports, &key.run)?, &ports.ledger.held(&key)?),
    };
    Ok(RunSummary {
        run_id: key.run,
        pipeline: reference_of(&record.pipeline).to_owned(),
        state,
        submitted_at: timestamp(record.submitted_ms),
        total_time_ms: end.map(|e| e.finished_ms.saturating_sub(record.submitted_ms)),
    })
}

/// How many of the newest runs are searched for an ID that ends with a text.
const LOOKED_THROUGH: usize = 1000;

/// The only run whose ID begins with `text`. If there is no such run, or several: the only run among the newest
/// [`LOOKED_THROUGH`] whose ID ends with `text`, because the IDs of runs of one time begin alike.
///
/// # Errors
/// `unknown_run`, `ambiguous_run`; a store's failure.
pub fn find_run(ports: &Ports, text: &str) -> Result<RunId, FlowError> {
    let list = |prefix: &str, limit| {
        ports.ledger.list(Kind::Run, &Listing { prefix: prefix.to_owned(), limit, newest_first: true })
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

/// The generation of a run that `text` names. `RUN` (as for [`find_run`]) names the last generation, `RUN@0` the
/// submitted one, `RUN@1` the first retry, and so on.
///
/// # Errors
/// `unknown_run`, `ambiguous_run`, `unknown_generation`; a store's failure.
pub fn find_generation(ports: &Ports, text: &str) -> Result<RunKey, FlowError> {
    let (run, wanted) = split_reference(text);
    let last = current(ports, &find_run(ports, run)?)?;
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

/// Field-level lineage of a generation of a run: for every step the values that it consumed and produced, with digests,
/// and the package and models that computed them.
///
/// # Errors
/// `unknown_run`; a store's failure.
pub fn lineage(ports: &Ports, key: &RunKey) -> Result<LineageDocument, FlowError> {
    let truth = Truth::read_generation(ports, key)?;
    // The values of a retried run have names of their own: the reference has the generation.
    let of = key.reference();
    let within = |id: &str| in_run(&of, id);
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
        let outcome = truth.outcome_of(&step.name)?;
        Some(StepLineage {
            number: step.number,
            id: step.id(),
            step: NodeId::of_step(&step.name),
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
        inputs: truth.inputs(ports)?,
        steps: truth.pipeline.steps.iter().filter_map(step).collect(),
        edges,
    })
}

/// The logs of the steps of a generation of a run, in the pipeline's order. Each is the log of the step's last attempt.
///
/// # Errors
/// `unknown_run`; a store's failure.
pub fn logs(ports: &Ports, key: &RunKey) -> Result<Vec<StepLog>, FlowError> {
    let truth = Truth::read_generation(ports, key)?;
    let mut found = Vec::new();
    for step in &truth.pipeline.steps {
        let Some(outcome) = truth.outcome_of(&step.name) else {
            continue;
        };
        let lines = load_log(ports, outcome)?;
        found.push(StepLog { step: NodeId::of_step(&step.name), id: step.id(), lines, dropped: outcome.log_dropped });
    }
    Ok(found)
}
