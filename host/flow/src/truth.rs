//! All records of a run, read at once, for decisions that must not rely on the copies that a claimed job carries.

use std::collections::BTreeMap;

use dovetail_core::blobs::{ArtifactRef, BlobKind, StoreError, StoreErrorKind};
use dovetail_core::executor::{Failure, FailureKind, LogLine, Models};
use dovetail_core::keys::NodeId;
use dovetail_core::ledger::{Kind, Record, RunKey};
use dovetail_core::limits::{MAX_INLINE_LOG, MAX_INLINE_VALUE, MAX_VALUE};
use dovetail_core::pipeline::Pipeline;
use dovetail_core::record::{
    CancelRecord, Form, OutcomeRecord, RetryRecord, RunOutcomeRecord, RunRecord, RunState, StoredValue,
};
use dovetail_core::{Digest, RunId};
use serde_json::Value;

use crate::models::{chosen, model_kinds};
use crate::registry::pinned;
use crate::{FlowError, Ports};

/// The largest log blob that is read, in bytes. The limit of a step's log is smaller.
const MAX_LOG: u64 = 64 << 20;

/// The code of the failure of a step whose attempt was stopped because the run had ended.
pub(crate) const STOPPED: &str = "stopped";

/// The code of the error for a run that has no record.
pub(crate) const UNKNOWN: &str = "unknown_run";

/// Whether a step only failed because its attempt was stopped after the run's end. A task's own failures never have the
/// kind `Cancelled`.
pub(crate) fn is_stopped(failure: &Failure) -> bool {
    failure.kind == FailureKind::Cancelled && failure.code == STOPPED
}

/// One generation of a run, with all its records.
pub(crate) struct Truth {
    pub(crate) key: RunKey,
    pub(crate) run: RunRecord,
    pub(crate) pipeline: Pipeline,
    /// The models that were chosen for the run, at its submission or later.
    pub(crate) models: Models,
    pub(crate) outcomes: BTreeMap<NodeId, OutcomeRecord>,
    /// Failed attempts of steps that have no outcome yet.
    pub(crate) retries: BTreeMap<NodeId, Vec<RetryRecord>>,
    pub(crate) cancel: Option<CancelRecord>,
    pub(crate) outcome: Option<RunOutcomeRecord>,
}

/// The state of a run, derived from its records.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RunProgress {
    /// The run has an outcome.
    Over,
    /// The run has no outcome yet and must be closed with this one.
    Close { state: RunState, failed_step: Option<NodeId> },
    /// Some steps have no outcome and will get one.
    Open,
}

/// The newest generation of a run. Does not check that the run exists.
///
/// # Errors
/// A store's failure.
pub fn current(ports: &Ports, run: &RunId) -> Result<RunKey, FlowError> {
    let mut key = RunKey { run: run.clone(), generation: 0 };
    loop {
        let next = RunKey { generation: key.generation + 1, ..key.clone() };
        if one(ports.ledger.get(Kind::Generation, &[next.key()])?).is_none() {
            return Ok(key);
        }
        key = next;
    }
}

impl Truth {
    /// Reads the newest generation of a run.
    ///
    /// # Errors
    /// `unknown_run`; a store's failure.
    pub(crate) fn read(ports: &Ports, run: &RunId) -> Result<Self, FlowError> {
        Self::read_generation(ports, &current(ports, run)?)
    }

    /// The run's inputs, from the record or from a blob.
    pub(crate) fn inputs(&self, ports: &Ports) -> Result<Value, StoreError> {
        load_value(ports, self.run.inputs.clone())
    }

