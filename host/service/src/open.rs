//! Makes stores, runtime, vision and models from the settings. Only this file names all of their concrete types. Each
//! is opened when a request first needs it, so that listing runs loads no OpenCV and starts no thread of the runtime.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use dovetail_core::blobs::{Blobs, StoreErrorKind};
use dovetail_core::ledger::Ledger;
use dovetail_core::retention::{Archive, Owned};
use dovetail_flow::{FleetLedger, FlowError, OwnBlobs, Ports, SystemClock};
use dovetail_runtime::{Budgets, CompileLimits, Compiler, CompilerOptions, LiveSink, Options, Runtime};
use dovetail_stores::{FileBlobs, SqliteLedger};
use dovetail_vision::{EngineOptions, ModelStore, Opencv};
use tempfile::TempDir;

use crate::error::{Error, unwritable};
use crate::paths::{self, Shown as _};
use crate::settings::Settings;

/// The largest total size of compiled code on the disk, in bytes. That is enough for hundreds of tasks.
const COMPILED_BYTES: u64 = 256 << 20;
/// The folder for the engine's library, in the data folder.
pub(crate) const ENGINES: &str = "engines";

/// The service, on the stores that the settings name.
pub struct Service {
    /// The settings that the service was made from.
    pub settings: Settings,
    ports: OnceLock<Ports>,
    /// The stores of a data folder that cannot be written.
    to_read: OnceLock<Ports>,
    /// An empty folder in place of a data folder that does not exist yet, for requests that only read.
    nothing: OnceLock<Nothing>,
}

/// An empty data folder, which is removed with the service.
struct Nothing {
    // Fields are dropped in their order: the stores are closed before the folder is removed.
    ports: OnceLock<Ports>,
    folder: TempDir,
}

