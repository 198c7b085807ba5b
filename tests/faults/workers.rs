//! Workers that are killed, frozen, replaced, poisoned; runs that are cancelled as they end, or submitted many times at once.

use std::time::Duration;

use dovetail_core::ledger::{Item, Kind, Record, RunKey};
use dovetail_core::record::{CancelRecord, Form, OutcomeRecord, RunOutcomeRecord, RunState};
use serde_json::json;

use crate::fleet::{Fleet, LONG, Setup, busy, wait};
use crate::storm::{Fault, Load, Random};

fn end(fleet: &Fleet, run: &RunKey) -> RunOutcomeRecord {
    let record = fleet.meta.get(Kind::RunOutcome, &[run.key()]).unwrap().pop().flatten();
    RunOutcomeRecord::decode(&record.expect("it is over"), &run.key()).unwrap()
}

#[test]
fn the_step_of_a_killed_worker_is_run_once_more() {
    let mut fleet = Fleet::new(Setup::default());
    fleet.workers(1);
    let run = fleet.user.submit("probe", &json!({ "behaviour": busy(1500) }));
    wait("the step runs", LONG, || fleet.runs_now(&run).is_some());
    fleet.kill(0);
    fleet.workers(1);
    let report = fleet.holds(1);
    assert_eq!((report.executions, report.again), (2, 1));
    assert_eq!(end(&fleet, &run).state, RunState::Succeeded);
}

/// Nobody else works, nothing is submitted, no bell rings: only the lapse of a lease.
#[test]
fn the_step_of_a_killed_worker_is_taken_over_by_one_that_sleeps() {
    let mut fleet = Fleet::new(Setup::default());
    fleet.workers(2);
    let run = fleet.user.submit("probe", &json!({ "behaviour": busy(3000) }));
    wait("the step runs", LONG, || fleet.runs_now(&run).is_some());
    // The other one has long found that there is nothing for it.
    std::thread::sleep(Duration::from_secs(1));
    let killed = fleet.runs_now(&run).expect("it runs for seconds");
    fleet.kill(killed);
    let began = std::time::Instant::now();
    wait("the other one takes it", LONG, || fleet.runs_now(&run).is_some());
    let took = began.elapsed();
    println!("taken over after {took:.1?}, with a lease of {} s", fleet.setup.lease);
    assert!(took < Duration::from_secs(15), "taken over after {took:?}: nobody looked for a lapsed lease");
    fleet.holds(1);
}

#[test]
fn killed_workers_under_load_lose_nothing() {
    let (mut fleet, mut random) = (Fleet::new(Setup::default()), Random::new());
    fleet.workers(2);
    let load = Load::start(&fleet.user, Duration::from_millis(20));
    for _ in 0..3 {
        fleet.progress(10);
        Fault::WorkerKilled.strike(&mut fleet, &mut random);
    }
    load.stop();
    assert_eq!(fleet.all_work(), Vec::<String>::new());
    fleet.holds(3);
}

/// It holds jobs that it claimed ahead when it freezes, and others have done them when it wakes.
#[test]
fn a_worker_that_wakes_late_begins_nothing_that_was_done() {
    // With SQLite a process that is frozen amid a write would keep everybody else from writing.
    let mut fleet = Fleet::new(Setup { mongodb: true, slots: 1, ..Setup::default() });
    fleet.user.load(200);
    fleet.workers(1);
    fleet.progress(10);
    fleet.freeze(0);
    fleet.workers(1);
    wait("the other one does it all", LONG, || fleet.open().unwrap().is_empty());
    // So that what it begins now comes long after what was recorded.
    std::thread::sleep(Duration::from_secs(4));
    fleet.thaw(0);
    // It is heard of again: what it held, it has begun, or let go.
    let name = fleet.workers[0].name.clone();
    let before = fleet.user.parts.ledger.workers().unwrap();
    let seen = |list: &[(String, Vec<u8>)]| list.iter().find(|(worker, _)| *worker == name).cloned();
    wait("it says that it lives", LONG, || {
        let now = seen(&fleet.user.parts.ledger.workers().unwrap());
        now.is_some() && now != seen(&before)
    });
    // Whatever it holds it is done with before it ends.
    fleet.drain(0);
    fleet.holds(1);
}

#[test]
fn frozen_workers_under_load_lose_nothing() {
    let (mut fleet, mut random) = (Fleet::new(Setup::default()), Random::new());
    fleet.workers(2);
    let load = Load::start(&fleet.user, Duration::from_millis(20));
    for _ in 0..2 {
        fleet.progress(10);
        Fault::WorkerFrozen.strike(&mut fleet, &mut random);
    }
    load.stop();
    assert_eq!(fleet.all_work(), Vec::<String>::new());
    fleet.holds(2);
}

