//! Image files: every format, every limit from both sides, damaged files, and encoding.

use std::io::Cursor;
use std::sync::atomic::{AtomicUsize, Ordering};

use dovetail_core::Digest;
use dovetail_core::stop::Stop;
use dovetail_core::vision::{Image, Rect, Size, Vision, VisionError};
use dovetail_vision::{MAX_FILE_BYTES, MAX_PIXELS, MAX_SIDE, Opencv, Options, probe};
use image::{DynamicImage, ImageBuffer, ImageEncoder, ImageFormat, Luma, LumaA, Rgb, Rgba};

use crate::common::{models, noise, open, photo, photo_file, vision};

fn code(result: Result<impl std::fmt::Debug, VisionError>) -> &'static str {
    match result.unwrap_err() {
        VisionError::Invalid { code, message } => {
            assert!(message.len() > 20, "{message}");
            code
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) fn png(picture: impl Into<DynamicImage>) -> Vec<u8> {
    written(picture, ImageFormat::Png)
}

pub(crate) fn written(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    picture.into().write_to(&mut out, format).unwrap();
    out.into_inner()
}

fn of_noise(width: u32, height: u32, seed: u64) -> Image {
    Image::new(noise(width, height, seed), Size { width, height }).unwrap()
}

/// A chunk of a PNG file, with its length and checksum.
pub(crate) fn chunk(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let body = [&kind[..], content].concat();
    let mut crc = u32::MAX;
    for byte in &body {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    [&(content.len() as u32).to_be_bytes(), &body[..], &(!crc).to_be_bytes()].concat()
}

/// The header of a PNG file and an empty chunk of pixels: there is nothing to decode.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR", &header), &chunk(b"IDAT", &[])].concat()
}

#[test]
fn the_photographs_are_decoded_to_the_pixels_of_imread() {
    // Digests of the RGB pixels that OpenCV's `imread` returns; ../README.md has the command.
    for (name, digest) in [
        ("sample1.jpg", "sha256:27b4376eabd44d3d37553b1c2854b68d00d49aaed57968280f082d78327f540e"),
        ("sample6.jpg", "sha256:903a80d651bfbcf2e7d516f4722a787441fce9e382d99a5903b15c31c76c1f63"),
    ] {
        assert_eq!(Digest::of(photo(name).pixels()).to_string(), digest, "{name}");
    }
}

#[test]
fn lossless_files_come_back_as_they_were() {
    let pixels = noise(31, 17, 1);
    let picture = ImageBuffer::<Rgb<u8>, _>::from_raw(31, 17, pixels.clone()).unwrap();
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp] {
        let image = open(&written(picture.clone(), format)).unwrap();
        assert_eq!(image.size(), Size { width: 31, height: 17 });
        assert_eq!(image.pixels(), pixels, "{format:?}");
    }
}

#[test]
fn alpha_is_dropped_grey_is_tripled_and_of_16_bits_the_upper_8_are_kept() {
    let rgba = ImageBuffer::<Rgba<u8>, _>::from_raw(2, 1, vec![1, 2, 3, 0, 4, 5, 6, 128]).unwrap();
    let gray = ImageBuffer::<Luma<u8>, _>::from_raw(2, 1, vec![7, 250]).unwrap();
    let gray_alpha = ImageBuffer::<LumaA<u8>, _>::from_raw(2, 1, vec![7, 0, 250, 9]).unwrap();
    let deep =
        ImageBuffer::<Rgb<u16>, _>::from_raw(2, 1, vec![0x01ff, 0x0280, 0x0300, 0xffff, 0xfe7f, 0x00ff]).unwrap();
    let deep_gray = ImageBuffer::<Luma<u16>, _>::from_raw(2, 1, vec![0x07ff, 0xfa00]).unwrap();
    for (name, file, expected) in [
        ("rgba png", png(rgba.clone()), [1, 2, 3, 4, 5, 6]),
        ("rgba webp", written(rgba, ImageFormat::WebP), [1, 2, 3, 4, 5, 6]),
        ("grey", png(gray), [7, 7, 7, 250, 250, 250]),
        ("grey and alpha", png(gray_alpha), [7, 7, 7, 250, 250, 250]),
        ("16 bits", png(deep), [1, 2, 3, 0xff, 0xfe, 0]),
        ("16 bits of grey", png(deep_gray), [7, 7, 7, 0xfa, 0xfa, 0xfa]),
    ] {
        assert_eq!(open(&file).unwrap().pixels(), expected, "{name}");
    }
}

