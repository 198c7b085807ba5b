//! The conformance suite: the promises of each port, as cases that every backend runs. A case panics if the backend
//! breaks the promise. `tests/conformance.rs` tests the suite itself with backends that are broken on purpose.

mod cases;
mod forward;
mod leases;
mod nodes;
mod panics;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use crate::blobs::{BlobKind, Blobs, StoreError, StoreErrorKind};
use crate::executor::{Failure, FailureKind};
use crate::id::{Digest, RunId};
use crate::keys::NodeId;
use crate::ledger::{
    Claimed, Job, Kind, Lease, Ledger, Operation, Record, Renewal, Reply, Requirements, RunKey, Scope, Wait,
};
use crate::memory::ManualClock;
use crate::record::{Form, OutcomeRecord, StepEnd, StoredValue};
use crate::retention::{Archive, RemovableBlobs};

/// A fresh, empty backend, and control over its time.
pub struct Bench {
    /// The backend.
    pub ledger: Arc<dyn Ledger>,
    /// The length of the leases that the cases take. If the backend's time is real, it should be short, but long
    /// compared with a few calls.
    pub lease: Duration,
    /// Lets this much of the backend's time pass.
    pub advance: Box<dyn Fn(Duration) + Send + Sync>,
    /// Whether the backend supports [`Scope::Runs`].
    pub scoped: bool,
}

/// Makes a fresh, empty backend.
pub type MakeLedger<'a> = &'a dyn Fn() -> Bench;

/// The [`MakeLedger`] of a backend that reads a manual clock.
pub fn with_manual_clock(make: impl Fn(Arc<ManualClock>) -> Arc<dyn Ledger>) -> impl Fn() -> Bench {
    move || {
        let clock = Arc::new(ManualClock::default());
        let ledger = make(clock.clone());
        Bench { ledger, lease: Duration::from_secs(10), advance: Box::new(move |by| clock.advance(by)), scoped: true }
    }
}

/// All steps that the cases use, and more, so that no backend may take the run for complete.
fn names() -> Arc<[NodeId]> {
    let names = (b'a'..=b'z').map(|name| char::from(name).to_string()).chain((0..1000).map(|n| format!("s{n}")));
    names.map(|name| NodeId::of_step(&name)).collect()
}

fn run(n: u8) -> RunKey {
    RunKey { run: RunId::from_bytes([n; 16]), generation: 0 }
}

fn record(kind: Kind, key: String) -> Record {
    let value = format!("value of {} {key}", kind.name()).into_bytes();
    Record { kind, key, value }
}

/// The record of a real outcome, because a backend that rebuilds its jobs from records parses it. Its package is the
/// digest of the key.
#[must_use]
pub fn outcome(key: String, succeeded: bool) -> Record {
    let end = if succeeded {
        StepEnd::Succeeded(StoredValue::Inline(serde_json::json!({})))
    } else {
        StepEnd::Failed(Failure::new(FailureKind::Failed, "no_luck", "it did not work"))
    };
    let package = Digest::of(key.as_bytes());
    let (attempts, models, consumed, produced) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (log, log_lines, log_dropped, spent_us, started_ms, finished_ms) = (None, Vec::new(), 0, 0, 0, 0);
    let value = OutcomeRecord {
        end,
        attempts,
        package,
        models,
        consumed,
        produced,
        log,
        log_lines,
        log_dropped,
        spent_us,
        started_ms,
        finished_ms,
    };
    Record { kind: Kind::Outcome, key, value: value.encode() }
}

fn node(text: &str) -> NodeId {
    text.parse().expect("the cases name steps")
}

fn job(step: &str, needs: &[&str]) -> Job {
    Job {
        step: node(step),
        needs: needs.iter().map(|need| node(need)).collect(),
        attempt: 1,
        requirements: Requirements::default(),
    }
}

impl Bench {
    fn one(&self, item: Operation) -> Reply {
        let mut replies = self.ledger.commit(&[item]).expect("commit works");
        assert_eq!(replies.len(), 1, "one reply an item");
        replies.remove(0)
    }

