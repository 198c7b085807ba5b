//! Each transition of a job in hand, and a drop in each state. The tests check the calls of the ledger, and the counts,
//! which are zero at the end of every path.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use dovetail_core::blobs::StoreError;
use dovetail_core::keys::NodeId;
use dovetail_core::ledger::{Job, Kind, Ledger, Record, Reply, Requirements, RunKey, Scope, Wait};
use dovetail_core::memory::{ManualClock, MemoryLedger};
use dovetail_core::sync::lock;

use super::*;
use crate::worker::{Event, Listener};

const LEASE: Duration = Duration::from_secs(10);

/// A ledger in memory that records the tokens of the leases that were released and let go.
struct Recorder {
    inner: MemoryLedger,
    released: Mutex<Vec<u64>>,
    let_go: Mutex<Vec<u64>>,
}

impl Ledger for Recorder {
    dovetail_core::forward_ledger!(inner: claim renew get list open_runs held over beat workers wake wakes);

    fn commit(&self, items: &[Operation]) -> Result<Vec<Reply>, StoreError> {
        let tokens = items.iter().filter_map(|item| match item {
            Operation::Release { lease, .. } => Some(lease.token),
            _ => None,
        });
        lock(&self.released).extend(tokens);
        self.inner.commit(items)
    }

    fn let_go(&self, lease: &Lease) {
        lock(&self.let_go).push(lease.token);
    }
}

struct Bench {
    clock: Arc<ManualClock>,
    ledger: Arc<Recorder>,
    jobs: Arc<JobsInHand>,
    shutdown: Shutdown,
    events: Arc<Mutex<Vec<String>>>,
}

impl Bench {
    /// A ledger with one run that has one job.
    fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        let inner = MemoryLedger::new(clock.clone());
        let ledger = Arc::new(Recorder { inner, released: Mutex::default(), let_go: Mutex::default() });
        let run = RunKey { run: crate::new_run_id(), generation: 0 };
        let record = Record { kind: Kind::Run, key: run.run.to_string(), value: b"{}".to_vec() };
        let job =
            Job { step: NodeId::of_step("a"), needs: Vec::new(), attempt: 1, requirements: Requirements::default() };
        ledger
            .commit(&[Operation::Submit { run, record, jobs: vec![job], steps: Arc::new([NodeId::of_step("a")]) }])
            .unwrap();
        let events = Arc::new(Mutex::new(Vec::new()));
        let listener: Listener = Arc::new({
            let events = events.clone();
            move |event: &Event| lock(&events).push(format!("{event:?}"))
        });
        let jobs = Arc::new(JobsInHand::new(ledger.clone(), 2, Some(listener)));
        Self { clock, ledger, jobs, shutdown: Shutdown::default(), events }
    }

    fn claim(&self) -> JobInHand<Claimed> {
        let claimed = self.ledger.claim(&Scope::All, 1, LEASE, Wait::NONE).unwrap();
        self.jobs.take(claimed, &self.shutdown).pop().expect("the job is ready")
    }

    fn start(&self) -> JobInHand<Started> {
        self.claim().start()
    }

    /// A job whose change is to be committed.
    fn end(&self) -> JobInHand<Ended> {
        self.start().end(Self::end_outcome(), true)
    }

    fn end_outcome() -> JobOutcome {
        let put = Operation::Put { record: Record { kind: Kind::Identity, key: "x".into(), value: Vec::new() } };
        JobOutcome::commit(put, Conclusion::Finished { failure: None, micros: 7 })
    }

    /// Checks the count of the only job in hand, and that its lease is renewed.
    #[track_caller]
    fn counts_as(&self, counted: Counted) {
        assert_eq!(self.jobs.flow.in_hand(counted), 1, "{counted:?}");
        assert_eq!(self.jobs.flow.all_in_hand(), 1);
        assert_eq!(self.jobs.leases().len(), 1, "the lease is renewed");
        assert!(lock(&self.ledger.let_go).is_empty());
    }

    /// Checks that the job has given up its resources once, and that it was released this number of times.
    #[track_caller]
    fn is_let_go(&self, releases: usize) {
        assert_eq!(self.jobs.flow.all_in_hand(), 0);
        assert!(self.jobs.flow.is_empty());
        assert_eq!(self.jobs.leases().len(), 0, "the lease is not renewed any more");
        assert_eq!(lock(&self.ledger.let_go).len(), 1, "the ledger forgets the lease");
        assert_eq!(lock(&self.ledger.released).len(), releases);
    }

    /// Checks that the job was given back, uncharged: it can be claimed at once.
    #[track_caller]
    fn is_given_back(&self) {
        self.is_let_go(1);
        let again = self.ledger.claim(&Scope::All, 1, LEASE, Wait::NONE).unwrap();
        assert_eq!(again.iter().map(|job| (job.attempt, job.crashes)).collect::<Vec<_>>(), [(1, 0)]);
    }

    /// Checks that the job was left to its lease: it can be claimed when the lease expires, and that counts as a crash.
    #[track_caller]
    fn is_left_to_its_lease(&self) {
        self.is_let_go(0);
        assert!(self.ledger.claim(&Scope::All, 1, LEASE, Wait::NONE).unwrap().is_empty(), "the lease has not expired");
        self.clock.advance(LEASE * 2);
        let again = self.ledger.claim(&Scope::All, 1, LEASE, Wait::NONE).unwrap();
        assert_eq!(again.iter().map(|job| (job.attempt, job.crashes)).collect::<Vec<_>>(), [(1, 1)]);
    }
}

