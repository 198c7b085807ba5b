//! Finds the orientation that a camera wrote into a file, and turns the pixels upright.

use image::metadata::Orientation;

use crate::chunks;
use crate::heap;

/// The prefix of an EXIF block in JPEG files. Some writers copy it into files of other formats.
const PREFIX: &[u8] = b"Exif\0\0";

/// The orientation of a JPEG file: from the first EXIF segment before the picture's data that declares one. Without
/// one, the picture is not turned.
pub(crate) fn jpeg_orientation(file: &[u8]) -> Orientation {
    first(segments(file).filter(|(marker, _)| *marker == 0xe1).filter_map(|(_, content)| content.strip_prefix(PREFIX)))
}

/// The orientation of a PNG file, from an `eXIf` chunk at any position.
pub(crate) fn png_orientation(file: &[u8]) -> Orientation {
    first(chunks::of_png(file).filter(|(kind, _)| kind == b"eXIf").map(|(_, content)| content))
}

/// The orientation of an extended WebP file, from its `EXIF` chunk.
pub(crate) fn webp_orientation(file: &[u8]) -> Orientation {
    first(chunks::of_webp(file).filter(|(kind, _)| kind == b"EXIF").map(|(_, content)| content))
}

fn first<'a>(mut blocks: impl Iterator<Item = &'a [u8]>) -> Orientation {
    blocks.find_map(orientation).unwrap_or(Orientation::NoTransforms)
}

/// The first orientation in the first directory of a TIFF block, with any type of integer: cameras write two bytes, and
/// some programs write four bytes or one.
fn orientation(block: &[u8]) -> Option<Orientation> {
    let block = block.strip_prefix(PREFIX).unwrap_or(block);
    let big = match block.first_chunk::<4>()? {
        b"MM\0\x2a" => true,
        b"II\x2a\0" => false,
        _ => return None,
    };
    let short = |bytes: &[u8]| {
        let bytes = *bytes.first_chunk::<2>()?;
        Some(if big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    };
    let long = |bytes: &[u8]| {
        let bytes = *bytes.first_chunk::<4>()?;
        Some(if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    };
    let directory = block.get(usize::try_from(long(&block[4..])?).ok()?..)?;
    let entries = directory.get(2..)?.as_chunks::<12>().0;
    entries.iter().take(usize::from(short(directory)?)).find_map(|entry| {
        let (tag, kind, count, value) = (short(entry)?, short(&entry[2..])?, long(&entry[4..])?, &entry[8..]);
        // BYTE, SHORT and LONG, and their signed variants: the values are so small that the sign does not matter.
        let value = match (tag, kind, count) {
            (0x0112, 1 | 6, 1) => u32::from(value[0]),
            (0x0112, 3 | 8, 1) => u32::from(short(value)?),
            (0x0112, 4 | 9, 1) => long(value)?,
            _ => return None,
        };
        Orientation::from_exif(u8::try_from(value).ok()?)
    })
}

/// The segments of a JPEG file before its first scan: marker and content. Like libjpeg, the iterator skips bytes
/// between segments that are not a marker. Every length is checked, because the file is untrusted.
fn segments(file: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = file.strip_prefix(&[0xff, 0xd8]).unwrap_or_default();
    std::iter::from_fn(move || {
        loop {
            let at = rest.iter().position(|byte| *byte == 0xff)?;
            // A marker may be preceded by any number of fill bytes.
            let fill = rest[at..].iter().take_while(|byte| **byte == 0xff).count();
            let marker = *rest.get(at + fill)?;
            rest = &rest[at + fill + 1..];
            match marker {
                // Start of scan or end of image: no segment follows.
                0xda | 0xd9 => return None,
                // A byte 0 is no marker; the other markers here have no segment.
                0 | 0x01 | 0xd0..=0xd8 => {}
                _ => {
                    let length = usize::from(u16::from_be_bytes(*rest.first_chunk()?));
                    let (segment, after) = rest.split_at_checked(length)?;
                    rest = after;
                    // A length under 2 is invalid, and the loop would not advance.
                    return Some((marker, segment.get(2..)?));
                }
            }
        }
    })
}

/// Turns the picture upright; returns pixels, width and height.
pub(crate) fn upright(pixels: Vec<u8>, width: u32, height: u32, orientation: Orientation) -> (Vec<u8>, u32, u32) {
    let (w, h) = (width as usize, height as usize);
    // `start` is the source pixel of the target's first pixel. `right` and `down` are the steps in the source for one
    // target pixel to the right and one down. All are (x, y) in pixels.
    let (start, right, down) = match orientation {
        Orientation::NoTransforms => return (pixels, width, height),
        Orientation::FlipHorizontal => ((w - 1, 0), (-1, 0), (0, 1)),
        Orientation::Rotate180 => ((w - 1, h - 1), (-1, 0), (0, -1)),
        Orientation::FlipVertical => ((0, h - 1), (1, 0), (0, -1)),
        // Rotated by 90 degrees clockwise, then mirrored left to right: the transpose.
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
    let mut out = heap::zeroed(w * h * 3);
    for (y, row) in out.chunks_exact_mut(tw * 3).enumerate() {
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

    /// Compares every orientation with the rotations of crate `image`.
    #[test]
    fn all_eight_orientations_agree_with_crate_image() {
        let pixels: Vec<u8> = (0..3 * 5 * 3).collect();
        for exif in 1..=8 {
            let orientation = Orientation::from_exif(exif).unwrap();
            let mut expected = image::DynamicImage::ImageRgb8(image::RgbImage::from_raw(5, 3, pixels.clone()).unwrap());
            expected.apply_orientation(orientation);
            let (got, w, h) = upright(pixels.clone(), 5, 3, orientation);
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
