//! Turns a part of a picture into the square that a network sees: pads it with black, resamples and normalises it, and
//! writes it as planes, in one pass.
//!
//! The resampling is TensorFlow's old bilinear rule: no half-pixel centres, no antialiasing, a float result that is not
//! rounded. No OpenCV interpolation equals it (with INTER_LINEAR ages differ by up to 10 years), so this module
//! implements it. It reads only the rows and columns that the result needs.

use dovetail_core::vision::Image;

use crate::geometry::Cut;
use crate::models::manifest::{Channels, Input};

/// The position of the part within the padded square.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Padding {
    /// All padding is right of the part or below it (detectors).
    After,
    /// Half of the padding is before the part; an odd pixel is right or below (faces).
    Around,
}

/// The two source pixels of one target pixel along an axis, and the weight of the second one. `None`: the source pixel
/// is in the padding.
struct Tap {
    first: Option<usize>,
    second: Option<usize>,
    weight: f32,
}

/// The taps of `side` target pixels. The padded source has `square` pixels along the axis; `inside` of them, starting
/// at `offset`, are in the part.
fn taps(square: usize, side: usize, offset: usize, inside: usize) -> impl Iterator<Item = Tap> {
    let step = (square as f64 / side as f64) as f32;
    (0..side).map(move |i| {
        let at = i as f32 * step;
        let first = (at as usize).min(square - 1);
        let second = (first + 1).min(square - 1);
        let place = |i: usize| i.checked_sub(offset).filter(|i| *i < inside);
        Tap { first: place(first), second: place(second), weight: at - first as f32 }
    })
}

/// The taps along a row: places of bytes in a row of the picture.
struct Columns {
    /// Target columns before the part and after it, of which a source pixel is in the padding.
    edges: Vec<(usize, Option<usize>, Option<usize>, f32)>,
    /// The first target column whose source pixels are both in the part; the columns after it follow in `inner`.
    start: usize,
    inner: Vec<(u32, u32, f32)>,
}

impl Columns {
    /// `byte`: the place of a source pixel.
    fn new(taps: impl Iterator<Item = Tap>, byte: impl Fn(usize) -> usize) -> Self {
        let mut columns = Self { edges: Vec::new(), start: 0, inner: Vec::new() };
        for (n, Tap { first, second, weight }) in taps.enumerate() {
            match (first, second) {
                (Some(first), Some(second)) => {
                    if columns.inner.is_empty() {
                        columns.start = n;
                    }
                    columns.inner.push((byte(first) as u32, byte(second) as u32, weight));
                }
                (first, second) => columns.edges.push((n, first.map(&byte), second.map(&byte), weight)),
            }
        }
        columns
    }

    /// Replaces `row` by the resampled `line`: three values for each target column.
    fn resample(&self, row: &mut Vec<f32>, line: &[u8]) {
        row.clear();
        row.resize((self.edges.len() + self.inner.len()) * 3, 0.0);
        let out = row[self.start * 3..].as_chunks_mut::<3>().0;
        for (out, &(first, second, weight)) in out.iter_mut().zip(&self.inner) {
            *out = lerp(pixel(line, first as usize), pixel(line, second as usize), weight);
        }
        for &(n, first, second, weight) in &self.edges {
            let at = |place: Option<usize>| place.map_or([0; 3], |place| pixel(line, place));
            row[n * 3..n * 3 + 3].copy_from_slice(&lerp(at(first), at(second), weight));
        }
    }
}

/// The three bytes of a pixel.
#[inline]
fn pixel(line: &[u8], place: usize) -> [u8; 3] {
    *line[place..].first_chunk().expect("the source pixels of a tap lie in the part")
}

#[inline]
fn lerp(a: [u8; 3], b: [u8; 3], weight: f32) -> [f32; 3] {
    let (a, b) = (a.map(f32::from), b.map(f32::from));
    [0, 1, 2].map(|c| a[c] + (b[c] - a[c]) * weight)
}

