//! The Haar detector: it runs cascades on several views of the grey picture (frontal faces, profiles, profiles in the
//! mirrored picture) and counts their raw hits together.
//!
//! A cascade hits a face many times, at neighbouring positions and sizes; it hits other objects rarely. So the hits of
//! all views are grouped greedily by overlap, the densest position first. A group's score is the sum over the views of
//! `ln(1 + hits)`. The constants were tuned on the six photographs of the package `@vladmandic/face-api`; on other
//! pictures they do worse. The confidence is `1 - 2^(-score / 2.25)`: 0.5 at the score that best separated faces from
//! other objects on those photographs. It is not a probability.

use dovetail_core::vision::{DetectOptions, Detection, Image, VisionError};
use opencv::core::{self, FileStorage, FileStorageTraitConst, Mat, MatTraitConst, Rect, Size, Vector};
use opencv::imgproc;
use opencv::objdetect::{CascadeClassifier, CascadeClassifierTrait, CascadeClassifierTraitConst};

use crate::geometry::Area;

use super::failed;

/// Default number of pixels of the reduced picture's long side.
const LONG_SIDE: u32 = 640;
/// The factor between two window sizes of a cascade.
const SCALE_STEP: f64 = 1.1;
/// The smallest face, in pixels of the reduced picture.
const MIN_FACE: i32 = 38;
/// The score at which the confidence is 0.5. On the six photographs the second-best false group scores 2.08, and the
/// worst true group above that scores 2.48.
const EVEN_SCORE: f64 = 2.25;
/// The least overlap with the group's first hit that puts a hit into the group.
const SAME_FACE: f64 = 0.4;
/// The largest overlap with a better group; a group with a larger overlap is dropped.
const MAX_OVERLAP: f64 = 0.3;

/// A Haar detector: one or two loaded cascades.
pub(crate) struct Haar {
    /// Each cascade, and whether it also runs on the mirrored picture.
    views: Vec<(Mirror, CascadeClassifier)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mirror {
    No,
    AlsoMirrored,
}

/// Reads a cascade from the text of its file.
///
/// # Errors
/// `Unavailable` with `broken_model` if the text is not a cascade; with `opencv_failed` if OpenCV throws.
pub(crate) fn load_cascade(xml: &[u8]) -> Result<CascadeClassifier, VisionError> {
    let broken = |why: &str| VisionError::unavailable("broken_model", format!("the cascade cannot be read: {why}"));
    let text = std::str::from_utf8(xml).map_err(|_| broken("it is not text"))?;
    // OpenCV takes a C string, which ends at the first zero byte.
    if text.trim().is_empty() || text.contains('\0') {
        return Err(broken("it is not XML"));
    }
    let storage = FileStorage::new(text, core::FileStorage_READ | core::FileStorage_MEMORY, "").map_err(failed)?;
    let node = storage.get_first_top_level_node().map_err(failed)?;
    let mut cascade = CascadeClassifier::default().map_err(failed)?;
    let read = cascade.read(&node).map_err(failed)?;
    if read && !cascade.empty().map_err(failed)? {
        Ok(cascade)
    } else {
        Err(broken("it is not a cascade of OpenCV 2 or later"))
    }
}

/// A position where several hits agree.
struct Group {
    area: Area,
    score: f64,
}

impl Haar {
    /// Loads the cascade for frontal faces, and the cascade for profiles if there is one.
    ///
    /// # Errors
    /// The errors of [`load_cascade`].
    pub(crate) fn load(cascade: &[u8], profile: Option<&[u8]>) -> Result<Self, VisionError> {
        let mut views = vec![(Mirror::No, load_cascade(cascade)?)];
        if let Some(profile) = profile {
            views.push((Mirror::AlsoMirrored, load_cascade(profile)?));
        }
        Ok(Self { views })
    }

