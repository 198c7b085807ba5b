//! The engines of the networks: equal results whatever runs beside them, and libraries that cannot be used.

use std::path::{Path, PathBuf};
use std::process::Command;

use dovetail_core::stop::Stop;
use dovetail_core::vision::{
    DetectOptions, Detection, ENGINE_UNAVAILABLE, Image, ModelKind, Rect, Vision, VisionError,
};
use dovetail_vision::{EngineChoice, EngineOptions, Engines, LIBRARY, ONNXRUNTIME_VERSION, Opencv, Options};

use crate::common::{library, models, onnxruntime, photo};

const PHOTOGRAPHS: [&str; 4] = ["sample1.jpg", "sample2.jpg", "sample4.jpg", "sample5.jpg"];

/// Everything that the networks say about a photograph, bit for bit.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said(Vec<u32>);

fn said(vision: &Opencv, image: &Image, faces_at_once: usize) -> Said {
    let stop = Stop::never();
    let model = |kind| vision.model(kind, None).unwrap();
    let found = vision.detect(&model(ModelKind::Detector), image, DetectOptions::default(), &stop).unwrap();
    let of_detection = |d: &Detection| [d.bbox.x, d.bbox.y, d.bbox.width, d.bbox.height, d.confidence];
    let mut all: Vec<f32> = found.iter().flat_map(of_detection).collect();
    let areas: Vec<Rect> = found.iter().map(|d| d.bbox).collect();
    for areas in areas.chunks(faces_at_once) {
        let points = vision.locate(&model(ModelKind::Landmarker), image, areas, &stop).unwrap();
        all.extend(points.into_iter().flat_map(Result::unwrap).flat_map(|p| [p.x, p.y]));
    }
    for areas in areas.chunks(faces_at_once) {
        let ages = vision.estimate(&model(ModelKind::AgeGenderEstimator), image, areas, 2, &stop).unwrap();
        all.extend(ages.into_iter().map(Result::unwrap).flat_map(|a| [a.age, a.age_confidence, a.female]));
    }
    for areas in areas.chunks(faces_at_once) {
        let emotions = vision.classify(&model(ModelKind::EmotionClassifier), image, areas, &stop).unwrap();
        all.extend(emotions.into_iter().flat_map(Result::unwrap));
    }
    for areas in areas.chunks(faces_at_once) {
        let vectors = vision.embed(&model(ModelKind::Embedder), image, areas, &stop).unwrap();
        all.extend(vectors.into_iter().flat_map(Result::unwrap));
    }
    Said(all.into_iter().map(f32::to_bits).collect())
}

fn fast(threads: usize, pool: usize) -> Opencv {
    Opencv::new(Options { engine: onnxruntime(threads), threads: pool, ..Options::new(models()) }).unwrap()
}

#[test]
fn results_are_bit_equal_whatever_the_threads_the_batches_and_the_neighbours() {
    let images: Vec<Image> = PHOTOGRAPHS.iter().map(|name| photo(name)).collect();
    let alone = fast(1, 1);
    let expected: Vec<Said> = images.iter().map(|image| said(&alone, image, usize::MAX)).collect();
    assert!(expected.iter().all(|said| said.0.len() > 200), "every photograph has faces");
    for (threads, pool, faces_at_once) in [(1, 1, 1), (2, 2, usize::MAX), (3, 4, 2)] {
        let vision = fast(threads, pool);
        std::thread::scope(|scope| {
            for first in 0..4 {
                let (vision, images, expected) = (&vision, &images, &expected);
                scope.spawn(move || {
                    for n in (0..4).map(|n| (n + first) % 4) {
                        let what = format!("{}, {threads} threads, pool of {pool}", PHOTOGRAPHS[n]);
                        assert!(said(vision, &images[n], faces_at_once) == expected[n], "{what}");
                    }
                });
            }
        });
    }
}

/// The message of the error for which networks cannot run.
fn refused(options: EngineOptions) -> String {
    match Engines::new(options).find() {
        Err(VisionError::Unavailable { code: ENGINE_UNAVAILABLE, message }) => message,
        other => panic!("the engine must be refused: {other:?}"),
    }
}

