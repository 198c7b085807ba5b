//! Draws faces on a picture: boxes, landmarks and legible labels. All sizes scale with the picture.

use dovetail_core::vision::{Image, Size, VisionError};
use opencv::core::{Mat, MatTraitConst, MatTraitConstManual, Point, Rect, Scalar};
use opencv::imgproc;

use crate::annotation::Annotation;
use crate::geometry::Area;
use crate::label::place;

use super::failed;

/// The colours of consecutive faces, as RGB. They differ from skin and from one another.
const COLOURS: [[f64; 3]; 6] = [
    [0.0, 220.0, 120.0],
    [0.0, 170.0, 255.0],
    [255.0, 200.0, 0.0],
    [255.0, 90.0, 200.0],
    [150.0, 130.0, 255.0],
    [0.0, 230.0, 230.0],
];
const FONT: i32 = imgproc::FONT_HERSHEY_SIMPLEX;
/// The height of a capital letter of `FONT` at scale 1, in pixels.
const CAPITAL: f64 = 21.0;

/// The sizes of text and lines for one picture.
struct Pen {
    font: f64,
    line: i32,
    text: i32,
    /// The distance between two lines of a label, in pixels.
    leading: f64,
    margin: f64,
}

impl Pen {
    fn new(size: Size) -> Self {
        let long = f64::from(size.width.max(size.height));
        // A capital letter has 1/90 of the long side (21 px of 1920), and at least 8 px, because smaller text is
        // illegible.
        let capital = (long / 90.0).max(8.0);
        let line = (long / 640.0).round().max(1.0) as i32;
        Self {
            font: capital / CAPITAL,
            line,
            text: ((capital / 9.0).round() as i32).max(1),
            leading: capital * 1.75,
            margin: capital * 0.45,
        }
    }

    /// The width of a text in pixels.
    fn width(&self, text: &str) -> Result<f64, VisionError> {
        let mut baseline = 0;
        let size = imgproc::get_text_size(text, FONT, self.font, self.text, &mut baseline).map_err(failed)?;
        Ok(f64::from(size.width))
    }
}

/// Replaces every character that the font lacks by `?`.
fn printable(line: &str) -> String {
    // A longer line would be wider than any picture. The line is cut where it is illegible anyway.
    line.chars().take(200).map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}

/// Rounds to whole pixels. Values far outside the picture, and values that are not finite, become a coordinate that
/// OpenCV accepts and that is outside every picture.
fn pixel(v: f64) -> i32 {
    if v.is_finite() { v.round().clamp(-100_000.0, 100_000.0) as i32 } else { -100_000 }
}

fn scalar([r, g, b]: [f64; 3]) -> Scalar {
    Scalar::new(r, g, b, 0.0)
}

/// Draws each face's box, points and label on a copy of the picture. Labels are beside their boxes and inside the
/// picture; they avoid other labels and other faces if there is space. A face whose box is not finite is left out.
///
/// # Errors
/// `Unavailable` if OpenCV fails.
pub fn annotate(image: &Image, faces: &[Annotation]) -> Result<Image, VisionError> {
    super::silence();
    let size = image.size();
    let pen = Pen::new(size);
    let rows = size.height as i32;
    let flat = Mat::new_rows_cols_with_data(rows, size.width as i32 * 3, image.pixels()).map_err(failed)?;
    let mut canvas = flat.reshape(3, rows).map_err(failed)?.try_clone().map_err(failed)?;

    let faces: Vec<&Annotation> = faces
        .iter()
        .filter(|f| [f.bbox.x, f.bbox.y, f.bbox.width, f.bbox.height].iter().all(|v| v.is_finite()))
        .collect();
    let mut labels = Vec::new();
    for (number, face) in faces.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let (x, y) = (pixel(face.bbox.x.into()), pixel(face.bbox.y.into()));
        let (right, bottom) = (
            pixel(f64::from(face.bbox.x) + f64::from(face.bbox.width)),
            pixel(f64::from(face.bbox.y) + f64::from(face.bbox.height)),
        );
        let area = Rect::new(x, y, (right - x).max(1), (bottom - y).max(1));
        imgproc::rectangle(&mut canvas, area, scalar(colour), pen.line, imgproc::LINE_8, 0).map_err(failed)?;
        for point in &face.points {
            let (radius, centre) = (pen.line.max(1), Point::new(pixel(point.x.into()), pixel(point.y.into())));
            imgproc::circle(&mut canvas, centre, radius, scalar(colour), imgproc::FILLED, imgproc::LINE_AA, 0)
                .map_err(failed)?;
        }
        let lines: Vec<String> = face.lines.iter().map(|l| printable(l)).collect();
        let widest = lines.iter().map(|l| pen.width(l)).try_fold(0.0_f64, |w, l| l.map(|l| w.max(l)))?;
        // A face without lines gets no label.
        let extent = if lines.is_empty() {
            (0.0, 0.0)
        } else {
            (widest + 2.0 * pen.margin, lines.len() as f64 * pen.leading + pen.margin)
        };
        labels.push((lines, extent, colour));
    }
    let boxes: Vec<Area> = faces.iter().map(|f| Area::from(f.bbox)).collect();
    let extents: Vec<(f64, f64)> = labels.iter().map(|l| l.1).collect();
    let places = place((size.width.into(), size.height.into()), &boxes, &extents, f64::from(pen.line) * 2.0);
    for ((lines, _, colour), area) in labels.iter().zip(places).filter(|((lines, ..), _)| !lines.is_empty()) {
        let ground = Rect::new(pixel(area.x), pixel(area.y), pixel(area.w), pixel(area.h));
        // Dark text on the face's own colour shows which face the label belongs to, and is legible on any picture.
        imgproc::rectangle(&mut canvas, ground, scalar(*colour), imgproc::FILLED, imgproc::LINE_8, 0)
            .map_err(failed)?;
        for (number, line) in lines.iter().enumerate() {
            let baseline = area.y + pen.margin + number as f64 * pen.leading + pen.font * CAPITAL * 1.15;
            let origin = Point::new(pixel(area.x + pen.margin), pixel(baseline));
            imgproc::put_text(
                &mut canvas,
                line,
                origin,
                FONT,
                pen.font,
                Scalar::new(16.0, 16.0, 16.0, 0.0),
                pen.text,
                imgproc::LINE_AA,
                false,
            )
            .map_err(failed)?;
        }
    }
    let odd = || VisionError::unavailable("opencv_failed", "OpenCV returned a picture of the wrong size");
    Image::new(canvas.data_bytes().map_err(failed)?.to_vec(), size).ok_or_else(odd)
}
