//! Help texts, and wrong arguments: exit code 2, one error, nothing recorded.

use serde_json::json;

use crate::support::{Home, Ran, command, normal, valid};

fn adding() -> Home {
    let home = Home::new();
    home.push(&["add", "copy-artifact"]).pipeline(
        "adding",
        &json!({ "name": "adding", "version": "1.0.0", "inputs": { "a": {}, "b": {"default": 1} },
            "steps": { "sum": { "number": 1, "task": "add@^1", "inputs": { "a": "input.a", "b": "input.b" } } },
            "output": { "sum": "sum.sum" } }),
    );
    home
}

#[test]
fn help_texts() {
    let home = Home::new();
    let mut all = String::new();
    for args in [
        &["--help"][..],
        &["run", "--help"],
        &["task", "push", "--help"],
        &["models", "pull", "-h"],
        &["demo", "-h"],
        &["bench", "-h"],
        &["runs", "-h"],
        &["schema", "--help"],
    ] {
        all.push_str(&format!("$ dovetail {}\n{}\n", args.join(" "), home.run(args).exits(0).stdout));
    }
    insta::assert_snapshot!(all);
}

#[test]
fn wrong_usage_is_told_and_nothing_is_recorded() {
    let home = adding();
    home.write("broken.json", "{ not json");
    home.write("elsewhere/copy.json", r#"{ "artifact": "@nowhere.txt" }"#);
    home.write("picture.jpg", b"\xff\xd8\xff");
    home.write("bad.toml", "[worker]\njobz = 1\n");
    let cases: &[(&[&str], &str)] = &[
        (&["run"], "usage"),
        (&["run", "adding", "--speed", "3"], "usage"),
        (&["run", "adding", "--jobs", "0"], "usage"),
        (&["frobnicate"], "usage"),
        (&["models"], "usage"),
        (&["run", "addng", "--input", "a=1"], "unknown_pipeline"),
        (&["run", "adding@2.0.0", "--input", "a=1"], "unknown_pipeline"),
        (&["run", "nowhere/adding.json"], "missing_file"),
        (&["run", "broken.json"], "bad_pipeline"),
        (&["run", "adding"], "bad_input"),
        (&["run", "adding", "--input", "a"], "bad_input"),
        (&["run", "adding", "--input", "aa=1"], "unknown_input"),
        (&["run", "adding", "--input", "a=one"], "bad_input"),
        (&["run", "adding", "--input", "a=\"one\""], "bad_input"),
        (&["run", "adding", "--input", "a=1.5"], "bad_input"),
        (&["run", "adding", "--input", "a=1", "--input", "a=2"], "input_twice"),
        (&["run", "adding", "--input", "a=@missing.json"], "missing_file"),
        (&["run", "adding", "--input", "a=@picture.jpg"], "bad_input"),
        (&["run", "adding", "--input", "@broken.json"], "bad_input"),
        (&["task", "run", "copy-artifact", "--input", "@elsewhere/copy.json"], "missing_file"),
        (&["run", "adding", "--input", "a=1", "--each", "a=@*.jpg"], "input_twice"),
        (&["run", "adding", "--each", "a=@*.gif"], "no_files"),
        (&["run", "adding", "--each", "c=@*.jpg"], "unknown_input"),
        (&["run", "adding", "--each", "a=@*.jpg"], "bad_input"),
        (&["run", "adding", "--input", "a=1", "--key", ""], "bad_option"),
        (&["runs", "show", "0000"], "unknown_run"),
        (&["runs", "show", "../x"], "unknown_run"),
        (&["task", "show", "ad"], "unknown_task"),
        (&["task", "show", "add@^2"], "unknown_version"),
        (&["task", "run", "add", "--input", "a=1"], "bad_input"),
        (&["task", "run", "add", "--input", "a=1", "--grant", "clocks"], "bad_grant"),
        (&["task", "check", "nowhere"], "missing_file"),
        (&["task", "pack", "picture.jpg"], "not_a_folder"),
        (&["pipeline", "check", "nowhere.json"], "missing_file"),
        (&["pipeline", "show", "addin"], "unknown_pipeline"),
        (&["models", "add", "none.onnx", "--manifest", "none.toml"], "missing_file"),
        (&["models", "pull", "--from", "nowhere.tgz"], "missing_file"),
        (&["demo", "--photographs", "nowhere", "--out", "out"], "missing_file"),
        (&["--config", "bad.toml", "runs", "list"], "bad_config"),
        (&["--config", "nowhere.toml", "runs", "list"], "missing_file"),
    ];
    let mut told = String::new();
    for (args, code) in cases {
        let ran = home.run(args).exits(2);
        assert_eq!(ran.stdout, "", "{args:?}");
        let lines: Vec<&str> = ran.stderr.lines().map(str::trim_end).collect();
        told.push_str(&format!("$ dovetail {}\n{}\n\n", args.join(" "), lines.join("\n")));
        let with_json: Vec<&str> = args.iter().copied().chain(["--output", "json"]).collect();
        let ran = home.run(&with_json).exits(2);
        let error = ran.json();
        valid("error.schema.json", &error);
        assert_eq!(error["error"]["code"], *code, "{args:?}: {error:#}");
    }
    insta::assert_snapshot!(normal(&home, &told));
    assert_eq!(home.run(&["runs", "list", "--output", "json"]).exits(0).json(), json!([]));
    assert!(!home.path("out").is_dir());
    // The message of tar differs from system to system.
    let ran = home.run(&["models", "pull", "--from", "picture.jpg", "--output", "json"]).exits(2);
    assert_eq!(ran.json()["error"]["code"], "bad_package");
}

#[test]
fn a_byte_order_mark_is_no_part_of_an_input_and_a_key_stands_once() {
    let home = adding();
    home.write("all.json", b"\xef\xbb\xbf{\"a\": 1}");
    home.write("one.json", b"\xef\xbb\xbf1");
    for input in ["@all.json", "a=@one.json"] {
        let document = home.run(&["run", "adding", "--input", input, "--output", "json"]).exits(0).json();
        assert_eq!(document["output"]["sum"], 2, "{input}");
    }
    let runs = home.run(&["run", "adding", "--each", "a=@one.json", "--output", "json"]).exits(0).json();
    assert_eq!(runs["runs"][0]["output"]["sum"], 2);
    home.push(&["probe"]);
    let twins = r#"{"tag": "busy", "val": 1, "val": 2}"#;
    home.write("twins.json", format!("{{\"behaviour\": {twins}}}"));
    home.write("value.json", twins);
    for (input, place) in
        [(&format!("behaviour={twins}")[..], ""), ("behaviour=@value.json", ""), ("@twins.json", "/behaviour")]
    {
        let error = home.run(&["task", "run", "probe", "--input", input, "--output", "json"]).exits(2).json();
        valid("error.schema.json", &error);
        let error = &error["error"];
        assert_eq!(
            (&error["code"], &error["details"]["key"], &error["details"]["place"]),
            (&json!("duplicate_key"), &json!("val"), &json!(place)),
            "{error:#}"
        );
    }
}

#[test]
fn settings_come_from_the_environment_and_from_files() {
    let home = Home::new();
    let run = |set: &[(&str, &str)]| {
        let args = ["runs", "list"];
        let mut command = home.command(&args);
        Ran::of(&command.envs(set.iter().copied()).output().unwrap(), &args)
    };
    run(&[("DOVETAIL_LOG_LEVEL", "debug")]).exits(0);
    assert!(run(&[("DOVETAIL_LOG_LEVL", "debug")]).exits(2).stderr.contains("did you mean `DOVETAIL_LOG_LEVEL`?"));
    assert!(run(&[("DOVETAIL_QUEUE", "redis://u:pass@h:1/0")]).exits(3).stderr.contains("connect to the queue at h:1"));
    assert!(
        run(&[("DOVETAIL_META", "mongodb://u:pass@h/d")])
            .exits(2)
            .stderr
            .contains("records in MongoDB need a queue in Redis")
    );
    home.push(&["add"]);
    std::fs::rename(home.path("data"), home.path("elsewhere")).unwrap();
    home.write("dovetail.toml", "data = \"elsewhere\"\n");
    // Without `--data`, which the other command lines of these tests have, the file decides.
    let bare = std::process::Command::new(env!("CARGO_BIN_EXE_dovetail"))
        .args(["task", "list"])
        .current_dir(home.path(""))
        .env_clear()
        .env("HOME", home.path(""))
        .output()
        .unwrap();
    let list = Ran::of(&bare, &["task", "list"]).exits(0);
    assert!(list.stdout.contains("add "), "{}", list.stdout);
    home.write("dovetail.toml", "dta = \"elsewhere\"\n");
    assert!(run(&[]).exits(2).stderr.contains("dovetail.toml:1:1: unknown field `dta`"));
}

#[test]
fn a_data_folder_that_cannot_be_used_is_the_hosts_failure() {
    let home = Home::new();
    let file = home.write("file", "x");
    let args = ["runs", "list", "--output", "json"];
    let ran = Ran::of(&command(file.as_ref(), &home.path(""), &args).output().unwrap(), &args).exits(3);
    valid("error.schema.json", &ran.json());
    assert!(ran.stderr.starts_with("error: ") && ran.stderr.contains("\n\nhelp: "), "{}", ran.stderr);
}

#[test]
fn a_folder_in_the_place_of_the_database_is_called_one() {
    let home = Home::new();
    std::fs::create_dir_all(home.path("data/dovetail.db")).unwrap();
    for args in [&["runs", "list"][..], &["task", "push", &crate::support::plugin("add").display().to_string()]] {
        let args: Vec<&str> = args.iter().copied().chain(["--output", "json"]).collect();
        let error = home.run(&args).exits(3).json()["error"].clone();
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains("dovetail.db") && message.contains("it is a folder, and should be a file: move it away"),
            "{error:#}"
        );
    }
}

