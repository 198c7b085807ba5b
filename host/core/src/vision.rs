//! The port to the native vision library, as plain data: nothing here knows OpenCV, nothing there knows wasmtime.
//!
//! Every operation on faces takes many of them and answers one entry a face, in order. Coordinates are pixels of the
//! upright image, from its left and top.

use std::sync::{Arc, Weak};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::Digest;
use crate::scarce::Scarce;
use crate::stop::{Stop, StopReason};

/// A position in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    pub x: f32,
    pub y: f32,
}

/// A box in pixels. It may lie outside the image; whoever cuts clips it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rect {
    pub x: f32,
    pub y: f32,
    pub width: f32,
    pub height: f32,
}

/// Extent in whole pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    pub width: u32,
    pub height: u32,
}

/// An immutable decoded picture: RGB, 8 bits a channel, rows from the top without padding, EXIF orientation applied.
#[derive(Clone)]
pub struct Image {
    pixels: Arc<[u8]>,
    size: Size,
    /// Watched instead of the pixels: whoever watches those keeps their memory.
    held: Arc<()>,
    warning: Option<Arc<str>>,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({}x{})", self.size.width, self.size.height)
    }
}

impl Image {
    /// `None` unless `pixels` holds exactly `width * height * 3` bytes and there is at least one pixel.
    #[must_use]
    pub fn new(pixels: Arc<[u8]>, size: Size) -> Option<Self> {
        let bytes = (size.width as usize).checked_mul(size.height as usize)?.checked_mul(3)?;
        (bytes > 0 && pixels.len() == bytes).then(|| Self { pixels, size, held: Arc::new(()), warning: None })
    }

    /// Width and height.
    #[must_use]
    pub fn size(&self) -> Size {
        self.size
    }

    /// `width * height * 3` bytes.
    #[must_use]
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The same picture, with what is to be told to the reader of a run about the file that it was decoded from.
    #[must_use]
    pub fn warned(self, warning: impl Into<Arc<str>>) -> Self {
        Self { warning: Some(warning.into()), ..self }
    }

    /// What is wrong with the file that the picture was decoded from, although all of its pixels are there.
    #[must_use]
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// By which somebody learns whether the picture is still held, without holding a byte of it.
    #[must_use]
    pub fn watch(&self) -> Weak<()> {
        Arc::downgrade(&self.held)
    }

    /// How many hold the picture, this one included.
    #[must_use]
    pub fn holders(&self) -> usize {
        Arc::strong_count(&self.held)
    }

    /// Whether both are the same picture in memory: how results about a picture are remembered.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.pixels, &other.pixels)
    }
}

/// What a model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    Detector,
    Landmarker,
    AgeGenderEstimator,
    EmotionClassifier,
    Embedder,
}

impl ModelKind {
    pub const ALL: [Self; 5] =
        [Self::Detector, Self::Landmarker, Self::AgeGenderEstimator, Self::EmotionClassifier, Self::Embedder];

    /// As it is called in records, manifests of models and JSON, and, in kebab-case, in WIT: `age_gender_estimator`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Detector => "detector",
            Self::Landmarker => "landmarker",
            Self::AgeGenderEstimator => "age_gender_estimator",
            Self::EmotionClassifier => "emotion_classifier",
            Self::Embedder => "embedder",
        }
    }

    /// For people: `age and gender estimator`.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Detector => "detector",
            Self::Landmarker => "landmarker",
            Self::AgeGenderEstimator => "age and gender estimator",
            Self::EmotionClassifier => "emotion classifier",
            Self::Embedder => "embedder",
        }
    }
}

/// One installed model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    pub kind: ModelKind,
    /// Unique among the installed ones (`ssd_mobilenetv1`).
    pub name: String,
    /// Of the model's file as installed.
    pub digest: Digest,
    /// Other names it answers to (`ssd`).
    #[serde(default)]
    pub aliases: Vec<String>,
    /// What an emotion classifier gives probabilities for, in its order; empty for the others.
    #[serde(default)]
    pub labels: Vec<String>,
    /// The landmarker by whose points faces are cut out for it, where the run has one; none: the default one.
    #[serde(skip)]
    pub landmarker: Option<Digest>,
}

/// A face found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    pub bbox: Rect,
    /// 0..=1, by the model's own measure.
    pub confidence: f32,
}

/// How a detector is to look.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DetectOptions {
    /// 0..=1.
    pub min_confidence: f32,
    /// The most confident ones are kept.
    pub max_faces: u32,
    /// Pixels of the long side at which the detector looks; none: the model's own.
    pub input_side: Option<u32>,
}

impl Default for DetectOptions {
    fn default() -> Self {
        Self { min_confidence: 0.5, max_faces: 100, input_side: None }
    }
}

/// Age and gender of one face.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AgeAndGender {
    /// Years.
    pub age: f32,
    /// 0..=1; how far estimates of several views of the face agree.
    pub age_confidence: f32,
    /// Probability; that of male is the rest.
    pub female: f32,
}

/// The code of a model whose file or manifest is damaged or gone: the host cannot use it, whoever asks.
pub const MODEL_DAMAGED: &str = "model_damaged";
/// The code of a model that was installed when it was opened and is no more.
pub const MODEL_GONE: &str = "model_gone";

