//! The document of a run (`dovetail.run/1`), for people.

use std::time::Duration;

use serde_json::Value;

use crate::output::shortened;
use crate::table::{bytes, count, indented, table};

/// State, output, steps and, if it failed, why and what to do.
pub(crate) fn run(document: &Value) -> String {
    let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let state = text("/state");
    let mut shown = format!("{}  {state}", text("/pipeline"));
    let time = text("/processing_summary/total_time");
    if !time.is_empty() {
        shown.push_str(&format!(" in {time}"));
    }
    if let Some(speedup) = document.pointer("/processing_summary/parallel_speedup").and_then(Value::as_f64) {
        shown.push_str(&format!(", parallel speed-up {speedup:.2}"));
    }
    let again = match document.get("generation").and_then(Value::as_u64) {
        None | Some(0) => String::new(),
        Some(1) => ", run again once (before that: @0)".to_owned(),
        Some(n) => format!(", run again {n} times (before that: @{} and earlier)", n - 1),
    };
    shown.push_str(&format!("\nrun {}{again}\n", text("/run_id")));
    if let Some(inputs) = document.get("inputs") {
        shown.push_str(&format!("\ninputs\n{}", indented(&shortened(inputs), 2)));
    }
    if let Some(output) = document.get("output").filter(|output| !output.is_null()) {
        shown.push_str(&format!("\noutput\n{}", indented(&shortened(output), 2)));
    }
    shown.push_str(&format!("\nsteps\n{}", indented(&steps(document), 2)));
    let used = used(document);
    if !used.is_empty() {
        shown.push_str(&format!("\nused, by attempt\n{}", indented(&used, 2)));
    }
    for warning in document.get("warnings").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        shown.push_str(&format!("\nwarning: {warning}\n"));
    }
    if let Some(error) = document.get("error").filter(|error| !error.is_null()) {
        shown.push_str(&format!("\n{}", failure(error, document.get("run_id").and_then(Value::as_str))));
    }
    shown
}

fn steps(document: &Value) -> String {
    let steps = document.pointer("/processing_summary/steps").and_then(Value::as_array);
    let cell = |step: &Value, key: &str| match step.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(n)) => n.to_string(),
        _ => String::new(),
    };
    let rows: Vec<Vec<String>> = steps
        .into_iter()
        .flatten()
        .map(|step| {
            let attempts = step.get("attempts").and_then(Value::as_array).map_or(0, Vec::len);
            vec![
                cell(step, "number"),
                named(step),
                step.get("worker")
                    .and_then(Value::as_str)
                    .map_or_else(|| cell(step, "state"), |worker| format!("{} on {worker}", cell(step, "state"))),
                cell(step, "started_ms"),
                cell(step, "duration_ms"),
                attempts.to_string(),
                cell(step, "task"),
            ]
        })
        .collect();
    table(&[" #", "id", "state", " start ms", " ms", " attempts", "task"], &rows)
}

/// A step by its ID, and by its name in the pipeline where the one does not tell the other: logs of workers have the
/// latter.
fn named(step: &Value) -> String {
    let text = |key: &str| step.get(key).and_then(Value::as_str).unwrap_or_default();
    let (id, name) = (text("id"), text("step"));
    let told = name.is_empty() || id.rsplit_once('_').is_some_and(|(task, _)| task == name.replace('-', "_"));
    if told { id.to_owned() } else { format!("{id} ({name})") }
}