#[test]
fn a_database_of_a_newer_version_is_refused() {
    let home = Home::new();
    home.push(&["add"]);
    // The version stands in the file's header, big-endian; the log is folded into the file when the last process
    // leaves.
    let mut bytes = std::fs::read(home.path("data/dovetail.db")).unwrap();
    bytes[60..64].copy_from_slice(&99_u32.to_be_bytes());
    std::fs::write(home.path("data/dovetail.db"), bytes).unwrap();
    let ran = home.run(&["runs", "list", "--output", "json"]).exits(3);
    assert_eq!(ran.json()["error"]["code"], "store_newer");
}

#[test]
fn output_that_cannot_be_written_is_the_hosts_failure() {
    let home = adding();
    let run = ["run", "adding", "--input", "a=1"];
    let commands: [&[&str]; 6] =
        [&run, &["runs", "list"], &["task", "list"], &["schema", "run"], &["completions", "bash"], &["doctor"]];
    let to_nowhere = |args: &[&str]| {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        Ran::of(&home.command(args).stdout(full).stderr(std::process::Stdio::piped()).output().unwrap(), args)
    };
    const LOST: &str = "error: write to standard output: No space left on device (os error 28)";
    for format in ["text", "json"] {
        for command in &commands {
            let args: Vec<&str> = command.iter().copied().chain(["--output", format]).collect();
            let stderr = to_nowhere(&args).exits(3).stderr;
            assert!(stderr.starts_with(LOST) && stderr.matches("error: ").count() == 1, "{args:?}: {stderr}");
        }
    }
    let several = ["run", "adding", "--each", "a=@in", "--output", "ndjson"];
    home.write("in/1.json", "1");
    home.write("in/2.json", "2");
    assert_eq!(to_nowhere(&several).exits(3).stderr.matches(LOST).count(), 1);
    assert!(to_nowhere(&["--help"]).exits(3).stderr.starts_with(LOST));
    // The runs are recorded: those of both formats, and one for each file.
    assert_eq!(home.run(&["runs", "list", "--output", "json"]).exits(0).json().as_array().unwrap().len(), 4);
    // An error is printed on standard error, and has its exit code.
    let told = to_nowhere(&["run", "no-such-pipeline", "--output", "json"]).exits(2).stderr;
    assert!(told.contains("no-such-pipeline") && told.matches("error: ").count() == 1, "{told}");

    // A reader that goes away is no error.
    let (read, write) = std::io::pipe().unwrap();
    drop(read);
    let mut command = home.command(&run);
    let ran = Ran::of(&command.stdout(write).stderr(std::process::Stdio::piped()).output().unwrap(), &run).exits(0);
    assert_eq!(ran.stderr, "");
}

