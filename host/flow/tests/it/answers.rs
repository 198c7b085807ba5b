//! A worker reports a store that does not answer by the store's name, and reports that it answers again only when it
//! does.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::bench::document;
use dovetail_core::blobs::{Store, StoreError, StoreErrorKind};
use dovetail_core::ledger::{
    Claimed, HeldStep, Item, Kind, Lease, Ledger, Listing, Renewal, Reply, RunKey, Scope, Wait,
};
use dovetail_flow::{Daemon, Event, Worker, WorkerOptions};
use serde_json::json;

use crate::bench::{Bench, sum};

/// A ledger whose records fail while `down` is true. Its queue always answers.
struct WithoutRecords {
    inner: Arc<dyn Ledger>,
    down: Arc<AtomicBool>,
    refused: AtomicU32,
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
    fn commit(&self, items: &[Item]) -> Result<Vec<Reply>, StoreError> {
        if self.down.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(StoreError::plain(StoreErrorKind::Unavailable, "write").of(Store::Records));
        }
        self.inner.commit(items)
    }

    fn claim(&self, scope: &Scope, want: usize, lease: Duration, mut given: Wait) -> Result<Vec<Claimed>, StoreError> {
        given.at_most = given.at_most.min(Duration::from_millis(20));
        let claimed = self.inner.claim(scope, want, lease, given)?;
        if claimed.is_empty() && self.down.load(Ordering::SeqCst) {
            // This claim was under way when the records failed, and is answered afterwards.
            wait("the records fail", || self.refused.load(Ordering::SeqCst) > 0);
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(claimed)
    }

    fn renew(&self, leases: &[Lease], lease: Duration) -> Result<Vec<Renewal>, StoreError> {
        self.inner.renew(leases, lease)
    }

    fn get(&self, kind: Kind, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.inner.get(kind, keys)
    }

    fn list(&self, kind: Kind, listing: &Listing) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.inner.list(kind, listing)
    }

    fn open_runs(&self, limit: usize) -> Result<Vec<RunKey>, StoreError> {
        self.inner.open_runs(limit)
    }

    fn held(&self, run: &RunKey) -> Result<Vec<HeldStep>, StoreError> {
        self.inner.held(run)
    }

    fn over(&self, runs: &[RunKey], wait: Wait) -> Result<Vec<RunKey>, StoreError> {
        self.inner.over(runs, wait)
    }

    fn beat(&self, worker: &str, about: &[u8], keep: Duration) -> Result<(), StoreError> {
        self.inner.beat(worker, about, keep)
    }

    fn workers(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.inner.workers()
    }

    fn wake(&self) {
        self.inner.wake();
    }

    fn wakes(&self) -> u64 {
        self.inner.wakes()
    }
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
    let ledger =
        Arc::new(WithoutRecords { inner: bench.ports.ledger.clone(), down: down.clone(), refused: AtomicU32::new(0) });
    let mut ports = bench.ports.clone();
    ports.ledger = ledger.clone();
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
    let daemon = Daemon { about: Arc::new(|_, _| Vec::new()), able: Arc::new(Vec::new) };
    let options = WorkerOptions {
        jobs: 2,
        lease: Duration::from_secs(10),
        name: "test".into(),
        on_event: Some(Arc::new(listener)),
        daemon: Some(daemon),
    };
    let worker = Arc::new(Worker::new(ports, bench.executor.clone(), options));
    let working = std::thread::spawn({
        let shutdown = bench.shutdown.clone();
        move || worker.run(&Scope::All, &shutdown)
    });
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
