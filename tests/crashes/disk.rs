//! Faults of the disk: the disk becomes full during a publication or an installation, a process dies while it stores an
//! artifact, or syncs are slow. No file may be left in part.

use std::collections::BTreeSet;
use std::fs::{File, read_dir};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dovetail_core::Digest;
use serde_json::{Value, json};

use crate::killed::Killed;
use crate::trace::{self, Fault};
use crate::{StoredRuns, begun, chain, copy, dovetail, folder, models, package, packed, ran, root, sweep};

/// Checks that the program succeeded, because the failed write was not needed, or that its error says that the disk is
/// full and what to do.
fn said(code: Option<i32>, printed: &str, refused: &AtomicUsize) -> Result<(), String> {
    match code {
        Some(0) => Ok(()),
        Some(3) if (printed.contains("full") || printed.contains("No space left")) && printed.contains("make room") => {
            refused.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
        _ => Err(format!("the program ended with {code:?} and printed {printed}")),
    }
}

/// Runs the program with its disk full from the write `point` on. Returns the call that failed first, the exit code,
/// and standard error.
fn with_full_disk(command: &mut Command, folder: &Path, point: usize) -> (Option<&'static str>, Option<i32>, String) {
    let said = folder.join("said");
    command.env("DOVETAIL_LOG_LEVEL", "error").env("DOVETAIL_LOG_FORMAT", "text");
    command.stdout(Stdio::null()).stderr(File::create(&said).unwrap());
    let traced = trace::run(command, point, Fault::Full(&folder.join("data")));
    (traced.died, traced.code, std::fs::read_to_string(&said).unwrap())
}

#[test]
fn a_push_whose_disk_is_full_from_any_write_on_says_so_and_can_be_repeated() {
    let prepared = folder();
    let (package, chain) = (package(prepared.path()), chain(prepared.path()));
    let refused = AtomicUsize::new(0);
    let points = sweep(|point| {
        let folder = copy(prepared.path());
        let mut push = dovetail(folder.path(), &["task", "push"]);
        let (died, code, printed) = with_full_disk(push.arg(&package), folder.path(), point);
        let verdict = said(code, &printed, &refused);
        ran(dovetail(folder.path(), &["task", "push"]).arg(&package));
        ran(dovetail(folder.path(), &["pipeline", "push"]).arg(&chain));
        let out = ran(&mut dovetail(folder.path(), &["run", "chain", "--input", "x=1", "--output", "json"]));
        let sum = &serde_json::from_slice::<Value>(&out.stdout).unwrap()["output"]["sum"];
        (died, verdict.and_then(|()| if *sum == json!(4) { Ok(()) } else { Err(format!("the sum is {sum}")) }))
    });
    println!("{points} moments at which the disk became full; {} times that was said", refused.load(Ordering::SeqCst));
    assert!(points > 10 && refused.into_inner() > 5, "{points} moments");
}

#[test]
fn models_whose_disk_is_full_from_any_write_on_are_whole_or_absent() {
    let source = root().join("target/face-api/package");
    assert!(source.is_dir(), "{} is missing: run `./justw setup`", source.display());
    let pull = |folder: &Path| {
        let mut command = dovetail(folder, &["models", "pull", "--from"]);
        command.arg(&source);
        command
    };
    let whole = folder();
    ran(&mut pull(whole.path()));
    let (whole, refused) = (models(whole.path()), AtomicUsize::new(0));
    let points = sweep(|point| {
        let folder = folder();
        let (died, code, printed) = with_full_disk(&mut pull(folder.path()), folder.path(), point);
        let half = models(folder.path()).into_iter().find(|(name, bytes)| whole.get(name) != Some(bytes));
        let verdict = match half {
            Some((name, _)) => Err(format!("{} is not whole", name.display())),
            None => said(code, &printed, &refused),
        };
        ran(&mut pull(folder.path()));
        let same = models(folder.path()) == whole;
        (
            died,
            verdict.and_then(|()| if same { Ok(()) } else { Err("the second time makes something else of it".into()) }),
        )
    });
    println!("{points} moments at which the disk became full; {} times that was said", refused.load(Ordering::SeqCst));
    assert!(points > 5 && refused.into_inner() > 5, "{points} moments");
}

/// The stored artifacts; an error if the content of one does not have the digest in its name.
fn artifacts(folder: &Path) -> Result<BTreeSet<String>, String> {
    let mut found = BTreeSet::new();
    for entry in read_dir(folder.join("data/blobs/artifacts/sha256")).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // A file whose name begins with a dot is being written, and no record names it.
        if name.starts_with('.') {
            continue;
        }
        if Digest::of(&std::fs::read(&path).unwrap()).hex() != name {
            return Err(format!("{} is not what its name says", path.display()));
        }
        found.insert(name);
    }
    Ok(found)
}