/// What each attempt used: times, memory, bytes, host functions by name, models. Empty where nothing has run.
fn used(document: &Value) -> String {
    let list = |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (mut rows, mut more) = (Vec::new(), String::new());
    for step in document.pointer("/processing_summary").map(|summary| list(summary, "steps")).unwrap_or_default() {
        for attempt in list(&step, "attempts") {
            let Some(usage) = attempt.get("usage") else { continue };
            let number = |key: &str| usage.get(key).and_then(Value::as_u64).unwrap_or_default();
            let ms = |key: &str| format!("{:.1}", Duration::from_micros(number(key)).as_secs_f64() * 1e3);
            let name = match attempt.get("number").and_then(Value::as_u64) {
                None | Some(1) => text(&step, "id"),
                Some(n) => format!("{}, attempt {n}", text(&step, "id")),
            };
            let size = |key: &str| bytes(number(key));
            rows.push(vec![
                name.clone(),
                ms("wall_us"),
                ms("guest_cpu_us"),
                ms("host_us"),
                size("peak_memory"),
                size("input_bytes"),
                size("output_bytes"),
            ]);
            let calls = usage.get("host_calls").and_then(Value::as_object).into_iter().flatten();
            // `dovetail:vision/faces.detector.detect`: the package says nothing here.
            let calls = calls.map(|(name, calls)| format!("{calls} x {}", name.rsplit('/').next().unwrap_or(name)));
            let models = list(&attempt, "models").into_iter().map(|model| format!("model {}", text(&model, "name")));
            let lost = attempt.get("lost_workers").and_then(Value::as_u64).map(|n| {
                format!("begun anew after {}", count(usize::try_from(n).unwrap_or(usize::MAX), "lost worker"))
            });
            let said: Vec<String> = lost.into_iter().chain(calls).chain(models).collect();
            if !said.is_empty() {
                more.push_str(&format!("{name}: {}\n", said.join(", ")));
            }
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    table(&["attempt", " wall ms", " guest cpu ms", " host ms", " memory", " in", " out"], &rows) + &more
}

/// Why a run or an attempt failed: the error of a document. `run`: where it is recorded, so that it can be run again.
pub(crate) fn failure(error: &Value, run: Option<&str>) -> String {
    let field = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default();
    let id = if field("id").is_empty() { field("step") } else { field("id") };
    let place = match (id, error.get("attempt").and_then(Value::as_u64)) {
        ("", _) => String::new(),
        (step, None) => format!(" in {step}"),
        (step, Some(attempt)) => format!(" in {step}, attempt {attempt}"),
    };
    let mut shown = format!("error[{}]{place}: {}\n", field("code"), field("message"));
    for (name, value) in error.get("details").and_then(Value::as_object).into_iter().flatten() {
        if name != "backtrace" && name != "kind" && name != "retryable" {
            shown.push_str(&format!("  {name}: {}\n", value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
        }
    }
    let backtrace = error.get("backtrace").or_else(|| error.pointer("/details/backtrace")).and_then(Value::as_array);
    for frame in backtrace.into_iter().flatten().filter_map(Value::as_str) {
        shown.push_str(&format!("  at {frame}\n"));
    }
    let kind = error.get("kind").or_else(|| error.pointer("/details/kind")).and_then(Value::as_str).unwrap_or_default();
    let retryable = error
        .get("retryable")
        .or_else(|| error.pointer("/details/retryable"))
        .and_then(Value::as_bool)
        .unwrap_or(false);
    shown.push_str(&format!("\nhelp: {}", remedy(kind, field("code"))));
    if let (Some(run), Some(when)) = (run, retry_helps(kind, field("code"), retryable)) {
        shown.push_str(&format!("; {when} `dovetail runs retry {run}` runs what did not succeed"));
    }
    shown.push('\n');
    shown
}

/// When a run that failed like this may succeed as it is: what had succeeded stays, and so do the versions and the
/// inputs.
fn retry_helps(kind: &str, code: &str, retryable: bool) -> Option<&'static str> {
    match (kind, code) {
        (_, "models_missing" | "unknown_model") => Some("then"),
        (_, "timeout") | ("timeout", _) => Some("where the machine was only busy,"),
        ("unavailable" | "lost_worker", _) => Some("once that is mended,"),
        ("cancelled", _) | (_, "cancelled") => Some("or"),
        _ if retryable => Some("where the cause has passed,"),
        _ => None,
    }
}

/// What to do about a failure of this kind.
fn remedy(kind: &str, code: &str) -> &'static str {
    match (kind, code) {
        (_, "models_missing") => "install the models with `dovetail models pull`",
        (_, "unknown_model") => "name one of the installed models; `dovetail models list` lists them",
        (_, "built_without_opencv") => "use a dovetail that was built with OpenCV",
        (_, "undecodable" | "unsupported_format") => {
            "the file is damaged, cut off, or no picture: fetch or export it again, as JPEG, PNG, WebP or BMP"
        }
        (_, "too_large") => "scale the picture down first",
        // The run's own, not its step's.
        ("limit", "timeout") => "give the run more time (`timeout` of the pipeline, beside `steps`), or smaller inputs",
        (_, "timeout") | ("timeout", _) => {
            "give the step more time (its `timeout` in the pipeline, up to `time` of the host's limits), or smaller inputs"
        }
        (_, "out_of_memory") => "raise `memory` in the plugin's [limits], or give it smaller inputs",
        ("invalid_input", _) => {
            "correct the inputs and run it again; the task's log (`dovetail runs logs RUN`) may say more"
        }
        (_, "poison") => "run its task alone with `dovetail task run`, to see what ends whoever runs it (memory?)",
        ("unavailable" | "lost_worker", _) => "`dovetail doctor` looks at what the program needs",
        ("trap" | "panic" | "bad_output", _) => "this is a mistake in the task: tell its author, with the lines above",
        (_, "too_many_pixels") => {
            "a task may hold so much of pictures, whatever its manifest says: its author can let go of some earlier, or work on smaller ones"
        }
        ("limit", _) => "raise the limit in the plugin's plugin.toml, or give it smaller inputs",
        ("cancelled", _) | (_, "cancelled") => "submit it again if the result is wanted",
        _ => "`dovetail runs logs RUN` shows what the task said",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_failed_run_says_why_and_what_to_do() {
        let document = json!({
            "pipeline": "p@1.0.0", "run_id": "r", "state": "failed", "inputs": {}, "output": null,
            "processing_summary": { "total_time": "0.01s", "parallel_speedup": null, "steps": [
                { "number": 1, "id": "face_detection_001", "state": "failed", "started_ms": 0, "duration_ms": 3, "task": "face-detection@1.0.0", "attempts": [{}] } ] },
            "error": { "kind": "panic", "code": "panic", "message": "oh no", "id": "face_detection_001", "attempt": 2, "backtrace": ["src/lib.rs:3"], "details": {"a": 1} },
        });
        let text = run(&document);
        assert!(
            text.contains("error[panic] in face_detection_001, attempt 2: oh no\n  a: 1\n  at src/lib.rs:3\n\nhelp: this is a mistake"),
            "{text}"
        );
        assert!(text.contains(" 1  face_detection_001  failed"), "{text}");
        assert_eq!(named(&json!({ "id": "face_detection_001", "step": "face-detection" })), "face_detection_001");
        assert_eq!(named(&json!({ "id": "face_detection_001", "step": "detect" })), "face_detection_001 (detect)");
        assert!(!text.contains("runs retry"), "the same package would do the same: {text}");
    }

    #[test]
    fn where_another_try_may_succeed_the_help_names_the_command() {
        let help = |kind: &str, code: &str, retryable: bool, run| {
            failure(&json!({ "kind": kind, "code": code, "retryable": retryable }), run)
        };
        for (kind, code, retryable) in [
            ("unavailable", "no_memory", false),
            ("lost_worker", "poison", false),
            ("timeout", "timeout", false),
            ("limit", "timeout", false),
            ("unavailable", "models_missing", false),
            ("failed", "busy", true),
        ] {
            assert!(help(kind, code, retryable, Some("r")).contains("`dovetail runs retry r`"), "{kind} {code}");
            assert!(!help(kind, code, retryable, None).contains("runs retry"), "nothing is recorded of a task alone");
        }
        assert!(help("lost_worker", "poison", false, Some("r")).contains("`dovetail task run`"));
        for (kind, code) in [("trap", "trap"), ("invalid_input", "undecodable"), ("limit", "out_of_memory")] {
            assert!(!help(kind, code, false, Some("r")).contains("runs retry"), "{kind} {code}");
        }
    }
}
