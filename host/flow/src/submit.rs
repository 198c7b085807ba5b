//! The beginning of a run: its record and its first jobs, in one change. And its end by request.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::Read as _;
use std::time::Duration;

use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::executor::{MISSING_ARTIFACT, Models};
use dovetail_core::keys::{RunKey, reference_of};
use dovetail_core::ledger::{Item, Kind, Record, Reply};
use dovetail_core::limits::MAX_VALUE;
use dovetail_core::manifest::show_size;
use dovetail_core::pipeline::ready;
use dovetail_core::record::{CancelRecord, Form, RunRecord, StoredValue};
use dovetail_core::size::{json_size, largest_field};
use dovetail_core::{Digest, RunId};
use serde_json::Value;

use crate::models::with_models;
use crate::recover::{job, reconcile, steps};
use crate::registry::{Published, Pushed};
use crate::truth::{Truth, UNKNOWN, current, is_recorded, load_value, missing_artifact, store_value};
use crate::{FlowError, Ports};

/// How often, and how many times, it is looked whether an old run has been removed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const LOOKS: u32 = 10;
/// A run whose ID was made less than this ago was not submitted before and removed since.
const LATELY_MS: u64 = 60_000;

/// A new run ID, after RFC 9562's version 7: milliseconds since 1970, then 74 random bits. Runs of one time stand side
/// by side in every index, which makes their records several times cheaper to write than random keys are.
///
/// # Errors
/// If the system's randomness cannot be read.
pub fn new_run_id() -> Result<RunId, FlowError> {
    use dovetail_core::clock::Clock as _;
    let mut bytes = [0; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes[6..]));
    read.map_err(|e| StoreError::new(StoreErrorKind::Unavailable, "read /dev/urandom", e))?;
    bytes[..6].copy_from_slice(&crate::SystemClock.wall_ms().to_be_bytes()[2..]);
    bytes[6] = 0x70 | (bytes[6] & 0x0f);
    bytes[8] = 0x80 | (bytes[8] & 0x3f);
    Ok(RunId::from_bytes(bytes))
}

/// When the ID was made, if it is one of [`new_run_id`].
pub(crate) fn made_ms(run: &RunId) -> Option<u64> {
    let id = run.as_str();
    let time = u64::from_str_radix(&format!("{}{}", id.get(..8)?, id.get(9..13)?), 16).ok();
    time.filter(|_| id.as_bytes().get(14) == Some(&b'7'))
}

/// The run ID of an idempotency key: the same for the same pipeline and key, wherever it is submitted.
#[must_use]
pub fn keyed_run_id(pipeline: &str, key: impl AsRef<[u8]>) -> RunId {
    let digest = Digest::of(&[b"dovetail run\0", pipeline.as_bytes(), b"\0", key.as_ref()].concat());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.bytes()[..16]);
    RunId::from_bytes(bytes)
}

/// Submits a run. `inputs` are resolved (checked, with defaults), their artifacts stored. The same run submitted again
/// is `Same`, and whatever of it was lost is found again.
///
/// # Errors
/// `run_differs` if the ID was used with other inputs or another pipeline; `input_too_large` above
/// [`dovetail_core::limits::MAX_VALUE`]; `missing_artifact` and `missing_package` if something that the run names is
/// not stored; a store's failure.
pub fn submit(parts: &Ports, published: &Published, inputs: &Value, run: &RunId) -> Result<Pushed, FlowError> {
    submit_many(parts, published, vec![(run.clone(), inputs.clone())])?.pop().unwrap_or(Ok(Pushed::Created))
}

/// Submits many runs of one pipeline in one change: they share what makes it durable. One answer a run, in order. The
/// models of a run are chosen when its first step starts.
///
/// # Errors
/// A store's failure, of all of them; the other errors of [`submit`] stand among the answers.
pub fn submit_many(
    parts: &Ports,
    published: &Published,
    runs: Vec<(RunId, Value)>,
) -> Result<Vec<Result<Pushed, FlowError>>, FlowError> {
    submit_with(parts, published, &Models::new(), runs)
}

/// The same with the models that were chosen for the runs, by kind: every step of theirs gets these. Kinds that are
/// left out are chosen when the first step starts that opens one. A run that was submitted before keeps its models.
///
/// # Errors
/// As [`submit_many`].
pub fn submit_with(
    parts: &Ports,
    published: &Published,
    models: &Models,
    runs: Vec<(RunId, Value)>,
) -> Result<Vec<Result<Pushed, FlowError>>, FlowError> {
    submit_patiently(parts, published, models, runs, &|| std::thread::sleep(LOOK_AGAIN))
}

