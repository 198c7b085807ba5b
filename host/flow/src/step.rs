//! One claimed job, from the binding of its input to the change that records its outcome.
//!
//! The order of the writes is the commit protocol of `docs/decisions`: artifacts first (the runtime has stored them),
//! then one change with the outcome, the run's outcome or the children, and the acknowledgement.

mod missing;
mod outcome;
mod plan;
mod skip;
mod work;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::executor::{Attempt, Executor, Failure, FailureKind, HostError, Outcome, Report, Usage};
use dovetail_core::ledger::{Claimed, Kind, Lease, Operation, Record};
use dovetail_core::limits::Limits;
use dovetail_core::pipeline::{OnFailure, Source};
use dovetail_core::policy::{self, Backoff};
use dovetail_core::record::{AttemptRecord, Form, OutcomeRecord, RunRecord, RunState, StepEnd, StoredValue};
use dovetail_core::stop::Stop;
use serde_json::Value;

use self::missing::retry;
pub use self::outcome::StepFailure;
pub(crate) use self::outcome::{Conclusion, JobOutcome};
pub(crate) use self::plan::Plan;
use self::work::Work;
use crate::error::MISSING_VALUE;
use crate::models::{choose, with_models};
use crate::recover::reconcile;
use crate::truth::{STOPPED, Truth, end, is_recorded, load_value, retries};
use crate::{FlowError, Ports};

/// The delay of a job that the host could not run for a transient reason.
pub(crate) const SOON: Duration = Duration::from_secs(1);

/// Makes attempts at claimed jobs.
pub(crate) struct StepRunner {
    pub(crate) ports: Ports,
    pub(crate) executor: Arc<dyn Executor>,
    /// The name of this process in the records.
    pub(crate) worker: String,
}

impl StepRunner {
    /// Runs the job and returns the change that records its outcome. If `stop` ended the attempt, the change gives the
    /// job back. `started` is called just before the task is called; a job whose step already has an outcome does not
    /// get there.
    ///
    /// # Errors
    /// A failure of a store or of the host: no attempt is charged, and nothing is to be recorded.
    pub(crate) fn run(
        &self,
        claimed: &Claimed,
        run: &RunRecord,
        plan: &Plan,
        stop: &Stop,
        started: &dyn Fn(),
    ) -> Result<JobOutcome, FlowError> {
        let lease = &claimed.lease;
        let name = &lease.step;
        let step = plan.pipeline.step(name.name()).ok_or_else(|| {
            let what = format!("run step {name} of run {}", lease.run.run);
            StoreError::new(StoreErrorKind::Corrupt, what, format!("pipeline {} has no such step", run.pipeline))
        })?;
        if !name.is_of_step() {
            // The index is part of the step's identity. A newer worker can run the job; this one gives it back.
            // The operation is the same for all such jobs: a run with many of them must not open the circuit breaker.
            let why = format!(
                "step {name} of run {} has an index; this dovetail runs each step of a pipeline once: \
                 use the version that submitted the run",
                lease.run.run
            );
            return Err(StoreError::new(StoreErrorKind::Newer, "run a step with an index", why).into());
        }
        let mut failed_step = None;
        // With `on_failure: finish`, running steps end after a failure and no further step starts. So every claim reads
        // whether a step has failed.
        if claimed.verify || plan.pipeline.on_failure == OnFailure::Finish {
            let truth = Truth::read_generation(&self.ports, &lease.run)?;
            failed_step = truth.failed_step();
            if truth.outcome.is_some() || truth.cancel.is_some() || truth.outcomes.contains_key(name) {
                return Ok(JobOutcome::superseded(reconcile(&self.ports, &lease.run)?));
            }
        }
        let mut needs = Vec::with_capacity(claimed.needs.len());
        for (need, bytes) in &claimed.needs {
            needs
                .push((need.as_str(), OutcomeRecord::decode(bytes, &format!("step {need} of run {}", lease.run.run))?));
        }
        let before =
            if claimed.attempt > 1 { retries(&self.ports, &lease.run, name, claimed.attempt)? } else { Vec::new() };
        let spent_us = needs.iter().map(|(_, outcome)| outcome.spent_us).max().unwrap_or(0)
            + before.iter().map(|retry| retry.failed.duration_us + retry.delay_ms * 1000).sum::<u64>();
        let (input, consumed, models) = (Value::Null, Vec::new(), Cow::Borrowed(&run.models));
        let mut work = Work { claimed, plan, step, input, consumed, before, spent_us, models };
        if let Some(failed_step) = failed_step {
            return Ok(self.skip(&work, failed_step));
        }
        let input = match self.bind(&work, run, needs) {
            Ok(input) => input,
            Err(error) => return self.look_again(work, error),
        };
        if let Err(failure) = work.take_input(input) {
            let this = self.no_attempt(claimed, failure.clone());
            return self.finish(work, failed(failure), this);
        }
        self.attempt(work, stop, started)
    }

