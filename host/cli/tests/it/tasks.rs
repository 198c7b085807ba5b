//! `task`: packages, refusals with their reasons, and trying a single task.

use serde_json::json;

use crate::support::{Home, component, normal, plugin, valid};

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let home = Home::new();
    let folder = plugin("add").display().to_string();
    home.run(&["task", "pack", &folder, "-o", "one.zip"]).exits(0);
    std::thread::sleep(std::time::Duration::from_millis(20));
    home.run(&["task", "pack", &folder]).exits(0);
    assert_eq!(std::fs::read(home.path("one.zip")).unwrap(), std::fs::read(home.path("add-1.0.0.zip")).unwrap());
}

#[test]
fn what_is_no_file_is_not_replaced_by_a_package() {
    let home = Home::new();
    let folder = plugin("add").display().to_string();
    let socket = home.path("socket");
    let _listens = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::fs::create_dir(home.path("folder")).unwrap();
    home.write("target.zip", "old");
    std::os::unix::fs::symlink("target.zip", home.path("link")).unwrap();
    for name in ["socket", "folder", "link"] {
        let before = std::fs::symlink_metadata(home.path(name)).unwrap().file_type();
        let refused = home.run(&["task", "pack", &folder, "-o", name, "--output", "json"]).exits(2).json();
        assert_eq!(refused["error"]["code"], "not_a_file", "{refused:#}");
        assert_eq!(std::fs::symlink_metadata(home.path(name)).unwrap().file_type(), before, "{name}");
    }
    home.run(&["task", "pack", &folder, "-o", "target.zip"]).exits(0);
    assert!(std::fs::read(home.path("target.zip")).unwrap().starts_with(b"PK"), "a file is replaced");
}

#[test]
fn a_package_replaces_only_a_package_or_a_file_that_is_named() {
    let home = Home::new();
    let source = plugin("add");
    for name in ["plugin.toml", "README.md"] {
        if let Ok(text) = std::fs::read(source.join(name)) {
            home.write(&format!("add/{name}"), text);
        }
    }
    let wasm = home.write("add.wasm", std::fs::read(component("add")).unwrap());
    let pack =
        |more: &[&str]| home.run(&[&["task", "pack", "add", "--component", &wasm, "--output", "json"], more].concat());
    // The user did not give the default name, so that another file of this name is not replaced.
    home.write("add-1.0.0.zip", "mine");
    assert_eq!(pack(&[]).exits(2).json()["error"]["code"], "would_replace");
    assert_eq!(std::fs::read_to_string(home.path("add-1.0.0.zip")).unwrap(), "mine");
    pack(&["-o", "add-1.0.0.zip"]).exits(0);
    pack(&[]).exits(0);
    // A source of the package is not replaced, although the user names it.
    for out in ["add/plugin.toml", "add/../add.wasm"] {
        let before = std::fs::read(home.path(out)).unwrap();
        assert_eq!(pack(&["-o", out]).exits(2).json()["error"]["code"], "result_is_input");
        assert!(std::fs::read(home.path(out)).unwrap() == before, "{out}");
    }
    pack(&["-o", "add/it.zip"]).exits(0);
    pack(&["-o", "add/it.zip"]).exits(0);
}

#[test]
fn without_names_a_package_is_smaller_and_does_the_same() {
    let home = Home::new();
    let folder = plugin("add").display().to_string();
    home.run(&["task", "pack", &folder, "-o", "named.zip"]).exits(0);
    home.run(&["task", "pack", &folder, "--strip", "-o", "stripped.zip"]).exits(0);
    let size = |name: &str| std::fs::metadata(home.path(name)).unwrap().len();
    assert!(size("stripped.zip") < size("named.zip"), "{} and {}", size("stripped.zip"), size("named.zip"));
    let ran = home
        .run(&["task", "run", "stripped.zip", "--input", "a=2", "--input", "b=40", "--output", "json"])
        .exits(0)
        .json();
    assert_eq!(ran["output"]["sum"], 42);
}

