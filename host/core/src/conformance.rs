//! What every backend of a port promises, as cases that each backend runs. A case panics where the promise is broken, naming it.
//! The suite itself is proved by backends that are broken on purpose (`tests/conformance.rs`).

use std::sync::Arc;
use std::time::Duration;

use crate::blobs::{BlobKind, Blobs, StoreErrorKind};
use crate::executor::{Failure, FailureKind};
use crate::id::{Digest, RunId};
use crate::ledger::{Claimed, Item, Job, Kind, Lease, Ledger, Listing, Record, Renewal, Reply, RunKey, Scope, Wait};
use crate::memory::ManualClock;
use crate::record::{Form, OutcomeRecord, StoredValue};

/// A fresh, empty backend, and how its time passes.
pub struct Bench {
    pub ledger: Arc<dyn Ledger>,
    /// How long the cases lease a job. Where time is real, short, but long against the time that a few calls take.
    pub lease: Duration,
    /// Lets this much of the backend's time pass.
    pub advance: Box<dyn Fn(Duration) + Send + Sync>,
    /// It hands out the work of some runs only, where asked to.
    pub scoped: bool,
}

/// Makes a fresh, empty backend.
pub type MakeLedger<'a> = &'a dyn Fn() -> Bench;

/// For a backend that reads a clock which moves only when it is told to.
pub fn with_manual_clock(make: impl Fn(Arc<ManualClock>) -> Arc<dyn Ledger>) -> impl Fn() -> Bench {
    move || {
        let clock = Arc::new(ManualClock::default());
        let ledger = make(clock.clone());
        Bench { ledger, lease: Duration::from_secs(10), advance: Box::new(move |by| clock.advance(by)), scoped: true }
    }
}

fn run(n: u8) -> RunKey {
    RunKey { run: RunId::from_bytes([n; 16]), generation: 0 }
}

fn record(kind: Kind, key: String) -> Record {
    let value = format!("value of {} {key}", kind.name()).into_bytes();
    Record { kind, key, value }
}

/// A real outcome: backends that rebuild their jobs from records must read it. The package tells whose it is.
fn outcome(key: String, succeeded: bool) -> Record {
    let (output, failure) = if succeeded {
        (Some(StoredValue::Inline(serde_json::json!({}))), None)
    } else {
        (None, Some(Failure::new(FailureKind::Failed, "no_luck", "it did not work")))
    };
    let package = Digest::of(key.as_bytes());
    let (attempts, models, consumed, produced) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (log, log_dropped, spent_us, started_ms, finished_ms) = (None, 0, 0, 0, 0);
    let value = OutcomeRecord { output, failure, attempts, package, models, consumed, produced, log, log_dropped, spent_us, started_ms, finished_ms };
    Record { kind: Kind::Outcome, key, value: value.encode() }
}

fn job(step: &str, needs: &[&str]) -> Job {
    Job { step: step.into(), needs: needs.iter().map(|n| (*n).to_owned()).collect(), attempt: 1 }
}

impl Bench {
    fn one(&self, item: Item) -> Reply {
        let mut replies = self.ledger.commit(&[item]).expect("commit works");
        assert_eq!(replies.len(), 1, "one reply an item");
        replies.remove(0)
    }

    fn submit(&self, n: u8, jobs: &[Job]) -> RunKey {
        let key = run(n);
        let item = Item::Submit { run: key.clone(), record: record(Kind::Run, key.run.to_string()), jobs: jobs.to_vec() };
        assert_eq!(self.one(item), Reply::Created, "a first submission creates");
        key
    }

    fn claim(&self, want: usize) -> Vec<Claimed> {
        self.ledger.claim(&Scope::All, want, self.lease, Wait::NONE).expect("claim works")
    }

    fn steps(&self, want: usize) -> Vec<String> {
        self.claim(want).into_iter().map(|c| c.lease.step).collect()
    }

    fn finish(&self, lease: &Lease, children: &[Job]) -> Reply {
        let record = outcome(lease.run.step(&lease.step), true);
        self.one(Item::Finish { lease: lease.clone(), record, succeeded: true, close: None, children: children.to_vec() })
    }

    fn renew(&self, lease: &Lease) -> Renewal {
        self.ledger.renew(std::slice::from_ref(lease), self.lease).expect("renew works").remove(0)
    }

    fn close(&self, key: &RunKey) -> Reply {
        self.one(Item::Close { run: key.clone(), record: record(Kind::RunOutcome, key.key()) })
    }
}

