//! The results of `demo`: two files with unique names for each photograph. The folder has a record of the files that
//! `demo` made. Such a file may be replaced as long as its content has the recorded digest.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use dovetail_service::files::read;
use dovetail_service::paths::Shown as _;
use dovetail_service::{Digest, Error};

use crate::results::{Target, is_same_file, targets};

/// The record: a line with the format, then a line `DIGEST NAME` for each file. The last line of a name counts.
const RECORD: &str = ".dovetail-demo";
const FORMAT: &str = "dovetail.demo/1";
/// The largest record that is read, in bytes: 100,000 photographs with long names.
const MAX_RECORD: u64 = 64 << 20;
/// The largest file whose digest is compared with the record, in bytes.
const MAX_RESULT: u64 = 256 << 20;

const REMEDY: &str = "name another folder with --out, or move these files away; --force replaces files, but no input";

/// The two files of a photograph.
#[derive(Debug)]
pub(super) struct Results {
    pub(super) document: Target,
    pub(super) picture: Target,
}

/// The folder of the results.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    record: Record,
}

/// The digest of each file that `demo` made, by its name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Record(BTreeMap<OsString, Digest>);

/// Decides where the results of all photographs go. Writes nothing.
pub(super) fn plan(out: &Path, photographs: &[PathBuf], force: bool) -> Result<(Folder, Vec<Results>), Error> {
    let metas = inputs(photographs)?;
    not_among_the_photographs(out, photographs)?;
    let record = Record::read(&out.join(RECORD))?;
    let may_replace = |path: &Path, meta: &Metadata| {
        if let Some(n) = metas.iter().position(|input| is_same_file(input, meta)) {
            let input = photographs[n].shown();
            let message = format!("the result `{}` would replace the photograph `{input}`", path.shown());
            return Err(Error::usage("result_is_input", message)
                .help("name another folder with --out")
                .detail("path", path.text()));
        }
        Ok(force || record.is_of(path, meta)?)
    };
    let names = names(photographs);
    let paths = names.iter().flat_map(|name| [".json", ".jpg"].map(|end| out.join(with(name, end))));
    let mut planned = targets(paths, may_replace, REMEDY)?.into_iter();
    let mut results = Vec::with_capacity(photographs.len());
    while let (Some(document), Some(picture)) = (planned.next(), planned.next()) {
        results.push(Results { document, picture });
    }
    Ok((Folder { path: out.to_owned(), record }, results))
}

fn inputs(photographs: &[PathBuf]) -> Result<Vec<Metadata>, Error> {
    photographs.iter().map(|path| std::fs::metadata(path).map_err(|e| Error::file(path, e))).collect()
}

/// Refuses the folder of the photographs: the next `demo` would take annotated pictures for photographs.
fn not_among_the_photographs(out: &Path, photographs: &[PathBuf]) -> Result<(), Error> {
    let Some(folder) = photographs.first().and_then(|photograph| photograph.parent()) else { return Ok(()) };
    // If one of the folders does not exist, they are not the same.
    let same = std::fs::metadata(out).ok().zip(std::fs::metadata(folder).ok());
    if same.is_none_or(|(out, folder)| !is_same_file(&out, &folder)) {
        return Ok(());
    }
    let message =
        format!("`{}` is the folder of the photographs: it would contain photographs and results", out.shown());
    Err(Error::usage("same_folder", message).help("name another folder with --out"))
}

/// The names of the results of each photograph: the photograph's name without the extension if no other photograph has
/// it, otherwise the whole name. All names are different.
fn names(photographs: &[PathBuf]) -> Vec<&OsStr> {
    let mut of_stem: BTreeMap<&OsStr, usize> = BTreeMap::new();
    for stem in photographs.iter().filter_map(|path| path.file_stem()) {
        *of_stem.entry(stem).or_default() += 1;
    }
    let whole: BTreeSet<&OsStr> = photographs.iter().filter_map(|path| path.file_name()).collect();
    photographs
        .iter()
        .map(|path| {
            // The stem of `a.jpg.png` is the whole name of `a.jpg`.
            let alone = |stem: &&OsStr| of_stem.get(stem) == Some(&1) && !whole.contains(stem);
            path.file_stem().filter(alone).or_else(|| path.file_name()).unwrap_or_default()
        })
        .collect()
}

fn with(name: &OsStr, end: &str) -> OsString {
    let mut name = name.to_owned();
    name.push(end);
    name
}

impl Folder {
    /// Makes the folder, and rewrites the record with one line for each file.
    pub(super) fn begin(&self) -> Result<(), Error> {
        dovetail_service::make_folder(&self.path).map_err(|e| Error::write(&self.path, e))?;
        let record = targets([self.path.join(RECORD)], |_, _| Ok(true), REMEDY)?;
        record.iter().try_for_each(|target| target.write(&self.record.to_bytes()))
    }

    /// Records a file, then writes it, so that an interruption leaves no unrecorded file.
    pub(super) fn write(&self, target: &Target, content: &[u8]) -> Result<(), Error> {
        let line = line(target.path.file_name().unwrap_or_default(), &Digest::of(content));
        let path = self.path.join(RECORD);
        let append =
            || File::options().append(true).create(true).open(&path).and_then(|mut file| file.write_all(&line));
        append().map_err(|e| Error::write(&path, e))?;
        target.write(content)
    }
}

