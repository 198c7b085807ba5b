//! Orientation in every format that has it, in every form that programs write; and files of an animated format that
//! contain one picture.

use dovetail_core::vision::{Image, Size, VisionError};
use image::{DynamicImage, ImageBuffer, ImageFormat, Rgb};

use crate::common::{noise, open};
use crate::damaged::file;
use crate::images::{chunk, png, written};

const WIDTH: u32 = 7;
const HEIGHT: u32 = 5;

fn picture() -> ImageBuffer<Rgb<u8>, Vec<u8>> {
    ImageBuffer::from_raw(WIDTH, HEIGHT, noise(WIDTH, HEIGHT, 21)).unwrap()
}

/// The pixels after a turn by 90 degrees clockwise, which is orientation 6.
fn turned() -> Vec<u8> {
    DynamicImage::from(picture()).rotate90().into_rgb8().into_raw()
}

/// A TIFF block whose only entry is the orientation, with this type of integer.
fn tiff(orientation: u32, kind: u16, little: bool) -> Vec<u8> {
    let short = |n: u16| if little { n.to_le_bytes() } else { n.to_be_bytes() };
    let long = |n: u32| if little { n.to_le_bytes() } else { n.to_be_bytes() };
    let value = match kind {
        1 | 6 => vec![orientation as u8, 0, 0, 0],
        3 | 8 => [short(orientation as u16), [0, 0]].concat(),
        _ => long(orientation).to_vec(),
    };
    let order: &[u8] = if little { b"II" } else { b"MM" };
    [order, &short(42), &long(8), &short(1), &short(0x0112), &short(kind), &long(1), &value, &[0; 4]].concat()
}

/// A PNG file with this chunk before its picture data, or after them.
fn with_chunk(still: &[u8], kind: &[u8; 4], content: &[u8], behind: bool) -> Vec<u8> {
    let at = if behind { still.len() - 12 } else { 8 + 25 };
    [&still[..at], &chunk(kind, content), &still[at..]].concat()
}

fn riff(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let mut body = b"WEBP".to_vec();
    for (kind, content) in chunks {
        body.extend([&kind[..], &(content.len() as u32).to_le_bytes(), content, &[0][..content.len() % 2]].concat());
    }
    [&b"RIFF"[..], &(body.len() as u32).to_le_bytes(), &body].concat()
}

/// The content of the chunk of pixels of a lossless WebP file.
fn lossless() -> Vec<u8> {
    let file = written(picture(), ImageFormat::WebP);
    assert_eq!(&file[12..16], b"VP8L");
    let length = u32::from_le_bytes(file[16..20].try_into().unwrap()) as usize;
    file[20..20 + length].to_vec()
}

/// The header of an extended WebP file.
fn vp8x(flags: u8) -> Vec<u8> {
    vec![flags, 0, 0, 0, WIDTH as u8 - 1, 0, 0, HEIGHT as u8 - 1, 0, 0]
}

fn animated(file: &[u8]) -> bool {
    matches!(open(file), Err(VisionError::Invalid { code: "animated", .. }))
}

#[test]
fn orientation_of_every_type_of_number_is_read_in_every_format() {
    let (still, pixels) = (png(picture()), lossless());
    for little in [true, false] {
        for kind in [1, 3, 4, 6, 8, 9] {
            for prefix in [&b""[..], b"Exif\0\0"] {
                let block = [prefix, &tiff(6, kind, little)].concat();
                for (name, file) in [
                    ("png, before its data", with_chunk(&still, b"eXIf", &block, false)),
                    ("png, behind its data", with_chunk(&still, b"eXIf", &block, true)),
                    ("webp", riff(&[(b"VP8X", &vp8x(8)), (b"VP8L", &pixels), (b"EXIF", &block)])),
                    ("webp that does not say so", riff(&[(b"VP8X", &vp8x(0)), (b"VP8L", &pixels), (b"EXIF", &block)])),
                ] {
                    let image = open(&file).unwrap();
                    assert_eq!(image.size(), Size { width: HEIGHT, height: WIDTH }, "{name}, {kind}, {little}");
                    assert_eq!((image.pixels(), image.warning()), (&turned()[..], None), "{name}, {kind}, {little}");
                }
            }
        }
    }
}

fn jpeg(segments: &[&[u8]]) -> Image {
    let base = file("jpeg-base.jpg");
    open(&[&base[..2], &segments.concat(), &base[2..]].concat()).unwrap()
}

fn exif(block: &[u8]) -> Vec<u8> {
    let content = [b"Exif\0\0", block].concat();
    [&b"\xff\xe1"[..], &(content.len() as u16 + 2).to_be_bytes(), &content].concat()
}

