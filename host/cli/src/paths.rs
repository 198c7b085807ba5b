//! Paths for people and for JSON. A path is bytes; what is no UTF-8 in it is written as `\xe9`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};

/// How a path is written.
pub(crate) trait Shown {
    /// For JSON: the very path where it is UTF-8.
    fn text(&self) -> String;

    /// For people: on one line.
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

/// The same text without line ends and tabs: they are written as `\n` and `\t`.
pub(crate) fn one_line(text: &str) -> String {
    text.replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t")
}

/// Whether the path is, or stands below, a link that leads nowhere.
pub(crate) fn leads_nowhere(path: &Path) -> bool {
    let is_link = |path: &&Path| std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink());
    let gone = |path: &Path| std::fs::metadata(path).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound);
    path.ancestors().filter(is_link).any(gone)
}

/// For options: `~/x` is below the home folder. A shell replaces the `~` only where a word begins, not in `--out=~/x`.
pub(crate) fn option() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|typed| below_home(typed.into(), std::env::var_os("HOME")))
}

fn below_home(path: PathBuf, home: Option<OsString>) -> Result<PathBuf, &'static str> {
    match (path.strip_prefix("~"), home.filter(|home| !home.is_empty())) {
        (Err(_), _) => Ok(path),
        (Ok(rest), Some(home)) => Ok(Path::new(&home).join(rest)),
        (Ok(_), None) => Err("it is below the home folder, and HOME is not set"),
    }
}

/// A path of these bytes.
pub(crate) fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_below_home_is_one_wherever_it_stands() {
        let at = |path: &str, home: Option<&str>| below_home(path.into(), home.map(OsString::from));
        assert_eq!(at("~/x", Some("/home/me")), Ok("/home/me/x".into()));
        assert_eq!(at("~", Some("/home/me")), Ok("/home/me".into()));
        for plain in ["./~/x", "x/~", "~x", "/~"] {
            assert_eq!(at(plain, Some("/home/me")), Ok(plain.into()));
        }
        assert!(at("~/x", None).is_err() && at("~/x", Some("")).is_err());
    }

    #[test]
    fn bytes_that_are_no_text_are_written_as_numbers() {
        let name = |bytes: &[u8]| path_of(bytes).shown();
        assert_eq!(name(b"latin1/caf\xe9.jpg"), "latin1/caf\\xe9.jpg");
        assert_ne!(name(b"caf\xe9"), name(b"caf\xe8"));
        assert_eq!(name("café\n日本.jpg".as_bytes()), "café\\n日本.jpg");
        assert_eq!(path_of("café\n.jpg".as_bytes()).text(), "café\n.jpg");
    }
}
