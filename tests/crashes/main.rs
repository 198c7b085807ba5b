//! Crashes on the embedded stores. The program is killed by SIGKILL before each of its system calls that change
//! something (`trace.rs`), one call after the other, and another process continues. These tests need no server.
//!
//! After each death:
//!
//! - a run whose end was printed is recorded;
//! - a recorded outcome stays, and its step is not run again;
//! - `runs resume --all` brings every recorded run to its end, with the right sum;
//! - no run is left open;
//! - the folder serves the next run.
//!
//! The tests are x86-64 only, because `trace.rs` changes the registers of that processor to let a call fail.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![expect(clippy::unwrap_used, reason = "a failing test panics")]

#[path = "../shared/death.rs"]
mod death;
mod disk;
mod fair;
mod killed;
mod limits;
#[path = "../shared/lineage.rs"]
mod lineage;
mod lost;
mod mutants;
mod reading;
mod several;
mod trace;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use dovetail_core::Digest;
use dovetail_core::blobs::ArtifactRef;
use dovetail_core::ledger::{Kind, Ledger, Listing, RunKey};
use dovetail_core::pipeline::Pipeline;
use dovetail_core::record::{Form as _, OutcomeRecord, RunOutcomeRecord, RunRecord, RunState, StepEnd, StoredValue};
use dovetail_flow::SystemClock;
use dovetail_stores::{FileBlobs, SqliteLedger};
use serde_json::{Value, json};

use crate::trace::Fault;

/// How many deaths are tried at a time: a process that stops at each of its calls leaves a core mostly idle.
const AT_ONCE: usize = 4;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate stands in the workspace").to_owned()
}

fn program() -> PathBuf {
    let program = root().join("target/release/dovetail");
    assert!(program.is_file(), "{} is missing: run `cargo build --release -p dovetail`", program.display());
    program
}

/// A folder for a test, in memory where `/dev/shm` exists: a process that is killed loses no file there either.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("dovetail-crashes-").tempdir_in(place).unwrap()
}

/// The program with the data folder `data` below `folder`.
fn dovetail(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(program());
    command
        .arg("--data")
        .arg(folder.join("data"))
        .args(words)
        .env_clear()
        .env("HOME", folder)
        .env("TMPDIR", folder)
        .stdin(Stdio::null());
    command.env("DOVETAIL_LOG_FORMAT", "json").env("DOVETAIL_LOG_LEVEL", "debug");
    command
}

