//! The networks that look at one face at a time: which part of the picture each looks at, and what its output means.
//!
//! Source: `src/dom`, `src/classes` and the networks' folders of `@vladmandic/face-api`. Faces go through a network in
//! batches of at most four, and the caller's wish to stop is looked at before each.

use std::sync::Arc;
use std::time::Instant;

use dovetail_core::stop::Stop;
use dovetail_core::vision::{AgeAndGender, FaceError, Image, Rect, VisionError};

use crate::geometry::{Area, Cut};
use crate::models::manifest::{Crop, CropFrom, Manifest, Output};
use crate::pictures::Points;
use crate::square::{Padding, push_square};

use super::network::Network;

/// One face's result so far.
pub(crate) type Each<T> = Vec<Result<T, FaceError>>;

/// What one entry of a batch looks at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct View {
    pub(crate) cut: Cut,
    pub(crate) mirror: bool,
}

pub(crate) fn go_on(stop: &Stop) -> Result<(), VisionError> {
    stop.reason(Instant::now()).map_or(Ok(()), |reason| Err(VisionError::Stopped(reason)))
}

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

/// Runs `network` on the views, in batches. One vector of values a view.
pub(crate) fn run(
    network: &mut Network,
    image: &Image,
    views: &[View],
    stop: &Stop,
) -> Result<Vec<Vec<f32>>, VisionError> {
    let mut out = Vec::with_capacity(views.len());
    for batch in views.chunks(network.batch) {
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

/// Landmarks in pixels from the network's fractions: `crop` is what it looked at, `face` the box as it was given. (That
/// the offset is the corner of the box and not of the crop is the reference's way.)
pub(crate) fn to_points(values: &[f32], crop: Cut, face: Rect, side: u32) -> Points {
    let (w, h, side) = (crop.w as f64, crop.h as f64, f64::from(side));
    let scale = side / w.max(h);
    let (sw, sh) = (w * scale, h * scale);
    let (left, top) = (((sh - sw) / 2.0).max(0.0), ((sw - sh) / 2.0).max(0.0));
    // `max(0, sh - sw) / 2` in the reference: the same.
    let point = |p: &[f32; 2]| {
        let (x, y) = (f64::from(p[0]) * side, f64::from(p[1]) * side);
        ((x - left) / sw * w + f64::from(face.x), (y - top) / sh * h + f64::from(face.y))
    };
    Arc::new(values.as_chunks::<2>().0.iter().map(point).collect())
}

/// The area that a network looks at, before it is cut.
fn area(image: &Image, face: Rect, points: Option<&Points>, crop: Crop) -> Result<Area, FaceError> {
    let none = || FaceError { code: "no_landmarks", message: "the face has no landmarks".to_owned() };
    match crop.from {
        CropFrom::Detection => Ok(Area::from(face).widened(crop.margin).relative(image.size())),
        CropFrom::Landmarks => Ok(Area::around(points.ok_or_else(none)?).widened(crop.margin).relative(image.size())),
        CropFrom::EyesAndMouth => Ok(Area::eyes_and_mouth(points.ok_or_else(none)?, detection_cut(image, face)?)),
    }
}

/// The first `count` views of a face: as the reference sees it; mirrored; 10 % smaller; 10 % larger; 5 % further left;
/// 5 % further right. Of those that leave nothing to look at all but the first are left out.
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

/// What a network's values mean for a classifier or an embedder.
pub(crate) fn interpret(manifest: &Manifest, values: Vec<f32>) -> Vec<f32> {
    if manifest.output == Output::Logits { softmax(&values) } else { values }
}

/// Age and gender from the first view; the other views only tell how far to trust the age.
///
/// The confidence of the age is `exp(-d / 10)`, where `d` is the mean distance in years between the first view's
/// estimate and each of the others: 1 if all agree, 0.82 at 2 years, 0.61 at 5, 0.37 at 10. It measures how stable the
/// estimate is, not how right. With one view nothing was compared, and it is 0.
pub(crate) fn age_and_gender(of_views: &[Vec<f32>]) -> AgeAndGender {
    let first = &of_views[0];
    let age = first[0];
    let others = &of_views[1..];
    let spread: f64 = others.iter().map(|v| f64::from((v[0] - age).abs())).sum();
    let age_confidence = if others.is_empty() { 0.0 } else { (-spread / others.len() as f64 / 10.0).exp() as f32 };
    // Male comes first.
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
