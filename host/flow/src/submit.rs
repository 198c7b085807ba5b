//! Submission: the record of a run and its first jobs, in one change. And the cancellation of a run.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::clock::Clock as _;
use dovetail_core::executor::{MISSING_ARTIFACT, Models};
use dovetail_core::keys::{RunKey, reference_of};
use dovetail_core::ledger::{Kind, Operation, Record, Reply};
use dovetail_core::limits::MAX_VALUE;
use dovetail_core::manifest::show_size;
use dovetail_core::pipeline::ready;
use dovetail_core::record::{CancelRecord, Form, RunRecord, StoredValue};
use dovetail_core::size::{json_size, largest_field};
use dovetail_core::{Digest, RunId};
use serde_json::Value;
use uuid::{ContextV7, Timestamp, Uuid, Variant, Version};

use crate::models::with_models;
use crate::recover::{job, reconcile, steps};
use crate::registry::{Published, Pushed};
use crate::truth::{Truth, UNKNOWN, current, is_recorded, load_value, missing_artifact, store_value};
use crate::{FlowError, Ports};

/// While `gc` removes an old run of the same ID: the interval between two looks, and the number of looks.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const LOOKS: u32 = 10;
/// A run whose ID was made less than this ago cannot be an old run that is being removed.
const LATELY_MS: u64 = 60_000;

/// The time and the counter of the last run ID.
static CONTEXT: Mutex<ContextV7> = Mutex::new(ContextV7::new());

/// A new run ID of version 7 of RFC 9562: milliseconds since 1970, a counter that starts at a random value in each
/// millisecond, then random bits. Each ID of this process is greater than the one before. Runs of about the same time
/// are neighbours in every index, which makes their records several times cheaper to write than with random keys.
#[must_use]
pub fn new_run_id() -> RunId {
    run_id_at(crate::SystemClock.wall_ms())
}

fn run_id_at(ms: u64) -> RunId {
    let since = Duration::from_millis(ms);
    let time = Timestamp::from_unix(&CONTEXT, since.as_secs(), since.subsec_nanos());
    RunId::from_bytes(Uuid::new_v7(time).into_bytes())
}

/// When the ID was made, in milliseconds since 1970. `None` if it is not an ID of [`new_run_id`]. One in 64 of the IDs
/// that are made from a key looks like an ID of `new_run_id`, with a time anywhere within 8,900 years.
pub(crate) fn made_ms(run: &RunId) -> Option<u64> {
    let id = Uuid::try_parse(run.as_str()).ok().filter(|id| id.get_variant() == Variant::RFC4122)?;
    let (seconds, nanos) = id.get_timestamp().filter(|_| id.get_version() == Some(Version::SortRand))?.to_unix();
    Some(seconds * 1000 + u64::from(nanos / 1_000_000))
}

/// The run ID of an idempotency key: the same on every machine for the same pipeline and key.
#[must_use]
pub fn keyed_run_id(pipeline: &str, key: impl AsRef<[u8]>) -> RunId {
    let digest = Digest::of(&[b"dovetail run\0", pipeline.as_bytes(), b"\0", key.as_ref()].concat());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.bytes()[..16]);
    RunId::from_bytes(bytes)
}

/// Submits a run. `inputs` are resolved (checked, with defaults), and their artifacts are stored. A run that is
/// submitted again is [`Pushed::Same`]; its missing jobs are enqueued again.
///
/// # Errors
/// `run_differs` if the ID was used with other inputs or another pipeline; `input_too_large` above
/// [`dovetail_core::limits::MAX_VALUE`]; `missing_artifact` and `missing_package` if something that the run names is
/// not stored; a store's failure.
pub fn submit(ports: &Ports, published: &Published, inputs: &Value, run: &RunId) -> Result<Pushed, FlowError> {
    submit_many(ports, published, vec![(run.clone(), inputs.clone())])?.pop().unwrap_or(Ok(Pushed::Created))
}

/// Submits many runs of one pipeline in one change, which makes all of them durable with one sync or one round trip.
/// Returns one answer for each run, in order. The models of a run are chosen when its first step starts.
///
/// # Errors
/// A store's failure, for all runs together. The other errors of [`submit`] are answers of single runs.
pub fn submit_many(
    ports: &Ports,
    published: &Published,
    runs: Vec<(RunId, Value)>,
) -> Result<Vec<Result<Pushed, FlowError>>, FlowError> {
    submit_with(ports, published, &Models::new(), runs)
}

/// As [`submit_many`], with models that are chosen for the runs, by kind: every step of these runs gets these models.
/// The model of a kind that is left out is chosen when the first step that opens such a model starts. A run that was
/// submitted before keeps its models.
///
/// # Errors
/// As [`submit_many`].
pub fn submit_with(
    ports: &Ports,
    published: &Published,
    models: &Models,
    runs: Vec<(RunId, Value)>,
) -> Result<Vec<Result<Pushed, FlowError>>, FlowError> {
    submit_patiently(ports, published, models, runs, &|| std::thread::sleep(LOOK_AGAIN))
}

