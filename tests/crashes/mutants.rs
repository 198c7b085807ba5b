//! Mutation tests of the flow on the embedded stores: one rule at a time is removed, and the crash tests must notice. A
//! worker dies at each of its calls to the ledger in turn, before the call or after the call was applied, and a second
//! worker follows. With all rules the result is always right. Without any one of the rules some death gives a wrong
//! result.
//!
//! The workers are real workers on real SQLite files. Each worker has a ledger of its own that stops serving calls, as
//! if its process had died. `main.rs` kills whole processes; this file can remove a rule, because it wraps the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::executor::{Attempt, Executor, Failure, FailureKind, HostError, Outcome, Report, Usage};
use dovetail_core::ledger::{
    Claimed, Kind, Lease, Ledger, Listing, Operation, Renewal, Reply, RunKey, Scope, Then, Wait,
};
use dovetail_core::limits::Limits;
use dovetail_core::record::{Form as _, OutcomeRecord, PluginRecord, RunOutcomeRecord, RunState, StoredValue};
use dovetail_core::stop::Stop;
use dovetail_core::wit::{Field, Signature, Type};
use dovetail_core::{Digest, RunId};
use dovetail_flow::{Daemon, Event, Ports, Published, Shutdown, SystemClock, Worker, WorkerOptions};
use dovetail_stores::{FileBlobs, SqliteLedger};
use serde_json::json;

use crate::death::{Death, Life};
use crate::folder;

/// How long a job stays with a worker that stands still. The lease of a dead process is free at once.
const LEASE: Duration = Duration::from_secs(1);
/// A run must end within this time after a worker that can finish the run has started: fifty times the usual time.
const BOUND: Duration = Duration::from_secs(8);
/// The number of sweeps over a case before a missing rule counts as unnoticed.
const SWEEPS: usize = 5;

/// The rule that is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// A job is acknowledged before its outcome is recorded, in a change of its own.
    OutcomeFirst,
    /// No process compares a run with its records: none closes the run, and none enqueues its missing jobs.
    Reconciler,
    /// No run is reported as lost (open without jobs).
    Search,
    /// Outcomes, run outcomes and attempts are read as they were at submission: none is found.
    FreshReads,
    /// A job that must be verified is delivered without that mark.
    Verification,
    /// A retry is also accepted from a worker that no longer holds the job.
    Fence,
}

fn name(item: &Operation) -> &'static str {
    match item {
        Operation::Submit { .. } => "submit",
        Operation::Finish { .. } => "finish",
        Operation::Retry { .. } => "retry",
        Operation::Release { .. } => "release",
        Operation::Recover { .. } => "recover",
        Operation::Reopen { .. } => "reopen",
        Operation::Inherit { .. } => "inherit",
        Operation::Cancel { .. } => "cancel",
        Operation::Close { .. } => "close",
        Operation::Put { .. } => "put",
    }
}

fn names(items: &[Operation]) -> String {
    items.iter().map(name).collect::<Vec<_>>().join(" ")
}

/// The current lease of each job, for all workers of a test.
type Holders = Arc<Mutex<BTreeMap<(RunKey, String), Lease>>>;

/// The ledger of one process: the process dies at a given call, and its ledger lacks a rule.
struct Bent {
    ledger: Arc<SqliteLedger>,
    life: Arc<Life>,
    without: Without,
    /// The database file, opened directly for a change that no port allows.
    file: std::path::PathBuf,
    holders: Holders,
    /// The leases of this process are not renewed: the process stands still, or is cut off.
    frozen: AtomicBool,
}

impl Bent {
    /// Removes the job, whatever the state of its outcome.
    fn acknowledge(&self, lease: &Lease) -> Result<(), StoreError> {
        self.life.call("acknowledge", || {
            let db = rusqlite::Connection::open(&self.file).unwrap();
            db.busy_timeout(BOUND).unwrap();
            let sql = "DELETE FROM jobs WHERE run = ?1 AND generation = ?2 AND step = ?3";
            db.execute(sql, rusqlite::params![lease.run.run.as_str(), lease.run.generation, lease.step.as_str()])
                .unwrap();
            Ok(())
        })
    }

