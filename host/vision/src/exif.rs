//! Finds the orientation that a camera wrote into a JPEG file, and turns pixels upright. (For PNG and WebP, crate
//! `image` finds the EXIF block.)

use std::sync::Arc;

use image::metadata::Orientation;

/// The orientation in the first EXIF segment before the picture's data; none that can be read is "as it is".
pub(crate) fn jpeg_orientation(file: &[u8]) -> Orientation {
    find(file).and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms)
}

/// The TIFF block of the EXIF segment. Every offset is checked: the file is anybody's.
fn find(file: &[u8]) -> Option<&[u8]> {
    let mut rest = file.strip_prefix(&[0xff, 0xd8])?;
    loop {
        rest = rest.strip_prefix(&[0xff])?;
        // A marker may be preceded by any number of fill bytes.
        let marker = *rest.first()?;
        if marker == 0xff {
            continue;
        }
        rest = &rest[1..];
        match marker {
            // Start of scan or end of image: what follows is no segment.
            0xda | 0xd9 => return None,
            // Markers without a segment.
            0x01 | 0xd0..=0xd8 => continue,
            _ => {}
        }
        let length = usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?]));
        let (segment, after) = rest.split_at_checked(length)?;
        if marker == 0xe1
            && let Some(tiff) = segment.get(2..)?.strip_prefix(b"Exif\0\0")
        {
            return Some(tiff);
        }
        // A length under 2 cannot be and would not advance.
        segment.get(1)?;
        rest = after;
    }
}

/// The picture as it is meant to be seen: pixels, width, height.
pub(crate) fn upright(pixels: Arc<[u8]>, width: u32, height: u32, orientation: Orientation) -> (Arc<[u8]>, u32, u32) {
    let (w, h) = (width as usize, height as usize);
    // Source of the target's first pixel, and the source's steps for one pixel right and one down, in pixels: (x, y)
    // each.
    let (start, right, down) = match orientation {
        Orientation::NoTransforms => return (pixels, width, height),
        Orientation::FlipHorizontal => ((w - 1, 0), (-1, 0), (0, 1)),
        Orientation::Rotate180 => ((w - 1, h - 1), (-1, 0), (0, -1)),
        Orientation::FlipVertical => ((0, h - 1), (1, 0), (0, -1)),
        // Turned by 90 degrees clockwise, then mirrored left to right: the transpose.
        Orientation::Rotate90FlipH => ((0, 0), (0, 1), (1, 0)),
        Orientation::Rotate90 => ((0, h - 1), (0, -1), (1, 0)),
        Orientation::Rotate270FlipH => ((w - 1, h - 1), (0, -1), (-1, 0)),
        Orientation::Rotate270 => ((w - 1, 0), (0, 1), (-1, 0)),
    };
    let swapped = right.0 == 0;
    let (tw, th) = if swapped { (h, w) } else { (w, h) };
    let step = |(dx, dy): (isize, isize)| (dx + dy * w as isize) * 3;
    let (right, down) = (step(right), step(down));
    let first = ((start.1 * w + start.0) * 3) as isize;
    let mut out: Arc<[u8]> = std::iter::repeat_n(0, w * h * 3).collect();
    let target = Arc::get_mut(&mut out).expect("just made, so not shared");
    for (y, row) in target.chunks_exact_mut(tw * 3).enumerate() {
        let mut at = first + down * y as isize;
        for pixel in row.as_chunks_mut::<3>().0 {
            let from = at as usize;
            pixel.copy_from_slice(&pixels[from..from + 3]);
            at += right;
        }
    }
    (out, tw as u32, th as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every orientation against crate `image`'s own rotations.
    #[test]
    fn all_eight_orientations_agree_with_crate_image() {
        let pixels: Vec<u8> = (0..3 * 5 * 3).collect();
        for exif in 1..=8 {
            let orientation = Orientation::from_exif(exif).unwrap();
            let mut expected = image::DynamicImage::ImageRgb8(image::RgbImage::from_raw(5, 3, pixels.clone()).unwrap());
            expected.apply_orientation(orientation);
            let (got, w, h) = upright(pixels.clone().into(), 5, 3, orientation);
            assert_eq!(
                (w, h, &got[..]),
                (expected.width(), expected.height(), expected.as_bytes()),
                "orientation {exif}"
            );
        }
    }

    #[test]
    fn damaged_segments_are_no_orientation() {
        for file in [
            &b""[..],
            b"\xff\xd8",
            b"\xff\xd8\xff\xff\xff",
            b"\xff\xd8\xff\xe1\x00\x00Exif\0\0",
            b"\xff\xd8\xff\xe1\xff\xffExif\0\0MM",
            b"\xff\xd8\xff\xe1\x00\x10Exif\0\0MM\0\x2a\0\0\0\xff",
            b"\xff\xd8\xff\xd0\xff\xda\x00\x02",
        ] {
            assert_eq!(jpeg_orientation(file), Orientation::NoTransforms, "{file:x?}");
        }
    }
}
