//! What a Redis reports about itself, for `doctor`, and the explanation of its errors, with remedies.

use std::time::Instant;

use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::clock::Clock;
use dovetail_core::size::rounded_size;
use redis::{Client, ConnectionAddr, ErrorKind, RedisError, ServerErrorKind};

use super::{CONNECT, settings};
use crate::check::{ServerReport, certificate, millis, unknown_host};

/// Percentage of `maxmemory` above which `doctor` warns: little memory is left for a burst of work.
const FULL: u64 = 80;

const FORM: &str = "write redis://[user:password@]host[:port]/[db], user and password percent-encoded";

/// Makes a client for `url`. The driver ignores most of the parameters that other clients know, so every parameter is
/// refused. The error repeats no part of the URL that can be a password with an unescaped `?` or `#`.
pub(super) fn client(url: &str) -> Result<Client, StoreError> {
    let refused = |why: &str| {
        let why = format!("its URL cannot be used: {why}; {FORM}");
        StoreError::new(StoreErrorKind::Invalid, "open the queue", why)
    };
    if let Some(read) = redis::parse_redis_url(url) {
        if let Some((name, _)) = read.query_pairs().next() {
            return Err(refused(&no_parameter(&name)));
        }
        if read.fragment().is_some() {
            return Err(refused(
                "nothing may follow `#`: certificates are always checked (trusted are this system's and those in \
                 SSL_CERT_FILE), and in a password `#` is written %23",
            ));
        }
    }
    Client::open(url).map_err(|e| refused(&e.to_string()))
}

/// The reason why the parameter `name` is refused.
fn no_parameter(name: &str) -> String {
    match name {
        "db" => "`?db=` has no effect there: the number of the database stands after the slash, as in /5".to_owned(),
        "protocol" => "`?protocol=` cannot be chosen: dovetail speaks RESP2".to_owned(),
        "user" | "pass" | "password" => {
            format!("`?{name}=` has no effect there: write user and password before the `@`")
        }
        name if name.len() <= 32 && name.bytes().all(|b| b.is_ascii_alphabetic() || matches!(b, b'_' | b'-')) => {
            format!("there is no parameter `{name}`: the URL of a Redis takes no parameters")
        }
        _ => "the URL of a Redis takes no parameters (in a password `?` is written %3F)".to_owned(),
    }
}

/// The kind of the error, and its text with a remedy.
pub(super) fn explained(error: &RedisError) -> (StoreErrorKind, String) {
    use StoreErrorKind::{Refused, Unavailable};
    let text = error.to_string();
    let with = |kind, remedy: &str| (kind, format!("{text}: {remedy}"));
    match error.code() {
        Some("OOM") => {
            return with(
                Refused,
                "it is full: raise its `maxmemory`, or wait: workers still execute its queued steps, and recorded runs \
                 begin when there is room",
            );
        }
        Some("READONLY") => return with(Refused, "it is a replica, or a failover is under way: name the primary"),
        Some("NOPERM") => {
            return with(
                Refused,
                "give the user of the URL the keys `~dovetail:*`, the channels `&dovetail:*` and `+@all -@admin`",
            );
        }
        Some("NOAUTH") => {
            return with(Refused, "it asks for a password: write it into the URL, redis://user:password@host");
        }
        Some("WRONGPASS") => return with(Refused, "correct user and password in the URL (percent-encoded)"),
        Some("MISCONF") => {
            return with(Unavailable, "it cannot write its own disk and refuses changes: make room there");
        }
        _ => {}
    }
    if error.kind() == ErrorKind::AuthenticationFailed {
        return with(
            Refused,
            "correct user and password in the URL (percent-encoded), or leave them out if the server has none",
        );
    }
    if error.kind() == ErrorKind::Server(ServerErrorKind::ResponseError) && text.contains("DB index") {
        return with(Refused, "correct the number of the database at the end of the URL");
    }
    if error.is_timeout() {
        let why = "no answer in time: it may be frozen or overloaded, or a firewall in between (does `redis-cli -h \
                   HOST -p PORT ping` say PONG?); if it answers other clients, does the URL say rediss:// if the \
                   server speaks TLS, and redis:// if not?";
        return (Unavailable, why.to_owned());
    }
    if error.is_connection_refusal() {
        return with(Unavailable, "is it running, and are host and port right?");
    }
    if let Some(why) = certificate(&text, "trusted are this system's certificates and those in SSL_CERT_FILE") {
        return (Refused, why);
    }
    if let Some(help) = unknown_host(&text) {
        return with(Unavailable, help);
    }
    if error.kind() == ErrorKind::Parse {
        let why = "the answer is not in the protocol of Redis: does another server (HTTP, S3, MongoDB) listen on this \
                   port?";
        return (Unavailable, why.to_owned());
    }
    if error.is_connection_dropped() {
        return with(
            Unavailable,
            "if every connection ends like this: is the server a Redis, and does the URL say rediss:// if the server \
             speaks TLS?",
        );
    }
    (Unavailable, text)
}

