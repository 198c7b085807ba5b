//! Runs attempts: loads the package's component, waits for a slot, makes a fresh instance, calls `run` and writes the
//! report.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use dovetail_core::Digest;
use dovetail_core::blobs::{BlobKind, Blobs, StoreErrorKind};
use dovetail_core::executor::{
    Attempt, Executor, HostError, LogLine, MISSING_PACKAGE, ModelUse, ModelsByKind, Outcome, Report, Usage,
};
use dovetail_core::limits::Limits;
use dovetail_core::scarce::Scarce;
use dovetail_core::size::json_size;
use dovetail_core::stop::{Stop, StopReason};
use dovetail_core::sync::lock;
use dovetail_core::vision::{self, ModelKind, Vision, VisionError};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use wasmtime::{Store, UpdateDeadline};

use crate::call::{Called, call};
use crate::compile::CompileLimits;
use crate::compiler::{Compiler, CompilerOptions};
use crate::component::Task;
use crate::engine::engine;
use crate::log::{Log, SharedLog};
use crate::memory_budget::MemoryBudget;
use crate::outcome::{AttemptEnd, Circumstances, classify, host_error, scarce_error, stopped};
use crate::package::{MAX_PACKAGE, Package};
use crate::refusal::LoadError;
use crate::state::{Budgets, HOSTCALL_FUEL, Progress, Setting, State, WASI_HANDLES, broken, panicked};
use crate::ticker::Ticker;
use crate::wrong_engine::wrong_engine;

/// The most loaded components that are kept; the least recently used one is dropped first.
const MAX_LOADED: usize = 64;
/// Time between a cancellation and the interruption of the guest, in which the guest may notice the cancellation
/// itself.
const GRACE: Duration = Duration::from_millis(40);

/// A message of an attempt while it runs. Best effort; the report has the whole log.
#[derive(Debug)]
pub enum Live<'e> {
    /// A log line that was kept.
    Log(&'e LogLine),
    /// The task's progress, at most ten times a second.
    Progress(Progress),
}

/// Receives [`Live`] messages on the attempt's own thread, so it must not block. The attempt is passed without its
/// input.
pub type LiveSink = Arc<dyn Fn(&Attempt, Live<'_>) + Send + Sync>;

/// The parts and settings of a [`Runtime`].
pub struct Options {
    /// The store of packages and artifacts.
    pub blobs: Arc<dyn Blobs>,
    /// The vision library behind `dovetail:vision`.
    pub vision: Arc<dyn Vision>,
    /// The folder of compiled code. Only the host may write to it.
    pub cache_dir: PathBuf,
    /// The most bytes of compiled code in that folder. 256 MiB is ample.
    pub cache_bytes: u64,
    /// The program whose hidden subcommand [`crate::SUBCOMMAND`] calls [`crate::compile_child`]. `None`: compile in
    /// this process, where only the size of the code is limited.
    pub compiler: Option<PathBuf>,
    /// The most attempts that run at the same time; further attempts wait.
    pub jobs: u32,
    /// Memory budgets of attempts.
    pub budgets: Budgets,
    /// Receives log lines and progress while attempts run.
    pub live: Option<LiveSink>,
}

/// The entries of the instance pool in use. All numbers are zero when no attempt runs; any other number then is a leak.
/// Public only for tests, as [`Runtime::occupancy`].
#[doc(hidden)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Occupancy {
    pub component_instances: u64,
    pub core_instances: u64,
    pub memories: usize,
    pub tables: usize,
}

/// Runs components on wasmtime. Implements [`Executor`].
pub struct Runtime {
    // Declared before the compiler, which holds the engine: the ticker's thread ends first.
    ticker: Ticker,
    compiler: Compiler,
    blobs: Arc<dyn Blobs>,
    vision: Arc<dyn Vision>,
    budgets: Budgets,
    room: Arc<MemoryBudget>,
    live: Option<LiveSink>,
    loaded: Mutex<Loaded>,
    slots: (Sender<()>, Receiver<()>),
    jobs: u32,
    /// One token, held by the attempt that takes all slots to run alone.
    alone: (Sender<()>, Receiver<()>),
}

#[derive(Default)]
struct Loaded {
    clock: u64,
    tasks: HashMap<Digest, (u64, Arc<Entry>)>,
}

