//! Compiled components: on disk by what they depend on, checked before they are run.
//!
//! The folder is the host's own (0700): its files are machine code. Names are the component's digest and the engine's
//! key; beside each stands the sha256 of the code, since a damaged file would be executed as it is.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use dovetail_core::Digest;
use dovetail_core::scarce::Scarce;
use tempfile::TempDir;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::compile::{CompileLimits, compile};
use crate::component::check_kind;
use crate::engine::{code_key, plain_engine};
use crate::outcome::{host_error, scarce, scarce_error};
use crate::refusal::{LoadError, Refusal};

/// The folder of compiled code.
#[derive(Debug)]
pub(crate) struct Cache {
    /// Where code is written.
    folder: PathBuf,
    /// Where it is read from.
    kept: PathBuf,
    /// Where nothing can be written to `kept`: the folder that stands in for it, and goes with the process.
    stand_in: Option<TempDir>,
    max_bytes: u64,
    program: Option<PathBuf>,
    limits: CompileLimits,
    key: String,
    /// One compilation of one component at a time in this process; other processes are kept away by a file lock.
    flights: Mutex<HashMap<Digest, Arc<Mutex<()>>>>,
}

impl Cache {
    /// Makes the folder, readable by its owner only. It is a cache: where it cannot be written, what it has not is
    /// compiled for this process only.
    pub(crate) fn open(
        engine: &Engine,
        kept: PathBuf,
        max_bytes: u64,
        program: Option<PathBuf>,
        limits: CompileLimits,
    ) -> io::Result<Self> {
        let stand_in = match private(&kept) {
            Ok(()) => None,
            Err(error) if is_read_only(&error) => {
                tracing::debug!(%error, path = %kept.display(), "compiled code cannot be kept");
                // Of the owner only, too.
                Some(tempfile::Builder::new().prefix("dovetail-").tempdir()?)
            }
            Err(error) => return Err(error),
        };
        let folder = stand_in.as_ref().map_or_else(|| kept.clone(), |folder| folder.path().to_owned());
        Ok(Self {
            folder,
            kept,
            stand_in,
            max_bytes,
            program,
            limits,
            key: code_key(engine),
            flights: Mutex::default(),
        })
    }

