//! Tests: `ModelStore::add` installs a user's own models, vision uses them like other models, and a model that does not
//! match its manifest is refused.
//!
//! The networks are made here. They are so small that their results are known: the means of the picture's channels, or
//! constants.

#![expect(clippy::unwrap_used, reason = "a failing test should panic, in its helpers too")]

use std::path::{Path, PathBuf};

use dovetail_core::stop::Stop;
use dovetail_core::vision::{DetectOptions, Image, ModelKind, Rect, Size, Vision, VisionError};

use super::graph::{Graph, Pad};
use super::manifest::Role;
use super::weights::Tensor;
use super::{HAAR_FOLDER, ModelError, ModelStore};
use crate::{EngineChoice, EngineOptions, Engines, Opencv, Options};

const SIDE: usize = 16;

/// A network that returns the mean of each channel times `weights` (`[3][n]`) plus `bias`, as `[N, n]`.
fn means(weights: &[f32], bias: &[f32]) -> Vec<u8> {
    let (mut g, input) = Graph::new("means", SIDE);
    let x = g.average_pool(&input, SIDE, 1);
    g.dense(&x, &Tensor { shape: vec![3, bias.len()], values: weights.to_vec() }, Some(bias), "out");
    g.finish()
}

/// A network that returns constant rows of five values: `[N, K, 5]`.
fn constant_boxes(rows: &[f32]) -> Vec<u8> {
    let (mut g, input) = Graph::new("boxes", SIDE);
    let x = g.average_pool(&input, SIDE, 1);
    let y = g.conv(
        &x,
        &Tensor { shape: vec![1, 1, 3, rows.len()], values: vec![0.0; 3 * rows.len()] },
        Some(rows),
        1,
        Pad::Valid,
    );
    g.rows(&[y], 5, "out");
    g.finish()
}

/// OpenCV, to check models with.
fn opencv() -> Engines {
    Engines::new(EngineOptions::opencv(1))
}

struct Bench {
    dir: tempfile::TempDir,
    store: ModelStore,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = ModelStore::open(dir.path().join("models")).unwrap();
        Self { dir, store }
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn add(&self, onnx: &[u8], manifest: &str) -> Result<dovetail_core::vision::Model, ModelError> {
        let (onnx, manifest) = (self.file("net.onnx", onnx), self.file("model.toml", manifest.as_bytes()));
        self.store.add(&onnx, &manifest, &opencv())
    }

    fn vision(&self) -> Opencv {
        Opencv::new(Options::new(self.store.dir())).unwrap()
    }
}

fn manifest(kind: &str, name: &str, output: &str, more: &str) -> String {
    let crop = if kind == "detector" { "" } else { "[crop]\nfrom = 'detection'\n" };
    format!(
        "kind = '{kind}'\nname = '{name}'\noutput = '{output}'\n{more}\n[input]\nside = {SIDE}\n\
         mean = [0.0, 0.0, 0.0]\nscale = 0.01\n{crop}"
    )
}

fn plain(rgb: [u8; 3]) -> Image {
    Image::new(rgb.repeat(40 * 40), Size { width: 40, height: 40 }).unwrap()
}

const WHOLE: Rect = Rect { x: 0.0, y: 0.0, width: 40.0, height: 40.0 };
const IDENTITY: [f32; 9] = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];