impl Record {
    fn read(path: &Path) -> Result<Self, Error> {
        match std::fs::symlink_metadata(path) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Ok(Self::default());
            }
            Err(error) => return Err(Error::file(path, error)),
        }
        Self::parse(&read(path, MAX_RECORD)?).ok_or_else(|| {
            let message = format!("`{}` is not a record of `demo`", path.shown());
            Error::usage("would_replace", message)
                .help("remove the file if it is not needed, or name another folder with --out")
                .detail("paths", vec![path.text()])
        })
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut lines = bytes.split(|b| *b == b'\n');
        if lines.next()? != FORMAT.as_bytes() {
            return None;
        }
        // A crash may have cut off the last line, which is ignored.
        let entry = |line: &[u8]| {
            let (digest, name) = std::str::from_utf8(line).ok()?.split_once(' ')?;
            Some((decoded(name)?, digest.parse().ok()?))
        };
        Some(Self(lines.filter_map(entry).collect()))
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{FORMAT}\n").into_bytes();
        bytes.extend(self.0.iter().flat_map(|(name, digest)| line(name, digest)));
        bytes
    }

    /// Whether the file has the content that `demo` wrote.
    fn is_of(&self, path: &Path, meta: &Metadata) -> Result<bool, Error> {
        match path.file_name().and_then(|name| self.0.get(name)) {
            Some(digest) if meta.len() <= MAX_RESULT => Ok(Digest::of(&read(path, MAX_RESULT)?) == *digest),
            _ => Ok(false),
        }
    }
}

fn line(name: &OsStr, digest: &Digest) -> Vec<u8> {
    format!("{digest} {}\n", encoded(name)).into_bytes()
}

/// A name in printable ASCII. Other bytes are written as `%e9`.
fn encoded(name: &OsStr) -> String {
    let mut text = String::new();
    for byte in name.as_bytes() {
        match byte {
            b'%' => text.push_str("%25"),
            b'!'..=b'~' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("%{byte:02x}")),
        }
    }
    text
}

fn decoded(text: &str) -> Option<OsString> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    Some(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::holds;

    fn named(list: &[&str]) -> Vec<String> {
        let paths: Vec<PathBuf> = list.iter().map(|name| Path::new("in").join(name)).collect();
        names(&paths).into_iter().map(|name| name.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn every_photograph_has_results_of_its_own() {
        assert_eq!(named(&["a.jpg", "b.png"]), ["a", "b"]);
        assert_eq!(named(&["a.jpg", "a.png", "b.png"]), ["a.jpg", "a.png", "b"]);
        assert_eq!(named(&["a.jpg", "a.jpg.png"]), ["a", "a.jpg.png"]);
        assert_eq!(named(&["a.jpg", "a.png", "a.jpg.png", "a.jpg.bmp"]), ["a.jpg", "a.png", "a.jpg.png", "a.jpg.bmp"]);
    }

    #[test]
    fn the_record_knows_the_last_content_of_each_name() {
        let name = OsString::from_vec(b"caf\xe9 1%\n.jpg".to_vec());
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let mut bytes = Record(BTreeMap::from([(name.clone(), one)])).to_bytes();
        bytes.extend(line(&name, &two));
        bytes.extend(b"sha256:00 cut");
        assert_eq!(Record::parse(&bytes), Some(Record(BTreeMap::from([(name, two)]))));
        assert_eq!(Record::parse(b"a file of the user's\n"), None);
        assert_eq!(Record::parse(b"dovetail.demo/2\n"), None);
    }

    #[test]
    fn a_result_may_be_replaced_until_somebody_changes_it() {
        let dir = tempfile::tempdir().unwrap();
        let (photographs, out) = ([dir.path().join("in/a.jpg")], dir.path().join("out"));
        std::fs::create_dir(dir.path().join("in")).unwrap();
        std::fs::write(&photographs[0], "photograph").unwrap();
        for content in ["first", "second"] {
            let (folder, results) = plan(&out, &photographs, false).unwrap();
            folder.begin().unwrap();
            folder.write(&results[0].document, content.as_bytes()).unwrap();
            folder.write(&results[0].picture, b"drawn").unwrap();
            assert!(holds(&out.join("a.json"), content.as_bytes()));
        }
        std::fs::write(out.join("a.json"), "edited").unwrap();
        let error = plan(&out, &photographs, false).unwrap_err();
        assert_eq!(error.code, "would_replace");
        assert_eq!(error.details["paths"].as_array().unwrap().len(), 1, "the picture is still ours: {error:?}");
        plan(&out, &photographs, true).unwrap();
        // An input is never replaced, not even with `--force` or under another name.
        std::fs::remove_file(out.join("a.json")).unwrap();
        std::fs::hard_link(&photographs[0], out.join("a.json")).unwrap();
        assert_eq!(plan(&out, &photographs, true).unwrap_err().code, "result_is_input");
        assert_eq!(plan(&dir.path().join("in/../in"), &photographs, true).unwrap_err().code, "same_folder");
    }
}
