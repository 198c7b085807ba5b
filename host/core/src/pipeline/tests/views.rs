//! Views of a pipeline: unique IDs and lineage, graphs, schemas, differences.

use serde_json::json;

use super::*;
use crate::wit::schema::DIALECT;

#[test]
fn lineage_in_unique_ids() {
    assert_eq!(
        faces().lineage(|_| true),
        [
            "face_detection -> output_001_faces_array",
            "output_001_faces_array -> input_002_faces_array",
            "output_001_faces_array -> input_003_faces_array",
            "output_001_faces_array -> input_004_faces_array",
            "face_attributes -> output_002_faces_with_attributes",
            "output_002_faces_with_attributes -> input_004_attributes",
            "face_features -> output_003_faces_with_features",
            "output_003_faces_with_features -> input_004_features",
            "face_report -> output_004_faces",
            "output_004_faces -> output.faces",
        ]
    );
    let edges = faces().edges();
    let given: Vec<_> = edges
        .iter()
        .filter(|edge| edge.kind == EdgeKind::Given)
        .map(|edge| format!("{} -> {}", edge.from, edge.to))
        .collect();
    assert_eq!(
        given,
        [
            "input.image -> input_001_image",
            "input.detector -> input_001_detector",
            "input.min_confidence -> input_001_min_confidence",
            "input.image -> input_002_image",
            "input.image -> input_003_image"
        ]
    );
    let passed = edges.iter().find(|edge| edge.kind == EdgeKind::Passed).unwrap();
    assert_eq!((passed.from_step.as_deref(), passed.to_step.as_deref()), (Some("detect"), Some("attributes")));
}

#[test]
fn every_id_follows_the_numbers() {
    let pipeline = checked(&renumbered([7, 12, 1, 1000]));
    assert_eq!(
        pipeline.lineage(|_| true),
        [
            "face_detection -> output_007_faces_array",
            "output_007_faces_array -> input_001_faces_array",
            "output_007_faces_array -> input_012_faces_array",
            "output_007_faces_array -> input_1000_faces_array",
            "face_features -> output_001_faces_with_features",
            "output_001_faces_with_features -> input_1000_features",
            "face_attributes -> output_012_faces_with_attributes",
            "output_012_faces_with_attributes -> input_1000_attributes",
            "face_report -> output_1000_faces",
            "output_1000_faces -> output.faces",
        ]
    );
    let report = pipeline.step("report").unwrap();
    assert_eq!(
        (report.input_id(), report.output_id()),
        ("face_report_input_1000".into(), "face_report_output_1000".into())
    );
    let origins = pipeline.origins(report);
    assert_eq!(origins["faces_array"], "output_007_faces_array");
    assert_eq!(origins["attributes"], "output_012_faces_with_attributes");
    assert_eq!(pipeline.origins(pipeline.step("detect").unwrap())["image"], "input.image");
}

#[test]
fn the_ways_to_name_a_source_mean_the_same() {
    let qualified = FACE_PROCESSING.replace("\"output_001_faces_array\"", "\"face_detection_output_001.faces_array\"");
    let by_name = FACE_PROCESSING.replace("\"output_001_faces_array\"", "\"detect.faces_array\"");
    for text in [qualified, by_name] {
        assert_ne!(text, FACE_PROCESSING);
        assert_eq!(checked(&text).steps, faces().steps);
    }
}

#[test]
fn as_text() {
    let text = faces().text_graph();
    assert!(text.starts_with("face-processing@1.0.0\nFinds the faces"), "{text}");
    for line in [
        "  image: image",
        "  detector: string = \"ssd\"",
        "stage 2 (2 side by side)",
        "  003 features: face-features@1.0.0",
        "    input_003_faces_array <- output_001_faces_array",
        "    input_001_image <- input.image",
        "  faces <- output_004_faces",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
    }
}

