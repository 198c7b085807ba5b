//! A job that names something which is not stored fails after a few further looks. It charges no worker and no attempt,
//! and delays no other job.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dovetail_core::blobs::{BlobKind, StoreError, StoreErrorKind};
use dovetail_core::executor::{Attempt, FailureKind, HostError, MISSING_ARTIFACT, Report};
use dovetail_core::ledger::{Kind, Scope};
use dovetail_core::policy::LOOK_AGAIN;
use dovetail_core::retention::{Archive as _, RemovableBlobs as _};
use dovetail_flow::{Daemon, Event, Worker, WorkerOptions, new_run_id};
use serde_json::{Value, json};

use crate::bench::{Bench, fails, sum};
use crate::inputs::texts;

fn missing(_: &Attempt) -> Result<Report, HostError> {
    let source = StoreError::plain(StoreErrorKind::Missing, "read artifacts sha256:00");
    Err(HostError {
        operation: "use the artifact store".into(),
        transient: false,
        missing: Some(MISSING_ARTIFACT),
        source: Some(source.into()),
    })
}

fn attempts(document: &Value) -> Vec<(u64, Option<&str>)> {
    let attempts = document["processing_summary"]["steps"][0]["attempts"].as_array().unwrap();
    attempts.iter().map(|a| (a["number"].as_u64().unwrap(), a["error"]["code"].as_str())).collect()
}

#[test]
fn what_is_missing_is_looked_for_again_and_then_the_step_fails_with_its_name() {
    let bench = Bench::new();
    let published = bench.publish(&json!({}), &[("a", "input.x", "input.x")]);
    bench.script("a", |attempt, _| missing(attempt));
    let run = bench.submit(&published, 1);
    let document = bench.work(&run);
    assert_eq!((&document["state"], &document["error"]["code"]), (&json!("failed"), &json!(MISSING_ARTIFACT)));
    assert_eq!(document["error"]["message"], "use the artifact store: read artifacts sha256:00");
    assert_eq!(attempts(&document).len(), LOOK_AGAIN.len() + 1);
    let delays: Vec<u64> = bench
        .events
        .lock()
        .unwrap()
        .iter()
        .filter_map(|event| match event {
            Event::StepRetried { delay_ms, .. } => Some(*delay_ms),
            _ => None,
        })
        .collect();
    assert_eq!(delays, [1000, 2000, 4000, 8000]);
}

#[test]
fn to_look_again_takes_none_of_the_steps_attempts() {
    let bench = Bench::new();
    // The bench allows three attempts.
    let published = bench.publish(&json!({}), &[("a", "input.x", "input.x")]);
    bench.script("a", |attempt, _| match attempt.number {
        1 | 3 => missing(attempt),
        2 | 4 => Ok(fails(FailureKind::Failed, true)),
        _ => Ok(sum(attempt)),
    });
    let run = bench.submit(&published, 1);
    let document = bench.work(&run);
    assert_eq!(document["output"]["total"], 2, "{document:#}");
    let (looked, failed) = (Some(MISSING_ARTIFACT), Some("no_luck"));
    assert_eq!(attempts(&document), [(1, looked), (2, failed), (3, looked), (4, failed), (5, None)]);
    // A task that itself fails with this code is charged.
    bench.script("a", |_, _| {
        let mut report = fails(FailureKind::Unavailable, true);
        let dovetail_core::executor::Outcome::Failed { failure } = &mut report.outcome else { unreachable!() };
        failure.code = MISSING_ARTIFACT.into();
        Ok(report)
    });
    let run = bench.submit(&published, 2);
    assert_eq!(attempts(&bench.work(&run)).len(), 3);
}

