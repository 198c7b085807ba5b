//! The models of a run. Each is chosen once, so that no result depends on which worker ran a step
//! (docs/decisions/0013).
//!
//! The submitter of a run chooses the models and records them with the run. A model of a kind that the submitter had
//! none of is chosen by the worker that starts the first step which opens such a model. The first recorded choice
//! counts for every step and every generation of the run. The submitter may also require an engine for the run.

use std::borrow::Cow;
use std::collections::BTreeSet;

use dovetail_core::RunId;
use dovetail_core::executor::{Executor, Models};
use dovetail_core::keys::model_choice;
use dovetail_core::ledger::{Job, Kind, Operation, Record, Reply};
use dovetail_core::pipeline::Pipeline;
use dovetail_core::record::{Form as _, ModelChoiceRecord};
use dovetail_core::vision::ModelKind;

use crate::{FlowError, Ports};

/// The kinds of models that steps of the pipeline open without naming a model.
#[must_use]
pub fn model_kinds(pipeline: &Pipeline) -> BTreeSet<&str> {
    pipeline.steps.iter().flat_map(|step| step.requirements.model_kinds()).collect()
}

/// The models that were chosen for a run, for these kinds: with the run's record (`recorded`), or later.
pub(crate) fn chosen<'r>(
    ports: &Ports,
    run: &RunId,
    recorded: &'r Models,
    kinds: &BTreeSet<&str>,
) -> Result<Cow<'r, Models>, FlowError> {
    let mut open: BTreeSet<&str> = kinds.iter().copied().filter(|kind| !recorded.by_kind.contains_key(*kind)).collect();
    if open.is_empty() {
        return Ok(Cow::Borrowed(recorded));
    }
    // A landmarker may have been chosen together with a model of another kind that uses it.
    if !recorded.by_kind.contains_key(ModelKind::Landmarker.name()) {
        open.insert(ModelKind::Landmarker.name());
    }
    let keys: Vec<String> = open.iter().map(|kind| model_choice(run, kind)).collect();
    let mut all = recorded.clone();
    for (kind, bytes) in open.iter().zip(ports.ledger.get(Kind::ModelChoice, &keys)?) {
        if let Some(bytes) = bytes {
            all.by_kind.insert((*kind).to_owned(), decode(run, kind, &bytes)?.model);
        }
    }
    Ok(Cow::Owned(all))
}

/// As [`chosen`]. A model that is not chosen yet is chosen now, from the models of this worker. A kind that this worker
/// has no model of stays open.
pub(crate) fn choose<'r>(
    ports: &Ports,
    executor: &dyn Executor,
    run: &RunId,
    recorded: &'r Models,
    kinds: &BTreeSet<&str>,
) -> Result<Cow<'r, Models>, FlowError> {
    let mut all = chosen(ports, run, recorded, kinds)?;
    let open: Vec<&str> = kinds.iter().copied().filter(|kind| !all.by_kind.contains_key(*kind)).collect();
    if open.is_empty() {
        return Ok(all);
    }
    let mut ours = executor.choose_models(&open)?;
    ours.retain(|kind, _| !all.by_kind.contains_key(kind));
    let chosen_ms = ports.clock.wall_ms();
    let put = |(kind, model): (&String, &_)| {
        let value = ModelChoiceRecord { model: Clone::clone(model), chosen_ms }.encode();
        Operation::Put { record: Record { kind: Kind::ModelChoice, key: model_choice(run, kind), value } }
    };
    let replies = ports.ledger.commit(&ours.iter().map(put).collect::<Vec<_>>())?;
    for ((kind, model), reply) in ours.into_iter().zip(replies) {
        // If another worker recorded its choice first, that choice counts.
        let model = match reply {
            Reply::Exists(bytes) => decode(run, &kind, &bytes)?.model,
            _ => model,
        };
        all.to_mut().by_kind.insert(kind, model);
    }
    Ok(all)
}

fn decode(run: &RunId, kind: &str, bytes: &[u8]) -> Result<ModelChoiceRecord, FlowError> {
    Ok(ModelChoiceRecord::decode(bytes, &format!("the {kind} of run {run}"))?)
}

/// The jobs of a run with these models: each job requires exactly the models that its step opens, and their engine.
pub(crate) fn with_models(mut jobs: Vec<Job>, models: &Models) -> Vec<Job> {
    if !models.is_empty() {
        for job in &mut jobs {
            job.requirements = job.requirements.with_models(models);
        }
    }
    jobs
}
