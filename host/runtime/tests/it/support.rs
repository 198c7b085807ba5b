//! Guests from text, a runtime on test doubles of its ports, and attempts.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use dovetail_core::blobs::{BlobKind, Blobs, StoreError, StoreErrorKind};
use dovetail_core::executor::{Attempt, Executor as _, Failure, FailureKind, Outcome, Report};
use dovetail_core::keys::NodeId;
use dovetail_core::limits::Limits;
use dovetail_core::stop::Stop;
use dovetail_core::vision::{
    AgeAndGender, DetectOptions, Detection, Engine, FaceError, Image, Model, ModelKind, PerFace, Point, Rect, Size,
    Vision, VisionError,
};
use dovetail_core::{Digest, RunId};
use dovetail_runtime::{Budgets, Options, PackageContent, Runtime, pack};
use serde_json::{Value, json};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The time that the fake vision takes to encode a picture.
pub(crate) const ENCODING: std::time::Duration = std::time::Duration::from_millis(3);

/// The manifest of a task; `more` follows the description.
pub(crate) fn manifest(name: &str, more: &str) -> String {
    format!("name = \"{name}\"\nversion = \"1.0.0\"\ndescription = \"a guest of the runtime's tests\"\n{more}\n")
}

/// A component of the package `acme:probe`, made from the content of its interface `task` and a core module in text.
///
/// The core module exports its function as `acme:probe/task@1.0.0#run`.
pub(crate) fn component(interface: &str, core: &str) -> Vec<u8> {
    component_of(
        &format!(
            "package acme:probe@1.0.0; interface task {{ {interface} }} \
             world component {{ \
             include dovetail:task/imports@0.1.0; include dovetail:vision/imports@0.1.0; export task; }}"
        ),
        core,
    )
}

/// A component from a whole package in WIT.
pub(crate) fn component_of(wit: &str, core: &str) -> Vec<u8> {
    let mut resolve = Resolve { all_features: true, ..Resolve::default() };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
    for package in ["task", "vision"] {
        resolve.push_path(root.join(package)).unwrap();
    }
    let package = resolve.push_str("test.wit", wit).unwrap();
    let world = resolve.select_world(&[package], Some("component")).unwrap();
    let mut module = wat::parse_str(core).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

/// The interface of most guests here: the input is a number, and so is the output.
pub(crate) const NUMBER: &str = "use dovetail:task/types@0.1.0.{task-error}; \
    record input { n: u32 } record output { n: u32 } run: func(input: input) -> result<output, task-error>;";

/// A core module: its imports and other definitions, then the body of `run` (parameter 0 is `n`). The body leaves the
/// address of the result, usually by `(call $ok (VALUE))`. Memory starts with 2 pages; `cabi_realloc` allocates from
/// 65536 on and grows the memory.
pub(crate) fn core(definitions: &str, body: &str) -> String {
    core_with("(param i32)", definitions, body)
}

/// A core module whose `run` has other parameters.
pub(crate) fn core_with(parameters: &str, definitions: &str, body: &str) -> String {
    format!(
        r#"(module {definitions}
  (memory (export "memory") 2)
  (global $next (mut i32) (i32.const 65536))
  (func $alloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
    (global.set $next (i32.add (local.get $at) (local.get 3)))
    (block $enough (loop $more
      (br_if $enough (i32.le_u (global.get $next) (i32.mul (memory.size) (i32.const 65536))))
      (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then (unreachable)))
      (br $more)))
    (local.get $at))
  (func $ok (param i32) (result i32)
    (i32.store8 (i32.const 1024) (i32.const 0)) (i32.store (i32.const 1032) (local.get 0)) (i32.const 1024))
  (func $run (export "acme:probe/task@1.0.0#run") {parameters} (result i32) {body}))"#
    )
}

/// A guest whose input and output are numbers.
pub(crate) fn number_guest(definitions: &str, body: &str) -> Vec<u8> {
    component(NUMBER, &core(definitions, body))
}

/// A test double of the store: bytes in memory, by digest. If an error kind is set, every access to an artifact fails
/// with it.
#[derive(Debug, Default)]
pub(crate) struct MemoryBlobs(
    pub(crate) Mutex<HashMap<(BlobKind, Digest), Vec<u8>>>,
    pub(crate) Mutex<Option<StoreErrorKind>>,
);

impl MemoryBlobs {
    fn works(&self, kind: BlobKind) -> Result<(), StoreError> {
        let fails = self.1.lock().unwrap().filter(|_| kind == BlobKind::Artifact);
        fails.map_or(Ok(()), |fails| Err(StoreError::plain(fails, "do what the test wants to fail")))
    }
}

impl Blobs for MemoryBlobs {
    fn put(&self, kind: BlobKind, bytes: &[u8]) -> Result<Digest, StoreError> {
        self.works(kind)?;
        let digest = Digest::of(bytes);
        self.0.lock().unwrap().insert((kind, digest), bytes.to_vec());
        Ok(digest)
    }

