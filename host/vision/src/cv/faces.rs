//! The networks that see one face at a time: the part of the picture that each network sees, and the meaning of its
//! output.
//!
//! Source: `src/dom`, `src/classes` and the networks' folders of `@vladmandic/face-api`. A network gets faces in
//! batches of at most four. The caller's [`Stop`] is checked before each batch.

use std::sync::Arc;
use std::time::Instant;

use dovetail_core::stop::Stop;
use dovetail_core::vision::{AgeAndGender, FaceError, Image, Rect, VisionError};

use crate::geometry::{Area, Cut};
use crate::models::manifest::{Crop, CropFrom, Manifest, Output};
use crate::pictures::Points;
use crate::square::{Padding, push_square};

use super::network::Network;

/// One result or error for each face.
pub(crate) type Each<T> = Vec<Result<T, FaceError>>;

/// The input of one entry of a batch: a part of the picture, mirrored or not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct View {
    pub(crate) cut: Cut,
    pub(crate) mirror: bool,
}

/// Returns `Stopped` if `stop` has fired.
pub(crate) fn go_on(stop: &Stop) -> Result<(), VisionError> {
    stop.reason(Instant::now()).map_or(Ok(()), |reason| Err(VisionError::Stopped(reason)))
}

/// The error of a face whose box contains no pixel of the picture.
fn empty(face: Rect) -> FaceError {
    let Rect { x, y, width, height } = face;
    FaceError {
        code: "empty_area",
        message: format!("no whole pixel of the face's box ({x}, {y}, {width}, {height}) lies inside the picture"),
    }
}

/// The pixels of a detection's box.
pub(crate) fn detection_cut(image: &Image, face: Rect) -> Result<Cut, FaceError> {
    Area::from(face).relative(image.size()).cut(image.size()).ok_or_else(|| empty(face))
}

/// Runs `network` on the views, in batches. Returns one vector of values for each view.
pub(crate) fn run(
    network: &mut Network,
    image: &Image,
    views: &[View],
    stop: &Stop,
) -> Result<Vec<Vec<f32>>, VisionError> {
    let mut out = Vec::with_capacity(views.len());
    for batch in views.chunks(network.batch()) {
        go_on(stop)?;
        let side = network.input.side as usize;
        let answer = network.run(batch.len(), side, |blob, input| {
            for view in batch {
                push_square(blob, image, view.cut, Padding::Around, input, side, view.mirror);
            }
        })?;
        out.extend(answer.rows().map(<[f32]>::to_vec));
    }
    Ok(out)
}

/// Converts the network's fractions to landmarks in pixels. `crop` is the area that the network saw; `face` is the box
/// as the caller gave it. As in the reference, the offset is the corner of the box, not the corner of the crop.
pub(crate) fn to_points(values: &[f32], crop: Cut, face: Rect, side: u32) -> Points {
    let (w, h, side) = (crop.w as f64, crop.h as f64, f64::from(side));
    let scale = side / w.max(h);
    let (sw, sh) = (w * scale, h * scale);
    let (left, top) = (((sh - sw) / 2.0).max(0.0), ((sw - sh) / 2.0).max(0.0));
    // The reference computes `max(0, sh - sw) / 2`, which is the same.
    let point = |p: &[f32; 2]| {
        let (x, y) = (f64::from(p[0]) * side, f64::from(p[1]) * side);
        ((x - left) / sw * w + f64::from(face.x), (y - top) / sh * h + f64::from(face.y))
    };
    Arc::new(values.as_chunks::<2>().0.iter().map(point).collect())
}

/// The area that a network sees, before clipping.
fn area(image: &Image, face: Rect, points: Option<&Points>, crop: Crop) -> Result<Area, FaceError> {
    let none = || FaceError { code: "no_landmarks", message: "the face has no landmarks".to_owned() };
    match crop.from {
        CropFrom::Detection => Ok(Area::from(face).widened(crop.margin).relative(image.size())),
        CropFrom::Landmarks => Ok(Area::around(points.ok_or_else(none)?).widened(crop.margin).relative(image.size())),
        CropFrom::EyesAndMouth => Ok(Area::eyes_and_mouth(points.ok_or_else(none)?, detection_cut(image, face)?)),
    }
}

/// The first `count` views of a face: as the reference sees it; mirrored; 10 % smaller; 10 % larger; shifted left by 5
/// %; shifted right by 5 %. A view without a pixel inside the picture is left out; if the first view has none, the face
/// has an error.
pub(crate) fn views(
    image: &Image,
    face: Rect,
    points: Option<&Points>,
    crop: Crop,
    count: u32,
) -> Result<Vec<View>, FaceError> {
    let size = image.size();
    let area = area(image, face, points, crop)?;
    let first = area.cut(size).ok_or_else(|| empty(face))?;
    let mut all = vec![View { cut: first, mirror: false }, View { cut: first, mirror: true }];
    let shifted = |by: f64| Area { x: area.x + by * area.w, ..area };
    let others = [area.widened(-0.05), area.widened(0.05), shifted(-0.05), shifted(0.05)];
    all.extend(others.into_iter().filter_map(|a| a.cut(size)).map(|cut| View { cut, mirror: false }));
    all.truncate(count.max(1) as usize);
    Ok(all)
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp: Vec<f64> = logits.iter().map(|&v| f64::from(v - max).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.into_iter().map(|v| (v / sum) as f32).collect()
}

/// Converts a network's values to the result of a classifier or an embedder.
pub(crate) fn interpret(manifest: &Manifest, values: Vec<f32>) -> Vec<f32> {
    if manifest.output == Output::Logits { softmax(&values) } else { values }
}

/// Age and gender from the first view. The other views only determine the confidence of the age.
///
/// The confidence is `exp(-d / 10)`, where `d` is the mean distance in years between the first view's estimate and the
/// other views' estimates: 1 if all agree, 0.82 at 2 years, 0.61 at 5, 0.37 at 10. It measures how stable the estimate
/// is, not how accurate. With only one view there is nothing to compare, and the confidence is 0.
pub(crate) fn age_and_gender(of_views: &[Vec<f32>]) -> AgeAndGender {
    let first = &of_views[0];
    let age = first[0];
    let others = &of_views[1..];
    let spread: f64 = others.iter().map(|v| f64::from((v[0] - age).abs())).sum();
    let age_confidence = if others.is_empty() { 0.0 } else { (-spread / others.len() as f64 / 10.0).exp() as f32 };
    // The male logit comes first.
    let female = softmax(&first[1..3])[1];
    AgeAndGender { age, age_confidence, female }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_confidence_of_an_age_is_what_its_text_says() {
        let one = age_and_gender(&[vec![30.0, 0.0, 0.0]]);
        assert_eq!((one.age, one.age_confidence, one.female), (30.0, 0.0, 0.5));
        let same = age_and_gender(&[vec![30.0, 1.0, 0.0], vec![30.0, 0.0, 0.0]]);
        assert_eq!(same.age_confidence, 1.0);
        let apart = age_and_gender(&[vec![30.0, 1.0, 0.0], vec![35.0, 0.0, 0.0], vec![25.0, 0.0, 0.0]]);
        assert!((apart.age_confidence - (-0.5_f32).exp()).abs() < 1e-6, "{apart:?}");
    }

    #[test]
    fn probabilities_sum_to_one_whatever_the_logits() {
        for logits in [[1000.0, 0.0, -1000.0], [0.0; 3]] {
            let p = softmax(&logits);
            assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{p:?}");
        }
    }
}
