//! Servers that die, stand still, lose data, fill up, or answer late or never, while workers work and runs are
//! submitted.

use std::process::Stdio;
use std::time::{Duration, Instant};

use dovetail_core::ledger::RunKey;
use serde_json::json;

use crate::fleet::{Fleet, LONG, Setup, busy, wait};
use crate::proxy::Mode;
use crate::storm::{Fault, Load, Random};

/// Strikes `times` times with the fault, under load.
fn survives(setup: Setup, fault: Fault, times: usize) {
    let (mut fleet, mut random) = (Fleet::new(setup), Random::new());
    fleet.workers(2);
    let load = Load::start(&fleet.user, Duration::from_millis(20));
    for _ in 0..times {
        fleet.progress(10);
        fault.strike(&mut fleet, &mut random);
    }
    fleet.progress(10);
    load.stop();
    assert_eq!(fleet.all_work(), Vec::<String>::new());
    fleet.holds(times);
}

const PLAIN: Setup = Setup {
    mongodb: false,
    s3: false,
    proxies: false,
    apart: false,
    small: None,
    redis_clock: false,
    lease: 2,
    slots: 4,
};
const LINES: Setup = Setup { proxies: true, ..PLAIN };
const MONGODB: Setup = Setup { mongodb: true, ..LINES };

#[test]
fn redis_killed_and_started_again() {
    survives(PLAIN, Fault::RedisKilled, 2);
}

#[test]
fn redis_emptied() {
    survives(PLAIN, Fault::RedisEmptied, 3);
}

#[test]
fn redis_restored_from_an_old_copy() {
    survives(PLAIN, Fault::RedisRestored, 2);
}

#[test]
fn redis_started_again_without_the_end_of_its_file() {
    survives(PLAIN, Fault::RedisCutShort, 2);
}

#[test]
fn redis_that_reads_its_file_for_long() {
    survives(PLAIN, Fault::RedisLoads, 1);
}

#[test]
fn redis_that_sleeps_for_longer_than_a_lease() {
    survives(PLAIN, Fault::RedisSleeps, 2);
}

#[test]
fn redis_frozen_for_longer_than_a_lease() {
    survives(PLAIN, Fault::RedisFrozen, 2);
}

#[test]
fn redis_full() {
    survives(PLAIN, Fault::RedisFull, 2);
}

/// A full Redis serves the jobs that it holds, which makes room. A run that is submitted meanwhile is accepted, and
/// begins later.
#[test]
fn redis_full_is_worked_off() {
    let mut fleet = Fleet::new(PLAIN);
    for n in 0..200 {
        fleet.user.submit("diamond", &json!({ "x": n, "behaviour": busy(1) }));
    }
    drop(fleet.redis.redis(&["CONFIG", "SET", "maxmemory", "1mb"]).unwrap());
    let late = fleet.user.submit("diamond", &json!({ "x": 1000, "behaviour": busy(1) }));
    fleet.workers(2);
    let runs: Vec<RunKey> = fleet.user.submitted.lock().unwrap().keys().filter(|run| **run != late).cloned().collect();
    wait("the queued runs end", LONG, || runs.iter().all(|run| fleet.is_over(run)));
    assert!(!fleet.is_over(&late), "the late run ended although Redis was full all the time");
    drop(fleet.redis.redis(&["CONFIG", "SET", "maxmemory", "0"]).unwrap());
    wait("the accepted run ends", LONG, || fleet.is_over(&late));
    fleet.holds(0);
}

/// A refused run begins as soon as there is room, and not with the next comparison a minute later. Its submitter is
/// gone, no other run is submitted, and the workers compared all open runs a moment ago.
#[test]
fn redis_full_begins_what_it_refused_when_there_is_room() {
    let mut fleet = Fleet::new(PLAIN);
    fleet.workers(2);
    // The workers compare all open runs when they begin, which finds this run. Their next comparison is a minute later.
    fleet.user.load(1);
    std::thread::sleep(Duration::from_secs(5));
    for n in 0..3 {
        // Redis holds more than one byte, so it is full.
        drop(fleet.redis.redis(&["CONFIG", "SET", "maxmemory", "1"]).unwrap());
        let mut submission = fleet.command(false);
        submission.args(["run", "chain", "--input", &format!("x={n}"), "--detach"]);
        let out = submission.output().unwrap();
        let (said, id) = (String::from_utf8_lossy(&out.stderr), String::from_utf8_lossy(&out.stdout));
        assert!(out.status.success() && said.contains("the queue is full"), "the run was not refused: {said}");
        let run = RunKey { run: id.trim().parse().unwrap(), generation: 0 };
        fleet.user.submitted.lock().unwrap().insert(run.clone(), Some(json!({ "sum": n + 3 })));
        // Long enough for the workers to find the run, and to be refused again.
        std::thread::sleep(Duration::from_secs(if n == 2 { 12 } else { 1 }));
        assert!(!fleet.is_over(&run), "the run ended although Redis was full all the time");
        drop(fleet.redis.redis(&["CONFIG", "SET", "maxmemory", "0"]).unwrap());
        let began = Instant::now();
        wait("the run ends", LONG, || fleet.is_over(&run));
        let took = began.elapsed();
        println!("over {took:.1?} after there was room");
        assert!(
            took < Duration::from_secs(20),
            "over {took:.1?} after there was room: no worker knew of the refused run"
        );
    }
    fleet.holds(0);
}

