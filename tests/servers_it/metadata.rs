//! Redis and MongoDB servers that cannot be used: each gives one clear error, and no error shows a password.

use std::sync::Arc;

use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::ledger::{Kind, Listing, Record};
use dovetail_core::meta::MetaStore as _;
use dovetail_flow::SystemClock;
use dovetail_stores::{MongoMeta, RedisWindow};

use crate::{fresh, mongodb, redis};

/// The whole chain of an error, as a user sees it.
fn text(error: &StoreError) -> String {
    let source = error.source.as_ref().map_or_else(String::new, ToString::to_string);
    format!("{error}: {source} {error:?}")
}

fn redis_error(url: &str) -> StoreError {
    RedisWindow::open(url, "tests", "caller").map(drop).unwrap_err()
}

fn mongo_error(url: &str, fleet: &str) -> StoreError {
    MongoMeta::open(url, fleet, Arc::new(SystemClock)).map(drop).unwrap_err()
}

#[test]
fn a_url_that_is_none_is_refused() {
    for url in ["", "nonsense", "http://127.0.0.1:1/"] {
        assert_eq!(redis_error(url).kind, StoreErrorKind::Invalid, "{url}");
        assert_eq!(mongo_error(url, "tests").kind, StoreErrorKind::Invalid, "{url}");
    }
    let no_database = mongo_error(&mongodb(""), "tests");
    assert!(text(&no_database).contains("mongodb://host[:port]/DATABASE"), "{}", text(&no_database));
}

#[test]
fn where_nobody_answers_the_error_says_where() {
    let queue = redis_error("redis://someone:secret-word@127.0.0.1:1/0");
    assert_eq!(queue.kind, StoreErrorKind::Unavailable);
    assert!(text(&queue).contains("127.0.0.1:1") && !text(&queue).contains("secret-word"), "{}", text(&queue));
    let records = mongo_error("mongodb://someone:secret-word@127.0.0.1:1/records", "tests");
    assert_eq!(records.kind, StoreErrorKind::Unavailable);
    assert!(text(&records).contains("127.0.0.1:1") && !text(&records).contains("secret-word"), "{}", text(&records));
}

#[test]
fn a_password_that_nobody_asked_for_is_refused() {
    let url = redis().replace("redis://", "redis://:secret-word@");
    let error = redis_error(&url);
    assert_eq!(error.kind, StoreErrorKind::Refused, "{}", text(&error));
    assert!(!text(&error).contains("secret-word"), "{}", text(&error));
}

#[test]
fn a_database_belongs_to_one_fleet() {
    let url = mongodb(&fresh("fleet"));
    let open = |fleet: &str| MongoMeta::open(&url, fleet, Arc::new(SystemClock)).unwrap();
    let first = open("first");
    // Reading does not take the database for the fleet.
    assert_eq!(first.open_runs(9).unwrap(), []);
    let second = open("second");
    assert_eq!(second.list(Kind::Run, &Listing { limit: 9, ..Listing::default() }).unwrap(), []);
    let put = |meta: &MongoMeta| meta.put(&[Record { kind: Kind::Model, key: "a".into(), value: b"{}".to_vec() }]);
    put(&first).unwrap();
    open("first");
    // A process that opened the database before it was taken is refused when it writes.
    for error in [put(&second).unwrap_err(), second.open(&[]).unwrap_err(), mongo_error(&url, "second")] {
        assert_eq!(error.kind, StoreErrorKind::Refused);
        assert!(text(&error).contains("`first`") && text(&error).contains("`second`"), "{}", text(&error));
    }
    assert_eq!(first.get(Kind::Model, &["a".into()]).unwrap(), [Some(b"{}".to_vec())]);
}

#[test]
fn a_redis_that_throws_jobs_away_is_refused() {
    // The test starts a server of its own, which may be configured wrongly.
    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let mut server = std::process::Command::new("redis-server")
        .args([
            "--port",
            &port,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--maxmemory",
            "50mb",
            "--maxmemory-policy",
            "allkeys-lru",
            "--dir",
        ])
        .arg(folder.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let url = format!("redis://127.0.0.1:{port}/0");
    let started = std::time::Instant::now();
    let error = loop {
        let error = redis_error(&url);
        if error.kind == StoreErrorKind::Refused || started.elapsed() > std::time::Duration::from_secs(20) {
            break error;
        }
    };
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(
        text(&error).contains("allkeys-lru") && text(&error).contains("maxmemory-policy noeviction"),
        "{}",
        text(&error)
    );
}
