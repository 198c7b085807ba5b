//! [`Opencv`]: the port [`Vision`] on the pool. This file chooses the picture, the priority and the checks of each
//! operation; the other files do the work.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dovetail_core::id::Digest;
use dovetail_core::scarce::Scarce;
use dovetail_core::stop::Stop;
use dovetail_core::sync::lock;
use dovetail_core::vision::{
    AgeAndGender, DetectOptions, Detection, Engine, Image, Model, ModelKind, PerFace, Point, Rect, Size, Vision,
    VisionError,
};

use crate::codec;
use crate::engine::Engines;
use crate::heap;
use crate::models::ModelStore;
use crate::options::Options;
use crate::pictures::{PictureLookup, Pictures, Points};
use crate::pool::{Pool, Priority};

use super::edit;
use super::faces;
use super::loaded::{Loaded, Models, store_failed};
use super::{failed, scarce, silence};

/// Decoded pictures allowed beyond one for each thread of the pool. A step then has a picture to work on as soon as
/// another step ends.
const AHEAD: usize = 2;
/// Bytes of decoded pixels in use above which no further picture is decoded. One picture of the maximum size has
/// 192 MiB.
const BYTES_AHEAD: u64 = 128 << 20;

/// Vision on OpenCV; the trait [`Vision`] documents each operation. Dropping it waits for passes in progress.
pub struct Opencv {
    models: Arc<Models>,
    pool: Pool,
    missing: Mutex<Option<Missing>>,
}

/// The search for models that are not installed here.
struct Missing {
    /// Installs models that are available elsewhere.
    look: Box<dyn Fn() + Send + Sync>,
    /// When the last search ended.
    at: Option<Instant>,
}

/// The least time between two searches for missing models: a task may name any model at any rate.
const LOOK_ROUND: Duration = Duration::from_millis(200);

impl std::fmt::Debug for Opencv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opencv").field("models", &self.models.dir()).finish_non_exhaustive()
    }
}

impl Opencv {
    /// Sets up the pool and OpenCV's own threads. No model is loaded.
    ///
    /// # Errors
    /// `Unavailable` if the folder of models cannot be created; `Scarce` if the system refuses the threads.
    pub fn new(options: Options) -> Result<Self, VisionError> {
        let Options { models: folder, threads, image_cache_bytes, engine } = options;
        silence();
        heap::bound();
        opencv::core::set_num_threads(i32::try_from(engine.threads.max(1)).unwrap_or(i32::MAX)).map_err(failed)?;
        let store = ModelStore::open(folder).map_err(store_failed)?;
        let models = Models::new(store, Engines::new(engine), Arc::new(Pictures::new(image_cache_bytes)));
        let pictures = Arc::clone(&models.pictures);
        let may_decode = move || {
            let (count, bytes) = pictures.in_use();
            count < threads + AHEAD && bytes < BYTES_AHEAD
        };
        let pool = Pool::new(threads, may_decode)
            .map_err(|err| scarce(Scarce::Threads, format!("start the threads for vision: {err}")))?;
        Ok(Self { models: Arc::new(models), pool, missing: Mutex::default() })
    }

    /// Registers `look`, which installs models that are available elsewhere. A call that asks for a model that is not
    /// installed calls `look`, at most five times a second in total. `look` may block; concurrent calls wait for it.
    pub fn on_missing(&self, look: Box<dyn Fn() + Send + Sync>) {
        *lock(&self.missing) = Some(Missing { look, at: None });
    }

    /// The engine that this process runs networks in. Does not open a library that is the pinned release.
    ///
    /// # Errors
    /// `Unavailable` with [`dovetail_core::vision::ENGINE_UNAVAILABLE`] if ONNX Runtime is asked for and cannot be
    /// used; `Scarce`.
    pub fn expected_engine(&self) -> Result<Engine, VisionError> {
        self.models.expected_engine()
    }

