//! The worker: claims jobs within its scope, runs up to N at once on threads of their own, and stops in two stages.
//!
//! A slot is free as soon as its attempt has ended: what came of it is recorded by the ledger together with others, and
//! settled on a thread of its own (`settle.rs`). Leases, heartbeats and the search for lost runs have threads that
//! tasks cannot starve (`duties.rs`).

mod duties;
mod flow_control;
mod settle;
mod slots;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use dovetail_core::RunId;
use dovetail_core::blobs::Store;
use dovetail_core::executor::{Executor, HostError};
use dovetail_core::keys::{NodeId, RunKey};
use dovetail_core::ledger::{Claimed, Item, Lease, Renewal, Scope, Wait};
use dovetail_core::policy;
use dovetail_core::record::{Form, RunRecord, RunState};
use dovetail_core::scarce::Scarce;
use dovetail_core::stop::Canceller;

use self::flow_control::FlowControl;
use self::settle::ToSettle;
use self::slots::{Closing, Slots};
use crate::error::MISSING_PIPELINE;
use crate::registry::pinned;
use crate::shutdown::Shutdown;
use crate::step::{After, Next, Plan, SOON, StepFailure, StepRunner};
use crate::{FlowError, Parts};

/// A claimer that finds nothing looks again after this long even if nothing woke it.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long a daemon waits after a store failed; it doubles up to the second one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a job is put off that this worker could not run, for a reason that does not pass by itself: another one may
/// be able to.
const PUT_OFF: Duration = Duration::from_secs(5);
/// How long a worker that can run nothing, for such a reason, leaves work to others before it tries again.
const LONGEST_LEFT: Duration = Duration::from_secs(30);
/// The part of a lease after which a job that was not renewed is asked for, and verified, before it is begun.
const SURE: f64 = 0.8;
/// Plans kept; any of them can be read again.
const MAX_PLANS: usize = 1000;
/// Runs that are remembered to have been stopped: enough for those that come between a claim and its entry.
const REMEMBERED_STOPS: usize = 32;

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
    /// No attempt at it will be made, because another step of its run has failed (`on_failure: finish`).
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

/// What a worker says of itself, given how many steps it runs now and how many it has ended.
pub type About = Arc<dyn Fn(usize, u64) -> Vec<u8> + Send + Sync>;

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
    /// It goes on when a store fails, looks for what was lost, and says that it lives. None: it ends with the first
    /// failure.
    pub daemon: Option<Daemon>,
}

/// What a worker needs that works until it is told to stop.
#[derive(Clone)]
pub struct Daemon {
    pub about: About,
    /// What it can serve now: asked before each claim.
    pub able: Able,
}

/// The capabilities that a worker has at the moment: see [`dovetail_core::ledger::Lane`].
pub type Able = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// Runs jobs.
pub struct Worker {
    parts: Parts,
    runner: StepRunner,
    options: WorkerOptions,
    plans: Mutex<BTreeMap<String, Arc<Plan>>>,
    held: Mutex<HashMap<u64, Held>>,
    /// Runs whose steps were to stop, the last ones: one may have been claimed then and not be held yet.
    stopped: Mutex<VecDeque<RunKey>>,
    flow: FlowControl,
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
    /// When it was last known to be this worker's.
    sure: Instant,
    /// Its attempt has ended, and what came of it is on its way: the job may be gone before that is answered.
    ended: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn panicked(step: &str, run: &RunId, panic: &(dyn Any + Send)) -> FlowError {
    let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    FlowError::Panic(format!("run step {step} of run {run}: the host panicked: {}", said.unwrap_or("without a word")))
}

/// The threads of a worker that works.
struct Threads<'scope, 'env> {
    scope: &'scope std::thread::Scope<'scope, 'env>,
    /// One could not be started: none is after it.
    refused: Option<HostError>,
}

impl<'scope> Threads<'scope, '_> {
    fn start(
        &mut self,
        name: &str,
        work: impl FnOnce() + Send + 'scope,
    ) -> Option<std::thread::ScopedJoinHandle<'scope, ()>> {
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

impl Worker {
    /// A worker that is not yet working.
    #[must_use]
    pub fn new(parts: Parts, executor: Arc<dyn Executor>, options: WorkerOptions) -> Self {
        let runner = StepRunner { parts: parts.clone(), executor, worker: options.name.clone() };
        let flow = FlowControl::new(options.jobs);
        let (plans, held, stopped) = (Mutex::default(), Mutex::default(), Mutex::default());
        let (left, ending, fault) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self {
            parts,
            runner,
            options,
            plans,
            held,
            stopped,
            flow,
            left,
            ending,
            everything: AtomicBool::new(false),
            fault,
        }
    }

