//! The trial of a user's network in a process of its own, before this process loads the network: a network can end the
//! process that runs it, use all memory, or never end.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use dovetail_core::vision::VisionError;
use dovetail_runtime::limit_child;
use dovetail_vision::{EngineChoice, EngineOptions, Engines, ModelError, try_model};
use rustix::process::Signal;

/// The name of the hidden subcommand, which is started as `PROGRAM __try-model FILE MANIFEST ENGINE THREADS FOLDER
/// [LIBRARY]`.
pub const TRY_MODEL: &str = "__try-model";

/// Bytes of address space of the trial. The default networks take less than 2 GiB of it, most of it for libraries and
/// the stacks of threads.
const ADDRESS_SPACE: u64 = 8 << 30;
/// Seconds of processor time. The default networks take less than one.
const CPU_SECONDS: u64 = 60;
const WALL_SECONDS: u32 = 300;
/// Exit code if the system, or the limit, refused memory or another resource.
const EXIT_SCARCE: u8 = 71;
/// Exit code if the limits could not be set, or the arguments are wrong.
const EXIT_FAILED: u8 = 70;

/// Runs the hidden subcommand. The exit code is 0 also if the network is refused without harm: the parent finds the
/// same error, and reports it. No other thread may run.
#[must_use]
pub fn try_model_child(args: &[OsString]) -> ExitCode {
    let Some((file, manifest, engine)) = parse(args) else { return ExitCode::from(EXIT_FAILED) };
    if limit_child(ADDRESS_SPACE, CPU_SECONDS, WALL_SECONDS).is_err() {
        return ExitCode::from(EXIT_FAILED);
    }
    match try_model(&file, &manifest, &Engines::new(engine)) {
        Err(ModelError::Engine(VisionError::Scarce { .. })) => ExitCode::from(EXIT_SCARCE),
        _ => ExitCode::SUCCESS,
    }
}

fn parse(args: &[OsString]) -> Option<(PathBuf, PathBuf, EngineOptions)> {
    let (required, library) = args.split_at_checked(5)?;
    let choice = EngineChoice::parse(required[2].to_str()?)?;
    let threads = required[3].to_str()?.parse().ok()?;
    let (library, folder) = (library.first().map(PathBuf::from), PathBuf::from(&required[4]));
    let engine = EngineOptions { choice, library, folder, threads };
    Some((PathBuf::from(&required[0]), PathBuf::from(&required[1]), engine))
}

/// Tries the model `name` in a child of `program`.
///
/// # Errors
/// `Unusable` if the network ends the child or takes too much; `Io` if the child cannot be run.
pub(super) fn try_out(
    program: &Path,
    engine: &EngineOptions,
    name: &str,
    file: &Path,
    manifest: &Path,
) -> Result<(), ModelError> {
    let status = Command::new(program)
        .arg(TRY_MODEL)
        .args([file, manifest])
        .args([engine.choice.name(), &engine.threads.to_string()])
        .arg(&engine.folder)
        .args(&engine.library)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        // The library's own words on its end would only surprise: the parent says what happened.
        .stderr(Stdio::null())
        .status()
        .and_then(|status| judge(status).map_err(std::io::Error::other))
        .map_err(|source| ModelError::Io { operation: "try in a process of its own", path: file.to_owned(), source })?;
    status.map_or(Ok(()), |message| Err(ModelError::Unusable { name: name.to_owned(), path: file.to_owned(), message }))
}

/// What the end of the child says of the network: `None` if the network did no harm. An error if the host is at fault.
fn judge(status: ExitStatus) -> Result<Option<String>, String> {
    let (space, code) = (ADDRESS_SPACE >> 30, status.code());
    let refused = match (code, status.signal().and_then(Signal::from_named_raw)) {
        (Some(0), _) => return Ok(None),
        (Some(code), _) if code == i32::from(EXIT_SCARCE) => {
            format!("its trial pass was refused memory or threads; a trial may take {space} GiB of address space")
        }
        (_, Some(Signal::XCPU)) => format!("its trial pass took more than {CPU_SECONDS} s of processor time"),
        (_, Some(Signal::ALARM)) => format!("its trial pass did not end within {WALL_SECONDS} s"),
        (_, Some(signal @ (Signal::SEGV | Signal::BUS | Signal::ILL | Signal::FPE | Signal::ABORT))) => {
            let words = match signal {
                Signal::FPE => "an integer division by zero or with overflow, SIGFPE",
                Signal::ABORT => "an abort, often for lack of memory, SIGABRT",
                _ => "an access to memory that is not there, SIGSEGV, SIGBUS or SIGILL",
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
            ("kill -XCPU $$", "60 s of processor time"),
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
        let (file, manifest, engine) = parse(&args(&["f", "m", "auto", "3", "/e"])).unwrap();
        assert_eq!((file, manifest), (PathBuf::from("f"), PathBuf::from("m")));
        let folder = PathBuf::from("/e");
        assert_eq!(engine, EngineOptions { choice: EngineChoice::Auto, library: None, folder, threads: 3 });
        let engine = parse(&args(&["f", "m", "opencv", "1", "/e", "/l.so"])).unwrap().2;
        assert_eq!(engine.library, Some(PathBuf::from("/l.so")));
        assert_eq!(parse(&args(&["f", "m", "opencv", "1"])), None);
    }
}
