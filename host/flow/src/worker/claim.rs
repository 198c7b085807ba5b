//! The thread that claims: it claims as many jobs as flow control allows and pushes them to the queue of the slots.

use std::time::Duration;

use crossbeam_channel::Sender;
use dovetail_core::blobs::Store;
use dovetail_core::ledger::{Scope, Wait};
use dovetail_core::panics::contain;

use super::Worker;
use super::job::{Claimed, JobInHand};
use super::job_queue::JobQueue;
use super::settle::ToSettle;
use crate::FlowError;
use crate::shutdown::Shutdown;

/// A claimer that finds no job looks again after this time even without a notification.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// How long a daemon claims nothing after a claim failed. The pause doubles with each further failure, up to
/// [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause between claims after failures that may pass by themselves.
pub(super) const MAX_PAUSE: Duration = Duration::from_secs(5);

impl Worker {
    /// Claims jobs until the worker is over ([`Worker::is_over`]).
    ///
    /// # Errors
    /// A failed claim, unless the worker is a daemon: a daemon claims again after a pause. With [`Scope::Runs`], also a
    /// failed read of the outcomes of these runs.
    pub(super) fn claim_jobs(
        &self,
        scope: &Scope,
        shutdown: &Shutdown,
        queue: &JobQueue<JobInHand<Claimed>>,
        settle: &Sender<ToSettle>,
    ) -> Result<(), FlowError> {
        let mut pause = FIRST_PAUSE;
        while !self.is_over(shutdown) {
            let seen = self.ports.ledger.wakes();
            let Some(want) = self.jobs.flow.wait_for_capacity(|| self.is_over(shutdown)) else { break };
            let able = self.options.daemon.as_ref().map(|daemon| Scope::Able((daemon.able)()));
            let scope = able.as_ref().unwrap_or(scope);
            let wait = Wait { seen, at_most: MAX_WAIT };
            let claimed = match self.ports.ledger.claim(scope, want, self.options.lease, wait) {
                Ok(claimed) => claimed,
                Err(error) if self.is_daemon() => {
                    self.store_failed("claim work", false, &error.into());
                    self.jobs.flow.pause(pause, || self.is_over(shutdown));
                    pause = (pause * 2).min(MAX_PAUSE);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            pause = FIRST_PAUSE;
            self.report_store_answers(&[Store::Queue], false);
            if claimed.is_empty() {
                self.check_ended_runs()?;
            }
            let jobs = self.jobs.take(claimed, shutdown);
            let alone = self.jobs.flow.is_alone();
            for job in jobs {
                let hand_over = || {
                    if alone {
                        // The claim was on its way when the job that runs alone began, so `try_begin` could not prevent
                        // it.
                        self.commit(job.give_back(Duration::ZERO), settle);
                    } else {
                        queue.push(job);
                    }
                };
                // A panic over one job must not drop the other jobs of the claim: a job that a panic drops is charged
                // with a crash.
                let operation = "hand a job to a slot";
                if let Err(panic) = contain(operation, hand_over) {
                    self.fail(FlowError::panicked(operation, &panic));
                }
            }
        }
        Ok(())
    }
}
