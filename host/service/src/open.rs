//! From the settings to concrete things: stores, runtime, vision, models. The only place that names them together. Each
//! is opened when a request first needs it, so that listing runs loads no OpenCV and starts no thread of the runtime.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use dovetail_core::blobs::{Blobs, StoreErrorKind};
use dovetail_core::ledger::Ledger;
use dovetail_core::retention::{Archive, Owned};
use dovetail_flow::{FleetLedger, FlowError, OwnBlobs, Ports, SystemClock};
use dovetail_runtime::{Budgets, CompileLimits, Compiler, CompilerOptions, LiveSink, Options, Runtime};
use dovetail_stores::{FileBlobs, SqliteLedger};
use dovetail_vision::{ModelStore, Opencv};
use tempfile::TempDir;

use crate::error::{Error, unwritable};
use crate::paths::{self, Shown as _};
use crate::settings::Settings;

/// The most that compiled code may take on the disk, in bytes: hundreds of tasks.
const COMPILED_BYTES: u64 = 256 << 20;

/// The service on the stores that the settings name.
pub struct Service {
    pub settings: Settings,
    ports: OnceLock<Ports>,
    /// The same if nothing can be written.
    to_read: OnceLock<Ports>,
    /// If there is no data folder yet: an empty one, for requests that only read.
    nothing: OnceLock<Nothing>,
}

/// A data folder in which there is nothing, and which goes with the process.
struct Nothing {
    // Closed before the folder is removed.
    ports: OnceLock<Ports>,
    folder: TempDir,
}

