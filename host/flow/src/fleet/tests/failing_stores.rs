//! Claimed jobs while the stores fail where a test says so: each item gets its own reply, and a lease is forgotten as
//! soon as its job is no longer held.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dovetail_core::RunId;
use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::flat_combining::FlatCombiner;
use dovetail_core::keys::NodeId;
use dovetail_core::ledger::{
    Claimed, HeldStep, Kind, Lease, Ledger as _, Listing, Operation, Record, Renewal, Reply, RunKey, Scope, Wait,
};
use dovetail_core::meta::{MetaStore, Put};
use dovetail_core::sync::lock;
use dovetail_core::window::{
    Called, Change, Delivery, Notification, Stamp, Status, Window, WindowLease, WindowRenewal,
};

use crate::fleet::in_flight::{Following, RecordedRequest, Request, Slot};
use crate::fleet::records::{self, Forget, Holder, Repair, ToRecords};
use crate::fleet::work::{self, ToWindow};
use crate::fleet::{FleetLedger, NOT_CARRIED, Shared};

const LEASE: Duration = Duration::from_secs(60);
/// Much longer than any wait of these tests takes.
const LONG: Duration = Duration::from_secs(20);

/// Holds one call of the window: the call says that it has begun, and waits until the test lets it continue.
type Gate = (crossbeam_channel::Sender<()>, crossbeam_channel::Receiver<()>);

/// Records and a window whose answers the test sets.
#[derive(Default)]
struct ScriptedStores {
    records: Mutex<BTreeMap<(Kind, String), Vec<u8>>>,
    /// Keys whose insertion is refused.
    refused: Mutex<HashSet<String>>,
    /// Keys whose read fails, with the kind of the error.
    unreadable: Mutex<HashMap<String, StoreErrorKind>>,
    /// The number of `get` calls.
    reads: Mutex<usize>,
    /// The window's status for changes of these runs. The status for all other runs is `Ok`.
    statuses: Mutex<HashMap<RunKey, Status>>,
    /// Jobs that the window hands out.
    jobs: Mutex<Vec<Delivery>>,
    /// Whether each of the next calls fails.
    fails: Mutex<VecDeque<bool>>,
    /// Changes that the window has taken.
    changes: Mutex<Vec<Change>>,
    /// Tokens of the leases that the window was asked to renew.
    renewed: Mutex<Vec<String>>,
    /// Tokens of leases that the window answers with `Gone`.
    gone: Mutex<HashSet<String>>,
    gate: Mutex<Option<Gate>>,
}

fn failure(kind: StoreErrorKind) -> StoreError {
    StoreError::plain(kind, "do as the test says")
}

impl MetaStore for ScriptedStores {
    fn put(&self, records: &[Record]) -> Result<Vec<Put>, StoreError> {
        let refused = self.refused.lock().unwrap();
        if records.iter().any(|record| refused.contains(&record.key)) {
            return Err(failure(StoreErrorKind::Refused));
        }
        let mut known = self.records.lock().unwrap();
        let mut put = |record: &Record| {
            let place = (record.kind, record.key.clone());
            if let Some(first) = known.get(&place) {
                return Put::Exists(first.clone());
            }
            known.insert(place, record.value.clone());
            Put::Created
        };
        Ok(records.iter().map(&mut put).collect())
    }

    fn get(&self, kind: Kind, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        *self.reads.lock().unwrap() += 1;
        let unreadable = self.unreadable.lock().unwrap();
        if let Some(kind) = keys.iter().find_map(|key| unreadable.get(key)) {
            return Err(failure(*kind));
        }
        let known = self.records.lock().unwrap();
        Ok(keys.iter().map(|key| known.get(&(kind, key.clone())).cloned()).collect())
    }

    fn list(&self, _kind: Kind, _listing: &Listing) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        Ok(Vec::new())
    }

    fn open(&self, _runs: &[RunKey]) -> Result<(), StoreError> {
        Ok(())
    }

    fn forget(&self, _runs: &[RunKey]) -> Result<(), StoreError> {
        Ok(())
    }

    fn open_runs(&self, _limit: usize) -> Result<Vec<RunKey>, StoreError> {
        Ok(Vec::new())
    }
}