    /// Changes the items as a ledger without the rule would.
    fn bend(&self, items: &[Operation]) -> Result<Vec<Operation>, StoreError> {
        let mut items = items.to_vec();
        for item in &mut items {
            match item {
                Operation::Finish { lease, .. } if self.without == Without::OutcomeFirst => self.acknowledge(lease)?,
                Operation::Retry { lease, .. } if self.without == Without::Fence => {
                    let holders = self.holders.lock().unwrap();
                    *lease = holders
                        .get(&(lease.run.clone(), lease.step.to_string()))
                        .cloned()
                        .unwrap_or_else(|| lease.clone());
                }
                _ => {}
            }
        }
        Ok(items)
    }
}

impl Ledger for Bent {
    dovetail_core::forward_ledger!(ledger: held over workers wake wakes);

    fn commit(&self, items: &[Operation]) -> Result<Vec<Reply>, StoreError> {
        // Recovery waits for a commit of these items (`Recover`, `Close`). A worker that ends the run of its own step
        // uses `commit_then`, which still works.
        if self.without == Without::Reconciler
            && items.iter().all(|item| matches!(item, Operation::Recover { .. } | Operation::Close { .. }))
        {
            return Ok(vec![Reply::Created; items.len()]);
        }
        let items = self.bend(items)?;
        self.life.call(&names(&items), || self.ledger.commit(&items))
    }

    fn commit_then(&self, items: Vec<Operation>, then: Then) {
        let bent = self.bend(&items);
        // The commit is made on this thread, so that a death falls between two calls and not between their answers.
        then(bent.and_then(|items| self.life.call(&names(&items), || self.ledger.commit(&items))));
    }

    fn claim(&self, scope: &Scope, want: usize, lease: Duration, wait: Wait) -> Result<Vec<Claimed>, StoreError> {
        let mut claimed = self.life.call("claim", || self.ledger.claim(scope, want, lease, wait))?;
        for job in &mut claimed {
            self.holders.lock().unwrap().insert((job.lease.run.clone(), job.lease.step.to_string()), job.lease.clone());
            job.verify &= self.without != Without::Verification;
        }
        Ok(claimed)
    }

    fn renew(&self, leases: &[Lease], lease: Duration) -> Result<Vec<Renewal>, StoreError> {
        if self.frozen.load(Ordering::SeqCst) {
            return Err(StoreError::plain(StoreErrorKind::Unavailable, "this process is cut off"));
        }
        self.life.call("renew", || self.ledger.renew(leases, lease))
    }

    fn get(&self, kind: Kind, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let stale =
            self.without == Without::FreshReads && matches!(kind, Kind::Outcome | Kind::RunOutcome | Kind::Attempt);
        self.life.call(&format!("get {}", kind.name()), || {
            if stale { Ok(vec![None; keys.len()]) } else { Ledger::get(&*self.ledger, kind, keys) }
        })
    }

    fn list(&self, kind: Kind, listing: &Listing) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.life.call("list", || Ledger::list(&*self.ledger, kind, listing))
    }

    fn open_runs(&self, limit: usize) -> Result<Vec<RunKey>, StoreError> {
        self.life.call("open runs", || Ledger::open_runs(&*self.ledger, limit))
    }

    fn on_end(&self, listener: Box<dyn Fn(&RunKey) + Send + Sync>) {
        self.ledger.on_end(listener);
    }

    fn beat(&self, worker: &str, about: &[u8], keep: Duration) -> Result<(), StoreError> {
        self.life.call("beat", || self.ledger.beat(worker, about, keep))
    }

    fn lost(&self) -> Result<Vec<RunKey>, StoreError> {
        let nobody_looks = matches!(self.without, Without::Reconciler | Without::Search);
        self.life.call("lost", || if nobody_looks { Ok(Vec::new()) } else { self.ledger.lost() })
    }
}

/// The behaviour of a step; the number is how often any worker has begun the step before.
type Does = Arc<dyn Fn(&Attempt, usize) -> Report + Send + Sync>;

