//! The options of a worker.

use std::sync::Arc;
use std::time::Duration;

use super::event::Listener;

/// Makes the content of a heartbeat, from the number of running steps and the number of steps that have ended so far.
pub type About = Arc<dyn Fn(usize, u64) -> Vec<u8> + Send + Sync>;

/// The options of a [`Worker`](super::Worker).
#[derive(Clone)]
pub struct WorkerOptions {
    /// How many steps run at once (the number of slots). 0 counts as 1.
    pub jobs: usize,
    /// The length of a lease. If a worker renews no lease for this time, other workers can claim its jobs.
    pub lease: Duration,
    /// The name of this process in the records.
    pub name: String,
    /// The callback for progress.
    pub on_event: Option<Listener>,
    /// A daemon survives failures of stores, searches for lost runs and sends heartbeats. `None`: the worker ends with
    /// its first failure.
    pub daemon: Option<Daemon>,
}

/// The options of a worker that runs until it is stopped.
#[derive(Clone)]
pub struct Daemon {
    /// Called for each heartbeat.
    pub about: About,
    /// Called before each claim.
    pub able: CapabilitiesFn,
}

/// Returns the capabilities that the worker has now: see [`dovetail_core::ledger::Requirements`].
pub type CapabilitiesFn = Arc<dyn Fn() -> Vec<String> + Send + Sync>;