#[test]
fn an_embedder_and_a_classifier_compute_what_they_should() {
    let bench = Bench::new();
    let embedder = bench
        .add(&means(&IDENTITY, &[0.0, 0.0, 0.5]), &manifest("embedder", "means", "vector", "aliases = ['m']"))
        .unwrap();
    let labels = "labels = ['red', 'green', 'blue']";
    bench.add(&means(&IDENTITY, &[0.0; 3]), &manifest("emotion_classifier", "colours", "logits", labels)).unwrap();
    let (vision, stop, image) = (bench.vision(), Stop::never(), plain([100, 50, 0]));
    let model = vision.model(ModelKind::Embedder, Some("m")).unwrap();
    assert_eq!(model, embedder);
    assert!(vision.companions(&model).is_empty(), "it needs no landmarks");
    // Five faces are more than one batch.
    for vector in vision.embed(&model, &image, &[WHOLE; 5], &stop).unwrap() {
        let vector = vector.unwrap();
        assert!(vector.iter().zip([1.0, 0.5, 0.5]).all(|(a, b)| (a - b).abs() < 1e-5), "{vector:?}");
    }
    let model = vision.model(ModelKind::EmotionClassifier, None).unwrap();
    assert_eq!(model.labels, ["red", "green", "blue"]);
    let p = vision.classify(&model, &image, &[WHOLE], &stop).unwrap().remove(0).unwrap();
    let total = 1.0_f32.exp() + 0.5_f32.exp() + 1.0;
    assert!((p[0] - 1.0_f32.exp() / total).abs() < 1e-5 && (p.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{p:?}");
}

#[test]
fn a_detector_of_the_documented_layout_gives_boxes_in_pixels() {
    let bench = Bench::new();
    // Two boxes that overlap, one apart, one with a negative size, and one below the minimum confidence.
    let rows = [
        [0.1, 0.1, 0.5, 0.5, 0.9],
        [0.12, 0.1, 0.5, 0.5, 0.8],
        [0.6, 0.6, 0.9, 0.9, 0.7],
        [0.9, 0.9, 0.1, 0.1, 0.99],
        [0.0, 0.6, 0.2, 0.9, 0.2],
    ];
    bench.add(&constant_boxes(rows.as_flattened()), &manifest("detector", "constant", "boxes", "")).unwrap();
    let vision = bench.vision();
    // The picture is wider than high, so the lower half of the square is padding.
    let image = Image::new(vec![0; 200 * 100 * 3], Size { width: 200, height: 100 }).unwrap();
    let model = vision.model(ModelKind::Detector, None).unwrap();
    let found = vision.detect(&model, &image, DetectOptions::default(), &Stop::never()).unwrap();
    assert_eq!(found.iter().map(|d| (d.confidence * 10.0).round()).collect::<Vec<_>>(), [9.0, 7.0]);
    let Rect { x, y, width, height } = found[0].bbox;
    assert!([x - 20.0, y - 20.0, width - 80.0, height - 80.0].iter().all(|v| v.abs() < 0.01), "{:?}", found[0].bbox);
}

#[test]
fn a_cascade_enters_by_the_same_door() {
    let bench = Bench::new();
    let alt2 = Path::new(HAAR_FOLDER).join("haarcascade_frontalface_alt2.xml");
    let text = "kind = 'detector'\nname = 'alt2'\noutput = 'cascade'\n";
    let toml = bench.file("model.toml", text.as_bytes());
    bench.store.add(&alt2, &toml, &opencv()).unwrap();
    let installed = bench.store.list().unwrap().remove(0);
    assert_eq!(installed.manifest.files[0].role, Role::Cascade);
    let found =
        bench.vision().detect(&installed.model, &plain([9; 3]), DetectOptions::default(), &Stop::never()).unwrap();
    assert!(found.is_empty());
    // An ONNX file is not a cascade, and a cascade is not a network.
    let err = bench
        .store
        .add(
            &bench.file("net.onnx", &means(&IDENTITY, &[0.0; 3])),
            &bench.file("other.toml", text.replace("alt2", "b").as_bytes()),
            &opencv(),
        )
        .unwrap_err();
    assert!(matches!(err, ModelError::Unusable { .. }), "{err}");
    let err = bench
        .store
        .add(&alt2, &bench.file("third.toml", manifest("embedder", "c", "vector", "").as_bytes()), &opencv())
        .unwrap_err();
    assert!(matches!(err, ModelError::Unusable { .. }), "{err}");
}

#[test]
fn what_does_not_fit_is_refused_and_not_installed() {
    let bench = Bench::new();
    let three = means(&IDENTITY, &[0.0; 3]);
    let nan = means(&[f32::NAN; 9], &[0.0; 3]);
    let classifier = |labels: &str| manifest("emotion_classifier", "x", "probabilities", labels);
    for (onnx, toml, says) in [
        (&three[..], classifier("labels = ['a', 'b']"), "one value for each label"),
        (&three, manifest("landmarker", "x", "points", ""), "[N, 136]"),
        (&three, manifest("detector", "x", "boxes", ""), "[N, K, 5]"),
        (&three, manifest("embedder", "x", "vector", "").replace("16", "32"), ""),
        (&nan, manifest("embedder", "x", "vector", ""), "not finite"),
        (b"no ONNX at all", manifest("embedder", "x", "vector", ""), "OpenCV"),
        (b"", manifest("embedder", "x", "vector", ""), "empty"),
        (&three[..three.len() / 2], manifest("embedder", "x", "vector", ""), ""),
    ] {
        let err = bench.add(onnx, &toml).unwrap_err();
        assert!(matches!(&err, ModelError::Unusable { message, .. } if message.contains(says)), "{toml}: {err}");
    }
    let err = bench.add(&three, &classifier("labels = ['a', 'b', 'c']\nflavour = 3")).unwrap_err();
    assert!(matches!(&err, ModelError::BadManifest { message, .. } if message.contains("flavour")), "{err}");
    let err = bench.add(&three, &manifest("detector", "x", "ssd_anchors", "")).unwrap_err();
    assert!(matches!(err, ModelError::BadManifest { .. }), "{err}");
    assert!(bench.store.list().unwrap().is_empty());
    assert_eq!(std::fs::read_dir(bench.store.dir().join("files")).unwrap().count(), 0);
}

#[test]
fn names_are_unique_and_the_same_model_twice_is_no_error() {
    let bench = Bench::new();
    let (one, two) = (means(&IDENTITY, &[0.0; 3]), means(&IDENTITY, &[1.0; 3]));
    let toml = manifest("embedder", "mine", "vector", "aliases = ['m']");
    let first = bench.add(&one, &toml).unwrap();
    assert_eq!(bench.add(&one, &toml).unwrap(), first);
    for (onnx, toml) in [
        (&two, toml.clone()),
        (&two, manifest("embedder", "m", "vector", "")),
        (&two, manifest("embedder", "y", "vector", "aliases = ['mine']")),
    ] {
        let err = bench.add(onnx, &toml).unwrap_err();
        assert!(matches!(&err, ModelError::NameTaken { by, .. } if by == "mine"), "{err}");
    }
    assert_eq!(bench.store.list().unwrap().len(), 1);
}

#[test]
fn a_manifest_that_is_edited_is_another_model_and_a_gone_one_is_named() {
    let bench = Bench::new();
    let model = bench.add(&means(&IDENTITY, &[0.0; 3]), &manifest("embedder", "mine", "vector", "")).unwrap();
    let path = bench.store.dir().join("mine.toml");
    let edited = std::fs::read_to_string(&path).unwrap().replace("0.01", "0.02");
    std::fs::write(&path, edited).unwrap();
    assert_ne!(
        bench.store.list().unwrap()[0].model.digest,
        model.digest,
        "how pixels are scaled is part of the identity"
    );
    let err = bench.vision().embed(&model, &plain([1; 3]), &[WHOLE], &Stop::never()).unwrap_err();
    assert!(matches!(err, VisionError::Unavailable { code: "model_gone", .. }), "{err:?}");
}

#[test]
fn a_network_that_only_opencv_can_load_runs_there_in_auto_and_is_refused_where_onnxruntime_is_asked_for() {
    let bench = Bench::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/onnxruntime");
    assert!(folder.join(crate::LIBRARY).is_file(), "there is no library: run `./justw setup`");
    let engine = |choice| EngineOptions { choice, library: None, folder: folder.clone(), threads: 1 };
    let good = means(&IDENTITY, &[0.0; 3]);
    // ONNX Runtime refuses a version of the format that it does not know. OpenCV does not look at the version.
    let mut newer = good.clone();
    assert_eq!(newer[0], 0x08, "the file begins with its version");
    newer[1] = 0x7f;
    let add = |name: &str, onnx: &[u8], choice| {
        let toml = manifest("embedder", name, "vector", "");
        let (onnx, toml) = (bench.file("net.onnx", onnx), bench.file("model.toml", toml.as_bytes()));
        bench.store.add(&onnx, &toml, &Engines::new(engine(choice)))
    };
    let refused = add("newer", &newer, EngineChoice::OnnxRuntime).unwrap_err().to_string();
    assert!(refused.contains("ONNX Runtime") && refused.contains("OpenCV can run it"), "{refused}");
    let refused = add("newer", b"no ONNX at all", EngineChoice::OnnxRuntime).unwrap_err().to_string();
    assert!(!refused.contains("OpenCV can run it"), "{refused}");
    let (newer, good) =
        (add("newer", &newer, EngineChoice::Auto).unwrap(), add("good", &good, EngineChoice::Auto).unwrap());
    let vision =
        Opencv::new(Options { engine: engine(EngineChoice::Auto), ..Options::new(bench.store.dir()) }).unwrap();
    for (model, name) in [(&newer, "opencv"), (&good, "onnxruntime")] {
        assert_eq!(vision.engine(&model.digest), None, "nothing is loaded yet");
        let vector = vision.embed(model, &plain([10, 20, 30]), &[WHOLE], &Stop::never()).unwrap().remove(0).unwrap();
        assert_eq!(vector.len(), 3);
        assert_eq!(vision.engine(&model.digest).unwrap().name, name);
    }
}
