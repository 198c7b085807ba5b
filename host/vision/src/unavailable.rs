//! The names of this crate in a build without OpenCV. Every operation returns an error that says how to get a build
//! with OpenCV.

use dovetail_core::id::Digest;
use dovetail_core::stop::Stop;
use dovetail_core::vision::{
    AgeAndGender, DetectOptions, Detection, Engine, Image, Model, ModelKind, PerFace, Point, Rect, Size, Vision,
    VisionError,
};

use crate::{Annotation, EngineFound, EngineOptions, Options, Probe};

/// The cause and the remedy, for people.
pub const BUILT_WITHOUT: &str = "this build of dovetail has no OpenCV; install libopencv-dev, clang, libclang-dev, \
    cmake and nasm, and build with the default features";

fn missing<T>() -> Result<T, VisionError> {
    Err(VisionError::unavailable("built_without_opencv", BUILT_WITHOUT))
}

/// Vision in a build without OpenCV.
#[derive(Debug)]
pub struct Opencv {
    _private: (),
}

/// The engines of a build without OpenCV: none.
#[derive(Debug)]
pub struct Engines {
    _private: (),
}

impl Engines {
    /// Succeeds, as [`Opencv::new`].
    #[must_use]
    pub fn new(_options: EngineOptions) -> Self {
        Self { _private: () }
    }

    /// # Errors
    /// Always `Unavailable` with `built_without_opencv`.
    pub fn find(&self) -> Result<EngineFound, VisionError> {
        missing()
    }

    /// # Errors
    /// Always `Unavailable` with `built_without_opencv`.
    pub fn expected(&self) -> Result<Engine, VisionError> {
        missing()
    }
}

/// Does nothing: this build opens no library.
///
/// # Safety
/// None is needed in this build.
#[expect(unsafe_code, reason = "the function keeps the signature of the build with OpenCV")]
pub unsafe fn forbid_telemetry() {}

impl Opencv {
    /// # Errors
    /// Always `Unavailable` with `built_without_opencv`.
    pub fn expected_engine(&self) -> Result<Engine, VisionError> {
        missing()
    }

    /// Succeeds, so that everything that needs no vision works. Every operation returns `Unavailable`.
    ///
    /// # Errors
    /// None in this build.
    pub fn new(_options: Options) -> Result<Self, VisionError> {
        Ok(Self { _private: () })
    }

    /// Does nothing: this build finds no models.
    pub fn on_missing(&self, _look: Box<dyn Fn() + Send + Sync>) {}
}

/// Does nothing: this build loads no networks.
pub fn give_back() {}

impl Vision for Opencv {
    fn open(
        &self,
        _: &Digest,
        _: &mut dyn FnMut() -> Result<Vec<u8>, VisionError>,
        _: &Stop,
    ) -> Result<Image, VisionError> {
        missing()
    }

    fn max_file_bytes(&self) -> u64 {
        // No limit, so that a caller gets the error of `open` before it reads a file.
        u64::MAX
    }

    fn crop(&self, _: &Image, _: Rect) -> Result<Image, VisionError> {
        missing()
    }

    fn resize(&self, _: &Image, _: Size, _: &Stop) -> Result<Image, VisionError> {
        missing()
    }

    fn encode(&self, _: &Image, _: &str, _: Option<u8>, _: &Stop) -> Result<Vec<u8>, VisionError> {
        missing()
    }

    fn model(&self, _: ModelKind, _: Option<&str>) -> Result<Model, VisionError> {
        missing()
    }

    fn companions(&self, _: &Model) -> Vec<Model> {
        Vec::new()
    }

    fn engine(&self, _: &Digest) -> Option<Engine> {
        None
    }

    fn detect(&self, _: &Model, _: &Image, _: DetectOptions, _: &Stop) -> Result<Vec<Detection>, VisionError> {
        missing()
    }

    fn locate(&self, _: &Model, _: &Image, _: &[Rect], _: &Stop) -> Result<PerFace<Vec<Point>>, VisionError> {
        missing()
    }

    fn estimate(
        &self,
        _: &Model,
        _: &Image,
        _: &[Rect],
        _: u32,
        _: &Stop,
    ) -> Result<PerFace<AgeAndGender>, VisionError> {
        missing()
    }

    fn classify(&self, _: &Model, _: &Image, _: &[Rect], _: &Stop) -> Result<PerFace<Vec<f32>>, VisionError> {
        missing()
    }

    fn embed(&self, _: &Model, _: &Image, _: &[Rect], _: &Stop) -> Result<PerFace<Vec<f32>>, VisionError> {
        missing()
    }
}

/// Not available in this build.
///
/// # Errors
/// Always `Unavailable` with `built_without_opencv`.
pub fn annotate(_: &Image, _: &[Annotation]) -> Result<Image, VisionError> {
    missing()
}

/// Not available in this build.
///
/// # Errors
/// Always `Unavailable` with `built_without_opencv`.
pub fn probe(_: &[u8]) -> Result<Probe, VisionError> {
    missing()
}

/// `None`: this build has no OpenCV.
#[must_use]
pub fn opencv_version() -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_says_how_to_get_it() {
        let vision = Opencv::new(Options::new("models")).unwrap();
        let err = vision.model(ModelKind::Detector, None).unwrap_err();
        assert!(
            matches!(&err, VisionError::Unavailable { code: "built_without_opencv", message }
                if message.contains("libopencv-dev")),
            "{err:?}"
        );
        assert!(opencv_version().is_none());
    }
}