/// Why vision work has no result.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum VisionError {
    /// The caller's data cannot be used: `code` is stable and snake_case (`undecodable`, `too_large`, `empty_area`,
    /// `unknown_model`, ...).
    #[error("{message}")]
    Invalid { code: &'static str, message: String },
    /// The attempt was cancelled or its time is over; nothing is wrong with the data.
    #[error("stopped: {0:?}")]
    Stopped(StopReason),
    /// Vision itself does not work here (built without OpenCV, a damaged model file, an exception in the library).
    #[error("{message}")]
    Unavailable { code: &'static str, message: String },
    /// The system refused this process what the work needs.
    #[error("{message}")]
    Scarce { scarce: Scarce, message: String },
}

impl VisionError {
    /// An error of the caller's data.
    pub fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid { code, message: message.into() }
    }

    /// Whether what was asked for is a model that is not installed.
    #[must_use]
    pub fn is_of_a_model_that_is_missing(&self) -> bool {
        matches!(self, Self::Unavailable { code: "models_missing", .. } | Self::Invalid { code: "unknown_model", .. })
    }

    /// `too_large`, of a file of so many bytes.
    #[must_use]
    pub fn file_too_large(bytes: u64, most: u64) -> Self {
        Self::invalid("too_large", format!("the file has {bytes} bytes: at most {most} are decoded"))
    }

    /// An error of the host.
    pub fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::Unavailable { code, message: message.into() }
    }
}

/// Why one face of many has no result (`code` as in [`VisionError::Invalid`]).
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct FaceError {
    pub code: &'static str,
    pub message: String,
}

/// One answer a face, in the order in which they were given.
pub type PerFace<T> = Vec<Result<T, FaceError>>;

/// Native vision. Blocking: called from an attempt's own thread; the work itself runs on a bounded pool, and a call
/// returns as soon as its [`Stop`] says so (a pass in progress runs out on the pool and is thrown away).
pub trait Vision: Send + Sync {
    /// The picture with this content digest: from the cache, or decoded from what `bytes` gives (JPEG, PNG, WebP, BMP).
    ///
    /// # Errors
    /// `Invalid` with `undecodable`, `too_large`, `unsupported_format` or `animated`; whatever `bytes` answers.
    fn open(
        &self,
        digest: &Digest,
        bytes: &mut dyn FnMut() -> Result<Vec<u8>, VisionError>,
        stop: &Stop,
    ) -> Result<Image, VisionError>;

    /// The most bytes of a file that [`Vision::open`] decodes: of a longer one nothing need be read.
    fn max_file_bytes(&self) -> u64;

    /// The part of `area` inside the image.
    ///
    /// # Errors
    /// `Invalid` with `empty_area` (nothing inside, or not finite).
    fn crop(&self, image: &Image, area: Rect) -> Result<Image, VisionError>;

    /// Resamples to `to`.
    ///
    /// # Errors
    /// `Invalid` with `too_large` or `empty_area`.
    fn resize(&self, image: &Image, to: Size, stop: &Stop) -> Result<Image, VisionError>;

    /// `image/png` (lossless), `image/jpeg` or `image/webp`; `quality` 1..=100 for JPEG.
    ///
    /// # Errors
    /// `Invalid` with `unsupported_format` or `bad_quality`.
    fn encode(&self, image: &Image, media_type: &str, quality: Option<u8>, stop: &Stop)
    -> Result<Vec<u8>, VisionError>;

    /// The model of this kind with this name or alias; none: the host's default.
    ///
    /// # Errors
    /// `Invalid` with `unknown_model`, naming the installed ones; `Unavailable` with `models_missing` if there are
    /// none.
    fn model(&self, kind: ModelKind, name: Option<&str>) -> Result<Model, VisionError>;

    /// Other models that operations of `model` use (the landmarker, whose points an embedder aligns faces by): for the
    /// lineage.
    fn companions(&self, model: &Model) -> Vec<Model>;

    /// Faces, the most confident first.
    ///
    /// # Errors
    /// As [`VisionError`] says.
    fn detect(
        &self,
        model: &Model,
        image: &Image,
        options: DetectOptions,
        stop: &Stop,
    ) -> Result<Vec<Detection>, VisionError>;

    /// 68 points a face (iBUG 300-W order) within the box of a detection.
    ///
    /// # Errors
    /// As [`VisionError`] says.
    fn locate(
        &self,
        model: &Model,
        image: &Image,
        faces: &[Rect],
        stop: &Stop,
    ) -> Result<PerFace<Vec<Point>>, VisionError>;

    /// Age and gender; `views` (1..=6) of each face are compared for the confidence of the age.
    ///
    /// # Errors
    /// As [`VisionError`] says.
    fn estimate(
        &self,
        model: &Model,
        image: &Image,
        faces: &[Rect],
        views: u32,
        stop: &Stop,
    ) -> Result<PerFace<AgeAndGender>, VisionError>;

    /// One probability a label of the model.
    ///
    /// # Errors
    /// As [`VisionError`] says.
    fn classify(
        &self,
        model: &Model,
        image: &Image,
        faces: &[Rect],
        stop: &Stop,
    ) -> Result<PerFace<Vec<f32>>, VisionError>;

    /// One vector a face.
    ///
    /// # Errors
    /// As [`VisionError`] says.
    fn embed(
        &self,
        model: &Model,
        image: &Image,
        faces: &[Rect],
        stop: &Stop,
    ) -> Result<PerFace<Vec<f32>>, VisionError>;
}