    /// The input of the step, from the run's inputs and the outputs of the steps that this step needs.
    fn bind(&self, work: &Work<'_>, run: &RunRecord, needs: Vec<(&str, OutcomeRecord)>) -> Result<Value, FlowError> {
        let load = |stored| load_value(&self.ports, stored).map_err(|e| FlowError::of_the_job(MISSING_VALUE, e));
        let mut outputs = BTreeMap::new();
        for (need, outcome) in needs {
            if let StepEnd::Succeeded(stored) = outcome.end {
                outputs.insert(need, load(stored)?);
            }
        }
        let takes_inputs = work.step.inputs.iter().any(|binding| matches!(binding.source, Source::Input { .. }));
        let large;
        let inputs = match &run.inputs {
            StoredValue::Inline(inputs) => inputs,
            StoredValue::Blob { .. } if !takes_inputs => &Value::Null,
            stored @ StoredValue::Blob { .. } => {
                large = load(stored.clone())?;
                &large
            }
        };
        let bound = work.plan.pipeline.step_input(work.step, inputs, &|need| outputs.get(need));
        bound.map_err(|e| {
            let lease = &work.claimed.lease;
            let what = format!("bind the inputs of step {} of run {}", lease.step, lease.run.run);
            StoreError::new(StoreErrorKind::Corrupt, what, e).into()
        })
    }

    fn attempt(&self, mut work: Work<'_>, stop: &Stop, started: &dyn Fn()) -> Result<JobOutcome, FlowError> {
        let (claimed, step) = (work.claimed, work.step);
        let lease = &claimed.lease;
        let started_ms = self.ports.clock.wall_ms();
        let began_us = self.ports.clock.mono_us();
        let left = work.left_ms();
        let result = if claimed.crashes > policy::MAX_CRASHES {
            let message = format!("{} workers died while they ran this step", claimed.crashes);
            Ok(failed(Failure::new(FailureKind::LostWorker, "poison", message)))
        } else if left == Some(0) {
            Ok(failed(run_timeout(&work, "before this step could start")))
        } else {
            if let Cow::Borrowed(recorded) = work.models {
                let kinds = step.requirements.model_kinds().collect();
                work.models = choose(&self.ports, &*self.executor, &lease.run.run, recorded, &kinds)?;
            }
            let limits = Limits { time_ms: step.limits.time_ms.min(left.unwrap_or(u64::MAX)), ..step.limits };
            let attempt = Attempt {
                run: lease.run.run.clone(),
                step: lease.step.clone(),
                number: claimed.attempt,
                package: step.package,
                idempotency_key: lease.run.step(&lease.step),
                input: std::mem::take(&mut work.input),
                origins: work.plan.pipeline.origins(step),
                limits,
                models: work.models.clone().into_owned(),
            };
            started();
            self.executor.execute(&attempt, stop)
        };
        let mut report = match result {
            Ok(report) => report,
            Err(error) if error.missing.is_some() => return self.look_again(work, error.into()),
            Err(error) => return self.host_failed(&work, error),
        };
        let stopped = matches!(&report.outcome, Outcome::Failed { failure } if failure.kind == FailureKind::Cancelled)
            && stop.cancelled();
        if stopped && !self.over(lease)? {
            let release = Operation::Release { lease: lease.clone(), delay: Duration::ZERO };
            return Ok(JobOutcome::commit(release, Conclusion::Stopped));
        }
        let duration_us = self.ports.clock.mono_us().saturating_sub(began_us);
        if stopped {
            // The run had ended: the stopped attempt is recorded as part of the run's history.
            let message = "the run had ended, so this attempt was stopped";
            report.outcome = Outcome::Failed { failure: Failure::new(FailureKind::Cancelled, STOPPED, message) };
        }
        if let (Outcome::Failed { failure }, Some(left)) = (&mut report.outcome, left)
            && failure.kind == FailureKind::Timeout
            && left < step.limits.time_ms
        {
            // The run's timeout was shorter than the step's own limit, so the run's timeout ended this attempt.
            let message = run_timeout(&work, "while this step ran").message;
            *failure = Failure { kind: FailureKind::Limit, message, ..failure.clone() };
        }
        let error = match &report.outcome {
            Outcome::Succeeded { .. } => None,
            Outcome::Failed { failure } => Some(failure.clone()),
        };
        let this = AttemptRecord {
            number: claimed.attempt,
            started_ms,
            duration_us,
            error,
            usage: report.usage.clone(),
            models: report.models.clone(),
            warnings: report.warnings.clone(),
            worker: self.worker.clone(),
            // The queue counts lost workers for the job, over all its attempts.
            lost_workers: claimed
                .crashes
                .saturating_sub(work.before.iter().map(|retry| retry.failed.lost_workers).sum()),
            uncharged: false,
        };
        if let Outcome::Failed { failure } = &report.outcome {
            // No retry that could only begin after the run's timeout.
            let in_time = |delay: Duration| {
                left.is_none_or(|left| u128::from(left) > u128::from(duration_us / 1000) + delay.as_millis())
            };
            let backoff = Backoff {
                first: Duration::from_millis(step.retry.backoff_ms),
                max: Duration::from_millis(step.retry.max_backoff_ms),
            };
            let number = claimed.attempt.saturating_sub(work.uncharged());
            let next = policy::after(failure, number, step.retry.max_attempts, backoff, spread(lease.token));
            if let policy::RetryDecision::Retry(delay) = next
                && in_time(delay)
            {
                return Ok(retry(claimed, this, delay));
            }
        }
        self.finish(work, report, this)
    }

