//! The worker: claims jobs within its scope, runs up to N at once on threads of their own, and stops in two stages.
//!
//! A claimed job is one owned value (`job.rs`) that goes from thread to thread: from the thread that claims
//! (`claim.rs`) through the queue (`slots.rs`) to a slot (`attempt.rs`), and with its change to the ledger. A slot is
//! free as soon as the attempt has ended: the ledger records its outcome together with others, and a thread of its own
//! settles the job (`settle.rs`). Leases, heartbeats and the search for lost runs have threads that tasks cannot starve
//! (`duties.rs`).

mod attempt;
mod claim;
mod duties;
mod event;
mod flow_control;
mod in_hand;
mod job;
mod options;
mod settle;
mod slots;
mod threads;

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dovetail_core::executor::Executor;
use dovetail_core::ledger::Scope;
use dovetail_core::panics;

pub use self::event::{Event, Listener};
use self::in_hand::JobsInHand;
pub use self::options::{Able, About, Daemon, WorkerOptions};
use self::slots::Slots;
use self::threads::{RunningSlots, Threads};
use crate::shutdown::Shutdown;
use crate::step::{Plan, StepRunner};
use crate::{FlowError, Ports};

/// Runs jobs.
pub struct Worker {
    parts: Ports,
    runner: StepRunner,
    options: WorkerOptions,
    plans: Mutex<BTreeMap<String, Arc<Plan>>>,
    jobs: Arc<JobsInHand>,
    /// The worker ends with this error.
    fault: Mutex<Option<FlowError>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The error for a panic of this program during `operation`.
fn panicked(operation: &str, panic: &(dyn Any + Send)) -> FlowError {
    FlowError::Panic(format!("{operation}: the host panicked: {}", panics::message(panic)))
}

impl Worker {
    /// A worker that is not yet working.
    #[must_use]
    pub fn new(parts: Ports, executor: Arc<dyn Executor>, options: WorkerOptions) -> Self {
        let runner = StepRunner { parts: parts.clone(), executor, worker: options.name.clone() };
        let jobs = Arc::new(JobsInHand::new(parts.ledger.clone(), options.jobs, options.on_event.clone()));
        Self { parts, runner, options, plans: Mutex::default(), jobs, fault: Mutex::default() }
    }

    /// Works. With [`Scope::Runs`] until all of them are over, otherwise until it is shut down. Blocks.
    ///
    /// # Errors
    /// A store's failure, or the host's own, a panic of one of the worker's threads among them: then running steps have
    /// ended, and what they were given back is for another worker.
    pub fn run(self: &Arc<Self>, scope: &Scope, shutdown: &Shutdown) -> Result<(), FlowError> {
        shutdown.wakes(&self.parts.ledger);
        let jobs = Arc::downgrade(&self.jobs);
        shutdown.calls(move || jobs.upgrade().map(|jobs| jobs.flow.wake()).is_some());
        self.jobs.works_on(scope);
        let jobs = Arc::downgrade(&self.jobs);
        self.parts.ledger.on_end(Box::new(move |run| {
            if let Some(jobs) = jobs.upgrade() {
                jobs.stop_steps(run);
            }
        }));
        std::thread::scope(|threads| {
            let (ended, duties_end) = crossbeam_channel::bounded(0);
            let (settle, to_settle) = crossbeam_channel::unbounded();
            let queue = Arc::new(Slots::new(self.options.jobs.max(1)));
            let mut threads = Threads { scope: threads, refused: None };
            threads.start("leases", {
                let until = duties_end.clone();
                move || self.guarded("renew leases", shutdown, || self.keep_leases(&until))
            });
            if let Some(Daemon { about, .. }) = self.options.daemon.clone() {
                let until = duties_end.clone();
                threads.start("heartbeat", move || {
                    self.guarded("send heartbeats", shutdown, || self.say_that_it_lives(&about, &until));
                });
                let until = duties_end.clone();
                threads.start("lost-runs", move || {
                    self.guarded("look for lost runs", shutdown, || self.look_for_lost(&until));
                });
            }
            let settling = threads.start("settle", {
                let again = settle.clone();
                move || self.guarded("settle steps", shutdown, || self.settle_all(&to_settle, &again, shutdown))
            });
            let mut slots = RunningSlots { queue: queue.clone(), threads: Vec::new(), settle: settle.clone() };
            for slot in 0..self.options.jobs.max(1) {
                let (queue, settle) = (queue.clone(), settle.clone());
                let work = move || {
                    self.guarded("run steps", shutdown, || self.run_jobs(&queue, slot, shutdown, &settle));
                };
                slots.threads.extend(threads.start("slot", work));
            }
            // Nothing is claimed where a thread is missing that the worker needs; the threads that run end below.
            match threads.refused {
                Some(error) => self.abort_with(error.into(), shutdown),
                None => self.guarded("claim work", shutdown, || {
                    if let Err(error) = self.claim_jobs(scope, shutdown, &queue, &settle) {
                        self.abort_with(error, shutdown);
                    }
                }),
            }
            // Each slot ends with its last job; then the changes that the slots sent are settled; then no lease is
            // held.
            drop(slots);
            drop(settling.map(std::thread::ScopedJoinHandle::join));
            drop(ended);
        });
        locked(&self.fault).take().map_or(Ok(()), Err)
    }

    fn is_daemon(&self) -> bool {
        self.options.daemon.is_some()
    }

    /// Whether nothing more is to be claimed and begun.
    fn is_over(&self, shutdown: &Shutdown) -> bool {
        shutdown.draining() || locked(&self.fault).is_some() || self.jobs.is_scope_over()
    }

    /// The whole work of one of this worker's threads. Without the thread the worker cannot go on, so the worker ends
    /// if the thread panics.
    fn guarded(&self, operation: &str, shutdown: &Shutdown, work: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            let error = panicked(operation, panic.as_ref());
            tracing::error!(err = &error as &dyn std::error::Error, "the host panicked: the worker ends");
            self.abort_with(error, shutdown);
        }
    }

    /// The worker ends with this error, and steps that run are stopped.
    fn abort_with(&self, error: FlowError, shutdown: &Shutdown) {
        locked(&self.fault).get_or_insert(error);
        self.jobs.flow.wake();
        shutdown.abort();
    }

    /// A job could not be brought to its end. A daemon goes on: the job comes again. Otherwise the worker ends with the
    /// error.
    fn fail(&self, error: FlowError) {
        if !self.is_daemon() {
            locked(&self.fault).get_or_insert(error);
            self.jobs.flow.wake();
            self.parts.ledger.wake();
        }
    }

    fn tell(&self, event: impl FnOnce() -> Event) {
        self.jobs.tell(event);
    }
}