#[test]
fn a_job_goes_from_its_claim_through_all_states() {
    let bench = Bench::new();
    let job = bench.claim();
    bench.counts_as(Counted::Waiting);
    let job = job.start();
    bench.counts_as(Counted::Running);
    assert!(!job.held_lease().has_ended());
    let job = job.end(Bench::end_outcome(), true);
    bench.counts_as(Counted::Running);
    assert!(job.held_lease().has_ended());
    let job = job.send();
    bench.counts_as(Counted::Sent);
    assert_eq!(bench.jobs.flow.step_counts(), (0, 1), "the slot is free, and the step is counted as ended");
    let job = job.answered().keep();
    bench.counts_as(Counted::Kept);
    let job = job.resend().send();
    bench.counts_as(Counted::Sent);
    let Err(mut job) = job.answered().committed() else { panic!("the change is not committed yet") };
    job.outcome().change = None;
    let Ok(job) = job.committed() else { panic!("everything is committed") };
    bench.counts_as(Counted::Sent);
    assert_eq!(job.conclusion(), (1, &Conclusion::Finished { failure: None, micros: 7 }));
    job.settle();
    bench.is_let_go(0);
    assert_eq!(bench.jobs.flow.step_counts(), (0, 1), "the step is counted once");
    assert_eq!(*lock(&bench.events), Vec::<String>::new(), "the run goes on");
}

#[test]
fn a_job_that_is_settled_on_its_slot_keeps_the_slot_until_then() {
    let bench = Bench::new();
    let mut job = bench.end();
    job.mark_sent();
    job.outcome().change = None;
    job.outcome().run_state = Some(RunState::Succeeded);
    let Ok(job) = job.committed() else { panic!("everything is committed") };
    bench.counts_as(Counted::Running);
    job.settle();
    bench.is_let_go(0);
    assert_eq!(bench.jobs.flow.step_counts(), (0, 1));
    let events = lock(&bench.events).clone();
    assert!(
        matches!(events.as_slice(), [one] if one.starts_with("RunFinished")),
        "the run ended with the job: {events:?}"
    );
}

#[test]
fn a_job_that_is_given_back_has_the_release_as_its_change() {
    for started in [false, true] {
        let bench = Bench::new();
        let delay = Duration::from_secs(3);
        let (job, counted) = if started {
            (bench.start().give_back(delay), Counted::Running)
        } else {
            (bench.claim().give_back(delay), Counted::Waiting)
        };
        bench.counts_as(counted);
        let change = job.change().expect("the release").clone();
        let held = job.held_lease().lease();
        assert!(matches!(&change, Operation::Release { lease, delay: d } if *lease == held && *d == delay));
        let job = job.send();
        bench.counts_as(Counted::Sent);
        assert_eq!(bench.jobs.flow.step_counts(), (0, 0), "no step was run");
        let mut job = job.answered();
        job.outcome().change = None;
        let Ok(job) = job.committed() else { panic!("everything is committed") };
        assert_eq!(job.conclusion().1, &Conclusion::Released);
        job.settle();
        bench.is_let_go(0);
    }
}