    fn submit(&self, n: u8, jobs: &[Job]) -> RunKey {
        let key = run(n);
        let item = Operation::Submit {
            run: key.clone(),
            record: record(Kind::Run, key.run.to_string()),
            jobs: jobs.to_vec(),
            steps: names(),
        };
        assert_eq!(self.one(item), Reply::Created, "a first submission creates");
        key
    }

    fn claim(&self, want: usize) -> Vec<Claimed> {
        self.ledger.claim(&Scope::All, want, self.lease, Wait::NONE).expect("claim works")
    }

    fn steps(&self, want: usize) -> Vec<String> {
        self.claim(want).into_iter().map(|c| c.lease.step.to_string()).collect()
    }

    fn finish(&self, lease: &Lease, children: &[Job]) -> Reply {
        let record = outcome(lease.run.step(&lease.step), true);
        self.one(Operation::Finish {
            lease: lease.clone(),
            record,
            succeeded: true,
            close: None,
            children: children.to_vec(),
        })
    }

    fn renew(&self, lease: &Lease) -> Renewal {
        self.ledger.renew(std::slice::from_ref(lease), self.lease).expect("renew works").remove(0)
    }

    fn close(&self, key: &RunKey) -> Reply {
        self.one(Operation::Close { run: key.clone(), record: record(Kind::RunOutcome, key.key()) })
    }
}
/// Runs every case on a fresh backend.
/// Runs every case on a fresh backend.
///
/// If the backend breaks a promise; the message names the cases.
/// Where a promise is broken, naming the case.
pub fn ledger(make: MakeLedger<'_>) {
    let broken = broken_promises(make);
    assert!(broken.is_empty(), "broken promises: {broken:#?}");
}

/// The names of the cases that the backend fails.
pub fn broken_promises(make: MakeLedger<'_>) -> Vec<&'static str> {
    let mut broken = Vec::new();
    let suites = [cases::LEDGER, waiting::LEDGER, leases::LEDGER, nodes::LEDGER, panics::LEDGER];
    for (name, case) in suites.into_iter().flatten() {
        let bench = make();
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&bench))).is_err() {
            broken.push(*name);
        }
    }
    broken
}
/// Checks the promises of [`Blobs`].
/// What every [`Blobs`] promises.
///
/// If the store breaks a promise.
/// Where a promise is broken.
pub fn blobs(make: &dyn Fn() -> Arc<dyn Blobs>) {
    let blobs = make();
    let digest = blobs.put(BlobKind::Artifact, b"hello").expect("put works");
    assert_eq!(digest, Digest::of(b"hello"));
    assert_eq!(blobs.put(BlobKind::Artifact, b"hello").expect("putting again works"), digest);
    assert_eq!(blobs.get(BlobKind::Artifact, &digest, 5).expect("get works"), b"hello");
    assert_eq!(blobs.size(BlobKind::Artifact, &digest).expect("size works"), Some(5));
    let too_many = blobs.get(BlobKind::Artifact, &digest, 4).expect_err("five bytes are more than four");
    assert_eq!(too_many.kind, StoreErrorKind::Refused);
    let missing = blobs.get(BlobKind::Package, &digest, 5).expect_err("kinds do not mix");
    assert_eq!(missing.kind, StoreErrorKind::Missing);
    assert_eq!(blobs.size(BlobKind::Artifact, &Digest::of(b"other")).expect("size works"), None);
    let empty = blobs.put(BlobKind::Value, b"").expect("nothing is something");
    assert_eq!(blobs.get(BlobKind::Value, &empty, 0).expect("get works"), b"");
    std::thread::scope(|s| {
        for _ in 0..8 {
            s.spawn(|| blobs.put(BlobKind::Log, &vec![7; 100_000]).expect("putting the same at once works"));
        }
    });
    assert_eq!(blobs.get(BlobKind::Log, &Digest::of(&vec![7; 100_000]), 1 << 20).expect("get works").len(), 100_000);
}

