//! `runs`: shows recorded runs, cancels them, and resumes or retries them.

use dovetail_service::batch::Several;
use dovetail_service::documents::{CancelledRun, LineageDocument, RunName, RunSummary, StepLog, SubmittedRun};
use dovetail_service::{Blame, Digest, Error, RunId, Session, Shutdown, Work};

use crate::app::App;
use crate::args::Runs;
use crate::commands::several::{Keyed, none, run_all};
use crate::commands::wait::{FRONT_DOOR, listen, wait_for, watch};
use crate::exit::Exit;
use crate::progress::Watcher;
use crate::show;
use crate::table::table;
use crate::unread::print_list;

pub(crate) fn run(command: &Runs, app: &App) -> Result<Exit, Error> {
    let service = &app.service;
    match command {
        Runs::List { limit } => {
            let runs = service.list_runs(*limit as usize)?;
            print_list(app, &runs, "run", |name| RunName { run_id: name.to_owned() }, RunSummary::clone, list);
        }
        Runs::Show(one) => {
            let document = service.show_run(&one.run)?;
            app.output.result(&document, || show::run(&document));
        }
        Runs::Lineage(one) => {
            let lineage = service.run_lineage(&one.run)?;
            app.output.result(&lineage, || show_lineage(&lineage));
        }
        Runs::Logs(one) => {
            let logs = service.run_logs(&one.run)?;
            app.output.result(&logs, || logs.iter().map(show_log).collect());
        }
        Runs::Watch(one) => return watch(app, &service.find_run(&one.run)?),
        Runs::Cancel { runs } => {
            let done = service.cancel_runs(runs)?;
            let line = |CancelledRun { run_id, cancelled }: &CancelledRun| {
                format!("{run_id}  {}\n", if *cancelled { "cancelled" } else { "was over before" })
            };
            let text = || done.iter().map(line).collect();
            match done.as_slice() {
                [one] if runs.len() == 1 => app.output.result(one, text),
                all => app.output.result(all, text),
            }
        }
        Runs::Retry { run, detach, jobs } => {
            let run = service.find_run(&run.run)?;
            if *detach {
                service.needs_worker(&app.output)?;
                service.retry_run(&run)?;
                app.output.result(&SubmittedRun { run_id: run.clone() }, || format!("{run}\n"));
                return Ok(Exit::Done);
            }
            service.may_retry_here(&run)?;
            return wait_after(app, &run, *jobs, || service.retry_run(&run));
        }
        Runs::Resume { runs, all, jobs } => return resume(app, runs, *all, *jobs),
    }
    Ok(Exit::Done)
}

/// Begins a session, calls `ready`, which enqueues the run's steps, and waits for the run.
fn wait_after(
    app: &App,
    run: &RunId,
    jobs: Option<u32>,
    ready: impl FnOnce() -> Result<(), Error>,
) -> Result<Exit, Error> {
    let shutdown = Shutdown::default();
    let watcher = Watcher::new(&app.output, 1, app.service.settings.is_fleet());
    let jobs = jobs.unwrap_or(app.service.settings.jobs);
    let session =
        Session::begin(&app.service, Work { front_door: FRONT_DOOR, jobs, shutdown: &shutdown, observer: &watcher })?;
    // From now on a signal interrupts the session, and does not end the process.
    let listening = listen(app, &shutdown)?;
    ready()?;
    wait_for(app, session, &listening, run)
}