/// Calls `does` for each attempt, and remembers the step and the number of each attempt.
struct Adder {
    asked: Mutex<Vec<(String, u32)>>,
    everybody: Arc<Mutex<Vec<(String, u32)>>>,
    does: Does,
}

fn report(outcome: Outcome) -> Report {
    Report {
        outcome,
        usage: Usage::default(),
        models: Vec::new(),
        warnings: Vec::new(),
        log: Vec::new(),
        log_dropped: 0,
    }
}

fn sum(attempt: &Attempt) -> Report {
    let number = |name: &str| attempt.input[name].as_i64().expect("the inputs were checked");
    report(Outcome::Succeeded { output: json!({ "sum": number("a") + number("b") }) })
}

fn fails(retryable: bool) -> Report {
    report(Outcome::Failed {
        failure: Failure { retryable, ..Failure::new(FailureKind::Failed, "no_luck", "it did not work") },
    })
}

impl Executor for Adder {
    fn execute(&self, attempt: &Attempt, _: &Stop) -> Result<Report, HostError> {
        let this = (attempt.step.to_string(), attempt.number);
        self.asked.lock().unwrap().push(this.clone());
        let before = {
            let mut all = self.everybody.lock().unwrap();
            all.push(this.clone());
            all.iter().filter(|(step, _)| *step == this.0).count() - 1
        };
        Ok((self.does)(attempt, before))
    }
}

/// A data folder that no process has open yet.
struct World {
    folder: tempfile::TempDir,
    published: Published,
    run: RunId,
    holders: Holders,
    /// Each attempt that any worker has begun.
    begun: Arc<Mutex<Vec<(String, u32)>>>,
    does: Does,
}

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

const STEPS: usize = 5;

impl World {
    /// Publishes a diamond with a fifth step (`side`): either of the two sinks can be the run's last step.
    fn new(does: Does) -> Self {
        let folder = folder();
        let (ledger, blobs) =
            (SqliteLedger::open(folder.path(), Arc::new(SystemClock)).unwrap(), FileBlobs::new(folder.path()));
        let ports = Ports { ledger: Arc::new(ledger), blobs: Arc::new(blobs), clock: Arc::new(SystemClock) };
        dovetail_flow::push_plugin(&ports, &adder(), b"add").unwrap();
        let step = |number: u32, a: &str, b: &str| {
            json!({ "number": number, "task": "add@^1", "inputs": { "a": a, "b": b },
                "retry": { "max_attempts": 3, "backoff": "1ms" } })
        };
        let steps = json!({ "head": step(1, "input.x", "input.x"), "left": step(2, "head.sum", "input.x"),
            "right": step(3, "head.sum", "head.sum"),
            "join": step(4, "left.sum", "right.sum"), "side": step(5, "input.x", "head.sum") });
        let file = json!({ "name": "sums", "version": "1.0.0", "inputs": { "x": {} },
            "steps": steps, "output": { "total": "join.sum", "side": "side.sum" } });
        let checked = dovetail_flow::check(&ports, &file.to_string()).unwrap();
        let pipeline = checked.pipeline.ok_or(checked.findings).unwrap();
        let published = dovetail_flow::push_pipeline(&ports, &pipeline).unwrap().0;
        Self {
            folder,
            published,
            run: dovetail_flow::new_run_id(),
            holders: Arc::default(),
            begun: Arc::default(),
            does,
        }
    }

    /// The ports of one process.
    fn process(&self, life: &Arc<Life>, without: Without) -> (Ports, Arc<Bent>) {
        let ledger = Arc::new(SqliteLedger::open(self.folder.path(), Arc::new(SystemClock)).unwrap());
        let (file, frozen) = (self.folder.path().join("dovetail.db"), AtomicBool::new(false));
        let bent = Arc::new(Bent { ledger, life: life.clone(), without, file, holders: self.holders.clone(), frozen });
        (
            Ports {
                ledger: bent.clone(),
                blobs: Arc::new(FileBlobs::new(self.folder.path())),
                clock: Arc::new(SystemClock),
            },
            bent,
        )
    }

    fn submit(&self, ports: &Ports) -> bool {
        dovetail_flow::submit(ports, &self.published, &json!({ "x": 1 }), &self.run).is_ok()
    }

