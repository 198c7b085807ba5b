//! Clocks that are wrong, run too fast, or are set during the work: the clocks of workers, and the clock of Redis,
//! which measures the leases.
//!
//! The tests of the workers' clocks need libfaketime (Debian: apt-get install faketime). Without it these tests print
//! that they were not tried. Redis does not start with libfaketime. Its clock is `clock.c`, which needs a C compiler,
//! as the program itself does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::fleet::{Fleet, LONG, Setup, busy, wait};
use crate::storm::Load;

/// The libfaketime library, which changes a process's time.
fn library() -> Option<String> {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64"];
    let library = folders
        .map(|folder| format!("{folder}/faketime/libfaketime.so.1"))
        .into_iter()
        .find(|path| Path::new(path).is_file());
    if library.is_none() {
        println!("not tried here: libfaketime is missing (Debian: apt-get install faketime)");
    }
    library
}

/// Compiles a library that sets a server's clock ahead by the number in the file of `DOVETAIL_TEST_CLOCK`.
pub(crate) fn settable(folder: &Path) -> PathBuf {
    let library = folder.join("clock.so");
    let source = crate::root().join("tests/faults/clock.c");
    let out = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(source)
        .output()
        .expect("a C compiler, `cc`");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    library
}

/// Checks that each step was executed once, and that all workers worked. Times in the records come from the workers'
/// clocks, so the usual checks of times do not apply.
fn each_step_once(fleet: &mut Fleet, workers: usize) {
    let mut violations = Vec::new();
    fleet.quiet(&mut violations);
    fleet.observe(&mut violations);
    assert_eq!(violations, Vec::<String>::new());
    let executions = fleet.executions();
    let steps: BTreeSet<_> = executions.iter().map(|e| (&e.run, &e.step)).collect();
    assert_eq!(executions.len(), steps.len(), "a step was executed more than once");
    let worked: BTreeSet<_> = executions.iter().map(|e| &e.worker).collect();
    assert_eq!(worked.len(), workers, "a worker executed no step");
}

/// The clocks of the two workers are an hour ahead of the test's clock, and an hour behind it.
#[test]
fn workers_whose_clocks_are_wrong_lose_nothing() {
    let Some(library) = library() else { return };
    let mut fleet = Fleet::new(Setup::default());
    for offset in ["+1h", "-1h"] {
        fleet.worker_with(&[
            ("LD_PRELOAD", &library),
            ("FAKETIME", offset),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ]);
    }
    fleet.user.load(60);
    each_step_once(&mut fleet, 2);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    assert!(
        fleet.executions().iter().all(|e| u128::from(e.at_ms).abs_diff(now) > 3_000_000),
        "a worker's clock is not wrong"
    );
}

/// One worker's time runs 1.5 times as fast as the servers', the other worker's time 0.7 times. The monotonic clock is
/// not changed: the threads of a process sleep by the kernel's clock, which the process cannot change.
#[test]
fn workers_whose_clocks_run_too_fast_or_too_slow_lose_nothing() {
    let Some(library) = library() else { return };
    let mut fleet = Fleet::new(Setup::default());
    for rate in ["+0 x1.5", "+0 x0.7"] {
        fleet.worker_with(&[
            ("LD_PRELOAD", &library),
            ("FAKETIME", rate),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ]);
    }
    for n in 0..20 {
        fleet.user.submit("diamond", &json!({ "x": n, "behaviour": busy(500) }));
    }
    fleet.user.load(60);
    each_step_once(&mut fleet, 2);
}

/// Redis's clock is set an hour ahead, and back, under load. No lease expires through that, a worker that is killed
/// afterwards is replaced as soon as usual, and new runs begin.
#[test]
fn a_redis_whose_clock_is_set_ahead_and_back_loses_nothing() {
    let mut fleet = Fleet::new(Setup { redis_clock: true, ..Setup::default() });
    fleet.workers(2);
    let time = |fleet: &Fleet| {
        let time: (u64, u64) = redis::from_redis_value(fleet.redis.redis(&["TIME"]).unwrap()).unwrap();
        time.0
    };
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let load = Load::start(&fleet.user, Duration::from_millis(20));
    for ahead in [3600, 0] {
        fleet.progress(20);
        fleet.redis.set_clock(ahead);
        wait("its clock is set", LONG, || time(&fleet).abs_diff(now() + ahead) < 60);
        fleet.progress(20);
    }
    load.stop();
    let report = fleet.holds(0);
    assert_eq!(report.again, 0, "a lease expired although its worker lived");
    // The step is leased from before the clock is set back.
    fleet.redis.set_clock(3600);
    let run = fleet.user.submit("probe", &json!({ "behaviour": busy(4000) }));
    wait("the step runs", LONG, || fleet.runs_now(&run).is_some());
    let worker = fleet.runs_now(&run).unwrap();
    fleet.kill(worker);
    fleet.redis.set_clock(0);
    wait("another worker runs the step", Duration::from_secs(20), || fleet.runs_now(&run).is_some());
    fleet.holds(1);
}
