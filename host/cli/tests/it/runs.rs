//! `run` and `runs` with small tasks: the document, many runs, failures, interruption.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Home, Ran, plugin, valid};

fn adding() -> Home {
    let home = Home::new();
    home.push(&["add"]).pipeline(
        "adding",
        &json!({ "name": "adding", "version": "1.0.0", "inputs": { "a": {}, "b": {"default": 1} },
            "steps": {
                "sum": { "number": 1, "task": "add@^1", "inputs": { "a": "input.a", "b": "input.b" } },
                "more": { "number": 2, "task": "add@^1", "inputs": { "a": "sum.sum", "b": {"value": 100} } } },
            "output": { "sum": "more.sum" } }),
    );
    home
}

fn probing(steps: &Value, output: &str) -> Home {
    let home = Home::new();
    let pipeline =
        json!({ "name": "probing", "version": "1.0.0", "inputs": {}, "steps": steps, "output": { "it": output } });
    home.push(&["add", "probe"]).pipeline("probing", &pipeline);
    home
}

#[test]
fn run_and_show_print_the_same_document() {
    let home = adding();
    let document = home.run(&["run", "adding", "--input", "a=41", "--output", "json"]).exits(0).json();
    valid("run.schema.json", &document);
    assert_eq!(
        (&document["state"], &document["output"], &document["inputs"]),
        (&json!("succeeded"), &json!({"sum": 142}), &json!({"a": 41, "b": 1}))
    );
    let id = document["run_id"].as_str().unwrap();
    assert_eq!(home.run(&["runs", "show", id, "--output", "json"]).exits(0).json(), document);
    assert_eq!(home.run(&["runs", "show", &id[..8], "--output", "json"]).exits(0).json(), document);
    let text = home.run(&["run", "adding", "--input", "a=41"]).exits(0).stdout;
    assert!(text.contains("\"sum\": 142") && text.contains("add_001 (sum)   succeeded"), "{text}");
    let list = home.run(&["runs", "list", "--output", "json"]).json();
    assert_eq!((list.as_array().unwrap().len(), &list[1]["run_id"]), (2, &json!(id)), "the newest first");
    let lineage = home.run(&["runs", "lineage", id]).exits(0).stdout;
    assert!(lineage.contains("took   input_002_a <- output_001_sum"), "{lineage}");
    home.run(&["runs", "logs", id]).exits(0);
}

#[test]
fn a_pipeline_file_is_checked_and_published() {
    let home = Home::new();
    home.push(&["add"]);
    home.write(
        "p/one.json",
        json!({ "name": "one", "version": "1.0.0", "inputs": {"a": {}},
        "steps": {"sum": {"number": 1, "task": "add", "inputs": {"a": "input.a", "b": {"value": 1}}}},
        "output": {"sum": "sum.sum"} })
        .to_string(),
    );
    assert_eq!(
        home.run(&["run", "p/one.json", "--input", "a=1", "--output", "json"]).exits(0).json()["output"]["sum"],
        2
    );
    assert_eq!(home.run(&["run", "one", "--input", "a=2", "--output", "json"]).exits(0).json()["output"]["sum"], 3);
}

#[test]
fn a_key_makes_one_run() {
    let home = adding();
    let run = |a: &str| home.run(&["run", "adding", "--input", a, "--key", "monday", "--output", "json"]);
    let first = run("a=1").exits(0).json();
    assert_eq!(run("a=1").exits(0).json(), first);
    assert_eq!(run("a=2").exits(2).json()["error"]["code"], "run_differs");
    assert_eq!(home.run(&["runs", "list", "--output", "json"]).json().as_array().unwrap().len(), 1);
}

#[test]
fn each_file_makes_one_run_in_order() {
    let home = adding();
    for n in 0..12 {
        home.write(&format!("in/{n:02}.json"), n.to_string());
    }
    let all = home.run(&["run", "adding", "--each", "a=@in", "--output", "json"]).exits(0).json();
    let sums = |runs: &[Value]| runs.iter().map(|run| run["output"]["sum"].as_u64().unwrap()).collect::<Vec<_>>();
    let runs = all["runs"].as_array().unwrap();
    assert_eq!(sums(runs), (101..113).collect::<Vec<u64>>());
    assert_eq!((&all["summary"]["total"], &all["summary"]["succeeded"]), (&json!(12), &json!(12)));
    runs.iter().for_each(|run| valid("run.schema.json", run));
    let lines = home.run(&["run", "adding", "--each", "a=@in/0*.json", "--output", "ndjson"]).exits(0).stdout;
    let runs: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(sums(&runs), (101..111).collect::<Vec<u64>>());
    // If one file does not fit, no run is recorded.
    home.write("in/05.json", "\"five\"");
    let error = home.run(&["run", "adding", "--each", "a=@in", "--output", "json"]).exits(2).json();
    assert!(error["error"]["message"].as_str().unwrap().contains("05.json"), "{error:#}");
    assert_eq!(home.run(&["runs", "list", "-n", "100", "--output", "json"]).json().as_array().unwrap().len(), 22);
}

#[test]
fn a_failed_run_exits_1_with_its_error() {
    let home = adding();
    let args = ["run", "adding", "--input", "a=\"9223372036854775807\"", "--output", "json"];
    let document = home.run(&args).exits(1).json();
    valid("run.schema.json", &document);
    assert_eq!((&document["state"], &document["output"]), (&json!("failed"), &json!(null)));
    let error = &document["error"];
    assert_eq!((&error["code"], &error["step"], &error["attempt"]), (&json!("overflow"), &json!("sum"), &json!(1)));
    let id = document["run_id"].as_str().unwrap();
    assert_eq!(home.run(&["runs", "show", id, "--output", "json"]).exits(0).json(), document);
    let text = home.run(&args[..4]).exits(1).stdout;
    assert!(text.contains("error[overflow] in add_001, attempt 1: the sum of `a` and `b`"), "{text}");
    assert!(text.contains("\nhelp: correct the inputs"), "{text}");
}

