//! A data folder that cannot be written: it is read-only, or its disk is full. Commands that write report it and change
//! nothing; commands that only read work.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::trace::{self, Fault};
use crate::{StoredRuns, chain, dovetail, folder, package, ran};

/// The commands that only read, for a folder with this run.
fn questions(run: &str) -> Vec<Vec<&str>> {
    let words: [&[&str]; 11] = [
        &["runs", "list"],
        &["runs", "show", run],
        &["runs", "lineage", run],
        &["runs", "logs", run],
        &["task", "list"],
        &["task", "show", "add"],
        &["pipeline", "list"],
        &["models", "list"],
        &["gc", "--dry-run"],
        &["pipeline", "show", "chain"],
        &["workers", "list"],
    ];
    words.iter().map(|words| words.iter().copied().chain(["--output", "json"]).collect()).collect()
}

/// Publishes a task and a pipeline, and makes one run. Returns the run's ID.
fn prepared(folder: &Path) -> String {
    let package = package(folder);
    ran(dovetail(folder, &["task", "push"]).arg(package));
    ran(dovetail(folder, &["pipeline", "push"]).arg(chain(folder)));
    let out = ran(&mut dovetail(folder, &["run", "chain", "--input", "x=1", "--output", "json"]));
    serde_json::from_slice::<Value>(&out.stdout).unwrap()["run_id"].as_str().unwrap().to_owned()
}

