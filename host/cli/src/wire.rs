//! From the configuration to concrete things: stores, runtime, vision, models. The only place that names them together.
//! Each is opened when a command first needs it, so that listing runs loads no OpenCV and starts no thread of the
//! runtime.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use dovetail_core::blobs::{Blobs, StoreErrorKind};
use dovetail_core::ledger::Ledger;
use dovetail_core::retention::{Archive, Owned};
use dovetail_flow::{FleetLedger, FlowError, OwnBlobs, Parts, SystemClock};
use dovetail_runtime::{Budgets, CompileLimits, Compiler, CompilerOptions, LiveSink, Options, Runtime};
use dovetail_stores::{FileBlobs, SqliteLedger};
use dovetail_vision::{ModelStore, Opencv};
use tempfile::TempDir;

use crate::args::Global;
use crate::config::Config;
use crate::error::{Error, unwritable};
use crate::output::Output;
use crate::paths::{self, Shown as _};

/// The most that compiled code may take on the disk, in bytes: hundreds of tasks.
const COMPILED_BYTES: u64 = 256 << 20;

/// What a command works with.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) output: Output,
    /// The options with which this process was started.
    typed: Global,
    parts: OnceLock<Parts>,
    /// The same where nothing can be written.
    to_read: OnceLock<Parts>,
    /// Where there is no data folder yet: an empty one, for commands that only read.
    nothing: OnceLock<Nothing>,
}

/// A data folder in which there is nothing, and which goes with the process.
struct Nothing {
    // Closed before the folder is removed.
    parts: OnceLock<Parts>,
    folder: TempDir,
}

impl App {
    /// Opens nothing yet.
    pub(crate) fn new(config: Config, output: Output) -> Self {
        Self {
            config,
            output,
            typed: Global::default(),
            parts: OnceLock::new(),
            to_read: OnceLock::new(),
            nothing: OnceLock::new(),
        }
    }

    /// Started with these options.
    pub(crate) fn typed(self, typed: Global) -> Self {
        Self { typed, ..self }
    }

    /// Another command on the same stores, as it is typed.
    pub(crate) fn again(&self, command: &str) -> String {
        self.typed.again(command, (!self.config.is_fleet() || self.typed.data.is_some()).then_some(&self.config.data))
    }

    /// The stores of the data folder, which is made if it is not there.
    pub(crate) fn parts(&self) -> Result<&Parts, Error> {
        if let Some(parts) = self.parts.get() {
            return Ok(parts);
        }
        let data = &self.config.data;
        dovetail_stores::make_folder(data).map_err(|e| {
            let help = unwritable(e.kind(), "name another with --data DIR, or give yourself the right to write there");
            Error::host("data_folder", format!("make the data folder `{}`", data.shown())).cause(e).help(help)
        })?;
        let parts = open(&self.config)?;
        Ok(self.parts.get_or_init(|| parts))
    }

    /// The stores of the data folder, for a command that only reads: where there is no data folder it makes none, and
    /// finds nothing; where nothing can be written it reads all the same.
    pub(crate) fn parts_to_read(&self) -> Result<&Parts, Error> {
        if let Some(parts) = self.to_read.get() {
            return Ok(parts);
        }
        if self.has_data()? {
            return match self.parts() {
                Err(error) if error.code == "store_refused" && !self.config.is_fleet() => {
                    tracing::debug!(err = error.chain(), "nothing can be written to the data folder");
                    let parts = read_only(&self.config.data)?;
                    Ok(self.to_read.get_or_init(|| parts))
                }
                parts => parts,
            };
        }
        let nothing = self.nothing()?;
        if let Some(parts) = nothing.parts.get() {
            return Ok(parts);
        }
        let parts = embedded(nothing.folder.path())?;
        Ok(nothing.parts.get_or_init(|| parts))
    }

