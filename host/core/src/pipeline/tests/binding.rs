//! Values along the edges.

use serde_json::{Map, Value, json};

use super::*;

fn photo() -> Value {
    json!({ "$artifact": Digest::of(b"photo"), "media_type": "image/jpeg", "name": "photo.jpg" })
}

fn given(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[test]
fn inputs_take_their_defaults() {
    let pipeline = faces();
    let resolved = pipeline.resolve_inputs(&given(json!({ "image": photo() }))).unwrap();
    assert_eq!(resolved.to_string(), json!({ "image": photo(), "detector": "ssd", "min_confidence": 0.5 }).to_string());
    let resolved =
        pipeline.resolve_inputs(&given(json!({ "min_confidence": 1, "image": photo(), "detector": null }))).unwrap();
    assert_eq!(resolved, json!({ "image": photo(), "detector": null, "min_confidence": 1.0 }));
    // An input that feeds only options may be left out, even without a default.
    let bare = checked(&FACE_PROCESSING.replace("\"default\": \"ssd\", ", ""));
    assert!(bare.input("detector").unwrap().optional);
    assert_eq!(bare.resolve_inputs(&given(json!({ "image": photo() }))).unwrap()["detector"], Value::Null);
}

#[test]
fn every_mistake_in_a_runs_inputs_is_told() {
    let errors =
        faces().resolve_inputs(&given(json!({ "imgae": 1, "min_confidence": "high", "detector": 3 }))).unwrap_err();
    let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "/imgae: face-processing@1.0.0 has no input `imgae`; did you mean `image`?",
            "/image: missing: face-processing@1.0.0 needs the input `image`, image",
            "/detector: expected string, found the number 3: put it in quotes",
            "/min_confidence: expected f32, found the string \"high\": write a number within its range, or \"NaN\", \
             \"Infinity\", \"-Infinity\"",
        ]
    );
}

#[test]
fn a_steps_input_and_where_it_comes_from() {
    let pipeline = faces();
    let inputs = pipeline.resolve_inputs(&given(json!({ "image": photo() }))).unwrap();
    let (detect, attributes) = (pipeline.step("detect").unwrap(), pipeline.step("attributes").unwrap());
    let input = pipeline.step_input(detect, &inputs, &|_| None).unwrap();
    assert_eq!(input.to_string(), inputs.to_string());
    let output = json!({ "faces_array": [] });
    let input = pipeline.step_input(attributes, &inputs, &|name| (name == "detect").then_some(&output)).unwrap();
    assert_eq!(input, json!({ "image": photo(), "faces_array": [] }));
    assert_eq!(
        pipeline.origins(attributes).into_iter().collect::<Vec<_>>(),
        [
            ("faces_array".to_owned(), "output_001_faces_array".to_owned()),
            ("image".to_owned(), "input.image".to_owned())
        ]
    );
    // The input of a step that is not ready cannot be bound.
    let unbound = pipeline.step_input(attributes, &inputs, &|_| None).unwrap_err();
    assert_eq!(unbound, Unbound { target: "input_002_faces_array".into(), source_id: "output_001_faces_array".into() });
    let report = json!({ "faces": [1] });
    assert_eq!(pipeline.result(&inputs, &|name| (name == "report").then_some(&report)), Ok(json!({ "faces": [1] })));
    assert_eq!(
        pipeline.result(&inputs, &|_| None).unwrap_err().to_string(),
        "`output.faces` needs `output_004_faces`, which is not there"
    );
}

#[test]
fn values_are_coerced_and_records_are_followed() {
    let tasks = ListCatalogue(vec![
        task(
            "make",
            "1.0.0",
            &["n: u8", "opt: option<string>"],
            &["best: record { score: f32, at: record { x: u16, y: u16 } }"],
        ),
        task(
            "take",
            "1.0.0",
            &["score: f64", "place: record { y: u32, z: option<bool> }", "x: option<f32>", "n: u32", "k: u64"],
            &["ok: bool"],
        ),
    ]);
    let file = json!({ "name": "p", "version": "1.0.0",
        "inputs": { "area": {} },
        "steps": {
            "make": { "number": 1, "task": "make", "inputs": { "n": "input.area.n" } },
            "take": { "number": 2, "task": "take", "inputs": {
                "score": "make.best.score",
                "place": "output_001_best.at",
                "x": "make_output_001.best.at.x",
                "n": "input.area.n",
                "k": { "value": "7" } } } },
        "output": { "ok": "take.ok", "area": "input.area" } });
    let checked = check(&file.to_string(), &tasks);
    assert_eq!(checked.findings, []);
    let pipeline = checked.pipeline.unwrap();
    // A u8 field and a u32 field read the input; u8 fits both.
    assert_eq!(pipeline.input("area").unwrap().ty.to_string(), "record { n: u8 }");
    let inputs = pipeline.resolve_inputs(&given(json!({ "area": { "n": 3 } }))).unwrap();
    let made = json!({ "best": { "score": 0.1, "at": { "x": 1, "y": 2 } } });
    let outputs = |name: &str| (name == "make").then_some(&made);
    let take = pipeline.step("take").unwrap();
    assert_eq!(
        pipeline.step_input(take, &inputs, &outputs).unwrap().to_string(),
        json!({ "score": 0.10000000149011612, "place": { "y": 2, "z": null }, "x": 1.0, "n": 3, "k": 7 }).to_string()
    );
    assert_eq!(
        pipeline.step_input(pipeline.step("make").unwrap(), &inputs, &outputs),
        Ok(json!({ "n": 3, "opt": null }))
    );
    let origins = pipeline.origins(take);
    assert_eq!((origins["x"].as_str(), origins["n"].as_str()), ("output_001_best.at.x", "input.area.n"));
    assert!(!origins.contains_key("k"));
    assert!(pipeline.lineage(|_| true).contains(&"output_001_best.at -> input_002_place".to_owned()));
    let taken = json!({ "ok": true });
    let all = |name: &str| if name == "take" { Some(&taken) } else { Some(&made) };
    assert_eq!(pipeline.result(&inputs, &all), Ok(json!({ "ok": true, "area": { "n": 3 } })));
    // The bound value has the type of the task's field.
    let input = pipeline.step_input(take, &inputs, &outputs).unwrap();
    assert_eq!(crate::wit::json::check_record(&take.signature.input, &input), Ok(input));
}
