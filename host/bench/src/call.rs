//! The figures of one call of a task, and of one whole process for one run.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Instant;

use dovetail_core::executor::{Attempt, Executor as _, Outcome};
use dovetail_core::keys::NodeId;
use dovetail_core::limits::Limits;
use dovetail_core::stop::Stop;
use dovetail_core::{Digest, RunId};
use serde_json::{Value, json};

use crate::suite::Suite;
use dovetail_service::Error;

/// The number of processes in one round.
const PROCESSES: usize = 5;

/// The time of one attempt of a task in Rust with std, in microseconds.
pub(crate) fn overhead(suite: &Suite) -> Result<Vec<f64>, Error> {
    let package = super::tasks::noop(suite.place.service()?)?;
    attempts(suite, package, json!({ "n": 1, "text": "handed on" }))
}

/// The same for a task without std, whose instance needs almost no preparation.
pub(crate) fn overhead_no_std(suite: &Suite) -> Result<Vec<f64>, Error> {
    attempts(suite, suite.tasks.number, json!({ "n": 1 }))
}

/// The time of one attempt in the runtime, without queue and records, in microseconds.
fn attempts(suite: &Suite, package: Digest, input: Value) -> Result<Vec<f64>, Error> {
    let service = suite.place.service()?;
    let runtime = service.runtime(service.ports()?.blobs.clone(), 1, None)?;
    let attempt = Attempt {
        run: RunId::from_bytes([1; 16]),
        step: NodeId::of_step("only"),
        number: 1,
        package,
        idempotency_key: "key".to_owned(),
        input,
        origins: BTreeMap::new(),
        limits: Limits::DEFAULT,
        models: dovetail_core::executor::Models::new(),
    };
    let stop = Stop::never();
    let calls = |count: u32| -> Result<(), Error> {
        for _ in 0..count {
            if let Outcome::Failed { failure } = runtime.execute(&attempt, &stop)?.outcome {
                return Err(Error::host(
                    "bench_failed",
                    format!("the task failed: {}: {}", failure.code, failure.message),
                ));
            }
        }
        suite.go_on()
    };
    calls(suite.plan.calls / 10)?;
    let round = |_| {
        let began = Instant::now();
        calls(suite.plan.calls)?;
        Ok(began.elapsed().as_secs_f64() * 1e6 / f64::from(suite.plan.calls))
    };
    (0..suite.plan.rounds).map(round).collect()
}

/// The time of `dovetail run` from its start to its end, in milliseconds. Each process is a round.
pub(crate) fn whole_process(suite: &Suite) -> Result<Vec<f64>, Error> {
    let one = |_| {
        suite.go_on()?;
        let mut command = suite.place.command(&[
            "run",
            &suite.tasks.single.published.pipeline.name,
            "--input",
            "n=1",
            "--output",
            "json",
        ])?;
        let began = Instant::now();
        let out = command
            .stdin(Stdio::null())
            .output()
            .map_err(|e| Error::host("bench_process", "start a process of dovetail").cause(e))?;
        let time = began.elapsed().as_secs_f64() * 1e3;
        if !out.status.success() {
            let stderr = String::from_utf8_lossy(&out.stderr).trim().to_owned();
            return Err(Error::host("bench_process", format!("`dovetail run` ended with {}: {stderr}", out.status)));
        }
        Ok(time)
    };
    // The first process finds nothing in the system's caches, so it is not counted.
    one(0)?;
    (0..suite.plan.rounds * PROCESSES).map(one).collect()
}
