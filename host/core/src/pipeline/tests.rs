//! The face pipeline as a whole, all findings, and the values along the edges.

use std::collections::BTreeSet;

use super::faces::{FACE_PROCESSING, catalogue, task};
use super::*;

mod binding;
mod findings;
mod views;

/// The face pipeline, checked.
fn faces() -> Pipeline {
    checked(FACE_PROCESSING)
}

/// A pipeline of face tasks without errors.
fn checked(text: &str) -> Pipeline {
    let checked = check(text, &catalogue());
    assert_eq!(
        checked.findings,
        [],
        "{}",
        checked.findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    );
    checked.pipeline.unwrap()
}

/// The face pipeline with other numbers in place of 1, 2, 3, 4.
fn renumbered(numbers: [u32; 4]) -> String {
    let mut text = FACE_PROCESSING.to_owned();
    for (old, new) in (1..).zip(numbers) {
        text = text.replace(&format!("\"number\": {old},"), &format!("\"number\": <{new}>,"));
        text = text.replace(&format!("output_{old:03}_"), &format!("output_<{new:03}>_"));
    }
    text.replace(['<', '>'], "")
}

#[test]
fn the_face_pipeline_is_pinned() {
    let pipeline = faces();
    assert_eq!(pipeline.reference(), "face-processing@1.0.0");
    assert_eq!(pipeline.timeout_ms, Some(300_000));
    let inputs: Vec<_> =
        pipeline.inputs.iter().map(|input| (input.name.as_str(), input.ty.to_string(), input.optional)).collect();
    assert_eq!(
        inputs,
        [
            ("image", "image".to_owned(), false),
            ("detector", "option<string>".to_owned(), true),
            ("min_confidence", "option<f32>".to_owned(), true)
        ]
    );
    let ids: Vec<_> = pipeline.steps.iter().map(|step| (step.id(), step.input_id(), step.output_id())).collect();
    assert_eq!(
        ids[0],
        ("face_detection_001".into(), "face_detection_input_001".into(), "face_detection_output_001".into())
    );
    assert_eq!(ids[3].2, "face_report_output_004");
    assert!(pipeline.steps.iter().all(|step| step.package == Digest::of(step.task_reference().as_bytes())));
    // The time limit of a step is that of its task, unless the file sets another one.
    let slow = checked(&FACE_PROCESSING.replacen(
        "\"number\": 2,",
        "\"number\": 2, \"timeout\": \"45s\", \"retry\": {\"max_attempts\": 1, \"backoff\": \"1m\"},",
        1,
    ));
    let attributes = slow.step("attributes").unwrap();
    assert_eq!((attributes.limits.time_ms, slow.step("detect").unwrap().limits.time_ms), (45_000, 30_000));
    assert_eq!(attributes.retry, Retry { max_attempts: 1, backoff_ms: 60_000, max_backoff_ms: 60_000 });
    assert_eq!(slow.step("detect").unwrap().retry, Retry::DEFAULT);
}

#[test]
fn steps_run_after_what_they_need() {
    let pipeline = faces();
    let names = |steps: &[&Step]| steps.iter().map(|step| step.name.clone()).collect::<Vec<_>>();
    assert_eq!(
        pipeline.stages().iter().map(|stage| names(stage)).collect::<Vec<_>>(),
        [vec!["detect"], vec!["attributes", "features"], vec!["report"]]
    );
    // Steps are ordered by their prerequisites, not by their numbers.
    let backwards = checked(&renumbered([4, 3, 2, 1]));
    assert_eq!(names(&backwards.steps.iter().collect::<Vec<_>>()), ["detect", "features", "attributes", "report"]);
    let done = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(names(&ready(&pipeline, &done(&[]))), ["detect"]);
    assert_eq!(names(&ready(&pipeline, &done(&["detect"]))), ["attributes", "features"]);
    assert_eq!(names(&ready(&pipeline, &done(&["detect", "features"]))), ["attributes"]);
    assert_eq!(names(&ready(&pipeline, &done(&["detect", "features", "attributes"]))), ["report"]);
    assert!(ready(&pipeline, &done(&["detect", "features", "attributes", "report"])).is_empty());
    assert_eq!(pipeline.needs(&pipeline.steps[3]), BTreeSet::from(["detect", "attributes", "features"]));
}

