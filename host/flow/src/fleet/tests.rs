//! The end of a fleet ledger's threads, and the search for lost runs, with stores that accept everything. The submodule
//! has the tests with stores that fail.

mod failing_stores;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::flat_combining::FlatCombiner;
use dovetail_core::ledger::{HeldStep, Kind, Ledger as _, Listing, Operation, Record, RunKey, Scope};
use dovetail_core::meta::{MetaStore, Put, Writes};
use dovetail_core::window::{Called, Change, Notification, Stamp, Status, Window, WindowLease, WindowRenewal};

use super::records::{self, Forget, ToRecords};
use super::{FleetLedger, Shared};

/// Much longer than any wait of these tests takes.
const LONG: Duration = Duration::from_secs(20);

/// Stores that accept everything and hold nothing. They remember the runs that the index was to forget.
#[derive(Default)]
struct Accepting {
    forgotten: Mutex<Vec<RunKey>>,
    /// The index of open runs.
    open: Mutex<Vec<RunKey>>,
    /// Runs that the window does not know.
    unknown: Mutex<Vec<RunKey>>,
    /// Runs whose end is on record.
    over: Mutex<Vec<RunKey>>,
    /// The window's epoch. `None`: the first one, nothing was lost yet.
    epoch: Mutex<Option<&'static str>>,
    /// The identity of the records that the window belongs to. `None`: it belongs to any records that ask.
    owner: Mutex<Option<&'static str>>,
}

impl MetaStore for Accepting {
    fn put(&self, records: &[Record]) -> Result<Vec<Put>, StoreError> {
        Ok(records.iter().map(|_| Put::Created).collect())
    }

    fn write(&self, writes: &Writes) -> Result<Vec<Put>, StoreError> {
        self.forget(&writes.forget)?;
        Ok(writes.records.iter().map(|_| Put::Created).collect())
    }

    fn get(&self, kind: Kind, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let over = self.over.lock().unwrap();
        let is_over = |key: &String| kind == Kind::RunOutcome && over.iter().any(|run| run.key() == *key);
        Ok(keys.iter().map(|key| is_over(key).then(Vec::new)).collect())
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
        Ok(self.open.lock().unwrap().clone())
    }
}

fn stamp() -> Stamp {
    Stamp { epoch: "epoch".into(), now: 0, refused: 0 }
}

impl Window for Accepting {
    fn peek(&self) -> Result<Stamp, StoreError> {
        Ok(Stamp { epoch: self.epoch.lock().unwrap().unwrap_or("epoch").into(), ..stamp() })
    }

    fn call(&self, changes: &[Change], _scope: &Scope, _want: usize, _lease: Duration) -> Result<Called, StoreError> {
        Ok(Called {
            statuses: changes.iter().map(|_| Status::Ok).collect(),
            jobs: Vec::new(),
            next_ms: None,
            stamp: stamp(),
        })
    }

    fn renew(&self, leases: &[WindowLease], _lease: Duration) -> Result<Vec<WindowRenewal>, StoreError> {
        Ok(leases.iter().map(|_| WindowRenewal::Renewed).collect())
    }

    fn listen(&self, _ring: Box<dyn Fn(Notification) + Send + Sync>) {}

    fn knows(&self, runs: &[RunKey]) -> Result<Vec<bool>, StoreError> {
        let unknown = self.unknown.lock().unwrap();
        Ok(runs.iter().map(|run| !unknown.contains(run)).collect())
    }

    fn held(&self, _run: &RunKey) -> Result<Vec<HeldStep>, StoreError> {
        Ok(Vec::new())
    }

    fn beat(&self, _worker: &str, _about: &[u8], _keep: Duration) -> Result<Stamp, StoreError> {
        Ok(stamp())
    }

    fn belongs(&self, records: Option<&str>) -> Result<Option<String>, StoreError> {
        Ok(self.owner.lock().unwrap().or(records).map(str::to_owned))
    }

    fn workers(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        Ok(Vec::new())
    }
}

