//! A slot: one job at a time, from the queue to the outcome of its attempt.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use dovetail_core::ledger::{self, Renewal};
use dovetail_core::policy;
use dovetail_core::record::{Form, RunRecord};

use super::claim::LONGEST_PAUSE;
use super::job::{Claimed, JobInHand, Started};
use super::settle::ToSettle;
use super::slots::Slots;
use super::{Event, Worker, locked, panicked};
use crate::FlowError;
use crate::error::MISSING_PIPELINE;
use crate::registry::pinned;
use crate::shutdown::Shutdown;
use crate::step::{Conclusion, JobOutcome, Plan, SOON};

/// How long a job is put off that this worker could not run, for a reason that does not pass by itself: another worker
/// may be able to.
const PUT_OFF: Duration = Duration::from_secs(5);
/// How long a worker that can run nothing, for such a reason, leaves work to others before it tries again.
const LONGEST_LEFT: Duration = Duration::from_secs(30);
/// The part of a lease after which a job that was not renewed is asked for, and verified, before it is begun.
const SURE: f64 = 0.8;
/// Plans kept; any of them can be read again.
const MAX_PLANS: usize = 1000;

impl Worker {
    /// One slot: a job at a time until there are no more.
    pub(super) fn run_jobs(
        &self,
        queue: &Slots<JobInHand<Claimed>>,
        slot: usize,
        shutdown: &Shutdown,
        settle: &Sender<ToSettle>,
    ) {
        while let Some(job) = queue.next(slot) {
            let held = job.held_lease().clone();
            let run = || self.run_job(job.start(), queue, shutdown, settle);
            // A panic here is this program's own. The job was dropped by it, and its lease is renewed no more: when the
            // lease expires, that counts as a worker lost over this job, so that a job which does this each time is
            // given up in the end.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
                let (run, step) = (&held.run.run, &held.step);
                let error = panicked(&format!("run step {step} of run {run}"), panic.as_ref());
                tracing::error!(%run, %step, err = &error as &dyn std::error::Error, "the host panicked over a step");
                self.fail(error);
            }
        }
    }

    fn run_job(
        &self,
        mut job: JobInHand<Started>,
        queue: &Slots<JobInHand<Claimed>>,
        shutdown: &Shutdown,
        settle: &Sender<ToSettle>,
    ) {
        // A job over which workers died may be what kills them: nothing else is in this worker's hands while it runs.
        let crashes = job.job().crashes;
        let alone = (policy::SUSPECT_CRASHES..=policy::MAX_CRASHES).contains(&crashes);
        let give_back_waiting = || {
            std::iter::from_fn(|| queue.take_waiting())
                .for_each(|job| self.commit(job.give_back(Duration::ZERO), settle));
        };
        let Some(_permit) = self.jobs.flow.may_begin(alone, give_back_waiting) else {
            return self.commit(job.give_back(Duration::ZERO), settle);
        };
        if job.held_lease().age() > self.options.lease.mul_f64(SURE) {
            // This process stood still, or was cut off: the job may be another worker's by now, and done.
            match self.parts.ledger.renew(&[job.held_lease().lease()], self.options.lease) {
                Ok(answers) if answers.first() == Some(&Renewal::Lost) => return job.leave_to_lease(),
                _ => job.verify(),
            }
        }
        shutdown.stops(&job.held_lease().canceller);
        if shutdown.draining() || locked(&self.fault).is_some() {
            // The worker was told to stop with jobs in hand.
            return self.commit(job.give_back(Duration::ZERO), settle);
        }
        let ended = match self.attempt(&job) {
            Ok(outcome) => {
                let ran = match &outcome.conclusion {
                    Conclusion::Released => {
                        self.jobs.flow.could_not_run(LONGEST_PAUSE);
                        false
                    }
                    // These say nothing of this worker.
                    Conclusion::Retried { uncharged: true, .. } => false,
                    Conclusion::Superseded => true,
                    Conclusion::Finished { .. }
                    | Conclusion::Skipped { .. }
                    | Conclusion::Retried { .. }
                    | Conclusion::Stopped => {
                        self.jobs.flow.could_run();
                        true
                    }
                };
                job.end(outcome, ran)
            }
            Err(error) => {
                let (run, step, err) = (&job.run().run, job.step(), &error as &dyn std::error::Error);
                tracing::error!(%run, %step, err, help = error.help(), "a step could not be run");
                // The host's own fault is not charged: if the job were not given back, the next worker would count a
                // crash. If this release fails too, the lease expires instead.
                let (delay, leave) = if error.may_pass() { (SOON, LONGEST_PAUSE) } else { (PUT_OFF, LONGEST_LEFT) };
                let delay = if self.is_daemon() { delay } else { Duration::ZERO };
                match error.unreadable() {
                    Some(subject) => self.jobs.flow.could_not_read(subject, leave),
                    None => self.jobs.flow.could_not_run(leave),
                }
                self.fail(error);
                job.give_back(delay)
            }
        };
        self.commit(ended, settle);
    }

    fn attempt(&self, job: &JobInHand<Started>) -> Result<JobOutcome, FlowError> {
        let (canceller, job) = (&job.held_lease().canceller, job.job());
        let (record, plan) = match self.plan(job) {
            Ok(known) => known,
            Err(error) => return self.runner.look_again_for_the_plan(job, error),
        };
        let started = || {
            let (run, step, attempt) = (&job.lease.run.run, &job.lease.step, job.attempt);
            if job.crashes > 0 {
                let lost = job.crashes;
                tracing::warn!(%run, %step, lost, "a step is run again whose worker was not heard of any more");
            }
            self.tell(|| Event::StepStarted { run: run.clone(), step: step.clone(), attempt });
        };
        self.runner.run(job, &record, &plan, &canceller.stop(), &started)
    }

    fn plan(&self, job: &ledger::Claimed) -> Result<(RunRecord, Arc<Plan>), FlowError> {
        let record = RunRecord::decode(&job.run, &format!("run {}", job.lease.run.run))?;
        if let Some(plan) = locked(&self.plans).get(&record.pipeline) {
            return Ok((record, plan.clone()));
        }
        let pipeline = pinned(&self.parts, &record.pipeline).map_err(|error| match error {
            FlowError::Store(error) => FlowError::of_the_job(MISSING_PIPELINE, error),
            other => other,
        })?;
        let plan = Arc::new(Plan::new(pipeline));
        self.prepare(&plan, job.lease.step.name());
        let mut plans = locked(&self.plans);
        if plans.len() >= MAX_PLANS {
            plans.clear();
        }
        plans.insert(record.pipeline.clone(), plan.clone());
        drop(plans);
        Ok((record, plan))
    }

    /// The packages of a pipeline that is new here are made ready beside its first step, so that none of the others
    /// waits for it.
    fn prepare(&self, plan: &Plan, first: &str) {
        let packages: BTreeSet<_> =
            plan.pipeline.steps.iter().filter(|step| step.name != first).map(|step| step.package).collect();
        let executor = self.runner.executor.clone();
        let prepare = move || packages.iter().for_each(|package| executor.prepare(package));
        if let Err(error) = std::thread::Builder::new().name("prepare".into()).spawn(prepare) {
            tracing::warn!(err = &error as &dyn std::error::Error, "no thread to make packages ready");
        }
    }
}
