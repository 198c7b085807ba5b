//! [`Opencv`]: the port to vision, on the pool. Here is which model and which picture an operation uses; what it does
//! with them is in the other files.
//!
//! There is one instance of each network in the process, loaded when it is first needed and kept. Two calls for one
//! network take turns, batch by batch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dovetail_core::id::Digest;
use dovetail_core::scarce::Scarce;
use dovetail_core::stop::Stop;
use dovetail_core::vision::{
    AgeAndGender, DetectOptions, Detection, Image, Model, ModelKind, PerFace, Point, Rect, Size, Vision, VisionError,
};
use dovetail_core::vision::{MODEL_DAMAGED, MODEL_GONE};
use opencv::core::{Mat, MatTraitConst, MatTraitConstManual};
use opencv::imgproc;

use crate::codec;
use crate::heap;
use crate::models::manifest::{Crop, CropFrom, Manifest, Output, Role};
use crate::models::{Installed, Listed, ModelError, ModelStore, default_model};
use crate::options::Options;
use crate::pictures::{Found, Pictures, Points};
use crate::pool::{Pool, Priority};

use super::detect::Detector;
use super::faces::{self, Each, View};
use super::haar::Haar;
use super::network::Network;
use super::{failed, scarce, silence};

/// Pictures that are decoded beyond those that passes can run over: their steps have something to do as soon as others
/// end.
const AHEAD: usize = 2;
/// The same in bytes of pixels: one of the largest has 192 MB.
const BYTES_AHEAD: u64 = 128 << 20;

/// A model's networks, in memory.
enum Loaded {
    Detector(Detector),
    Haar(Haar),
    Face(Network),
}

/// A model that was used: the lock is held during one batch (or one detection).
struct Slot {
    manifest: Manifest,
    loaded: Mutex<Option<Loaded>>,
}

/// Shared with the jobs on the pool.
struct Inner {
    store: ModelStore,
    listed: Listed,
    pictures: Arc<Pictures>,
    slots: Mutex<HashMap<Digest, Arc<Slot>>>,
}

/// Vision on OpenCV; see the trait for what each operation does. Dropping it waits for passes in progress.
pub struct Opencv {
    inner: Arc<Inner>,
    pool: Pool,
    missing: Mutex<Option<Missing>>,
}

/// Where a model may come from that is not installed.
struct Missing {
    look: Box<dyn Fn() + Send + Sync>,
    /// When it was last looked.
    at: Option<Instant>,
}

/// How seldom it is looked for models that are not installed: a task may name any, as often as it likes.
const LOOK_ROUND: Duration = Duration::from_millis(200);

impl std::fmt::Debug for Opencv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opencv").field("models", &self.inner.store.dir()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // After a panic in a pass the network is still whole: its next input replaces the last.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whatever is wrong with the folder of models.
fn store_failed(err: ModelError) -> VisionError {
    if let Some(refused) = Scarce::behind(&err) {
        return scarce(refused, chain(&err));
    }
    VisionError::unavailable(
        MODEL_DAMAGED,
        format!("{}; `dovetail doctor` looks at every installed model", chain(&err)),
    )
}

/// A file of this model cannot be loaded.
fn unloadable(name: &str) -> impl Fn(ModelError) -> VisionError {
    let name = name.to_owned();
    move |err| {
        if let Some(refused) = Scarce::behind(&err) {
            return scarce(refused, format!("the model `{name}` cannot be loaded: {}", chain(&err)));
        }
        let remedy = "install it again: `dovetail models pull`, or `models add` for a model of your own";
        VisionError::unavailable(
            MODEL_DAMAGED,
            format!("the model `{name}` cannot be loaded: {}; {remedy}", chain(&err)),
        )
    }
}

fn chain(err: &ModelError) -> String {
    let mut message = err.to_string();
    let mut cause = std::error::Error::source(err);
    while let Some(err) = cause {
        message = format!("{message}: {err}");
        cause = err.source();
    }
    message
}

