//! Faults: the behaviour of a fleet whose parts die, stand still, lose data, repeat messages or answer late.
//!
//! `./justw test --faults` runs all these tests. The tests in `window` try one rule at a time on the server of
//! `DOVETAIL_TEST_REDIS`. The other tests run real workers against servers of their own, which they kill. `./justw test
//! --servers` runs the tests in `window` and `sweep`, and the quick ones of the others.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failing test panics, and prints its progress before"
)]

mod blobs;
mod campaign;
mod checker;
mod clocks;
#[path = "../shared/death.rs"]
mod death;
mod disks;
mod files;
mod fleet;
mod http;
#[path = "../shared/lineage.rs"]
mod lineage;
mod lines;
mod memory;
mod partition;
mod proxy;
mod servers;
mod stores;
mod storm;
mod sweep;
mod window;
mod workers;

use std::sync::atomic::{AtomicU32, Ordering};

/// The address of a server; panics with the remedy if the variable is not set.
fn address(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!(
            "{variable} is not set: run `./justw servers start`, then `eval \"$(scripts/servers urls)\"`, \
             or `./justw test --servers`"
        )
    })
}

/// The repository's root folder.
fn root() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate stands in the workspace").to_owned()
}

/// A name that no other test of this run uses.
fn fresh(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    format!("{what}_{started}_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst))
}