#[track_caller]
fn ran(command: &mut Command) -> Output {
    let out = command.output().unwrap();
    assert!(
        out.status.success(),
        "{command:?}\n{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    out
}

/// The package of the task `add`, packed for a test.
fn package(folder: &Path) -> PathBuf {
    packed(folder, "add")
}

/// The package of one of the test plugins.
fn packed(folder: &Path, name: &str) -> PathBuf {
    let component = root().join(format!("plugins/target/wasm32-wasip2/release/{}.wasm", name.replace('-', "_")));
    assert!(component.is_file(), "{} is missing: run `./justw plugins`", component.display());
    let (source, file) = (root().join("plugins/tests").join(name), folder.join(format!("{name}.zip")));
    ran(dovetail(folder, &["task", "pack"]).arg(source).arg("-o").arg(&file));
    file
}

/// A pipeline of three steps, each of which uses the output of the step before.
fn chain(folder: &Path) -> PathBuf {
    let step = |number: u32, from: &str| {
        json!({ "number": number, "task": "add@^1",
        "inputs": { "a": from, "b": {"value": 1} } })
    };
    let steps = json!({ "one": step(1, "input.x"), "two": step(2, "one.sum"), "three": step(3, "two.sum") });
    let pipeline = json!({ "name": "chain", "version": "1.0.0", "inputs": { "x": {} },
        "steps": steps, "output": { "sum": "three.sum" } });
    let file = folder.join("chain.json");
    std::fs::write(&file, pipeline.to_string()).unwrap();
    file
}

/// A copy of a prepared folder, for one death.
fn copy(of: &Path) -> tempfile::TempDir {
    let to = folder();
    assert!(Command::new("cp").arg("-a").arg(of.join(".")).arg(to.path()).status().unwrap().success());
    to
}

/// The runs of a data folder, read from its stores.
struct StoredRuns {
    runs: usize,
    outcomes: BTreeMap<String, Vec<u8>>,
    ends: BTreeMap<String, Vec<u8>>,
    open: usize,
    /// The violations of I2, I3 and I4 among the records (`lineage.rs`).
    broken: Vec<String>,
}

impl StoredRuns {
    fn read(folder: &Path) -> Self {
        let data = folder.join("data");
        let ledger = SqliteLedger::open(&data, Arc::new(SystemClock)).unwrap();
        let listing = Listing { prefix: String::new(), limit: usize::MAX, newest_first: false };
        let list = |kind| -> BTreeMap<String, Vec<u8>> {
            Ledger::list(&ledger, kind, &listing).unwrap().into_iter().collect()
        };
        let open = Ledger::open_runs(&ledger, usize::MAX >> 1).unwrap().len();
        // Ends are listed before outcomes, and outcomes before runs, because other processes may be writing.
        let (ends, outcomes, runs, pipelines) =
            (list(Kind::RunOutcome), list(Kind::Outcome), list(Kind::Run), list(Kind::Pipeline));
        let (decoded, blobs) = (decoded(&outcomes), FileBlobs::new(&data));
        let broken = runs.iter().flat_map(|(run, record)| {
            let pipeline = &pipelines[&RunRecord::decode(record, run).unwrap().pipeline];
            let run = RunKey::parse(&format!("{run}:0")).unwrap();
            let succeeded = ends
                .get(&run.key())
                .is_some_and(|end| RunOutcomeRecord::decode(end, &run.key()).unwrap().state == RunState::Succeeded);
            lineage::broken(&run, &pipeline_of(pipeline), succeeded, &decoded, &blobs)
        });
        let broken = broken.collect();
        Self { runs: runs.len(), outcomes, ends, open, broken }
    }

    /// The steps that have an outcome.
    fn steps(&self) -> BTreeSet<String> {
        self.outcomes.keys().filter_map(|key| Some(key.split(':').nth(1)?.to_owned())).collect()
    }
}

fn decoded(outcomes: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, OutcomeRecord> {
    outcomes.iter().map(|(key, value)| (key.clone(), OutcomeRecord::decode(value, key).unwrap())).collect()
}

fn pipeline_of(record: &[u8]) -> Pipeline {
    Pipeline::from_json(&serde_json::from_slice(record).unwrap()).unwrap()
}

/// The steps that a process began, according to its log.
fn begun(log: &str) -> Vec<String> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let begun = lines.filter(|line| line["fields"]["message"] == "step started");
    begun.filter_map(|line| Some(line["fields"]["step"].as_str()?.to_owned())).collect()
}

/// Checks a folder in which a run was killed and then resumed. `told`: the run's end was printed before the death.
fn judge(before: &StoredRuns, after: &StoredRuns, told: bool, resumed: &Output) -> Result<(), String> {
    if told && before.ends.is_empty() {
        return Err("its end was printed and is not recorded".into());
    }
    if let Some(broken) = before.broken.iter().chain(&after.broken).next() {
        return Err(broken.clone());
    }
    if let Some((key, _)) = before.outcomes.iter().chain(&before.ends).find(|(key, value)| {
        let now = after.outcomes.get(*key).or_else(|| after.ends.get(*key));
        now != Some(value)
    }) {
        return Err(format!("{key} has changed"));
    }
    let log = String::from_utf8_lossy(&resumed.stderr);
    let again = begun(&log);
    if let Some(step) = again.iter().find(|step| before.steps().contains(*step)) {
        return Err(format!("{step} was recorded and is run again"));
    }
    if again.len() != again.iter().collect::<BTreeSet<_>>().len() {
        return Err(format!("one process ran a step twice: {again:?}"));
    }
    if after.runs != before.runs || after.ends.len() != after.runs || after.open != 0 {
        return Err(format!(
            "{} runs, {} ends, {} open; before {} runs\n{log}",
            after.runs,
            after.ends.len(),
            after.open,
            before.runs
        ));
    }
    if after.outcomes.len() != 3 * after.runs {
        return Err(format!("{} outcomes of {} runs", after.outcomes.len(), after.runs));
    }
    for (key, value) in &after.ends {
        let end = RunOutcomeRecord::decode(value, key).unwrap().state;
        let last = OutcomeRecord::decode(&after.outcomes[&key.replace(':', ":three:")], key).unwrap().output().cloned();
        if end != RunState::Succeeded || last != Some(StoredValue::Inline(json!({ "sum": 4 }))) {
            return Err(format!("{key} ended as {end:?} with {last:?}"));
        }
    }
    Ok(())
}

/// Calls `case` with each number of a call in turn, until a run comes to its end without a death. Returns the number of
/// calls. `case` returns the call at which the process died, and the verdict.
fn sweep(case: impl Fn(usize) -> (Option<&'static str>, Result<(), String>) + Sync) -> usize {
    let (next, last, found) = (AtomicUsize::new(0), AtomicUsize::new(usize::MAX), Mutex::new(Vec::new()));
    std::thread::scope(|threads| {
        for _ in 0..AT_ONCE {
            threads.spawn(|| {
                loop {
                    let point = next.fetch_add(1, Ordering::SeqCst);
                    if point >= last.load(Ordering::SeqCst) {
                        return;
                    }
                    let (died, verdict) = case(point);
                    if died.is_none() {
                        last.fetch_min(point, Ordering::SeqCst);
                    }
                    if let Err(why) = verdict {
                        found.lock().unwrap().push(format!("before call {point} ({}): {why}", died.unwrap_or("none")));
                    }
                }
            });
        }
    });
    let found = found.into_inner().unwrap();
    assert!(found.is_empty(), "{}", found.join("\n"));
    last.into_inner()
}

/// Each check of a run's records finds the one record that was spoiled for it.
#[test]
fn records_that_do_not_fit_together_are_found() {
    let folder = folder();
    let (package, chain) = (package(folder.path()), chain(folder.path()));
    ran(dovetail(folder.path(), &["task", "push"]).arg(package));
    ran(dovetail(folder.path(), &["pipeline", "push"]).arg(chain));
    ran(&mut dovetail(folder.path(), &["run", "chain", "--input", "x=1"]));
    let held = StoredRuns::read(folder.path());
    assert_eq!(held.broken, Vec::<String>::new());
    let ledger = SqliteLedger::open(&folder.path().join("data"), Arc::new(SystemClock)).unwrap();
    let pipeline = pipeline_of(
        &Ledger::list(&ledger, Kind::Pipeline, &Listing { prefix: String::new(), limit: 1, newest_first: false })
            .unwrap()[0]
            .1,
    );
    let run = RunKey::parse(held.ends.keys().next().unwrap()).unwrap();
    let blobs = FileBlobs::new(&folder.path().join("data"));
    type Spoil = fn(&RunKey, &mut BTreeMap<String, OutcomeRecord>);
    let spoils: [(&str, Spoil); 6] = [
        ("three has no outcome", |run, all| drop(all.remove(&run.step("three")))),
        ("one, which it needs, has none", |run, all| drop(all.remove(&run.step("one")))),
        ("before one had ended", |run, all| all.get_mut(&run.step("one")).unwrap().finished_ms += 60_000),
        ("that no step produced", |run, all| {
            all.get_mut(&run.step("two")).unwrap().consumed.iter_mut().for_each(|c| c.digest = Digest::of(b"other"));
        }),
        ("values sha256:", |run, all| {
            all.get_mut(&run.step("one")).unwrap().end =
                StepEnd::Succeeded(StoredValue::Blob { digest: Digest::of(b"nowhere"), bytes: 7 });
        }),
        ("artifacts sha256:", |run, all| {
            let file = ArtifactRef { digest: Digest::of(b"nowhere"), media_type: "text/plain".into(), name: None };
            all.get_mut(&run.step("one")).unwrap().end =
                StepEnd::Succeeded(StoredValue::Inline(json!({ "file": file.to_json() })));
        }),
    ];
    for (says, spoil) in spoils {
        let mut outcomes = decoded(&held.outcomes);
        spoil(&run, &mut outcomes);
        let broken = lineage::broken(&run, &pipeline, true, &outcomes, &blobs);
        assert!(broken.iter().any(|broken| broken.contains(says)), "`{says}` is not found: {broken:?}");
    }
}

#[test]
fn a_run_that_is_killed_at_any_moment_is_resumed() {
    let prepared = folder();
    let package = package(prepared.path());
    ran(dovetail(prepared.path(), &["task", "push"]).arg(package));
    ran(dovetail(prepared.path(), &["pipeline", "push"]).arg(chain(prepared.path())));
    // How many steps were recorded at each death, and how many runs were open then.
    let (recorded, open, again) =
        (Mutex::new(BTreeMap::<usize, usize>::new()), AtomicUsize::new(0), AtomicUsize::new(0));
    let points = sweep(|point| {
        let folder = copy(prepared.path());
        let printed = folder.path().join("printed");
        let mut command = dovetail(folder.path(), &["run", "chain", "--input", "x=1", "--output", "json"]);
        command.stdout(std::fs::File::create(&printed).unwrap()).stderr(Stdio::null());
        let traced = trace::run(&mut command, point, Fault::Death);
        if traced.died.is_none() {
            assert_eq!(traced.code, Some(0), "the run succeeds without a death");
        }
        let told = serde_json::from_slice::<Value>(&std::fs::read(&printed).unwrap()).is_ok();
        let before = StoredRuns::read(folder.path());
        *recorded.lock().unwrap().entry(before.outcomes.len()).or_default() += 1;
        open.fetch_add(before.open, Ordering::SeqCst);
        let resumed = ran(&mut dovetail(folder.path(), &["runs", "resume", "--all"]));
        again.fetch_add(begun(&String::from_utf8_lossy(&resumed.stderr)).len(), Ordering::SeqCst);
        let verdict = judge(&before, &StoredRuns::read(folder.path()), told, &resumed);
        ran(&mut dovetail(folder.path(), &["run", "chain", "--input", "x=2"]));
        (traced.died, verdict)
    });
    let (recorded, open, again) = (recorded.into_inner().unwrap(), open.into_inner(), again.into_inner());
    println!(
        "{points} moments of death; steps recorded then, and how often: {recorded:?}; {open} runs were open, {again} \
         steps were run when resumed"
    );
    // Otherwise no death left a run to resume, and the test shows nothing.
    assert!(points > 30 && open > 10 && again > open, "{points} moments, {open} open runs, {again} steps");
    assert!(
        (0..=3).all(|steps| recorded.contains_key(&steps)),
        "no death was before, between or after the steps: {recorded:?}"
    );
}

#[test]
fn a_push_that_is_killed_at_any_moment_can_be_repeated() {
    let prepared = folder();
    let (package, chain) = (package(prepared.path()), chain(prepared.path()));
    let seen = AtomicUsize::new(0);
    let points = sweep(|point| {
        let folder = copy(prepared.path());
        let mut command = dovetail(folder.path(), &["task", "push"]);
        let traced = trace::run(command.arg(&package).stdout(Stdio::null()).stderr(Stdio::null()), point, Fault::Death);
        if traced.died.is_none() {
            assert_eq!(traced.code, Some(0), "the push succeeds without a death");
        }
        // A task that is listed must be whole: it works without a second push.
        let listed = dovetail(folder.path(), &["task", "list", "--output", "json"]).output().unwrap();
        if listed.status.success() && String::from_utf8_lossy(&listed.stdout).contains("\"add\"") {
            seen.fetch_add(1, Ordering::SeqCst);
        } else {
            ran(dovetail(folder.path(), &["task", "push"]).arg(&package));
        }
        ran(dovetail(folder.path(), &["pipeline", "push"]).arg(&chain));
        let out = ran(&mut dovetail(folder.path(), &["run", "chain", "--input", "x=1", "--output", "json"]));
        let sum = &serde_json::from_slice::<Value>(&out.stdout).unwrap()["output"]["sum"];
        (traced.died, if *sum == json!(4) { Ok(()) } else { Err(format!("the sum is {sum}")) })
    });
    println!("{points} moments of death; after {} of them the task was there", seen.load(Ordering::SeqCst));
    assert!(points > 20, "{points} moments");
    assert!((1..points).contains(&seen.into_inner()), "no death was before, or none after, the task was published");
}

#[test]
fn a_run_whose_disk_is_full_from_any_write_on_says_so_and_is_resumed_when_there_is_room() {
    let prepared = folder();
    let package = package(prepared.path());
    ran(dovetail(prepared.path(), &["task", "push"]).arg(package));
    ran(dovetail(prepared.path(), &["pipeline", "push"]).arg(chain(prepared.path())));
    let (refused, open) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let points = sweep(|point| {
        let folder = copy(prepared.path());
        let printed = folder.path().join("printed");
        let mut command = dovetail(folder.path(), &["run", "chain", "--input", "x=1", "--output", "json"]);
        command.stdout(std::fs::File::create(&printed).unwrap()).stderr(Stdio::null());
        let traced = trace::run(&mut command, point, Fault::Full(&folder.path().join("data")));
        let printed = serde_json::from_slice::<Value>(&std::fs::read(&printed).unwrap()).unwrap_or_default();
        let said = match (traced.code, printed["error"]["message"].as_str()) {
            // The failed write was not needed: a log is cut, or a cache stays as it was.
            (Some(0), None) => Ok(()),
            // The error says that the disk is full, and names the file.
            (Some(3), Some(message))
                if (message.contains("full") || message.contains("No space left"))
                    && message.contains(&*folder.path().to_string_lossy()) =>
            {
                refused.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
            (code, _) => Err(format!("the program ended with {code:?} and printed {printed}")),
        };
        let before = StoredRuns::read(folder.path());
        open.fetch_add(before.open, Ordering::SeqCst);
        let resumed = ran(&mut dovetail(folder.path(), &["runs", "resume", "--all"]));
        let verdict =
            said.and_then(|()| judge(&before, &StoredRuns::read(folder.path()), traced.code == Some(0), &resumed));
        ran(&mut dovetail(folder.path(), &["run", "chain", "--input", "x=2"]));
        (traced.died, verdict)
    });
    let (refused, open) = (refused.into_inner(), open.into_inner());
    println!("{points} moments at which the disk became full; {refused} times that was said; {open} runs were open");
    assert!(points > 10 && refused > 5 && open > 3, "{points} moments, {refused} refusals, {open} open runs");
}

/// The files of the installed models, by their names within the folder.
fn models(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let models = folder.join("data/models");
    let folders = [models.clone(), models.join("files")];
    let entries =
        folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().map(|entry| entry.unwrap().path());
    // A file whose name begins with a dot is being written, and belongs to no model.
    let files = entries.filter(|path| path.is_file() && !path.file_name().unwrap().to_string_lossy().starts_with('.'));
    files.map(|path| (path.strip_prefix(&models).unwrap().to_owned(), std::fs::read(&path).unwrap())).collect()
}

#[test]
fn models_whose_installation_is_killed_at_any_moment_are_whole_or_absent() {
    let package = root().join("target/face-api/package");
    assert!(package.is_dir(), "{} is missing: run `./justw setup`", package.display());
    let pull = |folder: &Path| {
        let mut command = dovetail(folder, &["models", "pull", "--from"]);
        command.arg(&package).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let whole = folder();
    ran(&mut pull(whole.path()));
    let whole = models(whole.path());
    let seen = Mutex::new(BTreeSet::new());
    let points = sweep(|point| {
        let folder = folder();
        let traced = trace::run(&mut pull(folder.path()), point, Fault::Death);
        let before = models(folder.path());
        seen.lock().unwrap().insert(before.len());
        if let Some((name, _)) = before.iter().find(|(name, bytes)| whole.get(*name) != Some(*bytes)) {
            return (traced.died, Err(format!("{} is not whole", name.display())));
        }
        // A model's TOML file, which makes the model visible, is written after the files that it names.
        for (name, text) in before.iter().filter(|(name, _)| name.extension().is_some_and(|of| of == "toml")) {
            let text = String::from_utf8_lossy(text);
            let named = whole
                .keys()
                .filter(|file| file.starts_with("files"))
                .filter(|file| text.contains(&*file.file_name().unwrap().to_string_lossy()));
            if let Some(file) = named.into_iter().find(|file| !before.contains_key(*file)) {
                return (traced.died, Err(format!("{} names {}, which is not there", name.display(), file.display())));
            }
        }
        ran(&mut dovetail(folder.path(), &["models", "list"]));
        ran(&mut pull(folder.path()));
        let same = models(folder.path()) == whole;
        (traced.died, if same { Ok(()) } else { Err("the second time makes something else of it".into()) })
    });
    let seen = seen.into_inner().unwrap();
    println!("{points} moments of death; files there then: {seen:?}");
    assert!(
        points > 30 && seen.len() == whole.len() + 1,
        "no death with some number of files: {seen:?} of {}",
        whole.len()
    );
}
