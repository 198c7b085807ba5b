//! The program with little address space or few descriptors. The cause is the machine, or the user who set the limit.
//! At every limit the program names the limit and ends, and no attempt is charged.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::{StoredRuns, chain, copy, dovetail, folder, package, ran};

/// The time by which the program must have ended, at every limit: a run takes less than a second.
const ENDS: Duration = Duration::from_secs(60);

/// The same command under `ulimit`.
fn limited(command: &Command, limit: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit {limit} && exec \"$@\""), "sh"]);
    shell.arg(command.get_program()).args(command.get_args()).env_clear();
    for (name, value) in command.get_envs() {
        shell.envs(value.map(|value| (name, value)));
    }
    shell.stdin(Stdio::null());
    shell
}

/// The program's output; `None` if the program did not end.
fn ended(mut command: Command) -> Option<Output> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > ENDS {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Some(child.wait_with_output().unwrap())
}

/// Whether the program starts at all under the limit: below some limit the system's loader refuses it.
fn starts(folder: &Path, limit: &str) -> bool {
    ended(limited(&dovetail(folder, &["--version"]), limit)).is_some_and(|out| out.status.success())
}

/// Makes one run under the limit. Returns whether the run succeeded; otherwise the error must name the limit. No
/// attempt may be charged.
fn judge(prepared: &Path, limit: &str) -> Result<bool, String> {
    let folder = copy(prepared);
    let run = dovetail(folder.path(), &["run", "chain", "--input", "x=1", "--output", "json"]);
    let out = ended(limited(&run, limit)).ok_or("it did not end")?;
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let succeeded = match out.status.code() {
        Some(0) => true,
        Some(3) if said.contains("ulimit") => false,
        _ => return Err(format!("the program ended with {} and printed {said}", out.status)),
    };
    // Without the limit the run continues where it was.
    let resumed = ended(dovetail(folder.path(), &["runs", "resume", "--all"])).ok_or("it is not resumed")?;
    if !resumed.status.success() {
        return Err(format!("the run is not resumed: {}", String::from_utf8_lossy(&resumed.stderr)));
    }
    let held = StoredRuns::read(folder.path());
    if held.open != 0 || held.ends.len() != held.runs || (succeeded && held.runs != 1) {
        return Err(format!("{} runs, {} ends, {} open", held.runs, held.ends.len(), held.open));
    }
    for (step, outcome) in crate::decoded(&held.outcomes) {
        let numbers: Vec<u32> = outcome.attempts.iter().map(|attempt| attempt.number).collect();
        if numbers != [1] || !outcome.succeeded() {
            return Err(format!("{step} has the attempts {numbers:?} and the failure {:?}", outcome.failure()));
        }
    }
    Ok(succeeded)
}

/// The limits at which the run did not succeed, and the number of limits at which the program starts.
fn sweep(prepared: &Path, limits: impl Iterator<Item = String>) -> (Vec<String>, usize) {
    let (mut refused, mut tried, mut wrong) = (Vec::new(), 0, Vec::new());
    for limit in limits {
        if !starts(prepared, &limit) {
            continue;
        }
        tried += 1;
        match judge(prepared, &limit) {
            Ok(true) => {}
            Ok(false) => refused.push(limit),
            Err(why) => wrong.push(format!("ulimit {limit}: {why}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    (refused, tried)
}

/// A folder with the published task and pipeline, with compiled code or without.
fn prepared(compiled: bool) -> tempfile::TempDir {
    let folder = folder();
    let (package, chain) = (package(folder.path()), chain(folder.path()));
    ran(dovetail(folder.path(), &["task", "push"]).arg(&package));
    ran(dovetail(folder.path(), &["pipeline", "push"]).arg(&chain));
    if !compiled {
        std::fs::remove_dir_all(folder.path().join("data/compiled")).unwrap();
    }
    folder
}

#[test]
fn a_run_with_few_descriptors_says_so_and_is_charged_nothing() {
    for compiled in [true, false] {
        let prepared = prepared(compiled);
        let (refused, tried) = sweep(prepared.path(), (4..40).map(|files| format!("-n {files}")));
        println!("{tried} limits, {} of them too low: {refused:?}", refused.len());
        assert!(refused.len() > 5 && tried - refused.len() > 5, "of {tried}: {refused:?}");
    }
}

#[test]
fn a_run_with_little_address_space_says_so_and_is_charged_nothing() {
    for compiled in [true, false] {
        let prepared = prepared(compiled);
        // From the size that the program needs to start to more than a task needs.
        let sizes = (100..700).step_by(25).chain((700..6000).step_by(400)).chain((8000..30_000).step_by(8000));
        let (refused, tried) = sweep(prepared.path(), sizes.map(|mebibytes| format!("-v {}", mebibytes * 1024)));
        println!("{tried} limits, {} of them too low: {refused:?}", refused.len());
        assert!(refused.len() > 5 && tried - refused.len() > 2, "of {tried}: {refused:?}");
    }
}