    /// Searches for missing models. Returns whether a search ended after this call began, so that asking again may give
    /// another answer.
    fn look_elsewhere(&self) -> bool {
        let asked = Instant::now();
        let mut missing = lock(&self.missing);
        let Some(Missing { look, at }) = &mut *missing else {
            return false;
        };
        if at.is_none_or(|at| asked.saturating_duration_since(at) >= LOOK_ROUND) {
            look();
            *at = Some(Instant::now());
        }
        // A search that ended before this call began changes nothing: the caller's answer already includes its models.
        at.is_some_and(|at| at >= asked)
    }

    fn on_pool<T: Send + 'static>(
        &self,
        priority: Priority,
        stop: &Stop,
        work: impl FnOnce(&Arc<Models>, &Stop) -> Result<T, VisionError> + Send + 'static,
    ) -> Result<T, VisionError> {
        let (models, inside) = (Arc::clone(&self.models), stop.clone());
        self.pool.run(priority, stop, move || {
            faces::go_on(&inside)?;
            work(&models, &inside)
        })
    }
}

impl Vision for Opencv {
    fn open(
        &self,
        digest: &Digest,
        bytes: &mut dyn FnMut() -> Result<Vec<u8>, VisionError>,
        stop: &Stop,
    ) -> Result<Image, VisionError> {
        loop {
            match self.models.pictures.find(digest) {
                PictureLookup::Here(image) => return Ok(image),
                // The channel closes without a message when the other decode ends, also if it failed: look again.
                PictureLookup::Wait(closed) => drop(stop.wait(&closed).map_err(VisionError::Stopped)?),
                PictureLookup::Decode(ticket) => {
                    let file = bytes()?;
                    let idle = self.pool.idle_jobs();
                    return self.on_pool(Priority::After, stop, move |models, _| {
                        // The other threads of the pool load networks while this one decodes.
                        for digest in models.take_expected() {
                            let models = Arc::clone(models);
                            idle.add(move || models.load_ahead(&digest));
                        }
                        let image = codec::decode(&file)?;
                        ticket.complete(&image);
                        Ok(image)
                    });
                }
            }
        }
    }

    fn max_file_bytes(&self) -> u64 {
        crate::MAX_FILE_BYTES as u64
    }

    fn crop(&self, image: &Image, area: Rect) -> Result<Image, VisionError> {
        edit::crop(image, area)
    }

    fn resize(&self, image: &Image, to: Size, stop: &Stop) -> Result<Image, VisionError> {
        codec::check_target(to)?;
        let image = image.clone();
        self.on_pool(Priority::First, stop, move |_, _| edit::resize(&image, to))
    }

    fn encode(
        &self,
        image: &Image,
        media_type: &str,
        quality: Option<u8>,
        stop: &Stop,
    ) -> Result<Vec<u8>, VisionError> {
        let (image, media_type) = (image.clone(), media_type.to_owned());
        self.on_pool(Priority::First, stop, move |_, _| codec::encode(&image, &media_type, quality))
    }

    fn model(&self, kind: ModelKind, name: Option<&str>) -> Result<Model, VisionError> {
        match self.models.model(kind, name) {
            Err(error) if error.is_of_a_model_that_is_missing() && self.look_elsewhere() => {
                self.models.model(kind, name)
            }
            found => found,
        }
    }

    fn companions(&self, model: &Model) -> Vec<Model> {
        match self.models.slot(model, model.kind) {
            Ok(slot) if slot.manifest.needs_landmarks() => self.models.landmarker(model).into_iter().collect(),
            // If the model cannot be found, the operation that uses it reports the error.
            _ => Vec::new(),
        }
    }

    fn expect(&self, models: &[Digest]) {
        self.models.expect(models);
    }

    fn engine(&self, model: &Digest) -> Option<Engine> {
        self.models.engine(model)
    }

    fn process_engine(&self) -> Option<Engine> {
        self.models.process_engine()
    }

