//! Compares every face of the six photographs with the reference package's results (`../reference.json`). The
//! tolerances are part of the design: do not widen them.

use std::collections::BTreeMap;

use dovetail_core::stop::Stop;
use dovetail_core::vision::{DetectOptions, ModelKind, Rect, Vision};
use dovetail_vision::Opencv;
use serde::Deserialize;

use crate::common::{detect, detect_with, engines, overlap, photo, vision};

#[derive(Deserialize)]
struct Photo {
    width: u32,
    height: u32,
    faces: Vec<Face>,
    tiny: Vec<FoundFace>,
    likely: Vec<FoundFace>,
}

#[derive(Deserialize)]
struct Face {
    bbox: [f32; 4],
    score: f64,
    landmarks: Vec<[f64; 2]>,
    age: f64,
    female: f64,
    expressions: Vec<f64>,
    descriptor: Vec<f64>,
}

#[derive(Deserialize)]
struct FoundFace {
    bbox: [f32; 4],
    score: f64,
}

fn rect([x, y, width, height]: [f32; 4]) -> Rect {
    Rect { x, y, width, height }
}

fn photos() -> BTreeMap<String, Photo> {
    serde_json::from_str(include_str!("../reference.json")).unwrap()
}

/// The deviations of each quantity.
#[derive(Default)]
struct Deviations(BTreeMap<&'static str, Vec<f64>>);

impl Deviations {
    fn note(&mut self, quantity: &'static str, by: f64) {
        assert!(by.is_finite(), "{quantity}");
        self.0.entry(quantity).or_default().push(by);
    }

    fn check(&self, tolerances: &[(&'static str, f64)]) {
        assert_eq!(self.0.len(), tolerances.len());
        let mut over = Vec::new();
        for (quantity, tolerance) in tolerances {
            let all = &self.0[quantity];
            let (max, mean) = (all.iter().copied().fold(0.0, f64::max), all.iter().sum::<f64>() / all.len() as f64);
            println!("{quantity:28} n {:3}  mean {mean:.2e}  max {max:.2e}  tolerance {tolerance}", all.len());
            if max > *tolerance {
                over.push(quantity);
            }
        }
        assert!(over.is_empty(), "over the tolerance: {over:?}");
    }
}

/// For each of the reference's boxes, the detection that overlaps it most. The numbers of detections and boxes must be
/// equal.
fn paired<'a>(
    name: &str,
    found: &'a [dovetail_core::vision::Detection],
    expected: &[[f32; 4]],
) -> Vec<&'a dovetail_core::vision::Detection> {
    assert_eq!(found.len(), expected.len(), "faces on {name}");
    assert!(found.windows(2).all(|w| w[0].confidence >= w[1].confidence), "the most confident first");
    let best = |b: &[f32; 4]| {
        found.iter().max_by(|p, q| overlap(p.bbox, rect(*b)).total_cmp(&overlap(q.bbox, rect(*b)))).unwrap()
    };
    expected.iter().map(best).collect()
}

#[test]
fn every_face_agrees_with_the_reference_in_both_engines() {
    for (engine, vision) in engines() {
        println!("{engine}:");
        every_face_agrees(engine, vision);
    }
}

fn every_face_agrees(engine: &str, vision: &Opencv) {
    let stop = Stop::never();
    let model = |kind| vision.model(kind, None).unwrap();
    let mut deviations = Deviations::default();
    let mut faces = 0;
    for (name, expected) in photos() {
        let image = photo(&name);
        assert_eq!((image.size().width, image.size().height), (expected.width, expected.height), "{name}");
        let found = detect_with(vision, &image, "ssd", DetectOptions::default());
        let boxes: Vec<[f32; 4]> = expected.faces.iter().map(|f| f.bbox).collect();
        let found = paired(&name, &found, &boxes);
        let areas: Vec<Rect> = found.iter().map(|d| d.bbox).collect();
        let points = vision.locate(&model(ModelKind::Landmarker), &image, &areas, &stop).unwrap();
        let ages = vision.estimate(&model(ModelKind::AgeGenderEstimator), &image, &areas, 2, &stop).unwrap();
        let emotions = vision.classify(&model(ModelKind::EmotionClassifier), &image, &areas, &stop).unwrap();
        let vectors = vision.embed(&model(ModelKind::Embedder), &image, &areas, &stop).unwrap();
        for (i, face) in expected.faces.iter().enumerate() {
            faces += 1;
            deviations.note("1 - IoU (ssd)", 1.0 - overlap(found[i].bbox, rect(face.bbox)));
            deviations.note("confidence (ssd)", (f64::from(found[i].confidence) - face.score).abs());
            let points = points[i].as_ref().unwrap();
            assert_eq!(points.len(), 68);
            let far =
                points.iter().zip(&face.landmarks).map(|(p, q)| (f64::from(p.x) - q[0]).hypot(f64::from(p.y) - q[1]));
            deviations.note("landmark / box width", far.fold(0.0, f64::max) / f64::from(face.bbox[2]));
            let age = ages[i].as_ref().unwrap();
            deviations.note("age (years)", (f64::from(age.age) - face.age).abs());
            deviations.note("gender probability", (f64::from(age.female) - face.female).abs());
            assert!((0.0..=1.0).contains(&age.age_confidence) && age.age_confidence > 0.0, "{age:?}");
            let emotions = emotions[i].as_ref().unwrap();
            assert_eq!(emotions.len(), face.expressions.len());
            let apart = emotions.iter().zip(&face.expressions).map(|(p, q)| (f64::from(*p) - q).abs());
            deviations.note("expression probability", apart.fold(0.0, f64::max));
            let vector = vectors[i].as_ref().unwrap();
            assert_eq!(vector.len(), 128);
            let apart: f64 = vector.iter().zip(&face.descriptor).map(|(p, q)| (f64::from(*p) - q).powi(2)).sum();
            deviations.note("descriptor (Euclidean)", apart.sqrt());
        }
    }
    assert_eq!(faces, 22);
    for kind in ModelKind::ALL {
        let used = vision.engine(&model(kind).digest).expect("the network is loaded");
        assert_eq!(used.name, engine, "{kind:?}");
    }
    deviations.check(&[
        ("1 - IoU (ssd)", 0.001),
        ("confidence (ssd)", 0.002),
        ("landmark / box width", 0.001),
        ("age (years)", 0.05),
        ("gender probability", 0.002),
        ("expression probability", 0.002),
        ("descriptor (Euclidean)", 0.005),
    ]);
}

#[test]
fn every_tiny_box_agrees_with_the_reference_in_both_engines() {
    for (engine, vision) in engines() {
        println!("{engine}:");
        every_tiny_box_agrees(vision);
    }
}

fn every_tiny_box_agrees(vision: &Opencv) {
    let mut deviations = Deviations::default();
    for (name, expected) in photos() {
        let found = detect_with(vision, &photo(&name), "tiny", DetectOptions::default());
        let boxes: Vec<[f32; 4]> = expected.tiny.iter().map(|f| f.bbox).collect();
        for (found, expected) in paired(&name, &found, &boxes).into_iter().zip(&expected.tiny) {
            deviations.note("1 - IoU (tiny)", 1.0 - overlap(found.bbox, rect(expected.bbox)));
            deviations.note("confidence (tiny)", (f64::from(found.confidence) - expected.score).abs());
        }
    }
    deviations.check(&[("1 - IoU (tiny)", 0.001), ("confidence (tiny)", 0.002)]);
}

/// The design's condition: the detector finds at least nine of the twelve faces that are the two largest of their
/// photograph, and at most one false face on each photograph.
#[test]
fn haar_finds_the_large_faces_and_hardly_anything_else() {
    let (mut large, mut all) = (0, 0);
    for (name, expected) in photos() {
        let found = detect(&photo(&name), "haar", DetectOptions::default());
        assert!(found.iter().all(|d| d.confidence >= 0.5 && d.confidence < 1.0));
        let hit = |b: &[f32; 4]| found.iter().any(|d| overlap(d.bbox, rect(*b)) >= 0.3);
        let mut boxes: Vec<[f32; 4]> = expected.likely.iter().map(|f| f.bbox).collect();
        boxes.sort_by(|a, b| (b[2] * b[3]).total_cmp(&(a[2] * a[3])));
        let hits = boxes.iter().take(2).filter(|b| hit(b)).count();
        let wrong = found.iter().filter(|d| boxes.iter().all(|b| overlap(d.bbox, rect(*b)) < 0.3)).count();
        large += hits;
        all += boxes.iter().filter(|b| hit(b)).count();
        println!("{name}: {} found, {hits} of the two largest, {wrong} false", found.len());
        assert!(wrong <= 1, "{wrong} false faces on {name}");
    }
    println!("{large} of the 12 largest, {all} of all");
    assert!(large >= 9, "only {large} of the 12 largest faces");
}

#[test]
fn results_do_not_depend_on_the_batch() {
    let (vision, stop) = (vision(), Stop::never());
    let image = photo("sample5.jpg");
    let areas: Vec<Rect> = photos()["sample5.jpg"].faces.iter().map(|f| rect(f.bbox)).collect();
    assert_eq!(areas.len(), 5, "more than one batch");
    let embedder = vision.model(ModelKind::Embedder, None).unwrap();
    let together = vision.embed(&embedder, &image, &areas, &stop).unwrap();
    for (area, vector) in areas.iter().zip(&together) {
        let alone = vision.embed(&embedder, &image, &[*area], &stop).unwrap().remove(0).unwrap();
        let apart = vector.as_ref().unwrap().iter().zip(&alone).map(|(p, q)| (p - q).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-5, "{apart}");
    }
}

#[test]
fn tiny_and_haar_look_at_other_sides_and_ssd_says_that_it_does_not() {
    let image = photo("sample1.jpg");
    let with = |side| DetectOptions { input_side: Some(side), ..DetectOptions::default() };
    for side in [320, 608] {
        let found = detect(&image, "tiny", with(side));
        assert!((2..=4).contains(&found.len()), "{} faces at {side}", found.len());
    }
    assert!(!detect(&image, "haar", with(320)).is_empty());
    let vision = vision();
    for (detector, side) in
        [("ssd", 416), ("tiny", 400), ("tiny", 0), ("tiny", 1 << 20), ("haar", 0), ("haar", 1 << 30)]
    {
        let model = vision.model(ModelKind::Detector, Some(detector)).unwrap();
        let err = vision.detect(&model, &image, with(side), &Stop::never()).unwrap_err();
        assert!(
            matches!(err, dovetail_core::vision::VisionError::Invalid { code: "bad_input_side", .. }),
            "{detector} {side}: {err:?}"
        );
    }
    // The detector's own side is accepted.
    assert_eq!(detect(&image, "ssd", with(512)).len(), 3);
}

#[test]
fn options_of_a_detection_take_effect() {
    let image = photo("sample5.jpg");
    let found = detect(&image, "ssd", DetectOptions { max_faces: 2, ..DetectOptions::default() });
    assert_eq!(found.len(), 2);
    let sure = detect(&image, "ssd", DetectOptions { min_confidence: 0.9, ..DetectOptions::default() });
    assert!(!sure.is_empty() && sure.iter().all(|d| d.confidence > 0.9));
    let any = detect(&image, "ssd", DetectOptions { min_confidence: 0.01, ..DetectOptions::default() });
    assert!(any.len() > 5 && any.iter().any(|d| d.confidence < 0.5));
    assert!(detect(&image, "ssd", DetectOptions { min_confidence: 1.0, ..DetectOptions::default() }).is_empty());
}

#[test]
fn age_confidence_compares_views_and_leaves_the_age_alone() {
    let (vision, stop) = (vision(), Stop::never());
    let image = photo("sample1.jpg");
    let areas: Vec<Rect> = photos()["sample1.jpg"].faces.iter().map(|f| rect(f.bbox)).collect();
    let model = vision.model(ModelKind::AgeGenderEstimator, None).unwrap();
    let of = |views| -> Vec<_> {
        let all = vision.estimate(&model, &image, &areas, views, &stop).unwrap();
        all.into_iter().map(Result::unwrap).collect()
    };
    let (one, two, six) = (of(1), of(2), of(6));
    for ((a, b), c) in one.iter().zip(&two).zip(&six) {
        assert_eq!(a.age_confidence, 0.0, "nothing was compared");
        assert!(
            (a.age - b.age).abs() < 1e-3 && (a.age - c.age).abs() < 1e-3 && (a.female - c.female).abs() < 1e-4,
            "{a:?} {b:?} {c:?}"
        );
        assert!(b.age_confidence > 0.3 && c.age_confidence > 0.3, "{b:?} {c:?}");
        println!("age {:.2}: agreement of two views {:.3}, of six {:.3}", a.age, b.age_confidence, c.age_confidence);
    }
    for views in [0, 7, u32::MAX] {
        assert!(vision.estimate(&model, &image, &areas, views, &stop).is_err());
    }
}
