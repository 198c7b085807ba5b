//! The port to the native vision library, as plain data. This crate does not depend on OpenCV, and the implementation
//! does not depend on wasmtime.
//!
//! Operations on faces take many faces and return one entry for each, in order. Coordinates are pixels of the upright
//! image, counted from its left and top edges.

use std::sync::{Arc, Weak};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::Digest;
use crate::scarce::Scarce;
use crate::stop::{Stop, StopReason};

/// A position in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// From the left edge.
    pub x: f32,
    /// From the top edge.
    pub y: f32,
}

/// A box in pixels. It may reach beyond the image; operations that cut the image clip it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rect {
    /// The left edge.
    pub x: f32,
    /// The top edge.
    pub y: f32,
    /// The extent to the right.
    pub width: f32,
    /// The extent downwards.
    pub height: f32,
}

/// A size in whole pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// The number of columns.
    pub width: u32,
    /// The number of rows.
    pub height: u32,
}

/// An immutable decoded image: RGB, 8 bits per channel, rows from the top without padding, with the EXIF orientation
/// applied. Cheap to clone.
#[derive(Clone)]
pub struct Image {
    pixels: Arc<Vec<u8>>,
    size: Size,
    /// Target of the weak references of [`Image::watch`]. A weak reference to `pixels` would keep their memory
    /// allocated.
    held: Arc<()>,
    warning: Option<Arc<str>>,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({}x{})", self.size.width, self.size.height)
    }
}

impl Image {
    /// An image of these pixels. `None` unless `pixels` has exactly `width * height * 3` bytes and there is at least
    /// one pixel.
    #[must_use]
    pub fn new(pixels: Vec<u8>, size: Size) -> Option<Self> {
        let bytes = (size.width as usize).checked_mul(size.height as usize)?.checked_mul(3)?;
        (bytes > 0 && pixels.len() == bytes).then(|| Self {
            pixels: Arc::new(pixels),
            size,
            held: Arc::new(()),
            warning: None,
        })
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

    /// The same image with a warning about its file, for the reader of the run.
    #[must_use]
    pub fn warned(self, warning: impl Into<Arc<str>>) -> Self {
        Self { warning: Some(warning.into()), ..self }
    }

    /// The damage of the file that the image was decoded from, although all pixels could be decoded.
    #[must_use]
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// A weak reference that tells whether the image is still held, and holds no pixels itself.
    #[must_use]
    pub fn watch(&self) -> Weak<()> {
        Arc::downgrade(&self.held)
    }

    /// The number of clones of the image that exist, including this one.
    #[must_use]
    pub fn holders(&self) -> usize {
        Arc::strong_count(&self.held)
    }

    /// Whether both are clones of one image in memory. Caches of results about an image use this as identity.
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
    /// All kinds.
    pub const ALL: [Self; 5] =
        [Self::Detector, Self::Landmarker, Self::AgeGenderEstimator, Self::EmotionClassifier, Self::Embedder];

    /// The name in records, manifests of models and JSON; in WIT, the same in kebab-case. `age_gender_estimator`.
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

    /// A phrase for people: `age and gender estimator`.
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

/// An installed model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// What the model computes.
    pub kind: ModelKind,
    /// Unique among the installed models: `ssd_mobilenetv1`.
    pub name: String,
    /// The digest of the model's file as installed.
    pub digest: Digest,
    /// Other names of the model: `ssd`.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// The classes of an emotion classifier, in the order of its probabilities; empty for other kinds.
    #[serde(default)]
    pub labels: Vec<String>,
    /// The run's landmarker, by whose points faces are aligned for this model; `None`: the default landmarker.
    #[serde(skip)]
    pub landmarker: Option<Digest>,
}

/// The engine that runs a network. Two engines give results that differ by rounding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Engine {
    /// `opencv` or `onnxruntime`.
    pub name: String,
    /// The version that the library reports, such as `1.28.0`.
    pub version: String,
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// A detected face.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    /// Where the face is.
    pub bbox: Rect,
    /// 0 to 1, by the model's own measure.
    pub confidence: f32,
}