/// Filled by the first attempt that needs the component; concurrent attempts wait for the lock.
#[derive(Default)]
struct Entry(Mutex<Option<Arc<Task>>>);

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("compiler", &self.compiler).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Creates a runtime. No component is loaded yet.
    ///
    /// # Errors
    /// If the cache folder cannot be used, or the system refuses a thread.
    pub fn new(options: Options) -> Result<Self, HostError> {
        let Options { blobs, vision, cache_dir, cache_bytes, compiler, jobs, budgets, live } = options;
        let jobs = jobs.max(1);
        let engine = engine(jobs)?;
        let ticker = Ticker::start(&engine)
            .map_err(|error| scarce_error("start the ticker", Scarce::Threads, &error.to_string()))?;
        let compiler = Compiler::with_engine(
            engine,
            CompilerOptions { cache_dir, cache_bytes, program: compiler, limits: CompileLimits::default() },
        )?;
        let slots = crossbeam_channel::bounded(jobs as usize);
        for _ in 0..jobs {
            slots.0.send(()).map_err(|error| host_error("make the slots", false, error))?;
        }
        let alone = crossbeam_channel::bounded(1);
        alone.0.send(()).map_err(|error| host_error("make the slots", false, error))?;
        let room = MemoryBudget::new(budgets.own, budgets.shared);
        let loaded = Mutex::default();
        Ok(Self { ticker, compiler, blobs, vision, budgets, room, live, loaded, slots, jobs, alone })
    }

    /// The compiler, which describes components with the same cache.
    #[must_use]
    pub fn compiler(&self) -> &Compiler {
        &self.compiler
    }

    /// Whether attempts use memory slots that were reserved once. Without the address space for slots, each attempt
    /// maps its own memory. That is slower and has no other effect.
    #[must_use]
    pub fn pooled(&self) -> bool {
        self.compiler.engine.pooling_allocator_metrics().is_some()
    }

    /// The pool entries in use right now. `None` without a pool. Public only for tests, which check that an attempt
    /// gives back all that it took.
    #[doc(hidden)]
    #[must_use]
    pub fn occupancy(&self) -> Option<Occupancy> {
        let pool = self.compiler.engine.pooling_allocator_metrics()?;
        Some(Occupancy {
            component_instances: pool.component_instances(),
            core_instances: pool.core_instances(),
            memories: pool.memories(),
            tables: pool.tables(),
        })
    }

    /// Bytes of pictures and artifacts that all attempts hold right now beyond each attempt's own part.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.room.taken()
    }

    /// Loads and compiles a package now, so that its first attempt does not wait for the compiler.
    ///
    /// # Errors
    /// If the package is not in the store, if it is refused, or if the host fails.
    pub fn preload(&self, package: &Digest) -> Result<(), LoadError> {
        self.task(package).map(drop)
    }

    fn task(&self, digest: &Digest) -> Result<Arc<Task>, LoadError> {
        let entry = {
            let mut loaded = lock(&self.loaded);
            loaded.clock += 1;
            let now = loaded.clock;
            let slot = loaded.tasks.entry(*digest).or_default();
            slot.0 = now;
            let entry = slot.1.clone();
            if loaded.tasks.len() > MAX_LOADED
                && let Some(oldest) = loaded.tasks.iter().min_by_key(|(_, (used, _))| *used).map(|(digest, _)| *digest)
            {
                loaded.tasks.remove(&oldest);
            }
            entry
        };
        let mut slot = lock(&entry.0);
        if let Some(task) = slot.as_ref() {
            return Ok(task.clone());
        }
        let bytes = self.blobs.get(BlobKind::Package, digest, MAX_PACKAGE).map_err(|error| {
            let transient = error.kind == StoreErrorKind::Unavailable;
            let missing = (error.kind == StoreErrorKind::Missing).then_some(MISSING_PACKAGE);
            HostError { missing, ..host_error(format!("load package {digest}"), transient, error) }
        })?;
        let task = Arc::new(self.compiler.task(&Package::read(&bytes)?)?);
        *slot = Some(task.clone());
        Ok(task)
    }

    fn run(&self, task: &Task, attempt: &Attempt, stop: &Stop) -> Result<Report, HostError> {
        let began = Instant::now();
        // A pool slot holds at most this much memory, so the same maximum applies without a pool. The result of a task
        // must not depend on where its memory comes from.
        let limits = Limits { memory: attempt.limits.memory.min(Limits::MAXIMA.memory), ..attempt.limits };
        let stop = stop.clone().by(began + Duration::from_millis(limits.time_ms));
        // All facts except the input, which may be large and which only the guest needs.
        let facts = Attempt {
            run: attempt.run.clone(),
            step: attempt.step.clone(),
            number: attempt.number,
            package: attempt.package,
            idempotency_key: attempt.idempotency_key.clone(),
            input: Value::Null,
            origins: attempt.origins.clone(),
            limits,
            models: attempt.models.clone(),
        };
        let (line, progress) = self.sinks(&facts);
        let log = SharedLog::new(Log::new(limits.log, began, line));
        let setting = Setting {
            attempt: facts,
            stop: stop.clone(),
            blobs: self.blobs.clone(),
            vision: self.vision.clone(),
            budgets: self.budgets,
            share: self.room.share(),
            log: log.clone(),
            progress,
            beat: self.ticker.beat(),
        };
        let mut store = Store::new(&self.compiler.engine, State::new(setting));
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(HOSTCALL_FUEL);
        store.set_max_component_handles(limits.handles as usize + WASI_HANDLES);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut context| {
            let state = context.data_mut();
            let now = Instant::now();
            let over = match state.stop.reason(now) {
                None => false,
                Some(StopReason::Deadline) => true,
                Some(StopReason::Cancelled) => now.duration_since(*state.cancelled_at.get_or_insert(now)) >= GRACE,
            };
            match state.stop.reason(now) {
                Some(reason) if over => Err(wasmtime::Error::new(AttemptEnd::Stopped(reason))),
                _ => Ok(UpdateDeadline::Continue(1)),
            }
        });
        let began_cpu = thread_cpu();
        let called = {
            let _ticking = self.ticker.attempt();
            catch_unwind(AssertUnwindSafe(|| call(&mut store, task, &attempt.input)))
        };
        let processor = thread_cpu().saturating_sub(began_cpu);
        let Called { result, wall, returned } = called.map_err(|panic| panicked("run an attempt", panic.as_ref()))?;
        log.lock().finish();
        // A guest can return after the deadline but before the tick that would have interrupted it.
        let late = (result.is_ok() && stop.deadline.is_some_and(|deadline| Instant::now() >= deadline))
            .then_some(StopReason::Deadline);
        let outcome = match result {
            Ok((outcome, bytes)) => Ok((outcome, bytes)),
            Err(error) => {
                let state = store.data();
                let known = Circumstances {
                    denied: state.memory.denied,
                    memory_limit: limits.memory,
                    handle_limit: limits.handles,
                    panic: log.lock().panic.take(),
                    returned,
                };
                classify(error, &known, limits.time_ms).map(|failure| (Outcome::Failed { failure }, 0))
            }
        };
        let state = store.into_data();
        let (mut outcome, output_bytes) = outcome?;
        // A guest that learned of the stop counts as stopped, whatever it returned: the result must not depend on when
        // the guest learned of it.
        if let Some(reason) = state.reported_stop.or_else(|| state.sleep_cut.get().copied()).or(late) {
            outcome = Outcome::Failed { failure: stopped(reason, limits.time_ms) };
        }
        let usage = Usage {
            wall_us: micros(wall),
            host_us: u64::try_from(state.host_ns / 1000).unwrap_or(u64::MAX),
            guest_cpu_us: micros(
                processor
                    .min(wall.saturating_sub(Duration::from_nanos(u64::try_from(state.host_ns).unwrap_or(u64::MAX)))),
            ),
            peak_memory: state.memory.peak as u64,
            input_bytes: json_size(&attempt.input),
            output_bytes,
            host_calls: state.calls.into_iter().map(|(name, calls)| (name.to_owned(), calls)).collect(),
        };
        let mut models = state.models;
        for model in &mut models {
            model.engine = state.vision.engine(&model.digest);
            if let Some(failure) = wrong_engine(model, attempt.models.engine.as_ref(), &*state.vision)? {
                outcome = Outcome::Failed { failure };
            }
        }
        let mut log = log.lock();
        Ok(Report {
            outcome,
            usage,
            models,
            warnings: state.warnings.into_lines(),
            log: std::mem::take(&mut log.lines),
            log_dropped: log.dropped,
        })
    }

    fn sinks(&self, facts: &Attempt) -> (Option<crate::log::LineSink>, Option<crate::state::ProgressSink>) {
        let Some(live) = &self.live else {
            return (None, None);
        };
        let (live_line, line_facts) = (live.clone(), facts.clone());
        let (live, facts) = (live.clone(), facts.clone());
        (
            Some(Box::new(move |line| {
                live_line(&line_facts, Live::Log(line));
            })),
            Some(Box::new(move |progress| {
                live(&facts, Live::Progress(progress));
            })),
        )
    }
}

