//! The threads of a worker.

use std::sync::Arc;
use std::thread::ScopedJoinHandle;

use crossbeam_channel::Sender;
use dovetail_core::executor::HostError;
use dovetail_core::panics::contain;
use dovetail_core::scarce::Scarce;

use super::job::{Claimed, JobInHand};
use super::job_queue::JobQueue;
use super::settle::ToSettle;

/// Starts the threads of a running worker.
pub(super) struct Threads<'scope, 'env> {
    pub(super) scope: &'scope std::thread::Scope<'scope, 'env>,
    /// The error of the first thread that could not be started. No further thread is started after it.
    pub(super) refused: Option<HostError>,
}

impl<'scope> Threads<'scope, '_> {
    /// Starts a thread. `None`: this thread or an earlier one could not be started.
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

/// The slots of a worker. Dropping this value ends them in order, also during a panic of the thread that claims: each
/// slot ends with its last job, and then the settle thread gets [`ToSettle::NoMoreJobs`].
pub(super) struct RunningSlots<'scope> {
    pub(super) queue: Arc<JobQueue<JobInHand<Claimed>>>,
    pub(super) threads: Vec<ScopedJoinHandle<'scope, ()>>,
    pub(super) settle: Sender<ToSettle>,
}

impl Drop for RunningSlots<'_> {
    fn drop(&mut self) {
        self.queue.close();
        for slot in self.threads.drain(..) {
            drop(slot.join());
        }
        // The slots empty the queue before they end. Jobs are left only if no slot could be started or all slots
        // panicked; these jobs are given back when they are dropped.
        while let Some(job) = self.queue.try_pop() {
            drop(contain("give a job back", || drop(job)));
        }
        drop(self.settle.send(ToSettle::NoMoreJobs));
    }
}