/// Checks the promises of [`RemovableBlobs`]. `blobs` and `removable_blobs` are the same store, which is empty.
///
/// # Panics
/// If the store breaks a promise.
pub fn removable_blobs(blobs: &dyn Blobs, removable_blobs: &dyn RemovableBlobs) {
    let mut put: Vec<(Digest, u64)> = (0..5_u8)
        .map(|n| (blobs.put(BlobKind::Artifact, &vec![n; usize::from(n) + 1]).expect("put works"), u64::from(n) + 1))
        .collect();
    put.sort();
    let log = blobs.put(BlobKind::Log, b"said").expect("put works");
    let walk = |kind| {
        let mut found = Vec::new();
        let visit = &mut |digest, bytes| {
            found.push((digest, bytes));
            Ok(())
        };
        removable_blobs.walk(kind, visit).expect("walk works");
        found.sort();
        found
    };
    assert_eq!(walk(BlobKind::Artifact), put, "each of a kind once, with its size");
    let mut visited = 0;
    let ended = removable_blobs.walk(BlobKind::Artifact, &mut |_, _| {
        visited += 1;
        Err(StoreError::plain(StoreErrorKind::Conflict, "enough"))
    });
    assert_eq!((ended.expect_err("it was ended").kind, visited), (StoreErrorKind::Conflict, 1), "an error ends it");
    let (first, _) = put[0];
    let hour = Duration::from_secs(3600);
    assert!(removable_blobs.age(BlobKind::Artifact, &first).expect("age works").is_some_and(|age| age < hour));
    assert_eq!(removable_blobs.age(BlobKind::Package, &first).expect("age works"), None, "kinds do not mix");
    assert!(!removable_blobs.remove(BlobKind::Artifact, &first, hour).expect("remove works"), "a young blob stays");
    assert_eq!(blobs.size(BlobKind::Artifact, &first).expect("size works"), Some(put[0].1));
    assert!(removable_blobs.remove(BlobKind::Artifact, &first, Duration::ZERO).expect("remove works"));
    assert!(
        !removable_blobs.remove(BlobKind::Artifact, &first, Duration::ZERO).expect("remove works"),
        "it is gone already"
    );
    assert_eq!(removable_blobs.age(BlobKind::Artifact, &first).expect("age works"), None);
    assert_eq!(blobs.get(BlobKind::Artifact, &first, 9).expect_err("it is gone").kind, StoreErrorKind::Missing);
    assert_eq!(walk(BlobKind::Artifact), put[1..], "nothing else has gone");
    assert_eq!(walk(BlobKind::Log), [(log, 4)]);
    let remove = &mut |digest: Digest, _| {
        removable_blobs.remove(BlobKind::Artifact, &digest, Duration::ZERO).map(|gone| assert!(gone))
    };
    removable_blobs.walk(BlobKind::Artifact, remove).expect("a visited entry may be removed during the walk");
    assert_eq!(walk(BlobKind::Artifact), [], "every one was told of");
    assert_eq!(
        removable_blobs.remove_abandoned(false).expect("remove_abandoned works"),
        0,
        "there is no abandoned blob"
    );
}

/// Checks the promises of [`crate::retention::Owned`]. `new` opens the same store each time; it is empty and has no
/// owner. `racing` threads try to become the owner at the same time. Returns the owner that the store has now.
///
/// # Panics
/// If the store breaks a promise.
pub fn owned(new: &(dyn Fn() -> Arc<dyn RemovableBlobs> + Sync), put: &dyn Fn(), racing: usize) -> String {
    let store = new();
    assert_eq!(store.owner().expect("owner works"), None, "the store has no owner");
    assert!(store.is_empty().expect("is_empty works"));
    put();
    assert!(!store.is_empty().expect("is_empty works"));
    assert_eq!(new().owner().expect("owner works"), None, "a stored blob does not set an owner");
    let owners: Vec<String> = std::thread::scope(|threads| {
        let own = |n: usize| new().own(&format!("records-{n}")).expect("own works");
        let racing: Vec<_> = (0..racing).map(|n| threads.spawn(move || own(n))).collect();
        racing.into_iter().map(|one| one.join().expect("it ends")).collect()
    });
    let owner = store.owner().expect("owner works").expect("it has one now");
    assert!(owners.iter().all(|owner_found| *owner_found == owner), "all are told of one owner: {owners:?}");
    assert_eq!(store.own("late").expect("own works"), owner, "a later call does not change the owner");
    assert_eq!(new().owner().expect("owner works"), Some(owner.clone()));
    owner
}