impl Service {
    /// A service on these settings. Nothing is opened before a request needs it.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, ports: OnceLock::new(), to_read: OnceLock::new(), nothing: OnceLock::new() }
    }

    /// The stores, to write and to read. The data folder is made if it does not exist.
    ///
    /// # Errors
    /// `data_folder` if the folder cannot be made; if a store cannot be opened.
    pub fn ports(&self) -> Result<&Ports, Error> {
        if let Some(ports) = self.ports.get() {
            return Ok(ports);
        }
        let data = &self.settings.data;
        dovetail_stores::make_folder(data).map_err(|e| {
            let help = unwritable(e.kind(), "name another folder with --data DIR, or change the permissions");
            Error::host("data_folder", format!("make the data folder `{}`", data.shown())).cause(e).help(help)
        })?;
        let ports = open(&self.settings)?;
        Ok(self.ports.get_or_init(|| ports))
    }

    /// The stores, for a request that only reads. If there is no data folder, none is made, and the stores are empty. A
    /// data folder that cannot be written is opened to read.
    ///
    /// # Errors
    /// `data_folder` if the folder cannot be looked into; if a store cannot be opened.
    pub fn ports_to_read(&self) -> Result<&Ports, Error> {
        if let Some(ports) = self.to_read.get() {
            return Ok(ports);
        }
        if self.has_data()? {
            return match self.ports() {
                Err(error) if error.code == "store_refused" && !self.settings.is_fleet() => {
                    tracing::debug!(err = error.chain(), "nothing can be written to the data folder");
                    let ports = read_only(&self.settings.data)?;
                    Ok(self.to_read.get_or_init(|| ports))
                }
                ports => ports,
            };
        }
        let nothing = self.nothing()?;
        if let Some(ports) = nothing.ports.get() {
            return Ok(ports);
        }
        let ports = embedded(nothing.folder.path())?;
        Ok(nothing.ports.get_or_init(|| ports))
    }

    /// The records as `gc` sees them. With `look_only`, a data folder that cannot be written is opened to read.
    ///
    /// # Errors
    /// If the store of the records cannot be opened.
    pub(crate) fn archive(&self, look_only: bool) -> Result<Arc<dyn Archive>, Error> {
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

    /// Checks that the blob store belongs to these records, and takes a blob store that belongs to nobody. A session
    /// calls this before it executes steps, so that the caller learns of a foreign blob store before the first step
    /// runs.
    ///
    /// # Errors
    /// `foreign_blobs` if the blob store belongs to other records; a store's failure.
    pub(crate) fn own_blobs(&self) -> Result<(), Error> {
        self.with_owned(dovetail_flow::own_blobs)
    }

    /// As [`Service::own_blobs`], for a worker of a fleet.
    ///
    /// # Errors
    /// As [`Service::own_blobs`]; `empty_blobs` if the blob store is empty and the records name packages: then the
    /// setting names another store than the fleet's.
    pub(crate) fn own_blobs_to_work(&self) -> Result<(), Error> {
        self.with_owned(dovetail_flow::own_blobs_to_work)
    }

    fn with_owned(&self, own: fn(&dyn Ledger, &dyn Owned, bool) -> Result<(), FlowError>) -> Result<(), Error> {
        let store = dovetail_stores::open_removable_blobs(self.settings.blobs.url(), &self.settings.data)?;
        Ok(own(&*self.ports()?.ledger, &*store, self.settings.is_together())?)
    }

    /// Whether the data folder has content: the first write makes the database or the folder of the models. True in a
    /// fleet, where the records are on servers.
    ///
    /// # Errors
    /// `data_folder` if the folder cannot be looked into, or if its path has a link without a target.
    pub(crate) fn has_data(&self) -> Result<bool, Error> {
        // The records of a fleet are not in the data folder.
        if self.settings.is_fleet() {
            return Ok(true);
        }
        if paths::leads_nowhere(&self.settings.data) {
            let message = format!("`{}` is a link without a target", self.settings.data.shown());
            return Err(
                Error::host("data_folder", message).help("repair the link, or name another folder with --data DIR")
            );
        }
        for name in ["dovetail.db", "models"] {
            let path = self.settings.data.join(name);
            let there = path.try_exists().map_err(|e| {
                let error =
                    Error::host("data_folder", format!("read the data folder `{}`", self.settings.data.shown()));
                error.cause(e).help("name another folder with --data DIR, or change the permissions")
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

    /// The data folder, or the empty folder if the data folder has no content.
    fn folder_to_read(&self) -> Result<&Path, Error> {
        Ok(if self.has_data()? { &self.settings.data } else { self.nothing()?.folder.path() })
    }

    /// The installed models, to install more. The folder is made if it does not exist.
    ///
    /// # Errors
    /// If the folder of the models cannot be opened.
    pub(crate) fn models(&self) -> Result<ModelStore, Error> {
        Ok(ModelStore::open(self.settings.data.join("models"))?)
    }

    /// The installed models, for a request that only reads.
    ///
    /// # Errors
    /// `data_folder` if the data folder cannot be looked into; if the folder of the models cannot be opened.
    pub(crate) fn models_to_read(&self) -> Result<ModelStore, Error> {
        Ok(ModelStore::open(self.folder_to_read()?.join("models"))?)
    }

    /// The folder of compiled code. Without a data folder it is a temporary folder, which is removed with the service.
    ///
    /// # Errors
    /// `data_folder` if the data folder cannot be looked into; `temporary_folder`.
    pub(crate) fn compiled_folder(&self) -> Result<PathBuf, Error> {
        Ok(self.folder_to_read()?.join("compiled"))
    }

    /// A compiler, which describes components and executes none.
    ///
    /// # Errors
    /// `own_program` if this program's file is not found; if the folder of compiled code cannot be used.
    pub fn compiler(&self) -> Result<Compiler, Error> {
        let program = Some(this_program()?);
        Ok(Compiler::new(CompilerOptions {
            cache_dir: self.compiled_folder()?,
            cache_bytes: COMPILED_BYTES,
            program,
            limits: CompileLimits::default(),
        })?)
    }

    /// OpenCV with the installed models. No model is loaded yet.
    ///
    /// # Errors
    /// If the threads of the vision pool cannot be started. In a program without OpenCV each operation fails instead.
    pub fn vision(&self) -> Result<Opencv, Error> {
        let settings = &self.settings;
        Ok(Opencv::new(dovetail_vision::Options {
            models: self.folder_to_read()?.join("models"),
            threads: settings.vision_threads,
            image_cache_bytes: settings.image_cache,
            engine: self.engine_options(),
        })?)
    }

    /// The settings of the engine that runs networks.
    pub(crate) fn engine_options(&self) -> EngineOptions {
        let settings = &self.settings;
        EngineOptions {
            choice: settings.engine,
            library: settings.onnxruntime.clone(),
            folder: settings.data.join(ENGINES),
            threads: settings.engine_threads,
        }
    }

    /// A runtime that executes up to `jobs` attempts at a time, with packages and artifacts from `blobs`. `live` is
    /// called with log lines and progress while an attempt runs.
    ///
    /// # Errors
    /// As [`Service::vision`] and [`Service::compiler`].
    pub fn runtime(&self, blobs: Arc<dyn Blobs>, jobs: u32, live: Option<LiveSink>) -> Result<Runtime, Error> {
        self.runtime_with(Arc::new(self.vision()?), blobs, jobs, live)
    }

    /// As [`Service::runtime`], on a vision that the caller shares.
    ///
    /// # Errors
    /// As [`Service::compiler`].
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
            dovetail_stores::open_window(settings.queue.url(), &settings.fleet, dovetail_flow::new_run_id().as_str())?;
        let meta = dovetail_stores::open_meta(settings.meta.url(), data, &settings.fleet, clock.clone())?;
        Arc::new(FleetLedger::new(meta, window)?)
    } else {
        Arc::new(SqliteLedger::open(data, clock.clone())?)
    };
    let blobs = OwnBlobs::new(blobs, store, ledger.clone(), clock.clone(), settings.is_together());
    Ok(Ports { ledger, blobs: Arc::new(blobs), clock })
}

/// The stores of one data folder.
fn embedded(data: &Path) -> Result<Ports, Error> {
    let clock = Arc::new(SystemClock);
    let ledger = SqliteLedger::open(data, clock.clone())?;
    Ok(Ports { ledger: Arc::new(ledger), blobs: Arc::new(FileBlobs::new(data)), clock })
}

/// The stores of a data folder that cannot be written.
fn read_only(data: &Path) -> Result<Ports, Error> {
    let clock = Arc::new(SystemClock);
    let ledger = SqliteLedger::open_to_read(data, clock.clone())?;
    Ok(Ports { ledger: Arc::new(ledger), blobs: Arc::new(FileBlobs::new(data)), clock })
}

/// The path of this program's file. Components are compiled in a child process of this program, and `bench` measures
/// workers that are children of this program.
///
/// # Errors
/// `own_program` if the system does not say which file this program is.
pub fn this_program() -> Result<PathBuf, Error> {
    // This path stays valid if an update replaces the program's file while the process runs.
    let own = Path::new("/proc/self/exe");
    if own.try_exists().unwrap_or(false) {
        return Ok(own.to_owned());
    }
    std::env::current_exe().map_err(|e| Error::host("own_program", "find the program's own file").cause(e))
}
