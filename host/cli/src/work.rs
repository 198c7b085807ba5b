//! Works on runs of our own in this process until they are over or somebody interrupts, and says how far it is. In a
//! fleet the workers work: then it waits for them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use dovetail_core::RunId;
use dovetail_core::executor::Executor;
use dovetail_core::ledger::{Kind, RunKey, Scope, Wait};
use dovetail_core::record::{Form as _, RunOutcomeRecord};
use dovetail_core::scarce::Scarce;
use dovetail_flow::{Event, FlowError, Parts, Shutdown, Worker, WorkerOptions};

use crate::error::Error;
use crate::patience::Patience;
use crate::progress::Progress;
use crate::signals::{self, Listening, Told};
use crate::wire::App;

/// Runs that one worker looks at together: every look for work names them all.
pub(crate) const BATCH: usize = 256;
/// How often progress is looked at, if nothing happens.
const ROUND: Duration = Duration::from_millis(200);
/// How long it is waited for the workers of a fleet before it is looked again.
const LOOK: Duration = Duration::from_secs(10);

/// How many of the runs that it is waited for are looked through for what they wait for.
const LOOKED_THROUGH: usize = 4;

/// What is said where nobody works.
const NOBODY: &str = "no worker is alive: what is submitted waits until one is started with `dovetail worker`";

/// From before the first run of a command is submitted until its last one has been printed: signals are listened to all
/// the time, and what the runtime loaded, models included, stays.
pub(crate) struct Session<'a> {
    app: &'a App,
    /// None: others work.
    runtime: Option<Arc<dyn Executor>>,
    jobs: u32,
    shutdown: Shutdown,
    listening: Listening,
    progress: Progress<'a>,
    said: Said,
    /// Told by the listening thread and the workers' own, printed by the one that works.
    tell: Sender<Heard>,
    heard: Receiver<Heard>,
}

/// What need not be said again.
#[derive(Default)]
struct Said {
    /// That no worker lives.
    nobody: AtomicBool,
    /// What no living worker has.
    lacking: AtomicBool,
}

enum Heard {
    Event(Event),
    Note(String),
    Over,
}

impl<'a> Session<'a> {
    /// Begins one for so many runs, `jobs` steps at a time. From now on a signal is no longer the end of the process.
    pub(crate) fn begin(app: &'a App, runs: usize, jobs: u32) -> Result<Self, Error> {
        let others_work = app.config.is_fleet();
        let runtime = if others_work {
            None
        } else {
            app.own_blobs()?;
            Some(Arc::new(app.runtime(app.parts()?.blobs.clone(), jobs, None)?) as Arc<dyn Executor>)
        };
        let mut nobody = false;
        if others_work && app.parts()?.ledger.workers()?.is_empty() {
            app.output.note(NOBODY);
            nobody = true;
        }
        let shutdown = Shutdown::default();
        let (tell, heard) = mpsc::channel();
        let notes = tell.clone();
        let words = if others_work { Told::WAITING } else { Told::WORKING };
        let listening =
            signals::listen(shutdown.clone(), words, move |note| drop(notes.send(Heard::Note(note.to_owned()))))?;
        Ok(Self {
            app,
            runtime,
            jobs,
            shutdown,
            listening,
            progress: Progress::new(&app.output, runs, others_work),
            said: Said { nobody: AtomicBool::new(nobody), ..Said::default() },
            tell,
            heard,
        })
    }

    /// Whether a signal came.
    pub(crate) fn interrupted(&self) -> bool {
        self.listening.interrupted()
    }

