//! A process dies at each of its calls to a store in turn, before the call or after the call was applied. The next
//! process must finish the run, and must run no step whose outcome was recorded. The processes are real workers on a
//! real Redis and SQLite; after a death their ports stop answering.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dovetail_core::blobs::StoreError;
use dovetail_core::executor::{Attempt, Executor, HostError, Outcome, Report, Usage};
use dovetail_core::ledger::{HeldStep, Kind, Listing, Record, RunKey, Scope};
use dovetail_core::limits::Limits;
use dovetail_core::memory::MemoryBlobs;
use dovetail_core::meta::{MetaStore, Put, Writes};
use dovetail_core::record::{Form, OutcomeRecord, PluginRecord, RunOutcomeRecord, RunState, StoredValue};
use dovetail_core::stop::Stop;
use dovetail_core::window::{Called, Change, Notification, Stamp, Window, WindowLease, WindowRenewal};
use dovetail_core::wit::{Field, Signature, Type};
use dovetail_core::{Digest, RunId};
use dovetail_flow::{Daemon, Event, FleetLedger, Ports, Published, Shutdown, SystemClock, Worker, WorkerOptions};
use dovetail_stores::{RedisWindow, SqliteLedger};
use serde_json::json;

use crate::death::{Death, Life};
use crate::{address, fresh};

const LEASE: Duration = Duration::from_secs(1);
/// A run must end within this time after a worker that can finish it has started.
const BOUND: Duration = Duration::from_secs(20);
/// The number of sweeps over a run before a missing rule counts as unnoticed.
const SWEEPS: usize = 5;

struct MortalMeta(Arc<dyn MetaStore>, Arc<Life>);

impl MetaStore for MortalMeta {
    fn put(&self, records: &[Record]) -> Result<Vec<Put>, StoreError> {
        self.1.call("records: put", || self.0.put(records))
    }

    fn write(&self, writes: &Writes) -> Result<Vec<Put>, StoreError> {
        let kinds: Vec<&str> = writes.records.iter().map(|(record, _)| record.kind.name()).collect();
        self.1.call(&format!("records: write {} forget {}", kinds.join(" "), writes.forget.len()), || {
            self.0.write(writes)
        })
    }

    fn get(&self, kind: Kind, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.1.call(&format!("records: get {}", kind.name()), || self.0.get(kind, keys))
    }

    fn list(&self, kind: Kind, listing: &Listing) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.1.call(&format!("records: list {}", kind.name()), || self.0.list(kind, listing))
    }

    fn open(&self, runs: &[RunKey]) -> Result<(), StoreError> {
        self.1.call("records: open", || self.0.open(runs))
    }

    fn forget(&self, runs: &[RunKey]) -> Result<(), StoreError> {
        self.1.call("records: forget", || self.0.forget(runs))
    }

    fn open_runs(&self, limit: usize) -> Result<Vec<RunKey>, StoreError> {
        self.1.call("records: open runs", || self.0.open_runs(limit))
    }
}

struct MortalWindow(Arc<dyn Window>, Arc<Life>);

impl Window for MortalWindow {
    fn peek(&self) -> Result<Stamp, StoreError> {
        self.1.call("window: peek", || self.0.peek())
    }

    fn call(&self, changes: &[Change], scope: &Scope, want: usize, lease: Duration) -> Result<Called, StoreError> {
        let name = |change: &Change| match change {
            Change::Finish { lease, .. } => format!("finish {}", lease.step),
            Change::Open { .. } => "open".to_owned(),
            Change::Close { .. } => "close".to_owned(),
            Change::Cancel { .. } => "cancel".to_owned(),
            Change::Back { .. } => "back".to_owned(),
            Change::Refused => "refused".to_owned(),
        };
        let names: Vec<String> = changes.iter().map(name).collect();
        self.1.call(&format!("window: {} claim {want}", names.join(" ")), || self.0.call(changes, scope, want, lease))
    }

    fn renew(&self, leases: &[WindowLease], lease: Duration) -> Result<Vec<WindowRenewal>, StoreError> {
        self.1.call("window: renew", || self.0.renew(leases, lease))
    }

    fn listen(&self, listener: Box<dyn Fn(Notification) + Send + Sync>) {
        self.0.listen(listener);
    }

    fn knows(&self, runs: &[RunKey]) -> Result<Vec<bool>, StoreError> {
        self.1.call("window: knows", || self.0.knows(runs))
    }

    fn held(&self, run: &RunKey) -> Result<Vec<HeldStep>, StoreError> {
        self.1.call("window: held", || self.0.held(run))
    }

