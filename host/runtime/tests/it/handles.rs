//! Images, artifacts and models: a guest's use of handles, and the host's answers.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use dovetail_core::blobs::{ArtifactRef, BlobKind, Blobs as _};
use dovetail_core::executor::{Attempt, Executor as _, FailureKind, ModelUse, Models, Usage};
use dovetail_core::limits::Limits;
use dovetail_core::stop::Stop;
use dovetail_core::vision::Vision as _;
use serde_json::{Value, json};

use crate::support::{Bench, ENCODING, attempt, component, core_with, failed, failure, output};

const IMAGES: &str = "use dovetail:task/types@0.1.0.{task-error}; use dovetail:vision/images@0.1.0.{image}; \
    record input { image: image, n: u32 } record output { images: list<image>, n: u32 } \
    run: func(input: input) -> result<output, task-error>;";

/// The imports of the guests in this file; unused imports are pruned.
const IMPORTS: &str = r#"
  (import "dovetail:vision/images@0.1.0" "[method]image.size" (func $size (param i32 i32)))
  (import "dovetail:vision/images@0.1.0" "[method]image.crop" (func $crop (param i32 f32 f32 f32 f32 i32)))
  (import "dovetail:vision/images@0.1.0" "[resource-drop]image" (func $drop (param i32)))
  (import "dovetail:vision/faces@0.1.0" "[static]detector.open" (func $detector (param i32 i32 i32 i32)))
  (import "dovetail:vision/faces@0.1.0" "[method]detector.detect" (func $detect (param i32 i32 i32)))
  (import "dovetail:vision/faces@0.1.0" "[static]embedder.open" (func $embedder (param i32 i32 i32 i32)))
  (import "dovetail:vision/faces@0.1.0" "[method]embedder.embed" (func $embed (param i32 i32 i32 i32 i32)))
  (data (i32.const 0x2000) "slowpanicsmissingunknown")
  (func $answer (param $images i32) (param $n i32) (result i32)
    (i32.store8 (i32.const 1024) (i32.const 0)) (i32.store (i32.const 1032) (i32.const 0x4000))
    (i32.store (i32.const 1036) (local.get $images))
    (i32.store (i32.const 1040) (local.get $n)) (i32.const 1024))
"#;

/// A guest whose parameter 0 is the image and parameter 1 is `n`. Images to return are stored at 0x4000.
fn guest(body: &str) -> Vec<u8> {
    component(IMAGES, &core_with("(param i32 i32)", IMPORTS, body))
}

fn run(bench: &Bench, body: &str) -> dovetail_core::executor::Report {
    let picture = bench.artifact(b"640x480", "image/jpeg");
    bench.run(&guest(body), json!({ "image": picture, "n": 3 }))
}

#[test]
fn a_picture_is_decoded_when_it_is_looked_at() {
    let bench = Bench::new();
    let report = run(
        &bench,
        "(call $size (local.get 0) (i32.const 0x3000)) (call $answer (i32.const 0) (i32.load (i32.const 0x3000)))",
    );
    assert_eq!(output(&report), &json!({ "images": [], "n": 640 }));
    assert_eq!(bench.vision.decoded.load(Ordering::Relaxed), 1);
    assert_eq!(report.usage.host_calls["dovetail:vision/images.image.size"], 1);
}

#[test]
fn a_picture_that_the_task_made_is_stored_as_png() {
    let bench = Bench::new();
    let report = run(
        &bench,
        "(call $crop (local.get 0) (f32.const 1) (f32.const 2) (f32.const 30) (f32.const 40) (i32.const 0x3000))
         (i32.store (i32.const 0x4000) (i32.load (i32.const 0x3008))) (i32.store (i32.const 0x4004) (local.get 0)) \
         (call $answer (i32.const 2) (i32.const 0))",
    );
    let images = &output(&report)["images"];
    let made = ArtifactRef::from_json(&images[0]).unwrap();
    assert_eq!(made.media_type, "image/png");
    assert_eq!(bench.blobs.get(BlobKind::Artifact, &made.digest, 100).unwrap(), b"30x40");
    assert_eq!(images[1], bench.artifact(b"640x480", "image/jpeg"));
    let Usage { wall_us, host_us, guest_cpu_us, .. } = report.usage;
    assert!(
        wall_us >= host_us && u128::from(host_us) >= ENCODING.as_micros(),
        "the encoding counts in both: {wall_us} {host_us}"
    );
    assert!(
        guest_cpu_us <= wall_us - host_us + 1,
        "the guest itself did little: {guest_cpu_us} of {wall_us}, {host_us} of it in the host"
    );
}