    fn key(&self, generation: u32) -> RunKey {
        RunKey { run: self.run.clone(), generation }
    }

    /// The ledger of a process that only reads.
    fn looking(&self) -> SqliteLedger {
        SqliteLedger::open(self.folder.path(), Arc::new(SystemClock)).unwrap()
    }

    fn outcomes(&self) -> BTreeMap<String, Vec<u8>> {
        let listing = Listing { prefix: format!("{}:", self.run), limit: usize::MAX, newest_first: false };
        Ledger::list(&self.looking(), Kind::Outcome, &listing).unwrap().into_iter().collect()
    }

    /// Runs a worker until `until` holds, the worker ends by itself, or `BOUND` is over. Returns the attempts that this
    /// worker was asked for.
    fn work(&self, ports: &Ports, name: &str, daemon: bool, until: &(dyn Fn() -> bool + Sync)) -> Vec<(String, u32)> {
        let adder = Arc::new(Adder { asked: Mutex::default(), everybody: self.begun.clone(), does: self.does.clone() });
        let (shutdown, over) = (Shutdown::default(), Arc::new(AtomicBool::new(false)));
        let run_ended = over.clone();
        let ended = move |event: &Event| {
            if matches!(event, Event::RunFinished { .. }) {
                run_ended.store(true, Ordering::SeqCst);
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
                std::thread::sleep(Duration::from_millis(5));
                if over.load(Ordering::SeqCst) || until() || began.elapsed() > BOUND {
                    shutdown.drain();
                }
            }
            drop(working.join());
        });
        adder.asked.lock().unwrap().clone()
    }
}

/// Checks a run that must have succeeded in this generation, whichever process died.
fn judge(
    world: &World,
    generation: u32,
    recorded: &BTreeMap<String, Vec<u8>>,
    first: &[(String, u32)],
    second: &[(String, u32)],
) -> Result<(), String> {
    let (ledger, key) = (world.looking(), world.key(generation));
    let end = Ledger::get(&ledger, Kind::RunOutcome, &[key.key()]).unwrap().pop().flatten();
    let end = end.ok_or_else(|| format!("the run never ends; first {first:?}, second {second:?}"))?;
    let end = RunOutcomeRecord::decode(&end, "the run").unwrap().state;
    if end != RunState::Succeeded {
        return Err(format!("the run ended as {end:?}"));
    }
    let outcomes = world.outcomes();
    let of = |outcomes: &BTreeMap<String, Vec<u8>>| -> BTreeSet<String> {
        outcomes
            .keys()
            .filter_map(|text| RunKey::of_outcome(text))
            .filter(|(run, _)| *run == key)
            .map(|(_, step)| step.to_string())
            .collect()
    };
    if of(&outcomes).len() != STEPS {
        return Err(format!("outcomes are there of {:?} only", of(&outcomes)));
    }
    if let Some((key, _)) = recorded.iter().find(|(key, value)| outcomes.get(*key) != Some(value)) {
        return Err(format!("{key} has changed"));
    }
    if let Some((step, _)) = second.iter().find(|(step, _)| of(recorded).contains(step)) {
        return Err(format!("{step} was recorded and is run again"));
    }
    for asked in [first, second] {
        if asked.len() != asked.iter().collect::<BTreeSet<_>>().len() {
            return Err(format!("one process made an attempt twice: {asked:?}"));
        }
    }
    let total = OutcomeRecord::decode(&outcomes[&key.step("join")], "join").unwrap().output().cloned();
    if total != Some(StoredValue::Inline(json!({ "sum": 7 }))) {
        return Err(format!("the total is {total:?}"));
    }
    let open = Ledger::open_runs(&ledger, 9).unwrap();
    let left = ledger.claim(&Scope::All, 9, LEASE, Wait::NONE).unwrap();
    if !open.is_empty() || !left.is_empty() {
        return Err(format!("all is done, and {open:?} is open, {left:?} to do"));
    }
    Ok(())
}

/// One scenario with one death: the call at which the process died, and the verdict.
type Case = fn(Death, Without) -> (Option<String>, Result<(), String>);

