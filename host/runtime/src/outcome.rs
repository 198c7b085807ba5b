//! Classifies the end of an attempt that returned no value. Traps, limits, panics, exits and misused handles are the
//! guest's failures; errors tagged [`AttemptEnd::Host`] are the host's.

use std::io;

use dovetail_core::executor::{Failure, FailureKind, HostError};
use dovetail_core::manifest::show_size;
use dovetail_core::scarce::Scarce;
use dovetail_core::stop::StopReason;
use rustix::io::Errno;
use wasmtime::component::ResourceTableError;
use wasmtime::{OutOfMemory, PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::log::Panic;
use crate::text::message;

/// The most frames of a guest's backtrace that are recorded.
const MAX_FRAMES: usize = 32;

/// Why a host function ended the attempt. Every other error comes from the guest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttemptEnd {
    /// The host's own fault.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The attempt was cancelled, or its time was over.
    #[error("stopped: {0:?}")]
    Stopped(StopReason),
    /// A failure in a host function that has no error to return to the guest.
    #[error("{}", .0.message)]
    Failed(Box<Failure>),
}

impl AttemptEnd {
    /// A failure because of a limit other than time and memory.
    pub(crate) fn limit(code: &'static str, message: impl Into<String>) -> wasmtime::Error {
        wasmtime::Error::new(Self::Failed(Box::new(Failure::new(FailureKind::Limit, code, message))))
    }
}

/// Facts about the attempt that the error does not contain.
#[derive(Debug)]
pub(crate) struct Circumstances {
    /// The bytes of the last growth of linear memory that was refused.
    pub(crate) denied: Option<usize>,
    pub(crate) memory_limit: u64,
    pub(crate) handle_limit: u32,
    /// The guest's panic, if one was seen in its log.
    pub(crate) panic: Option<Panic>,
    /// `run` had returned, so the error is in its result.
    pub(crate) returned: bool,
}