#[test]
fn errors_of_vision_reach_the_guest() {
    let bench = Bench::new();
    // The answer combines the discriminants of the result and of the task-error.
    let report = run(
        &bench,
        "(call $crop (local.get 0) (f32.const 1) (f32.const 2) (f32.const 0) (f32.const nan) (i32.const 0x3000))
         (call $answer (i32.const 0) (i32.add (i32.mul (i32.const 10) (i32.load8_u (i32.const 0x3000))) (i32.load8_u \
         (i32.const 0x3008))))",
    );
    assert_eq!(output(&report)["n"], 10, "invalid-input is case 0");
    for (at, length, case) in [(0x200a, 7, 2), (0x2011, 7, 0)] {
        let report = run(
            &bench,
            &format!(
                "(call $detector (i32.const 1) (i32.const {at}) (i32.const {length}) (i32.const 0x3000))
                 (call $answer (i32.const 0) (i32.add (i32.mul (i32.const 10) (i32.load8_u (i32.const 0x3000))) \
                 (i32.load8_u (i32.const 0x3008))))"
            ),
        );
        assert_eq!(output(&report)["n"], 10 + case);
    }
}

#[test]
fn a_warning_about_a_picture_is_told_once_and_with_its_name_whatever_comes_of_the_attempt() {
    let bench = Bench::new();
    let mut picture = bench.artifact(b"640x480 odd", "image/jpeg");
    let look = "(call $size (local.get 0) (i32.const 0x3000))";
    let digest = ArtifactRef::from_json(&picture).unwrap().digest;
    let warning = |name: &str| vec![format!("picture {name}: libjpeg warned: it is odd")];
    let good = guest(&format!("{look} {look} (call $answer (i32.const 0) (i32.const 0))"));
    let report = bench.run(&good, json!({ "image": picture, "n": 1 }));
    assert_eq!((&output(&report)["n"], &report.warnings), (&json!(0), &warning(&digest.to_string())));
    picture["name"] = json!("me.jpg");
    let report = bench.run(&guest(&format!("{look} (unreachable)")), json!({ "image": picture, "n": 1 }));
    assert_eq!((failed(&report).1, &report.warnings), ("unreachable", &warning("`me.jpg`")));
    let untouched = guest("(call $answer (i32.const 0) (i32.const 0))");
    assert!(bench.run(&untouched, json!({ "image": picture, "n": 1 })).warnings.is_empty(), "it was not looked at");
}

#[test]
fn a_picture_that_cannot_be_decoded_is_invalid_input() {
    let bench = Bench::new();
    let picture = bench.artifact(b"renamed text", "image/jpeg");
    let report = bench.run(
        &guest("(call $size (local.get 0) (i32.const 0x3000)) (unreachable)"),
        json!({ "image": picture, "n": 1 }),
    );
    assert_eq!(failed(&report), (FailureKind::InvalidInput, "undecodable"));
}

/// A longer file is not read: the store refuses it by its size. The input is at fault, not the store.
#[test]
fn a_file_as_long_as_is_decoded_and_a_longer_one() {
    let bench = Bench::new();
    let most = usize::try_from(bench.vision.max_file_bytes()).unwrap();
    for (bytes, code) in [(most, "undecodable"), (most + 1, "too_large")] {
        let picture = bench.artifact(&vec![b' '; bytes], "image/jpeg");
        let report = bench.run(
            &guest("(call $size (local.get 0) (i32.const 0x3000)) (unreachable)"),
            json!({ "image": picture, "n": 1 }),
        );
        assert_eq!(failed(&report), (FailureKind::InvalidInput, code));
    }
}

#[test]
fn a_picture_that_is_lost_is_the_host_s_fault() {
    let bench = Bench::new();
    let package = bench.install("probe", &guest("(call $size (local.get 0) (i32.const 0x3000)) (unreachable)"), "");
    let lost = json!({ "$artifact": dovetail_core::Digest::of(b"lost"), "media_type": "image/jpeg" });
    let error = bench
        .runtime
        .execute(&attempt(package, json!({ "image": lost, "n": 1 }), Limits::DEFAULT), &Stop::never())
        .unwrap_err();
    assert_eq!(error.operation, "use the artifact store");
}

#[test]
fn models_are_recorded_when_they_are_used() {
    let bench = Bench::new();
    let opened = "(call $embedder (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0x3000)) (call $answer \
        (i32.const 0) (i32.const 0))";
    assert!(run(&bench, opened).models.is_empty(), "opened, not used");
    let used = "(call $detector (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0x3000))
      (call $detect (i32.load (i32.const 0x3008)) (local.get 0) (i32.const 0x3100))
      (call $embedder (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0x3200))
      (call $embed (i32.load (i32.const 0x3208)) (local.get 0) (i32.const 0x2000) (i32.const 1) (i32.const 0x3300))
      (call $answer (i32.const 0) (i32.load (i32.const 0x310c)))";
    let report = run(&bench, used);
    assert_eq!(output(&report)["n"], 2, "two of three faces are over 0.5");
    let names: Vec<_> = report.models.iter().map(|model| model.name.as_str()).collect();
    assert_eq!(
        names,
        ["default", "points"],
        "the embedder is the same model as the detector here, and brings the landmarker along"
    );
}

