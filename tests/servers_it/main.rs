//! The backends of a fleet on real servers: the same promises as everywhere, what is lost when the window is, and what
//! the program says.
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

/// The address of a server, or a failure that says how to get one.
fn address(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run `./justw servers start`, then `eval \"$(scripts/servers urls)\"`, or `./justw test --servers`")
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

/// A database of its own.
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

/// A fleet's ledger where time is real: leases are short.
fn bench(meta: impl Fn(&str) -> Arc<dyn MetaStore>) -> Bench {
    let name = fresh("conformance");
    let window = window(&name);
    let ledger = Arc::new(FleetLedger::new(meta(&name), window.clone()).unwrap());
    // While time passes somebody is heard, as in any fleet: a window that hears nobody takes no lease for lapsed.
    let advance = Box::new(move |by: Duration| {
        let until = std::time::Instant::now() + by;
        while std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
            dovetail_core::window::Window::peek(&*window).unwrap();
        }
    });
    Bench { ledger, lease: Duration::from_millis(600), advance, scoped: false }
}