    fn beat(&self, worker: &str, about: &[u8], keep: Duration) -> Result<Stamp, StoreError> {
        self.1.call("window: beat", || self.0.beat(worker, about, keep))
    }

    fn belongs(&self, records: Option<&str>) -> Result<Option<String>, StoreError> {
        self.1.call("window: belongs", || self.0.belongs(records))
    }

    fn workers(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.1.call("window: workers", || self.0.workers())
    }
}

/// Adds two numbers, and remembers the steps that it was asked for.
#[derive(Default)]
struct Adder(Mutex<Vec<String>>);

impl Executor for Adder {
    fn execute(&self, attempt: &Attempt, _: &Stop) -> Result<Report, HostError> {
        self.0.lock().unwrap().push(attempt.step.to_string());
        let number = |name: &str| attempt.input[name].as_i64().expect("the inputs were checked");
        let outcome = Outcome::Succeeded { output: json!({ "sum": number("a") + number("b") }) };
        let usage = Usage::default();
        Ok(Report { outcome, usage, models: Vec::new(), warnings: Vec::new(), log: Vec::new(), log_dropped: 0 })
    }
}

/// Stores that no process uses yet.
struct World {
    fleet: String,
    meta: Arc<SqliteLedger>,
    blobs: Arc<MemoryBlobs>,
    published: Published,
    run: RunId,
    _folder: tempfile::TempDir,
}

/// Makes the fleet's ledger of its two halves.
type Make = fn(Arc<dyn MetaStore>, Arc<dyn Window>) -> Result<FleetLedger, StoreError>;

fn adder() -> PluginRecord {
    let field = |name: &str| Field { name: name.into(), ty: Type::S64 };
    let signature = Signature {
        interface: "test:add/task@1.0.0".into(),
        input: vec![field("a"), field("b")],
        output: vec![field("sum")],
    };
    PluginRecord {
        name: "add".into(),
        version: semver::Version::new(1, 0, 0),
        package: Digest::of(b"add"),
        description: "adds".into(),
        signature,
        limits: Limits::DEFAULT,
        grants: BTreeMap::new(),
        pure: true,
        models: Vec::new(),
        model_kinds: Vec::new(),
        pushed_ms: 0,
    }
}

impl World {
    /// Publishes a diamond with a fifth step (`side`): either of the two sinks can be the run's last step.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let meta = Arc::new(SqliteLedger::open(folder.path(), Arc::new(SystemClock)).unwrap());
        let blobs = Arc::new(MemoryBlobs::default());
        let ports = Ports { ledger: meta.clone(), blobs: blobs.clone(), clock: Arc::new(SystemClock) };
        dovetail_flow::push_plugin(&ports, &adder(), b"add").unwrap();
        let step =
            |number: u32, a: &str, b: &str| json!({ "number": number, "task": "add@^1", "inputs": { "a": a, "b": b } });
        let steps = json!({ "head": step(1, "input.x", "input.x"), "left": step(2, "head.sum", "input.x"),
            "right": step(3, "head.sum", "head.sum"),
            "join": step(4, "left.sum", "right.sum"), "side": step(5, "input.x", "head.sum") });
        let file = json!({ "name": "sums", "version": "1.0.0", "inputs": { "x": {} },
            "steps": steps, "output": { "total": "join.sum", "side": "side.sum" } });
        let checked = dovetail_flow::check(&ports, &file.to_string()).unwrap();
        let pipeline = checked.pipeline.unwrap_or_else(|| panic!("{:#?}", checked.findings));
        let published = dovetail_flow::push_pipeline(&ports, &pipeline).unwrap().0;
        Self { fleet: fresh("sweep"), meta, blobs, published, run: dovetail_flow::new_run_id(), _folder: folder }
    }

    /// The ports of one process; `None` if the process died when it first read the stores.
    fn ports(&self, life: &Arc<Life>, make: Make) -> Option<Ports> {
        let window =
            Arc::new(RedisWindow::open(&address("DOVETAIL_TEST_REDIS"), &self.fleet, &fresh("process")).unwrap());
        let (meta, window) =
            (Arc::new(MortalMeta(self.meta.clone(), life.clone())), Arc::new(MortalWindow(window, life.clone())));
        let ledger = make(meta, window).ok()?;
        Some(Ports { ledger: Arc::new(ledger), blobs: self.blobs.clone(), clock: Arc::new(SystemClock) })
    }

    fn submit(&self, ports: &Ports) -> bool {
        dovetail_flow::submit(ports, &self.published, &json!({ "x": 1 }), &self.run).is_ok()
    }

    fn key(&self) -> RunKey {
        RunKey { run: self.run.clone(), generation: 0 }
    }

    fn outcomes(&self) -> BTreeMap<String, Vec<u8>> {
        let listing = Listing { prefix: format!("{}:", self.run), limit: usize::MAX, newest_first: false };
        MetaStore::list(&*self.meta, Kind::Outcome, &listing).unwrap().into_iter().collect()
    }

    fn end(&self) -> Option<RunState> {
        let end = MetaStore::get(&*self.meta, Kind::RunOutcome, &[self.key().key()]).unwrap().pop().flatten()?;
        Some(RunOutcomeRecord::decode(&end, "the run").unwrap().state)
    }

    /// Runs a worker until the run is over, the worker dies, or `BOUND` is over. Returns the steps that it executed.
    fn work(&self, ports: &Ports, name: &str, daemon: bool, until: &(dyn Fn() -> bool + Sync)) -> Vec<String> {
        let (adder, shutdown) = (Arc::new(Adder::default()), Shutdown::default());
        let over = shutdown.clone();
        let ended = move |event: &Event| {
            if matches!(event, Event::RunFinished { .. }) {
                over.drain();
            }
        };
        let daemon = daemon.then(|| Daemon { about: Arc::new(|_, _| Vec::new()), able: Arc::new(Vec::new) });
        let options =
            WorkerOptions { jobs: 2, lease: LEASE, name: name.to_owned(), on_event: Some(Arc::new(ended)), daemon };
        let worker = Arc::new(Worker::new(ports.clone(), adder.clone(), options));
        let began = Instant::now();
        std::thread::scope(|threads| {
            let working = threads.spawn(|| worker.run(&Scope::All, &shutdown));
            while !working.is_finished() {
                std::thread::sleep(Duration::from_millis(20));
                if until() || began.elapsed() > BOUND {
                    shutdown.drain();
                }
            }
            drop(working.join());
        });
        adder.0.lock().unwrap().clone()
    }
}

