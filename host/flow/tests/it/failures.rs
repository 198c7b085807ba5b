//! Runs that fail: the failure policy, and the records of failed attempts.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use crate::bench::document;
use dovetail_core::blobs::BlobKind;
use dovetail_core::executor::{Failure, FailureKind, HostError, Outcome};
use dovetail_core::keys::{NodeId, RunKey};
use dovetail_core::ledger::{Job, Kind, Operation, Requirements, Scope, Wait};
use dovetail_core::limits::MAX_VALUE;
use dovetail_core::record::{Form as _, OutcomeRecord, StepEnd};
use dovetail_core::retention::RemovableBlobs as _;
use dovetail_core::stop::StopReason;
use dovetail_core::{Digest, RunId};
use dovetail_flow::{Event, Ports, Shutdown, recover};
use serde_json::json;

use crate::bench::{Bench, fails, report, sum};

#[test]
fn what_may_pass_is_tried_again_and_every_error_is_kept() {
    let bench = Bench::new();
    let published = bench.publish(&json!({}), &[("a", "input.x", "input.x"), ("b", "a.sum", "a.sum")]);
    bench
        .script("a", |attempt, _| Ok(if attempt.number < 3 { fails(FailureKind::Failed, true) } else { sum(attempt) }));
    let run = bench.submit(&published, 1);
    let document = bench.work(&run);
    assert_eq!(document["output"]["total"], 4);
    let attempts = document["processing_summary"]["steps"][0]["attempts"].as_array().unwrap();
    let errors: Vec<_> =
        attempts.iter().map(|a| (a["number"].as_u64().unwrap(), a["error"]["code"].as_str())).collect();
    assert_eq!(errors, [(1, Some("no_luck")), (2, Some("no_luck")), (3, None)]);
}

