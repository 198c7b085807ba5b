//! A thread of the worker panics, or the ledger drops a change without an answer. The worker reports the fault, and
//! neither waits for ever nor keeps a job.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use dovetail_core::RunId;
use dovetail_core::blobs::StoreError;
use dovetail_core::conformance::outcome;
use dovetail_core::executor::{Failure, FailureKind, HostError, Outcome};
use dovetail_core::ledger::{Claimed, Kind, Ledger, Operation, Record, Reply, RunKey, Scope, Then, Wait};
use dovetail_core::record::{Form as _, RunOutcomeRecord, RunState};
use dovetail_flow::{Daemon, Event, FlowError, Listener, Worker, WorkerOptions};

use crate::bench::document;
use serde_json::json;

use crate::bench::{Bench, report, sum};

const LEASE: Duration = Duration::from_secs(10);
/// Much longer than a worker takes to end.
const LONG: Duration = Duration::from_secs(20);

/// A ledger that panics in the first commits and drops the first changes without an answer.
struct Broken {
    inner: Arc<dyn Ledger>,
    /// Commits that still panic.
    panics: AtomicU32,
    /// Changes that are still dropped.
    drops: AtomicU32,
    /// Runs that the ledger names as lost, again and again.
    lost: Mutex<Vec<RunId>>,
    /// Reading a record of this run panics.
    unreadable: Mutex<Option<String>>,
    /// Reads find no end of a run: another worker records the end right after each read.
    hides_ends: AtomicBool,
}

fn one_less(count: &AtomicU32) -> bool {
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| count.checked_sub(1)).is_ok()
}

impl Ledger for Broken {
    dovetail_core::forward_ledger!(inner: renew list open_runs held over beat workers wake wakes);

    fn commit(&self, items: &[Operation]) -> Result<Vec<Reply>, StoreError> {
        assert!(!one_less(&self.panics), "a bug of the ledger");
        self.inner.commit(items)
    }

    fn commit_then(&self, items: Vec<Operation>, then: Then) {
        if !one_less(&self.drops) {
            then(self.commit(&items));
        }
    }

    fn claim(&self, scope: &Scope, want: usize, lease: Duration, mut wait: Wait) -> Result<Vec<Claimed>, StoreError> {
        wait.at_most = wait.at_most.min(Duration::from_millis(20));
        self.inner.claim(scope, want, lease, wait)
    }

    fn get(&self, kind: Kind, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let unreadable = self.unreadable.lock().unwrap().clone();
        assert!(!unreadable.is_some_and(|run| keys.iter().any(|key| key.starts_with(&run))), "a bug of the ledger");
        if kind == Kind::RunOutcome && self.hides_ends.load(Ordering::SeqCst) {
            return Ok(vec![None; keys.len()]);
        }
        self.inner.get(kind, keys)
    }

    fn lost(&self) -> Result<Vec<RunKey>, StoreError> {
        let lost = self.lost.lock().unwrap();
        Ok(lost.iter().map(|run| RunKey { run: run.clone(), generation: 0 }).collect())
    }
}

type RunResult = crossbeam_channel::Receiver<Result<(), FlowError>>;

/// A bench whose worker runs on a thread of its own, so that a worker that hangs fails its test.
struct Broke {
    bench: Bench,
    ledger: Arc<Broken>,
}

impl Broke {
    fn new(panics: u32, drops: u32) -> Self {
        let bench = Bench::new();
        let (panics, drops) = (AtomicU32::new(panics), AtomicU32::new(drops));
        let (inner, lost, unreadable) = (bench.ports.ledger.clone(), Mutex::default(), Mutex::default());
        let ledger = Arc::new(Broken { inner, panics, drops, lost, unreadable, hides_ends: AtomicBool::new(false) });
        Self { bench, ledger }
    }

    fn submit(&self, runs: i64) -> Vec<RunId> {
        let published = self.bench.publish(&json!({}), &[("a", "input.x", "input.x")]);
        (0..runs).map(|x| self.bench.submit(&published, x)).collect()
    }

