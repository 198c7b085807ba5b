//! Image files to pixels and back. libjpeg-turbo decodes JPEG; crate `image` decodes PNG, WebP and BMP. The pixels
//! equal those of OpenCV's `imgcodecs`, which is not used.
//!
//! The header is read and compared with the limits before any pixel is decoded. Every picture becomes RGB with 8 bits a
//! channel: alpha is dropped, grey is copied to all three channels, 16 bits are cut to the upper 8, and CMYK is
//! converted as OpenCV does. Colour profiles are ignored.

use std::borrow::Cow;
use std::io::Cursor;

use dovetail_core::scarce::Scarce;
use dovetail_core::vision::{Image, Size, VisionError};
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageEncoder};
use turbojpeg::PixelFormat;

use crate::annotation::Probe;
use crate::chunks;
use crate::exif::{jpeg_orientation, png_orientation, upright, webp_orientation};
use crate::heap;
use crate::jpeg;

/// The largest file that is decoded, in bytes.
pub const MAX_FILE_BYTES: usize = 32 << 20;
/// The longest side, in pixels.
pub const MAX_SIDE: u32 = 16_384;
/// The most pixels, 64 Mi. Phones with 50 megapixels (8160 x 6144) and with 64 megapixels (9248 x 6936) stay below it.
pub const MAX_PIXELS: u64 = 64 << 20;
/// The most bytes that a decoder may hold before the conversion to RGB: four bytes for each of [`MAX_PIXELS`]. With 16
/// bits a channel half as many pixels fit.
const MAX_DECODED: u64 = 4 * MAX_PIXELS;

/// The formats that are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Jpeg,
    Png,
    WebP,
    Bmp,
}

/// libjpeg-turbo's messages for memory that the system refuses. Such a failure is not the file's fault.
const NO_MEMORY: [&str; 2] = ["Memory allocation failure", "Insufficient memory (case"];

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Bmp => "BMP",
        }
    }
}

fn undecodable(what: &str, why: impl std::fmt::Display) -> VisionError {
    let why = why.to_string();
    if NO_MEMORY.iter().any(|words| why.contains(words)) {
        let message = format!("decode the {what} file: {why}");
        return VisionError::Scarce { scarce: Scarce::Memory, message };
    }
    VisionError::invalid("undecodable", format!("the {what} file cannot be decoded: {why}"))
}

/// Checks a picture's size against the limits.
fn check_size(size: Size) -> Result<Size, VisionError> {
    let Size { width, height } = size;
    if width == 0 || height == 0 {
        return Err(VisionError::invalid("undecodable", format!("the picture has no pixels: {width} x {height}")));
    }
    let pixels = u64::from(width) * u64::from(height);
    if width > MAX_SIDE || height > MAX_SIDE || pixels > MAX_PIXELS {
        return Err(VisionError::invalid(
            "too_large",
            format!(
                "the picture has {width} x {height} pixels: a side may have at most {MAX_SIDE} and the whole at most \
                 {MAX_PIXELS}; make it smaller"
            ),
        ));
    }
    Ok(size)
}

/// The same limits for a picture that is to be created.
pub(crate) fn check_target(size: Size) -> Result<(), VisionError> {
    if size.width == 0 || size.height == 0 {
        return Err(VisionError::invalid(
            "empty_area",
            format!("a picture of {} x {} pixels is empty", size.width, size.height),
        ));
    }
    check_size(size).map(drop)
}

/// The format, by the first bytes of the file.
fn format(file: &[u8]) -> Result<Format, VisionError> {
    if file.len() > MAX_FILE_BYTES {
        return Err(VisionError::file_too_large(file.len() as u64, MAX_FILE_BYTES as u64));
    }
    if file.is_empty() {
        return Err(VisionError::invalid("undecodable", "the file is empty: there is no picture in it"));
    }
    match file {
        [0xff, 0xd8, 0xff, ..] => Ok(Format::Jpeg),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Ok(Format::Png),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Ok(Format::WebP),
        [b'B', b'M', ..] => Ok(Format::Bmp),
        _ => Err(VisionError::invalid("unsupported_format", "the file is not a JPEG, PNG, WebP or BMP image")),
    }
}

/// The size in a PNG file's header chunk, which is the first chunk.
fn png_size(file: &[u8]) -> Option<Size> {
    let number = |at: usize| Some(u32::from_be_bytes(file.get(at..at + 4)?.try_into().ok()?));
    let is_header = file.get(12..16)? == b"IHDR";
    is_header.then_some(Size { width: number(16)?, height: number(20)? })
}

/// The header of a file. Nothing else has been decoded.
enum Header<'a> {
    Jpeg(jpeg::Header),
    Other(Format, Box<dyn ImageDecoder + 'a>),
}

