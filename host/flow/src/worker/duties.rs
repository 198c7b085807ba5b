//! What a worker does beside running steps, the most of it on threads that tasks cannot starve: it keeps its leases,
//! says that it lives, puts back runs of which the queue lost the work, and notices what ended elsewhere, or what it is
//! handed although it runs it.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};
use dovetail_core::RunId;
use dovetail_core::blobs::StoreErrorKind;
use dovetail_core::ledger::{Kind, Lease, Renewal, RunKey};
use dovetail_core::panics::contain;
use dovetail_core::record::{Form as _, RunOutcomeRecord};

use super::flow_control::TELL;
use super::{About, Event, Worker};
use crate::FlowError;
use crate::recover::reconcile;
use crate::truth::current;

/// How often a worker says that it lives, at the least.
const BEAT: Duration = Duration::from_secs(5);
/// How often it is looked whether something was lost. The backend answers at once where nothing can have been.
const LOOK: Duration = Duration::from_secs(2);

/// When to say that something does not work: at first, and then now and then, until it works.
#[derive(Default)]
struct Seldom(Option<Instant>);

impl Seldom {
    fn is_due(&mut self) -> bool {
        let due = self.0.is_none_or(|told| told.elapsed() >= TELL);
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }

    fn works(&mut self) {
        self.0 = None;
    }
}

/// Lost runs of an earlier look.
#[derive(Default)]
struct LostRuns {
    untried: VecDeque<RunKey>,
    /// For want of room, of the records, or because theirs cannot be read.
    failed: Vec<RunKey>,
}

/// False as soon as `until` closes.
fn sleep(until: &Receiver<()>, time: Duration) -> bool {
    until.recv_timeout(time) == Err(RecvTimeoutError::Timeout)
}

impl Worker {
    /// Runs of the scope that another process ended.
    pub(super) fn look_for_ended(&self) -> Result<(), FlowError> {
        let left: Vec<RunId> = self.jobs.open_runs();
        if left.is_empty() {
            return Ok(());
        }
        let keys =
            left.iter().map(|run| Ok(current(&self.parts, run)?.key())).collect::<Result<Vec<String>, FlowError>>()?;
        for (run, bytes) in left.into_iter().zip(self.parts.ledger.get(Kind::RunOutcome, &keys)?) {
            if let Some(bytes) = bytes {
                let state = RunOutcomeRecord::decode(&bytes, &format!("run {run}"))?.state;
                self.jobs.run_ended(&run, state);
            }
        }
        Ok(())
    }

    /// Renews every lease three times in its length.
    pub(super) fn keep_leases(&self, until: &Receiver<()>) {
        let mut seldom = Seldom::default();
        while sleep(until, self.options.lease / 3) {
            let jobs = self.jobs.leases();
            let leases: Vec<Lease> = jobs.iter().map(|held| held.lease()).collect();
            if leases.is_empty() {
                continue;
            }
            let asked = Instant::now();
            match self.parts.ledger.renew(&leases, self.options.lease) {
                Ok(renewals) => {
                    seldom.works();
                    for ((held, lease), renewal) in jobs.iter().zip(&leases).zip(renewals) {
                        if renewal == Renewal::Lost && (held.has_ended() || held.lease() != *lease) {
                            // Between the question and the answer the job was acknowledged, or claimed again.
                        } else if renewal == Renewal::Lost {
                            let (run, step) = (&held.run.run, &held.step);
                            tracing::warn!(%run, %step, "the lease is lost: the step is stopped");
                            held.canceller.cancel();
                        } else {
                            held.renewed_at(asked);
                        }
                    }
                }
                // The next round tries again; whoever holds a lease that lapsed meanwhile finds out when it commits.
                Err(error) if seldom.is_due() => {
                    tracing::warn!(err = &error as &dyn std::error::Error, "leases could not be renewed");
                }
                Err(_) => {}
            }
        }
    }

