//! Several processes on one data folder, side by side: none of them starves, and each hears at once of a run that
//! another one cancels.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dovetail_core::keys::NodeId;
use dovetail_core::ledger::{Item, Job, Kind, Ledger as _, Record, Requirements, RunKey, Scope, Wait};
use dovetail_core::record::{CancelRecord, Form as _, OutcomeRecord};
use dovetail_flow::SystemClock;
use dovetail_stores::SqliteLedger;
use serde_json::{Value, json};

use crate::killed::Killed;
use crate::{dovetail, folder, packed, ran};

/// Processes that claim.
const CLAIMERS: usize = 4;
/// Claims of each.
const CLAIMS: usize = 120;
/// The most claims of others that any of them may see between two of its own, and before its first: half of all that
/// they make. It is 5 to 18, and was once 81, when one got no processor for 80 ms.
const MOST: u64 = ((CLAIMERS - 1) * CLAIMS / 2) as u64;
/// The most that the second best of them may see: no accident spares so few. Where whoever has had a turn does not let
/// others go before, it is 60 to 120.
const USUAL: u64 = 45;
const TRIES: usize = 3;
/// Says to a process of this test that it is one of the claimers, and of which folder.
const CLAIMER: &str = "DOVETAIL_TEST_CLAIMER";

/// One of the claimers: each of its claims is of a run of its own, so only the turn is shared.
#[expect(clippy::print_stdout, reason = "the test reads it")]
fn claim(folder: &Path) {
    let ledger = SqliteLedger::open(folder, Arc::new(SystemClock)).unwrap();
    std::fs::write(folder.join(format!("ready-{}", std::process::id())), b"").unwrap();
    let began = Instant::now();
    while !folder.join("go").is_file() {
        assert!(began.elapsed() < Duration::from_secs(60), "nobody says that it begins");
        std::thread::sleep(Duration::from_millis(1));
    }
    for _ in 0..CLAIMS {
        let run = RunKey { run: dovetail_flow::new_run_id().unwrap(), generation: 0 };
        let record = |kind, key: String| Record { kind, key, value: b"{}".to_vec() };
        let jobs =
            vec![Job { step: NodeId::of_step("only"), needs: vec![], attempt: 1, lane: Requirements::default() }];
        ledger
            .commit(&[Item::Submit {
                run: run.clone(),
                record: record(Kind::Run, run.run.to_string()),
                jobs,
                steps: [NodeId::of_step("only")].into(),
            }])
            .unwrap();
        let claimed = ledger
            .claim(&Scope::Runs(vec![run.run.clone()]), 1, Duration::from_secs(10), Wait::NONE)
            .unwrap()
            .remove(0);
        // Tokens are numbers of claims, of all processes.
        println!("{CLAIMER} {}", claimed.lease.token);
        let (outcome, end) = (record(Kind::Outcome, run.step("only")), record(Kind::RunOutcome, run.key()));
        ledger
            .commit(&[Item::Finish {
                lease: claimed.lease,
                record: outcome,
                succeeded: true,
                close: Some(end),
                children: vec![],
            }])
            .unwrap();
    }
}

#[test]
fn no_process_starves_beside_others_on_one_folder() {
    if let Some(folder) = std::env::var_os(CLAIMER) {
        return claim(Path::new(&folder));
    }
    // Beside a load of their own machine all of them may get no processor for a while; without turns, no try is spared.
    let mut tries = Vec::new();
    while tries.len() < TRIES && !tries.last().is_some_and(|between: &Vec<u64>| is_fair(between)) {
        tries.push(claims_between());
    }
    println!("the most claims of others between two of one process, for each: {tries:?}");
    assert!(
        tries.last().is_some_and(|between| is_fair(between)),
        "they waited for so many claims of others: {tries:?}"
    );
}

