//! `pipeline`: valid and invalid files, publishing, updates to newer plugins.

use serde_json::{Value, json};

use crate::support::{Home, normal, plugin, valid};

fn twice() -> Value {
    json!({ "name": "twice", "version": "1.0.0", "inputs": { "a": {} },
        "steps": {
            "first": { "number": 1, "task": "add@^1", "inputs": { "a": "input.a", "b": "input.a" } },
            "second": { "number": 2, "task": "add@^1", "inputs": { "a": "output_001_sum", "b": {"value": 1} } } },
        "output": { "sum": "second.sum" } })
}

#[test]
fn everything_wrong_is_found_at_once() {
    let home = Home::new();
    home.push(&["add"]);
    let file = r#"{
  "name": "bad", "version": "1.0.0", "inputs": { "a": {} },
  "steps": {
    "one": { "number": 1, "task": "add@^1", "inputs": { "a": "input.a", "b": {"value": "x"} } },
    "two": { "number": 1, "task": "ad@^1", "inputs": { "a": "thre.sum" } },
    "four": { "number": 4, "task": "add@^7", "speed": 3, "inputs": { "a": "one.sun" } }
  },
  "output": { "sum": "one.sum" }
}
"#;
    home.write("bad.json", file);
    let text = home.run(&["pipeline", "check", "bad.json"]).exits(1).stdout;
    insta::assert_snapshot!(normal(&home, &text));
    let json = home.run(&["pipeline", "check", "bad.json", "--output", "json"]).exits(1).json();
    let codes: Vec<&str> =
        json["errors"].as_array().unwrap().iter().map(|error| error["code"].as_str().unwrap()).collect();
    for code in ["bad_value", "duplicate_number", "unknown_task", "unknown_step", "unknown_version", "unknown_key"] {
        assert!(codes.contains(&code), "{code} is not among {codes:?}");
    }
    valid("check.schema.json", &json);
    assert!(json["errors"].as_array().unwrap().iter().any(|error| error.get("help").is_some()), "{json:#}");
    home.run(&["pipeline", "push", "bad.json"]).exits(1);
    assert_eq!(home.run(&["pipeline", "list", "--output", "json"]).json(), json!([]));
}

#[test]
fn a_published_version_never_changes_and_update_moves_to_newer_plugins() {
    let home = Home::new();
    home.push(&["add"]).pipeline("twice", &twice());
    let again = home.run(&["pipeline", "push", "twice.json", "--output", "json"]).exits(0).json();
    assert_eq!((again["created"].as_bool(), again["revision"].as_u64()), (Some(false), Some(1)));
    // A version control system may write CRLF.
    let text = serde_json::to_string_pretty(&twice()).unwrap().replace('\n', "\r\n");
    home.write("dos.json", text);
    assert_eq!(home.run(&["pipeline", "push", "dos.json", "--output", "json"]).exits(0).json()["created"], false);
    let mut other = twice();
    other["output"] = json!({ "sum": "first.sum", "all": "second.sum" });
    home.write("twice.json", other.to_string());
    assert_eq!(
        home.run(&["pipeline", "push", "twice.json", "--output", "json"]).exits(2).json()["error"]["code"],
        "version_exists"
    );

    assert!(home.run(&["pipeline", "update", "twice"]).exits(0).stdout.contains("up to date (revision 1)"));
    let manifest = std::fs::read_to_string(plugin("add").join("plugin.toml")).unwrap().replace("1.0.0", "1.1.0");
    home.write("add/plugin.toml", manifest);
    let component =
        home.write("add/it.wasm", of_version(&std::fs::read(crate::support::component("add")).unwrap(), "1.1.0"));
    home.run(&["task", "pack", "add", "--component", &component, "-o", "add.zip"]).exits(0);
    home.run(&["task", "push", "add.zip"]).exits(0);
    let update = home.run(&["pipeline", "update", "twice", "--output", "json"]).exits(0).json();
    assert_eq!((update["updated"].as_bool(), update["revision"].as_u64()), (Some(true), Some(2)));
    let differences = update["differences"].as_array().unwrap();
    assert!(
        differences.iter().any(|line| line.as_str().unwrap().contains("add@1.0.0 -> add@1.1.0")),
        "{differences:?}"
    );
    assert_eq!(home.run(&["pipeline", "show", "twice", "--output", "json"]).json()["revision"], 2);
}

/// The component of `add` with another version in its WIT. The version must have the length of the original one.
fn of_version(component: &[u8], version: &str) -> Vec<u8> {
    let (old, new) = (b"dovetail:add/task@1.0.0", format!("dovetail:add/task@{version}"));
    let mut changed = component.to_vec();
    for at in 0..changed.len() - old.len() {
        if changed[at..].starts_with(old) {
            changed[at..at + old.len()].copy_from_slice(new.as_bytes());
        }
    }
    changed
}

#[test]
fn warnings_and_good_files_are_told_in_the_same_form() {
    let home = Home::new();
    home.push(&["add"]);
    let mut unused = twice();
    home.write("good.json", unused.to_string());
    unused["output"] = json!({ "sum": "first.sum" });
    home.write("unused.json", unused.to_string());
    for (file, warnings) in [("good.json", 0), ("unused.json", 1)] {
        let found = home.run(&["pipeline", "check", file, "--output", "json"]).exits(0).json();
        valid("check.schema.json", &found);
        assert_eq!(
            (found["errors"].as_array().unwrap().len(), found["warnings"].as_array().unwrap().len()),
            (0, warnings),
            "{found:#}"
        );
    }
    home.write("syntax.json", "{ not json");
    valid("check.schema.json", &home.run(&["pipeline", "check", "syntax.json", "--output", "json"]).exits(1).json());
}

#[test]
fn graphs_and_descriptions() {
    let home = Home::new();
    home.push(&["add"]).pipeline("twice", &twice());
    let published = home.run(&["pipeline", "graph", "twice"]).exits(0).stdout;
    assert_eq!(
        published,
        home.run(&["pipeline", "graph", "twice.json"]).exits(0).stdout,
        "a file and the pipeline published from it are drawn alike"
    );
    let mermaid = home.run(&["pipeline", "graph", "twice", "--format", "mermaid"]).exits(0).stdout;
    let show = home.run(&["pipeline", "show", "twice"]).exits(0).stdout;
    insta::assert_snapshot!(normal(&home, &format!("{published}\n{mermaid}\n{show}")));
}
