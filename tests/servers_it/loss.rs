//! The window is lost while steps run: no recorded step is run again, and no submitted run is forgotten.

use std::sync::Arc;
use std::time::Duration;

use dovetail_core::RunId;
use dovetail_core::conformance::outcome;
use dovetail_core::keys::NodeId;
use dovetail_core::ledger::{Job, Kind, Ledger, Operation, Record, Renewal, Reply, Requirements, RunKey, Scope, Wait};
use dovetail_core::record::{Form, OutcomeRecord, StepEnd, StoredValue};
use dovetail_flow::FleetLedger;
use dovetail_stores::RedisWindow;

use crate::{fresh, meta, window};

const LEASE: Duration = Duration::from_secs(5);

struct Fleet {
    ledger: FleetLedger,
    window: Arc<RedisWindow>,
    run: RunKey,
}

fn job(step: &str, needs: &[&str]) -> Job {
    let needs = needs.iter().map(|need| NodeId::of_step(need)).collect();
    Job { step: NodeId::of_step(step), needs, attempt: 1, requirements: Requirements::default() }
}

/// The steps of the run.
fn steps() -> Arc<[NodeId]> {
    ["a", "b"].map(NodeId::of_step).into()
}

/// A fleet with one run, a -> b.
fn fleet() -> Fleet {
    let name = fresh("loss");
    let window = window(&name);
    let ledger = FleetLedger::new(meta(&name), window.clone()).unwrap();
    let run = RunKey { run: RunId::from_bytes([7; 16]), generation: 0 };
    let record = Record { kind: Kind::Run, key: run.run.to_string(), value: b"the run".to_vec() };
    let submit = Operation::Submit { run: run.clone(), record, jobs: vec![job("a", &[])], steps: steps() };
    assert_eq!(ledger.commit(&[submit]).unwrap(), [Reply::Created]);
    Fleet { ledger, window, run }
}

impl Fleet {
    fn one(&self, item: Operation) -> Reply {
        self.ledger.commit(&[item]).unwrap().remove(0)
    }

    fn claim(&self) -> Vec<dovetail_core::ledger::Claimed> {
        self.ledger.claim(&Scope::All, 9, LEASE, Wait::NONE).unwrap()
    }
}

#[test]
fn a_queued_job_that_was_lost_comes_back_with_a_rebuild_to_be_verified() {
    let fleet = fleet();
    fleet.window.forget_everything().unwrap();
    assert!(fleet.claim().is_empty(), "the job is gone");
    assert_eq!(fleet.ledger.open_runs(9).unwrap(), std::slice::from_ref(&fleet.run), "the run is on record");
    assert_eq!(
        fleet.one(Operation::Recover { run: fleet.run.clone(), jobs: vec![job("a", &[])], steps: steps() }),
        Reply::Created
    );
    let claimed = fleet.claim();
    assert_eq!(claimed.len(), 1);
    assert!(claimed[0].verify);
    assert_eq!(claimed[0].run, b"the run");
}

#[test]
fn a_step_that_ends_after_the_loss_is_recorded_and_its_worker_is_told_to_read() {
    let fleet = fleet();
    let a = fleet.claim().remove(0);
    fleet.window.forget_everything().unwrap();
    assert_eq!(
        fleet.ledger.renew(std::slice::from_ref(&a.lease), LEASE).unwrap(),
        [Renewal::Renewed],
        "the step continues"
    );
    let finish = Operation::Finish {
        lease: a.lease,
        record: outcome(fleet.run.step("a"), true),
        succeeded: true,
        close: None,
        children: vec![job("b", &["a"])],
    };
    assert_eq!(fleet.one(finish), Reply::Last, "the end is not acknowledged: the worker must read the records");
    assert_eq!(
        fleet.one(Operation::Recover {
            run: fleet.run.clone(),
            jobs: vec![job("a", &[]), job("b", &["a"])],
            steps: steps()
        }),
        Reply::Created
    );
    let claimed = fleet.claim();
    assert_eq!(
        claimed.iter().map(|c| (c.lease.step.as_str(), c.verify)).collect::<Vec<_>>(),
        [("b", true)],
        "a is not run again"
    );
    assert_eq!(claimed[0].needs.len(), 1, "b gets the output of a");
}

#[test]
fn a_rebuild_gives_a_living_worker_its_job_back() {
    let fleet = fleet();
    let a = fleet.claim().remove(0);
    fleet.window.forget_everything().unwrap();
    assert_eq!(
        fleet.one(Operation::Recover { run: fleet.run.clone(), jobs: vec![job("a", &[])], steps: steps() }),
        Reply::Created
    );
    assert_eq!(fleet.ledger.renew(std::slice::from_ref(&a.lease), LEASE).unwrap(), [Renewal::Renewed]);
    assert!(fleet.claim().is_empty(), "no other worker gets the job");
}

#[test]
fn a_rebuild_knows_failed_steps_and_starts_nothing_behind_them() {
    let fleet = fleet();
    let a = fleet.claim().remove(0);
    let record = outcome(fleet.run.step("a"), false);
    assert_eq!(
        fleet.one(Operation::Finish { lease: a.lease, record, succeeded: false, close: None, children: vec![] }),
        Reply::Last
    );
    fleet.window.forget_everything().unwrap();
    assert_eq!(
        fleet.one(Operation::Recover {
            run: fleet.run.clone(),
            jobs: vec![job("a", &[]), job("b", &["a"])],
            steps: steps()
        }),
        Reply::Created
    );
    assert!(fleet.claim().is_empty());
}