    /// Reads one generation of a run.
    ///
    /// # Errors
    /// `unknown_run`; a store's failure.
    pub(crate) fn read_generation(ports: &Ports, key: &RunKey) -> Result<Self, FlowError> {
        let (ledger, run) = (&*ports.ledger, &key.run);
        // The run's outcome is read first. If it exists, all outcomes of steps that the run waited for are recorded, so
        // the later reads find them. And `gc` removes a run's record before the run's outcome: if this read finds no
        // outcome, a record that is found afterwards belongs to an open run.
        let end = one(ledger.get(Kind::RunOutcome, &[key.key()])?);
        let Some(bytes) = one(ledger.get(Kind::Run, &[run.to_string()])?) else {
            return Err(unknown(run));
        };
        // The record may belong to a new submission of a run that `gc` has removed; that run has no such generation.
        if key.generation > 0 && end.is_none() && one(ledger.get(Kind::Generation, &[key.key()])?).is_none() {
            return Err(unknown(run));
        }
        let record = RunRecord::decode(&bytes, &format!("run {run}"))?;
        let pipeline = pinned(ports, &record.pipeline)?;
        let models = chosen(ports, run, &record.models, &model_kinds(&pipeline))?.into_owned();
        let mut truth = Self {
            key: key.clone(),
            run: record,
            pipeline,
            models,
            outcomes: BTreeMap::new(),
            retries: BTreeMap::new(),
            cancel: None,
            outcome: None,
        };
        let what = format!("run {run}");
        truth.outcome = end.map(|b| RunOutcomeRecord::decode(&b, &what)).transpose()?;
        let cancel = one(ledger.get(Kind::Cancel, &[truth.key.key()])?);
        truth.cancel = cancel.map(|b| CancelRecord::decode(&b, &what)).transpose()?;
        let nodes: Vec<NodeId> = truth.pipeline.steps.iter().map(|step| NodeId::of_step(&step.name)).collect();
        let keys: Vec<String> = nodes.iter().map(|node| truth.key.step(node)).collect();
        for (node, bytes) in nodes.into_iter().zip(ledger.get(Kind::Outcome, &keys)?) {
            if let Some(bytes) = bytes {
                let outcome = OutcomeRecord::decode(&bytes, &format!("step {node} of run {run}"))?;
                truth.outcomes.insert(node, outcome);
            } else {
                let retries = retries(ports, &truth.key, &node, u32::MAX)?;
                truth.retries.insert(node, retries);
            }
        }
        Ok(truth)
    }

    /// The outcome of a step that runs once. `None`: the step has none yet.
    pub(crate) fn outcome_of(&self, step: &str) -> Option<&OutcomeRecord> {
        self.outcomes.get(&NodeId::of_step(step))
    }

    /// The first failed step in the pipeline's order, without steps that were stopped after the run's end.
    pub(crate) fn failed_step(&self) -> Option<NodeId> {
        let failed = |step: &&dovetail_core::pipeline::Step| {
            self.outcome_of(&step.name).and_then(OutcomeRecord::failure).is_some_and(|f| !is_stopped(f))
        };
        self.pipeline.steps.iter().find(failed).map(|step| NodeId::of_step(&step.name))
    }

    /// The number of the next attempt at a step that has no outcome.
    pub(crate) fn attempt(&self, step: &str) -> u32 {
        1 + u32::try_from(self.retries.get(&NodeId::of_step(step)).map_or(0, Vec::len)).unwrap_or(0)
    }

    /// The state of the run, from its outcome, its cancellation and the outcomes of its steps.
    pub(crate) fn progress(&self) -> RunProgress {
        use dovetail_core::pipeline::OnFailure;
        if self.outcome.is_some() {
            return RunProgress::Over;
        }
        let failed = self.failed_step();
        if self.cancel.is_some() {
            return RunProgress::Close { state: RunState::Cancelled, failed_step: failed };
        }
        if failed.is_some() && self.pipeline.on_failure == OnFailure::Cancel {
            return RunProgress::Close { state: RunState::Failed, failed_step: failed };
        }
        // A step that needs a failed step, directly or not, will never have an outcome.
        let mut never: Vec<&str> = Vec::new();
        for step in &self.pipeline.steps {
            let needs = self.pipeline.needs(step);
            let blocked =
                needs.iter().any(|need| never.contains(need) || self.outcome_of(need).is_some_and(|o| !o.succeeded()));
            if blocked {
                never.push(&step.name);
            } else if self.outcome_of(&step.name).is_none() {
                return RunProgress::Open;
            }
        }
        let state = if failed.is_some() { RunState::Failed } else { RunState::Succeeded };
        RunProgress::Close { state, failed_step: failed }
    }
}

pub(crate) fn unknown(run: &RunId) -> FlowError {
    FlowError::refused(UNKNOWN, format!("there is no run {run}"), "see `dovetail runs list`")
}