/// One process dies, and a second process follows. Returns the call at which the first process died, if it did, and the
/// verdict.
fn one(death: Death, make: Make) -> (Option<String>, Result<(), String>) {
    let world = World::new();
    let life = Arc::new(Life { death: Some(death), ..Life::default() });
    let first = {
        let ports = world.ports(&life, make).filter(|ports| world.submit(ports));
        ports.map_or_else(Vec::new, |ports| world.work(&ports, "first", false, &|| world.end().is_some()))
    };
    let died = life.last.lock().unwrap().clone();
    let recorded = world.outcomes();
    let second = {
        let ports = world.ports(&Arc::new(Life::default()), make).unwrap();
        // A submitter that got no answer submits again, unless the run is recorded: then the worker must find the run
        // without a second submission.
        if MetaStore::get(&*world.meta, Kind::Run, &[world.run.to_string()]).unwrap()[0].is_none() {
            assert!(world.submit(&ports));
        }
        world.work(&ports, "second", true, &|| world.end().is_some())
    };
    let verdict = (|| {
        let end = world.end().ok_or_else(|| format!("the run never ends; first {first:?}, second {second:?}"))?;
        if end != RunState::Succeeded {
            return Err(format!("the run ended as {end:?}"));
        }
        let outcomes = world.outcomes();
        let steps: BTreeSet<&str> = outcomes.keys().filter_map(|key| key.split(':').nth(1)).collect();
        if steps.len() != 5 {
            return Err(format!("outcomes are there of {steps:?} only"));
        }
        if let Some((key, _)) = recorded.iter().find(|(key, value)| outcomes.get(*key) != Some(value)) {
            return Err(format!("{key} has changed"));
        }
        let done: BTreeSet<&str> = recorded.keys().filter_map(|key| key.split(':').nth(1)).collect();
        if let Some(step) = second.iter().find(|step| done.contains(step.as_str())) {
            return Err(format!("{step} was recorded and is run again"));
        }
        let twice = |list: &[String]| list.len() != list.iter().collect::<BTreeSet<_>>().len();
        if twice(&first) || twice(&second) {
            return Err(format!("one process ran a step twice: {first:?} {second:?}"));
        }
        let total = OutcomeRecord::decode(&outcomes[&world.key().step("join")], "join").unwrap().output().cloned();
        if total != Some(StoredValue::Inline(json!({ "sum": 7 }))) {
            return Err(format!("the total is {total:?}"));
        }
        Ok(())
    })();
    (died, verdict)
}