type Case = (&'static str, fn(&Bench));

const LEDGER: &[Case] = &[
    ("a record is written once and the first one stays", |b| {
        let first = Record { kind: Kind::Plugin, key: "a@1.0.0".into(), value: b"one".to_vec() };
        assert_eq!(b.one(Item::Put { record: first.clone() }), Reply::Created);
        let second = Record { value: b"two".to_vec(), ..first.clone() };
        assert_eq!(b.one(Item::Put { record: second }), Reply::Exists(b"one".to_vec()));
        let got = b.ledger.get(Kind::Plugin, &["a@1.0.0".into(), "b@1.0.0".into()]).expect("get works");
        assert_eq!(got, [Some(b"one".to_vec()), None]);
        assert_eq!(b.ledger.get(Kind::Pipeline, &["a@1.0.0".into()]).expect("get works"), [None], "kinds do not mix");
    }),
    ("records are listed in the order of insertion, by prefix, from either end", |b| {
        for key in ["b@1", "a@2", "a@1", "a_b@1"] {
            b.one(Item::Put { record: record(Kind::Plugin, key.into()) });
        }
        let keys = |prefix: &str, limit, newest_first| -> Vec<String> {
            let listing = Listing { prefix: prefix.into(), limit, newest_first };
            b.ledger.list(Kind::Plugin, &listing).expect("list works").into_iter().map(|(key, _)| key).collect()
        };
        assert_eq!(keys("", 10, false), ["b@1", "a@2", "a@1", "a_b@1"]);
        assert_eq!(keys("a@", 10, true), ["a@1", "a@2"]);
        assert_eq!(keys("", 1, true), ["a_b@1"]);
        assert_eq!(keys("a_", 10, false), ["a_b@1"], "a prefix is taken literally");
        assert_eq!(keys("%", 10, false), [""; 0]);
    }),
    ("a job is handed out once", |b| {
        b.submit(1, &[job("a", &[]), job("b", &[])]);
        assert_eq!(b.steps(1), ["a"], "the oldest first");
        assert_eq!(b.steps(9), ["b"]);
        assert_eq!(b.steps(9), [""; 0]);
    }),
    ("submitting again creates nothing", |b| {
        let key = b.submit(1, &[job("a", &[])]);
        let again = Item::Submit { run: key.clone(), record: record(Kind::Run, key.run.to_string()), jobs: vec![job("z", &[])] };
        assert!(matches!(b.one(again), Reply::Exists(_)));
        assert_eq!(b.steps(9), ["a"]);
    }),
    ("a claim brings the run, and the outcomes that the job needs", |b| {
        let key = b.submit(1, &[job("a", &[])]);
        let a = b.claim(1).remove(0);
        assert_eq!(a.run, format!("value of run {}", key.run).into_bytes());
        assert!(a.attempt == 1 && a.crashes == 0 && !a.verify && a.needs.is_empty());
        assert_eq!(b.finish(&a.lease, &[job("b", &["a"])]), Reply::Created);
        let next = b.claim(9).remove(0);
        assert_eq!(next.needs, [("a".into(), outcome(key.step("a"), true).value)]);
    }),
    ("a step is held while somebody leases it", |b| {
        let key = b.submit(1, &[job("a", &[]), job("b", &[])]);
        let held = || b.ledger.held(&key).expect("held works");
        assert_eq!(held(), [""; 0]);
        let a = b.claim(1).remove(0);
        assert_eq!(held(), ["a"]);
        assert_eq!(b.one(Item::Release { lease: a.lease, delay: Duration::ZERO }), Reply::Created);
        assert_eq!(held(), [""; 0]);
        assert_eq!(b.claim(9).len(), 2);
        (b.advance)(b.lease * 5 / 4);
        assert_eq!(held(), [""; 0], "a lease that is over holds nothing");
    }),
    ("a scope keeps other runs out", |b| {
        if !b.scoped {
            let refused = b.ledger.claim(&Scope::Runs(vec![run(1).run]), 9, b.lease, Wait::NONE).expect_err("it does not have them");
            assert_eq!(refused.kind, StoreErrorKind::Refused);
            return;
        }
        b.submit(1, &[job("a", &[])]);
        b.submit(2, &[job("b", &[])]);
        let scope = Scope::Runs(vec![run(2).run]);
        let got = b.ledger.claim(&scope, 9, b.lease, Wait::NONE).expect("claim works");
        assert_eq!(got.iter().map(|c| c.lease.step.as_str()).collect::<Vec<_>>(), ["b"]);
    }),
    ("a join starts when the last of its needs is there, and once", |b| {
        b.submit(1, &[job("a", &[]), job("b", &[])]);
        let claimed = b.claim(9);
        assert_eq!(b.finish(&claimed[0].lease, &[job("c", &["a", "b"])]), Reply::Created);
        assert_eq!(b.steps(9), [""; 0], "b is missing");
        assert_eq!(b.finish(&claimed[1].lease, &[job("c", &["a", "b"])]), Reply::Created);
        assert_eq!(b.steps(9), ["c"]);
    }),
    ("a failed step starts no child", |b| {
        b.submit(1, &[job("a", &[]), job("b", &[])]);
        let a = b.claim(1).remove(0);
        let record = outcome(a.lease.run.step("a"), false);
        let reply = b.one(Item::Finish { lease: a.lease, record, succeeded: false, close: None, children: vec![job("c", &["a"])] });
        assert_eq!(reply, Reply::Created);
        assert_eq!(b.steps(9), ["b"]);
    }),
    ("an outcome is recorded once: the second writer learns the first one's", |b| {
        b.submit(1, &[job("a", &[]), job("b", &[])]);
        let a = b.claim(1).remove(0);
        assert_eq!(b.finish(&a.lease, &[]), Reply::Created);
        let other = Record { value: b"late".to_vec(), ..outcome(a.lease.run.step("a"), true) };
        let reply = b.one(Item::Finish { lease: a.lease, record: other, succeeded: true, close: None, children: vec![job("z", &[])] });
        assert!(matches!(reply, Reply::Exists(v) if v != b"late"));
        assert_eq!(b.steps(9), ["b"], "what the loser offered is not enqueued");
    }),
    ("the last step keeps its job until the run is closed", |b| {
        let key = b.submit(1, &[job("a", &[])]);
        let a = b.claim(1).remove(0);
        assert_eq!(b.finish(&a.lease, &[]), Reply::Last);
        (b.advance)(b.lease * 5 / 4);
        let again = b.claim(9);
        assert_eq!(again.len(), 1, "whoever takes it finds the outcome and closes the run");
        assert!(again[0].verify);
        assert_eq!(b.close(&key), Reply::Created);
        (b.advance)(b.lease * 2);
        assert_eq!(b.steps(9), [""; 0]);
        assert!(b.ledger.open_runs(9).expect("open_runs works").is_empty());
    }),
    ("a step that closes its run does so in the same change", |b| {
        let key = b.submit(1, &[job("a", &[]), job("b", &[])]);
        let a = b.claim(1).remove(0);
        let outcome = outcome(key.step("a"), false);
        let close = Some(record(Kind::RunOutcome, key.key()));
        assert_eq!(b.one(Item::Finish { lease: a.lease, record: outcome, succeeded: false, close, children: vec![] }), Reply::Created);
        assert_eq!(b.steps(9), [""; 0], "the other job went with the run");
        assert!(b.ledger.get(Kind::RunOutcome, &[key.key()]).expect("get works")[0].is_some());
        assert!(matches!(b.close(&key), Reply::Exists(_)), "a run ends once");
    }),
    ("what finishes after the end of its run is recorded and starts nothing", |b| {
        let key = b.submit(1, &[job("a", &[]), job("b", &[])]);
        let claimed = b.claim(9);
        assert_eq!(b.close(&key), Reply::Created);
        assert_eq!(b.finish(&claimed[0].lease, &[job("c", &["a"])]), Reply::Closed);
        assert_eq!(b.steps(9), [""; 0]);
        assert_eq!(b.ledger.renew(&[claimed[1].lease.clone()], b.lease).expect("renew works"), [Renewal::Lost]);
    }),
    ("a lease that lapses passes the job on, and the old token opens nothing", |b| {
        b.submit(1, &[job("a", &[]), job("b", &[])]);
        let old = b.claim(1).remove(0);
        (b.advance)(b.lease / 2);
        assert_eq!(b.steps(1), ["b"], "a is still leased");
        (b.advance)(b.lease * 3 / 4);
        let new = b.claim(1).remove(0);
        assert_eq!((new.lease.step.as_str(), new.crashes, new.attempt, new.verify), ("a", 1, 1, true));
        assert_eq!(b.renew(&old.lease), Renewal::Lost);
        assert_eq!(b.one(Item::Release { lease: old.lease.clone(), delay: Duration::ZERO }), Reply::NotOwner);
        let retry = record(Kind::Attempt, old.lease.run.attempt("a", 2));
        assert_eq!(b.one(Item::Retry { lease: old.lease, record: retry, delay: Duration::ZERO }), Reply::NotOwner);
        assert_eq!(b.renew(&new.lease), Renewal::Renewed);
    }),
    ("a renewed lease holds for as long again", |b| {
        b.submit(1, &[job("a", &[])]);
        let a = b.claim(1).remove(0);
        for _ in 0..5 {
            (b.advance)(b.lease / 2);
            assert_eq!(b.renew(&a.lease), Renewal::Renewed);
            assert_eq!(b.steps(1), [""; 0]);
        }
    }),
    ("a retry comes back when it is due, with its number, to be verified", |b| {
        let key = b.submit(1, &[job("a", &[])]);
        let a = b.claim(1).remove(0);
        let retry = record(Kind::Attempt, key.attempt("a", 2));
        assert_eq!(b.one(Item::Retry { lease: a.lease, record: retry, delay: b.lease }), Reply::Created);
        (b.advance)(b.lease / 2);
        assert_eq!(b.steps(1), [""; 0]);
        (b.advance)(b.lease * 3 / 4);
        let again = b.claim(1).remove(0);
        assert_eq!((again.attempt, again.crashes, again.verify), (2, 0, true));
        assert!(b.ledger.get(Kind::Attempt, &[key.attempt("a", 2)]).expect("get works")[0].is_some());
    }),
    ("a released job is free at once and nothing is charged", |b| {
        b.submit(1, &[job("a", &[])]);
        let a = b.claim(1).remove(0);
        assert_eq!(b.one(Item::Release { lease: a.lease.clone(), delay: Duration::ZERO }), Reply::Created);
        let again = b.claim(1).remove(0);
        assert_eq!((again.attempt, again.crashes), (1, 0));
        assert_ne!(again.lease.token, a.lease.token, "a token is never given twice");
    }),
    ("a cancelled run starts nothing new and its holders learn it", |b| {
        let key = b.submit(1, &[job("a", &[]), job("b", &[])]);
        let a = b.claim(1).remove(0);
        let cancel = Item::Cancel { run: key.clone(), record: record(Kind::Cancel, key.key()) };
        assert_eq!(b.one(cancel.clone()), Reply::Created);
        assert!(matches!(b.one(cancel.clone()), Reply::Exists(_)));
        assert_eq!(b.renew(&a.lease), Renewal::Lost);
        assert_eq!(b.finish(&a.lease, &[job("c", &["a"])]), Reply::Cancelled);
        let rest = b.claim(9);
        assert!(rest.iter().all(|c| c.verify && c.lease.step == "b"), "what was queued comes only to be verified: {rest:?}");
        assert_eq!(b.close(&key), Reply::Created);
        assert_eq!(b.one(cancel), Reply::Closed, "too late");
    }),
    ("recovering enqueues what is missing, to be verified, and nothing twice", |b| {
        let key = b.submit(1, &[job("a", &[]), job("b", &[])]);
        let a = b.claim(1).remove(0);
        assert_eq!(b.finish(&a.lease, &[]), Reply::Created);
        let jobs = vec![job("a", &[]), job("b", &[]), job("c", &["a"]), job("d", &["b"])];
        assert_eq!(b.one(Item::Recover { run: key.clone(), jobs: jobs.clone() }), Reply::Created);
        let got: Vec<(String, bool)> = b.claim(9).into_iter().map(|c| (c.lease.step, c.verify)).collect();
        assert_eq!(got, [("b".into(), false), ("c".into(), true)], "a is done, b was queued, d needs b");
        assert_eq!(b.close(&key), Reply::Created);
        assert_eq!(b.one(Item::Recover { run: key, jobs }), Reply::Closed);
        assert_eq!(b.steps(9), [""; 0]);
    }),
    ("open runs are those without an outcome, the oldest first", |b| {
        for n in 1..4 {
            b.submit(n, &[job("a", &[])]);
        }
        assert_eq!(b.close(&run(2)), Reply::Created);
        assert_eq!(b.ledger.open_runs(9).expect("open_runs works"), [run(1), run(3)]);
        assert_eq!(b.ledger.open_runs(1).expect("open_runs works"), [run(1)]);
    }),
    ("a generation has its own outcomes and jobs", |b| {
        let first = b.submit(1, &[job("a", &[])]);
        let a = b.claim(1).remove(0);
        assert_eq!(b.finish(&a.lease, &[]), Reply::Last);
        assert_eq!(b.close(&first), Reply::Created);
        let second = RunKey { generation: 1, ..first };
        assert_eq!(b.one(Item::Recover { run: second.clone(), jobs: vec![job("a", &[])] }), Reply::Created);
        let again = b.claim(9).remove(0);
        assert_eq!(again.lease.run, second);
        assert!(!again.run.is_empty(), "the run's record comes along");
        assert_eq!(b.finish(&again.lease, &[]), Reply::Last);
    }),
    ("many items are answered one by one, in order", |b| {
        let key = run(1);
        let items = [
            Item::Put { record: record(Kind::Plugin, "p@1".into()) },
            Item::Put { record: record(Kind::Plugin, "p@1".into()) },
            Item::Submit { run: key.clone(), record: record(Kind::Run, key.run.to_string()), jobs: vec![job("a", &[])] },
            Item::Close { run: key.clone(), record: record(Kind::RunOutcome, key.key()) },
            Item::Release { lease: Lease { run: key, step: "a".into(), token: 1 }, delay: Duration::ZERO },
        ];
        let replies = b.ledger.commit(&items).expect("commit works");
        assert!(matches!(replies.as_slice(), [Reply::Created, Reply::Exists(_), Reply::Created, Reply::Created, Reply::NotOwner]), "{replies:?}");
    }),
    ("a waiting claimer is woken by new work, and by `wake`", |b| {
        // A healthy backend never sleeps it out.
        let at_most = Duration::from_secs(3);
        let wait = || b.ledger.claim(&Scope::All, 1, b.lease, Wait { seen: b.ledger.wakes(), at_most }).expect("claim works");
        std::thread::scope(|s| {
            let waiting = s.spawn(wait);
            b.submit(1, &[job("a", &[])]);
            // The submission may have come before the claimer looked, or wake it.
            assert!(waiting.join().expect("no panic").len() + b.claim(1).len() == 1);
        });
        let seen = b.ledger.wakes();
        b.ledger.wake();
        let started = std::time::Instant::now();
        assert!(b.ledger.claim(&Scope::All, 1, b.lease, Wait { seen, at_most }).expect("claim works").is_empty());
        assert!(started.elapsed() < at_most, "a wake before the wait is not slept through");
        std::thread::scope(|s| {
            let waiting = s.spawn(wait);
            while !waiting.is_finished() {
                b.ledger.wake();
                std::thread::yield_now();
            }
            assert!(waiting.join().expect("no panic").is_empty());
        });
    }),
    ("a released job can be put off", |b| {
        b.submit(1, &[job("a", &[])]);
        let a = b.claim(1).remove(0);
        assert_eq!(b.one(Item::Release { lease: a.lease, delay: b.lease }), Reply::Created);
        (b.advance)(b.lease / 2);
        assert_eq!(b.steps(1), [""; 0]);
        (b.advance)(b.lease * 3 / 4);
        assert_eq!(b.steps(1), ["a"]);
    }),
    ("many claimers at once never share a job", |b| {
        let steps: Vec<Job> = (0..200).map(|n| job(&format!("s{n}"), &[])).collect();
        b.submit(1, &steps);
        let mut all: Vec<String> = std::thread::scope(|s| {
            let claimers: Vec<_> = (0..4)
                .map(|_| {
                    s.spawn(|| {
                        let mut mine = Vec::new();
                        // Bounded, so that a backend that hands out the same job for ever fails instead of filling the memory.
                        while mine.len() <= 200 {
                            let got = b.steps(7);
                            if got.is_empty() {
                                break;
                            }
                            mine.extend(got);
                        }
                        mine
                    })
                })
                .collect();
            claimers.into_iter().flat_map(|c| c.join().expect("no panic")).collect()
        });
        assert_eq!(all.len(), 200);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 200);
    }),
];

/// Runs every case on a fresh backend.
///
/// # Panics
/// Where a promise is broken, naming the case.
pub fn ledger(make: MakeLedger<'_>) {
    let broken = broken_promises(make);
    assert!(broken.is_empty(), "broken promises: {broken:#?}");
}

/// The cases that this backend fails.
pub fn broken_promises(make: MakeLedger<'_>) -> Vec<&'static str> {
    let mut broken = Vec::new();
    for (name, case) in LEDGER {
        let bench = make();
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&bench))).is_err() {
            broken.push(*name);
        }
    }
    broken
}

/// What every [`Blobs`] promises.
///
/// # Panics
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
