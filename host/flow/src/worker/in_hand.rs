//! The jobs that a worker has in hand: the table of their leases, their counts, and the runs that end or are stopped
//! while jobs of them are here.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dovetail_core::RunId;
use dovetail_core::ledger::{self, Lease, Ledger, RunKey, Scope};
use dovetail_core::record::RunState;
use dovetail_core::stop::Canceller;

use super::event::{Event, Listener};
use super::flow_control::{Counted, FlowControl};
use super::job::{Claimed, JobInHand};
use super::locked;
use crate::shutdown::Shutdown;

/// Stopped runs that are remembered: enough for those that are stopped between a claim and its entry in the table.
const REMEMBERED_STOPS: usize = 32;

/// The lease of a job in hand, as the thread that renews leases sees it.
pub(super) struct HeldLease {
    pub(super) lease: Lease,
    pub(super) canceller: Arc<Canceller>,
    /// When the lease was last known to be this worker's.
    renewed: Mutex<Instant>,
    /// The attempt has ended, and its change is on its way: the job may be gone before that is answered.
    ended: AtomicBool,
}

impl HeldLease {
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    pub(super) fn renewed_at(&self, asked: Instant) {
        *locked(&self.renewed) = asked;
    }

    /// How long ago the lease was last known to be this worker's.
    pub(super) fn age(&self) -> Duration {
        locked(&self.renewed).elapsed()
    }
}

/// What the threads and the jobs of a worker share.
pub(super) struct JobsInHand {
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) flow: FlowControl,
    /// By token.
    leases: Mutex<HashMap<u64, Arc<HeldLease>>>,
    /// Runs whose steps were stopped, the last one first: a job of them may have been claimed and not be entered yet.
    stopped: Mutex<VecDeque<RunKey>>,
    /// Runs that are over while jobs of them are still here.
    ending: Mutex<BTreeMap<RunId, RunState>>,
    /// The runs of the worker's scope that are not over. None: the scope is every run.
    open_runs: Mutex<Option<BTreeSet<RunId>>>,
    listener: Option<Listener>,
}

impl JobsInHand {
    pub(super) fn new(ledger: Arc<dyn Ledger>, slots: usize, listener: Option<Listener>) -> Self {
        Self {
            ledger,
            flow: FlowControl::new(slots),
            leases: Mutex::default(),
            stopped: Mutex::default(),
            ending: Mutex::default(),
            open_runs: Mutex::default(),
            listener,
        }
    }

    pub(super) fn works_on(&self, scope: &Scope) {
        *locked(&self.open_runs) = match scope {
            Scope::Runs(runs) => Some(runs.iter().cloned().collect()),
            Scope::All | Scope::Able(_) => None,
        };
    }

    /// The runs of the scope that are not over; none where the scope is every run.
    pub(super) fn open_runs(&self) -> Vec<RunId> {
        locked(&self.open_runs).iter().flatten().cloned().collect()
    }

    /// Whether all runs of the scope are over.
    pub(super) fn is_scope_over(&self) -> bool {
        locked(&self.open_runs).as_ref().is_some_and(BTreeSet::is_empty)
    }

    /// Takes claimed jobs in hand: they are counted as waiting, and their leases are renewed from now on.
    pub(super) fn take(
        self: &Arc<Self>,
        claimed: Vec<ledger::Claimed>,
        shutdown: &Shutdown,
    ) -> Vec<JobInHand<Claimed>> {
        self.flow.claimed(claimed.len());
        let now = Instant::now();
        let mut leases = locked(&self.leases);
        let take = |job: ledger::Claimed| {
            let held = Arc::new(HeldLease {
                lease: job.lease.clone(),
                canceller: Arc::new(Canceller::new()),
                renewed: Mutex::new(now),
                ended: AtomicBool::new(false),
            });
            leases.insert(job.lease.token, held.clone());
            JobInHand::new(self, job, held, shutdown)
        };
        let jobs: Vec<_> = claimed.into_iter().map(take).collect();
        drop(leases);
        let stopped = locked(&self.stopped);
        for job in jobs.iter().filter(|job| stopped.contains(&job.lease().run)) {
            job.held_lease().canceller.cancel();
        }
        drop(stopped);
        jobs
    }

    /// Whether the job's lease expired while this worker runs the step, because no renewal got through: the attempt
    /// goes on, and its end counts if it is the first.
    pub(super) fn runs_here(&self, job: &ledger::Claimed) -> bool {
        let same = |held: &Arc<HeldLease>| {
            !held.has_ended()
                && held.lease.token != job.lease.token
                && held.lease.run == job.lease.run
                && held.lease.step == job.lease.step
        };
        job.crashes > 0 && locked(&self.leases).values().any(same)
    }

    pub(super) fn leases(&self) -> Vec<Arc<HeldLease>> {
        locked(&self.leases).values().cloned().collect()
    }

    /// Jobs whose attempt has ended and whose change is not recorded yet.
    pub(super) fn unrecorded(&self) -> usize {
        locked(&self.leases).values().filter(|held| held.has_ended()).count()
    }

    /// Lets go what a job held. `run_state`: how its run ended with it. Called once a job, when the job is dropped.
    pub(super) fn let_go(
        &self,
        held: &HeldLease,
        counted: Counted,
        took: Option<Duration>,
        run_state: Option<RunState>,
    ) {
        locked(&self.leases).remove(&held.lease.token);
        self.ledger.let_go(&held.lease);
        self.flow.let_go(counted, took);
        let run = &held.lease.run.run;
        match run_state {
            Some(state) => self.run_ended(run, state),
            None => self.tell_run_ended(run),
        }
    }

    /// The steps of a run in this process are to stop: the run was cancelled, or has ended.
    pub(super) fn stop_steps(&self, run: &RunKey) {
        {
            let mut stopped = locked(&self.stopped);
            stopped.truncate(REMEMBERED_STOPS - 1);
            stopped.push_front(run.clone());
        }
        for held in locked(&self.leases).values().filter(|held| held.lease.run == *run) {
            held.canceller.cancel();
        }
    }

    /// A run is over: its other steps in this process are stopped, and its end is told once they have ended.
    pub(super) fn run_ended(&self, run: &RunId, state: RunState) {
        locked(&self.ending).insert(run.clone(), state);
        for held in locked(&self.leases).values().filter(|held| held.lease.run.run == *run) {
            held.canceller.cancel();
        }
        self.tell_run_ended(run);
    }

    /// Tells a run's end when no job of the run is here any more: the outcomes of its steps are recorded by then.
    fn tell_run_ended(&self, run: &RunId) {
        if !locked(&self.ending).contains_key(run)
            || locked(&self.leases).values().any(|held| held.lease.run.run == *run)
        {
            return;
        }
        let Some(state) = locked(&self.ending).remove(run) else { return };
        // The end of a run of the scope is told once, although two may notice it: the step that closed the run, and the
        // look at the records.
        let is_first = locked(&self.open_runs).as_mut().is_none_or(|open| open.remove(run));
        if is_first {
            self.tell(|| Event::RunFinished { run: run.clone(), state });
        }
        self.flow.wake();
        self.ledger.wake();
    }

    pub(super) fn tell(&self, event: impl FnOnce() -> Event) {
        if let Some(listener) = &self.listener {
            listener(&event());
        }
    }
}
