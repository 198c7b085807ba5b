//! Waiting for runs: for one on which this command works or others do, by looking at one that others work on, and for
//! a worker.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dovetail_core::RunId;
use dovetail_core::ledger::Wait;
use dovetail_flow::{FlowError, Parts, Shutdown};
use serde_json::Value;

use crate::error::{Error, Exit};
use crate::patience::Patience;
use crate::show;
use crate::signals::{self, Told};
use crate::wire::App;
use crate::work::Session;

/// How often `watch` looks at what its run does; its end it hears at once.
const WATCH: Duration = Duration::from_secs(1);

/// Within this each living worker is heard of: it says so every 5 s.
const HEARD: Duration = Duration::from_secs(7);

/// What is submitted without anybody waiting for it needs somebody who works. A queue that has just lost its data knows
/// nobody until they have said again that they live.
pub(crate) fn needs_worker(app: &App) -> Result<(), Error> {
    let ledger = &app.parts()?.ledger;
    let until = Instant::now() + if app.config.is_fleet() { HEARD } else { Duration::ZERO };
    let mut said = false;
    while ledger.workers()?.is_empty() {
        if Instant::now() >= until {
            return Err(Error::usage("no_worker", "no worker is alive, so nobody would run it")
                .help("start one with `dovetail worker`, or leave --detach out"));
        }
        if !std::mem::replace(&mut said, true) {
            app.output
                .note("no worker is known to the queue; each says every 5 s that it lives, so that is waited for");
        }
        std::thread::sleep(WATCH);
    }
    Ok(())
}

/// What an interrupted command leaves, and how to come back to it. The workers of a fleet go on meanwhile, which has
/// been said.
pub(crate) fn how_to_go_on(app: &App, run: &RunId) -> String {
    if app.config.is_fleet() {
        return format!("wait for it again with\n  {}", app.again(&format!("runs watch {run}")));
    }
    format!("interrupted; go on with\n  {}", app.again(&format!("runs resume {run}")))
}

/// Works on one run until it is over, and prints its document.
pub(crate) fn wait_for(app: &App, mut session: Session<'_>, run: &RunId) -> Result<Exit, Error> {
    session.work(std::slice::from_ref(run), |_| Ok(()))?;
    let (parts, shutdown) = (app.parts()?, session.shutdown());
    let tell = |note: String| app.output.note(&note);
    let mut patience = Patience::new(&shutdown, &tell);
    let mut document = patience.ask(|| dovetail_flow::document(parts, run))?;
    if app.config.is_fleet() && document.as_ref().is_some_and(|document| document["state"] != "succeeded") {
        until_recorded(app, run, &mut patience)?;
        document = patience.ask(|| dovetail_flow::document(parts, run))?;
    }
    let state =
        document.as_ref().and_then(|document| document.get("state")).and_then(Value::as_str).unwrap_or_default();
    let exit = match state {
        "succeeded" => Exit::Done,
        "failed" | "cancelled" => Exit::Failed,
        // Neither over nor interrupted cannot be: work waits for the end.
        _ => Exit::Interrupted,
    };
    if let Some(document) = document {
        app.output.result(|| document.clone(), || show::run(&document));
    }
    if exit == Exit::Interrupted && session.interrupted() {
        app.output.note(&how_to_go_on(app, run));
    }
    Ok(exit)
}

