//! What a worker takes that has nothing to do.

use std::time::Duration;

use dovetail_core::blobs::StoreErrorKind;
use dovetail_stores::{MongoMeta, RedisWindow};

use crate::load::warm;
use crate::suite::Suite;
use crate::workers::Workers;
use dovetail_service::Error;

/// How long a worker is left alone before it counts as idle.
const SETTLE: Duration = Duration::from_millis(1500);

/// Megabytes of a process that has run tasks and waits; a new process each round.
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

/// Commands of one idle worker to Redis, a second.
///
/// Counted by the server (`INFO commandstats`). It counts those that a script calls, too; they are left out here, as
/// they cost no round trip: every call of ours is one `EVALSHA`, and the rest that a client of ours sends is of kinds
/// that no script can call.
pub(crate) fn redis_commands(suite: &Suite) -> Result<Vec<f64>, Error> {
    let config = suite.place.settings();
    commands(suite, || Ok(RedisWindow::open(config.queue.url(), &config.fleet, "bench")?.client_commands()?))
}

/// Commands of one idle worker to MongoDB, a second, by the server's own count; the driver's `hello` is one of them.
pub(crate) fn mongodb_commands(suite: &Suite) -> Result<Vec<f64>, Error> {
    let meta = &suite.place.settings().meta;
    if meta.scheme() != "mongodb" {
        return Err(Error::usage("no_mongodb", "the records are not in a MongoDB")
            .help("name one with --meta mongodb://HOST/DATABASE"));
    }
    commands(suite, || {
        MongoMeta::commands_answered(meta.url()).map_err(|error| match error.kind {
            // Few users may ask for it, and everything else can be measured without.
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
        // What asking costs, connecting included.
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
