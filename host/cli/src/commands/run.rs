//! `run`: submits one run, or one for each of many files, works on them in this process and prints their documents.

use std::path::{Path, PathBuf};
use std::time::Instant;

use dovetail_core::RunId;
use dovetail_core::pipeline::Severity;
use dovetail_core::wit::Type;
use dovetail_flow::{Published, Pushed};
use serde_json::{Value, json};

use crate::args;
use crate::commands::pipeline::{checked_file, is_file};
use crate::error::{Error, Exit};
use crate::inputs::{Each, Expected, Given, Loaded};
use crate::output::{Format, pretty};
use crate::show;
use crate::table::table;
use crate::wire::App;
use crate::work::work;

pub(crate) fn run(args: &args::Run, app: &App) -> Result<Exit, Error> {
    let given = Given::parse(&args.input)?;
    let each = Each::parse(&args.each)?;
    if let Some(each) = each.as_ref().filter(|each| given.names(&each.name)) {
        let message = format!("the input `{}` is given by --input and by --each", each.name);
        return Err(Error::usage("input_twice", message).help("give it once").detail("input", each.name.as_str()));
    }
    if args.key.as_deref() == Some("") {
        return Err(Error::usage("bad_option", "--key is empty").help("name the submission, or leave --key out"));
    }
    let published = published(&args.pipeline, app)?;
    let jobs = args.jobs.unwrap_or(app.config.jobs);
    match each {
        None => {
            let run = one(app, &published, &given, args.key.as_deref())?;
            wait_for(app, &run, jobs)
        }
        Some(each) => {
            let runs = many(app, &published, &given, &each, args.key.as_deref())?;
            wait_for_all(app, &runs, jobs)
        }
    }
}

/// The pipeline of this name; of a file, checked and published.
fn published(reference: &str, app: &App) -> Result<Published, Error> {
    if !is_file(reference) {
        return Ok(dovetail_flow::pipeline(app.parts_to_read()?, reference)?);
    }
    let checked = checked_file(app, Path::new(reference))?;
    match checked.pipeline {
        Some(pipeline) => Ok(dovetail_flow::push_pipeline(app.parts()?, &pipeline)?.0),
        None => {
            let errors: Vec<_> = checked.findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
            let mut message = format!("the pipeline `{reference}` has errors");
            for finding in &errors {
                message.push_str(&format!("\n{reference}:{finding}"));
            }
            let found: Vec<Value> = errors.iter().map(|finding| finding.to_json()).collect();
            Err(Error::usage("bad_pipeline", message).help("correct the file; `dovetail pipeline check` finds the same").detail("errors", found))
        }
    }
}

fn run_id(published: &Published, key: Option<&str>) -> Result<RunId, Error> {
    match key {
        Some(key) => Ok(dovetail_flow::keyed_run_id(&published.pipeline.name, key)),
        None => Ok(dovetail_flow::new_run_id()?),
    }
}

fn one(app: &App, published: &Published, given: &Given, key: Option<&str>) -> Result<RunId, Error> {
    let expected = Expected::of_pipeline(&published.pipeline);
    let loaded = Loaded::read(given, &expected)?;
    let inputs = published.pipeline.resolve_inputs(&loaded.values).map_err(|errors| expected.misfits(&errors))?;
    let parts = app.parts()?;
    loaded.store(&inputs, parts.blobs.as_ref())?;
    let run = run_id(published, key)?;
    if dovetail_flow::submit(parts, published, &inputs, &run)? == Pushed::Same {
        tracing::info!(%run, "submitted before");
    }
    Ok(run)
}

/// One run a file, in their order.
fn many(app: &App, published: &Published, given: &Given, each: &Each, key: Option<&str>) -> Result<Vec<(PathBuf, RunId)>, Error> {
    let expected = Expected::of_pipeline(&published.pipeline);
    let ty = expected.ty(&each.name)?;
    let load = |file: &Path| -> Result<(Loaded, Value), Error> {
        let mut loaded = Loaded::read(given, &expected)?;
        loaded.set_file(&each.name, ty, file)?;
        let inputs = published.pipeline.resolve_inputs(&loaded.values).map_err(|errors| expected.misfits(&errors).of_file(file))?;
        Ok((loaded, inputs))
    };
    // Nothing is recorded if anything is wrong: files that are values are all looked at first; of pictures the first shows whether the rest fits.
    let is_bytes = matches!(ty, Type::Image | Type::Artifact) || matches!(ty, Type::Option(inner) if matches!(**inner, Type::Image | Type::Artifact));
    for file in if is_bytes { &each.files[..1] } else { &each.files[..] } {
        load(file)?;
    }
    let parts = app.parts()?;
    let mut runs = Vec::with_capacity(each.files.len());
    for file in &each.files {
        let (loaded, inputs) = load(file)?;
        loaded.store(&inputs, parts.blobs.as_ref())?;
        let run = run_id(published, key.map(|key| format!("{key}\0{}", file.display())).as_deref())?;
        dovetail_flow::submit(parts, published, &inputs, &run)?;
        runs.push((file.clone(), run));
    }
    Ok(runs)
}

