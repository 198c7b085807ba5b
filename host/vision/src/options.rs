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
    /// Threads that OpenCV uses inside one pass. Global to the process: the last [`crate::Opencv`] made decides.
    pub opencv_threads: usize,
}

impl Options {
    /// The defaults: 2 threads, 256 MiB of pictures, 1 OpenCV thread.
    pub fn new(models: impl Into<PathBuf>) -> Self {
        Self { models: models.into(), threads: 2, image_cache_bytes: 256 << 20, opencv_threads: 1 }
    }
}