    /// The faces of a picture, the most confident first.
    ///
    /// # Errors
    /// `Invalid` with `bad_input_side`; `Unavailable` with `opencv_failed`.
    pub(crate) fn detect(&mut self, image: &Image, options: DetectOptions) -> Result<Vec<Detection>, VisionError> {
        let side = options.input_side.unwrap_or(LONG_SIDE);
        if !(64..=2048).contains(&side) {
            let message = format!("an input side of {side} pixels does not fit a Haar detector: it must be 64 to 2048");
            return Err(VisionError::invalid("bad_input_side", message));
        }
        let Some((gray, scale)) = prepare(image, side)? else {
            return Ok(Vec::new());
        };
        let views = self.hits(&gray)?;
        let size = image.size();
        let (width, height) = (f64::from(size.width), f64::from(size.height));
        let mut found = Vec::new();
        for Group { area, score } in group(views) {
            let confidence = 1.0 - (-score / EVEN_SCORE).exp2();
            if confidence > f64::from(options.min_confidence) && found.len() < options.max_faces as usize {
                // Scale back to the picture's pixels and clip at its edges.
                let (x, y) = (area.x / scale, area.y / scale);
                let (w, h) = ((area.w / scale).min(width - x), (area.h / scale).min(height - y));
                found.push(Detection { bbox: Area { x, y, w, h }.rect(), confidence: confidence as f32 });
            }
        }
        Ok(found)
    }

