//! The parts for the figures of faces: the published pipeline, its models and photographs, all from the user's own data
//! folder; and the same calls of the library without any of our code between them.

use std::cell::Cell;
use std::path::Path;

use dovetail_core::blobs::{ArtifactRef, BlobKind};
use dovetail_core::ledger::Kind;
use dovetail_core::record::{Form as _, RunRecord, StoredValue};
use dovetail_core::stop::Stop;
use dovetail_core::vision::{DetectOptions, Image, ModelKind, Rect, Vision, VisionError};
use dovetail_core::{Digest, RunId};
use dovetail_flow::Published;
use dovetail_runtime::{DEFAULT_VIEWS, MAX_PACKAGE};
use dovetail_vision::Opencv;
use serde_json::Value;

use crate::place::TestBed;
use crate::suite::Suite;
use crate::tasks::Graph;
use dovetail_service::Error;
use dovetail_service::Service;
use dovetail_service::documents::RunStatus;
use dovetail_service::files::{MAX_PHOTOGRAPH, photographs, read};
use dovetail_service::media::sniff;
use dovetail_service::models::share::chosen;
use dovetail_service::paths::Shown as _;

/// The name of the measured pipeline.
const PIPELINE: &str = "face-processing";
/// The step whose outcome is the pipeline's result.
const RESULT: &str = "report";
/// The number of runs that are searched for photographs.
const LOOKED_THROUGH: usize = 200;
/// The number of photographs in one round, if the request names no folder.
const PHOTOGRAPHS: usize = 6;

/// The face pipeline, published in the place of the measurement.
pub(crate) struct Faces {
    pub(crate) graph: Graph,
    pub(crate) photographs: Vec<Vec<u8>>,
    /// The number of copies so far. It makes every copy of a photograph different, so that no cache knows it.
    copies: Cell<u64>,
}

impl Faces {
    /// Reads the pipeline, its packages and photographs from `from`, and publishes the pipeline in `place`.
    ///
    /// # Errors
    /// `no_face_pipeline`, `no_photographs` or `models_missing`, with a remedy.
    pub(crate) fn publish(from: &Service, photographs: Option<&Path>, place: &TestBed) -> Result<Self, Error> {
        let source = from.ports_to_read()?;
        let help = "`./justw demo` sets them up in target/demo/data; then add --data target/demo/data";
        let found = dovetail_flow::pipeline(source, PIPELINE).map_err(|error| {
            let why = format!("there is no pipeline `{PIPELINE}` in the data folder `{}`", from.settings.data.shown());
            Error::usage("no_face_pipeline", why).cause(error).help(help)
        })?;
        let vision = from.vision()?;
        for kind in ModelKind::ALL {
            vision.model(kind, None)?;
        }
        let photographs = match photographs {
            Some(named) => of_folder(named)?,
            None => of_runs(from, &found)?,
        };
        if photographs.is_empty() {
            let why =
                format!("no run of `{PIPELINE}` in the data folder `{}` has succeeded", from.settings.data.shown());
            return Err(Error::usage("no_photographs", why).help("name a folder of them with --photographs DIR"));
        }
        let here = place.service()?.ports()?;
        for step in &found.pipeline.steps {
            let record = dovetail_flow::plugin(source, &step.task_reference())?;
            let package = source.blobs.get(BlobKind::Package, &step.package, MAX_PACKAGE)?;
            dovetail_flow::push_plugin(here, &record, &package)?;
        }
        let published = dovetail_flow::push_pipeline(here, &found.pipeline)?.0;
        Ok(Self { graph: Graph { published, results: vec![RESULT.to_owned()] }, photographs, copies: Cell::new(0) })
    }

    /// The photograph with bytes appended after its end. No decoder reads them, and no other copy has the same.
    pub(crate) fn copy(&self, photograph: &[u8]) -> Vec<u8> {
        [photograph, &self.number().to_le_bytes()].concat()
    }

    /// A new number at each call.
    pub(crate) fn number(&self) -> u64 {
        self.copies.set(self.copies.get() + 1);
        self.copies.get()
    }

    /// Stores the photographs and submits a run for each.
    pub(crate) fn submit(&self, service: &Service, photographs: &[Vec<u8>]) -> Result<Vec<RunId>, Error> {
        let ports = service.ports()?;
        let mut runs = Vec::with_capacity(photographs.len());
        for photograph in photographs {
            let digest = ports.blobs.put(BlobKind::Artifact, photograph)?;
            let image = ArtifactRef { digest, media_type: sniff(photograph).to_owned(), name: None };
            let inputs = self
                .graph
                .published
                .pipeline
                .resolve_inputs(&[("image".to_owned(), image.to_json())].into_iter().collect());
            let inputs = inputs.map_err(|errors| {
                Error::host("bench_failed", format!("the pipeline does not take a photograph: {errors:?}"))
            })?;
            runs.push((dovetail_flow::new_run_id(), inputs));
        }
        let models = chosen(service, &self.graph.published.pipeline)?;
        for submitted in dovetail_flow::submit_with(ports, &self.graph.published, &models, runs.clone())? {
            submitted?;
        }
        Ok(runs.into_iter().map(|(run, _)| run).collect())
    }

