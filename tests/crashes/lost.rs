//! Runs that are open and have no jobs: a worker enqueues their jobs again, and a run that cannot be restored does not
//! prevent that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dovetail_core::ledger::{Kind, Ledger as _, Operation, Record, RunKey};
use dovetail_core::record::{Form as _, GenerationRecord, RunRecord, StoredValue};
use dovetail_flow::SystemClock;
use dovetail_stores::SqliteLedger;
use serde_json::json;

use crate::killed::Killed;
use crate::{chain, dovetail, folder, package, ran};

/// Processor time of a process so far, in clock ticks (a hundredth of a second each).
fn ticks(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_run_that_cannot_be_put_back_keeps_no_other_waiting() {
    let folder = folder();
    let folder = folder.path();
    ran(dovetail(folder, &["task", "push"]).arg(package(folder)));
    ran(dovetail(folder, &["pipeline", "push"]).arg(chain(folder)));
    let ledger = SqliteLedger::open(&folder.join("data"), Arc::new(SystemClock)).unwrap();
    let reopen = |record: Option<Vec<u8>>| {
        let key = RunKey { run: dovetail_flow::new_run_id(), generation: 1 };
        let put = |kind, key: String, value| Operation::Put { record: Record { kind, key, value } };
        let generation = GenerationRecord { inherited: vec![], requested_ms: 1, reason: "a test".to_owned() };
        let mut items: Vec<Operation> =
            record.map(|value| put(Kind::Run, key.run.to_string(), value)).into_iter().collect();
        items.push(Operation::Reopen {
            run: key.clone(),
            record: Record { kind: Kind::Generation, key: key.key(), value: generation.encode() },
        });
        ledger.commit(&items).unwrap();
        key
    };
    // Five runs of a newer format, more than a worker gives up in a row; and one run without a record.
    for _ in 0..5 {
        reopen(Some(br#"{"format":"dovetail.run_record/9"}"#.to_vec()));
    }
    reopen(None);
    let run = RunRecord {
        pipeline: "chain@1.0.0#1".to_owned(),
        inputs: StoredValue::Inline(json!({ "x": 1 })),
        submitted_ms: 1,
        models: dovetail_core::executor::Models::new(),
    };
    let good = reopen(Some(run.encode()));
    let worker = Killed(dovetail(folder, &["worker"]).stderr(std::process::Stdio::null()).spawn().unwrap());
    let ends = |key: &RunKey, what: &str| {
        let began = Instant::now();
        while ledger.get(Kind::RunOutcome, &[key.key()]).unwrap()[0].is_none() {
            assert!(began.elapsed() < Duration::from_secs(60), "{what} is not put back");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    ends(&good, "the run behind them");
    ends(&reopen(Some(run.encode())), "one that is lost later");
    // The worker looks for the runs that stay lost every two seconds, and no more often.
    let before = ticks(worker.0.id());
    std::thread::sleep(Duration::from_secs(3));
    let spent = ticks(worker.0.id()) - before;
    assert!(spent < 150, "{spent} hundredths of a second of three seconds");
}
