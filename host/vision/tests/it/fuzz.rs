//! Untrusted image files: their headers, and the pixels of small pictures. The result is an error, or a picture of the
//! size in the header, and never a crash.

#[path = "../../../../tests/fuzz/mutator.rs"]
mod mutator;

use dovetail_core::vision::{Image, Size, Vision as _, VisionError};
use dovetail_vision::{MAX_PIXELS, MAX_SIDE, probe};
use image::{ImageBuffer, ImageFormat, Rgb};
use mutator::{files, fuzz};

use crate::common::{noise, open, photo_file, vision};

/// Pictures with at most this many pixels are also decoded. Larger pictures take long and are decoded by the same code.
const FEW: u64 = 1 << 20;

fn corpus() -> Vec<Vec<u8>> {
    let pixels = noise(24, 16, 21);
    let image = Image::new(pixels.clone(), Size { width: 24, height: 16 }).unwrap();
    let picture = ImageBuffer::<Rgb<u8>, _>::from_raw(24, 16, pixels).unwrap();
    let written = [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp].map(|format| {
        let mut out = std::io::Cursor::new(Vec::new());
        image::DynamicImage::from(picture.clone()).write_to(&mut out, format).unwrap();
        out.into_inner()
    });
    let jpeg = vision().encode(&image, "image/jpeg", Some(80), &dovetail_core::stop::Stop::never()).unwrap();
    // With an EXIF segment that turns the picture.
    let exif = b"\xff\xe1\x00\x22Exif\0\0II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let turned = [&jpeg[..2], exif, &jpeg[2..]].concat();
    written.into_iter().chain([jpeg, turned]).chain(files("tests/fuzz/images")).collect()
}

/// Whether the error is one of those that a file may cause, with a message of bounded length.
fn told(error: &VisionError) -> bool {
    let VisionError::Invalid { code, message } = error else { return false };
    matches!(*code, "undecodable" | "too_large" | "unsupported_format" | "animated") && message.len() < 4 << 10
}

#[test]
fn headers() {
    fuzz("headers", env!("CARGO_TARGET_TMPDIR"), &corpus(), 5_000, |input| match probe(input) {
        Ok(header) => {
            let Size { width, height } = header.size;
            let count = u64::from(width) * u64::from(height);
            assert!(width <= MAX_SIDE && height <= MAX_SIDE && count <= MAX_PIXELS && count > 0, "{width} x {height}");
            if count > FEW {
                return;
            }
            match open(input) {
                Ok(image) => {
                    let seen = image.size();
                    assert!(
                        seen == header.size || seen == Size { width: height, height: width },
                        "{seen:?} is not {width} x {height}"
                    );
                }
                Err(error) => assert!(told(&error), "{error:?}"),
            }
        }
        Err(error) => assert!(told(&error), "{error:?}"),
    });
}

/// Cuts each file at every fiftieth of its length. The result is an error or, if only the end of the file is missing,
/// the complete picture.
#[test]
fn truncations_at_every_fiftieth() {
    for file in corpus().into_iter().chain([photo_file("sample1.jpg")]) {
        let whole = open(&file).unwrap();
        let mut refused = 0;
        for part in 0..50 {
            match open(&file[..file.len() * part / 50]) {
                Ok(image) => assert!(
                    image.size() == whole.size() && image.pixels() == whole.pixels(),
                    "{part} fiftieths of {:x?}",
                    &file[..4]
                ),
                Err(error) => {
                    assert!(told(&error), "{part}: {error:?}");
                    refused += 1;
                }
            }
        }
        assert!(refused >= 45, "{refused} of 50 parts of {:x?} are not pictures", &file[..4]);
    }
}

#[test]
fn the_smallest_picture_and_the_longest() {
    // The maximum side of WebP is one pixel less than that of the other formats.
    for (width, height) in [(1, 1), (1, MAX_SIDE - 1), (MAX_SIDE - 1, 1), (1, MAX_SIDE)] {
        let pixels = noise(width, height, 23);
        let picture = ImageBuffer::<Rgb<u8>, _>::from_raw(width, height, pixels.clone()).unwrap();
        for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp] {
            if format == ImageFormat::WebP && height == MAX_SIDE {
                continue;
            }
            let mut out = std::io::Cursor::new(Vec::new());
            image::DynamicImage::from(picture.clone()).write_to(&mut out, format).unwrap();
            let image = open(&out.into_inner()).unwrap();
            assert!(
                image.size() == Size { width, height } && image.pixels() == pixels,
                "{width} x {height} as {format:?}"
            );
        }
        let image = Image::new(pixels, Size { width, height }).unwrap();
        let jpeg = vision().encode(&image, "image/jpeg", Some(100), &dovetail_core::stop::Stop::never()).unwrap();
        assert_eq!(open(&jpeg).unwrap().size(), Size { width, height });
    }
}

/// An invalid EXIF segment does no harm and does not turn the picture.
#[test]
fn exif_that_lies() {
    let image = Image::new(noise(24, 16, 25), Size { width: 24, height: 16 }).unwrap();
    let jpeg = vision().encode(&image, "image/jpeg", Some(80), &dovetail_core::stop::Stop::never()).unwrap();
    let plain = open(&jpeg).unwrap();
    let with = |block: &[u8]| {
        let length = (block.len() as u16 + 8).to_be_bytes();
        [&jpeg[..2], &b"\xff\xe1"[..], &length, &b"Exif\0\0"[..], block, &jpeg[2..]].concat()
    };
    let right = b"II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    assert_eq!(open(&with(right)).unwrap().size(), Size { width: 16, height: 24 });
    // An orientation of 9 and of 65535; a directory after the end; another byte order; no byte order.
    let lies: [(usize, &[u8]); 5] =
        [(18, &[9, 0]), (18, &[255, 255]), (4, &[255, 255, 255, 255]), (0, b"MM"), (0, b"??")];
    for (at, bytes) in lies {
        let mut block = right.to_vec();
        block[at..at + bytes.len()].copy_from_slice(bytes);
        let seen = open(&with(&block)).unwrap();
        assert!(seen.size() == plain.size() && seen.pixels() == plain.pixels(), "{bytes:x?} at {at}");
    }
    for block in [&right[..4], &right[..9], b""] {
        assert_eq!(open(&with(block)).unwrap().pixels(), plain.pixels());
    }
}
