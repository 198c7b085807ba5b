//! The trial of a user's network in a process of its own, before this process loads the network: a network can end the
//! process that runs it, use all memory, or never end.

use std::ffi::OsString;
use std::io::{Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use dovetail_core::scarce::Scarce;
use dovetail_core::vision::VisionError;
use dovetail_runtime::limit_child;
use dovetail_vision::{EngineChoice, EngineOptions, Engines, ModelError, OwnModel, try_model};
use rustix::process::{Resource, Signal, getrlimit};

/// The name of the hidden subcommand, which is started as `PROGRAM __try-model LENGTH ENGINE FOLDER [LIBRARY]`. Its
/// standard input has the manifest, which has LENGTH bytes, and then the network.
pub const TRY_MODEL: &str = "__try-model";

/// Bytes of address space of the trial. The default networks take less than 2 GiB of it, most of it for libraries and
/// the stacks of threads.
const ADDRESS_SPACE: u64 = 8 << 30;
/// Seconds of processor time, and of wall time. The default networks take less than one.
const SECONDS: u32 = 300;
/// Exit code if memory was refused.
const EXIT_NO_MEMORY: u8 = 71;
/// Exit code if the limits could not be set, or the input could not be read.
const EXIT_FAILED: u8 = 70;
/// Exit code of a Rust program that panics.
const EXIT_PANICKED: i32 = 101;

/// Runs the hidden subcommand with these arguments and this standard input. The exit code is 0 also if the network is
/// refused without harm: the parent finds the same error, and reports it. No other thread may run.
#[must_use]
pub fn try_model_child(args: &[OsString], mut from: impl Read) -> ExitCode {
    let Some((length, engine)) = parse(args) else { return ExitCode::from(EXIT_FAILED) };
    let mut input = Vec::new();
    if limit_child(ADDRESS_SPACE, SECONDS.into(), SECONDS).is_err() || from.read_to_end(&mut input).is_err() {
        return ExitCode::from(EXIT_FAILED);
    }
    let Some((manifest, file)) = input.split_at_checked(length) else { return ExitCode::from(EXIT_FAILED) };
    let (manifest, file) = (manifest.to_vec(), file.to_vec());
    drop(input);
    match try_model(&manifest, file, &Engines::new(engine)) {
        // The parent meets other refusals too, and reports them.
        Err(ModelError::Engine(VisionError::Scarce { scarce: Scarce::Memory, .. })) => ExitCode::from(EXIT_NO_MEMORY),
        _ => ExitCode::SUCCESS,
    }
}

fn parse(args: &[OsString]) -> Option<(usize, EngineOptions)> {
    let (required, library) = args.split_at_checked(3)?;
    let length = required[0].to_str()?.parse().ok()?;
    let choice = EngineChoice::parse(required[1].to_str()?)?;
    let (library, folder) = (library.first().map(PathBuf::from), PathBuf::from(&required[2]));
    // Each thread takes address space, so the setting of this machine must not decide whether a network is refused.
    Some((length, EngineOptions { choice, library, folder, threads: 1 }))
}

/// Tries a user's model in a child of `program`. `path` is the file that an error names.
///
/// # Errors
/// `Unusable` if the network ends the child or takes too much; `Io` if the child cannot be run.
pub(super) fn try_out(
    program: &Path,
    engine: &EngineOptions,
    model: &OwnModel<'_>,
    path: &Path,
) -> Result<(), ModelError> {
    let refused = run(program, engine, model)
        .and_then(|status| judge(status).map_err(std::io::Error::other))
        .map_err(|source| ModelError::Io { operation: "try in a process of its own", path: path.to_owned(), source })?;
    // With less address space than the trial may have, the child may end in any way, and the network is not at fault.
    let has_less = getrlimit(Resource::As).maximum.is_some_and(|most| most < ADDRESS_SPACE);
    match refused {
        Some(message) if !has_less => {
            Err(ModelError::Unusable { name: model.name.to_owned(), path: path.to_owned(), message })
        }
        _ => Ok(()),
    }
}

fn run(program: &Path, engine: &EngineOptions, model: &OwnModel<'_>) -> std::io::Result<ExitStatus> {
    let mut child = Command::new(program);
    child.arg(TRY_MODEL).arg(model.manifest.len().to_string()).arg(engine.choice.name());
    child.arg(&engine.folder).args(&engine.library);
    // The child runs what a stranger may have written, so the fleet's passwords are kept from its environment.
    child.env_clear().envs(std::env::var_os("LD_LIBRARY_PATH").map(|folders| ("LD_LIBRARY_PATH", folders)));
    // Each arena of the allocator reserves 64 MiB of address space.
    child.env("MALLOC_ARENA_MAX", "2");
    // The library's own words on its end would only surprise: the parent says what happened.
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let sent = child.stdin.take().map_or(Ok(()), |mut pipe| {
        pipe.write_all(model.manifest)?;
        pipe.write_all(model.file)
    });
    let status = child.wait()?;
    // A child that ended early closed its pipe, and its end says why.
    if status.success() { sent.map(|()| status) } else { Ok(status) }
}

/// What the end of the child says of the network: `None` if the network did no harm. An error if the host is at fault.
fn judge(status: ExitStatus) -> Result<Option<String>, String> {
    let space = ADDRESS_SPACE >> 30;
    let refused = match (status.code(), status.signal().and_then(Signal::from_named_raw)) {
        (Some(0), _) => return Ok(None),
        (Some(code), _) if code == i32::from(EXIT_NO_MEMORY) => {
            format!("its trial pass was refused memory; a trial may take {space} GiB of address space")
        }
        (Some(EXIT_PANICKED), _) => "its trial pass panicked".to_owned(),
        (_, Some(Signal::XCPU)) => format!("its trial pass took more than {SECONDS} s of processor time"),
        (_, Some(Signal::ALARM)) => format!("its trial pass did not end within {SECONDS} s"),
        (_, Some(signal @ (Signal::SEGV | Signal::BUS | Signal::ILL | Signal::FPE | Signal::ABORT))) => {
            let words = match signal {
                Signal::FPE => "an integer division by zero or with overflow, SIGFPE".to_owned(),
                Signal::ABORT => format!("an abort, often for want of more than {space} GiB of memory, SIGABRT"),
                _ => "an access to memory that is not there, SIGSEGV, SIGBUS or SIGILL".to_owned(),
            };
            format!("its trial pass ended the process ({words}); in a worker it would end the worker")
        }
        _ => return Err(format!("the trial was ended from outside: {status}")),
    };
    Ok(Some(refused))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(script: &str) -> Result<Option<String>, String> {
        judge(Command::new("sh").args(["-c", script]).status().unwrap())
    }

    #[test]
    fn the_end_of_a_trial_tells_whose_fault_it_is() {
        assert_eq!(ended("exit 0"), Ok(None));
        for (script, words) in [
            ("exit 71", "refused memory"),
            ("exit 101", "panicked"),
            ("kill -XCPU $$", "300 s of processor time"),
            ("kill -ALRM $$", "within 300 s"),
            ("kill -FPE $$", "SIGFPE"),
            ("ulimit -c 0; kill -SEGV $$", "SIGSEGV"),
            ("ulimit -c 0; kill -ABRT $$", "SIGABRT"),
        ] {
            let refused = ended(script).unwrap().unwrap();
            assert!(refused.contains(words), "{script}: {refused}");
        }
        for script in ["kill -KILL $$", "kill -TERM $$", "exit 70", "exit 1"] {
            assert!(ended(script).is_err(), "{script}");
        }
    }

    #[test]
    fn the_arguments_are_read_as_they_are_given() {
        let args = |all: &[&str]| all.iter().map(OsString::from).collect::<Vec<_>>();
        let folder = PathBuf::from("/e");
        let (length, engine) = parse(&args(&["7", "auto", "/e"])).unwrap();
        assert_eq!(length, 7);
        assert_eq!(engine, EngineOptions { choice: EngineChoice::Auto, library: None, folder, threads: 1 });
        let engine = parse(&args(&["7", "opencv", "/e", "/l.so"])).unwrap().1;
        assert_eq!(engine.library, Some(PathBuf::from("/l.so")));
        assert_eq!(parse(&args(&["7", "opencv"])), None);
    }
}
