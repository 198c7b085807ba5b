//! Rates of many runs at once, and latencies of sequential runs. Both end when the submitter has read the results.

use std::time::{Duration, Instant};

use dovetail_core::RunId;
use dovetail_core::ledger::{Kind, RunKey, Wait};
use dovetail_core::record::{Form as _, OutcomeRecord};
use serde_json::{Value, json};

use crate::figure::percentile;
use crate::suite::Suite;
use crate::tasks::{FORK_JOIN_STEPS, Graph, STEPS};
use crate::workers::Workers;
use dovetail_service::Error;
use dovetail_service::Service;

/// The number of runs that are waited for together: each request names all of them.
const TOGETHER: usize = 500;
/// The number of runs that are submitted in one change.
const AT_ONCE: usize = 250;
/// How long to wait for a run's end before a check whether the workers are alive.
const LOOK: Duration = Duration::from_secs(2);
/// No step here takes this long, so something is wrong.
const STALLED: Duration = Duration::from_secs(120);
/// The number of steps before a measurement, so that every worker has loaded the tasks.
const WARM: u32 = 200;

/// Steps per second in runs of `STEPS` steps.
pub(crate) fn independent_steps(suite: &Suite) -> Result<Vec<f64>, Error> {
    let runs = (suite.plan.size / STEPS).max(1);
    Ok(rates(suite, &suite.tasks.independent, runs)?.into_iter().map(|rate| rate * f64::from(STEPS)).collect())
}

/// Steps per second in runs of one step.
pub(crate) fn single_steps(suite: &Suite) -> Result<Vec<f64>, Error> {
    rates(suite, &suite.tasks.single, suite.plan.size)
}

/// Runs that fork and join, per second.
pub(crate) fn fork_joins(suite: &Suite) -> Result<Vec<f64>, Error> {
    rates(suite, &suite.tasks.fork_join, (suite.plan.size / FORK_JOIN_STEPS).max(1))
}

pub(crate) fn latency_p50(suite: &Suite) -> Result<Vec<f64>, Error> {
    Ok(latencies(suite)?.iter().map(|round| percentile(round, 50)).collect())
}

pub(crate) fn latency_p99(suite: &Suite) -> Result<Vec<f64>, Error> {
    Ok(latencies(suite)?.iter().map(|round| percentile(round, 99)).collect())
}

/// Runs per second, one value for each round.
pub(crate) fn rates(suite: &Suite, graph: &Graph, runs: u32) -> Result<Vec<f64>, Error> {
    let workers = Workers::start(suite)?;
    warm(suite, &workers)?;
    let round = |_| {
        let began = Instant::now();
        let submitted = submit(suite, graph, runs)?;
        results(suite, suite.place.service()?, &workers, graph, &submitted)?;
        Ok(f64::from(runs) / began.elapsed().as_secs_f64())
    };
    (0..suite.plan.rounds).map(round).collect()
}

/// The times from submission to result in milliseconds, for sequential runs, by round.
fn latencies(suite: &Suite) -> Result<&Vec<Vec<f64>>, Error> {
    if let Some(known) = suite.latencies.get() {
        return Ok(known);
    }
    let workers = Workers::start(suite)?;
    warm(suite, &workers)?;
    let one = |_| latency(suite, &workers, &suite.tasks.single, &json!({ "n": 1 }));
    let round = |_| (0..suite.plan.latencies).map(one).collect();
    let all = (0..suite.plan.rounds).map(round).collect::<Result<Vec<Vec<f64>>, Error>>()?;
    Ok(suite.latencies.get_or_init(|| all))
}

/// The time of one run from its submission to its result, in milliseconds.
pub(crate) fn latency(suite: &Suite, workers: &Workers, graph: &Graph, inputs: &Value) -> Result<f64, Error> {
    let service = suite.place.service()?;
    let (began, run) = (Instant::now(), dovetail_flow::new_run_id());
    dovetail_flow::submit(service.ports()?, &graph.published, inputs, &run)?;
    results(suite, service, workers, graph, &[RunKey { run, generation: 0 }])?;
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

/// Runs some steps, so that every worker has loaded the tasks, as far as the work is distributed.
pub(crate) fn warm(suite: &Suite, workers: &Workers) -> Result<(), Error> {
    for (graph, steps) in [(&suite.tasks.independent, STEPS), (&suite.tasks.fork_join, FORK_JOIN_STEPS)] {
        let runs = submit(suite, graph, WARM / steps)?;
        results(suite, suite.place.service()?, workers, graph, &runs)?;
    }
    Ok(())
}

/// Submits `runs` runs of a pipeline.
pub(crate) fn submit(suite: &Suite, graph: &Graph, runs: u32) -> Result<Vec<RunKey>, Error> {
    let ports = suite.place.service()?.ports()?;
    let runs: Vec<(RunId, Value)> = (0..runs).map(|n| (dovetail_flow::new_run_id(), json!({ "n": n }))).collect();
    for part in runs.chunks(AT_ONCE) {
        for submitted in dovetail_flow::submit_many(ports, &graph.published, part.to_vec())? {
            submitted?;
        }
    }
    Ok(runs.into_iter().map(|(run, _)| RunKey { run, generation: 0 }).collect())
}

/// Waits until all runs are over, the oldest first, and reads their outcomes, as a submitter does.
pub(crate) fn results(
    suite: &Suite,
    service: &Service,
    workers: &Workers,
    graph: &Graph,
    runs: &[RunKey],
) -> Result<(), Error> {
    let ledger = &service.ports()?.ledger;
    for part in runs.chunks(TOGETHER) {
        let mut open = part.to_vec();
        let mut moved = Instant::now();
        while !open.is_empty() {
            suite.go_on()?;
            let seen = ledger.wakes();
            let mut ended = ledger.over(&open, Wait { seen, at_most: LOOK })?;
            if ended.is_empty() && moved.elapsed() > LOOK {
                workers.check()?;
                // Notifications are best effort, so look at the records.
                ended = ledger.over(&open, Wait::NONE)?;
                if ended.is_empty() && moved.elapsed() > STALLED {
                    return Err(Error::host("bench_stalled", format!("no run has ended for {STALLED:?}")));
                }
            }
            if !ended.is_empty() {
                moved = Instant::now();
                let ended: std::collections::HashSet<RunKey> = ended.into_iter().collect();
                open.retain(|run| !ended.contains(run));
            }
        }
        let keys: Vec<String> = part.iter().flat_map(|run| graph.results.iter().map(|step| run.step(step))).collect();
        for (key, bytes) in keys.iter().zip(ledger.get(Kind::Outcome, &keys)?) {
            let outcome = bytes.map(|bytes| OutcomeRecord::decode(&bytes, &format!("outcome {key}"))).transpose()?;
            if outcome.is_none_or(|outcome| !outcome.succeeded()) {
                return Err(Error::host("bench_failed", format!("the step {key} did not succeed"))
                    .help("this is a bug of dovetail: please report it"));
            }
        }
    }
    Ok(())
}
