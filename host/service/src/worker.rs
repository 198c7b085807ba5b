//! The worker daemon, which executes queued steps until the shutdown and logs one line for each event; and the list of
//! living workers.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dovetail_core::blobs::{Store, StoreErrorKind};
use dovetail_core::clock::Clock;
use dovetail_core::ledger::Scope;
use dovetail_core::required_engine::RequiredEngine;
use dovetail_core::sync::lock;
use dovetail_core::worker_status::WorkerStatus;
use dovetail_flow::{Daemon, Event, Shutdown, StepFailure, SystemClock, Worker, WorkerOptions};

use dovetail_vision::Opencv;

pub use dovetail_core::keys::Capability;

use crate::documents::WorkerDocument;
use crate::models::share::Sync;
use crate::patience::answering;
use crate::settings::Settings;
use crate::{Error, Notice, Observer, Service, VERSION, start_thread};

/// The period over which a worker's rate is averaged.
const RATE: Duration = Duration::from_secs(30);
/// How often a worker looks for models of the fleet that this machine lacks.
const MODELS: Duration = Duration::from_secs(30);
/// As [`MODELS`], if this machine has no model of some kind: steps may wait for such a model.
const LACKING: Duration = Duration::from_secs(5);

/// The options of a worker that is to be started.
#[derive(Debug, Clone)]
pub struct WorkerRequest {
    /// How many steps run at the same time.
    pub jobs: u32,
    /// The worker's name in the records and in the list of workers: 1 to 64 of a-z, A-Z, 0-9, `-`, `_` and `.`.
    /// None: HOST-PROCESS.
    pub name: Option<String>,
}

impl WorkerRequest {
    /// Checks the options, so that a wrong one is refused before stores are opened.
    ///
    /// # Errors
    /// `bad_option` for an invalid name.
    pub fn check(&self) -> Result<(), Error> {
        self.name(&host_name()).map(drop)
    }

    /// The worker's name.
    fn name(&self, host: &str) -> Result<String, Error> {
        let name = self.name.clone().unwrap_or_else(|| format!("{host}-{}", std::process::id()));
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            return Err(Error::usage("bad_option", format!("`{name}` is not a valid name of a worker"))
                .help("use 1 to 64 of a-z, A-Z, 0-9, `-`, `_` and `.`"));
        }
        Ok(name)
    }
}