fn header(file: &[u8]) -> Result<(Probe, Header<'_>), VisionError> {
    let animated = || VisionError::invalid("animated", "the picture is animated; take one frame of it");
    let format = format(file)?;
    let bad = |err| undecodable(format.name(), err);
    let (media_type, header) = match format {
        Format::Jpeg => {
            let header = jpeg::header(file).map_err(|err| undecodable("JPEG", err))?;
            ("image/jpeg", Header::Jpeg(header))
        }
        Format::Png => {
            // Check the size first: if a side is too long, the decoder reports a damaged file before it gives the size.
            if let Some(size) = png_size(file) {
                check_size(size)?;
            }
            let mut limits = image::Limits::default();
            limits.max_alloc = Some(MAX_DECODED);
            let decoder = image::codecs::png::PngDecoder::with_limits(Cursor::new(file), limits).map_err(bad)?;
            if decoder.is_apng().map_err(bad)? && chunks::png_frames(file) != Some(1) {
                return Err(animated());
            }
            ("image/png", Header::Other(format, Box::new(decoder)))
        }
        Format::WebP => {
            let read = |file| image::codecs::webp::WebPDecoder::new(Cursor::new(file)).map_err(bad);
            let mut decoder = read(if chunks::webp_lacks(file).is_empty() {
                Cow::Borrowed(file)
            } else {
                Cow::Owned(chunks::webp_without_promises(file))
            })?;
            if decoder.has_animation() {
                decoder = read(Cow::Owned(chunks::webp_still(file).ok_or_else(animated)?))?;
            }
            ("image/webp", Header::Other(format, Box::new(decoder)))
        }
        Format::Bmp => {
            let decoder = image::codecs::bmp::BmpDecoder::new(Cursor::new(file)).map_err(bad)?;
            ("image/bmp", Header::Other(format, Box::new(decoder)))
        }
    };
    let (width, height) = match &header {
        Header::Jpeg(header) => (header.width, header.height),
        Header::Other(_, decoder) => decoder.dimensions(),
    };
    let size = check_size(Size { width, height })?;
    Ok((Probe { media_type, size }, header))
}

/// Reads the header and checks the limits. Decodes no pixels.
///
/// # Errors
/// `Invalid` with `undecodable`, `too_large`, `unsupported_format` or `animated`.
pub fn probe(file: &[u8]) -> Result<Probe, VisionError> {
    header(file).map(|(probe, _)| probe)
}

/// Decodes a whole file and turns the picture upright.
///
/// # Errors
/// The errors of [`probe`]; `undecodable` if the data end before the picture does.
pub(crate) fn decode(file: &[u8]) -> Result<Image, VisionError> {
    let (Probe { size: Size { width, height }, .. }, header) = header(file)?;
    let (pixels, orientation, warning) = match header {
        Header::Jpeg(header) => {
            let (pixels, warnings) = decode_jpeg(header, file)?;
            let warning = (!warnings.is_empty()).then(|| format!("libjpeg warned: {}", warnings.join("; ")));
            (pixels, jpeg_orientation(file), warning)
        }
        Header::Other(Format::WebP, decoder) => {
            let lacks = chunks::webp_lacks(file).join(" and ");
            let warning = (!lacks.is_empty()).then(|| format!("the file declares {lacks} data but contains none"));
            (decode_other("WebP", decoder)?, webp_orientation(file), warning)
        }
        Header::Other(Format::Png, decoder) => (decode_other("PNG", decoder)?, png_orientation(file), None),
        Header::Other(format, decoder) => (decode_other(format.name(), decoder)?, Orientation::NoTransforms, None),
    };
    let (pixels, width, height) = upright(pixels, width, height, orientation);
    let image = Image::new(pixels, Size { width, height }).expect("the decoders fill three bytes a pixel");
    Ok(match warning {
        Some(warning) => image.warned(warning),
        None => image,
    })
}

/// The RGB pixels, and libjpeg's warnings.
fn decode_jpeg(header: jpeg::Header, file: &[u8]) -> Result<(Vec<u8>, Vec<String>), VisionError> {
    let pixels = header.width as usize * header.height as usize;
    let run = |target: &mut [u8]| jpeg::decode(file, target).map_err(|err| undecodable("JPEG", err));
    let mut rgb = heap::zeroed(pixels * 3);
    if header.channels == 3 {
        let warnings = run(&mut rgb)?;
        return Ok((rgb, warnings));
    }
    let mut inks = heap::zeroed(pixels * 4);
    let warnings = run(&mut inks)?;
    for (to, from) in rgb.as_chunks_mut::<3>().0.iter_mut().zip(inks.as_chunks::<4>().0) {
        let k = i32::from(from[3]);
        // OpenCV's conversion (`icvCvt_CMYK2BGR_8u_C4C3R`). Inks are stored inverted, as Adobe does.
        for (to, &ink) in to.iter_mut().zip(from) {
            *to = (k - (((255 - i32::from(ink)) * k) >> 8)) as u8;
        }
    }
    Ok((rgb, warnings))
}