#[test]
fn workers_that_are_replaced_one_by_one_lose_nothing_and_run_nothing_twice() {
    let (mut fleet, mut random) = (Fleet::new(Setup { lease: 5, ..Setup::default() }), Random::new());
    fleet.workers(3);
    let load = Load::start(&fleet.user, Duration::from_millis(10));
    fleet.progress(20);
    Fault::WorkersReplaced.strike(&mut fleet, &mut random);
    fleet.progress(20);
    load.stop();
    let report = fleet.holds(0);
    assert_eq!((report.again, report.executions), (0, report.steps), "each step once");
}

/// Workers of an earlier version and of this one side by side under load; the old ones are replaced one by one by new ones, and those again by
/// old ones, as when an upgrade is taken back. `./justw upgrade COMMIT` builds the earlier version and runs this.
#[test]
fn old_and_new_workers_side_by_side_lose_nothing_and_run_nothing_twice() {
    let Some(old) = std::env::var_os("DOVETAIL_TEST_OLD_PROGRAM").map(std::path::PathBuf::from) else {
        println!("not tried here: DOVETAIL_TEST_OLD_PROGRAM names no earlier version of the program (`./justw upgrade COMMIT`)");
        return;
    };
    let mut fleet = Fleet::new(Setup { lease: 5, ..Setup::default() });
    for _ in 0..3 {
        fleet.worker_of(&old);
    }
    let load = Load::start(&fleet.user, Duration::from_millis(10));
    fleet.progress(20);
    let mut workers = std::collections::BTreeSet::new();
    for back in [false, true] {
        for _ in 0..3 {
            if back {
                fleet.worker_of(&old);
            } else {
                fleet.worker();
            }
            // The newcomer works beside those that are left.
            let newcomer = fleet.workers.last().unwrap().name.clone();
            wait("the newcomer works", LONG, || fleet.executions().iter().any(|e| e.worker == newcomer));
            workers.insert(newcomer);
            fleet.drain(0);
            fleet.progress(10);
        }
    }
    load.stop();
    assert_eq!(workers.len(), 6);
    let report = fleet.holds(0);
    println!("{} runs, {} executions", report.runs, report.executions);
    assert_eq!((report.again, report.executions), (0, report.steps), "each step once");
}

#[test]
fn a_job_that_kills_its_workers_is_given_up_and_others_are_not() {
    let mut fleet = Fleet::new(Setup { lease: 1, slots: 1, ..Setup::default() });
    fleet.workers(2);
    let poison = fleet.user.submit("probe", &json!({ "behaviour": { "tag": "endless_loop" } }));
    let mut killed = 0;
    wait("it is given up", LONG, || {
        if let Some(worker) = fleet.runs_now(&poison) {
            fleet.kill(worker);
            killed += 1;
            fleet.worker();
            // Beside it, and on what is left of its workers.
            fleet.user.load(3);
        }
        fleet.is_over(&poison)
    });
    assert_eq!(killed, dovetail_core::policy::MAX_CRASHES as usize + 1, "that many may die over it, and no more");
    let outcome = fleet.meta.get(Kind::Outcome, &[poison.step("go")]).unwrap().pop().flatten().expect("an outcome");
    let failure = OutcomeRecord::decode(&outcome, "poison").unwrap().failure.expect("a failure");
    assert_eq!(failure.code, "poison");
    let report = fleet.holds(killed);
    assert_eq!(report.most, killed, "each execution but the last one's delivery killed a worker");
    for run in fleet.user.submitted.lock().unwrap().keys().filter(|run| **run != poison) {
        assert_eq!(end(&fleet, run).state, RunState::Succeeded, "{}", run.key());
    }
}

/// Each death counts for all that the worker had in hand: those beside the poisonous job are found innocent, because it is run alone in the end.
#[test]
fn neighbours_of_a_job_that_kills_its_workers_are_not_given_up() {
    let mut fleet = Fleet::new(Setup { lease: 1, ..Setup::default() });
    let poison = fleet.user.submit("probe", &json!({ "behaviour": { "tag": "endless_loop" } }));
    let beside: Vec<RunKey> = (0..3).map(|_| fleet.user.submit("probe", &json!({ "behaviour": busy(1500) }))).collect();
    fleet.worker();
    let mut killed = 0;
    wait("it is given up", LONG, || {
        if let Some(worker) = fleet.runs_now(&poison) {
            fleet.kill(worker);
            killed += 1;
            fleet.worker();
        }
        fleet.is_over(&poison)
    });
    assert_eq!(killed, dovetail_core::policy::MAX_CRASHES as usize + 1);
    wait("the others end", LONG, || beside.iter().all(|run| fleet.is_over(run)));
    for run in &beside {
        assert_eq!(end(&fleet, run).state, RunState::Succeeded, "{}", run.key());
    }
    fleet.holds(killed * 4);
}