    /// The raw hits of each view, in pixels of `gray`.
    fn hits(&mut self, gray: &Mat) -> Result<Vec<Vec<Area>>, VisionError> {
        let mut all = Vec::new();
        let mirrored = {
            let mut out = Mat::default();
            // Mirror around the vertical axis.
            core::flip(gray, &mut out, 1).map_err(failed)?;
            out
        };
        for (mirror, cascade) in &mut self.views {
            all.push(one_view(cascade, gray)?);
            if *mirror == Mirror::AlsoMirrored {
                let width = f64::from(gray.cols());
                let back = |a: Area| Area { x: width - a.x - a.w, ..a };
                all.push(one_view(cascade, &mirrored)?.into_iter().map(back).collect());
            }
        }
        Ok(all)
    }
}

/// The raw hits of one cascade, in pixels of `gray`.
fn one_view(cascade: &mut CascadeClassifier, gray: &Mat) -> Result<Vec<Area>, VisionError> {
    let mut rects: Vector<Rect> = Vector::new();
    // With 0 neighbours OpenCV returns every window that passes all stages, ungrouped.
    cascade
        .detect_multi_scale(gray, &mut rects, SCALE_STEP, 0, 0, Size::new(MIN_FACE, MIN_FACE), Size::default())
        .map_err(failed)?;
    Ok(rects.iter().map(|r| Area { x: r.x.into(), y: r.y.into(), w: r.width.into(), h: r.height.into() }).collect())
}

/// The grey picture with a long side of at most `side` and an equalised histogram, and its scale. `None` if a side
/// would have less than one pixel.
fn prepare(image: &Image, side: u32) -> Result<Option<(Mat, f64)>, VisionError> {
    let size = image.size();
    let (rows, cols) = (size.height as i32, size.width as i32);
    let flat = Mat::new_rows_cols_with_data(rows, cols * 3, image.pixels()).map_err(failed)?;
    let rgb = flat.reshape(3, rows).map_err(failed)?;
    let mut gray = Mat::default();
    imgproc::cvt_color(&rgb, &mut gray, imgproc::COLOR_RGB2GRAY, 0).map_err(failed)?;
    let scale = f64::from(side) / f64::from(size.width.max(size.height));
    let scale = scale.min(1.0);
    if scale < 1.0 {
        // INTER_LINEAR, not INTER_AREA: on the sharper picture the cascades find one more of the twelve large faces and
        // no more false ones.
        let reduced = |n: i32| (f64::from(n) * scale).round() as i32;
        let to = Size::new(reduced(cols), reduced(rows));
        if to.width < 1 || to.height < 1 {
            return Ok(None);
        }
        let mut small = Mat::default();
        imgproc::resize(&gray, &mut small, to, 0.0, 0.0, imgproc::INTER_LINEAR).map_err(failed)?;
        gray = small;
    }
    let mut even = Mat::default();
    imgproc::equalize_hist(&gray, &mut even).map_err(failed)?;
    Ok(Some((even, scale)))
}

/// Groups the hits of all views, the best group first.
fn group(views: Vec<Vec<Area>>) -> Vec<Group> {
    let count = views.len();
    let mut hits: Vec<(usize, Area)> =
        views.into_iter().enumerate().flat_map(|(v, areas)| areas.into_iter().map(move |a| (v, a))).collect();
    // OpenCV's threads report hits in any order. Sorting makes the result independent of that order.
    hits.sort_by(|(v, a), (w, b)| {
        v.cmp(w).then(a.w.total_cmp(&b.w)).then(a.y.total_cmp(&b.y)).then(a.x.total_cmp(&b.x))
    });
    let near = |a: &Area, b: &Area| a.overlap(*b) >= SAME_FACE;
    let mut density: Vec<usize> = hits.iter().map(|(_, a)| hits.iter().filter(|(_, b)| near(a, b)).count()).collect();
    let mut free = vec![true; hits.len()];
    let mut groups: Vec<Group> = Vec::new();
    // Start with the densest hit; of equal hits, with the first one.
    while let Some(seed) =
        (0..hits.len()).filter(|&i| free[i]).reduce(|best, i| if density[i] > density[best] { i } else { best })
    {
        let members: Vec<usize> = (0..hits.len()).filter(|&i| free[i] && near(&hits[seed].1, &hits[i].1)).collect();
        let mut sum = [0.0; 4];
        let mut seen = vec![0_u32; count];
        for &m in &members {
            let (view, a) = hits[m];
            free[m] = false;
            seen[view] += 1;
            sum = [sum[0] + a.x, sum[1] + a.y, sum[2] + a.w, sum[3] + a.h];
            for i in (0..hits.len()).filter(|&i| free[i]) {
                density[i] -= usize::from(near(&a, &hits[i].1));
            }
        }
        let n = members.len() as f64;
        let area = Area { x: sum[0] / n, y: sum[1] / n, w: sum[2] / n, h: sum[3] / n };
        groups.push(Group { area, score: seen.iter().map(|&n| f64::from(n).ln_1p()).sum() });
    }
    groups.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Group> = Vec::new();
    for g in groups {
        let (cx, cy) = (g.area.x + g.area.w / 2.0, g.area.y + g.area.h / 2.0);
        let within =
            |k: &Group| cx >= k.area.x && cx <= k.area.x + k.area.w && cy >= k.area.y && cy <= k.area.y + k.area.h;
        if kept.iter().all(|k| g.area.overlap(k.area) <= MAX_OVERLAP && !(g.area.w < k.area.w && within(k))) {
            kept.push(g);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(x: f64, w: f64) -> Area {
        Area { x, y: 0.0, w, h: w }
    }

    #[test]
    fn hits_of_several_views_count_together() {
        let groups = group(vec![vec![area(0.0, 100.0), area(2.0, 100.0), area(300.0, 50.0)], vec![area(1.0, 100.0)]]);
        assert_eq!(groups.len(), 2);
        assert!((groups[0].score - (3.0_f64.ln() + 2.0_f64.ln())).abs() < 1e-12);
        assert!((groups[0].area.x - 1.0).abs() < 1e-12);
        assert!((groups[1].score - 2.0_f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn a_smaller_group_centred_in_a_better_one_is_dropped() {
        let groups = group(vec![vec![area(0.0, 100.0), area(1.0, 100.0), area(40.0, 20.0)]]);
        assert_eq!(groups.len(), 1);
    }

    #[test]
    fn what_is_no_cascade_is_refused() {
        for text in
            [&b""[..], b"\xff\xfe", b"plain text", b"<?xml version=\"1.0\"?><opencv_storage><a>1</a></opencv_storage>"]
        {
            assert!(load_cascade(text).is_err(), "{:?}", String::from_utf8_lossy(text));
        }
    }
}