fn jpeg(image: &Image) -> Vec<u8> {
    vision().encode(image, "image/jpeg", Some(95), &Stop::never()).unwrap()
}

/// A segment that contains only the orientation, in either byte order.
fn exif(orientation: u16, little: bool) -> Vec<u8> {
    let mut segment = b"\xff\xe1\x00\x22Exif\0\0".to_vec();
    if little {
        segment.extend(b"II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0");
        segment.extend(orientation.to_le_bytes());
    } else {
        segment.extend(b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01");
        segment.extend(orientation.to_be_bytes());
    }
    segment.extend([0; 6]);
    segment
}

#[test]
fn all_eight_orientations_stand_upright() {
    // Large areas of one colour survive JPEG: the quarters are red, green, blue and white.
    let colours = [[250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 250]];
    let pixels: Vec<u8> = (0..32)
        .flat_map(|y| (0..48).flat_map(move |x| colours[usize::from(y >= 16) * 2 + usize::from(x >= 24)]))
        .collect();
    let plain = jpeg(&Image::new(pixels, Size { width: 48, height: 32 }).unwrap());
    // For each orientation, the quarters at top left, top right, bottom left and bottom right of the upright picture.
    let upright = [
        [0, 1, 2, 3],
        [1, 0, 3, 2],
        [3, 2, 1, 0],
        [2, 3, 0, 1],
        [0, 2, 1, 3],
        [2, 0, 3, 1],
        [3, 1, 2, 0],
        [1, 3, 0, 2],
    ];
    for (i, quarters) in upright.iter().enumerate() {
        for little in [true, false] {
            let file = [&plain[..2], &exif(i as u16 + 1, little), &plain[2..]].concat();
            let image = open(&file).unwrap();
            let Size { width, height } = image.size();
            assert_eq!((width, height), if i < 4 { (48, 32) } else { (32, 48) }, "orientation {}", i + 1);
            let at = |x: u32, y: u32| &image.pixels()[((y * width + x) * 3) as usize..][..3];
            let seen = [at(4, 4), at(width - 5, 4), at(4, height - 5), at(width - 5, height - 5)];
            for (seen, quarter) in seen.iter().zip(quarters) {
                let near = seen.iter().zip(colours[*quarter]).all(|(a, b)| a.abs_diff(b) < 30);
                assert!(near, "orientation {}: {seen:?} is not {:?}", i + 1, colours[*quarter]);
            }
        }
    }
    // An orientation that does not exist is ignored.
    let odd = [&plain[..2], &exif(9, true), &plain[2..]].concat();
    assert_eq!(open(&odd).unwrap().size(), Size { width: 48, height: 32 });
}

#[test]
fn a_file_that_is_cut_off_is_undecodable() {
    let photo = photo_file("sample1.jpg");
    let noisy = ImageBuffer::<Rgb<u8>, _>::from_raw(64, 64, noise(64, 64, 3)).unwrap();
    let files =
        [photo, png(noisy.clone()), written(noisy.clone(), ImageFormat::WebP), written(noisy, ImageFormat::Bmp)];
    for file in &files {
        for keep in [file.len() / 2, file.len() - file.len() / 10, 20] {
            assert_eq!(code(open(&file[..keep])), "undecodable", "{keep} of {} bytes: {:x?}", file.len(), &file[..4]);
        }
    }
}

#[test]
fn what_is_no_image_is_named_so() {
    assert_eq!(code(open(b"")), "undecodable");
    for file in [&b"just a text that somebody renamed"[..], b"GIF89a\x01\0\x01\0", b"\0\0\0\x20ftypheic", b"\xff\xd8"] {
        assert_eq!(code(open(file)), "unsupported_format", "{file:?}");
    }
    assert_eq!(code(open(b"\xff\xd8\xff\xe0 and so on")), "undecodable");
    assert_eq!(code(open(b"BM and so on, whatever")), "undecodable");
}

#[test]
fn animated_pictures_are_refused() {
    // An acTL chunk with two frames after the header makes a PNG file animated.
    let still = png(ImageBuffer::<Rgb<u8>, _>::from_raw(4, 4, noise(4, 4, 5)).unwrap());
    let header = 8 + 25;
    let moving = [&still[..header], &chunk(b"acTL", &[0, 0, 0, 2, 0, 0, 0, 0]), &still[header..]].concat();
    assert_eq!(code(open(&moving)), "animated");
    // A WebP file with the animation flag, an ANIM chunk and one empty frame.
    let mut webp =
        b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0\x03\0\0\x03\0\0ANIM\x06\0\0\0\0\0\0\0\0\0ANMF\x18\0\0\0".to_vec();
    webp.extend([0; 16]);
    webp.extend(b"VP8L\0\0\0\0");
    let length = webp.len() as u32 - 8;
    webp[4..8].copy_from_slice(&length.to_le_bytes());
    assert_eq!(code(open(&webp)), "animated");
}

#[test]
fn the_limits_of_sides_and_pixels_are_read_from_the_header() {
    // Within the limits: the header is accepted.
    for (w, h) in [(MAX_SIDE, 100), (8160, 6144), (8192, 8192)] {
        assert_eq!(probe(&png_header(w, h)).unwrap().size, Size { width: w, height: h });
        assert!(u64::from(w) * u64::from(h) <= MAX_PIXELS);
    }
    // Beyond the limits, in a file of a few bytes: no pixels can have been decoded.
    for (w, h) in [
        (MAX_SIDE + 1, 1),
        (1, MAX_SIDE + 1),
        (8192, 8193),
        (0x7fff_ffff, 0x7fff_ffff),
        (0x8000_0000, 1),
        (1, u32::MAX),
    ] {
        assert_eq!(
            (code(probe(&png_header(w, h))), code(open(&png_header(w, h)))),
            ("too_large", "too_large"),
            "{w} x {h}"
        );
    }
    assert_eq!(code(probe(&png_header(0, 1))), "undecodable");
    // A JPEG file whose header declares a false size.
    let mut file = jpeg(&of_noise(16, 16, 7));
    let frame = file.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    file[frame + 5..frame + 9].copy_from_slice(&[0x27, 0x10, 0x27, 0x10]);
    assert_eq!(code(probe(&file)), "too_large");
    // A picture at the limit is decoded.
    let long = ImageBuffer::<Rgb<u8>, _>::from_raw(MAX_SIDE, 2, vec![9; MAX_SIDE as usize * 6]).unwrap();
    assert_eq!(open(&png(long)).unwrap().size().width, MAX_SIDE);
}

/// The sizes of cameras with 50 and with 64 megapixels; and the most pixels that are allowed, with an orientation that
/// turns the picture.
#[test]
fn the_largest_photographs_are_decoded() {
    for (width, height, turn) in [(8160, 6144, false), (9248, 6936, false), (8192, 8192, true)] {
        let even = Image::new(vec![77; width as usize * height as usize * 3], Size { width, height }).unwrap();
        let plain = jpeg(&even);
        drop(even);
        let turned = exif(if turn { 6 } else { 1 }, true);
        let image = open(&[&plain[..2], &turned, &plain[2..]].concat()).unwrap();
        assert_eq!(
            u64::from(image.size().width) * u64::from(image.size().height),
            u64::from(width) * u64::from(height)
        );
        assert!(image.pixels().iter().all(|&value| value == 77));
    }
    assert_eq!(8192 * 8192, MAX_PIXELS);
}

#[test]
fn the_limit_of_the_file_is_obeyed_and_violated() {
    // A PNG decoder ignores bytes after the end of the picture.
    let mut file = png(ImageBuffer::<Rgb<u8>, _>::from_raw(4, 4, noise(4, 4, 9)).unwrap());
    file.resize(MAX_FILE_BYTES, 0);
    assert!(open(&file).is_ok());
    file.push(0);
    assert_eq!(code(open(&file)), "too_large");
}

#[test]
fn encoding_is_lossless_or_close() {
    let (vision, stop) = (vision(), Stop::never());
    let image = of_noise(33, 21, 11);
    for media_type in ["image/png", "image/webp"] {
        let file = vision.encode(&image, media_type, None, &stop).unwrap();
        assert_eq!(probe(&file).unwrap().media_type, media_type);
        assert_eq!(open(&file).unwrap().pixels(), image.pixels());
        assert_eq!(code(vision.encode(&image, media_type, Some(90), &stop)), "bad_quality");
    }
    let photo = photo("sample1.jpg");
    let of = |quality| vision.encode(&photo, "image/jpeg", quality, &stop).unwrap();
    let (small, usual) = (of(Some(20)), of(None));
    assert!(small.len() * 2 < usual.len(), "{} and {}", small.len(), usual.len());
    let again = open(&usual).unwrap();
    let apart: u64 = again.pixels().iter().zip(photo.pixels()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    assert!(apart < photo.pixels().len() as u64 * 2, "{apart}");
    for quality in [0, 101, 255] {
        assert_eq!(code(vision.encode(&image, "image/jpeg", Some(quality), &stop)), "bad_quality");
    }
    assert_eq!(code(vision.encode(&image, "image/gif", None, &stop)), "unsupported_format");
}

#[test]
fn a_crop_holds_what_the_area_touches() {
    let (vision, image) = (vision(), of_noise(10, 8, 13));
    let area = |x, y, width, height| Rect { x, y, width, height };
    let part = vision.crop(&image, area(2.0, 3.0, 4.0, 2.0)).unwrap();
    assert_eq!(part.size(), Size { width: 4, height: 2 });
    assert_eq!(part.pixels()[..12], image.pixels()[(3 * 10 + 2) * 3..][..12]);
    assert_eq!(vision.crop(&image, area(-1e30, -5.0, f32::MAX, 100.0)).unwrap().size(), image.size());
    for bad in [
        area(f32::NAN, 0.0, 1.0, 1.0),
        area(0.0, 0.0, f32::INFINITY, 1.0),
        area(0.0, 0.0, 0.0, 1.0),
        area(0.0, 0.0, -3.0, 1.0),
        area(10.0, 0.0, 5.0, 5.0),
        area(-5.0, 0.0, 5.0, 5.0),
        area(f32::MAX, 0.0, f32::MAX, 1.0),
    ] {
        assert_eq!(code(vision.crop(&image, bad)), "empty_area", "{bad:?}");
    }
}

#[test]
fn resizing_has_the_same_limits() {
    let (vision, stop) = (vision(), Stop::never());
    let image = of_noise(10, 8, 15);
    let to = |width, height| vision.resize(&image, Size { width, height }, &stop);
    assert_eq!(to(5, 4).unwrap().size(), Size { width: 5, height: 4 });
    assert_eq!(to(MAX_SIDE, 1).unwrap().size(), Size { width: MAX_SIDE, height: 1 });
    for (w, h) in [(MAX_SIDE + 1, 1), (8192, 8193), (u32::MAX, u32::MAX)] {
        assert_eq!(code(to(w, h)), "too_large");
    }
    assert_eq!(code(to(0, 5)), "empty_area");
    let even = Image::new(vec![77; 300], Size { width: 10, height: 10 }).unwrap();
    assert!(vision.resize(&even, Size { width: 3, height: 3 }, &stop).unwrap().pixels().iter().all(|&v| v == 77));
}

#[test]
fn two_that_ask_at_once_decode_once() {
    let file = photo_file("sample2.jpg");
    let digest = Digest::of(&file);
    let vision = Opencv::new(Options::new(models())).unwrap();
    let reads = AtomicUsize::new(0);
    let images: Vec<Image> = std::thread::scope(|s| {
        let ask = || {
            vision.open(
                &digest,
                &mut || {
                    reads.fetch_add(1, Ordering::SeqCst);
                    Ok(file.clone())
                },
                &Stop::never(),
            )
        };
        let threads: Vec<_> = (0..8).map(|_| s.spawn(ask)).collect();
        threads.into_iter().map(|t| t.join().unwrap().unwrap()).collect()
    });
    assert_eq!(reads.load(Ordering::SeqCst), 1);
    assert!(images.iter().all(|i| i.same(&images[0])));
}

#[test]
fn a_failure_is_not_remembered_and_without_a_cache_everything_still_works() {
    let file = photo_file("sample2.jpg");
    let digest = Digest::of(&file);
    let vision = Opencv::new(Options { image_cache_bytes: 0, ..Options::new(models()) }).unwrap();
    let mut gone = || Err(VisionError::unavailable("blob_missing", "not there just now"));
    assert!(matches!(
        vision.open(&digest, &mut gone, &Stop::never()),
        Err(VisionError::Unavailable { code: "blob_missing", .. })
    ));
    let one = vision.open(&digest, &mut || Ok(file.clone()), &Stop::never()).unwrap();
    let two = vision.open(&digest, &mut || Ok(file.clone()), &Stop::never()).unwrap();
    assert!(!one.same(&two), "nothing is kept");
    assert_eq!(one.pixels(), two.pixels());
}

#[test]
fn cmyk_is_converted() {
    // White paper and full ink, stored inverted as Adobe does.
    let inks: Vec<u8> =
        (0..16 * 16).flat_map(|i| if i % 16 < 8 { [255, 255, 255, 255] } else { [0, 255, 255, 255] }).collect();
    let mut encoder = turbojpeg::Compressor::new().unwrap();
    encoder.set_quality(100).unwrap();
    encoder.set_subsamp(turbojpeg::Subsamp::None).unwrap();
    let picture =
        turbojpeg::Image { pixels: &inks[..], width: 16, pitch: 64, height: 16, format: turbojpeg::PixelFormat::CMYK };
    let image = open(&encoder.compress_to_vec(picture).unwrap()).unwrap();
    let near = |x: usize, rgb: [u8; 3]| image.pixels()[x * 3..][..3].iter().zip(rgb).all(|(a, b)| a.abs_diff(b) < 8);
    assert!(near(2, [255, 255, 255]) && near(13, [0, 255, 255]), "{:?}", &image.pixels()[..48]);
}

#[test]
fn a_grey_jpeg_becomes_three_equal_channels() {
    let gray: Vec<u8> = (0..64).map(|i| if i % 8 < 4 { 20 } else { 230 }).collect();
    let mut encoder = turbojpeg::Compressor::new().unwrap();
    encoder.set_quality(100).unwrap();
    encoder.set_subsamp(turbojpeg::Subsamp::Gray).unwrap();
    let picture =
        turbojpeg::Image { pixels: &gray[..], width: 8, pitch: 8, height: 8, format: turbojpeg::PixelFormat::GRAY };
    let image = open(&encoder.compress_to_vec(picture).unwrap()).unwrap();
    for (rgb, expected) in image.pixels().chunks(3).zip(&gray) {
        assert!(rgb[0] == rgb[1] && rgb[1] == rgb[2] && rgb[0].abs_diff(*expected) < 5, "{rgb:?} is not {expected}");
    }
}

#[test]
fn pixels_stay_in_their_places() {
    let mut file = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut file);
    encoder.write_image(&[0, 255, 255, 0], 2, 2, image::ExtendedColorType::L8).unwrap();
    assert_eq!(open(&file).unwrap().pixels(), [0, 0, 0, 255, 255, 255, 255, 255, 255, 0, 0, 0]);
}