#[test]
fn what_was_queued_before_a_loss_and_restored_is_verified() {
    let fleet = fleet();
    // The stamp was taken before the loss.
    let before = dovetail_core::window::Window::peek(&*fleet.window).unwrap();
    fleet.window.forget_everything().unwrap();
    let after = dovetail_core::window::Window::peek(&*fleet.window).unwrap();
    assert_ne!(before.epoch, after.epoch);
    let stale = dovetail_core::window::Change::Open {
        run: fleet.run.clone(),
        stamp: before,
        verify: false,
        envelope: b"the run".to_vec(),
        steps: 2,
        done: vec![],
        jobs: vec![job("a", &[])],
    };
    let called = dovetail_core::window::Window::call(&*fleet.window, &[stale], &Scope::All, 9, LEASE).unwrap();
    assert_eq!(
        called.statuses,
        [dovetail_core::window::Status::Stale],
        "records that were read before the loss are not written after it"
    );
    assert!(called.jobs.is_empty());
}

#[test]
fn a_window_that_is_another_fleets_after_a_loss_gets_nothing_and_gives_nothing() {
    let fleet = fleet();
    fleet.window.forget_everything().unwrap();
    assert_eq!(
        dovetail_core::window::Window::belongs(&*fleet.window, Some("another")).unwrap().as_deref(),
        Some("another")
    );
    let refused = |error: dovetail_core::blobs::StoreError| {
        let text = format!("{error:?}");
        assert!(
            error.kind == dovetail_core::blobs::StoreErrorKind::Refused && text.contains("other records"),
            "{text}"
        );
    };
    // The search for lost runs, which the new epoch starts, notices the other owner first; from then on claims and
    // commits do.
    refused(fleet.ledger.lost().unwrap_err());
    refused(fleet.ledger.claim(&Scope::All, 9, LEASE, Wait::NONE).unwrap_err());
    refused(
        fleet
            .ledger
            .commit(&[Operation::Recover { run: fleet.run.clone(), jobs: vec![job("a", &[])], steps: steps() }])
            .unwrap_err(),
    );
    // Once the window belongs to these records again, the work continues.
    fleet.window.forget_everything().unwrap();
    // The run's ID tells no time, so the run is in doubt for a while.
    assert!(fleet.ledger.lost().unwrap().is_empty());
    let began = std::time::Instant::now();
    let lost = loop {
        let lost = fleet.ledger.lost().unwrap();
        if !lost.is_empty() || began.elapsed() > Duration::from_secs(60) {
            break lost;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(lost, std::slice::from_ref(&fleet.run));
    assert_eq!(
        fleet.one(Operation::Recover { run: fleet.run.clone(), jobs: vec![job("a", &[])], steps: steps() }),
        Reply::Created
    );
    assert_eq!(fleet.claim().len(), 1);
}

/// A user may give a new worker the name of a living worker.
#[test]
fn of_two_workers_with_one_name_each_is_listed_and_keeps_its_steps() {
    use dovetail_core::window::Window;
    let name = fresh("twins");
    let (first, second) = (window(&name), window(&name));
    let ledger = FleetLedger::new(meta(&name), first.clone()).unwrap();
    let run = RunKey { run: RunId::from_bytes([7; 16]), generation: 0 };
    let record = Record { kind: Kind::Run, key: run.run.to_string(), value: b"the run".to_vec() };
    ledger
        .commit(&[Operation::Submit { run: run.clone(), record, jobs: vec![job("a", &[])], steps: steps() }])
        .unwrap();
    for _ in 0..2 {
        first.beat("twin", b"one", LEASE).unwrap();
        second.beat("twin", b"two", LEASE).unwrap();
    }
    assert_eq!(first.workers().unwrap(), [("twin".to_owned(), b"one".to_vec()), ("twin".to_owned(), b"two".to_vec())]);
    assert_eq!(ledger.claim(&Scope::All, 9, LEASE, Wait::NONE).unwrap().len(), 1);
    let held = second.held(&run).unwrap();
    assert_eq!(
        held.iter().map(|held| held.worker.as_deref()).collect::<Vec<_>>(),
        [Some("twin")],
        "a heartbeat of the second worker is none of the first worker"
    );
    first.beat("twin", b"good night", Duration::ZERO).unwrap();
    assert_eq!(second.workers().unwrap(), [("twin".to_owned(), b"two".to_vec())], "the second worker stays listed");
}

#[test]
fn a_large_outcome_is_not_carried_and_still_arrives() {
    let fleet = fleet();
    let a = fleet.claim().remove(0);
    let mut record = outcome(fleet.run.step("a"), true);
    let mut value = OutcomeRecord::decode(&record.value, "it").unwrap();
    value.end = StepEnd::Succeeded(StoredValue::Inline(serde_json::json!({ "filler": "x".repeat(40_000) })));
    record.value = value.encode();
    let finish = Operation::Finish {
        lease: a.lease,
        record: record.clone(),
        succeeded: true,
        close: None,
        children: vec![job("b", &["a"])],
    };
    assert_eq!(fleet.one(finish), Reply::Created);
    let b = fleet.claim().remove(0);
    assert_eq!(b.needs, [(NodeId::of_step("a"), record.value)]);
}