#[test]
fn a_run_that_is_cancelled_as_it_ends_has_one_end() {
    let (mut fleet, mut random) = (Fleet::new(Setup::default()), Random::new());
    fleet.workers(2);
    let (mut cancelled, mut late) = (0, 0);
    for n in 0..60 {
        let run = fleet.user.submit("diamond", &json!({ "x": n, "behaviour": busy(5) }));
        std::thread::sleep(Duration::from_secs_f64(random.between(0.0, 0.05)));
        if dovetail_flow::cancel(&fleet.user.parts, &run.run, "the test").unwrap() {
            cancelled += 1;
        } else {
            assert_eq!(end(&fleet, &run).state, RunState::Succeeded, "it was over before");
            late += 1;
        }
        // From now on it has an end, and that stays.
        let mut violations = Vec::new();
        fleet.observe(&mut violations);
        assert_eq!(violations, Vec::<String>::new());
        assert!(fleet.is_over(&run), "whoever cancels closes");
    }
    println!("{cancelled} cancelled, {late} over before");
    fleet.holds(0);
}

/// Whoever cancels records that first and closes the run then: a step that hears of it in between must not close it as one that failed.
#[test]
fn a_step_that_is_stopped_before_its_cancelled_run_is_closed_does_not_fail_it() {
    let mut fleet = Fleet::new(Setup::default());
    fleet.workers(1);
    let run = fleet.user.submit("probe", &json!({ "behaviour": busy(20_000) }));
    wait("the step runs", LONG, || fleet.runs_now(&run).is_some());
    let record = Record { kind: Kind::Cancel, key: run.key(), value: CancelRecord { requested_ms: 0, reason: "the test".into() }.encode() };
    fleet.user.parts.ledger.commit(&[Item::Cancel { run: run.clone(), record }]).unwrap();
    wait("the run ends", LONG, || fleet.is_over(&run));
    assert_eq!(end(&fleet, &run).state, RunState::Cancelled);
    fleet.holds(0);
}

#[test]
fn a_run_that_many_submit_at_once_is_one_run() {
    let mut fleet = Fleet::new(Setup::default());
    fleet.workers(2);
    for n in 0..5 {
        let run = dovetail_flow::keyed_run_id("diamond", &format!("key {n}"));
        let inputs = json!({ "x": n, "behaviour": busy(1) });
        std::thread::scope(|threads| {
            for _ in 0..32 {
                threads.spawn(|| fleet.user.try_submit(&run, "diamond", &inputs).unwrap());
            }
        });
        let other = fleet.user.try_submit(&run, "diamond", &json!({ "x": n + 1, "behaviour": busy(1) })).unwrap_err();
        assert_eq!(other.code(), "run_differs");
    }
    let report = fleet.holds(0);
    assert_eq!((report.runs, report.executions, report.again), (5, 25, 0));
}

/// Each worker lives in a time of its own, an hour before or after the test's. Needs `faketime`.
#[test]
fn workers_whose_clocks_are_wrong_lose_nothing() {
    let library =
        ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64"].map(|folder| format!("{folder}/faketime/libfaketime.so.1"));
    let Some(library) = library.iter().find(|path| std::path::Path::new(path).is_file()) else {
        println!("not tried here: libfaketime is missing (Debian: apt-get install faketime)");
        return;
    };
    let mut fleet = Fleet::new(Setup::default());
    for offset in ["+1h", "-1h"] {
        fleet.worker_with(&[("LD_PRELOAD", library), ("FAKETIME", offset), ("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("DONT_FAKE_MONOTONIC", "1")]);
    }
    fleet.user.load(60);
    let mut violations = Vec::new();
    fleet.quiet(&mut violations);
    fleet.observe(&mut violations);
    assert_eq!(violations, Vec::<String>::new());
    // Times in the records come from the workers' clocks; what was executed, and how often, does not.
    let executions = fleet.executions();
    let steps: std::collections::BTreeSet<_> = executions.iter().map(|e| (&e.run, &e.step)).collect();
    assert_eq!(executions.len(), steps.len(), "each step once");
    let workers: std::collections::BTreeSet<_> = executions.iter().map(|e| &e.worker).collect();
    assert_eq!(workers.len(), 2, "both worked");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    assert!(executions.iter().all(|e| u128::from(e.at_ms).abs_diff(now) > 3_000_000), "their clocks are wrong");
}
