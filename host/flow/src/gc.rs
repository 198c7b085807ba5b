//! What is old goes: runs that ended long ago with all that was recorded of them, then blobs that nothing refers to any
//! more.
//!
//! Safe beside workers and submitters. A run is removed only when its last generation has ended. A blob is removed only
//! if no record named it and nobody has stored it lately: whoever is about to refer to a blob stores it first, which
//! makes it young.

mod digests;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use dovetail_core::blobs::{BlobKind, StoreError, StoreErrorKind};
use dovetail_core::keys::{RunKey, run_of};
use dovetail_core::ledger::Kind;
use dovetail_core::record::{Form as _, RunOutcomeRecord};
use dovetail_core::retention::{Archive, RemovableBlobs};
use dovetail_core::{Digest, RunId};

use self::digests::{Digests, Sorted};
use crate::blob_owner::may_remove;
use crate::removal::remove_runs;
use crate::{FlowError, Ports};

/// Runs that are removed at once.
const RUNS: usize = 100;
/// The most of a value that is read for what it refers to, in bytes.
const MAX_VALUE: u64 = 16 << 20;
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

/// Removes what need not be kept; with `look_only` nothing goes, and the answer is what would. However many runs and
/// blobs there are, memory is bounded: what it does not hold lies in files in the folder `scratch` meanwhile.
///
/// # Errors
/// `foreign_blobs` if the blobs belong to other records, or may: then nothing has gone. A store's failure: what has gone
/// is gone, and the next collection goes on.
pub fn collect(
    parts: &Ports,
    archive: &dyn Archive,
    shelf: &dyn RemovableBlobs,
    keep: &Keep,
    scratch: &Path,
    look_only: bool,
) -> Result<Collected, FlowError> {
    may_remove(&*parts.ledger, shelf, look_only)?;
    let mut gone = Collected::default();
    let mut expired = Digests::new(scratch);
    each_expired(parts, archive, keep.runs, |runs| {
        remove_runs(parts, archive, runs, ended_before(parts, keep.runs), look_only, &mut gone)?;
        if look_only {
            runs.iter().try_for_each(|(run, _)| expired.insert(Digest::of(run.as_str().as_bytes())))?;
        }
        Ok(())
    })?;
    let named = named_by_records(archive, &expired.sorted()?, scratch)?;
    let named_within = named_by_values(parts, shelf, &named, scratch)?;
    for kind in BlobKind::ALL {
        let amount = gone.blobs.entry(kind.folder()).or_default();
        shelf.walk(kind, &mut |digest, bytes| {
            if named.contains(&digest)? || named_within.contains(&digest)? {
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

/// What ended before this time has been kept long enough, in milliseconds of wall time.
fn ended_before(parts: &Ports, keep: Duration) -> u64 {
    parts.clock.wall_ms().saturating_sub(u64::try_from(keep.as_millis()).unwrap_or(u64::MAX))
}

/// A run with the keys of all its outcomes.
type Ended = (RunId, Vec<String>);

/// Tells of the runs whose last generation ended so long ago, [`RUNS`] at a time.
fn each_expired(
    parts: &Ports,
    archive: &dyn Archive,
    keep: Duration,
    mut told: impl FnMut(&[Ended]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let before = ended_before(parts, keep);
    let mut ended: Vec<(u32, Ended)> = Vec::new();
    let mut current: Option<(u32, u64, Ended)> = None;
    let mut found = |run: Option<(u32, u64, Ended)>, rest: bool| {
        if let Some((last, finished, run)) = run
            && finished < before
        {
            ended.push((last, run));
        }
        if ended.len() < RUNS && !rest {
            return Ok(());
        }
        // One that was begun again and has not ended is open.
        let next: Vec<String> =
            ended.iter().map(|(last, (run, _))| RunKey { run: run.clone(), generation: last + 1 }.key()).collect();
        let again = parts.ledger.get(Kind::Generation, &next)?;
        let expired: Vec<Ended> =
            ended.drain(..).zip(again).filter(|(_, again)| again.is_none()).map(|((_, run), _)| run).collect();
        if expired.is_empty() { Ok(()) } else { told(&expired) }
    };
    // By their keys a run's generations stand together.
    archive.each(Kind::RunOutcome, &mut |key, value| {
        // What a newer dovetail wrote, it may remove.
        let (Some(run), Ok(outcome)) = (RunKey::parse(&key), RunOutcomeRecord::decode(value, &key)) else {
            return Ok(());
        };
        let (mut last, mut finished, mut keys) = (run.generation, outcome.finished_ms, vec![key]);
        match current.take() {
            Some((other, at, (of, mut others))) if of == run.run => {
                others.append(&mut keys);
                (last, finished, keys) = (last.max(other), finished.max(at), others);
            }
            before => found(before, false)?,
        }
        current = Some((last, finished, (run.run, keys)));
        Ok(())
    })?;
    found(current, true)
}

/// Every digest that stands anywhere in a record, but for those of runs that would have gone. Records are not decoded:
/// so what other versions write counts, too.
fn named_by_records(archive: &dyn Archive, expired: &Sorted, scratch: &Path) -> Result<Sorted, StoreError> {
    let mut named = Digests::new(scratch);
    // A run's records stand together.
    let mut last = (String::new(), false);
    for kind in NAMING {
        archive.each(kind, &mut |key, value| {
            let run = run_of(&key);
            if run != last.0 {
                last = (run.to_owned(), expired.contains(&Digest::of(run.as_bytes()))?);
            }
            if !last.1 {
                digests_in(value, &mut named)?;
            }
            Ok(())
        })?;
    }
    named.sorted()
}

/// Large values stand as blobs, and name others.
fn named_by_values(
    parts: &Ports,
    shelf: &dyn RemovableBlobs,
    named: &Sorted,
    scratch: &Path,
) -> Result<Sorted, StoreError> {
    let mut within = Digests::new(scratch);
    shelf.walk(BlobKind::Value, &mut |digest, _| {
        if !named.contains(&digest)? {
            return Ok(());
        }
        match parts.blobs.get(BlobKind::Value, &digest, MAX_VALUE) {
            Ok(bytes) => digests_in(&bytes, &mut within),
            Err(e) if e.kind == StoreErrorKind::Missing => Ok(()),
            Err(e) => Err(e),
        }
    })?;
    within.sorted()
}

/// Every `sha256:` with its 64 digits.
fn digests_in(bytes: &[u8], found: &mut Digests) -> Result<(), StoreError> {
    const NAME: &[u8] = b"sha256:";
    const LENGTH: usize = 7 + 64;
    let mut rest = bytes;
    while let Some(at) = rest.windows(NAME.len()).position(|window| window == NAME) {
        rest = &rest[at..];
        let text = rest.get(..LENGTH).and_then(|text| std::str::from_utf8(text).ok());
        if let Some(digest) = text.and_then(|text| text.parse::<Digest>().ok()) {
            found.insert(digest)?;
        }
        rest = &rest[NAME.len()..];
    }
    Ok(())
}
