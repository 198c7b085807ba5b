//! `run`: submits one run, or one run for each of many files, waits for the runs and prints their documents.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use dovetail_service::batch::Several;
use dovetail_service::documents::SubmittedRun;
use dovetail_service::files::look_at_artifact;
use dovetail_service::inputs::{Inputs, Type};
use dovetail_service::submit::{PipelineName, Submission};
use dovetail_service::{Error, RunId, Session, Shutdown, Work};
use serde_json::Value;

use crate::app::App;
use crate::args;
use crate::commands::several::{Keyed, run_all, submit_only};
use crate::commands::wait::{FRONT_DOOR, listen, wait_for};
use crate::exit::Exit;
use crate::inputs::{Each, Given, read_inputs, set_file};
use crate::progress::Watcher;

pub(crate) fn run(args: &args::Run, app: &App) -> Result<Exit, Error> {
    let given = Given::parse(&args.input)?;
    let each = Each::parse(&args.each)?;
    if let Some(each) = each.as_ref().filter(|each| given.names(&each.name)) {
        let message = format!("the input `{}` is given by --input and by --each", each.name);
        return Err(Error::usage("input_twice", message).help("give it once").detail("input", each.name.as_str()));
    }
    if args.key.as_deref() == Some("") {
        return Err(Error::usage("bad_option", "--key is empty").help("give a key, or leave --key out"));
    }
    let submission = app.service.submission(PipelineName::of(&args.pipeline)?)?;
    if !args.detach {
        submission.may_run_here()?;
    }
    let jobs = args.jobs.unwrap_or(app.service.settings.jobs);
    match each {
        None => one(app, &submission, &given, args, jobs),
        Some(each) => many(app, &submission, &given, &each, args, jobs),
    }
}

/// Submits one run and waits for it.
fn one(app: &App, submission: &Submission<'_>, given: &Given, args: &args::Run, jobs: u32) -> Result<Exit, Error> {
    let inputs = read_inputs(given, &submission.types)?;
    let values = submission.check(&inputs)?;
    let key = args.key.as_deref().map(str::as_bytes);
    app.service.look_for_artifacts(&inputs, &values)?;
    submission.choose_models()?;
    if args.detach {
        app.service.needs_worker(&app.output)?;
        let run_id = submission.submit(&inputs, values, key)?;
        app.output.result(&SubmittedRun { run_id: run_id.clone() }, || format!("{run_id}\n"));
        return Ok(Exit::Done);
    }
    let shutdown = Shutdown::default();
    let watcher = Watcher::new(&app.output, 1, app.service.settings.is_fleet());
    let session =
        Session::begin(&app.service, Work { front_door: FRONT_DOOR, jobs, shutdown: &shutdown, observer: &watcher })?;
    // From now on a signal interrupts the session, and does not end the process.
    let listening = listen(app, &shutdown)?;
    let run = submission.submit(&inputs, values, key)?;
    wait_for(app, session, &listening, &run)
}

/// Submits one run for each file, and waits for all runs. Every file is checked before the first submission, so that
/// nothing is recorded if a file is wrong.
fn many(
    app: &App,
    submission: &Submission<'_>,
    given: &Given,
    each: &Each,
    args: &args::Run,
    jobs: u32,
) -> Result<Exit, Error> {
    let ty = submission.types.ty(&each.name)?;
    // The other inputs are read once, since standard input cannot be read again.
    let common = read_inputs(given, &submission.types)?;
    let load = |file: &Path| -> Result<(Inputs, Value), Error> {
        let mut inputs = Inputs::of(common.values.clone());
        set_file(&mut inputs, &each.name, ty, file)?;
        let values = submission.check(&inputs).map_err(|error| error.of_file(file))?;
        Ok((inputs, values))
    };
    // JSON files are all read and checked. Of pictures and artifacts only the first is read, to check the other inputs;
    // the rest need only be readable.
    for (n, file) in each.files.iter().enumerate() {
        if n > 0 && is_bytes(ty) {
            look_at_artifact(file)?;
        } else {
            load(file)?;
        }
    }
    app.service.look_for_artifacts(&common, &Value::from(common.values.clone()))?;
    submission.choose_models()?;
    if args.detach {
        app.service.needs_worker(&app.output)?;
    }
    app.service.store_inputs(&common)?;
    let submit_one = |n: usize| -> Result<RunId, Error> {
        let file = &each.files[n];
        let (inputs, values) = load(file)?;
        app.service.look_for_artifacts(&inputs, &values).map_err(|error| error.of_file(file))?;
        // The key contains the bytes of the path: a lossy conversion could give two files the same key.
        let key = args.key.as_ref().map(|key| [key.as_bytes(), b"\0", file.as_os_str().as_bytes()].concat());
        submission.submit(&inputs, values, key.as_deref()).map_err(|error| error.of_file(file))
    };
    let several = Several::Files(&each.files);
    if args.detach {
        return submit_only(app, &several, submit_one);
    }
    let keyed = if args.key.is_some() { Keyed::Yes } else { Keyed::No };
    run_all(app, &several, keyed, jobs, submit_one)
}

fn is_bytes(ty: &Type) -> bool {
    matches!(ty, Type::Image | Type::Artifact)
        || matches!(ty, Type::Option(inner) if matches!(**inner, Type::Image | Type::Artifact))
}
