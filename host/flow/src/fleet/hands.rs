//! What comes of jobs in a worker's hands, with stores that fail where a test says so: each item gets its own reply,
//! and no lease is remembered for longer than its job is held.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dovetail_core::RunId;
use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::flat_combining::FlatCombiner;
use dovetail_core::keys::NodeId;
use dovetail_core::ledger::{
    Claimed, HeldStep, Item, Kind, Lease, Ledger as _, Listing, Record, Renewal, Reply, RunKey, Scope, Wait,
};
use dovetail_core::meta::{MetaStore, Put};
use dovetail_core::window::{Called, Change, Delivery, Held, Ring, Stamp, Status, Window, WindowLease};

use super::records::{self, Forget, Repair, Request, Role, ToRecords};
use super::work::{self, Following, InFlight, Slot, ToWindow};
use super::{FleetLedger, NOT_CARRIED, Shared, locked};

const LEASE: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(20);

/// One call of the window that waits until it is let go on.
type Gate = (crossbeam_channel::Sender<()>, crossbeam_channel::Receiver<()>);

/// Records and a window that do as they are told.
#[derive(Default)]
struct Stand {
    records: Mutex<BTreeMap<(Kind, String), Vec<u8>>>,
    /// Keys that are not taken, and those that cannot be read.
    refused: Mutex<HashSet<String>>,
    unreadable: Mutex<HashMap<String, StoreErrorKind>>,
    /// How often records were asked for.
    reads: Mutex<usize>,
    /// What the window answers to a change of this run; `Ok` to any other.
    statuses: Mutex<HashMap<RunKey, Status>>,
    /// What it hands out, and whether each next call fails.
    jobs: Mutex<Vec<Delivery>>,
    fails: Mutex<VecDeque<bool>>,
    told: Mutex<Vec<Change>>,
    renewed: Mutex<Vec<String>>,
    gone: Mutex<HashSet<String>>,
    gate: Mutex<Option<Gate>>,
}

fn failure(kind: StoreErrorKind) -> StoreError {
    StoreError::plain(kind, "do as the test says")
}

impl MetaStore for Stand {
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

impl Stand {
    fn status(&self, change: &Change) -> Status {
        let run = match change {
            Change::Finish { lease, .. } | Change::Back { lease, .. } => &lease.run,
            Change::Open { run, .. } | Change::Close { run } | Change::Cancel { run } => run,
            Change::Refused => return Status::Ok,
        };
        self.statuses.lock().unwrap().get(run).copied().unwrap_or(Status::Ok)
    }

    /// Jobs that were given back: their tokens.
    fn backs(&self) -> Vec<String> {
        let told = self.told.lock().unwrap();
        let token = |change: &Change| match change {
            Change::Back { lease, .. } => Some(lease.token.clone()),
            _ => None,
        };
        told.iter().filter_map(token).collect()
    }
}

impl Window for Stand {
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
        self.told.lock().unwrap().extend_from_slice(changes);
        let mut jobs = self.jobs.lock().unwrap();
        let handed = want.min(jobs.len());
        Ok(Called {
            statuses: changes.iter().map(|change| self.status(change)).collect(),
            jobs: jobs.drain(..handed).collect(),
            next_ms: None,
            stamp: stamp(),
        })
    }

    fn renew(&self, leases: &[WindowLease], _lease: Duration) -> Result<Vec<Held>, StoreError> {
        let gone = self.gone.lock().unwrap();
        self.renewed.lock().unwrap().extend(leases.iter().map(|lease| lease.token.clone()));
        Ok(leases.iter().map(|l| if gone.contains(&l.token) { Held::Gone } else { Held::Renewed }).collect())
    }

