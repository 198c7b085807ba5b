//! `dovetail:vision/faces`: models over many faces at once.

use dovetail_core::executor::ModelUse;
use dovetail_core::vision::{self as port, DetectOptions, FaceError, ModelKind, PerFace};
use wasmtime::component::Resource;

use crate::bindings::dovetail::task::types::{Failure, TaskError};
use crate::bindings::dovetail::vision::faces::{self, AgeAndGender, Detection};
use crate::bindings::dovetail::vision::images::{Point, Rect};
use crate::functions::images::rect;
use crate::handles::{AgeGenderEstimator, Detector, Embedder, EmotionClassifier, Fault, Image, Landmarker};
use crate::outcome::{AttemptEnd, host_error};
use crate::state::{HostResult, State, wit_failure};

/// The number of views that are compared for the confidence of an age, unless the task sets another number.
pub const DEFAULT_VIEWS: u32 = 2;

/// The most boxes of one call. The host's answer for each box is larger than the box, so without this limit the guest
/// would determine how much memory the host uses.
const MAX_FACES: usize = 10_000;

/// The error for a model that was chosen for the run and is not on this machine; another machine may have it.
fn not_here(chosen: &ModelUse, found: Option<&port::Model>) -> Fault {
    let ModelUse { name, digest, .. } = chosen;
    let here = found.map_or("it is not installed here".to_owned(), |model| {
        format!("the installed model has other content ({})", model.digest)
    });
    let operation = format!("open the model `{name}` ({digest}), which was chosen for this run");
    let remedy = "install that model with `dovetail models pull` or `models add`, or submit a new run";
    AttemptEnd::Host(host_error(operation, false, format!("{here}; {remedy}"))).into()
}

type Faces<T> = Vec<Result<T, Failure>>;

fn describe(model: &port::Model) -> faces::Model {
    faces::Model { name: model.name.clone(), digest: model.digest.to_string() }
}

fn rects(faces: &[Rect]) -> HostResult<Vec<port::Rect>> {
    if faces.len() > MAX_FACES {
        let message =
            format!("one call takes at most {MAX_FACES} faces; this one has {}: call once for each part", faces.len());
        return Err(Fault::Task(TaskError::InvalidInput(wit_failure("too_many_faces", message, false))));
    }
    Ok(faces.iter().map(rect).collect())
}

fn answers<T, U>(answers: PerFace<T>, convert: impl Fn(T) -> U) -> Faces<U> {
    let failure = |error: FaceError| wit_failure(error.code, error.message, false);
    answers.into_iter().map(|answer| answer.map(&convert).map_err(failure)).collect()
}

impl State {
    /// The model with this name; without a name, the model that was chosen for the run.
    fn model(&mut self, kind: ModelKind, name: Option<&str>) -> HostResult<port::Model> {
        let chosen = if name.is_none() { self.attempt.models.get(kind.name()).cloned() } else { None };
        let found = self.vision.model(kind, name.or(chosen.as_ref().map(|chosen| chosen.name.as_str())));
        let model = match (found, chosen) {
            (Ok(model), Some(chosen)) if (&model.name, model.digest) != (&chosen.name, chosen.digest) => {
                return Err(not_here(&chosen, Some(&model)));
            }
            (Err(error), Some(chosen)) if error.is_of_a_model_that_is_missing() => {
                return Err(not_here(&chosen, None));
            }
            (found, _) => found.map_err(|error| self.vision_fault(error))?,
        };
        let landmarker = self.attempt.models.get(ModelKind::Landmarker.name()).map(|chosen| chosen.digest);
        Ok(port::Model { landmarker, ..model })
    }

    /// Runs one operation on the pixels of `image` and records the model in the lineage.
    fn look<T>(
        &mut self,
        model: &port::Model,
        image: &Resource<Image>,
        work: impl FnOnce(&dyn port::Vision, &port::Image, &dovetail_core::stop::Stop) -> Result<T, port::VisionError>,
    ) -> HostResult<T> {
        let pixels = self.pixels(image)?;
        let found = work(self.vision.as_ref(), &pixels, &self.stop).map_err(|error| self.vision_fault(error))?;
        self.used(model);
        Ok(found)
    }
}

