//! Workers that are killed, frozen, replaced or poisoned; runs that are cancelled as they end, or submitted many times
//! at once.

use std::time::Duration;

use dovetail_core::ledger::{Kind, Operation, Record, RunKey};
use dovetail_core::record::{CancelRecord, Form, OutcomeRecord, RunOutcomeRecord, RunState};
use serde_json::json;

use crate::fleet::{Fleet, HASTY_MS, LOCAL, LONG, Setup, busy, redis_url, wait};
use crate::proxy::Mode;
use crate::storm::{Fault, Load, Random};

/// For a run of one step: how many workers were lost during each attempt.
fn lost(fleet: &Fleet, run: &RunKey) -> Vec<u32> {
    let outcome = fleet.meta.get(Kind::Outcome, &[run.step("go")]).unwrap().pop().flatten().expect("an outcome");
    OutcomeRecord::decode(&outcome, "the step").unwrap().attempts.iter().map(|attempt| attempt.lost_workers).collect()
}

fn end(fleet: &Fleet, run: &RunKey) -> RunOutcomeRecord {
    let record = fleet.meta.get(Kind::RunOutcome, &[run.key()]).unwrap().pop().flatten();
    RunOutcomeRecord::decode(&record.expect("the run is over"), &run.key()).unwrap()
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
    assert_eq!(lost(&fleet, &run), [1], "the attempt counts the execution that left no outcome");
}