#[test]
fn as_mermaid() {
    assert_eq!(
        faces().mermaid(),
        "flowchart LR
  input([input])
  step_detect[\"001 detect<br/>face-detection@1.0.0\"]
  step_attributes[\"002 attributes<br/>face-attributes@1.0.0\"]
  step_features[\"003 features<br/>face-features@1.0.0\"]
  step_report[\"004 report<br/>face-report@1.0.0\"]
  output([output])
  input -->|image<br/>detector<br/>min_confidence| step_detect
  input -->|image| step_attributes
  step_detect -->|faces_array| step_attributes
  input -->|image| step_features
  step_detect -->|faces_array| step_features
  step_detect -->|faces_array| step_report
  step_attributes -->|faces_with_attributes| step_report
  step_features -->|faces_with_features| step_report
  step_report -->|faces| output
"
    );
}

#[test]
fn the_schema_of_a_file_names_what_the_check_reads() {
    let schema = schema::schema();
    assert_eq!(schema["$schema"], DIALECT);
    // A file with every key of the schema passes the check, so the schema and the check know the same keys.
    let mut file: Value = serde_json::from_str(FACE_PROCESSING).unwrap();
    file["$schema"] = json!("pipeline.schema.json");
    file["on_failure"] = json!("finish");
    let step = &mut file["steps"]["detect"];
    step["description"] = json!("finds them");
    step["timeout"] = json!("1m");
    step["retry"] = json!({ "max_attempts": 2, "backoff": "1s", "max_backoff": "2s" });
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(keys(&schema["properties"]), keys(&file));
    assert_eq!(keys(&schema["$defs"]["step"]["properties"]), keys(&file["steps"]["detect"]));
    assert_eq!(
        keys(&schema["$defs"]["step"]["properties"]["retry"]["properties"]),
        keys(&file["steps"]["detect"]["retry"])
    );
    assert_eq!(
        keys(&schema["properties"]["inputs"]["additionalProperties"]["properties"]),
        keys(&file["inputs"]["detector"])
    );
    let pipeline = checked(&file.to_string());
    assert_eq!(pipeline.on_failure, OnFailure::Finish);
    assert_eq!(
        pipeline.step("detect").unwrap().retry,
        Retry { max_attempts: 2, backoff_ms: 1000, max_backoff_ms: 2000 }
    );
}

#[test]
fn the_schema_of_a_runs_inputs() {
    let schema = faces().input_schema();
    assert_eq!(schema["required"], json!(["image"]));
    assert_eq!(schema["properties"]["min_confidence"]["default"], json!(0.5));
    assert_eq!(schema["properties"]["image"]["description"], "JPEG, PNG, WebP or BMP");
}

#[test]
fn differences() {
    let old = faces();
    assert_eq!(diff(&old, &old), [""; 0]);
    let mut tasks = catalogue();
    let mut newer = tasks.0[0].clone();
    newer.version = "1.1.0".parse().unwrap();
    newer.package = Digest::of(b"newer");
    newer.limits.memory *= 2;
    tasks.0.push(newer);
    // The same file checked against a newer catalogue, as `update` does.
    let updated = check(&old.source, &tasks).pipeline.unwrap();
    assert_eq!(
        diff(&old, &updated),
        ["step detect: task: face-detection@1.0.0 -> face-detection@1.1.0", "step detect: memory: 64MiB -> 128MiB"]
    );

    let text = renumbered([1, 2, 5, 4])
        .replace("\"default\": 0.5", "\"default\": 0.6")
        .replace("\"detector\": \"input.detector\"", "\"detector\": {\"value\": \"tiny\"}")
        .replace("\"timeout\": \"5m\"", "\"timeout\": \"6m\"")
        .replace("\"faces\": \"report.faces\"", "\"people\": \"report.faces\"");
    // The input that no step reads any more is removed.
    let mut file: Value = serde_json::from_str(&text).unwrap();
    file["inputs"].as_object_mut().unwrap().shift_remove("detector");
    assert_eq!(
        diff(&old, &checked(&file.to_string())),
        [
            "timeout: 5m -> 6m",
            "input detector: removed",
            "input min_confidence: default: 0.5 -> 0.6",
            "step detect: detector from: input.detector -> \"tiny\"",
            "step features: number: 3 -> 5",
            "step report: features from: output_003_faces_with_features -> output_005_faces_with_features",
            "output faces: removed",
            "output people: added",
        ]
    );
}
