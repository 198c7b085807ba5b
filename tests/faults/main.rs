//! Faults: what a fleet does when its parts die, stand still, forget, repeat themselves or answer late.
//!
//! `./justw test --faults` runs them all. The window's rules are tried one at a time on the server of
//! `DOVETAIL_TEST_REDIS` (`./justw test --servers` runs these, and the quick ones of the others); the rest runs real
//! workers against servers of its own, which it kills.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failing test panics, and says before what it does"
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

/// The address of a server, or a failure that says how to get one.
fn address(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run `./justw servers start`, then `eval \"$(scripts/servers urls)\"`, or `./justw test --servers`")
    })
}

/// The repository.
fn root() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate stands in the workspace").to_owned()
}

/// A name that no other test of this run uses.
fn fresh(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    format!("{what}_{started}_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst))
}