    fn listen(&self, _ring: Box<dyn Fn(Ring) + Send + Sync>) {}

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

/// A job of run `n`, with a value that stands in the records.
fn delivery(n: u8) -> Delivery {
    let lease =
        WindowLease { run: run(n), step: NodeId::of_step("b"), token: format!("token of {n}"), epoch: "epoch".into() };
    let values = vec![(NodeId::of_step("a"), NOT_CARRIED.to_vec())];
    Delivery { lease, attempt: 3, crashes: 1, verify: n.is_multiple_of(2), envelope: b"run".to_vec(), values }
}

/// A ledger whose window hands out jobs of these runs, and the value that each needs.
fn ledger(runs: std::ops::Range<u8>) -> (FleetLedger, Arc<Stand>) {
    let stand = Arc::new(Stand::default());
    stand.put(&runs.clone().map(|n| outcome(&run(n), "a")).collect::<Vec<_>>()).unwrap();
    stand.jobs.lock().unwrap().extend(runs.map(delivery));
    (FleetLedger::new(stand.clone(), stand.clone()).unwrap(), stand)
}

fn claim(ledger: &FleetLedger) -> Result<Vec<Claimed>, StoreError> {
    ledger.claim(&Scope::All, 99, LEASE, Wait::NONE)
}

fn finish(lease: &Lease, close: bool) -> Item {
    let close = close.then(|| Record { kind: Kind::RunOutcome, key: lease.run.key(), value: Vec::new() });
    Item::Finish {
        lease: lease.clone(),
        record: outcome(&lease.run, &lease.step),
        succeeded: true,
        close,
        children: vec![],
    }
}

fn held(ledger: &FleetLedger) -> usize {
    locked(&ledger.shared.leases).len()
}

fn only(ledger: &FleetLedger, item: Item) -> Reply {
    ledger.commit(&[item]).unwrap().remove(0)
}

#[test]
fn a_lease_is_not_renewed_while_its_job_is_given_back() {
    let (ledger, stand) = ledger(1..3);
    let leases: Vec<Lease> = claim(&ledger).unwrap().into_iter().map(|claimed| claimed.lease).collect();
    let asked = || {
        let answers = ledger.renew(&leases, LEASE).unwrap();
        (answers, std::mem::take(&mut *stand.renewed.lock().unwrap()))
    };
    let both = ["token of 1".to_owned(), "token of 2".to_owned()];
    assert_eq!(asked(), (vec![Renewal::Renewed; 2], both.to_vec()));
    for fails in [true, false] {
        let (reached, wait) = crossbeam_channel::bounded(1);
        let (go_on, gate) = crossbeam_channel::bounded(1);
        *stand.gate.lock().unwrap() = Some((reached, gate));
        stand.fails.lock().unwrap().push_back(fails);
        std::thread::scope(|threads| {
            let item = Item::Release { lease: leases[0].clone(), delay: LEASE };
            let giving = threads.spawn(|| ledger.commit(&[item]));
            wait.recv_timeout(LONG).unwrap();
            assert_eq!(asked(), (vec![Renewal::Renewed; 2], both[1..].to_vec()), "it is on its way");
            go_on.send(()).unwrap();
            assert_eq!(giving.join().unwrap().is_err(), fails);
        });
        let kept = if fails { both.to_vec() } else { both[1..].to_vec() };
        let first = if fails { Renewal::Renewed } else { Renewal::Lost };
        assert_eq!(asked(), (vec![first, Renewal::Renewed], kept), "what is sent again is kept until then");
    }
}

#[test]
fn a_lease_that_is_not_held_here_is_not_asked_for() {
    let (ledger, stand) = ledger(1..2);
    let lease = claim(&ledger).unwrap().remove(0).lease;
    assert_eq!(only(&ledger, Item::Release { lease: lease.clone(), delay: LEASE }), Reply::Created);
    let unknown = Lease { token: 4711, ..lease.clone() };
    assert_eq!(ledger.renew(&[lease, unknown], LEASE).unwrap(), [Renewal::Lost, Renewal::Lost]);
    assert!(stand.renewed.lock().unwrap().is_empty(), "without a token it could take the job again, for nobody");
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
fn told(stand: &Arc<Stand>, shared: &Shared, requests: Vec<Vec<Slot>>) -> Vec<Result<Vec<Reply>, StoreErrorKind>> {
    let (desk, _leave) = FlatCombiner::new(());
    let (to_records, _forget) = crossbeam_channel::unbounded();
    let (tell, heard) = crossbeam_channel::unbounded();
    let flight = |(at, slots)| {
        let tell = tell.clone();
        InFlight { slots, then: Box::new(move |replies| tell.send((at, replies)).unwrap()) }
    };
    let flying = requests.into_iter().enumerate().map(flight).collect();
    work::tell_with_others(shared, &desk.sit(), ToWindow::Changes(flying), &to_records);
    drop(tell);
    let mut answers: Vec<(usize, Result<Vec<Reply>, StoreError>)> = heard.iter().collect();
    answers.sort_by_key(|(at, _)| *at);
    assert!(stand.told.lock().unwrap().len() > 1, "they share a call");
    answers.into_iter().map(|(_, replies)| replies.map_err(|error| error.kind)).collect()
}

/// One of three submissions is refused as stale and cannot be put right, because its record cannot be read.
#[test]
fn an_item_that_fails_takes_no_answer_of_another_one() {
    for bad in 1..=3 {
        let stand = Arc::new(Stand::default());
        let shared = Shared::new(stand.clone(), stand.clone());
        stand.statuses.lock().unwrap().extend([
            (run(bad), Status::Stale),
            (run(4), Status::Lost),
            (run(5), Status::Complete),
            (run(6), Status::Cancelled),
            (run(7), Status::NotOwner),
        ]);
        stand.unreadable.lock().unwrap().insert(run(bad).run.to_string(), StoreErrorKind::Corrupt);
        let first = locked(&shared.leases).add(delivery(4).lease, 1, false).token;
        let requests = vec![
            vec![submit(1), submit(2), submit(3), finished(4, first)],
            vec![finished(5, 71), Slot::Done(Reply::Exists(vec![7])), finished(6, 72)],
            vec![finished(7, 73)],
        ];
        let replies = told(&stand, &shared, requests);
        assert_eq!(replies[0], Err(StoreErrorKind::Corrupt), "number {bad}");
        assert_eq!(replies[1], Ok(vec![Reply::Complete, Reply::Exists(vec![7]), Reply::Cancelled]), "number {bad}");
        assert_eq!(replies[2], Ok(vec![Reply::NotOwner]), "number {bad}");
        assert_eq!(locked(&shared.leases).len(), 0, "what follows from an answer follows for every item");
    }
}

#[test]
fn what_the_records_do_not_take_fails_its_own_request_alone() {
    for bad in 1..=3 {
        let stand = Arc::new(Stand::default());
        let shared = Shared::new(stand.clone(), stand.clone());
        stand.put(&[outcome(&run(2), "twice")]).unwrap();
        stand.refused.lock().unwrap().insert(run(bad).step("b"));
        let (desk, leave) = FlatCombiner::new(Forget::default());
        let (tell, heard) = crossbeam_channel::unbounded();
        let mut requests: Vec<ToRecords> = (1..=3)
            .map(|n| {
                let tell = tell.clone();
                let put = |step: &str| Item::Put { record: outcome(&run(n), step) };
                let items = vec![put("a"), put("twice"), put("b")];
                ToRecords::Commit(Request { items, then: Box::new(move |replies| tell.send((n, replies)).unwrap()) })
            })
            .collect();
        let last = requests.pop();
        requests.into_iter().for_each(|request| leave.send(request).unwrap());
        let flying = records::write_with_others(&shared, desk.sit(), last, &Role::Thread).unwrap();
        let (work, _leave) = FlatCombiner::new(());
        let (to_records, _forget) = crossbeam_channel::unbounded();
        work::tell_with_others(&shared, &work.sit(), ToWindow::Changes(flying), &to_records);
        drop(tell);
        let answers: BTreeMap<u8, Result<Vec<Reply>, StoreError>> = heard.iter().collect();
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
            let (ledger, stand) = ledger(1..5);
            // The last one needs nothing that is not carried.
            stand.jobs.lock().unwrap()[3].values.clear();
            stand.unreadable.lock().unwrap().insert(run(bad).step("a"), kind);
            let runs: Vec<RunKey> = claim(&ledger).unwrap().into_iter().map(|claimed| claimed.lease.run).collect();
            // Where the records do not answer, the next ones are not asked for in vain.
            let back = |n: u8| n == bad || kind == StoreErrorKind::Unavailable && n > bad;
            let is_back = |n: &u8| *n < 4 && back(*n);
            assert_eq!(runs, (1..5).filter(|n| !is_back(n)).map(run).collect::<Vec<_>>(), "{kind:?}, {bad}");
            let wanted: Vec<u8> = (1..5).filter(is_back).collect();
            let told = stand.told.lock().unwrap();
            assert_eq!(told.len(), wanted.len());
            for (change, n) in told.iter().zip(wanted) {
                let Change::Back { lease, attempt, verify, delay } = change else { panic!("{change:?}") };
                let job = delivery(n);
                assert_eq!((lease, *attempt, *verify), (&job.lease, job.attempt, job.verify), "as it was");
                assert!(*delay > Duration::ZERO, "it is not claimed at once again by the same worker");
            }
            assert_eq!(held(&ledger), runs.len());
        }
    }
}

#[test]
fn a_claim_of_which_nothing_can_be_read_says_why_and_leaves_nothing_leased() {
    let (ledger, stand) = ledger(1..4);
    stand.unreadable.lock().unwrap().extend((1..4).map(|n| (run(n).step("a"), StoreErrorKind::Unavailable)));
    assert_eq!(claim(&ledger).unwrap_err().kind, StoreErrorKind::Unavailable);
    assert_eq!(stand.backs(), ["token of 1", "token of 2", "token of 3"]);
    assert_eq!((held(&ledger), *stand.reads.lock().unwrap()), (0, 1), "the next ones would not be answered either");
}

#[test]
fn what_could_not_be_given_back_is_given_back_before_the_next_claim_or_at_the_end() {
    for ends in [false, true] {
        let (ledger, stand) = ledger(1..3);
        stand.unreadable.lock().unwrap().insert(run(1).step("a"), StoreErrorKind::Corrupt);
        // The claim is answered; then the window is silent for two calls.
        stand.fails.lock().unwrap().extend([false, true, true]);
        assert_eq!(claim(&ledger).unwrap().len(), 1, "what could be read is not lost");
        stand.jobs.lock().unwrap().push(delivery(3));
        stand.put(&[outcome(&run(3), "a")]).unwrap();
        assert_eq!(claim(&ledger).unwrap_err().kind, StoreErrorKind::Unavailable, "nothing more is claimed before");
        assert_eq!((stand.backs().len(), stand.jobs.lock().unwrap().len()), (0, 1));
        if ends {
            drop(ledger);
        } else {
            assert_eq!(claim(&ledger).unwrap().len(), 1);
            assert_eq!(claim(&ledger).unwrap().len(), 0);
        }
        assert_eq!(stand.backs(), ["token of 1"], "once");
    }
}

/// Somebody sits at the desk of the records, and gets no answer.
#[test]
fn a_job_is_given_back_whatever_the_records_do() {
    let (ledger, stand) = ledger(1..3);
    let leases: Vec<Lease> = claim(&ledger).unwrap().into_iter().map(|claimed| claimed.lease).collect();
    let released = |at: usize| vec![Item::Release { lease: leases[at].clone(), delay: Duration::ZERO }];
    let (desk, ledger) = (ledger.desks.as_ref().unwrap().records.clone(), Arc::new(ledger));
    let seat = desk.sit();
    let (tell, heard) = crossbeam_channel::unbounded();
    let (first, told, here) = (released(0), tell.clone(), ledger.clone());
    // Where it waits for the records, it ends with this test.
    let waits = std::thread::spawn(move || told.send(here.commit(&first).unwrap()).unwrap());
    assert_eq!(heard.recv_timeout(LONG).unwrap(), [Reply::Created]);
    ledger.commit_then(released(1), Box::new(move |replies| tell.send(replies.unwrap()).unwrap()));
    assert_eq!(heard.recv_timeout(LONG).unwrap(), [Reply::Created]);
    drop(seat);
    waits.join().unwrap();
    assert_eq!(stand.backs(), ["token of 1", "token of 2"]);
}

/// What a worker does with a job, and then nothing more.
type Does = fn(&FleetLedger, &Stand, &Lease);

#[test]
fn no_lease_is_remembered_when_its_job_is_done_with() {
    const JOBS: u8 = 200;
    let ways: &[(&str, Does)] = &[
        ("ended", |ledger, _, lease| assert_eq!(only(ledger, finish(lease, false)), Reply::Created)),
        ("ended, and its run with it", |ledger, _, lease| {
            assert_eq!(only(ledger, finish(lease, true)), Reply::Created);
        }),
        ("ended as the last one", |ledger, stand, lease| {
            stand.statuses.lock().unwrap().insert(lease.run.clone(), Status::Last);
            assert_eq!(only(ledger, finish(lease, false)), Reply::Last);
        }),
        ("ended by another before", |ledger, stand, lease| {
            stand.put(&[outcome(&lease.run, &lease.step)]).unwrap();
            assert!(matches!(only(ledger, finish(lease, true)), Reply::Exists(_)));
        }),
        ("of a run that is over", |ledger, stand, lease| {
            stand.statuses.lock().unwrap().insert(lease.run.clone(), Status::Closed);
            assert_eq!(only(ledger, finish(lease, false)), Reply::Closed);
        }),
        ("given back", |ledger, _, lease| {
            assert_eq!(only(ledger, Item::Release { lease: lease.clone(), delay: LEASE }), Reply::Created);
        }),
        ("given back, and another's by then", |ledger, stand, lease| {
            stand.statuses.lock().unwrap().insert(lease.run.clone(), Status::NotOwner);
            assert_eq!(only(ledger, Item::Release { lease: lease.clone(), delay: LEASE }), Reply::NotOwner);
        }),
        ("tried again", |ledger, _, lease| {
            let record = Record { kind: Kind::Attempt, key: lease.run.attempt("b", 4), value: Vec::new() };
            assert_eq!(only(ledger, Item::Retry { lease: lease.clone(), record, delay: LEASE }), Reply::Created);
        }),
        ("lost", |ledger, stand, lease| {
            stand.gone.lock().unwrap().extend((1..=JOBS).map(|n| delivery(n).lease.token));
            assert_eq!(ledger.renew(std::slice::from_ref(lease), LEASE).unwrap(), [Renewal::Lost]);
        }),
        ("let go", |ledger, _, lease| ledger.let_go(lease)),
    ];
    for (way, does) in ways {
        let (ledger, stand) = ledger(1..JOBS + 1);
        let claimed = ledger.claim(&Scope::All, JOBS.into(), LEASE, Wait::NONE).unwrap();
        assert_eq!((claimed.len(), held(&ledger)), (JOBS.into(), JOBS.into()));
        for claimed in &claimed {
            does(&ledger, &stand, &claimed.lease);
        }
        assert_eq!(held(&ledger), 0, "{way}");
    }
}
