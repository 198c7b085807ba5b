//! The worker: claims jobs within its scope, runs up to N jobs at once on threads of their own (slots), and stops in
//! two stages (`shutdown.rs`).
//!
//! A claimed job is one owned value (`job.rs`). It is moved from thread to thread: from the thread that claims
//! (`claim.rs`) through the queue (`job_queue.rs`) to a slot (`attempt.rs`), and then with its change to the ledger. A
//! slot is free as soon as its attempt has ended: the ledger records the outcomes of several jobs together (group
//! commit), and the settle thread settles the jobs (`settle.rs`). The renewal of leases, the heartbeats and the search
//! for lost runs have threads of their own, so that tasks cannot starve them (`duties.rs`).

mod attempt;
mod claim;
mod duties;
mod event;
mod flow_control;
mod in_hand;
mod job;
mod job_queue;
mod options;
mod settle;
mod threads;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use dovetail_core::executor::Executor;
use dovetail_core::ledger::Scope;
use dovetail_core::panics::contain;
use dovetail_core::sync::lock;

pub use self::event::{Event, Listener};
use self::in_hand::JobsInHand;
use self::job_queue::JobQueue;
pub use self::options::{About, CapabilitiesFn, Daemon, WorkerOptions};
use self::threads::{RunningSlots, Threads};
use crate::shutdown::Shutdown;
use crate::step::{Plan, StepRunner};
use crate::{FlowError, Ports};

/// Runs the jobs of a ledger.
pub struct Worker {
    ports: Ports,
    runner: StepRunner,
    options: WorkerOptions,
    /// By the pipeline of the run's record.
    plans: Mutex<BTreeMap<String, Arc<Plan>>>,
    jobs: Arc<JobsInHand>,
    /// The error with which the worker ends. The first error is kept.
    fault: Mutex<Option<FlowError>>,
}

impl Worker {
    /// A worker that has not started: no thread runs before [`Worker::run`].
    #[must_use]
    pub fn new(ports: Ports, executor: Arc<dyn Executor>, options: WorkerOptions) -> Self {
        let runner = StepRunner { ports: ports.clone(), executor, worker: options.name.clone() };
        let jobs = Arc::new(JobsInHand::new(ports.ledger.clone(), options.jobs, options.on_event.clone()));
        Self { ports, runner, options, plans: Mutex::default(), jobs, fault: Mutex::default() }
    }

    /// Claims and runs jobs. Blocks until all runs of a [`Scope::Runs`] are over, or until `shutdown` stops the worker.
    ///
    /// # Errors
    /// The first failure of a store or of the host that the worker cannot survive, such as a panic of one of its
    /// threads. All slots have ended by then. A job whose outcome is not recorded was given back or is left to its
    /// lease, so another worker can claim the job.
    pub fn run(self: &Arc<Self>, scope: &Scope, shutdown: &Shutdown) -> Result<(), FlowError> {
        shutdown.wakes(&self.ports.ledger);
        let jobs = Arc::downgrade(&self.jobs);
        shutdown.calls(move || jobs.upgrade().map(|jobs| jobs.flow.wake()).is_some());
        self.jobs.set_scope(scope);
        let jobs = Arc::downgrade(&self.jobs);
        self.ports.ledger.on_end(Box::new(move |run| {
            if let Some(jobs) = jobs.upgrade() {
                jobs.stop_steps(run);
            }
        }));
        std::thread::scope(|threads| {
            let (ended, duties_end) = crossbeam_channel::bounded(0);
            let (settle, to_settle) = crossbeam_channel::unbounded();
            let queue = Arc::new(JobQueue::new(self.options.jobs.max(1)));
            let mut threads = Threads { scope: threads, refused: None };
            threads.start("leases", {
                let until = duties_end.clone();
                move || self.guarded("renew leases", shutdown, || self.keep_leases(&until))
            });
            if let Some(Daemon { about, .. }) = self.options.daemon.clone() {
                let until = duties_end.clone();
                threads.start("heartbeat", move || {
                    self.guarded("send heartbeats", shutdown, || self.send_heartbeats(&about, &until));
                });
                let until = duties_end.clone();
                threads.start("lost-runs", move || {
                    self.guarded("look for lost runs", shutdown, || self.search_lost_runs(&until));
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
            // If a thread could not be started, the worker claims nothing, and the threads that run end below.
            match threads.refused {
                Some(error) => self.abort_with(error.into(), shutdown),
                None => self.guarded("claim work", shutdown, || {
                    if let Err(error) = self.claim_jobs(scope, shutdown, &queue, &settle) {
                        self.abort_with(error, shutdown);
                    }
                }),
            }
            // The order matters: the slots end with their last jobs, then the settle thread settles the changes that
            // the slots sent, and then no lease is held, so the duties' threads can end.
            drop(slots);
            drop(settling.map(std::thread::ScopedJoinHandle::join));
            drop(ended);
        });
        lock(&self.fault).take().map_or(Ok(()), Err)
    }

    fn is_daemon(&self) -> bool {
        self.options.daemon.is_some()
    }

    /// Whether the worker claims no more jobs.
    fn is_over(&self, shutdown: &Shutdown) -> bool {
        shutdown.draining() || lock(&self.fault).is_some() || self.jobs.is_scope_over()
    }

    /// Runs the whole work of one thread. The worker cannot go on without the thread, so a panic of the thread ends the
    /// worker.
    fn guarded(&self, operation: &str, shutdown: &Shutdown, work: impl FnOnce()) {
        if let Err(panic) = contain(operation, work) {
            let error = FlowError::panicked(operation, &panic);
            tracing::error!(err = &error as &dyn std::error::Error, "the host panicked: the worker ends");
            self.abort_with(error, shutdown);
        }
    }

    /// Ends the worker with this error and stops the running steps.
    fn abort_with(&self, error: FlowError, shutdown: &Shutdown) {
        lock(&self.fault).get_or_insert(error);
        self.jobs.flow.wake();
        shutdown.abort();
    }

    /// Handles an error after which a job has no recorded outcome. A daemon goes on, because the job will be claimed
    /// again. Any other worker ends with the error, and its running steps finish first.
    fn fail(&self, error: FlowError) {
        if !self.is_daemon() {
            lock(&self.fault).get_or_insert(error);
            self.jobs.flow.wake();
            self.ports.ledger.wake();
        }
    }

    fn emit(&self, event: impl FnOnce() -> Event) {
        self.jobs.emit(event);
    }
}
