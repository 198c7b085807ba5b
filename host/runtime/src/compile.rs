//! Compiles components, in a child process of the same program where one is named: a component that makes the compiler
//! eat memory or time takes a child down, not a worker. All that reads an unchecked component at length happens in the
//! child, the search for the reason of a refusal too.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use dovetail_core::executor::HostError;
use dovetail_core::manifest::show_size;
use dovetail_core::scarce::Scarce;
use serde::{Deserialize, Serialize};
use wasmtime::{Engine, OutOfMemory};

use crate::component::explain;
use crate::engine::plain_engine;
use crate::outcome::{host_error, scarce_error};
use crate::refusal::{LoadError, Refusal};

/// Name of the hidden subcommand of the program that the parent starts: `PROGRAM __compile INPUT OUTPUT LIMITS`.
pub const SUBCOMMAND: &str = "__compile";
/// Threads that compile: each costs address space.
const THREADS: &str = "4";
/// The component is refused: a [`Refusal`] as JSON is on standard error.
const EXIT_REFUSED: u8 = 65;
/// The host failed: the reason is on standard error.
const EXIT_FAILED: u8 = 70;
/// The system refused the child memory that it may have by our limits: the reason is on standard error.
const EXIT_SCARCE: u8 = 71;
/// The most that is read of the child's standard error, in bytes: it quotes names of the component.
const MAX_STDERR: u64 = 64 << 10;
/// Between the processor time at which the child is told and the one at which it is killed, in seconds: with one limit
/// for both, Linux kills at once, and that could not be told from an operator's kill.
const CPU_GRACE: u64 = 5;
/// Refusals of the child.
const TOO_EXPENSIVE: &str = "compile_too_expensive";
const CODES: [&str; 6] =
    [TOO_EXPENSIVE, "invalid_component", "async_run", "unsupported_type", "type_too_large", "type_too_deep"];

/// What compiling one component may use, in the child process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompileLimits {
    /// Address space of the process, in bytes.
    pub address_space: u64,
    /// Processor time of all its threads together, in seconds.
    pub cpu_seconds: u64,
    /// Wall time, in seconds: whoever waits uses no processor time, and holds the lock of the cache.
    pub wall_seconds: u32,
    /// The machine code that comes of it, with its data, in bytes.
    pub code: u64,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self { address_space: 2 << 30, cpu_seconds: 60, wall_seconds: 300, code: 256 << 20 }
    }
}

/// What the hidden subcommand does: compiles the component in the file `args[0]` into the file `args[1]`, under the
/// limits `args[2]` (JSON).
///
/// The exit code is 0, or 65 for a component that is refused, or 70 for a failure of the host; the reason is on
/// standard error.
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
    // The parent reads it; if it is gone, nobody wants to know.
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

/// Compiles `bytes` into the file `output`.
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

/// The system refused a mapping. (A failed allocation ends the process.)
fn no_memory(error: &wasmtime::Error) -> bool {
    error.is::<OutOfMemory>() || format!("{error:#}").contains("(os error 12)")
}

/// The host's fault, where this process may have less address space than what a component may take.
fn less_than(limits: &CompileLimits) -> Option<HostError> {
    let most = rustix::process::getrlimit(rustix::process::Resource::As).maximum.unwrap_or(u64::MAX);
    let why =
        || format!("the compiler needs up to {}, and may have {}", show_size(limits.address_space), show_size(most));
    (most < limits.address_space).then(|| scarce_error("compile the component", Scarce::Memory, &why()))
}

/// It took more memory than there was: the component's fault where that is what a component may take, and the host's
/// where this process may have less.
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
        "make it smaller: very large functions, types and data are what makes compiling expensive",
    )
}

