//! The models of a run: chosen once, so that no result depends on which worker ran a step
//! (docs/decisions/0013).
//!
//! The submitter of a run chooses and records them with it. Kinds of which there was no model then are chosen by the
//! worker that starts the first step which opens one: the first choice that is recorded counts, for every step and
//! every generation of the run.

use std::borrow::Cow;
use std::collections::BTreeSet;

use dovetail_core::RunId;
use dovetail_core::executor::{Executor, Models};
use dovetail_core::keys::model_choice;
use dovetail_core::ledger::{Item, Job, Kind, Record, Reply};
use dovetail_core::pipeline::Pipeline;
use dovetail_core::record::{Form as _, ModelChoiceRecord};
use dovetail_core::vision::ModelKind;

use crate::{FlowError, Ports};

/// The kinds of models of which steps of the pipeline open one without naming it.
#[must_use]
pub fn model_kinds(pipeline: &Pipeline) -> BTreeSet<&str> {
    pipeline.steps.iter().flat_map(|step| step.lane.model_kinds()).collect()
}

/// The choices of a run for these kinds: those of its record, and those that were made later.
pub(crate) fn chosen<'r>(
    parts: &Ports,
    run: &RunId,
    recorded: &'r Models,
    kinds: &BTreeSet<&str>,
) -> Result<Cow<'r, Models>, FlowError> {
    let mut open: BTreeSet<&str> = kinds.iter().copied().filter(|kind| !recorded.contains_key(*kind)).collect();
    if open.is_empty() {
        return Ok(Cow::Borrowed(recorded));
    }
    // Other kinds may have been chosen with one that uses them.
    if !recorded.contains_key(ModelKind::Landmarker.name()) {
        open.insert(ModelKind::Landmarker.name());
    }
    let keys: Vec<String> = open.iter().map(|kind| model_choice(run, kind)).collect();
    let mut all = recorded.clone();
    for (kind, bytes) in open.iter().zip(parts.ledger.get(Kind::ModelChoice, &keys)?) {
        if let Some(bytes) = bytes {
            all.insert((*kind).to_owned(), decode(run, kind, &bytes)?.model);
        }
    }
    Ok(Cow::Owned(all))
}

/// The same, and what is not chosen yet is chosen now, by what this worker has. A kind of which it has no model stays
/// open.
pub(crate) fn choose<'r>(
    parts: &Ports,
    executor: &dyn Executor,
    run: &RunId,
    recorded: &'r Models,
    kinds: &BTreeSet<&str>,
) -> Result<Cow<'r, Models>, FlowError> {
    let mut all = chosen(parts, run, recorded, kinds)?;
    let open: Vec<&str> = kinds.iter().copied().filter(|kind| !all.contains_key(*kind)).collect();
    if open.is_empty() {
        return Ok(all);
    }
    let mut ours = executor.choose_models(&open)?;
    ours.retain(|kind, _| !all.contains_key(kind));
    let chosen_ms = parts.clock.wall_ms();
    let put = |(kind, model): (&String, &_)| {
        let value = ModelChoiceRecord { model: Clone::clone(model), chosen_ms }.encode();
        Item::Put { record: Record { kind: Kind::ModelChoice, key: model_choice(run, kind), value } }
    };
    let replies = parts.ledger.commit(&ours.iter().map(put).collect::<Vec<_>>())?;
    for ((kind, model), reply) in ours.into_iter().zip(replies) {
        // Another worker was faster: its choice counts.
        let model = match reply {
            Reply::Exists(bytes) => decode(run, &kind, &bytes)?.model,
            _ => model,
        };
        all.to_mut().insert(kind, model);
    }
    Ok(all)
}

fn decode(run: &RunId, kind: &str, bytes: &[u8]) -> Result<ModelChoiceRecord, FlowError> {
    Ok(ModelChoiceRecord::decode(bytes, &format!("the {kind} of run {run}"))?)
}

/// Jobs of a run with these models: each asks for the very models that its step opens.
pub(crate) fn with_models(mut jobs: Vec<Job>, models: &Models) -> Vec<Job> {
    if !models.is_empty() {
        for job in &mut jobs {
            job.lane = job.lane.with_models(models);
        }
    }
    jobs
}