    /// Works. With [`Scope::Runs`] until all of them are over, otherwise until it is shut down. Blocks.
    ///
    /// # Errors
    /// A store's failure, or the host's own: then running steps have ended, and what they were given back is for
    /// another worker.
    pub fn run(self: &Arc<Self>, scope: &Scope, shutdown: &Shutdown) -> Result<(), FlowError> {
        shutdown.wakes(&self.parts.ledger);
        self.everything.store(!matches!(scope, Scope::Runs(_)), Ordering::SeqCst);
        *locked(&self.left) = match scope {
            Scope::Runs(runs) => runs.iter().cloned().collect(),
            Scope::All | Scope::Able(_) => BTreeSet::new(),
        };
        let here = Arc::downgrade(self);
        self.parts.ledger.on_end(Box::new(move |run| {
            if let Some(worker) = here.upgrade() {
                worker.stop_steps(run);
            }
        }));
        std::thread::scope(|threads| {
            let (ended, duties_end) = crossbeam_channel::bounded(0);
            let (settle, to_settle) = crossbeam_channel::unbounded();
            let jobs = Arc::new(Slots::new(self.options.jobs.max(1)));
            let mut threads = Threads { scope: threads, refused: None };
            threads.start("leases", {
                let until = duties_end.clone();
                move || self.keep_leases(&until)
            });
            if let Some(Daemon { about, .. }) = self.options.daemon.clone() {
                let until = duties_end.clone();
                threads.start("heartbeat", move || self.say_that_it_lives(&about, &until));
                let until = duties_end.clone();
                threads.start("lost-runs", move || self.look_for_lost(&until));
            }
            let settling = threads.start("settle", {
                let again = settle.clone();
                move || self.settle_all(&to_settle, &again, shutdown)
            });
            // Also where this thread panics: they must not be waited for without end.
            let closing = Closing(jobs.clone());
            let mut slots = Vec::new();
            for slot in 0..self.options.jobs.max(1) {
                let (jobs, settle) = (jobs.clone(), settle.clone());
                slots.extend(threads.start("slot", move || self.run_jobs(&jobs, slot, shutdown, &settle)));
            }
            // Nothing is claimed where a thread is missing that it needs; those that run end below.
            let result = match threads.refused {
                Some(error) => Err(error.into()),
                None => self.claim_jobs(scope, shutdown, &jobs, &settle),
            };
            if result.is_err() {
                shutdown.abort();
            }
            // No more jobs: each slot ends with its last one; then what they sent is settled; then nobody holds a
            // lease.
            drop(closing);
            for slot in slots {
                drop(slot.join());
            }
            drop(settle.send(ToSettle::NoMore));
            drop(settling.map(std::thread::ScopedJoinHandle::join));
            drop(ended);
            result
        })?;
        locked(&self.fault).take().map_or(Ok(()), Err)
    }

    fn is_daemon(&self) -> bool {
        self.options.daemon.is_some()
    }