#[test]
fn what_strangers_wrote_does_not_steer_the_terminal() {
    const EVIL: &str = "Adds\u{1b}]0;PWNED\u{7}\u{1b}[31m red \u{9b}1m \u{202e}txt";
    const SHOWN: &str = r"Adds\u{1b}]0;PWNED\u{7}\u{1b}[31m red \u{9b}1m \u{202e}txt";
    let home = Home::new();
    let manifest = format!(
        "name = \"add\"\nversion = \"1.0.0\"\ndescription = {}\n",
        json!(EVIL).to_string().replace("\u{9b}", r"\u009b")
    );
    home.write("evil/plugin.toml", manifest);
    let component = crate::support::component("add").display().to_string();
    let packed = home.path("evil.zip").display().to_string();
    home.run(&["task", "pack", "evil", "--component", &component, "-o", &packed]).exits(0);
    home.run(&["task", "push", &packed]).exits(0);
    let step =
        json!({ "number": 1, "task": "add@^1", "inputs": { "a": "input.a", "b": {"value": 1} }, "description": EVIL });
    let pipeline = json!({ "name": "adding", "version": "1.0.0", "description": EVIL, "inputs": { "a": {} },
        "steps": { "sum": step }, "output": { "sum": "sum.sum" } });
    home.pipeline("adding", &pipeline);
    let mut wrong = pipeline.clone();
    wrong["steps"]["sum"]["inputs"]["a"] = json!(format!("input.{EVIL}"));
    home.write("wrong.json", wrong.to_string());
    let commands: &[(&[&str], i32)] = &[
        (&["task", "check", &packed], 0),
        (&["task", "list"], 0),
        (&["task", "show", "add"], 0),
        (&["pipeline", "list"], 0),
        (&["pipeline", "show", "adding"], 0),
        (&["pipeline", "graph", "adding"], 0),
        (&["pipeline", "check", "wrong.json"], 1),
        (&["run", "wrong.json", "--input", "a=1"], 2),
        (&["run", EVIL], 2),
        (&["runs", "show", EVIL], 2),
        (&["task", "show", EVIL], 2),
    ];
    let mut shown = 0;
    for (args, code) in commands {
        let ran = home.run(args).exits(*code);
        for text in [&ran.stdout, &ran.stderr] {
            let steers = text.chars().any(|c| c.is_control() && c != '\n' || c == '\u{202e}');
            assert!(!steers, "{args:?}: {text:?}");
            shown += usize::from(text.contains(SHOWN));
        }
    }
    assert!(shown >= 6, "only {shown} of them show it");
    assert_eq!(
        home.run(&["task", "list", "--output", "json"]).exits(0).json()[0]["description"],
        EVIL,
        "JSON contains the original text"
    );
}

