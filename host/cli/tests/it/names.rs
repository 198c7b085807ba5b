//! Unusual names of files: bytes that are not UTF-8, special characters of patterns, line ends, links without
//! targets.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{Home, Ran, component, plugin, valid};
use crate::workers::Daemon;

/// A pipeline with one step that copies an artifact.
fn copying() -> Home {
    let home = Home::new();
    let steps = json!({ "copy": { "number": 1, "task": "copy-artifact@^1", "inputs": { "artifact": "input.file" } } });
    home.push(&["copy-artifact"]).pipeline(
        "copying",
        &json!({ "name": "copying", "version": "1.0.0", "inputs": { "file": {} }, "steps": steps,
            "output": { "size": "copy.size" } }),
    );
    home
}

fn name(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

/// `caf` and a letter in Latin-1, such as names in old archives.
const LATIN: [&[u8]; 2] = [b"caf\xe8.txt", b"caf\xe9.txt"];

fn latin(home: &Home) -> [PathBuf; 2] {
    std::fs::create_dir_all(home.path("latin1")).unwrap();
    LATIN.map(|bytes| {
        let path = home.path("latin1").join(name(bytes));
        std::fs::write(&path, bytes).unwrap();
        path
    })
}

/// The program with arguments, of which the last ones are bytes.
fn run(home: &Home, args: &[&str], more: &[&[u8]]) -> Ran {
    let mut command = home.command(args);
    command.args(more.iter().map(|bytes| name(bytes)));
    Ran::of(&command.output().unwrap(), args)
}

fn ids(runs: &Value) -> BTreeSet<String> {
    runs.as_array().unwrap().iter().map(|run| run["run_id"].as_str().unwrap().to_owned()).collect()
}

fn recorded(home: &Home) -> BTreeSet<String> {
    ids(&home.run(&["runs", "list", "-n", "1000", "--output", "json"]).exits(0).json())
}

#[test]
fn files_whose_names_are_no_text_are_run_each_by_itself() {
    let home = copying();
    latin(&home);
    let each: &[&[u8]] = &[b"--each", b"file=@latin1"];
    let all = run(&home, &["run", "copying", "--output", "json"], each).exits(0).json();
    valid("runs.schema.json", &all);
    let names: Vec<&str> =
        all["runs"].as_array().unwrap().iter().map(|run| run["inputs"]["file"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["caf\\xe8.txt", "caf\\xe9.txt"]);
    let text = run(&home, &["run", "copying"], each).exits(0).stdout;
    assert!(
        text.contains("latin1/caf\\xe8.txt  succeeded") && text.contains("latin1/caf\\xe9.txt  succeeded"),
        "{text}"
    );
    // Two names give two keys, and the same command gives the same runs.
    let before = recorded(&home);
    let keyed =
        || ids(&run(&home, &["run", "copying", "--key", "k", "--output", "json"], each).exits(0).json()["runs"]);
    let first = keyed();
    assert_eq!((first.len(), keyed()), (2, first.clone()));
    assert_eq!(recorded(&home).len(), before.len() + 2);
    // Patterns match these names, also a pattern with such a byte.
    let runs = |pattern: &[u8]| {
        let all = run(&home, &["run", "copying", "--output", "json"], &[b"--each", pattern]).exits(0).json();
        all["runs"].as_array().unwrap().len()
    };
    assert_eq!(
        (runs(b"file=@latin1/caf*.txt"), runs(b"file=@latin1/*\xe9.t?t"), runs(b"file=@*/caf[!x].txt")),
        (2, 1, 2)
    );
    let one = run(&home, &["run", "copying", "--output", "json"], &[b"--input", b"file=@latin1/caf\xe9.txt"]);
    assert_eq!(one.exits(0).json()["inputs"]["file"]["name"], "caf\\xe9.txt");
    // With --detach.
    let _worker = Daemon::start(&home, "worker", &[]);
    crate::workers::wait("the worker lives", || {
        !home.run(&["workers", "list", "--output", "json"]).json().as_array().unwrap().is_empty()
    });
    let detached = run(&home, &["run", "copying", "--detach", "--output", "json"], each).exits(0).json();
    let files: Vec<&str> =
        detached["runs"].as_array().unwrap().iter().map(|run| run["file"].as_str().unwrap()).collect();
    assert_eq!(files, ["latin1/caf\\xe8.txt", "latin1/caf\\xe9.txt"]);
    // A missing file is named in this form, also in JSON.
    let error = run(&home, &["run", "copying", "--output", "json"], &[b"--each", b"file=@gone\xe9"]).exits(2).json();
    assert_eq!(
        (&error["error"]["code"], &error["error"]["details"]["path"]),
        (&json!("missing_file"), &json!("gone\\xe9"))
    );
    let error = run(&home, &["run", "copying", "--output", "json"], &[b"--input", b"file=gone\xe9"]).exits(2).json();
    assert_eq!(error["error"]["code"], "bad_input");
}

#[test]
fn plugins_packages_and_pipelines_may_have_such_names() {
    let home = Home::new();
    let add = home.path("").join(name(b"caf\xe9"));
    std::fs::create_dir(&add).unwrap();
    std::fs::copy(plugin("add").join("plugin.toml"), add.join("plugin.toml")).unwrap();
    let wasm = component("add").display().to_string();
    let pack = ["task", "pack", "--component", &wasm, "--output", "json"];
    let packed = run(&home, &pack, &[b"caf\xe9", b"-o", b"caf\xe8.zip"]).exits(0).json();
    assert_eq!(packed["file"], "caf\\xe8.zip");
    assert!(home.path("").join(name(b"caf\xe8.zip")).is_file());
    let ran = run(&home, &["task", "run", "--input", "a=1", "--input", "b=2", "--output", "json"], &[b"./caf\xe8.zip"]);
    assert_eq!(ran.exits(0).json()["output"]["sum"], 3);
    run(&home, &["task", "push"], &[b"caf\xe8.zip"]).exits(0);
    let steps = json!({ "sum": { "number": 1, "task": "add", "inputs": { "a": "input.a", "b": {"value": 1} } } });
    let file = json!({ "name": "adding", "version": "1.0.0", "inputs": { "a": {} }, "steps": steps,
        "output": { "sum": "sum.sum" } });
    std::fs::write(home.path("").join(name(b"caf\xe9.json")), file.to_string()).unwrap();
    for args in [&["pipeline", "check"][..], &["pipeline", "graph"], &["run", "--input", "a=1"]] {
        run(&home, args, &[b"caf\xe9.json"]).exits(0);
    }
    for (args, code) in [(&["run"][..], "unknown_pipeline"), (&["task", "run"], "unknown_task")] {
        let args: Vec<&str> = args.iter().copied().chain(["--output", "json"]).collect();
        assert_eq!(run(&home, &args, &[b"caf\xe9"]).exits(2).json()["error"]["code"], code);
    }
    // Names in a package are text: two files would get the same name.
    std::fs::create_dir(add.join("wit")).unwrap();
    std::fs::write(add.join("wit").join(name(b"caf\xe9.wit")), "package a:b;").unwrap();
    let refused = run(&home, &pack, &[b"caf\xe9"]).exits(2).json();
    assert_eq!(refused["error"]["code"], "bad_package", "{refused:#}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("caf\\xe9/wit/caf\\xe9.wit"), "{refused:#}");
}

#[test]
fn a_setting_that_is_no_text_is_a_path_or_an_error() {
    let home = Home::new();
    let package = plugin("add").display().to_string();
    let bare = |variable: &str, value: &[u8]| {
        let args = ["task", "push", &package, "--output", "json"];
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_dovetail"));
        command.args(args).current_dir(home.path("")).env_clear().env("HOME", home.path("")).env(variable, name(value));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        Ran::of(&command.output().unwrap(), &args)
    };
    bare("DOVETAIL_DATA", b"caf\xe9").exits(0);
    assert!(home.path("").join(name(b"caf\xe9/dovetail.db")).is_file());
    bare("XDG_DATA_HOME", &[home.path("").as_os_str().as_bytes(), b"caf\xe8"].concat()).exits(0);
    assert!(home.path("").join(name(b"caf\xe8/dovetail/dovetail.db")).is_file());
    std::fs::write(home.path("").join(name(b"caf\xe9.toml")), "data = \"named\"\n").unwrap();
    bare("DOVETAIL_CONFIG", b"caf\xe9.toml").exits(0);
    assert!(home.path("named/dovetail.db").is_file());
    for variable in ["DOVETAIL_LOG_LEVEL", "DOVETAIL_QUEUE", "DOVETAIL_FLEET", "DOVETAIL_WORKER_GRANTS"] {
        let error = bare(variable, b"caf\xe9").exits(2).json();
        assert_eq!(error["error"]["code"], "bad_setting", "{error:#}");
        assert!(error["error"]["message"].as_str().unwrap().contains(variable), "{error:#}");
    }
    assert!(!home.path(".local").is_dir(), "nothing went elsewhere");
}

#[test]
fn a_link_that_leads_nowhere_is_told() {
    let home = copying();
    home.write("in/a.txt", "a");
    std::os::unix::fs::symlink("nowhere", home.path("in/gone.txt")).unwrap();
    std::fs::create_dir(home.path("in/folder.txt")).unwrap();
    let error = |each: &[u8]| {
        let error = run(&home, &["run", "copying", "--output", "json"], &[b"--each", each]).exits(2).json();
        (error["error"]["code"].clone(), error["error"]["details"]["path"].clone())
    };
    for each in [&b"file=@in"[..], b"file=@in/*.txt", b"file=@i?/gone*"] {
        assert_eq!(error(each), (json!("missing_file"), json!("in/gone.txt")));
    }
    std::fs::remove_file(home.path("in/gone.txt")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(home.path("in/pipe")).status().unwrap().success());
    assert_eq!(error(b"file=@in"), (json!("not_a_file"), json!("in/pipe")));
    assert!(recorded(&home).is_empty(), "nothing is recorded");
    std::fs::remove_file(home.path("in/pipe")).unwrap();
    run(&home, &["run", "copying"], &[b"--each", b"file=@in"]).exits(0);
    // A photograph is refused before the first one is read.
    home.write("photographs/a.jpg", "no picture");
    std::os::unix::fs::symlink("nowhere", home.path("photographs/b.jpg")).unwrap();
    let demo = ["demo", "--photographs", "photographs", "--out", "out", "--output", "json"];
    assert_eq!(home.run(&demo).exits(2).json()["error"]["details"]["path"], "photographs/b.jpg");
    // The settings file, and the folder of the user's settings.
    let list = ["runs", "list", "--output", "json"];
    for (link, file) in [("dovetail.toml", "dovetail.toml"), (".config/dovetail", ".config/dovetail/dovetail.toml")] {
        std::fs::create_dir_all(home.path(link).parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("nowhere", home.path(link)).unwrap();
        let error = home.run(&list).exits(2).json();
        assert_eq!(error["error"]["code"], "missing_file", "{error:#}");
        assert!(error["error"]["message"].as_str().unwrap().contains(file), "{error:#}");
        std::fs::remove_file(home.path(link)).unwrap();
    }
    home.run(&list).exits(0);
    // A data folder with such a link is an error, and not an empty data folder.
    std::fs::rename(home.path("data"), home.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink("nowhere", home.path("data")).unwrap();
    assert_eq!(home.run(&list).exits(3).json()["error"]["code"], "data_folder");
}

#[test]
fn a_name_that_is_there_is_no_pattern() {
    let home = copying();
    for name in ["photos [2019]/a.txt", "photos [2019]/b[1].txt", "photos [2019]/b1.txt", "photos 2/c.txt"] {
        home.write(name, name);
    }
    let names = |each: &str| {
        let each = format!("file=@{each}");
        let all = home.run(&["run", "copying", "--each", &each, "--output", "json"]).exits(0).json();
        let name = |run: &Value| run["inputs"]["file"]["name"].as_str().unwrap().to_owned();
        all["runs"].as_array().unwrap().iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(names("photos [2019]/*.txt"), ["a.txt", "b1.txt", "b[1].txt"]);
    assert_eq!(names("photos [2019]"), ["a.txt", "b1.txt", "b[1].txt"]);
    assert_eq!(names("photos*/b[1].txt"), ["b[1].txt"]);
    assert_eq!(names("photos*/[bc][1.]*"), ["c.txt", "b1.txt"]);
    assert_eq!(names("**/[ac].txt"), ["c.txt", "a.txt"]);
    assert_eq!(names("./photos [[]2019]/a.*"), ["a.txt"]);
    // A cycle of links ends.
    std::os::unix::fs::symlink("..", home.path("photos 2/up")).unwrap();
    assert_eq!(names("photos 2/**/c.txt"), ["c.txt"]);
    for (each, code) in [("photos 2/[", "bad_glob"), ("photos 2/[x]*", "no_files"), ("**/*/", "no_files")] {
        let error =
            home.run(&["run", "copying", "--each", &format!("file=@{each}"), "--output", "json"]).exits(2).json();
        assert_eq!(error["error"]["code"], code, "{each}: {error:#}");
    }
}

#[test]
fn a_line_end_in_a_name_breaks_no_table() {
    let home = copying();
    home.write("in/a\nb\tc.txt", "1");
    home.write("in/d.txt", "2");
    let text = home.run(&["run", "copying", "--each", "file=@in"]).exits(0).stdout;
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 5 && lines[1].starts_with(r"in/a\nb\tc.txt  succeeded"), "{text}");
    assert!(lines[2].starts_with("in/d.txt        succeeded"), "{text}");
    let all = home.run(&["run", "copying", "--each", "file=@in", "--output", "json"]).exits(0).json();
    assert_eq!(all["runs"][0]["inputs"]["file"]["name"], "a\nb\tc.txt", "machines get the very name");
}

#[test]
fn a_path_below_home_is_one_in_every_option() {
    let home = Home::new();
    let package = plugin("add").display().to_string();
    let bare = |args: &[&str], set: &[(&str, &str)]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_dovetail"));
        command
            .args(args)
            .current_dir(home.path("here"))
            .env_clear()
            .env("HOME", home.path(""))
            .envs(set.iter().copied());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        Ran::of(&command.output().unwrap(), args)
    };
    std::fs::create_dir(home.path("here")).unwrap();
    home.write("c.toml", "data = \"~/by-file\"\n");
    bare(&["task", "push", &package, "--data=~/by-flag"], &[]).exits(0);
    bare(&["task", "push", &package, "--config=~/c.toml"], &[]).exits(0);
    bare(&["task", "push", &package], &[("DOVETAIL_DATA", "~/by-variable")]).exits(0);
    for data in ["by-flag", "by-file", "by-variable"] {
        assert!(home.path(data).join("dovetail.db").is_file(), "{data}");
    }
    bare(&["task", "list"], &[("DOVETAIL_CONFIG", "~/c.toml")]).exits(0);
    bare(&["task", "pack", &package, "--out=~/it.zip"], &[]).exits(0);
    assert!(home.path("it.zip").is_file());
    let photographs = bare(&["demo", "--photographs=~/none", "--out=~/out", "--output=json"], &[]).exits(2).json();
    assert_eq!(photographs["error"]["details"]["path"], json!(home.path("none")));
    for (args, set) in [
        (&["task", "list", "--data=~me/x", "--output=json"][..], &[][..]),
        (&["task", "list", "--output=json"], &[("DOVETAIL_DATA", "~me/x")]),
        (&["task", "list", "--output=json"], &[("DOVETAIL_CONFIG", "~me/x")]),
    ] {
        assert_eq!(bare(args, set).exits(2).json()["error"]["code"], "bad_setting");
    }
    assert_eq!(std::fs::read_dir(home.path("here")).unwrap().count(), 0, "no folder `~` is made");
}
