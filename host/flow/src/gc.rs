//! What is old goes: runs that ended long ago with all that was recorded of them, then blobs that nothing refers to any
//! more.
//!
//! Safe beside workers and submitters. A run is removed only when its last generation has ended. A blob is removed only
//! if no record named it and nobody has stored it lately: whoever is about to refer to a blob stores it first, which
//! makes it young.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use dovetail_core::blobs::{BlobKind, StoreErrorKind};
use dovetail_core::ledger::{Kind, Listing, RunKey};
use dovetail_core::record::{Form as _, RunOutcomeRecord};
use dovetail_core::retention::{Archive, Shelf};
use dovetail_core::{Digest, RunId};

use crate::{FlowError, Parts};

/// Records or blobs that are read at once.
const PAGE: usize = 500;
/// Runs that are removed at once.
const RUNS: usize = 100;
/// The most of a value that is read for what it refers to, in bytes.
const MAX_VALUE: u64 = 16 << 20;
/// What is recorded of a run under keys that begin with its ID, in the order in which it goes; its outcomes go last,
/// because they are what an interrupted collection is found again by.
const OF_A_RUN: [Kind; 5] = [Kind::Outcome, Kind::Attempt, Kind::Generation, Kind::Cancel, Kind::ModelChoice];
/// Where a record may name a blob.
const NAMING: [Kind; 9] = [
    Kind::Plugin,
    Kind::Pipeline,
    Kind::Model,
    Kind::Run,
    Kind::Generation,
    Kind::Outcome,
    Kind::Attempt,
    Kind::Cancel,
    Kind::RunOutcome,
];

/// What is kept.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    /// How long after its end a run is.
    pub runs: Duration,
    /// How long a blob is that nothing refers to: longer than any attempt takes, from its first artifact to its
    /// outcome.
    pub blobs: Duration,
}

/// How many, and how many bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    pub number: u64,
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.number += 1;
        self.bytes += bytes;
    }
}

/// What went, or would go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    pub runs: u64,
    pub records: u64,
    /// By [`BlobKind::folder`].
    pub blobs: BTreeMap<&'static str, Amount>,
    /// Of blobs that were never finished.
    pub abandoned_bytes: u64,
}

/// Removes what need not be kept; with `look_only` nothing goes, and the answer is what would.
///
/// # Errors
/// A store's failure: what has gone is gone, and the next collection goes on.
pub fn collect(
    parts: &Parts,
    archive: &dyn Archive,
    shelf: &dyn Shelf,
    keep: &Keep,
    look_only: bool,
) -> Result<Collected, FlowError> {
    let mut gone = Collected::default();
    let mut expired = HashSet::new();
    for runs in expired_runs(parts, archive, keep.runs)?.chunks(RUNS) {
        remove_runs(parts, archive, runs, look_only, &mut gone)?;
        if look_only {
            expired.extend(runs.iter().map(|(run, _)| run.clone()));
        }
    }
    let mut named = named_by_records(archive, &expired)?;
    follow_values(parts, shelf, &mut named)?;
    for kind in BlobKind::ALL {
        let amount = gone.blobs.entry(kind.folder()).or_default();
        each_blob(shelf, kind, |digest, bytes| {
            if named.contains(&digest) {
                return Ok(());
            }
            let goes = if look_only {
                shelf.age(kind, &digest)?.is_some_and(|age| age >= keep.blobs)
            } else {
                shelf.remove(kind, &digest, keep.blobs)?
            };
            if goes {
                amount.add(bytes);
            }
            Ok(())
        })?;
    }
    gone.abandoned_bytes = shelf.remove_abandoned(look_only)?;
    Ok(gone)
}

/// Runs whose last generation ended so long ago, with the keys of all their outcomes.
fn expired_runs(parts: &Parts, archive: &dyn Archive, keep: Duration) -> Result<Vec<(RunId, Vec<String>)>, FlowError> {
    let keep_ms = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
    let before = parts.clock.wall_ms().saturating_sub(keep_ms);
    // A run's generations stand together, and their ends grow with them.
    let mut found: BTreeMap<RunId, (u32, u64, Vec<String>)> = BTreeMap::new();
    each_record(archive, Kind::RunOutcome, |key, value| {
        // What a newer dovetail wrote, it may remove.
        if let (Some(run), Ok(outcome)) = (RunKey::parse(&key), RunOutcomeRecord::decode(value, &key)) {
            let entry = found.entry(run.run).or_default();
            entry.0 = entry.0.max(run.generation);
            entry.1 = entry.1.max(outcome.finished_ms);
            entry.2.push(key);
        }
        Ok(())
    })?;
    let ended: Vec<(RunId, u32, Vec<String>)> = found
        .into_iter()
        .filter(|(_, (_, finished, _))| *finished < before)
        .map(|(run, (last, _, keys))| (run, last, keys))
        .collect();
    let mut expired = Vec::new();
    for part in ended.chunks(PAGE) {
        // One that was begun again and has not ended is open.
        let next: Vec<String> =
            part.iter().map(|(run, last, _)| RunKey { run: run.clone(), generation: last + 1 }.key()).collect();
        let again = parts.ledger.get(Kind::Generation, &next)?;
        expired.extend(
            part.iter()
                .zip(again)
                .filter(|(_, again)| again.is_none())
                .map(|((run, _, keys), _)| (run.clone(), keys.clone())),
        );
    }
    Ok(expired)
}

