//! `task run`: one task alone, under the limits that it has in a pipeline. Nothing is recorded: packages and artifacts
//! go to a folder that is removed afterwards.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dovetail_core::Digest;
use dovetail_core::blobs::{ArtifactRef, BlobKind, Blobs};
use dovetail_core::executor::{Attempt, Executor as _, LogLine, Outcome, Report};
use dovetail_core::limits::Limits;
use dovetail_core::record::PluginRecord;
use dovetail_core::stop::Canceller;
use dovetail_core::wit::Signature;
use dovetail_core::wit::json::check_record;
use dovetail_runtime::Live;
use dovetail_stores::FileBlobs;
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::check::{look, refused};
use super::scratch::Scratch;
use super::{all_asked_for, allowed, asked};
use crate::error::{Error, Exit};
use crate::grants;
use crate::inputs::{Expected, Given, Loaded};
use crate::media::extension;
use crate::output::shortened;
use crate::paths::Shown as _;
use crate::plugin::Stale;
use crate::results::{holds, targets};
use crate::show;
use crate::table::{bytes, indented};
use crate::wire::App;
use crate::work::start;

/// The largest artifact that `--save` writes, in bytes.
const MAX_SAVED: u64 = 1 << 30;

/// What was typed.
pub(super) struct What<'a> {
    pub(super) task: &'a OsStr,
    pub(super) input: &'a [OsString],
    pub(super) grant: &'a [String],
    pub(super) save: Option<&'a Path>,
}

struct Ready {
    name: String,
    signature: Signature,
    limits: Limits,
    package: Digest,
    /// Of which its component opens a model.
    model_kinds: Vec<String>,
}

pub(super) fn run(app: &App, what: &What<'_>) -> Result<Exit, Error> {
    let given = Given::parse(what.input)?;
    let folder = tempfile::Builder::new()
        .prefix("dovetail-")
        .tempdir()
        .map_err(|e| Error::host("temporary_folder", "make a temporary folder").cause(e))?;
    let above: Arc<dyn Blobs> = Arc::new(FileBlobs::new(folder.path()));
    let blobs: Arc<dyn Blobs> = Arc::new(Scratch { above, below: Arc::new(FileBlobs::new(&app.config.data)) });
    let ready = match prepare(app, what, blobs.as_ref())? {
        Ok(ready) => ready,
        Err(exit) => return Ok(exit),
    };
    let expected = Expected::of_task(&ready.name, &ready.signature);
    let loaded = Loaded::read(&given, &expected)?;
    let input = check_record(&ready.signature.input, &Value::from(loaded.values.clone()))
        .map_err(|errors| expected.misfits(&errors))?;
    loaded.store(&input, blobs.as_ref())?;
    let (report, interrupted) = attempt(app, &ready, input, blobs.clone())?;
    let saved = match (&report.outcome, what.save) {
        (Outcome::Succeeded { output }, Some(folder)) => save(blobs.as_ref(), output, folder)?,
        _ => Vec::new(),
    };
    app.output.result(|| report_json(&ready, &report, &saved), || report_text(&ready, &report, &saved));
    Ok(match report.outcome {
        Outcome::Succeeded { .. } => Exit::Done,
        Outcome::Failed { .. } if interrupted => Exit::Interrupted,
        Outcome::Failed { .. } => Exit::Failed,
    })
}

/// The task of this name or path, its package stored in `blobs`.
fn prepare(app: &App, what: &What<'_>, blobs: &dyn Blobs) -> Result<Result<Ready, Exit>, Error> {
    let path = Path::new(what.task);
    let is_path = what.task.as_bytes().contains(&b'/')
        || what.task.as_bytes().starts_with(b".")
        || path.extension().is_some_and(|extension| extension == "zip" || extension == "wasm");
    if !is_path {
        let name = what.task.to_str().ok_or_else(|| {
            Error::usage("unknown_task", format!("`{}` is no name of a task", what.task.shown()))
                .help("see `dovetail task list`; for a folder, write ./FOLDER")
        })?;
        let record = dovetail_flow::plugin(app.parts_to_read()?, name)?;
        // What it may reach was decided when it was published.
        all_asked_for(what.grant, &[])?;
        let name = format!("{}@{}", record.name, record.version);
        grants::of_task(&app.config, &name, record.grants.keys().cloned())?;
        let PluginRecord { signature, limits, package, model_kinds, .. } = record;
        return Ok(Ok(Ready { name, signature, limits, package, model_kinds }));
    }
    let good = match look(&app.compiler()?, path, None, Stale::Warned)? {
        Ok(good) => good,
        Err(findings) => return Ok(Err(refused(app, path, &findings))),
    };
    all_asked_for(what.grant, &asked(&good.manifest.grants))?;
    allowed(&good.manifest.name, &good.manifest.grants, what.grant, None)?;
    grants::of_task(&app.config, &good.manifest.name, what.grant.iter().cloned())?;
    let package = blobs.put(BlobKind::Package, &good.package)?;
    let name = format!("{}@{}", good.manifest.name, good.manifest.version);
    let model_kinds = good.description.opens.iter().map(|kind| kind.name().to_owned()).collect();
    Ok(Ok(Ready { name, signature: good.description.signature, limits: good.manifest.limits, package, model_kinds }))
}

