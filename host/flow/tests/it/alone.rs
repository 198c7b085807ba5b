//! A job over which workers died runs alone, and afterwards its worker goes on as before.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use crate::bench::document;
use dovetail_core::RunId;
use dovetail_core::ledger::{RunKey, Scope, Wait};
use dovetail_core::policy;
use dovetail_flow::{Daemon, Worker, WorkerOptions, submit};
use serde_json::json;

use crate::bench::{Bench, sum};

/// Of whoever holds a job and dies over it; the worker's own leases are longer.
const SHORT: Duration = Duration::from_secs(1);

#[track_caller]
fn wait(what: &str, mut until: impl FnMut() -> bool) {
    let began = Instant::now();
    while !until() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}: it does not");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn key(run: &RunId) -> RunKey {
    RunKey { run: run.clone(), generation: 0 }
}

/// A claim that was on its way when the job began brings jobs that are given back at once. They must be counted out
/// again: a worker that believes that they still wait here claims nothing more.
#[test]
fn a_worker_goes_on_claiming_after_it_gave_back_what_came_beside_a_job_that_is_alone() {
    let bench = Bench::new();
    let one = |step: &'static str| bench.publish(&json!({ "name": step }), &[(step, "input.x", "input.x")]);
    let (quick, first, suspect) = (one("quick"), one("first"), one("suspect"));
    // More at once than are claimed ahead of steps of 2 ms.
    let names: Vec<String> = (0..40).map(|n| format!("s{n}")).collect();
    let steps: Vec<(&str, &str, &str)> = names.iter().map(|name| (name.as_str(), "input.x", "input.x")).collect();
    let wide = bench.publish(&json!({ "name": "wide" }), &steps);

    // Workers died over it, and the last one of them still holds it.
    let suspected = bench.submit(&suspect, 1);
    for died in 0..policy::SUSPECT_CRASHES {
        bench.clock.advance(SHORT * 2);
        let claimed = bench.parts.ledger.claim(&Scope::Runs(vec![suspected.clone()]), 1, SHORT, Wait::NONE).unwrap();
        assert_eq!(claimed[0].crashes, died);
    }

    // The claimer stands still between its decision to claim and the claim, while `holds` is true.
    let (holds, at_the_gate, gate) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)), Arc::new(Barrier::new(2)));
    let able = {
        let (holds, at_the_gate, gate) = (holds.clone(), at_the_gate.clone(), gate.clone());
        move || {
            if holds.swap(false, Ordering::SeqCst) {
                at_the_gate.store(true, Ordering::SeqCst);
                gate.wait();
            }
            Vec::new()
        }
    };
    bench.script("quick", |attempt, _| {
        std::thread::sleep(Duration::from_millis(2));
        Ok(sum(attempt))
    });
    // It keeps the only slot until the suspected job waits for that and a further claim is about to be made.
    bench.script("first", {
        let (parts, clock, suspected) = (bench.parts.clone(), bench.clock.clone(), key(&suspected));
        move |attempt, _| {
            clock.advance(SHORT * 2);
            wait("the suspected job is claimed", || {
                parts.ledger.wake();
                !parts.ledger.held(&suspected).unwrap().is_empty()
            });
            holds.store(true, Ordering::SeqCst);
            wait("the next claim is made", || {
                parts.ledger.wake();
                at_the_gate.load(Ordering::SeqCst)
            });
            Ok(sum(attempt))
        }
    });
    let first_run = Arc::new(Mutex::new(None::<RunId>));
    let beside = Arc::new(Mutex::new(None::<RunId>));
    bench.script("suspect", {
        let (parts, first_run, beside) = (bench.parts.clone(), first_run.clone(), beside.clone());
        move |attempt, _| {
            // What came of the step before is recorded: nothing but the jobs that are given back changes from here on.
            let before = first_run.lock().unwrap().clone().unwrap();
            wait("the run before ends", || document(&parts, &before).unwrap()["state"] == "succeeded");
            let run = dovetail_flow::new_run_id().unwrap();
            let inputs = wide.pipeline.resolve_inputs(json!({ "x": 1 }).as_object().unwrap()).unwrap();
            submit(&parts, &wide, &inputs, &run).unwrap();
            let seen = parts.ledger.wakes();
            gate.wait();
            wait("what comes is given back", || {
                parts.ledger.wakes() > seen && parts.ledger.held(&key(&run)).unwrap().is_empty()
            });
            *beside.lock().unwrap() = Some(run);
            Ok(sum(attempt))
        }
    });

    let daemon = Daemon { about: Arc::new(|_, _| Vec::new()), able: Arc::new(able) };
    let options = WorkerOptions {
        jobs: 1,
        lease: Duration::from_secs(10),
        name: "test".into(),
        on_event: None,
        daemon: Some(daemon),
    };
    let worker = Arc::new(Worker::new(bench.parts.clone(), bench.executor.clone(), options));
    // Not a thread of a scope: one that claims nothing more would not end either.
    let working = std::thread::spawn({
        let shutdown = bench.shutdown.clone();
        move || worker.run(&Scope::All, &shutdown)
    });
    let succeeds = |run: &RunId| document(&bench.parts, run).unwrap()["state"] == "succeeded";
    // So that it knows that steps are short, and claims ahead.
    for x in 0..20 {
        let run = bench.submit(&quick, x);
        wait("a quick run ends", || succeeds(&run));
    }
    // Before the worker can have it.
    let mut first_run = first_run.lock().unwrap();
    *first_run = Some(bench.submit(&first, 1));
    drop(first_run);
    wait("the suspected job ends", || succeeds(&suspected));
    let beside = beside.lock().unwrap().clone().expect("it was submitted beside the suspected job");
    wait("the worker goes on claiming: the run that came beside the suspected job ends", || succeeds(&beside));
    bench.shutdown.drain();
    working.join().unwrap().unwrap();
}