    /// The component, compiled now if it was not yet.
    pub(crate) fn load(&self, engine: &Engine, bytes: &[u8]) -> Result<Component, LoadError> {
        check_kind(bytes)?;
        let digest = Digest::of(bytes);
        let name = format!("{}-{}.cwasm", digest.hex(), self.key);
        if self.is_trusted()
            && let Some(component) = self.read(engine, &self.kept.join(&name))?
        {
            return Ok(component);
        }
        let path = self.folder.join(name);
        let flight = self.flights.lock().unwrap_or_else(PoisonError::into_inner).entry(digest).or_default().clone();
        let result = {
            let _alone = flight.lock().unwrap_or_else(PoisonError::into_inner);
            self.compile(engine, bytes, &path)
        };
        self.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest);
        result
    }

    fn compile(&self, engine: &Engine, bytes: &[u8], path: &Path) -> Result<Component, LoadError> {
        let failed = |error: io::Error| host_error("use the folder of compiled code", true, error);
        // One lock for all components: compiling fills every core anyway. Freed by the kernel if we die.
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.folder.join("lock"))
            .map_err(failed)?;
        lock.lock().map_err(failed)?;
        // Somebody may have been faster.
        if let Some(component) = self.read(engine, path)? {
            return Ok(component);
        }
        self.sweep().map_err(failed)?;
        let began = std::time::Instant::now();
        let made = path.with_extension("new");
        let place = || -> io::Result<()> {
            let code = Digest::of_reader(&mut File::open(&made)?)?;
            fs::write(sum_of(path), code.hex())?;
            fs::rename(&made, path)
        };
        let placed = compile(engine, self.program.as_deref(), &self.limits, bytes, &made)
            .and_then(|()| place().map_err(|error| failed(error).into()));
        if let Err(error) = placed {
            // Neither half a file of code nor a sum without its code.
            drop(fs::remove_file(&made));
            drop(fs::remove_file(sum_of(path)));
            return Err(error);
        }
        tracing::debug!(
            component = path.file_stem().and_then(|stem| stem.to_str()),
            elapsed_ms = began.elapsed().as_millis() as u64,
            "compiled"
        );
        if let Err(error) = self.evict(path) {
            tracing::warn!(%error, "compiled code that is no longer used could not be removed");
        }
        self.read(engine, path)?
            .ok_or_else(|| host_error("load compiled code", false, "what was just compiled does not load").into())
    }

    /// Removes what a process left that died while it compiled. The caller holds the lock: nobody else compiles.
    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "new" || extension == "wasm") {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// The code if it is there and is what was written. What is damaged is removed.
    fn read(&self, engine: &Engine, path: &Path) -> Result<Option<Component>, LoadError> {
        // What the system refuses this process says nothing about the file, which is no worse for it.
        let limited = |error: &io::Error| match Scarce::of_io(error) {
            Some(scarce) => Err(scarce_error("load compiled code", scarce, &error.to_string())),
            None => Ok(()),
        };
        let mut code = match File::open(path) {
            Ok(code) => code,
            Err(error) => return Ok(limited(&error).map(|()| None)?),
        };
        let sum = fs::read_to_string(sum_of(path)).or_else(|error| limited(&error).map(|()| String::new()))?;
        let digest = Digest::of_reader(&mut code).map(Some).or_else(|error| limited(&error).map(|()| None))?;
        if digest.is_none_or(|digest| digest.hex() != sum) {
            tracing::warn!(path = %path.display(), "compiled code is damaged: it is compiled again");
            drop(fs::remove_file(path));
            return Ok(None);
        }
        match deserialize(engine, path) {
            Ok(component) => {
                // How recently it was used, for `evict`. On a read-only folder nothing is evicted either.
                drop(code.set_modified(SystemTime::now()));
                Ok(Some(component))
            }
            Err(error) if let Some(scarce) = scarce(&error) => {
                Err(scarce_error("load compiled code", scarce, &error.root_cause().to_string()).into())
            }
            // Good code that has no room in a slot of the pool: compiling it again would change nothing.
            Err(error)
                if engine.pooling_allocator_metrics().is_some()
                    && plain_engine().is_ok_and(|plain| deserialize(&plain, path).is_ok()) =>
            {
                Err(Refusal::new(
                    "component_too_large",
                    format!("an instance of it does not fit: {error:#}"),
                    "use fewer or smaller memories, tables and modules",
                )
                .into())
            }
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), path = %path.display(), "compiled code does not load: it is compiled again");
                drop(fs::remove_file(path));
                Ok(None)
            }
        }
    }

    /// Whether code that is there may be run: nobody else could have put it there. A folder that we may write is made
    /// so.
    fn is_trusted(&self) -> bool {
        self.stand_in.is_none() || fs::metadata(&self.kept).is_ok_and(|about| about.permissions().mode() & 0o077 == 0)
    }

    /// Removes what was not used for so long, or with `look_only` only counts it: components and bytes. Whoever runs
    /// one keeps it mapped.
    pub(crate) fn remove_unused(&self, unused_for: Duration, look_only: bool) -> io::Result<(u64, u64)> {
        let lock = (!look_only)
            .then(|| OpenOptions::new().create(true).truncate(false).write(true).open(self.kept.join("lock")))
            .transpose()?;
        if let Some(lock) = &lock {
            lock.lock()?;
        }
        let (mut number, mut bytes) = (0, 0);
        for (used, size, path) in code(&self.kept)? {
            if used.elapsed().unwrap_or_default() < unused_for {
                continue;
            }
            if !look_only {
                fs::remove_file(&path)?;
                drop(fs::remove_file(sum_of(&path)));
            }
            number += 1;
            bytes += size;
        }
        Ok((number, bytes))
    }

    /// Removes what was not used for longest until the folder is within its bound; `keep` stays.
    fn evict(&self, keep: &Path) -> io::Result<()> {
        let mut files = code(&self.folder)?;
        files.sort();
        let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in files {
            if total <= self.max_bytes {
                break;
            }
            if path != keep {
                fs::remove_file(&path)?;
                drop(fs::remove_file(sum_of(&path)));
                total -= bytes;
            }
        }
        Ok(())
    }
}

/// Each component's file: when it was last used, its size, its path.
fn code(folder: &Path) -> io::Result<Vec<(SystemTime, u64, PathBuf)>> {
    let mut files = Vec::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // Where nothing can be written it was not made.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "cwasm") {
            let about = fs::metadata(&path)?;
            files.push((about.modified()?, about.len(), path));
        }
    }
    Ok(files)
}

/// Makes the folder one that its owner alone may enter, and in which it can be written.
fn private(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    if fs::metadata(folder)?.permissions().mode() & 0o777 != 0o700 {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    Ok(rustix::fs::access(folder, rustix::fs::Access::WRITE_OK)?)
}

fn is_read_only(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

fn sum_of(path: &Path) -> PathBuf {
    path.with_extension("cwasm.sha256")
}

#[expect(unsafe_code, reason = "compiled code is machine code: wasmtime cannot check it")]
fn deserialize(engine: &Engine, path: &Path) -> wasmtime::Result<Component> {
    // SAFETY: only this module writes into the folder, which nobody else may enter (0700); the file's sha256 was
    // compared just now; wasmtime itself compares version and settings of the compiler.
    unsafe { Component::deserialize_file(engine, path) }
}