    fn get(&self, kind: BlobKind, digest: &Digest, max: u64) -> Result<Vec<u8>, StoreError> {
        self.works(kind)?;
        let found = self.0.lock().unwrap().get(&(kind, *digest)).cloned();
        let bytes = found.ok_or_else(|| StoreError::plain(StoreErrorKind::Missing, format!("read blob {digest}")))?;
        if bytes.len() as u64 > max {
            Err(StoreError::plain(StoreErrorKind::Refused, format!("read blob {digest}")))
        } else {
            Ok(bytes)
        }
    }

    fn size(&self, kind: BlobKind, digest: &Digest) -> Result<Option<u64>, StoreError> {
        self.works(kind)?;
        Ok(self.0.lock().unwrap().get(&(kind, *digest)).map(|bytes| bytes.len() as u64))
    }
}

/// A test double of vision. A picture is the text `WIDTHxHEIGHT`; with ` odd` behind it, the picture has a warning.
/// Faces are invented.
#[derive(Debug, Default)]
pub(crate) struct FakeVision {
    /// The number of pictures decoded.
    pub(crate) decoded: AtomicU32,
}

fn blank(size: Size) -> Image {
    Image::new(vec![0; size.width as usize * size.height as usize * 3], size).unwrap()
}

fn per_face<T: Clone>(faces: &[Rect], one: &T) -> PerFace<T> {
    let bad = || FaceError { code: "empty_area", message: "nothing of the box lies inside".to_owned() };
    faces.iter().map(|face| if face.width > 0.0 { Ok(one.clone()) } else { Err(bad()) }).collect()
}

impl Vision for FakeVision {
    fn open(
        &self,
        _: &Digest,
        bytes: &mut dyn FnMut() -> Result<Vec<u8>, VisionError>,
        _: &Stop,
    ) -> Result<Image, VisionError> {
        self.decoded.fetch_add(1, Ordering::Relaxed);
        let text = String::from_utf8(bytes()?).unwrap_or_default();
        let (text, odd) = text.split_once(" odd").map_or((text.as_str(), false), |(text, _)| (text, true));
        let side = |text: &str| text.parse::<u32>().ok();
        let size = text.split_once('x').and_then(|(w, h)| Some(Size { width: side(w)?, height: side(h)? }));
        let image = size.map(blank).ok_or_else(|| VisionError::invalid("undecodable", "no picture"))?;
        Ok(if odd { image.warned("libjpeg warned: it is odd") } else { image })
    }

    fn max_file_bytes(&self) -> u64 {
        1 << 20
    }

    fn crop(&self, image: &Image, area: Rect) -> Result<Image, VisionError> {
        if !(area.width > 0.0 && area.height > 0.0) {
            return Err(VisionError::invalid("empty_area", "nothing of the area lies inside"));
        }
        let side = |wanted: f32, have: u32| (wanted as u32).clamp(1, have);
        Ok(blank(Size { width: side(area.width, image.size().width), height: side(area.height, image.size().height) }))
    }

    fn resize(&self, _: &Image, to: Size, _: &Stop) -> Result<Image, VisionError> {
        Ok(blank(to))
    }

    fn encode(&self, image: &Image, _: &str, _: Option<u8>, _: &Stop) -> Result<Vec<u8>, VisionError> {
        std::thread::sleep(ENCODING);
        Ok(format!("{}x{}", image.size().width, image.size().height).into_bytes())
    }

    fn model(&self, kind: ModelKind, name: Option<&str>) -> Result<Model, VisionError> {
        match name.unwrap_or("default") {
            "missing" => Err(VisionError::unavailable("models_missing", "no model is installed")),
            "unknown" => Err(VisionError::invalid("unknown_model", "there is no such model")),
            name => Ok(Model {
                kind,
                name: name.to_owned(),
                digest: Digest::of(name.as_bytes()),
                aliases: Vec::new(),
                labels: vec!["happy".to_owned()],
                landmarker: None,
            }),
        }
    }

    fn engine(&self, _: &Digest) -> Option<Engine> {
        None
    }

    fn companions(&self, model: &Model) -> Vec<Model> {
        if model.kind == ModelKind::Embedder {
            vec![Model {
                kind: ModelKind::Landmarker,
                name: "points".to_owned(),
                digest: Digest::of(b"points"),
                aliases: Vec::new(),
                labels: Vec::new(),
                landmarker: None,
            }]
        } else {
            Vec::new()
        }
    }

    fn detect(
        &self,
        model: &Model,
        _: &Image,
        options: DetectOptions,
        stop: &Stop,
    ) -> Result<Vec<Detection>, VisionError> {
        match model.name.as_str() {
            "slow" => {
                let never = crossbeam_channel::never::<()>();
                return Err(VisionError::Stopped(stop.wait(&never).unwrap_err()));
            }
            "panics" => panic!("the library is broken"),
            _ => {}
        }
        let bbox = Rect { x: 1.0, y: 2.0, width: 3.0, height: 4.0 };
        let all = [0.9, 0.6, 0.1].map(|confidence| Detection { bbox, confidence });
        Ok(all
            .into_iter()
            .filter(|face| face.confidence >= options.min_confidence)
            .take(options.max_faces as usize)
            .collect())
    }

