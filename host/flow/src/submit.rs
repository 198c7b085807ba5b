//! The beginning of a run: its record and its first jobs, in one change. And its end by request.

use std::collections::BTreeSet;
use std::io::Read as _;

use dovetail_core::ledger::{Item, Kind, Record, Reply, RunKey};
use dovetail_core::pipeline::ready;
use dovetail_core::record::{CancelRecord, Form, RunRecord};
use dovetail_core::{Digest, RunId};
use serde_json::Value;

use crate::recover::{job, reconcile, steps};
use crate::registry::{Published, Pushed};
use crate::truth::{Truth, current};
use crate::{FlowError, Parts};

/// A random run ID.
///
/// # Errors
/// If the system's randomness cannot be read.
pub fn new_run_id() -> Result<RunId, FlowError> {
    let mut bytes = [0; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|e| dovetail_core::blobs::StoreError::new(dovetail_core::blobs::StoreErrorKind::Unavailable, "read /dev/urandom", e))?;
    Ok(RunId::from_bytes(bytes))
}

/// The run ID of an idempotency key: the same for the same pipeline and key, wherever it is submitted.
#[must_use]
pub fn keyed_run_id(pipeline: &str, key: &str) -> RunId {
    let digest = Digest::of(format!("dovetail run\0{pipeline}\0{key}").as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.bytes()[..16]);
    RunId::from_bytes(bytes)
}

/// Submits a run. `inputs` are resolved (checked, with defaults), their artifacts stored. The same run submitted again is `Same`, and
/// whatever of it was lost is found again.
///
/// # Errors
/// `run_differs` if the ID was used with other inputs or another pipeline; a store's failure.
pub fn submit(parts: &Parts, published: &Published, inputs: &Value, run: &RunId) -> Result<Pushed, FlowError> {
    let key = RunKey { run: run.clone(), generation: 0 };
    let record = RunRecord { pipeline: published.key.clone(), inputs: inputs.clone(), submitted_ms: parts.clock.wall_ms() };
    let value = record.encode();
    let jobs = ready(&published.pipeline, &BTreeSet::new()).into_iter().map(|step| job(&published.pipeline, step)).collect();
    let item = Item::Submit { run: key, record: Record { kind: Kind::Run, key: run.to_string(), value }, jobs, steps: steps(&published.pipeline) };
    match parts.ledger.commit(&[item])?.pop() {
        Some(Reply::Exists(bytes)) => {
            let before = RunRecord::decode(&bytes, &format!("run {run}"))?;
            // The revision may have moved on since: the run keeps the one it was submitted to. Nor does a file's name make another input.
            let version = |key: &str| key.split('#').next().unwrap_or_default().to_owned();
            if version(&before.pipeline) != version(&record.pipeline) || nameless(&before.inputs) != nameless(&record.inputs) {
                let message = format!("run {run} was submitted before, to {} and with other inputs", version(&before.pipeline));
                return Err(FlowError::refused("run_differs", message, "use another --key for another submission"));
            }
            reconcile(parts, &current(parts, run)?)?;
            Ok(Pushed::Same)
        }
        _ => Ok(Pushed::Created),
    }
}

/// The same inputs with artifacts by their content alone.
fn nameless(inputs: &Value) -> Value {
    match inputs {
        Value::Object(fields) if fields.contains_key("$artifact") => {
            Value::Object(fields.iter().filter(|(key, _)| *key != "name").map(|(key, value)| (key.clone(), value.clone())).collect())
        }
        Value::Object(fields) => Value::Object(fields.iter().map(|(key, value)| (key.clone(), nameless(value))).collect()),
        Value::Array(items) => Value::Array(items.iter().map(nameless).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => inputs.clone(),
    }
}

/// Ends a run by request: no step of it starts any more, running ones learn it with their next lease. False: it was over.
///
/// # Errors
/// A store's failure; `unknown_run`.
pub fn cancel(parts: &Parts, run: &RunId, reason: &str) -> Result<bool, FlowError> {
    // Reading first tells an unknown run, for which nothing must be recorded.
    let truth = Truth::read(parts, run)?;
    if truth.outcome.is_some() {
        return Ok(false);
    }
    let key = truth.key;
    let record = CancelRecord { requested_ms: parts.clock.wall_ms(), reason: reason.to_owned() };
    let record = Record { kind: Kind::Cancel, key: key.key(), value: record.encode() };
    let replies = parts.ledger.commit(&[Item::Cancel { run: key.clone(), record }])?;
    reconcile(parts, &key)?;
    Ok(replies.first() != Some(&Reply::Closed))
}