/// A shared library from a C program.
fn compiled(folder: &Path, name: &str, program: &str) -> PathBuf {
    let (source, library) = (folder.join(format!("{name}.c")), folder.join(format!("{name}.so")));
    std::fs::write(&source, program).unwrap();
    let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    library
}

/// A library with the function that every ONNX Runtime has, of this version.
fn of_version(folder: &Path, version: &str) -> PathBuf {
    let program = format!(
        "static const char *version(void) {{ return \"{version}\"; }}\n\
         static const void *api(unsigned n) {{ return 0; }}\n\
         static const struct {{ const void *(*a)(unsigned); const char *(*v)(void); }} base = {{ api, version }};\n\
         const void *OrtGetApiBase(void) {{ return &base; }}\n"
    );
    compiled(folder, &version.replace('.', "_"), &program)
}

#[test]
fn a_library_that_cannot_be_used_is_one_clear_error_if_it_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    let whole = std::fs::read(library()).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let mut foreign = whole.clone();
    foreign[18] = 40;
    let pipe = folder.join("pipe.so");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (path, says) in [
        (folder.join("missing.so"), "No such file"),
        (folder.to_owned(), "regular file"),
        (pipe, "regular file"),
        (file("text.so", b"not a library"), "not a shared library"),
        (file("cut.so", &whole[..whole.len() / 2]), "cut off"),
        (file("short.so", &whole[..100]), "cut off"),
        (file("arm.so", &foreign), "another architecture"),
        (compiled(folder, "empty", "int nothing;"), "not ONNX Runtime"),
        (compiled(folder, "null", "const void *OrtGetApiBase(void) { return 0; }"), "not ONNX Runtime"),
        (of_version(folder, "1.16.3"), "its version is 1.16.3"),
        (of_version(folder, "2.0.0"), "its version is 2.0.0"),
        (of_version(folder, "one"), "its version is one"),
    ] {
        let asked = EngineOptions { library: Some(path.clone()), ..onnxruntime(1) };
        for choice in [EngineChoice::OnnxRuntime, EngineChoice::Auto] {
            let message = refused(EngineOptions { choice, ..asked.clone() });
            assert!(message.contains(says) && message.contains("vision.onnxruntime"), "{says}: {message}");
        }
        // The library is not asked for.
        let found = Engines::new(EngineOptions { choice: EngineChoice::Opencv, ..asked }).find().unwrap();
        assert_eq!((found.engine.name.as_str(), found.is_fallback), ("opencv", false));
    }
}

#[test]
fn auto_takes_the_pinned_library_of_the_data_folder_and_falls_back_from_a_damaged_one() {
    let dir = tempfile::tempdir().unwrap();
    let (choice, folder) = (EngineChoice::Auto, dir.path().to_owned());
    let options = EngineOptions { choice, library: None, folder, threads: 1 };
    let found = |options: &EngineOptions| Engines::new(options.clone()).find().unwrap();
    let none = found(&options);
    assert_eq!((none.engine.name.as_str(), none.is_fallback), ("opencv", false), "{none:?}");
    let must = EngineOptions { choice: EngineChoice::OnnxRuntime, ..options.clone() };
    assert!(refused(must.clone()).contains("`dovetail models pull` installs it"));

    let place = dir.path().join(LIBRARY);
    let mut damaged = std::fs::read(library()).unwrap();
    damaged[1 << 20] ^= 1;
    std::fs::write(&place, damaged).unwrap();
    let fallback = found(&options);
    assert_eq!((fallback.engine.name.as_str(), fallback.is_fallback), ("opencv", true), "{fallback:?}");
    assert!(fallback.why.contains("damaged, or another version"), "{fallback:?}");
    assert!(refused(must).contains("damaged, or another version"));

    std::fs::remove_file(&place).unwrap();
    std::os::unix::fs::symlink("nowhere", &place).unwrap();
    assert!(found(&options).is_fallback, "a link that leads nowhere is told, too");
}

#[test]
fn the_pinned_library_says_its_version_and_its_digest() {
    let found = Engines::new(onnxruntime(1)).find().unwrap();
    assert_eq!(found.engine.to_string(), format!("onnxruntime {ONNXRUNTIME_VERSION}"));
    assert_eq!(found.digest, dovetail_vision::release().and_then(|release| release.digest()));
    assert_eq!(found.library, Some(library()));
}
