//! The jobs that a worker has in hand: the table of their leases, their counts, and the runs that end or are stopped
//! while this worker has jobs of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dovetail_core::RunId;
use dovetail_core::keys::NodeId;
use dovetail_core::ledger::{self, Lease, Ledger, RunKey, Scope};
use dovetail_core::panics::contain;
use dovetail_core::record::RunState;
use dovetail_core::stop::Canceller;
use dovetail_core::sync::lock;

use super::event::{Event, Listener};
use super::flow_control::{Counted, FlowControl};
use super::job::{Claimed, JobInHand};
use crate::shutdown::Shutdown;

/// How many stopped runs are remembered. It must cover the runs that are stopped after a job of them was claimed and
/// before the job is in the table.
const REMEMBERED_STOPS: usize = 32;

/// The lease of a job in hand. The job and the table of leases share it, and the thread that renews leases reads it
/// from the table.
pub(super) struct HeldLease {
    pub(super) run: RunKey,
    pub(super) step: NodeId,
    attempt: u32,
    /// Stops the attempt.
    pub(super) canceller: Arc<Canceller>,
    state: Mutex<LeaseState>,
}

struct LeaseState {
    lease: Lease,
    /// The last time at which this worker certainly held the lease.
    renewed: Instant,
    /// The attempt has ended, and its change is on its way. The ledger may have acknowledged the job already, although
    /// the reply has not arrived.
    ended: bool,
}

impl HeldLease {
    fn new(job: &ledger::Claimed, now: Instant) -> Self {
        let state = LeaseState { lease: job.lease.clone(), renewed: now, ended: false };
        let (run, step) = (job.lease.run.clone(), job.lease.step.clone());
        Self { run, step, attempt: job.attempt, canceller: Arc::new(Canceller::new()), state: Mutex::new(state) }
    }

    pub(super) fn lease(&self) -> Lease {
        lock(&self.state).lease.clone()
    }

    /// Ends the attempt, and returns the lease for its change. From now on no other lease is adopted.
    pub(super) fn end(&self) -> Lease {
        let mut state = lock(&self.state);
        state.ended = true;
        state.lease.clone()
    }

    pub(super) fn has_ended(&self) -> bool {
        lock(&self.state).ended
    }

    /// The lease was renewed by a call that was sent at this time.
    pub(super) fn renewed_at(&self, sent_at: Instant) {
        lock(&self.state).renewed = sent_at;
    }

    /// The time since this worker certainly held the lease.
    pub(super) fn age(&self) -> Duration {
        lock(&self.state).renewed.elapsed()
    }

    /// Takes over the lease of `job` if `job` is the same attempt at the same step and the attempt has not ended. This
    /// happens if the lease expired while this worker runs the step, because no renewal succeeded, and the worker
    /// claims the job again: the attempt goes on with the new lease. Returns the token of the expired lease. `None`:
    /// the lease was not taken over.
    fn adopt(&self, job: &ledger::Claimed, now: Instant) -> Option<u64> {
        if (&self.run, &self.step, self.attempt) != (&job.lease.run, &job.lease.step, job.attempt) {
            return None;
        }
        let mut state = lock(&self.state);
        if state.ended {
            return None;
        }
        state.renewed = now;
        Some(std::mem::replace(&mut state.lease, job.lease.clone()).token)
    }
}

