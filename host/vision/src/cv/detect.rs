//! Detectors with a network: from a picture to boxes in its pixels.
//!
//! There are three layouts of output (`models::manifest` describes them). Source of `ssd_anchors` and `yolo_grid`:
//! `src/ssdMobilenetv1` and `src/tinyYolov2` of `@vladmandic/face-api`. The results equal those of that package.

use dovetail_core::vision::{DetectOptions, Detection, Image, Size, VisionError};

use crate::geometry::{Area, Cut, js_round, suppress};
use crate::models::manifest::{Manifest, Output};
use crate::square::{Padding, push_square};

use super::network::Network;
use crate::engine::NetworkOutput;

/// A detector's network and its anchors.
pub(crate) struct Detector {
    pub(crate) network: Network,
    /// ymin, xmin, ymax, xmax of each anchor; empty unless the output is `ssd_anchors`.
    pub(crate) anchors: Vec<[f32; 4]>,
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The input side to use: the detector's own side, or the one in `options.input_side` after a check.
///
/// # Errors
/// `Invalid` with `bad_input_side`.
fn input_side(manifest: &Manifest, wanted: Option<u32>, own: u32) -> Result<u32, VisionError> {
    let Some(side) = wanted.filter(|side| *side != own) else {
        return Ok(own);
    };
    if manifest.output != Output::YoloGrid {
        let message = format!("the detector `{}` works on {own} pixels only; leave the input side out", manifest.name);
        return Err(VisionError::invalid("bad_input_side", message));
    }
    if side % 32 != 0 || !(64..=1024).contains(&side) {
        let message = format!(
            "an input side of {side} pixels does not fit the detector `{}`: it must be a multiple of 32 from 64 to \
             1024",
            manifest.name
        );
        return Err(VisionError::invalid("bad_input_side", message));
    }
    Ok(side)
}

impl Detector {
    /// The faces of a picture, the most confident first.
    ///
    /// # Errors
    /// `Invalid` with `bad_input_side`; `Unavailable` with `broken_model` or `pass_failed`.
    pub(crate) fn detect(
        &mut self,
        manifest: &Manifest,
        image: &Image,
        options: DetectOptions,
    ) -> Result<Vec<Detection>, VisionError> {
        let size = image.size();
        let side = input_side(manifest, options.input_side, self.network.input.side)? as usize;
        let (width, height) = (f64::from(size.width), f64::from(size.height));
        // The size of the picture inside the square, rounded as the reference does. In a picture so thin that a side
        // rounds to 0 pixels, no face is found.
        let scale = side as f64 / width.max(height);
        let inside = (js_round(width * scale), js_round(height * scale));
        if inside.0 < 1.0 || inside.1 < 1.0 {
            return Ok(Vec::new());
        }
        let whole = Cut { x: 0, y: 0, w: size.width as usize, h: size.height as usize };
        let answer = self
            .network
            .run(1, side, |blob, input| push_square(blob, image, whole, Padding::After, input, side, false))?;
        let limit = manifest.overlap.unwrap_or(0.5);
        let (min, most) = (f64::from(options.min_confidence), options.max_faces as usize);
        let found = match manifest.output {
            Output::SsdAnchors => self.ssd(&answer, min)?,
            Output::YoloGrid => yolo(&answer, &manifest.anchors, inside, size, min)?,
            _ => boxes(&answer, min),
        };
        let kept = suppress(found, limit, most);
        // From fractions of the square to pixels. The grid's boxes are already in pixels and may extend beyond the
        // picture.
        let to_pixels = |b: Area| {
            if manifest.output == Output::YoloGrid {
                return b;
            }
            let (kx, ky) = (side as f64 / inside.0, side as f64 / inside.1);
            let (left, top) = (b.x.max(0.0) * kx, b.y.max(0.0) * ky);
            let (right, bottom) = ((b.x + b.w).min(1.0) * kx, (b.y + b.h).min(1.0) * ky);
            Area { x: left * width, y: top * height, w: (right - left) * width, h: (bottom - top) * height }
        };
        let detection =
            |(score, area): (f64, Area)| Detection { bbox: to_pixels(area).rect(), confidence: score as f32 };
        Ok(kept.into_iter().map(detection).collect())
    }

    /// Boxes as fractions of the square, not clipped.
    fn ssd(&self, answer: &NetworkOutput, min: f64) -> Result<Vec<(f64, Area)>, VisionError> {
        let rows = answer.values.as_chunks::<5>().0;
        if rows.len() != self.anchors.len() {
            let message = format!("the network gives {} rows and there are {} anchors", rows.len(), self.anchors.len());
            return Err(VisionError::unavailable("broken_model", message));
        }
        let one = |(row, anchor): (&[f32; 5], &[f32; 4])| {
            let [ty, tx, th, tw, logit] = row.map(f64::from);
            let score = sigmoid(logit);
            if score.is_nan() || score <= min {
                return None;
            }
            let [top, left, bottom, right] = anchor.map(f64::from);
            let (ah, aw) = (bottom - top, right - left);
            let (cy, cx) = (top + ah / 2.0 + ty / 10.0 * ah, left + aw / 2.0 + tx / 10.0 * aw);
            let (half_h, half_w) = ((th / 5.0).exp() * ah / 2.0, (tw / 5.0).exp() * aw / 2.0);
            Some((score, Area { x: cx - half_w, y: cy - half_h, w: 2.0 * half_w, h: 2.0 * half_h }))
        };
        Ok(rows.iter().zip(&self.anchors).filter_map(one).collect())
    }
}

/// Boxes in pixels of the picture. `inside` is the size of the picture inside the square.
fn yolo(
    answer: &NetworkOutput,
    anchors: &[[f64; 2]],
    inside: (f64, f64),
    size: Size,
    min: f64,
) -> Result<Vec<(f64, Area)>, VisionError> {
    let n = match answer.dims[..] {
        [_, channels, rows, columns] if channels == anchors.len() * 5 && rows == columns => rows,
        _ => return Err(VisionError::unavailable("broken_model", format!("the network's grid is {:?}", answer.dims))),
    };
    let longer = inside.0.max(inside.1);
    let (kx, ky) = (longer / inside.0 * f64::from(size.width), longer / inside.1 * f64::from(size.height));
    let cells = n as f64;
    let mut found = Vec::new();
    for (a, [aw, ah]) in anchors.iter().enumerate() {
        for row in 0..n {
            for column in 0..n {
                let value = |part: usize| f64::from(answer.values[((a * 5 + part) * n + row) * n + column]);
                let score = sigmoid(value(4));
                if score.is_nan() || score <= min {
                    continue;
                }
                let (w, h) = (value(2).exp() * aw / cells * kx, value(3).exp() * ah / cells * ky);
                let (cx, cy) =
                    ((column as f64 + sigmoid(value(0))) / cells * kx, (row as f64 + sigmoid(value(1))) / cells * ky);
                found.push((score, Area { x: cx - w / 2.0, y: cy - h / 2.0, w, h }));
            }
        }
    }
    Ok(found)
}

/// Boxes as fractions of the square.
fn boxes(answer: &NetworkOutput, min: f64) -> Vec<(f64, Area)> {
    let one = |row: &[f32; 5]| {
        let [left, top, right, bottom, score] = row.map(f64::from);
        let area = Area { x: left, y: top, w: right - left, h: bottom - top };
        let sound = [left, top, right, bottom].iter().all(|v| v.is_finite()) && area.w > 0.0 && area.h > 0.0;
        (sound && score > min).then_some((score.min(1.0), area))
    };
    answer.values.as_chunks::<5>().0.iter().filter_map(one).collect()
}
