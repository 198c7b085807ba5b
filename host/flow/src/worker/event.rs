//! What a worker tells its listener.

use std::sync::Arc;
use std::time::Duration;

use dovetail_core::RunId;
use dovetail_core::blobs::Store;
use dovetail_core::keys::NodeId;
use dovetail_core::record::RunState;

use crate::step::StepFailure;

/// What happens, as it happens: for progress, never for decisions.
#[derive(Debug, Clone)]
pub enum Event {
    StepStarted {
        run: RunId,
        step: NodeId,
        attempt: u32,
    },
    StepFinished {
        run: RunId,
        step: NodeId,
        attempt: u32,
        /// None: it succeeded.
        failure: Option<StepFailure>,
        millis: u64,
    },
    /// No attempt at the step will be made, because another step of its run has failed (`on_failure: finish`).
    StepSkipped {
        run: RunId,
        step: NodeId,
        failed_step: String,
    },
    StepRetried {
        run: RunId,
        step: NodeId,
        attempt: u32,
        code: String,
        delay_ms: u64,
    },
    /// It was stopped with its worker and given back: it will be made again, as the same attempt.
    StepReleased {
        run: RunId,
        step: NodeId,
        attempt: u32,
    },
    RunFinished {
        run: RunId,
        state: RunState,
    },
    /// A run of which the queue had lost the work was put back.
    RunRecovered {
        run: RunId,
    },
    /// A store (none: there is one, or it is not known which) does not answer: what was to be recorded, of so many
    /// steps, is kept and sent again. Told when it begins, and then now and then.
    StoreFailed {
        store: Option<Store>,
        operation: String,
        error: String,
        since: Duration,
        kept: usize,
    },
    /// It answers again.
    StoreAnswers {
        store: Option<Store>,
    },
}

/// Who is told what happens; called on the workers' own threads, so it must not block.
pub type Listener = Arc<dyn Fn(&Event) + Send + Sync>;
