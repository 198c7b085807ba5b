//! The removal of runs whose end is long past, beside others who submit such a run again under its key, run it again,
//! or remove it, too.
//!
//! The order makes every interleaving right. A run's record goes first: from then on there is no such run. The end of
//! its first generation goes last, and as long as it is there nobody inserts the run anew (`submit.rs`): so whatever is
//! read before that end is read again and found in place is old. What was read is removed only if it is still the same
//! record, so that a remover that slept removes nothing of a run that was submitted meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use dovetail_core::RunId;
use dovetail_core::blobs::StoreError;
use dovetail_core::keys::{RunKey, keys_of_run};
use dovetail_core::ledger::{Item, Kind, Listing, Record};
use dovetail_core::record::{Form as _, RunOutcomeRecord};
use dovetail_core::retention::Archive;

use crate::gc::Collected;
use crate::recover::reconcile;
use crate::{FlowError, Ports};

/// What is recorded of a run under keys that begin with its ID, in the order in which it goes; the ends of its
/// generations go last, because they are what an interrupted collection is found again by.
const OF_A_RUN: [Kind; 5] = [Kind::Outcome, Kind::Attempt, Kind::Generation, Kind::Cancel, Kind::ModelChoice];

/// A record's key and what was read under it.
type Found = (String, Vec<u8>);

/// A run that goes.
struct Leaving {
    /// The ends of its generations, the last one first.
    ends: Vec<Found>,
    last: u32,
}

/// Removes runs that ended before `before`, given with the keys of the ends of their generations. With `look_only`
/// nothing goes, and it is counted all the same.
///
/// # Errors
/// A store's failure: what has gone is gone, and the next collection goes on.
pub(crate) fn remove_runs(
    parts: &Ports,
    archive: &dyn Archive,
    runs: &[(RunId, Vec<String>)],
    before: u64,
    look_only: bool,
    gone: &mut Collected,
) -> Result<(), StoreError> {
    let mut remove = |kind: Kind, found: Vec<Found>| {
        gone.records += found.len() as u64;
        if look_only { Ok(()) } else { archive.remove_unchanged(kind, &found) }
    };
    let mut leaving = ended(parts, runs, before)?;
    let records = records_of(parts, &leaving)?;
    stay_old(parts, &mut leaving)?;
    remove(Kind::Run, records.iter().filter(|(run, _)| leaving.contains_key(run)).map(found).collect())?;
    if !look_only {
        keep_those_begun_again(parts, &mut leaving, &records)?;
    }
    for kind in OF_A_RUN {
        let mut found = BTreeMap::new();
        for run in leaving.keys() {
            let listing = Listing { prefix: keys_of_run(run), limit: usize::MAX, newest_first: false };
            found.insert(run.clone(), parts.ledger.list(kind, &listing)?);
        }
        stay_old(parts, &mut leaving)?;
        remove(
            kind,
            found.into_iter().filter(|(run, _)| leaving.contains_key(run)).flat_map(|(_, all)| all).collect(),
        )?;
    }
    let is_first = |(key, _): &&Found| RunKey::parse(key).is_some_and(|run| run.generation == 0);
    let ends = |first| leaving.values().flat_map(|run| &run.ends).filter(move |end| is_first(end) == first).cloned();
    remove(Kind::RunOutcome, ends(false).collect())?;
    remove(Kind::RunOutcome, ends(true).collect())?;
    gone.runs += leaving.len() as u64;
    Ok(())
}

fn found((run, value): (&RunId, &Vec<u8>)) -> Found {
    (run.to_string(), value.clone())
}

