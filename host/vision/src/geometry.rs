//! Boxes: clipping, overlap, and the areas that the networks see. All arithmetic is in f64 and in the order of the
//! reference package (`@vladmandic/face-api`): crops are floored, so the last bit of a result may decide a pixel.
//!
//! Boxes are untrusted: they may be infinite, NaN, negative or huge. No function here panics on them. If no pixel
//! remains, the result is `None`.

use dovetail_core::vision::{Rect, Size};

/// Left, top, width, height.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Area {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) w: f64,
    pub(crate) h: f64,
}

/// An area of whole pixels inside a picture; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) x: usize,
    pub(crate) y: usize,
    pub(crate) w: usize,
    pub(crate) h: usize,
}

impl From<Rect> for Area {
    fn from(r: Rect) -> Self {
        Self { x: r.x.into(), y: r.y.into(), w: r.width.into(), h: r.height.into() }
    }
}

impl Area {
    pub(crate) fn rect(self) -> Rect {
        Rect { x: self.x as f32, y: self.y as f32, width: self.w as f32, height: self.h as f32 }
    }

    /// The part inside the picture: clipped at the picture's edges, then x, y, width and height are floored separately.
    /// `None` if the part is empty.
    pub(crate) fn cut(self, size: Size) -> Option<Cut> {
        let (width, height) = (f64::from(size.width), f64::from(size.height));
        if ![self.x, self.y, self.w, self.h].iter().all(|v| v.is_finite()) {
            return None;
        }
        let (x, y) = (self.x.max(0.0), self.y.max(0.0));
        let w = (self.x + self.w - x).min(width - x).floor();
        let h = (self.y + self.h - y).min(height - y).floor();
        // The floored values stay inside the picture: floor(x) + floor(w) <= x + w <= width.
        (w >= 1.0 && h >= 1.0).then_some(Cut { x: x as usize, y: y as usize, w: w as usize, h: h as usize })
    }

    /// To fractions of the picture and back, as the reference does with boxes. This may change the last bit, on which
    /// the floor in [`Area::cut`] depends.
    pub(crate) fn relative(self, size: Size) -> Self {
        let (w, h) = (f64::from(size.width), f64::from(size.height));
        Self {
            x: self.x * (1.0 / w) * w,
            y: self.y * (1.0 / h) * h,
            w: self.w * (1.0 / w) * w,
            h: self.h * (1.0 / h) * h,
        }
    }

    /// Wider on each side by `margin` times the area's own size.
    pub(crate) fn widened(self, margin: f64) -> Self {
        let (w, h) = (self.w * (2.0 * margin), self.h * (2.0 * margin));
        Self { x: self.x - w / 2.0, y: self.y - h / 2.0, w: self.w + w, h: self.h + h }
    }

    /// The smallest area around the points.
    pub(crate) fn around(points: &[(f64, f64)]) -> Self {
        let (mut left, mut top) = (f64::INFINITY, f64::INFINITY);
        let (mut right, mut bottom) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
        for &(x, y) in points {
            (left, top) = (left.min(x), top.min(y));
            (right, bottom) = (right.max(x), bottom.max(y));
        }
        Self { x: left, y: top, w: right - left, h: bottom - top }
    }

    /// The square that the embedder sees: computed from the centres of the eyes (points 36..42 and 42..48) and of the
    /// mouth (48..68), not rotated. The reference uses only the size of the detection's `crop`.
    pub(crate) fn eyes_and_mouth(points: &[(f64, f64)], crop: Cut) -> Self {
        let centre = |range: std::ops::Range<usize>| {
            let n = range.len() as f64;
            let (x, y) = points[range].iter().fold((0.0, 0.0), |(x, y), p| (x + p.0, y + p.1));
            (x / n, y / n)
        };
        let (left, right, mouth) = (centre(36..42), centre(42..48), centre(48..68));
        let to_mouth = |eye: (f64, f64)| (mouth.0 - eye.0).hypot(mouth.1 - eye.1);
        let distance = (to_mouth(left) + to_mouth(right)) / 2.0;
        let size = (distance / 0.45).floor();
        let (x, y) = ((left.0 + right.0 + mouth.0) / 3.0, (left.1 + right.1 + mouth.1) / 3.0);
        let (x, y) = ((x - 0.5 * size).max(0.0).floor(), (y - 0.43 * size).max(0.0).floor());
        Self { x, y, w: size.min(crop.w as f64 + x), h: size.min(crop.h as f64 + y) }
    }

