//! The place of a face's label: beside the face's box, inside the picture, with the least overlap with other boxes and
//! labels.

use crate::geometry::Area;

/// Places the labels in the given order; one area for each label. `boxes[i]` belongs to `labels[i]` (width, height).
/// `gap` is the distance between a box and its label. All numbers are pixels. A label that is larger than the picture
/// starts at the picture's left or top edge.
pub(crate) fn place(picture: (f64, f64), boxes: &[Area], labels: &[(f64, f64)], gap: f64) -> Vec<Area> {
    let mut placed: Vec<Area> = Vec::new();
    for (own, (&face, &(w, h))) in boxes.iter().zip(labels).enumerate() {
        let (right, bottom) = (face.x + face.w, face.y + face.h);
        let (mid_x, mid_y) = (face.x + (face.w - w) / 2.0, face.y + (face.h - h) / 2.0);
        let (above, below) = (face.y - gap - h, bottom + gap);
        let (before, after) = (face.x - gap - w, right + gap);
        let (end_x, end_y) = (right - w, bottom - h);
        // The usual places come first, places inside the face's own box last. Of places with the same cost the first
        // one wins.
        let corners = [
            (face.x, above),
            (face.x, below),
            (after, face.y),
            (before, face.y),
            (end_x, above),
            (end_x, below),
            (mid_x, above),
            (mid_x, below),
            (after, mid_y),
            (before, mid_y),
            (after, end_y),
            (before, end_y),
            (after, above),
            (before, above),
            (after, below),
            (before, below),
            (face.x, above - h),
            (face.x, below + h),
            (face.x, end_y),
            (face.x, face.y),
        ];
        let mut best: Option<(f64, Area)> = None;
        for (x, y) in corners {
            let area = Area { x: x.min(picture.0 - w).max(0.0), y: y.min(picture.1 - h).max(0.0), w, h };
            let covered = |other: &Area| {
                let w = (area.x + area.w).min(other.x + other.w) - area.x.max(other.x);
                let h = (area.y + area.h).min(other.y + other.h) - area.y.max(other.y);
                w.max(0.0) * h.max(0.0)
            };
            // A label on another label makes both illegible, so that costs ten times as much as a label on another
            // face. A label on its own face costs half as much.
            let labels: f64 = placed.iter().map(covered).sum();
            let faces: f64 = boxes.iter().enumerate().map(|(i, b)| covered(b) * if i == own { 0.5 } else { 1.0 }).sum();
            let cost = labels * 10.0 + faces;
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, area));
            }
        }
        placed.extend(best.map(|(_, area)| area));
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face(x: f64, y: f64) -> Area {
        Area { x, y, w: 40.0, h: 40.0 }
    }

    #[test]
    fn labels_do_not_overlap_where_there_is_room() {
        let boxes = [face(50.0, 50.0), face(95.0, 55.0), face(70.0, 100.0), face(0.0, 0.0), face(260.0, 160.0)];
        let placed = place((300.0, 200.0), &boxes, &[(60.0, 20.0); 5], 3.0);
        for (i, a) in placed.iter().enumerate() {
            assert!(a.x >= 0.0 && a.y >= 0.0 && a.x + a.w <= 300.0 && a.y + a.h <= 200.0, "{a:?}");
            for b in placed[..i].iter().chain(&boxes) {
                assert!(a.overlap(*b) == 0.0, "{a:?} over {b:?}");
            }
        }
    }

    #[test]
    fn a_label_stays_in_a_picture_that_is_too_small() {
        let placed = place((30.0, 10.0), &[face(-5.0, -5.0)], &[(60.0, 20.0)], 3.0);
        assert_eq!((placed[0].x, placed[0].y), (0.0, 0.0));
    }
}
