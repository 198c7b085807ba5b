//! Compiles components, in a child process if a program is configured: a component that makes the compiler use too much
//! memory or time ends a child, not a worker. The child does all long reading of an untrusted component, including the
//! search for the reason of a refusal.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use dovetail_core::executor::HostError;
use dovetail_core::manifest::show_size;
use dovetail_core::scarce::Scarce;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};
use serde::{Deserialize, Serialize};
use wasmtime::{Engine, OutOfMemory};

use crate::component::explain;
use crate::engine::plain_engine;
use crate::outcome::{host_error, scarce_error};
use crate::refusal::{LoadError, Refusal};

/// The name of the hidden subcommand, which the parent starts as `PROGRAM __compile INPUT OUTPUT LIMITS`.
pub const SUBCOMMAND: &str = "__compile";
/// Compiler threads. Each thread costs address space.
const THREADS: &str = "4";
/// Exit code if the component is refused. Standard error has the [`Refusal`] as JSON.
const EXIT_REFUSED: u8 = 65;
/// Exit code if the host fails. Standard error has the reason.
const EXIT_FAILED: u8 = 70;
/// Exit code if the system refused memory that our limits allow. Standard error has the reason.
const EXIT_SCARCE: u8 = 71;
/// The most bytes that are read from the child's standard error, which may quote names in the component.
const MAX_STDERR: u64 = 64 << 10;
/// Seconds of processor time between the limit that sends SIGXCPU and the limit that kills. With one limit for both,
/// Linux kills at once, and the parent cannot tell that from an operator's kill.
const CPU_GRACE: u64 = 5;
/// The codes of refusals that a child may report.
const TOO_EXPENSIVE: &str = "compile_too_expensive";
const CODES: [&str; 6] =
    [TOO_EXPENSIVE, "invalid_component", "async_run", "unsupported_type", "type_too_large", "type_too_deep"];

/// The resources for compiling one component, enforced in the child process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompileLimits {
    /// Address space of the process, in bytes.
    pub address_space: u64,
    /// Processor time of all threads together, in seconds.
    pub cpu_seconds: u64,
    /// Wall time, in seconds. A blocked compiler uses no processor time but holds the lock of the cache.
    pub wall_seconds: u32,
    /// The compiled machine code with its data, in bytes.
    pub code: u64,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self { address_space: 2 << 30, cpu_seconds: 60, wall_seconds: 300, code: 256 << 20 }
    }
}

/// Runs the hidden subcommand: compiles the component in the file `args[0]` into the file `args[1]`, under the limits
/// `args[2]` (JSON).
///
/// The exit code is 0, 65 (the component is refused), 70 (the host failed) or 71 (the system refused memory). The
/// reason is on standard error.
#[must_use]
pub fn compile_child(args: &[OsString]) -> ExitCode {
    let (code, message) = match child(args) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(LoadError::Refused(refusal)) => (EXIT_REFUSED, serde_json::json!(refusal).to_string()),
        Err(LoadError::Host(error)) if error.scarce().is_some() => (EXIT_SCARCE, error.operation),
        Err(LoadError::Host(HostError { operation, source, .. })) => {
            (EXIT_FAILED, source.map_or(operation.clone(), |source| format!("{operation}: {source}")))
        }
    };
    // If the parent is gone, the message has no reader and is dropped.
    drop(writeln!(std::io::stderr(), "{message}"));
    ExitCode::from(code)
}

fn child(args: &[OsString]) -> Result<(), LoadError> {
    let failed =
        |operation: &str| HostError { operation: operation.to_owned(), transient: false, missing: None, source: None };
    let [input, output, limits] = args else {
        return Err(failed(&format!("{SUBCOMMAND} takes two files and limits")).into());
    };
    let limits = limits
        .to_str()
        .and_then(|limits| serde_json::from_str(limits).ok())
        .ok_or_else(|| failed("read the limits"))?;
    limit_self(&limits).map_err(|error| host_error("set limits", false, error))?;
    let bytes = std::fs::read(input).map_err(|error| host_error("read the component", true, error))?;
    translate(&plain_engine()?, &bytes, &limits, Path::new(output))
}

