//! The backends of a fleet on real servers: the conformance suites, the loss of the window, and the program's messages.
//!
//! `./justw test --servers` starts the servers and sets `DOVETAIL_TEST_REDIS`, `DOVETAIL_TEST_MONGODB` and
//! `DOVETAIL_TEST_S3`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failing test panics")]

mod commands;
mod loss;
mod metadata;
mod promises;
#[path = "../shared/tls.rs"]
mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dovetail_core::conformance::Bench;
use dovetail_core::meta::MetaStore;
use dovetail_flow::{FleetLedger, SystemClock};
use dovetail_stores::{MongoMeta, RedisWindow};

/// The address of a server; panics with the remedy if the variable is not set.
fn address(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!(
            "{variable} is not set: run `./justw servers start`, then `eval \"$(scripts/servers urls)\"`, \
             or `./justw test --servers`"
        )
    })
}

/// A name that no other test of this run uses.
fn fresh(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    format!("{what}_{started}_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst))
}

fn redis() -> String {
    address("DOVETAIL_TEST_REDIS")
}

/// The URL of a database of its own.
fn mongodb(database: &str) -> String {
    let base = address("DOVETAIL_TEST_MONGODB");
    format!("{}/{database}", base.trim_end_matches('/'))
}

fn meta(database: &str) -> Arc<dyn MetaStore> {
    Arc::new(MongoMeta::open(&mongodb(database), "tests", Arc::new(SystemClock)).unwrap())
}

fn window(fleet: &str) -> Arc<RedisWindow> {
    Arc::new(RedisWindow::open(&redis(), fleet, &fresh("caller")).unwrap())
}

/// A fleet's ledger for the conformance suite, with short leases, because the time is real.
fn bench(meta: impl Fn(&str) -> Arc<dyn MetaStore>) -> Bench {
    let name = fresh("conformance");
    let window = window(&name);
    let ledger = Arc::new(FleetLedger::new(meta(&name), window.clone()).unwrap());
    // Time passes with calls to the window, as in any fleet: a window that no caller talks to expires no lease.
    let advance = Box::new(move |by: Duration| {
        let until = std::time::Instant::now() + by;
        while std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
            dovetail_core::window::Window::peek(&*window).unwrap();
        }
    });
    Bench { ledger, lease: Duration::from_millis(600), advance, scoped: false }
}
