//! Several runs in one command (`run --each`, `runs resume`): one table or one document for all runs.
//!
//! After the first run is submitted, standard output gets one document for all runs. The document is always completed:
//! an error is part of it.

use std::path::Path;

use dovetail_service::batch::{self, Batch, Several};
use dovetail_service::documents::{RunDocument, RunsDocument, RunsSummary, SubmittedFile, SubmittedFiles};
use dovetail_service::paths::Shown;
use dovetail_service::words::count;
use dovetail_service::{Error, RunId, Session, Shutdown, Work};

use crate::app::App;
use crate::commands::wait::{FRONT_DOOR, listen};
use crate::exit::{Exit, error_text};
use crate::output::{Format, pretty, value};
use crate::progress::Watcher;
use crate::table::table;

/// Whether the command has `--key`, so that the same command gives the same runs again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keyed {
    Yes,
    No,
}

/// Submits all runs, executes them until they are over, and prints them. `submit` submits or resumes the n-th run.
pub(crate) fn run_all(
    app: &App,
    several: &Several<'_>,
    keyed: Keyed,
    jobs: u32,
    submit: impl Fn(usize) -> Result<RunId, Error> + Send,
) -> Result<Exit, Error> {
    let shutdown = Shutdown::default();
    let watcher = Watcher::new(&app.output, several.len(), app.service.settings.is_fleet());
    let session =
        Session::begin(&app.service, Work { front_door: FRONT_DOOR, jobs, shutdown: &shutdown, observer: &watcher })?;
    let listening = listen(app, &shutdown)?;
    let mut printer = Printer { app, several, printed: 0, rows: Vec::new() };
    let batch = batch::run_all(session, several, submit, |n, document| printer.print(n, document))?;
    printer.close(keyed, batch, listening.interrupted())
}

/// Submits all runs for workers to execute, and prints the ID of each.
pub(crate) fn submit_only(
    app: &App,
    several: &Several<'_>,
    submit: impl Fn(usize) -> Result<RunId, Error>,
) -> Result<Exit, Error> {
    let mut runs = Vec::new();
    let error = batch::submit_only(several, submit, |n, run| {
        let submitted = SubmittedFile { run_id: run.clone(), file: several.file(n).map(Shown::text) };
        match app.output.format {
            Format::Json => runs.push(submitted),
            Format::Ndjson => app.output.text(&value(&submitted).to_string()),
            Format::Text => app.output.text(run.as_str()),
        }
    })?;
    if app.output.format == Format::Json {
        if let Some(error) = &error {
            app.output.note(&error_text(error));
        }
        let exit = if error.is_some() { Exit::HostFailed } else { Exit::Done };
        let error = error.as_ref().map(Error::body);
        app.output.text(&pretty(&value(&SubmittedFiles { runs, error })));
        return Ok(exit);
    }
    error.map_or(Ok(Exit::Done), Err)
}

/// Prints that there is no open run.
pub(crate) fn none(app: &App) -> Exit {
    let document = RunsDocument { runs: Vec::new(), summary: RunsSummary::default(), error: None };
    app.output.result(&document, || "no run is open\n".to_owned());
    Exit::Done
}

/// Prints documents as they arrive.
struct Printer<'a> {
    app: &'a App,
    several: &'a Several<'a>,
    printed: usize,
    rows: Vec<Vec<String>>,
}