/// The same; `pause` passes between two looks at a run that is being removed: for tests of every order of calls.
///
/// # Errors
/// As [`submit_many`].
#[doc(hidden)]
pub fn submit_patiently(
    parts: &Ports,
    published: &Published,
    models: &Models,
    runs: Vec<(RunId, Value)>,
    pause: &dyn Fn(),
) -> Result<Vec<Result<Pushed, FlowError>>, FlowError> {
    let roots = ready(&published.pipeline, &BTreeSet::new()).into_iter().map(|step| job(&published.pipeline, step));
    let roots = with_models(roots.collect(), models);
    let (submitted_ms, steps) = (parts.clock.wall_ms(), steps(&published.pipeline));
    let packages = match published.has_packages(parts) {
        Ok(()) => None,
        // A run that is there keeps its answer.
        Err(missing @ (FlowError::Missing { .. } | FlowError::Refused { .. })) => Some(missing),
        Err(error) => return Err(error),
    };
    let mut answers = Vec::with_capacity(runs.len());
    let mut items = Vec::with_capacity(runs.len());
    let mut accepted = Vec::with_capacity(runs.len());
    for (run, inputs) in runs {
        if let Some(missing) = &packages
            && !is_recorded(parts, Kind::Run, run.to_string())?
        {
            answers.push(Some(Err(missing.again())));
            continue;
        }
        let bytes = match check_inputs(parts, published, &run, &inputs) {
            Ok(bytes) => bytes,
            Err(error @ FlowError::Refused { .. }) => {
                answers.push(Some(Err(error)));
                continue;
            }
            Err(error) => return Err(error),
        };
        let inputs = store_value(parts, inputs, bytes)?;
        let record = RunRecord { pipeline: published.key.clone(), inputs, submitted_ms, models: models.clone() };
        items.push(Item::Submit {
            run: RunKey { run: run.clone(), generation: 0 },
            record: Record { kind: Kind::Run, key: run.to_string(), value: record.encode() },
            jobs: roots.clone(),
            steps: steps.clone(),
        });
        accepted.push(Accepted { at: answers.len(), run, record });
        answers.push(None);
    }
    for look in 0..LOOKS {
        if accepted.is_empty() {
            break;
        }
        if look > 0 {
            pause();
        }
        for (accepted, answer) in accepted.iter().zip(submit_once(parts, &accepted, &items)?) {
            answers[accepted.at] = answer.transpose();
        }
        (accepted, items) = accepted.into_iter().zip(items).filter(|(one, _)| answers[one.at].is_none()).unzip();
    }
    for Accepted { at, run, .. } in accepted {
        answers[at] = Some(Err(being_removed(&run)));
    }
    Ok(answers.into_iter().flatten().collect())
}

/// A run that can be submitted, and the place of its answer.
struct Accepted {
    at: usize,
    run: RunId,
    record: RunRecord,
}

/// One try for all of them; none: an old run of that ID is being removed, and is in the way for a moment.
///
/// An old run's record is removed first, and the end of its first generation last (`removal.rs`). So that end is looked
/// for before a run is inserted: where it is not, nothing is left of an old run.
fn submit_once(
    parts: &Ports,
    accepted: &[Accepted],
    items: &[Item],
) -> Result<Vec<Result<Option<Pushed>, FlowError>>, FlowError> {
    let now_ms = parts.clock.wall_ms();
    let old: Vec<&RunId> = accepted.iter().map(|one| &one.run).filter(|run| may_be_old(run, now_ms)).collect();
    let keys: Vec<String> = old.iter().map(|run| RunKey { run: (*run).clone(), generation: 0 }.key()).collect();
    let ends = if keys.is_empty() { Vec::new() } else { parts.ledger.get(Kind::RunOutcome, &keys)? };
    let over: BTreeSet<&RunId> =
        old.into_iter().zip(ends).filter(|(_, end)| end.is_some()).map(|(run, _)| run).collect();
    let new: Cow<'_, [Item]> = if over.is_empty() {
        Cow::Borrowed(items)
    } else {
        accepted.iter().zip(items).filter(|(one, _)| !over.contains(&one.run)).map(|(_, item)| item.clone()).collect()
    };
    let mut replies = if new.is_empty() { Vec::new() } else { parts.ledger.commit(&new)? }.into_iter();
    let answer = |one: &Accepted| {
        let before = if over.contains(&one.run) {
            parts.ledger.get(Kind::Run, &[one.run.to_string()])?.pop().flatten()
        } else {
            match replies.next() {
                Some(Reply::Exists(bytes)) => Some(bytes),
                Some(_) => return Ok(Some(Pushed::Created)),
                None => return Err(StoreError::plain(StoreErrorKind::Corrupt, "submit: an answer is missing").into()),
            }
        };
        before.map_or(Ok(None), |bytes| same(parts, &one.run, &one.record, &bytes))
    };
    Ok(accepted.iter().map(answer).collect())
}

