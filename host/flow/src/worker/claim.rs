//! The thread that claims: as many jobs as flow control has room for, into the queue of the slots.

use std::time::Duration;

use crossbeam_channel::Sender;
use dovetail_core::blobs::Store;
use dovetail_core::ledger::{Scope, Wait};
use dovetail_core::panics::contain;

use super::Worker;
use super::job::{Claimed, JobInHand};
use super::settle::ToSettle;
use super::slots::Slots;
use crate::FlowError;
use crate::shutdown::Shutdown;

/// A claimer that finds nothing looks again after this long even if nothing woke it.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long a daemon waits after a store failed; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Worker {
    /// Claims until the worker is over.
    ///
    /// # Errors
    /// A store's failure; of a daemon none, unless the records of runs that were claimed cannot be read.
    pub(super) fn claim_jobs(
        &self,
        scope: &Scope,
        shutdown: &Shutdown,
        queue: &Slots<JobInHand<Claimed>>,
        settle: &Sender<ToSettle>,
    ) -> Result<(), FlowError> {
        let mut pause = FIRST_PAUSE;
        while !self.is_over(shutdown) {
            let seen = self.parts.ledger.wakes();
            let Some(want) = self.jobs.flow.wait_for_room(|| self.is_over(shutdown)) else { break };
            let able = self.options.daemon.as_ref().map(|daemon| Scope::Able((daemon.able)()));
            let scope = able.as_ref().unwrap_or(scope);
            let wait = Wait { seen, at_most: LONGEST_WAIT };
            let claimed = match self.parts.ledger.claim(scope, want, self.options.lease, wait) {
                Ok(claimed) => claimed,
                Err(error) if self.is_daemon() => {
                    self.store_failed("claim work", false, &error.into());
                    self.jobs.flow.pause(pause, || self.is_over(shutdown));
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            pause = FIRST_PAUSE;
            self.store_answers(&[Store::Queue], false);
            if claimed.is_empty() {
                self.look_for_ended()?;
            }
            let jobs = self.jobs.take(claimed, shutdown);
            let alone = self.jobs.flow.is_alone();
            for job in jobs {
                let hand_over = || {
                    if alone {
                        // The claim was on its way when the job that runs alone began.
                        self.commit(job.give_back(Duration::ZERO), settle);
                    } else {
                        queue.give(job);
                    }
                };
                // A panic over one job must not be charged to the other jobs of its claim.
                if let Err(panic) = contain("hand a job to a slot", hand_over) {
                    self.fail(FlowError::Panic(panic));
                }
            }
        }
        Ok(())
    }
}