/// Compiles `bytes` into the file `output`. Limits only the size of the code.
fn translate(engine: &Engine, bytes: &[u8], limits: &CompileLimits, output: &Path) -> Result<(), LoadError> {
    let code = match engine.precompile_component(bytes) {
        Ok(code) => code,
        Err(error) if no_memory(&error) => return Err(needs_memory(limits)),
        Err(error) => return Err(explain(bytes, &format!("{error:#}")).into()),
    };
    if code.len() as u64 > limits.code {
        let message = format!(
            "its machine code and data take {}; at most {} are taken",
            show_size(code.len() as u64),
            show_size(limits.code)
        );
        return Err(too_expensive(message).into());
    }
    std::fs::write(output, code).map_err(|error| host_error("write compiled code", true, error).into())
}

/// Whether the system refused to map memory. (A failed allocation ends the process.)
fn no_memory(error: &wasmtime::Error) -> bool {
    error.is::<OutOfMemory>() || format!("{error:#}").contains("(os error 12)")
}

/// The host's error if this process may use less address space than the limits allow a component.
fn less_than(limits: &CompileLimits) -> Option<HostError> {
    let most = getrlimit(Resource::As).maximum.unwrap_or(u64::MAX);
    let why =
        || format!("the compiler needs up to {}, and may have {}", show_size(limits.address_space), show_size(most));
    (most < limits.address_space).then(|| scarce_error("compile the component", Scarce::Memory, &why()))
}

/// The error for a compilation that ran out of memory. If this process may use less address space than the limits
/// allow, the host is at fault; otherwise the component is.
fn needs_memory(limits: &CompileLimits) -> LoadError {
    if let Some(error) = less_than(limits) {
        return error.into();
    }
    too_expensive(format!(
        "compiling it takes more than {} of memory, or more stack than there is",
        show_size(limits.address_space)
    ))
    .into()
}

fn too_expensive(message: String) -> Refusal {
    Refusal::new(
        TOO_EXPENSIVE,
        message,
        "make the component smaller: very large functions, types and data make compiling expensive",
    )
}

/// Applies `limits` to this process, or keeps tighter limits that it already has.
fn limit_self(limits: &CompileLimits) -> std::io::Result<()> {
    limit_child(limits.address_space, limits.cpu_seconds, limits.wall_seconds)
}

