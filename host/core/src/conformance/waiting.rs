//! Cases of [`super::ledger`] about threads that wait for work or for the end of a run, and about threads that claim at
//! the same time.

use std::time::Duration;

use super::cases::Case;
use super::job;
use crate::ledger::{Job, Reply, Scope, Wait};

pub(super) const LEDGER: &[Case] = &[
    ("the end of a run is reported to each waiting caller", |b| {
        let (first, second) = (b.submit(1, &[job("a", &[])]), b.submit(2, &[job("a", &[])]));
        let both = [first.clone(), second.clone()];
        let over = |wait| b.ledger.over(&both, wait).expect("over works");
        assert!(over(Wait::NONE).is_empty());
        // The call may return an empty list whenever something has changed, so the caller asks again.
        let wait = || {
            for _ in 0..100 {
                let seen = b.ledger.wakes();
                let ended = over(Wait { seen, at_most: Duration::from_secs(3) });
                if !ended.is_empty() {
                    return ended;
                }
            }
            Vec::new()
        };
        std::thread::scope(|s| {
            let waiting = s.spawn(wait);
            assert_eq!(b.close(&second), Reply::Created);
            assert_eq!(waiting.join().expect("no panic"), std::slice::from_ref(&second));
        });
        assert_eq!(b.close(&first), Reply::Created);
        assert_eq!(over(Wait::NONE), both);
    }),
    ("a waiting claimer is woken by new work, and by `wake`", |b| {
        // A correct backend never waits this long.
        let at_most = Duration::from_secs(3);
        let wait =
            || b.ledger.claim(&Scope::All, 1, b.lease, Wait { seen: b.ledger.wakes(), at_most }).expect("claim works");
        std::thread::scope(|s| {
            let waiting = s.spawn(wait);
            b.submit(1, &[job("a", &[])]);
            // The claimer gets the job if it looked after the submission, or was woken by it.
            assert!(waiting.join().expect("no panic").len() + b.claim(1).len() == 1);
        });
        // The notification of the submission may still be on its way from a server.
        std::thread::sleep(Duration::from_millis(200));
        let seen = b.ledger.wakes();
        let nothing = b.ledger.claim(&Scope::All, 1, b.lease, Wait { seen, at_most: Duration::from_millis(300) });
        assert!(nothing.expect("claim works").is_empty());
        assert_eq!(b.ledger.wakes(), seen, "a claim wakes no other claimer");
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
    ("no job is lost on a claimer that is woken while work comes", |b| {
        const RUNS: u8 = 60;
        let over = std::sync::atomic::AtomicBool::new(false);
        let claimed = std::thread::scope(|s| {
            let claimer = s.spawn(|| {
                let (mut all, mut moved) = (Vec::new(), std::time::Instant::now());
                while all.len() < RUNS.into() && moved.elapsed() < Duration::from_secs(5) {
                    let wait = Wait { seen: b.ledger.wakes(), at_most: Duration::from_secs(3) };
                    let jobs = b.ledger.claim(&Scope::All, 2, b.lease, wait).expect("claim works");
                    if !jobs.is_empty() {
                        moved = std::time::Instant::now();
                    }
                    all.extend(jobs.into_iter().map(|job| job.lease.run.run));
                }
                over.store(true, std::sync::atomic::Ordering::SeqCst);
                all
            });
            s.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::SeqCst) {
                    b.ledger.wake();
                    std::thread::sleep(Duration::from_micros(200));
                }
            });
            for n in 1..=RUNS {
                b.submit(n, &[job("a", &[])]);
            }
            claimer.join().expect("no panic")
        });
        let different: std::collections::BTreeSet<_> = claimed.iter().collect();
        assert_eq!((claimed.len(), different.len()), (RUNS.into(), RUNS.into()));
    }),
    ("many claimers at once never share a job", |b| {
        let steps: Vec<Job> = (0..200).map(|n| job(&format!("s{n}"), &[])).collect();
        b.submit(1, &steps);
        let mut all: Vec<String> = std::thread::scope(|s| {
            let claimers: Vec<_> = (0..4)
                .map(|_| {
                    s.spawn(|| {
                        let mut mine = Vec::new();
                        // Bounded, so that a backend that hands out one job for ever fails the case instead of filling
                        // the memory.
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
