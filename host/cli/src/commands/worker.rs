//! `worker` and `up` run a worker until SIGTERM. `workers` lists the living workers.

use dovetail_service::documents::WorkerDocument;
use dovetail_service::words::{bytes, count};
use dovetail_service::worker::{WorkerRequest, now_ms};
use dovetail_service::{Error, Shutdown};

use crate::app::App;
use crate::args::{WorkerArgs, Workers};
use crate::exit::Exit;
use crate::signals::{self, SignalWords};
use crate::table::table;

pub(crate) fn run(args: &WorkerArgs, app: &App) -> Result<Exit, Error> {
    let request = WorkerRequest { jobs: args.jobs.unwrap_or(app.service.settings.jobs), name: args.name.clone() };
    request.check()?;
    // The handler of signals is installed after the stores are open, so that until then a signal ends the process at
    // once.
    app.service.ports()?;
    let shutdown = Shutdown::default();
    let quit = SignalWords {
        drain: "stopping: running steps finish, and no new steps start; a second signal stops them at once",
        abort: "stopping at once",
    };
    let _listening = signals::listen(shutdown.clone(), quit, |note| tracing::info!("{note}"))?;
    app.service.work(&request, &shutdown)?;
    Ok(Exit::Done)
}

pub(crate) fn workers(command: &Workers, app: &App) -> Result<Exit, Error> {
    let Workers::List = command;
    let now = now_ms();
    let living = app.service.list_workers(&app.output)?;
    app.output.result(&living, || {
        if living.is_empty() {
            return "no worker is alive; start one with `dovetail worker`\n".to_owned();
        }
        let rows: Vec<_> = living.iter().map(|worker| row(worker, &living, now)).collect();
        table(&["worker", "host", "version", " running", " steps", " rate", " memory", "serves", " seen"], &rows)
    });
    Ok(Exit::Done)
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn row(worker: &WorkerDocument, living: &[WorkerDocument], now_ms: u64) -> Vec<String> {
    let WorkerDocument { status, name } = worker;
    let models = count(worker.models(), "model");
    // Two workers may have the same name.
    let is_alone = living.iter().filter(|other| other.name == *name).count() == 1;
    let process = || status.process.map_or_else(String::new, |process| process.to_string());
    vec![
        if is_alone { name.clone() } else { format!("{name} (process {})", process()) },
        status.host.clone().unwrap_or_default(),
        status.version.clone().unwrap_or_default(),
        format!("{}/{}", status.running.unwrap_or(0), status.slots.unwrap_or(0)),
        status.ended.unwrap_or(0).to_string(),
        format!("{:.1}/s", status.rate.unwrap_or(0.0)),
        bytes(status.memory.unwrap_or(0)),
        worker.grants().map(str::to_owned).chain([models]).collect::<Vec<_>>().join(" "),
        format!("{:.1} s ago", now_ms.saturating_sub(status.seen_ms.unwrap_or(0)) as f64 / 1000.0),
    ]
}
