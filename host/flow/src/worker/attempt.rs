//! A slot: one job at a time, from the queue to the outcome of its attempt.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use dovetail_core::ledger::{self, Renewal};
use dovetail_core::panics::contain;
use dovetail_core::policy;
use dovetail_core::record::{Form, RunRecord};
use dovetail_core::sync::lock;

use super::claim::MAX_PAUSE;
use super::job::{Claimed, JobInHand, Started};
use super::job_queue::JobQueue;
use super::settle::ToSettle;
use super::{Event, Worker};
use crate::FlowError;
use crate::error::MISSING_PIPELINE;
use crate::registry::pinned;
use crate::shutdown::Shutdown;
use crate::step::{Conclusion, JobOutcome, Plan, SOON};

/// The delay of a job that this worker could not run, if the cause does not pass by itself. Another worker may be able
/// to run the job.
const PERMANENT_DELAY: Duration = Duration::from_secs(5);
/// The longest pause between claims of a worker that can run no job, if the cause does not pass by itself. Meanwhile
/// other workers claim the jobs.
const MAX_PERMANENT_PAUSE: Duration = Duration::from_secs(30);
/// If a job's lease was not renewed for this fraction of its length, the lease is renewed and the job is verified
/// before the step starts.
const STALE_LEASE: f64 = 0.8;
/// The most plans that a worker caches. A plan that was dropped is read again.
const MAX_PLANS: usize = 1000;

impl Worker {
    /// The work of one slot: runs one job at a time until the queue is closed and empty.
    pub(super) fn run_jobs(
        &self,
        queue: &JobQueue<JobInHand<Claimed>>,
        slot: usize,
        shutdown: &Shutdown,
        settle: &Sender<ToSettle>,
    ) {
        while let Some(job) = queue.pop(slot) {
            let held = job.held_lease().clone();
            let run = || self.run_job(job.start(), queue, shutdown, settle);
            // This is a panic of the host: a guest cannot cause one. The panic dropped the job, so its lease is not
            // renewed any more. When the lease expires, the job is charged with a crash, so a job over which every
            // worker panics fails once it has more than `MAX_CRASHES` crashes.
            if let Err(panic) = contain("run a step", run) {
                let (run, step) = (&held.run.run, &held.step);
                let error = FlowError::panicked(&format!("run step {step} of run {run}"), &panic);
                tracing::error!(%run, %step, err = &error as &dyn std::error::Error, "the host panicked over a step");
                self.fail(error);
            }
        }
    }