pub(crate) fn is_recorded(ports: &Ports, kind: Kind, key: String) -> Result<bool, StoreError> {
    Ok(one(ports.ledger.get(kind, &[key])?).is_some())
}

/// The first artifact that `value` names, at any depth, and that is not stored.
pub(crate) fn missing_artifact(ports: &Ports, value: &Value) -> Result<Option<ArtifactRef>, StoreError> {
    for artifact in ArtifactRef::all_in(value) {
        if ports.blobs.size(BlobKind::Artifact, &artifact.digest)?.is_none() {
            return Ok(Some(artifact));
        }
    }
    Ok(None)
}

fn one(mut got: Vec<Option<Vec<u8>>>) -> Option<Vec<u8>> {
    got.pop().flatten()
}

/// The records of attempts 2 to `upto` at a step, in order. Each holds the failure of the attempt before it.
pub(crate) fn retries(ports: &Ports, key: &RunKey, step: &NodeId, upto: u32) -> Result<Vec<RetryRecord>, FlowError> {
    let mut found = Vec::new();
    for number in 2..=upto {
        let Some(bytes) = one(ports.ledger.get(Kind::Attempt, &[key.attempt(step, number)])?) else {
            break;
        };
        found.push(RetryRecord::decode(&bytes, &format!("attempt {number} at step {step} of run {}", key.run))?);
    }
    Ok(found)
}

/// Keeps a value of `bytes` bytes of JSON: inline for its record, or as a blob above [`MAX_INLINE_VALUE`].
pub(crate) fn store_value(ports: &Ports, value: Value, bytes: u64) -> Result<StoredValue, StoreError> {
    if bytes <= MAX_INLINE_VALUE {
        return Ok(StoredValue::Inline(value));
    }
    let text = value.to_string();
    let digest = ports.blobs.put(BlobKind::Value, text.as_bytes())?;
    Ok(StoredValue::Blob { digest, bytes: text.len() as u64 })
}

/// The value, from its record or from its blob.
pub(crate) fn load_value(ports: &Ports, stored: StoredValue) -> Result<Value, StoreError> {
    match stored {
        StoredValue::Inline(value) => Ok(value),
        StoredValue::Blob { digest, .. } => {
            let bytes = ports.blobs.get(BlobKind::Value, &digest, MAX_VALUE)?;
            serde_json::from_slice(&bytes)
                .map_err(|e| StoreError::new(StoreErrorKind::Corrupt, format!("read the value {digest}"), e))
        }
    }
}

/// Keeps a log: inline for its record, or as a blob of JSON lines above [`MAX_INLINE_LOG`].
pub(crate) fn store_log(ports: &Ports, lines: Vec<LogLine>) -> Result<(Option<Digest>, Vec<LogLine>), StoreError> {
    let mut text = Vec::new();
    for line in &lines {
        text.extend(
            serde_json::to_vec(line).map_err(|e| StoreError::new(StoreErrorKind::Corrupt, "write a log line", e))?,
        );
        text.push(b'\n');
    }
    if text.len() <= MAX_INLINE_LOG {
        return Ok((None, lines));
    }
    Ok((Some(ports.blobs.put(BlobKind::Log, &text)?), Vec::new()))
}

/// The log of the step's last attempt, from its record or from its blob.
pub(crate) fn load_log(ports: &Ports, outcome: &OutcomeRecord) -> Result<Vec<LogLine>, StoreError> {
    let Some(digest) = &outcome.log else {
        return Ok(outcome.log_lines.clone());
    };
    let bytes = ports.blobs.get(BlobKind::Log, digest, MAX_LOG)?;
    let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    let read = |line| {
        serde_json::from_slice(line)
            .map_err(|e| StoreError::new(StoreErrorKind::Corrupt, format!("read the log {digest}"), e))
    };
    lines.map(read).collect()
}

/// The record of a run's outcome, with the time of now.
pub(crate) fn end(ports: &Ports, key: &RunKey, state: RunState, failed_step: Option<NodeId>) -> Record {
    let end = RunOutcomeRecord { state, failed_step, failure: None, finished_ms: ports.clock.wall_ms() };
    Record { kind: Kind::RunOutcome, key: key.key(), value: end.encode() }
}