impl faces::Host for State {}

impl faces::HostDetector for State {
    fn open(&mut self, name: Option<String>) -> HostResult<Resource<Detector>> {
        self.host("dovetail:vision/faces.detector.open", |state| {
            let model = state.model(ModelKind::Detector, name.as_deref())?;
            Ok(state.table.push(Detector { model, options: DetectOptions::default() })?)
        })
    }

    fn model(&mut self, this: Resource<Detector>) -> wasmtime::Result<faces::Model> {
        self.host("dovetail:vision/faces.detector.model", |state| Ok(describe(&state.table.get(&this)?.model)))
    }

    fn set_min_confidence(&mut self, this: Resource<Detector>, value: f32) -> wasmtime::Result<()> {
        self.host("dovetail:vision/faces.detector.set-min-confidence", |state| {
            let detector = state.table.get_mut(&this)?;
            if !value.is_nan() {
                detector.options.min_confidence = value.clamp(0.0, 1.0);
            }
            Ok(())
        })
    }

    fn set_max_faces(&mut self, this: Resource<Detector>, value: u32) -> wasmtime::Result<()> {
        self.host("dovetail:vision/faces.detector.set-max-faces", |state| {
            state.table.get_mut(&this)?.options.max_faces = value.clamp(1, 1000);
            Ok(())
        })
    }

    fn set_input_side(&mut self, this: Resource<Detector>, pixels: u32) -> wasmtime::Result<()> {
        self.host("dovetail:vision/faces.detector.set-input-side", |state| {
            state.table.get_mut(&this)?.options.input_side = Some(pixels.clamp(96, 2048));
            Ok(())
        })
    }

    fn detect(&mut self, this: Resource<Detector>, image: Resource<Image>) -> HostResult<Vec<Detection>> {
        self.host("dovetail:vision/faces.detector.detect", |state| {
            let Detector { model, options } = state.table.get(&this)?;
            let (model, options) = (model.clone(), *options);
            let found =
                state.look(&model, &image, |vision, pixels, stop| vision.detect(&model, pixels, options, stop))?;
            let bbox = |b: port::Rect| Rect { x: b.x, y: b.y, width: b.width, height: b.height };
            Ok(found.into_iter().map(|face| Detection { bbox: bbox(face.bbox), confidence: face.confidence }).collect())
        })
    }

