//! Untrusted boxes and options. The result is an error for that face or for the call, never a panic, and the other
//! faces still get their results.

use dovetail_core::stop::Stop;
use dovetail_core::vision::{DetectOptions, Image, Model, ModelKind, Rect, Size, Vision, VisionError};

use crate::common::{detect, photo, vision};

fn hostile() -> Vec<Rect> {
    let mut all = Vec::new();
    for v in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 1e10, -1e10, -1.0, 0.0, f32::MIN_POSITIVE]
    {
        for b in
            [[v, 10.0, 50.0, 50.0], [10.0, v, 50.0, 50.0], [10.0, 10.0, v, 50.0], [10.0, 10.0, 50.0, v], [v, v, v, v]]
        {
            let [x, y, width, height] = b;
            all.push(Rect { x, y, width, height });
        }
    }
    // Tiny boxes, and huge boxes that contain pixels of the picture.
    for [x, y, width, height] in
        [[0.0, 0.0, 1.0, 1.0], [1919.0, 1279.0, 1.0, 1.0], [-1e6, -1e6, 2e6, 2e6], [5.0, 5.0, 1e9, 1.5]]
    {
        all.push(Rect { x, y, width, height });
    }
    all
}

#[test]
fn a_hostile_box_fails_alone() {
    let (vision, stop, image) = (vision(), Stop::never(), photo("sample1.jpg"));
    let good = detect(&image, "ssd", DetectOptions::default())[0].bbox;
    let faces: Vec<Rect> = std::iter::once(good).chain(hostile()).chain([good]).collect();
    let model = |kind| vision.model(kind, None).unwrap();
    let points = vision.locate(&model(ModelKind::Landmarker), &image, &faces, &stop).unwrap();
    let ages = vision.estimate(&model(ModelKind::AgeGenderEstimator), &image, &faces, 6, &stop).unwrap();
    let emotions = vision.classify(&model(ModelKind::EmotionClassifier), &image, &faces, &stop).unwrap();
    let vectors = vision.embed(&model(ModelKind::Embedder), &image, &faces, &stop).unwrap();
    let last = faces.len() - 1;
    assert!(
        [points.len(), ages.len(), emotions.len(), vectors.len()].iter().all(|n| *n == faces.len()),
        "one answer a face"
    );
    assert!(points[0].is_ok() && ages[0].is_ok() && emotions[0].is_ok() && vectors[0].is_ok());
    assert_eq!(
        (&points[0], &ages[0], &vectors[0]),
        (&points[last], &ages[last], &vectors[last]),
        "the same box has the same result"
    );
    for (i, face) in faces.iter().enumerate() {
        let finite = [face.x, face.y, face.width, face.height].iter().all(|v| v.is_finite());
        for err in
            [points[i].as_ref().err(), ages[i].as_ref().err(), emotions[i].as_ref().err(), vectors[i].as_ref().err()]
        {
            assert!(finite || err.is_some(), "{face:?} has a result");
            assert!(err.is_none_or(|e| e.code == "empty_area" && e.message.contains("box")), "{face:?}: {err:?}");
        }
    }
}

#[test]
fn no_faces_are_no_work_and_no_error() {
    let (vision, stop, image) = (vision(), Stop::never(), photo("sample1.jpg"));
    let model = |kind| vision.model(kind, None).unwrap();
    assert!(vision.locate(&model(ModelKind::Landmarker), &image, &[], &stop).unwrap().is_empty());
    assert!(vision.estimate(&model(ModelKind::AgeGenderEstimator), &image, &[], 2, &stop).unwrap().is_empty());
    assert!(vision.embed(&model(ModelKind::Embedder), &image, &[], &stop).unwrap().is_empty());
}

#[test]
fn pictures_of_any_shape_can_be_looked_at() {
    for (width, height) in [(1, 1), (1, 16_384), (16_384, 1), (2, 3000), (37, 41), (512, 512)] {
        let image = Image::new(vec![90; width as usize * height as usize * 3], Size { width, height }).unwrap();
        for detector in ["ssd", "tiny", "haar"] {
            assert!(detect(&image, detector, DetectOptions::default()).is_empty(), "{detector} on {width} x {height}");
        }
    }
}

#[test]
fn a_confidence_that_is_none_is_refused() {
    let (vision, image) = (vision(), photo("sample1.jpg"));
    let model = vision.model(ModelKind::Detector, None).unwrap();
    for min_confidence in [f32::NAN, -0.1, 1.1, f32::INFINITY] {
        let err = vision
            .detect(&model, &image, DetectOptions { min_confidence, ..DetectOptions::default() }, &Stop::never())
            .unwrap_err();
        assert!(matches!(err, VisionError::Invalid { code: "bad_min_confidence", .. }), "{err:?}");
    }
    for detector in ["ssd", "tiny", "haar"] {
        let all = detect(
            &image,
            detector,
            DetectOptions { min_confidence: 0.0, max_faces: u32::MAX, ..DetectOptions::default() },
        );
        assert!(all.len() > 3, "{detector}: {}", all.len());
        assert!(detect(&image, detector, DetectOptions { max_faces: 0, ..DetectOptions::default() }).is_empty());
    }
}

#[test]
fn models_are_found_by_name_alias_and_kind() {
    let vision = vision();
    assert_eq!(vision.model(ModelKind::Detector, None).unwrap().name, "ssd_mobilenetv1");
    assert_eq!(vision.model(ModelKind::Detector, Some("tiny")).unwrap().name, "tiny_face_detector");
    assert_eq!(vision.model(ModelKind::EmotionClassifier, None).unwrap().labels.len(), 7);
    let err = vision.model(ModelKind::Detector, Some("yolo")).unwrap_err();
    assert!(
        matches!(&err, VisionError::Invalid { code: "unknown_model", message }
            if message.contains("`ssd`") && message.contains("`haar`")),
        "{err:?}"
    );
    // A model of another kind is not found by its name, and cannot be used as a model of this kind.
    assert!(vision.model(ModelKind::Detector, Some("age_gender")).is_err());
    let wrong = vision.model(ModelKind::AgeGenderEstimator, None).unwrap();
    let err = vision.detect(&wrong, &photo("sample1.jpg"), DetectOptions::default(), &Stop::never()).unwrap_err();
    assert!(matches!(err, VisionError::Invalid { code: "wrong_model_kind", .. }), "{err:?}");
    let forged =
        Model { digest: dovetail_core::Digest::of(b"forged"), ..vision.model(ModelKind::Detector, None).unwrap() };
    let err = vision.detect(&forged, &photo("sample1.jpg"), DetectOptions::default(), &Stop::never()).unwrap_err();
    assert!(matches!(err, VisionError::Unavailable { code: "model_gone", .. }), "{err:?}");
}

#[test]
fn companions_are_the_models_that_help() {
    let vision = vision();
    let of =
        |kind| vision.companions(&vision.model(kind, None).unwrap()).into_iter().map(|m| m.name).collect::<Vec<_>>();
    assert_eq!(of(ModelKind::Embedder), ["face_landmark_68"]);
    assert_eq!(of(ModelKind::AgeGenderEstimator), ["face_landmark_68"]);
    assert!(of(ModelKind::Detector).is_empty() && of(ModelKind::Landmarker).is_empty());
}