impl Opencv {
    /// Sets up the pool and OpenCV's own threads. No model is loaded.
    ///
    /// # Errors
    /// `Unavailable` if the folder of models cannot be made, or threads cannot be started.
    pub fn new(options: Options) -> Result<Self, VisionError> {
        let Options { models, threads, image_cache_bytes, opencv_threads } = options;
        silence();
        heap::bound();
        opencv::core::set_num_threads(i32::try_from(opencv_threads.max(1)).unwrap_or(i32::MAX)).map_err(failed)?;
        let store = ModelStore::open(models).map_err(store_failed)?;
        let inner = Inner {
            store,
            listed: Listed::default(),
            pictures: Arc::new(Pictures::new(image_cache_bytes)),
            slots: Mutex::default(),
        };
        let pictures = Arc::clone(&inner.pictures);
        let room = move || {
            let (count, bytes) = pictures.in_use();
            count < threads + AHEAD && bytes < BYTES_AHEAD
        };
        let pool = Pool::new(threads, room)
            .map_err(|err| scarce(Scarce::Threads, format!("start the threads for vision: {err}")))?;
        Ok(Self { inner: Arc::new(inner), pool, missing: Mutex::default() })
    }

    /// `look` installs models that are to be had elsewhere, if there are any. It is called where one is asked for that
    /// is not installed, at most five times a second; whoever asks at the same time waits for it. Blocking.
    pub fn on_missing(&self, look: Box<dyn Fn() + Send + Sync>) {
        *lock(&self.missing) = Some(Missing { look, at: None });
    }

    /// Whether models may have come since.
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
        // Not if it was looked before this was asked: the answer was made with what had come by then.
        at.is_some_and(|at| at >= asked)
    }

    fn on_pool<T: Send + 'static>(
        &self,
        turn: Priority,
        stop: &Stop,
        work: impl FnOnce(&Inner, &Stop) -> Result<T, VisionError> + Send + 'static,
    ) -> Result<T, VisionError> {
        let (inner, inside) = (Arc::clone(&self.inner), stop.clone());
        self.pool.run(turn, stop, move || {
            faces::go_on(&inside)?;
            work(&inner, &inside)
        })
    }
}

impl Inner {
    fn installed(&self) -> Result<Arc<[Installed]>, VisionError> {
        self.listed.get(&self.store).map_err(store_failed)
    }

    fn model(&self, kind: ModelKind, name: Option<&str>) -> Result<Model, VisionError> {
        let installed = self.installed()?;
        let of_kind = || installed.iter().map(|i| &i.model).filter(|m| m.kind == kind);
        let called = |m: &&Model, name: &str| m.name == name || m.aliases.iter().any(|a| a == name);
        let found = match name {
            None => default_model(&installed, kind).map(|found| &found.model),
            Some(name) => of_kind().find(|m| called(m, name)),
        };
        if let Some(found) = found {
            return Ok(found.clone());
        }
        let Some(wanted) = name.filter(|_| of_kind().next().is_some()) else {
            let message =
                format!("no {} is installed; `dovetail models pull` installs the default models", kind.words());
            return Err(VisionError::unavailable("models_missing", message));
        };
        let names: Vec<String> =
            of_kind().flat_map(|m| std::iter::once(&m.name).chain(&m.aliases)).map(|n| format!("`{n}`")).collect();
        let shown: String = wanted.chars().take(80).collect();
        Err(VisionError::invalid(
            "unknown_model",
            format!("no {} is called `{shown}`; installed: {}", kind.words(), names.join(", ")),
        ))
    }

    /// The landmarker by whose points faces are cut out for this model.
    fn landmarker(&self, model: &Model) -> Result<Model, VisionError> {
        let Some(digest) = model.landmarker else {
            return self.model(ModelKind::Landmarker, None);
        };
        let of_run = |one: &&Installed| one.model.kind == ModelKind::Landmarker && one.model.digest == digest;
        let installed = self.installed()?;
        let gone = || {
            let message = format!("the landmarker {digest} of this run, which `{}` uses, is not installed", model.name);
            VisionError::unavailable(MODEL_GONE, message)
        };
        installed.iter().find(of_run).map(|one| one.model.clone()).ok_or_else(gone)
    }