    /// Also what the backend takes as the sign that its callers were not cut off from it, so it must come well within a
    /// lease.
    pub(super) fn say_that_it_lives(&self, about: &About, until: &Receiver<()>) {
        let (round, mut seldom) = (BEAT.min(self.options.lease / 2), Seldom::default());
        loop {
            let (running, ended) = self.jobs.flow.figures();
            match self.parts.ledger.beat(&self.options.name, &about(running, ended), round * 4) {
                Ok(()) => seldom.works(),
                Err(error) if seldom.is_due() => {
                    tracing::warn!(err = &error as &dyn std::error::Error, "the heartbeat was not heard");
                }
                Err(_) => {}
            }
            if !sleep(until, round) {
                break;
            }
        }
        // It is gone from now on; were this not heard, the last heartbeat would tell it a little later.
        let (running, ended) = self.jobs.flow.figures();
        drop(self.parts.ledger.beat(&self.options.name, &about(running, ended), Duration::ZERO));
    }

    pub(super) fn look_for_lost(self: &Arc<Self>, until: &Receiver<()>) {
        let (mut lost, mut seldom) = (LostRuns::default(), Seldom::default());
        while sleep(until, LOOK) {
            match self.put_back_lost(&mut lost, until) {
                Ok(()) => seldom.works(),
                Err(error) if seldom.is_due() => {
                    tracing::warn!(err = &error as &dyn std::error::Error, "could not look for lost runs");
                }
                Err(_) => {}
            }
        }
    }

    /// Those that are left come first, then those that are new, and last of all those that could not be put back
    /// before: one that never can be keeps no other one waiting.
    fn put_back_lost(&self, lost: &mut LostRuns, until: &Receiver<()>) -> Result<(), FlowError> {
        let mut before = std::mem::take(&mut lost.failed);
        let looked = self.put_back_in_turn(lost, &mut before, until);
        // Those that their turn did not come to.
        lost.failed.append(&mut before);
        looked
    }

    fn put_back_in_turn(
        &self,
        lost: &mut LostRuns,
        before: &mut Vec<RunKey>,
        until: &Receiver<()>,
    ) -> Result<(), FlowError> {
        // What there is nothing to put back for is named again.
        let mut seen: HashSet<RunKey> = before.iter().cloned().collect();
        let is_told_to_end = || until.try_recv() == Err(TryRecvError::Disconnected);
        loop {
            while let Some(key) = lost.untried.pop_front() {
                seen.insert(key.clone());
                self.put_back_or_keep(key, &mut lost.failed)?;
                if is_told_to_end() {
                    return Ok(());
                }
            }
            let found = self.parts.ledger.lost()?;
            lost.untried.extend(found.into_iter().filter(|key| !seen.contains(key)));
            if lost.untried.is_empty() {
                break;
            }
        }
        while let Some(key) = before.pop() {
            self.put_back_or_keep(key, &mut lost.failed)?;
            if is_told_to_end() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// What is wrong with one run is told, and the next one is tried. Where a store does not answer, has no room or
    /// refuses, there is no use in that.
    fn put_back_or_keep(&self, key: RunKey, failed: &mut Vec<RunKey>) -> Result<(), FlowError> {
        // One run that makes the host panic must not end the worker: every other worker would meet the same run.
        let looked = contain("put back a lost run", || self.put_back(&key));
        let Err(error) = looked.unwrap_or_else(|panic| Err(FlowError::Panic(panic))) else { return Ok(()) };
        failed.push(key);
        if let FlowError::Store(e) = &error
            && matches!(e.kind, StoreErrorKind::Unavailable | StoreErrorKind::Refused | StoreErrorKind::Full)
        {
            return Err(error);
        }
        tracing::warn!(err = &error as &dyn std::error::Error, "a lost run could not be put back");
        Ok(())
    }

    fn put_back(&self, key: &RunKey) -> Result<(), FlowError> {
        match reconcile(&self.parts, key) {
            Ok(state) => {
                self.tell(|| Event::RunRecovered { run: key.run.clone() });
                if let Some(state) = state {
                    self.jobs.run_ended(&key.run, state);
                }
            }
            // Its submitter has noted it and not written it yet, or died between the two: there is nothing to put back.
            Err(error) if error.code() == "unknown_run" => {
                tracing::debug!(run = %key.run, "an open run without a record");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