#[test]
fn ndjson_is_for_runs_only() {
    let home = Home::new();
    let ran = home.run(&["runs", "list", "--output", "ndjson"]).exits(2);
    assert_eq!(ran.json()["error"]["code"], "bad_option");
}

#[test]
fn version_completions_schemas_and_empty_lists() {
    let home = Home::new();
    assert!(home.run(&["--version"]).exits(0).stdout.starts_with("dovetail "));
    for shell in ["bash", "zsh", "fish"] {
        assert!(home.run(&["completions", shell]).exits(0).stdout.contains("dovetail"));
    }
    for of in ["run", "runs", "check", "bench", "error", "pipeline", "gc", "doctor", "task-check", "workers", "lineage"]
    {
        let schema = home.run(&["schema", of]).exits(0).json();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{of}");
    }
    // Each schema is self-contained: other documents are definitions inside it.
    let (runs, run) = (home.run(&["schema", "runs"]).json(), home.run(&["schema", "run"]).json());
    assert_eq!(runs["properties"]["runs"]["items"]["$ref"], "#/$defs/RunDocument");
    assert_eq!(runs["$defs"]["RunDocument"]["properties"], run["properties"]);
    let pipeline = home.run(&["schema", "pipeline"]).json();
    assert_eq!(home.run(&["pipeline", "schema"]).exits(0).json(), pipeline);
    let timeout = pipeline["properties"]["timeout"]["description"].as_str().unwrap();
    assert!(
        timeout.contains("along the longest path of steps, but not the time in the queue or interruptions"),
        "{timeout}"
    );
    for list in [&["runs", "list"][..], &["task", "list"], &["pipeline", "list"], &["models", "list"]] {
        let json: Vec<&str> = list.iter().copied().chain(["--output", "json"]).collect();
        assert_eq!(home.run(&json).exits(0).json(), json!([]));
        assert!(home.run(list).exits(0).stdout.starts_with("no "));
    }
}

#[test]
fn doctor_finds_what_is_missing() {
    let home = Home::new();
    let json = home.run(&["doctor", "--output", "json"]).exits(1).json();
    assert_eq!(json["ok"], false);
    let models = json["checks"].as_array().unwrap().iter().find(|check| check["what"] == "models").unwrap();
    assert_eq!(
        (models["ok"].as_bool(), models["remedy"].as_str()),
        (Some(false), Some("install them with `dovetail models pull`"))
    );
    let others =
        json["checks"].as_array().unwrap().iter().filter(|check| check["what"] != "models" && check["ok"] == false);
    assert_eq!(others.count(), 0, "{json:#}");
}