/// A failure of the host with its cause.
pub(crate) fn host_error(
    operation: impl Into<String>,
    transient: bool,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> HostError {
    HostError { operation: operation.into(), transient, missing: None, source: Some(source.into()) }
}

/// The resource that the system refused to this process, if that is why wasmtime failed. A guest cannot cause such an
/// error: `limiter.rs` refuses a guest's requests without asking the system.
pub(crate) fn scarce(error: &wasmtime::Error) -> Option<Scarce> {
    // Only types are compared, because an error's text may quote the guest.
    error.chain().find_map(|cause| {
        let code = cause.downcast_ref::<Errno>().map(|errno| io::Error::from(*errno));
        match (cause.is::<OutOfMemory>(), code, cause.downcast_ref::<io::Error>()) {
            (true, ..) => Some(Scarce::Memory),
            (_, Some(code), _) => Scarce::of_io(&code),
            (_, _, Some(error)) => error.raw_os_error().and_then(|_| Scarce::of_io(error)),
            _ => None,
        }
    })
}

/// A failure of the host because the system refused a resource. It is not transient: `Runtime::execute` has already run
/// the attempt again alone before it counts.
pub(crate) fn scarce_error(operation: impl Into<String>, scarce: Scarce, why: &str) -> HostError {
    HostError {
        operation: format!("{}: {why}", operation.into()),
        transient: false,
        missing: None,
        source: Some(scarce.into()),
    }
}

/// The failure of an attempt that was stopped.
pub(crate) fn stopped(reason: StopReason, time_ms: u64) -> Failure {
    match reason {
        StopReason::Cancelled => Failure::new(FailureKind::Cancelled, "cancelled", "the attempt was cancelled"),
        StopReason::Deadline => Failure::new(
            FailureKind::Timeout,
            "timeout",
            format!("the attempt took longer than its limit of {}", dovetail_core::manifest::show_duration_ms(time_ms)),
        ),
    }
}

/// Classifies `error`: as the guest's failure, or as the host's.
///
/// # Errors
/// The host's own failure.
pub(crate) fn classify(error: wasmtime::Error, known: &Circumstances, time_ms: u64) -> Result<Failure, HostError> {
    let backtrace = backtrace(&error);
    let error = match error.downcast::<AttemptEnd>() {
        Ok(AttemptEnd::Host(error)) => return Err(error),
        Ok(AttemptEnd::Stopped(reason)) => return Ok(stopped(reason, time_ms)),
        Ok(AttemptEnd::Failed(mut failure)) => {
            failure.backtrace = backtrace;
            return Ok(*failure);
        }
        Err(error) => error,
    };
    if let Some(scarce) = scarce(&error) {
        return Err(scarce_error("make an instance of the task", scarce, &error.root_cause().to_string()));
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return Err(host_error("find a free slot for the attempt", true, error));
    }
    let mut failure = failure(&error, known);
    if failure.backtrace.is_empty() {
        failure.backtrace = backtrace;
    }
    Ok(failure)
}

fn failure(error: &wasmtime::Error, known: &Circumstances) -> Failure {
    if let Some(I32Exit(status)) = error.downcast_ref::<I32Exit>() {
        return Failure::new(
            FailureKind::Trap,
            "exit",
            format!("the task ended its process (exit status {status}) instead of returning from `run`"),
        );
    }
    if let Some(table) = error.downcast_ref::<ResourceTableError>() {
        return match table {
            ResourceTableError::Full => too_many_handles(known),
            ResourceTableError::NotPresent | ResourceTableError::WrongType | ResourceTableError::HasChildren => {
                bad_handle(&table.to_string())
            }
        };
    }
    let text = error.root_cause().to_string();
    match error.downcast_ref::<Trap>() {
        Some(Trap::UnreachableCodeReached) => unreachable(known),
        Some(Trap::StringOutOfBounds | Trap::ListOutOfBounds | Trap::InvalidChar) if known.returned => {
            bad_output(&text)
        }
        Some(trap) => trapped(*trap),
        // wasmtime has no types for these errors. This crate's tests check the texts of the pinned version.
        None if text.contains("handle limit exceeded") => too_many_handles(known),
        None if text.contains("handle") || text.contains("cannot remove owned resource") => bad_handle(&text),
        None if text.contains("fuel allocated for hostcalls") => Failure::new(
            FailureKind::Limit,
            "too_much_data",
            format!(
                "one call moved more than {} between task and host (each value inside a record or list counts 40 \
                 bytes): use an artifact for bulk data",
                show_size(crate::state::HOSTCALL_FUEL as u64)
            ),
        ),
        None if text.contains("resource limit exceeded")
            || text.contains("exceeds memory limits")
            || text.contains("minimum size") =>
        {
            if known.denied.is_some() {
                out_of_memory(known)
            } else {
                Failure::new(FailureKind::Limit, "too_many_instances", message(&text))
            }
        }
        // The guest could not allocate memory for its input. `run` has not been called yet.
        None if text.starts_with("realloc return") => Failure::new(FailureKind::Trap, "bad_call", message(&text)),
        None if known.returned => bad_output(&text),
        None => Failure::new(FailureKind::Trap, "bad_call", message(&text)),
    }
}

fn unreachable(known: &Circumstances) -> Failure {
    // A failed allocation aborts without a panic, or with a panic that names the allocation.
    let about_memory =
        known.panic.as_ref().is_none_or(|panic| panic.message.contains("alloc") || panic.message.contains("memory"));
    if known.denied.is_some() && about_memory {
        return out_of_memory(known);
    }
    let Some(panic) = &known.panic else {
        return Failure::new(
            FailureKind::Trap,
            "unreachable",
            "the task aborted (it reached an `unreachable` instruction)",
        );
    };
    let place = match (&panic.file, panic.line) {
        (Some(file), Some(line)) => format!(" at {file}:{line}"),
        (Some(file), None) => format!(" at {file}"),
        _ => String::new(),
    };
    let mut failure =
        Failure::new(FailureKind::Panic, "panic", message(&format!("the task panicked{place}: {}", panic.message)));
    if let Some(file) = &panic.file {
        failure.details.insert("file".to_owned(), message(file).into());
    }
    if let Some(line) = panic.line {
        failure.details.insert("line".to_owned(), line.into());
    }
    failure
}

fn trapped(trap: Trap) -> Failure {
    let (code, text) = match trap {
        Trap::StackOverflow => ("stack_overflow", "the task's call stack is exhausted (endless recursion?)".to_owned()),
        Trap::MemoryOutOfBounds => (
            "out_of_bounds",
            "the task touched memory outside its own (a wild pointer, or its shadow stack overflowed: endless \
             recursion, or large values on the stack)"
                .to_owned(),
        ),
        Trap::IntegerDivisionByZero => ("integer_divide_by_zero", "the task divided an integer by zero".to_owned()),
        Trap::IntegerOverflow => ("integer_overflow", trap.to_string()),
        Trap::BadConversionToInteger => ("bad_conversion_to_integer", trap.to_string()),
        Trap::TableOutOfBounds | Trap::IndirectCallToNull | Trap::BadSignature => {
            ("bad_function_pointer", trap.to_string())
        }
        Trap::StringOutOfBounds | Trap::ListOutOfBounds | Trap::InvalidChar => {
            ("bad_value", format!("the task passed an invalid value: {trap}"))
        }
        Trap::CannotEnterComponent | Trap::CannotLeaveComponent => ("bad_call", trap.to_string()),
        other => ("trap", other.to_string()),
    };
    Failure::new(FailureKind::Trap, code, text)
}

fn out_of_memory(known: &Circumstances) -> Failure {
    let asked = known.denied.map(|more| format!(" (it asked for {more} bytes more)")).unwrap_or_default();
    Failure::new(
        FailureKind::Limit,
        "out_of_memory",
        format!(
            "the task needed more than its {} of memory{asked}: raise `memory` under `[limits]` in its plugin.toml",
            show_size(known.memory_limit)
        ),
    )
}

fn too_many_handles(known: &Circumstances) -> Failure {
    Failure::new(
        FailureKind::Limit,
        "too_many_handles",
        format!(
            "the task held more than {} images, artifacts, models and writers at once: drop what is no longer needed, \
             or raise `handles` under `[limits]`",
            known.handle_limit
        ),
    )
}

fn bad_output(text: &str) -> Failure {
    Failure::new(FailureKind::BadOutput, "bad_output", message(&format!("the result of `run` cannot be read: {text}")))
}

fn bad_handle(text: &str) -> Failure {
    Failure::new(
        FailureKind::Trap,
        "bad_handle",
        message(&format!("the task used a handle that is not its own, of another type, or already given away: {text}")),
    )
}

fn backtrace(error: &wasmtime::Error) -> Vec<String> {
    let Some(trace) = error.downcast_ref::<WasmBacktrace>() else {
        return Vec::new();
    };
    trace
        .frames()
        .iter()
        .take(MAX_FRAMES)
        .map(|frame| match frame.func_name() {
            Some(name) => message(&format!("{:#}", rustc_demangle::demangle(name))),
            None => format!("function {}", frame.func_index()),
        })
        .collect()
}