/// No other worker works, no run is submitted, and no notification is sent: the only event is that a lease expires.
#[test]
fn the_step_of_a_killed_worker_is_taken_over_by_one_that_sleeps() {
    let mut fleet = Fleet::new(Setup::default());
    fleet.workers(2);
    let run = fleet.user.submit("probe", &json!({ "behaviour": busy(3000) }));
    wait("the step runs", LONG, || fleet.runs_now(&run).is_some());
    // The other worker has found no job, and sleeps.
    std::thread::sleep(Duration::from_secs(1));
    let killed = fleet.runs_now(&run).expect("the step runs for seconds");
    fleet.kill(killed);
    let began = std::time::Instant::now();
    wait("the other worker takes the step", LONG, || fleet.runs_now(&run).is_some());
    let took = began.elapsed();
    println!("taken over after {took:.1?}, with a lease of {} s", fleet.setup.lease);
    assert!(took < Duration::from_secs(15), "taken over after {took:?}: no worker looked for an expired lease");
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

/// When the worker freezes, it holds jobs that it claimed ahead; when it wakes, another worker has done them.
#[test]
fn a_worker_that_wakes_late_begins_nothing_that_was_done() {
    // With SQLite, a process that is frozen within a write would keep all other processes from writing.
    let mut fleet = Fleet::new(Setup { mongodb: true, slots: 1, ..Setup::default() });
    fleet.user.load(200);
    fleet.workers(1);
    fleet.progress(10);
    fleet.freeze(0);
    fleet.workers(1);
    wait("the other worker ends all runs", LONG, || fleet.open().unwrap().is_empty());
    // A step that the first worker begins now would begin long after its outcome was recorded.
    std::thread::sleep(Duration::from_secs(4));
    fleet.thaw(0);
    // The worker's next heartbeat shows that it has begun or released the jobs that it held.
    let name = fleet.workers[0].name.clone();
    let before = fleet.user.ports.ledger.workers().unwrap();
    let entry = |list: &[(String, Vec<u8>)]| list.iter().find(|(worker, _)| *worker == name).cloned();
    wait("the worker sends a heartbeat", LONG, || {
        let now = entry(&fleet.user.ports.ledger.workers().unwrap());
        now.is_some() && now != entry(&before)
    });
    // The worker ends after it has finished or released all its jobs.
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
    assert_eq!((report.again, report.executions), (0, report.steps), "a step was executed more than once");
}

/// Workers of an earlier version and of this version work side by side under load. New workers replace the old ones one
/// by one, and then old workers replace the new ones, as in an upgrade that is taken back. `./justw upgrade COMMIT`
/// builds the earlier version and runs this test.
#[test]
fn old_and_new_workers_side_by_side_lose_nothing_and_run_nothing_twice() {
    let Some(old) = std::env::var_os("DOVETAIL_TEST_OLD_PROGRAM").map(std::path::PathBuf::from) else {
        println!(
            "not tried here: DOVETAIL_TEST_OLD_PROGRAM names no earlier version of the program \
             (`./justw upgrade COMMIT`)"
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
            // The new worker works beside those that are left.
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
    assert_eq!((report.again, report.executions), (0, report.steps), "a step was executed more than once");
}

/// Kills each worker that runs the job, and starts another worker, until the job is given up. Returns the number of
/// killed workers.
fn kill_each_worker_that_runs(fleet: &mut Fleet, poison: &RunKey, then: impl Fn(&Fleet)) -> usize {
    let mut killed = 0;
    wait("the poisonous job is given up", LONG, || {
        if let Some(worker) = fleet.runs_now(poison) {
            fleet.kill(worker);
            killed += 1;
            fleet.worker();
            then(fleet);
        }
        fleet.is_over(poison)
    });
    assert_eq!(killed, dovetail_core::policy::MAX_CRASHES as usize + 1, "the number of workers killed by the job");
    killed
}

#[test]
fn a_job_that_kills_its_workers_is_given_up_and_others_are_not() {
    let mut fleet = Fleet::new(Setup { lease: 1, slots: 1, ..Setup::default() });
    fleet.workers(2);
    let poison = fleet.user.submit("probe", &json!({ "behaviour": { "tag": "endless_loop" } }));
    // Other runs are submitted beside the poisonous job; its remaining workers run them.
    let killed = kill_each_worker_that_runs(&mut fleet, &poison, |fleet| fleet.user.load(3));
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

/// Each death of a worker counts for all jobs that the worker held. The jobs beside the poisonous one are not given up,
/// because a suspected job is run alone in the end.
#[test]
fn neighbours_of_a_job_that_kills_its_workers_are_not_given_up() {
    let mut fleet = Fleet::new(Setup { lease: 1, ..Setup::default() });
    let poison = fleet.user.submit("probe", &json!({ "behaviour": { "tag": "endless_loop" } }));
    let beside: Vec<RunKey> = (0..3).map(|_| fleet.user.submit("probe", &json!({ "behaviour": busy(1500) }))).collect();
    fleet.worker();
    let killed = kill_each_worker_that_runs(&mut fleet, &poison, |_| ());
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
        if dovetail_flow::cancel(&fleet.user.ports, &run.run, "the test").unwrap() {
            cancelled += 1;
        } else {
            assert_eq!(end(&fleet, &run).state, RunState::Succeeded, "the run was over before");
            late += 1;
        }
        // From now on the run has an end, which never changes.
        let mut violations = Vec::new();
        fleet.observe(&mut violations);
        assert_eq!(violations, Vec::<String>::new());
        assert!(fleet.is_over(&run), "`cancel` does not close the run");
    }
    println!("{cancelled} cancelled, {late} over before");
    fleet.holds(0);
}

/// A cancellation is recorded first, and then the run is closed. A step that hears of the cancellation in between must
/// not close the run as failed.
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
    fleet.user.ports.ledger.commit(&[Operation::Cancel { run: run.clone(), record }]).unwrap();
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

/// A worker cannot renew its lease, so the lease expires while the worker runs the step. The step takes many leases, so
/// that another worker can start before it ends. The other worker runs the step, too, and one outcome counts.
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
    wait("another worker runs the step, too", LONG, || fleet.executions().iter().any(|e| e.worker == other));
    assert!(!fleet.is_over(&run), "the run is over before the first worker has ended the step");
    wait("the run ends", LONG, || fleet.is_over(&run));
    let proxy = fleet.to_redis.as_ref().unwrap();
    assert!(proxy.lost() > 0, "no renewal was lost");
    proxy.set(Mode::Pass);
    assert_eq!(fleet.all_work(), Vec::<String>::new());
    let of_it: Vec<String> =
        fleet.executions().into_iter().filter(|e| e.run == run.run.to_string()).map(|e| e.worker).collect();
    assert_eq!(of_it, [first, other]);
    assert_eq!(end(&fleet, &run).state, RunState::Succeeded);
    let report = fleet.holds(1);
    assert_eq!(report.again, 1);
}

/// Jobs are delivered again although they are leased or done, as an at-least-once queue may do: entries of lists come
/// twice, and whole jobs of recorded steps come back.
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
            // Many of the last executions are still under way, or their runs are open.
            let execution = &begun[begun.len() - 1 - random.below(begun.len().min(200))];
            let id = format!("{}:0/{}", execution.run, execution.step);
            if random.below(2) == 0 {
                entries += 1;
            } else if fleet.meta.get(Kind::Outcome, &[format!("{}:{}:0", execution.run, execution.step)]).unwrap()[0]
                .is_some()
            {
                // The job's body as it was when the job was first enqueued; a body that still exists stays (HSETNX).
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
    assert_eq!((report.again, report.executions), (0, report.steps), "a step was executed more than once");
}

/// There is one job, and many workers sleep: the job is claimed once, and the number of calls to Redis is bounded.
#[test]
fn one_job_among_many_idle_workers_is_handed_out_once() {
    const WORKERS: u64 = 12;
    let mut fleet = Fleet::new(Setup { lease: 10, ..Setup::default() });
    for _ in 0..WORKERS {
        fleet.start_worker(&[]);
    }
    wait("all workers live", LONG, || fleet.user.ports.ledger.workers().unwrap().len() as u64 == WORKERS);
    std::thread::sleep(Duration::from_secs(3));
    let calls = |fleet: &Fleet| fleet.redis.info("cmdstat_evalsha");
    let round = |fleet: &Fleet, runs: u64| {
        let before = calls(fleet);
        for _ in 0..runs {
            let run = fleet.user.submit("probe", &json!({ "behaviour": busy(1) }));
            wait("the run ends", LONG, || fleet.is_over(&run));
        }
        std::thread::sleep(Duration::from_secs(5));
        calls(fleet) - before
    };
    // The idle workers' heartbeats and looks continue in both rounds.
    let (nothing, ten) = (round(&fleet, 0), round(&fleet, 10));
    let each = ten.saturating_sub(nothing) as f64 / 10.0;
    println!("{nothing} calls of {WORKERS} idle workers in 5 s; {each} more for each run of one step");
    // Beside submission, claim and end: the job and the run's end wake every sleeping worker, which asks once or twice.
    assert!(each <= 4.0 * WORKERS as f64 + 10.0, "{each} calls for one step");
    let report = fleet.holds(0);
    assert_eq!((report.runs, report.executions, report.again), (10, 10, 0));
}

/// A step ends at about the time of its timeout: it either succeeded or failed, and its run says the same.
#[test]
fn a_step_that_ends_as_its_time_is_over_has_one_outcome() {
    let (mut fleet, mut random) = (Fleet::new(Setup::default()), Random::new());
    fleet.workers(2);
    // The time of a round of the task differs from machine to machine, so it is measured. The runs below are spread
    // around the timeout, so that both ends occur.
    let began = std::time::Instant::now();
    let first = fleet.user.submit("probe", &json!({ "behaviour": busy(200) }));
    wait("the run ends", LONG, || fleet.is_over(&first));
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
            // Beside each other the steps take up to ten times as long.
            let rounds = (about * random.between(0.02, 1.1)) as u64;
            fleet.user.submit("hasty", &json!({ "behaviour": { "tag": "busy", "val": rounds } }))
        })
        .collect();
    wait("all runs end", LONG, || fleet.open().unwrap().is_empty());
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
            RunState::Cancelled => panic!("{} was cancelled", run.key()),
        }
    }
    println!("{succeeded} in time, {late} too late");
    assert!(succeeded > 0 && late > 0, "there was no race");
    fleet.holds(0);
}
