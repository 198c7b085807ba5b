//! The worker: claims jobs within its scope, runs up to N at once on threads of their own, renews their leases from a thread that tasks
//! cannot starve, and stops in two stages.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use dovetail_core::RunId;
use dovetail_core::executor::Executor;
use dovetail_core::ledger::{Claimed, Item, Kind, Lease, Renewal, RunKey, Scope, Wait};
use dovetail_core::record::{Form, RunOutcomeRecord, RunRecord, RunState};
use dovetail_core::stop::Canceller;

use crate::registry::pinned;
use crate::shutdown::Shutdown;
use crate::step::{Done, Plan, StepRunner};
use crate::{FlowError, Parts};

/// A claimer that finds nothing looks again after this long even if nothing woke it.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What happens, as it happens: for progress, never for decisions.
#[derive(Debug, Clone)]
pub enum Event {
    StepStarted { run: RunId, step: String, attempt: u32 },
    StepFinished { run: RunId, step: String, attempt: u32, succeeded: bool, millis: u64 },
    StepRetried { run: RunId, step: String, attempt: u32, code: String, delay_ms: u64 },
    RunFinished { run: RunId, state: RunState },
}

/// Who is told what happens; called on the workers' own threads, so it must not block.
pub type Listener = Arc<dyn Fn(&Event) + Send + Sync>;

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
}

/// Runs jobs.
pub struct Worker {
    parts: Parts,
    runner: StepRunner,
    options: WorkerOptions,
    plans: Mutex<BTreeMap<String, Arc<Plan>>>,
    held: Mutex<BTreeMap<u64, Held>>,
    /// Of a scope: the runs that are not over.
    left: Mutex<BTreeSet<RunId>>,
    /// Runs that are over while steps of theirs still stop in this process.
    ending: Mutex<BTreeMap<RunId, RunState>>,
    /// The scope is every run.
    everything: AtomicBool,
    fault: Mutex<Option<FlowError>>,
}

struct Held {
    lease: Lease,
    canceller: Arc<Canceller>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn panicked(step: &str, run: &RunId, panic: &(dyn Any + Send)) -> FlowError {
    let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    FlowError::Panic(format!("run step {step} of run {run}: the host panicked: {}", said.unwrap_or("without a word")))
}

impl Worker {
    /// A worker that is not yet working.
    #[must_use]
    pub fn new(parts: Parts, executor: Arc<dyn Executor>, options: WorkerOptions) -> Self {
        let runner = StepRunner { parts: parts.clone(), executor, worker: options.name.clone() };
        let (plans, held, left, ending, fault) = (Mutex::default(), Mutex::default(), Mutex::default(), Mutex::default(), Mutex::default());
        let everything = AtomicBool::new(false);
        Self { parts, runner, options, plans, held, left, ending, everything, fault }
    }

    /// Works. With [`Scope::Runs`] until all of them are over, with [`Scope::All`] until it is shut down. Blocks.
    ///
    /// # Errors
    /// A store's failure, or the host's own: then running steps have ended, and what they were given back is for another worker.
    pub fn run(&self, scope: &Scope, shutdown: &Shutdown) -> Result<(), FlowError> {
        shutdown.wakes(&self.parts.ledger);
        self.everything.store(*scope == Scope::All, Ordering::SeqCst);
        *locked(&self.left) = match scope {
            Scope::All => BTreeSet::new(),
            Scope::Runs(runs) => runs.iter().cloned().collect(),
        };
        std::thread::scope(|threads| {
            let (ended, renewals) = crossbeam_channel::bounded(0);
            threads.spawn(move || self.keep_leases(&renewals));
            let (free, slots) = crossbeam_channel::unbounded();
            let result = self.claim_and_run(scope, shutdown, threads, free, &slots);
            if result.is_err() {
                shutdown.abort();
            }
            // Every step gives its slot back when it has been recorded; then no sender is left.
            while slots.recv().is_ok() {}
            // The leases were kept until the last step had been recorded.
            drop(ended);
            result
        })?;
        locked(&self.fault).take().map_or(Ok(()), Err)
    }

    fn claim_and_run<'scope>(
        &'scope self,
        scope: &Scope,
        shutdown: &'scope Shutdown,
        threads: &'scope std::thread::Scope<'scope, '_>,
        free: Sender<()>,
        slots: &Receiver<()>,
    ) -> Result<(), FlowError> {
        for _ in 0..self.options.jobs.max(1) {
            free.send(()).ok();
        }
        let mut mine = 0;
        while !self.over(scope, shutdown) {
            // At least one free slot, and whatever others are free.
            if mine == 0 {
                slots.recv().ok();
                mine = 1;
            }
            mine += slots.try_iter().count();
            let seen = self.parts.ledger.wakes();
            if self.over(scope, shutdown) {
                break;
            }
            let wait = Wait { seen, at_most: LONGEST_WAIT };
            let claimed = self.parts.ledger.claim(scope, mine, self.options.lease, wait)?;
            if claimed.is_empty() {
                self.look_for_ended()?;
            }
            if shutdown.draining() && !claimed.is_empty() {
                // It was told to stop while it was claiming: what it got goes back untouched.
                let back = |job: Claimed| Item::Release { lease: job.lease, delay: Duration::ZERO };
                self.parts.ledger.commit(&claimed.into_iter().map(back).collect::<Vec<_>>())?;
                break;
            }
            for job in claimed {
                mine -= 1;
                let slot = free.clone();
                threads.spawn(move || self.one(&job, shutdown, &slot));
            }
        }
        Ok(())
    }

    fn over(&self, scope: &Scope, shutdown: &Shutdown) -> bool {
        shutdown.draining() || locked(&self.fault).is_some() || (*scope != Scope::All && locked(&self.left).is_empty())
    }

