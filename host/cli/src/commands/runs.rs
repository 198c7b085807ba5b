//! `runs`: looks at what was recorded, and goes on with what was interrupted.

use dovetail_core::RunId;
use dovetail_core::ledger::RunKey;
use dovetail_flow::{RunSummary, StepLog};
use serde_json::{Value, json};

use crate::args::{OneGeneration, Runs};
use crate::commands::several::{Several, none, run_all};
use crate::commands::wait::{needs_worker, wait_for, watch};
use crate::error::{Blame, Error, Exit};
use crate::grants;
use crate::show;
use crate::table::table;
use crate::unread::print_list;
use crate::wire::App;
use crate::work::Session;

pub(crate) fn run(command: &Runs, app: &App) -> Result<Exit, Error> {
    match command {
        Runs::List { limit } => {
            let runs = dovetail_flow::runs(app.parts_to_read()?, *limit as usize)?;
            print_list(app, &runs, "run", |name| json!({ "run_id": name }), summary, list);
        }
        Runs::Show(one) => {
            let document = dovetail_flow::document_of(app.parts_to_read()?, &find_generation(app, one)?)?;
            app.output.result(|| document.clone(), || show::run(&document));
        }
        Runs::Lineage(one) => {
            let lineage = dovetail_flow::lineage(app.parts_to_read()?, &find_generation(app, one)?)?;
            app.output.result(|| lineage.clone(), || show_lineage(&lineage));
        }
        Runs::Logs(one) => {
            let logs = dovetail_flow::logs(app.parts_to_read()?, &find_generation(app, one)?)?;
            app.output.result(|| logs.iter().map(log).collect(), || logs.iter().map(show_log).collect());
        }
        Runs::Watch(one) => return watch(app, &find(app, &one.run)?),
        Runs::Cancel { runs } => {
            let json = |(run, cancelled): &(RunId, bool)| json!({ "run_id": run, "cancelled": cancelled });
            let text = |(run, cancelled): &(RunId, bool)| {
                format!("{run}  {}\n", if *cancelled { "cancelled" } else { "was over before" })
            };
            // All are looked for before the first one is ended.
            let mut done = Vec::new();
            for run in find_all(app, runs)? {
                let cancelled = dovetail_flow::cancel(app.parts()?, &run, "by request")?;
                done.push((run, cancelled));
            }
            let all = || done.iter().map(json).collect();
            app.output.result(
                || if runs.len() == 1 { done.iter().map(json).next().unwrap_or_default() } else { all() },
                || done.iter().map(text).collect(),
            );
        }
        Runs::Retry { run, detach, jobs } => {
            let run = find(app, &run.run)?;
            if *detach {
                needs_worker(app)?;
                dovetail_flow::retry(app.parts()?, &run, "by request")?;
                app.output.result(|| json!({ "run_id": run }), || format!("{run}\n"));
                return Ok(Exit::Done);
            }
            grants::of_steps(&app.config, &dovetail_flow::left_to_do(app.parts()?, &run, true)?)?;
            let session = Session::begin(app, 1, jobs.unwrap_or(app.config.jobs))?;
            dovetail_flow::retry(app.parts()?, &run, "by request")?;
            return wait_for(app, session, &run);
        }
        Runs::Resume { runs, all, jobs } => return resume(app, runs, *all, jobs.unwrap_or(app.config.jobs)),
    }
    Ok(Exit::Done)
}

/// One run prints its document, as `run` does; several print theirs as `run --each` does, and so do all, however few
/// they are.
fn resume(app: &App, runs: &[String], all: bool, jobs: u32) -> Result<Exit, Error> {
    let mut found: Vec<RunId> = Vec::new();
    if all {
        found.extend(app.parts_to_read()?.ledger.open_runs(usize::MAX)?.into_iter().map(|key| key.run));
    }
    found.extend(find_all(app, runs)?);
    match found.as_slice() {
        [] => Ok(none(app)),
        [run] if !all => {
            grants::of_steps(&app.config, &dovetail_flow::left_to_do(app.parts()?, run, false)?)?;
            let session = Session::begin(app, 1, jobs)?;
            dovetail_flow::recover(app.parts()?, run)?;
            wait_for(app, session, run)
        }
        runs => run_all(app, &Several::Open(runs), jobs, |n| {
            let left = dovetail_flow::left_to_do(app.parts()?, &runs[n], false).map_err(|error| {
                let mut error = Error::from(error);
                // One that a newer dovetail wrote is left to it, and keeps no other one waiting.
                if error.code == "store_newer" {
                    error.blame = Blame::Usage;
                }
                error
            })?;
            grants::of_steps(&app.config, &left).map_err(|error| error.of_run(&runs[n]))?;
            dovetail_flow::recover(app.parts()?, &runs[n])?;
            Ok(runs[n].clone())
        }),
    }
}