fn remove_runs(
    parts: &Parts,
    archive: &dyn Archive,
    runs: &[(RunId, Vec<String>)],
    look_only: bool,
    gone: &mut Collected,
) -> Result<(), FlowError> {
    let mut remove = |kind: Kind, keys: Vec<String>| {
        gone.records += keys.len() as u64;
        if look_only { Ok(()) } else { archive.remove(kind, &keys) }
    };
    // Without its record a run is none any more, so nobody begins it again while the rest goes.
    let ids: Vec<String> = runs.iter().map(|(run, _)| run.to_string()).collect();
    let there = parts.ledger.get(Kind::Run, &ids)?;
    remove(Kind::Run, ids.into_iter().zip(there).filter(|(_, record)| record.is_some()).map(|(id, _)| id).collect())?;
    for kind in OF_A_RUN {
        let mut keys = Vec::new();
        for (run, _) in runs {
            let listing = Listing { prefix: format!("{run}:"), limit: usize::MAX, newest_first: false };
            keys.extend(parts.ledger.list(kind, &listing)?.into_iter().map(|(key, _)| key));
        }
        remove(kind, keys)?;
    }
    remove(Kind::RunOutcome, runs.iter().flat_map(|(_, keys)| keys.clone()).collect())?;
    gone.runs += runs.len() as u64;
    Ok(())
}

/// Every digest that stands anywhere in a record, but for those of runs that would have gone. Records are not decoded:
/// so what other versions write counts, too.
fn named_by_records(archive: &dyn Archive, expired: &HashSet<RunId>) -> Result<HashSet<Digest>, FlowError> {
    let mut named = HashSet::new();
    for kind in NAMING {
        each_record(archive, kind, |key, value| {
            let run = key.split(':').next().and_then(|run| run.parse().ok());
            if !run.is_some_and(|run: RunId| expired.contains(&run)) {
                digests_in(value, &mut named);
            }
            Ok(())
        })?;
    }
    Ok(named)
}

/// Large values stand as blobs, and name others.
fn follow_values(parts: &Parts, shelf: &dyn Shelf, named: &mut HashSet<Digest>) -> Result<(), FlowError> {
    let mut values = Vec::new();
    each_blob(shelf, BlobKind::Value, |digest, _| {
        if named.contains(&digest) {
            values.push(digest);
        }
        Ok(())
    })?;
    for digest in values {
        match parts.blobs.get(BlobKind::Value, &digest, MAX_VALUE) {
            Ok(bytes) => digests_in(&bytes, named),
            Err(e) if e.kind == StoreErrorKind::Missing => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Every `sha256:` with its 64 digits.
fn digests_in(bytes: &[u8], found: &mut HashSet<Digest>) {
    const NAME: &[u8] = b"sha256:";
    const LENGTH: usize = 7 + 64;
    let mut rest = bytes;
    while let Some(at) = rest.windows(NAME.len()).position(|window| window == NAME) {
        rest = &rest[at..];
        let text = rest.get(..LENGTH).and_then(|text| std::str::from_utf8(text).ok());
        found.extend(text.and_then(|text| text.parse::<Digest>().ok()));
        rest = &rest[NAME.len()..];
    }
}

fn each_record(
    archive: &dyn Archive,
    kind: Kind,
    mut told: impl FnMut(String, &[u8]) -> Result<(), FlowError>,
) -> Result<(), FlowError> {
    let mut after = String::new();
    loop {
        let page = archive.scan(kind, &after, PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after.clone_from(last);
        for (key, value) in page {
            told(key, &value)?;
        }
    }
}

fn each_blob(
    shelf: &dyn Shelf,
    kind: BlobKind,
    mut told: impl FnMut(Digest, u64) -> Result<(), FlowError>,
) -> Result<(), FlowError> {
    let mut after = None;
    loop {
        let page = shelf.scan(kind, after.as_ref(), PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(*last);
        for (digest, bytes) in page {
            told(digest, bytes)?;
        }
    }
}