/// As [`submit_with`]. `pause` is called between two looks at a run that is being removed. For tests of interleavings.
///
/// # Errors
/// As [`submit_many`].
#[doc(hidden)]
pub fn submit_patiently(
    ports: &Ports,
    published: &Published,
    models: &Models,
    runs: Vec<(RunId, Value)>,
    pause: &dyn Fn(),
) -> Result<Vec<Result<Pushed, FlowError>>, FlowError> {
    let roots = ready(&published.pipeline, &BTreeSet::new()).into_iter().map(|step| job(&published.pipeline, step));
    let roots = with_models(roots.collect(), models);
    let (submitted_ms, steps) = (ports.clock.wall_ms(), steps(&published.pipeline));
    let packages = match published.has_packages(ports) {
        Ok(()) => None,
        // Not an error for all: a run that was submitted before gets its usual answer even if packages are missing.
        Err(missing @ (FlowError::Missing { .. } | FlowError::Refused { .. })) => Some(missing),
        Err(error) => return Err(error),
    };
    let mut answers = Vec::with_capacity(runs.len());
    let mut items = Vec::with_capacity(runs.len());
    let mut accepted = Vec::with_capacity(runs.len());
    for (run, inputs) in runs {
        if let Some(missing) = &packages
            && !is_recorded(ports, Kind::Run, run.to_string())?
        {
            answers.push(Some(Err(missing.again())));
            continue;
        }
        let bytes = match check_inputs(ports, published, &run, &inputs) {
            Ok(bytes) => bytes,
            Err(error @ FlowError::Refused { .. }) => {
                answers.push(Some(Err(error)));
                continue;
            }
            Err(error) => return Err(error),
        };
        let inputs = store_value(ports, inputs, bytes)?;
        let record = RunRecord { pipeline: published.key.clone(), inputs, submitted_ms, models: models.clone() };
        items.push(Operation::Submit {
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
        for (accepted, answer) in accepted.iter().zip(submit_once(ports, &accepted, &items)?) {
            answers[accepted.at] = answer.transpose();
        }
        (accepted, items) = accepted.into_iter().zip(items).filter(|(one, _)| answers[one.at].is_none()).unzip();
    }
    for Accepted { at, run, .. } in accepted {
        answers[at] = Some(Err(being_removed(&run)));
    }
    Ok(answers.into_iter().flatten().collect())
}

/// A run that passed the checks, and the place of its answer.
struct Accepted {
    at: usize,
    run: RunId,
    record: RunRecord,
}

/// Submits all accepted runs once. The answer `None` means that an old run with this ID is being removed: try again.
///
/// `removal.rs` removes the record of an old run first, and the outcome of its first generation last. So this function
/// looks for that outcome before it inserts a run: if there is no outcome, nothing of an old run is left.
fn submit_once(
    ports: &Ports,
    accepted: &[Accepted],
    items: &[Operation],
) -> Result<Vec<Result<Option<Pushed>, FlowError>>, FlowError> {
    let now_ms = ports.clock.wall_ms();
    let old: Vec<&RunId> = accepted.iter().map(|one| &one.run).filter(|run| may_be_old(run, now_ms)).collect();
    let keys: Vec<String> = old.iter().map(|run| RunKey { run: (*run).clone(), generation: 0 }.key()).collect();
    let ends = if keys.is_empty() { Vec::new() } else { ports.ledger.get(Kind::RunOutcome, &keys)? };
    let ended: BTreeSet<&RunId> =
        old.into_iter().zip(ends).filter(|(_, end)| end.is_some()).map(|(run, _)| run).collect();
    let new: Cow<'_, [Operation]> = if ended.is_empty() {
        Cow::Borrowed(items)
    } else {
        accepted.iter().zip(items).filter(|(one, _)| !ended.contains(&one.run)).map(|(_, item)| item.clone()).collect()
    };
    let mut replies = if new.is_empty() { Vec::new() } else { ports.ledger.commit(&new)? }.into_iter();
    let answer = |one: &Accepted| {
        let before = if ended.contains(&one.run) {
            ports.ledger.get(Kind::Run, &[one.run.to_string()])?.pop().flatten()
        } else {
            match replies.next() {
                Some(Reply::Exists(bytes)) => Some(bytes),
                Some(_) => return Ok(Some(Pushed::Created)),
                None => return Err(StoreError::plain(StoreErrorKind::Corrupt, "submit: an answer is missing").into()),
            }
        };
        before.map_or(Ok(None), |bytes| same(ports, &one.run, &one.record, &bytes))
    };
    Ok(accepted.iter().map(answer).collect())
}

/// Whether `gc` may be removing a run with this ID: not if the time in the ID (`new_run_id`) is within [`LATELY_MS`] of
/// now. An ID that was made from an idempotency key has no time, or one that is mostly far away.
fn may_be_old(run: &RunId, now_ms: u64) -> bool {
    made_ms(run).is_none_or(|made| made.abs_diff(now_ms) > LATELY_MS)
}

fn being_removed(run: &RunId) -> FlowError {
    let message = format!("run {run} ended long ago and is being removed at this moment");
    let help = "submit it again in a moment; if a collection was interrupted, `dovetail gc` finishes it; \
                or use another key";
    FlowError::refused("run_being_removed", message, help)
}

/// Checks that the inputs are not too large and that their artifacts are stored. Returns their size as JSON, in bytes.
fn check_inputs(ports: &Ports, published: &Published, run: &RunId, inputs: &Value) -> Result<u64, FlowError> {
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
        // A run that was submitted before gets its usual answer, even if its artifacts have been removed since.
        if let Some(artifact) = missing_artifact(ports, value)?
            && !is_recorded(ports, Kind::Run, run.to_string())?
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

/// The answer for a run whose record exists (`bytes`). If the run is the same, its missing jobs are enqueued. `None`:
/// the run has been removed since its record was read.
fn same(ports: &Ports, run: &RunId, record: &RunRecord, bytes: &[u8]) -> Result<Option<Pushed>, FlowError> {
    let before = RunRecord::decode(bytes, &format!("run {run}"))?;
    // The pipeline may have a newer revision: the run keeps the revision that it was submitted to. A file's name does
    // not belong to the input.
    let version = |key: &str| reference_of(key).to_owned();
    // Large inputs are read only if their digests differ.
    let nameless = |inputs: &StoredValue| Ok::<_, FlowError>(nameless(&load_value(ports, inputs.clone())?));
    let equal = before.inputs == record.inputs || nameless(&before.inputs)? == nameless(&record.inputs)?;
    if version(&before.pipeline) != version(&record.pipeline) || !equal {
        let message = format!("run {run} was submitted before, to {} and with other inputs", version(&before.pipeline));
        return Err(FlowError::refused("run_differs", message, "use another key for another submission"));
    }
    match reconcile(ports, &current(ports, run)?) {
        Ok(_) => Ok(Some(Pushed::Same)),
        Err(error) if error.code() == UNKNOWN => Ok(None),
        Err(error) => Err(error),
    }
}

/// The inputs without the names of their artifacts.
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

/// Cancels a run. No further step of the run starts. The workers of its running steps get a notification if the backend
/// has one, and learn of the cancellation at the latest when they renew their leases. Returns `false` if the run had
/// ended.
///
/// # Errors
/// A store's failure; `unknown_run`.
pub fn cancel(ports: &Ports, run: &RunId, reason: &str) -> Result<bool, FlowError> {
    // The run is read first, because a cancellation of an unknown run must not be recorded.
    let truth = Truth::read(ports, run)?;
    if truth.outcome.is_some() {
        return Ok(false);
    }
    let key = truth.key;
    let record = CancelRecord { requested_ms: ports.clock.wall_ms(), reason: reason.to_owned() };
    let record = Record { kind: Kind::Cancel, key: key.key(), value: record.encode() };
    let replies = ports.ledger.commit(&[Operation::Cancel { run: key.clone(), record }])?;
    reconcile(ports, &key)?;
    Ok(replies.first() != Some(&Reply::Closed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_are_in_the_order_in_which_they_were_made() {
        let mut all: Vec<RunId> = (0..50_000).map(|_| new_run_id()).collect();
        assert!(all.is_sorted_by(|a, b| a < b), "each is greater than the one before");
        // The clock is set back, and the order stays.
        all.push(run_id_at(crate::SystemClock.wall_ms() - 3_600_000));
        assert!(all[all.len() - 2] < all[all.len() - 1]);
        // `runs show` takes the end of an ID.
        let ends: BTreeSet<&str> = all.iter().map(|id| &id.as_str()[24..]).collect();
        assert_eq!(ends.len(), all.len());
    }

    #[test]
    fn an_id_of_many_threads_is_of_one() {
        let made = || (0..5_000).map(|_| new_run_id()).collect::<Vec<_>>();
        let all: Vec<RunId> = std::thread::scope(|threads| {
            let threads: Vec<_> = (0..4).map(|_| threads.spawn(made)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }

    #[test]
    fn a_run_id_tells_when_it_was_made_and_one_of_a_key_tells_nothing() {
        let before = crate::SystemClock.wall_ms();
        let run = new_run_id();
        let made = made_ms(&run).unwrap();
        assert!((before..=before + 5_000).contains(&made), "{made} is not {before}");
        assert!(!may_be_old(&run, before) && may_be_old(&run, made + LATELY_MS + 1));
        assert_eq!(made_ms(&"01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap()), Some(1_688_096_058_518));
        for other in [
            "01890a5d-ac96-474b-bcce-b302099a8057",
            "01890a5d-ac96-774b-0cce-b302099a8057",
            "1ec9414c-232a-6b00-b3c8-9f6bdeced846",
        ] {
            assert_eq!(made_ms(&other.parse().unwrap()), None, "{other}");
        }
        // Keys whose digest looks like version 7, too.
        for n in 0..2_000_u32 {
            assert!(may_be_old(&keyed_run_id("p", n.to_le_bytes()), before), "{n}");
        }
    }
}