    /// What living workers say of themselves, by name. They say it in the queue: that the records do not answer hides
    /// nobody.
    pub(crate) fn living(&self) -> Result<Vec<(String, Vec<u8>)>, Error> {
        match self.parts_to_read() {
            Ok(parts) => Ok(parts.ledger.workers()?),
            Err(error) if error.code == "store_unavailable" && self.config.is_fleet() => {
                let Config { queue, fleet, .. } = &self.config;
                let window = dovetail_stores::open_window(queue.url(), fleet, dovetail_flow::new_run_id()?.as_str());
                // Where the queue does not answer, the first error says so.
                let Ok(window) = window else { return Err(error) };
                let living = window.workers()?;
                self.output.note(&format!("{}; who lives is known all the same", error.chain()));
                Ok(living)
            }
            Err(error) => Err(error),
        }
    }

    /// The records, for whoever removes some; to look only, also where nothing can be written.
    pub(crate) fn archive(&self, look_only: bool) -> Result<Arc<dyn Archive>, Error> {
        let Config { meta, data, fleet, .. } = &self.config;
        match dovetail_stores::open_archive(meta.url(), data, fleet, Arc::new(SystemClock)) {
            Err(error)
                if look_only
                    && meta.scheme() == "sqlite"
                    && matches!(error.kind, StoreErrorKind::Refused | StoreErrorKind::Full) =>
            {
                Ok(Arc::new(SqliteLedger::open_to_read(data, Arc::new(SystemClock))?))
            }
            archive => Ok(archive?),
        }
    }

    /// Before work begins whose steps store blobs: whether they may be stored there is known then, and not after the
    /// first step.
    pub(crate) fn own_blobs(&self) -> Result<(), Error> {
        self.with_owned(dovetail_flow::own_blobs)
    }

    /// The same for a worker, which may not begin on another store than its fleet's either.
    pub(crate) fn own_blobs_to_work(&self) -> Result<(), Error> {
        self.with_owned(dovetail_flow::own_blobs_to_work)
    }

    fn with_owned(&self, own: fn(&dyn Ledger, &dyn Owned, bool) -> Result<(), FlowError>) -> Result<(), Error> {
        let store = dovetail_stores::open_shelf(self.config.blobs.url(), &self.config.data)?;
        Ok(own(&*self.parts()?.ledger, &*store, self.config.is_together())?)
    }

