//! Several processes on one data folder, some of them killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{StoredRuns, chain, dovetail, folder, package, ran};

/// The number of runs that are submitted while workers work.
const RUNS: usize = 60;
/// The number of workers that are killed, one after the other, and replaced.
const KILLED: usize = 8;
/// All runs must end within this time: the leases of a dead process are free at once.
const BOUND: Duration = Duration::from_secs(60);

/// Starts a worker that writes its log to `log`.
fn worker(folder: &Path, log: &Path) -> Child {
    let mut command = dovetail(folder, &["worker"]);
    command.env("DOVETAIL_WORKER_JOBS", "2").stdout(Stdio::null()).stderr(std::fs::File::create(log).unwrap());
    command.spawn().unwrap()
}

/// How often each step of each run was begun, according to a log.
fn begun(log: &Path) -> BTreeMap<(String, String), usize> {
    let mut begun = BTreeMap::new();
    for line in std::fs::read_to_string(log).unwrap().lines() {
        // The last line of a killed worker's log may be cut.
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        let fields = &line["fields"];
        if fields["message"] == "step started" {
            let text =
                |name: &str| fields[name].as_str().expect("a step is logged with its run and its name").to_owned();
            *begun.entry((text("run"), text("step"))).or_default() += 1;
        }
    }
    begun
}

#[test]
fn workers_that_are_killed_beside_others_on_one_folder_lose_nothing() {
    let folder = folder();
    let (folder, data) = (folder.path(), folder.path().join("data"));
    let package = package(folder);
    ran(dovetail(folder, &["task", "push"]).arg(package));
    ran(dovetail(folder, &["pipeline", "push"]).arg(chain(folder)));
    let log = |number: usize| folder.join(format!("log-{number}"));
    let mut workers: Vec<(usize, Child)> = (0..3).map(|number| (number, worker(folder, &log(number)))).collect();
    // `run --detach` refuses a run if no worker lives.
    let began = Instant::now();
    let alive = || {
        serde_json::from_slice::<Vec<Value>>(
            &ran(&mut dovetail(folder, &["workers", "list", "--output", "json"])).stdout,
        )
        .unwrap()
        .len()
    };
    while alive() < workers.len() {
        assert!(began.elapsed() < BOUND, "workers do not come up");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (mut killed, mut next, mut waits) = (Vec::new(), 3, Vec::new());
    for number in 0..RUNS {
        let began = Instant::now();
        ran(&mut dovetail(folder, &["run", "chain", "--detach", "--input", "x=1"]));
        waits.push(began.elapsed());
        if number % (RUNS / KILLED) == 0 && killed.len() < KILLED {
            // Each worker is killed at another moment of its work.
            std::thread::sleep(Duration::from_millis(5 * u64::try_from(killed.len()).unwrap()));
            let (number, mut victim) = workers.remove(killed.len() % 3);
            victim.kill().unwrap();
            victim.wait().unwrap();
            killed.push(number);
            workers.push((next, worker(folder, &log(next))));
            next += 1;
        }
    }
    let began = Instant::now();
    let held = loop {
        let held = StoredRuns::read(folder);
        if held.ends.len() == RUNS || began.elapsed() > BOUND {
            break held;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let waited = began.elapsed();
    for (_, mut worker) in workers {
        worker.kill().unwrap();
        worker.wait().unwrap();
    }
    let (mut alive, mut dead) = (BTreeMap::<_, usize>::new(), 0);
    for number in 0..next {
        for (step, times) in begun(&log(number)) {
            assert_eq!(times, 1, "one process began {step:?} more than once");
            if killed.contains(&number) {
                dead += 1;
            } else {
                *alive.entry(step).or_default() += 1;
            }
        }
    }
    let longest = waits.iter().max().unwrap().as_millis();
    println!(
        "{RUNS} runs, {KILLED} of {next} workers killed; steps begun: {} by those that lived, {dead} by those that \
         died; the longest submission took {longest} ms; the last run ended {} ms after it was submitted",
        alive.len(),
        waited.as_millis()
    );
    assert_eq!(
        (held.runs, held.ends.len(), held.outcomes.len(), held.open),
        (RUNS, RUNS, 3 * RUNS, 0),
        "in {}",
        data.display()
    );
    assert_eq!(held.broken, Vec::<String>::new());
    let twice: Vec<_> = alive.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "steps were begun twice although no worker that began them died: {twice:?}");
    assert!(alive.len() + dead >= 3 * RUNS, "the logs do not name each step");
    assert!(dead > KILLED, "the killed workers had not worked before");
}