#[test]
fn an_artifact_whose_writer_is_killed_at_any_moment_is_whole_or_absent() {
    let prepared = folder();
    let package = packed(prepared.path(), "copy-artifact");
    ran(dovetail(prepared.path(), &["task", "push"]).arg(package));
    let copying = json!({ "number": 1, "task": "copy-artifact@^1", "inputs": { "artifact": "input.file" } });
    let pipeline = json!({ "name": "copy", "version": "1.0.0", "inputs": { "file": {} },
        "steps": { "go": copying }, "output": { "upper": "go.upper" } });
    let file = prepared.path().join("copy.json");
    std::fs::write(&file, pipeline.to_string()).unwrap();
    ran(dovetail(prepared.path(), &["pipeline", "push"]).arg(&file));
    // The text is large enough to be read and written in several pieces.
    let text: String = (0..30_000).map(|n| format!("line {n}\n")).collect();
    let (source, upper) = (prepared.path().join("text.txt"), Digest::of(text.to_uppercase().as_bytes()).hex());
    std::fs::write(&source, &text).unwrap();
    // How many artifacts and outcomes were stored at each death.
    let seen = Mutex::new(BTreeSet::new());
    let points = sweep(|point| {
        let folder = copy(prepared.path());
        let mut command = dovetail(folder.path(), &["run", "copy", "--input"]);
        command.arg(format!("file=@{}", source.display())).stdout(Stdio::null()).stderr(Stdio::null());
        let traced = trace::run(&mut command, point, Fault::Death);
        let verdict = || -> Result<(), String> {
            let (kept, before) = (artifacts(folder.path())?, StoredRuns::read(folder.path()));
            seen.lock().unwrap().insert((kept.len(), before.outcomes.len()));
            if before.outcomes.len() == 1 && !kept.contains(&upper) {
                return Err("an artifact is named in a record and is not there".into());
            }
            let resumed = ran(&mut dovetail(folder.path(), &["runs", "resume", "--all"]));
            if before.outcomes.len() == 1 && !begun(&String::from_utf8_lossy(&resumed.stderr)).is_empty() {
                return Err("the step was recorded and is run again".into());
            }
            let (after, kept) = (StoredRuns::read(folder.path()), artifacts(folder.path())?);
            if let Some(broken) = before.broken.iter().chain(&after.broken).next() {
                return Err(broken.clone());
            }
            if after.runs != before.runs || after.ends.len() != after.runs || after.open != 0 {
                return Err(format!("{} runs, {} ends, {} open", after.runs, after.ends.len(), after.open));
            }
            let named = after.outcomes.values().all(|outcome| String::from_utf8_lossy(outcome).contains(&upper));
            if after.runs == 1 && !(kept.contains(&upper) && named && kept.len() == 2) {
                return Err(format!("the run was resumed, and these artifacts are stored: {kept:?}"));
            }
            Ok(())
        };
        (traced.died, verdict())
    });
    let seen = seen.into_inner().unwrap();
    println!("{points} moments of death; artifacts and outcomes then: {seen:?}");
    assert!(points > 30, "{points} moments");
    for moment in [(0, 0), (1, 0), (2, 0), (2, 1)] {
        assert!(seen.contains(&moment), "no death was with {moment:?} artifacts and outcomes: {seen:?}");
    }
}

/// Each sync takes longer than a lease, so the queue's own changes are late, too.
const SLOW: Duration = Duration::from_millis(1500);
const LEASE: &str = "1s";

#[test]
fn a_disk_that_takes_longer_to_sync_than_a_lease_loses_nothing() {
    let (here, _) = begun_behind_a_slow_disk(false);
    // If recording an outcome takes longer than the lease, the step is free before that and may be begun again. One
    // outcome counts.
    assert!(here.len() <= 6 && here.iter().collect::<BTreeSet<_>>().len() == 3, "{here:?}");
    // Another worker, whose disk is fast, claims the jobs whose leases have expired.
    let (here, beside) = begun_behind_a_slow_disk(true);
    let all: BTreeSet<&String> = here.iter().chain(&beside).collect();
    assert_eq!(all.len(), 3, "{here:?} behind the slow disk, {beside:?} beside it");
}

/// Runs three steps with slow syncs. Returns the steps that this process began, and the steps that a worker beside it
/// began, if `worker_beside`.
fn begun_behind_a_slow_disk(worker_beside: bool) -> (Vec<String>, Vec<String>) {
    let folder = folder();
    let folder = folder.path();
    ran(dovetail(folder, &["task", "push"]).arg(package(folder)));
    ran(dovetail(folder, &["pipeline", "push"]).arg(chain(folder)));
    let log = folder.join("worker.log");
    let mut worker = dovetail(folder, &["worker"]);
    worker.env("DOVETAIL_WORKER_LEASE", LEASE).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
    let worker = worker_beside.then(|| Killed(worker.spawn().unwrap()));
    let (printed, said) = (folder.join("printed"), folder.join("said"));
    let mut command = dovetail(folder, &["run", "chain", "--input", "x=1", "--output", "json"]);
    command
        .env("DOVETAIL_WORKER_LEASE", LEASE)
        .stdout(File::create(&printed).unwrap())
        .stderr(File::create(&said).unwrap());
    let traced = trace::run(&mut command, 0, Fault::SlowSync(SLOW));
    let said = std::fs::read_to_string(said).unwrap();
    assert_eq!((traced.died, traced.code), (Some("fsync"), Some(0)), "{said}");
    let document: Value = serde_json::from_slice(&std::fs::read(printed).unwrap()).unwrap();
    assert_eq!((&document["state"], &document["output"]["sum"]), (&json!("succeeded"), &json!(4)));
    drop(worker);
    let held = StoredRuns::read(folder);
    assert_eq!((held.runs, held.ends.len(), held.outcomes.len(), held.open), (1, 1, 3, 0));
    assert_eq!(held.broken, Vec::<String>::new());
    let log = std::fs::read_to_string(log).unwrap();
    let (here, beside) = (begun(&said), begun(&log));
    (here, beside)
}