/// A worker that dies over a step leaves no record. The next attempt that is recorded counts the lost workers.
#[test]
fn workers_that_were_lost_over_an_attempt_are_told_by_it() {
    let bench = Bench::new();
    let published = bench.publish(&json!({}), &[("a", "input.x", "input.x"), ("b", "a.sum", "a.sum")]);
    let run = bench.submit(&published, 1);
    let die = || {
        let lease = Duration::from_secs(1);
        let claimed = bench.ports.ledger.claim(&Scope::Runs(vec![run.clone()]), 1, lease, Wait::NONE).unwrap();
        assert_eq!(claimed.len(), 1, "there is a job to die over");
        bench.clock.advance(lease * 2);
        claimed[0].attempt
    };
    // Two workers die over the first attempt, which then fails, and one worker dies over the second attempt.
    assert_eq!((die(), die()), (1, 1));
    let stop = Shutdown::default();
    bench.script("a", {
        let stop = stop.clone();
        move |attempt, _| {
            if attempt.number > 1 {
                return Ok(sum(attempt));
            }
            // This worker leaves the next attempt to other workers.
            stop.drain();
            Ok(fails(FailureKind::Failed, true))
        }
    });
    bench.worker().run(&Scope::Runs(vec![run.clone()]), &stop).unwrap();
    bench.clock.advance(Duration::from_secs(60));
    assert_eq!(die(), 2);
    let steps = bench.work(&run)["processing_summary"]["steps"].clone();
    let lost: Vec<_> = steps[0]["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| (a["number"].as_u64().unwrap(), a.get("lost_workers").cloned()))
        .collect();
    assert_eq!(lost, [(1, Some(json!(2))), (2, Some(json!(1)))]);
    assert_eq!(steps[1]["attempts"][0].get("lost_workers"), None, "no worker died over this step");
}

#[test]
fn the_last_attempt_ends_the_run_with_its_error() {
    let bench = Bench::new();
    let published = bench.publish(&json!({}), &[("a", "input.x", "input.x"), ("b", "a.sum", "a.sum")]);
    bench.script("a", |_, _| Ok(fails(FailureKind::Timeout, false)));
    let run = bench.submit(&published, 1);
    let document = bench.work(&run);
    assert_eq!((&document["state"], &document["output"]), (&json!("failed"), &json!(null)));
    assert_eq!(
        (&document["error"]["code"], &document["error"]["step"], &document["error"]["id"]),
        (&json!("no_luck"), &json!("a"), &json!("add_001"))
    );
    assert_eq!(document["processing_summary"]["steps"][0]["attempts"].as_array().unwrap().len(), 3);
    assert_eq!(document["processing_summary"]["steps"][1]["state"], "not_run");
    assert_eq!(document["processing_summary"]["data_lineage"], json!([]), "no step has produced a value");
}

#[test]
fn a_failed_run_tells_the_lineage_of_what_happened() {
    let bench = Bench::new();
    let steps = &[("a", "input.x", "input.x"), ("b", "a.sum", "input.x"), ("c", "a.sum", "b.sum")];
    let published = bench.publish(&json!({}), steps);
    bench.script("b", |_, _| Ok(fails(FailureKind::InvalidInput, false)));
    let run = bench.submit(&published, 1);
    assert_eq!(document(&bench.ports, &run).unwrap()["processing_summary"]["data_lineage"], json!([]), "nothing yet");
    let lines = bench.work(&run)["processing_summary"]["data_lineage"].clone();
    assert_eq!(lines, json!(["add -> output_001_sum", "output_001_sum -> input_002_a"]));
}

#[test]
fn what_cannot_pass_is_not_tried_again() {
    for kind in
        [FailureKind::InvalidInput, FailureKind::Trap, FailureKind::Panic, FailureKind::Limit, FailureKind::BadOutput]
    {
        let bench = Bench::new();
        let published = bench.publish(&json!({}), &[("a", "input.x", "input.x")]);
        bench.script("a", move |_, _| Ok(fails(kind, true)));
        let run = bench.submit(&published, 1);
        assert_eq!(bench.work(&run)["state"], "failed");
        assert_eq!(bench.made(), [("a".to_owned(), 1)], "{kind:?}");
    }
}

#[test]
fn a_failure_stops_the_siblings_and_starts_nothing() {
    let bench = Bench::new();
    let steps = &[("a", "input.x", "input.x"), ("b", "input.x", "input.x"), ("c", "b.sum", "a.sum")];
    let published = bench.publish(&json!({}), steps);
    let meeting = Arc::new(Barrier::new(2));
    let here = meeting.clone();
    bench.script("a", move |_, _| {
        here.wait();
        Ok(fails(FailureKind::InvalidInput, false))
    });
    bench.script("b", move |_, stop| {
        meeting.wait();
        // Waits for the cancellation: without one the test hangs.
        let (_keep, never) = crossbeam_channel::bounded::<()>(0);
        assert_eq!(stop.wait(&never), Err(StopReason::Cancelled));
        Ok(report(Outcome::Failed { failure: Failure::new(FailureKind::Cancelled, "cancelled", "stopped") }))
    });
    let run = bench.submit(&published, 1);
    let document = bench.work(&run);
    assert_eq!((&document["state"], &document["error"]["step"]), (&json!("failed"), &json!("a")));
    assert_eq!(bench.made(), [("a".to_owned(), 1), ("b".to_owned(), 1)]);
    // The stopped attempt is recorded, and the run's end is reported only after that.
    let steps = &document["processing_summary"]["steps"];
    assert_eq!((&steps[1]["state"], &steps[1]["attempts"][0]["error"]["code"]), (&json!("stopped"), &json!("stopped")));
    assert_eq!(steps[2]["state"], "not_run");
    assert!(matches!(bench.events.lock().unwrap().last(), Some(Event::RunFinished { .. })));
}

#[test]
fn with_finish_running_steps_end_and_no_new_ones_start() {
    let bench = Bench::new();
    let steps = &[("a", "input.x", "input.x"), ("b", "input.x", "input.x"), ("c", "b.sum", "b.sum")];
    let published = bench.publish(&json!({ "on_failure": "finish" }), steps);
    let (meeting, failed) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (here, told) = (meeting.clone(), failed.clone());
    bench.script("a", move |_, _| {
        here.wait();
        told.wait();
        Ok(fails(FailureKind::InvalidInput, false))
    });
    let ports = bench.ports.clone();
    bench.script("b", move |attempt, stop| {
        meeting.wait();
        failed.wait();
        // The failure of a does not stop this step, which ends after that failure is recorded.
        until_recorded(&ports, &attempt.run, "a");
        assert!(!stop.cancelled());
        Ok(sum(attempt))
    });
    let run = bench.submit(&published, 1);
    let document = bench.work(&run);
    assert_eq!((&document["state"], &document["error"]["step"]), (&json!("failed"), &json!("a")));
    let states: Vec<_> = document["processing_summary"]["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["failed", "succeeded", "not_run"]);
    let skipped = &document["processing_summary"]["steps"][2];
    assert_eq!(
        (&skipped["attempts"], &skipped["duration_ms"]),
        (&json!([]), &json!(0)),
        "a skipped step has no attempt"
    );
    assert_eq!(document["processing_summary"]["data_lineage"], json!(["add -> output_002_sum"]), "c did not take it");
    assert_eq!(bench.made(), [("a".to_owned(), 1), ("b".to_owned(), 1)]);
    let events = bench.events.lock().unwrap();
    let mut ended: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::StepFinished { step, failure, .. } => {
                Some((step.as_str(), failure.as_ref().map(|f| f.code.as_str())))
            }
            Event::StepSkipped { step, failed_step, .. } => Some((step.as_str(), Some(failed_step.as_str()))),
            _ => None,
        })
        .collect();
    ended.sort_unstable();
    assert_eq!(ended, [("a", Some("no_luck")), ("b", None), ("c", Some("a"))], "a skipped step is reported as skipped");
}