    fn locate(&self, _: &Model, _: &Image, faces: &[Rect], _: &Stop) -> Result<PerFace<Vec<Point>>, VisionError> {
        Ok(per_face(faces, &vec![Point { x: 1.0, y: 2.0 }; 68]))
    }

    fn estimate(
        &self,
        _: &Model,
        _: &Image,
        faces: &[Rect],
        _: u32,
        _: &Stop,
    ) -> Result<PerFace<AgeAndGender>, VisionError> {
        Ok(per_face(faces, &AgeAndGender { age: 30.0, age_confidence: 0.9, female: 0.25 }))
    }

    fn classify(&self, _: &Model, _: &Image, faces: &[Rect], _: &Stop) -> Result<PerFace<Vec<f32>>, VisionError> {
        Ok(per_face(faces, &vec![1.0]))
    }

    fn embed(&self, _: &Model, _: &Image, faces: &[Rect], _: &Stop) -> Result<PerFace<Vec<f32>>, VisionError> {
        Ok(per_face(faces, &vec![0.5; 128]))
    }
}

/// A runtime on test doubles.
pub(crate) struct Bench {
    pub(crate) runtime: Runtime,
    pub(crate) blobs: Arc<MemoryBlobs>,
    pub(crate) vision: Arc<FakeVision>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Options)) -> Self {
        let (blobs, vision) = (Arc::<MemoryBlobs>::default(), Arc::<FakeVision>::default());
        let mut options = Options {
            blobs: blobs.clone(),
            vision: vision.clone(),
            // Shared by all tests and kept between their runs, as on a host.
            cache_dir: Path::new(env!("CARGO_TARGET_TMPDIR")).join("code"),
            cache_bytes: 256 << 20,
            compiler: None,
            jobs: 4,
            budgets: Budgets::default(),
            live: None,
        };
        change(&mut options);
        Self { runtime: Runtime::new(options).unwrap(), blobs, vision }
    }

    /// Stores a component as the package `name`.
    pub(crate) fn install(&self, name: &str, component: &[u8], more: &str) -> Digest {
        // Keep packed packages: packing a real component takes a second.
        static PACKED: Mutex<BTreeMap<(String, Digest), Vec<u8>>> = Mutex::new(BTreeMap::new());
        let manifest = manifest(name, more);
        let key = (manifest.clone(), Digest::of(component));
        let known = PACKED.lock().unwrap().get(&key).cloned();
        let package = known.unwrap_or_else(|| {
            let none = BTreeMap::new();
            let package =
                pack(PackageContent { manifest: &manifest, component, wit: &none, readme: None, examples: &none })
                    .unwrap();
            PACKED.lock().unwrap().insert(key, package.clone());
            package
        });
        self.blobs.put(BlobKind::Package, &package).unwrap()
    }

    /// Stores bytes as an artifact. Returns the artifact's JSON.
    pub(crate) fn artifact(&self, bytes: &[u8], media_type: &str) -> Value {
        let digest = self.blobs.put(BlobKind::Artifact, bytes).unwrap();
        json!({ "$artifact": digest, "media_type": media_type })
    }

    /// Runs one attempt of an installed package.
    pub(crate) fn attempt(&self, package: Digest, input: Value, limits: Limits, stop: &Stop) -> Report {
        self.runtime.execute(&attempt(package, input, limits), stop).unwrap()
    }

    /// Runs one attempt of a component, with the default limits.
    pub(crate) fn run(&self, component: &[u8], input: Value) -> Report {
        self.run_within(component, input, Limits::DEFAULT)
    }

    /// Runs one attempt of a component, within `limits`.
    pub(crate) fn run_within(&self, component: &[u8], input: Value, limits: Limits) -> Report {
        self.attempt(self.install("probe", component, ""), input, limits, &Stop::never())
    }
}

/// An attempt with invented facts.
pub(crate) fn attempt(package: Digest, input: Value, limits: Limits) -> Attempt {
    Attempt {
        run: RunId::from_bytes([7; 16]),
        step: NodeId::of_step("probe"),
        number: 1,
        package,
        idempotency_key: "key".to_owned(),
        input,
        origins: BTreeMap::from([("n".to_owned(), "output_001_n".to_owned())]),
        limits,
        models: dovetail_core::executor::Models::new(),
    }
}

/// The output of a successful attempt.
pub(crate) fn output(report: &Report) -> &Value {
    match &report.outcome {
        Outcome::Succeeded { output } => output,
        Outcome::Failed { failure } => panic!("failed: {failure:?}, log: {:?}", report.log),
    }
}

/// The failure of a failed attempt.
pub(crate) fn failure(report: &Report) -> &Failure {
    match &report.outcome {
        Outcome::Succeeded { output } => panic!("succeeded: {output}"),
        Outcome::Failed { failure } => failure,
    }
}

/// The kind and code of a failure.
pub(crate) fn failed(report: &Report) -> (FailureKind, &str) {
    let failure = failure(report);
    (failure.kind, &failure.code)
}
