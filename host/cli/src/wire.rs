//! From the configuration to concrete things: stores, runtime, vision, models. The only place that names them together. Each is opened when a
//! command first needs it, so that listing runs loads no OpenCV and starts no thread of the runtime.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use dovetail_core::blobs::Blobs;
use dovetail_flow::{Parts, SystemClock};
use dovetail_runtime::{Budgets, CompileLimits, Compiler, CompilerOptions, LiveSink, Options, Runtime};
use dovetail_stores::{FileBlobs, SqliteLedger};
use dovetail_vision::{ModelStore, Opencv};

use crate::config::Config;
use crate::error::Error;
use crate::output::Output;

/// The most that compiled code may take on the disk, in bytes: hundreds of tasks.
const COMPILED_BYTES: u64 = 256 << 20;

/// What a command works with.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) output: Output,
    parts: OnceLock<Parts>,
}

impl App {
    /// Opens nothing yet.
    pub(crate) fn new(config: Config, output: Output) -> Self {
        Self { config, output, parts: OnceLock::new() }
    }

    /// The stores of the data folder, which is made if it is not there.
    pub(crate) fn parts(&self) -> Result<&Parts, Error> {
        if let Some(parts) = self.parts.get() {
            return Ok(parts);
        }
        let data = &self.config.data;
        std::fs::create_dir_all(data).map_err(|e| {
            Error::host("data_folder", format!("make the data folder `{}`", data.display()))
                .cause(e)
                .help("name another with --data DIR, or give yourself the right to write there")
        })?;
        let clock = Arc::new(SystemClock);
        let ledger = SqliteLedger::open(data, clock.clone())?;
        let parts = Parts { ledger: Arc::new(ledger), blobs: Arc::new(FileBlobs::new(data)), clock };
        Ok(self.parts.get_or_init(|| parts))
    }

    /// Where models are installed.
    pub(crate) fn models_folder(&self) -> PathBuf {
        self.config.data.join("models")
    }

    /// The installed models.
    pub(crate) fn models(&self) -> Result<ModelStore, Error> {
        Ok(ModelStore::open(self.models_folder())?)
    }

    /// Where compiled code is kept.
    pub(crate) fn compiled_folder(&self) -> PathBuf {
        self.config.data.join("compiled")
    }

    /// Looks at components, runs none.
    pub(crate) fn compiler(&self) -> Result<Compiler, Error> {
        let program = Some(this_program()?);
        let limits = CompileLimits::default();
        Ok(Compiler::new(CompilerOptions { cache_dir: self.compiled_folder(), cache_bytes: COMPILED_BYTES, program, limits })?)
    }

    /// OpenCV with the installed models; nothing is loaded yet.
    pub(crate) fn vision(&self) -> Result<Opencv, Error> {
        let config = &self.config;
        Ok(Opencv::new(dovetail_vision::Options {
            models: self.models_folder(),
            threads: config.vision_threads,
            image_cache_bytes: config.image_cache,
            opencv_threads: config.opencv_threads,
        })?)
    }

    /// Runs tasks from `blobs`, `jobs` at a time.
    pub(crate) fn runtime(&self, blobs: Arc<dyn Blobs>, jobs: u32, live: Option<LiveSink>) -> Result<Runtime, Error> {
        Ok(Runtime::new(Options {
            blobs,
            vision: Arc::new(self.vision()?),
            cache_dir: self.compiled_folder(),
            cache_bytes: COMPILED_BYTES,
            compiler: Some(this_program()?),
            jobs,
            budgets: Budgets::default(),
            live,
        })?)
    }
}

/// This very program, which compiles components in a child process of itself.
fn this_program() -> Result<PathBuf, Error> {
    // What was started stays itself, even when the file is replaced meanwhile (an update).
    let own = Path::new("/proc/self/exe");
    if own.try_exists().unwrap_or(false) {
        return Ok(own.to_owned());
    }
    std::env::current_exe().map_err(|e| Error::host("own_program", "find the program's own file").cause(e))
}
