//! The threads of a worker.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::ScopedJoinHandle;

use crossbeam_channel::Sender;
use dovetail_core::executor::HostError;
use dovetail_core::scarce::Scarce;

use super::job::{Claimed, JobInHand};
use super::settle::ToSettle;
use super::slots::Slots;

/// The threads of a worker that works.
pub(super) struct Threads<'scope, 'env> {
    pub(super) scope: &'scope std::thread::Scope<'scope, 'env>,
    /// One could not be started: none is after it.
    pub(super) refused: Option<HostError>,
}

impl<'scope> Threads<'scope, '_> {
    pub(super) fn start(
        &mut self,
        name: &str,
        work: impl FnOnce() + Send + 'scope,
    ) -> Option<ScopedJoinHandle<'scope, ()>> {
        if self.refused.is_some() {
            return None;
        }
        match std::thread::Builder::new().name(name.to_owned()).spawn_scoped(self.scope, work) {
            Ok(thread) => Some(thread),
            Err(error) => {
                let operation = format!("start the thread `{name}` of the worker ({error})");
                self.refused = Some(HostError {
                    operation,
                    transient: false,
                    missing: None,
                    source: Some(Scarce::Threads.into()),
                });
                None
            }
        }
    }
}

/// The slots of a worker. Dropping them, also while the thread that claims panics, ends them in order: each slot ends
/// with its last job, and then the settle thread knows that no job comes from a slot any more.
pub(super) struct RunningSlots<'scope> {
    pub(super) queue: Arc<Slots<JobInHand<Claimed>>>,
    pub(super) threads: Vec<ScopedJoinHandle<'scope, ()>>,
    pub(super) settle: Sender<ToSettle>,
}

impl Drop for RunningSlots<'_> {
    fn drop(&mut self) {
        self.queue.close();
        for slot in self.threads.drain(..) {
            drop(slot.join());
        }
        // The slots empty the queue, if at least one of them lives so long. Jobs that are left go back as they are
        // dropped.
        while let Some(job) = self.queue.take_waiting() {
            drop(catch_unwind(AssertUnwindSafe(|| drop(job))));
        }
        drop(self.settle.send(ToSettle::NoMoreJobs));
    }
}