/// Options of a detection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DetectOptions {
    /// Faces with a lower confidence (0 to 1) are left out.
    pub min_confidence: f32,
    /// The most faces to return; those with the highest confidence are kept.
    pub max_faces: u32,
    /// The length of the image's long side at which the detector looks, in pixels; `None`: the model's own.
    pub input_side: Option<u32>,
}

impl Default for DetectOptions {
    fn default() -> Self {
        Self { min_confidence: 0.5, max_faces: 100, input_side: None }
    }
}

/// The estimated age and gender of one face.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AgeAndGender {
    /// In years.
    pub age: f32,
    /// 0 to 1: how well the estimates from several views of the face agree.
    pub age_confidence: f32,
    /// The probability of female, 0 to 1; male has the rest.
    pub female: f32,
}

/// The code of a model whose file or manifest is damaged or missing: no task can use it on this host.
pub const MODEL_DAMAGED: &str = "model_damaged";
/// The code of a model that was opened while it was installed, and has been removed since.
pub const MODEL_GONE: &str = "model_gone";

/// The code of an engine that the settings ask for and that cannot be used: no network runs on this host.
pub const ENGINE_UNAVAILABLE: &str = "engine_unavailable";
/// The code of a network that its engine cannot load: no task can use it on this host.
pub const ENGINE_FAILED: &str = "engine_failed";
/// The code of a pass that failed inside the engine. The cause may be the picture, so the attempt is charged: a run
/// that no worker can finish must end.
pub const PASS_FAILED: &str = "pass_failed";

/// Why an operation of vision has no result.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum VisionError {
    /// The caller's data cannot be used. `code` is stable and snake_case (`undecodable`, `too_large`, `empty_area`,
    /// `unknown_model`, ...).
    #[error("{message}")]
    Invalid { code: &'static str, message: String },
    /// The attempt was cancelled, or its time is over. The data may be fine.
    #[error("stopped: {0:?}")]
    Stopped(StopReason),
    /// Vision does not work on this host: it is built without OpenCV, a model file is damaged, or the library raised an
    /// exception.
    #[error("{message}")]
    Unavailable { code: &'static str, message: String },
    /// The system refused a resource that the work needs.
    #[error("{message}")]
    Scarce { scarce: Scarce, message: String },
}

impl VisionError {
    /// An error in the caller's data.
    pub fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid { code, message: message.into() }
    }

    /// Whether the caller asked for a model that is not installed.
    #[must_use]
    pub fn is_of_a_model_that_is_missing(&self) -> bool {
        matches!(self, Self::Unavailable { code: "models_missing", .. } | Self::Invalid { code: "unknown_model", .. })
    }

    /// The error `too_large` for a file of `bytes` bytes, of which at most `most` are allowed.
    #[must_use]
    pub fn file_too_large(bytes: u64, most: u64) -> Self {
        Self::invalid("too_large", format!("the file has {bytes} bytes: at most {most} are decoded"))
    }

    /// An error of the host.
    pub fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::Unavailable { code, message: message.into() }
    }
}

/// Why one of many faces has no result. `code` is as in [`VisionError::Invalid`].
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct FaceError {
    /// A stable code in snake_case.
    pub code: &'static str,
    /// A sentence for people.
    pub message: String,
}

/// One entry for each face, in the order in which the caller passed the faces.
pub type PerFace<T> = Vec<Result<T, FaceError>>;

/// Native vision.
///
/// All functions block the calling thread, which is the attempt's own. The work itself runs on a bounded pool. A call
/// returns as soon as its [`Stop`] demands it; a pass of a network that is running then finishes on the pool, and its
/// result is dropped.
pub trait Vision: Send + Sync {
    /// The image with this content digest: from the cache, or decoded from the bytes that `bytes` returns (JPEG, PNG,
    /// WebP, BMP).
    ///
    /// # Errors
    /// `Invalid` with `undecodable`, `too_large`, `unsupported_format` or `animated`; or the error of `bytes`.
    fn open(
        &self,
        digest: &Digest,
        bytes: &mut dyn FnMut() -> Result<Vec<u8>, VisionError>,
        stop: &Stop,
    ) -> Result<Image, VisionError>;

