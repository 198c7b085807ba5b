//! Paths as text, for people and for JSON. A path is bytes; a byte that is not UTF-8 is written as `\xe9`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// A path as text.
pub trait Shown {
    /// The path for JSON: unchanged if it is UTF-8.
    fn text(&self) -> String;

    /// The path for people: as [`Shown::text`], on one line.
    fn shown(&self) -> String;
}

impl Shown for OsStr {
    fn text(&self) -> String {
        let mut text = String::new();
        for chunk in self.as_bytes().utf8_chunks() {
            text.push_str(chunk.valid());
            for byte in chunk.invalid() {
                text.push_str(&format!("\\x{byte:02x}"));
            }
        }
        text
    }

    fn shown(&self) -> String {
        one_line(&self.text())
    }
}

impl Shown for Path {
    fn text(&self) -> String {
        self.as_os_str().text()
    }

    fn shown(&self) -> String {
        self.as_os_str().shown()
    }
}

/// The text on one line: line ends and tabs are written as `\n`, `\r` and `\t`.
pub fn one_line(text: &str) -> String {
    text.replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t")
}

/// Whether the path, or a folder above it, is a link without a target.
pub(crate) fn leads_nowhere(path: &Path) -> bool {
    let is_link = |path: &&Path| std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink());
    let gone = |path: &Path| std::fs::metadata(path).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound);
    path.ancestors().filter(is_link).any(gone)
}

/// The path that consists of these bytes.
pub fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_written_as_numbers() {
        let name = |bytes: &[u8]| path_of(bytes).shown();
        assert_eq!(name(b"latin1/caf\xe9.jpg"), "latin1/caf\\xe9.jpg");
        assert_ne!(name(b"caf\xe9"), name(b"caf\xe8"));
        assert_eq!(name("café\n日本.jpg".as_bytes()), "café\\n日本.jpg");
        assert_eq!(path_of("café\n.jpg".as_bytes()).text(), "café\n.jpg");
    }
}
