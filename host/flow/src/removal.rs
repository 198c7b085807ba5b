//! The removal of runs that ended long ago, while other processes may submit such a run again under its key, retry it,
//! or remove it too.
//!
//! The order of the removals makes every interleaving safe. The run's record is removed first: from then on the run
//! does not exist. The outcome of its first generation is removed last, and no process inserts the run anew while that
//! outcome exists (`submit.rs`). So records that were read while the old outcome was still in place are records of the
//! old run. A record is removed only if it is unchanged since it was read, so that a delayed process removes nothing of
//! a run that was submitted meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use dovetail_core::RunId;
use dovetail_core::blobs::StoreError;
use dovetail_core::keys::{RunKey, keys_of_run};
use dovetail_core::ledger::{Kind, Listing, Operation, Record};
use dovetail_core::record::{Form as _, RunOutcomeRecord};
use dovetail_core::retention::Archive;

use crate::gc::Collected;
use crate::recover::reconcile;
use crate::{FlowError, Ports};

/// The kinds of records whose keys begin with the run's ID, in the order of their removal. The run outcomes of the
/// generations are removed after them: the next collection finds a run of an interrupted one by its outcomes.
const OF_A_RUN: [Kind; 5] = [Kind::Outcome, Kind::Attempt, Kind::Generation, Kind::Cancel, Kind::ModelChoice];

/// A record's key, and the value that was read.
type RawRecord = (String, Vec<u8>);

/// A run that is being removed.
struct Leaving {
    /// The run outcomes of its generations, the last generation first.
    ends: Vec<RawRecord>,
    /// The last generation.
    last: u32,
}

/// Removes those of `runs` that ended before `before` (in milliseconds of wall time). Each run comes with the keys of
/// the run outcomes of its generations. With `look_only` the records are counted and nothing is removed.
///
/// # Errors
/// A store's failure: part may be removed, and the next collection continues.
pub(crate) fn remove_runs(
    ports: &Ports,
    archive: &dyn Archive,
    runs: &[(RunId, Vec<String>)],
    before: u64,
    look_only: bool,
    gone: &mut Collected,
) -> Result<(), StoreError> {
    let mut remove = |kind: Kind, found: Vec<RawRecord>| {
        gone.records += found.len() as u64;
        if look_only { Ok(()) } else { archive.remove_unchanged(kind, &found) }
    };
    let mut leaving = ended(ports, runs, before)?;
    let records = records_of(ports, &leaving)?;
    stay_old(ports, &mut leaving)?;
    remove(Kind::Run, records.iter().filter(|(run, _)| leaving.contains_key(run)).map(found).collect())?;
    if !look_only {
        keep_those_begun_again(ports, &mut leaving, &records)?;
    }
    for kind in OF_A_RUN {
        let mut found = BTreeMap::new();
        for run in leaving.keys() {
            let listing = Listing { prefix: keys_of_run(run), limit: usize::MAX, newest_first: false };
            found.insert(run.clone(), ports.ledger.list(kind, &listing)?);
        }
        stay_old(ports, &mut leaving)?;
        remove(
            kind,
            found.into_iter().filter(|(run, _)| leaving.contains_key(run)).flat_map(|(_, all)| all).collect(),
        )?;
    }
    let is_first = |(key, _): &&RawRecord| RunKey::parse(key).is_some_and(|run| run.generation == 0);
    let ends = |first| leaving.values().flat_map(|run| &run.ends).filter(move |end| is_first(end) == first).cloned();
    remove(Kind::RunOutcome, ends(false).collect())?;
    remove(Kind::RunOutcome, ends(true).collect())?;
    gone.runs += leaving.len() as u64;
    Ok(())
}

fn found((run, value): (&RunId, &Vec<u8>)) -> RawRecord {
    (run.to_string(), value.clone())
}

