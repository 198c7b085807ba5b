//! The main cases of [`super::ledger`]: each checks one promise and is named after it.

use std::time::Duration;

use super::{Bench, job, names, node, outcome, record, run};
use crate::blobs::StoreErrorKind;
use crate::ledger::{
    HeldStep, Job, Kind, Lease, Listing, Operation, Record, Renewal, Reply, Requirements, RunKey, Scope, Wait,
};

pub(super) type Case = (&'static str, fn(&Bench));

pub(super) const LEDGER: &[Case] = &[
    ("a record is written once and the first one stays", |b| {
        let first = Record { kind: Kind::Plugin, key: "a@1.0.0".into(), value: b"one".to_vec() };
        assert_eq!(b.one(Operation::Put { record: first.clone() }), Reply::Created);
        let second = Record { value: b"two".to_vec(), ..first.clone() };
        assert_eq!(b.one(Operation::Put { record: second }), Reply::Exists(b"one".to_vec()));
        let got = b.ledger.get(Kind::Plugin, &["a@1.0.0".into(), "b@1.0.0".into()]).expect("get works");
        assert_eq!(got, [Some(b"one".to_vec()), None]);
        assert_eq!(b.ledger.get(Kind::Pipeline, &["a@1.0.0".into()]).expect("get works"), [None], "kinds do not mix");
    }),
    ("records are listed in the order of insertion, by prefix, from either end", |b| {
        for key in ["b@1", "a@2", "a@1", "a_b@1"] {
            b.one(Operation::Put { record: record(Kind::Plugin, key.into()) });
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
        let again = Operation::Submit {
            run: key.clone(),
            record: record(Kind::Run, key.run.to_string()),
            jobs: vec![job("z", &[])],
            steps: names(),
        };
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
        assert_eq!(next.needs, [(node("a"), outcome(key.step("a"), true).value)]);
    }),
    ("a step is held while a worker leases it", |b| {
        let key = b.submit(1, &[job("a", &[]), job("b", &[])]);
        let holders = || b.ledger.held(&key).expect("held works");
        let held = || holders().into_iter().map(|held| held.step.to_string()).collect::<Vec<_>>();
        assert_eq!(held(), [""; 0]);
        let a = b.claim(1).remove(0);
        assert_eq!(
            holders(),
            [HeldStep { step: node("a"), worker: None }],
            "a program that sends no heartbeat is not a worker"
        );
        b.ledger.beat("w1", b"{}", Duration::from_secs(60)).expect("a beat works");
        assert_eq!(holders(), [HeldStep { step: node("a"), worker: Some("w1".into()) }]);
        assert_eq!(b.one(Operation::Release { lease: a.lease, delay: Duration::ZERO }), Reply::Created);
        assert_eq!(held(), [""; 0]);
        assert_eq!(b.claim(9).len(), 2);
        (b.advance)(b.lease * 5 / 4);
        assert_eq!(held(), [""; 0], "a lease that is over holds nothing");
    }),
    ("a scope keeps other runs out", |b| {
        if !b.scoped {
            let refused = b
                .ledger
                .claim(&Scope::Runs(vec![run(1).run]), 9, b.lease, Wait::NONE)
                .expect_err("it does not have them");
            assert_eq!(refused.kind, StoreErrorKind::Refused);
            return;
        }
        b.submit(1, &[job("a", &[])]);
        b.submit(2, &[job("b", &[])]);
        let scope = Scope::Runs(vec![run(2).run]);
        let got = b.ledger.claim(&scope, 9, b.lease, Wait::NONE).expect("claim works");
        assert_eq!(got.iter().map(|c| c.lease.step.as_str()).collect::<Vec<_>>(), ["b"]);
    }),
    ("a job is handed out only to workers with the required capabilities", |b| {
        let requirements = |text: &str| Requirements::parse(text);
        let jobs = [("a", ""), ("b", "clocks"), ("c", "clocks,model:m")]
            .map(|(step, text)| Job { requirements: requirements(text), ..job(step, &[]) });
        let key = b.submit(1, &jobs);
        let claim = |able: &[&str]| -> Vec<String> {
            let scope = Scope::Able(able.iter().map(|name| (*name).to_owned()).collect());
            let got = b.ledger.claim(&scope, 9, b.lease, Wait::NONE).expect("claim works");
            got.into_iter().map(|claimed| claimed.lease.step.to_string()).collect()
        };
        assert_eq!(
            claim(&["random"]),
            ["a"],
            "a worker without a required capability gets only the job that requires none"
        );
        assert_eq!(claim(&["model:m"]), [""; 0], "every required capability is needed");
        assert_eq!(claim(&["clocks", "random"]), ["b"]);
        (b.advance)(b.lease * 5 / 4);
        assert_eq!(claim(&[]), ["a"], "a job keeps its requirements when its lease expires");
        assert_eq!(b.one(Operation::Recover { run: key, jobs: jobs.to_vec(), steps: names() }), Reply::Created);
        assert_eq!(claim(&["clocks"]), ["b"]);
        assert_eq!(claim(&["clocks", "model:m"]), ["c"]);
    }),
    ("a finished child goes into its own lane", |b| {
        b.submit(1, &[job("a", &[])]);
        let a = b.claim(1).remove(0);
        let child = Job { requirements: Requirements::parse("clocks"), ..job("b", &["a"]) };
        assert_eq!(b.finish(&a.lease, &[child]), Reply::Created);
        let claim = |able: &[String]| {
            b.ledger.claim(&Scope::Able(able.to_vec()), 9, b.lease, Wait::NONE).expect("claim works").len()
        };
        assert_eq!(claim(&[]), 0);
        assert_eq!(claim(&["clocks".to_owned()]), 1);
    }),
    ("living workers are listed until they are silent", |b| {
        let names = || b.ledger.workers().expect("workers works").into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(), [""; 0]);
        b.ledger.beat("one", b"first", b.lease).expect("beat works");
        b.ledger.beat("two", b"second", b.lease * 3).expect("beat works");
        b.ledger.beat("one", b"again", b.lease).expect("beat works");
        assert_eq!(
            b.ledger.workers().expect("workers works"),
            [("one".to_owned(), b"again".to_vec()), ("two".to_owned(), b"second".to_vec())]
        );
        (b.advance)(b.lease * 3 / 2);
        assert_eq!(names(), ["two"]);
        b.ledger.beat("two", b"good night", Duration::ZERO).expect("beat works");
        assert_eq!(names(), [""; 0], "a worker whose heartbeat expires at once is not listed");
    }),
    ("a re-run takes over the succeeded steps", |b| {
        let first = b.submit(1, &[job("a", &[])]);
        let a = b.claim(1).remove(0);
        assert_eq!(b.finish(&a.lease, &[]), Reply::Last);
        assert_eq!(b.close(&first), Reply::Created);
        let second = RunKey { generation: 1, ..first };
        assert_eq!(b.one(Operation::Inherit { record: outcome(second.step("a"), true) }), Reply::Created);
        let jobs = vec![job("a", &[]), job("b", &["a"])];
        assert_eq!(b.one(Operation::Recover { run: second.clone(), jobs, steps: names() }), Reply::Created);
        let claimed = b.claim(9);
        assert_eq!(claimed.iter().map(|c| c.lease.step.as_str()).collect::<Vec<_>>(), ["b"]);
        assert_eq!(claimed[0].needs, [(node("a"), outcome(second.step("a"), true).value)]);
    }),
    ("a change without a waiting caller is applied and reported", |b| {
        let key = b.submit(1, &[job("a", &[]), job("b", &[])]);
        let (reply, replied) = std::sync::mpsc::channel();
        let claimed = b.claim(9);
        for claimed in &claimed {
            let record = outcome(key.step(&claimed.lease.step), true);
            let item = Operation::Finish {
                lease: claimed.lease.clone(),
                record,
                succeeded: true,
                close: None,
                children: vec![job("c", &["a", "b"])],
            };
            let reply = reply.clone();
            b.ledger.commit_then(vec![item], Box::new(move |replies| drop(reply.send(replies))));
        }
        assert_eq!(claimed.len(), 2);
        for _ in claimed {
            let replies = replied.recv_timeout(Duration::from_secs(20)).expect("it is told").expect("it is applied");
            assert_eq!(replies, [Reply::Created]);
        }
        assert_eq!(b.steps(9), ["c"]);
    }),
    ("a join starts when the last of its needs is there, and once", |b| {
        b.submit(1, &[job("a", &[]), job("b", &[])]);
        let claimed = b.claim(9);
        assert_eq!(b.finish(&claimed[0].lease, &[job("c", &["a", "b"])]), Reply::Created);
        assert_eq!(b.steps(9), [""; 0], "b is missing");
        assert_eq!(b.finish(&claimed[1].lease, &[job("c", &["a", "b"])]), Reply::Created);
        assert_eq!(b.steps(9), ["c"]);
    }),
    ("a run that has begun is finished before a new run begins", |b| {
        for n in 1..4 {
            b.submit(n, &[job("a", &[])]);
        }
        let a = b.claim(1).remove(0);
        assert_eq!(a.lease.run, run(1));
        assert_eq!(b.finish(&a.lease, &[job("b", &["a"]), job("c", &["a"])]), Reply::Created);
        let order: Vec<(RunKey, String)> =
            b.claim(9).into_iter().map(|c| (c.lease.run, c.lease.step.to_string())).collect();
        assert_eq!(
            order,
            [(run(1), "b".to_owned()), (run(1), "c".to_owned()), (run(2), "a".to_owned()), (run(3), "a".to_owned())]
        );
    }),
    ("a failed step starts no child", |b| {
        b.submit(1, &[job("a", &[]), job("b", &[])]);
        let a = b.claim(1).remove(0);
        let record = outcome(a.lease.run.step("a"), false);
        let reply = b.one(Operation::Finish {
            lease: a.lease,
            record,
            succeeded: false,
            close: None,
            children: vec![job("c", &["a"])],
        });
        assert_eq!(reply, Reply::Created);
        assert_eq!(b.steps(9), ["b"]);
    }),
    ("an outcome is recorded once: the second writer learns the first one's", |b| {
        b.submit(1, &[job("a", &[]), job("b", &[])]);
        let a = b.claim(1).remove(0);
        assert_eq!(b.finish(&a.lease, &[]), Reply::Created);
        let other = Record { value: b"late".to_vec(), ..outcome(a.lease.run.step("a"), true) };
        let reply = b.one(Operation::Finish {
            lease: a.lease,
            record: other,
            succeeded: true,
            close: None,
            children: vec![job("z", &[])],
        });
        assert!(matches!(reply, Reply::Exists(v) if v != b"late"));
        assert_eq!(b.steps(9), ["b"], "the children in the second outcome are not enqueued");
    }),
    ("the last step keeps its job until the run is closed", |b| {
        let key = b.submit(1, &[job("a", &[])]);
        let a = b.claim(1).remove(0);
        assert_eq!(b.finish(&a.lease, &[]), Reply::Last);
        (b.advance)(b.lease * 5 / 4);
        let again = b.claim(9);
        assert_eq!(again.len(), 1, "the claimer finds the outcome and closes the run");
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
        assert_eq!(
            b.one(Operation::Finish { lease: a.lease, record: outcome, succeeded: false, close, children: vec![] }),
            Reply::Created
        );
        assert_eq!(b.steps(9), [""; 0], "the other job went with the run");
        assert!(b.ledger.get(Kind::RunOutcome, &[key.key()]).expect("get works")[0].is_some());
        assert!(matches!(b.close(&key), Reply::Exists(_)), "a run ends once");
    }),
    ("a step that finishes after the end of its run is recorded and starts nothing", |b| {
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
        assert_eq!(b.one(Operation::Release { lease: old.lease.clone(), delay: Duration::ZERO }), Reply::NotOwner);
        let retry = record(Kind::Attempt, old.lease.run.attempt("a", 2));
        assert_eq!(b.one(Operation::Retry { lease: old.lease, record: retry, delay: Duration::ZERO }), Reply::NotOwner);
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
        assert_eq!(b.one(Operation::Retry { lease: a.lease, record: retry, delay: b.lease }), Reply::Created);
        (b.advance)(b.lease / 2);
        assert_eq!(b.steps(1), [""; 0]);
        (b.advance)(b.lease * 3 / 4);
        let again = b.claim(1).remove(0);
        assert_eq!((again.attempt, again.crashes, again.verify), (2, 0, true));
        assert!(b.ledger.get(Kind::Attempt, &[key.attempt("a", 2)]).expect("get works")[0].is_some());
    }),
    ("the leases that lapsed over a job are counted through its attempts", |b| {
        let key = b.submit(1, &[job("a", &[])]);
        b.claim(1);
        (b.advance)(b.lease * 5 / 4);
        let a = b.claim(1).remove(0);
        assert_eq!((a.attempt, a.crashes), (1, 1));
        let retry = record(Kind::Attempt, key.attempt("a", 2));
        assert_eq!(b.one(Operation::Retry { lease: a.lease, record: retry, delay: Duration::ZERO }), Reply::Created);
        let again = b.claim(1).remove(0);
        assert_eq!((again.attempt, again.crashes), (2, 1));
        (b.advance)(b.lease * 5 / 4);
        let again = b.claim(1).remove(0);
        assert_eq!((again.attempt, again.crashes), (2, 2));
    }),
    ("a released job is free at once and nothing is charged", |b| {
        b.submit(1, &[job("a", &[])]);
        let a = b.claim(1).remove(0);
        assert_eq!(b.one(Operation::Release { lease: a.lease.clone(), delay: Duration::ZERO }), Reply::Created);
        let again = b.claim(1).remove(0);
        assert_eq!((again.attempt, again.crashes), (1, 0));
        assert_ne!(again.lease.token, a.lease.token, "a token is never given twice");
    }),
    ("a cancelled run starts nothing new and its holders learn it", |b| {
        let key = b.submit(1, &[job("a", &[]), job("b", &[])]);
        let a = b.claim(1).remove(0);
        let cancel = Operation::Cancel { run: key.clone(), record: record(Kind::Cancel, key.key()) };
        assert_eq!(b.one(cancel.clone()), Reply::Created);
        assert!(matches!(b.one(cancel.clone()), Reply::Exists(_)));
        assert_eq!(b.renew(&a.lease), Renewal::Lost);
        assert_eq!(b.finish(&a.lease, &[job("c", &["a"])]), Reply::Cancelled);
        let rest = b.claim(9);
        assert!(
            rest.iter().all(|c| c.verify && c.lease.step == "b"),
            "queued jobs are handed out only to be verified: {rest:?}"
        );
        assert_eq!(b.close(&key), Reply::Created);
        assert_eq!(b.one(cancel), Reply::Closed, "too late");
    }),
    ("recovering enqueues the missing jobs, to be verified, and no job twice", |b| {
        let key = b.submit(1, &[job("a", &[]), job("b", &[])]);
        let a = b.claim(1).remove(0);
        assert_eq!(b.finish(&a.lease, &[]), Reply::Created);
        let jobs = vec![job("a", &[]), job("b", &[]), job("c", &["a"]), job("d", &["b"])];
        assert_eq!(b.one(Operation::Recover { run: key.clone(), jobs: jobs.clone(), steps: names() }), Reply::Created);
        let got: Vec<(String, bool)> = b.claim(9).into_iter().map(|c| (c.lease.step.to_string(), c.verify)).collect();
        assert_eq!(got, [("b".into(), false), ("c".into(), true)], "a is done, b was queued, d needs b");
        assert_eq!(b.close(&key), Reply::Created);
        assert_eq!(b.one(Operation::Recover { run: key, jobs, steps: names() }), Reply::Closed);
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
        assert_eq!(
            b.one(Operation::Recover { run: second.clone(), jobs: vec![job("a", &[])], steps: names() }),
            Reply::Created
        );
        let again = b.claim(9).remove(0);
        assert_eq!(again.lease.run, second);
        assert!(!again.run.is_empty(), "the run's record comes along");
        assert_eq!(b.finish(&again.lease, &[]), Reply::Last);
    }),
    ("many items are answered one by one, in order", |b| {
        let key = run(1);
        let items = [
            Operation::Put { record: record(Kind::Plugin, "p@1".into()) },
            Operation::Put { record: record(Kind::Plugin, "p@1".into()) },
            Operation::Submit {
                run: key.clone(),
                record: record(Kind::Run, key.run.to_string()),
                jobs: vec![job("a", &[])],
                steps: names(),
            },
            Operation::Close { run: key.clone(), record: record(Kind::RunOutcome, key.key()) },
            Operation::Release { lease: Lease { run: key, step: node("a"), token: 1 }, delay: Duration::ZERO },
        ];
        let replies = b.ledger.commit(&items).expect("commit works");
        assert!(
            matches!(
                replies.as_slice(),
                [Reply::Created, Reply::Exists(_), Reply::Created, Reply::Created, Reply::NotOwner]
            ),
            "{replies:?}"
        );
    }),
    ("a released job can be put off", |b| {
        b.submit(1, &[job("a", &[])]);
        let a = b.claim(1).remove(0);
        assert_eq!(b.one(Operation::Release { lease: a.lease, delay: b.lease }), Reply::Created);
        (b.advance)(b.lease / 2);
        assert_eq!(b.steps(1), [""; 0]);
        (b.advance)(b.lease * 3 / 4);
        assert_eq!(b.steps(1), ["a"]);
    }),
];