fn fact<'i>(info: &'i str, name: &str) -> Option<&'i str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Adds to `report` what the answer to `INFO` tells.
fn judge(info: &str, report: &mut ServerReport) {
    let number = |name: &str| fact(info, name).and_then(|value| value.parse::<u64>().ok()).unwrap_or(0);
    report.found.push_str(&format!(", {}", if fact(info, "role") == Some("master") { "primary" } else { "replica" }));
    let (used, most) = (number("used_memory"), number("maxmemory"));
    let limit = if most == 0 { "without a limit".to_owned() } else { format!("of {}", rounded_size(most)) };
    let policy = fact(info, "maxmemory_policy").unwrap_or("unknown policy");
    report.found.push_str(&format!(", {} used {limit}, {policy}", rounded_size(used)));
    if let Err(refusal) = settings::judge(info) {
        report.problem(refusal.0, refusal.1);
    }
    if most > 0 && used.saturating_mul(100) > most.saturating_mul(FULL) {
        let found = format!("{} of {} are used", rounded_size(used), rounded_size(most));
        report.warning(
            found,
            "raise `maxmemory`: while the queue is full, new runs are recorded and wait until there is room",
        );
    }
    if fact(info, "aof_enabled") == Some("1") {
        report.found.push_str(", appendonly");
        if fact(info, "aof_last_write_status").is_some_and(|status| status != "ok") {
            report.problem(
                "it could not write its append-only file",
                "make room on its disk, or repair the disk: Redis refuses changes until then",
            );
        }
    } else {
        let found = "appendonly is off: after a restart the queue is empty or old, and every open run is put back \
                     from the records, which takes a while";
        report.warning(
            found,
            "set `appendonly yes` and `appendfsync everysec` (redis.conf, or CONFIG SET and CONFIG REWRITE)",
        );
    }
    if fact(info, "rdb_last_bgsave_status").is_some_and(|status| status != "ok") {
        report.warning(
            "its last snapshot failed",
            "look into its log: its disk may be full, or `vm.overcommit_memory` may be 0",
        );
    }
}