fn attempt(app: &App, ready: &Ready, input: Value, blobs: Arc<dyn Blobs>) -> Result<(Report, bool), Error> {
    let (tell, heard) = std::sync::mpsc::channel::<String>();
    let live: dovetail_runtime::LiveSink = Arc::new(move |_: &Attempt, live: Live<'_>| {
        if let Live::Log(line) = live {
            drop(tell.send(log_text(line)));
        }
    });
    let runtime = app.runtime(blobs, 1, Some(live))?;
    let run = dovetail_flow::new_run_id()?;
    let kinds: Vec<&str> = ready.model_kinds.iter().map(String::as_str).collect();
    let attempt = Attempt {
        idempotency_key: run.to_string(),
        run,
        step: "task".to_owned(),
        number: 1,
        package: ready.package,
        input,
        origins: BTreeMap::new(),
        limits: ready.limits,
        models: runtime.choose_models(&kinds)?,
    };
    let canceller = Canceller::new();
    let stop = canceller.stop();
    let failed = |e: std::io::Error| Error::host("signals", "listen to signals").cause(e);
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let handle = signals.handle();
    let report = std::thread::scope(|threads| {
        start(threads, "signals", || {
            for signal in signals.forever() {
                if canceller.stop().cancelled() {
                    drop(signal_hook::low_level::emulate_default_handler(signal));
                }
                canceller.cancel();
            }
        })?;
        let working = start(threads, "task", move || {
            let report = runtime.execute(&attempt, &stop);
            // The runtime holds the sender of log lines: with it the loop below ends.
            drop(runtime);
            report
        })
        .inspect_err(|_| handle.close())?;
        for line in heard {
            app.output.note(&line);
        }
        let report = working.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        handle.close();
        Ok::<_, Error>(report?)
    })?;
    Ok((report, canceller.stop().cancelled()))
}

fn log_text(line: &LogLine) -> String {
    let fields: String = line.fields.iter().map(|(name, value)| format!("  {name}={value}")).collect();
    format!("{:5}  {}{fields}", line.level, line.message)
}

/// Writes each artifact of `output`, named by the beginning of its digest and by its type. One that is there already
/// stays. All places are looked at before the first artifact is written.
fn save(blobs: &dyn Blobs, output: &Value, folder: &Path) -> Result<Vec<String>, Error> {
    let mut saved: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    for artifact in ArtifactRef::all_in(output) {
        let content = blobs.get(BlobKind::Artifact, &artifact.digest, MAX_SAVED)?;
        let name = format!("{}.{}", &artifact.digest.hex()[..16], extension(&artifact.media_type));
        saved.push((folder.join(name), content));
    }
    saved.dedup();
    let missing = saved.iter().filter(|(path, content)| !holds(path, content)).map(|(path, _)| path.clone());
    let targets = targets(missing, |_, _| Ok(false), "name another folder with --save, or move these files away")?;
    dovetail_stores::make_folder(folder).map_err(|e| Error::write(folder, e))?;
    for target in targets {
        if let Some((path, content)) = saved.iter().find(|(path, _)| *path == target.path)
            && !holds(path, content)
        {
            target.write(content)?;
        }
    }
    Ok(saved.into_iter().map(|(path, _)| path.text()).collect())
}

fn report_json(ready: &Ready, report: &Report, saved: &[String]) -> Value {
    let (state, output, error) = match &report.outcome {
        Outcome::Succeeded { output } => ("succeeded", output.clone(), Value::Null),
        Outcome::Failed { failure } => ("failed", Value::Null, json!(failure)),
    };
    json!({
        "format": "dovetail.task_run/1", "task": ready.name, "package": ready.package, "state": state, "output": output, "error": error,
        "usage": report.usage, "models": report.models, "warnings": report.warnings, "log": report.log, "log_dropped": report.log_dropped, "saved": saved,
    })
}

fn report_text(ready: &Ready, report: &Report, saved: &[String]) -> String {
    let mut text = match &report.outcome {
        Outcome::Succeeded { output } => {
            format!("{}  succeeded\n\noutput\n{}", ready.name, indented(&shortened(output), 2))
        }
        Outcome::Failed { failure } => format!("{}  failed\n\n{}", ready.name, show::failure(&json!(failure), None)),
    };
    let usage = &report.usage;
    let ms = |us: u64| format!("{}.{:03} ms", us / 1000, us % 1000);
    text.push_str("\nused\n");
    text.push_str(&format!(
        "  time    {} of {} ms, {} of it in the host\n",
        ms(usage.wall_us),
        ready.limits.time_ms,
        ms(usage.host_us)
    ));
    text.push_str(&format!("  guest   {} of the processor\n", ms(usage.guest_cpu_us)));
    text.push_str(&format!("  memory  {} of {}\n", bytes(usage.peak_memory), bytes(ready.limits.memory)));
    text.push_str(&format!("  input   {}\n", bytes(usage.input_bytes)));
    text.push_str(&format!("  output  {} of {}\n", bytes(usage.output_bytes), bytes(ready.limits.output)));
    for (name, calls) in &usage.host_calls {
        text.push_str(&format!("  calls   {calls:>4} x {name}\n"));
    }
    for model in &report.models {
        text.push_str(&format!("  model   {}  {}\n", model.name, model.digest));
    }
    if report.log_dropped > 0 {
        text.push_str(&format!(
            "  log     {} lines were dropped, over the limit of {}\n",
            report.log_dropped,
            bytes(ready.limits.log)
        ));
    }
    for warning in &report.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    for path in saved {
        text.push_str(&format!("saved {path}\n"));
    }
    text
}
