//! Measures the cost of a call: `cargo run --release -p dovetail-runtime --example call_cost -- COMPONENT.wasm
//! INPUT_JSON [CALLS]`.
//!
//! Each call is a whole attempt: a fresh store and instance, the input from JSON, the output to JSON, and the report.
//! It prints the minimum and the median of five rounds. The component must not use vision.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use dovetail_core::blobs::{BlobKind, Blobs, StoreError, StoreErrorKind};
use dovetail_core::executor::{Attempt, Executor as _, Outcome};
use dovetail_core::keys::NodeId;
use dovetail_core::limits::Limits;
use dovetail_core::stop::Stop;
use dovetail_core::vision::{
    AgeAndGender, DetectOptions, Detection, Engine, Image, Model, ModelKind, PerFace, Point, Rect, Size, Vision,
    VisionError,
};
use dovetail_core::{Digest, RunId};
use dovetail_runtime::{Budgets, Options, PackageContent, Runtime, pack};

#[derive(Default)]
struct BlobMap(Mutex<HashMap<Digest, Vec<u8>>>);

impl Blobs for BlobMap {
    fn put(&self, _: BlobKind, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        self.0.lock().map_err(|_| lost())?.insert(digest, bytes.to_vec());
        Ok(digest)
    }

    fn get(&self, _: BlobKind, digest: &Digest, _: u64) -> Result<Vec<u8>, StoreError> {
        self.0.lock().map_err(|_| lost())?.get(digest).cloned().ok_or_else(lost)
    }

    fn size(&self, _: BlobKind, digest: &Digest) -> Result<Option<u64>, StoreError> {
        Ok(self.0.lock().map_err(|_| lost())?.get(digest).map(|bytes| bytes.len() as u64))
    }
}

fn lost() -> StoreError {
    StoreError::plain(StoreErrorKind::Missing, "read blob")
}

/// A vision in which every operation fails.
struct Blind;

fn blind<T>() -> Result<T, VisionError> {
    Err(VisionError::unavailable("built_without_opencv", "this program measures calls only"))
}

impl Vision for Blind {
    fn open(
        &self,
        _: &Digest,
        _: &mut dyn FnMut() -> Result<Vec<u8>, VisionError>,
        _: &Stop,
    ) -> Result<Image, VisionError> {
        blind()
    }
    fn max_file_bytes(&self) -> u64 {
        1 << 20
    }

    fn crop(&self, _: &Image, _: Rect) -> Result<Image, VisionError> {
        blind()
    }
    fn resize(&self, _: &Image, _: Size, _: &Stop) -> Result<Image, VisionError> {
        blind()
    }
    fn encode(&self, _: &Image, _: &str, _: Option<u8>, _: &Stop) -> Result<Vec<u8>, VisionError> {
        blind()
    }
    fn model(&self, _: ModelKind, _: Option<&str>) -> Result<Model, VisionError> {
        blind()
    }
    fn engine(&self, _: &Digest) -> Option<Engine> {
        None
    }

    fn companions(&self, _: &Model) -> Vec<Model> {
        Vec::new()
    }
    fn detect(&self, _: &Model, _: &Image, _: DetectOptions, _: &Stop) -> Result<Vec<Detection>, VisionError> {
        blind()
    }
    fn locate(&self, _: &Model, _: &Image, _: &[Rect], _: &Stop) -> Result<PerFace<Vec<Point>>, VisionError> {
        blind()
    }
    fn estimate(
        &self,
        _: &Model,
        _: &Image,
        _: &[Rect],
        _: u32,
        _: &Stop,
    ) -> Result<PerFace<AgeAndGender>, VisionError> {
        blind()
    }
    fn classify(&self, _: &Model, _: &Image, _: &[Rect], _: &Stop) -> Result<PerFace<Vec<f32>>, VisionError> {
        blind()
    }
    fn embed(&self, _: &Model, _: &Image, _: &[Rect], _: &Stop) -> Result<PerFace<Vec<f32>>, VisionError> {
        blind()
    }
}

#[expect(clippy::print_stdout, reason = "the program exists to print figures")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [component, input, rest @ ..] = args.as_slice() else {
        return Err("usage: call_cost COMPONENT.wasm INPUT_JSON [CALLS]".into());
    };
    let calls: u32 = rest.first().map_or(Ok(20_000), |calls| calls.parse())?;
    let component = std::fs::read(component)?;
    let folder = tempfile::tempdir()?;
    let blobs = Arc::<BlobMap>::default();
    let options = || Options {
        blobs: blobs.clone(),
        vision: Arc::new(Blind),
        cache_dir: folder.path().join("code"),
        cache_bytes: 64 << 20,
        compiler: None,
        jobs: 8,
        budgets: Budgets::default(),
        live: None,
    };
    let runtime = Runtime::new(options())?;
    let interface = runtime.compiler().describe(&component, &Default::default())?.signature.interface;
    let name = interface.split([':', '/']).nth(1).ok_or("the interface has no package")?;
    let manifest = format!("name = \"{name}\"\nversion = \"1.0.0\"\ndescription = \"measured\"\n");
    let none = BTreeMap::new();
    let package = blobs.put(
        BlobKind::Package,
        &pack(PackageContent {
            manifest: &manifest,
            component: &component,
            wit: &none,
            readme: None,
            examples: &none,
        })?,
    )?;
    let attempt = Attempt {
        run: RunId::from_bytes([1; 16]),
        step: NodeId::of_step("measured"),
        number: 1,
        package,
        idempotency_key: "key".to_owned(),
        input: serde_json::from_str(input)?,
        origins: BTreeMap::new(),
        limits: Limits::DEFAULT,
        models: dovetail_core::executor::Models::new(),
    };
    let stop = Stop::never();
    let mut rounds = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        for _ in 0..calls {
            let report = runtime.execute(&attempt, &stop)?;
            if let Outcome::Failed { failure } = report.outcome {
                return Err(format!("{}: {}", failure.code, failure.message).into());
            }
        }
        rounds.push(began.elapsed().as_secs_f64() * 1e6 / f64::from(calls));
    }
    rounds.sort_by(f64::total_cmp);
    println!("{name}: {:.1} / {:.1} us a call (minimum / median of 5 rounds of {calls})", rounds[0], rounds[2]);
    // Measures the start of a worker that finds the code compiled: the package is read and verified, the code is
    // mapped, and the first call is made.
    let mut starts = Vec::new();
    for _ in 0..9 {
        let runtime = Runtime::new(options())?;
        let began = Instant::now();
        runtime.execute(&attempt, &stop)?;
        starts.push(began.elapsed().as_secs_f64() * 1e3);
    }
    starts.sort_by(f64::total_cmp);
    println!(
        "{name}: {:.2} ms from a package that was compiled before to the end of its first call (median of 9 runtimes)",
        starts[4]
    );
    Ok(())
}
