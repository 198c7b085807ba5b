//! The settings of the engines, and what is said of them.

use std::path::PathBuf;

use dovetail_core::id::Digest;
use dovetail_core::vision::Engine;
use serde::Deserialize;

/// The setting `vision.engine`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineChoice {
    /// ONNX Runtime if a usable library is found, else OpenCV.
    #[default]
    Auto,
    Opencv,
    /// ONNX Runtime; an error if no usable library is found.
    OnnxRuntime,
}

impl EngineChoice {
    /// The name in settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Opencv => "opencv",
            Self::OnnxRuntime => "onnxruntime",
        }
    }

    /// The choice of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Auto, Self::Opencv, Self::OnnxRuntime].into_iter().find(|choice| choice.name() == name)
    }
}

/// The settings of the engines of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    pub choice: EngineChoice,
    /// The library of ONNX Runtime that the operator named. It must be usable.
    pub library: Option<PathBuf>,
    /// The folder in which `models pull` stores the pinned library.
    pub folder: PathBuf,
    /// Threads of one pass of a detector. In OpenCV these are the threads of every pass.
    pub threads: usize,
}

/// The engine of a process, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineFound {
    pub engine: Engine,
    /// The library of ONNX Runtime, if that is the engine.
    pub library: Option<PathBuf>,
    /// The sha256 of the library.
    pub digest: Option<Digest>,
    /// Why this engine was chosen.
    pub why: String,
    /// Whether a library was found that cannot be used, so that OpenCV is used in its place.
    pub is_fallback: bool,
}

impl EngineOptions {
    /// OpenCV only, with this number of threads.
    #[must_use]
    pub fn opencv(threads: usize) -> Self {
        Self { choice: EngineChoice::Opencv, library: None, folder: PathBuf::new(), threads }
    }
}