#[test]
fn redis_read_only_while_nobody_works() {
    let mut fleet = Fleet::new(PLAIN);
    fleet.workers(2);
    drop(fleet.redis.redis(&["REPLICAOF", "127.0.0.1", "1"]).unwrap());
    // A notification wakes the sleeping workers; they ask for work and are refused.
    wait("both workers are refused", LONG, || {
        drop(fleet.redis.redis(&["PUBLISH", "dovetail:{faults}:bell", "jobs"]).unwrap());
        let refused = |worker: &crate::fleet::Process| {
            std::fs::read_to_string(&worker.log).unwrap().contains("a store does not answer")
        };
        fleet.workers.iter().all(refused)
    });
    drop(fleet.redis.redis(&["REPLICAOF", "NO", "ONE"]).unwrap());
    assert_eq!(fleet.all_work(), Vec::<String>::new());
    fleet.holds(1);
}

#[test]
fn redis_read_only() {
    survives(PLAIN, Fault::RedisReadOnly, 2);
}

#[test]
fn redis_forgets_scripts() {
    survives(PLAIN, Fault::ScriptsForgotten, 2);
}

#[test]
fn redis_far_away() {
    survives(LINES, Fault::RedisSlow, 1);
}

#[test]
fn redis_cut_off_for_longer_than_a_lease() {
    survives(LINES, Fault::RedisCutOff, 2);
}

#[test]
fn redis_resets_connections() {
    survives(LINES, Fault::RedisResets, 2);
}

/// Redis remembers the answer to a numbered call. The repeated call gets the same answer, and no step is run again.
#[test]
fn answers_of_redis_that_are_lost_are_asked_for_again() {
    let mut fleet = Fleet::new(Setup { lease: 10, ..LINES });
    fleet.workers(2);
    fleet.to_redis.as_ref().unwrap().set(Mode::LoseAnswers(5));
    fleet.user.load(100);
    wait("all runs end", LONG, || fleet.open().unwrap().is_empty());
    let proxy = fleet.to_redis.as_ref().unwrap();
    assert!(proxy.lost() > 10, "{} answers were lost", proxy.lost());
    proxy.set(Mode::Pass);
    let report = fleet.holds(0);
    assert_eq!(report.again, 0);
}

/// Redis is emptied while no job is leased, so that no call notices the loss by itself: the search for lost runs must.
#[test]
fn a_queue_that_is_lost_while_it_waits_is_found_again() {
    let mut fleet = Fleet::new(PLAIN);
    fleet.user.load(20);
    drop(fleet.redis.redis(&["FLUSHALL"]).unwrap());
    fleet.workers(1);
    let report = fleet.holds(0);
    assert_eq!((report.runs, report.again), (20, 0));
}

/// FLUSHALL removes the list of sleeping workers, too. A worker that sleeps then must still hear of the next job.
#[test]
fn a_worker_that_sleeps_when_the_queue_is_emptied_is_woken_by_new_work() {
    let mut fleet = Fleet::new(PLAIN);
    fleet.workers(2);
    for _ in 0..3 {
        // Both workers have found no job and sleep.
        std::thread::sleep(Duration::from_secs(2));
        drop(fleet.redis.redis(&["FLUSHALL"]).unwrap());
        let began = Instant::now();
        let run = fleet.user.submit("diamond", &json!({ "x": 1, "behaviour": busy(1) }));
        wait("the run ends", LONG, || fleet.is_over(&run));
        let took = began.elapsed();
        println!("over after {took:.1?}");
        assert!(took < Duration::from_secs(15), "over after {took:?}: no worker was woken");
    }
    fleet.holds(3);
}

#[test]
fn mongodb_killed_and_started_again() {
    survives(MONGODB, Fault::RecordsKilled, 2);
}

#[test]
fn mongodb_frozen() {
    survives(MONGODB, Fault::RecordsFrozen, 1);
}

