//! A job over which workers died runs alone, and afterwards its worker claims jobs as before.

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

/// The lease of a worker that dies over a job. The leases of the tested worker are longer.
const SHORT: Duration = Duration::from_secs(1);

#[track_caller]
fn wait(what: &str, mut until: impl FnMut() -> bool) {
    let began = Instant::now();
    while !until() {
        assert!(began.elapsed() < Duration::from_secs(20), "this did not happen: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn key(run: &RunId) -> RunKey {
    RunKey { run: run.clone(), generation: 0 }
}

/// A claim may be under way when a suspected job starts to run alone. The jobs of that claim are given back at once,
/// and the worker's count of waiting jobs must drop again: otherwise the worker would never claim again.
#[test]
fn a_worker_goes_on_claiming_after_it_gave_back_what_came_beside_a_job_that_is_alone() {
    let bench = Bench::new();
    let one = |step: &'static str| bench.publish(&json!({ "name": step }), &[(step, "input.x", "input.x")]);
    let (quick, first, suspect) = (one("quick"), one("first"), one("suspect"));
    // More steps than a worker claims ahead for steps of 2 ms.
    let names: Vec<String> = (0..40).map(|n| format!("s{n}")).collect();
    let steps: Vec<(&str, &str, &str)> = names.iter().map(|name| (name.as_str(), "input.x", "input.x")).collect();
    let wide = bench.publish(&json!({ "name": "wide" }), &steps);

    // Workers have died over this job, and the last one of them still holds it.
    let suspected = bench.submit(&suspect, 1);
    for died in 0..policy::SUSPECT_CRASHES {
        bench.clock.advance(SHORT * 2);
        let claimed = bench.ports.ledger.claim(&Scope::Runs(vec![suspected.clone()]), 1, SHORT, Wait::NONE).unwrap();
        assert_eq!(claimed[0].crashes, died);
    }

    // While `holds` is true, the claimer stops between its decision to claim and the claim.
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
    // This step keeps the only slot until the suspected job waits for that slot and a further claim is about to be
    // made.
    bench.script("first", {
        let (ports, clock, suspected) = (bench.ports.clone(), bench.clock.clone(), key(&suspected));
        move |attempt, _| {
            clock.advance(SHORT * 2);
            wait("the suspected job is claimed", || {
                ports.ledger.wake();
                !ports.ledger.held(&suspected).unwrap().is_empty()
            });
            holds.store(true, Ordering::SeqCst);
            wait("the next claim is made", || {
                ports.ledger.wake();
                at_the_gate.load(Ordering::SeqCst)
            });
            Ok(sum(attempt))
        }
    });
    let first_run = Arc::new(Mutex::new(None::<RunId>));
    let beside = Arc::new(Mutex::new(None::<RunId>));
    bench.script("suspect", {
        let (ports, first_run, beside) = (bench.ports.clone(), first_run.clone(), beside.clone());
        move |attempt, _| {
            // The outcome of the earlier step is recorded. From now on only the jobs that are given back change
            // anything.
            let before = first_run.lock().unwrap().clone().unwrap();
            wait("the run before ends", || document(&ports, &before).unwrap()["state"] == "succeeded");
            let run = dovetail_flow::new_run_id();
            let inputs = wide.pipeline.resolve_inputs(json!({ "x": 1 }).as_object().unwrap()).unwrap();
            submit(&ports, &wide, &inputs, &run).unwrap();
            let seen = ports.ledger.wakes();
            gate.wait();
            wait("the claimed jobs are given back", || {
                ports.ledger.wakes() > seen && ports.ledger.held(&key(&run)).unwrap().is_empty()
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
    let worker = Arc::new(Worker::new(bench.ports.clone(), bench.executor.clone(), options));
    // Not a scoped thread: a worker that does not claim any more would not end, and the test would hang.
    let working = std::thread::spawn({
        let shutdown = bench.shutdown.clone();
        move || worker.run(&Scope::All, &shutdown)
    });
    let succeeds = |run: &RunId| document(&bench.ports, run).unwrap()["state"] == "succeeded";
    // The worker learns that steps are short, so it claims ahead.
    for x in 0..20 {
        let run = bench.submit(&quick, x);
        wait("a quick run ends", || succeeds(&run));
    }
    // The lock is held during the submission: the script reads this ID as soon as the worker has the job.
    let mut first_run = first_run.lock().unwrap();
    *first_run = Some(bench.submit(&first, 1));
    drop(first_run);
    wait("the suspected job ends", || succeeds(&suspected));
    let beside = beside.lock().unwrap().clone().expect("the run was submitted beside the suspected job");
    wait("the worker goes on claiming: the run that came beside the suspected job ends", || succeeds(&beside));
    bench.shutdown.drain();
    working.join().unwrap().unwrap();
}
