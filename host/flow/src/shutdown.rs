//! Stopping a worker in two stages: first no new steps, then not even the running ones.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use dovetail_core::ledger::Ledger;
use dovetail_core::stop::Canceller;

/// Wakes a thread that waits, so that the thread sees the new stage. False: nothing waits there any more.
type Waker = Box<dyn Fn() -> bool + Send + Sync>;

/// Held by whoever may stop a worker, and by the worker. Cheap to clone.
#[derive(Clone, Default)]
pub struct Shutdown(Arc<Inner>);

#[derive(Default)]
struct Inner {
    stage: AtomicU8,
    running: Mutex<Vec<Weak<Canceller>>>,
    wakers: Mutex<Vec<Waker>>,
}

impl Shutdown {
    /// No new steps; running ones finish.
    pub fn drain(&self) {
        self.0.stage.fetch_max(1, Ordering::SeqCst);
        self.wake();
    }

    /// Running steps are stopped, too, and their jobs given back.
    pub fn abort(&self) {
        self.0.stage.fetch_max(2, Ordering::SeqCst);
        for canceller in self.0.running.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade)
        {
            canceller.cancel();
        }
        self.wake();
    }

    /// Whether no new steps are to start.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.0.stage.load(Ordering::SeqCst) >= 1
    }

    /// Whether running steps are to stop.
    #[must_use]
    pub fn aborting(&self) -> bool {
        self.0.stage.load(Ordering::SeqCst) >= 2
    }

    /// Wakes the claimers that sleep in this ledger, at each stage.
    pub fn wakes(&self, ledger: &Arc<dyn Ledger>) {
        let ledger = Arc::downgrade(ledger);
        self.calls(move || ledger.upgrade().map(|ledger| ledger.wake()).is_some());
    }

    /// Calls `waker` at each stage, until it returns false.
    pub(crate) fn calls(&self, waker: impl Fn() -> bool + Send + Sync + 'static) {
        self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(waker));
    }

    /// Whom to stop on `abort`.
    pub(crate) fn stops(&self, canceller: &Arc<Canceller>) {
        let mut running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|c| c.strong_count() > 0);
        running.push(Arc::downgrade(canceller));
        drop(running);
        if self.aborting() {
            canceller.cancel();
        }
    }

    fn wake(&self) {
        self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner).retain(|waker| waker());
    }
}