    /// Runs of the scope that another process ended.
    fn look_for_ended(&self) -> Result<(), FlowError> {
        let left: Vec<RunId> = locked(&self.left).iter().cloned().collect();
        let keys: Vec<String> = left.iter().map(|run| RunKey { run: run.clone(), generation: 0 }.key()).collect();
        for (run, bytes) in left.into_iter().zip(self.parts.ledger.get(Kind::RunOutcome, &keys)?) {
            if let Some(bytes) = bytes {
                let state = RunOutcomeRecord::decode(&bytes, &format!("run {run}"))?.state;
                self.ended(&run, state);
            }
        }
        Ok(())
    }

    fn one(&self, job: &Claimed, shutdown: &Shutdown, slot: &Sender<()>) {
        let canceller = Arc::new(Canceller::new());
        locked(&self.held).insert(job.lease.token, Held { lease: job.lease.clone(), canceller: canceller.clone() });
        shutdown.stops(&canceller);
        let (run, step, attempt) = (job.lease.run.run.clone(), job.lease.step.clone(), job.attempt);
        let work = || {
            let (record, plan) = self.plan(job)?;
            self.tell(|| Event::StepStarted { run: run.clone(), step: step.clone(), attempt });
            self.runner.run(job, &record, &plan, &canceller.stop())
        };
        // A panic here is our own. The slot comes back, and the lease is renewed no more: when it lapses, it counts as a worker lost over
        // this job, so that a job which does this each time is given up in the end.
        let result = catch_unwind(AssertUnwindSafe(work));
        locked(&self.held).remove(&job.lease.token);
        match result.unwrap_or_else(|panic| Err(panicked(&step, &run, panic.as_ref()))) {
            Ok((done, state)) => {
                match done {
                    Done::Step { succeeded, micros } => {
                        self.tell(|| Event::StepFinished { run: run.clone(), step, attempt, succeeded, millis: micros / 1000 });
                    }
                    Done::Retried { code, delay } => {
                        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                        self.tell(|| Event::StepRetried { run: run.clone(), step, attempt, code, delay_ms });
                    }
                    Done::Nothing | Done::Released => {}
                }
                if let Some(state) = state {
                    self.ended(&run, state);
                }
            }
            Err(error @ FlowError::Panic(_)) => {
                tracing::error!(%run, step, err = &error as &dyn std::error::Error, "the host panicked over a step");
                locked(&self.fault).get_or_insert(error);
            }
            Err(error) => {
                tracing::error!(%run, step, err = &error as &dyn std::error::Error, "a step could not be run");
                // The host's own fault is not charged: without this the next process would count a dead worker. Where the store itself
                // fails, this does, too, and the lease decides.
                self.parts.ledger.commit(&[Item::Release { lease: job.lease.clone(), delay: Duration::ZERO }]).ok();
                locked(&self.fault).get_or_insert(error);
            }
        }
        self.tell_ended(&run);
        // The claimer may be gone, when it failed; then nobody waits for the slot.
        slot.send(()).ok();
        self.parts.ledger.wake();
    }

    fn plan(&self, job: &Claimed) -> Result<(RunRecord, Arc<Plan>), FlowError> {
        let record = RunRecord::decode(&job.run, &format!("run {}", job.lease.run.run))?;
        if let Some(plan) = locked(&self.plans).get(&record.pipeline) {
            return Ok((record, plan.clone()));
        }
        let plan = Arc::new(Plan::new(pinned(&self.parts, &record.pipeline)?));
        locked(&self.plans).insert(record.pipeline.clone(), plan.clone());
        Ok((record, plan))
    }

    /// A run is over: its other steps in this process are stopped, and whoever waits is told once they have ended.
    fn ended(&self, run: &RunId, state: RunState) {
        locked(&self.ending).insert(run.clone(), state);
        for held in locked(&self.held).values().filter(|held| held.lease.run.run == *run) {
            held.canceller.cancel();
        }
        self.tell_ended(run);
    }

    /// Tells a run's end when nothing of it is left here: what its steps came to has been recorded by then.
    fn tell_ended(&self, run: &RunId) {
        if locked(&self.held).values().any(|held| held.lease.run.run == *run) {
            return;
        }
        let Some(state) = locked(&self.ending).remove(run) else { return };
        // Of a scope each run's end is told once, whoever noticed it first: the step that closed it, or the look at the records.
        let first = self.everything.load(Ordering::SeqCst) || locked(&self.left).remove(run);
        if first {
            self.tell(|| Event::RunFinished { run: run.clone(), state });
        }
        self.parts.ledger.wake();
    }

    fn tell(&self, event: impl FnOnce() -> Event) {
        if let Some(listener) = &self.options.on_event {
            listener(&event());
        }
    }

    /// Renews every lease three times in its length, until `ended` closes.
    fn keep_leases(&self, ended: &Receiver<()>) {
        while ended.recv_timeout(self.options.lease / 3) == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
            let leases: Vec<Lease> = locked(&self.held).values().map(|held| held.lease.clone()).collect();
            if leases.is_empty() {
                continue;
            }
            match self.parts.ledger.renew(&leases, self.options.lease) {
                Ok(renewals) => {
                    for (lease, renewal) in leases.iter().zip(renewals) {
                        if renewal == Renewal::Lost
                            && let Some(held) = locked(&self.held).get(&lease.token)
                        {
                            tracing::warn!(run = %lease.run.run, step = lease.step, "the lease is lost: the step is stopped");
                            held.canceller.cancel();
                        }
                    }
                }
                // The next round tries again; whoever holds a lease that lapsed meanwhile finds out when it commits.
                Err(error) => tracing::warn!(err = &error as &dyn std::error::Error, "leases could not be renewed"),
            }
        }
    }
}