    /// Whether the data folder is one already: whatever is written first makes one of these.
    pub(crate) fn has_data(&self) -> Result<bool, Error> {
        // What a fleet has is not here.
        if self.config.is_fleet() {
            return Ok(true);
        }
        if paths::leads_nowhere(&self.config.data) {
            let message = format!("`{}` is a link that leads nowhere", self.config.data.shown());
            return Err(Error::host("data_folder", message).help("mend the link, or name another with --data DIR"));
        }
        for name in ["dovetail.db", "models"] {
            let path = self.config.data.join(name);
            let there = path.try_exists().map_err(|e| {
                let error =
                    Error::host("data_folder", format!("look into the data folder `{}`", self.config.data.shown()));
                error.cause(e).help("name another with --data DIR, or give yourself the right to read there")
            })?;
            if there {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn nothing(&self) -> Result<&Nothing, Error> {
        if let Some(nothing) = self.nothing.get() {
            return Ok(nothing);
        }
        let folder = tempfile::Builder::new().prefix("dovetail-").tempdir().map_err(|e| {
            Error::host("temporary_folder", "make a temporary folder")
                .cause(e)
                .help("set TMPDIR to a folder that is writable")
        })?;
        Ok(self.nothing.get_or_init(|| Nothing { parts: OnceLock::new(), folder }))
    }

    /// The data folder as far as it is there, else the empty one.
    fn folder_to_read(&self) -> Result<&Path, Error> {
        Ok(if self.has_data()? { &self.config.data } else { self.nothing()?.folder.path() })
    }

    /// The installed models. To install one the data folder is made.
    pub(crate) fn models(&self) -> Result<ModelStore, Error> {
        Ok(ModelStore::open(self.config.data.join("models"))?)
    }

    /// The installed models, for a command that only reads.
    pub(crate) fn models_to_read(&self) -> Result<ModelStore, Error> {
        Ok(ModelStore::open(self.folder_to_read()?.join("models"))?)
    }

    /// Where compiled code is kept. Without a data folder it is not kept.
    pub(crate) fn compiled_folder(&self) -> Result<PathBuf, Error> {
        Ok(self.folder_to_read()?.join("compiled"))
    }

    /// Looks at components, runs none.
    pub(crate) fn compiler(&self) -> Result<Compiler, Error> {
        let program = Some(this_program()?);
        Ok(Compiler::new(CompilerOptions {
            cache_dir: self.compiled_folder()?,
            cache_bytes: COMPILED_BYTES,
            program,
            limits: CompileLimits::default(),
        })?)
    }

    /// OpenCV with the installed models; nothing is loaded yet.
    pub(crate) fn vision(&self) -> Result<Opencv, Error> {
        let config = &self.config;
        Ok(Opencv::new(dovetail_vision::Options {
            models: self.folder_to_read()?.join("models"),
            threads: config.vision_threads,
            image_cache_bytes: config.image_cache,
            opencv_threads: config.opencv_threads,
        })?)
    }

    /// Runs tasks from `blobs`, `jobs` at a time.
    pub(crate) fn runtime(&self, blobs: Arc<dyn Blobs>, jobs: u32, live: Option<LiveSink>) -> Result<Runtime, Error> {
        self.runtime_with(Arc::new(self.vision()?), blobs, jobs, live)
    }

    /// The same with vision that others use, too.
    pub(crate) fn runtime_with(
        &self,
        vision: Arc<Opencv>,
        blobs: Arc<dyn Blobs>,
        jobs: u32,
        live: Option<LiveSink>,
    ) -> Result<Runtime, Error> {
        Ok(Runtime::new(Options {
            blobs,
            vision,
            cache_dir: self.compiled_folder()?,
            cache_bytes: COMPILED_BYTES,
            compiler: Some(this_program()?),
            jobs,
            budgets: Budgets::default(),
            live,
        })?)
    }
}

fn open(config: &Config) -> Result<Parts, Error> {
    let data = &config.data;
    let clock = Arc::new(SystemClock);
    let (blobs, store) = dovetail_stores::open_blobs_to_write(config.blobs.url(), data)?;
    let ledger: Arc<dyn Ledger> = if config.is_fleet() {
        let window =
            dovetail_stores::open_window(config.queue.url(), &config.fleet, dovetail_flow::new_run_id()?.as_str())?;
        let meta = dovetail_stores::open_meta(config.meta.url(), data, &config.fleet, clock.clone())?;
        Arc::new(FleetLedger::new(meta, window)?)
    } else {
        Arc::new(SqliteLedger::open(data, clock.clone())?)
    };
    let blobs = OwnBlobs::new(blobs, store, ledger.clone(), clock.clone(), config.is_together());
    Ok(Parts { ledger, blobs: Arc::new(blobs), clock })
}

/// A data folder alone.
fn embedded(data: &Path) -> Result<Parts, Error> {
    let clock = Arc::new(SystemClock);
    let ledger = SqliteLedger::open(data, clock.clone())?;
    Ok(Parts { ledger: Arc::new(ledger), blobs: Arc::new(FileBlobs::new(data)), clock })
}

/// The same where nothing can be written.
fn read_only(data: &Path) -> Result<Parts, Error> {
    let clock = Arc::new(SystemClock);
    let ledger = SqliteLedger::open_to_read(data, clock.clone())?;
    Ok(Parts { ledger: Arc::new(ledger), blobs: Arc::new(FileBlobs::new(data)), clock })
}

/// This very program, which compiles components in a child process of itself, and measures workers that are children of
/// it.
pub(crate) fn this_program() -> Result<PathBuf, Error> {
    // What was started stays itself, even when the file is replaced meanwhile (an update).
    let own = Path::new("/proc/self/exe");
    if own.try_exists().unwrap_or(false) {
        return Ok(own.to_owned());
    }
    std::env::current_exe().map_err(|e| Error::host("own_program", "find the program's own file").cause(e))
}
