//! Output to a terminal, to a terminal without control sequences, and to closed streams.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Home, Ran, plugin};

/// The program's output, of both streams, on a terminal of this many columns.
fn on_terminal(home: &Home, columns: u32, set: &[(&str, &str)], words: &str) -> String {
    let program = env!("CARGO_BIN_EXE_dovetail");
    let line = format!("stty cols {columns}; {program} --data {} {words}", home.path("data").display());
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).current_dir(home.path("")).env_clear().env("HOME", home.path(""));
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).envs(set.iter().copied());
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

const TERMINAL: (&str, &str) = ("TERM", "xterm");

/// A pipeline of steps with long names that run in parallel for two seconds.
fn wide() -> Home {
    let home = Home::new();
    let busy = json!({ "behaviour": {"value": {"tag": "busy", "val": 2_000_000}} });
    let step = |n: usize| json!({ "number": n, "task": "probe", "inputs": busy });
    let names: Vec<String> = (1..7).map(|n| format!("a_step_whose_name_is_{n}_of_many")).collect();
    let steps: serde_json::Map<String, Value> =
        names.iter().enumerate().map(|(n, name)| (name.clone(), step(n + 1))).collect();
    let output = json!({ "count": format!("{}.count", names[0]) });
    home.push(&["probe"])
        .pipeline("wide", &json!({ "name": "wide", "version": "1.0.0", "steps": steps, "output": output }));
    home
}

#[test]
fn progress_is_as_wide_as_the_terminal() {
    let home = wide();
    for columns in [40, 180] {
        let text = on_terminal(&home, columns, &[TERMINAL], "run wide --output json");
        // Each line of progress replaces the one before.
        let lines = text.split("\r\u{1b}[2K").skip(1).map(|line| line.split(['\r', '\n']).next().unwrap_or_default());
        let longest = lines.filter(|line| line.contains("running a_step")).map(|line| line.chars().count()).max();
        assert_eq!(longest, Some(columns as usize - 1), "{text:?}");
    }
    // Without a terminal no line is cut, and each step has its own line.
    let ran = home.run(&["run", "wide", "--output", "json"]).exits(0);
    assert!(
        !ran.stderr.contains('\u{1b}') && ran.stderr.contains("a_step_whose_name_is_6_of_many done in"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_terminal_that_understands_no_control_sequences_gets_none() {
    let home = wide();
    let colours = on_terminal(&home, 80, &[TERMINAL], "--help");
    assert!(colours.contains("\u{1b}["), "{colours:?}");
    for set in [&[("TERM", "dumb")][..], &[], &[TERMINAL, ("NO_COLOR", "1")]] {
        for words in ["--help", "run wide --output json --log-level debug"] {
            let text = on_terminal(&home, 80, set, words);
            assert!(!text.contains('\u{1b}'), "{set:?}: {text:?}");
        }
    }
}

/// The program, started by a shell that closes a stream.
fn closed(home: &Home, stream: &str, args: &[&str]) -> Ran {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec \"$0\" \"$@\" {stream}"), env!("CARGO_BIN_EXE_dovetail"), "--data"]);
    command.arg(home.path("data")).args(args).current_dir(home.path("")).env_clear().env("HOME", home.path(""));
    Ran::of(&command.output().unwrap(), args)
}

#[test]
fn a_result_for_a_closed_standard_output_is_lost_and_an_input_is_not_empty() {
    let home = Home::new();
    for args in [&["task", "list"][..], &["schema", "run"], &["--help"], &["--version"], &["completions", "bash"]] {
        let ran = closed(&home, ">&-", args).exits(3);
        assert!(ran.stderr.starts_with("error: write to standard output: Bad file descriptor"), "{}", ran.stderr);
        closed(&home, ">/dev/null", args).exits(0);
        // Other programs open the stream for reading as well.
        closed(&home, "1<>/dev/null", args).exits(0);
    }
    closed(&home, ">&-", &["task", "show", "none"]).exits(2);
    home.write("note.txt", "some text");
    let folder = plugin("copy-artifact").display().to_string();
    let args = ["task", "run", &folder, "--input", "artifact=@-", "--output", "json"];
    let ran = closed(&home, "<&-", &args).exits(2);
    assert!(ran.stderr.contains("read standard input: Bad file descriptor"), "{}", ran.stderr);
    assert_eq!(closed(&home, "<note.txt", &args).exits(0).json()["output"]["size"], 9);
    let ran = closed(&home, "<&-", &["task", "run", &folder, "--input", "@-"]).exits(2);
    assert!(ran.stderr.contains("read standard input: Bad file descriptor"), "{}", ran.stderr);
}
