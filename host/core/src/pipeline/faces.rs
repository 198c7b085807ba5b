//! For tests: the signatures of the four face plugins, as in their WIT, and the pipeline that uses them.

use crate::id::Digest;
use crate::limits::Limits;
use crate::wit::text;

use super::{ListCatalogue, TaskVersion};

/// The text of `pipelines/face-processing.json`.
pub const FACE_PROCESSING: &str = include_str!("../../../../pipelines/face-processing.json");

const FACES: &str =
    "list<record { face-id: u32, bbox: record { x: f32, y: f32, width: f32, height: f32 }, confidence: f32 }>";
const AGE: &str = "record { estimated-age: f32, confidence: f32 }";
const GENDER: &str = "record { predicted-gender: enum { female, male }, confidence: f32 }";
const EMOTION: &str = "record { dominant-emotion: string, confidence: f32, probabilities: record { neutral: f32, \
                       happy: f32, sad: f32, angry: f32, fearful: f32, disgusted: f32, surprised: f32 } }";
const LANDMARKS: &str = "list<tuple<f32, f32>>";

/// A version of a task whose package has the digest of `name@version`. Fields are written `name: type`.
///
/// # Panics
/// If `version` is not a version, or a field has no valid type.
#[must_use]
pub fn task(name: &str, version: &str, input: &[&str], output: &[&str]) -> TaskVersion {
    TaskVersion {
        name: name.to_owned(),
        version: version.parse().expect("a test names a version"),
        package: Digest::of(format!("{name}@{version}").as_bytes()),
        signature: text::signature(&format!("dovetail:{name}/task@{version}"), input, output)
            .expect("a test writes types"),
        limits: Limits::DEFAULT,
        requirements: crate::ledger::Requirements::default(),
    }
}

/// The four face plugins, each with version 1.0.0.
#[must_use]
pub fn catalogue() -> ListCatalogue {
    let faces = format!("faces-array: {FACES}");
    let attributes = format!(
        "list<record {{ face-id: u32, age: option<{AGE}>, gender: option<{GENDER}>, emotion: option<{EMOTION}>, \
         error: option<string> }}>"
    );
    let features = format!(
        "list<record {{ face-id: u32, feature-vector: option<list<f32>>, feature-dimension: option<u32>, landmarks: \
         option<{LANDMARKS}>, error: option<string> }}>"
    );
    let report = format!(
        "list<record {{ face-id: u32, detection: record {{ bbox: tuple<f32, f32, f32, f32>, confidence: f32, source: \
         string }}, attributes: option<record {{ age: {AGE}, gender: {GENDER}, emotion: {EMOTION}, source: string }}>, \
         features: option<record {{ feature-vector: list<f32>, feature-dimension: u32, landmarks: {LANDMARKS}, \
         source: string }}> }}>"
    );
    ListCatalogue(vec![
        task(
            "face-detection",
            "1.0.0",
            &["image: image", "detector: option<string>", "min-confidence: option<f32>"],
            &[&faces],
        ),
        task("face-attributes", "1.0.0", &["image: image", &faces], &[&format!("faces-with-attributes: {attributes}")]),
        task("face-features", "1.0.0", &["image: image", &faces], &[&format!("faces-with-features: {features}")]),
        task(
            "face-report",
            "1.0.0",
            &[&faces, &format!("attributes: {attributes}"), &format!("features: {features}")],
            &[&format!("faces: {report}")],
        ),
    ])
}
