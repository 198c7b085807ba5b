//! The cache of compiled components on disk.
//!
//! Only the host may enter the folder (0700), because its files are machine code. A file's name is made of the
//! component's digest and the engine's key. Each file has a second file with the sha256 of the code, because damaged
//! code would be executed as it is.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use dovetail_core::Digest;
use dovetail_core::scarce::Scarce;
use dovetail_core::sync::lock;
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
    /// The folder in which code is written.
    folder: PathBuf,
    /// The folder from which code is read.
    kept: PathBuf,
    /// If `kept` is not writable: the temporary folder that replaces it. It is removed with the process.
    stand_in: Option<TempDir>,
    max_bytes: u64,
    program: Option<PathBuf>,
    limits: CompileLimits,
    key: String,
    /// One compilation of a component at a time in this process. A file lock excludes other processes.
    flights: Mutex<HashMap<Digest, Arc<Mutex<()>>>>,
}

impl Cache {
    /// Creates the folder, accessible only to its owner. If the folder is not writable, code that it lacks is compiled
    /// for this process only.
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
                // The temporary folder is also accessible only to its owner.
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

    /// Loads the component, and compiles it first if the cache does not have it.
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
        let flight = lock(&self.flights).entry(digest).or_default().clone();
        let result = {
            let _alone = lock(&flight);
            self.compile(engine, bytes, &path)
        };
        lock(&self.flights).remove(&digest);
        result
    }

    fn compile(&self, engine: &Engine, bytes: &[u8], path: &Path) -> Result<Component, LoadError> {
        let failed = |error: io::Error| host_error("use the folder of compiled code", true, error);
        // One lock for all components, because compiling uses every core anyway. The kernel releases the lock if this
        // process dies.
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.folder.join("lock"))
            .map_err(failed)?;
        lock.lock().map_err(failed)?;
        // Another process may have compiled the component in the meantime.
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
            // Leave neither a partial file of code nor a sum without its code.
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
        self.read(engine, path)?.ok_or_else(|| {
            host_error("load compiled code", false, "the code that was just compiled does not load").into()
        })
    }

    /// Removes the files of a process that died while it compiled. The caller holds the lock, so no other process is
    /// compiling.
    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "new" || extension == "wasm") {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// The code, if the cache has it undamaged. A damaged file is removed.
    fn read(&self, engine: &Engine, path: &Path) -> Result<Option<Component>, LoadError> {
        // A resource that the system refuses to this process says nothing about the file, so the file stays.
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
                // The modification time records the last use, for `evict`. In a read-only folder the call fails, and
                // nothing is evicted there.
                drop(code.set_modified(SystemTime::now()));
                Ok(Some(component))
            }
            Err(error) if let Some(scarce) = scarce(&error) => {
                Err(scarce_error("load compiled code", scarce, &error.root_cause().to_string()).into())
            }
            // Intact code that does not fit into a slot of the pool: compiling it again would not help.
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
                tracing::warn!(
                    error = format!("{error:#}"),
                    path = %path.display(),
                    "compiled code does not load: it is compiled again"
                );
                drop(fs::remove_file(path));
                Ok(None)
            }
        }
    }

    /// Whether the code in `kept` may be run, because no other user can write there. A folder that this process may
    /// write to was made private when it was opened.
    fn is_trusted(&self) -> bool {
        self.stand_in.is_none() || fs::metadata(&self.kept).is_ok_and(|about| about.permissions().mode() & 0o077 == 0)
    }

    /// Removes code that was not used for `unused_for`, or with `look_only` only counts it. Returns the number of
    /// components and their bytes. A process that runs a removed component keeps it mapped.
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

    /// Removes the least recently used code until the folder is within its limit. `keep` stays.
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

/// The last use, the size and the path of each component's file.
fn code(folder: &Path) -> io::Result<Vec<(SystemTime, u64, PathBuf)>> {
    let mut files = Vec::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // A read-only parent: the folder was never created.
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

/// Creates the folder, makes it accessible only to its owner, and checks that it is writable.
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
    // SAFETY: only this module writes to the folder, which no other user can enter (0700). The file's sha256 was
    // compared just now. wasmtime itself compares the compiler's version and settings.
    unsafe { Component::deserialize_file(engine, path) }
}
