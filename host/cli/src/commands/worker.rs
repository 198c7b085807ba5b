//! `worker` and `up`: take jobs from the queue and run them until SIGTERM, one line an event; and `workers`, who does
//! so.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dovetail_core::blobs::{Store, StoreErrorKind};
use dovetail_core::clock::Clock;
use dovetail_core::ledger::{MODEL, Scope, is_grant};
use dovetail_flow::{Daemon, Event, Shutdown, StepFailure, SystemClock, Worker, WorkerOptions};
use serde_json::{Value, json};

use crate::args::{WorkerArgs, Workers};
use crate::commands::models::share::Sync;
use crate::error::{Error, Exit};
use crate::patience::answering;
use crate::signals;
use crate::table::{bytes, count, table};
use crate::wire::App;
use crate::work::start;

/// Over how long a worker's rate is told.
const RATE: Duration = Duration::from_secs(30);
/// How often it is looked for models that the fleet has and this machine has not.
const MODELS: Duration = Duration::from_secs(30);
/// The same where there is no model at all of some kind: steps may wait for one.
const LACKING: Duration = Duration::from_secs(5);

pub(crate) fn run(args: &WorkerArgs, app: &App) -> Result<Exit, Error> {
    let jobs = args.jobs.unwrap_or(app.config.jobs);
    let host = host_name();
    let name = args.name.clone().unwrap_or_else(|| format!("{host}-{}", std::process::id()));
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        return Err(Error::usage("bad_option", format!("`{name}` is no name of a worker"))
            .help("it has 1 to 64 of a-z, A-Z, 0-9, `-`, `_` and `.`"));
    }
    let parts = app.parts()?;
    let shutdown = Shutdown::default();
    let quit = signals::Told {
        drain: "stopping: running steps finish, no new ones start; once more to stop them at once",
        abort: "stopping at once",
    };
    let _listening = signals::listen(shutdown.clone(), quit, |note| tracing::info!("{note}"))?;
    blobs_can_be_used(app)?;
    records_can_be_written(app)?;
    blobs_are_ours(app)?;
    let sync = Arc::new(Sync::new(app)?);
    // What the fleet has is here before the first job is. Where that cannot be read now it is looked again; steps that
    // need it wait.
    match sync.once() {
        Err(error) if error.code == "store_unavailable" => {
            tracing::warn!(error = error.chain(), "could not look for the fleet's models; looking again");
        }
        looked => looked?,
    }
    let vision = Arc::new(app.vision()?);
    let looking = sync.clone();
    vision.on_missing(Box::new(move || {
        if let Err(error) = looking.once() {
            tracing::warn!(error = error.chain(), "could not look for a model that is not here");
        }
    }));
    let runtime = Arc::new(app.runtime_with(vision, parts.blobs.clone(), jobs, None)?);
    let (grants, models) = (app.config.grants.clone(), sync.clone());
    let able = move || -> Vec<String> { grants.iter().cloned().chain(models.able()).collect() };
    let able: dovetail_flow::Able = Arc::new(able);
    let (say, installed, started) = (able.clone(), sync.clone(), SystemClock.wall_ms());
    let (rate, trimmed) = (std::sync::Mutex::new(Rate::new()), std::sync::atomic::AtomicU64::new(0));
    let about = json!({ "host": host, "process": std::process::id(), "version": env!("CARGO_PKG_VERSION"), "slots": jobs, "started_ms": started });
    let about = move |running: usize, ended: u64| {
        let mut about = about.clone();
        // Tasks leave free memory in the heap, some of them much of it; where nothing runs it goes back to the system,
        // once.
        if running == 0 && trimmed.swap(ended, std::sync::atomic::Ordering::Relaxed) != ended {
            dovetail_vision::give_back();
        }
        let rate = rate.lock().unwrap_or_else(std::sync::PoisonError::into_inner).of(ended, Instant::now());
        about["able"] = json!(say());
        about["models"] = json!(installed.models());
        about["running"] = json!(running);
        about["ended"] = json!(ended);
        about["rate"] = json!(rate);
        about["memory"] = json!(resident());
        about["seen_ms"] = json!(SystemClock.wall_ms());
        about.to_string().into_bytes()
    };
    let daemon = Daemon { about: Arc::new(about), able };
    let options = WorkerOptions {
        jobs: jobs as usize,
        lease: app.config.lease,
        name: name.clone(),
        on_event: Some(Arc::new(log)),
        daemon: Some(daemon),
    };
    let worker = Arc::new(Worker::new(parts.clone(), runtime, options));
    let (queue, meta, blobs) = (&app.config.queue, &app.config.meta, &app.config.blobs);
    tracing::info!(worker = name, jobs, fleet = app.config.fleet, ?queue, ?meta, ?blobs, "working");
    let result = std::thread::scope(|threads| {
        let (ended, until) = std::sync::mpsc::channel::<()>();
        start(threads, "models", move || {
            let pause = || if sync.has_all_kinds() { MODELS } else { LACKING };
            while until.recv_timeout(pause()) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                if let Err(error) = sync.once() {
                    tracing::warn!(error = error.chain(), "could not look for new models");
                }
            }
        })?;
        let result = worker.run(&Scope::All, &shutdown);
        drop(ended);
        Ok::<_, Error>(result?)
    });
    result?;
    tracing::info!(worker = name, "stopped");
    Ok(Exit::Done)
}