/// Limits this process, which a parent started for one piece of untrusted work: bytes of address space, seconds of
/// processor time of all threads (SIGXCPU ends the process), seconds of wall time (SIGALRM). Keeps tighter limits. The
/// process leaves no core file, and is killed when its parent dies.
///
/// # Errors
/// The system refuses a limit.
#[expect(unsafe_code, reason = "`alarm` has no safe interface")]
pub fn limit_child(address_space: u64, cpu_seconds: u64, wall_seconds: u32) -> std::io::Result<()> {
    let cpu = cpu_seconds;
    let wanted = [
        (Resource::As, address_space, address_space),
        (Resource::Cpu, cpu, cpu.saturating_add(CPU_GRACE)),
        (Resource::Core, 0, 0),
    ];
    for (resource, soft, hard) in wanted {
        let most = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        setrlimit(resource, Rlimit { current: Some(soft.min(most)), maximum: Some(hard.min(most)) })?;
    }
    // SAFETY: `alarm` takes a number. No handler is set for its signal, so the signal ends the process.
    unsafe { libc::alarm(wall_seconds) };
    // If the parent dies, the result has no reader, so the child is killed.
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Compiles `bytes` into the file `output`, in a child of `program`. Without a program it compiles in this process,
/// where only the size of the code is limited.
pub(crate) fn compile(
    engine: &Engine,
    program: Option<&Path>,
    limits: &CompileLimits,
    bytes: &[u8],
    output: &Path,
) -> Result<(), LoadError> {
    let Some(program) = program else {
        return translate(engine, bytes, limits, output);
    };
    let input = output.with_extension("wasm");
    let ended = std::fs::write(&input, bytes)
        .map_err(|error| host_error("hand a component to the compiler", true, error))
        .and_then(|()| {
            run(program, limits, &input, output)
                .map_err(|error| host_error(format!("run the compiler `{}`", program.display()), true, error))
        });
    if let Err(error) = std::fs::remove_file(&input) {
        tracing::warn!(%error, "a component that was compiled is left in the cache folder");
    }
    let (status, stderr) = ended?;
    if status.success() { Ok(()) } else { Err(why(status, &stderr, limits)) }
}

/// Runs the child. Returns its exit status and the beginning of its standard error.
fn run(program: &Path, limits: &CompileLimits, input: &Path, output: &Path) -> std::io::Result<(ExitStatus, String)> {
    let mut child = Command::new(program)
        .arg(SUBCOMMAND)
        .arg(input)
        .arg(output)
        .arg(serde_json::json!(limits).to_string())
        .env_clear()
        .env("RAYON_NUM_THREADS", THREADS)
        // Each arena of the allocator reserves 64 MiB of address space.
        .env("MALLOC_ARENA_MAX", "2")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stderr = Vec::new();
    // The pipe is closed at the end of this line, so a child that writes more gets an error.
    let read = child.stderr.take().map_or(Ok(0), |pipe| pipe.take(MAX_STDERR).read_to_end(&mut stderr));
    let status = child.wait()?;
    read?;
    Ok((status, String::from_utf8_lossy(&stderr).trim().to_owned()))
}

/// Decides whether the component or the host caused the child's end.
fn why(status: ExitStatus, stderr: &str, limits: &CompileLimits) -> LoadError {
    let ours = |what: String, transient| {
        let stderr = if stderr.is_empty() { String::new() } else { format!(": {stderr}") };
        HostError {
            operation: crate::text::message(&format!("compile the component ({what}){stderr}")),
            transient,
            missing: None,
            source: None,
        }
        .into()
    };
    // With less address space than it needs, the child may end in any way.
    if status.code() != Some(i32::from(EXIT_REFUSED))
        && let Some(error) = less_than(limits)
    {
        return error.into();
    }
    match (status.code(), status.signal()) {
        (Some(code), _) if code == i32::from(EXIT_REFUSED) => {
            parse_refusal(stderr).map_or_else(|| ours("its refusal cannot be read".to_owned(), false), Into::into)
        }
        (Some(code), _) if code == i32::from(EXIT_SCARCE) => {
            scarce_error("compile the component", Scarce::Memory, &crate::text::message(stderr)).into()
        }
        (Some(code), _) => ours(format!("exit code {code}"), false),
        (_, Some(libc::SIGXCPU)) => {
            too_expensive(format!("compiling it takes more than {} s of processor time", limits.cpu_seconds)).into()
        }
        // A Rust process ends with SIGABRT when an allocation fails or a stack overflows.
        (_, Some(libc::SIGABRT)) => needs_memory(limits),
        // The compiler did not use up its processor time, so the machine is at fault, and a later attempt may succeed.
        (_, Some(libc::SIGALRM)) => ours(
            format!("no end after {} s: the machine is overloaded, or its disk does not answer", limits.wall_seconds),
            true,
        ),
        (_, Some(signal @ (libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE))) => {
            ours(format!("the compiler crashed, signal {signal}"), false)
        }
        // An operator or the kernel's out-of-memory killer ended the child; the component is not at fault.
        (_, signal) => ours(format!("the compiler was ended by signal {}", signal.unwrap_or_default()), true),
    }
}

/// Parses the child's refusal. It is the last line of standard error, because a panic message may precede it.
fn parse_refusal(stderr: &str) -> Option<Refusal> {
    #[derive(Deserialize)]
    struct ChildRefusal {
        code: String,
        message: String,
        help: String,
    }
    let refusal: ChildRefusal = serde_json::from_str(stderr.lines().next_back()?).ok()?;
    let code = CODES.into_iter().find(|code| *code == refusal.code)?;
    Some(Refusal::new(code, refusal.message, refusal.help))
}
