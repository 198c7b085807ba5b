//! One ONNX network in an engine: runs batches, and checks the network against its manifest.

use dovetail_core::vision::{ENGINE_UNAVAILABLE, Engine, VisionError};

use crate::engine::{BROKEN, Engines, LoadedGraph, NetworkOutput, Onnx, broken};
use crate::models::manifest::{Input, Manifest, Output};

/// One loaded network. A caller owns it during a pass, so passes do not overlap.
pub(crate) struct Network {
    loaded: LoadedGraph,
    pub(crate) input: Input,
    /// The input of the last pass. Its memory is reused.
    blob: Vec<f32>,
}

impl Network {
    /// Loads the network in the engine of this process.
    ///
    /// # Errors
    /// As [`Engines::load`].
    pub(crate) fn load(engines: &Engines, manifest: &Manifest, onnx: Onnx) -> Result<Self, VisionError> {
        Self::of(manifest, engines.load(manifest, onnx)?)
    }

    fn of(manifest: &Manifest, loaded: LoadedGraph) -> Result<Self, VisionError> {
        let input = manifest.input.ok_or_else(|| broken("the manifest has no `[input]`"))?;
        Ok(Self { loaded, input, blob: Vec::new() })
    }

    /// The most faces in one pass.
    pub(crate) fn batch(&self) -> usize {
        self.loaded.batch
    }

    /// The engine that runs the network.
    pub(crate) fn engine(&self) -> &Engine {
        &self.loaded.engine
    }

    /// Runs one pass. `fill` appends the input of `count` faces to the blob: `3 * side * side` values for each face.
    pub(crate) fn run(
        &mut self,
        count: usize,
        side: usize,
        fill: impl FnOnce(&mut Vec<f32>, &Input),
    ) -> Result<NetworkOutput, VisionError> {
        self.blob.clear();
        fill(&mut self.blob, &self.input);
        if self.blob.len() != count * 3 * side * side {
            return Err(broken(format!("{} values for {count} pictures of side {side}", self.blob.len())));
        }
        let output = self.loaded.graph.run([count, 3, side, side], &self.blob)?;
        // A network with a fixed first axis returns the values of one face for any number of inputs.
        if output.dims.first() != Some(&count) {
            return Err(broken(format!(
                "{count} pictures went in and the output is {:?}: the first axis must be the batch (or set \
                 `batch = 1`)",
                output.dims
            )));
        }
        Ok(output)
    }

    /// Runs the network on a batch of one and on a batch of the maximum size, and compares the shape of the output with
    /// the manifest.
    fn check(&mut self, manifest: &Manifest) -> Result<(), VisionError> {
        let side = self.input.side as usize;
        // Another machine may run the network in an engine that takes more faces at once.
        for count in [1, self.batch().max(manifest.faces_at_once())] {
            let answer = self.run(count, side, |blob, _| blob.resize(count * 3 * side * side, 0.0));
            let answer = answer.map_err(|error| match error {
                VisionError::Unavailable { code, message } if count > 1 && code != BROKEN => {
                    let message =
                        format!("{message} (for {count} pictures at once; one picture worked: set `batch = 1`)");
                    VisionError::Unavailable { code, message }
                }
                other => other,
            })?;
            check_shape(manifest, &answer.dims)?;
            if !answer.values.iter().all(|v| v.is_finite()) {
                return Err(broken("the output for a black picture is not finite"));
            }
        }
        Ok(())
    }
}

/// Loads a network in the engine that will run it, and checks it on black pictures.
///
/// # Errors
/// What does not match; and whether OpenCV could run a network that ONNX Runtime cannot.
pub(crate) fn check(engines: &Engines, manifest: &Manifest, onnx: &[u8]) -> Result<(), VisionError> {
    if onnx.is_empty() {
        return Err(broken("the ONNX file is empty"));
    }
    let onnx = Onnx::Bytes(onnx);
    let checked = |loaded: LoadedGraph| Network::of(manifest, loaded)?.check(manifest);
    match engines.load(manifest, onnx).and_then(checked) {
        // If OpenCV was the engine, it refuses the network once more, and the error stays as it is.
        Err(VisionError::Unavailable { code, message }) if code != ENGINE_UNAVAILABLE => {
            let fits_opencv = LoadedGraph::opencv(manifest, onnx).and_then(checked).is_ok();
            let other = if fits_opencv { "; OpenCV can run it: set `vision.engine = \"opencv\"`" } else { "" };
            Err(VisionError::Unavailable { code, message: format!("{message}{other}") })
        }
        checked => checked,
    }
}

/// Compares the output's dimensions with the manifest. The first of `dims` is the batch.
fn check_shape(manifest: &Manifest, dims: &[usize]) -> Result<(), VisionError> {
    let (per_face, wanted) = (&dims[1..], manifest.output);
    let cells = manifest.input.map_or(0, |i| i.side as usize / 32);
    let values: usize = per_face.iter().product();
    let (fits, expected) = match wanted {
        Output::Boxes | Output::SsdAnchors => (per_face.len() == 2 && per_face[1] == 5, "[N, K, 5]".to_owned()),
        Output::YoloGrid => {
            let channels = manifest.anchors.len() * 5;
            (per_face == [channels, cells, cells], format!("[N, {channels}, {cells}, {cells}]"))
        }
        Output::Points => (values == 136, "[N, 136]".to_owned()),
        Output::AgeGender => (values == 3, "[N, 3]".to_owned()),
        Output::Probabilities | Output::Logits => {
            (values == manifest.labels.len(), format!("[N, {}], one value for each label", manifest.labels.len()))
        }
        Output::Vector => ((1..=4096).contains(&values), "[N, D] with D of 1 to 4096".to_owned()),
        Output::Cascade => (false, "a cascade".to_owned()),
    };
    if fits {
        return Ok(());
    }
    let kind = manifest.kind.words();
    Err(broken(format!("the output of the network is {dims:?}; this {kind} must give {expected}")))
}
