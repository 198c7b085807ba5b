//! Works on runs of our own in this process until they are over or somebody interrupts, and says how far it is.

use std::collections::BTreeSet;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use dovetail_core::RunId;
use dovetail_core::executor::Executor;
use dovetail_core::ledger::{Kind, RunKey, Scope};
use dovetail_flow::{Event, Shutdown, Worker, WorkerOptions};

use crate::error::Error;
use crate::progress::Progress;
use crate::signals;
use crate::wire::App;

/// Runs that one worker looks at together: every look for work names them all.
const BATCH: usize = 256;
/// How often progress is looked at, if nothing happens.
const ROUND: Duration = Duration::from_millis(200);

/// Works until `runs` are over; true if a signal came first. `ended` is called with each run as it ends, from this thread.
pub(crate) fn work(app: &App, runs: &[RunId], jobs: u32, ended: impl FnMut(&RunId) -> Result<(), Error>) -> Result<bool, Error> {
    let runtime = Arc::new(app.runtime(app.parts()?.blobs.clone(), jobs, None)?);
    work_with(app, runtime, runs, jobs, ended)
}

/// The same with a runtime that keeps what it loaded, models included, from one call to the next.
pub(crate) fn work_with(
    app: &App,
    runtime: Arc<dyn Executor>,
    runs: &[RunId],
    jobs: u32,
    mut ended: impl FnMut(&RunId) -> Result<(), Error>,
) -> Result<bool, Error> {
    let parts = app.parts()?;
    let shutdown = Shutdown::default();
    // Told by the listening thread, printed by this one.
    let (tell, heard) = mpsc::channel();
    let notes = tell.clone();
    let listening = signals::listen(shutdown.clone(), move |note| drop(notes.send(Heard::Note(note.to_owned()))))?;
    let mut progress = Progress::new(&app.output, runs.len());
    let mut open: BTreeSet<&RunId> = BTreeSet::new();
    let (over, left) = split(app, runs)?;
    for run in over {
        ended(run)?;
    }
    for batch in left.chunks(BATCH) {
        if shutdown.draining() {
            break;
        }
        open.extend(batch);
        let told = tell.clone();
        let options = WorkerOptions {
            jobs: jobs as usize,
            lease: app.config.lease,
            name: format!("cli-{}", std::process::id()),
            on_event: Some(Arc::new(move |event| drop(told.send(Heard::Event(event.clone()))))),
        };
        let worker = Worker::new(parts.clone(), runtime.clone(), options);
        let scope = Scope::Runs(batch.to_vec());
        let over = tell.clone();
        std::thread::scope(|threads| {
            let shutdown = &shutdown;
            let working = threads.spawn(move || {
                let result = worker.run(&scope, shutdown);
                drop(over.send(Heard::Over));
                result
            });
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
                    Ok(Heard::Event(event)) => handle(event, &mut progress),
                    Ok(Heard::Note(note)) => {
                        app.output.note(&note);
                        Ok(())
                    }
                    Ok(Heard::Over) => break,
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
        })?;
    }
    app.output.clear();
    Ok(listening.interrupted())
}

/// Those that are over already (submitted before under the same key), and the others.
fn split<'r>(app: &App, runs: &'r [RunId]) -> Result<(Vec<&'r RunId>, Vec<RunId>), Error> {
    let keys: Vec<String> = runs.iter().map(|run| RunKey { run: run.clone(), generation: 0 }.key()).collect();
    let outcomes = app.parts()?.ledger.get(Kind::RunOutcome, &keys)?;
    let (mut over, mut left) = (Vec::new(), Vec::new());
    for (run, outcome) in runs.iter().zip(outcomes) {
        match outcome {
            Some(_) => over.push(run),
            None => left.push(run.clone()),
        }
    }
    Ok((over, left))
}

enum Heard {
    Event(Event),
    Note(String),
    Over,
}
