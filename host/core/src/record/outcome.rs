//! The record of how a step ended: it succeeded, it failed, or it was skipped. See decision 16.

use std::collections::BTreeMap;

use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::{AttemptRecord, Consumed, Form, Produced, StoredValue};
use crate::executor::{Failure, FailureKind, LogLine, ModelUse};
use crate::id::Digest;
use crate::keys::NodeId;

/// The code under which a skipped step is stored. Its failure has the kind `cancelled`, and no task can return that
/// kind.
const SKIPPED: &str = "skipped";
/// The detail of that failure that names the failed step.
const FAILED_STEP: &str = "failed_step";

/// How a step ended.
#[derive(Debug, Clone, PartialEq)]
pub enum StepEnd {
    /// The step succeeded, with this output record.
    Succeeded(StoredValue),
    /// The step failed; this is the failure of its last attempt. This includes an attempt that was stopped because its
    /// run was over: the attempt was made, and its failure is a cancellation.
    Failed(Failure),
    /// The step was skipped: no attempt, or no further one, was made, because another step had failed (`on_failure:
    /// finish`).
    Skipped {
        /// The step that had failed. `None` in a record of an older dovetail, which did not name it.
        failed_step: Option<NodeId>,
    },
}

/// The outcome of a step. Key: `run:step:generation`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "OutcomeForm")]
pub struct OutcomeRecord {
    /// How the step ended.
    #[serde(flatten)]
    pub end: StepEnd,
    /// All attempts, in order. For a skipped step, the attempts before it was skipped.
    pub attempts: Vec<AttemptRecord>,
    /// The digest of the package that ran.
    pub package: Digest,
    /// The models that were used, in the order of their first use.
    pub models: Vec<ModelUse>,
    /// Lineage: the values that went into each input field. A skipped step consumed none.
    pub consumed: Vec<Consumed>,
    /// Lineage: the values of each output field.
    pub produced: Vec<Produced>,
    /// The log of the last attempt, if it is larger than [`crate::limits::MAX_INLINE_LOG`]
    /// ([`crate::blobs::BlobKind::Log`]).
    pub log: Option<Digest>,
    /// The log of the last attempt otherwise. An older dovetail ignores this field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log_lines: Vec<LogLine>,
    /// The number of log lines that were dropped because of the log's limit.
    pub log_dropped: u64,
    /// Time in microseconds along the longest path to the end of this step: its own attempts and the delays between
    /// them, plus the largest `spent_us` of its prerequisites. The run's timeout limits this time. Waiting in the queue
    /// and interruptions do not count.
    pub spent_us: u64,
    /// The time at which the first attempt started, in milliseconds since 1970.
    pub started_ms: u64,
    /// The time at which the last attempt ended, in milliseconds since 1970.
    pub finished_ms: u64,
}

impl OutcomeRecord {
    /// Whether the step succeeded.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        matches!(self.end, StepEnd::Succeeded(_))
    }

    /// The output record, if the step succeeded.
    #[must_use]
    pub fn output(&self) -> Option<&StoredValue> {
        match &self.end {
            StepEnd::Succeeded(output) => Some(output),
            StepEnd::Failed(_) | StepEnd::Skipped { .. } => None,
        }
    }

    /// The failure, if the step failed. A skipped step did not fail.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match &self.end {
            StepEnd::Failed(failure) => Some(failure),
            StepEnd::Succeeded(_) | StepEnd::Skipped { .. } => None,
        }
    }
}

impl Form for OutcomeRecord {
    const FORMAT: &'static str = "dovetail.outcome/1";
}

/// The stored form of an [`OutcomeRecord`]. Exactly one of `output` and `failure` is present.
#[derive(Deserialize)]
struct OutcomeForm {
    output: Option<StoredValue>,
    failure: Option<Failure>,
    attempts: Vec<AttemptRecord>,
    package: Digest,
    models: Vec<ModelUse>,
    consumed: Vec<Consumed>,
    produced: Vec<Produced>,
    log: Option<Digest>,
    #[serde(default)]
    log_lines: Vec<LogLine>,
    log_dropped: u64,
    #[serde(default)]
    spent_us: u64,
    started_ms: u64,
    finished_ms: u64,
}

impl TryFrom<OutcomeForm> for OutcomeRecord {
    type Error = &'static str;

    fn try_from(form: OutcomeForm) -> Result<Self, Self::Error> {
        let end = match (form.output, form.failure) {
            (Some(output), None) => StepEnd::Succeeded(output),
            (None, Some(failure)) if failure.kind == FailureKind::Cancelled && failure.code == SKIPPED => {
                let failed_step =
                    failure.details.get(FAILED_STEP).and_then(Value::as_str).and_then(|step| step.parse().ok());
                StepEnd::Skipped { failed_step }
            }
            (None, Some(failure)) => StepEnd::Failed(failure),
            (Some(_), Some(_)) => return Err("it has both an output and a failure"),
            (None, None) => return Err("it has neither an output nor a failure"),
        };
        Ok(Self {
            end,
            attempts: form.attempts,
            package: form.package,
            models: form.models,
            consumed: form.consumed,
            produced: form.produced,
            log: form.log,
            log_lines: form.log_lines,
            log_dropped: form.log_dropped,
            spent_us: form.spent_us,
            started_ms: form.started_ms,
            finished_ms: form.finished_ms,
        })
    }
}

