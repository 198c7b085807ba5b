//! Files that a front door names: bounded reading, checks and lists.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::media::is_picture;
use crate::paths::Shown as _;

/// The largest file that becomes an artifact, in bytes. The number is arbitrary; the whole file is held in memory.
pub const MAX_ARTIFACT: u64 = 256 << 20;
/// The largest photograph that `demo` and `bench` take, in bytes.
pub const MAX_PHOTOGRAPH: u64 = 64 << 20;

/// The content of a file of at most `most` bytes.
///
/// # Errors
/// `missing_file`, `unreadable_file`, `not_a_file`.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    File::open(path).and_then(|file| bounded(file, most)).map_err(|e| {
        let folder = e.kind() == std::io::ErrorKind::IsADirectory;
        let error = Error::file(path, e);
        if folder { error.help("name a file; a folder can only give one run for each of its files") } else { error }
    })
}

/// The whole content of a reader, at most `most` bytes.
///
/// # Errors
/// If the reader fails; `FileTooLarge` if it gives more bytes.
pub fn bounded(reader: impl Read, most: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(too_large(most)) } else { Ok(bytes) }
}

fn too_large(most: u64) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::FileTooLarge, format!("it is larger than {} MiB", most >> 20))
}

/// The size in bytes of a regular file that can be read. Other files are refused: a pipe or a device might not end, and
/// a pipe cannot be read a second time for the run.
///
/// # Errors
/// `not_a_file`, `missing_file`, `unreadable_file`.
pub fn look(path: &Path) -> Result<u64, Error> {
    // The kind is checked before the file is opened, since opening a pipe waits for its writer.
    let meta = std::fs::metadata(path).map_err(|e| Error::file(path, e))?;
    if !meta.is_file() {
        return Err(Error::usage("not_a_file", format!("`{}` is not a regular file", path.shown()))
            .help("name a regular file")
            .detail("path", path.text()));
    }
    File::open(path).map_err(|e| Error::file(path, e))?;
    Ok(meta.len())
}

/// Checks a file that is to become an artifact.
///
/// # Errors
/// As [`look`]; `unreadable_file` if the file is larger than [`MAX_ARTIFACT`].
pub fn look_at_artifact(path: &Path) -> Result<(), Error> {
    if look(path)? > MAX_ARTIFACT { Err(Error::file(path, too_large(MAX_ARTIFACT))) } else { Ok(()) }
}

/// The paths of the files in a folder, sorted, without hidden files and folders. A link without a target is in the
/// list, so that reading it fails instead of silently leaving it out.
///
/// # Errors
/// If the folder cannot be read.
pub fn folder(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|e| Error::file(path, e))? {
        let entry = entry.map_err(|e| Error::file(path, e))?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden && !entry.path().is_dir() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// The photographs in a folder, at least one.
///
/// # Errors
/// `code` if there is none; the errors of [`folder`]; the errors of [`look`] if a photograph cannot be read.
pub fn photographs(named: &Path, code: &'static str) -> Result<Vec<PathBuf>, Error> {
    let files: Vec<PathBuf> = folder(named)?.into_iter().filter(|file| is_picture(file)).collect();
    if files.is_empty() {
        let error = Error::usage(code, format!("`{}` contains no photographs", named.shown()));
        return Err(
            error.help("put JPEG, PNG, WebP or BMP files there; `dovetail models pull --photographs DIR` copies six")
        );
    }
    for file in &files {
        look(file)?;
    }
    Ok(files)
}

/// A new temporary folder, which is removed when the value is dropped.
///
/// # Errors
/// `temporary_folder`.
pub fn temporary(prefix: &str) -> Result<tempfile::TempDir, Error> {
    tempfile::Builder::new().prefix(prefix).tempdir().map_err(|e| {
        Error::host("temporary_folder", "make a temporary folder").cause(e).help("set TMPDIR to a writable folder")
    })
}