fn stamp() -> Stamp {
    Stamp { epoch: "epoch".into(), now: 0, refused: 0 }
}

impl ScriptedStores {
    fn status(&self, change: &Change) -> Status {
        let run = match change {
            Change::Finish { lease, .. } | Change::Back { lease, .. } => &lease.run,
            Change::Open { run, .. } | Change::Close { run } | Change::Cancel { run } => run,
            Change::Refused => return Status::Ok,
        };
        self.statuses.lock().unwrap().get(run).copied().unwrap_or(Status::Ok)
    }

    /// The tokens of the jobs that were given back.
    fn backs(&self) -> Vec<String> {
        let changes = self.changes.lock().unwrap();
        let token = |change: &Change| match change {
            Change::Back { lease, .. } => Some(lease.token.clone()),
            _ => None,
        };
        changes.iter().filter_map(token).collect()
    }
}

impl Window for ScriptedStores {
    fn peek(&self) -> Result<Stamp, StoreError> {
        Ok(stamp())
    }

    fn call(&self, changes: &[Change], _scope: &Scope, want: usize, _lease: Duration) -> Result<Called, StoreError> {
        if let Some((reached, go_on)) = self.gate.lock().unwrap().take() {
            reached.send(()).unwrap();
            go_on.recv_timeout(LONG).unwrap();
        }
        if self.fails.lock().unwrap().pop_front().unwrap_or(false) {
            return Err(failure(StoreErrorKind::Unavailable));
        }
        self.changes.lock().unwrap().extend_from_slice(changes);
        let mut jobs = self.jobs.lock().unwrap();
        let handed = want.min(jobs.len());
        Ok(Called {
            statuses: changes.iter().map(|change| self.status(change)).collect(),
            jobs: jobs.drain(..handed).collect(),
            next_ms: None,
            stamp: stamp(),
        })
    }

    fn renew(&self, leases: &[WindowLease], _lease: Duration) -> Result<Vec<WindowRenewal>, StoreError> {
        let gone = self.gone.lock().unwrap();
        self.renewed.lock().unwrap().extend(leases.iter().map(|lease| lease.token.clone()));
        Ok(leases
            .iter()
            .map(|l| if gone.contains(&l.token) { WindowRenewal::Gone } else { WindowRenewal::Renewed })
            .collect())
    }

    fn listen(&self, _ring: Box<dyn Fn(Notification) + Send + Sync>) {}

    fn knows(&self, runs: &[RunKey]) -> Result<Vec<bool>, StoreError> {
        Ok(vec![true; runs.len()])
    }