    /// The largest file that [`Vision::open`] decodes, in bytes. A caller need not read a larger file.
    fn max_file_bytes(&self) -> u64;

    /// The part of `area` that is inside the image.
    ///
    /// # Errors
    /// `Invalid` with `empty_area`: no part of `area` is inside the image, or `area` is not finite.
    fn crop(&self, image: &Image, area: Rect) -> Result<Image, VisionError>;

    /// Resamples the image to the size `to`.
    ///
    /// # Errors
    /// `Invalid` with `too_large` or `empty_area`.
    fn resize(&self, image: &Image, to: Size, stop: &Stop) -> Result<Image, VisionError>;

    /// Encodes the image as `image/png` (lossless), `image/jpeg` or `image/webp`. `quality` is 1 to 100, for JPEG only.
    ///
    /// # Errors
    /// `Invalid` with `unsupported_format` or `bad_quality`.
    fn encode(&self, image: &Image, media_type: &str, quality: Option<u8>, stop: &Stop)
    -> Result<Vec<u8>, VisionError>;

    /// The model of this kind with this name or alias; `None` means the host's default for the kind.
    ///
    /// # Errors
    /// `Invalid` with `unknown_model`, which lists the installed models; `Unavailable` with `models_missing` if no
    /// model of the kind is installed.
    fn model(&self, kind: ModelKind, name: Option<&str>) -> Result<Model, VisionError>;

    /// The other models that operations of `model` use, for the lineage. An embedder uses a landmarker to align faces.
    fn companions(&self, model: &Model) -> Vec<Model>;

    /// Says that operations will use these models soon. An implementation may load them while it has nothing else to
    /// do; it returns at once. Errors come from the operations.
    fn expect(&self, _models: &[Digest]) {}

    /// The engine that runs this model's network in this process, for the lineage. `None` before the first operation
    /// with the model, and for a model without a network.
    fn engine(&self, model: &Digest) -> Option<Engine>;

    /// The engine that this process chose for its networks. A network that this engine refuses may run in another one.
    /// `None` before the first network is loaded.
    fn process_engine(&self) -> Option<Engine> {
        None
    }

    /// Detects faces; the most confident come first.
    ///
    /// # Errors
    /// See [`VisionError`].
    fn detect(
        &self,
        model: &Model,
        image: &Image,
        options: DetectOptions,
        stop: &Stop,
    ) -> Result<Vec<Detection>, VisionError>;

    /// Locates 68 points (in the order of iBUG 300-W) of each face, within the box of its detection.
    ///
    /// # Errors
    /// See [`VisionError`].
    fn locate(
        &self,
        model: &Model,
        image: &Image,
        faces: &[Rect],
        stop: &Stop,
    ) -> Result<PerFace<Vec<Point>>, VisionError>;

    /// Estimates the age and gender of each face. The confidence of the age comes from comparing `views` (1 to 6) views
    /// of the face.
    ///
    /// # Errors
    /// See [`VisionError`].
    fn estimate(
        &self,
        model: &Model,
        image: &Image,
        faces: &[Rect],
        views: u32,
        stop: &Stop,
    ) -> Result<PerFace<AgeAndGender>, VisionError>;

    /// Computes one probability for each label of the model, for each face.
    ///
    /// # Errors
    /// See [`VisionError`].
    fn classify(
        &self,
        model: &Model,
        image: &Image,
        faces: &[Rect],
        stop: &Stop,
    ) -> Result<PerFace<Vec<f32>>, VisionError>;

    /// Computes one feature vector for each face.
    ///
    /// # Errors
    /// See [`VisionError`].
    fn embed(
        &self,
        model: &Model,
        image: &Image,
        faces: &[Rect],
        stop: &Stop,
    ) -> Result<PerFace<Vec<f32>>, VisionError>;
}
