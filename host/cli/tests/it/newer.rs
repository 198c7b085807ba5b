//! Records that a newer dovetail wrote. Lists show the other records and name these, and no other record is used in
//! their place.

use std::sync::Arc;

use dovetail_core::keys::NodeId;
use dovetail_core::ledger::{Kind, Ledger as _, Operation, Record, RunKey};
use dovetail_flow::SystemClock;
use dovetail_stores::SqliteLedger;
use serde_json::{Value, json};

use crate::support::Home;

const RUN: &str = "01999999-9999-7999-8999-999999999999";

/// A data folder with a task, a pipeline and a run of this version.
fn home() -> Home {
    let home = Home::new();
    home.push(&["add"]).pipeline("it", &pipeline("it", "1.0.0"));
    home.run(&["run", "it"]).exits(0);
    home
}

fn pipeline(name: &str, version: &str) -> Value {
    let steps = json!({ "go": { "number": 1, "task": "add@^1", "inputs": { "a": {"value": 1}, "b": {"value": 2} } } });
    json!({ "name": name, "version": version, "inputs": {}, "steps": steps, "output": { "sum": "go.sum" } })
}

fn record(kind: Kind, key: &str, format: &str) -> Record {
    Record { kind, key: key.to_owned(), value: json!({ "format": format, "a_new": "word" }).to_string().into_bytes() }
}

/// Adds records in the format of a newer dovetail.
fn write(home: &Home, items: &[Operation]) {
    SqliteLedger::open(&home.path("data"), Arc::new(SystemClock)).unwrap().commit(items).unwrap();
}

fn put(home: &Home, kind: Kind, key: &str, format: &str) {
    write(home, &[Operation::Put { record: record(kind, key, format) }]);
}

/// Lists `what`: the readable records are there, and the unreadable one is named on standard error and after the
/// others.
fn listed(home: &Home, what: &str, ours: &str, (name, value): (&str, &str)) {
    let text = home.run(&[what, "list"]).exits(0);
    assert!(text.stdout.contains(ours), "{}", text.stdout);
    let told =
        text.stderr.lines().find(|line| line.starts_with("warning: ")).unwrap_or_else(|| panic!("{}", text.stderr));
    assert!(
        told.contains(value)
            && told.contains("`dovetail.")
            && told.contains("use the version that wrote it, or a newer one"),
        "{told}"
    );
    let all = home.run(&[what, "list", "--output", "json"]).exits(0).json();
    let [one, newer] = all.as_array().unwrap().as_slice() else { panic!("{all:#}") };
    assert!(one.get("unreadable").is_none(), "{one:#}");
    assert_eq!((&newer[name], &newer["unreadable"]["code"]), (&json!(value), &json!("store_newer")), "{newer:#}");
}

#[test]
fn a_run_of_a_newer_form_hides_no_other() {
    let home = home();
    let run = RunKey { run: RUN.parse().unwrap(), generation: 0 };
    let record = record(Kind::Run, RUN, "dovetail.run_record/9");
    write(&home, &[Operation::Submit { run, record, jobs: Vec::new(), steps: [NodeId::of_step("go")].into() }]);
    listed(&home, "runs", "it@1.0.0", ("run_id", RUN));
    assert_eq!(home.run(&["runs", "show", RUN, "--output", "json"]).exits(3).json()["error"]["code"], "store_newer");
    // The unreadable run does not prevent the others from being resumed.
    let ours = crate::support::open_run(&home, "it");
    let resumed = home.run(&["runs", "resume", "--all", "--output", "json"]).exits(3).json();
    let states: Vec<(&Value, &Value)> =
        resumed["runs"].as_array().unwrap().iter().map(|run| (&run["run_id"], &run["state"])).collect();
    assert_eq!(
        (states, &resumed["error"]["code"]),
        (vec![(&json!(ours), &json!("succeeded"))], &json!("store_newer")),
        "{resumed:#}"
    );
}