/// Checks the promises of [`Archive`], which is empty.
///
/// # Panics
/// If the store breaks a promise.
pub fn archive(archive: &dyn Archive, put: &dyn Fn(&[Record])) {
    let keys = ["b", "a:1", "c", "a:10", "a:0"];
    put(&keys.map(|key| record(Kind::Run, key.to_owned())));
    put(&[record(Kind::Cancel, "a:0".to_owned())]);
    let scan = |after: &str, limit| archive.scan(Kind::Run, after, limit).expect("scan works");
    let names = |found: Vec<(String, Vec<u8>)>| found.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(names(scan("", 100)), ["a:0", "a:1", "a:10", "b", "c"], "in the order of the keys");
    assert_eq!(scan("", 1)[0].1, record(Kind::Run, "a:0".to_owned()).value, "with their values");
    assert_eq!(names(scan("a:1", 2)), ["a:10", "b"]);
    assert_eq!(names(scan("c", 2)), [""; 0]);
    let each = |kind| {
        let mut found = Vec::new();
        let visit = &mut |key, value: &[u8]| {
            found.push((key, value.to_vec()));
            Ok(())
        };
        archive.each(kind, visit).expect("each works");
        found
    };
    assert_eq!(each(Kind::Run), scan("", 100), "each tells of the same");
    let none: [String; 0] = [];
    archive.remove(Kind::Run, &none).expect("nothing is something");
    archive.remove(Kind::Run, &["a:0".to_owned(), "not there".to_owned(), "b".to_owned()]).expect("remove works");
    assert_eq!(names(scan("", 100)), ["a:1", "a:10", "c"]);
    assert_eq!(archive.scan(Kind::Cancel, "", 9).expect("scan works").len(), 1, "kinds do not mix");
    put(&[record(Kind::Run, "b".to_owned())]);
    assert_eq!(names(scan("", 100)), ["a:1", "a:10", "b", "c"], "a removed record can be written again");
    let mut removed = Vec::new();
    let remove = &mut |key: String, _: &[u8]| {
        archive.remove(Kind::Run, std::slice::from_ref(&key))?;
        removed.push(key);
        Ok(())
    };
    archive.each(Kind::Run, remove).expect("a visited entry may be removed during the walk");
    assert_eq!(removed, ["a:1", "a:10", "b", "c"]);
    assert_eq!(each(Kind::Run), []);
    put(&["a", "b", "c", "d"].map(|key| record(Kind::Run, key.to_owned())));
    unchanged(archive, put);
}

/// Checks that a record is removed only if its value is unchanged. There are four runs: `a`, `b`, `c` and `d`.
fn unchanged(archive: &dyn Archive, put: &dyn Fn(&[Record])) {
    let all = |kind| archive.scan(kind, "", usize::MAX).expect("scan works");
    let names = || all(Kind::Run).into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    let mut found = all(Kind::Run);
    found[0].1.push(b'!');
    found.push(("not there".to_owned(), b"nothing".to_vec()));
    archive.remove_unchanged(Kind::Run, &found[..0]).expect("nothing is something");
    archive.remove_unchanged(Kind::Cancel, &found).expect("remove_unchanged works");
    assert_eq!(names(), ["a", "b", "c", "d"], "kinds do not mix");
    archive.remove_unchanged(Kind::Run, &found[2..3]).expect("remove_unchanged works");
    assert_eq!(names(), ["a", "b", "d"]);
    archive.remove_unchanged(Kind::Run, &found).expect("remove_unchanged works");
    assert_eq!(names(), ["a"], "a changed record stays");
    // More records than a store takes in one request.
    put(&(0..1200).map(|n| record(Kind::Attempt, format!("m:{n}"))).collect::<Vec<_>>());
    let mut found = all(Kind::Attempt);
    assert_eq!(found.len(), 1200);
    found[700].1.clear();
    archive.remove_unchanged(Kind::Attempt, &found).expect("remove_unchanged works");
    let left: Vec<String> = all(Kind::Attempt).into_iter().map(|(key, _)| key).collect();
    assert_eq!(left, [found[700].0.clone()]);
}