    /// The number of faces that a run found.
    pub(crate) fn found(&self, service: &Service, run: &RunId) -> Result<usize, Error> {
        let document = dovetail_flow::document(service.ports()?, run)?;
        Ok(document.output.get("faces").and_then(Value::as_array).map_or(0, Vec::len))
    }
}

/// Makes only the library calls of the pipeline: decodes the photograph, finds faces, then computes attributes and
/// features in parallel. Returns the number of faces.
pub(crate) fn native(vision: &Opencv, photograph: &[u8], number: u64) -> Result<usize, Error> {
    let stop = Stop::never();
    let model = |kind| vision.model(kind, None);
    let (image, faces) = find(vision, photograph, number)?;
    if faces.is_empty() {
        return Ok(0);
    }
    let attributes = |image: &Image| -> Result<(), VisionError> {
        vision.estimate(&model(ModelKind::AgeGenderEstimator)?, image, &faces, DEFAULT_VIEWS, &stop)?;
        vision.classify(&model(ModelKind::EmotionClassifier)?, image, &faces, &stop).map(drop)
    };
    let features = |image: &Image| -> Result<(), VisionError> {
        vision.locate(&model(ModelKind::Landmarker)?, image, &faces, &stop)?;
        vision.embed(&model(ModelKind::Embedder)?, image, &faces, &stop).map(drop)
    };
    let both = std::thread::scope(|scope| {
        let beside = scope.spawn(|| features(&image));
        (attributes(&image), beside.join())
    });
    both.0?;
    both.1.map_err(|_| Error::host("bench_failed", "the thread of the features panicked"))??;
    Ok(faces.len())
}

/// The decoded image and its faces.
pub(crate) fn find(vision: &Opencv, photograph: &[u8], number: u64) -> Result<(Image, Vec<Rect>), Error> {
    let stop = Stop::never();
    // The digest is only a key for the image cache. It is not compared with the bytes.
    let name = Digest::of(&number.to_le_bytes());
    let image = vision.open(&name, &mut || Ok(photograph.to_vec()), &stop)?;
    let ssd = vision.model(ModelKind::Detector, Some("ssd"))?;
    let found = vision.detect(&ssd, &image, DetectOptions::default(), &stop)?;
    Ok((image, found.iter().map(|face| face.bbox).collect()))
}

/// The photographs of a folder.
fn of_folder(named: &Path) -> Result<Vec<Vec<u8>>, Error> {
    photographs(named, "no_photographs")?.iter().map(|file| read(file, MAX_PHOTOGRAPH)).collect()
}

/// The photographs of the newest successful runs, those of the oldest of these runs first.
fn of_runs(from: &Service, pipeline: &Published) -> Result<Vec<Vec<u8>>, Error> {
    let ports = from.ports_to_read()?;
    let mut digests: Vec<Digest> = Vec::new();
    let succeeded =
        dovetail_flow::runs(ports, LOOKED_THROUGH)?.read.into_iter().filter(|run| run.state == RunStatus::Succeeded);
    let ids: Vec<String> = succeeded.map(|run| run.run_id.to_string()).collect();
    for (id, record) in ids.iter().zip(ports.ledger.get(Kind::Run, &ids)?) {
        let Some(record) = record else { continue };
        let record = RunRecord::decode(&record, &format!("run {id}"))?;
        if record.pipeline != pipeline.key || digests.len() == PHOTOGRAPHS {
            continue;
        }
        // The image is an artifact and small. Inputs that are stored as a blob because of their size are not those of
        // the demo.
        let StoredValue::Inline(inputs) = record.inputs else { continue };
        let image = inputs.get("image").and_then(ArtifactRef::from_json);
        digests.extend(image.map(|image| image.digest).filter(|digest| !digests.contains(digest)));
    }
    digests.reverse();
    digests.iter().map(|digest| Ok(ports.blobs.get(BlobKind::Artifact, digest, MAX_PHOTOGRAPH)?)).collect()
}

impl Suite {
    /// The face pipeline, published at the first call.
    pub(crate) fn faces(&self) -> Result<&Faces, Error> {
        if self.faces.get().is_none() {
            let faces = Faces::publish(&self.from, self.photographs.as_deref(), &self.place)?;
            drop(self.faces.set(faces));
        }
        self.faces.get().ok_or_else(|| Error::host("bench_failed", "the face pipeline is not there"))
    }
}