/// For each of some processes the most claims of others between two of its own, the best first.
fn claims_between() -> Vec<u64> {
    // On a disk, where a change takes longer than it takes to wake a process: what is measured is who gets the turn,
    // not who gets a processor.
    let folder = tempfile::Builder::new().prefix("fair-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let claimer = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "fair::no_process_starves_beside_others_on_one_folder", "--nocapture"]);
        command.env(CLAIMER, folder.path()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let claimers: Vec<Child> = (0..CLAIMERS).map(|_| claimer()).collect();
    let ready = || {
        std::fs::read_dir(folder.path())
            .unwrap()
            .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with("ready-"))
            .count()
    };
    let began = Instant::now();
    while ready() < CLAIMERS {
        assert!(began.elapsed() < Duration::from_secs(20), "the claimers do not come up");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::fs::write(folder.path().join("go"), b"").unwrap();
    let mut all = Vec::new();
    for claimer in claimers {
        let out = claimer.wait_with_output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
        let text = String::from_utf8(out.stdout).unwrap();
        let claims: Vec<u64> = text
            .lines()
            .filter_map(|line| line.split_once(CLAIMER))
            .map(|(_, token)| token.trim().parse().unwrap())
            .collect();
        assert_eq!(claims.len(), CLAIMS, "each of them gets all of its work");
        all.push(claims);
    }
    let first = all.iter().flatten().min().unwrap() - 1;
    let most = |tokens: &Vec<u64>| {
        std::iter::once(&first).chain(tokens).zip(tokens).map(|(before, this)| this - before - 1).max().unwrap()
    };
    let mut between: Vec<u64> = all.iter().map(most).collect();
    between.sort_unstable();
    between
}

fn is_fair(between: &[u64]) -> bool {
    between[CLAIMERS - 1] <= MOST && between[1] <= USUAL
}

/// Kinds of work, each of which a cancellation must end soon, as the one step of a pipeline.
fn kinds() -> [(&'static str, &'static str, Value); 3] {
    let probe = |behaviour: Value| json!({ "number": 1, "task": "probe@^1", "inputs": { "behaviour": { "value": behaviour } } });
    let sleep = json!({ "number": 1, "task": "clock@^1", "inputs": { "after_ms": { "value": 20_000 } } });
    [
        ("tight-loop", "go.count", probe(json!({ "tag": "endless_loop" }))),
        ("host-calls", "go.count", probe(json!({ "tag": "log", "val": u32::MAX }))),
        ("sleep", "go.milliseconds", sleep),
    ]
}

/// Cancellations of each kind.
const TIMES: usize = 6;
/// From the request to the end of the attempt it takes 2 to 50 ms, and longer on a machine that is busy. By the
/// renewals of its leases alone, every 20 s here, a worker would hear of it later than this.
const SOON: Duration = Duration::from_secs(5);
const LEASE: &str = "60s";

#[test]
fn a_run_that_another_process_cancels_gives_its_slot_back_soon() {
    let folder = folder();
    let folder = folder.path();
    ran(dovetail(folder, &["task", "push"]).arg(packed(folder, "probe")));
    ran(dovetail(folder, &["task", "push", "--grant", "clocks"]).arg(packed(folder, "clock")));
    for (name, output, step) in kinds() {
        let pipeline = json!({ "name": name, "version": "1.0.0", "inputs": {}, "steps": { "go": step }, "output": { "it": output } });
        let file = folder.join("pipeline.json");
        std::fs::write(&file, pipeline.to_string()).unwrap();
        ran(dovetail(folder, &["pipeline", "push"]).arg(&file));
    }
    let log = folder.join("worker.log");
    let mut worker = dovetail(folder, &["worker"]);
    worker.env("DOVETAIL_WORKER_LEASE", LEASE);
    let mut worker = Killed(worker.stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap());
    let ledger = SqliteLedger::open(&folder.join("data"), Arc::new(SystemClock)).unwrap();
    let wait = |what: &str, until: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !until() {
            assert!(began.elapsed() < Duration::from_secs(30), "{what}: it does not");
            std::thread::sleep(Duration::from_millis(3));
        }
    };
    wait("the worker comes up", &|| !ledger.workers().unwrap().is_empty());
    let mut took = BTreeMap::<&str, Vec<u64>>::new();
    for (kind, _, _) in kinds() {
        for _ in 0..TIMES {
            let out = ran(&mut dovetail(folder, &["run", kind, "--detach", "--output", "json"]));
            let run: String =
                serde_json::from_slice::<Value>(&out.stdout).unwrap()["run_id"].as_str().unwrap().to_owned();
            let key = RunKey { run: run.parse().unwrap(), generation: 0 };
            // Not only claimed.
            let begins = |line: &str| line.contains("\"step started\"") && line.contains(&run);
            wait("the step runs", &|| std::fs::read_to_string(&log).unwrap().lines().any(begins));
            ran(&mut dovetail(folder, &["runs", "cancel", &run]));
            let record = |kind, key: String| ledger.get(kind, &[key]).unwrap().pop().flatten();
            wait("the attempt ends", &|| record(Kind::Outcome, key.step("go")).is_some());
            let outcome = OutcomeRecord::decode(&record(Kind::Outcome, key.step("go")).unwrap(), "the step").unwrap();
            let asked =
                CancelRecord::decode(&record(Kind::Cancel, key.key()).unwrap(), "the run").unwrap().requested_ms;
            let attempt = outcome.attempts.last().expect("it ran");
            let ended = attempt.started_ms + attempt.duration_us / 1000;
            assert_eq!(outcome.failure().map(|failure| failure.code.as_str()), Some("stopped"), "{kind}");
            took.entry(kind).or_default().push(ended.saturating_sub(asked));
        }
    }
    worker.0.kill().unwrap();
    println!("from the request to the end of the attempt, in ms: {took:?}");
    let late: Vec<_> =
        took.iter().filter(|(_, took)| took.iter().any(|ms| Duration::from_millis(*ms) > SOON)).collect();
    assert!(late.is_empty(), "too late: {late:?}");
}
