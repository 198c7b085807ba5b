//! Whether a Redis can be trusted with a queue: its version, and that it throws nothing away.

use dovetail_core::blobs::{StoreError, StoreErrorKind};
use redis::Connection;

/// The oldest major version: `LPOP` with a count and `ZMSCORE` came before, functions that operators expect came with it.
const OLDEST: u32 = 7;

/// Refuses what would lose work in silence.
pub(super) fn check(connection: &mut Connection, address: &str) -> Result<(), StoreError> {
    let refused = |why: String| StoreError::new(StoreErrorKind::Refused, format!("use the queue at {address}"), why);
    let info: String = redis::cmd("INFO").query(connection).map_err(|e| {
        let kind = if e.code().is_some() { StoreErrorKind::Refused } else { StoreErrorKind::Unavailable };
        StoreError::new(kind, format!("ask the queue at {address} what it is"), e)
    })?;
    let fact = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let version = fact("redis_version").unwrap_or("unknown");
    let major: u32 = version.split('.').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    if major < OLDEST {
        return Err(refused(format!("it is Redis {version}; {OLDEST} or later is needed: upgrade it")));
    }
    let policy = fact("maxmemory_policy").unwrap_or("noeviction");
    if policy != "noeviction" {
        let remedy = "set `maxmemory-policy noeviction` (in redis.conf, or by CONFIG SET), so that it refuses writes when it is full";
        return Err(refused(format!("its maxmemory-policy is `{policy}`: it would throw jobs away in silence; {remedy}")));
    }
    if fact("role") == Some("slave") || fact("role") == Some("replica") {
        return Err(refused("it is a replica: name its primary".to_owned()));
    }
    Ok(())
}
