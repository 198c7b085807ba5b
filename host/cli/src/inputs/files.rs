//! The files of `--each`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use dovetail_service::Error;
use dovetail_service::files::{folder, look};
use dovetail_service::paths::{Shown as _, path_of};

use super::pattern;

/// The input of `--each`, and its files.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Each {
    pub(crate) name: String,
    /// The files, sorted and without duplicates. There is at least one.
    pub(crate) files: Vec<PathBuf>,
}

impl Each {
    /// Parses the values of `--each`: lists folders, and opens every file once to check that it can be read.
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
                look(file).map_err(|error| match error.code {
                    "not_a_file" => error.help("--each takes regular files only; give a pipe with --input NAME=@-"),
                    _ => error,
                })?;
            }
        }
        Ok(each)
    }
}

/// The two parts of `NAME=@PLACE`.
fn name_and_place(arg: &[u8]) -> Option<(&str, PathBuf)> {
    let at = arg.windows(2).position(|pair| pair == b"=@")?;
    let (name, place) = (std::str::from_utf8(&arg[..at]).ok()?, &arg[at + 2..]);
    (!name.is_empty() && !place.is_empty()).then(|| (name, path_of(place)))
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
        return Err(Error::usage("no_files", format!("`{}` contains no files", place.shown()))
            .help("hidden files and subfolders are ignored")
            .detail("path", place.text()));
    }
    Ok(found)
}
