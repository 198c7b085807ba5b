//! The duties of a worker beside running steps: it renews its leases, sends heartbeats, restores lost runs, and notices
//! runs that another process ended. The first three have threads of their own, so that tasks cannot starve them.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};
use dovetail_core::RunId;
use dovetail_core::blobs::StoreErrorKind;
use dovetail_core::ledger::{Kind, Lease, Renewal, RunKey};
use dovetail_core::panics::contain;
use dovetail_core::record::{Form as _, RunOutcomeRecord};

use super::flow_control::REPORT_INTERVAL;
use super::{About, Event, Worker};
use crate::FlowError;
use crate::recover::reconcile;
use crate::truth::current;

/// The longest time between two heartbeats of a worker.
const MAX_BEAT: Duration = Duration::from_secs(5);
/// How often a worker asks the ledger for lost runs. The backend answers at once if it can have lost nothing.
const SEARCH_ROUND: Duration = Duration::from_secs(2);

/// Limits the log lines about an operation that fails again and again: the first failure is logged, and then one in
/// each [`REPORT_INTERVAL`], until the operation succeeds.
#[derive(Default)]
struct LogThrottle(Option<Instant>);

impl LogThrottle {
    /// The operation failed. Returns whether to log the failure.
    fn is_due(&mut self) -> bool {
        let due = self.0.is_none_or(|last| last.elapsed() >= REPORT_INTERVAL);
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }

    /// The operation succeeded.
    fn reset(&mut self) {
        self.0 = None;
    }
}

/// Lost runs that are not restored yet.
#[derive(Default)]
struct LostRuns {
    /// Runs that the ledger has returned and that this worker has not tried to restore.
    untried: VecDeque<RunKey>,
    /// Runs that could not be restored: the queue was full, the records did not answer, or the run's records cannot be
    /// read.
    failed: Vec<RunKey>,
}

/// Sleeps for this time. Returns false as soon as `until` is disconnected.
fn sleep(until: &Receiver<()>, time: Duration) -> bool {
    until.recv_timeout(time) == Err(RecvTimeoutError::Timeout)
}

impl Worker {
    /// Looks for runs of a [`Scope::Runs`](dovetail_core::ledger::Scope::Runs) that another process ended. Does nothing
    /// for any other scope.
    ///
    /// # Errors
    /// A failed read of the runs' records.
    pub(super) fn check_ended_runs(&self) -> Result<(), FlowError> {
        let open: Vec<RunId> = self.jobs.open_runs();
        if open.is_empty() {
            return Ok(());
        }
        let keys =
            open.iter().map(|run| Ok(current(&self.ports, run)?.key())).collect::<Result<Vec<String>, FlowError>>()?;
        for (run, bytes) in open.into_iter().zip(self.ports.ledger.get(Kind::RunOutcome, &keys)?) {
            if let Some(bytes) = bytes {
                let state = RunOutcomeRecord::decode(&bytes, &format!("run {run}"))?.state;
                self.jobs.run_ended(&run, state);
            }
        }
        Ok(())
    }

    /// Renews all leases three times in the length of a lease, and stops the steps whose lease is lost. Ends when
    /// `until` is disconnected.
    pub(super) fn keep_leases(&self, until: &Receiver<()>) {
        let mut throttle = LogThrottle::default();
        while sleep(until, self.options.lease / 3) {
            let jobs = self.jobs.leases();
            let leases: Vec<Lease> = jobs.iter().map(|held| held.lease()).collect();
            if leases.is_empty() {
                continue;
            }
            let sent_at = Instant::now();
            match self.ports.ledger.renew(&leases, self.options.lease) {
                Ok(renewals) => {
                    throttle.reset();
                    for ((held, lease), renewal) in jobs.iter().zip(&leases).zip(renewals) {
                        if renewal == Renewal::Lost && (held.has_ended() || held.lease() != *lease) {
                            // The job was acknowledged or claimed again while the renewal was on its way.
                        } else if renewal == Renewal::Lost {
                            let (run, step) = (&held.run.run, &held.step);
                            tracing::warn!(%run, %step, "the lease is lost: the step is stopped");
                            held.canceller.cancel();
                        } else {
                            held.renewed_at(sent_at);
                        }
                    }
                }
                // The next round tries again. If a lease expires meanwhile, the commit of its job shows that.
                Err(error) if throttle.is_due() => {
                    tracing::warn!(err = &error as &dyn std::error::Error, "leases could not be renewed");
                }
                Err(_) => {}
            }
        }
    }