    /// Tells others, on whatever thread, when to stop, and lets them say it.
    pub(crate) fn shutdown(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// Works until `runs` are over or a signal came. `ended` is called with each run as it ends, from this thread.
    pub(crate) fn work(
        &mut self,
        runs: &[RunId],
        mut ended: impl FnMut(&RunId) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (over, left) = split(self.app, runs)?;
        for run in over {
            ended(run)?;
        }
        for batch in left.chunks(BATCH) {
            if self.shutdown.draining() {
                break;
            }
            self.work_on(batch, &mut ended)?;
        }
        self.print_notes();
        self.app.output.clear();
        Ok(())
    }

    fn work_on(&mut self, batch: &[RunId], ended: &mut dyn FnMut(&RunId) -> Result<(), Error>) -> Result<(), Error> {
        let mut open: BTreeSet<&RunId> = batch.iter().collect();
        let (told, over) = (self.tell.clone(), self.tell.clone());
        let parts = self.app.parts()?;
        let worker = self.runtime.as_ref().map(|runtime| {
            let told = told.clone();
            let options = WorkerOptions {
                jobs: self.jobs as usize,
                lease: self.app.config.lease,
                name: format!("cli-{}", std::process::id()),
                on_event: Some(Arc::new(move |event| {
                    log(event);
                    drop(told.send(Heard::Event(event.clone())));
                })),
                daemon: None,
            };
            Arc::new(Worker::new(parts.clone(), runtime.clone(), options))
        });
        let (shutdown, heard, output, progress, said) =
            (&self.shutdown, &self.heard, &self.app.output, &mut self.progress, &self.said);
        std::thread::scope(|threads| {
            let working = start(threads, "work", move || {
                let result = match worker {
                    Some(worker) => worker.run(&Scope::Runs(batch.to_vec()), shutdown),
                    None => wait_for_others(parts, batch, &Waiting { shutdown, look: LOOK, said }, |heard| {
                        drop(told.send(heard));
                    }),
                };
                drop(over.send(Heard::Over));
                result
            })?;
            let mut handle = |event: Event, progress: &mut Progress<'_>| -> Result<(), Error> {
                progress.event(&event);
                match &event {
                    Event::RunFinished { run, .. } if open.remove(run) => ended(run),
                    _ => Ok(()),
                }
            };
            let mut failed = None;
            loop {
                let result = match heard.recv_timeout(ROUND) {
                    Ok(Heard::Event(event)) => handle(event, progress),
                    Ok(Heard::Note(note)) => {
                        output.note(&note);
                        Ok(())
                    }
                    Ok(Heard::Over) => break,
                    // It ended without saying so: it panicked.
                    Err(_) if working.is_finished() => break,
                    Err(_) => Ok(()),
                };
                if let Err(error) = result {
                    // Whoever is to print the results cannot: there is no point in making more of them.
                    shutdown.drain();
                    failed.get_or_insert(error);
                }
                progress.show(Instant::now());
            }
            let result = working.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            match failed {
                Some(error) => Err(error),
                None => result.map_err(Error::from),
            }
        })
    }

    /// What was said while nobody worked.
    fn print_notes(&self) {
        for heard in self.heard.try_iter() {
            if let Heard::Note(note) = heard {
                self.app.output.note(&note);
            }
        }
    }
}

/// Starts a thread, or says that the system refuses one.
pub(crate) fn start<'scope, T: Send + 'scope>(
    threads: &'scope std::thread::Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<std::thread::ScopedJoinHandle<'scope, T>, Error> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn_scoped(threads, work);
    started.map_err(|error| {
        Error::scarce(Scarce::Threads, format!("start the thread `{name}`")).cause(Scarce::thread(&error))
    })
}

/// How it is waited for others.
struct Waiting<'a> {
    shutdown: &'a Shutdown,
    /// Until it is looked again, if nothing is heard.
    look: Duration,
    said: &'a Said,
}

/// Until all are over, or it is told to stop.
fn wait_for_others(parts: &Parts, runs: &[RunId], how: &Waiting<'_>, tell: impl Fn(Heard)) -> Result<(), FlowError> {
    let Waiting { shutdown, look, said } = *how;
    shutdown.wakes(&parts.ledger);
    let note = |note: String| tell(Heard::Note(note));
    let mut patience = Patience::new(shutdown, &note);
    let current = || runs.iter().map(|run| dovetail_flow::current(parts, run)).collect::<Result<_, _>>();
    let Some(mut open) = patience.ask::<Vec<RunKey>>(current)? else { return Ok(()) };
    let mut wait = Wait::NONE;
    let mut look_at = Instant::now() + look;
    while !open.is_empty() && !shutdown.draining() {
        let seen = parts.ledger.wakes();
        // The first look is at the records; after that, whoever ends a run says so. After an outage nobody has.
        let mut patiently = Some(wait);
        let looked = patience.ask(|| {
            let ended = parts.ledger.over(&open, patiently.take().unwrap_or(Wait::NONE))?;
            let outcomes = parts.ledger.get(Kind::RunOutcome, &ended.iter().map(RunKey::key).collect::<Vec<_>>())?;
            Ok((ended, outcomes))
        })?;
        // The workers go on, and nobody waits for them any longer.
        let Some((ended, outcomes)) = looked else { return Ok(()) };
        // Nothing came of it for a while: those that worked may be gone, or lack something.
        if ended.is_empty() && Instant::now() >= look_at {
            look_at = Instant::now() + look;
            if let Some(note) = why_nothing_comes(parts, &open, said) {
                tell(Heard::Note(note));
            }
        }
        wait = Wait { seen, at_most: look };
        for (key, bytes) in ended.iter().zip(outcomes) {
            let Some(bytes) = bytes else { continue };
            let state = RunOutcomeRecord::decode(&bytes, &format!("run {}", key.run))?.state;
            open.retain(|one| one != key);
            tell(Heard::Event(Event::RunFinished { run: key.run.clone(), state }));
        }
    }
    Ok(())
}