#[test]
fn a_published_version_never_changes() {
    let home = Home::new();
    let folder = plugin("add").display().to_string();
    let first = home.run(&["task", "push", &folder, "--output", "json"]).exits(0).json();
    assert_eq!(first[0]["created"], true);
    let again = home.run(&["task", "push", &folder, "--output", "json"]).exits(0).json();
    assert_eq!((&again[0]["created"], &again[0]["package"]), (&json!(false), &first[0]["package"]));
    let manifest = std::fs::read_to_string(plugin("add").join("plugin.toml")).unwrap().replace("Adds two", "Adds 2");
    home.write("add/plugin.toml", manifest);
    let component = component("add").display().to_string();
    home.run(&["task", "pack", "add", "--component", &component, "-o", "other.zip"]).exits(0);
    assert_eq!(
        home.run(&["task", "push", "other.zip", "--output", "json"]).exits(2).json()["error"]["code"],
        "version_exists"
    );
    let list = home.run(&["task", "list", "--output", "json"]).json();
    assert_eq!((list.as_array().unwrap().len(), &list[0]["package"]), (1, &first[0]["package"]));
}

#[test]
fn check_prints_what_the_host_sees() {
    let home = Home::new();
    let folder = plugin("add").display().to_string();
    let json = home.run(&["task", "check", &folder, "--output", "json"]).exits(0).json();
    assert_eq!((&json["accepted"], &json["pure"], &json["name"]), (&json!(true), &json!(true), &json!("add")));
    assert_eq!(json["signature"]["interface"], "dovetail:add/task@1.0.0");
    assert_eq!(json["signature"]["input"], json!([{"name": "a", "type": "s64"}, {"name": "b", "type": "s64"}]));
    let fits = |value| crate::schema::errors(&json["signature"]["input_schema"], &value).is_empty();
    assert!(fits(json!({"a": 1, "b": 2})) && !fits(json!({"a": "x", "b": 2})));
    let classes: Vec<&str> =
        json["imports"].as_array().unwrap().iter().map(|import| import["class"].as_str().unwrap()).collect();
    assert!(classes.iter().all(|class| matches!(*class, "host" | "inert")), "{classes:?}");
    // The same holds for the component beside its manifest, and for the package.
    home.run(&["task", "pack", &folder, "-o", "add.zip"]).exits(0);
    assert_eq!(home.run(&["task", "check", "add.zip", "--output", "json"]).exits(0).json(), json);
    assert!(
        home.run(&["task", "check", &folder]).exits(0).stdout.contains("pure: the same input gives the same output")
    );
}