impl Executor for Runtime {
    fn prepare(&self, package: &Digest) {
        if let Err(error) = self.preload(package) {
            tracing::warn!(
                %package,
                err = &error as &dyn std::error::Error,
                "a package could not be made ready beforehand"
            );
        }
    }

    fn choose_models(&self, kinds: &[&str]) -> Result<ModelsByKind, HostError> {
        let mut chosen = ModelsByKind::new();
        let kinds = ModelKind::ALL.into_iter().filter(|kind| kinds.contains(&kind.name()));
        for kind in kinds {
            let model = match self.vision.model(kind, None) {
                Ok(model) => model,
                Err(VisionError::Unavailable { code: vision::MODEL_DAMAGED, message }) => {
                    return Err(host_error(format!("choose a {}", kind.words()), false, message));
                }
                // No model of the kind is installed. A task that opens one gets the error then.
                Err(_) => continue,
            };
            for model in self.vision.companions(&model).into_iter().chain([model]) {
                chosen.insert(model.kind.name().to_owned(), ModelUse::new(model.name, model.digest));
            }
        }
        Ok(chosen)
    }

    fn execute(&self, attempt: &Attempt, stop: &Stop) -> Result<Report, HostError> {
        let task = self.task(&attempt.package).map_err(|error| match error {
            LoadError::Host(error) => error,
            // The package was accepted when it was registered, so the host has changed.
            LoadError::Refused(refusal) => host_error(format!("load package {}", attempt.package), false, refusal),
        })?;
        // The models of the whole run: a process that starts with the run loads them while it decodes the first
        // picture.
        let chosen = |kind: ModelKind| attempt.models.get(kind.name()).map(|model| model.digest);
        let models: Vec<Digest> = ModelKind::ALL.into_iter().filter_map(chosen).collect();
        if !models.is_empty() {
            self.vision.expect(&models);
        }
        let first = match Self::slot(&self.slots, stop) {
            Ok(_slot) => self.run(&task, attempt, stop),
            Err(end) => return end.report(attempt),
        };
        match first {
            // Other attempts of this process may hold the resource that the system refused. Run the attempt again
            // alone: if the system refuses it again, no attempt on this machine would succeed.
            Err(error) if self.jobs > 1 && error.scarce().is_some() => {
                tracing::warn!(run = %attempt.run, step = %attempt.step, err = &error as &dyn std::error::Error,
                    "the attempt is run again alone, because the system refused a resource");
                match self.alone(stop) {
                    Ok(_slots) => self.run(&task, attempt, stop),
                    Err(end) => end.report(attempt),
                }
            }
            first => first,
        }
    }
}

