//! Compiles components, in a child process of the same program where one is named: a component that makes the compiler eat memory or time takes a
//! child down, not a worker.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use dovetail_core::executor::HostError;
use wasmtime::Engine;

use crate::component::explain;
use crate::engine::plain_engine;
use crate::outcome::host_error;
use crate::refusal::{LoadError, Refusal};

/// Name of the hidden subcommand of the program that the parent starts: `PROGRAM __compile INPUT OUTPUT`.
pub const SUBCOMMAND: &str = "__compile";
/// Address space of the compiling process, in bytes.
const MAX_ADDRESS_SPACE: u64 = 2 << 30;
/// Processor time of the compiling process, in seconds.
const MAX_CPU_SECONDS: u64 = 60;
/// Threads that compile: each costs address space.
const THREADS: &str = "4";
/// The component is not valid: the message on standard error is for its author.
const EXIT_REFUSED: u8 = 65;

/// What the hidden subcommand does: compiles the component in the file `args[0]` into the file `args[1]`, under its own limits.
///
/// The exit code is 0, or 65 for a component that is not valid, or 70 for a failure of the host; the reason is on standard error.
#[must_use]
pub fn compile_child(args: &[OsString]) -> ExitCode {
    let work = || -> Result<(), (u8, String)> {
        let [input, output] = args else {
            return Err((70, format!("{SUBCOMMAND} takes two files")));
        };
        limit_self().map_err(|error| (70, format!("set limits: {error}")))?;
        let bytes = std::fs::read(input).map_err(|error| (70, format!("read the component: {error}")))?;
        let engine = plain_engine().map_err(|error| (70, error.to_string()))?;
        let code = engine.precompile_component(&bytes).map_err(|error| (EXIT_REFUSED, format!("{error:#}")))?;
        std::fs::write(output, code).map_err(|error| (70, format!("write the code: {error}")))
    };
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, message)) => {
            use std::io::Write as _;
            // The parent reads it; if it is gone, nobody wants to know.
            drop(writeln!(std::io::stderr(), "{message}"));
            ExitCode::from(code)
        }
    }
}

#[expect(unsafe_code, reason = "resource limits have no safe interface in std")]
fn limit_self() -> std::io::Result<()> {
    for (resource, limit) in [(libc::RLIMIT_AS, MAX_ADDRESS_SPACE), (libc::RLIMIT_CPU, MAX_CPU_SECONDS), (libc::RLIMIT_CORE, 0)] {
        let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
        // SAFETY: `setrlimit` reads one `rlimit`, which lives until it returns.
        if unsafe { libc::setrlimit(resource, &raw const limit) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Compiles `bytes` into the file `output`, in a child of `program` or, without one, in this process.
pub(crate) fn compile(engine: &Engine, program: Option<&Path>, bytes: &[u8], output: &Path) -> Result<(), LoadError> {
    let Some(program) = program else {
        let code = engine.precompile_component(bytes).map_err(|error| explain(bytes, &format!("{error:#}")))?;
        return std::fs::write(output, code).map_err(|error| host_error("write compiled code", true, error).into());
    };
    let input = output.with_extension("wasm");
    std::fs::write(&input, bytes).map_err(|error| host_error("hand a component to the compiler", true, error))?;
    let child = Command::new(program)
        .arg(SUBCOMMAND)
        .arg(&input)
        .arg(output)
        .env_clear()
        .env("RAYON_NUM_THREADS", THREADS)
        // Each arena of the allocator reserves 64 MiB of address space.
        .env("MALLOC_ARENA_MAX", "2")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output();
    if let Err(error) = std::fs::remove_file(&input) {
        tracing::warn!(%error, "a component that was compiled is left in the cache folder");
    }
    let child = child.map_err(|error| host_error(format!("start the compiler `{}`", program.display()), true, error))?;
    let message = String::from_utf8_lossy(&child.stderr).trim().to_owned();
    match child.status.code() {
        Some(0) => Ok(()),
        Some(code) if code == i32::from(EXIT_REFUSED) => Err(explain(bytes, &message).into()),
        Some(code) => {
            Err(HostError { operation: format!("compile the component (exit code {code}): {message}"), transient: false, source: None }.into())
        }
        // Killed: by SIGXCPU when the time was over, by SIGABRT when an allocation failed.
        None => Err(Refusal::new(
            "compile_too_expensive",
            "compiling the component takes more than 60 s of processor time or 2 GiB of memory",
            "make it smaller: very large functions are what makes compiling expensive",
        )
        .into()),
    }
}
