//! How a worker works.

use std::sync::Arc;
use std::time::Duration;

use super::event::Listener;

/// What a worker says of itself, given how many steps it runs now and how many it has ended.
pub type About = Arc<dyn Fn(usize, u64) -> Vec<u8> + Send + Sync>;

/// How a worker works.
#[derive(Clone)]
pub struct WorkerOptions {
    /// Steps at once.
    pub jobs: usize,
    /// How long a job stays with a worker that is not heard of.
    pub lease: Duration,
    /// This process, in the records.
    pub name: String,
    pub on_event: Option<Listener>,
    /// It goes on when a store fails, looks for what was lost, and says that it lives. None: it ends with the first
    /// failure.
    pub daemon: Option<Daemon>,
}

/// What a worker needs that works until it is told to stop.
#[derive(Clone)]
pub struct Daemon {
    pub about: About,
    /// What it can serve now: asked before each claim.
    pub able: Able,
}

/// The capabilities that a worker has at the moment: see [`dovetail_core::ledger::Requirements`].
pub type Able = Arc<dyn Fn() -> Vec<String> + Send + Sync>;
