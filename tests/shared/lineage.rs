//! Invariants that a run's records must meet in every store:
//!
//! - I2, in part: a run that succeeded has an outcome of each step;
//! - I3: each step consumed the values that an earlier step produced, and their bytes are stored;
//! - I4: no step began before the steps that it needs had ended.

use std::collections::BTreeMap;

use dovetail_core::blobs::{ArtifactRef, BlobKind, Blobs};
use dovetail_core::ledger::RunKey;
use dovetail_core::pipeline::Pipeline;
use dovetail_core::record::{OutcomeRecord, StoredValue};

/// The upper limit for reading a value of a test, in bytes.
const MOST: u64 = 1 << 30;

/// The violations of the invariants in this run. `outcomes` has the outcomes of all runs, by key.
pub(crate) fn broken(
    run: &RunKey,
    pipeline: &Pipeline,
    succeeded: bool,
    outcomes: &BTreeMap<String, OutcomeRecord>,
    blobs: &dyn Blobs,
) -> Vec<String> {
    let mut broken = Vec::new();
    let of_run = run.run.to_string();
    let produced = || {
        outcomes
            .range(of_run.clone()..)
            .take_while(|(key, _)| key.starts_with(&of_run))
            .flat_map(|(_, outcome)| &outcome.produced)
    };
    for step in &pipeline.steps {
        let name = format!("{}/{}", run.key(), step.name);
        let Some(outcome) = outcomes.get(&run.step(&step.name)) else {
            if succeeded {
                broken.push(format!("I2: {name} has no outcome, and its run succeeded"));
            }
            continue;
        };
        for need in pipeline.needs(step) {
            let Some(before) = outcomes.get(&run.step(need)) else {
                broken.push(format!("I3: {name} has an outcome, and {need}, which it needs, has none"));
                continue;
            };
            if outcome.started_ms < before.finished_ms {
                broken.push(format!(
                    "I4: {name} began {} ms before {need} had ended",
                    before.finished_ms - outcome.started_ms
                ));
            }
        }
        for consumed in &outcome.consumed {
            let Some(origin) = consumed.origin.as_ref().filter(|origin| origin.starts_with("output_")) else {
                continue;
            };
            if !produced().any(|produced| produced.output == *origin && produced.digest == consumed.digest) {
                broken.push(format!("I3: {name} consumed a {origin} that no step produced"));
            }
        }
        let needed = match outcome.output() {
            Some(StoredValue::Inline(value)) => {
                ArtifactRef::all_in(value).into_iter().map(|file| (BlobKind::Artifact, file.digest)).collect()
            }
            Some(StoredValue::Blob { digest, .. }) => vec![(BlobKind::Value, *digest)],
            None => Vec::new(),
        };
        for (kind, digest) in needed {
            // `get` compares the bytes with the digest.
            if let Err(error) = blobs.get(kind, &digest, MOST) {
                broken.push(format!("I3: {} {digest} of {name}: {error:?}", kind.folder()));
            }
        }
    }
    broken
}
