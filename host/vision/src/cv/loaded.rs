//! Installed models in memory: the choice of a model, the loading of its networks, and the passes over faces.
//!
//! The process holds one instance of each network. The first call that needs the network loads it, and the process
//! keeps it. Two calls that need the same network alternate, one batch at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use dovetail_core::error_chain::error_chain;
use dovetail_core::id::Digest;
use dovetail_core::scarce::Scarce;
use dovetail_core::stop::Stop;
use dovetail_core::sync::lock;
use dovetail_core::vision::{Engine, Image, Model, ModelKind, Rect, VisionError};
use dovetail_core::vision::{MODEL_DAMAGED, MODEL_GONE};

use crate::engine::{Engines, Onnx};
use crate::heap;
use crate::models::manifest::{Crop, CropFrom, Manifest, Output, Role};
use crate::models::{Installed, ModelError, ModelListCache, ModelStore, default_model};
use crate::pictures::{Pictures, Points};

use super::detect::Detector;
use super::faces::{self, Each, View};
use super::haar::Haar;
use super::network::Network;
use super::scarce;

/// The networks of one model, in memory.
pub(super) enum Loaded {
    Detector(Detector),
    Haar(Haar),
    Face(Network),
}

/// A model that was used at least once. A caller holds the lock for one batch, or for one detection.
pub(super) struct Slot {
    pub(super) manifest: Manifest,
    /// A network is usable after a panic in a pass, because the next pass replaces the network's input.
    pub(super) loaded: Mutex<Option<Loaded>>,
    /// The engine of the network, once the network is loaded.
    engine: OnceLock<Engine>,
}

/// The models and the decoded pictures, which the callers and the jobs on the pool share.
pub(super) struct Models {
    store: ModelStore,
    engines: Engines,
    listed: ModelListCache,
    pub(super) pictures: Arc<Pictures>,
    slots: Mutex<HashMap<Digest, Arc<Slot>>>,
    /// Models that are to be loaded when the next picture is decoded.
    expected: Mutex<Vec<Digest>>,
}

/// The error of a call that could not read the folder of models.
pub(super) fn store_failed(err: ModelError) -> VisionError {
    if let Some(refused) = Scarce::behind(&err) {
        return scarce(refused, error_chain(&err));
    }
    VisionError::unavailable(
        MODEL_DAMAGED,
        format!("{}; `dovetail doctor` checks every installed model", error_chain(&err)),
    )
}

/// The error of a call that could not load a file of the model `name`.
fn unloadable(name: &str) -> impl Fn(ModelError) -> VisionError {
    let name = name.to_owned();
    move |err| {
        if let Some(refused) = Scarce::behind(&err) {
            return scarce(refused, format!("the model `{name}` cannot be loaded: {}", error_chain(&err)));
        }
        let remedy = "install it again: `dovetail models pull`, or `models add` for a model of your own";
        VisionError::unavailable(
            MODEL_DAMAGED,
            format!("the model `{name}` cannot be loaded: {}; {remedy}", error_chain(&err)),
        )
    }
}

impl Models {
    /// Loads no model.
    pub(super) fn new(store: ModelStore, engines: Engines, pictures: Arc<Pictures>) -> Self {
        Self {
            store,
            engines,
            listed: ModelListCache::default(),
            pictures,
            slots: Mutex::default(),
            expected: Mutex::default(),
        }
    }

    /// The engine that runs this model's network. `None` if the network is not loaded.
    pub(super) fn engine(&self, model: &Digest) -> Option<Engine> {
        lock(&self.slots).get(model)?.engine.get().cloned()
    }

    /// As [`Engines::chosen`].
    pub(super) fn process_engine(&self) -> Option<Engine> {
        self.engines.chosen()
    }

    /// As [`Engines::expected`].
    pub(super) fn expected_engine(&self) -> Result<Engine, VisionError> {
        self.engines.expected()
    }

    /// The folder of the installed models.
    pub(super) fn dir(&self) -> &std::path::Path {
        self.store.dir()
    }

    fn installed(&self) -> Result<Arc<[Installed]>, VisionError> {
        self.listed.get(&self.store).map_err(store_failed)
    }