    /// Intersection over union, 0..=1.
    pub(crate) fn overlap(self, other: Self) -> f64 {
        let w = (self.x + self.w).min(other.x + other.w) - self.x.max(other.x);
        let h = (self.y + self.h).min(other.y + other.h) - self.y.max(other.y);
        if w > 0.0 && h > 0.0 { w * h / (self.w * self.h + other.w * other.h - w * h) } else { 0.0 }
    }
}

/// Non-maximum suppression: keeps the best of boxes that overlap by more than `limit`, and at most `most` boxes, the
/// best first.
pub(crate) fn suppress(mut found: Vec<(f64, Area)>, limit: f64, most: usize) -> Vec<(f64, Area)> {
    // The sort is stable: of boxes with equal scores the first one stays first.
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut kept: Vec<(f64, Area)> = Vec::new();
    for candidate in found {
        if kept.len() >= most {
            break;
        }
        if kept.iter().all(|k| candidate.1.overlap(k.1) <= limit) {
            kept.push(candidate);
        }
    }
    kept
}

/// JavaScript's `Math.round`: halves are rounded up.
pub(crate) fn js_round(v: f64) -> f64 {
    (v + 0.5).floor()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { width: 100, height: 50 };

    fn area(x: f64, y: f64, w: f64, h: f64) -> Area {
        Area { x, y, w, h }
    }

    #[test]
    fn a_cut_stays_inside_the_picture() {
        assert_eq!(area(-10.0, -10.0, 20.5, 20.5).cut(SIZE), Some(Cut { x: 0, y: 0, w: 10, h: 10 }));
        assert_eq!(area(90.5, 40.5, 1e30, 1e30).cut(SIZE), Some(Cut { x: 90, y: 40, w: 9, h: 9 }));
        assert_eq!(area(-1e30, -1e30, 2e30, 2e30).cut(SIZE), Some(Cut { x: 0, y: 0, w: 100, h: 50 }));
    }

    #[test]
    fn hostile_boxes_cut_nothing() {
        for v in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for b in [area(v, 0.0, 9.0, 9.0), area(0.0, v, 9.0, 9.0), area(0.0, 0.0, v, 9.0), area(0.0, 0.0, 9.0, v)] {
                assert_eq!(b.cut(SIZE), None, "{b:?}");
            }
        }
        for b in [
            area(0.0, 0.0, 0.9, 9.0),
            area(0.0, 0.0, -9.0, 9.0),
            area(100.0, 0.0, 9.0, 9.0),
            area(-9.0, 0.0, 9.0, 9.0),
            area(1e300, 0.0, 1e308, 9.0),
        ] {
            assert_eq!(b.cut(SIZE), None, "{b:?}");
        }
    }

    #[test]
    fn overlaps_are_suppressed_and_the_best_stay() {
        let found = vec![
            (0.5, area(0.0, 0.0, 10.0, 10.0)),
            (0.9, area(1.0, 0.0, 10.0, 10.0)),
            (0.7, area(50.0, 0.0, 10.0, 10.0)),
        ];
        let kept = suppress(found.clone(), 0.5, 10);
        assert_eq!(kept.iter().map(|k| k.0).collect::<Vec<_>>(), [0.9, 0.7]);
        assert_eq!(suppress(found, 0.5, 1).len(), 1);
    }
}
