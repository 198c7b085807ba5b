//! Connections whose other end vanishes without closing them: each connection is found dead and replaced within ten
//! seconds.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use dovetail_core::ledger::{Kind, Record, RunKey};
use dovetail_core::meta::MetaStore as _;
use dovetail_core::window::{Notification, Window as _};
use dovetail_flow::{SystemClock, new_run_id};
use dovetail_stores::{MongoMeta, RedisWindow};

use crate::fleet::{mongodb_url, redis_url};
use crate::proxy::Proxy;
use crate::servers::{Server, What};

const FOUND_OUT: Duration = Duration::from_secs(10);

fn expect_notification(notifications: &Receiver<Notification>, wanted: &Notification, since: Instant) {
    while let Some(left) = FOUND_OUT.checked_sub(since.elapsed()) {
        match notifications.recv_timeout(left) {
            Ok(notification) if notification == *wanted => return,
            Ok(_) => {}
            Err(_) => break,
        }
    }
    panic!("{wanted:?} was not heard within {FOUND_OUT:?}");
}

#[test]
fn the_bell_is_heard_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(What::Redis, folder.path());
    let line = Proxy::to(server.port());
    let window = RedisWindow::open(&redis_url("127.0.0.1", line.port()), "lines", "listener").unwrap();
    let (sender, notifications) = channel();
    window.listen(Box::new(move |notification| drop(sender.send(notification))));
    expect_notification(&notifications, &Notification::Missed, Instant::now());
    let run = RunKey { run: new_run_id(), generation: 0 };
    let publish = || drop(server.redis(&["PUBLISH", "dovetail:{lines}:bell", &format!("over {}", run.key())]).unwrap());
    publish();
    expect_notification(&notifications, &Notification::Over(run.clone()), Instant::now());
    // A subscription that is silent for long, on a working connection, is not replaced.
    assert!(
        notifications.recv_timeout(Duration::from_secs(8)).is_err(),
        "the subscription was replaced although its connection works"
    );
    publish();
    expect_notification(&notifications, &Notification::Over(run.clone()), Instant::now());

    let vanished = Instant::now();
    line.vanish();
    publish();
    // The notification that was sent meanwhile is lost; the listener is told that it may have missed one.
    expect_notification(&notifications, &Notification::Missed, vanished);
    println!("the bell was made anew after {:.1?}", vanished.elapsed());
    publish();
    expect_notification(&notifications, &Notification::Over(run), Instant::now());
    assert!(line.lost() > 0, "the proxy lost nothing");
}

#[test]
fn calls_to_redis_are_answered_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(What::Redis, folder.path());
    let line = Proxy::to(server.port());
    let window = RedisWindow::open(&redis_url("127.0.0.1", line.port()), "lines", "caller").unwrap();
    window.peek().unwrap();
    line.vanish();
    let vanished = Instant::now();
    window.peek().unwrap();
    assert!(vanished.elapsed() < FOUND_OUT, "answered after {:.1?}", vanished.elapsed());
    assert!(line.lost() > 0, "the proxy lost nothing");
}

#[test]
fn calls_to_mongodb_are_answered_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(What::MongoDb, folder.path());
    let line = Proxy::to(server.port());
    let meta = MongoMeta::open(&mongodb_url("127.0.0.1", line.port()), "lines", Arc::new(SystemClock)).unwrap();
    let record = Record { kind: Kind::Run, key: "a".to_owned(), value: b"{}".to_vec() };
    meta.put(std::slice::from_ref(&record)).unwrap();
    let lost = line.lost();
    line.vanish();
    let vanished = Instant::now();
    let first = meta.get(Kind::Run, &["a".to_owned()]);
    let took = vanished.elapsed();
    println!("the first call ended after {took:.1?}: {first:?}");
    assert!(took < FOUND_OUT, "the call ended after {took:.1?}");
    let value = first.or_else(|_| meta.get(Kind::Run, &["a".to_owned()])).unwrap();
    assert_eq!(value, [Some(b"{}".to_vec())]);
    assert!(line.lost() > lost, "the proxy lost nothing");
}
