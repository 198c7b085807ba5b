//! The life of a run: submit, claim, execute, commit, recover. The code is the same on every backend, because it
//! depends only on ports.
//!
//! Flow decides, stores remember, the runtime executes. This crate does not know SQLite, wasmtime or OpenCV.

mod blob_owner;
mod clock;
mod document;
pub mod documents;
mod error;
mod fleet;
mod gc;
mod history;
mod listing;
mod models;
mod recover;
mod registry;
mod removal;
mod shutdown;
mod step;
mod submit;
mod truth;
mod worker;

use std::sync::Arc;

use dovetail_core::blobs::Blobs;
use dovetail_core::clock::Clock;
use dovetail_core::ledger::Ledger;

pub use blob_owner::{OwnBlobs, Ownership, own_blobs, own_blobs_to_work, ownership};
pub use clock::SystemClock;
pub use document::{document, document_of, seconds, unrecorded, unserved, waits};
pub use error::FlowError;
pub use fleet::FleetLedger;
pub use fleet::pair::may_write;
pub use gc::{Amount, Collected, Keep, collect};
pub use history::{find_generation, find_run, lineage, logs, runs};
pub use listing::{List, UnreadRecord};
pub use models::model_kinds;
pub use recover::{left_to_do, recover, retry};
pub use registry::{
    Published, Pushed, Update, check, pipeline, pipelines, plugin, plugins, push_pipeline, push_plugin, update_pipeline,
};
pub use shutdown::Shutdown;
pub use step::StepFailure;
pub use submit::{cancel, keyed_run_id, new_run_id, submit, submit_many, submit_patiently, submit_with};
pub use truth::current;
pub use worker::{About, CapabilitiesFn, Daemon, Event, Listener, Worker, WorkerOptions};

/// The ports that flow works on.
#[derive(Clone)]
pub struct Ports {
    /// Records and jobs.
    pub ledger: Arc<dyn Ledger>,
    /// Packages, artifacts, large values, logs.
    pub blobs: Arc<dyn Blobs>,
    pub clock: Arc<dyn Clock>,
}
