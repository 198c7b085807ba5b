//! What only servers are asked: whether a deep queue is slower than a short one, and how fast the records' store inserts.

use std::time::Instant;

use dovetail_core::ledger::{Kind, Record};
use dovetail_core::meta::Put;
use dovetail_flow::SystemClock;

use super::figure::median;
use super::load::{results, submit};
use super::suite::Suite;
use super::workers::Workers;
use crate::error::Error;

/// Records of one insert.
const BATCH: usize = 500;
/// About as long as the outcome of a small step, in bytes.
const RECORD: usize = 700;

/// The rate out of a deep queue over the median of those out of a short one. Queues are filled before a worker starts, and runs of one step
/// are taken from them in order: so the submitter takes nothing away from either rate.
pub(super) fn queue_depth(suite: &Suite) -> Result<Vec<f64>, Error> {
    let (window, rounds) = ((suite.plan.size / 5).max(100), suite.plan.rounds);
    let mut short = Vec::new();
    for _ in 0..rounds {
        // One window to start with, one that is timed, and a rest, so that the last one timed does not run dry.
        short.extend(windows(suite, window * 3, window, 1)?);
    }
    let needed = window * (u32::try_from(rounds).unwrap_or(u32::MAX).saturating_add(1));
    let deep = windows(suite, suite.plan.deep.max(needed), window, rounds)?;
    Ok(deep.into_iter().map(|rate| rate / median(&short)).collect())
}

/// Fills the queue with so many runs, starts workers, and gives back the rates of the windows after the first one.
fn windows(suite: &Suite, queued: u32, window: u32, count: usize) -> Result<Vec<f64>, Error> {
    let graph = &suite.tasks.single;
    let mut runs = Vec::new();
    while runs.len() < queued as usize {
        suite.go_on()?;
        runs.extend(submit(suite, graph, (queued - u32::try_from(runs.len()).unwrap_or(u32::MAX)).min(5000))?);
    }
    let workers = Workers::start(suite)?;
    let mut parts = runs.chunks(window as usize);
    let mut take = |n: usize| parts.next().ok_or_else(|| Error::host("bench_over", format!("there is no window {n}")));
    results(suite, &workers, graph, take(0)?)?;
    let mut rates = Vec::new();
    for n in 1..=count {
        let part = take(n)?;
        let began = Instant::now();
        results(suite, &workers, graph, part)?;
        rates.push(part.len() as f64 / began.elapsed().as_secs_f64());
    }
    // A short queue is emptied, so that the next one is as short; a deep one is the last.
    if queued <= window * 3 {
        for part in parts {
            results(suite, &workers, graph, part)?;
        }
    }
    Ok(rates)
}

/// Records a second, inserted 500 at a time.
pub(super) fn inserts(suite: &Suite) -> Result<Vec<f64>, Error> {
    let config = suite.place.config();
    let meta = dovetail_stores::open_meta(config.meta.url(), &config.data, &config.fleet, std::sync::Arc::new(SystemClock))?;
    let value = format!("{{\"format\":\"bench\",\"filler\":\"{}\"}}", "x".repeat(RECORD)).into_bytes();
    let mut number = 0;
    let mut batches = |count: usize| -> Result<(), Error> {
        for _ in 0..count {
            suite.go_on()?;
            let record = |_| {
                number += 1;
                Record { kind: Kind::Attempt, key: format!("bench:{number}"), value: value.clone() }
            };
            let records: Vec<Record> = (0..BATCH).map(record).collect();
            if meta.put(&records)?.iter().any(|put| *put != Put::Created) {
                return Err(Error::host("bench_failed", "a record was there before it was inserted"));
            }
        }
        Ok(())
    };
    batches(1)?;
    let mut rates = Vec::new();
    for _ in 0..suite.plan.rounds {
        let began = Instant::now();
        batches(suite.plan.batches)?;
        rates.push((suite.plan.batches * BATCH) as f64 / began.elapsed().as_secs_f64());
    }
    Ok(rates)
}
