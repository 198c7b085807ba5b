//! Garbage collection removes old runs and blobs that no record names, and nothing else.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::bench::document;
use dovetail_core::blobs::{ArtifactRef, BlobKind, Blobs as _, StoreError, StoreErrorKind};
use dovetail_core::executor::{FailureKind, Outcome};
use dovetail_core::ledger::{Kind, Listing};
use dovetail_core::retention::{Archive, RemovableBlobs};
use dovetail_core::{Digest, RunId};
use dovetail_flow::{Amount, Collected, Keep, collect, current, find_run, logs, retry};
use serde_json::json;

use crate::bench::{Bench, fails, sum};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Runs are kept for a month. Blobs are not kept, because the blobs of these tests are only as old as the tests.
const KEEP: Keep = Keep { runs: Duration::from_secs(30 * 24 * 3600), blobs: Duration::ZERO };
const OF_RUNS: [Kind; 6] = [Kind::Run, Kind::Generation, Kind::Outcome, Kind::Attempt, Kind::Cancel, Kind::RunOutcome];

fn gc(bench: &Bench, look_only: bool) -> Collected {
    collect(&bench.ports, &*bench.records, &*bench.kept, &KEEP, &std::env::temp_dir(), look_only).unwrap()
}

/// Publishes steps whose outputs are large, and that each name an artifact which no other value names.
fn publish(bench: &Bench) -> dovetail_flow::Published {
    let published = bench.publish(&json!({}), &[("a", "input.x", "input.x"), ("b", "a.sum", "input.x")]);
    for step in ["a", "b"] {
        let blobs = bench.kept.clone();
        bench.script(step, move |attempt, _| {
            let artifact = blobs
                .put(BlobKind::Artifact, format!("made by {} of {}", attempt.step, attempt.run).as_bytes())
                .unwrap();
            let mut report = sum(attempt);
            // Too long for the record, so the log becomes a blob.
            report.log[0].message = attempt.run.as_str().repeat(100);
            if let Outcome::Succeeded { output } = &mut report.outcome {
                output["picture"] =
                    ArtifactRef { digest: artifact, media_type: "image/png".into(), name: None }.to_json();
                output["filler"] = json!(attempt.run.as_str().repeat(1000));
            }
            Ok(report)
        });
    }
    published
}

fn all(bench: &Bench, kind: BlobKind) -> Vec<Digest> {
    let mut found = Vec::new();
    let visit = &mut |digest, _| {
        found.push(digest);
        Ok(())
    };
    bench.kept.walk(kind, visit).unwrap();
    found
}

/// The number of records and the number of blobs that belong to runs.
fn count(bench: &Bench) -> (usize, usize) {
    let records =
        |kind| bench.ports.ledger.list(kind, &Listing { limit: usize::MAX, ..Listing::default() }).unwrap().len();
    let blobs = |kind| all(bench, kind).len();
    (
        OF_RUNS.into_iter().map(records).sum(),
        [BlobKind::Artifact, BlobKind::Value, BlobKind::Log].into_iter().map(blobs).sum(),
    )
}

fn is_whole(bench: &Bench, run: &RunId) {
    let document = document(&bench.ports, run).unwrap();
    assert_eq!(document["state"], "succeeded");
    assert_eq!(document["output"], json!({ "total": 9 }));
    for value in all(bench, BlobKind::Value) {
        let bytes = bench.kept.get(BlobKind::Value, &value, 1 << 20).unwrap();
        for artifact in ArtifactRef::all_in(&serde_json::from_slice(&bytes).unwrap()) {
            bench.kept.get(BlobKind::Artifact, &artifact.digest, 100).unwrap();
        }
    }
    assert_eq!(logs(&bench.ports, &current(&bench.ports, run).unwrap()).unwrap().len(), 2);
}

