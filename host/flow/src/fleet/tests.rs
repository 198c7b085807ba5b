//! What the threads of a fleet's ledger do at its end, and what is searched for as lost, with stores that take
//! everything.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::flat_combining::FlatCombiner;
use dovetail_core::ledger::{HeldStep, Item, Kind, Ledger as _, Listing, Record, RunKey, Scope};
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
    /// What the index has, and what the window does not know.
    open: Mutex<Vec<RunKey>>,
    unknown: Mutex<Vec<RunKey>>,
    /// Runs whose end is on record.
    over: Mutex<Vec<RunKey>>,
    /// The window's; none: nothing was lost yet.
    epoch: Mutex<Option<&'static str>>,
    /// Whose records the window belongs to; none: to whoever asks.
    owner: Mutex<Option<&'static str>>,
}

impl MetaStore for Yielding {
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

impl Window for Yielding {
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

    fn renew(&self, leases: &[WindowLease], _lease: Duration) -> Result<Vec<Held>, StoreError> {
        Ok(leases.iter().map(|_| Held::Renewed).collect())
    }

    fn listen(&self, _ring: Box<dyn Fn(Ring) + Send + Sync>) {}

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

/// Records of somebody who may only read, which the queue knows.
struct ReadOnly(Yielding);

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
fn who_may_only_read_may_look_and_is_told_before_he_works() {
    let window = Arc::new(Yielding::default());
    *window.owner.lock().unwrap() = Some("mine");
    let ledger = FleetLedger::new(Arc::new(ReadOnly(Yielding::default())), window.clone()).unwrap();
    assert_eq!(ledger.open_runs(9).unwrap(), []);
    assert_eq!(super::pair::may_write(&ledger).unwrap_err().kind, StoreErrorKind::Refused);
    let able = FleetLedger::new(Arc::new(Yielding::default()), Arc::new(Yielding::default())).unwrap();
    super::pair::may_write(&able).unwrap();
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
        let (desk, leave) = FlatCombiner::new(Forget::default());
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
    assert_eq!(
        *stores.forgotten.lock().unwrap(),
        (0..200).map(run).collect::<Vec<_>>(),
        "each was forgotten before the end"
    );
}

/// On a clock of wall time at which runs of the tests are submitted.
const NOW_MS: u64 = 1_800_000_000_000;

fn submitted(ms: u64, generation: u32) -> RunKey {
    let hex = format!("{ms:012x}");
    RunKey { run: format!("{}-{}-7000-8000-000000000001", &hex[..8], &hex[8..]).parse().unwrap(), generation }
}

/// An index and a window that do not know the same, and a moment from which time is counted.
struct Searched {
    stores: Arc<Yielding>,
    shared: Shared,
    began: Instant,
}

impl Searched {
    fn new(unknown: &[RunKey]) -> Self {
        let stores = Arc::new(Yielding::default());
        stores.open.lock().unwrap().extend_from_slice(unknown);
        stores.unknown.lock().unwrap().extend_from_slice(unknown);
        Self { shared: Shared::new(stores.clone(), stores.clone()), stores, began: Instant::now() }
    }

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
    assert!(searched.after(0).is_empty(), "each may be on its way");
    assert!(searched.after(1).is_empty());
    // The window hears of the first one, and the index forgets the second one, whose end is on record.
    searched.stores.unknown.lock().unwrap().retain(|run| *run != submitted_now);
    searched.stores.open.lock().unwrap().retain(|run| *run != closed_now);
    searched.stores.over.lock().unwrap().push(closed_now);
    assert_eq!(
        searched.after(2),
        [lost],
        "what is unknown two seconds later is lost, and does not wait for the next comparison"
    );
    assert!(searched.after(4).is_empty(), "once");
    // The first one ends in time for the next comparison.
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
    // Of another clock, of a key, and run again: nothing tells that they are old.
    let old = submitted(NOW_MS - 60_000, 0);
    let rest = [submitted(NOW_MS - 5_000, 0), submitted(NOW_MS + 3_600_000, 0), run(1), submitted(NOW_MS - 60_000, 1)];
    let searched = Searched::new(&[&rest[..], std::slice::from_ref(&old)].concat());
    let mut rest = rest.to_vec();
    rest.sort();
    assert_eq!(
        searched.after(0),
        std::slice::from_ref(&old),
        "a worker that starts does not know what was lost before"
    );
    assert_eq!(searched.after(2), rest);
    searched.stores.unknown.lock().unwrap().retain(|run| *run == old);
    assert!(searched.after(70).is_empty(), "nothing was lost: it may just end");
    assert_eq!(searched.after(72), std::slice::from_ref(&old));
    *searched.stores.epoch.lock().unwrap() = Some("another");
    assert_eq!(searched.after(73), std::slice::from_ref(&old));
}
