//! The host objects behind a guest's handles, and the results of host functions. Each resource has its own Rust type,
//! by which the linker tells resources apart.
#![expect(unreachable_pub, reason = "the generated bindings export these types again")]

use std::sync::Arc;

use dovetail_core::blobs::ArtifactRef;
use dovetail_core::vision::{self, DetectOptions};

use crate::bindings::dovetail::task::types::TaskError;

/// `dovetail:task/artifacts.artifact`.
#[derive(Debug)]
pub struct Artifact {
    pub(crate) reference: ArtifactRef,
    pub(crate) size: Option<u64>,
    /// Fetched at the first `read`; counted in `State::artifact_bytes`.
    pub(crate) bytes: Option<Arc<Vec<u8>>>,
}

/// `dovetail:task/artifacts.writer`.
#[derive(Debug)]
pub struct Writer {
    pub(crate) media_type: String,
    pub(crate) bytes: Vec<u8>,
}

/// `dovetail:vision/images.image`.
#[derive(Debug)]
pub struct Image {
    /// The artifact from which the image was opened. `None` for an image that the task made.
    pub(crate) reference: Option<ArtifactRef>,
    /// Decoded at the first use: a task that only passes a picture on does not decode it.
    pub(crate) decoded: Option<vision::Image>,
}

/// `dovetail:vision/faces.detector`.
#[derive(Debug)]
pub struct Detector {
    pub(crate) model: vision::Model,
    pub(crate) options: DetectOptions,
}

/// `dovetail:vision/faces.landmarker`.
#[derive(Debug)]
pub struct Landmarker(pub(crate) vision::Model);

/// `dovetail:vision/faces.age-gender-estimator`.
#[derive(Debug)]
pub struct AgeGenderEstimator {
    pub(crate) model: vision::Model,
    pub(crate) views: u32,
}

/// `dovetail:vision/faces.emotion-classifier`.
#[derive(Debug)]
pub struct EmotionClassifier(pub(crate) vision::Model);

/// `dovetail:vision/faces.embedder`.
#[derive(Debug)]
pub struct Embedder(pub(crate) vision::Model);

/// The error of a host function: one for the guest, or the end of the attempt.
#[derive(Debug)]
pub enum Fault {
    /// The guest gets this error.
    Task(TaskError),
    /// The attempt ends.
    End(wasmtime::Error),
}
