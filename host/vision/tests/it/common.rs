//! Shared by the tests: the package with weights and photographs, the models imported from it, and one vision for all
//! tests.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use dovetail_core::Digest;
use dovetail_core::stop::Stop;
use dovetail_core::vision::{DetectOptions, Detection, Image, ModelKind, Rect, Vision};
use dovetail_vision::{
    EngineChoice, EngineOptions, FACE_API_PACKAGE, HAAR_FOLDER, LIBRARY, ModelStore, Opencv, Options,
};

/// The unpacked package. If it is missing, the test fails with the command that fetches it.
pub(crate) fn package() -> PathBuf {
    let folder = std::env::var_os("DOVETAIL_FACE_API")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/face-api/package"), PathBuf::from);
    assert!(
        folder.join("model").is_dir() && folder.join("demo").is_dir(),
        "the package {FACE_API_PACKAGE} is not in `{}`: run `./justw setup`, or name its folder in DOVETAIL_FACE_API",
        folder.display()
    );
    folder
}

/// A folder with the default models, imported once.
pub(crate) fn models() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vision-models");
        let store = ModelStore::open(&dir).unwrap();
        store.import_face_api(&package()).unwrap();
        store.import_haar(Path::new(HAAR_FOLDER)).expect("the cascades of the system's package `opencv-data`");
        dir
    })
}

pub(crate) fn vision() -> &'static Opencv {
    static VISION: OnceLock<Opencv> = OnceLock::new();
    VISION.get_or_init(|| Opencv::new(Options::new(models())).unwrap())
}

/// The library of ONNX Runtime. If it is missing, the test fails with the command that fetches it.
pub(crate) fn library() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/onnxruntime").canonicalize();
    let path = folder.unwrap_or_default().join(LIBRARY);
    assert!(path.is_file(), "there is no target/onnxruntime/{LIBRARY}: run `./justw setup`");
    path
}

/// ONNX Runtime with this number of threads for a detection.
pub(crate) fn onnxruntime(threads: usize) -> EngineOptions {
    let (choice, folder) = (EngineChoice::OnnxRuntime, PathBuf::new());
    EngineOptions { choice, library: Some(library()), folder, threads }
}

/// A vision on each engine: OpenCV, and ONNX Runtime with 2 threads.
pub(crate) fn engines() -> [(&'static str, &'static Opencv); 2] {
    static VISION: OnceLock<Opencv> = OnceLock::new();
    let fast =
        VISION.get_or_init(|| Opencv::new(Options { engine: onnxruntime(2), ..Options::new(models()) }).unwrap());
    [("opencv", vision()), ("onnxruntime", fast)]
}

pub(crate) fn photo_file(name: &str) -> Vec<u8> {
    std::fs::read(package().join("demo").join(name)).unwrap()
}

pub(crate) fn open(file: &[u8]) -> Result<Image, dovetail_core::vision::VisionError> {
    vision().open(&Digest::of(file), &mut || Ok(file.to_vec()), &Stop::never())
}

pub(crate) fn photo(name: &str) -> Image {
    open(&photo_file(name)).unwrap()
}

pub(crate) fn detect(image: &Image, detector: &str, options: DetectOptions) -> Vec<Detection> {
    detect_with(vision(), image, detector, options)
}

pub(crate) fn detect_with(vision: &Opencv, image: &Image, detector: &str, options: DetectOptions) -> Vec<Detection> {
    let model = vision.model(ModelKind::Detector, Some(detector)).unwrap();
    vision.detect(&model, image, options, &Stop::never()).unwrap()
}

pub(crate) fn overlap(a: Rect, b: Rect) -> f64 {
    let [ax, ay, aw, ah] = [a.x, a.y, a.width, a.height].map(f64::from);
    let [bx, by, bw, bh] = [b.x, b.y, b.width, b.height].map(f64::from);
    let w = (ax + aw).min(bx + bw) - ax.max(bx);
    let h = (ay + ah).min(by + bh) - ay.max(by);
    if w > 0.0 && h > 0.0 { w * h / (aw * ah + bw * bh - w * h) } else { 0.0 }
}

/// Pixels of noise, determined by `seed`.
pub(crate) fn noise(width: u32, height: u32, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..width as usize * height as usize * 3)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}
