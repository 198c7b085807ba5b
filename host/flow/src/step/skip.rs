//! A step that is skipped: the run's pipeline says `on_failure: finish`, and another step has failed.

use dovetail_core::keys::NodeId;
use dovetail_core::ledger::{Kind, Operation, Record};
use dovetail_core::record::{AttemptRecord, Form as _, OutcomeRecord, StepEnd};

use super::work::Work;
use super::{Conclusion, JobOutcome, StepRunner};

impl StepRunner {
    /// The record of a step that is not to start, since `failed_step` has failed. The step's input is neither read nor
    /// measured: whatever is wrong with the input, a skipped step is skipped.
    pub(super) fn skip(&self, work: &Work<'_>, failed_step: NodeId) -> JobOutcome {
        let (lease, step) = (&work.claimed.lease, work.step);
        let attempts: Vec<AttemptRecord> = work.before.iter().map(|retry| retry.failed.clone()).collect();
        let now_ms = self.ports.clock.wall_ms();
        let outcome = OutcomeRecord {
            end: StepEnd::Skipped { failed_step: Some(failed_step.clone()) },
            started_ms: attempts.first().map_or(now_ms, |first| first.started_ms),
            attempts,
            package: step.package,
            models: Vec::new(),
            consumed: Vec::new(),
            produced: Vec::new(),
            log: None,
            log_lines: Vec::new(),
            log_dropped: 0,
            spent_us: work.spent_us,
            finished_ms: now_ms,
        };
        let record = Record { kind: Kind::Outcome, key: lease.run.step(&lease.step), value: outcome.encode() };
        let (succeeded, close, children) = (false, None, Vec::new());
        let change = Operation::Finish { lease: lease.clone(), record, succeeded, close, children };
        JobOutcome::commit(change, Conclusion::Skipped { failed_step })
    }
}
