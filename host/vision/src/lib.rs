//! Images, face detectors and face networks on OpenCV: the implementation of [`dovetail_core::vision::Vision`].
//!
//! Only this crate names `opencv`, `ort`, `turbojpeg` and `image`. It does not depend on WebAssembly, queues or stores.
//! Calls block: the work runs on a bounded pool of OS threads, and the caller waits for the result or for its
//! [`Stop`](dovetail_core::stop::Stop).
//!
//! Without the feature `opencv` the same names exist, and every operation returns `Unavailable` with the code
//! `built_without_opencv`.

mod annotation;
mod engine;
pub mod models;
mod options;

#[cfg(feature = "opencv")]
mod chunks;
#[cfg(feature = "opencv")]
mod codec;
#[cfg(feature = "opencv")]
mod cv;
#[cfg(feature = "opencv")]
mod exif;
#[cfg(feature = "opencv")]
mod geometry;
#[cfg(feature = "opencv")]
mod heap;
#[cfg(feature = "opencv")]
mod jpeg;
#[cfg(feature = "opencv")]
mod label;
#[cfg(feature = "opencv")]
mod pictures;
#[cfg(feature = "opencv")]
mod pool;
#[cfg(feature = "opencv")]
mod square;
#[cfg(not(feature = "opencv"))]
mod unavailable;

pub use annotation::{Annotation, Probe};
pub use engine::{
    EngineChoice, EngineFound, EngineOptions, LIBRARY, ONNXRUNTIME_VERSION, Release, file_digest, release,
};
pub use models::{
    FACE_API_PACKAGE, HAAR_FOLDER, Installed, ModelError, ModelStore, OwnModel, UnreadModel, default_model,
    default_models, try_model,
};
pub use options::Options;

#[cfg(feature = "opencv")]
pub use engine::{Engines, forbid_telemetry};

#[cfg(feature = "opencv")]
pub use codec::{MAX_FILE_BYTES, MAX_PIXELS, MAX_SIDE, probe};
#[cfg(feature = "opencv")]
pub use cv::{Opencv, annotate, opencv_version};
#[cfg(feature = "opencv")]
pub use heap::give_back;
#[cfg(not(feature = "opencv"))]
pub use unavailable::{BUILT_WITHOUT, Engines, Opencv, annotate, forbid_telemetry, give_back, opencv_version, probe};
