//! The document of a run (`dovetail.run/1`) as text for people.

use std::time::Duration;

use dovetail_service::documents::{AttemptDocument, RunDocument, StepDocument};
use dovetail_service::remedy::Remedy;
use dovetail_service::words::{bytes, count};
use dovetail_service::{Failure, RunId};

use crate::output::shortened;
use crate::table::{indented, table};

/// State, inputs, output, steps, usage and warnings of a run, and the error with a remedy if the run failed.
pub(crate) fn run(document: &RunDocument) -> String {
    let mut shown = format!("{}  {}", document.pipeline, document.state.name());
    if let Some(time) = &document.processing_summary.total_time {
        shown.push_str(&format!(" in {time}"));
    }
    if let Some(speedup) = document.processing_summary.parallel_speedup {
        shown.push_str(&format!(", parallel speed-up {speedup:.2}"));
    }
    let again = match document.generation {
        0 => String::new(),
        1 => ", run again once (before that: @0)".to_owned(),
        n => format!(", run again {n} times (before that: @{} and earlier)", n - 1),
    };
    shown.push_str(&format!("\nrun {}{again}\n", document.run_id));
    shown.push_str(&format!("\ninputs\n{}", indented(&shortened(&document.inputs), 2)));
    if !document.output.is_null() {
        shown.push_str(&format!("\noutput\n{}", indented(&shortened(&document.output), 2)));
    }
    let steps = &document.processing_summary.steps;
    shown.push_str(&format!("\nsteps\n{}", indented(&steps_table(steps), 2)));
    let used = used(steps);
    if !used.is_empty() {
        shown.push_str(&format!("\nused, by attempt\n{}", indented(&used, 2)));
    }
    for warning in &document.warnings {
        shown.push_str(&format!("\nwarning: {warning}\n"));
    }
    if let Some(failure) = run_failure(document) {
        shown.push_str(&format!("\n{failure}"));
    }
    shown
}

fn steps_table(steps: &[StepDocument]) -> String {
    let number = |n: Option<u64>| n.map_or_else(String::new, |n| n.to_string());
    let row = |step: &StepDocument| {
        let state = step.state.name();
        vec![
            step.number.to_string(),
            named(step),
            match &step.worker {
                Some(Some(worker)) => format!("{state} on {worker}"),
                _ => state.to_owned(),
            },
            number(step.started_ms),
            number(step.duration_ms),
            step.attempts.len().to_string(),
            step.task.clone(),
        ]
    };
    let rows: Vec<_> = steps.iter().map(row).collect();
    table(&[" #", "id", "state", " start ms", " ms", " attempts", "task"], &rows)
}

/// The step's ID, and its name in the pipeline if the ID does not contain the name: the logs of workers have the name.
fn named(step: &StepDocument) -> String {
    let (id, name) = (&step.id, &step.step);
    let has_name = id.rsplit_once('_').is_some_and(|(task, _)| *name == task);
    if has_name { id.clone() } else { format!("{id} ({name})") }
}

