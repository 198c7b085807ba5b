//! `run`: submits one run, or one for each of many files, works on them in this process and prints their documents.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use dovetail_core::RunId;
use dovetail_core::executor::Models;
use dovetail_core::pipeline::Severity;
use dovetail_core::wit::Type;
use dovetail_flow::{Published, Pushed};
use serde_json::{Value, json};

use crate::args;
use crate::commands::models::share::chosen;
use crate::commands::pipeline::{Named, checked_file};
use crate::commands::several::{Several, run_all, submit_only};
use crate::commands::wait::{needs_worker, wait_for};
use crate::error::{Error, Exit};
use crate::grants;
use crate::inputs::{Each, Expected, Given, Loaded, look_at_artifact};
use crate::paths::Shown as _;
use crate::wire::App;
use crate::work::Session;

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
    if !args.detach {
        grants::of_steps(&app.config, &published.pipeline.steps)?;
    }
    let jobs = args.jobs.unwrap_or(app.config.jobs);
    match each {
        None => one(app, &published, &given, args, jobs),
        Some(each) => many(app, &published, &given, &each, args, jobs),
    }
}

/// The pipeline of this name; of a file, checked and published.
fn published(reference: &OsStr, app: &App) -> Result<Published, Error> {
    let file = match Named::of(reference)? {
        Named::Published(name) => return Ok(dovetail_flow::pipeline(app.parts_to_read()?, name)?),
        Named::File(file) => file,
    };
    let (checked, reference) = (checked_file(app, file)?, file.shown());
    match checked.pipeline {
        Some(pipeline) => Ok(dovetail_flow::push_pipeline(app.parts()?, &pipeline)?.0),
        None => {
            let errors: Vec<_> =
                checked.findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
            let mut message = format!("the pipeline `{reference}` has errors");
            for finding in &errors {
                message.push_str(&format!("\n{reference}:{finding}"));
            }
            let found: Vec<Value> = errors.iter().map(|finding| finding.to_json()).collect();
            Err(Error::usage("bad_pipeline", message)
                .help("correct the file; `dovetail pipeline check` finds the same")
                .detail("errors", found))
        }
    }
}

fn run_id(published: &Published, key: Option<&[u8]>) -> Result<RunId, Error> {
    match key {
        Some(key) => Ok(dovetail_flow::keyed_run_id(&published.pipeline.name, key)),
        None => Ok(dovetail_flow::new_run_id()?),
    }
}

/// Submits a run with the models that were chosen for it.
fn submit(app: &App, published: &Published, models: &Models, inputs: Value, run: &RunId) -> Result<Pushed, Error> {
    let answers = dovetail_flow::submit_with(app.parts()?, published, models, vec![(run.clone(), inputs)])?;
    Ok(answers.into_iter().next().unwrap_or(Ok(Pushed::Created))?)
}

/// Submits one run and waits for it.
fn one(app: &App, published: &Published, given: &Given, args: &args::Run, jobs: u32) -> Result<Exit, Error> {
    let expected = Expected::of_pipeline(&published.pipeline);
    let loaded = Loaded::read(given, &expected)?;
    let inputs = published.pipeline.resolve_inputs(&loaded.values).map_err(|errors| expected.misfits(&errors))?;
    let (parts, models) = (app.parts()?, chosen(app, &published.pipeline)?);
    if args.detach {
        needs_worker(app)?;
        loaded.store(&inputs, parts.blobs.as_ref())?;
        let run = run_id(published, args.key.as_deref().map(str::as_bytes))?;
        submit(app, published, &models, inputs, &run)?;
        app.output.result(|| json!({ "run_id": run }), || format!("{run}\n"));
        return Ok(Exit::Done);
    }
    let session = Session::begin(app, 1, jobs)?;
    loaded.store(&inputs, parts.blobs.as_ref())?;
    let run = run_id(published, args.key.as_deref().map(str::as_bytes))?;
    if submit(app, published, &models, inputs, &run)? == Pushed::Same {
        tracing::info!(%run, "submitted before");
    }
    wait_for(app, session, &run)
}

/// Submits one run a file and waits for them all. Every file is looked at before the first submission: nothing is
/// recorded if anything is wrong.
fn many(
    app: &App,
    published: &Published,
    given: &Given,
    each: &Each,
    args: &args::Run,
    jobs: u32,
) -> Result<Exit, Error> {
    let expected = Expected::of_pipeline(&published.pipeline);
    let ty = expected.ty(&each.name)?;
    // Read once: standard input cannot be read again.
    let common = Loaded::read(given, &expected)?;
    let values = common.values.clone();
    let load = |file: &Path| -> Result<(Loaded, Value), Error> {
        let mut loaded = Loaded::of(values.clone());
        loaded.set_file(&each.name, ty, file)?;
        let inputs = published
            .pipeline
            .resolve_inputs(&loaded.values)
            .map_err(|errors| expected.misfits(&errors).of_file(file))?;
        Ok((loaded, inputs))
    };
    // Files that are values are all read; of pictures the first shows whether the rest fits, and the others need only
    // be readable.
    for (n, file) in each.files.iter().enumerate() {
        if n > 0 && is_bytes(ty) {
            look_at_artifact(file)?;
        } else {
            load(file)?;
        }
    }
    let (parts, models) = (app.parts()?, chosen(app, &published.pipeline)?);
    if args.detach {
        needs_worker(app)?;
    }
    common.store(&Value::from(values.clone()), parts.blobs.as_ref())?;
    let submit_one = |n: usize| -> Result<RunId, Error> {
        let file = &each.files[n];
        let (loaded, inputs) = load(file)?;
        // Two names that are not UTF-8 are two keys.
        let key = args.key.as_ref().map(|key| [key.as_bytes(), b"\0", file.as_os_str().as_bytes()].concat());
        let run = run_id(published, key.as_deref())?;
        loaded.store(&inputs, parts.blobs.as_ref())?;
        submit(app, published, &models, inputs, &run).map_err(|error| error.of_file(file))?;
        Ok(run)
    };
    let several = Several::Files { files: &each.files, keyed: args.key.is_some() };
    if args.detach { submit_only(app, &several, submit_one) } else { run_all(app, &several, jobs, submit_one) }
}

fn is_bytes(ty: &Type) -> bool {
    matches!(ty, Type::Image | Type::Artifact)
        || matches!(ty, Type::Option(inner) if matches!(**inner, Type::Image | Type::Artifact))
}
