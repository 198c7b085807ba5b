//! Workers that are killed, frozen, replaced, poisoned; runs that are cancelled as they end, or submitted many times at
//! once.

use std::time::Duration;

use dovetail_core::ledger::{Item, Kind, Record, RunKey};
use dovetail_core::record::{CancelRecord, Form, OutcomeRecord, RunOutcomeRecord, RunState};
use serde_json::json;

use crate::fleet::{Fleet, HASTY_MS, LOCAL, LONG, Setup, busy, redis_url, wait};
use crate::proxy::Mode;
use crate::storm::{Fault, Load, Random};

/// How many workers were lost over each attempt at the step of a run of one.
fn lost(fleet: &Fleet, run: &RunKey) -> Vec<u32> {
    let outcome = fleet.meta.get(Kind::Outcome, &[run.step("go")]).unwrap().pop().flatten().expect("an outcome");
    OutcomeRecord::decode(&outcome, "the step").unwrap().attempts.iter().map(|attempt| attempt.lost_workers).collect()
}

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
    assert_eq!(lost(&fleet, &run), [1], "the attempt tells of the execution that left nothing");
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

/// Workers of an earlier version and of this one side by side under load; the old ones are replaced one by one by new
/// ones, and those again by old ones, as when an upgrade is taken back. `./justw upgrade COMMIT` builds the earlier
/// version and runs this.
#[test]
fn old_and_new_workers_side_by_side_lose_nothing_and_run_nothing_twice() {
    let Some(old) = std::env::var_os("DOVETAIL_TEST_OLD_PROGRAM").map(std::path::PathBuf::from) else {
        println!(
            "not tried here: DOVETAIL_TEST_OLD_PROGRAM names no earlier version of the program (`./justw upgrade COMMIT`)"
        );
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

/// Kills whoever runs it, as often as somebody does, until it is given up; another worker starts each time. How many
/// died.
fn kill_whoever_runs(fleet: &mut Fleet, poison: &RunKey, then: impl Fn(&Fleet)) -> usize {
    let mut killed = 0;
    wait("it is given up", LONG, || {
        if let Some(worker) = fleet.runs_now(poison) {
            fleet.kill(worker);
            killed += 1;
            fleet.worker();
            then(fleet);
        }
        fleet.is_over(poison)
    });
    assert_eq!(killed, dovetail_core::policy::MAX_CRASHES as usize + 1, "that many may die over it, and no more");
    killed
}

#[test]
fn a_job_that_kills_its_workers_is_given_up_and_others_are_not() {
    let mut fleet = Fleet::new(Setup { lease: 1, slots: 1, ..Setup::default() });
    fleet.workers(2);
    let poison = fleet.user.submit("probe", &json!({ "behaviour": { "tag": "endless_loop" } }));
    // The others come beside it, and on what is left of its workers.
    let killed = kill_whoever_runs(&mut fleet, &poison, |fleet| fleet.user.load(3));
    let outcome = fleet.meta.get(Kind::Outcome, &[poison.step("go")]).unwrap().pop().flatten().expect("an outcome");
    let failure = OutcomeRecord::decode(&outcome, "poison").unwrap().failure().cloned().expect("a failure");
    assert_eq!(failure.code, "poison");
    assert_eq!(lost(&fleet, &poison), [u32::try_from(killed).unwrap()]);
    let report = fleet.holds(killed);
    assert_eq!(report.most, killed, "each execution but the last one's delivery killed a worker");
    for run in fleet.user.submitted.lock().unwrap().keys().filter(|run| **run != poison) {
        assert_eq!(end(&fleet, run).state, RunState::Succeeded, "{}", run.key());
    }
}

/// Each death counts for all that the worker had in hand: those beside the poisonous job are found innocent, because it
/// is run alone in the end.
#[test]
fn neighbours_of_a_job_that_kills_its_workers_are_not_given_up() {
    let mut fleet = Fleet::new(Setup { lease: 1, ..Setup::default() });
    let poison = fleet.user.submit("probe", &json!({ "behaviour": { "tag": "endless_loop" } }));
    let beside: Vec<RunKey> = (0..3).map(|_| fleet.user.submit("probe", &json!({ "behaviour": busy(1500) }))).collect();
    fleet.worker();
    let killed = kill_whoever_runs(&mut fleet, &poison, |_| ());
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

/// Whoever cancels records that first and closes the run then: a step that hears of it in between must not close it as
/// one that failed.
#[test]
fn a_step_that_is_stopped_before_its_cancelled_run_is_closed_does_not_fail_it() {
    let mut fleet = Fleet::new(Setup::default());
    fleet.workers(1);
    let run = fleet.user.submit("probe", &json!({ "behaviour": busy(20_000) }));
    wait("the step runs", LONG, || fleet.runs_now(&run).is_some());
    let record = Record {
        kind: Kind::Cancel,
        key: run.key(),
        value: CancelRecord { requested_ms: 0, reason: "the test".into() }.encode(),
    };
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
        let run = dovetail_flow::keyed_run_id("diamond", format!("key {n}"));
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

/// Its lease cannot be renewed and lapses, while it runs the step, which takes many leases, so that another worker is
/// up before it ends: that one runs it, too, and one outcome counts.
#[test]
fn a_step_whose_lease_cannot_be_renewed_has_one_outcome() {
    let mut fleet = Fleet::new(Setup { proxies: true, ..Setup::default() });
    fleet.workers(1);
    let run = fleet.user.submit("probe", &json!({ "behaviour": busy(20_000) }));
    wait("the step runs", LONG, || fleet.runs_now(&run).is_some());
    fleet.to_redis.as_ref().unwrap().set(Mode::Swallow("renew"));
    let direct = redis_url(LOCAL, fleet.redis.port());
    fleet.worker_with(&[("DOVETAIL_QUEUE", &direct)]);
    let (first, other) = (fleet.workers[0].name.clone(), fleet.workers[1].name.clone());
    wait("another one runs it, too", LONG, || fleet.executions().iter().any(|e| e.worker == other));
    assert!(!fleet.is_over(&run), "the first one still runs it");
    wait("it ends", LONG, || fleet.is_over(&run));
    let proxy = fleet.to_redis.as_ref().unwrap();
    assert!(proxy.lost() > 0, "nothing was lost");
    proxy.set(Mode::Pass);
    assert_eq!(fleet.all_work(), Vec::<String>::new());
    let of_it: Vec<String> =
        fleet.executions().into_iter().filter(|e| e.run == run.run.to_string()).map(|e| e.worker).collect();
    assert_eq!(of_it, [first, other]);
    assert_eq!(end(&fleet, &run).state, RunState::Succeeded);
    let report = fleet.holds(1);
    assert_eq!(report.again, 1);
}

/// Jobs that are handed out again although somebody holds them or they are done, as a queue does that delivers at least
/// once: entries of lists that came twice, and whole jobs of steps that have an outcome.
#[test]
fn jobs_that_are_delivered_again_are_not_run_again() {
    let (mut fleet, mut random) = (Fleet::new(Setup { lease: 10, ..Setup::default() }), Random::new());
    fleet.workers(2);
    let load = Load::start(&fleet.user, Duration::from_millis(20));
    let key = |name: &str| format!("dovetail:{{faults}}:{name}");
    let epoch: String = redis::from_redis_value(fleet.redis.redis(&["HGET", &key("meta"), "ep"]).unwrap()).unwrap();
    let (mut entries, mut jobs) = (0, 0);
    for _ in 0..20 {
        fleet.progress(3);
        let begun = fleet.executions();
        for _ in 0..30 {
            // Of the last ones many are still at work, or their runs are open.
            let execution = &begun[begun.len() - 1 - random.below(begun.len().min(200))];
            let id = format!("{}:0/{}", execution.run, execution.step);
            if random.below(2) == 0 {
                entries += 1;
            } else if fleet.meta.get(Kind::Outcome, &[format!("{}:{}:0", execution.run, execution.step)]).unwrap()[0]
                .is_some()
            {
                // As it was when it was first enqueued; where it is still there, that one stays.
                drop(
                    fleet
                        .redis
                        .redis(&["HSETNX", &key("body"), &id, &format!("{epoch}\u{1f}0\u{1f}1\u{1f}\u{1f}")])
                        .unwrap(),
                );
                jobs += 1;
            }
            drop(fleet.redis.redis(&["LPUSH", &key("q:"), &id]).unwrap());
            drop(fleet.redis.redis(&["SADD", &key("lanes"), ""]).unwrap());
        }
    }
    load.stop();
    println!("{entries} entries and {jobs} jobs of steps that were done came again");
    assert!(entries > 100 && jobs > 100);
    let report = fleet.holds(0);
    assert_eq!((report.again, report.executions), (0, report.steps), "each step once");
}

/// One job, and many who sleep: it is handed out once, and what they ask of Redis for it is bounded.
#[test]
fn one_job_among_many_idle_workers_is_handed_out_once() {
    const WORKERS: u64 = 12;
    let mut fleet = Fleet::new(Setup { lease: 10, ..Setup::default() });
    for _ in 0..WORKERS {
        fleet.start_worker(&[]);
    }
    wait("all live", LONG, || fleet.user.parts.ledger.workers().unwrap().len() as u64 == WORKERS);
    std::thread::sleep(Duration::from_secs(3));
    let calls = |fleet: &Fleet| fleet.redis.info("cmdstat_evalsha");
    let round = |fleet: &Fleet, runs: u64| {
        let before = calls(fleet);
        for _ in 0..runs {
            let run = fleet.user.submit("probe", &json!({ "behaviour": busy(1) }));
            wait("it ends", LONG, || fleet.is_over(&run));
        }
        std::thread::sleep(Duration::from_secs(5));
        calls(fleet) - before
    };
    // Their heartbeats and looks go on.
    let (nothing, ten) = (round(&fleet, 0), round(&fleet, 10));
    let each = ten.saturating_sub(nothing) as f64 / 10.0;
    println!("{nothing} calls of {WORKERS} idle workers in 5 s; {each} more for each run of one step");
    // Beside submission, claim and end: everybody who sleeps is woken by the work and by the end, and asks once or
    // twice.
    assert!(each <= 4.0 * WORKERS as f64 + 10.0, "{each} calls for one step");
    let report = fleet.holds(0);
    assert_eq!((report.runs, report.executions, report.again), (10, 10, 0));
}

/// A step that ends at about the time at which its time is over: either it succeeded or it did not, and the run says
/// the same.
#[test]
fn a_step_that_ends_as_its_time_is_over_has_one_outcome() {
    let (mut fleet, mut random) = (Fleet::new(Setup::default()), Random::new());
    fleet.workers(2);
    // How long a round of the task takes differs from machine to machine: from there on both ends are come to.
    let began = std::time::Instant::now();
    let first = fleet.user.submit("probe", &json!({ "behaviour": busy(200) }));
    wait("it ends", LONG, || fleet.is_over(&first));
    let took = |run: &RunKey| {
        let outcome = fleet.meta.get(Kind::Outcome, &[run.step("go")]).unwrap().pop().flatten().unwrap();
        let outcome = OutcomeRecord::decode(&outcome, "go").unwrap();
        (outcome.attempts.last().unwrap().duration_us, outcome.failure().cloned())
    };
    let round = took(&first).0 as f64 / 200_000.0;
    println!("a round takes {round:.2} us, and the first run {:.1?}", began.elapsed());
    let about = HASTY_MS as f64 * 1000.0 / round;
    let runs: Vec<RunKey> = (0..120)
        .map(|_| {
            // Beside one another they take up to ten times as long.
            let rounds = (about * random.between(0.02, 1.1)) as u64;
            fleet.user.submit("hasty", &json!({ "behaviour": { "tag": "busy", "val": rounds } }))
        })
        .collect();
    wait("all end", LONG, || fleet.open().unwrap().is_empty());
    let (mut succeeded, mut late) = (0, 0);
    for run in &runs {
        let failure = took(run).1;
        match end(&fleet, run).state {
            RunState::Succeeded => {
                assert_eq!(failure, None, "{}", run.key());
                succeeded += 1;
            }
            RunState::Failed => {
                assert_eq!(failure.map(|failure| failure.code).as_deref(), Some("timeout"), "{}", run.key());
                late += 1;
            }
            RunState::Cancelled => panic!("nobody cancels {}", run.key()),
        }
    }
    println!("{succeeded} in time, {late} too late");
    assert!(succeeded > 0 && late > 0, "there was no race");
    fleet.holds(0);
}