/// The usage of each attempt: times, memory, bytes, calls of host functions, models. Empty if no step has run.
fn used(steps: &[StepDocument]) -> String {
    let (mut rows, mut more) = (Vec::new(), String::new());
    for (step, attempt) in steps.iter().flat_map(|step| step.attempts.iter().map(move |attempt| (step, attempt))) {
        let name = match attempt.number {
            1 => step.id.clone(),
            n => format!("{}, attempt {n}", step.id),
        };
        let usage = &attempt.usage;
        let ms = |us: u64| format!("{:.1}", Duration::from_micros(us).as_secs_f64() * 1e3);
        rows.push(vec![
            name.clone(),
            ms(usage.wall_us),
            ms(usage.guest_cpu_us),
            ms(usage.host_us),
            bytes(usage.peak_memory),
            bytes(usage.input_bytes),
            bytes(usage.output_bytes),
        ]);
        let attempt_notes = attempt_notes(attempt);
        if !attempt_notes.is_empty() {
            more.push_str(&format!("{name}: {}\n", attempt_notes.join(", ")));
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    table(&["attempt", " wall ms", " guest cpu ms", " host ms", " memory", " in", " out"], &rows) + &more
}

/// The number of lost workers, the calls of host functions and the models of an attempt.
fn attempt_notes(attempt: &AttemptDocument) -> Vec<String> {
    let lost = attempt
        .lost_workers
        .map(|n| format!("started again after {}", count(usize::try_from(n).unwrap_or(usize::MAX), "lost worker")));
    // The package is left out of names such as `dovetail:vision/faces.detector.detect`.
    let calls = attempt.usage.host_calls.iter();
    let calls = calls.map(|(name, calls)| format!("{calls} x {}", name.rsplit('/').next().unwrap_or(name)));
    let models = attempt.models.iter().map(|model| format!("model {}", model.name));
    lost.into_iter().chain(calls).chain(models).collect()
}

/// The text of the run's error, if it failed.
pub(crate) fn run_failure(document: &RunDocument) -> Option<String> {
    let error = document.error.clone()?;
    let step = error.id.or(error.step);
    let place = match (step, error.attempt) {
        (None, _) => String::new(),
        (Some(step), None) => format!(" in {step}"),
        (Some(step), Some(attempt)) => format!(" in {step}, attempt {attempt}"),
    };
    let failure = Failure {
        kind: error.kind,
        code: error.code,
        message: error.message,
        retryable: error.retryable,
        retry_after_ms: None,
        details: error.details,
        backtrace: error.backtrace,
    };
    Some(described(&failure, &place, Some(&document.run_id)))
}

/// The text of the failure of an attempt that is not recorded (`task run`).
pub(crate) fn attempt_failure(failure: &Failure) -> String {
    described(failure, "", None)
}

/// The text of a failure, with a remedy. `run`: the recorded run, which can be retried.
fn described(failure: &Failure, place: &str, run: Option<&RunId>) -> String {
    let mut shown = format!("error[{}]{place}: {}\n", failure.code, failure.message);
    for (name, value) in &failure.details {
        shown.push_str(&format!("  {name}: {}\n", value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
    }
    for frame in &failure.backtrace {
        shown.push_str(&format!("  at {frame}\n"));
    }
    let remedy = Remedy::of(failure.kind, &failure.code, failure.retryable);
    shown.push_str(&format!("\nhelp: {}", remedy.help));
    if let (Some(run), Some(when)) = (run, remedy.retry) {
        shown.push_str(&format!("; {when} `dovetail runs retry {run}` runs the steps that did not succeed"));
    }
    shown.push('\n');
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use dovetail_service::FailureKind;
    use serde_json::json;

    fn document() -> RunDocument {
        let at = "2026-11-23T18:45:07.123Z";
        let usage = json!({ "wall_us": 1, "host_us": 0, "peak_memory": 1, "output_bytes": 1, "host_calls": {} });
        let attempt =
            json!({ "number": 1, "error": null, "duration_us": 3, "usage": usage, "models": [], "worker": "w" });
        let digest = format!("sha256:{}", "0".repeat(64));
        let step = json!({
            "number": 1, "id": "face_detection_001", "step": "face_detection", "task": "face-detection@1.0.0",
            "package": digest, "input_id": "i", "output_id": "o", "state": "failed", "started_ms": 0, "duration_ms": 3,
            "models": [], "attempts": [attempt],
        });
        let document = json!({
            "format": "dovetail.run/1", "run_id": RunId::from_bytes([1; 16]), "generation": 0, "pipeline": "p@1.0.0",
            "state": "failed", "inputs": {}, "output": null, "submitted_at": at, "started_at": at, "finished_at": at,
            "warnings": [],
            "processing_summary": {
                "total_time": "0.01s", "total_time_ms": 10, "parallel_speedup": null, "data_lineage": [],
                    "steps": [step],
            },
            "error": {
                "kind": "panic", "code": "panic", "message": "oh no", "step": "face_detection",
                "id": "face_detection_001", "attempt": 2, "retryable": false, "backtrace": ["src/lib.rs:3"],
                "details": {"a": 1},
            },
        });
        serde_json::from_value(document).unwrap()
    }

    #[test]
    fn a_failed_run_says_why_and_what_to_do() {
        let text = run(&document());
        assert!(
            text.contains(
                "error[panic] in face_detection_001, attempt 2: oh no\n  a: 1\n  at src/lib.rs:3\n\nhelp: \
                this is a mistake"
            ),
            "{text}"
        );
        assert!(text.contains(" 1  face_detection_001  failed"), "{text}");
        let mut step = document().processing_summary.steps.remove(0);
        assert_eq!(named(&step), "face_detection_001");
        step.step = "detect".parse().unwrap();
        assert_eq!(named(&step), "face_detection_001 (detect)");
        assert!(!text.contains("runs retry"), "the same package would do the same: {text}");
    }

    #[test]
    fn if_another_try_may_succeed_the_help_names_the_command() {
        let run = RunId::from_bytes([1; 16]);
        let poison = Failure::new(FailureKind::LostWorker, "poison", "");
        assert!(described(&poison, "", Some(&run)).contains(&format!("`dovetail runs retry {run}`")));
        assert!(!described(&poison, "", None).contains("runs retry"), "nothing is recorded of a task alone");
        let trap = Failure::new(FailureKind::Trap, "trap", "");
        assert!(!described(&trap, "", Some(&run)).contains("runs retry"));
    }
}
