//! Every JSON document that a command prints is valid against its schema.

use serde_json::json;

use crate::support::{Home, plugin, valid};

fn home() -> Home {
    let home = Home::new();
    home.push(&["add"]).pipeline(
        "adding",
        &json!({ "name": "adding", "version": "1.0.0", "inputs": { "a": {}, "b": {"default": 1} },
            "steps": { "sum": { "number": 1, "task": "add@^1", "inputs": { "a": "input.a", "b": "input.b" } } },
            "output": { "sum": "sum.sum" } }),
    );
    home
}

#[test]
fn every_document_is_what_its_schema_says() {
    let home = home();
    let run = home.run(&["run", "adding", "--input", "a=1", "--output", "json"]).exits(0).json();
    let (id, add) = (run["run_id"].as_str().unwrap(), plugin("add"));
    let add = add.to_str().unwrap();
    let file = home.write("adding.json", home.run(&["pipeline", "show", "adding", "--output", "json"]).stdout);
    for (schema, exit, args) in [
        ("run", 0, &["runs", "show", id][..]),
        ("run-list", 0, &["runs", "list"]),
        ("lineage", 0, &["runs", "lineage", id]),
        ("logs", 0, &["runs", "logs", id]),
        ("cancelled", 0, &["runs", "cancel", id]),
        ("runs", 0, &["runs", "resume", "--all"]),
        ("task-check", 0, &["task", "check", add]),
        ("task-list", 0, &["task", "list"]),
        ("task", 0, &["task", "show", "add"]),
        ("task-run", 0, &["task", "run", "add", "--input", "a=1", "--input", "b=2"]),
        ("pushed-tasks", 0, &["task", "push", add]),
        ("packed-task", 0, &["task", "pack", add, "-o", "add.zip"]),
        ("pipeline-list", 0, &["pipeline", "list"]),
        ("pipeline-record", 0, &["pipeline", "show", "adding"]),
        ("capabilities", 0, &["pipeline", "show", "adding", "--capabilities"]),
        ("updated-pipeline", 0, &["pipeline", "update", "adding"]),
        ("graph", 0, &["pipeline", "graph", "adding"]),
        ("check", 1, &["pipeline", "check", file.as_str()]),
        ("model-list", 0, &["models", "list"]),
        ("workers", 0, &["workers", "list"]),
        ("doctor", 1, &["doctor"]),
        ("gc", 0, &["gc", "--dry-run"]),
        ("error", 2, &["runs", "show", "no-run"]),
    ] {
        let args: Vec<&str> = args.iter().copied().chain(["--output", "json"]).collect();
        valid(&format!("{schema}.schema.json"), &home.run(&args).exits(exit).json());
    }
    // No worker lives, so that --detach submits nothing.
    valid(
        "error.schema.json",
        &home.run(&["run", "adding", "-i", "a=1", "--detach", "--output", "json"]).exits(2).json(),
    );
}

#[test]
fn a_refused_plugin_is_a_document_too() {
    let home = Home::new();
    home.write("bad/plugin.toml", "name = \"Bad\"\nversion = \"1\"\n");
    let refused = home.run(&["task", "check", "bad", "--output", "json"]).exits(1).json();
    valid("task-check.schema.json", &refused);
    assert_eq!(refused["errors"][0]["path"], "plugin.toml");
}
