//! Waiting for one run: prints the run's document, or after an interruption the command that waits for the run again.

use dovetail_service::documents::{RunDocument, RunStatus};
use dovetail_service::{Error, RunId, Session, Shutdown};

use crate::app::App;
use crate::exit::Exit;
use crate::show;
use crate::signals::{self, Listening, SignalWords};

/// The name of this front door in records: a worker of this process is called `cli-PID`.
pub(crate) const FRONT_DOOR: &str = "cli";

/// Drains the session on signals.
pub(crate) fn listen(app: &App, shutdown: &Shutdown) -> Result<Listening, Error> {
    let words = if app.service.settings.is_fleet() { SignalWords::WAITING } else { SignalWords::WORKING };
    let notes = app.output.notes();
    signals::listen(shutdown.clone(), words, move |note| notes.note(note))
}

/// The command that goes on with a run after an interruption. In a fleet the workers go on meanwhile, which the text of
/// the signal says.
pub(crate) fn how_to_go_on(app: &App, run: &RunId) -> String {
    if app.service.settings.is_fleet() {
        return format!("wait for it again with\n  {}", app.again(&format!("runs watch {run}")));
    }
    format!("interrupted; go on with\n  {}", app.again(&format!("runs resume {run}")))
}

/// Executes one run until it is over, and prints its document.
pub(crate) fn wait_for(app: &App, mut session: Session<'_>, listening: &Listening, run: &RunId) -> Result<Exit, Error> {
    let document = session.finish(run)?;
    let exit = match document.as_ref().map(|document| document.state) {
        Some(RunStatus::Succeeded) => Exit::Done,
        Some(RunStatus::Failed | RunStatus::Cancelled) => Exit::Failed,
        // The session works until the run is over or an interruption comes, so that an open run was interrupted.
        Some(RunStatus::Queued | RunStatus::Running) | None => Exit::Interrupted,
    };
    if let Some(document) = document {
        print(app, &document);
    }
    if exit == Exit::Interrupted && listening.interrupted() {
        app.output.note(&how_to_go_on(app, run));
    }
    Ok(exit)
}

fn print(app: &App, document: &RunDocument) {
    app.output.result(document, || show::run(document));
}

/// Prints the state changes of a run's steps as they happen, and the run's document when the run is over and its
/// running steps have stopped.
pub(crate) fn watch(app: &App, run: &RunId) -> Result<Exit, Error> {
    let shutdown = Shutdown::default();
    let listening = signals::listen(shutdown.clone(), SignalWords::WAITING, |_| ())?;
    let document = app.service.watch(run, &shutdown, &app.output, |step| {
        let time = step.duration_ms.map_or_else(String::new, |ms| format!(" in {ms} ms"));
        app.output.note(&format!("{}  {}{time}", step.id, step.state.name()));
    })?;
    let Some(document) = document else {
        app.output.note(&how_to_go_on(app, run));
        return Ok(Exit::Interrupted);
    };
    print(app, &document);
    Ok(match document.state {
        RunStatus::Succeeded => Exit::Done,
        _ if listening.interrupted() => Exit::Interrupted,
        _ => Exit::Failed,
    })
}