/// Works on one run until it is over, and prints its document.
pub(crate) fn wait_for(app: &App, run: &RunId, jobs: u32) -> Result<Exit, Error> {
    let interrupted = work(app, std::slice::from_ref(run), jobs, |_| Ok(()))?;
    let document = dovetail_flow::document(app.parts()?, run)?;
    let state = state_of(&document);
    app.output.result(|| document.clone(), || show::run(&document));
    Ok(match state {
        "succeeded" => Exit::Done,
        "failed" | "cancelled" => Exit::Failed,
        // Neither over nor interrupted cannot be: work waits for the end.
        _ => {
            if interrupted {
                app.output.note(&format!("interrupted; go on with\n  {}", resume_line(app, run)));
            }
            Exit::Interrupted
        }
    })
}

fn resume_line(app: &App, run: &RunId) -> String {
    format!("dovetail --data {} runs resume {run}", app.config.data.display())
}

fn state_of(document: &Value) -> &str {
    document.get("state").and_then(Value::as_str).unwrap_or_default()
}

/// Works on all of them, and prints their documents in the order of the files.
fn wait_for_all(app: &App, runs: &[(PathBuf, RunId)], jobs: u32) -> Result<Exit, Error> {
    let began = Instant::now();
    let parts = app.parts()?;
    let ids: Vec<RunId> = runs.iter().map(|(_, run)| run.clone()).collect();
    let mut over = std::collections::BTreeSet::new();
    let mut printed = 0;
    let mut tally = Tally::default();
    let mut rows = Vec::new();
    let mut print_next = |run: &RunId, first: bool| -> Result<(), Error> {
        let document = dovetail_flow::document(parts, run)?;
        tally.count(state_of(&document));
        match app.output.format {
            Format::Ndjson => app.output.text(&document.to_string()),
            Format::Json => {
                let text = pretty(&document).replace('\n', "\n    ");
                app.output.raw(&format!("{}    {text}", if first { "" } else { ",\n" }));
            }
            Format::Text => rows.push(row(&runs[rows.len()].0, run, &document)),
        }
        Ok(())
    };
    if app.output.format == Format::Json {
        app.output.raw("{\n  \"runs\": [\n");
    }
    // In the order of the files: a run is printed when all before it have been.
    let interrupted = work(app, &ids, jobs, |run| {
        over.insert(run.clone());
        while let Some(next) = ids.get(printed).filter(|run| over.contains(*run)) {
            print_next(next, printed == 0)?;
            printed += 1;
        }
        Ok(())
    })?;
    for run in &ids[printed..] {
        print_next(run, printed == 0)?;
        printed += 1;
    }
    let wall_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    match app.output.format {
        Format::Json => app.output.raw(&format!("\n  ],\n  \"summary\": {}\n}}\n", tally.to_json(wall_ms))),
        Format::Ndjson => {}
        Format::Text => {
            let seconds = format!("{}.{} s", wall_ms / 1000, wall_ms % 1000 / 100);
            let text = table(&["file", "state", "time", "run", "error"], &rows);
            app.output.text(&format!("{text}\n{} in {seconds}\n", tally.to_text()));
        }
    }
    if interrupted && tally.open > 0 {
        let open = ids.iter().find(|run| !over.contains(*run));
        if let Some(run) = open {
            app.output.note(&format!(
                "interrupted; {} runs are open, `dovetail runs list` shows them; go on with each by\n  {}",
                tally.open,
                resume_line(app, run)
            ));
        }
        return Ok(Exit::Interrupted);
    }
    Ok(if tally.failed + tally.cancelled > 0 { Exit::Failed } else { Exit::Done })
}

fn row(file: &Path, run: &RunId, document: &Value) -> Vec<String> {
    let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let error = match (text("/error/code"), text("/error/message")) {
        (code, _) if code.is_empty() => String::new(),
        (code, message) => format!("{code}: {message}"),
    };
    vec![file.display().to_string(), text("/state"), text("/processing_summary/total_time"), run.to_string(), error]
}

#[derive(Debug, Default)]
struct Tally {
    succeeded: usize,
    failed: usize,
    cancelled: usize,
    open: usize,
}

impl Tally {
    fn count(&mut self, state: &str) {
        match state {
            "succeeded" => self.succeeded += 1,
            "failed" => self.failed += 1,
            "cancelled" => self.cancelled += 1,
            _ => self.open += 1,
        }
    }

    fn total(&self) -> usize {
        self.succeeded + self.failed + self.cancelled + self.open
    }

    fn to_json(&self, wall_ms: u64) -> Value {
        json!({
            "total": self.total(), "succeeded": self.succeeded, "failed": self.failed, "cancelled": self.cancelled, "open": self.open,
            "total_time_ms": wall_ms,
        })
    }

    fn to_text(&self) -> String {
        let mut text = format!("{} runs: {} succeeded", self.total(), self.succeeded);
        for (n, what) in [(self.failed, "failed"), (self.cancelled, "cancelled"), (self.open, "open")] {
            if n > 0 {
                text.push_str(&format!(", {n} {what}"));
            }
        }
        text
    }
}