#[test]
fn a_model_whose_manifest_cannot_be_read_hides_no_other() {
    let home = home();
    let cascade = std::path::Path::new(dovetail_vision::HAAR_FOLDER);
    assert!(cascade.is_dir(), "{} is missing: install opencv-data", cascade.display());
    let file = cascade.join("haarcascade_frontalface_alt2.xml").display().to_string();
    let manifest = home.write("mine.toml", "name = \"mine\"\nkind = \"detector\"\noutput = \"cascade\"\n");
    home.run(&["models", "add", &file, "--manifest", &manifest]).exits(0);
    home.write("data/models/theirs.toml", "name = \"theirs\"\na_new = \"word\"\n");
    let text = home.run(&["models", "list"]).exits(0);
    assert!(
        text.stdout.contains("mine") && text.stderr.starts_with("warning: the model theirs cannot be read: "),
        "{}",
        text.stderr
    );
    let all = home.run(&["models", "list", "--output", "json"]).exits(0).json();
    assert_eq!(
        (&all[0]["name"], &all[1]["name"], &all[1]["unreadable"]["code"]),
        (&json!("mine"), &json!("theirs"), &json!("bad_manifest"))
    );
    assert_eq!(all.as_array().unwrap().len(), 2);
}

#[test]
fn the_end_of_a_run_of_a_newer_form_hides_no_other() {
    let home = home();
    home.run(&["run", "it"]).exits(0);
    let runs = home.run(&["runs", "list", "--output", "json"]).json();
    let newest = runs[0]["run_id"].as_str().unwrap().to_owned();
    let key = RunKey { run: newest.parse().unwrap(), generation: 1 }.key();
    // The newer dovetail retried the run, and the second generation has ended.
    let generation = Record { kind: Kind::Generation, key: key.clone(), value: b"{}".to_vec() };
    write(
        &home,
        &[
            Operation::Put { record: generation },
            Operation::Put { record: record(Kind::RunOutcome, &key, "dovetail.run_outcome/2") },
        ],
    );
    listed(&home, "runs", "it@1.0.0", ("run_id", &newest));
}

#[test]
fn a_task_of_a_newer_form_hides_no_other() {
    let home = home();
    let file = home.write("next.json", pipeline("next", "1.0.0").to_string());
    put(&home, Kind::Plugin, "sub@1.0.0", "dovetail.plugin/2");
    listed(&home, "task", "add", ("name", "sub"));
    home.run(&["pipeline", "check", &file]).exits(0);
    home.run(&["pipeline", "update", "it"]).exits(0);
    home.push(&["add"]);
    assert_eq!(home.run(&["task", "show", "sub", "--output", "json"]).exits(3).json()["error"]["code"], "store_newer");
    // An older version does not replace the wanted one, and can be named itself.
    put(&home, Kind::Plugin, "add@1.9.0", "dovetail.plugin/2");
    for args in [
        &["task", "show", "add@^1"][..],
        &["task", "run", "add", "--input", "a=1"],
        &["pipeline", "check", &file],
        &["pipeline", "push", &file],
    ] {
        let args: Vec<&str> = args.iter().copied().chain(["--output", "json"]).collect();
        let error = home.run(&args).exits(3).json();
        assert!(
            error["error"]["message"].as_str().unwrap().starts_with("read the record of plugin add@1.9.0"),
            "{args:?}: {error:#}"
        );
    }
    home.run(&["task", "show", "add@1.0.0"]).exits(0);
    home.run(&["run", "it"]).exits(0);
}

#[test]
fn a_pipeline_of_a_newer_form_hides_no_other() {
    let home = home();
    put(&home, Kind::Pipeline, "other@1.0.0#1", "dovetail.pipeline/2");
    listed(&home, "pipeline", "it@1.0.0", ("pipeline", "other@1.0.0"));
    home.run(&["run", "it"]).exits(0);
    // A run would use the newest revision.
    home.pipeline("more", &pipeline("more", "1.0.0"));
    put(&home, Kind::Pipeline, "more@1.0.0#2", "dovetail.pipeline/2");
    let all = home.run(&["pipeline", "list", "--output", "json"]).exits(0).json();
    let names: Vec<&str> = all.as_array().unwrap().iter().map(|one| one["pipeline"].as_str().unwrap()).collect();
    assert_eq!(names, ["it@1.0.0", "other@1.0.0", "more@1.0.0"], "{all:#}");
    for args in [["pipeline", "show", "more"], ["pipeline", "show", "other@1.0.0"]] {
        home.run(&args).exits(3);
    }
    let registry = home.run(&["doctor", "--output", "json"]).json();
    let line = registry["checks"].as_array().unwrap().iter().find(|check| check["what"] == "registry").unwrap();
    let found = line["found"].as_str().unwrap();
    assert!(
        found.contains("1 pipeline version") && found.contains("cannot be read: other@1.0.0, more@1.0.0"),
        "{line:#}"
    );
    assert_eq!((&line["ok"], &line["warning"]), (&json!(true), &json!(true)));
}