/// Records that this process may only read. The queue is bound to them.
struct ReadOnly(Accepting);

impl MetaStore for ReadOnly {
    fn put(&self, _records: &[Record]) -> Result<Vec<Put>, StoreError> {
        Err(StoreError::plain(StoreErrorKind::Refused, "write"))
    }

    fn write(&self, _writes: &Writes) -> Result<Vec<Put>, StoreError> {
        self.put(&[])
    }

    fn get(&self, kind: Kind, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        Ok(keys.iter().map(|_| (kind == Kind::Identity).then(|| b"mine".to_vec())).collect())
    }

    fn list(&self, kind: Kind, listing: &Listing) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.0.list(kind, listing)
    }

    fn open(&self, _runs: &[RunKey]) -> Result<(), StoreError> {
        self.put(&[]).map(drop)
    }

    fn forget(&self, _runs: &[RunKey]) -> Result<(), StoreError> {
        self.put(&[]).map(drop)
    }

    fn open_runs(&self, limit: usize) -> Result<Vec<RunKey>, StoreError> {
        self.0.open_runs(limit)
    }
}

#[test]
fn a_read_only_user_can_list_runs_and_is_refused_before_it_works() {
    let window = Arc::new(Accepting::default());
    *window.owner.lock().unwrap() = Some("mine");
    let ledger = FleetLedger::new(Arc::new(ReadOnly(Accepting::default())), window.clone()).unwrap();
    assert_eq!(ledger.open_runs(9).unwrap(), []);
    assert_eq!(super::pair::may_write(&ledger).unwrap_err().kind, StoreErrorKind::Refused);
    let able = FleetLedger::new(Arc::new(Accepting::default()), Arc::new(Accepting::default())).unwrap();
    super::pair::may_write(&able).unwrap();
}

fn run(n: u8) -> RunKey {
    RunKey { run: format!("{n:02x}010101-0101-0101-0101-010101010101").parse().unwrap(), generation: 0 }
}

/// Runs `work` on a thread, and fails if the work does not end.
fn ends(work: impl FnOnce() + Send + 'static) {
    let (sender, receiver) = crossbeam_channel::bounded(1);
    let thread = std::thread::spawn(move || {
        work();
        sender.send(()).unwrap();
    });
    assert!(receiver.recv_timeout(LONG).is_ok(), "the work does not end");
    thread.join().unwrap();
}

/// A program that cancels a run closes the run and drops the ledger at once, so both messages reach the thread
/// together.
#[test]
fn the_thread_of_the_records_ends_wherever_that_is_said_and_forgets_first() {
    for before in 0..3 {
        let stores = Arc::new(Accepting::default());
        let shared = Shared::new(stores.clone(), stores.clone());
        let (combiner, leave) = FlatCombiner::new(Forget::default());
        let (to_window, _inbox) = crossbeam_channel::unbounded();
        (0..before).for_each(|n| leave.send(ToRecords::Forget(vec![run(n)])).unwrap());
        leave.send(ToRecords::End).unwrap();
        ends(move || records::run(&shared, &combiner, &to_window));
        assert_eq!(*stores.forgotten.lock().unwrap(), (0..before).map(run).collect::<Vec<_>>());
        // A sender is still there, as the window's thread has one: the records' thread must not wait for its end.
        drop(leave);
    }
}

#[test]
fn a_ledger_that_is_dropped_as_a_run_is_closed_comes_to_its_end() {
    let stores = Arc::new(Accepting::default());
    let kept = stores.clone();
    ends(move || {
        for n in 0..200 {
            let ledger = FleetLedger::new(kept.clone(), kept.clone()).unwrap();
            let record = Record { kind: Kind::RunOutcome, key: run(n).key(), value: Vec::new() };
            ledger.commit(&[Operation::Close { run: run(n), record }]).unwrap();
        }
    });
    assert_eq!(
        *stores.forgotten.lock().unwrap(),
        (0..200).map(run).collect::<Vec<_>>(),
        "the index forgot each run before the ledger ended"
    );
}