/// Those that still are as they were found: another collection may have removed one, and it may have been submitted
/// again and have ended since.
fn ended(parts: &Ports, runs: &[(RunId, Vec<String>)], before: u64) -> Result<BTreeMap<RunId, Leaving>, StoreError> {
    let keys: Vec<String> = runs.iter().flat_map(|(_, keys)| keys.clone()).collect();
    let mut values = keys.iter().cloned().zip(parts.ledger.get(Kind::RunOutcome, &keys)?);
    let mut leaving = BTreeMap::new();
    for (run, keys) in runs {
        let ends: Vec<(String, Option<Vec<u8>>)> = values.by_ref().take(keys.len()).collect();
        let is_old = |(key, value): &(String, Option<Vec<u8>>)| {
            let end = value.as_ref().and_then(|value| RunOutcomeRecord::decode(value, key).ok());
            end.is_some_and(|end| end.finished_ms < before)
        };
        if ends.iter().all(is_old) {
            let mut ends: Vec<Found> = ends.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
            let generation = |key: &str| RunKey::parse(key).map_or(0, |run| run.generation);
            ends.sort_by_key(|(key, _)| std::cmp::Reverse(generation(key)));
            let last = ends.first().map_or(0, |(key, _)| generation(key));
            leaving.insert(run.clone(), Leaving { ends, last });
        }
    }
    Ok(leaving)
}

fn records_of(parts: &Ports, leaving: &BTreeMap<RunId, Leaving>) -> Result<BTreeMap<RunId, Vec<u8>>, StoreError> {
    let ids: Vec<String> = leaving.keys().map(RunId::to_string).collect();
    let records = parts.ledger.get(Kind::Run, &ids)?;
    Ok(leaving.keys().cloned().zip(records).filter_map(|(run, record)| Some((run, record?))).collect())
}

/// Leaves out the runs whose last remaining end is not the one that was read: what was read of them since may be of a
/// run that was submitted anew.
fn stay_old(parts: &Ports, leaving: &mut BTreeMap<RunId, Leaving>) -> Result<(), StoreError> {
    let last = |run: &Leaving| run.ends.last().cloned().unwrap_or_default();
    let keys: Vec<String> = leaving.values().map(|run| last(run).0).collect();
    let mut values = parts.ledger.get(Kind::RunOutcome, &keys)?.into_iter();
    leaving.retain(|_, run| values.next().flatten().is_some_and(|value| value == last(run).1));
    Ok(())
}

/// Leaves out the runs that somebody has begun again, and gives them their record back: whoever begins a run again
/// writes that down first, and then looks whether the run's record is there.
fn keep_those_begun_again(
    parts: &Ports,
    leaving: &mut BTreeMap<RunId, Leaving>,
    records: &BTreeMap<RunId, Vec<u8>>,
) -> Result<(), StoreError> {
    let next = |(run, of): (&RunId, &Leaving)| RunKey { run: run.clone(), generation: of.last + 1 }.key();
    let keys: Vec<String> = leaving.iter().map(next).collect();
    let again = parts.ledger.get(Kind::Generation, &keys)?;
    let begun: BTreeSet<RunId> =
        leaving.keys().zip(again).filter(|(_, again)| again.is_some()).map(|(run, _)| run.clone()).collect();
    let restore = |(run, value): (&RunId, &Vec<u8>)| Item::Put {
        record: Record { kind: Kind::Run, key: run.to_string(), value: value.clone() },
    };
    let items: Vec<Item> = records.iter().filter(|(run, _)| begun.contains(*run)).map(restore).collect();
    if !items.is_empty() {
        parts.ledger.commit(&items)?;
    }
    // Without the record, whoever began it again could not bring it on its way.
    for run in &begun {
        let generation = leaving.get(run).map_or(0, |of| of.last + 1);
        match reconcile(parts, &RunKey { run: run.clone(), generation }) {
            Ok(_) => {}
            Err(FlowError::Store(error)) => return Err(error),
            // What is wrong with one run does not keep the others.
            Err(error) => {
                tracing::warn!(%run, err = &error as &dyn std::error::Error, "a run that was begun again cannot go on");
            }
        }
    }
    leaving.retain(|run, _| !begun.contains(run));
    Ok(())
}
