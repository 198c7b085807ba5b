//! `task run`: executes a single task under the limits that it has in a pipeline. Nothing is recorded.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dovetail_service::documents::{LogLine, TaskRun, TaskRunState};
use dovetail_service::paths::Shown as _;
use dovetail_service::plugins::{TaskToTry, Trial};
use dovetail_service::words::bytes;
use dovetail_service::{Canceller, Error, Limits};

use super::check::refused;
use crate::app::App;
use crate::exit::Exit;
use crate::inputs::{Given, read_inputs};
use crate::output::shortened;
use crate::results::{holds, targets};
use crate::show;
use crate::signals;
use crate::table::indented;

/// The arguments.
pub(super) struct Request<'a> {
    pub(super) task: &'a OsStr,
    pub(super) input: &'a [OsString],
    pub(super) grant: &'a [String],
    pub(super) save: Option<&'a Path>,
}

pub(super) fn run(app: &App, request: &Request<'_>) -> Result<Exit, Error> {
    let given = Given::parse(request.input)?;
    let trial = match app.service.trial(TaskToTry::of(request.task)?, request.grant)? {
        Ok(trial) => trial,
        Err(findings) => return Ok(refused(app, Path::new(request.task), &findings)),
    };
    let inputs = read_inputs(&given, &trial.types())?;
    let values = trial.take(&inputs)?;
    let canceller = Arc::new(Canceller::new());
    let listening = signals::cancel(canceller.clone())?;
    let mut attempted = trial.attempt(values, &canceller, |line| app.output.note(&log_text(line)))?;
    drop(listening);
    let run = &mut attempted.run;
    if let (TaskRunState::Succeeded, Some(folder)) = (run.state, request.save) {
        run.saved = save(&trial, run, folder)?;
    }
    app.output.result(run, || report(run, &trial.limits));
    Ok(match run.state {
        TaskRunState::Succeeded => Exit::Done,
        TaskRunState::Failed if attempted.cancelled => Exit::Interrupted,
        TaskRunState::Failed => Exit::Failed,
    })
}

fn log_text(line: &LogLine) -> String {
    let fields: String = line.fields.iter().map(|(name, value)| format!("  {name}={value}")).collect();
    format!("{:5}  {}{fields}", line.level, line.message)
}

/// Writes each artifact of the output. An existing file with the same content stays. All paths are checked before the
/// first artifact is written.
fn save(trial: &Trial<'_>, run: &TaskRun, folder: &Path) -> Result<Vec<String>, Error> {
    let artifacts = trial.artifacts(&run.output)?;
    let saved: Vec<(PathBuf, Vec<u8>)> =
        artifacts.into_iter().map(|(name, content)| (folder.join(name), content)).collect();
    let missing = saved.iter().filter(|(path, content)| !holds(path, content)).map(|(path, _)| path.clone());
    let targets = targets(missing, |_, _| Ok(false), "name another folder with --save, or move these files away")?;
    dovetail_service::make_folder(folder).map_err(|e| Error::write(folder, e))?;
    for target in targets {
        if let Some((path, content)) = saved.iter().find(|(path, _)| *path == target.path)
            && !holds(path, content)
        {
            target.write(content)?;
        }
    }
    Ok(saved.into_iter().map(|(path, _)| path.text()).collect())
}

fn report(run: &TaskRun, limits: &Limits) -> String {
    let mut text = match &run.error {
        None => format!("{}  succeeded\n\noutput\n{}", run.task, indented(&shortened(&run.output), 2)),
        Some(failure) => format!("{}  failed\n\n{}", run.task, show::attempt_failure(failure)),
    };
    let usage = &run.usage;
    let ms = |us: u64| format!("{}.{:03} ms", us / 1000, us % 1000);
    text.push_str("\nused\n");
    text.push_str(&format!(
        "  time    {} of {} ms, {} of it in the host\n",
        ms(usage.wall_us),
        limits.time_ms,
        ms(usage.host_us)
    ));
    text.push_str(&format!("  guest   {} of the processor\n", ms(usage.guest_cpu_us)));
    text.push_str(&format!("  memory  {} of {}\n", bytes(usage.peak_memory), bytes(limits.memory)));
    text.push_str(&format!("  input   {}\n", bytes(usage.input_bytes)));
    text.push_str(&format!("  output  {} of {}\n", bytes(usage.output_bytes), bytes(limits.output)));
    for (name, calls) in &usage.host_calls {
        text.push_str(&format!("  calls   {calls:>4} x {name}\n"));
    }
    for model in &run.models {
        text.push_str(&format!("  model   {}  {}\n", model.name, model.digest));
    }
    if run.log_dropped > 0 {
        let limit = bytes(limits.log);
        text.push_str(&format!("  log     {} lines were dropped, over the limit of {limit}\n", run.log_dropped));
    }
    for warning in &run.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    for path in &run.saved {
        text.push_str(&format!("saved {path}\n"));
    }
    text
}
