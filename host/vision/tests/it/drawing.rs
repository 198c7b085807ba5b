//! The annotated picture: all parts are drawn inside the picture, for any boxes.

use dovetail_core::stop::Stop;
use dovetail_core::vision::{DetectOptions, Image, ModelKind, Point, Rect, Size, Vision};
use dovetail_vision::{Annotation, annotate};

use crate::common::{detect, photo, vision};

/// Writes the annotated pictures for people to look at: target/tmp/annotated-*.png.
#[test]
fn the_photographs_are_annotated() {
    let (vision, stop) = (vision(), Stop::never());
    for name in ["sample4.jpg", "sample5.jpg"] {
        let image = photo(name);
        let found = detect(&image, "ssd", DetectOptions::default());
        let boxes: Vec<Rect> = found.iter().map(|d| d.bbox).collect();
        let points = vision.locate(&vision.model(ModelKind::Landmarker, None).unwrap(), &image, &boxes, &stop).unwrap();
        let ages = vision
            .estimate(&vision.model(ModelKind::AgeGenderEstimator, None).unwrap(), &image, &boxes, 2, &stop)
            .unwrap();
        let classifier = vision.model(ModelKind::EmotionClassifier, None).unwrap();
        let emotions = vision.classify(&classifier, &image, &boxes, &stop).unwrap();
        let faces: Vec<Annotation> = (0..found.len())
            .map(|i| {
                let age = ages[i].as_ref().unwrap();
                let gender = if age.female > 0.5 { "female" } else { "male" };
                let (p, emotion) = emotions[i]
                    .as_ref()
                    .unwrap()
                    .iter()
                    .zip(&classifier.labels)
                    .max_by(|a, b| a.0.total_cmp(b.0))
                    .unwrap();
                let lines = vec![
                    format!("face {i}  {:.0} %", found[i].confidence * 100.0),
                    format!("{gender}, {:.0} years", age.age),
                    format!("{emotion} {:.0} %", p * 100.0),
                ];
                Annotation { bbox: boxes[i], points: points[i].clone().unwrap(), lines }
            })
            .collect();
        let drawn = annotate(&image, &faces).unwrap();
        assert_eq!(drawn.size(), image.size());
        let changed = drawn.pixels().chunks(3).zip(image.pixels().chunks(3)).filter(|(a, b)| a != b).count();
        let all = image.pixels().len() / 3;
        assert!(changed > all / 200 && changed < all / 4, "{changed} of {all} pixels changed");
        let png = vision.encode(&drawn, "image/png", None, &stop).unwrap();
        std::fs::write(std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("annotated-{name}.png")), png)
            .unwrap();
    }
}

#[test]
fn hostile_annotations_draw_what_can_be_drawn() {
    let values = [f32::NAN, f32::INFINITY, f32::MIN, f32::MAX, -5.0, 0.0, 20.0];
    for size in [Size { width: 1, height: 1 }, Size { width: 64, height: 48 }] {
        let image = Image::new(vec![128; (size.width * size.height * 3) as usize], size).unwrap();
        let faces: Vec<Annotation> = values
            .iter()
            .flat_map(|&x| values.iter().map(move |&w| (x, w)))
            .map(|(x, w)| Annotation {
                bbox: Rect { x, y: w, width: w, height: x },
                points: vec![Point { x, y: w }],
                lines: vec!["a label that is far wider than the picture".repeat(20), "\u{1f600} ü \0 \n".to_owned()],
            })
            .collect();
        assert_eq!(annotate(&image, &faces).unwrap().size(), size);
    }
}

#[test]
fn nothing_to_draw_leaves_the_picture_as_it_is() {
    let image = photo("sample1.jpg");
    let drawn = annotate(&image, &[]).unwrap();
    assert_eq!(drawn.pixels(), image.pixels());
    assert!(!drawn.same(&image));
}