    /// Whether the run has an outcome or is cancelled, by its records.
    fn over(&self, lease: &Lease) -> Result<bool, FlowError> {
        let key = lease.run.key();
        Ok(is_recorded(&self.ports, Kind::RunOutcome, key.clone())? || is_recorded(&self.ports, Kind::Cancel, key)?)
    }

    /// The host failed, so the attempt is not charged. After a transient error the job is given back for [`SOON`].
    ///
    /// # Errors
    /// `error` itself if it is permanent, or if a resource limit of this process caused it: a program that runs its own
    /// runs would meet that limit again and again.
    fn host_failed(&self, work: &Work<'_>, error: HostError) -> Result<JobOutcome, FlowError> {
        let lease = work.claimed.lease.clone();
        if !error.transient || error.scarce().is_some() {
            return Err(error.into());
        }
        let (run, step, err) = (&lease.run.run, &lease.step, &error as &dyn std::error::Error);
        tracing::error!(%run, %step, err, "the host could not make an attempt");
        Ok(JobOutcome::commit(Operation::Release { lease, delay: SOON }, Conclusion::Released))
    }

    fn finish(&self, mut work: Work<'_>, report: Report, this: AttemptRecord) -> Result<JobOutcome, FlowError> {
        let (claimed, plan, step) = (work.claimed, work.plan, work.step);
        let lease = &claimed.lease;
        let micros = this.duration_us;
        let failure = this.error.as_ref().map(StepFailure::of);
        let succeeded = failure.is_none();
        // A stopped step does not decide how its run ends. The run was cancelled or ended elsewhere, and a cancelled
        // run may not be closed yet.
        let fails = failure.as_ref().is_some_and(|failure| !failure.stopped);
        let record = work.outcome(&self.ports, report, this)?;
        let record = Record { kind: Kind::Outcome, key: lease.run.step(&lease.step), value: record.encode() };
        let state = if succeeded {
            plan.closes(&step.name).then_some(RunState::Succeeded)
        } else {
            (fails && plan.pipeline.on_failure == OnFailure::Cancel).then_some(RunState::Failed)
        };
        let close = state.map(|state| end(&self.ports, &lease.run, state, (!succeeded).then(|| lease.step.clone())));
        let children = if succeeded { with_models(plan.children(&step.name), &work.models) } else { Vec::new() };
        let change = Some(Operation::Finish { lease: lease.clone(), record, succeeded, close, children });
        Ok(JobOutcome { change, conclusion: Conclusion::Finished { failure, micros }, run_state: state })
    }
}

fn failed(failure: Failure) -> Report {
    Report {
        outcome: Outcome::Failed { failure },
        usage: Usage::default(),
        models: Vec::new(),
        warnings: Vec::new(),
        log: Vec::new(),
        log_dropped: 0,
    }
}

fn run_timeout(work: &Work<'_>, when: &str) -> Failure {
    let timeout = work.plan.pipeline.timeout_ms.unwrap_or(0);
    let message =
        format!("the run's timeout of {} was over {when}", dovetail_core::manifest::show_duration_ms(timeout));
    // Not `FailureKind::Timeout`, which is retried.
    Failure::new(FailureKind::Limit, "timeout", message)
}

/// The jitter of a retry, from 0 to 1. Derived from the lease's token: the jitter needs no real randomness.
fn spread(token: u64) -> f64 {
    f64::from(u16::try_from(token.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48).unwrap_or(0)) / f64::from(u16::MAX)
}