/// The wall time at which the tests search, in milliseconds since 1970.
const NOW_MS: u64 = 1_800_000_000_000;

fn submitted(ms: u64, generation: u32) -> RunKey {
    let hex = format!("{ms:012x}");
    RunKey { run: format!("{}-{}-7000-8000-000000000001", &hex[..8], &hex[8..]).parse().unwrap(), generation }
}

/// An index and a window that differ, and the start of the test's time.
struct Searched {
    stores: Arc<Accepting>,
    shared: Shared,
    began: Instant,
}

impl Searched {
    fn new(unknown: &[RunKey]) -> Self {
        let stores = Arc::new(Accepting::default());
        stores.open.lock().unwrap().extend_from_slice(unknown);
        stores.unknown.lock().unwrap().extend_from_slice(unknown);
        Self { shared: Shared::new(stores.clone(), stores.clone()), stores, began: Instant::now() }
    }

    /// The runs that a search finds so many seconds after the start.
    fn after(&self, seconds: u64) -> Vec<RunKey> {
        let mut lost = self.shared.search(self.began + Duration::from_secs(seconds), NOW_MS + seconds * 1000).unwrap();
        lost.sort();
        lost
    }
}

#[test]
fn a_run_that_is_being_submitted_or_closed_is_not_lost() {
    let [submitted_now, closed_now, lost] = [1, 2, 3].map(|n| submitted(NOW_MS - n, 0));
    let searched = Searched::new(&[submitted_now.clone(), closed_now.clone(), lost.clone()]);
    assert!(searched.after(0).is_empty(), "each run may be on its way");
    assert!(searched.after(1).is_empty());
    // The first run is opened in the window. The end of the second run is recorded, and the index forgets that run.
    searched.stores.unknown.lock().unwrap().retain(|run| *run != submitted_now);
    searched.stores.open.lock().unwrap().retain(|run| *run != closed_now);
    searched.stores.over.lock().unwrap().push(closed_now);
    assert_eq!(
        searched.after(2),
        [lost],
        "a run that is still unknown two seconds later is lost, without waiting for the next comparison"
    );
    assert!(searched.after(4).is_empty(), "exactly once");
    // The first run ends just before the next comparison.
    searched.stores.unknown.lock().unwrap().push(submitted_now);
    assert!(searched.after(61).is_empty());
}

#[test]
fn a_run_whose_end_is_on_record_and_that_the_index_does_not_forget_is_found_by_the_next_comparison() {
    let run = submitted(NOW_MS, 0);
    let searched = Searched::new(std::slice::from_ref(&run));
    searched.stores.over.lock().unwrap().push(run.clone());
    assert!((0..60).all(|second| searched.after(second).is_empty()));
    assert_eq!(searched.after(61), [run]);
}

#[test]
fn old_runs_are_lost_with_the_window_at_once_and_only_with_it() {
    // Nothing says that these runs are old: a young one, one with an ID from a clock that is ahead, one with an ID from
    // an idempotency key, and a retried one.
    let old = submitted(NOW_MS - 60_000, 0);
    let rest = [submitted(NOW_MS - 5_000, 0), submitted(NOW_MS + 3_600_000, 0), run(1), submitted(NOW_MS - 60_000, 1)];
    let searched = Searched::new(&[&rest[..], std::slice::from_ref(&old)].concat());
    let mut rest = rest.to_vec();
    rest.sort();
    assert_eq!(
        searched.after(0),
        std::slice::from_ref(&old),
        "a starting worker does not know which runs were lost before"
    );
    assert_eq!(searched.after(2), rest);
    searched.stores.unknown.lock().unwrap().retain(|run| *run == old);
    assert!(searched.after(70).is_empty(), "nothing was lost: the run may just be ending");
    assert_eq!(searched.after(72), std::slice::from_ref(&old));
    *searched.stores.epoch.lock().unwrap() = Some("another");
    assert_eq!(searched.after(73), std::slice::from_ref(&old));
}