#[test]
fn it_survives_being_stored() {
    let pipeline = faces();
    let json = pipeline.to_json();
    assert_eq!(json["format"], "dovetail.pipeline/1");
    assert_eq!(Pipeline::from_json(&json).unwrap(), pipeline);
    let text = serde_json::to_string(&json).unwrap();
    assert_eq!(serde_json::from_str::<Pipeline>(&text).unwrap(), pipeline);
    // Checking the stored source again pins the same packages.
    assert_eq!(checked(&pipeline.source), pipeline);

    let mut newer = json.clone();
    newer["format"] = "dovetail.pipeline/2".into();
    assert!(matches!(Pipeline::from_json(&newer), Err(FormatError::Newer { found }) if found == "dovetail.pipeline/2"));
    assert!(serde_json::from_value::<Pipeline>(newer).is_err());
    for broken in [
        serde_json::json!({}),
        serde_json::json!({ "format": "dovetail.run/1" }),
        serde_json::json!({ "format": "dovetail.pipeline/1" }),
    ] {
        assert!(matches!(Pipeline::from_json(&broken), Err(FormatError::Malformed(_))), "{broken}");
    }
}

mod laws {
    use super::*;
    use proptest::prelude::*;

    /// A random pipeline of up to eight steps. Each step reads from some of the steps before it. The numbers decrease.
    fn any_pipeline() -> impl Strategy<Value = Pipeline> {
        prop::collection::vec(any::<u8>(), 1..8).prop_map(|needs| {
            let mut steps = serde_json::Map::new();
            for (i, mask) in needs.iter().enumerate() {
                let inputs: serde_json::Map<_, _> = (0..i)
                    .filter(|from| mask >> from & 1 == 1)
                    .map(|from| (format!("x{from}"), format!("s{from}.y").into()))
                    .collect();
                steps.insert(
                    format!("s{i}"),
                    serde_json::json!({ "number": 100 - i, "task": "join", "inputs": inputs }),
                );
            }
            let last = format!("s{}.y", needs.len() - 1);
            let file = serde_json::json!({ "name": "p", "version": "1.0.0", "steps": steps, "output": { "y": last } });
            let fields: Vec<String> = (0..8).map(|i| format!("x{i}: option<u32>")).collect();
            let join = task("join", "1.0.0", &fields.iter().map(String::as_str).collect::<Vec<_>>(), &["y: u32"]);
            check(&file.to_string(), &ListCatalogue(vec![join])).pipeline.unwrap()
        })
    }

    fn subset(pipeline: &Pipeline, mask: u8) -> BTreeSet<String> {
        pipeline
            .steps
            .iter()
            .enumerate()
            .filter(|(i, _)| mask >> i & 1 == 1)
            .map(|(_, step)| step.name.clone())
            .collect()
    }

    proptest! {
        #[test]
        fn ready_is_monotone(pipeline in any_pipeline(), some in any::<u8>(), more in any::<u8>()) {
            let less = subset(&pipeline, some & more);
            let done = subset(&pipeline, more);
            let before: BTreeSet<&str> = ready(&pipeline, &less).iter().map(|step| step.name.as_str()).collect();
            let after: BTreeSet<&str> = ready(&pipeline, &done).iter().map(|step| step.name.as_str()).collect();
            for step in before {
                prop_assert!(done.contains(step) || after.contains(step));
            }
            prop_assert!(after.iter().all(|step| !done.contains(*step)));
        }

        #[test]
        fn whatever_is_done_first_everything_gets_done(
            pipeline in any_pipeline(),
            picks in prop::collection::vec(any::<prop::sample::Index>(), 8),
        ) {
            let mut done = BTreeSet::new();
            for pick in picks {
                let ready = ready(&pipeline, &done);
                if ready.is_empty() {
                    break;
                }
                let step = pick.get(&ready);
                prop_assert!(pipeline.needs(step).iter().all(|need| done.contains(*need)));
                done.insert(step.name.clone());
            }
            prop_assert_eq!(done.len(), pipeline.steps.len());
        }

        #[test]
        fn the_order_of_steps_respects_their_needs(pipeline in any_pipeline()) {
            let mut placed = BTreeSet::new();
            for step in &pipeline.steps {
                prop_assert!(pipeline.needs(step).iter().all(|need| placed.contains(need)));
                placed.insert(step.name.as_str());
            }
            prop_assert_eq!(pipeline.stages().concat().len(), pipeline.steps.len());
        }
    }
}
