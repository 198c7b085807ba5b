//! The settings of vision in this process.

use std::path::PathBuf;

use crate::engine::EngineOptions;

/// The settings of one [`crate::Opencv`]. They take effect when it is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The folder of a [`crate::ModelStore`].
    pub models: PathBuf,
    /// OS threads of the pool, at least 1: the number of calls that make progress at the same time.
    pub threads: usize,
    /// The most bytes of decoded pixels that are kept for later steps; 0 keeps no picture.
    pub image_cache_bytes: u64,
    /// The engine of the networks, and the threads of a pass. OpenCV's threads are global to the process: the last
    /// [`crate::Opencv`] that was created sets them.
    pub engine: EngineOptions,
}

impl Options {
    /// The defaults: 2 threads, 32 MiB of pictures (a step's successors usually run next), and OpenCV with 2 threads (1
    /// on a machine with one core).
    ///
    /// Why 2 OpenCV threads: on 2 cores, `examples/measure.rs` (`ssd` on a 1920-pixel photograph, attributes and
    /// features in two parallel calls) took 175 ms with 2 OpenCV threads and 237 ms with 1 for a photograph with 3
    /// faces, and 237 ms and 325 ms for one with 5 faces. The detection runs alone and gains most (93 ms instead of
    /// 150). The two parallel calls lose nothing, because all callers share OpenCV's threads (TBB). With 2 OpenCV
    /// threads and the two calls in sequence, the photographs took 184 and 242 ms.
    pub fn new(models: impl Into<PathBuf>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            models: models.into(),
            threads: 2,
            image_cache_bytes: 32 << 20,
            engine: EngineOptions::opencv(cores.min(2)),
        }
    }
}
