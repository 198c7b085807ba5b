//! Stopping a worker in two stages: first no new steps start, then running steps are stopped too.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, Weak};

use dovetail_core::ledger::Ledger;
use dovetail_core::stop::Canceller;
use dovetail_core::sync::lock;

/// Wakes a thread that waits, so that the thread sees the new stage. False: no thread waits there any more.
type Waker = Box<dyn Fn() -> bool + Send + Sync>;

/// A handle that stops a worker. The worker and the code that may stop it share clones of it.
#[derive(Clone, Default)]
pub struct Shutdown(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// 0: working, 1: draining, 2: aborting.
    stage: AtomicU8,
    /// Running attempts.
    running: Mutex<Vec<Weak<Canceller>>>,
    wakers: Mutex<Vec<Waker>>,
}

impl Shutdown {
    /// No new steps start; running steps finish.
    pub fn drain(&self) {
        self.0.stage.fetch_max(1, Ordering::SeqCst);
        self.wake();
    }

    /// No new steps start; running steps are stopped, and their jobs are given back.
    pub fn abort(&self) {
        self.0.stage.fetch_max(2, Ordering::SeqCst);
        for canceller in lock(&self.0.running).iter().filter_map(Weak::upgrade) {
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

    /// Wakes the sleeping claimers of this ledger at every change of the stage.
    pub fn wakes(&self, ledger: &Arc<dyn Ledger>) {
        let ledger = Arc::downgrade(ledger);
        self.calls(move || ledger.upgrade().map(|ledger| ledger.wake()).is_some());
    }

    /// Calls `waker` at each stage, until it returns false.
    pub(crate) fn calls(&self, waker: impl Fn() -> bool + Send + Sync + 'static) {
        lock(&self.0.wakers).push(Box::new(waker));
    }

    /// Stops this attempt on [`Shutdown::abort`], or now if that was called before.
    pub(crate) fn stops(&self, canceller: &Arc<Canceller>) {
        let mut running = lock(&self.0.running);
        running.retain(|c| c.strong_count() > 0);
        running.push(Arc::downgrade(canceller));
        drop(running);
        if self.aborting() {
            canceller.cancel();
        }
    }

    fn wake(&self) {
        lock(&self.0.wakers).retain(|waker| waker());
    }
}
