//! Runs that succeed, and runs that are cancelled or retried.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use crate::bench::document;
use crate::bench::lineage;
use dovetail_core::blobs::BlobKind;
use dovetail_core::executor::{FailureKind, LogLine, Report};
use dovetail_core::ledger::{Kind, Operation, Record, Scope};
use dovetail_core::record::RunState;
use dovetail_core::retention::RemovableBlobs as _;
use dovetail_flow::{Event, Pushed, cancel, current, find_run, logs, recover, retry, runs, submit};
use serde_json::{Value, json};

use crate::bench::{Bench, fails, sum};

const DIAMOND: &[(&str, &str, &str)] = &[
    ("first", "input.x", "input.x"),
    ("left", "first.sum", "input.x"),
    ("right", "output_001_sum", "first.sum"),
    ("join", "left.sum", "right.sum"),
];

#[test]
fn values_flow_along_the_mappings() {
    let bench = Bench::new();
    let published = bench.publish(&json!({}), DIAMOND);
    let run = bench.submit(&published, 5);
    let document = bench.work(&run);
    // first 10, left 15, right 20, join 35.
    assert_eq!(document["output"], json!({ "total": 35 }));
    assert_eq!(document["state"], "succeeded");
    assert_eq!(document["pipeline"], "sums@1.0.0");
    assert_eq!(document["inputs"], json!({ "x": 5 }));
    assert_eq!(document["run_id"], run.as_str());
    let steps: Vec<&Value> =
        document["processing_summary"]["steps"].as_array().unwrap().iter().map(|s| &s["id"]).collect();
    assert_eq!(steps, ["add_001", "add_002", "add_003", "add_004"]);
    assert!(document["finished_at"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn a_runs_time_counts_from_its_acceptance() {
    let bench = Bench::new();
    let published = bench.publish(&json!({}), DIAMOND);
    let run = bench.submit(&published, 5);
    bench.clock.advance(Duration::from_secs(3));
    let summary = bench.work(&run)["processing_summary"].clone();
    assert!(summary["total_time_ms"].as_u64().unwrap() >= 3000, "{summary}");
    assert!(summary["steps"][0]["started_ms"].as_u64().unwrap() >= 3000, "{summary}");
}

#[test]
fn steps_side_by_side_really_run_at_once() {
    let bench = Bench::new();
    let published = bench.publish(&json!({}), DIAMOND);
    // Each step waits for the other one: if they ran one after the other, the test would hang.
    let meeting = Arc::new(Barrier::new(2));
    for step in ["left", "right"] {
        let meeting = meeting.clone();
        bench.script(step, move |attempt, _| {
            meeting.wait();
            Ok(sum(attempt))
        });
    }
    let run = bench.submit(&published, 1);
    assert_eq!(bench.work(&run)["output"]["total"], 7);
}

/// A worker has claimed one job, and learns later that a slot has started it. Then it claims for its other slots.
#[test]
fn a_free_slot_takes_what_is_submitted_while_a_long_step_runs() {
    let bench = Bench::new();
    let published = bench.publish(&json!({}), &[("a", "input.x", "input.x")]);
    let (begin, begun) = crossbeam_channel::unbounded();
    let (go_on, goes_on) = crossbeam_channel::bounded::<()>(0);
    bench.script("a", move |attempt, _| {
        begin.send(()).unwrap();
        goes_on.recv().unwrap_err();
        Ok(sum(attempt))
    });
    std::thread::scope(|threads| {
        threads.spawn(|| bench.worker().run(&Scope::All, &bench.shutdown).unwrap());
        bench.submit(&published, 1);
        begun.recv().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        bench.submit(&published, 2);
        let second = begun.recv_timeout(Duration::from_secs(10));
        bench.shutdown.drain();
        drop(go_on);
        assert_eq!(second, Ok(()), "three slots are free");
    });
}

#[test]
fn several_sinks_close_the_run_once() {
    let bench = Bench::new();
    let published = bench
        .publish(&json!({}), &[("a", "input.x", "input.x"), ("b", "input.x", "input.x"), ("c", "input.x", "input.x")]);
    let run = bench.submit(&published, 2);
    let document = bench.work(&run);
    assert_eq!(document["state"], "succeeded");
    let ended = bench
        .events
        .lock()
        .unwrap()
        .iter()
        .filter(|e| matches!(e, Event::RunFinished { state: RunState::Succeeded, .. }))
        .count();
    assert_eq!(ended, 1);
    assert!(bench.ports.ledger.open_runs(9).unwrap().is_empty());
}

#[test]
fn submitting_again_is_the_same_run_and_runs_nothing_twice() {
    let bench = Bench::new();
    let published = bench.publish(&json!({}), DIAMOND);
    let run = bench.submit(&published, 5);
    bench.work(&run);
    let inputs = json!({ "x": 5 });
    assert_eq!(submit(&bench.ports, &published, &inputs, &run).unwrap(), Pushed::Same);
    assert_eq!(submit(&bench.ports, &published, &json!({ "x": 6 }), &run).unwrap_err().code(), "run_differs");
    bench.work(&run);
    assert_eq!(bench.made().len(), 4);
}

#[test]
fn lineage_follows_every_field_by_its_id() {
    let bench = Bench::new();
    let published = bench.publish(&json!({}), DIAMOND);
    let run = bench.submit(&published, 5);
    let document = bench.work(&run);
    let lines = document["processing_summary"]["data_lineage"].as_array().unwrap();
    assert!(lines.contains(&json!("output_001_sum -> input_002_a")), "{lines:#?}");
    let lineage = lineage(&bench.ports, &current(&bench.ports, &run).unwrap()).unwrap();
    let join = &lineage["steps"][3];
    assert_eq!(join["consumed"][0]["origin"], format!("{run}/output_002_sum"));
    assert_eq!(
        join["consumed"][0]["digest"], lineage["steps"][1]["produced"][0]["digest"],
        "the consumed value is the produced value"
    );
    assert_eq!(lineage["steps"][0]["produced"][0]["consumers"].as_array().unwrap().len(), 3);
    assert_eq!(join["models"][0]["name"], "adder");
    assert_eq!(lineage["steps"][0]["consumed"][0]["origin"], format!("{run}/input.x"));
}

#[test]
fn logs_and_lists_tell_what_was() {
    let bench = Bench::new();
    let published = bench.publish(&json!({}), DIAMOND);
    let (first, second) = (bench.submit(&published, 1), bench.submit(&published, 2));
    bench.work(&second);
    let listed = runs(&bench.ports, 9).unwrap();
    assert_eq!(
        listed.read.iter().map(|r| (&r.run_id, r.state.name())).collect::<Vec<_>>(),
        [(&second, "succeeded"), (&first, "queued")]
    );
    let record = Record { kind: Kind::Run, key: "of-a-newer-form".into(), value: Vec::new() };
    bench.ports.ledger.commit(&[Operation::Put { record }]).unwrap();
    let listed = runs(&bench.ports, 9).unwrap();
    assert_eq!(listed.read.len(), 2, "a run whose ID cannot be read does not hide the others");
    assert_eq!(listed.unread.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["of-a-newer-form"]);
    let logs = logs(&bench.ports, &current(&bench.ports, &second).unwrap()).unwrap();
    assert_eq!(
        logs.iter().map(|l| (l.id.as_str(), l.lines[0].message.as_str())).collect::<Vec<_>>()[3],
        ("add_004", "ran")
    );
    assert_eq!(find_run(&bench.ports, &first.as_str()[..30]).unwrap(), first);
    assert_eq!(
        find_run(&bench.ports, &first.as_str()[24..]).unwrap(),
        first,
        "IDs of runs of one time begin alike, so the end of an ID names a run"
    );
    assert_eq!(find_run(&bench.ports, &first.as_str()[..8]).unwrap_err().code(), "ambiguous_run");
    assert_eq!(find_run(&bench.ports, "").unwrap_err().code(), "ambiguous_run");
    assert_eq!(find_run(&bench.ports, "ffff").unwrap_err().code(), "unknown_run");
    assert_eq!(document(&bench.ports, &first).unwrap()["state"], "queued");
}

#[test]
fn a_short_log_stands_in_the_record_and_a_long_one_beside_it() {
    let bench = Bench::new();
    let published = bench.publish(&json!({}), &[("a", "input.x", "input.x"), ("b", "a.sum", "input.x")]);
    let long: Vec<String> = (0..50).map(|n| format!("line {n} {}", "x".repeat(100))).collect();
    let said = long.clone();
    bench.script("b", move |attempt, _| {
        let mut report = sum(attempt);
        let line = report.log[0].clone();
        report.log = said.iter().map(|message| LogLine { message: message.clone(), ..line.clone() }).collect();
        Ok(report)
    });
    let run = bench.submit(&published, 3);
    bench.work(&run);
    let told = logs(&bench.ports, &current(&bench.ports, &run).unwrap()).unwrap();
    assert_eq!(told[0].lines.iter().map(|line| line.message.as_str()).collect::<Vec<_>>(), ["ran"]);
    assert_eq!(told[1].lines.iter().map(|line| line.message.clone()).collect::<Vec<_>>(), long);
    let mut logs = 0;
    bench
        .kept
        .walk(BlobKind::Log, &mut |_, _| {
            logs += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(logs, 1, "only the long log is a blob");
}

#[test]
fn a_large_value_goes_by_reference_and_arrives() {
    let bench = Bench::new();
    let published = bench.publish(&json!({}), &[("a", "input.x", "input.x"), ("b", "a.sum", "input.x")]);
    // 20 KB in a field that is not in the signature of `add` and that no step maps. Flow does not check outputs.
    bench.script("a", |attempt, _| {
        let mut report = sum(attempt);
        if let dovetail_core::executor::Outcome::Succeeded { output } = &mut report.outcome {
            output["filler"] = json!("x".repeat(20_000));
        }
        Ok(report)
    });
    let run = bench.submit(&published, 3);
    assert_eq!(bench.work(&run)["output"]["total"], 9);
}

#[test]
fn what_the_host_warned_of_is_told_with_the_run_once_a_step_and_with_each_attempt() {
    let bench = Bench::new();
    let published = bench.publish(&json!({}), DIAMOND);
    bench.script("left", |attempt, _| {
        let report = if attempt.number == 1 { fails(FailureKind::Failed, true) } else { sum(attempt) };
        Ok(Report { warnings: vec!["picture `a.jpg`: libjpeg warned: x".to_owned()], ..report })
    });
    let run = bench.submit(&published, 3);
    let document = bench.work(&run);
    let step = |name: &str| {
        let steps = document["processing_summary"]["steps"].as_array().unwrap();
        steps.iter().find(|step| step["step"] == name).unwrap().clone()
    };
    let left = step("left");
    let id = left["id"].as_str().unwrap();
    assert_eq!(document["warnings"], json!([format!("{id}: picture `a.jpg`: libjpeg warned: x")]));
    for attempt in left["attempts"].as_array().unwrap() {
        assert_eq!(attempt["warnings"], json!(["picture `a.jpg`: libjpeg warned: x"]), "{attempt}");
    }
    assert_eq!(left["attempts"].as_array().unwrap().len(), 2);
    assert_eq!(step("right")["attempts"][0].get("warnings"), None);
}

#[test]
fn a_cancelled_run_ends_and_stays_ended() {
    let bench = Bench::new();
    let published = bench.publish(&json!({}), DIAMOND);
    let run = bench.submit(&published, 5);
    assert!(cancel(&bench.ports, &run, "enough").unwrap());
    let document = bench.work(&run);
    assert_eq!(document["state"], "cancelled");
    assert_eq!(document["warnings"], json!(["cancelled: enough"]));
    assert!(bench.made().is_empty());
    assert!(!cancel(&bench.ports, &run, "again").unwrap());
    recover(&bench.ports, &run).unwrap();
    assert!(bench.ports.ledger.open_runs(9).unwrap().is_empty());
}

#[test]
fn a_retry_takes_over_what_succeeded_and_runs_the_rest_again() {
    let bench = Bench::new();
    let published = bench.publish(&json!({}), DIAMOND);
    bench.script("right", |_, _| Ok(fails(FailureKind::Trap, false)));
    let run = bench.submit(&published, 5);
    let failed = bench.work(&run);
    assert_eq!(failed["state"], "failed");
    assert_eq!(retry(&bench.ports, &bench.submit(&published, 6), "too early").unwrap_err().code(), "run_open");
    let left_ran = bench.made().iter().any(|(step, _)| step == "left");
    bench.script("right", |attempt, _| Ok(sum(attempt)));
    let key = retry(&bench.ports, &run, "the task was mended").unwrap();
    assert_eq!(key.generation, 1);
    assert_eq!(bench.ports.ledger.open_runs(9).unwrap().iter().filter(|open| open.run == run).count(), 1);
    let document = bench.work(&run);
    assert_eq!((&document["state"], &document["output"]), (&json!("succeeded"), &json!({ "total": 35 })));
    assert_eq!(
        document["processing_summary"]["steps"][0], failed["processing_summary"]["steps"][0],
        "the outcome of the succeeded step is unchanged"
    );
    let times = |name: &str| bench.made().iter().filter(|(step, _)| step == name).count();
    assert_eq!((times("first"), times("right"), times("join")), (1, 2, 1));
    assert!(times("left") <= 1 + usize::from(left_ran));
    assert_eq!(
        runs(&bench.ports, 9).unwrap().read.iter().find(|row| row.run_id == run).unwrap().state.name(),
        "succeeded"
    );
    assert_eq!(retry(&bench.ports, &run, "again").unwrap_err().code(), "nothing_to_retry");
}

#[test]
fn packages_of_later_steps_are_made_ready_beside_the_first_one() {
    let bench = Bench::new();
    let published = bench.publish(&json!({}), DIAMOND);
    let executor = bench.executor.clone();
    // The first step waits until the package of the other steps is prepared: otherwise the test would hang.
    bench.script("first", move |attempt, _| {
        while executor.prepared.lock().unwrap().is_empty() {
            std::thread::yield_now();
        }
        Ok(sum(attempt))
    });
    let run = bench.submit(&published, 1);
    assert_eq!(bench.work(&run)["state"], "succeeded");
    assert_eq!(
        *bench.executor.prepared.lock().unwrap(),
        [published.pipeline.steps[1].package],
        "once, for any number of steps"
    );
}