/// Waits until the step's outcome is recorded.
fn until_recorded(ports: &Ports, run: &RunId, step: &str) {
    let key = RunKey { run: run.clone(), generation: 0 }.step(step);
    while ports.ledger.get(Kind::Outcome, std::slice::from_ref(&key)).unwrap()[0].is_none() {
        std::thread::yield_now();
    }
}

/// An error of the input does not matter for a step that must not start. The input is above the limit here, and in the
/// second round it is not stored any more.
#[test]
fn a_step_is_skipped_before_its_input_is_looked_at() {
    for gone in [false, true] {
        let bench = Bench::new();
        let steps = &[("a", "input.x", "input.x"), ("b", "input.x", "input.x"), ("c", "b.sum", "b.sum")];
        let published = bench.publish(&json!({ "on_failure": "finish" }), steps);
        let meeting = Arc::new(Barrier::new(2));
        let here = meeting.clone();
        bench.script("a", move |_, _| {
            here.wait();
            Ok(fails(FailureKind::InvalidInput, false))
        });
        let (ports, drained) = (bench.ports.clone(), Shutdown::default());
        // c takes this value twice, which is more than an input may have.
        let large = json!({ "sum": "b".repeat(usize::try_from(MAX_VALUE).unwrap() - 1000) });
        let value = Digest::of(large.to_string().as_bytes());
        let drain = drained.clone();
        bench.script("b", move |attempt, _| {
            meeting.wait();
            until_recorded(&ports, &attempt.run, "a");
            // This worker leaves c to the next worker.
            drain.drain();
            Ok(report(Outcome::Succeeded { output: large.clone() }))
        });
        let run = bench.submit(&published, 1);
        let key = RunKey { run: run.clone(), generation: 0 };
        bench.worker().run(&Scope::Runs(vec![run.clone()]), &drained).unwrap();
        if gone {
            assert!(bench.kept.remove(BlobKind::Value, &value, Duration::ZERO).unwrap());
        }
        let document = bench.work(&run);
        let states = document["processing_summary"]["steps"].as_array().unwrap().iter().map(|step| &step["state"]);
        assert_eq!(states.collect::<Vec<_>>(), ["failed", "succeeded", "not_run"], "{document:#}");
        let outcome = bench.ports.ledger.get(Kind::Outcome, &[key.step("c")]).unwrap().remove(0).unwrap();
        let outcome = OutcomeRecord::decode(&outcome, "c").unwrap();
        assert_eq!(outcome.end, StepEnd::Skipped { failed_step: Some(NodeId::of_step("a")) });
        assert!(outcome.consumed.is_empty() && outcome.attempts.is_empty(), "{outcome:?}");
        let lineage = crate::bench::lineage(&bench.ports, &key).unwrap();
        assert_eq!(lineage["steps"][2]["consumed"], json!([]));
        assert_eq!(lineage["steps"][1]["produced"][0]["consumers"], json!([]), "c did not take it");
    }
}

