//! How figures grow: with queued runs, steps in a pipeline, bytes in a value, and faces in a photograph.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use dovetail_core::RunId;
use dovetail_core::blobs::{ArtifactRef, BlobKind};
use dovetail_core::executor::{Attempt, Executor as _, Outcome};
use dovetail_core::keys::NodeId;
use dovetail_core::stop::Stop;
use serde_json::{Value, json};

use crate::Measure;
use crate::faces::find;
use crate::load::{latency, rates};
use crate::suite::Suite;
use crate::tasks::independent;
use crate::workers::Workers;
use dovetail_service::Error;
use dovetail_service::media::sniff;

/// The number of steps in one round, for pipelines of any size.
const STEPS: u32 = 2000;

pub(crate) const MEASURES: &[Measure] = &[
    Measure::new("queued_1_runs_per_s", "1/s", queued::<1>, "runs of one step, where so many are submitted at once"),
    Measure::new("queued_100_runs_per_s", "1/s", queued::<100>, ""),
    Measure::new("queued_1000_runs_per_s", "1/s", queued::<1000>, ""),
    Measure::new("queued_10000_runs_per_s", "1/s", queued::<10_000>, ""),
    Measure::new(
        "pipeline_1_steps_per_s",
        "1/s",
        steps::<1>,
        "steps in pipelines of so many independent ones, 2000 steps at once",
    ),
    Measure::new("pipeline_10_steps_per_s", "1/s", steps::<10>, ""),
    Measure::new("pipeline_100_steps_per_s", "1/s", steps::<100>, ""),
    Measure::new("pipeline_1000_steps_per_s", "1/s", steps::<1000>, ""),
    Measure::new(
        "value_1kb_ms",
        "ms",
        value::<1_000>,
        "a run of one step that takes a text of this size and hands it on",
    ),
    Measure::new("value_16kb_ms", "ms", value::<16_000>, ""),
    Measure::new("value_64kb_ms", "ms", value::<64_000>, ""),
    Measure::new("value_1mb_ms", "ms", value::<1_000_000>, ""),
    Measure::new("value_4mb_ms", "ms", value::<4_000_000>, ""),
    Measure::new("faces_1_ms", "ms", faces::<1>, "attributes and features of so many faces, one task after the other")
        .of_faces(),
    Measure::new("faces_10_ms", "ms", faces::<10>, "").of_faces(),
    Measure::new("faces_50_ms", "ms", faces::<50>, "").of_faces(),
    Measure::new("faces_200_ms", "ms", faces::<200>, "").of_faces(),
];

/// Runs per second.
fn queued<const RUNS: u32>(suite: &Suite) -> Result<Vec<f64>, Error> {
    rates(suite, &suite.tasks.single, RUNS)
}

/// Steps per second.
fn steps<const COUNT: u32>(suite: &Suite) -> Result<Vec<f64>, Error> {
    let graph = independent(suite.place.service()?.ports()?, COUNT)?;
    Ok(rates(suite, &graph, (STEPS / COUNT).max(1))?.into_iter().map(|rate| rate * f64::from(COUNT)).collect())
}

/// The time from submission to result in milliseconds.
fn value<const BYTES: usize>(suite: &Suite) -> Result<Vec<f64>, Error> {
    let inputs = json!({ "text": "x".repeat(BYTES) });
    let workers = Workers::start(suite)?;
    let round = |_| {
        let runs = suite.plan.latencies.div_ceil(20).max(2);
        let all = (0..runs)
            .map(|_| latency(suite, &workers, &suite.tasks.text, &inputs))
            .collect::<Result<Vec<f64>, Error>>()?;
        Ok(super::figure::median(&all))
    };
    // The first round finds nothing loaded, so it is not counted.
    round(0)?;
    (0..suite.plan.rounds).map(round).collect()
}

/// The time of the attempts of both tasks in milliseconds, without queue and records. All faces are boxes of one real
/// face, each shifted a little, so that the landmarks of none are cached.
fn faces<const COUNT: usize>(suite: &Suite) -> Result<Vec<f64>, Error> {
    let (measured, service) = (suite.faces()?, suite.place.service()?);
    let vision = Arc::new(service.vision()?);
    let blobs = service.ports()?.blobs.clone();
    let runtime = service.runtime_with(vision.clone(), blobs.clone(), 1, None)?;
    let photograph =
        measured.photographs.first().ok_or_else(|| Error::host("bench_failed", "there is no photograph"))?;
    let (_, found) = find(&vision, photograph, measured.number())?;
    let face = found.first().ok_or_else(|| {
        Error::usage("no_faces", "the first photograph shows no face").help("name others with --photographs")
    })?;
    let steps: Vec<_> = measured
        .graph
        .published
        .pipeline
        .steps
        .iter()
        .filter(|step| matches!(&*step.name, "attributes" | "features"))
        .collect();
    let round = |n: usize| -> Result<f64, Error> {
        suite.go_on()?;
        let bytes = measured.copy(photograph);
        let image = ArtifactRef {
            digest: blobs.put(BlobKind::Artifact, &bytes)?,
            media_type: sniff(&bytes).to_owned(),
            name: None,
        }
        .to_json();
        let shifted = |face_id: usize| {
            let shift = (n * COUNT + face_id) as f64 / 100.0 % 8.0;
            json!({ "face_id": face_id, "confidence": 0.9,
                "bbox": { "x": f64::from(face.x) + shift, "y": face.y, "width": face.width, "height": face.height } })
        };
        let input = json!({ "image": image, "faces_array": (0..COUNT).map(shifted).collect::<Vec<Value>>() });
        let attempt = |step: &dovetail_core::pipeline::Step| Attempt {
            run: RunId::from_bytes([1; 16]),
            step: NodeId::of_step(&step.name),
            number: 1,
            package: step.package,
            idempotency_key: "key".to_owned(),
            input: input.clone(),
            origins: BTreeMap::new(),
            limits: step.limits,
            models: dovetail_core::executor::Models::new(),
        };
        let attempts: Vec<Attempt> = steps.iter().map(|step| attempt(step)).collect();
        let began = Instant::now();
        for attempt in &attempts {
            if let Outcome::Failed { failure } = runtime.execute(attempt, &Stop::never())?.outcome {
                return Err(Error::host(
                    "bench_failed",
                    format!("the step {} failed: {}: {}", attempt.step, failure.code, failure.message),
                ));
            }
        }
        Ok(began.elapsed().as_secs_f64() * 1e3)
    };
    round(0)?;
    (1..=suite.plan.rounds).map(round).collect()
}