/// Prints what becomes of a run's steps as it happens, and its document when it is over and its running steps have
/// stopped. It works on nothing itself.
pub(crate) fn watch(app: &App, run: &RunId) -> Result<Exit, Error> {
    let parts = app.parts_to_read()?;
    let shutdown = Shutdown::default();
    shutdown.wakes(&parts.ledger);
    let listening = signals::listen(shutdown.clone(), Told::WAITING, |_| ())?;
    let tell = |note: String| app.output.note(&note);
    let mut patience = Patience::new(&shutdown, &tell);
    let interrupted = || {
        app.output.note(&how_to_go_on(app, run));
        Exit::Interrupted
    };
    let Some(key) = patience.ask(|| dovetail_flow::current(parts, run))? else { return Ok(interrupted()) };
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    let mut over_since = None;
    loop {
        let seen = parts.ledger.wakes();
        let looked = patience.ask(|| {
            let document = dovetail_flow::document(parts, run)?;
            // One whose cancellation is recorded is called so, and is over a moment later.
            let over = document.get("finished_at").is_some_and(|at| !at.is_null());
            let stopping = if over { stopping(parts, run, &told, app.config.lease)? } else { Stopping::default() };
            Ok((document, over, stopping))
        })?;
        let Some((document, over, stopping)) = looked else { return Ok(interrupted()) };
        let state = document.get("state").and_then(Value::as_str).unwrap_or_default().to_owned();
        let since = if over { over_since.get_or_insert_with(Instant::now).elapsed() } else { Duration::ZERO };
        let left = stopping.at_most.saturating_sub(since);
        for step in document.pointer("/processing_summary/steps").and_then(Value::as_array).into_iter().flatten() {
            let text = |key: &str| step.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (id, state) = (text("id"), text("state"));
            let is_stopping = !left.is_zero() && stopping.steps.contains(&id);
            if !is_stopping && told.get(&id) != Some(&state) {
                let time = step
                    .get("duration_ms")
                    .and_then(Value::as_u64)
                    .map_or_else(String::new, |ms| format!(" in {ms} ms"));
                app.output.note(&format!("{id}  {state}{time}"));
                told.insert(id, state);
            }
        }
        if over && left.is_zero() || shutdown.draining() {
            app.output.result(|| document.clone(), || show::run(&document));
            return Ok(match state.as_str() {
                "succeeded" => Exit::Done,
                _ if listening.interrupted() => Exit::Interrupted,
                _ => Exit::Failed,
            });
        }
        // Of a run that is over no end is to be heard of, but what its steps came to.
        let (awaited, at_most) = if over { (&[][..], left.min(WATCH)) } else { (std::slice::from_ref(&key), WATCH) };
        patience.ask(|| Ok(parts.ledger.over(awaited, Wait { seen, at_most })?))?;
    }
}

/// After the end of a run on which others worked: until what its running steps came to is recorded, for a second at
/// most. Who only waited for the end does not know which of its steps ran.
fn until_recorded(app: &App, run: &RunId, patience: &mut Patience<'_>) -> Result<(), Error> {
    let (parts, began) = (app.parts()?, Instant::now());
    loop {
        let seen = parts.ledger.wakes();
        let Some((steps, over_for)) = patience.ask(|| dovetail_flow::unrecorded(parts, run))? else { return Ok(()) };
        let left = WATCH.saturating_sub(began.elapsed());
        // It may have been over before anybody waited.
        if steps.is_empty() || left.is_zero() || over_for > app.config.lease {
            return Ok(());
        }
        patience.ask(|| Ok(parts.ledger.over(&[], Wait { seen, at_most: left })?))?;
    }
}

/// Steps of a run that is over which may still be stopping.
#[derive(Default)]
struct Stopping {
    steps: Vec<String>,
    /// How long that is waited for, from when the run was seen to be over.
    at_most: Duration,
}

/// One that was seen running is waited for as long as a lease: its worker may have died. One may have begun since the
/// last look, and what was running then is recorded soon.
fn stopping(
    parts: &Parts,
    run: &RunId,
    told: &BTreeMap<String, String>,
    lease: Duration,
) -> Result<Stopping, FlowError> {
    let (steps, over_for) = dovetail_flow::unrecorded(parts, run)?;
    let ran = steps.iter().any(|id| told.get(id).is_some_and(|state| state == "running"));
    let at_most = match steps.is_empty() {
        true => Duration::ZERO,
        false if ran => lease,
        // Of a run that is long over no attempt is on its way.
        false if told.is_empty() && over_for > WATCH => Duration::ZERO,
        false => WATCH,
    };
    Ok(Stopping { steps, at_most })
}