    /// Sends heartbeats until `until` is disconnected, and then removes this worker from the list of workers.
    ///
    /// The backend also takes a heartbeat as the sign that its callers were not cut off from it, so the time between
    /// two heartbeats is at most half of a lease.
    pub(super) fn send_heartbeats(&self, about: &About, until: &Receiver<()>) {
        let (round, mut throttle) = (MAX_BEAT.min(self.options.lease / 2), LogThrottle::default());
        loop {
            let (running, ended) = self.jobs.flow.step_counts();
            match self.ports.ledger.beat(&self.options.name, &about(running, ended), round * 4) {
                Ok(()) => throttle.reset(),
                Err(error) if throttle.is_due() => {
                    tracing::warn!(err = &error as &dyn std::error::Error, "the heartbeat could not be sent");
                }
                Err(_) => {}
            }
            if !sleep(until, round) {
                break;
            }
        }
        // If this call fails, the last heartbeat expires a little later instead.
        let (running, ended) = self.jobs.flow.step_counts();
        drop(self.ports.ledger.beat(&self.options.name, &about(running, ended), Duration::ZERO));
    }

    /// Searches for lost runs and restores them, until `until` is disconnected.
    pub(super) fn search_lost_runs(self: &Arc<Self>, until: &Receiver<()>) {
        let (mut lost, mut throttle) = (LostRuns::default(), LogThrottle::default());
        while sleep(until, SEARCH_ROUND) {
            match self.restore_lost_runs(&mut lost, until) {
                Ok(()) => throttle.reset(),
                Err(error) if throttle.is_due() => {
                    tracing::warn!(err = &error as &dyn std::error::Error, "lost runs could not be searched for");
                }
                Err(_) => {}
            }
        }
    }

    /// Restores lost runs: first the untried runs of the last search, then the runs that the ledger returns now, and
    /// last the runs that could not be restored before. So a run that can never be restored does not delay other runs.
    ///
    /// # Errors
    /// A failure of a store after which the other runs would fail too: see [`Worker::restore_or_keep`].
    fn restore_lost_runs(&self, lost: &mut LostRuns, until: &Receiver<()>) -> Result<(), FlowError> {
        let mut failed_before = std::mem::take(&mut lost.failed);
        let restored = self.restore_in_order(lost, &mut failed_before, until);
        // After an error or at the worker's end, some of these runs were not tried again.
        lost.failed.append(&mut failed_before);
        restored
    }

    /// As [`Worker::restore_lost_runs`]. Runs that are tried again are removed from `failed_before`.
    fn restore_in_order(
        &self,
        lost: &mut LostRuns,
        failed_before: &mut Vec<RunKey>,
        until: &Receiver<()>,
    ) -> Result<(), FlowError> {
        // The ledger may return a run again, for example a run without a record, for which nothing can be restored.
        // Each run is tried once in this call, so that the loop ends.
        let mut seen: HashSet<RunKey> = failed_before.iter().cloned().collect();
        let is_ending = || until.try_recv() == Err(TryRecvError::Disconnected);
        loop {
            while let Some(key) = lost.untried.pop_front() {
                seen.insert(key.clone());
                self.restore_or_keep(key, &mut lost.failed)?;
                if is_ending() {
                    return Ok(());
                }
            }
            let more = self.ports.ledger.lost()?;
            lost.untried.extend(more.into_iter().filter(|key| !seen.contains(key)));
            if lost.untried.is_empty() {
                break;
            }
        }
        while let Some(key) = failed_before.pop() {
            self.restore_or_keep(key, &mut lost.failed)?;
            if is_ending() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Restores a run, or adds it to `failed`. A failure that concerns only this run is logged, so that the caller goes
    /// on with the next run.
    ///
    /// # Errors
    /// `Unavailable`, `Refused` or `Full`: the other runs would fail in the same way.
    fn restore_or_keep(&self, key: RunKey, failed: &mut Vec<RunKey>) -> Result<(), FlowError> {
        // A run over which the host panics must not end the worker: it would end every other worker too.
        let operation = "restore a lost run";
        let restored = contain(operation, || self.restore(&key));
        let Err(error) = restored.unwrap_or_else(|panic| Err(FlowError::panicked(operation, &panic))) else {
            return Ok(());
        };
        failed.push(key);
        if let FlowError::Store(e) = &error
            && matches!(e.kind, StoreErrorKind::Unavailable | StoreErrorKind::Refused | StoreErrorKind::Full)
        {
            return Err(error);
        }
        tracing::warn!(err = &error as &dyn std::error::Error, "a lost run could not be restored");
        Ok(())
    }

    /// Recovers the run and reports that.
    ///
    /// # Errors
    /// A store's failure.
    fn restore(&self, key: &RunKey) -> Result<(), FlowError> {
        match reconcile(&self.ports, key) {
            Ok(state) => {
                self.emit(|| Event::RunRecovered { run: key.run.clone() });
                if let Some(state) = state {
                    self.jobs.run_ended(&key.run, state);
                }
            }
            // The run is in the index of open runs and has no record: its submitter has not written the record yet, or
            // died before that. There is nothing to restore.
            Err(error) if error.code() == "unknown_run" => {
                tracing::debug!(run = %key.run, "an open run has no record");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