/// Tries every point of death, eight at a time. Returns the failures, and the number of calls. With `enough`, the sweep
/// ends with the first failure.
fn sweep(make: Make, enough: bool) -> (Vec<String>, u64) {
    let (next, found, last) = (AtomicU64::new(0), Mutex::new(Vec::new()), AtomicU64::new(u64::MAX));
    std::thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                loop {
                    let point = next.fetch_add(1, Ordering::SeqCst);
                    let death = Death { call: point / 2, applied: point % 2 == 1 };
                    if death.call >= last.load(Ordering::SeqCst) || (enough && !found.lock().unwrap().is_empty()) {
                        return;
                    }
                    let (died, verdict) = one(death, make);
                    match (died, verdict) {
                        (None, Ok(())) => drop(last.fetch_min(death.call, Ordering::SeqCst)),
                        (died, Err(why)) => {
                            found.lock().unwrap().push(format!("{death:?} ({}): {why}", died.unwrap_or_default()));
                        }
                        (Some(_), Ok(())) => {}
                    }
                }
            });
        }
    });
    (found.into_inner().unwrap(), last.load(Ordering::SeqCst))
}

#[test]
fn a_process_that_dies_at_any_call_loses_nothing() {
    let (found, points) = sweep(FleetLedger::new, false);
    println!("{points} calls, each with a death before and after it");
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(points > 10, "a run takes more calls than {points}");
}

/// The rule that is removed between the flow and its stores.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Without {
    /// The window is told of the step's end, and acknowledges the job, before the outcome is recorded.
    OutcomeFirst,
    /// No run is reported as lost.
    Search,
    /// A job that must be verified is delivered without that mark.
    Verification,
    /// The stamp of an `Open` is taken after the records are read, and not before.
    StampFirst,
}

struct Bent {
    meta: Arc<dyn MetaStore>,
    window: Arc<dyn Window>,
    without: Without,
    later: Mutex<Vec<Writes>>,
}

struct BentMeta(Arc<Bent>);
struct BentWindow(Arc<Bent>);

impl MetaStore for BentMeta {
    fn put(&self, records: &[Record]) -> Result<Vec<Put>, StoreError> {
        self.0.meta.put(records)
    }

    fn write(&self, writes: &Writes) -> Result<Vec<Put>, StoreError> {
        if self.0.without == Without::OutcomeFirst
            && writes.records.iter().any(|(record, _)| record.kind == Kind::Outcome)
        {
            self.0.later.lock().unwrap().push(writes.clone());
            return Ok(vec![Put::Created; writes.records.len()]);
        }
        self.0.meta.write(writes)
    }

    fn get(&self, kind: Kind, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.0.meta.get(kind, keys)
    }

    fn list(&self, kind: Kind, listing: &Listing) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.0.meta.list(kind, listing)
    }

    fn open(&self, runs: &[RunKey]) -> Result<(), StoreError> {
        self.0.meta.open(runs)
    }

    fn forget(&self, runs: &[RunKey]) -> Result<(), StoreError> {
        self.0.meta.forget(runs)
    }

    fn open_runs(&self, limit: usize) -> Result<Vec<RunKey>, StoreError> {
        self.0.meta.open_runs(limit)
    }
}

impl Window for BentWindow {
    fn peek(&self) -> Result<Stamp, StoreError> {
        self.0.window.peek()
    }

    fn call(&self, changes: &[Change], scope: &Scope, want: usize, lease: Duration) -> Result<Called, StoreError> {
        let mut changes = changes.to_vec();
        if self.0.without == Without::StampFirst {
            for change in &mut changes {
                if let Change::Open { stamp, .. } = change {
                    *stamp = self.0.window.peek()?;
                }
            }
        }
        let mut called = self.0.window.call(&changes, scope, want, lease)?;
        for writes in std::mem::take(&mut *self.0.later.lock().unwrap()) {
            self.0.meta.write(&writes)?;
        }
        if self.0.without == Without::Verification {
            called.jobs.iter_mut().for_each(|job| job.verify = false);
        }
        Ok(called)
    }

    fn renew(&self, leases: &[WindowLease], lease: Duration) -> Result<Vec<WindowRenewal>, StoreError> {
        self.0.window.renew(leases, lease)
    }

    fn listen(&self, listener: Box<dyn Fn(Notification) + Send + Sync>) {
        self.0.window.listen(listener);
    }

    fn knows(&self, runs: &[RunKey]) -> Result<Vec<bool>, StoreError> {
        if self.0.without == Without::Search { Ok(vec![true; runs.len()]) } else { self.0.window.knows(runs) }
    }

    fn held(&self, run: &RunKey) -> Result<Vec<HeldStep>, StoreError> {
        self.0.window.held(run)
    }

