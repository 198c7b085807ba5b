//! Stopping a worker: first no new steps start, then running steps are stopped too. The run continues later.

use std::sync::{Arc, Barrier};

use crate::bench::document;
use dovetail_core::executor::{Failure, FailureKind, Outcome};
use dovetail_core::ledger::Scope;
use dovetail_core::stop::StopReason;
use dovetail_flow::{Event, Shutdown, recover};
use serde_json::json;

use crate::bench::{Bench, report, sum};

#[test]
fn draining_ends_running_steps_and_leaves_the_rest_for_later() {
    let mut bench = Bench::new();
    let published = bench.publish(&json!({}), &[("a", "input.x", "input.x"), ("b", "a.sum", "a.sum")]);
    let shutdown = bench.shutdown.clone();
    bench.script("a", move |attempt, _| {
        shutdown.drain();
        Ok(sum(attempt))
    });
    let run = bench.submit(&published, 1);
    assert_eq!(bench.work(&run)["state"], "queued", "no worker holds a step");
    assert_eq!(bench.made(), [("a".to_owned(), 1)]);
    bench.shutdown = Shutdown::default();
    recover(&bench.ports, &run).unwrap();
    assert_eq!(bench.work(&run)["output"]["total"], 4);
    assert_eq!(bench.made(), [("a".to_owned(), 1), ("b".to_owned(), 1)], "the finished step does not run again");
}

#[test]
fn aborting_gives_running_steps_back_uncharged() {
    let mut bench = Bench::new();
    let published = bench.publish(&json!({}), &[("a", "input.x", "input.x")]);
    let started = Arc::new(Barrier::new(2));
    let here = started.clone();
    bench.script("a", move |_, stop| {
        here.wait();
        let (_keep, never) = crossbeam_channel::bounded::<()>(0);
        assert_eq!(stop.wait(&never), Err(StopReason::Cancelled));
        Ok(report(Outcome::Failed { failure: Failure::new(FailureKind::Cancelled, "cancelled", "stopped") }))
    });
    let run = bench.submit(&published, 1);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            started.wait();
            bench.shutdown.abort();
        });
        bench.worker().run(&Scope::Runs(vec![run.clone()]), &bench.shutdown).unwrap();
    });
    assert_eq!(document(&bench.ports, &run).unwrap()["state"], "queued");
    let releases = bench
        .events
        .lock()
        .unwrap()
        .iter()
        .filter(|event| matches!(event, Event::StepReleased { attempt: 1, .. }))
        .count();
    assert_eq!(releases, 1, "the listener gets the release");
    bench.shutdown = Shutdown::default();
    bench.script("a", |attempt, _| Ok(sum(attempt)));
    assert_eq!(bench.work(&run)["processing_summary"]["steps"][0]["attempts"][0]["number"], 1);
}

#[test]
fn a_worker_for_everything_works_until_it_is_told_to_stop() {
    let bench = Bench::new();
    let published = bench.publish(&json!({}), &[("a", "input.x", "input.x")]);
    std::thread::scope(|threads| {
        threads.spawn(|| bench.worker().run(&Scope::All, &bench.shutdown).unwrap());
        let all: Vec<_> = (0..20).map(|x| bench.submit(&published, x)).collect();
        for run in all {
            while document(&bench.ports, &run).unwrap()["state"] != "succeeded" {
                std::thread::yield_now();
            }
        }
        bench.shutdown.drain();
    });
}