/// A newer dovetail may submit a step that runs once for each element of a list. The index is part of the step's
/// identity, so this version must not run such a job.
#[test]
fn a_step_with_an_index_is_left_to_a_worker_that_knows_indices() {
    let bench = Bench::new();
    let published = bench.publish(&json!({}), &[("a", "input.x", "input.x"), ("b", "a.sum", "a.sum")]);
    let run = bench.submit(&published, 1);
    let key = RunKey { run: run.clone(), generation: 0 };
    let claimed = bench.ports.ledger.claim(&Scope::All, 1, Duration::from_secs(60), Wait::NONE).unwrap();
    assert_eq!(claimed[0].lease.step, "a");
    let node: NodeId = "a[1]".parse().unwrap();
    let jobs = vec![Job { step: node.clone(), needs: Vec::new(), attempt: 1, requirements: Requirements::default() }];
    bench.ports.ledger.commit(&[Operation::Recover { run: key.clone(), jobs, steps: [node.clone()].into() }]).unwrap();
    let error = bench.worker().run(&Scope::Runs(vec![run]), &bench.shutdown).unwrap_err();
    let said = format!("{error:?}");
    assert!(said.contains("step a[1] of run") && said.contains("has an index") && said.contains("Newer"), "{said}");
    assert!(bench.made().is_empty());
    assert_eq!(bench.ports.ledger.get(Kind::Outcome, &[key.step(&node), key.step("a")]).unwrap(), [None, None]);
}

#[test]
fn a_job_that_kills_its_workers_is_given_up() {
    let bench = Bench::new();
    let published = bench.publish(&json!({}), &[("a", "input.x", "input.x")]);
    let run = bench.submit(&published, 1);
    let lease = Duration::from_secs(1);
    for _ in 0..4 {
        assert_eq!(bench.ports.ledger.claim(&Scope::All, 1, lease, Wait::NONE).unwrap().len(), 1);
        bench.clock.advance(lease * 2);
    }
    let document = bench.work(&run);
    assert_eq!((&document["error"]["kind"], &document["error"]["code"]), (&json!("lost_worker"), &json!("poison")));
    assert!(bench.made().is_empty(), "the step is not run again");
}