fn decode_other(name: &str, decoder: Box<dyn ImageDecoder + '_>) -> Result<Vec<u8>, VisionError> {
    let (color, bytes) = (decoder.color_type(), decoder.total_bytes());
    if bytes > MAX_DECODED {
        let message = format!(
            "the picture takes {bytes} bytes decoded: at most {MAX_DECODED} are allowed; store it with 8 bits a \
             channel or make it smaller"
        );
        return Err(VisionError::invalid("too_large", message));
    }
    let mut raw = heap::zeroed(bytes as usize);
    decoder.read_image_boxed(&mut raw).map_err(|err| undecodable(name, err))?;
    let (width, gray) = match color {
        ColorType::Rgb8 => return Ok(raw),
        ColorType::L8 => (1, true),
        ColorType::La8 => (2, true),
        ColorType::Rgba8 => (4, false),
        ColorType::L16 => (2, true),
        ColorType::La16 => (4, true),
        ColorType::Rgb16 => (6, false),
        ColorType::Rgba16 => (8, false),
        other => return Err(undecodable(name, format!("pixels of the type {other:?} are not supported"))),
    };
    let deep = color.bytes_per_pixel() > color.channel_count();
    let value = |pixel: &[u8], channel: usize| {
        // Of 16 bits, keep the upper 8, as libpng's `png_set_strip_16` does. The decoder gives 16-bit values in native
        // byte order.
        if deep {
            (u16::from_ne_bytes([pixel[channel * 2], pixel[channel * 2 + 1]]) >> 8) as u8
        } else {
            pixel[channel]
        }
    };
    let count = raw.len() / width;
    let mut rgb = heap::zeroed(count * 3);
    for (to, from) in rgb.as_chunks_mut::<3>().0.iter_mut().zip(raw.chunks_exact(width)) {
        *to = if gray { [value(from, 0); 3] } else { [value(from, 0), value(from, 1), value(from, 2)] };
    }
    Ok(rgb)
}

/// Encodes a picture. `image/png` and `image/webp` are lossless; `image/jpeg` has 4:2:0 chroma and quality 90 by
/// default.
///
/// # Errors
/// `Invalid` with `unsupported_format` or `bad_quality` (out of 1..=100, or given for a lossless format); `Unavailable`
/// with `encode_failed`.
pub(crate) fn encode(image: &Image, media_type: &str, quality: Option<u8>) -> Result<Vec<u8>, VisionError> {
    let Size { width, height } = image.size();
    let failed = |err: &dyn std::fmt::Display| {
        VisionError::unavailable("encode_failed", format!("the picture cannot be encoded: {err}"))
    };
    if !matches!(media_type, "image/png" | "image/jpeg" | "image/webp") {
        let message = format!("`{media_type}` cannot be written: choose image/png, image/jpeg or image/webp");
        return Err(VisionError::invalid("unsupported_format", message));
    }
    if quality.is_some_and(|q| media_type != "image/jpeg" || !(1..=100).contains(&q)) {
        let message = format!(
            "the quality is {} for `{media_type}`: it must be 1 to 100, for image/jpeg only (PNG and WebP are \
             written without loss)",
            quality.unwrap_or(0)
        );
        return Err(VisionError::invalid("bad_quality", message));
    }
    let mut out = Vec::new();
    let rgb = image::ExtendedColorType::Rgb8;
    match media_type {
        "image/jpeg" => {
            let run = || -> turbojpeg::Result<Vec<u8>> {
                let mut encoder = turbojpeg::Compressor::new()?;
                encoder.set_quality(i32::from(quality.unwrap_or(90)))?;
                encoder.set_subsamp(turbojpeg::Subsamp::Sub2x2)?;
                let (width, height) = (width as usize, height as usize);
                encoder.compress_to_vec(turbojpeg::Image {
                    pixels: image.pixels(),
                    width,
                    pitch: width * 3,
                    height,
                    format: PixelFormat::RGB,
                })
            };
            out = run().map_err(|err| failed(&err))?;
        }
        "image/png" => {
            let encoder = image::codecs::png::PngEncoder::new(&mut out);
            encoder.write_image(image.pixels(), width, height, rgb).map_err(|err| failed(&err))?;
        }
        _ => {
            let encoder = image::codecs::webp::WebPEncoder::new_lossless(&mut out);
            encoder.write_image(image.pixels(), width, height, rgb).map_err(|err| failed(&err))?;
        }
    }
    Ok(out)
}