#[test]
fn a_timeout_is_called_so_and_a_panic_names_its_line() {
    let probe = |behaviour: Value| {
        json!({ "go": { "number": 1, "task": "probe", "timeout": "300ms", "retry": {"max_attempts": 1},
            "inputs": { "behaviour": {"value": behaviour} } } })
    };
    let step = |behaviour: &str, value: Value| probe(json!({"tag": behaviour, "val": value}));
    let endless = probe(json!({"tag": "endless_loop"}));
    let document = probing(&endless, "go.count").run(&["run", "probing", "--output", "json"]).exits(1).json();
    valid("run.schema.json", &document);
    assert_eq!(document["error"]["code"], "timeout", "{document:#}");
    let text = probing(&step("panic", json!("oh no")), "go.count").run(&["run", "probing"]).exits(1).stdout;
    assert!(text.contains("oh no") && text.contains("src/lib.rs:"), "{text}");
    let document =
        probing(&step("log", json!(3)), "go.count").run(&["run", "probing", "--output", "json"]).exits(0).json();
    assert_eq!(document["state"], "succeeded");
}

#[test]
fn what_tasks_logged_is_kept() {
    let home = probing(
        &json!({ "go": { "number": 7, "task": "probe",
            "inputs": { "behaviour": {"value": {"tag": "log", "val": 3}} } } }),
        "go.count",
    );
    let id = home.run(&["run", "probing", "--output", "json"]).exits(0).json()["run_id"].as_str().unwrap().to_owned();
    let logs = home.run(&["runs", "logs", &id, "--output", "json"]).exits(0).json();
    assert_eq!((&logs[0]["id"], logs[0]["lines"].as_array().unwrap().len()), (&json!("probe_007"), 3), "{logs:#}");
    let text = home.run(&["runs", "logs", &id]).exits(0).stdout;
    assert!(text.lines().count() == 3 && text.contains("probe_007") && text.contains("a line  line="), "{text}");
}

/// The first step works for about two seconds, so that a test can interrupt it. The second step needs its output.
fn slow() -> Home {
    let home = Home::new();
    home.push(&["probe"]);
    home.run(&["task", "push", &plugin("clock").display().to_string(), "--grant", "clocks"]).exits(0);
    let pipeline = json!({ "name": "probing", "version": "1.0.0", "inputs": {},
        "steps": {
            "work": { "number": 1, "task": "probe",
                "inputs": { "behaviour": {"value": {"tag": "busy", "val": BUSY}} } },
            "after": { "number": 2, "task": "clock", "inputs": { "zone": "work.text" } } },
        "output": { "at": "after.milliseconds" } });
    home.pipeline("probing", &pipeline);
    home
}

/// Rounds of work, each of about a microsecond.
const BUSY: u64 = 2_000_000;

fn interrupted(home: &Home, signals: &[&str]) -> (Ran, Duration) {
    let args = ["run", "probing", "--output", "json"];
    let child = home.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Wait until the run is submitted and executed.
    let deadline = Instant::now() + Duration::from_secs(20);
    while home.run(&["runs", "list", "--output", "json"]).json().as_array().unwrap().is_empty() {
        assert!(Instant::now() < deadline, "the run was not submitted");
    }
    std::thread::sleep(Duration::from_millis(300));
    let sent = Instant::now();
    for signal in signals {
        let status = std::process::Command::new("kill").arg(signal).arg(child.id().to_string()).status().unwrap();
        assert!(status.success());
        std::thread::sleep(Duration::from_millis(100));
    }
    let output = child.wait_with_output().unwrap();
    (Ran::of(&output, &args), sent.elapsed())
}

#[test]
fn the_first_signal_drains_and_the_run_can_be_resumed() {
    let home = slow();
    let (ran, _) = interrupted(&home, &["-INT"]);
    let ran = ran.exits(130);
    let document = ran.json();
    valid("run.schema.json", &document);
    let id = document["run_id"].as_str().unwrap();
    assert_eq!(document["state"], "queued", "{document:#}");
    assert!(ran.stderr.contains(&format!("runs resume {id}")), "{}", ran.stderr);
    let steps = &document["processing_summary"]["steps"];
    assert_eq!(
        (&steps[0]["state"], &steps[1]["attempts"]),
        (&json!("succeeded"), &json!([])),
        "the running step finished, no other began"
    );
    let resumed = home.run(&["runs", "resume", &id[..13], "--output", "json"]).exits(0).json();
    assert_eq!((&resumed["run_id"], &resumed["state"]), (&document["run_id"], &json!("succeeded")));
    assert_eq!(
        resumed["processing_summary"]["steps"][0], document["processing_summary"]["steps"][0],
        "the finished step was not executed again"
    );
    assert_eq!(home.run(&["runs", "resume", id, "--output", "json"]).exits(0).json(), resumed, "it is over");
}

#[test]
fn the_second_signal_stops_at_once() {
    let home = slow();
    let (ran, took) = interrupted(&home, &["-TERM", "-TERM"]);
    let document = ran.exits(130).json();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(document["processing_summary"]["steps"][0]["duration_ms"], json!(null), "{document:#}");
    let id = document["run_id"].as_str().unwrap();
    let resumed = home.run(&["runs", "resume", id, "--output", "json"]).exits(0).json();
    // No attempt failed: the first attempt gives the outcome.
    assert_eq!(resumed["processing_summary"]["steps"][0]["attempts"].as_array().unwrap().len(), 1, "{resumed:#}");
}