    fn drop(&mut self, this: Resource<Detector>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl faces::HostLandmarker for State {
    fn open(&mut self, name: Option<String>) -> HostResult<Resource<Landmarker>> {
        self.host("dovetail:vision/faces.landmarker.open", |state| {
            let model = state.model(ModelKind::Landmarker, name.as_deref())?;
            Ok(state.table.push(Landmarker(model))?)
        })
    }

    fn model(&mut self, this: Resource<Landmarker>) -> wasmtime::Result<faces::Model> {
        self.host("dovetail:vision/faces.landmarker.model", |state| Ok(describe(&state.table.get(&this)?.0)))
    }

    fn locate(
        &mut self,
        this: Resource<Landmarker>,
        image: Resource<Image>,
        faces: Vec<Rect>,
    ) -> HostResult<Faces<Vec<Point>>> {
        self.host("dovetail:vision/faces.landmarker.locate", |state| {
            let model = state.table.get(&this)?.0.clone();
            let faces = rects(&faces)?;
            let found =
                state.look(&model, &image, |vision, pixels, stop| vision.locate(&model, pixels, &faces, stop))?;
            Ok(answers(found, |points| points.into_iter().map(|p| Point { x: p.x, y: p.y }).collect()))
        })
    }

    fn drop(&mut self, this: Resource<Landmarker>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl faces::HostAgeGenderEstimator for State {
    fn open(&mut self, name: Option<String>) -> HostResult<Resource<AgeGenderEstimator>> {
        self.host("dovetail:vision/faces.age-gender-estimator.open", |state| {
            let model = state.model(ModelKind::AgeGenderEstimator, name.as_deref())?;
            Ok(state.table.push(AgeGenderEstimator { model, views: DEFAULT_VIEWS })?)
        })
    }

    fn model(&mut self, this: Resource<AgeGenderEstimator>) -> wasmtime::Result<faces::Model> {
        self.host("dovetail:vision/faces.age-gender-estimator.model", |state| {
            Ok(describe(&state.table.get(&this)?.model))
        })
    }

    fn set_views(&mut self, this: Resource<AgeGenderEstimator>, count: u32) -> wasmtime::Result<()> {
        self.host("dovetail:vision/faces.age-gender-estimator.set-views", |state| {
            state.table.get_mut(&this)?.views = count.clamp(1, 6);
            Ok(())
        })
    }

    fn estimate(
        &mut self,
        this: Resource<AgeGenderEstimator>,
        image: Resource<Image>,
        faces: Vec<Rect>,
    ) -> HostResult<Faces<AgeAndGender>> {
        self.host("dovetail:vision/faces.age-gender-estimator.estimate", |state| {
            let AgeGenderEstimator { model, views } = state.table.get(&this)?;
            let (model, views) = (model.clone(), *views);
            let faces = rects(&faces)?;
            let found = state
                .look(&model, &image, |vision, pixels, stop| vision.estimate(&model, pixels, &faces, views, stop))?;
            Ok(answers(found, |one| AgeAndGender {
                age: one.age,
                age_confidence: one.age_confidence,
                female: one.female,
            }))
        })
    }

    fn drop(&mut self, this: Resource<AgeGenderEstimator>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl faces::HostEmotionClassifier for State {
    fn open(&mut self, name: Option<String>) -> HostResult<Resource<EmotionClassifier>> {
        self.host("dovetail:vision/faces.emotion-classifier.open", |state| {
            let model = state.model(ModelKind::EmotionClassifier, name.as_deref())?;
            Ok(state.table.push(EmotionClassifier(model))?)
        })
    }

    fn model(&mut self, this: Resource<EmotionClassifier>) -> wasmtime::Result<faces::Model> {
        self.host("dovetail:vision/faces.emotion-classifier.model", |state| Ok(describe(&state.table.get(&this)?.0)))
    }

    fn labels(&mut self, this: Resource<EmotionClassifier>) -> wasmtime::Result<Vec<String>> {
        self.host("dovetail:vision/faces.emotion-classifier.labels", |state| {
            Ok(state.table.get(&this)?.0.labels.clone())
        })
    }

    fn classify(
        &mut self,
        this: Resource<EmotionClassifier>,
        image: Resource<Image>,
        faces: Vec<Rect>,
    ) -> HostResult<Faces<Vec<f32>>> {
        self.host("dovetail:vision/faces.emotion-classifier.classify", |state| {
            let model = state.table.get(&this)?.0.clone();
            let faces = rects(&faces)?;
            let found =
                state.look(&model, &image, |vision, pixels, stop| vision.classify(&model, pixels, &faces, stop))?;
            Ok(answers(found, |probabilities| probabilities))
        })
    }

    fn drop(&mut self, this: Resource<EmotionClassifier>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl faces::HostEmbedder for State {
    fn open(&mut self, name: Option<String>) -> HostResult<Resource<Embedder>> {
        self.host("dovetail:vision/faces.embedder.open", |state| {
            let model = state.model(ModelKind::Embedder, name.as_deref())?;
            Ok(state.table.push(Embedder(model))?)
        })
    }

    fn model(&mut self, this: Resource<Embedder>) -> wasmtime::Result<faces::Model> {
        self.host("dovetail:vision/faces.embedder.model", |state| Ok(describe(&state.table.get(&this)?.0)))
    }

    fn embed(
        &mut self,
        this: Resource<Embedder>,
        image: Resource<Image>,
        faces: Vec<Rect>,
    ) -> HostResult<Faces<Vec<f32>>> {
        self.host("dovetail:vision/faces.embedder.embed", |state| {
            let model = state.table.get(&this)?.0.clone();
            let faces = rects(&faces)?;
            let found =
                state.look(&model, &image, |vision, pixels, stop| vision.embed(&model, pixels, &faces, stop))?;
            Ok(answers(found, |vector| vector))
        })
    }

    fn drop(&mut self, this: Resource<Embedder>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