impl Service {
    /// Runs a worker that executes queued steps. Blocks until the shutdown.
    ///
    /// # Errors
    /// `bad_option`; `foreign_blobs`; `empty_blobs`; if a store refuses this machine; the host's failure.
    pub fn work(&self, request: &WorkerRequest, shutdown: &Shutdown) -> Result<(), Error> {
        let host = host_name();
        let (name, jobs) = (request.name(&host)?, request.jobs);
        let ports = self.ports()?;
        self.blobs_can_be_used()?;
        self.records_can_be_written()?;
        self.blobs_are_ours()?;
        let sync = Arc::new(Sync::new(self)?);
        // The fleet's models are installed before the first claim. If the records or blobs do not answer now, the
        // worker looks again later, and steps that need the models wait.
        match sync.once() {
            Err(error) if error.code == "store_unavailable" => {
                tracing::warn!(error = error.chain(), "the fleet's models cannot be read now; the worker tries again");
            }
            looked => looked?,
        }
        let vision = Arc::new(self.vision()?);
        let looking = sync.clone();
        vision.on_missing(Box::new(move || {
            if let Err(error) = looking.once() {
                tracing::warn!(error = error.chain(), "could not look for a missing model");
            }
        }));
        let runtime = Arc::new(self.runtime_with(vision.clone(), ports.blobs.clone(), jobs, None)?);
        let (grants, models) = (self.settings.grants.clone(), sync.clone());
        let engines = Arc::new(Mutex::new(engines(&vision, None)));
        let known = engines.clone();
        let able: dovetail_flow::CapabilitiesFn =
            Arc::new(move || grants.iter().cloned().chain(models.able()).chain(lock(&known).iter().cloned()).collect());
        let about = heartbeat(host, jobs, able.clone(), sync.clone());
        let options = WorkerOptions {
            jobs: jobs as usize,
            lease: self.settings.lease,
            name: name.clone(),
            on_event: Some(Arc::new(log)),
            daemon: Some(Daemon { about: Arc::new(about), able }),
        };
        let worker = Arc::new(Worker::new(ports.clone(), runtime, options));
        let Settings { queue, meta, blobs, fleet, .. } = &self.settings;
        tracing::info!(worker = name, jobs, fleet, ?queue, ?meta, ?blobs, "working");
        std::thread::scope(|threads| {
            let (ended, until) = std::sync::mpsc::channel::<()>();
            start_thread(threads, "models", move || {
                let pause = || if sync.has_all_kinds() { MODELS } else { LACKING };
                while until.recv_timeout(pause()) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                    if let Err(error) = sync.once() {
                        tracing::warn!(error = error.chain(), "could not look for new models");
                    }
                    // The library may have turned out to be unusable, or a scarce resource may be there again.
                    let before = lock(&engines).clone();
                    *lock(&engines) = self::engines(&vision, Some(&before));
                }
            })?;
            let result = worker.run(&Scope::All, shutdown);
            drop(ended);
            Ok::<_, Error>(result?)
        })?;
        tracing::info!(worker = name, "stopped");
        Ok(())
    }

    /// Refuses a blob store that this worker cannot use: the worker would claim jobs and execute none of them. A store
    /// that does not answer now may answer later, and is not refused.
    fn blobs_can_be_used(&self) -> Result<(), Error> {
        if self.settings.has_far_blobs()
            && let Err(error) = dovetail_stores::check_blobs(self.settings.blobs.url(), &SystemClock)
        {
            // `Corrupt` may come from damage on the way, so that the next answer may be good.
            if !matches!(error.kind, StoreErrorKind::Unavailable | StoreErrorKind::Corrupt) {
                return Err(error.into());
            }
            tracing::error!(
                err = &error as &dyn std::error::Error,
                "the blob store cannot be used now; steps wait for it"
            );
        }
        Ok(())
    }

    /// Refuses records that this worker may not write, or that are not those of the queue, before the first claim. This
    /// check comes after the others, since it makes an unused database the fleet's own.
    fn records_can_be_written(&self) -> Result<(), Error> {
        if !self.settings.is_fleet() {
            return Ok(());
        }
        match dovetail_flow::may_write(&*self.ports()?.ledger) {
            Err(error) if error.kind != StoreErrorKind::Unavailable => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Refuses a blob store that belongs to other records, before the first claim: the worker could store nothing. If
    /// the store does not answer now, the owner is checked again with the first blob.
    fn blobs_are_ours(&self) -> Result<(), Error> {
        match self.own_blobs_to_work() {
            Err(error) if error.code == "store_unavailable" => {
                tracing::error!(error = error.chain(), "the owner of the blobs cannot be read now; steps wait for it");
                Ok(())
            }
            owned => owned,
        }
    }

    /// The living workers. Their heartbeats are in the queue, so that the list is complete also if the records do not
    /// answer: then `observer` gets [`Notice::Partial`].
    ///
    /// # Errors
    /// A store's failure.
    pub fn list_workers(&self, observer: &dyn Observer) -> Result<Vec<WorkerDocument>, Error> {
        let living = match self.ports_to_read() {
            Ok(ports) => ports.ledger.workers()?,
            Err(error) if error.code == "store_unavailable" && self.settings.is_fleet() => {
                let Settings { queue, fleet, .. } = &self.settings;
                let window = dovetail_stores::open_window(queue.url(), fleet, dovetail_flow::new_run_id().as_str());
                // If the queue does not answer either, the first error is given.
                let Ok(window) = window else { return Err(error) };
                let living = window.workers()?;
                observer.notice(&Notice::Partial(error.chain()));
                living
            }
            Err(error) => return Err(error),
        };
        let document = |(name, about): (String, Vec<u8>)| WorkerDocument { status: WorkerStatus::read(&about), name };
        Ok(living.into_iter().map(document).collect())
    }
}

/// The capabilities of a worker with this engine: none if no network can run here. `before`: those of the last look.
fn engines(vision: &Opencv, before: Option<&[String]>) -> Vec<String> {
    match vision.expected_engine() {
        Ok(engine) => {
            let met = RequiredEngine::all_met_by(&engine);
            met.iter().map(|required| Capability::Engine(&required.to_string()).to_string()).collect()
        }
        Err(error) => {
            let err: &dyn std::error::Error = &error;
            if before.is_none_or(|before| !before.is_empty()) {
                tracing::warn!(err, "this worker leaves steps alone whose run requires an engine");
            }
            Vec::new()
        }
    }
}

/// The wall clock in milliseconds since 1970, to compare with the times of heartbeats.
#[must_use]
pub fn now_ms() -> u64 {
    SystemClock.wall_ms()
}

/// Makes the content of the worker's heartbeats from the number of running steps and the number of ended steps.
fn heartbeat(
    host: String,
    jobs: u32,
    able: dovetail_flow::CapabilitiesFn,
    models: Arc<Sync>,
) -> impl Fn(usize, u64) -> Vec<u8> + Send + std::marker::Sync {
    let started = SystemClock.wall_ms();
    let (rate, trimmed) = (Mutex::new(Rate::new()), AtomicU64::new(0));
    move |running, ended| {
        // Some tasks leave much free memory in the heap. The worker returns it to the system once after the last step.
        if running == 0 && trimmed.swap(ended, Ordering::Relaxed) != ended {
            dovetail_vision::give_back();
        }
        let rate = lock(&rate).of(ended, Instant::now());
        let status = WorkerStatus {
            host: Some(host.clone()),
            process: Some(std::process::id()),
            version: Some(VERSION.to_owned()),
            slots: Some(jobs),
            started_ms: Some(started),
            able: able(),
            models: Some(models.models()),
            running: Some(running),
            ended: Some(ended),
            rate: Some(rate),
            memory: Some(resident()),
            seen_ms: Some(SystemClock.wall_ms()),
            ..WorkerStatus::default()
        };
        serde_json::to_vec(&status).unwrap_or_default()
    }
}

/// Logs an event as one line.
fn log(event: &Event) {
    match event {
        Event::StepStarted { run, step, attempt } => tracing::debug!(%run, %step, attempt, "step started"),
        Event::StepFinished { run, step, attempt, failure: None, millis } => {
            tracing::info!(%run, %step, attempt, millis, "step succeeded");
        }
        Event::StepFinished {
            run,
            step,
            attempt,
            failure: Some(StepFailure { code, message, stopped: true }),
            millis,
        } => {
            tracing::info!(%run, %step, attempt, millis, code, why = message, "step stopped");
        }
        Event::StepFinished {
            run,
            step,
            attempt,
            failure: Some(StepFailure { code, message, stopped: false }),
            millis,
        } => {
            tracing::warn!(%run, %step, attempt, millis, code, why = message, "step failed");
        }
        Event::StepSkipped { run, step, failed_step } => tracing::info!(%run, %step, %failed_step, "step skipped"),
        Event::StepRetried { run, step, attempt, code, delay_ms } => {
            tracing::warn!(%run, %step, attempt, code, delay_ms, "step will be tried again");
        }
        Event::StepReleased { run, step, attempt } => {
            tracing::info!(%run, %step, attempt, "step stopped and given back");
        }
        Event::RunFinished { run, state } => tracing::info!(%run, state = state.name(), "run over"),
        Event::RunRecovered { run } => {
            tracing::warn!(%run, "run restored to the queue, which had lost it or had been full");
        }
        Event::StoreFailed { store, operation, error, since, kept } => {
            let (store, waiting) = (store.map(Store::name), kept);
            if since.is_zero() {
                tracing::error!(
                    store,
                    operation,
                    error,
                    waiting,
                    "a store does not answer; outcomes are kept and sent again"
                );
            } else {
                tracing::warn!(
                    store,
                    operation,
                    error,
                    waiting,
                    seconds = since.as_secs(),
                    "a store still does not answer"
                );
            }
        }
        Event::StoreAnswers { store } => tracing::warn!(store = store.map(Store::name), "{} again", answering(*store)),
    }
}

/// Ended steps a second over the last [`RATE`].
struct Rate {
    samples: std::collections::VecDeque<(Instant, u64)>,
}

impl Rate {
    fn new() -> Self {
        Self { samples: std::collections::VecDeque::new() }
    }

    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 steps")]
    fn of(&mut self, ended: u64, now: Instant) -> f64 {
        self.samples.push_back((now, ended));
        while self.samples.len() > 2 && self.samples.front().is_some_and(|(at, _)| now - *at > RATE) {
            self.samples.pop_front();
        }
        let Some((at, before)) = self.samples.front() else { return 0.0 };
        let time = (now - *at).as_secs_f64();
        if time < 0.1 { 0.0 } else { (((ended - before) as f64 / time) * 10.0).round() / 10.0 }
    }
}

/// The resident memory of this process, in bytes. 0 if the system does not say.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn host_name() -> String {
    let name = std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname")).unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    let name: String = name.trim().chars().map(plain).take(40).collect();
    if name.is_empty() { "host".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_while() {
        let (mut rate, began) = (Rate::new(), Instant::now());
        assert!(rate.of(0, began) < 1e-9);
        assert!((rate.of(100, began + Duration::from_secs(10)) - 10.0).abs() < 1e-9);
        for second in 11..100 {
            rate.of(100, began + Duration::from_secs(second));
        }
        assert!(rate.of(100, began + Duration::from_secs(100)) < 1e-9, "old steps do not count");
    }
}