#[test]
fn the_first_segment_of_a_jpeg_file_that_says_an_orientation_decides() {
    let (upright, lying) = (Size { width: 96, height: 64 }, Size { width: 64, height: 96 });
    let xmp = b"\xff\xe1\0\x1fhttp://ns.adobe.com/xap/1.0/\0";
    for kind in [1, 3, 4] {
        for little in [true, false] {
            assert_eq!(jpeg(&[&exif(&tiff(6, kind, little))]).size(), lying, "type {kind}");
        }
    }
    let (said, other) = (exif(&tiff(6, 3, true)), exif(&tiff(1, 3, true)));
    for (name, segments, size) in [
        ("behind XMP", vec![&xmp[..], &said], lying),
        ("behind a damaged one", vec![&exif(b"II\x2a\0\xff\xff\xff\xff")[..], &said], lying),
        ("behind one without", vec![&exif(&tiff(6, 2, true))[..], &said], lying),
        ("behind stray bytes", vec![&xmp[..], &[0; 9], &said], lying),
        ("behind fill bytes", vec![&[0xff; 9][..], &said], lying),
        ("behind another", vec![&other, &said], upright),
        ("before another", vec![&said, &other], lying),
        ("a number that is none", vec![&exif(&tiff(9, 4, true))[..]], upright),
        ("a number far from one", vec![&exif(&tiff(0x0001_0006, 4, true))[..]], upright),
    ] {
        assert_eq!(jpeg(&segments).size(), size, "{name}");
    }
}

#[test]
fn a_png_file_whose_orientation_stands_behind_its_data_is_turned() {
    let (before, behind) = (file("png-exif-before-idat.png"), file("png-exif-behind-idat.png"));
    let mut damaged = behind.clone();
    let at = damaged.windows(4).position(|w| w == b"eXIf").unwrap();
    // With a wrong checksum the chunk is ignored.
    damaged[at + 12] ^= 1;
    let (before, behind, unturned) = (open(&before).unwrap(), open(&behind).unwrap(), open(&damaged).unwrap());
    // Orientation 3 is a turn by 180 degrees.
    let turned: Vec<u8> = unturned.pixels().rchunks(3).flatten().copied().collect();
    assert_eq!((before.pixels(), behind.pixels()), (&turned[..], &turned[..]));
    assert_ne!(unturned.pixels(), behind.pixels());
}

#[test]
fn an_animated_png_file_of_one_frame_is_a_still_picture() {
    let still = png(picture());
    let frame = |number: u8| {
        let size = [&WIDTH.to_be_bytes()[..], &HEIGHT.to_be_bytes()].concat();
        [&[0, 0, 0, number][..], &size, &[0; 8], &[0, 1, 0, 10, 0, 0]].concat()
    };
    let frames = |count: u8| with_chunk(&still, b"acTL", &[0, 0, 0, count, 0, 0, 0, 0], false);
    let with_control = |file: &[u8], at: usize| [&file[..at], &chunk(b"fcTL", &frame(0)), &file[at..]].concat();
    let behind_count = 8 + 25 + 20;
    for (name, file) in [("no control", frames(1)), ("a control", with_control(&frames(1), behind_count))] {
        let image = open(&file).unwrap_or_else(|err| panic!("{name}: {err}"));
        assert_eq!(image.pixels(), picture().as_raw(), "{name}");
    }
    for count in [2, 100] {
        assert!(animated(&frames(count)), "{count}");
        assert!(animated(&with_control(&frames(count), behind_count)), "{count}");
    }
}

#[test]
fn an_animated_webp_file_of_one_frame_as_large_as_the_whole_is_a_still_picture() {
    let pixels = lossless();
    let data = riff(&[(b"VP8L", &pixels)])[12..].to_vec();
    let frame = |x: u8, width: u32| {
        let place = [x, 0, 0, 0, 0, 0, width as u8 - 1, 0, 0, HEIGHT as u8 - 1, 0, 0, 100, 0, 0, 0];
        [&place[..], &data].concat()
    };
    let whole = frame(0, WIDTH);
    let file = |flags: u8, frames: &[&[u8]], exif: &[u8]| {
        let (header, loops) = (vp8x(flags), [0; 6]);
        let mut chunks: Vec<(&[u8; 4], &[u8])> = vec![(b"VP8X", &header), (b"ANIM", &loops)];
        chunks.extend(frames.iter().map(|frame| (b"ANMF", *frame)));
        if !exif.is_empty() {
            chunks.push((b"EXIF", exif));
        }
        riff(&chunks)
    };
    let image = open(&file(2, &[&whole], b"")).unwrap();
    assert_eq!((image.pixels(), image.warning()), (&picture().as_raw()[..], None));
    let image = open(&file(2 | 8, &[&whole], &tiff(6, 3, true))).unwrap();
    assert_eq!((image.pixels(), image.warning()), (&turned()[..], None));
    assert!(animated(&file(2, &[&whole, &whole], b"")), "two frames");
    assert!(animated(&file(2, &[&frame(1, WIDTH)], b"")), "a frame that stands elsewhere");
}

#[test]
fn a_webp_file_that_promises_metadata_without_having_them_is_opened_and_told() {
    let image = open(&file("webp-says-exif.webp")).unwrap();
    // The digest of the pixels that `imread` returns.
    let imread = "sha256:3051b035903eb92a2476ead610a3132bd2c0f422e477555e6400793d0538f84e";
    assert_eq!(dovetail_core::Digest::of(image.pixels()).to_string(), imread);
    let promise = |kind| format!("the file declares {kind} data but contains none");
    assert_eq!(image.warning(), Some(&*promise("EXIF")));
    let pixels = lossless();
    for (flags, kinds) in [(4, Some("XMP")), (4 | 8, Some("EXIF and XMP")), (0, None)] {
        let image = open(&riff(&[(b"VP8X", &vp8x(flags)), (b"VP8L", &pixels)])).unwrap();
        assert_eq!(image.pixels(), picture().as_raw());
        assert_eq!(image.warning().map(str::to_owned), kinds.map(promise), "{flags}");
    }
}
