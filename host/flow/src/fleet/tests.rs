//! What the threads of a fleet's ledger do at its end, with stores that take everything.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dovetail_core::blobs::StoreError;
use dovetail_core::desk::Desk;
use dovetail_core::ledger::{Item, Kind, Ledger as _, Listing, Record, RunKey, Scope};
use dovetail_core::meta::{MetaStore, Put, Writes};
use dovetail_core::window::{Called, Change, Held, Ring, Stamp, Status, Window, WindowLease};

use super::records::{self, Forget, ToRecords};
use super::{FleetLedger, Shared};

/// As long as it takes where nothing hangs, many times over.
const LONG: Duration = Duration::from_secs(20);

/// Takes everything, has nothing, and remembers what was to be forgotten.
#[derive(Default)]
struct Yielding {
    forgotten: Mutex<Vec<RunKey>>,
}

impl MetaStore for Yielding {
    fn put(&self, records: &[Record]) -> Result<Vec<Put>, StoreError> {
        Ok(records.iter().map(|_| Put::Created).collect())
    }

    fn write(&self, writes: &Writes) -> Result<Vec<Put>, StoreError> {
        self.forget(&writes.forget)?;
        Ok(writes.records.iter().map(|_| Put::Created).collect())
    }

    fn get(&self, _kind: Kind, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        Ok(keys.iter().map(|_| None).collect())
    }

    fn list(&self, _kind: Kind, _listing: &Listing) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        Ok(Vec::new())
    }

    fn open(&self, _runs: &[RunKey]) -> Result<(), StoreError> {
        Ok(())
    }

    fn forget(&self, runs: &[RunKey]) -> Result<(), StoreError> {
        self.forgotten.lock().unwrap().extend_from_slice(runs);
        Ok(())
    }

    fn open_runs(&self, _limit: usize) -> Result<Vec<RunKey>, StoreError> {
        Ok(Vec::new())
    }
}

fn stamp() -> Stamp {
    Stamp { epoch: "epoch".into(), now: 0, refused: 0 }
}

impl Window for Yielding {
    fn peek(&self) -> Result<Stamp, StoreError> {
        Ok(stamp())
    }

    fn call(&self, changes: &[Change], _scope: &Scope, _want: usize, _lease: Duration) -> Result<Called, StoreError> {
        Ok(Called { statuses: changes.iter().map(|_| Status::Ok).collect(), jobs: Vec::new(), next_ms: None, stamp: stamp() })
    }

    fn renew(&self, leases: &[WindowLease], _lease: Duration) -> Result<Vec<Held>, StoreError> {
        Ok(leases.iter().map(|_| Held::Renewed).collect())
    }

    fn listen(&self, _ring: Box<dyn Fn(Ring) + Send + Sync>) {}

    fn knows(&self, runs: &[RunKey]) -> Result<Vec<bool>, StoreError> {
        Ok(runs.iter().map(|_| true).collect())
    }

    fn held(&self, _run: &RunKey) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    fn beat(&self, _worker: &str, _about: &[u8], _keep: Duration) -> Result<Stamp, StoreError> {
        Ok(stamp())
    }

    fn belongs(&self, records: Option<&str>) -> Result<Option<String>, StoreError> {
        Ok(records.map(str::to_owned))
    }

    fn workers(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        Ok(Vec::new())
    }
}

fn run(n: u8) -> RunKey {
    RunKey { run: format!("{n:02x}010101-0101-0101-0101-010101010101").parse().unwrap(), generation: 0 }
}

/// Does it on a thread, and fails where it does not come to an end.
fn ends(work: impl FnOnce() + Send + 'static) {
    let (told, heard) = crossbeam_channel::bounded(1);
    let thread = std::thread::spawn(move || {
        work();
        told.send(()).unwrap();
    });
    assert!(heard.recv_timeout(LONG).is_ok(), "it does not end");
    thread.join().unwrap();
}

/// Whoever cancels a run closes it and ends at once: both messages come to the thread together.
#[test]
fn the_thread_of_the_records_ends_wherever_that_is_said_and_forgets_first() {
    for before in 0..3 {
        let stores = Arc::new(Yielding::default());
        let shared = Shared::new(stores.clone(), stores.clone());
        let (desk, leave) = Desk::new(Forget::default());
        let (to_work, _work) = crossbeam_channel::unbounded();
        (0..before).for_each(|n| leave.send(ToRecords::Forget(vec![run(n)])).unwrap());
        leave.send(ToRecords::End).unwrap();
        ends(move || records::run(&shared, &desk, &to_work));
        assert_eq!(*stores.forgotten.lock().unwrap(), (0..before).map(run).collect::<Vec<_>>());
        // The thread of the work could still leave something: it must not be waited for.
        drop(leave);
    }
}

#[test]
fn a_ledger_that_is_dropped_as_a_run_is_closed_comes_to_its_end() {
    let stores = Arc::new(Yielding::default());
    let kept = stores.clone();
    ends(move || {
        for n in 0..200 {
            let ledger = FleetLedger::new(kept.clone(), kept.clone()).unwrap();
            let record = Record { kind: Kind::RunOutcome, key: run(n).key(), value: Vec::new() };
            ledger.commit(&[Item::Close { run: run(n), record }]).unwrap();
        }
    });
    assert_eq!(*stores.forgotten.lock().unwrap(), (0..200).map(run).collect::<Vec<_>>(), "each was forgotten before the end");
}