impl Printer<'_> {
    fn print(&mut self, n: usize, document: &RunDocument) {
        let output = &self.app.output;
        match output.format {
            Format::Ndjson => output.text(&value(document).to_string()),
            Format::Json => {
                let before = if self.printed == 0 { "{\n  \"runs\": [\n" } else { ",\n" };
                output.raw(&format!("{before}    {}", pretty(&value(document)).replace('\n', "\n    ")));
            }
            Format::Text => self.rows.push(row(self.several.file(n), document)),
        }
        self.printed += 1;
    }

    /// Completes the document, and prints how to go on with open runs.
    fn close(self, keyed: Keyed, batch: Batch, interrupted: bool) -> Result<Exit, Error> {
        let output = &self.app.output;
        match output.format {
            Format::Json => output.raw(&self.json_end(&batch)),
            Format::Ndjson => {}
            Format::Text => output.text(&self.text(&batch.summary)),
        }
        if interrupted || batch.error.is_some() {
            self.say_how_to_go_on(keyed, &batch, interrupted);
        }
        let RunsSummary { failed, cancelled, open, not_submitted, .. } = batch.summary;
        match batch.error {
            Some(error) if output.format == Format::Json => {
                output.note(&error_text(&error));
                Ok(Exit::HostFailed)
            }
            Some(error) => Err(error),
            None if interrupted && open + not_submitted > 0 => Ok(Exit::Interrupted),
            None if failed + cancelled > 0 => Ok(Exit::Failed),
            None => Ok(Exit::Done),
        }
    }

    /// The rest of a [`RunsDocument`] after its runs were printed one by one.
    fn json_end(&self, batch: &Batch) -> String {
        let runs = if self.printed == 0 { "{\n  \"runs\": []" } else { "\n  ]" };
        let error = batch.error.as_ref().map_or_else(String::new, |error| {
            let error = pretty(&value(&error.body())).replace('\n', "\n  ");
            format!(",\n  \"error\": {error}")
        });
        format!("{runs},\n  \"summary\": {}{error}\n}}\n", value(&batch.summary))
    }

    fn text(&self, summary: &RunsSummary) -> String {
        let first = if matches!(self.several, Several::Files(_)) { "file" } else { "pipeline" };
        let table = table(&[first, "state", "time", "run", "error"], &self.rows);
        let ms = summary.total_time_ms;
        format!("{table}\n{} in {}.{} s\n", in_words(summary), ms / 1000, ms % 1000 / 100)
    }

    fn say_how_to_go_on(&self, keyed: Keyed, batch: &Batch, interrupted: bool) {
        let RunsSummary { open, not_submitted, .. } = batch.summary;
        let mut lines = Vec::new();
        if open > 0 {
            let (are, them) = if open == 1 { ("is", "it") } else { ("are", "them") };
            let again = self.app.again("runs resume --all");
            let how = if self.app.service.settings.is_fleet() {
                format!("the workers go on; wait for {them} again with\n  {again}")
            } else {
                format!("go on with {them} by\n  {again}")
            };
            lines.push(format!("{} {are} open; {how}", count(open, "run")));
        }
        if let (Several::Files(files), true) = (self.several, interrupted)
            && let Some(file) = files.get(batch.reached).filter(|_| not_submitted > 0)
        {
            let how = match keyed {
                Keyed::Yes => "the same command goes on with them",
                Keyed::No => "run --each again with these",
            };
            let left = files.len() - batch.reached;
            let were = if left == 1 { "was" } else { "were" };
            lines.push(format!("{} {were} not submitted, from `{}` on: {how}", count(left, "file"), file.shown()));
        }
        if !lines.is_empty() {
            let why = if interrupted { "interrupted; " } else { "" };
            self.app.output.note(&format!("{why}{}", lines.join("\n")));
        }
    }
}

fn row(file: Option<&Path>, document: &RunDocument) -> Vec<String> {
    let error = document.error.as_ref().map_or_else(String::new, |error| format!("{}: {}", error.code, error.message));
    vec![
        file.map_or_else(|| document.pipeline.clone(), Shown::text),
        document.state.name().to_owned(),
        document.processing_summary.total_time.clone().unwrap_or_default(),
        document.run_id.to_string(),
        error,
    ]
}

fn in_words(summary: &RunsSummary) -> String {
    let mut text = format!("{}: {} succeeded", count(summary.total, "run"), summary.succeeded);
    let rest = [
        (summary.failed, "failed"),
        (summary.cancelled, "cancelled"),
        (summary.open, "open"),
        (summary.not_submitted, "not submitted"),
    ];
    for (n, what) in rest.into_iter().filter(|(n, _)| *n > 0) {
        text.push_str(&format!(", {n} {what}"));
    }
    text
}
