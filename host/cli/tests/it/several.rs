//! `run --each` and `runs resume` of several: files that cannot be read, interruption while files are still being
//! submitted, and a document that is closed whatever happens.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::support::{Home, Ran, valid};

/// One step, and files to run it on: `in/0000.json` holds 0.
fn home(files: usize) -> Home {
    let home = Home::new();
    home.push(&["add"]).pipeline(
        "adding",
        &json!({ "name": "adding", "version": "1.0.0", "inputs": { "a": {}, "b": {"default": 1} },
            "steps": { "sum": { "number": 1, "task": "add@^1", "inputs": { "a": "input.a", "b": "input.b" } } },
            "output": { "sum": "sum.sum" } }),
    );
    for n in 0..files {
        home.write(&format!("in/{n:04}.json"), n.to_string());
    }
    home
}

/// A pipeline with one step that takes an artifact, and files for it.
fn copying(files: usize) -> Home {
    let home = Home::new();
    home.push(&["copy-artifact"]).pipeline(
        "copying",
        &json!({ "name": "copying", "version": "1.0.0", "inputs": { "file": {} },
            "steps": { "copy": { "number": 1, "task": "copy-artifact@^1", "inputs": { "artifact": "input.file" } } },
            "output": { "size": "copy.size" } }),
    );
    for n in 0..files {
        home.write(&format!("in/{n:04}.txt"), format!("file {n}"));
    }
    home
}

fn recorded(home: &Home) -> Vec<Value> {
    home.run(&["runs", "list", "-n", "100000", "--output", "json"]).exits(0).json().as_array().unwrap().clone()
}

fn sums(runs: &[Value]) -> Vec<u64> {
    runs.iter().map(|run| run["output"]["sum"].as_u64().unwrap()).collect()
}

/// A command that has printed the first line of its result, and that line.
fn begun(home: &Home, args: &[&str]) -> (Child, BufReader<std::process::ChildStdout>, String) {
    let mut child = home.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    (child, stdout, line)
}

fn interrupt(child: &Child) {
    assert!(std::process::Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap().success());
}

/// The rest of the command's output.
fn ended(child: Child, mut stdout: BufReader<std::process::ChildStdout>, line: &str, args: &[&str]) -> Ran {
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    let mut output = child.wait_with_output().unwrap();
    output.stdout = [line.as_bytes(), &rest].concat();
    Ran::of(&output, args)
}

