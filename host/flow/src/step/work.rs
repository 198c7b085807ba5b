//! A claimed job with everything that was read for it, and the record of how its step ended.

use std::borrow::Cow;

use dovetail_core::Digest;
use dovetail_core::executor::{Failure, FailureKind, Models, Outcome, Report};
use dovetail_core::ledger::Claimed;
use dovetail_core::limits::MAX_VALUE;
use dovetail_core::manifest::show_size;
use dovetail_core::pipeline::Step;
use dovetail_core::record::{AttemptRecord, Consumed, OutcomeRecord, Produced, RetryRecord};
use serde_json::Value;

use super::Plan;
use crate::truth::{store_log, store_value};
use crate::{FlowError, Parts};

/// A claimed job with everything that was read for it.
pub(super) struct Work<'a> {
    pub(super) claimed: &'a Claimed,
    pub(super) plan: &'a Plan,
    pub(super) step: &'a Step,
    pub(super) input: Value,
    /// Field-level lineage of `input`.
    pub(super) consumed: Vec<Consumed>,
    pub(super) before: Vec<RetryRecord>,
    /// Another step has failed: this one is not to start.
    pub(super) skipped: bool,
    /// Microseconds along the longest path to this attempt: the run's own time, as its timeout counts it. It is a sum
    /// of lengths, so no two machines' clocks are compared, and neither the queue nor an interruption is in it.
    pub(super) spent_us: u64,
    /// The models that are chosen for the run, as far as they are known here.
    pub(super) models: Cow<'a, Models>,
}

impl Work<'_> {
    /// What is left of the run's timeout, in milliseconds; none: it has no timeout.
    pub(super) fn left_ms(&self) -> Option<u64> {
        self.plan.pipeline.timeout_ms.map(|timeout| timeout.saturating_sub(self.spent_us / 1000))
    }

    /// Attempts so far that did not count.
    pub(super) fn uncharged(&self) -> u32 {
        uncharged(&self.before)
    }

    /// Takes the input, if it is not too large.
    pub(super) fn take_input(&mut self, input: Value) -> Result<(), Failure> {
        let origins = self.plan.pipeline.origins(self.step);
        let (mut bytes, mut largest) = (0, ("", 0));
        for (name, digest, length) in written(&input) {
            bytes += length as u64;
            if length > largest.1 {
                largest = (name, length);
            }
            let (input, origin) = (self.step.input_field_id(name), origins.get(name).cloned());
            self.consumed.push(Consumed { input, origin, digest });
        }
        if bytes > MAX_VALUE {
            let message = format!(
                "the input has {bytes} bytes as JSON, {} of them in `{}`: the most is {}; pass bulk data as an artifact",
                largest.1,
                largest.0,
                show_size(MAX_VALUE)
            );
            return Err(Failure::new(FailureKind::Limit, "input_too_large", message));
        }
        self.input = input;
        Ok(())
    }

    /// The record of how the step ended.
    pub(super) fn outcome(
        &self,
        parts: &Parts,
        report: Report,
        this: AttemptRecord,
    ) -> Result<OutcomeRecord, FlowError> {
        let Self { step, before, .. } = self;
        let consumed = self.consumed.clone();
        let (output, failure, produced) = match report.outcome {
            Outcome::Succeeded { output } => {
                let (mut produced, mut bytes) = (Vec::new(), "{}".len());
                for (name, digest, length) in written(&output) {
                    bytes += "\"\":".len() + name.len() + length + usize::from(!produced.is_empty());
                    produced.push(Produced { output: step.output_field_id(name), digest });
                }
                (Some(store_value(parts, output, bytes as u64)?), None, produced)
            }
            Outcome::Failed { failure } => (None, Some(failure), Vec::new()),
        };
        let (log, log_lines) = store_log(parts, report.log)?;
        let finished_ms = parts.clock.wall_ms();
        let mut attempts: Vec<AttemptRecord> = before.iter().map(|retry| retry.failed.clone()).collect();
        let started_ms = attempts.first().unwrap_or(&this).started_ms;
        let spent_us = self.spent_us + this.duration_us;
        // A step that was skipped had none.
        if !self.skipped {
            attempts.push(this);
        }
        let (package, models, log_dropped) = (step.package, report.models, report.log_dropped);
        Ok(OutcomeRecord {
            output,
            failure,
            attempts,
            package,
            models,
            consumed,
            produced,
            log,
            log_lines,
            log_dropped,
            spent_us,
            started_ms,
            finished_ms,
        })
    }
}

pub(super) fn uncharged(before: &[RetryRecord]) -> u32 {
    u32::try_from(before.iter().filter(|retry| retry.failed.uncharged).count()).unwrap_or(u32::MAX)
}

/// A field of a record, and its value as it is written: digest and length.
type Written<'v> = (&'v str, Digest, usize);

fn written(record: &Value) -> impl Iterator<Item = Written<'_>> {
    record.as_object().into_iter().flatten().map(|(name, value)| {
        let text = value.to_string();
        (name.as_str(), Digest::of(text.as_bytes()), text.len())
    })
}