    fn held(&self, _run: &RunKey) -> Result<Vec<HeldStep>, StoreError> {
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
    RunKey { run: RunId::from_bytes([n; 16]), generation: 0 }
}

fn outcome(run: &RunKey, step: &(impl AsRef<str> + ?Sized)) -> Record {
    Record { kind: Kind::Outcome, key: run.step(step), value: b"value".to_vec() }
}

/// A job of run `n` that needs a value which the window does not carry.
fn delivery(n: u8) -> Delivery {
    let lease =
        WindowLease { run: run(n), step: NodeId::of_step("b"), token: format!("token of {n}"), epoch: "epoch".into() };
    let values = vec![(NodeId::of_step("a"), NOT_CARRIED.to_vec())];
    Delivery { lease, attempt: 3, crashes: 1, verify: n.is_multiple_of(2), envelope: b"run".to_vec(), values }
}

/// A ledger whose window hands out one job of each of these runs. The records have the value that each job needs.
fn ledger(runs: std::ops::Range<u8>) -> (FleetLedger, Arc<ScriptedStores>) {
    let stores = Arc::new(ScriptedStores::default());
    stores.put(&runs.clone().map(|n| outcome(&run(n), "a")).collect::<Vec<_>>()).unwrap();
    stores.jobs.lock().unwrap().extend(runs.map(delivery));
    (FleetLedger::new(stores.clone(), stores.clone()).unwrap(), stores)
}

fn claim(ledger: &FleetLedger) -> Result<Vec<Claimed>, StoreError> {
    ledger.claim(&Scope::All, 99, LEASE, Wait::NONE)
}

fn finish(lease: &Lease, close: bool) -> Operation {
    let close = close.then(|| Record { kind: Kind::RunOutcome, key: lease.run.key(), value: Vec::new() });
    Operation::Finish {
        lease: lease.clone(),
        record: outcome(&lease.run, &lease.step),
        succeeded: true,
        close,
        children: vec![],
    }
}

fn held(ledger: &FleetLedger) -> usize {
    lock(&ledger.shared.leases).len()
}

fn only(ledger: &FleetLedger, item: Operation) -> Reply {
    ledger.commit(&[item]).unwrap().remove(0)
}

#[test]
fn a_lease_is_not_renewed_while_its_job_is_given_back() {
    let (ledger, stores) = ledger(1..3);
    let leases: Vec<Lease> = claim(&ledger).unwrap().into_iter().map(|claimed| claimed.lease).collect();
    let asked = || {
        let answers = ledger.renew(&leases, LEASE).unwrap();
        (answers, std::mem::take(&mut *stores.renewed.lock().unwrap()))
    };
    let both = ["token of 1".to_owned(), "token of 2".to_owned()];
    assert_eq!(asked(), (vec![Renewal::Renewed; 2], both.to_vec()));
    for fails in [true, false] {
        let (reached, wait) = crossbeam_channel::bounded(1);
        let (go_on, gate) = crossbeam_channel::bounded(1);
        *stores.gate.lock().unwrap() = Some((reached, gate));
        stores.fails.lock().unwrap().push_back(fails);
        std::thread::scope(|threads| {
            let item = Operation::Release { lease: leases[0].clone(), delay: LEASE };
            let giving = threads.spawn(|| ledger.commit(&[item]));
            wait.recv_timeout(LONG).unwrap();
            assert_eq!(asked(), (vec![Renewal::Renewed; 2], both[1..].to_vec()), "the release is on its way");
            go_on.send(()).unwrap();
            assert_eq!(giving.join().unwrap().is_err(), fails);
        });
        let kept = if fails { both.to_vec() } else { both[1..].to_vec() };
        let first = if fails { Renewal::Renewed } else { Renewal::Lost };
        assert_eq!(
            asked(),
            (vec![first, Renewal::Renewed], kept),
            "a release that is sent again keeps its lease until then"
        );
    }
}

#[test]
fn a_lease_that_is_not_held_here_is_not_asked_for() {
    let (ledger, stores) = ledger(1..2);
    let lease = claim(&ledger).unwrap().remove(0).lease;
    assert_eq!(only(&ledger, Operation::Release { lease: lease.clone(), delay: LEASE }), Reply::Created);
    let unknown = Lease { token: 4711, ..lease.clone() };
    assert_eq!(ledger.renew(&[lease, unknown], LEASE).unwrap(), [Renewal::Lost, Renewal::Lost]);
    assert!(
        stores.renewed.lock().unwrap().is_empty(),
        "a renewal without a token could take the job again although no worker runs it"
    );
}

fn submit(n: u8) -> Slot {
    let repair = Repair { run: run(n), jobs: Vec::new(), steps: Vec::new().into() };
    let (stamp, envelope) = (stamp(), Vec::new());
    let change = Change::Open { run: run(n), stamp, verify: false, envelope, steps: 1, done: vec![], jobs: vec![] };
    Slot::Ask(change, Following::Submitted(repair))
}

fn finished(n: u8, lease: u64) -> Slot {
    let change = Change::Finish { lease: delivery(n).lease, succeeded: true, value: Vec::new(), children: Vec::new() };
    Slot::Ask(change, Following::Finished { lease })
}

/// The replies of requests that share a round trip.
fn replies(
    stores: &Arc<ScriptedStores>,
    shared: &Shared,
    requests: Vec<Vec<Slot>>,
) -> Vec<Result<Vec<Reply>, StoreErrorKind>> {
    let (combiner, _leave) = FlatCombiner::new(());
    let (to_records, _forget) = crossbeam_channel::unbounded();
    let (sender, receiver) = crossbeam_channel::unbounded();
    let recorded = |(at, slots)| {
        let sender = sender.clone();
        RecordedRequest { slots, then: Box::new(move |replies| sender.send((at, replies)).unwrap()) }
    };
    let requests = requests.into_iter().enumerate().map(recorded).collect();
    work::call_with_others(shared, &combiner.lock(), ToWindow::Changes(requests), &to_records);
    drop(sender);
    let mut answers: Vec<(usize, Result<Vec<Reply>, StoreError>)> = receiver.iter().collect();
    answers.sort_by_key(|(at, _)| *at);
    assert!(stores.changes.lock().unwrap().len() > 1, "the requests share a call");
    answers.into_iter().map(|(_, replies)| replies.map_err(|error| error.kind)).collect()
}

/// One of three submissions is refused as stale, and its rebuild fails because its record cannot be read.
#[test]
fn an_item_that_fails_takes_no_answer_of_another_one() {
    for bad in 1..=3 {
        let stores = Arc::new(ScriptedStores::default());
        let shared = Shared::new(stores.clone(), stores.clone());
        stores.statuses.lock().unwrap().extend([
            (run(bad), Status::Stale),
            (run(4), Status::Lost),
            (run(5), Status::Complete),
            (run(6), Status::Cancelled),
            (run(7), Status::NotOwner),
        ]);
        stores.unreadable.lock().unwrap().insert(run(bad).run.to_string(), StoreErrorKind::Corrupt);
        let first = lock(&shared.leases).add(delivery(4).lease, 1, false).token;
        let requests = vec![
            vec![submit(1), submit(2), submit(3), finished(4, first)],
            vec![finished(5, 71), Slot::Done(Reply::Exists(vec![7])), finished(6, 72)],
            vec![finished(7, 73)],
        ];
        let replies = replies(&stores, &shared, requests);
        assert_eq!(replies[0], Err(StoreErrorKind::Corrupt), "number {bad}");
        assert_eq!(replies[1], Ok(vec![Reply::Complete, Reply::Exists(vec![7]), Reply::Cancelled]), "number {bad}");
        assert_eq!(replies[2], Ok(vec![Reply::NotOwner]), "number {bad}");
        assert_eq!(lock(&shared.leases).len(), 0, "every item's answer takes effect");
    }
}

#[test]
fn what_the_records_do_not_take_fails_its_own_request_alone() {
    for bad in 1..=3 {
        let stores = Arc::new(ScriptedStores::default());
        let shared = Shared::new(stores.clone(), stores.clone());
        stores.put(&[outcome(&run(2), "twice")]).unwrap();
        stores.refused.lock().unwrap().insert(run(bad).step("b"));
        let (combiner, leave) = FlatCombiner::new(Forget::default());
        let (sender, receiver) = crossbeam_channel::unbounded();
        let mut requests: Vec<ToRecords> = (1..=3)
            .map(|n| {
                let sender = sender.clone();
                let put = |step: &str| Operation::Put { record: outcome(&run(n), step) };
                let items = vec![put("a"), put("twice"), put("b")];
                ToRecords::Commit(Request { items, then: Box::new(move |replies| sender.send((n, replies)).unwrap()) })
            })
            .collect();
        let last = requests.pop();
        requests.into_iter().for_each(|request| leave.send(request).unwrap());
        let recorded = records::write_with_others(&shared, combiner.lock(), last, &Holder::Thread).unwrap();
        let (window, _leave) = FlatCombiner::new(());
        let (to_records, _forget) = crossbeam_channel::unbounded();
        work::call_with_others(&shared, &window.lock(), ToWindow::Changes(recorded), &to_records);
        drop(sender);
        let answers: BTreeMap<u8, Result<Vec<Reply>, StoreError>> = receiver.iter().collect();
        for n in 1..=3 {
            let twice = if n == 2 { Reply::Exists(b"value".to_vec()) } else { Reply::Created };
            let wanted = Ok(vec![Reply::Created, twice, Reply::Created]);
            let got = answers[&n].as_ref().map_err(|error| error.kind).cloned();
            assert_eq!(got, if n == bad { Err(StoreErrorKind::Refused) } else { wanted }, "request {n}, bad {bad}");
        }
    }
}

#[test]
fn a_job_whose_value_cannot_be_read_is_given_back_uncharged_and_the_others_are_handed_out() {
    for kind in [StoreErrorKind::Unavailable, StoreErrorKind::Corrupt] {
        for bad in 1..=4 {
            let (ledger, stores) = ledger(1..5);
            // The last job needs no value from the records.
            stores.jobs.lock().unwrap()[3].values.clear();
            stores.unreadable.lock().unwrap().insert(run(bad).step("a"), kind);
            let runs: Vec<RunKey> = claim(&ledger).unwrap().into_iter().map(|claimed| claimed.lease.run).collect();
            // If the records do not answer, the values of the following jobs are not asked for.
            let back = |n: u8| n == bad || kind == StoreErrorKind::Unavailable && n > bad;
            let is_back = |n: &u8| *n < 4 && back(*n);
            assert_eq!(runs, (1..5).filter(|n| !is_back(n)).map(run).collect::<Vec<_>>(), "{kind:?}, {bad}");
            let wanted: Vec<u8> = (1..5).filter(is_back).collect();
            let changes = stores.changes.lock().unwrap();
            assert_eq!(changes.len(), wanted.len());
            for (change, n) in changes.iter().zip(wanted) {
                let Change::Back { lease, attempt, verify, delay } = change else { panic!("{change:?}") };
                let job = delivery(n);
                assert_eq!((lease, *attempt, *verify), (&job.lease, job.attempt, job.verify), "unchanged");
                assert!(*delay > Duration::ZERO, "the same worker does not claim the job again at once");
            }
            assert_eq!(held(&ledger), runs.len());
        }
    }
}

#[test]
fn a_claim_of_which_nothing_can_be_read_says_why_and_leaves_nothing_leased() {
    let (ledger, stores) = ledger(1..4);
    stores.unreadable.lock().unwrap().extend((1..4).map(|n| (run(n).step("a"), StoreErrorKind::Unavailable)));
    assert_eq!(claim(&ledger).unwrap_err().kind, StoreErrorKind::Unavailable);
    assert_eq!(stores.backs(), ["token of 1", "token of 2", "token of 3"]);
    assert_eq!((held(&ledger), *stores.reads.lock().unwrap()), (0, 1), "the following reads would fail too");
}

#[test]
fn what_could_not_be_given_back_is_given_back_before_the_next_claim_or_at_the_end() {
    for ends in [false, true] {
        let (ledger, stores) = ledger(1..3);
        stores.unreadable.lock().unwrap().insert(run(1).step("a"), StoreErrorKind::Corrupt);
        // The window answers the claim; the next two calls fail.
        stores.fails.lock().unwrap().extend([false, true, true]);
        assert_eq!(claim(&ledger).unwrap().len(), 1, "the job that could be read is handed out");
        stores.jobs.lock().unwrap().push(delivery(3));
        stores.put(&[outcome(&run(3), "a")]).unwrap();
        assert_eq!(
            claim(&ledger).unwrap_err().kind,
            StoreErrorKind::Unavailable,
            "no job is claimed before the release"
        );
        assert_eq!((stores.backs().len(), stores.jobs.lock().unwrap().len()), (0, 1));
        if ends {
            drop(ledger);
        } else {
            assert_eq!(claim(&ledger).unwrap().len(), 1);
            assert_eq!(claim(&ledger).unwrap().len(), 0);
        }
        assert_eq!(stores.backs(), ["token of 1"], "exactly once");
    }
}

/// The test holds the records' combiner, as a thread that gets no answer from the records would.
#[test]
fn a_job_is_given_back_whatever_the_records_do() {
    let (ledger, stores) = ledger(1..3);
    let leases: Vec<Lease> = claim(&ledger).unwrap().into_iter().map(|claimed| claimed.lease).collect();
    let released = |at: usize| vec![Operation::Release { lease: leases[at].clone(), delay: Duration::ZERO }];
    let (combiner, ledger) = (ledger.in_flight.records_combiner(), Arc::new(ledger));
    let guard = combiner.lock();
    let (sender, receiver) = crossbeam_channel::unbounded();
    let (first, first_sender, committing) = (released(0), sender.clone(), ledger.clone());
    // If the thread waited for the records, it would end with this test.
    let thread = std::thread::spawn(move || first_sender.send(committing.commit(&first).unwrap()).unwrap());
    assert_eq!(receiver.recv_timeout(LONG).unwrap(), [Reply::Created]);
    ledger.commit_then(released(1), Box::new(move |replies| sender.send(replies.unwrap()).unwrap()));
    assert_eq!(receiver.recv_timeout(LONG).unwrap(), [Reply::Created]);
    drop(guard);
    thread.join().unwrap();
    assert_eq!(stores.backs(), ["token of 1", "token of 2"]);
}

/// The last thing that a worker does with a claimed job.
type LastAction = fn(&FleetLedger, &ScriptedStores, &Lease);

#[test]
fn no_lease_is_remembered_when_its_job_is_done_with() {
    const JOBS: u8 = 200;
    let ways: &[(&str, LastAction)] = &[
        ("ended", |ledger, _, lease| assert_eq!(only(ledger, finish(lease, false)), Reply::Created)),
        ("ended, and the run with the step", |ledger, _, lease| {
            assert_eq!(only(ledger, finish(lease, true)), Reply::Created);
        }),
        ("ended as the last step", |ledger, stores, lease| {
            stores.statuses.lock().unwrap().insert(lease.run.clone(), Status::Last);
            assert_eq!(only(ledger, finish(lease, false)), Reply::Last);
        }),
        ("ended by another worker before", |ledger, stores, lease| {
            stores.put(&[outcome(&lease.run, &lease.step)]).unwrap();
            assert!(matches!(only(ledger, finish(lease, true)), Reply::Exists(_)));
        }),
        ("of a run that is over", |ledger, stores, lease| {
            stores.statuses.lock().unwrap().insert(lease.run.clone(), Status::Closed);
            assert_eq!(only(ledger, finish(lease, false)), Reply::Closed);
        }),
        ("given back", |ledger, _, lease| {
            assert_eq!(only(ledger, Operation::Release { lease: lease.clone(), delay: LEASE }), Reply::Created);
        }),
        ("given back after it passed to another worker", |ledger, stores, lease| {
            stores.statuses.lock().unwrap().insert(lease.run.clone(), Status::NotOwner);
            assert_eq!(only(ledger, Operation::Release { lease: lease.clone(), delay: LEASE }), Reply::NotOwner);
        }),
        ("tried again", |ledger, _, lease| {
            let record = Record { kind: Kind::Attempt, key: lease.run.attempt("b", 4), value: Vec::new() };
            assert_eq!(only(ledger, Operation::Retry { lease: lease.clone(), record, delay: LEASE }), Reply::Created);
        }),
        ("lost", |ledger, stores, lease| {
            stores.gone.lock().unwrap().extend((1..=JOBS).map(|n| delivery(n).lease.token));
            assert_eq!(ledger.renew(std::slice::from_ref(lease), LEASE).unwrap(), [Renewal::Lost]);
        }),
        ("let go", |ledger, _, lease| ledger.let_go(lease)),
    ];
    for (way, action) in ways {
        let (ledger, stores) = ledger(1..JOBS + 1);
        let claimed = ledger.claim(&Scope::All, JOBS.into(), LEASE, Wait::NONE).unwrap();
        assert_eq!((claimed.len(), held(&ledger)), (JOBS.into(), JOBS.into()));
        for claimed in &claimed {
            action(&ledger, &stores, &claimed.lease);
        }
        assert_eq!(held(&ledger), 0, "{way}");
    }
}