#[test]
fn a_grant_is_named_checked_and_given() {
    let home = Home::new();
    let folder = plugin("clock").display().to_string();
    let json = home.run(&["task", "check", &folder, "--output", "json"]).exits(0).json();
    assert_eq!((&json["pure"], &json["grants"]), (&json!(false), &json!({"clocks": true})));
    let text = home.run(&["task", "check", &folder]).exits(0).stdout;
    assert!(text.contains("\ngrants  clocks (push needs --grant clocks)\n") && text.contains("needs:clocks"), "{text}");
    assert!(
        text.starts_with("clock@1.0.0 is accepted once its grants are allowed\n") && !text.contains("granted"),
        "no grant is allowed yet: {text}"
    );
    let refused = home.run(&["task", "push", &folder, "--output", "json"]).exits(2).json();
    assert_eq!(
        (&refused["error"]["code"], &refused["error"]["details"]["grants"]),
        (&json!("grant_needed"), &json!(["clocks"]))
    );
    assert_eq!(
        home.run(&["task", "push", &folder, "--grant", "clocks", "--grant", "random", "--output", "json"])
            .exits(2)
            .json()["error"]["code"],
        "bad_grant"
    );
    // The error names the misspelt grant, and not the one that is missing because of it.
    let misspelt = home.run(&["task", "push", &folder, "--grant", "clock", "--output", "json"]).exits(2).json();
    assert!(
        misspelt["error"]["message"].as_str().unwrap().contains("grant `clock`: there is no such grant"),
        "{misspelt:#}"
    );
    assert_eq!(home.run(&["task", "list", "--output", "json"]).json(), json!([]));
    home.run(&["task", "push", &folder, "--grant", "clocks"]).exits(0);
    let ran = home.run(&["task", "run", "clock", "--output", "json"]).exits(0).json();
    assert!(ran["output"]["milliseconds"].as_u64().unwrap() > 1_700_000_000_000, "{ran:#}");

    // The capabilities of a pipeline are the grants of its tasks.
    let step = json!({ "number": 1, "task": "clock@^1", "inputs": {} });
    home.pipeline(
        "timed",
        &json!({ "name": "timed", "version": "1.0.0", "inputs": {}, "steps": { "now": step },
            "output": { "at": "now.milliseconds" } }),
    );
    let shown = home.run(&["pipeline", "show", "timed", "--capabilities", "--output", "json"]).exits(0).json();
    assert_eq!(
        (&shown["grants"], &shown["steps"][0]["grants"], &shown["steps"][0]["models"]),
        (&json!(["clocks"]), &json!(["clocks"]), &json!([]))
    );
    let text = home.run(&["pipeline", "show", "timed", "--capabilities"]).exits(0).stdout;
    assert!(text.contains("clock_001  clock@1.0.0  clocks  none"), "{text}");

    // A newer version needs its own permission. The error compares it with the version before it.
    let newer = home.path("newer");
    copy(&plugin("clock"), &newer);
    let change = |file: &str, from: &str, to: &str| {
        let text = std::fs::read_to_string(newer.join(file)).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(newer.join(file), text.replace(from, to)).unwrap();
    };
    change("plugin.toml", "1.0.0", "1.1.0");
    change("plugin.toml", "clocks = true", "clocks = true\nrandom = true");
    // Each grant in the manifest needs permission, also if the component does not import it.
    let asks_for =
        "name = \"clock\"\nversion = \"1.0.0\"\ndescription = \"x\"\n[grants]\nclocks = true\nrandom = true\n";
    home.write("greedy/plugin.toml", asks_for);
    let text = home
        .run(&["task", "check", "greedy", "--component", &component("clock").display().to_string()])
        .exits(0)
        .stdout;
    assert!(text.contains("\ngrants  clocks, random (push needs --grant clocks --grant random)\n"), "{text}");
    change("wit/world.wit", "dovetail:clock@1.0.0", "dovetail:clock@1.1.0");
    // Replace the component's name in its bytes by a text of the same length.
    let mut bytes = std::fs::read(component("clock")).unwrap();
    for at in 0..bytes.len() {
        for name in ["dovetail:clock@1.0.0", "dovetail:clock/task@1.0.0"] {
            if bytes[at..].starts_with(name.as_bytes()) {
                bytes[at + name.len() - 3] = b'1';
            }
        }
    }
    let newer_component = home.write("newer.wasm", bytes);
    home.run(&["task", "pack", "newer", "--component", &newer_component, "-o", "newer.zip"]).exits(0);
    let refused = home.run(&["task", "push", "newer.zip", "--grant", "clocks", "--output", "json"]).exits(2).json();
    assert_eq!(refused["error"]["details"]["grants"], json!(["random"]));
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(message.contains("version 1.0.0 had `clocks`; new is `random`"), "{message}");
    home.run(&["task", "push", "newer.zip", "--grant", "clocks", "--grant", "random"]).exits(0);
    let update = home.run(&["pipeline", "update", "timed", "--output", "json"]).exits(0).json();
    assert!(
        update["differences"].to_string().contains("step now: asks its worker for: clocks -> clocks, random"),
        "{update}"
    );

    // With a manifest that asks for no grant, every import is named.
    home.write("clock/plugin.toml", "name = \"clock\"\nversion = \"1.0.0\"\ndescription = \"x\"\n");
    let component = component("clock").display().to_string();
    let refused = home.run(&["task", "check", "clock", "--component", &component, "--output", "json"]).exits(1).json();
    let errors = refused["errors"].as_array().unwrap();
    assert!(
        errors.iter().all(
            |error| error["code"] == "missing_grant" && error["message"].as_str().unwrap().contains("wasi:clocks/")
        ),
        "{refused:#}"
    );
    assert_eq!(refused["accepted"], false);
    home.run(&["task", "pack", "clock", "--component", &component]).exits(1);
    assert!(!home.path("clock-1.0.0.zip").is_file());
}