/// The state that the threads and the jobs of a worker share.
pub(super) struct JobsInHand {
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) flow: FlowControl,
    /// The leases of all jobs in hand, by token.
    leases: Mutex<HashMap<u64, Arc<HeldLease>>>,
    /// Runs whose steps were stopped, the last stopped run first, at most [`REMEMBERED_STOPS`]. Jobs of these runs may
    /// have been claimed and not be in the table yet.
    stopped: Mutex<VecDeque<RunKey>>,
    /// Runs that are over and whose end is not reported yet, because this worker still has jobs of them.
    ending: Mutex<BTreeMap<RunId, RunState>>,
    /// The runs of the worker's scope that are not over. `None`: the scope does not name its runs.
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

    /// Sets the scope of the worker.
    pub(super) fn set_scope(&self, scope: &Scope) {
        *lock(&self.open_runs) = match scope {
            Scope::Runs(runs) => Some(runs.iter().cloned().collect()),
            Scope::All | Scope::Able(_) => None,
        };
    }

    /// The runs of the scope that are not over. Empty if the scope does not name its runs.
    pub(super) fn open_runs(&self) -> Vec<RunId> {
        lock(&self.open_runs).iter().flatten().cloned().collect()
    }

    /// Whether all runs of the scope are over. False if the scope does not name its runs.
    pub(super) fn is_scope_over(&self) -> bool {
        lock(&self.open_runs).as_ref().is_some_and(BTreeSet::is_empty)
    }

    /// Takes claimed jobs in hand: they are counted as waiting, and their leases are renewed from now on. If the
    /// attempt of a job still runs in this worker although its lease expired, the job is not taken twice: the running
    /// attempt adopts the new lease ([`HeldLease::adopt`]).
    pub(super) fn take(
        self: &Arc<Self>,
        claimed: Vec<ledger::Claimed>,
        shutdown: &Shutdown,
    ) -> Vec<JobInHand<Claimed>> {
        let now = Instant::now();
        let (mut taken, mut expired) = (Vec::with_capacity(claimed.len()), Vec::new());
        {
            let mut leases = lock(&self.leases);
            for job in claimed {
                // Only a job whose lease has expired before can still run in this worker.
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
            tracing::warn!(%run, %step, "the job of a running step was claimed again after its lease expired");
            self.ledger.let_go(lease);
        }
        let stopped = lock(&self.stopped).clone();
        for job in jobs.iter().filter(|job| stopped.contains(&job.held_lease().run)) {
            job.held_lease().canceller.cancel();
        }
        jobs
    }

    /// The leases of all jobs in hand.
    pub(super) fn leases(&self) -> Vec<Arc<HeldLease>> {
        lock(&self.leases).values().cloned().collect()
    }

    /// The number of jobs with a change (an outcome or a release) that is not known to be recorded.
    pub(super) fn unrecorded(&self) -> usize {
        lock(&self.leases).values().filter(|held| held.has_ended()).count()
    }

    /// Removes a job from the table of leases and from the counts. Called once for each job, when the job is dropped.
    /// `step_duration`: the step ended with this, after this time. `run_state`: how the run ended, if it ended with
    /// this job.
    pub(super) fn remove(
        &self,
        held: &HeldLease,
        counted: Counted,
        step_duration: Option<Duration>,
        run_state: Option<RunState>,
    ) {
        let lease = held.lease();
        lock(&self.leases).remove(&lease.token);
        // The counts must stay right even if the ledger panics, because the worker waits for them at its end.
        drop(contain("forget a lease", || self.ledger.let_go(&lease)));
        self.flow.remove(counted, step_duration);
        let run = &held.run.run;
        match run_state {
            Some(state) => self.run_ended(run, state),
            None => self.report_run_end(run),
        }
    }

    /// Stops the running steps of a run that was cancelled or has ended.
    pub(super) fn stop_steps(&self, run: &RunKey) {
        {
            let mut stopped = lock(&self.stopped);
            stopped.truncate(REMEMBERED_STOPS - 1);
            stopped.push_front(run.clone());
        }
        for held in lock(&self.leases).values().filter(|held| held.run == *run) {
            held.canceller.cancel();
        }
    }

    /// A run is over: stops its other steps in this process, and reports the run's end once these steps have ended.
    pub(super) fn run_ended(&self, run: &RunId, state: RunState) {
        lock(&self.ending).insert(run.clone(), state);
        for held in lock(&self.leases).values().filter(|held| held.run.run == *run) {
            held.canceller.cancel();
        }
        self.report_run_end(run);
    }

    /// Reports a run's end if the run is over and this worker has no job of it any more: the outcomes of its steps are
    /// recorded and reported by then.
    fn report_run_end(&self, run: &RunId) {
        if !lock(&self.ending).contains_key(run) || lock(&self.leases).values().any(|held| held.run.run == *run) {
            return;
        }
        let Some(state) = lock(&self.ending).remove(run) else { return };
        // Two threads may notice the end of a run of the scope: the thread that settles the run's last job, and the
        // thread that reads the records (`check_ended_runs`). Only the first one reports it.
        let is_first = lock(&self.open_runs).as_mut().is_none_or(|open| open.remove(run));
        if is_first {
            self.emit(|| Event::RunFinished { run: run.clone(), state });
        }
        self.flow.wake();
        self.ledger.wake();
    }

    /// Reports an event to the listener, if there is one.
    pub(super) fn emit(&self, event: impl FnOnce() -> Event) {
        if let Some(listener) = &self.listener {
            // A panic of the listener must not be charged to a job.
            drop(contain("report an event", || listener(&event())));
        }
    }
}
