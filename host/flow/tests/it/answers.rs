//! A worker reports a store that does not answer by the store's name, and reports that it answers again only when it
//! does.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use crate::bench::document;
use dovetail_core::blobs::{Store, StoreError, StoreErrorKind};
use dovetail_core::executor::HostError;
use dovetail_core::ledger::{Claimed, Ledger, Operation, Reply, Scope, Wait};
use dovetail_flow::{Daemon, Event, FlowError, Listener, Worker, WorkerOptions};
use serde_json::json;

use crate::bench::{Bench, sum};

/// A ledger whose records fail while `down` is true. Its queue always answers, also with jobs that are given back.
struct WithoutRecords {
    inner: Arc<dyn Ledger>,
    down: Arc<AtomicBool>,
    refused: AtomicU32,
    released: AtomicU32,
    claims: AtomicU32,
}

#[track_caller]
fn wait(what: &str, mut until: impl FnMut() -> bool) {
    let began = Instant::now();
    while !until() {
        assert!(began.elapsed() < Duration::from_secs(20), "this did not happen: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Ledger for WithoutRecords {
    dovetail_core::forward_ledger!(inner: renew get list open_runs held over beat workers wake wakes);

    fn commit(&self, items: &[Operation]) -> Result<Vec<Reply>, StoreError> {
        if items.iter().all(|item| matches!(item, Operation::Release { .. })) {
            let replies = self.inner.commit(items);
            self.released.fetch_add(1, Ordering::SeqCst);
            return replies;
        }
        if self.down.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(StoreError::plain(StoreErrorKind::Unavailable, "write").of(Store::Records));
        }
        self.inner.commit(items)
    }

    fn claim(&self, scope: &Scope, want: usize, lease: Duration, mut given: Wait) -> Result<Vec<Claimed>, StoreError> {
        self.claims.fetch_add(1, Ordering::SeqCst);
        given.at_most = given.at_most.min(Duration::from_millis(20));
        let claimed = self.inner.claim(scope, want, lease, given)?;
        if claimed.is_empty() && self.down.load(Ordering::SeqCst) {
            // This claim was under way when the records failed, and is answered afterwards.
            wait("the records fail", || self.refused.load(Ordering::SeqCst) > 0);
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(claimed)
    }
}

fn without_records(bench: &Bench, down: &Arc<AtomicBool>) -> Arc<WithoutRecords> {
    let [refused, released, claims] = [0; 3].map(AtomicU32::new);
    Arc::new(WithoutRecords { inner: bench.ports.ledger.clone(), down: down.clone(), refused, released, claims })
}

type Working = std::thread::JoinHandle<Result<(), FlowError>>;

/// A daemon with two slots on this ledger.
fn work(bench: &Bench, ledger: &Arc<WithoutRecords>, on_event: Option<Listener>) -> Working {
    let mut ports = bench.ports.clone();
    ports.ledger = ledger.clone();
    let daemon = Daemon { about: Arc::new(|_, _| Vec::new()), able: Arc::new(Vec::new) };
    let (jobs, lease, name) = (2, Duration::from_secs(10), "test".into());
    let options = WorkerOptions { jobs, lease, name, on_event, daemon: Some(daemon) };
    let worker = Arc::new(Worker::new(ports, bench.executor.clone(), options));
    let shutdown = bench.shutdown.clone();
    std::thread::spawn(move || worker.run(&Scope::All, &shutdown))
}

#[test]
fn a_claim_that_is_answered_is_no_word_about_the_records() {
    let bench = Bench::new();
    let published = bench.publish(&json!({}), &[("a", "input.x", "input.x")]);
    let down = Arc::new(AtomicBool::new(false));
    bench.script("a", {
        let down = down.clone();
        move |attempt, _| {
            down.store(true, Ordering::SeqCst);
            Ok(sum(attempt))
        }
    });
    let run = bench.submit(&published, 1);
    let ledger = without_records(&bench, &down);
    let reported = Arc::new(Mutex::new(Vec::new()));
    let listener = {
        let reported = reported.clone();
        move |event: &Event| match event {
            Event::StoreFailed { store, kept, .. } => {
                reported.lock().unwrap().push(format!("{store:?} fails, {kept} kept"));
            }
            Event::StoreAnswers { store } => reported.lock().unwrap().push(format!("{store:?} answers")),
            _ => {}
        }
    };
    let working = work(&bench, &ledger, Some(Arc::new(listener)));
    wait("the change is sent again and again", || ledger.refused.load(Ordering::SeqCst) > 4);
    let fails = "Some(Records) fails, 1 kept".to_owned();
    assert_eq!(
        *reported.lock().unwrap(),
        std::slice::from_ref(&fails),
        "one event, and no answer while the records are down"
    );
    down.store(false, Ordering::SeqCst);
    wait("the run ends", || document(&bench.ports, &run).unwrap()["state"] == "succeeded");
    bench.shutdown.drain();
    working.join().unwrap().unwrap();
    assert_eq!(*reported.lock().unwrap(), [fails, "Some(Records) answers".to_owned()]);
}

#[test]
fn a_job_that_is_given_back_is_no_word_about_the_records() {
    let bench = Bench::new();
    let published = bench.publish(&json!({}), &[("a", "input.x", "input.x")]);
    let down = Arc::new(AtomicBool::new(false));
    let ledger = without_records(&bench, &down);
    let (both, calls) = (Barrier::new(2), AtomicU32::new(0));
    bench.script("a", {
        let (ledger, down) = (ledger.clone(), down.clone());
        move |attempt, _| match calls.fetch_add(1, Ordering::SeqCst) {
            0 => {
                both.wait();
                down.store(true, Ordering::SeqCst);
                Ok(sum(attempt))
            }
            1 => {
                both.wait();
                wait("the first outcome is refused", || ledger.refused.load(Ordering::SeqCst) > 0);
                Err(HostError { operation: "run".into(), transient: true, missing: None, source: None })
            }
            _ => Ok(sum(attempt)),
        }
    });
    let runs = [bench.submit(&published, 1), bench.submit(&published, 2)];
    let working = work(&bench, &ledger, None);
    wait("the second job is given back", || ledger.released.load(Ordering::SeqCst) > 0);
    // One claim may be under way. Afterwards nothing is claimed, since an outcome waits for the records. A worker that
    // takes the release for their answer claims again after the first pause of its circuit breaker, 0.2 s.
    std::thread::sleep(Duration::from_millis(50));
    let claims = ledger.claims.load(Ordering::SeqCst);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(ledger.claims.load(Ordering::SeqCst), claims);
    down.store(false, Ordering::SeqCst);
    for run in &runs {
        wait("the run ends", || {
            bench.clock.advance(Duration::from_millis(10));
            document(&bench.ports, run).unwrap()["state"] == "succeeded"
        });
    }
    bench.shutdown.drain();
    working.join().unwrap().unwrap();
}