    fn run_job(
        &self,
        mut job: JobInHand<Started>,
        queue: &JobQueue<JobInHand<Claimed>>,
        shutdown: &Shutdown,
        settle: &Sender<ToSettle>,
    ) {
        // A job whose workers died may be the cause of their deaths. It runs alone: if this worker dies too, no other
        // job is charged with the crash.
        let crashes = job.job().crashes;
        let alone = (policy::SUSPECT_CRASHES..=policy::MAX_CRASHES).contains(&crashes);
        let release_waiting = || {
            std::iter::from_fn(|| queue.try_pop()).for_each(|job| self.commit(job.give_back(Duration::ZERO), settle));
        };
        let Some(_permit) = self.jobs.flow.try_begin(alone, release_waiting) else {
            return self.commit(job.give_back(Duration::ZERO), settle);
        };
        if job.held_lease().age() > self.options.lease.mul_f64(STALE_LEASE) {
            // This process was suspended or cut off from the ledger. Another worker may have claimed and finished the
            // job by now.
            let lease = job.held_lease().lease();
            match self.ports.ledger.renew(std::slice::from_ref(&lease), self.options.lease) {
                // If the job has got another lease meanwhile, the answer is about the lease before.
                Ok(answers) if answers.first() == Some(&Renewal::Lost) && job.held_lease().lease() == lease => {
                    return job.leave_to_lease();
                }
                _ => job.verify(),
            }
        }
        shutdown.stops(&job.held_lease().canceller);
        if shutdown.draining() || lock(&self.fault).is_some() {
            // The worker stops, and this step has not started.
            return self.commit(job.give_back(Duration::ZERO), settle);
        }
        let ended = match self.attempt(&job) {
            Ok(outcome) => {
                let ran = match &outcome.conclusion {
                    Conclusion::Released => {
                        self.jobs.flow.could_not_run(MAX_PAUSE);
                        false
                    }
                    // Something that the job names is not stored. That shows nothing about this worker, so the circuit
                    // breaker keeps its state.
                    Conclusion::Retried { uncharged: true, .. } => false,
                    // Another worker's outcome counts, or nothing was to do: the circuit breaker keeps its state, too.
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
                // A failure of the host is not charged to the job. If the job were left to its lease instead, it would
                // be charged with a crash. If this release fails too, the lease expires.
                let (delay, max_pause) =
                    if error.may_pass() { (SOON, MAX_PAUSE) } else { (PERMANENT_DELAY, MAX_PERMANENT_PAUSE) };
                let delay = if self.is_daemon() { delay } else { Duration::ZERO };
                match error.unreadable() {
                    Some(subject) => self.jobs.flow.could_not_read(subject, max_pause),
                    None => self.jobs.flow.could_not_run(max_pause),
                }
                self.fail(error);
                job.give_back(delay)
            }
        };
        self.commit(ended, settle);
    }

    /// Makes one attempt at the job, or finds that none is needed.
    ///
    /// # Errors
    /// A failure of a store or of the host: no attempt is charged, and nothing is to be recorded.
    fn attempt(&self, job: &JobInHand<Started>) -> Result<JobOutcome, FlowError> {
        let (canceller, job) = (&job.held_lease().canceller, job.job());
        let (record, plan) = match self.plan(job) {
            Ok(plan) => plan,
            Err(error) => return self.runner.look_again_for_the_plan(job, error),
        };
        let started = || {
            let (run, step, attempt) = (&job.lease.run.run, &job.lease.step, job.attempt);
            if job.crashes > 0 {
                let crashes = job.crashes;
                tracing::warn!(%run, %step, crashes, "the step runs again, because its earlier lease expired");
            }
            self.emit(|| Event::StepStarted { run: run.clone(), step: step.clone(), attempt });
        };
        self.runner.run(job, &record, &plan, &canceller.stop(), &started)
    }

    /// The run's record, and the plan of its pipeline, from the cache or from the stores.
    ///
    /// # Errors
    /// `Corrupt` or `Newer` for the run's record; `missing_pipeline` if the pipeline is not stored; a store's failure.
    fn plan(&self, job: &ledger::Claimed) -> Result<(RunRecord, Arc<Plan>), FlowError> {
        let record = RunRecord::decode(&job.run, &format!("run {}", job.lease.run.run))?;
        if let Some(plan) = lock(&self.plans).get(&record.pipeline) {
            return Ok((record, plan.clone()));
        }
        let pipeline = pinned(&self.ports, &record.pipeline).map_err(|error| match error {
            FlowError::Store(error) => FlowError::of_the_job(MISSING_PIPELINE, error),
            error => error,
        })?;
        let plan = Arc::new(Plan::new(pipeline));
        self.prepare(&plan, job.lease.step.name());
        let mut plans = lock(&self.plans);
        if plans.len() >= MAX_PLANS {
            plans.clear();
        }
        plans.insert(record.pipeline.clone(), plan.clone());
        drop(plans);
        Ok((record, plan))
    }

    /// Prepares the packages of a pipeline that is new to this worker, on a thread of its own while the step
    /// `first_step` runs. So no later step waits for the compilation of its package. The package of `first_step` is
    /// prepared by its own attempt.
    fn prepare(&self, plan: &Plan, first_step: &str) {
        let packages: BTreeSet<_> =
            plan.pipeline.steps.iter().filter(|step| step.name != first_step).map(|step| step.package).collect();
        let executor = self.runner.executor.clone();
        let prepare = move || packages.iter().for_each(|package| executor.prepare(package));
        if let Err(error) = std::thread::Builder::new().name("prepare".into()).spawn(prepare) {
            tracing::warn!(
                err = &error as &dyn std::error::Error,
                "the thread that prepares packages could not be started"
            );
        }
    }
}
