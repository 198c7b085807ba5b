//! Networks in OpenCV's `dnn`.

use dovetail_core::vision::{ENGINE_FAILED, Engine, PASS_FAILED, VisionError};
use opencv::core::{Mat, MatTraitConst, MatTraitConstManual, Scalar, Vector};
use opencv::dnn::{self, NetTrait, NetTraitConst};

use super::graph::{Graph, NetworkOutput, Onnx, one_output};
use crate::cv::opencv_version;

pub(crate) struct OpencvGraph(dnn::Net);

/// The engine's name and version, for the lineage.
pub(crate) fn engine() -> Engine {
    Engine { name: "opencv".to_owned(), version: opencv_version().unwrap_or_default() }
}

/// An exception of OpenCV about a network, with this code.
fn failed(code: &'static str) -> impl Fn(opencv::Error) -> VisionError {
    move |error| match crate::cv::failed(error) {
        VisionError::Unavailable { message, .. } => VisionError::unavailable(code, message),
        scarce => scarce,
    }
}

impl OpencvGraph {
    /// # Errors
    /// `Unavailable` with [`ENGINE_FAILED`], or with `broken_model` if the network does not have exactly one output.
    pub(crate) fn load(onnx: Onnx) -> Result<Self, VisionError> {
        let net = match onnx {
            Onnx::File(path) => dnn::read_net_from_onnx(path),
            Onnx::Bytes(bytes) => dnn::read_net_from_onnx_buffer(&Vector::from_slice(bytes)),
        };
        let net = net.map_err(failed(ENGINE_FAILED))?;
        one_output(net.get_unconnected_out_layers().map_err(failed(ENGINE_FAILED))?.len())?;
        Ok(Self(net))
    }
}

impl Graph for OpencvGraph {
    fn run(&mut self, dims: [usize; 4], values: &[f32]) -> Result<NetworkOutput, VisionError> {
        let failed = failed(PASS_FAILED);
        // `blobFromImages` is not used: for float images OpenCV 4.6 subtracts and scales in place, in the caller's
        // pixels.
        let blob = Mat::new_nd_with_data(&dims.map(|side| side as i32), values).map_err(&failed)?;
        self.0.set_input(&blob, "", 1.0, Scalar::default()).map_err(&failed)?;
        let out = self.0.forward_single_def().map_err(&failed)?;
        let dims: Vec<usize> = out.mat_size().iter().map(|&d| d.max(0) as usize).collect();
        let values = out.data_typed::<f32>().map_err(&failed)?.to_vec();
        Ok(NetworkOutput { dims, values })
    }
}