    fn claim_jobs(
        &self,
        scope: &Scope,
        shutdown: &Shutdown,
        jobs: &Slots<Claimed>,
        settle: &Sender<ToSettle>,
    ) -> Result<(), FlowError> {
        let mut pause = FIRST_PAUSE;
        while !self.over(scope, shutdown) {
            let seen = self.parts.ledger.wakes();
            let Some(want) = self.flow.wait_for_room(|| self.over(scope, shutdown)) else { break };
            let able = self.options.daemon.as_ref().map(|daemon| Scope::Able((daemon.able)()));
            let claimed = match self.parts.ledger.claim(
                able.as_ref().unwrap_or(scope),
                want,
                self.options.lease,
                Wait { seen, at_most: LONGEST_WAIT },
            ) {
                Ok(claimed) => claimed,
                Err(error) if self.is_daemon() => {
                    self.store_failed("claim work", false, &error.into());
                    self.flow.pause(pause, || self.over(scope, shutdown));
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            pause = FIRST_PAUSE;
            self.store_answers(&[Store::Queue], false);
            if claimed.is_empty() {
                self.look_for_ended()?;
            }
            self.flow.claimed(claimed.len());
            let alone = self.flow.is_alone();
            for job in claimed {
                let here = self.is_run_here(&job);
                let canceller = Arc::new(Canceller::new());
                let held =
                    Held { lease: job.lease.clone(), canceller: canceller.clone(), sure: Instant::now(), ended: false };
                locked(&self.held).insert(job.lease.token, held);
                if locked(&self.stopped).contains(&job.lease.run) {
                    canceller.cancel();
                }
                if here {
                    self.flow.started();
                    self.commit(&job, Item::Release { lease: job.lease.clone(), delay: SOON }, After::Released, settle);
                    self.flow.ended(None);
                } else if alone {
                    // It was asked for before that was known.
                    self.give_back_waiting(&job, settle);
                } else {
                    jobs.give(job);
                }
            }
        }
        Ok(())
    }

    fn over(&self, scope: &Scope, shutdown: &Shutdown) -> bool {
        shutdown.draining()
            || locked(&self.fault).is_some()
            || (matches!(scope, Scope::Runs(_)) && locked(&self.left).is_empty())
    }

    /// One slot: a job at a time until there are no more.
    fn run_jobs(&self, jobs: &Slots<Claimed>, slot: usize, shutdown: &Shutdown, settle: &Sender<ToSettle>) {
        while let Some(job) = jobs.next(slot) {
            let began = Instant::now();
            self.flow.started();
            // One over which workers died may be what kills them: nothing else is in this worker's hands while it runs.
            let alone = job.crashes >= policy::SUSPECT_CRASHES && job.crashes <= policy::MAX_CRASHES;
            if !self.flow.may_begin(alone, || {
                std::iter::from_fn(|| jobs.take_waiting()).for_each(|job| self.give_back_waiting(&job, settle));
            }) {
                self.give_back(&job, settle);
                self.flow.ended(None);
                continue;
            }
            let ran = self.one(job, shutdown, settle);
            self.flow.ended(ran.then(|| began.elapsed()));
            if alone {
                self.flow.alone_no_more();
            }
        }
    }

    /// A job goes back untouched, for whoever takes it next.
    fn give_back(&self, job: &Claimed, settle: &Sender<ToSettle>) {
        self.commit(job, Item::Release { lease: job.lease.clone(), delay: Duration::ZERO }, After::Released, settle);
    }

    /// The same with one that waits for a slot.
    fn give_back_waiting(&self, job: &Claimed, settle: &Sender<ToSettle>) {
        self.flow.started();
        self.give_back(job, settle);
        self.flow.ended(None);
    }

    /// Whether it was run, however that ended.
    fn one(&self, mut job: Claimed, shutdown: &Shutdown, settle: &Sender<ToSettle>) -> bool {
        let token = job.lease.token;
        let held = locked(&self.held).get(&token).map(|held| (held.canceller.clone(), held.sure));
        // It is there from the claim on; without it the job could not be stopped, and is not begun.
        let Some((canceller, sure)) = held else {
            self.parts.ledger.let_go(&job.lease);
            self.flow.settled();
            return false;
        };
        if sure.elapsed() > self.options.lease.mul_f64(SURE) {
            // This process stood still, or was cut off: the job may be another's by now, and done.
            match self.parts.ledger.renew(std::slice::from_ref(&job.lease), self.options.lease) {
                Ok(answers) if answers.first() == Some(&Renewal::Lost) => {
                    self.let_go(token, &job.lease.run.run, None);
                    return false;
                }
                _ => job.verify = true,
            }
        }
        let job = &job;
        shutdown.stops(&canceller);
        let (run, step, attempt) = (job.lease.run.run.clone(), job.lease.step.clone(), job.attempt);
        if shutdown.draining() || locked(&self.fault).is_some() {
            // It was told to stop with jobs in hand.
            self.give_back(job, settle);
            return false;
        }
        let work = || {
            let (record, plan) = match self.plan(job) {
                Ok(known) => known,
                Err(error) => return self.runner.look_again_for_the_plan(job, error),
            };
            let started = || {
                if job.crashes > 0 {
                    tracing::warn!(%run, %step, lost = job.crashes, "a step is run again whose worker was not heard of any more");
                }
                self.tell(|| Event::StepStarted { run: run.clone(), step: step.clone(), attempt });
            };
            self.runner.run(job, &record, &plan, &canceller.stop(), &started)
        };
        // A panic here is our own. The slot comes back, and the lease is renewed no more: when it lapses, it counts as
        // a worker lost over this job, so that a job which does this each time is given up in the end.
        let result = catch_unwind(AssertUnwindSafe(work));
        match result.unwrap_or_else(|panic| Err(panicked(step.as_str(), &run, panic.as_ref()))) {
            Ok(Next::Commit(item, after)) => {
                let ran = match after {
                    After::Released => {
                        self.flow.could_not_run(LONGEST_PAUSE);
                        false
                    }
                    // It says nothing of this worker.
                    After::Retried { uncharged: true, .. } => false,
                    _ => {
                        self.flow.could_run();
                        true
                    }
                };
                self.commit(job, item, after, settle);
                ran
            }
            Ok(Next::Nothing(state)) => {
                self.let_go(token, &run, state);
                true
            }
            Err(error @ FlowError::Panic(_)) => {
                tracing::error!(%run, %step, err = &error as &dyn std::error::Error, "the host panicked over a step");
                self.let_go(token, &run, None);
                self.fail(error);
                false
            }
            Err(error) => {
                tracing::error!(%run, %step, err = &error as &dyn std::error::Error, help = error.help(), "a step could not be run");
                // The host's own fault is not charged: without this the next process would count a dead worker. Where
                // the store itself fails, this does, too, and the lease decides.
                let (delay, leave) = if error.may_pass() { (SOON, LONGEST_PAUSE) } else { (PUT_OFF, LONGEST_LEFT) };
                let delay = if self.is_daemon() { delay } else { Duration::ZERO };
                match error.unreadable() {
                    Some(subject) => self.flow.could_not_read(subject, leave),
                    None => self.flow.could_not_run(leave),
                }
                self.fail(error);
                self.commit(job, Item::Release { lease: job.lease.clone(), delay }, After::Released, settle);
                false
            }
        }
    }

    /// Sends a job's change on its way; [`Worker::settle_all`] hears what came of it, unless this is the only job in
    /// hand.
    fn commit(&self, job: &Claimed, item: Item, after: After, settle: &Sender<ToSettle>) {
        if let Some(held) = locked(&self.held).get_mut(&job.lease.token) {
            held.ended = true;
        }
        let sent = settle::Sent { lease: job.lease.clone(), attempt: job.attempt, item, after };
        if self.flow.is_last_in_hand() { self.settle_here(sent, settle) } else { self.send(sent, settle) }
    }

    /// A daemon goes on: the job comes again. Otherwise this worker ends with it.
    fn fail(&self, error: FlowError) {
        if !self.is_daemon() {
            locked(&self.fault).get_or_insert(error);
            self.flow.wake();
            self.parts.ledger.wake();
        }
    }

    fn plan(&self, job: &Claimed) -> Result<(RunRecord, Arc<Plan>), FlowError> {
        let record = RunRecord::decode(&job.run, &format!("run {}", job.lease.run.run))?;
        if let Some(plan) = locked(&self.plans).get(&record.pipeline) {
            return Ok((record, plan.clone()));
        }
        let pipeline = pinned(&self.parts, &record.pipeline).map_err(|error| match error {
            FlowError::Store(error) => FlowError::of_the_job(MISSING_PIPELINE, error),
            other => other,
        })?;
        let plan = Arc::new(Plan::new(pipeline));
        self.prepare(&plan, job.lease.step.name());
        let mut plans = locked(&self.plans);
        if plans.len() >= MAX_PLANS {
            plans.clear();
        }
        plans.insert(record.pipeline.clone(), plan.clone());
        drop(plans);
        Ok((record, plan))
    }

    /// The packages of a pipeline that is new here are made ready beside its first step, so that none of the others
    /// waits for it.
    fn prepare(&self, plan: &Plan, first: &str) {
        let packages: BTreeSet<_> =
            plan.pipeline.steps.iter().filter(|step| step.name != first).map(|step| step.package).collect();
        let executor = self.runner.executor.clone();
        let prepare = move || packages.iter().for_each(|package| executor.prepare(package));
        if let Err(error) = std::thread::Builder::new().name("prepare".into()).spawn(prepare) {
            tracing::warn!(err = &error as &dyn std::error::Error, "no thread to make packages ready");
        }
    }

    /// The steps of a run in this process are to stop: it was cancelled, or has ended.
    fn stop_steps(&self, run: &RunKey) {
        {
            let mut stopped = locked(&self.stopped);
            stopped.truncate(REMEMBERED_STOPS - 1);
            stopped.push_front(run.clone());
        }
        for held in locked(&self.held).values().filter(|held| held.lease.run == *run) {
            held.canceller.cancel();
        }
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
        if !locked(&self.ending).contains_key(run) || locked(&self.held).values().any(|held| held.lease.run.run == *run)
        {
            return;
        }
        let Some(state) = locked(&self.ending).remove(run) else { return };
        // Of a scope each run's end is told once, whoever noticed it first: the step that closed it, or the look at the
        // records.
        let first = self.everything.load(Ordering::SeqCst) || locked(&self.left).remove(run);
        if first {
            self.tell(|| Event::RunFinished { run: run.clone(), state });
        }
        self.flow.wake();
        self.parts.ledger.wake();
    }

    fn tell(&self, event: impl FnOnce() -> Event) {
        if let Some(listener) = &self.options.on_event {
            listener(&event());
        }
    }
}