/// Those of several, each once.
fn find_all(app: &App, named: &[String]) -> Result<Vec<RunId>, Error> {
    let mut found = Vec::new();
    for one in named {
        let run = find(app, one)?;
        if !found.contains(&run) {
            found.push(run);
        }
    }
    Ok(found)
}

/// The generation of a run that is meant.
fn find_generation(app: &App, one: &OneGeneration) -> Result<RunKey, Error> {
    is_id(one.run.split('@').next().unwrap_or_default())?;
    Ok(dovetail_flow::find_generation(app.parts_to_read()?, &one.run)?)
}

/// The run whose ID begins or ends so.
fn find(app: &App, prefix: &str) -> Result<RunId, Error> {
    is_id(prefix)?;
    Ok(dovetail_flow::find_run(app.parts_to_read()?, prefix)?)
}

fn is_id(prefix: &str) -> Result<(), Error> {
    if prefix.is_empty() || !prefix.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-')) {
        return Err(Error::usage("unknown_run", format!("`{prefix}` is no run ID"))
            .help("write the ID that `dovetail runs list` shows, or its beginning or end"));
    }
    Ok(())
}

fn summary(run: &RunSummary) -> Value {
    json!({ "run_id": run.run, "pipeline": run.pipeline, "state": run.state, "submitted_at": run.submitted_at, "total_time_ms": run.duration_ms })
}

fn list(runs: &[RunSummary]) -> String {
    if runs.is_empty() {
        return "no runs yet; make one with `dovetail run PIPELINE`\n".to_owned();
    }
    let row = |run: &RunSummary| {
        vec![
            run.run.to_string(),
            run.pipeline.clone(),
            run.state.clone(),
            run.submitted_at.clone(),
            run.duration_ms.map_or_else(String::new, dovetail_flow::seconds),
        ]
    };
    table(&["run", "pipeline", "state", "submitted", " time"], &runs.iter().map(row).collect::<Vec<_>>())
}

fn show_lineage(lineage: &Value) -> String {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let run = text(lineage, "run_id");
    // The run's ID stands above: within it every value has a name of its own.
    let within = |id: &str| id.strip_prefix(&format!("{run}/")).unwrap_or(id).to_owned();
    let short = |digest: &str| {
        digest.strip_prefix("sha256:").map_or(String::new(), |hex| format!("{}…", hex.get(..12).unwrap_or(hex)))
    };
    let items = |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut shown = format!("{}\nrun {run}\n", text(lineage, "pipeline"));
    for step in items(lineage, "steps") {
        let attempt =
            step.get("attempt").and_then(Value::as_u64).map_or_else(String::new, |n| format!(", attempt {n}"));
        shown.push_str(&format!(
            "\n{}  {}, package {}{attempt}\n",
            text(&step, "id"),
            text(&step, "task"),
            short(&text(&step, "package"))
        ));
        for model in items(&step, "models") {
            shown.push_str(&format!("  model  {}  {}\n", text(&model, "name"), short(&text(&model, "digest"))));
        }
        for value in items(&step, "consumed") {
            let origin =
                value.get("origin").and_then(Value::as_str).map_or_else(|| "given in the pipeline".to_owned(), &within);
            shown.push_str(&format!(
                "  took   {} <- {origin}  {}\n",
                within(&text(&value, "input")),
                short(&text(&value, "digest"))
            ));
        }
        for value in items(&step, "produced") {
            let consumers: Vec<String> =
                items(&value, "consumers").iter().filter_map(Value::as_str).map(&within).collect();
            let consumers = if consumers.is_empty() { String::new() } else { format!("  -> {}", consumers.join(", ")) };
            shown.push_str(&format!(
                "  gave   {}  {}{consumers}\n",
                within(&text(&value, "output")),
                short(&text(&value, "digest"))
            ));
        }
    }
    shown
}

fn log(log: &StepLog) -> Value {
    json!({ "step": log.step, "id": log.id, "lines": log.lines, "dropped": log.dropped })
}

fn show_log(log: &StepLog) -> String {
    let mut shown = String::new();
    for line in &log.lines {
        let at = format!("+{}.{:03}ms", line.at_us / 1000, line.at_us % 1000);
        shown.push_str(&format!("{}  {at:>12}  {:5}  {}", log.id, line.level, line.message));
        for (name, value) in &line.fields {
            shown.push_str(&format!("  {name}={value}"));
        }
        shown.push('\n');
    }
    if log.dropped > 0 {
        shown.push_str(&format!("{}  {} more lines were dropped, over the limit\n", log.id, log.dropped));
    }
    shown
}