/// One process submits a run and works on it until the process dies; a second process finishes the run.
fn a_run(death: Death, without: Without) -> (Option<String>, Result<(), String>) {
    // The first attempt at one step fails; its second attempt succeeds.
    let world =
        World::new(Arc::new(
            |attempt, _| if attempt.step == "left" && attempt.number == 1 { fails(true) } else { sum(attempt) },
        ));
    let life = Arc::new(Life { death: Some(death), ..Life::default() });
    let first = {
        let (ports, _) = world.process(&life, without);
        if world.submit(&ports) { world.work(&ports, "first", false, &|| false) } else { Vec::new() }
    };
    let recorded = world.outcomes();
    // The second worker is no daemon, so it does not search for lost runs: a run that was submitted is never lost.
    let second = {
        let (ports, _) = world.process(&Arc::default(), without);
        // A submitter that got no answer submits again, unless the run is recorded: then the worker must find the run
        // without a second submission.
        if ports.ledger.get(Kind::Run, &[world.run.to_string()]).unwrap()[0].is_none() {
            assert!(world.submit(&ports));
        }
        let looking = world.looking();
        let over = || Ledger::get(&looking, Kind::RunOutcome, &[world.key(0).key()]).unwrap()[0].is_some();
        world.work(&ports, "second", false, &over)
    };
    let died = life.last.lock().unwrap().clone();
    (died, judge(&world, 0, &recorded, &first, &second))
}

/// A run has failed. One process retries it until the process dies; a daemon finishes the retry.
fn a_rerun(death: Death, without: Without) -> (Option<String>, Result<(), String>) {
    let world = World::new(Arc::new(
        |attempt, before| if attempt.step == "join" && before == 0 { fails(false) } else { sum(attempt) },
    ));
    {
        let (ports, _) = world.process(&Arc::default(), Without::Nothing);
        assert!(world.submit(&ports));
        world.work(&ports, "before", false, &|| false);
    }
    let life = Arc::new(Life { death: Some(death), ..Life::default() });
    let first = {
        let (ports, _) = world.process(&life, without);
        if dovetail_flow::retry(&ports, &world.run, "once more").is_ok() {
            world.work(&ports, "first", false, &|| false)
        } else {
            Vec::new()
        }
    };
    let recorded = world.outcomes();
    let second = {
        let (ports, _) = world.process(&Arc::default(), without);
        // A caller that got no answer asks for the retry again, unless the retry is recorded.
        if ports.ledger.get(Kind::Generation, &[world.key(1).key()]).unwrap()[0].is_none() {
            dovetail_flow::retry(&ports, &world.run, "once more").unwrap();
        }
        let looking = world.looking();
        let over = || Ledger::get(&looking, Kind::RunOutcome, &[world.key(1).key()]).unwrap()[0].is_some();
        world.work(&ports, "second", true, &over)
    };
    let died = life.last.lock().unwrap().clone();
    (died, judge(&world, 1, &recorded, &first, &second))
}