    fn slot(&self, model: &Model, kind: ModelKind) -> Result<Arc<Slot>, VisionError> {
        if model.kind != kind {
            let message = format!("`{}` is a {}, not a {}", model.name, model.kind.words(), kind.words());
            return Err(VisionError::invalid("wrong_model_kind", message));
        }
        if let Some(slot) = lock(&self.slots).get(&model.digest) {
            return Ok(Arc::clone(slot));
        }
        let gone = || {
            VisionError::unavailable(
                MODEL_GONE,
                format!("the model `{}` ({}) is not installed any more", model.name, model.digest),
            )
        };
        let installed = self.installed()?;
        let found = installed.iter().find(|i| i.model.digest == model.digest).ok_or_else(gone)?;
        let slot = Arc::new(Slot { manifest: found.manifest.clone(), loaded: Mutex::default() });
        Ok(Arc::clone(lock(&self.slots).entry(model.digest).or_insert(slot)))
    }

    /// The slot's networks, loading them first if need be.
    fn load<'a>(&self, slot: &Slot, held: &'a mut Option<Loaded>) -> Result<&'a mut Loaded, VisionError> {
        if held.is_none() {
            *held = Some(self.read(&slot.manifest)?);
            heap::give_back();
        }
        Ok(held.as_mut().expect("it was just filled"))
    }

    fn read(&self, manifest: &Manifest) -> Result<Loaded, VisionError> {
        let file =
            |role| manifest.file(role).map(|f| self.store.load(f)).transpose().map_err(unloadable(&manifest.name));
        let missing =
            || VisionError::unavailable("broken_model", format!("the model `{}` lacks a file", manifest.name));
        if manifest.output == Output::Cascade {
            let cascade = file(Role::Cascade)?.ok_or_else(missing)?;
            return Ok(Loaded::Haar(Haar::load(&cascade, file(Role::ProfileCascade)?.as_deref())?));
        }
        let onnx =
            self.store.locate(manifest.file(Role::Network).ok_or_else(missing)?).map_err(unloadable(&manifest.name))?;
        let network = Network::load(manifest, &onnx)?;
        if manifest.kind != ModelKind::Detector {
            return Ok(Loaded::Face(network));
        }
        let anchors = file(Role::Anchors)?.unwrap_or_default();
        let float = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let anchors = anchors
            .as_chunks::<16>()
            .0
            .iter()
            .map(|a| [float(&a[..4]), float(&a[4..8]), float(&a[8..12]), float(&a[12..])])
            .collect();
        Ok(Loaded::Detector(Detector { network, anchors }))
    }

    /// Runs views through a face network. Its lock is taken anew for each batch, so that two steps that share it take
    /// turns.
    fn run(&self, slot: &Slot, image: &Image, views: &[View], stop: &Stop) -> Result<Vec<Vec<f32>>, VisionError> {
        let mut out = Vec::with_capacity(views.len());
        for batch in views.chunks(slot.manifest.faces_at_once()) {
            let mut held = lock(&slot.loaded);
            let Loaded::Face(network) = self.load(slot, &mut held)? else {
                return Err(VisionError::unavailable("broken_model", "a detector was asked to look at a face"));
            };
            out.extend(faces::run(network, image, batch, stop)?);
        }
        Ok(out)
    }

    /// Landmarks of every face, from memory where they are known.
    fn points(&self, model: &Model, image: &Image, faces: &[Rect], stop: &Stop) -> Result<Each<Points>, VisionError> {
        let slot = self.slot(model, ModelKind::Landmarker)?;
        let remembered = self.pictures.remembered(image);
        let known = |face: Rect| remembered.as_ref().and_then(|r| r.get(&model.digest, face));
        let mut out: Each<Points> = Vec::with_capacity(faces.len());
        for batch in faces.chunks(slot.manifest.faces_at_once()) {
            faces::go_on(stop)?;
            if let Some(all) = batch.iter().map(|f| known(*f)).collect::<Option<Vec<_>>>() {
                out.extend(all.into_iter().map(Ok));
                continue;
            }
            let mut held = lock(&slot.loaded);
            let Loaded::Face(network) = self.load(&slot, &mut held)? else {
                return Err(VisionError::unavailable("broken_model", "a detector was asked for landmarks"));
            };
            // Asked again: the step beside this one may have found them while this one waited for the lock.
            let mut found: Vec<Option<Result<Points, _>>> = batch.iter().map(|f| known(*f).map(Ok)).collect();
            let mut views = Vec::new();
            for (place, face) in found.iter_mut().zip(batch).filter(|(place, _)| place.is_none()) {
                match faces::detection_cut(image, *face) {
                    Ok(cut) => views.push(View { cut, mirror: false }),
                    Err(err) => *place = Some(Err(err)),
                }
            }
            let side = network.input.side;
            let mut results = faces::run(network, image, &views, stop)?.into_iter().zip(&views);
            for (place, face) in found.into_iter().zip(batch) {
                out.push(match place {
                    Some(known) => known,
                    None => {
                        let (values, view) =
                            results.next().expect("one result a view, one view a face without an entry");
                        let points = faces::to_points(&values, view.cut, *face, side);
                        if let Some(remembered) = &remembered {
                            remembered.put(&model.digest, *face, &points);
                        }
                        Ok(points)
                    }
                });
            }
        }
        Ok(out)
    }

    /// What a network says about `count` views of each face.
    fn look(
        &self,
        (model, slot): (&Model, &Slot),
        image: &Image,
        faces: &[Rect],
        count: u32,
        stop: &Stop,
    ) -> Result<Each<Vec<Vec<f32>>>, VisionError> {
        let crop = slot.manifest.crop.unwrap_or(Crop { from: CropFrom::Detection, margin: 0.0 });
        let points: Each<Option<Points>> = if crop.from == CropFrom::Detection {
            faces.iter().map(|_| Ok(None)).collect()
        } else {
            let landmarker = self.landmarker(model)?;
            self.points(&landmarker, image, faces, stop)?.into_iter().map(|p| p.map(Some)).collect()
        };
        let views: Each<Vec<View>> = faces
            .iter()
            .zip(points)
            .map(|(face, points)| faces::views(image, *face, points?.as_ref(), crop, count))
            .collect();
        let flat: Vec<View> = views.iter().flatten().flatten().copied().collect();
        let mut values = self.run(slot, image, &flat, stop)?.into_iter();
        Ok(views.into_iter().map(|v| v.map(|v| values.by_ref().take(v.len()).collect())).collect())
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
            match self.inner.pictures.find(digest) {
                Found::Here(image) => return Ok(image),
                // It closes without a message, whatever came of it: look again.
                Found::Wait(flight) => drop(stop.wait(&flight).map_err(VisionError::Stopped)?),
                Found::Decode(flight) => {
                    let file = bytes()?;
                    return self.on_pool(Priority::After, stop, move |_, _| {
                        let image = codec::decode(&file)?;
                        flight.land(&image);
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
        crop(image, area)
    }

    fn resize(&self, image: &Image, to: Size, stop: &Stop) -> Result<Image, VisionError> {
        codec::check_target(to)?;
        let image = image.clone();
        self.on_pool(Priority::First, stop, move |_, _| resize(&image, to))
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
        match self.inner.model(kind, name) {
            Err(error) if error.is_of_a_model_that_is_missing() && self.look_elsewhere() => {
                self.inner.model(kind, name)
            }
            found => found,
        }
    }

    fn companions(&self, model: &Model) -> Vec<Model> {
        match self.inner.slot(model, model.kind) {
            Ok(slot) if slot.manifest.needs_landmarks() => self.inner.landmarker(model).into_iter().collect(),
            // A model that cannot be found fails when it is used, with its own error.
            _ => Vec::new(),
        }
    }

    fn detect(
        &self,
        model: &Model,
        image: &Image,
        options: DetectOptions,
        stop: &Stop,
    ) -> Result<Vec<Detection>, VisionError> {
        if !(0.0..=1.0).contains(&options.min_confidence) {
            let message = format!("a confidence of at least {} is asked for: it is 0 to 1", options.min_confidence);
            return Err(VisionError::invalid("bad_min_confidence", message));
        }
        let (model, image) = (model.clone(), image.clone());
        self.on_pool(Priority::First, stop, move |inner, stop| {
            let slot = inner.slot(&model, ModelKind::Detector)?;
            let mut held = lock(&slot.loaded);
            // It may have waited for the lock, or is about to load.
            faces::go_on(stop)?;
            match inner.load(&slot, &mut held)? {
                Loaded::Detector(detector) => detector.detect(&slot.manifest, &image, options),
                Loaded::Haar(haar) => haar.detect(&image, options),
                Loaded::Face(_) => Err(VisionError::unavailable("broken_model", "the model is no detector")),
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
        self.on_pool(Priority::First, stop, move |inner, stop| {
            let points = inner.points(&model, &image, &faces, stop)?;
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
                format!("{views} views of each face are asked for: it is 1 to 6"),
            ));
        }
        let (model, image, faces) = (model.clone(), image.clone(), faces.to_vec());
        self.on_pool(Priority::First, stop, move |inner, stop| {
            let slot = inner.slot(&model, ModelKind::AgeGenderEstimator)?;
            let values = inner.look((&model, &slot), &image, &faces, views, stop)?;
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
    fn vectors(
        &self,
        kind: ModelKind,
        model: &Model,
        image: &Image,
        faces: &[Rect],
        stop: &Stop,
    ) -> Result<PerFace<Vec<f32>>, VisionError> {
        let (model, image, faces) = (model.clone(), image.clone(), faces.to_vec());
        self.on_pool(Priority::First, stop, move |inner, stop| {
            let slot = inner.slot(&model, kind)?;
            let values = inner.look((&model, &slot), &image, &faces, 1, stop)?;
            let first = |mut v: Vec<Vec<f32>>| faces::interpret(&slot.manifest, v.swap_remove(0));
            Ok(values.into_iter().map(|v| v.map(first)).collect())
        })
    }
}

/// Every pixel that `area` touches.
fn crop(image: &Image, area: Rect) -> Result<Image, VisionError> {
    let Size { width, height } = image.size();
    let empty = || {
        let Rect { x, y, width: w, height: h } = area;
        VisionError::invalid(
            "empty_area",
            format!("nothing of the area ({x}, {y}, {w}, {h}) lies inside the picture of {width} x {height} pixels"),
        )
    };
    if ![area.x, area.y, area.width, area.height].iter().all(|v| v.is_finite()) {
        return Err(empty());
    }
    // In f64, where the sum of two finite f32 is finite.
    let range = |start: f32, extent: f32, limit: u32| {
        let (start, end) = (f64::from(start), f64::from(start) + f64::from(extent));
        let (first, last) = (start.max(0.0).floor(), end.min(f64::from(limit)).ceil());
        (extent > 0.0 && last > first).then_some((first as usize, last as usize))
    };
    let (Some((left, right)), Some((top, bottom))) =
        (range(area.x, area.width, width), range(area.y, area.height, height))
    else {
        return Err(empty());
    };
    let stride = width as usize * 3;
    let rows = image.pixels()[top * stride..bottom * stride].chunks_exact(stride);
    let pixels: Vec<u8> = rows.flat_map(|row| &row[left * 3..right * 3]).copied().collect();
    let size = Size { width: (right - left) as u32, height: (bottom - top) as u32 };
    Image::new(pixels.into(), size).ok_or_else(empty)
}

/// Smaller by averaging, larger by interpolation.
fn resize(image: &Image, to: Size) -> Result<Image, VisionError> {
    let size = image.size();
    let flat =
        Mat::new_rows_cols_with_data(size.height as i32, size.width as i32 * 3, image.pixels()).map_err(failed)?;
    let source = flat.reshape(3, size.height as i32).map_err(failed)?;
    let how =
        if to.width < size.width && to.height < size.height { imgproc::INTER_AREA } else { imgproc::INTER_LINEAR };
    let mut out = Mat::default();
    imgproc::resize(&source, &mut out, opencv::core::Size::new(to.width as i32, to.height as i32), 0.0, 0.0, how)
        .map_err(failed)?;
    let odd = || VisionError::unavailable("opencv_failed", "OpenCV made a picture of another size");
    Image::new(out.data_bytes().map_err(failed)?.into(), to).ok_or_else(odd)
}