#[test]
fn mongodb_far_away() {
    survives(MONGODB, Fault::RecordsSlow, 1);
}

#[test]
fn mongodb_cut_off_for_longer_than_a_lease() {
    survives(MONGODB, Fault::RecordsCutOff, 1);
}

#[test]
fn answers_of_mongodb_that_are_lost() {
    survives(MONGODB, Fault::RecordsAnswersLost, 2);
}

#[test]
fn minio_killed_and_started_again() {
    survives(Setup { s3: true, ..PLAIN }, Fault::BlobsKilled, 2);
}

/// A submission is not acknowledged while its record cannot be written.
#[test]
fn without_the_records_a_submission_is_refused() {
    let mut fleet = Fleet::new(MONGODB);
    fleet.workers(1);
    fleet.user.load(3);
    fleet.mongodb.as_mut().unwrap().stop();
    let run = dovetail_flow::new_run_id();
    let refused = fleet.user.try_submit(&run, "chain", &json!({ "x": 1 }));
    assert!(refused.is_err(), "the submission was acknowledged");
    fleet.mongodb.as_mut().unwrap().again();
    fleet.user.submit_as(&run, "chain", &json!({ "x": 1 }));
    let report = fleet.holds(1);
    assert_eq!(report.runs, 4);
}

/// A worker logs that the records answer again when they do, and not before. The queue answers all the time, which says
/// nothing about the records. The outage is logged once, however many steps wait to be recorded.
#[test]
fn that_the_records_answer_again_is_told_when_they_do() {
    let mut fleet = Fleet::new(MONGODB);
    let worker = fleet.worker();
    let said = |fleet: &Fleet, what: &str| {
        std::fs::read_to_string(&fleet.workers[worker].log).unwrap().lines().filter(|l| l.contains(what)).count()
    };
    for _ in 0..2 {
        drop(fleet.user.submit("probe", &json!({ "behaviour": busy(8000) })));
    }
    wait("both steps run", LONG, || fleet.executions().len() == 2);
    fleet.mongodb.as_mut().unwrap().stop();
    wait("the outage is logged", LONG, || said(&fleet, "a store does not answer") > 0);
    // Sleeping workers ask for work: there is none, and that is an answer of the queue.
    for _ in 0..8 {
        drop(fleet.redis.redis(&["PUBLISH", "dovetail:{faults}:bell", "jobs"]).unwrap());
        std::thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(said(&fleet, "answers again"), 0, "the records are still down");
    assert_eq!(
        (said(&fleet, "a store does not answer"), said(&fleet, "\"store\":\"records\"")),
        (1, 1),
        "the outage is logged once, although two steps wait"
    );
    fleet.mongodb.as_mut().unwrap().again();
    wait("the end of the outage is logged", LONG, || said(&fleet, "the store of the records answers again") == 1);
    assert_eq!(fleet.all_work(), Vec::<String>::new());
    fleet.holds(1);
}

#[test]
fn waiting_for_a_run_outlasts_an_outage_of_the_records() {
    let mut fleet = Fleet::new(MONGODB);
    fleet.workers(1);
    let input = r#"behaviour={"tag":"busy","val":3000000}"#;
    let mut command = fleet.command(false);
    command.args(["run", "probe", "--input", input, "--output", "json"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let waiting = command.spawn().unwrap();
    let begun = |fleet: &Fleet| {
        fleet.meta.open_runs(1).is_ok_and(|open| open.first().is_some_and(|run| fleet.runs_now(run).is_some()))
    };
    wait("the step runs", LONG, || begun(&fleet));
    let run = fleet.meta.open_runs(1).unwrap()[0].run.to_string();
    let mut command = fleet.command(false);
    command.args(["runs", "watch", &run, "--output", "json"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let watching = command.spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let records = fleet.mongodb.as_mut().unwrap();
    records.kill();
    // The outage is longer than the step, so that its outcome waits, too.
    std::thread::sleep(Duration::from_secs(5));
    records.again();
    // `runs watch` also outlasts the outage. It reads the records each second, so it notices the outage and reports it.
    // `run` waits for the end, and notices nothing if it sleeps during the outage.
    for (command, looks) in [(waiting, false), (watching, true)] {
        let out = command.wait_with_output().unwrap();
        let (said, result) = (String::from_utf8_lossy(&out.stderr), String::from_utf8_lossy(&out.stdout));
        assert!(out.status.success(), "{said}\n{result}");
        assert!(result.contains("\"succeeded\""), "{result}");
        let told = |what: &str| said.matches(what).count();
        let (silent, again) = (told("goes on waiting for it"), told("the store of the records answers again"));
        assert!(silent == again && silent <= 1 && (silent == 1 || !looks), "{said}");
    }
}
