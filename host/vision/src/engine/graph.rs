//! A network in an engine.

use std::path::Path;

use dovetail_core::vision::{Engine, VisionError};

use super::opencv;
use crate::models::manifest::Manifest;

/// A network that an engine has loaded. A caller owns it during a pass, so passes of one network do not overlap.
pub(crate) trait Graph: Send {
    /// Runs one pass. `dims`: pictures, channels, rows and columns. `values`: row-major, one for each place of `dims`.
    ///
    /// # Errors
    /// `Unavailable` with [`dovetail_core::vision::PASS_FAILED`]; `Scarce` if the system refused a resource.
    fn run(&mut self, dims: [usize; 4], values: &[f32]) -> Result<NetworkOutput, VisionError>;
}

/// The output of a pass: `values` is row-major with the dimensions `dims`, of which the first is the batch.
pub(crate) struct NetworkOutput {
    pub(crate) dims: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

impl NetworkOutput {
    /// The values of each picture of the batch.
    pub(crate) fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.chunks_exact((self.values.len() / self.dims.first().copied().unwrap_or(1).max(1)).max(1))
    }
}

/// An ONNX file: where it is, or its bytes.
#[derive(Clone, Copy)]
pub(crate) enum Onnx<'a> {
    /// The engine reads the file itself, because a buffer would hold the whole file in memory a second time.
    File(&'a Path),
    Bytes(&'a [u8]),
}

/// A graph, the engine that runs it, and how it wants its input.
pub(crate) struct LoadedGraph {
    pub(crate) graph: Box<dyn Graph>,
    pub(crate) engine: Engine,
    /// The most faces in one pass.
    pub(crate) batch: usize,
}

impl LoadedGraph {
    pub(crate) fn opencv(manifest: &Manifest, onnx: Onnx) -> Result<Self, VisionError> {
        let graph = Box::new(opencv::OpencvGraph::load(onnx)?);
        Ok(Self { graph, engine: opencv::engine(), batch: manifest.faces_at_once() })
    }
}

/// The code of a network that does not do what its manifest says.
pub(crate) const BROKEN: &str = "broken_model";

pub(crate) fn broken(message: impl Into<String>) -> VisionError {
    VisionError::unavailable(BROKEN, message)
}

pub(super) fn one_output(outputs: usize) -> Result<(), VisionError> {
    if outputs == 1 {
        return Ok(());
    }
    Err(broken(format!("the network has {outputs} outputs: it must have exactly one")))
}
