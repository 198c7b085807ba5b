//! One ONNX network in OpenCV's dnn: loads it, runs batches, and checks it against its manifest.

use std::path::Path;

use dovetail_core::vision::VisionError;
use opencv::core::{Mat, MatTraitConst, MatTraitConstManual, Scalar, Vector};
use opencv::dnn::{self, NetTrait, NetTraitConst};

use crate::models::manifest::{Input, Manifest, Output};

use super::failed;

/// One loaded network. A caller owns it during a pass, so passes do not overlap.
pub(crate) struct Network {
    net: dnn::Net,
    pub(crate) input: Input,
    /// The most faces in one pass.
    pub(crate) batch: usize,
    /// The input of the last pass. Its memory is reused.
    blob: Vec<f32>,
}

/// The output of a pass: `values` is row-major with the dimensions `dims`, of which the first is the batch.
pub(crate) struct NetworkOutput {
    pub(crate) dims: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

impl NetworkOutput {
    /// The values of each picture of the batch.
    pub(crate) fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.chunks_exact((self.values.len() / self.dims[0].max(1)).max(1))
    }
}

fn broken(message: impl Into<String>) -> VisionError {
    VisionError::unavailable("broken_model", message)
}

impl Network {
    /// Loads the network from a file of the store. OpenCV reads the file itself, because a buffer would hold the whole
    /// file in memory a second time.
    ///
    /// # Errors
    /// `Unavailable` with `opencv_failed`, or with `broken_model` if the network does not have exactly one output.
    pub(crate) fn load(manifest: &Manifest, onnx: &Path) -> Result<Self, VisionError> {
        Self::new(manifest, dnn::read_net_from_onnx(onnx).map_err(failed)?)
    }

    fn new(manifest: &Manifest, net: dnn::Net) -> Result<Self, VisionError> {
        let input = manifest.input.ok_or_else(|| broken("the manifest has no `[input]`"))?;
        let outputs = net.get_unconnected_out_layers().map_err(failed)?.len();
        if outputs != 1 {
            return Err(broken(format!("the network has {outputs} outputs: it must have exactly one")));
        }
        Ok(Self { net, input, batch: manifest.faces_at_once(), blob: Vec::new() })
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
        // `blobFromImages` is not used: for float images OpenCV 4.6 subtracts and scales in place, in the caller's
        // pixels.
        let sizes = [count as i32, 3, side as i32, side as i32];
        let blob = Mat::new_nd_with_data(&sizes, &self.blob).map_err(failed)?;
        self.net.set_input(&blob, "", 1.0, Scalar::default()).map_err(failed)?;
        let out = self.net.forward_single_def().map_err(failed)?;
        let dims: Vec<usize> = out.mat_size().iter().map(|&d| d.max(0) as usize).collect();
        let values = out.data_typed::<f32>().map_err(failed)?.to_vec();
        // A network with a fixed first axis returns the values of one face for any number of inputs.
        if dims.first() != Some(&count) {
            return Err(broken(format!(
                "{count} pictures went in and the output is {dims:?}: the first axis must be the batch \
                 (or set `batch = 1`)"
            )));
        }
        Ok(NetworkOutput { dims, values })
    }

    /// Loads the network, runs it on a batch of one and on a batch of the maximum size, and compares the shape of the
    /// output with the manifest.
    pub(crate) fn check(manifest: &Manifest, onnx: &[u8]) -> Result<(), VisionError> {
        if onnx.is_empty() {
            return Err(broken("the ONNX file is empty"));
        }
        let mut network =
            Self::new(manifest, dnn::read_net_from_onnx_buffer(&Vector::from_slice(onnx)).map_err(failed)?)?;
        let side = network.input.side as usize;
        for count in [1, network.batch] {
            let answer = network.run(count, side, |blob, _| blob.resize(count * 3 * side * side, 0.0))?;
            check_shape(manifest, &answer.dims)?;
            if !answer.values.iter().all(|v| v.is_finite()) {
                return Err(broken("the output for a black picture is not finite"));
            }
        }
        Ok(())
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