#[test]
fn a_kind_means_the_model_that_was_chosen_for_the_run() {
    let bench = Bench::new();
    let body = "(call $embedder (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0x3200))
      (call $embed (i32.load (i32.const 0x3208)) (local.get 0) (i32.const 0x2000) (i32.const 1) (i32.const 0x3300))
      (call $answer (i32.const 0) (i32.const 0))";
    let picture = bench.artifact(b"10x10", "image/jpeg");
    let package = bench.install("probe", &guest(body), "");
    let with = |name: &str, digest: &[u8]| {
        let model = ModelUse::new(name, dovetail_core::Digest::of(digest));
        let input = json!({ "image": picture, "n": 1 });
        let by_kind = BTreeMap::from([("embedder".to_owned(), model)]);
        let models = Models { by_kind, engine: None };
        let attempt = Attempt { models, ..attempt(package, input, Limits::DEFAULT) };
        bench.runtime.execute(&attempt, &Stop::never())
    };
    let report = with("mine", b"mine").unwrap();
    assert_eq!(report.models[0].name, "mine");
    // If the model has other content or is not installed, this machine is at fault, not the task.
    for (name, digest) in [("mine", &b"other"[..]), ("unknown", b"unknown"), ("missing", b"missing")] {
        let error = with(name, digest).unwrap_err();
        assert!(error.operation.contains(&format!("open the model `{name}`")) && !error.transient, "{error:?}");
    }
    let chosen = bench.runtime.choose_models(&["embedder", "detector"]).unwrap();
    let chosen: Vec<_> = chosen.iter().map(|(kind, model)| (kind.as_str(), model.name.as_str())).collect();
    assert_eq!(chosen, [("detector", "default"), ("embedder", "default"), ("landmarker", "points")]);
}

#[test]
fn a_panic_of_the_library_is_contained() {
    let bench = Bench::new();
    let body = "(call $detector (i32.const 1) (i32.const 0x2004) (i32.const 6) (i32.const 0x3000))
      (call $detect (i32.load (i32.const 0x3008)) (local.get 0) (i32.const 0x3100)) (unreachable)";
    let picture = bench.artifact(b"10x10", "image/jpeg");
    let package = bench.install("probe", &guest(body), "");
    let input = json!({ "image": picture, "n": 1 });
    let error = bench.runtime.execute(&attempt(package, input, Limits::DEFAULT), &Stop::never()).unwrap_err();
    assert!(
        error.operation.contains("faces.detector.detect") && error.operation.contains("the library is broken"),
        "{error}"
    );
    // The runtime continues to work.
    assert_eq!(output(&run(&bench, "(call $answer (i32.const 0) (i32.const 1))"))["n"], 1);
}

#[test]
fn a_host_function_in_progress_ends_with_the_attempt() {
    let bench = Bench::new();
    // The guest ignores the cancellation and returns a value, which is ignored.
    let body = "(call $detector (i32.const 1) (i32.const 0x2000) (i32.const 4) (i32.const 0x3000))
      (call $detect (i32.load (i32.const 0x3008)) (local.get 0) (i32.const 0x3100)) (call $answer (i32.const 0) \
      (i32.const 1))";
    let picture = bench.artifact(b"10x10", "image/jpeg");
    let report =
        bench.run_within(&guest(body), json!({ "image": picture, "n": 1 }), Limits { time_ms: 60, ..Limits::DEFAULT });
    assert_eq!(failed(&report), (FailureKind::Timeout, "timeout"));
    assert!(report.usage.host_us >= 30_000, "{}", report.usage.host_us);
}

#[test]
fn handles_that_are_not_the_guest_s_end_the_attempt() {
    let bench = Bench::new();
    let one_image = "(call $answer (i32.const 1) (i32.const 0))";
    for (what, body) in [
        ("forged in a call", "(call $size (i32.const 77) (i32.const 0x3000)) (unreachable)".to_owned()),
        (
            "used after drop",
            "(call $drop (local.get 0)) (call $size (local.get 0) (i32.const 0x3000)) (unreachable)".to_owned(),
        ),
        ("dropped twice", "(call $drop (local.get 0)) (call $drop (local.get 0)) (unreachable)".to_owned()),
        ("forged in the output", format!("(i32.store (i32.const 0x4000) (i32.const 77)) {one_image}")),
        (
            "given away twice",
            "(i32.store (i32.const 0x4000) (local.get 0)) (i32.store (i32.const 0x4004) (local.get 0)) (call $answer \
             (i32.const 2) (i32.const 0))"
                .to_owned(),
        ),
        (
            "of another type",
            format!(
                "(call $detector (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0x3000)) \
                 (i32.store (i32.const 0x4000) (i32.load (i32.const 0x3008))) {one_image}"
            ),
        ),
    ] {
        let report = run(&bench, &body);
        assert_eq!(failed(&report), (FailureKind::Trap, "bad_handle"), "{what}: {:?}", failure(&report));
    }
}

#[test]
fn a_forgotten_handle_is_no_error() {
    let bench = Bench::new();
    assert_eq!(
        output(&run(&bench, "(call $answer (i32.const 0) (local.get 1))")),
        &json!({ "images": Value::Array(Vec::new()), "n": 3 })
    );
}