#[test]
fn a_job_that_is_dropped_before_its_change_was_sent_is_given_back_once() {
    let bench = Bench::new();
    drop(bench.claim());
    bench.is_given_back();
    let bench = Bench::new();
    drop(bench.start());
    bench.is_given_back();
    let bench = Bench::new();
    drop(bench.end());
    bench.is_given_back();
    let bench = Bench::new();
    drop(bench.end().keep());
    bench.is_given_back();
}

#[test]
fn a_job_that_is_dropped_after_its_change_was_sent_is_left_to_its_lease() {
    let bench = Bench::new();
    drop(bench.end().send());
    bench.is_left_to_its_lease();
    let bench = Bench::new();
    drop(bench.end().send().answered());
    bench.is_left_to_its_lease();
    let bench = Bench::new();
    drop(bench.end().send().answered().keep());
    bench.is_left_to_its_lease();
    let bench = Bench::new();
    let mut job = bench.end();
    job.mark_sent();
    drop(job);
    bench.is_left_to_its_lease();
    let bench = Bench::new();
    let mut job = bench.end().send().answered();
    job.outcome().change = None;
    drop(job.committed().ok().expect("everything is committed"));
    bench.is_let_go(0);
}

#[test]
fn a_job_that_is_left_to_its_lease_is_not_released() {
    let bench = Bench::new();
    bench.start().leave_to_lease();
    bench.is_left_to_its_lease();
    let bench = Bench::new();
    bench.end().leave_to_lease();
    bench.is_left_to_its_lease();
    let bench = Bench::new();
    bench.end().keep().leave_to_lease();
    bench.is_left_to_its_lease();
}

#[test]
fn a_process_that_is_to_stop_at_once_gives_no_dropped_job_back() {
    let bench = Bench::new();
    let job = bench.claim();
    bench.shutdown.abort();
    drop(job);
    bench.is_left_to_its_lease();
}

#[test]
fn a_step_whose_lease_expired_goes_on_with_the_lease_of_the_next_claim() {
    let bench = Bench::new();
    let job = bench.start();
    let expired = job.held_lease().lease();
    bench.clock.advance(LEASE * 2);
    let claimed = bench.ledger.claim(&Scope::All, 1, LEASE, Wait::NONE).unwrap();
    let lease = claimed[0].lease.clone();
    assert_ne!(lease.token, expired.token);
    assert!(bench.jobs.take(claimed, &bench.shutdown).is_empty(), "the step runs already");
    assert_eq!(*lock(&bench.ledger.let_go), [expired.token], "the ledger forgets the expired lease");
    let held = bench.jobs.leases();
    assert!(held.iter().map(|held| held.lease()).eq([lease.clone()]), "the new lease is renewed");
    assert_eq!(bench.jobs.flow.all_in_hand(), 1);
    let job = job.give_back(Duration::ZERO);
    let change = job.change().unwrap();
    assert!(matches!(change, Operation::Release { lease: released, .. } if *released == lease), "{change:?}");
    drop(job);
    assert_eq!(*lock(&bench.ledger.let_go), [expired.token, lease.token]);
    assert_eq!(*lock(&bench.ledger.released), [lease.token]);
    assert_eq!((bench.jobs.flow.all_in_hand(), bench.jobs.leases().len()), (0, 0));
}

#[test]
fn a_step_that_has_ended_takes_no_further_lease() {
    let bench = Bench::new();
    let job = bench.end();
    bench.clock.advance(LEASE * 2);
    let claimed = bench.ledger.claim(&Scope::All, 1, LEASE, Wait::NONE).unwrap();
    assert_eq!(bench.jobs.take(claimed, &bench.shutdown).len(), 1, "the change keeps the first lease");
    drop(job);
}

#[test]
fn a_panic_over_a_job_leaves_it_to_its_lease_and_lets_go_what_it_held() {
    let bench = Bench::new();
    let job = bench.start();
    let panic = catch_unwind(AssertUnwindSafe(move || {
        let _job = job;
        panic!("a bug of the host");
    }));
    assert!(panic.is_err());
    bench.is_left_to_its_lease();
    assert_eq!(bench.jobs.flow.step_counts(), (0, 0), "the step is not counted as ended");
}