/// The files of a plugin's folder, without built files.
fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() && entry.file_name() != "target" => copy(&entry.path(), &to.join(entry.file_name())),
            kind if kind.is_file() => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
            _ => {}
        }
    }
}

#[test]
fn bad_components_are_refused_by_name() {
    let task = |exports: &str| {
        let component = format!(
            "(component (core module $m (func (export \"run\"))) (core instance $i (instantiate $m))
              (func $run (canon lift (core func $i \"run\"))) (instance $task (export \"run\" (func $run))) {exports})"
        );
        wat::parse_str(component).unwrap()
    };
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", Vec::new(), "not_wasm"),
        ("text", b"just some text".to_vec(), "not_wasm"),
        ("wat", b"(component)".to_vec(), "text_format"),
        ("native", b"\x7fELF\x02\x01\x01\0".to_vec(), "native_code"),
        // The component that is made from the module has no task, since the module has no WIT.
        ("module", wat::parse_str("(module)").unwrap(), "no_run"),
        ("cut", task("(export \"a:bad/task\" (instance $task))")[..40].to_vec(), "invalid_component"),
        ("nothing", wat::parse_str("(component)").unwrap(), "no_run"),
        (
            "foreign",
            wat::parse_str("(component (import \"acme:database/query\" (instance)))").unwrap(),
            "unknown_import",
        ),
        (
            "sockets",
            wat::parse_str("(component (import \"wasi:sockets/tcp@0.2.6\" (instance (export \"f\" (func)))))").unwrap(),
            "unsupported_import",
        ),
        (
            "two-runs",
            task("(export \"a:one/task\" (instance $task)) (export \"a:two/task\" (instance $task))"),
            "two_runs",
        ),
        ("wrong-run", task("(export \"a:bad/task\" (instance $task))"), "wrong_run"),
    ];
    let home = Home::new();
    let mut told = String::new();
    for (name, bytes, code) in cases {
        home.write(
            &format!("{name}/plugin.toml"),
            format!("name = \"{name}\"\nversion = \"1.0.0\"\ndescription = \"x\"\n"),
        );
        home.write(&format!("{name}/it.wasm"), bytes);
        let file = format!("{name}/it.wasm");
        let json = home.run(&["task", "check", &file, "--output", "json"]).exits(1).json();
        assert_eq!(json["errors"][0]["code"], code, "{name}: {json:#}");
        told.push_str(&home.run(&["task", "check", &file]).exits(1).stdout);
    }
    insta::assert_snapshot!(normal(&home, &told));
    assert_eq!(home.run(&["task", "list", "--output", "json"]).json(), json!([]));
}

#[test]
fn every_mistake_of_a_manifest_is_found() {
    let home = Home::new();
    home.write(
        "bad/plugin.toml",
        "name = \"Bad\"\nversion = \"one\"\n[limits]\nmemory = \"64GiB\"\nspeed = 3\n\
         [grants]\nhttp = [\"https://a.example\"]\n",
    );
    let component = component("add").display().to_string();
    let json = home.run(&["task", "check", "bad", "--component", &component, "--output", "json"]).exits(1).json();
    let lines: Vec<u64> =
        json["errors"].as_array().unwrap().iter().filter_map(|error| error["line"].as_u64()).collect();
    assert_eq!(lines, [1, 1, 2, 4, 5], "{json:#}");
    home.write("zip.zip", b"PK\x03\x04 cut off");
    assert_eq!(
        home.run(&["task", "push", "zip.zip", "--output", "json"]).exits(1).json()["errors"][0]["code"],
        "bad_package"
    );
    home.write(
        "other/plugin.toml",
        "name = \"other\"\nversion = \"1.0.0\"\ndescription = \"x\"\n[grants]\nhttp = [\"https://a.example\"]\n",
    );
    let json = home.run(&["task", "check", "other", "--component", &component, "--output", "json"]).exits(1).json();
    let codes: Vec<&str> =
        json["errors"].as_array().unwrap().iter().map(|error| error["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["unsupported_grant", "wrong_component"], "{json:#}");
}

/// The folder of `add` after a build: sources, and the component where cargo puts it.
fn built() -> Home {
    let home = Home::new();
    for file in ["plugin.toml", "Cargo.toml", "src/lib.rs", "wit/world.wit"] {
        home.write(&format!("add/{file}"), std::fs::read(plugin("add").join(file)).unwrap());
    }
    home.write("add/Cargo.toml", "[workspace]\n");
    home.write("add/target/wasm32-wasip2/release/add.wasm", std::fs::read(component("add")).unwrap());
    home
}

#[test]
fn a_component_older_than_its_source_is_not_published() {
    let home = built();
    let later = |name: &str| {
        let file = std::fs::File::options().append(true).open(home.path(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(60)).unwrap();
    };
    home.run(&["task", "pack", "add", "-o", "fresh.zip"]).exits(0);
    later("add/src/lib.rs");
    for args in [&["task", "push", "add"][..], &["task", "pack", "add", "-o", "stale.zip"]] {
        let json: Vec<&str> = args.iter().copied().chain(["--output", "json"]).collect();
        let error = home.run(&json).exits(2).json();
        valid("error.schema.json", &error);
        let error = &error["error"];
        assert_eq!(error["code"], "stale_component");
        assert!(
            error["details"]["component"].as_str().unwrap().ends_with("add/target/wasm32-wasip2/release/add.wasm"),
            "{error:#}"
        );
        assert_eq!(error["details"]["source"], "add/src/lib.rs");
        assert!(error["help"].as_str().unwrap().contains("cargo build --release --target wasm32-wasip2"), "{error:#}");
    }
    assert!(!home.path("stale.zip").try_exists().unwrap());
    assert_eq!(home.run(&["task", "list", "--output", "json"]).json(), json!([]));
    // `task check` and `task run` only warn.
    for args in [&["task", "check", "add"][..], &["task", "run", "./add", "--input", "a=1", "--input", "b=2"]] {
        let ran = home.run(args).exits(0);
        assert!(ran.stderr.contains("the component is older than its source: build it again"), "{}", ran.stderr);
    }
    // The age of a named component is not checked: the user chose it.
    home.run(&["task", "pack", "add", "--component", "add/target/wasm32-wasip2/release/add.wasm", "-o", "named.zip"])
        .exits(0);
    // This file is not in cargo's list of the component's sources.
    let list = format!(
        "{}: {}\n",
        home.path("add/target/wasm32-wasip2/release/add.wasm").display(),
        home.path("add/wit/world.wit").display()
    );
    home.write("add/target/wasm32-wasip2/release/add.d", list);
    home.run(&["task", "push", "add"]).exits(0);
    later("add/wit/world.wit");
    assert!(home.run(&["task", "push", "add"]).exits(2).stderr.contains("add/wit/world.wit"));
}

#[test]
fn the_version_in_the_wit_is_the_one_that_is_published() {
    let home = built();
    let manifest = std::fs::read_to_string(home.path("add/plugin.toml")).unwrap();
    home.write("add/plugin.toml", manifest.replace("1.0.0", "1.2.0"));
    let json = home.run(&["task", "check", "add", "--output", "json"]).exits(1).json();
    let error = &json["errors"][0];
    assert_eq!(
        (&error["code"], &error["path"], &error["line"], &error["column"]),
        (&json!("wrong_version"), &json!("plugin.toml"), &json!(2), &json!(11))
    );
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("version 1.2.0") && message.contains("`package dovetail:add@1.0.0` (wit/world.wit:2)"),
        "{message}"
    );
    home.run(&["task", "push", "add"]).exits(1);
    assert!(
        home.run(&["task", "pack", "add", "-o", "it.zip"])
            .exits(1)
            .stdout
            .contains("plugin.toml:2:11 error[wrong_version]: ")
    );
    assert!(!home.path("it.zip").try_exists().unwrap());
    assert_eq!(home.run(&["task", "list", "--output", "json"]).json(), json!([]));
}

#[test]
fn one_task_alone_says_what_it_used() {
    let home = Home::new();
    let folder = plugin("add").display().to_string();
    let json =
        home.run(&["task", "run", &folder, "--input", "a=2", "--input", "b=40", "--output", "json"]).exits(0).json();
    assert_eq!((&json["state"], &json["output"]), (&json!("succeeded"), &json!({"sum": 42})));
    assert!(
        json["usage"]["wall_us"].as_u64().is_some() && json["usage"]["peak_memory"].as_u64().unwrap() > 0,
        "{json:#}"
    );
    // The guest's error is a failure of the attempt, not of the program.
    let json = home.run(&["task", "run", &folder, "--input", "{\"a\": 1}"]).exits(2);
    assert!(json.stderr.contains("has no value"), "{}", json.stderr);
    let all = home.write("in/all.json", "{\"a\": \"9223372036854775807\", \"b\": 1}");
    let ran = home.run(&["task", "run", &folder, "--input", &format!("@{all}")]).exits(1);
    assert!(ran.stdout.contains("error[overflow]: the sum of `a` and `b` does not fit"), "{}", ran.stdout);
    assert_eq!(home.run(&["task", "list", "--output", "json"]).json(), json!([]), "nothing is recorded");
}

#[test]
fn limits_hold_for_a_task_alone() {
    let home = Home::new();
    home.push(&["probe"]);
    let probe = |behaviour: &str| {
        home.run(&["task", "run", "probe", "--input", &format!("behaviour={behaviour}"), "--output", "json"])
    };
    assert_eq!(probe("{\"tag\": \"allocate\", \"val\": 16}").exits(0).json()["output"]["count"], 16 << 20);
    assert_eq!(probe("{\"tag\": \"allocate\", \"val\": 100}").exits(1).json()["error"]["code"], "out_of_memory");
    let panicked = probe("{\"tag\": \"panic\", \"val\": \"oh no\"}").exits(1).json();
    assert_eq!(panicked["error"]["kind"], "panic");
    let ran = home
        .run(&["task", "run", "probe", "--input", "behaviour={\"tag\": \"println\", \"val\": \"hello from inside\"}"])
        .exits(0);
    assert!(
        ran.stderr.contains("hello from inside") && !ran.stdout.contains("hello from inside"),
        "logs go to standard error"
    );
}

#[test]
fn artifacts_go_in_and_come_out() {
    let home = Home::new();
    let folder = plugin("copy-artifact").display().to_string();
    let file = home.write("in/note.txt", "some text");
    let args = ["task", "run", &folder, "--input", &format!("artifact=@{file}"), "--save", "out", "--output", "json"];
    let json = home.run(&args).exits(0).json();
    assert_eq!((&json["output"]["size"], &json["output"]["same"]["media_type"]), (&json!(9), &json!("text/plain")));
    let mut saved: Vec<String> = json["saved"]
        .as_array()
        .unwrap()
        .iter()
        .map(|path| std::fs::read_to_string(home.path(path.as_str().unwrap())).unwrap())
        .collect();
    saved.sort();
    assert_eq!(saved, ["SOME TEXT", "some text"]);
    assert!(!home.path("data/blobs/artifacts").is_dir(), "nothing is kept");
    // A file with the same content stays; another file of that name is not replaced.
    home.run(&args).exits(0);
    let path = json["saved"][1].as_str().unwrap();
    std::fs::write(home.path(path), "mine").unwrap();
    assert_eq!(home.run(&args).exits(2).json()["error"]["code"], "would_replace");
    assert_eq!(std::fs::read_to_string(home.path(path)).unwrap(), "mine");
}