#[test]
fn a_value_that_is_gone_ends_the_step_that_needs_it() {
    let bench = Bench::new();
    let published = texts(&bench);
    let given = published.pipeline.resolve_inputs(json!({ "x": "a".repeat(20_000) }).as_object().unwrap()).unwrap();
    let run = new_run_id();
    dovetail_flow::submit(&bench.ports, &published, &given, &run).unwrap();
    let mut values = Vec::new();
    bench
        .kept
        .walk(BlobKind::Value, &mut |digest, _| {
            values.push(digest);
            Ok(())
        })
        .unwrap();
    for digest in &values {
        assert!(bench.kept.remove(BlobKind::Value, digest, Duration::ZERO).unwrap());
    }
    let kept: Vec<Vec<u8>> = vec![given.to_string().into_bytes()];
    bench.drive(&run);
    let key = dovetail_flow::current(&bench.ports, &run).unwrap();
    let outcome = bench.ports.ledger.get(Kind::Outcome, &[key.step("one")]).unwrap().remove(0).unwrap();
    let outcome: Value = serde_json::from_slice(&outcome).unwrap();
    assert_eq!(outcome["failure"]["code"], "missing_value");
    // With the value restored, the run can be shown and retried.
    bench.ports.blobs.put(BlobKind::Value, &kept[0]).unwrap();
    dovetail_flow::retry(&bench.ports, &run, "restored").unwrap();
    assert_eq!(bench.work(&run)["state"], "succeeded");
}

#[test]
fn a_run_whose_pipeline_is_gone_ends() {
    let bench = Bench::new();
    let published = bench.publish(&json!({}), &[("a", "input.x", "input.x")]);
    let run = bench.submit(&published, 1);
    bench.records.remove(Kind::Pipeline, std::slice::from_ref(&published.key)).unwrap();
    let (worker, shutdown) = (daemon(&bench), bench.shutdown.clone());
    let key = dovetail_core::ledger::RunKey { run, generation: 0 };
    std::thread::scope(|threads| {
        threads.spawn(|| worker.run(&Scope::All, &shutdown));
        let end = loop {
            bench.clock.advance(Duration::from_millis(10));
            bench.ports.ledger.wake();
            if let Some(end) = bench.ports.ledger.get(Kind::RunOutcome, &[key.key()]).unwrap().remove(0) {
                break end;
            }
            std::thread::yield_now();
        };
        shutdown.drain();
        let end: Value = serde_json::from_slice(&end).unwrap();
        assert_eq!((&end["state"], &end["failure"]["code"]), (&json!("failed"), &json!("missing_pipeline")));
    });
    assert!(bench.ports.ledger.open_runs(9).unwrap().is_empty());
}

fn daemon(bench: &Bench) -> Arc<Worker> {
    let daemon = Daemon { about: Arc::new(|_, _| Vec::new()), able: Arc::new(Vec::new) };
    let options = WorkerOptions {
        jobs: 1,
        lease: Duration::from_secs(10),
        name: "test".into(),
        on_event: None,
        daemon: Some(daemon),
    };
    Arc::new(Worker::new(bench.ports.clone(), bench.executor.clone(), options))
}

/// The runs that cannot run come first. A worker that backed off after each of them would need most of an hour to reach
/// the other runs.
#[test]
fn a_hundred_runs_that_nobody_can_run_keep_none_of_the_others_waiting() {
    let bench = Bench::new();
    let published = bench.publish(&json!({}), &[("a", "input.x", "input.x")]);
    let looked = Arc::new(AtomicU32::new(0));
    let count = looked.clone();
    bench.script("a", move |attempt, _| {
        if attempt.input["a"].as_i64().unwrap() < 100 {
            count.fetch_add(1, Ordering::SeqCst);
            return missing(attempt);
        }
        Ok(sum(attempt))
    });
    let runs: Vec<_> = (0..200).map(|x| bench.submit(&published, x)).collect();
    let (worker, shutdown) = (daemon(&bench), bench.shutdown.clone());
    std::thread::scope(|threads| {
        threads.spawn(|| worker.run(&Scope::All, &shutdown));
        let good: Vec<String> = runs.iter().skip(100).map(|run| format!("{run}:0")).collect();
        let until = std::time::Instant::now() + Duration::from_secs(60);
        let wait = || {
            bench.ports.ledger.get(Kind::RunOutcome, &good).unwrap().iter().any(Option::is_none)
                || looked.load(Ordering::SeqCst) < 100
        };
        while wait() && std::time::Instant::now() < until {
            std::thread::yield_now();
        }
        let waits = wait();
        shutdown.drain();
        assert!(!waits, "good runs wait for bad runs");
    });
    assert_eq!(looked.load(Ordering::SeqCst), 100, "each bad run was tried once, because the clock does not move");
}
