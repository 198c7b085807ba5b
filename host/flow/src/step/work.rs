//! A claimed job with everything that was read for it, and the record of its step's outcome.

use std::borrow::Cow;

use dovetail_core::Digest;
use dovetail_core::executor::{Failure, FailureKind, Models, Outcome, Report};
use dovetail_core::ledger::Claimed;
use dovetail_core::limits::MAX_VALUE;
use dovetail_core::manifest::show_size;
use dovetail_core::pipeline::Step;
use dovetail_core::record::{AttemptRecord, Consumed, OutcomeRecord, Produced, RetryRecord, StepEnd};
use serde_json::Value;

use super::Plan;
use crate::truth::{store_log, store_value};
use crate::{FlowError, Ports};

/// A claimed job with everything that was read for it.
pub(super) struct Work<'a> {
    pub(super) claimed: &'a Claimed,
    pub(super) plan: &'a Plan,
    pub(super) step: &'a Step,
    pub(super) input: Value,
    /// Field-level lineage of `input`.
    pub(super) consumed: Vec<Consumed>,
    /// The records of earlier attempts at the step, the first one first.
    pub(super) before: Vec<RetryRecord>,
    /// The time that the run's timeout counts, in microseconds: the sum of the attempts and retry delays along the
    /// longest path to this attempt. A sum of durations compares no two machines' clocks, and includes neither the time
    /// in the queue nor an interruption.
    pub(super) spent_us: u64,
    /// The models that are chosen for the run, as far as this process knows them.
    pub(super) models: Cow<'a, Models>,
}

impl Work<'_> {
    /// The rest of the run's timeout, in milliseconds. `None`: the run has no timeout.
    pub(super) fn left_ms(&self) -> Option<u64> {
        self.plan.pipeline.timeout_ms.map(|timeout| timeout.saturating_sub(self.spent_us / 1000))
    }

    /// The number of earlier attempts that were not charged.
    pub(super) fn uncharged(&self) -> u32 {
        uncharged(&self.before)
    }

    /// Sets the input and its lineage.
    ///
    /// # Errors
    /// `input_too_large` above [`MAX_VALUE`].
    pub(super) fn take_input(&mut self, input: Value) -> Result<(), Failure> {
        let origins = self.plan.pipeline.origins(self.step);
        let fields: Vec<Written<'_>> = written(&input).collect();
        let bytes = written_size(&fields);
        let consume = |(name, digest, _): &Written<'_>| Consumed {
            input: self.step.input_field_id(name),
            origin: origins.get(*name).cloned(),
            digest: *digest,
        };
        self.consumed = fields.iter().map(consume).collect();
        if bytes > MAX_VALUE {
            // `max_by_key` returns the last of equal elements, so `rev` makes it the first field.
            let largest = fields.iter().rev().max_by_key(|(.., length)| *length);
            let (name, length) = largest.map_or(("", 0), |(name, _, length)| (*name, *length));
            let message = format!(
                "the input has {bytes} bytes as JSON, {length} of them in `{name}`: the most is {}; \
                 pass bulk data as an artifact",
                show_size(MAX_VALUE)
            );
            return Err(Failure::new(FailureKind::Limit, "input_too_large", message));
        }
        self.input = input;
        Ok(())
    }

    /// The record of the step's outcome. Stores a large output and a long log as blobs.
    pub(super) fn outcome(
        &mut self,
        ports: &Ports,
        report: Report,
        this: AttemptRecord,
    ) -> Result<OutcomeRecord, FlowError> {
        let (step, consumed) = (self.step, std::mem::take(&mut self.consumed));
        let (end, produced) = match report.outcome {
            Outcome::Succeeded { output } => {
                let fields: Vec<Written<'_>> = written(&output).collect();
                let bytes = written_size(&fields);
                let produce = |(name, digest, _)| Produced { output: step.output_field_id(name), digest };
                let produced = fields.into_iter().map(produce).collect();
                (StepEnd::Succeeded(store_value(ports, output, bytes)?), produced)
            }
            Outcome::Failed { failure } => (StepEnd::Failed(failure), Vec::new()),
        };
        let (log, log_lines) = store_log(ports, report.log)?;
        let finished_ms = ports.clock.wall_ms();
        let mut attempts: Vec<AttemptRecord> = self.before.iter().map(|retry| retry.failed.clone()).collect();
        let started_ms = attempts.first().unwrap_or(&this).started_ms;
        let spent_us = self.spent_us + this.duration_us;
        attempts.push(this);
        let (package, models, log_dropped) = (step.package, report.models, report.log_dropped);
        Ok(OutcomeRecord {
            end,
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

/// A field of a record, with the digest and the length of its value as JSON.
type Written<'v> = (&'v str, Digest, usize);

fn written(record: &Value) -> impl Iterator<Item = Written<'_>> {
    record.as_object().into_iter().flatten().map(|(name, value)| {
        let text = value.to_string();
        (name.as_str(), Digest::of(text.as_bytes()), text.len())
    })
}

/// The length of a record with these fields as JSON, in bytes.
fn written_size(fields: &[Written<'_>]) -> u64 {
    let between = fields.len().saturating_sub(1);
    let fields = fields.iter().map(|(name, _, length)| "\"\":".len() + name.len() + length);
    ("{}".len() + between + fields.sum::<usize>()) as u64
}
