//! Checks whether a Redis is suitable for a queue: its version, its role, and that it evicts no keys.

use dovetail_core::blobs::{StoreError, StoreErrorKind};
use redis::Connection;

use super::check::explained;

/// The oldest supported major version. It is the first with flags in a script's first line; `LPOP` with a count and
/// `ZMSCORE` are older.
const OLDEST: u32 = 7;

/// A reason for a refusal, and its remedy.
pub(super) struct Refusal(pub(super) String, pub(super) &'static str);

/// Refuses a server that could lose work silently.
pub(super) fn check(connection: &mut Connection, address: &str) -> Result<(), StoreError> {
    let info: String = redis::cmd("INFO").query(connection).map_err(|e| {
        let (kind, why) = explained(&e);
        StoreError::new(kind, format!("ask the queue at {address} for its version and settings"), why)
    })?;
    judge(&info).map_err(|Refusal(why, remedy)| {
        StoreError::new(StoreErrorKind::Refused, format!("use the queue at {address}"), format!("{why}: {remedy}"))
    })
}

/// Judges the answer to `INFO`.
pub(super) fn judge(info: &str) -> Result<(), Refusal> {
    let fact = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let version = fact("redis_version").unwrap_or("unknown");
    let major: u32 = version.split('.').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    if major < OLDEST {
        return Err(Refusal(format!("it is Redis {version}; {OLDEST} or later is needed"), "upgrade it"));
    }
    let policy = fact("maxmemory_policy").unwrap_or("noeviction");
    if policy != "noeviction" {
        let remedy = "set `maxmemory-policy noeviction` (in redis.conf, or by CONFIG SET), so that it refuses writes \
                      when it is full";
        return Err(Refusal(
            format!("its maxmemory-policy is `{policy}`, and it would throw jobs away in silence"),
            remedy,
        ));
    }
    if fact("role") == Some("slave") || fact("role") == Some("replica") {
        return Err(Refusal("it is a replica".to_owned(), "name its primary"));
    }
    Ok(())
}
