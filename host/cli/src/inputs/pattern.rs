//! Patterns of file names: `*`, `?` and `[...]` within a name, `**` for folders at any depth. Names are bytes. A byte
//! that is not UTF-8 is matched as one character.
//!
//! The crate `glob` only matches names here. Its search for files is not used: it leaves out names that are not UTF-8,
//! and panics on some of them.

use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern, PatternError};

use dovetail_service::Error;
use dovetail_service::paths::{Shown as _, path_of};

/// Hidden names are matched only by a pattern that begins with a dot.
const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// A part of a pattern between two slashes.
enum Part {
    /// A name without special characters.
    Name(PathBuf),
    /// `**`: the folder, and every folder below it.
    Below,
    /// A name with special characters. If a file has exactly this name, only that file matches; otherwise all names
    /// that match the pattern.
    Names(PathBuf, Result<Pattern, PatternError>),
}

/// Whether the bytes have a special character of patterns.
pub(super) fn is_pattern(bytes: &[u8]) -> bool {
    bytes.iter().any(|b| matches!(b, b'*' | b'?' | b'['))
}

/// All paths that match, in no order and maybe with duplicates.
pub(super) fn matching(pattern: &Path) -> Result<Vec<PathBuf>, Error> {
    let bytes = pattern.as_os_str().as_bytes();
    let mut parts: Vec<Part> = bytes.split(|b| *b == b'/').filter(|part| !part.is_empty()).map(Part::of).collect();
    if bytes.ends_with(b"/") {
        // Only a folder has the entry `.`.
        parts.push(Part::Name(PathBuf::from(".")));
    }
    let base = if bytes.starts_with(b"/") { Path::new("/") } else { Path::new("") };
    let mut search = Search { pattern, above: Vec::new(), found: Vec::new() };
    search.walk(base, &parts)?;
    Ok(search.found)
}

impl Part {
    fn of(bytes: &[u8]) -> Self {
        match bytes {
            b"**" => Self::Below,
            _ if is_pattern(bytes) => Self::Names(path_of(bytes), Pattern::new(&as_text(bytes))),
            _ => Self::Name(path_of(bytes)),
        }
    }
}

/// The bytes as text. Each byte that is not UTF-8 becomes a private-use character, which file names do not have.
fn as_text(bytes: &[u8]) -> String {
    const PRIVATE: u32 = 0x0010_fe00;
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().filter_map(|byte| char::from_u32(PRIVATE + u32::from(*byte))));
    }
    text
}

struct Search<'a> {
    pattern: &'a Path,
    /// Device and inode of the folders on the way down through `**`, to detect a cycle of links.
    above: Vec<(u64, u64)>,
    found: Vec<PathBuf>,
}

impl Search<'_> {
    fn walk(&mut self, base: &Path, parts: &[Part]) -> Result<(), Error> {
        let Some((part, rest)) = parts.split_first() else {
            self.found.push(base.to_owned());
            return Ok(());
        };
        match part {
            Part::Name(name) => {
                let path = base.join(name);
                if self.is_there(&path)? { self.walk(&path, rest) } else { Ok(()) }
            }
            Part::Below => self.below(base, parts, rest),
            Part::Names(name, pattern) => {
                let path = base.join(name);
                if self.is_there(&path)? {
                    return self.walk(&path, rest);
                }
                let pattern = pattern.as_ref().map_err(|e| {
                    Error::usage("bad_glob", format!("`{}` is not a valid pattern", self.pattern.shown()))
                        .cause(e.to_string())
                })?;
                for name in self.names(base)? {
                    if pattern.matches_with(&as_text(name.as_os_str().as_bytes()), OPTIONS) {
                        self.walk(&base.join(name), rest)?;
                    }
                }
                Ok(())
            }
        }
    }

    fn below(&mut self, base: &Path, parts: &[Part], rest: &[Part]) -> Result<(), Error> {
        let folder = |path: &Path| std::fs::metadata(path).ok().filter(Metadata::is_dir);
        let Some(meta) = folder(if base.as_os_str().is_empty() { Path::new(".") } else { base }) else { return Ok(()) };
        let id = (meta.dev(), meta.ino());
        if self.above.contains(&id) {
            return Ok(());
        }
        self.above.push(id);
        self.walk(base, rest)?;
        for name in self.names(base)? {
            let path = base.join(&name);
            if !name.as_os_str().as_bytes().starts_with(b".") && folder(&path).is_some() {
                self.walk(&path, parts)?;
            }
        }
        self.above.pop();
        Ok(())
    }

    /// The names in a folder; none if the path is not a folder.
    fn names(&self, base: &Path) -> Result<Vec<PathBuf>, Error> {
        use std::io::ErrorKind::{NotADirectory, NotFound};
        let folder = if base.as_os_str().is_empty() { Path::new(".") } else { base };
        let entries = match std::fs::read_dir(folder) {
            Err(e) if matches!(e.kind(), NotFound | NotADirectory) => return Ok(Vec::new()),
            entries => entries.map_err(|e| self.failed(e))?,
        };
        entries.map(|entry| Ok(PathBuf::from(entry.map_err(|e| self.failed(e))?.file_name()))).collect()
    }

    fn is_there(&self, path: &Path) -> Result<bool, Error> {
        use std::io::ErrorKind::{NotADirectory, NotFound};
        match std::fs::symlink_metadata(path) {
            Ok(_) => Ok(true),
            Err(e) if matches!(e.kind(), NotFound | NotADirectory) => Ok(false),
            Err(e) => Err(self.failed(e)),
        }
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::usage("unreadable_file", format!("look for `{}`", self.pattern.shown())).cause(error)
    }
}