/// Appends `3 * side * side` values to `blob`: one plane for each channel, each value `(pixel - mean) * scale`. If
/// `input.turned` is set, the whole square is turned by 180 degrees. If `mirror` is set, the part is mirrored left to
/// right.
pub(crate) fn push_square(
    blob: &mut Vec<f32>,
    image: &Image,
    part: Cut,
    padding: Padding,
    input: &Input,
    side: usize,
    mirror: bool,
) {
    let Cut { x, y, w, h } = part;
    let (pixels, stride) = (image.pixels(), image.size().width as usize * 3);
    let square = w.max(h);
    let offset = |inside: usize| if padding == Padding::Around { (square - inside) / 2 } else { 0 };
    let columns = Columns::new(taps(square, side, offset(w), w), |i| 3 * (x + if mirror { w - 1 - i } else { i }));
    let resample = |row: &mut Vec<f32>, source: Option<usize>| match source {
        Some(source) => columns.resample(row, &pixels[(y + source) * stride..][..stride]),
        None => {
            row.clear();
            row.resize(side * 3, 0.0);
        }
    };
    let start = blob.len();
    let plane = side * side;
    blob.resize(start + 3 * plane, 0.0);
    let target = &mut blob[start..];
    // The two resampled source rows in use, each with the index of its source row. When the picture is enlarged, each
    // source row is resampled once.
    let (mut upper, mut lower) = (Vec::with_capacity(side * 3), Vec::with_capacity(side * 3));
    let (mut upper_at, mut lower_at) = (None::<Option<usize>>, None::<Option<usize>>);
    for (line, tap) in taps(square, side, offset(h), h).enumerate() {
        if upper_at != Some(tap.first) {
            if lower_at == Some(tap.first) {
                std::mem::swap(&mut upper, &mut lower);
                std::mem::swap(&mut upper_at, &mut lower_at);
            } else {
                resample(&mut upper, tap.first);
                upper_at = Some(tap.first);
            }
        }
        if lower_at != Some(tap.second) {
            resample(&mut lower, tap.second);
            lower_at = Some(tap.second);
        }
        for c in 0..3 {
            let channel = if input.channels == Channels::Bgr { 2 - c } else { c };
            let (mean, scale) = (input.mean[c], input.scale);
            let out = &mut target[c * plane + line * side..][..side];
            let rows = upper.as_chunks::<3>().0.iter().zip(lower.as_chunks::<3>().0);
            for (out, (a, b)) in out.iter_mut().zip(rows) {
                let v = a[channel] + (b[channel] - a[channel]) * tap.weight;
                *out = (v - mean) * scale;
            }
        }
    }
    if input.turned {
        target.chunks_exact_mut(plane).for_each(<[f32]>::reverse);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dovetail_core::vision::Size;

    fn picture(width: u32, height: u32, at: impl Fn(u32, u32) -> u8) -> Image {
        let pixels: Vec<u8> =
            (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).flat_map(|(x, y)| [at(x, y); 3]).collect();
        Image::new(pixels, Size { width, height }).unwrap()
    }

    const PLAIN: Input = Input { side: 16, mean: [0.0; 3], scale: 1.0, channels: Channels::Rgb, turned: false };

    fn square(image: &Image, part: Cut, padding: Padding, side: usize, mirror: bool) -> Vec<f32> {
        let mut blob = Vec::new();
        push_square(&mut blob, image, part, padding, &PLAIN, side, mirror);
        blob.truncate(side * side);
        blob
    }

    #[test]
    fn halving_takes_every_second_pixel() {
        let image = picture(4, 4, |x, y| (10 * y + x) as u8);
        let whole = Cut { x: 0, y: 0, w: 4, h: 4 };
        assert_eq!(square(&image, whole, Padding::After, 2, false), [0.0, 2.0, 20.0, 22.0]);
        assert_eq!(square(&image, whole, Padding::After, 2, true), [3.0, 1.0, 23.0, 21.0]);
        let mut blob = vec![7.0];
        push_square(
            &mut blob,
            &image,
            whole,
            Padding::After,
            &Input { turned: true, mean: [0.0, 1.0, 2.0], ..PLAIN },
            2,
            false,
        );
        assert_eq!(
            blob,
            [7.0, 22.0, 20.0, 2.0, 0.0, 21.0, 19.0, 1.0, -1.0, 20.0, 18.0, 0.0, -2.0],
            "each plane is written separately, and the value before the planes is unchanged"
        );
    }

    #[test]
    fn doubling_interpolates_and_repeats_the_last_pixel() {
        let image = picture(2, 2, |x, y| (100 * y + 10 * x) as u8);
        let whole = Cut { x: 0, y: 0, w: 2, h: 2 };
        let expected =
            [0.0, 5.0, 10.0, 10.0, 50.0, 55.0, 60.0, 60.0, 100.0, 105.0, 110.0, 110.0, 100.0, 105.0, 110.0, 110.0];
        assert_eq!(square(&image, whole, Padding::After, 4, false), expected);
    }

    #[test]
    fn padding_is_black_and_its_odd_pixel_comes_last() {
        let image = picture(9, 9, |_, _| 8);
        // A part of one column and four rows: one column of padding before it, two behind it.
        let part = Cut { x: 5, y: 5, w: 1, h: 4 };
        assert_eq!(square(&image, part, Padding::Around, 4, false)[..4], [0.0, 8.0, 0.0, 0.0]);
        assert_eq!(square(&image, part, Padding::After, 4, false)[..4], [8.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn channels_are_normalised_in_the_order_that_the_network_wants() {
        let image = Image::new(vec![10, 20, 30], Size { width: 1, height: 1 }).unwrap();
        let input = Input { mean: [1.0, 2.0, 3.0], scale: 0.5, channels: Channels::Bgr, ..PLAIN };
        let mut blob = Vec::new();
        push_square(&mut blob, &image, Cut { x: 0, y: 0, w: 1, h: 1 }, Padding::After, &input, 1, false);
        assert_eq!(blob, [14.5, 9.0, 3.5]);
    }
}