/// A worker that cannot read and write blobs can run nothing, and would take work from those who can. A store that
/// cannot now may do so later.
fn blobs_can_be_used(app: &App) -> Result<(), Error> {
    if app.config.has_far_blobs()
        && let Err(error) = dovetail_stores::check_blobs(app.config.blobs.url(), &SystemClock)
    {
        // What is damaged or not answered on the way may be whole the next time.
        if !matches!(error.kind, StoreErrorKind::Unavailable | StoreErrorKind::Corrupt) {
            return Err(error.into());
        }
        tracing::error!(err = &error as &dyn std::error::Error, "the blob store cannot be used now; steps wait for it");
    }
    Ok(())
}

/// Whoever may not write records, or has others than the queue, hears it before he takes work. Only now, with
/// everything else in order, does a fleet take a database that nobody uses.
fn records_can_be_written(app: &App) -> Result<(), Error> {
    if !app.config.is_fleet() {
        return Ok(());
    }
    match dovetail_flow::may_write(&*app.parts()?.ledger) {
        Err(error) if error.kind != StoreErrorKind::Unavailable => Err(error.into()),
        _ => Ok(()),
    }
}

/// A worker whose blob store belongs to other records could store nothing: it is refused before it takes work. A store
/// that does not answer now is asked again with the first blob.
fn blobs_are_ours(app: &App) -> Result<(), Error> {
    match app.own_blobs_to_work() {
        Err(error) if error.code == "store_unavailable" => {
            tracing::error!(error = error.chain(), "whose the blobs are cannot be read now; steps wait for it");
            Ok(())
        }
        owned => owned,
    }
}

/// One line an event.
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
        Event::StepSkipped { run, step, failed_step } => tracing::info!(%run, %step, failed_step, "step skipped"),
        Event::StepRetried { run, step, attempt, code, delay_ms } => {
            tracing::warn!(%run, %step, attempt, code, delay_ms, "step will be tried again");
        }
        Event::StepReleased { run, step, attempt } => {
            tracing::info!(%run, %step, attempt, "step stopped and given back");
        }
        Event::RunFinished { run, state } => tracing::info!(%run, state = state.name(), "run over"),
        Event::RunRecovered { run } => {
            tracing::warn!(%run, "run put into the queue, which did not have it: it had lost it, or had been full");
        }
        Event::StoreFailed { store, operation, error, since, kept } => {
            let (store, waiting) = (store.map(Store::name), kept);
            if since.is_zero() {
                tracing::error!(
                    store,
                    operation,
                    error,
                    waiting,
                    "a store does not answer; what was done is kept and sent again"
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

/// Steps a second over the last while.
struct Rate {
    seen: std::collections::VecDeque<(Instant, u64)>,
}

impl Rate {
    fn new() -> Self {
        Self { seen: std::collections::VecDeque::new() }
    }

    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 steps")]
    fn of(&mut self, ended: u64, now: Instant) -> f64 {
        self.seen.push_back((now, ended));
        while self.seen.len() > 2 && self.seen.front().is_some_and(|(at, _)| now - *at > RATE) {
            self.seen.pop_front();
        }
        let Some((at, before)) = self.seen.front() else { return 0.0 };
        let time = (now - *at).as_secs_f64();
        if time < 0.1 { 0.0 } else { (((ended - before) as f64 / time) * 10.0).round() / 10.0 }
    }
}

/// Bytes of memory that this process holds now.
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

pub(crate) fn workers(command: &Workers, app: &App) -> Result<Exit, Error> {
    let Workers::List = command;
    let now = SystemClock.wall_ms();
    let read = |(name, about): (String, Vec<u8>)| {
        let mut worker: Value = serde_json::from_slice(&about).unwrap_or_else(|_| json!({}));
        worker["name"] = json!(name);
        worker
    };
    let living: Vec<Value> = app.living()?.into_iter().map(read).collect();
    let text = || {
        if living.is_empty() {
            return "no worker is alive; start one with `dovetail worker`\n".to_owned();
        }
        let alike = |name: &Value| living.iter().filter(|other| other["name"] == *name).count() > 1;
        let word = |worker: &Value, key: &str| {
            worker.get(key).map_or_else(String::new, |v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
        };
        let number = |worker: &Value, key: &str| worker.get(key).and_then(Value::as_u64).unwrap_or(0);
        let row = |worker: &Value| {
            let able = worker["able"].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>();
            // A worker from before there was this counts a model's other names as well.
            let named = || able.iter().filter(|name| name.starts_with(MODEL)).count();
            let models = worker["models"].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or_else(named);
            let grants = able.iter().filter(|name| is_grant(name)).map(|name| (*name).to_owned());
            let serves = grants.chain([count(models, "model")]).collect::<Vec<_>>().join(" ");
            vec![
                // Two processes may have been given one name.
                if alike(&worker["name"]) {
                    format!("{} (process {})", word(worker, "name"), word(worker, "process"))
                } else {
                    word(worker, "name")
                },
                word(worker, "host"),
                word(worker, "version"),
                format!("{}/{}", number(worker, "running"), number(worker, "slots")),
                number(worker, "ended").to_string(),
                format!("{:.1}/s", worker["rate"].as_f64().unwrap_or(0.0)),
                bytes(number(worker, "memory")),
                serves,
                format!("{:.1} s ago", now.saturating_sub(number(worker, "seen_ms")) as f64 / 1000.0),
            ]
        };
        table(
            &["worker", "host", "version", " running", " steps", " rate", " memory", "serves", " seen"],
            &living.iter().map(row).collect::<Vec<_>>(),
        )
    };
    app.output.result(|| json!(living), text);
    Ok(Exit::Done)
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
        assert!(rate.of(100, began + Duration::from_secs(100)) < 1e-9, "what was long ago does not count");
    }
}