#[test]
fn an_old_run_goes_with_all_that_was_its_own() {
    let bench = Bench::new();
    let published = publish(&bench);
    let old = bench.submit(&published, 3);
    bench.work(&old);
    let of_one = count(&bench);
    bench.clock.advance(31 * DAY);
    let young = bench.submit(&published, 3);
    bench.work(&young);
    assert!(count(&bench).0 == 2 * of_one.0);

    let would = gc(&bench, true);
    assert_eq!(count(&bench).0, 2 * of_one.0, "nothing was removed");
    let gone = gc(&bench, false);
    assert_eq!(gone, would);
    assert_eq!((gone.runs, gone.records), (1, of_one.0 as u64));
    assert_eq!((gone.blobs["artifacts"].number, gone.blobs["values"].number), (2, 2), "{gone:?}");
    assert_eq!(gone.blobs["packages"], Amount::default(), "packages are kept");
    assert_eq!(count(&bench).0, of_one.0);
    assert_eq!(find_run(&bench.ports, old.as_str()).unwrap_err().code(), "unknown_run");
    is_whole(&bench, &young);
    assert_eq!(gc(&bench, false).runs, 0);
    // The published pipeline still runs.
    let next = bench.submit(&published, 3);
    bench.work(&next);
    is_whole(&bench, &next);
}

#[test]
fn a_blob_that_nobody_names_goes_when_it_is_old() {
    let bench = Bench::new();
    bench.kept.put(BlobKind::Artifact, b"uploaded, and never referenced").unwrap();
    let keep = Keep { blobs: DAY, ..KEEP };
    let scratch = std::env::temp_dir();
    let young = collect(&bench.ports, &*bench.records, &*bench.kept, &keep, &scratch, false).unwrap();
    assert_eq!(young.blobs["artifacts"].number, 0);
    assert_eq!(gc(&bench, false).blobs["artifacts"], Amount { number: 1, bytes: 30 });
}

#[test]
fn what_has_not_ended_stays_however_old_it_is() {
    let bench = Bench::new();
    let published = publish(&bench);
    let open = bench.submit(&published, 3);
    bench.script("b", |_, _| Ok(fails(FailureKind::Trap, false)));
    let again = bench.submit(&published, 3);
    bench.work(&again);
    bench.clock.advance(31 * DAY);
    retry(&bench.ports, &again, "the task was mended").unwrap();
    assert_eq!(gc(&bench, false).runs, 0);
    // Both runs can be finished.
    publish_scripts_again(&bench);
    for run in [&open, &again] {
        bench.work(run);
        is_whole(&bench, run);
    }
    // The first generation of `again` failed long ago, its second one has just ended.
    assert_eq!(gc(&bench, false).runs, 0);
    bench.clock.advance(31 * DAY);
    assert_eq!(gc(&bench, false).runs, 2);
    assert_eq!(count(&bench), (0, 0));
}

fn publish_scripts_again(bench: &Bench) {
    bench.script("b", |attempt, _| Ok(sum(attempt)));
}

/// An archive that fails at one of its removals.
struct Failing<'a> {
    inner: &'a dyn Archive,
    left: AtomicUsize,
}

impl Archive for Failing<'_> {
    fn scan(&self, kind: Kind, after: &str, limit: usize) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.inner.scan(kind, after, limit)
    }

    fn remove(&self, kind: Kind, keys: &[String]) -> Result<(), StoreError> {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            return Err(StoreError::plain(StoreErrorKind::Unavailable, "remove records"));
        }
        self.inner.remove(kind, keys)
    }

    fn remove_unchanged(&self, kind: Kind, found: &[(String, Vec<u8>)]) -> Result<(), StoreError> {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            return Err(StoreError::plain(StoreErrorKind::Unavailable, "remove records"));
        }
        self.inner.remove_unchanged(kind, found)
    }
}

#[test]
fn a_collection_that_was_interrupted_is_finished_by_the_next_one() {
    for removals in 0..OF_RUNS.len() {
        let bench = Bench::new();
        let published = publish(&bench);
        let run = bench.submit(&published, 3);
        bench.work(&run);
        bench.clock.advance(31 * DAY);
        let failing = Failing { inner: &*bench.records, left: AtomicUsize::new(removals) };
        collect(&bench.ports, &failing, &*bench.kept, &KEEP, &std::env::temp_dir(), false).unwrap_err();
        if removals > 0 {
            assert_eq!(
                find_run(&bench.ports, run.as_str()).unwrap_err().code(),
                "unknown_run",
                "a partly removed run does not exist"
            );
        } else {
            is_whole(&bench, &run);
        }
        assert_eq!(gc(&bench, false).runs, 1, "after {removals} removals");
        assert_eq!(count(&bench), (0, 0), "after {removals} removals");
    }
}