    fn beat(&self, worker: &str, about: &[u8], keep: Duration) -> Result<Stamp, StoreError> {
        self.0.window.beat(worker, about, keep)
    }

    fn belongs(&self, records: Option<&str>) -> Result<Option<String>, StoreError> {
        self.0.window.belongs(records)
    }

    fn workers(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.0.window.workers()
    }
}

fn bent(meta: Arc<dyn MetaStore>, window: Arc<dyn Window>, without: Without) -> Result<FleetLedger, StoreError> {
    let bent = Arc::new(Bent { meta, window, without, later: Mutex::default() });
    FleetLedger::new(Arc::new(BentMeta(bent.clone())), Arc::new(BentWindow(bent)))
}

#[track_caller]
fn is_found_out(make: Make) {
    // The number of claims of a run varies, and with it the number of each later call. So one sweep may miss the few
    // calls at which the missing rule shows.
    let found = (0..SWEEPS).map(|_| sweep(make, true).0).find(|found| !found.is_empty()).unwrap_or_default();
    println!("{}", found.join("\n"));
    assert!(!found.is_empty(), "nothing went wrong without the rule");
}

#[test]
fn a_window_that_is_told_before_the_records_are_written_is_found_out() {
    is_found_out(|meta, window| bent(meta, window, Without::OutcomeFirst));
}

#[test]
fn a_fleet_that_does_not_search_for_lost_runs_is_found_out() {
    is_found_out(|meta, window| bent(meta, window, Without::Search));
}

#[test]
fn a_worker_that_does_not_verify_is_found_out() {
    is_found_out(|meta, window| bent(meta, window, Without::Verification));
}

/// Does something once, after outcomes have been read for the second time: a process that restores a run reads the
/// outcomes to see the run's state, and again for the window.
struct Meanwhile(Arc<dyn MetaStore>, AtomicUsize, Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl MetaStore for Meanwhile {
    fn put(&self, records: &[Record]) -> Result<Vec<Put>, StoreError> {
        self.0.put(records)
    }

    fn get(&self, kind: Kind, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let read = self.0.get(kind, keys);
        let second = kind == Kind::Outcome && self.1.fetch_add(1, Ordering::SeqCst) == 1;
        if second && let Some(happens) = self.2.lock().unwrap().take() {
            happens();
        }
        read
    }

    fn list(&self, kind: Kind, listing: &Listing) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.0.list(kind, listing)
    }

    fn open(&self, runs: &[RunKey]) -> Result<(), StoreError> {
        self.0.open(runs)
    }

    fn forget(&self, runs: &[RunKey]) -> Result<(), StoreError> {
        self.0.forget(runs)
    }

    fn open_runs(&self, limit: usize) -> Result<Vec<RunKey>, StoreError> {
        self.0.open_runs(limit)
    }
}

/// While a reader reads a run's records, other processes end the run, and the window is lost. Returns whether the
/// reader opens the run again.
fn reopened_by_a_late_reader(make: Make) -> bool {
    let world = Arc::new(World::new());
    let window =
        || Arc::new(RedisWindow::open(&address("DOVETAIL_TEST_REDIS"), &world.fleet, &fresh("process")).unwrap());
    {
        let submitting = world.ports(&Arc::default(), FleetLedger::new).unwrap();
        assert!(world.submit(&submitting));
    }
    let here = world.clone();
    let meanwhile = move || {
        let others = here.ports(&Arc::default(), FleetLedger::new).unwrap();
        here.work(&others, "others", true, &|| here.end().is_some());
        assert_eq!(here.end(), Some(RunState::Succeeded));
        let window = RedisWindow::open(&address("DOVETAIL_TEST_REDIS"), &here.fleet, &fresh("process")).unwrap();
        window.forget_everything().unwrap();
    };
    let meta = Arc::new(Meanwhile(world.meta.clone(), AtomicUsize::new(0), Mutex::new(Some(Box::new(meanwhile)))));
    let ledger = Arc::new(make(meta, window()).unwrap());
    let reader = Ports { ledger, blobs: world.blobs.clone(), clock: Arc::new(SystemClock) };
    dovetail_flow::recover(&reader, &world.run).unwrap();
    window().knows(&[world.key()]).unwrap()[0]
}

#[test]
fn a_late_reader_reopens_no_run() {
    assert!(!reopened_by_a_late_reader(FleetLedger::new));
    // The stamp that is taken before the records are read prevents this.
    assert!(reopened_by_a_late_reader(|meta, window| bent(meta, window, Without::StampFirst)));
}