/// Resumes runs. A single named run is printed as by `run`. Several runs, and `--all` also for a single run, are
/// printed as by `run --each`.
fn resume(app: &App, runs: &[String], all: bool, jobs: Option<u32>) -> Result<Exit, Error> {
    let service = &app.service;
    let mut found: Vec<RunId> = Vec::new();
    if all {
        found.extend(service.open_runs()?);
    }
    found.extend(service.find_runs(runs)?);
    match found.as_slice() {
        [] => Ok(none(app)),
        [run] if !all => {
            service.may_resume_here(run)?;
            wait_after(app, run, jobs, || service.resume_run(run))
        }
        runs => run_all(app, &Several::Open(runs), Keyed::No, jobs.unwrap_or(service.settings.jobs), |n| {
            service.may_resume_here(&runs[n]).map_err(|mut error| match error.code {
                "grant_withheld" => error.of_run(&runs[n]),
                // A run of a newer dovetail is refused, and the others are resumed.
                "store_newer" => {
                    error.blame = Blame::Usage;
                    error
                }
                _ => error,
            })?;
            service.resume_run(&runs[n])?;
            Ok(runs[n].clone())
        }),
    }
}

fn list(runs: &[RunSummary]) -> String {
    if runs.is_empty() {
        return "no runs yet; make one with `dovetail run PIPELINE`\n".to_owned();
    }
    let row = |run: &RunSummary| {
        vec![
            run.run_id.to_string(),
            run.pipeline.clone(),
            run.state.name().to_owned(),
            run.submitted_at.0.clone(),
            run.total_time_ms.map_or_else(String::new, dovetail_service::seconds),
        ]
    };
    table(&["run", "pipeline", "state", "submitted", " time"], &runs.iter().map(row).collect::<Vec<_>>())
}

fn show_lineage(lineage: &LineageDocument) -> String {
    let run = lineage.reference();
    // The run is in the heading, and is left out of the names of values.
    let within = |id: &str| id.strip_prefix(&format!("{run}/")).unwrap_or(id).to_owned();
    let short = |digest: &Digest| format!("{}…", digest.hex().get(..12).unwrap_or_default());
    let mut shown = format!("{}\nrun {run}\n", lineage.pipeline);
    for step in &lineage.steps {
        let attempt = step.attempt.map_or_else(String::new, |n| format!(", attempt {n}"));
        shown.push_str(&format!("\n{}  {}, package {}{attempt}\n", step.id, step.task, short(&step.package)));
        for model in &step.models {
            shown.push_str(&format!("  model  {}  {}\n", model.name, short(&model.digest)));
        }
        for value in &step.consumed {
            let origin = value.origin.as_deref().map_or_else(|| "given in the pipeline".to_owned(), &within);
            shown.push_str(&format!("  took   {} <- {origin}  {}\n", within(&value.input), short(&value.digest)));
        }
        for value in &step.produced {
            let consumers: Vec<String> = value.consumers.iter().map(|id| within(id)).collect();
            let consumers = if consumers.is_empty() { String::new() } else { format!("  -> {}", consumers.join(", ")) };
            shown.push_str(&format!("  gave   {}  {}{consumers}\n", within(&value.output), short(&value.digest)));
        }
    }
    shown
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_names_of_values_are_shown_without_their_run() {
        let run = "01010101-0101-0101-0101-010101010101";
        for (generation, reference) in [(0, run.to_owned()), (1, format!("{run}@1"))] {
            let digest = Digest::of(b"value");
            let lineage: LineageDocument = serde_json::from_value(json!({
                "format": "dovetail.lineage/1", "run_id": run, "generation": generation, "pipeline": "p@1.0.0",
                "inputs": {}, "edges": [],
                "steps": [{
                    "number": 1, "id": "add_001", "step": "add", "task": "add@1.0.0", "package": digest,
                    "attempt": 1, "models": [],
                    "consumed": [{
                        "input": format!("{reference}/input_001_a"), "origin": format!("{reference}/input.x"),
                        "digest": digest,
                    }],
                    "produced": [{
                        "output": format!("{reference}/output_001_sum"), "digest": digest, "consumers": [],
                    }],
                }],
            }))
            .unwrap();
            let shown = show_lineage(&lineage);
            assert!(shown.contains(&format!("run {reference}\n")), "{shown}");
            assert!(shown.contains("input_001_a <- input.x  "), "{shown}");
            assert_eq!(shown.matches(run).count(), 1, "{shown}");
        }
    }
}
