//! The engines that run networks: OpenCV's `dnn`, which is always there, and ONNX Runtime, a library that is opened
//! when the first network is needed.
//!
//! Both run the same ONNX files. Their results differ by rounding only (docs/figures.md has the differences), so an
//! attempt records which engine ran its networks. One process uses one engine for all networks, except that `auto` runs
//! a network in OpenCV that ONNX Runtime refuses.

#[cfg(feature = "opencv")]
mod choice;
#[cfg(feature = "opencv")]
mod elf;
#[cfg(feature = "opencv")]
mod graph;
mod library;
#[cfg(feature = "opencv")]
mod onnxruntime;
#[cfg(feature = "opencv")]
mod opencv;
mod options;

#[cfg(feature = "opencv")]
pub use choice::Engines;
#[cfg(feature = "opencv")]
pub(crate) use graph::{BROKEN, LoadedGraph, NetworkOutput, Onnx, broken};
pub use library::{LIBRARY, ONNXRUNTIME_VERSION, Release, file_digest, release};
#[cfg(feature = "opencv")]
pub use onnxruntime::forbid_telemetry;
pub use options::{EngineChoice, EngineFound, EngineOptions};
