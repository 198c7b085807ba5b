//! How vision is set up in this process.

use std::path::PathBuf;

/// See each field. Whatever is set here takes effect when [`crate::Opencv`] is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The folder of a [`crate::ModelStore`].
    pub models: PathBuf,
    /// OS threads that work is done on, at least 1: how many calls make progress at once.
    pub threads: usize,
    /// Decoded pictures kept for the next step that asks, in bytes of pixels; 0 keeps none.
    pub image_cache_bytes: u64,
    /// Threads that OpenCV uses inside one pass, at least 1. Global to the process: the last [`crate::Opencv`] made
    /// decides.
    pub opencv_threads: usize,
}

impl Options {
    /// The defaults: 2 threads, 32 MiB of pictures (a step's successors mostly come next), 2 OpenCV threads (1 where
    /// there is one core).
    ///
    /// Why 2 and not 1: measured on 2 cores with `examples/measure.rs` (`ssd` on a 1920-pixel photograph, attributes
    /// and features in two calls side by side), a photograph with 3 faces took 175 ms with 2 OpenCV threads and 237
    /// with 1, one with 5 faces 237 and 325. The detection runs alone and gains most (150 to 93 ms); the two calls
    /// beside one another lose nothing, because OpenCV's threads (TBB) are shared by all who ask. With 2 and the calls
    /// in sequence it took 184 and 242 ms.
    pub fn new(models: impl Into<PathBuf>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { models: models.into(), threads: 2, image_cache_bytes: 32 << 20, opencv_threads: cores.min(2) }
    }
}