/// Tries every point of death, four at a time. Returns the failures, and the number of calls. With `enough`, the sweep
/// ends with the first failure.
fn sweep(case: Case, without: Without, enough: bool) -> (Vec<String>, u64) {
    let (next, found, last) = (AtomicU64::new(0), Mutex::new(Vec::new()), AtomicU64::new(u64::MAX));
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                loop {
                    let point = next.fetch_add(1, Ordering::SeqCst);
                    let death = Death { call: point / 2, applied: point % 2 == 1 };
                    if death.call >= last.load(Ordering::SeqCst) || (enough && !found.lock().unwrap().is_empty()) {
                        return;
                    }
                    let (died, verdict) = case(death, without);
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
fn a_worker_that_dies_at_any_call_to_its_ledger_loses_nothing() {
    let (found, points) = sweep(a_run, Without::Nothing, false);
    println!("{points} calls, each with a death before and after it");
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(points > 10, "a run takes more calls than {points}");
}

#[test]
fn a_process_that_dies_while_it_retries_a_run_loses_nothing() {
    let (found, points) = sweep(a_rerun, Without::Nothing, false);
    println!("{points} calls, each with a death before and after it");
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(points > 10, "a run takes more calls than {points}");
}

/// The failures that the sweeps find without the rule; panics if they find none.
#[track_caller]
fn is_found_out(case: Case, without: Without) -> String {
    // The number of claims of a run varies, and with it the number of each later call. So one sweep may miss the one or
    // two calls at which the missing rule shows.
    let found = (0..SWEEPS).map(|_| sweep(case, without, true).0).find(|found| !found.is_empty()).unwrap_or_default();
    assert!(!found.is_empty(), "nothing went wrong without the rule");
    found.join("\n")
}

#[test]
fn a_job_that_is_acknowledged_before_its_outcome_is_recorded_is_found_out() {
    println!("{}", is_found_out(a_run, Without::OutcomeFirst));
}

#[test]
fn a_run_that_nobody_brings_in_line_with_its_records_is_found_out() {
    println!("{}", is_found_out(a_run, Without::Reconciler));
}

#[test]
fn a_daemon_that_does_not_look_for_lost_runs_is_found_out() {
    println!("{}", is_found_out(a_rerun, Without::Search));
}

#[test]
fn a_worker_that_reads_what_is_no_longer_so_is_found_out() {
    println!("{}", is_found_out(a_run, Without::FreshReads));
}

#[test]
fn a_worker_that_does_not_verify_is_found_out() {
    println!("{}", is_found_out(a_run, Without::Verification));
}

/// A worker stands still in a step for longer than its lease, and the step passes to a second worker. While the second
/// attempt runs, the first attempt fails and asks for a retry. Returns how often the step was begun.
fn retried_too_late(without: Without) -> usize {
    let (late, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None::<Instant>)));
    let (begun, is_late, since) = (Arc::new(AtomicU64::new(0)), late.clone(), answered.clone());
    let does = move |attempt: &Attempt, _: usize| {
        if attempt.step != "head" {
            return sum(attempt);
        }
        let wait = |until: &dyn Fn() -> bool| {
            let began = Instant::now();
            while !until() && began.elapsed() < BOUND {
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        match begun.fetch_add(1, Ordering::SeqCst) {
            // The first attempt continues when the second attempt has begun, and fails.
            0 => {
                wait(&|| begun.load(Ordering::SeqCst) > 1);
                is_late.store(true, Ordering::SeqCst);
                fails(true)
            }
            // The second attempt runs until a third attempt begins, or until a second after the first worker's retry
            // was answered.
            1 => {
                wait(&|| {
                    begun.load(Ordering::SeqCst) > 2
                        || since.lock().unwrap().is_some_and(|since| since.elapsed() > Duration::from_secs(1))
                });
                sum(attempt)
            }
            _ => sum(attempt),
        }
    };
    let world = World::new(Arc::new(does));
    let ((first, frozen), (second, _)) =
        (world.process(&Arc::default(), without), world.process(&Arc::default(), without));
    frozen.frozen.store(true, Ordering::SeqCst);
    assert!(world.submit(&first));
    let looking = world.looking();
    let over = || Ledger::get(&looking, Kind::RunOutcome, &[world.key(0).key()]).unwrap()[0].is_some();
    std::thread::scope(|threads| {
        threads.spawn(|| world.work(&first, "first", true, &over));
        while world.begun.lock().unwrap().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        threads.spawn(|| world.work(&second, "second", true, &over));
        // The first worker has asked for its retry; the answer follows within a moment.
        while !late.load(Ordering::SeqCst) && !over() {
            std::thread::sleep(Duration::from_millis(5));
        }
        *answered.lock().unwrap() = Some(Instant::now());
    });
    assert!(over(), "the run comes to its end in any case");
    world.begun.lock().unwrap().iter().filter(|(step, _)| step == "head").count()
}

#[test]
fn a_retry_by_the_loser_of_a_job_is_refused_and_without_that_found_out() {
    assert_eq!(retried_too_late(Without::Nothing), 2, "the step is begun once more, because one worker stood still");
    assert_eq!(retried_too_late(Without::Fence), 3, "without the fence the step is begun a third time");
}