    fn work(&self, jobs: usize, scope: Scope, daemon: Option<Daemon>, on_event: Option<Listener>) -> RunResult {
        let mut ports = self.bench.ports.clone();
        ports.ledger = self.ledger.clone();
        let options = WorkerOptions { jobs, lease: LEASE, name: "test".into(), on_event, daemon };
        let worker = Arc::new(Worker::new(ports, self.bench.executor.clone(), options));
        let shutdown = self.bench.shutdown.clone();
        let (sender, ended) = crossbeam_channel::bounded(1);
        std::thread::spawn(move || sender.send(worker.run(&scope, &shutdown)));
        ended
    }

    #[track_caller]
    fn wait_for(&self, run: &RunId, state: &str) {
        let began = std::time::Instant::now();
        while document(&self.bench.ports, run).unwrap()["state"] != state {
            assert!(began.elapsed() < LONG, "{}", document(&self.bench.ports, run).unwrap());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn is_held(&self, run: &RunId) -> bool {
        !self.bench.ports.ledger.held(&RunKey { run: run.clone(), generation: 0 }).unwrap().is_empty()
    }
}

fn daemon() -> Daemon {
    Daemon { about: Arc::new(|_, _| Vec::new()), able: Arc::new(Vec::new) }
}

#[track_caller]
fn panic_of(ended: &RunResult, operation: &str) {
    let error = ended.recv_timeout(LONG).expect("the worker ends").unwrap_err();
    assert_eq!(error.code(), "host_panicked");
    assert!(error.to_string().starts_with(operation), "{error}");
}

#[test]
fn a_panic_of_the_claiming_thread_ends_the_worker_and_gives_running_steps_back() {
    let broke = Broke::new(0, 0);
    let started = Arc::new(Barrier::new(2));
    broke.bench.script("a", {
        let started = started.clone();
        move |_, stop| {
            started.wait();
            let (_keep, never) = crossbeam_channel::bounded::<()>(0);
            stop.wait(&never).unwrap_err();
            Ok(report(Outcome::Failed { failure: Failure::new(FailureKind::Cancelled, "cancelled", "stopped") }))
        }
    });
    let run = broke.submit(1).remove(0);
    let claims = AtomicU32::new(0);
    let able = move || {
        if claims.fetch_add(1, Ordering::SeqCst) > 0 {
            started.wait();
            panic!("a bug of ours");
        }
        Vec::new()
    };
    let ended = broke.work(2, Scope::All, Some(Daemon { able: Arc::new(able), ..daemon() }), None);
    panic_of(&ended, "claim work: the host panicked: a bug of ours");
    assert!(!broke.is_held(&run), "the running job was given back");
    let again = broke.ledger.claim(&Scope::All, 1, LEASE, Wait::NONE).unwrap();
    assert_eq!((again.len(), again[0].crashes), (1, 0), "uncharged");
}

#[test]
fn a_panic_of_a_duty_ends_the_worker() {
    let broke = Broke::new(0, 0);
    let about = Arc::new(|_, _| panic!("a bug of ours"));
    panic_of(
        &broke.work(2, Scope::All, Some(Daemon { about, ..daemon() }), None),
        "send heartbeats: the host panicked",
    );
}

#[test]
fn a_panic_over_a_commit_loses_no_outcome() {
    let broke = Broke::new(1, 0);
    let run = broke.submit(1).remove(0);
    let ended = broke.work(1, Scope::All, Some(daemon()), None);
    broke.wait_for(&run, "succeeded");
    assert_eq!(broke.bench.made(), [("a".to_owned(), 1)], "the outcome is kept and committed again");
    broke.bench.shutdown.drain();
    ended.recv_timeout(LONG).expect("the counts let the worker end").unwrap();
}

#[test]
fn a_panic_after_an_attempt_is_reported_where_the_worker_ends_with_its_first_failure() {
    let broke = Broke::new(1, 0);
    let run = broke.submit(1).remove(0);
    let ended = broke.work(1, Scope::Runs(vec![run.clone()]), None, None);
    let operation = format!("record the outcome of step a of run {run}: the host panicked: a bug of the ledger");
    panic_of(&ended, &operation);
}

#[test]
fn a_job_over_whose_change_the_host_panics_each_time_is_left_to_its_lease() {
    let broke = Broke::new(3, 0);
    let run = broke.submit(1).remove(0);
    let ended = broke.work(1, Scope::All, Some(daemon()), None);
    // Three panics, then the lease decides, by this clock: the step runs once more.
    let began = std::time::Instant::now();
    while document(&broke.bench.ports, &run).unwrap()["state"] != "succeeded" {
        assert!(began.elapsed() < LONG, "the only slot takes jobs again");
        if broke.ledger.panics.load(Ordering::SeqCst) == 0 {
            broke.bench.clock.advance(LEASE / 100);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(broke.bench.made(), [("a".to_owned(), 1), ("a".to_owned(), 1)]);
    broke.bench.shutdown.drain();
    ended.recv_timeout(LONG).expect("the counts let the worker end").unwrap();
}

#[test]
fn a_lost_run_over_which_the_host_panics_keeps_no_other_run_from_being_put_back() {
    let broke = Broke::new(0, 0);
    let runs = broke.submit(2);
    *broke.ledger.lost.lock().unwrap() = runs.clone();
    *broke.ledger.unreadable.lock().unwrap() = Some(runs[0].to_string());
    let (tell, told) = crossbeam_channel::unbounded();
    let listener: Listener = Arc::new(move |event| {
        if let Event::RunRecovered { run } = event {
            tell.send(run.clone()).unwrap();
        }
    });
    // Of no capability: the worker claims nothing.
    let ended = broke.work(1, Scope::All, Some(daemon()), Some(listener));
    assert_eq!(told.recv_timeout(LONG).as_ref(), Ok(&runs[1]));
    *broke.ledger.unreadable.lock().unwrap() = None;
    // The worker goes on and tries again.
    while told.recv_timeout(LONG).expect("the first run is put back, too") != runs[0] {}
    broke.bench.shutdown.drain();
    ended.recv_timeout(LONG).expect("the worker ends").unwrap();
}

#[test]
fn a_worker_that_leaves_work_to_others_ends_as_soon_as_it_is_told_to() {
    let broke = Broke::new(0, 0);
    let tries = Arc::new(AtomicU32::new(0));
    broke.bench.script("a", {
        let tries = tries.clone();
        move |_, _| {
            tries.fetch_add(1, Ordering::SeqCst);
            Err(HostError { operation: "run".into(), transient: false, missing: None, source: None })
        }
    });
    broke.submit(8);
    let ended = broke.work(1, Scope::All, Some(daemon()), None);
    let began = std::time::Instant::now();
    // Each failure doubles the pause before the next claim: 0.2 s, 0.4 s, ..., 6.4 s after the sixth.
    while tries.load(Ordering::SeqCst) < 6 {
        assert!(began.elapsed() < LONG * 2);
        broke.bench.clock.advance(Duration::from_secs(1));
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(100));
    broke.bench.shutdown.drain();
    ended.recv_timeout(Duration::from_secs(3)).expect("the pause ends with the drain").unwrap();
}

#[test]
fn a_panic_over_what_is_told_of_one_job_keeps_no_other_job_from_its_end() {
    let broke = Broke::new(0, 0);
    let runs = broke.submit(8);
    let panics = AtomicU32::new(3);
    let listener: Listener = Arc::new(move |event| {
        let counts = matches!(event, Event::StepFinished { .. } | Event::RunFinished { .. });
        assert!(!(counts && one_less(&panics)), "a bug of the listener");
    });
    let ended = broke.work(2, Scope::All, Some(daemon()), Some(listener));
    for run in &runs {
        broke.wait_for(run, "succeeded");
    }
    broke.bench.shutdown.drain();
    ended.recv_timeout(LONG).expect("the counts let the worker end").unwrap();
}

#[test]
fn a_run_that_another_worker_closes_first_ends_as_that_worker_recorded() {
    let broke = Broke::new(0, 0);
    let run = broke.submit(1).remove(0);
    let ledger = &broke.bench.ports.ledger;
    let job = ledger.claim(&Scope::All, 1, LEASE, Wait::NONE).unwrap().remove(0);
    let (lease, key) = (job.lease, RunKey { run: run.clone(), generation: 0 });
    let record = outcome(key.step("a"), true);
    let finish = Operation::Finish { lease, record, succeeded: true, close: None, children: Vec::new() };
    ledger.commit(&[finish]).unwrap();
    let (state, failed_step, failure) = (RunState::Cancelled, None, None);
    let end = RunOutcomeRecord { state, failed_step, failure, finished_ms: 1 };
    let record = Record { kind: Kind::RunOutcome, key: key.key(), value: end.encode() };
    ledger.commit(&[Operation::Put { record }]).unwrap();
    broke.ledger.hides_ends.store(true, Ordering::SeqCst);
    *broke.ledger.lost.lock().unwrap() = vec![run.clone()];
    let (tell, told) = crossbeam_channel::unbounded();
    let listener: Listener = Arc::new(move |event| {
        if let Event::RunFinished { run, state } = event {
            tell.send((run.clone(), *state)).unwrap();
        }
    });
    let ended = broke.work(1, Scope::All, Some(daemon()), Some(listener));
    assert_eq!(told.recv_timeout(LONG), Ok((run, RunState::Cancelled)), "all its steps have succeeded");
    broke.bench.shutdown.drain();
    ended.recv_timeout(LONG).expect("the worker ends").unwrap();
}

/// Submits two runs whose steps end at the same time: then a change goes through `commit_then`. (A step that is alone
/// in its worker is committed on its own thread.)
fn two_at_once(broke: &Broke) -> Vec<RunId> {
    let both = Barrier::new(2);
    let first = Mutex::new(2);
    broke.bench.script("a", move |attempt, _| {
        let waits = {
            let mut first = first.lock().unwrap();
            let waits = *first > 0;
            *first -= i32::from(waits);
            waits
        };
        if waits {
            both.wait();
        }
        Ok(sum(attempt))
    });
    broke.submit(2)
}

#[test]
fn a_change_that_the_ledger_drops_unanswered_is_sent_again() {
    let broke = Broke::new(0, 1);
    let runs = two_at_once(&broke);
    let errors = Arc::new(Mutex::new(Vec::new()));
    let listener: Listener = Arc::new({
        let errors = errors.clone();
        move |event| {
            if let Event::StoreFailed { error, .. } = event {
                errors.lock().unwrap().push(error.clone());
            }
        }
    });
    let ended = broke.work(2, Scope::All, Some(daemon()), Some(listener));
    for run in &runs {
        broke.wait_for(run, "succeeded");
    }
    broke.bench.shutdown.drain();
    ended.recv_timeout(LONG).expect("nothing is waited for").unwrap();
    assert_eq!(broke.ledger.drops.load(Ordering::SeqCst), 0);
    assert!(errors.lock().unwrap().is_empty(), "no store is at fault: {errors:?}");
    assert_eq!(broke.bench.made().len(), 2, "no step runs again");
}

#[test]
fn a_change_that_the_ledger_drops_unanswered_ends_a_worker_that_ends_with_its_first_failure() {
    let broke = Broke::new(0, u32::MAX);
    let runs = two_at_once(&broke);
    let ended = broke.work(2, Scope::Runs(runs), None, None);
    let error = ended.recv_timeout(LONG).expect("nothing is waited for").unwrap_err();
    assert_eq!(error.to_string(), "commit: the change was dropped unanswered");
}
