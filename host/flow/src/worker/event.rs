//! The events that a worker reports to its listener.

use std::sync::Arc;
use std::time::Duration;

use dovetail_core::RunId;
use dovetail_core::blobs::Store;
use dovetail_core::keys::NodeId;
use dovetail_core::record::RunState;

use crate::step::StepFailure;

/// An event of a worker, reported when it happens. Events show progress; no decision may depend on them.
#[derive(Debug, Clone)]
pub enum Event {
    /// The task of the step is about to be called.
    StepStarted { run: RunId, step: NodeId, attempt: u32 },
    /// The outcome of the step is recorded.
    StepFinished {
        run: RunId,
        step: NodeId,
        attempt: u32,
        /// `None`: the step succeeded.
        failure: Option<StepFailure>,
        /// The duration in milliseconds.
        millis: u64,
    },
    /// No attempt at the step will be made, because another step of its run has failed (`on_failure: finish`).
    StepSkipped { run: RunId, step: NodeId, failed_step: NodeId },
    /// The attempt has failed, and the step will be tried again.
    StepRetried {
        run: RunId,
        step: NodeId,
        /// The failed attempt.
        attempt: u32,
        /// The code of the failure.
        code: String,
        /// The delay before the next attempt, in milliseconds.
        delay_ms: u64,
    },
    /// The attempt was stopped together with its worker, and the job was given back. The step runs again under the same
    /// attempt number.
    StepReleased { run: RunId, step: NodeId, attempt: u32 },
    /// The run is over, and this process has no job of the run any more.
    RunFinished { run: RunId, state: RunState },
    /// The queue had lost jobs of the run, and this worker restored them.
    RunRecovered { run: RunId },
    /// A store does not answer. Outcomes that could not be recorded are kept and sent again. Reported at the first
    /// failure, and then every 30 s while failures go on.
    StoreFailed {
        /// `None`: there is only one store, or the error does not name the store.
        store: Option<Store>,
        /// The operation that failed.
        operation: String,
        /// The texts of the error and its causes.
        error: String,
        /// The time since the first failure. Zero: this is the first failure.
        since: Duration,
        /// The number of jobs whose outcome or release is not recorded yet.
        kept: usize,
    },
    /// The store answers again after a [`Event::StoreFailed`].
    StoreAnswers { store: Option<Store> },
}

/// A callback for events. The worker calls it on its own threads, so it must not block. A panic of the callback is
/// logged and has no other effect.
pub type Listener = Arc<dyn Fn(&Event) + Send + Sync>;
