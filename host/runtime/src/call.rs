//! One call of a task's `run` in a fresh instance: converts the input, calls, and converts the output or the error.

use std::time::{Duration, Instant};

use dovetail_core::executor::{Failure, FailureKind, Outcome};
use serde_json::Value;
use wasmtime::Store;
use wasmtime::component::Val;

use crate::component::Task;
use crate::outcome::AttemptEnd;
use crate::state::{State, broken};
use crate::values::{Output, input};

/// The result of a call.
pub(crate) struct Called {
    pub(crate) result: wasmtime::Result<(Outcome, u64)>,
    /// From the start of the instantiation until the output is read. Images of the output are encoded and stored within
    /// this time.
    pub(crate) wall: Duration,
    /// `run` had returned: an error is in reading its result.
    pub(crate) returned: bool,
}

/// Instantiates the task, calls `run` with its input, and reads its result.
pub(crate) fn call(store: &mut Store<State>, task: &Task, given: &Value) -> Called {
    let began = Instant::now();
    let mut out = [Val::Bool(false)];
    let mut called = false;
    let mut attempt = || -> wasmtime::Result<()> {
        let instance = task.pre.instantiate(&mut *store)?;
        let run = instance
            .get_func(&mut *store, task.run)
            .ok_or_else(|| wasmtime::Error::new(AttemptEnd::Host(broken("the component lost its `run`"))))?;
        let input = input(store, &task.signature.input, given)?;
        called = true;
        run.call(&mut *store, &[input], &mut out)
    };
    let result = attempt();
    if let Err(error) = result {
        // An error without frames of the guest comes from reading the result.
        let returned = called && !error.is::<wasmtime::WasmBacktrace>();
        return Called { result: Err(error), wall: began.elapsed(), returned };
    }
    let [returned] = out;
    let result = outcome(store, task, returned);
    Called { result, wall: began.elapsed(), returned: true }
}

fn outcome(store: &mut Store<State>, task: &Task, returned: Val) -> wasmtime::Result<(Outcome, u64)> {
    match returned {
        Val::Result(Ok(value)) => {
            let (output, bytes) = Output::new(store).record(&task.signature.output, value.map(|value| *value))?;
            Ok((Outcome::Succeeded { output }, bytes))
        }
        Val::Result(Err(Some(error))) => Ok((Outcome::Failed { failure: task_error(*error)? }, 0)),
        _ => Err(wasmtime::Error::new(AttemptEnd::Host(broken("read the result: it is not a `result`")))),
    }
}

/// The guest's own failure, bounded and cleaned.
fn task_error(error: Val) -> wasmtime::Result<Failure> {
    let wrong = || {
        wasmtime::Error::new(AttemptEnd::Host(broken(
            "read the task's error: it has another type than it was registered with",
        )))
    };
    let Val::Variant(case, payload) = error else {
        return Err(wrong());
    };
    let kind = match case.as_str() {
        "cancelled" => {
            return Ok(Failure::new(FailureKind::Cancelled, "cancelled", "the task reported that it was cancelled"));
        }
        "invalid-input" => FailureKind::InvalidInput,
        "unavailable" => FailureKind::Unavailable,
        "failed" => FailureKind::Failed,
        _ => return Err(wrong()),
    };
    let Some(Val::Record(fields)) = payload.map(|payload| *payload) else {
        return Err(wrong());
    };
    let mut failure = Failure::new(kind, "failed", "");
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("code", Val::String(code)) => failure.code = crate::text::code(&code),
            ("message", Val::String(message)) => failure.message = crate::text::message(&message),
            ("retryable", Val::Bool(retryable)) => {
                failure.retryable = retryable && kind != FailureKind::InvalidInput;
            }
            ("retry-after-ms", Val::Option(after)) => {
                failure.retry_after_ms =
                    after.and_then(|after| if let Val::U64(ms) = *after { Some(ms) } else { None });
            }
            ("details", Val::List(items)) => {
                failure.details = crate::text::details(items.into_iter().filter_map(pair).collect());
            }
            _ => return Err(wrong()),
        }
    }
    Ok(failure)
}

fn pair(item: Val) -> Option<(String, String)> {
    let Val::Tuple(items) = item else { return None };
    match <[Val; 2]>::try_from(items) {
        Ok([Val::String(key), Val::String(value)]) => Some((key, value)),
        _ => None,
    }
}