#[test]
fn every_file_is_looked_at_before_the_first_run() {
    let home = copying(300);
    let args = ["run", "copying", "--each", "file=@in/*.txt", "--output", "json"];
    let refused = |code: &str| {
        let error = home.run(&args).exits(2).json();
        valid("error.schema.json", &error);
        assert_eq!(error["error"]["code"], code, "{error:#}");
        assert_eq!(recorded(&home), Vec::<Value>::new());
    };
    // The file is larger than an artifact may be. It is sparse, so that it takes no disk space.
    let large = std::fs::File::create(home.path("in/0200.txt")).unwrap();
    large.set_len((256 << 20) + 1).unwrap();
    refused("unreadable_file");
    home.write("in/0200.txt", "small");
    // A link without a target.
    std::os::unix::fs::symlink(home.path("nowhere"), home.path("in/gone")).unwrap();
    let error = home
        .run(&["run", "copying", "--each", "file=@in/0000.txt", "--each", "file=@in/gone", "--output", "json"])
        .exits(2)
        .json();
    assert_eq!(error["error"]["code"], "missing_file");
    // A pipe might not end, or be empty when it is read for the run.
    assert!(std::process::Command::new("mkfifo").arg(home.path("in/pipe")).status().unwrap().success());
    let error = home
        .run(&["run", "copying", "--each", "file=@in/0000.txt", "--each", "file=@in/pipe", "--output", "json"])
        .exits(2)
        .json();
    assert_eq!(error["error"]["code"], "not_a_file");
    // A privileged user can read every file, so that no file is unreadable.
    home.write("in/secret.txt", "x");
    std::fs::set_permissions(home.path("in/secret.txt"), std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    if std::fs::File::open(home.path("in/secret.txt")).is_err() {
        refused("unreadable_file");
    }
    std::fs::remove_file(home.path("in/secret.txt")).unwrap();
    assert_eq!(recorded(&home), Vec::<Value>::new());
    let all = home.run(&args).exits(0).json();
    valid("runs.schema.json", &all);
    assert_eq!(
        all["runs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|run| run["inputs"]["file"]["name"].as_str().unwrap())
            .collect::<Vec<_>>()
            .len(),
        300
    );
    assert!(
        all["runs"].as_array().unwrap().iter().map(|run| run["inputs"]["file"]["name"].as_str().unwrap()).is_sorted()
    );
}

#[test]
fn standard_input_serves_every_file() {
    let home = home(20);
    let args = ["run", "adding", "--each", "a=@in", "--input", "b=@-", "--output", "json"];
    let mut child =
        home.command(&args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"1000").unwrap();
    let all = Ran::of(&child.wait_with_output().unwrap(), &args).exits(0).json();
    assert_eq!(sums(all["runs"].as_array().unwrap()), (1000..1020).collect::<Vec<u64>>());
}

#[test]
fn results_come_while_files_are_submitted_and_an_interruption_can_be_resumed() {
    let home = home(2000);
    let args = ["run", "adding", "--each", "a=@in", "--jobs", "1", "--output", "ndjson"];
    let (child, stdout, line) = begun(&home, &args);
    interrupt(&child);
    let submitted = recorded(&home).len();
    assert!(submitted < 2000, "the first result came when {submitted} were submitted");
    let ran = ended(child, stdout, &line, &args).exits(130);
    let runs: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    runs.iter().for_each(|run| valid("run.schema.json", run));
    let inputs: Vec<u64> = runs.iter().map(|run| run["inputs"]["a"].as_u64().unwrap()).collect();
    assert_eq!(
        inputs,
        (0..runs.len() as u64).collect::<Vec<_>>(),
        "every submitted run is listed, in the order of the files"
    );
    let open = runs.iter().filter(|run| run["state"] != "succeeded").count();
    assert!(open > 0 && runs.len() < 2000, "{open} of {} are open", runs.len());
    assert_eq!(recorded(&home).len(), runs.len());
    let data = home.path("data");
    let hint = format!(
        "interrupted; {open} runs are open; go on with them by\n  dovetail --data {} runs resume --all\n",
        data.display()
    );
    let rest = format!(
        "{} files were not submitted, from `in/{:04}.json` on: run --each again with these",
        2000 - runs.len(),
        runs.len()
    );
    assert!(ran.stderr.contains(&hint) && ran.stderr.contains(&rest), "{}", ran.stderr);

    let resumed = home.run(&["runs", "resume", "--all", "--output", "json"]).exits(0).json();
    valid("runs.schema.json", &resumed);
    assert_eq!(sums(resumed["runs"].as_array().unwrap()).len(), open);
    assert_eq!(
        (&resumed["summary"]["total"], &resumed["summary"]["open"], &resumed["summary"]["not_submitted"]),
        (&json!(open), &json!(0), &json!(0))
    );
    assert!(recorded(&home).iter().all(|run| run["state"] == "succeeded"));
    let none = home.run(&["runs", "resume", "--all", "--output", "json"]).exits(0).json();
    valid("runs.schema.json", &none);
    assert_eq!(none["runs"], json!([]));
    assert_eq!(home.run(&["runs", "resume", "--all"]).exits(0).stdout, "no run is open\n");
}

#[test]
fn with_a_key_the_same_command_goes_on() {
    let home = home(600);
    let args = ["run", "adding", "--each", "a=@in", "--jobs", "1", "--key", "monday", "--output", "ndjson"];
    let (child, stdout, line) = begun(&home, &args);
    interrupt(&child);
    let ran = ended(child, stdout, &line, &args).exits(130);
    assert!(ran.stderr.contains("on: the same command goes on with them"), "{}", ran.stderr);
    let all = home.run(&["run", "adding", "--each", "a=@in", "--key", "monday", "--output", "json"]).exits(0).json();
    assert_eq!(sums(all["runs"].as_array().unwrap()), (1..601).collect::<Vec<u64>>());
    assert_eq!(recorded(&home).len(), 600);
}

#[test]
fn a_file_that_goes_away_meanwhile_is_told_and_the_others_are_run() {
    let home = home(700);
    let args = ["run", "adding", "--each", "a=@in", "--jobs", "1", "--output", "json"];
    let (child, stdout, line) = begun(&home, &args);
    std::fs::remove_file(home.path("in/0690.json")).unwrap();
    home.write("in/0695.json", "\"no number\"");
    let ran = ended(child, stdout, &line, &args).exits(3);
    let all = ran.json();
    valid("runs.schema.json", &all);
    assert_eq!(
        sums(all["runs"].as_array().unwrap()),
        (1..701).filter(|sum| ![691, 696].contains(sum)).collect::<Vec<u64>>()
    );
    assert_eq!((&all["summary"]["succeeded"], &all["summary"]["not_submitted"]), (&json!(698), &json!(2)));
    let error = &all["error"];
    assert_eq!(
        (&error["code"], &error["details"]["files"][0]["path"]),
        (&json!("missing_file"), &json!("in/0690.json")),
        "{error:#}"
    );
    assert_eq!(
        (&error["details"]["files"][1]["code"], &error["details"]["files"][1]["path"]),
        (&json!("bad_input"), &json!("in/0695.json"))
    );
    assert!(
        ran.stderr.contains("error: 2 of 700 files could not be submitted\n  read `in/0690.json`: "),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_failure_of_the_host_stands_inside_the_document() {
    let home = home(40);
    home.run(&["run", "adding", "--each", "a=@in/000*.json", "--key", "k"]).exits(0);
    // Damage the package that the other runs need.
    let packages = home.path("data/blobs/packages/sha256");
    let away: Vec<_> = std::fs::read_dir(&packages).unwrap().map(|entry| entry.unwrap().path()).collect();
    let saved = std::fs::read(&away[0]).unwrap();
    std::fs::write(&away[0], b"something else").unwrap();
    let args = ["run", "adding", "--each", "a=@in", "--key", "k"];
    let json: Vec<&str> = args.iter().copied().chain(["--output", "json"]).collect();
    let ran = home.run(&json).exits(3);
    let all = ran.json();
    valid("runs.schema.json", &all);
    let runs = all["runs"].as_array().unwrap();
    assert_eq!(sums(&runs[..10]), (1..11).collect::<Vec<u64>>());
    assert!(runs.len() > 10 && runs[10..].iter().all(|run| run["output"].is_null()), "{all:#}");
    assert_eq!(all["summary"]["open"], runs.len() - 10);
    assert!(
        all["error"]["code"].as_str().unwrap().starts_with("host_")
            || all["error"]["code"].as_str().unwrap().starts_with("store_"),
        "{all:#}"
    );
    assert!(ran.stderr.contains("runs resume --all"), "{}", ran.stderr);
    // In ndjson the error is a line; in text it is only on standard error.
    let ndjson: Vec<&str> = args.iter().copied().chain(["--output", "ndjson"]).collect();
    let lines = home.run(&ndjson).exits(3).stdout;
    valid("error.schema.json", &serde_json::from_str(lines.lines().last().unwrap()).unwrap());
    let text = home.run(&args).exits(3);
    assert!(text.stdout.contains(" succeeded, ") && text.stderr.contains("error: "), "{}{}", text.stdout, text.stderr);
    // After the repair the same runs end.
    std::fs::write(&away[0], saved).unwrap();
    let resumed = home.run(&["runs", "resume", "--all"]).exits(0).stdout;
    assert!(resumed.starts_with("pipeline ") && resumed.contains("adding@1.0.0  succeeded"), "{resumed}");
    assert!(recorded(&home).iter().all(|run| run["state"] == "succeeded"));
}

#[test]
fn before_the_first_run_there_is_one_error() {
    let home = home(3);
    home.run(&["run", "adding", "--each", "a=@in", "--key", "k"]).exits(0);
    let error = home
        .run(&["run", "adding", "--each", "a=@in", "--input", "b=2", "--key", "k", "--output", "json"])
        .exits(2)
        .json();
    valid("error.schema.json", &error);
    assert_eq!(
        (&error["error"]["code"], error["error"]["details"]["files"].as_array().unwrap().len()),
        (&json!("run_differs"), 3),
        "{error:#}"
    );
}

#[test]
fn runs_are_resumed_by_name() {
    let home = home(3);
    let all = home.run(&["run", "adding", "--each", "a=@in", "--output", "json"]).exits(0).json();
    let ids: Vec<&str> = all["runs"].as_array().unwrap().iter().map(|run| run["run_id"].as_str().unwrap()).collect();
    let two = home.run(&["runs", "resume", ids[2], ids[0], ids[2], "--output", "json"]).exits(0).json();
    valid("runs.schema.json", &two);
    assert_eq!(
        (&two["runs"][0], &two["runs"][1], &two["summary"]["total"]),
        (&all["runs"][2], &all["runs"][0], &json!(2))
    );
    let lines = home.run(&["runs", "resume", ids[0], ids[1], "--output", "ndjson"]).exits(0).stdout;
    assert_eq!(lines.lines().count(), 2);
    assert_eq!(
        home.run(&["runs", "resume", ids[0], "--output", "json"]).exits(0).json(),
        all["runs"][0],
        "one run is one document"
    );
    for args in [&["runs", "resume"][..], &["runs", "resume", ids[0], "--all"], &["runs", "resume", ids[0], "ffff"]] {
        home.run(args).exits(2);
    }
}
