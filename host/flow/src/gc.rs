//! Garbage collection: removes runs that ended long ago, with all their records, and then blobs that no record names
//! (mark and sweep).
//!
//! Safe beside workers and submitters. A run is removed only if its last generation has ended. A blob is removed only
//! if no record named it and it has not been stored recently: a process that is about to name a blob in a record stores
//! the blob first, which makes it young.

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

/// How many runs are removed together.
const RUNS: usize = 100;
/// The largest value that is read for the digests in it, in bytes.
const MAX_VALUE: u64 = 16 << 20;
/// The kinds of records that may name a blob.
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

/// How long runs and blobs are kept.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    /// How long a run is kept after its end.
    pub runs: Duration,
    /// How long a blob that no record names is kept. It must be longer than any attempt takes, from its first artifact
    /// to its outcome.
    pub blobs: Duration,
}

/// A number of blobs, and their bytes together.
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

/// The result of a collection, or of a look at what it would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    pub runs: u64,
    pub records: u64,
    /// By [`BlobKind::folder`].
    pub blobs: BTreeMap<&'static str, Amount>,
    /// The bytes of blobs whose writing was never finished.
    pub abandoned_bytes: u64,
}

/// Removes the runs and blobs that need not be kept. With `look_only` nothing is removed, and the result says what a
/// collection would remove. Memory is bounded for any number of runs and blobs: digests that do not fit lie in files in
/// the folder `scratch`.
///
/// # Errors
/// `foreign_blobs` if the blobs belong, or may belong, to other records: then nothing was removed. A store's failure:
/// part may be removed, and the next collection continues.
pub fn collect(
    ports: &Ports,
    archive: &dyn Archive,
    blobs: &dyn RemovableBlobs,
    keep: &Keep,
    scratch: &Path,
    look_only: bool,
) -> Result<Collected, FlowError> {
    may_remove(&*ports.ledger, blobs, look_only)?;
    let mut gone = Collected::default();
    let mut expired = Digests::new(scratch);
    each_expired(ports, archive, keep.runs, |runs| {
        remove_runs(ports, archive, runs, ended_before(ports, keep.runs), look_only, &mut gone)?;
        if look_only {
            runs.iter().try_for_each(|(run, _)| expired.insert(Digest::of(run.as_str().as_bytes())))?;
        }
        Ok(())
    })?;
    let named = named_by_records(archive, &expired.sorted()?, scratch)?;
    let named_within = named_by_values(ports, blobs, &named, scratch)?;
    for kind in BlobKind::ALL {
        let amount = gone.blobs.entry(kind.folder()).or_default();
        blobs.walk(kind, &mut |digest, bytes| {
            if named.contains(&digest)? || named_within.contains(&digest)? {
                return Ok(());
            }
            let goes = if look_only {
                blobs.age(kind, &digest)?.is_some_and(|age| age >= keep.blobs)
            } else {
                blobs.remove(kind, &digest, keep.blobs)?
            };
            if goes {
                amount.add(bytes);
            }
            Ok(())
        })?;
    }
    gone.abandoned_bytes = blobs.remove_abandoned(look_only)?;
    Ok(gone)
}

/// Runs that ended before this time, in milliseconds of wall time, have been kept long enough.
fn ended_before(ports: &Ports, keep: Duration) -> u64 {
    ports.clock.wall_ms().saturating_sub(u64::try_from(keep.as_millis()).unwrap_or(u64::MAX))
}

/// A run, with the keys of the run outcomes of all its generations.
type EndedRun = (RunId, Vec<String>);

/// Calls `expire` with the runs whose last generation ended at least `keep` ago, [`RUNS`] at a time.
fn each_expired(
    ports: &Ports,
    archive: &dyn Archive,
    keep: Duration,
    mut expire: impl FnMut(&[EndedRun]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let before = ended_before(ports, keep);
    let mut ended: Vec<(u32, EndedRun)> = Vec::new();
    let mut current: Option<(u32, u64, EndedRun)> = None;
    let mut found = |run: Option<(u32, u64, EndedRun)>, rest: bool| {
        if let Some((last, finished, run)) = run
            && finished < before
        {
            ended.push((last, run));
        }
        if ended.len() < RUNS && !rest {
            return Ok(());
        }
        // A run that has a further generation without an outcome is open.
        let next: Vec<String> =
            ended.iter().map(|(last, (run, _))| RunKey { run: run.clone(), generation: last + 1 }.key()).collect();
        let again = ports.ledger.get(Kind::Generation, &next)?;
        let expired: Vec<EndedRun> =
            ended.drain(..).zip(again).filter(|(_, again)| again.is_none()).map(|((_, run), _)| run).collect();
        if expired.is_empty() { Ok(()) } else { expire(&expired) }
    };
    // Keys begin with the run's ID, so the generations of a run follow each other.
    archive.each(Kind::RunOutcome, &mut |key, value| {
        // A record that this version cannot read is left to the version that wrote it.
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

/// Every digest that occurs anywhere in a record, without the records of `expired` runs. Records are not decoded, so
/// digests in records of other versions are found too.
fn named_by_records(archive: &dyn Archive, expired: &Sorted, scratch: &Path) -> Result<Sorted, StoreError> {
    let mut named = Digests::new(scratch);
    // The records of a run follow each other, so the last answer serves most of them.
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

/// Every digest in the named value blobs: a large value is stored as a blob and may name artifacts.
fn named_by_values(
    ports: &Ports,
    blobs: &dyn RemovableBlobs,
    named: &Sorted,
    scratch: &Path,
) -> Result<Sorted, StoreError> {
    let mut within = Digests::new(scratch);
    blobs.walk(BlobKind::Value, &mut |digest, _| {
        if !named.contains(&digest)? {
            return Ok(());
        }
        match ports.blobs.get(BlobKind::Value, &digest, MAX_VALUE) {
            Ok(bytes) => digests_in(&bytes, &mut within),
            Err(e) if e.kind == StoreErrorKind::Missing => Ok(()),
            Err(e) => Err(e),
        }
    })?;
    within.sorted()
}

/// Adds every `sha256:` with 64 hexadecimal digits in `bytes` to `found`.
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
