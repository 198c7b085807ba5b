//! Figures of servers only: whether a deep queue is slower than a short one, and how fast the store for records
//! inserts.

use std::time::Instant;

use dovetail_core::ledger::{Kind, Record};
use dovetail_core::meta::Put;
use dovetail_flow::SystemClock;

use crate::figure::median;
use crate::load::{results, submit};
use crate::suite::Suite;
use crate::workers::Workers;
use dovetail_service::Error;

/// The number of records in one insert.
const BATCH: usize = 500;
/// The size of a record in bytes: about that of the outcome of a small step.
const RECORD: usize = 700;
/// The number of parts of a queue that are worked off before one is timed: a worker that has just started first
/// compares all open runs with the queue.
const BEFORE: usize = 2;

/// The rate with a deep queue over the median rate with a short one. Queues are filled before a worker starts, and runs
/// of one step are taken from them in order, so the submitter slows neither rate.
pub(crate) fn queue_depth(suite: &Suite) -> Result<Vec<f64>, Error> {
    let (window, rounds) = ((suite.plan.size / 4).max(100), suite.plan.rounds);
    // The queue holds the parts before the timed ones, the timed ones, and one that is left, so that it never runs
    // empty.
    let queued = |timed: usize| window * u32::try_from(BEFORE + timed + 1).unwrap_or(u32::MAX);
    let short =
        |count: usize| (0..count).map(|_| windows(suite, queued(1), window, 1)).collect::<Result<Vec<_>, Error>>();
    // Measure half of the short queues before the deep one and half after it, so that other load on this machine
    // affects both.
    let mut short_rates = short(rounds.div_ceil(2))?;
    let deep = windows(suite, suite.plan.deep.max(queued(rounds)), window, rounds)?;
    short_rates.extend(short(rounds / 2)?);
    let usual = median(&short_rates.concat());
    Ok(deep.into_iter().map(|rate| rate / usual).collect())
}

/// Fills the queue with `queued` runs, starts workers, lets `BEFORE` parts of `window` runs pass, and returns the rates
/// of the next `timed` parts after all runs have ended.
fn windows(suite: &Suite, queued: u32, window: u32, timed: usize) -> Result<Vec<f64>, Error> {
    let graph = &suite.tasks.single;
    let mut runs = Vec::new();
    let mut left = queued;
    while left > 0 {
        suite.go_on()?;
        let part = left.min(5000);
        runs.extend(submit(suite, graph, part)?);
        left -= part;
    }
    let workers = Workers::start(suite)?;
    let mut rates = Vec::new();
    for (n, part) in runs.chunks(window as usize).enumerate() {
        let began = Instant::now();
        results(suite, suite.place.service()?, &workers, graph, part)?;
        if (BEFORE..BEFORE + timed).contains(&n) {
            rates.push(part.len() as f64 / began.elapsed().as_secs_f64());
        }
    }
    Ok(rates)
}

/// The number of records that the store inserts per second, 500 at a time.
pub(crate) fn inserts(suite: &Suite) -> Result<Vec<f64>, Error> {
    let config = suite.place.settings();
    let meta =
        dovetail_stores::open_meta(config.meta.url(), &config.data, &config.fleet, std::sync::Arc::new(SystemClock))?;
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