/// Makes a second run with a worker that is then killed: the run's records are only in the database's log (WAL).
fn with_a_log(folder: &Path) {
    let mut worker = dovetail(folder, &["worker"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while !dovetail(folder, &["run", "chain", "--detach", "--input", "x=5"]).output().unwrap().status.success() {
        assert!(began.elapsed() < Duration::from_secs(20), "the worker does not come up");
        std::thread::sleep(Duration::from_millis(20));
    }
    while StoredRuns::read(folder).ends.len() < 2 {
        assert!(began.elapsed() < Duration::from_secs(20), "the worker does not work");
        std::thread::sleep(Duration::from_millis(20));
    }
    worker.kill().unwrap();
    worker.wait().unwrap();
    assert!(std::fs::metadata(folder.join("data/dovetail.db-wal")).unwrap().len() > 0, "the worker left no log");
}

/// All paths below `path`, and `path` itself.
fn below(path: &Path) -> Vec<PathBuf> {
    let mut all = vec![path.to_owned()];
    if path.is_dir() {
        all.extend(std::fs::read_dir(path).unwrap().flat_map(|entry| below(&entry.unwrap().path())));
    }
    all
}

/// The user `nobody`. The tests run the program as this user, because no file is read-only for the superuser.
const NOBODY: u32 = 65_534;

fn superuser() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Allows or forbids writing in the folder to its owner. The superuser gives the folder to `nobody`.
fn allow(folder: &Path, write: bool) {
    for path in below(folder) {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(if write { mode | 0o200 } else { mode & !0o222 }))
            .unwrap();
        if superuser() {
            std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
}

/// The program's output when the folder's owner runs it.
fn as_owner(folder: &Path, words: &[&str]) -> Output {
    let mut command = dovetail(folder, words);
    if superuser() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.output().unwrap()
}

/// The files of the data folder with their contents.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = below(&folder.join("data")).into_iter().filter(|path| path.is_file());
    files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn in_a_folder_that_is_read_only_nothing_is_changed_and_the_error_names_it() {
    let folder = folder();
    prepared(folder.path());
    let data = folder.path().join("data");
    let before = files(folder.path());
    allow(folder.path(), false);
    let package = folder.path().join("add.zip");
    for words in
        [&["run", "chain", "--input", "x=2"][..], &["task", "push", package.to_str().unwrap()], &["gc"], &["worker"]]
    {
        let out = as_owner(folder.path(), words);
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(3), "{words:?}: {said}");
        assert!(
            said.contains(&*data.to_string_lossy()) && said.contains("Permission denied") && said.contains("help: "),
            "{words:?}: {said}"
        );
        assert!(files(folder.path()) == before, "{words:?} changed something");
    }
    allow(folder.path(), true);
    ran(&mut dovetail(folder.path(), &["run", "chain", "--input", "x=2"]));
    assert_eq!(StoredRuns::read(folder.path()).ends.len(), 2);
}

#[test]
fn a_folder_that_is_read_only_can_be_read() {
    // The folder was left by processes that ended, and then by one that was killed.
    for log in [false, true] {
        let folder = folder();
        let run = prepared(folder.path());
        if log {
            with_a_log(folder.path());
        }
        allow(folder.path(), false);
        let before = files(folder.path());
        let answers: Vec<Output> = questions(&run).iter().map(|words| as_owner(folder.path(), words)).collect();
        assert!(files(folder.path()) == before, "reading changed something");
        allow(folder.path(), true);
        for (words, out) in questions(&run).iter().zip(answers) {
            assert_eq!(out.status.code(), Some(0), "{words:?}, with a log: {log}: {}", text(&out.stderr));
            assert_eq!(
                text(&out.stdout),
                text(&ran(&mut dovetail(folder.path(), words)).stdout),
                "{words:?}: the answer differs from that of a folder that can be written"
            );
        }
    }
}

/// The cache of compiled code is only a cache: without it, `task check` and `task run` compile the task and keep
/// nothing.
#[test]
fn a_task_is_checked_and_tried_where_no_code_can_be_kept() {
    let folder = folder();
    prepared(folder.path());
    let package = folder.path().join("add.zip");
    for kept in [true, false] {
        if !kept {
            std::fs::remove_dir_all(folder.path().join("data/compiled")).unwrap();
        }
        allow(folder.path(), false);
        let before = files(folder.path());
        let scratch = self::folder();
        allow(scratch.path(), true);
        let tried = ["task", "run", "add", "--input", "a=1", "--input", "b=2", "--output", "json"];
        for words in [&["task", "check", package.to_str().unwrap()][..], &tried] {
            let mut command = dovetail(folder.path(), words);
            command.env("TMPDIR", scratch.path());
            if superuser() {
                command.uid(NOBODY).gid(NOBODY);
            }
            let out = command.output().unwrap();
            assert_eq!(
                out.status.code(),
                Some(0),
                "{words:?}, with its code: {kept}: {}{}",
                text(&out.stdout),
                text(&out.stderr)
            );
            let compiled = text(&out.stderr).contains("\"message\":\"compiled\"");
            assert_eq!(compiled, !kept, "{words:?}: {}", text(&out.stderr));
            assert!(files(folder.path()) == before, "{words:?} changed something");
            assert_eq!(below(scratch.path()).len(), 1, "{words:?} left something");
        }
        allow(folder.path(), true);
    }
}

#[test]
fn a_log_that_cannot_be_read_is_not_read_past() {
    let folder = folder();
    prepared(folder.path());
    with_a_log(folder.path());
    // The folder is like an incomplete copy: the log is there, its index (`-shm`) is not.
    std::fs::remove_file(folder.path().join("data/dovetail.db-shm")).unwrap();
    allow(folder.path(), false);
    let out = as_owner(folder.path(), &["runs", "list", "--output", "json"]);
    assert_eq!(out.status.code(), Some(3), "{}", text(&out.stdout));
    let error = &serde_json::from_slice::<Value>(&out.stdout).unwrap()["error"];
    let message = error["message"].as_str().unwrap();
    assert_eq!(error["code"], "store_refused");
    assert!(message.contains("dovetail.db") && message.contains("copy the folder to where you may write"), "{message}");
    allow(folder.path(), true);
    let runs = ran(&mut dovetail(folder.path(), &["runs", "list", "--output", "json"]));
    assert_eq!(
        serde_json::from_slice::<Vec<Value>>(&runs.stdout).unwrap().len(),
        2,
        "the runs in the log are read once the folder can be written"
    );
}

#[test]
fn a_folder_whose_disk_is_full_can_be_read() {
    for log in [false, true] {
        let folder = folder();
        let run = prepared(folder.path());
        if log {
            with_a_log(folder.path());
        }
        // `models list` only writes the models' folder, which stays empty here.
        for words in questions(&run).into_iter().filter(|words| words[0] != "models") {
            let printed = folder.path().join("printed");
            let mut command = dovetail(folder.path(), &words);
            let said = std::fs::File::create(folder.path().join("said")).unwrap();
            command.stdout(std::fs::File::create(&printed).unwrap()).stderr(said);
            // The disk is full from the very first write on.
            let traced = trace::run(&mut command, 0, Fault::Full(&folder.path().join("data")));
            let said = std::fs::read_to_string(folder.path().join("said")).unwrap();
            assert!(traced.died.is_some(), "{words:?} made no write, so this test shows nothing");
            assert_eq!(
                traced.code,
                Some(0),
                "{words:?}, with a log: {log}: {said}{}",
                std::fs::read_to_string(&printed).unwrap()
            );
            let with_room = text(&ran(&mut dovetail(folder.path(), &words)).stdout);
            assert_eq!(
                std::fs::read_to_string(&printed).unwrap(),
                with_room,
                "{words:?}: the answer differs from that with a free disk"
            );
            if log {
                // The command with the free disk has moved the log into the database.
                break;
            }
        }
    }
}