/// Connects as a worker does. Reports every fault as a remark instead of refusing the server.
pub(crate) fn check(url: &str, clock: &dyn Clock) -> Result<ServerReport, StoreError> {
    let client = client(url)?;
    let address = client.get_connection_info().addr().clone();
    let fail = |operation: &str, error: &RedisError| {
        let (kind, why) = explained(error);
        StoreError::new(kind, format!("{operation} the queue at {address}"), why)
    };
    let mut connection = client.get_connection_with_timeout(CONNECT).map_err(|e| fail("connect to", &e))?;
    connection.set_read_timeout(Some(CONNECT)).map_err(|e| fail("connect to", &e))?;
    let info: String = redis::cmd("INFO").query(&mut connection).map_err(|e| fail("ask", &e))?;
    let (asked, asked_ms) = (Instant::now(), clock.wall_ms());
    let (seconds, micros): (i64, i64) = redis::cmd("TIME").query(&mut connection).map_err(|e| fail("ask", &e))?;
    let trip = asked.elapsed();
    let mut report = ServerReport::default();
    let (name, version) = match fact(&info, "valkey_version") {
        Some(version) => ("Valkey", version),
        None => ("Redis", fact(&info, "redis_version").unwrap_or("of an unknown version")),
    };
    report.found = format!("{name} {version} at {address}");
    judge(&info, &mut report);
    report.found.push_str(&format!(", answers in {}", millis(trip)));
    let half = trip.as_millis() as i64 / 2;
    let ours = i64::try_from(asked_ms).unwrap_or(i64::MAX).saturating_add(half);
    let theirs = seconds.saturating_mul(1000).saturating_add(micros / 1000);
    report.clock(theirs.saturating_sub(ours), half.unsigned_abs() + 5);
    let (encrypted, host) = match &address {
        ConnectionAddr::Tcp(host, _) => (false, host.as_str()),
        ConnectionAddr::TcpTls { host, .. } => (true, host.as_str()),
        _ => (false, "localhost"),
    };
    report.network(encrypted, &[host], "write rediss:// and let Redis speak TLS");
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_have_no_effect_in_a_url_is_refused_without_repeating_a_password() {
        for (url, says) in [
            ("redis://h/?db=5", "after the slash, as in /5"),
            ("redis://h/3?db=5", "after the slash, as in /5"),
            ("redis://h?protocol=resp3", "`?protocol=` cannot be chosen"),
            ("rediss://h/0?protocol=2", "`?protocol=` cannot be chosen"),
            ("redis://h/0?user=u", "`?user=` has no effect"),
            ("redis://h/0?timeout=5s", "no parameter `timeout`"),
            ("redis://h/0?timeout", "no parameter `timeout`"),
            ("redis://h/0#insecure", "nothing may follow `#`"),
            ("rediss://h/0#insecure", "nothing may follow `#`"),
            ("redis://u:12?HIDDEN@h/0", "`?` is written %3F"),
            ("redis://u:12#HIDDEN@h/0", "`#` is written %23"),
            ("redis://h/five", "Invalid database number"),
            ("redis://h/5/6", "Invalid database number"),
        ] {
            let error = client(url).map(drop).unwrap_err();
            let why = error.source.as_ref().unwrap().to_string();
            assert!(error.kind == StoreErrorKind::Invalid && why.contains(says), "{url}: {why}");
            assert!(!format!("{error:?}").contains("HIDDEN"), "{error:?}");
        }
    }

    #[test]
    fn what_a_url_says_takes_effect() {
        let info = client("redis://us%40er:pass%2Fw@h:7/5").unwrap().get_connection_info().clone();
        assert_eq!(info.addr().to_string(), "h:7");
        let settings = info.redis_settings();
        assert_eq!((settings.db(), settings.username(), settings.password()), (5, Some("us@er"), Some("pass/w")));
        assert!(matches!(
            client("rediss://h").unwrap().get_connection_info().addr(),
            ConnectionAddr::TcpTls { insecure: false, .. }
        ));
        assert_eq!(client("redis://h?").unwrap().get_connection_info().redis_settings().db(), 0);
    }

    fn judged(info: &str) -> ServerReport {
        let mut report = ServerReport::default();
        judge(info, &mut report);
        report
    }

    fn refusal_of(url: &str) -> String {
        let asked = client(url)
            .unwrap()
            .get_connection_with_timeout(CONNECT)
            .and_then(|mut open| redis::cmd("PING").query::<String>(&mut open));
        explained(&asked.expect_err("no server answers")).1
    }

    #[test]
    fn a_server_that_is_not_a_redis_and_an_unreachable_server_get_different_errors() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let closer = std::thread::spawn(move || listener.accept().map(drop));
        let refusal = refusal_of(&format!("redis://127.0.0.1:{port}"));
        assert!(refusal.contains("is the server a Redis, and does the URL say rediss://"), "{refusal}");
        closer.join().unwrap().unwrap();
        let refusal = refusal_of(&format!("redis://127.0.0.1:{port}"));
        assert!(refusal.contains("is it running, and are host and port right?"), "{refusal}");
        // A web server answers any request.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").unwrap();
            // Keep the connection open until the client has read the answer and closed it.
            std::io::copy(&mut stream, &mut std::io::sink()).ok();
        });
        let refusal = refusal_of(&format!("redis://127.0.0.1:{port}"));
        assert!(
            refusal.contains("does another server (HTTP") && !refusal.contains("Parse") && !refusal.contains('\n'),
            "{refusal}"
        );
        answering.join().unwrap();
        // The kernel accepts connections for a stopped process, and nothing answers on them.
        let frozen = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = client(&format!("redis://127.0.0.1:{}", frozen.local_addr().unwrap().port())).unwrap();
        let asked = client.get_connection_with_timeout(std::time::Duration::from_millis(100)).map(drop).unwrap_err();
        let refusal = explained(&asked).1;
        assert!(refusal.contains("frozen or overloaded") && refusal.contains("redis-cli"), "{refusal}");
        let refusal = refusal_of("redis://nowhere.invalid");
        assert!(refusal.contains("is the host in the URL right"), "{refusal}");
    }

    const GOOD: &str = "redis_version:7.0.15\r\nrole:master\r\nused_memory:1048576\r\nmaxmemory:10485760\r\n\
        maxmemory_policy:noeviction\r\naof_enabled:1\r\naof_last_write_status:ok\r\nrdb_last_bgsave_status:ok\r\n";

    #[test]
    fn a_good_server_has_no_remarks() {
        let report = judged(GOOD);
        assert_eq!(report.issues, []);
        assert_eq!(report.found, ", primary, 1.0 MiB used of 10.0 MiB, noeviction, appendonly");
    }

    #[test]
    fn each_fault_is_told_with_its_remedy() {
        for (was, is, grave, found, remedy) in [
            ("redis_version:7.0.15", "redis_version:6.2.1", true, "6.2.1", "upgrade"),
            ("role:master", "role:slave", true, "replica", "primary"),
            ("noeviction", "allkeys-lru", true, "allkeys-lru", "maxmemory-policy noeviction"),
            ("aof_enabled:1", "aof_enabled:0", false, "appendonly is off", "appendonly yes"),
            ("aof_last_write_status:ok", "aof_last_write_status:err", true, "append-only file", "room"),
            ("used_memory:1048576", "used_memory:9485760", false, "9.0 MiB of 10.0 MiB", "maxmemory"),
            ("rdb_last_bgsave_status:ok", "rdb_last_bgsave_status:err", false, "snapshot", "log"),
        ] {
            let report = judged(&GOOD.replace(was, is));
            let [issue] = report.issues.as_slice() else { panic!("{is}: {report:?}") };
            assert!(
                issue.grave == grave && issue.found.contains(found) && issue.remedy.contains(remedy),
                "{is}: {issue:?}"
            );
        }
    }
}