/// Puts this process under `limits`, or under tighter ones that it has already.
#[expect(unsafe_code, reason = "resource limits have no safe interface in std")]
fn limit_self(limits: &CompileLimits) -> std::io::Result<()> {
    let cpu = limits.cpu_seconds;
    let wanted = [
        (libc::RLIMIT_AS, limits.address_space, limits.address_space),
        (libc::RLIMIT_CPU, cpu, cpu.saturating_add(CPU_GRACE)),
        (libc::RLIMIT_CORE, 0, 0),
    ];
    for (resource, soft, hard) in wanted {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `getrlimit` writes one `rlimit`, which lives until it returns.
        if unsafe { libc::getrlimit(resource, &raw mut limit) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        let limit = libc::rlimit { rlim_cur: soft.min(limit.rlim_max), rlim_max: hard.min(limit.rlim_max) };
        // SAFETY: `setrlimit` reads one `rlimit`, which lives until it returns.
        if unsafe { libc::setrlimit(resource, &raw const limit) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    // SAFETY: `alarm` takes a number; nobody handles its signal, which ends the process.
    unsafe { libc::alarm(limits.wall_seconds) };
    // Without a parent that waits there is nobody to compile for.
    // SAFETY: `PR_SET_PDEATHSIG` takes the number of a signal.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

/// Compiles `bytes` into the file `output`, in a child of `program` or, without one, in this process, where only the
/// size of the code is limited.
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
    let (status, said) = ended?;
    if status.success() { Ok(()) } else { Err(why(status, &said, limits)) }
}

/// How the child ended, and what it said, of which only the beginning is kept.
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
    let mut said = Vec::new();
    // Closed at the end of this line: whoever says more than that finds nobody listening.
    let heard = child.stderr.take().map_or(Ok(0), |stderr| stderr.take(MAX_STDERR).read_to_end(&mut said));
    let status = child.wait()?;
    heard?;
    Ok((status, String::from_utf8_lossy(&said).trim().to_owned()))
}

/// What a child's end means: the component's fault, or ours.
fn why(status: ExitStatus, said: &str, limits: &CompileLimits) -> LoadError {
    let ours = |what: String, transient| {
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        HostError {
            operation: crate::text::message(&format!("compile the component ({what}){said}")),
            transient,
            missing: None,
            source: None,
        }
        .into()
    };
    // With less than it needs it may end in any way.
    if status.code() != Some(i32::from(EXIT_REFUSED))
        && let Some(error) = less_than(limits)
    {
        return error.into();
    }
    match (status.code(), status.signal()) {
        (Some(code), _) if code == i32::from(EXIT_REFUSED) => {
            told(said).map_or_else(|| ours("its refusal cannot be read".to_owned(), false), Into::into)
        }
        (Some(code), _) if code == i32::from(EXIT_SCARCE) => {
            scarce_error("compile the component", Scarce::Memory, &crate::text::message(said)).into()
        }
        (Some(code), _) => ours(format!("exit code {code}"), false),
        (_, Some(libc::SIGXCPU)) => {
            too_expensive(format!("compiling it takes more than {} s of processor time", limits.cpu_seconds)).into()
        }
        // How a Rust process ends when an allocation fails or a stack overflows.
        (_, Some(libc::SIGABRT)) => needs_memory(limits),
        // It did not use the processor time that it had: the machine is at fault, and may be better later.
        (_, Some(libc::SIGALRM)) => ours(
            format!("no end after {} s: the machine is overloaded, or its disk does not answer", limits.wall_seconds),
            true,
        ),
        (_, Some(signal @ (libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE))) => {
            ours(format!("the compiler crashed, signal {signal}"), false)
        }
        // An operator, or the system that ran out of memory: not the component.
        (_, signal) => ours(format!("the compiler was ended by signal {}", signal.unwrap_or_default()), true),
    }
}

/// A refusal as the child wrote it: the last line, since what goes before may be a panic's.
fn told(said: &str) -> Option<Refusal> {
    #[derive(Deserialize)]
    struct ChildRefusal {
        code: String,
        message: String,
        help: String,
    }
    let told: ChildRefusal = serde_json::from_str(said.lines().next_back()?).ok()?;
    let code = CODES.into_iter().find(|code| *code == told.code)?;
    Some(Refusal::new(code, told.message, told.help))
}
