//! Cases of [`super::ledger`] about jobs that were put back, and about runs that were removed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::cases::Case;
use super::{Bench, job, names, record, run};
use crate::ledger::{Job, Kind, Lease, Operation, Renewal, Reply, RunKey};

/// The number of jobs that a worker has in hand when it drains.
const MANY: usize = 100;

/// Checks that the job is ready `leases` lease lengths from now and not earlier, and that no crash was charged.
fn comes_back(b: &Bench, leases: u32, attempt: u32) {
    (b.advance)(b.lease * 3 / 2);
    assert!(b.steps(9).is_empty(), "the job is not due, and no worker leases it");
    (b.advance)(b.lease * (leases - 1));
    let again = b.claim(9);
    let facts: Vec<_> = again.iter().map(|c| (c.lease.step.as_str(), c.attempt, c.crashes)).collect();
    assert_eq!(facts, [("a", attempt, 0)], "no crash was charged");
}

pub(super) const LEDGER: &[Case] = &[
    ("a released job stays back, however late its lease is renewed", |b| {
        b.submit(1, &[job("a", &[])]);
        let a = b.claim(1).remove(0);
        assert_eq!(b.one(Operation::Release { lease: a.lease.clone(), delay: b.lease * 3 }), Reply::Created);
        assert_eq!(b.renew(&a.lease), Renewal::Lost);
        assert!(b.ledger.held(&run(1)).expect("held works").is_empty());
        (b.advance)(b.lease / 2);
        assert_eq!(b.renew(&a.lease), Renewal::Lost);
        comes_back(b, 3, 1);
    }),
    ("a retry stays back, however late its lease is renewed", |b| {
        let key = b.submit(1, &[job("a", &[])]);
        let a = b.claim(1).remove(0);
        let retry = record(Kind::Attempt, key.attempt("a", 2));
        let item = Operation::Retry { lease: a.lease.clone(), record: retry, delay: b.lease * 3 };
        assert_eq!(b.one(item), Reply::Created);
        assert_eq!(b.renew(&a.lease), Renewal::Lost);
        comes_back(b, 3, 2);
    }),
    ("jobs that a draining worker releases stay released while it renews its leases", |b| {
        let jobs: Vec<Job> = (0..MANY).map(|n| job(&format!("s{n}"), &[])).collect();
        b.submit(1, &jobs);
        let leases: Vec<Lease> = b.claim(MANY).into_iter().map(|claimed| claimed.lease).collect();
        assert_eq!(leases.len(), MANY);
        let over = AtomicBool::new(false);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    b.ledger.renew(&leases, b.lease).expect("renew works");
                }
            });
            for lease in &leases {
                let item = Operation::Release { lease: lease.clone(), delay: b.lease * 8 };
                assert_eq!(b.one(item), Reply::Created);
            }
            over.store(true, Ordering::SeqCst);
        });
        (b.advance)(b.lease * 3 / 2);
        assert!(b.steps(MANY).is_empty(), "no job is due, and no worker leases one");
        (b.advance)(b.lease * 15 / 2);
        // A claim may return fewer jobs than it asks for.
        let mut again = b.claim(MANY);
        while again.len() < MANY {
            let more = b.claim(MANY);
            assert!(!more.is_empty(), "{} of {MANY} came back", again.len());
            again.extend(more);
        }
        assert!(again.iter().all(|claimed| claimed.crashes == 0), "no crash was charged");
    }),
    ("a lease that was let go lapses like any other", |b| {
        b.submit(1, &[job("a", &[])]);
        let a = b.claim(1).remove(0);
        b.ledger.let_go(&a.lease);
        assert!(b.steps(9).is_empty(), "it holds until then");
        (b.advance)(b.lease * 5 / 4);
        let again = b.claim(9);
        assert_eq!(again.iter().map(|c| c.crashes).collect::<Vec<_>>(), [1]);
        assert_eq!(b.one(Operation::Release { lease: a.lease, delay: Duration::ZERO }), Reply::NotOwner);
    }),
    ("a run whose record is gone is not brought back", |b| {
        let key = run(1);
        let recover = Operation::Recover { run: key.clone(), jobs: vec![job("a", &[])], steps: names() };
        assert_eq!(b.one(recover), Reply::Closed);
        let next = RunKey { generation: 1, ..key };
        let reopen = Operation::Reopen { run: next.clone(), record: record(Kind::Generation, next.key()) };
        assert_eq!(b.one(reopen), Reply::Closed);
        assert!(b.ledger.open_runs(9).expect("open_runs works").is_empty());
        assert!(b.steps(9).is_empty());
        assert_eq!(b.ledger.get(Kind::Generation, &[next.key()]).expect("get works"), [None]);
    }),
];
