//! Grants that this machine withholds (`worker.grants`) are also withheld from `run`, `runs resume` and `retry` on the
//! data folder, and from `task run`. `workers.rs` tests the same for workers.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Home, Ran, open_run, plugin};

/// Two pipelines: `ask` reads the clock, `plain` needs nothing.
fn home() -> Home {
    let home = Home::new();
    let clock = plugin("clock").display().to_string();
    home.run(&["task", "push", &clock, "--grant", "clocks"]).exits(0);
    home.push(&["add"]);
    let pipeline = |name: &str, step: Value, from: &str| {
        let (steps, output) = (json!({ "now": step }), json!({ "it": from }));
        let pipeline = json!({ "name": name, "version": "1.0.0", "inputs": {}, "steps": steps, "output": output });
        home.pipeline(name, &pipeline);
    };
    pipeline("ask", json!({ "number": 1, "task": "clock@^1", "inputs": {} }), "now.milliseconds");
    pipeline(
        "plain",
        json!({ "number": 1, "task": "add@^1", "inputs": { "a": {"value": 1}, "b": {"value": 2} } }),
        "now.sum",
    );
    home
}

/// The command on a machine with these `worker.grants`.
fn given(home: &Home, grants: &str, args: &[&str]) -> Ran {
    let args: Vec<&str> = args.iter().copied().chain(["--output", "json"]).collect();
    Ran::of(&Command::env(&mut home.command(&args), "DOVETAIL_WORKER_GRANTS", grants).output().unwrap(), &args)
}

#[track_caller]
fn withheld(ran: Ran, who: &str) {
    let error = ran.exits(2).json()["error"].clone();
    let (message, help) = (error["message"].as_str().unwrap(), error["help"].as_str().unwrap());
    assert_eq!((&error["code"], &error["details"]["grant"]), (&json!("grant_withheld"), &json!("clocks")), "{error:#}");
    assert!(
        message.contains(who) && message.contains("worker.grants") && help.contains("DOVETAIL_WORKER_GRANTS"),
        "{error:#}"
    );
}

fn runs(home: &Home) -> Vec<Value> {
    home.run(&["runs", "list", "--output", "json"]).exits(0).json().as_array().unwrap().clone()
}

#[test]
fn a_local_run_gets_only_the_grants_of_this_machine() {
    let home = home();
    for grants in ["", "random"] {
        withheld(given(&home, grants, &["run", "ask"]), "`clock_001`");
        withheld(given(&home, grants, &["task", "run", "clock"]), "`clock@1.0.0`");
        withheld(
            given(&home, grants, &["task", "run", &plugin("clock").display().to_string(), "--grant", "clocks"]),
            "`clock`",
        );
        given(&home, grants, &["task", "run", "add", "--input", "a=1", "--input", "b=2"]).exits(0);
    }
    assert!(runs(&home).is_empty(), "nothing is recorded");
    given(&home, "", &["run", "plain"]).exits(0);
    given(&home, "clocks", &["run", "ask"]).exits(0);
    given(&home, "random,clocks", &["task", "run", "clock"]).exits(0);
    home.run(&["run", "ask"]).exits(0);
}

#[test]
fn what_is_resumed_or_retried_here_is_given_no_more_either() {
    let home = home();
    let (asking, plain) = (open_run(&home, "ask"), open_run(&home, "plain"));
    withheld(given(&home, "random", &["runs", "resume", &asking]), "`clock_001`");
    let both = given(&home, "random", &["runs", "resume", "--all"]).exits(3).json();
    let states: Vec<(&Value, &Value)> =
        both["runs"].as_array().unwrap().iter().map(|run| (&run["run_id"], &run["state"])).collect();
    assert_eq!(states, [(&json!(plain), &json!("succeeded"))], "{both:#}");
    assert_eq!(both["error"]["code"], "grant_withheld", "{both:#}");
    assert!(both["error"]["message"].as_str().unwrap().contains(&format!("run {asking}: ")), "{both:#}");
    home.run(&["runs", "cancel", &asking]).exits(0);
    withheld(given(&home, "random", &["runs", "retry", &asking]), "`clock_001`");
    // The run is over, so that no step needs a grant.
    given(&home, "random", &["runs", "resume", &asking]).exits(1);
    home.run(&["runs", "retry", &asking]).exits(0);
}