impl Serialize for StepEnd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let skipped;
        let (output, failure) = match self {
            Self::Succeeded(output) => (Some(output), None),
            Self::Failed(failure) => (None, Some(failure)),
            Self::Skipped { failed_step } => {
                skipped = skipped_failure(failed_step.as_ref());
                (None, Some(&skipped))
            }
        };
        let mut form = serializer.serialize_struct("StepEnd", 2)?;
        form.serialize_field("output", &output)?;
        form.serialize_field("failure", &failure)?;
        form.end()
    }
}

/// The failure that stands for a skipped step in version 1 of the form.
fn skipped_failure(failed_step: Option<&NodeId>) -> Failure {
    let message = "another step of the run had failed before this one could start";
    let details: BTreeMap<String, Value> =
        failed_step.into_iter().map(|step| (FAILED_STEP.to_owned(), Value::from(step.as_str()))).collect();
    Failure { details, ..Failure::new(FailureKind::Cancelled, SKIPPED, message) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blobs::StoreErrorKind;

    fn record(end: StepEnd) -> OutcomeRecord {
        OutcomeRecord {
            end,
            attempts: Vec::new(),
            package: Digest::of(b"p"),
            models: Vec::new(),
            consumed: Vec::new(),
            produced: Vec::new(),
            log: None,
            log_lines: Vec::new(),
            log_dropped: 0,
            spent_us: 7,
            started_ms: 8,
            finished_ms: 9,
        }
    }

    /// The stored text with this `output` and `failure`, as every version has written it.
    fn text(output: &str, failure: &str) -> String {
        let package = Digest::of(b"p");
        let head = format!(r#"{{"format":"dovetail.outcome/1","output":{output},"failure":{failure},"attempts":[],"#);
        let lineage = format!(r#""package":"{package}","models":[],"consumed":[],"produced":[],"#);
        head + &lineage + r#""log":null,"log_dropped":0,"spent_us":7,"started_ms":8,"finished_ms":9}"#
    }

    #[test]
    fn every_end_is_stored_in_the_first_version_of_the_form() {
        const FAILURE: &str =
            r#"{"kind":"cancelled","code":"stopped","message":"the run had ended","retryable":false}"#;
        const SKIPPED: &str = concat!(
            r#"{"kind":"cancelled","code":"skipped","#,
            r#""message":"another step of the run had failed before this one could start","retryable":false}"#
        );
        let named = SKIPPED.replace("false}", r#"false,"details":{"failed_step":"a"}}"#);
        let stopped = Failure::new(FailureKind::Cancelled, "stopped", "the run had ended");
        let output = StoredValue::Inline(serde_json::json!({ "sum": 3 }));
        for (end, output, failure) in [
            (StepEnd::Succeeded(output), r#"{"inline":{"sum":3}}"#, "null"),
            (StepEnd::Failed(stopped), "null", FAILURE),
            (StepEnd::Skipped { failed_step: None }, "null", SKIPPED),
            (StepEnd::Skipped { failed_step: Some(NodeId::of_step("a")) }, "null", &named),
        ] {
            let (record, text) = (record(end), text(output, failure));
            assert_eq!(String::from_utf8(record.encode()).unwrap(), text);
            assert_eq!(OutcomeRecord::decode(text.as_bytes(), "step s").unwrap(), record);
        }
    }

    #[test]
    fn a_skipped_step_neither_succeeded_nor_failed() {
        let skipped = record(StepEnd::Skipped { failed_step: None });
        assert!(!skipped.succeeded() && skipped.output().is_none() && skipped.failure().is_none());
    }

    #[test]
    fn a_code_of_a_task_is_no_skip() {
        let failure = Failure::new(FailureKind::Failed, SKIPPED, "by the task");
        let failed = record(StepEnd::Failed(failure.clone()));
        let read = OutcomeRecord::decode(&failed.encode(), "step s").unwrap();
        assert_eq!(read.failure(), Some(&failure));
    }

    #[test]
    fn a_record_with_two_ends_or_none_is_damaged() {
        let failure = r#"{"kind":"failed","code":"c","message":"m","retryable":false}"#;
        for (output, failure) in [(r#"{"inline":{}}"#, failure), ("null", "null")] {
            let error = OutcomeRecord::decode(text(output, failure).as_bytes(), "step s").unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Corrupt, "{output} {failure}");
        }
    }
}