/// Why an attempt got no slot.
enum NoPlace {
    Stopped(StopReason),
    Gone,
}

impl NoPlace {
    fn report(self, attempt: &Attempt) -> Result<Report, HostError> {
        let reason = match self {
            Self::Stopped(reason) => reason,
            Self::Gone => return Err(broken("wait for a free slot: the runtime is gone")),
        };
        Ok(Report {
            outcome: Outcome::Failed { failure: stopped(reason, attempt.limits.time_ms) },
            usage: Usage::default(),
            models: Vec::new(),
            warnings: Vec::new(),
            log: Vec::new(),
            log_dropped: 0,
        })
    }
}

impl Runtime {
    /// Waits for a slot token.
    fn slot<'r>(tokens: &'r (Sender<()>, Receiver<()>), stop: &Stop) -> Result<Slot<'r>, NoPlace> {
        match stop.wait(&tokens.1) {
            Ok(Some(())) => Ok(Slot(&tokens.0)),
            Ok(None) => Err(NoPlace::Gone),
            Err(reason) => Err(NoPlace::Stopped(reason)),
        }
    }

    /// Waits until no attempt runs, and keeps other attempts from starting. The caller must not hold a slot.
    fn alone(&self, stop: &Stop) -> Result<Vec<Slot<'_>>, NoPlace> {
        // One caller at a time: two callers that each hold some of the slots would deadlock.
        let mut all = vec![Self::slot(&self.alone, stop)?];
        for _ in 0..self.jobs {
            all.push(Self::slot(&self.slots, stop)?);
        }
        Ok(all)
    }
}

/// A slot for an attempt. Dropping it returns the token.
struct Slot<'r>(&'r Sender<()>);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        // The send cannot fail: the channel has capacity for every token, and the receiver lives as long as the sender.
        self.0.send(()).ok();
    }
}

/// Processor time that this thread has used.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
