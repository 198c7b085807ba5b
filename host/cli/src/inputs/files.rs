//! The files of `--each`, of a folder of photographs and of other folders.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::{MAX_ARTIFACT, pattern, too_large};
use crate::error::Error;
use crate::media::is_picture;
use crate::paths::{Shown as _, path_of};

/// `--each`: one input, many files.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Each {
    pub(crate) name: String,
    /// Sorted, each once, at least one.
    pub(crate) files: Vec<PathBuf>,
}

impl Each {
    /// From the `--each`s: looks at folders, and opens every file once to see that it can be read.
    pub(crate) fn parse(args: &[impl AsRef<OsStr>]) -> Result<Option<Self>, Error> {
        let mut each: Option<Self> = None;
        for arg in args {
            let arg = arg.as_ref();
            let Some((name, place)) = name_and_place(arg.as_bytes()) else {
                return Err(Error::usage("bad_input", format!("`--each {}` names no files", arg.shown()))
                    .help("write --each NAME=@FOLDER or --each 'NAME=@*.jpg'"));
            };
            let files = files_of(&place)?;
            match &mut each {
                None => each = Some(Self { name: name.to_owned(), files }),
                Some(each) if each.name == name => each.files.extend(files),
                Some(each) => {
                    let message = format!("--each is given for `{}` and for `{name}`", each.name);
                    return Err(Error::usage("bad_input", message)
                        .help("one input has many files; the others have one value each (--input)"));
                }
            }
        }
        if let Some(each) = &mut each {
            each.files.sort();
            each.files.dedup();
            for file in &each.files {
                look(file)?;
            }
        }
        Ok(each)
    }
}

/// The two sides of `NAME=@PLACE`.
fn name_and_place(arg: &[u8]) -> Option<(&str, PathBuf)> {
    let at = arg.windows(2).position(|pair| pair == b"=@")?;
    let (name, place) = (std::str::from_utf8(&arg[..at]).ok()?, &arg[at + 2..]);
    (!name.is_empty() && !place.is_empty()).then(|| (name, path_of(place)))
}

/// A regular file that can be read, and its size: whatever else it is (a pipe, a device) might never end, or not be
/// there again for the run.
fn look(path: &Path) -> Result<u64, Error> {
    // Not opened before that is known: opening a pipe waits for its writer.
    let meta = std::fs::metadata(path).map_err(|e| Error::file(path, e))?;
    if !meta.is_file() {
        return Err(Error::usage("not_a_file", format!("`{}` is no regular file", path.shown()))
            .help("--each takes files that stay; a pipe can be given once, with --input NAME=@-")
            .detail("path", path.text()));
    }
    File::open(path).map_err(|e| Error::file(path, e))?;
    Ok(meta.len())
}

/// The same of a file that is to be an artifact.
pub(crate) fn look_at_artifact(path: &Path) -> Result<(), Error> {
    if look(path)? > MAX_ARTIFACT { Err(Error::file(path, too_large(MAX_ARTIFACT))) } else { Ok(()) }
}

fn files_of(place: &Path) -> Result<Vec<PathBuf>, Error> {
    let found = match std::fs::metadata(place) {
        Ok(meta) if meta.is_dir() => folder(place)?,
        Ok(_) => vec![place.to_owned()],
        Err(_) if pattern::is_pattern(place.as_os_str().as_bytes()) => {
            pattern::matching(place)?.into_iter().filter(|path| !path.is_dir()).collect()
        }
        Err(e) => return Err(Error::file(place, e)),
    };
    if found.is_empty() {
        return Err(Error::usage("no_files", format!("`{}` holds no files", place.shown()))
            .help("hidden files and folders within are not looked at")
            .detail("path", place.text()));
    }
    Ok(found)
}

/// Everything in a folder that is neither hidden nor a folder itself, sorted. A link that leads nowhere is among it:
/// whoever reads it is told.
pub(crate) fn folder(path: &Path) -> Result<Vec<PathBuf>, Error> {
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

/// The largest photograph that `demo` and `bench` take, in bytes.
pub(crate) const MAX_PHOTOGRAPH: u64 = 64 << 20;

/// The photographs in a folder, at least one; without any an error with this code.
pub(crate) fn photographs(named: &Path, code: &'static str) -> Result<Vec<PathBuf>, Error> {
    let files: Vec<PathBuf> = folder(named)?.into_iter().filter(|file| is_picture(file)).collect();
    if files.is_empty() {
        let error = Error::usage(code, format!("`{}` holds no photographs", named.shown()));
        return Err(
            error.help("put JPEG, PNG, WebP or BMP files there; `dovetail models pull --photographs DIR` brings six")
        );
    }
    for file in &files {
        look(file)?;
    }
    Ok(files)
}
