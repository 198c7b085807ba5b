//! JPEG files to pixels: the Rust side of `jpeg.c`, which explains why that part is in C.

use std::ffi::{c_char, c_int, c_uint};

// The encoder's crate links the library that `jpeg.c` calls.
use turbojpeg_sys as _;

/// The most scans that are decoded. Progressive JPEG files have about ten scans. Each scan costs a pass over the whole
/// picture but needs only a few bytes in the file.
const MAX_SCANS: c_uint = 100;
/// The kinds of warnings that are kept for each picture, and the bytes of a text, both as in `jpeg.c`.
const KINDS: usize = 4;
const TEXT: usize = 200;

/// `struct dovetail_jpeg` of `jpeg.c`.
#[repr(C)]
struct JpegMessages {
    width: c_uint,
    height: c_uint,
    channels: c_uint,
    kinds: c_uint,
    ends_early: c_uint,
    warnings: [[c_char; TEXT]; KINDS],
    error: [c_char; TEXT],
}

#[expect(unsafe_code, reason = "libjpeg has no safe interface that tells warnings apart from errors")]
unsafe extern "C" {
    fn dovetail_read_jpeg(
        file: *const u8,
        length: usize,
        max_scans: c_uint,
        pixels: *mut u8,
        room: usize,
        messages: *mut JpegMessages,
    ) -> c_int;
}

/// The content of a JPEG file's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Bytes of a decoded pixel: 3 (RGB) or 4 (CMYK).
    pub(crate) channels: u32,
}

fn text(of: &[c_char; TEXT]) -> String {
    let bytes: Vec<u8> = of.iter().take_while(|c| **c != 0).map(|c| c.to_ne_bytes()[0]).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Calls the C function. If `pixels` is empty, only the header is read.
///
/// # Errors
/// libjpeg's error message.
fn call(file: &[u8], pixels: &mut [u8]) -> Result<JpegMessages, String> {
    let target = if pixels.is_empty() { std::ptr::null_mut() } else { pixels.as_mut_ptr() };
    let mut messages = JpegMessages {
        width: 0,
        height: 0,
        channels: 0,
        kinds: 0,
        ends_early: 0,
        warnings: [[0; TEXT]; KINDS],
        error: [0; TEXT],
    };
    // SAFETY: the function reads `length` bytes of `file`, and writes `room` bytes of `pixels` (none if it is null) and
    // one `JpegMessages`. It keeps no pointer, and it always returns normally.
    #[expect(unsafe_code, reason = "libjpeg has no safe interface that tells warnings apart from errors")]
    let status =
        unsafe { dovetail_read_jpeg(file.as_ptr(), file.len(), MAX_SCANS, target, pixels.len(), &raw mut messages) };
    if status == 0 { Ok(messages) } else { Err(text(&messages.error)) }
}

/// Reads the header.
///
/// # Errors
/// libjpeg's error message.
pub(crate) fn header(file: &[u8]) -> Result<Header, String> {
    let JpegMessages { width, height, channels, .. } = call(file, &mut [])?;
    Ok(Header { width, height, channels })
}

/// Fills `pixels`, which has `width * height * channels` bytes. Returns libjpeg's warnings, one of each of the first
/// four kinds.
///
/// # Errors
/// libjpeg's error message, or the message that the data end before the picture does.
pub(crate) fn decode(file: &[u8], pixels: &mut [u8]) -> Result<Vec<String>, String> {
    let messages = call(file, pixels)?;
    let warnings: Vec<String> = messages.warnings.iter().take(messages.kinds as usize).map(text).collect();
    if messages.ends_early != 0 {
        return Err(format!("its data end before the picture does ({})", warnings.join("; ")));
    }
    Ok(warnings)
}
