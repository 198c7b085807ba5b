//! The jobs that a worker has in hand: the table of their leases, their counts, and the runs that end or are stopped
//! while jobs of them are here.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dovetail_core::RunId;
use dovetail_core::keys::NodeId;
use dovetail_core::ledger::{self, Lease, Ledger, RunKey, Scope};
use dovetail_core::panics::contain;
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
    pub(super) run: RunKey,
    pub(super) step: NodeId,
    attempt: u32,
    pub(super) canceller: Arc<Canceller>,
    state: Mutex<LeaseState>,
}

struct LeaseState {
    lease: Lease,
    /// When the lease was last known to be this worker's.
    renewed: Instant,
    /// The attempt has ended, and its change is on its way: the job may be gone before that is answered.
    ended: bool,
}

impl HeldLease {
    fn new(job: &ledger::Claimed, now: Instant) -> Self {
        let state = LeaseState { lease: job.lease.clone(), renewed: now, ended: false };
        let (run, step) = (job.lease.run.clone(), job.lease.step.clone());
        Self { run, step, attempt: job.attempt, canceller: Arc::new(Canceller::new()), state: Mutex::new(state) }
    }

    pub(super) fn lease(&self) -> Lease {
        locked(&self.state).lease.clone()
    }

    /// The attempt has ended. The lease with which its change is to be made: no other lease is adopted from now on.
    pub(super) fn end(&self) -> Lease {
        let mut state = locked(&self.state);
        state.ended = true;
        state.lease.clone()
    }

    pub(super) fn has_ended(&self) -> bool {
        locked(&self.state).ended
    }

    pub(super) fn renewed_at(&self, asked: Instant) {
        locked(&self.state).renewed = asked;
    }

    /// How long ago the lease was last known to be this worker's.
    pub(super) fn age(&self) -> Duration {
        locked(&self.state).renewed.elapsed()
    }

    /// The lease expired while this worker runs the step, because no renewal got through, and the worker has claimed
    /// the same job again: the attempt goes on with the new lease. The token of the expired lease, or none if `job` is
    /// another job, another attempt, or the attempt has ended.
    fn adopt(&self, job: &ledger::Claimed, now: Instant) -> Option<u64> {
        if (&self.run, &self.step, self.attempt) != (&job.lease.run, &job.lease.step, job.attempt) {
            return None;
        }
        let mut state = locked(&self.state);
        if state.ended {
            return None;
        }
        state.renewed = now;
        Some(std::mem::replace(&mut state.lease, job.lease.clone()).token)
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

    /// Takes claimed jobs in hand: they are counted as waiting, and their leases are renewed from now on. A job whose
    /// attempt is still running here, although its lease expired, is not taken twice: the attempt gets the new lease.
    pub(super) fn take(
        self: &Arc<Self>,
        claimed: Vec<ledger::Claimed>,
        shutdown: &Shutdown,
    ) -> Vec<JobInHand<Claimed>> {
        let now = Instant::now();
        let (mut taken, mut expired) = (Vec::with_capacity(claimed.len()), Vec::new());
        {
            let mut leases = locked(&self.leases);
            for job in claimed {
                // Only a job that was lost before can be running here.
                if job.crashes > 0
                    && let Some((held, token)) =
                        leases.values().find_map(|held| Some((held.clone(), held.adopt(&job, now)?)))
                {
                    leases.remove(&token);
                    leases.insert(job.lease.token, held);
                    expired.push(Lease { token, ..job.lease });
                    continue;
                }
                let held = Arc::new(HeldLease::new(&job, now));
                leases.insert(job.lease.token, held.clone());
                taken.push((job, held));
            }
        }
        self.flow.claimed(taken.len());
        let jobs: Vec<_> = taken.into_iter().map(|(job, held)| JobInHand::new(self, job, held, shutdown)).collect();
        for lease in &expired {
            let (run, step) = (&lease.run.run, &lease.step);
            tracing::warn!(%run, %step, "the lease of a running step expired and was taken again: the step goes on");
            self.ledger.let_go(lease);
        }
        let stopped = locked(&self.stopped).clone();
        for job in jobs.iter().filter(|job| stopped.contains(&job.held_lease().run)) {
            job.held_lease().canceller.cancel();
        }
        jobs
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
        let lease = held.lease();
        locked(&self.leases).remove(&lease.token);
        // The counts must be right whatever the ledger does: the worker waits for them at its end.
        drop(contain("let a lease go", || self.ledger.let_go(&lease)));
        self.flow.let_go(counted, took);
        let run = &held.run.run;
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
        for held in locked(&self.leases).values().filter(|held| held.run == *run) {
            held.canceller.cancel();
        }
    }

    /// A run is over: its other steps in this process are stopped, and its end is told once they have ended.
    pub(super) fn run_ended(&self, run: &RunId, state: RunState) {
        locked(&self.ending).insert(run.clone(), state);
        for held in locked(&self.leases).values().filter(|held| held.run.run == *run) {
            held.canceller.cancel();
        }
        self.tell_run_ended(run);
    }

    /// Tells a run's end when no job of the run is here any more: the outcomes of its steps are recorded by then.
    fn tell_run_ended(&self, run: &RunId) {
        if !locked(&self.ending).contains_key(run) || locked(&self.leases).values().any(|held| held.run.run == *run) {
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
            // No job is at fault for a listener that panics.
            drop(contain("tell of an event", || listener(&event())));
        }
    }
}