/// A worker that dies with four jobs leaves four suspected jobs. After the second death each of them runs alone, which
/// finds the job that kills workers.
#[test]
fn jobs_over_which_workers_died_are_run_one_at_a_time() {
    for (deaths, most) in [(1, 4), (2, 1), (3, 1)] {
        let bench = Bench::new();
        let steps = ["a", "b", "c", "d"];
        let published = bench.publish(&json!({}), &steps.map(|step| (step, "input.x", "input.x")));
        let run = bench.submit(&published, 1);
        for _ in 0..deaths {
            assert_eq!(bench.ports.ledger.claim(&Scope::All, 9, Duration::from_secs(1), Wait::NONE).unwrap().len(), 4);
            bench.clock.advance(Duration::from_secs(2));
        }
        let (running, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        for step in steps {
            let (running, seen) = (running.clone(), seen.clone());
            bench.script(step, move |attempt, _| {
                seen.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // Long enough for the other steps to start, if the worker allows that.
                let until = Instant::now() + Duration::from_millis(if most == 1 { 50 } else { 5000 });
                while Instant::now() < until && seen.load(Ordering::SeqCst) < 4 {
                    std::thread::yield_now();
                }
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(sum(attempt))
            });
        }
        assert_eq!(bench.work(&run)["state"], "succeeded");
        assert_eq!((seen.load(Ordering::SeqCst), bench.made().len()), (most, 4), "after {deaths} deaths");
    }
}

#[test]
fn a_recorded_outcome_is_never_run_again() {
    let bench = Bench::new();
    let published = bench.publish(&json!({}), &[("a", "input.x", "input.x"), ("b", "input.x", "a.sum")]);
    let run = bench.submit(&published, 1);
    // A worker took the job and died; the next one records the outcome.
    bench.ports.ledger.claim(&Scope::All, 1, Duration::from_millis(1), Wait::NONE).unwrap();
    bench.clock.advance(Duration::from_secs(1));
    bench.work(&run);
    recover(&bench.ports, &run).unwrap();
    assert!(bench.ports.ledger.claim(&Scope::All, 9, Duration::from_secs(1), Wait::NONE).unwrap().is_empty());
    assert_eq!(bench.made(), [("a".to_owned(), 1), ("b".to_owned(), 1)]);
}

#[test]
fn a_run_has_a_time_of_its_own() {
    let bench = Bench::new();
    let published = bench.publish(&json!({ "timeout": "5s" }), &[("a", "input.x", "input.x"), ("b", "a.sum", "a.sum")]);
    let clock = bench.clock.clone();
    bench.script("a", move |attempt, _| {
        assert!(attempt.limits.time_ms <= 5000, "an attempt gets no more than the run has left");
        clock.advance(Duration::from_secs(6));
        Ok(sum(attempt))
    });
    let run = bench.submit(&published, 1);
    let document = bench.work(&run);
    assert_eq!(
        (&document["state"], &document["error"]["code"], &document["error"]["step"]),
        (&json!("failed"), &json!("timeout"), &json!("b"))
    );
    assert_eq!(bench.made(), [("a".to_owned(), 1)]);
}

#[test]
fn an_attempt_that_the_runs_time_ends_says_so_and_is_not_made_again() {
    for (timeout, kind, attempts) in [("5s", "limit", 1), ("100s", "timeout", 3)] {
        let bench = Bench::new();
        let published = bench.publish(&json!({ "timeout": timeout }), &[("a", "input.x", "input.x")]);
        bench.script("a", |_, _| Ok(fails(FailureKind::Timeout, false)));
        let run = bench.submit(&published, 1);
        let document = bench.work(&run);
        let error = &document["error"];
        assert_eq!(error["kind"], kind, "{error:#}");
        assert_eq!(
            error["message"].as_str().unwrap().contains("the run's timeout of 5s was over while this step ran"),
            kind == "limit",
            "{error:#}"
        );
        assert_eq!(bench.made().len(), attempts);
    }
}

#[test]
fn the_time_in_the_queue_is_not_the_runs() {
    let bench = Bench::new();
    let published = bench.publish(&json!({ "timeout": "5s" }), &[("a", "input.x", "input.x"), ("b", "a.sum", "a.sum")]);
    let run = bench.submit(&published, 1);
    bench.clock.advance(Duration::from_secs(60));
    assert_eq!(bench.work(&run)["state"], "succeeded");
}

#[test]
fn an_interruption_is_not_charged_to_the_runs_time() {
    let mut bench = Bench::new();
    let published = bench.publish(&json!({ "timeout": "5s" }), &[("a", "input.x", "input.x"), ("b", "a.sum", "a.sum")]);
    let (clock, shutdown) = (bench.clock.clone(), bench.shutdown.clone());
    bench.script("a", move |attempt, _| {
        clock.advance(Duration::from_secs(3));
        shutdown.drain();
        Ok(sum(attempt))
    });
    let run = bench.submit(&published, 1);
    assert_eq!(bench.work(&run)["state"], "queued");
    bench.clock.advance(Duration::from_secs(3600));
    bench.shutdown = Shutdown::default();
    recover(&bench.ports, &run).unwrap();
    let left = Arc::new(std::sync::Mutex::new(0));
    let seen = left.clone();
    bench.script("b", move |attempt, _| {
        *seen.lock().unwrap() = attempt.limits.time_ms;
        Ok(sum(attempt))
    });
    assert_eq!(bench.work(&run)["state"], "succeeded");
    let left = *left.lock().unwrap();
    assert!((1000..=2000).contains(&left), "only the time of the first step is charged: {left}");
}

#[test]
fn a_step_that_runs_now_is_shown_so() {
    let bench = Bench::new();
    let published =
        bench.publish(&json!({}), &[("a", "input.x", "input.x"), ("b", "input.x", "input.x"), ("c", "a.sum", "b.sum")]);
    let (meeting, looked) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    for step in ["a", "b"] {
        let (meeting, looked, ports) = (meeting.clone(), looked.clone(), bench.ports.clone());
        bench.script(step, move |attempt, _| {
            meeting.wait();
            if attempt.step == "a" {
                let document = document(&ports, &attempt.run).unwrap();
                assert_eq!(document["state"], "running");
                let states: Vec<_> = document["processing_summary"]["steps"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|s| s["state"].clone())
                    .collect();
                assert_eq!(states, ["running", "running", "blocked"]);
            }
            looked.wait();
            Ok(sum(attempt))
        });
    }
    let run = bench.submit(&published, 1);
    assert_eq!(bench.work(&run)["state"], "succeeded");
}

#[test]
fn a_panic_of_the_host_gives_the_job_back_and_is_counted() {
    let bench = Bench::new();
    let published = bench.publish(&json!({}), &[("a", "input.x", "input.x")]);
    bench.script("a", |_, _| panic!("a bug of ours"));
    let run = bench.submit(&published, 1);
    let error = bench.worker().run(&Scope::Runs(vec![run.clone()]), &bench.shutdown).unwrap_err();
    assert_eq!(error.code(), "host_panicked");
    assert!(error.to_string().contains("a bug of ours"), "{error}");
    bench.clock.advance(Duration::from_secs(60));
    let claimed = bench.ports.ledger.claim(&Scope::All, 1, Duration::from_secs(1), Wait::NONE).unwrap();
    assert_eq!((claimed.len(), claimed[0].crashes), (1, 1), "the lease was not renewed, and its expiry is counted");
}

#[test]
fn a_retry_that_would_begin_after_the_runs_time_is_not_made() {
    let bench = Bench::new();
    let published = bench.publish(&json!({ "timeout": "5s" }), &[("a", "input.x", "input.x")]);
    bench.script("a", |_, _| {
        let mut failed = fails(FailureKind::Failed, true);
        if let Outcome::Failed { failure } = &mut failed.outcome {
            failure.retry_after_ms = Some(6000);
        }
        Ok(failed)
    });
    let run = bench.submit(&published, 1);
    assert_eq!(bench.work(&run)["error"]["code"], "no_luck");
    assert_eq!(bench.made(), [("a".to_owned(), 1)]);
}

#[test]
fn the_hosts_own_fault_is_not_charged() {
    let bench = Bench::new();
    let published = bench.publish(&json!({}), &[("a", "input.x", "input.x")]);
    let count = AtomicU32::new(0);
    bench.script("a", move |attempt, _| {
        if count.fetch_add(1, Ordering::SeqCst) < 5 {
            return Err(HostError {
                operation: "load the package".into(),
                transient: true,
                missing: None,
                source: None,
            });
        }
        assert_eq!(attempt.number, 1);
        Ok(sum(attempt))
    });
    let run = bench.submit(&published, 1);
    assert_eq!(bench.work(&run)["state"], "succeeded");
}

#[test]
fn a_fault_that_will_not_pass_ends_the_worker_and_keeps_the_run() {
    let bench = Bench::new();
    let published = bench.publish(&json!({}), &[("a", "input.x", "input.x")]);
    bench.script("a", |_, _| {
        Err(HostError { operation: "load the package".into(), transient: false, missing: None, source: None })
    });
    let run = bench.submit(&published, 1);
    let error = bench.worker().run(&Scope::Runs(vec![run.clone()]), &bench.shutdown).unwrap_err();
    assert_eq!((error.code(), error.to_string().as_str()), ("host", "load the package"));
    assert_eq!(document(&bench.ports, &run).unwrap()["state"], "queued", "the run is kept");
}