    /// The installed model of this kind with this name or alias; the default model of the kind if `name` is `None`.
    ///
    /// # Errors
    /// `Unavailable` with `models_missing` if no model of the kind is installed; `Invalid` with `unknown_model` if no
    /// installed model of the kind has the name.
    pub(super) fn model(&self, kind: ModelKind, name: Option<&str>) -> Result<Model, VisionError> {
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

    /// The landmarker whose points define the crops that `model` sees: the run's landmarker if the run has one, else
    /// the default landmarker.
    ///
    /// # Errors
    /// `Unavailable` with [`MODEL_GONE`] if the run's landmarker is not installed; the errors of [`Models::model`].
    pub(super) fn landmarker(&self, model: &Model) -> Result<Model, VisionError> {
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

    /// The slot of `model`, which must be of this kind. Reads the manifest when the model is used for the first time.
    ///
    /// # Errors
    /// `Invalid` with `wrong_model_kind`; `Unavailable` with [`MODEL_GONE`] if the model is no longer installed.
    pub(super) fn slot(&self, model: &Model, kind: ModelKind) -> Result<Arc<Slot>, VisionError> {
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
                format!("the model `{}` ({}) is no longer installed", model.name, model.digest),
            )
        };
        let installed = self.installed()?;
        let found = installed.iter().find(|i| i.model.digest == model.digest).ok_or_else(gone)?;
        let (manifest, loaded, engine) = (found.manifest.clone(), Mutex::default(), OnceLock::new());
        let slot = Arc::new(Slot { manifest, loaded, engine });
        Ok(Arc::clone(lock(&self.slots).entry(model.digest).or_insert(slot)))
    }

    /// Notes models that operations will use, besides those that were noted before.
    pub(super) fn expect(&self, models: &[Digest]) {
        let unknown: Vec<Digest> = {
            let slots = lock(&self.slots);
            models.iter().filter(|digest| !slots.contains_key(digest)).copied().collect()
        };
        // Another attempt may have noted models too, and has not decoded its picture yet.
        let mut expected = lock(&self.expected);
        for digest in unknown {
            if !expected.contains(&digest) {
                expected.push(digest);
            }
        }
    }

    /// The noted models, in their order.
    pub(super) fn take_expected(&self) -> Vec<Digest> {
        std::mem::take(&mut lock(&self.expected))
    }

    /// Loads the networks of an installed model before an operation needs them. Does nothing if another thread loads
    /// them now, or if that fails: the operation that needs the model reports the error.
    pub(super) fn load_ahead(&self, digest: &Digest) {
        let installed = self.installed().unwrap_or_default();
        let Some(one) = installed.iter().find(|one| one.model.digest == *digest) else { return };
        let Ok(slot) = self.slot(&one.model, one.model.kind) else { return };
        if let Ok(mut held) = slot.loaded.try_lock() {
            self.load(&slot, &mut held).ok();
        }
    }

    /// The slot's networks. Loads them if `held`, the content of the slot's lock, is empty.
    pub(super) fn load<'a>(&self, slot: &Slot, held: &'a mut Option<Loaded>) -> Result<&'a mut Loaded, VisionError> {
        if held.is_none() {
            let loaded = self.read(&slot.manifest)?;
            if let Loaded::Detector(Detector { network, .. }) | Loaded::Face(network) = &loaded {
                // A network is loaded once, unless loading failed before.
                slot.engine.get_or_init(|| network.engine().clone());
            }
            *held = Some(loaded);
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
        let network = Network::load(&self.engines, manifest, Onnx::File(&onnx))?;
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

    /// Runs `views` through a face network; one vector of values for each view. Takes the network's lock anew for each
    /// batch, so that two steps that share the network alternate.
    fn run(&self, slot: &Slot, image: &Image, views: &[View], stop: &Stop) -> Result<Vec<Vec<f32>>, VisionError> {
        let mut out = Vec::with_capacity(views.len());
        for batch in views.chunks(slot.manifest.faces_at_once()) {
            let mut held = lock(&slot.loaded);
            let Loaded::Face(network) = self.load(slot, &mut held)? else {
                return Err(VisionError::unavailable("broken_model", "the model is a detector, not a face network"));
            };
            out.extend(faces::run(network, image, batch, stop)?);
        }
        Ok(out)
    }

    /// The landmarks of each face, in pixels. Reuses landmarks that are remembered for this picture.
    pub(super) fn points(
        &self,
        model: &Model,
        image: &Image,
        faces: &[Rect],
        stop: &Stop,
    ) -> Result<Each<Points>, VisionError> {
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
                return Err(VisionError::unavailable("broken_model", "the model is a detector, not a landmarker"));
            };
            // Look again: a concurrent step may have computed these landmarks while this step waited for the lock.
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

    /// The network's values for up to `count` views of each face.
    pub(super) fn look(
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
