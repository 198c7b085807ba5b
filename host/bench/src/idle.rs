//! The resources that a worker uses while it has nothing to do.

use std::time::Duration;

use dovetail_core::blobs::StoreErrorKind;
use dovetail_stores::{MongoMeta, RedisWindow};

use crate::load::warm;
use crate::suite::Suite;
use crate::workers::Workers;
use dovetail_service::Error;

/// How long a worker gets no work before it counts as idle.
const SETTLE: Duration = Duration::from_millis(1500);

/// The resident memory, in MB, of a process that has run tasks and waits. Each round starts a new process.
#[expect(clippy::cast_precision_loss, reason = "far less than 2^52 bytes")]
pub(crate) fn memory(suite: &Suite) -> Result<Vec<f64>, Error> {
    let mut rounds = Vec::new();
    for _ in 0..suite.plan.rounds {
        let workers = Workers::processes(suite, 1)?;
        warm(suite, &workers)?;
        suite.sleep(SETTLE)?;
        rounds.extend(workers.memory()?.into_iter().map(|bytes| bytes as f64 / 1e6));
    }
    Ok(rounds)
}

/// The commands that one idle worker sends to Redis, per second.
///
/// The server counts them (`INFO commandstats`). It also counts the commands that a script calls, which cost no round
/// trip, so they are left out: every call of ours is one `EVALSHA`, and the other commands of our client are of kinds
/// that no script can call.
pub(crate) fn redis_commands(suite: &Suite) -> Result<Vec<f64>, Error> {
    let config = suite.place.settings();
    commands(suite, || Ok(RedisWindow::open(config.queue.url(), &config.fleet, "bench")?.client_commands()?))
}

/// The commands that one idle worker sends to MongoDB, per second, counted by the server. The driver's `hello` is
/// included.
pub(crate) fn mongodb_commands(suite: &Suite) -> Result<Vec<f64>, Error> {
    let meta = &suite.place.settings().meta;
    if meta.scheme() != "mongodb" {
        return Err(Error::usage("no_mongodb", "the records are not in a MongoDB")
            .help("name one with --meta mongodb://HOST/DATABASE"));
    }
    commands(suite, || {
        MongoMeta::commands_answered(meta.url()).map_err(|error| match error.kind {
            // Few users have the right to ask for the statistics, and all other figures can be measured without it.
            StoreErrorKind::Refused => Error::host("no_statistics", "MongoDB's statistics may not be read")
                .cause(error)
                .help("give the user of --meta the role `clusterMonitor`, too"),
            _ => error.into(),
        })
    })
}

#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 commands")]
fn commands(suite: &Suite, count: impl Fn() -> Result<u64, Error>) -> Result<Vec<f64>, Error> {
    count()?;
    let workers = Workers::start(suite)?;
    warm(suite, &workers)?;
    let round = |_| {
        suite.sleep(SETTLE)?;
        // The commands of one count, with its connection.
        let cost = {
            let first = count()?;
            count()?.saturating_sub(first)
        };
        let before = count()?;
        suite.sleep(suite.plan.idle)?;
        let sent = count()?.saturating_sub(before).saturating_sub(cost);
        workers.check()?;
        Ok(sent as f64 / suite.plan.idle.as_secs_f64() / f64::from(suite.workers))
    };
    (0..suite.plan.rounds.min(3)).map(round).collect()
}