impl Service {
    /// Opens nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, ports: OnceLock::new(), to_read: OnceLock::new(), nothing: OnceLock::new() }
    }

    /// The stores of the data folder, which is made if it is not there.
    pub fn ports(&self) -> Result<&Ports, Error> {
        if let Some(parts) = self.ports.get() {
            return Ok(parts);
        }
        let data = &self.settings.data;
        dovetail_stores::make_folder(data).map_err(|e| {
            let help = unwritable(e.kind(), "name another with --data DIR, or give yourself the right to write there");
            Error::host("data_folder", format!("make the data folder `{}`", data.shown())).cause(e).help(help)
        })?;
        let parts = open(&self.settings)?;
        Ok(self.ports.get_or_init(|| parts))
    }

    /// The stores of the data folder, for a command that only reads: where there is no data folder it makes none, and
    /// finds nothing; where nothing can be written it reads all the same.
    pub fn ports_to_read(&self) -> Result<&Ports, Error> {
        if let Some(parts) = self.to_read.get() {
            return Ok(parts);
        }
        if self.has_data()? {
            return match self.ports() {
                Err(error) if error.code == "store_refused" && !self.settings.is_fleet() => {
                    tracing::debug!(err = error.chain(), "nothing can be written to the data folder");
                    let parts = read_only(&self.settings.data)?;
                    Ok(self.to_read.get_or_init(|| parts))
                }
                parts => parts,
            };
        }
        let nothing = self.nothing()?;
        if let Some(parts) = nothing.ports.get() {
            return Ok(parts);
        }
        let parts = embedded(nothing.folder.path())?;
        Ok(nothing.ports.get_or_init(|| parts))
    }

    /// The records, for whoever removes some; to look only, also where nothing can be written.
    pub fn archive(&self, look_only: bool) -> Result<Arc<dyn Archive>, Error> {
        let Settings { meta, data, fleet, .. } = &self.settings;
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
    pub fn own_blobs(&self) -> Result<(), Error> {
        self.with_owned(dovetail_flow::own_blobs)
    }

    /// The same for a worker, which may not begin on another store than its fleet's either.
    pub fn own_blobs_to_work(&self) -> Result<(), Error> {
        self.with_owned(dovetail_flow::own_blobs_to_work)
    }

    fn with_owned(&self, own: fn(&dyn Ledger, &dyn Owned, bool) -> Result<(), FlowError>) -> Result<(), Error> {
        let store = dovetail_stores::open_removable_blobs(self.settings.blobs.url(), &self.settings.data)?;
        Ok(own(&*self.ports()?.ledger, &*store, self.settings.is_together())?)
    }

    /// Whether the data folder is one already: whatever is written first makes one of these.
    pub fn has_data(&self) -> Result<bool, Error> {
        // What a fleet has is not here.
        if self.settings.is_fleet() {
            return Ok(true);
        }
        if paths::leads_nowhere(&self.settings.data) {
            let message = format!("`{}` is a link that leads nowhere", self.settings.data.shown());
            return Err(Error::host("data_folder", message).help("mend the link, or name another with --data DIR"));
        }
        for name in ["dovetail.db", "models"] {
            let path = self.settings.data.join(name);
            let there = path.try_exists().map_err(|e| {
                let error =
                    Error::host("data_folder", format!("look into the data folder `{}`", self.settings.data.shown()));
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
        let folder = crate::files::temporary("dovetail-")?;
        Ok(self.nothing.get_or_init(|| Nothing { ports: OnceLock::new(), folder }))
    }

    /// The data folder as far as it is there, else the empty one.
    fn folder_to_read(&self) -> Result<&Path, Error> {
        Ok(if self.has_data()? { &self.settings.data } else { self.nothing()?.folder.path() })
    }

    /// The installed models. To install one the data folder is made.
    pub fn models(&self) -> Result<ModelStore, Error> {
        Ok(ModelStore::open(self.settings.data.join("models"))?)
    }

    /// The installed models, for a command that only reads.
    pub fn models_to_read(&self) -> Result<ModelStore, Error> {
        Ok(ModelStore::open(self.folder_to_read()?.join("models"))?)
    }

    /// Where compiled code is kept. Without a data folder it is not kept.
    pub fn compiled_folder(&self) -> Result<PathBuf, Error> {
        Ok(self.folder_to_read()?.join("compiled"))
    }

    /// Looks at components, runs none.
    pub fn compiler(&self) -> Result<Compiler, Error> {
        let program = Some(this_program()?);
        Ok(Compiler::new(CompilerOptions {
            cache_dir: self.compiled_folder()?,
            cache_bytes: COMPILED_BYTES,
            program,
            limits: CompileLimits::default(),
        })?)
    }

    /// OpenCV with the installed models; nothing is loaded yet.
    pub fn vision(&self) -> Result<Opencv, Error> {
        let settings = &self.settings;
        Ok(Opencv::new(dovetail_vision::Options {
            models: self.folder_to_read()?.join("models"),
            threads: settings.vision_threads,
            image_cache_bytes: settings.image_cache,
            opencv_threads: settings.opencv_threads,
        })?)
    }

    /// Runs tasks from `blobs`, `jobs` at a time.
    pub fn runtime(&self, blobs: Arc<dyn Blobs>, jobs: u32, live: Option<LiveSink>) -> Result<Runtime, Error> {
        self.runtime_with(Arc::new(self.vision()?), blobs, jobs, live)
    }

    /// The same with vision that others use, too.
    pub fn runtime_with(
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

fn open(settings: &Settings) -> Result<Ports, Error> {
    let data = &settings.data;
    let clock = Arc::new(SystemClock);
    let (blobs, store) = dovetail_stores::open_blobs_to_write(settings.blobs.url(), data)?;
    let ledger: Arc<dyn Ledger> = if settings.is_fleet() {
        let window =
            dovetail_stores::open_window(settings.queue.url(), &settings.fleet, dovetail_flow::new_run_id()?.as_str())?;
        let meta = dovetail_stores::open_meta(settings.meta.url(), data, &settings.fleet, clock.clone())?;
        Arc::new(FleetLedger::new(meta, window)?)
    } else {
        Arc::new(SqliteLedger::open(data, clock.clone())?)
    };
    let blobs = OwnBlobs::new(blobs, store, ledger.clone(), clock.clone(), settings.is_together());
    Ok(Ports { ledger, blobs: Arc::new(blobs), clock })
}

/// A data folder alone.
fn embedded(data: &Path) -> Result<Ports, Error> {
    let clock = Arc::new(SystemClock);
    let ledger = SqliteLedger::open(data, clock.clone())?;
    Ok(Ports { ledger: Arc::new(ledger), blobs: Arc::new(FileBlobs::new(data)), clock })
}

/// The same where nothing can be written.
fn read_only(data: &Path) -> Result<Ports, Error> {
    let clock = Arc::new(SystemClock);
    let ledger = SqliteLedger::open_to_read(data, clock.clone())?;
    Ok(Ports { ledger: Arc::new(ledger), blobs: Arc::new(FileBlobs::new(data)), clock })
}

/// This very program, which compiles components in a child process of itself, and measures workers that are children of
/// it.
pub fn this_program() -> Result<PathBuf, Error> {
    // What was started stays itself, even when the file is replaced meanwhile (an update).
    let own = Path::new("/proc/self/exe");
    if own.try_exists().unwrap_or(false) {
        return Ok(own.to_owned());
    }
    std::env::current_exe().map_err(|e| Error::host("own_program", "find the program's own file").cause(e))
}