    fn detect(
        &self,
        model: &Model,
        image: &Image,
        options: DetectOptions,
        stop: &Stop,
    ) -> Result<Vec<Detection>, VisionError> {
        if !(0.0..=1.0).contains(&options.min_confidence) {
            let message = format!("the minimum confidence is {}: it must be 0 to 1", options.min_confidence);
            return Err(VisionError::invalid("bad_min_confidence", message));
        }
        let (model, image) = (model.clone(), image.clone());
        self.on_pool(Priority::First, stop, move |models, stop| {
            let slot = models.slot(&model, ModelKind::Detector)?;
            let mut held = lock(&slot.loaded);
            // Check again: this call may have waited for the lock, and loading the model takes long.
            faces::go_on(stop)?;
            match models.load(&slot, &mut held)? {
                Loaded::Detector(detector) => detector.detect(&slot.manifest, &image, options),
                Loaded::Haar(haar) => haar.detect(&image, options),
                Loaded::Face(_) => Err(VisionError::unavailable("broken_model", "the model is not a detector")),
            }
        })
    }

    fn locate(
        &self,
        model: &Model,
        image: &Image,
        faces: &[Rect],
        stop: &Stop,
    ) -> Result<PerFace<Vec<Point>>, VisionError> {
        let (model, image, faces) = (model.clone(), image.clone(), faces.to_vec());
        self.on_pool(Priority::First, stop, move |models, stop| {
            let points = models.points(&model, &image, &faces, stop)?;
            let rounded = |p: Points| p.iter().map(|&(x, y)| Point { x: x as f32, y: y as f32 }).collect();
            Ok(points.into_iter().map(|p| p.map(rounded)).collect())
        })
    }

    fn estimate(
        &self,
        model: &Model,
        image: &Image,
        faces: &[Rect],
        views: u32,
        stop: &Stop,
    ) -> Result<PerFace<AgeAndGender>, VisionError> {
        if !(1..=6).contains(&views) {
            return Err(VisionError::invalid(
                "bad_views",
                format!("the number of views is {views}: it must be 1 to 6"),
            ));
        }
        let (model, image, faces) = (model.clone(), image.clone(), faces.to_vec());
        self.on_pool(Priority::First, stop, move |models, stop| {
            let slot = models.slot(&model, ModelKind::AgeGenderEstimator)?;
            let values = models.look((&model, &slot), &image, &faces, views, stop)?;
            Ok(values.into_iter().map(|v| v.map(|v| faces::age_and_gender(&v))).collect())
        })
    }

    fn classify(
        &self,
        model: &Model,
        image: &Image,
        faces: &[Rect],
        stop: &Stop,
    ) -> Result<PerFace<Vec<f32>>, VisionError> {
        self.vectors(ModelKind::EmotionClassifier, model, image, faces, stop)
    }

    fn embed(
        &self,
        model: &Model,
        image: &Image,
        faces: &[Rect],
        stop: &Stop,
    ) -> Result<PerFace<Vec<f32>>, VisionError> {
        self.vectors(ModelKind::Embedder, model, image, faces, stop)
    }
}

impl Opencv {
    /// One vector of values for each face, from a network that sees one view of the face.
    fn vectors(
        &self,
        kind: ModelKind,
        model: &Model,
        image: &Image,
        faces: &[Rect],
        stop: &Stop,
    ) -> Result<PerFace<Vec<f32>>, VisionError> {
        let (model, image, faces) = (model.clone(), image.clone(), faces.to_vec());
        self.on_pool(Priority::First, stop, move |models, stop| {
            let slot = models.slot(&model, kind)?;
            let values = models.look((&model, &slot), &image, &faces, 1, stop)?;
            let first = |mut v: Vec<Vec<f32>>| faces::interpret(&slot.manifest, v.swap_remove(0));
            Ok(values.into_iter().map(|v| v.map(first)).collect())
        })
    }
}