/// The runs that still ended before `before`. Another collection may have removed a run, and that run may have been
/// submitted again and have ended since.
fn ended(ports: &Ports, runs: &[(RunId, Vec<String>)], before: u64) -> Result<BTreeMap<RunId, Leaving>, StoreError> {
    let keys: Vec<String> = runs.iter().flat_map(|(_, keys)| keys.clone()).collect();
    let mut values = keys.iter().cloned().zip(ports.ledger.get(Kind::RunOutcome, &keys)?);
    let mut leaving = BTreeMap::new();
    for (run, keys) in runs {
        let ends: Vec<(String, Option<Vec<u8>>)> = values.by_ref().take(keys.len()).collect();
        let is_old = |(key, value): &(String, Option<Vec<u8>>)| {
            let end = value.as_ref().and_then(|value| RunOutcomeRecord::decode(value, key).ok());
            end.is_some_and(|end| end.finished_ms < before)
        };
        if ends.iter().all(is_old) {
            let mut ends: Vec<RawRecord> = ends.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
            let generation = |key: &str| RunKey::parse(key).map_or(0, |run| run.generation);
            ends.sort_by_key(|(key, _)| std::cmp::Reverse(generation(key)));
            let last = ends.first().map_or(0, |(key, _)| generation(key));
            leaving.insert(run.clone(), Leaving { ends, last });
        }
    }
    Ok(leaving)
}

fn records_of(ports: &Ports, leaving: &BTreeMap<RunId, Leaving>) -> Result<BTreeMap<RunId, Vec<u8>>, StoreError> {
    let ids: Vec<String> = leaving.keys().map(RunId::to_string).collect();
    let records = ports.ledger.get(Kind::Run, &ids)?;
    Ok(leaving.keys().cloned().zip(records).filter_map(|(run, record)| Some((run, record?))).collect())
}

/// Leaves out the runs whose earliest outcome is no longer the one that was read: records that were read since may
/// belong to a new submission of the run.
fn stay_old(ports: &Ports, leaving: &mut BTreeMap<RunId, Leaving>) -> Result<(), StoreError> {
    let last = |run: &Leaving| run.ends.last().cloned().unwrap_or_default();
    let keys: Vec<String> = leaving.values().map(|run| last(run).0).collect();
    let mut values = ports.ledger.get(Kind::RunOutcome, &keys)?.into_iter();
    leaving.retain(|_, run| values.next().flatten().is_some_and(|value| value == last(run).1));
    Ok(())
}

/// Leaves out the runs that are being retried, and writes their records back. A process that retries a run first writes
/// the record of the new generation, and then looks whether the run's record exists.
fn keep_those_begun_again(
    ports: &Ports,
    leaving: &mut BTreeMap<RunId, Leaving>,
    records: &BTreeMap<RunId, Vec<u8>>,
) -> Result<(), StoreError> {
    let next = |(run, of): (&RunId, &Leaving)| RunKey { run: run.clone(), generation: of.last + 1 }.key();
    let keys: Vec<String> = leaving.iter().map(next).collect();
    let again = ports.ledger.get(Kind::Generation, &keys)?;
    let begun: BTreeSet<RunId> =
        leaving.keys().zip(again).filter(|(_, again)| again.is_some()).map(|(run, _)| run.clone()).collect();
    let restore = |(run, value): (&RunId, &Vec<u8>)| Operation::Put {
        record: Record { kind: Kind::Run, key: run.to_string(), value: value.clone() },
    };
    let items: Vec<Operation> = records.iter().filter(|(run, _)| begun.contains(*run)).map(restore).collect();
    if !items.is_empty() {
        ports.ledger.commit(&items)?;
    }
    // The process that retries the run may have found no record and given up: enqueue the run's jobs for it.
    for run in &begun {
        let generation = leaving.get(run).map_or(0, |of| of.last + 1);
        match reconcile(ports, &RunKey { run: run.clone(), generation }) {
            Ok(_) => {}
            Err(FlowError::Store(error)) => return Err(error),
            // A damaged run must not keep the other runs.
            Err(error) => {
                tracing::warn!(%run, err = &error as &dyn std::error::Error, "a run that was retried cannot continue");
            }
        }
    }
    leaving.retain(|run, _| !begun.contains(run));
    Ok(())
}