/// Of each reason once that there is one. What cannot be read now is looked at later.
fn why_nothing_comes(parts: &Parts, open: &[RunKey], said: &Said) -> Option<String> {
    let first = |said: &AtomicBool| !said.swap(true, Ordering::Relaxed);
    if parts.ledger.workers().ok()?.is_empty() {
        return first(&said.nobody).then(|| NOBODY.to_owned());
    }
    if said.lacking.load(Ordering::Relaxed) {
        return None;
    }
    let waits = open.iter().take(LOOKED_THROUGH).find_map(|key| {
        let waits = dovetail_flow::waits(parts, &key.run).ok()?;
        (!waits.is_empty()).then(|| format!("run {}: {}", key.run, waits.join("; ")))
    })?;
    first(&said.lacking).then_some(waits)
}

/// Those that are over already (submitted before under the same key), and the others.
fn split<'r>(app: &App, runs: &'r [RunId]) -> Result<(Vec<&'r RunId>, Vec<RunId>), Error> {
    if app.config.is_fleet() {
        // Whoever waits looks first.
        return Ok((Vec::new(), runs.to_vec()));
    }
    let parts = app.parts()?;
    let keys =
        runs.iter().map(|run| Ok(dovetail_flow::current(parts, run)?.key())).collect::<Result<Vec<String>, Error>>()?;
    let outcomes = parts.ledger.get(Kind::RunOutcome, &keys)?;
    let (mut over, mut left) = (Vec::new(), Vec::new());
    for (run, outcome) in runs.iter().zip(outcomes) {
        match outcome {
            Some(_) => over.push(run),
            None => left.push(run.clone()),
        }
    }
    Ok((over, left))
}

/// What happens, as it happens, for whoever asks for it: the rest sees the progress.
fn log(event: &Event) {
    match event {
        Event::StepStarted { run, step, attempt } => tracing::debug!(%run, %step, attempt, "step started"),
        Event::StepFinished { run, step, attempt, failure, millis } => {
            tracing::debug!(%run, %step, attempt, succeeded = failure.is_none(), millis, "step ended");
        }
        Event::StepSkipped { run, step, failed_step } => tracing::debug!(%run, %step, failed_step, "step skipped"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dovetail_flow::SystemClock;
    use dovetail_stores::{FileBlobs, SqliteLedger};
    use std::sync::Mutex;

    #[test]
    fn that_no_worker_lives_is_said_once_while_it_is_waited() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(SystemClock);
        let ledger = Arc::new(SqliteLedger::open(folder.path(), clock.clone()).unwrap());
        let parts = Parts { ledger, blobs: Arc::new(FileBlobs::new(folder.path())), clock };
        let wait = |known: &Said| {
            let (shutdown, said) = (Shutdown::default(), Mutex::new(Vec::new()));
            let how = Waiting { shutdown: &shutdown, look: Duration::from_millis(10), said: known };
            std::thread::scope(|threads| {
                threads.spawn(|| {
                    std::thread::sleep(Duration::from_millis(500));
                    shutdown.drain();
                });
                let tell = |heard| said.lock().unwrap().push(heard);
                wait_for_others(&parts, &[RunId::from_bytes([1; 16])], &how, tell).unwrap();
            });
            said.into_inner()
                .unwrap()
                .into_iter()
                .map(|heard| if let Heard::Note(note) = heard { note } else { String::new() })
                .collect::<Vec<_>>()
        };
        let known = Said::default();
        assert_eq!(wait(&known), [NOBODY]);
        assert!(wait(&known).is_empty(), "it has been said");
    }
}
