//! Media types, guessed from the first bytes of a file. They are for people, and for tasks that ask. A decoder does not
//! use them.

use std::path::Path;

/// First bytes of files, and their media types.
const MAGIC: &[(&[u8], &str)] = &[
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"BM", "image/bmp"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"%PDF-", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x1f\x8b", "application/gzip"),
    (b"\0asm", "application/wasm"),
];
/// How many bytes are checked for being text.
const LOOK: usize = 4096;

/// Whether a file's extension is that of a JPEG, PNG, WebP or BMP picture.
pub(crate) fn is_picture(file: &Path) -> bool {
    let extension = file.extension().and_then(|extension| extension.to_str()).map(str::to_lowercase);
    extension.is_some_and(|extension| matches!(extension.as_str(), "jpg" | "jpeg" | "png" | "webp" | "bmp"))
}

/// The media type of these bytes; `application/octet-stream` if it is unknown.
pub fn sniff(bytes: &[u8]) -> &'static str {
    if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        return "image/webp";
    }
    if let Some((_, known)) = MAGIC.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return known;
    }
    let head = &bytes[..bytes.len().min(LOOK)];
    let text = match std::str::from_utf8(head) {
        Ok(text) => Some(text),
        // The cut at `LOOK` bytes may have split a character.
        Err(error) if error.error_len().is_none() && head.len() == LOOK => {
            std::str::from_utf8(&head[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    match text {
        Some(text)
            if text.is_empty() || text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) =>
        {
            "application/octet-stream"
        }
        Some(text) if text.trim_start().starts_with(['{', '[']) => "application/json",
        Some(_) => "text/plain",
        None => "application/octet-stream",
    }
}

/// The extension for a file of this media type; `bin` if it is unknown.
pub(crate) fn extension(media_type: &str) -> &'static str {
    match media_type {
        "image/jpeg" => "jpg",
        "image/png" => "png",
        "image/webp" => "webp",
        "image/bmp" => "bmp",
        "application/json" => "json",
        "application/pdf" => "pdf",
        "application/zip" => "zip",
        "text/plain" => "txt",
        _ => "bin",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_tell_their_type() {
        for (bytes, expected) in [
            (&b"\xff\xd8\xff\xe0"[..], "image/jpeg"),
            (b"RIFF\x10\0\0\0WEBPVP8 ", "image/webp"),
            (b"RIFF\x10\0\0\0WAVE", "application/octet-stream"),
            (b"", "application/octet-stream"),
            (b"hello\n", "text/plain"),
            (b" {\"a\": 1}", "application/json"),
            (b"\0\x01\x02", "application/octet-stream"),
        ] {
            assert_eq!(sniff(bytes), expected, "{bytes:?}");
        }
        let long = "é".repeat(LOOK);
        assert_eq!(sniff(&long.as_bytes()[1..]), "application/octet-stream");
        assert_eq!(sniff(format!("x{long}").as_bytes()), "text/plain");
    }
}