/// Whether the ID may have been used so long ago that its run may be removed by now: not if it tells that it was made
/// lately (`new_run_id`). One made from a key tells nothing.
fn may_be_old(run: &RunId, now_ms: u64) -> bool {
    made_ms(run).is_none_or(|made| made.saturating_add(LATELY_MS) < now_ms)
}

fn being_removed(run: &RunId) -> FlowError {
    let message = format!("run {run} ended long ago and is being removed at this moment");
    let help = "submit it again in a moment; if a collection was interrupted, `dovetail gc` finishes it; \
                or use another --key";
    FlowError::refused("run_being_removed", message, help)
}

/// That a run with these inputs can be run: the size of the inputs as JSON, in bytes.
fn check_inputs(parts: &Ports, published: &Published, run: &RunId, inputs: &Value) -> Result<u64, FlowError> {
    let bytes = json_size(inputs);
    if bytes > MAX_VALUE {
        let most = show_size(MAX_VALUE);
        let field = largest_field(inputs);
        let (field, of_it) = field.unwrap_or_default();
        return Err(FlowError::refused(
            "input_too_large",
            format!(
                "the inputs of {} have {bytes} bytes as JSON, {of_it} of them in `{field}`: the most is {most}",
                published.pipeline.reference()
            ),
            format!("pass the bulk of `{field}` as an artifact, whose bytes are stored apart"),
        ));
    }
    for (field, value) in inputs.as_object().into_iter().flatten() {
        // A run that is there keeps its answer, however much of what it used has been removed since.
        if let Some(artifact) = missing_artifact(parts, value)?
            && !is_recorded(parts, Kind::Run, run.to_string())?
        {
            return Err(FlowError::refused(
                MISSING_ARTIFACT,
                format!("the input `{field}` names the artifact {}, which is not stored here", artifact.digest),
                "store the artifact first, or give the file itself",
            ));
        }
    }
    Ok(bytes)
}

/// The run was there: whether it is the same, and then it is brought on its way. None: it has been removed since.
fn same(parts: &Ports, run: &RunId, record: &RunRecord, bytes: &[u8]) -> Result<Option<Pushed>, FlowError> {
    let before = RunRecord::decode(bytes, &format!("run {run}"))?;
    // The revision may have moved on since: the run keeps the one it was submitted to. Nor does a file's name make
    // another input.
    let version = |key: &str| reference_of(key).to_owned();
    // Large inputs are read only where their digests differ.
    let nameless = |inputs: &StoredValue| Ok::<_, FlowError>(nameless(&load_value(parts, inputs.clone())?));
    let equal = before.inputs == record.inputs || nameless(&before.inputs)? == nameless(&record.inputs)?;
    if version(&before.pipeline) != version(&record.pipeline) || !equal {
        let message = format!("run {run} was submitted before, to {} and with other inputs", version(&before.pipeline));
        return Err(FlowError::refused("run_differs", message, "use another --key for another submission"));
    }
    match reconcile(parts, &current(parts, run)?) {
        Ok(_) => Ok(Some(Pushed::Same)),
        Err(error) if error.code() == UNKNOWN => Ok(None),
        Err(error) => Err(error),
    }
}

/// The same inputs with artifacts by their content alone.
fn nameless(inputs: &Value) -> Value {
    match inputs {
        Value::Object(fields) if fields.contains_key("$artifact") => Value::Object(
            fields.iter().filter(|(key, _)| *key != "name").map(|(key, value)| (key.clone(), value.clone())).collect(),
        ),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(key, value)| (key.clone(), nameless(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(nameless).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => inputs.clone(),
    }
}

/// Ends a run by request: no step of it starts any more, running ones are told where the backend can, and learn it with
/// their next lease at the latest. False: it was over.
///
/// # Errors
/// A store's failure; `unknown_run`.
pub fn cancel(parts: &Ports, run: &RunId, reason: &str) -> Result<bool, FlowError> {
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
