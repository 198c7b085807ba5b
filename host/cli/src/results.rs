//! Files that a command writes for its user: results, packages, pictures. A user's own file is replaced only if the
//! user names it or gives `--force`. An input, a folder, a link or a device is never replaced.

use std::fs::{File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, PersistError};

use dovetail_service::Error;
use dovetail_service::files::read;
use dovetail_service::paths::Shown as _;

/// How many files the message of an error lists.
const SHOWN: usize = 10;

/// A path that a file may be written to. It was checked before anything is written.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) path: PathBuf,
    /// A file is there, and may be replaced.
    replaces: bool,
}

/// Checks all paths before the first file is written. `may_replace` decides about each regular file that exists.
/// `remedy` is the help of the error for other files.
pub(crate) fn targets(
    paths: impl IntoIterator<Item = PathBuf>,
    mut may_replace: impl FnMut(&Path, &Metadata) -> Result<bool, Error>,
    remedy: &str,
) -> Result<Vec<Target>, Error> {
    let (mut found, mut refused) = (Vec::new(), Vec::new());
    for path in paths {
        let replaces = match regular(&path, remedy)? {
            None => false,
            Some(meta) if may_replace(&path, &meta)? => true,
            Some(_) => {
                refused.push(path);
                continue;
            }
        };
        found.push(Target { path, replaces });
    }
    if refused.is_empty() { Ok(found) } else { Err(would_replace(&refused, remedy)) }
}

/// The metadata of the regular file at this path; None if there is no file. Any other kind of file is an error.
fn regular(path: &Path, remedy: &str) -> Result<Option<Metadata>, Error> {
    let meta = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(Error::write(path, error)),
    };
    let kind = meta.file_type();
    let what = if kind.is_file() {
        return Ok(Some(meta));
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_symlink() {
        "a link"
    } else {
        "not a regular file"
    };
    Err(Error::usage("not_a_file", format!("`{}` is {what}, and is not replaced", path.shown()))
        .help(remedy)
        .detail("path", path.text()))
}

fn would_replace(paths: &[PathBuf], remedy: &str) -> Error {
    let shown = |path: &PathBuf| format!("`{}`", path.shown());
    let message = match paths {
        [path] => format!("{} is a file that dovetail did not make, and it would be replaced", shown(path)),
        _ => {
            let mut message = format!("{} files that dovetail did not make would be replaced: ", paths.len());
            message.push_str(&paths.iter().take(SHOWN).map(shown).collect::<Vec<_>>().join(", "));
            if paths.len() > SHOWN {
                message.push_str(&format!(" and {} more", paths.len() - SHOWN));
            }
            message
        }
    };
    let all: Vec<String> = paths.iter().map(|path| path.text()).collect();
    Error::usage("would_replace", message).help(remedy).detail("paths", all)
}

/// Whether two paths lead to the same file.
pub(crate) fn is_same_file(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Whether the file has exactly this content. A link is followed.
pub(crate) fn holds(path: &Path, content: &[u8]) -> bool {
    let as_long = std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == content.len() as u64);
    as_long && read(path, content.len() as u64).is_ok_and(|there| there == content)
}

impl Target {
    /// Writes a temporary file in the same folder and renames it, so that the path never has a partial file. A file
    /// that appeared at the path since the check is not replaced.
    pub(crate) fn write(&self, content: &[u8]) -> Result<(), Error> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let fill = || -> io::Result<NamedTempFile> {
            let mut aside = tempfile::Builder::new()
                .prefix(".new-")
                .permissions(std::fs::Permissions::from_mode(0o666))
                .tempfile_in(folder)?;
            aside.write_all(content)?;
            aside.as_file().sync_all()?;
            Ok(aside)
        };
        let failed = |error| Error::write(&self.path, error);
        let aside = fill().map_err(failed)?;
        if self.replaces {
            return aside.persist(&self.path).map(drop).map_err(|PersistError { error, .. }| failed(error));
        }
        let written = match aside.persist_noclobber(&self.path) {
            Ok(_) => Ok(()),
            Err(PersistError { error, .. }) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
            // Some file systems cannot rename without replacing.
            Err(_) => File::create_new(&self.path).and_then(|mut file| {
                file.write_all(content)?;
                file.sync_all()
            }),
        };
        written.map_err(|error| {
            if error.kind() == io::ErrorKind::AlreadyExists {
                let message = format!("`{}` appeared while the command ran, and it is not replaced", self.path.shown());
                return Error::host("would_replace", message).help("move it away and run the command again");
            }
            failed(error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(paths: &[&Path], may_replace: bool) -> Result<Vec<Target>, Error> {
        targets(paths.iter().map(|path| path.to_path_buf()), |_, _| Ok(may_replace), "name another")
    }

    #[test]
    fn only_what_may_be_replaced_is() {
        let dir = tempfile::tempdir().unwrap();
        let (new, old) = (dir.path().join("new"), dir.path().join("old"));
        std::fs::write(&old, "mine").unwrap();
        let error = planned(&[&new, &old], false).unwrap_err();
        assert_eq!(
            (error.code, crate::exit::exit_code(&error), error.help.as_deref()),
            ("would_replace", 2, Some("name another"))
        );
        assert!(error.message.contains(&old.display().to_string()), "{}", error.message);
        for target in planned(&[&new, &old], true).unwrap() {
            target.write(b"ours").unwrap();
        }
        assert_eq!((std::fs::read(&new).unwrap(), std::fs::read(&old).unwrap()), (b"ours".to_vec(), b"ours".to_vec()));
        assert!(holds(&old, b"ours") && !holds(&old, b"mine") && !holds(dir.path(), b""));
    }

    #[test]
    fn a_file_that_appears_after_the_look_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        let planned = planned(&[&path], true).unwrap();
        std::fs::write(&path, "mine").unwrap();
        let error = planned[0].write(b"ours").unwrap_err();
        assert_eq!((error.code, crate::exit::exit_code(&error)), ("would_replace", 3));
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_is_no_regular_file_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        for path in [dir.path(), &link, Path::new("/dev/null")] {
            assert_eq!(planned(&[path], true).unwrap_err().code, "not_a_file", "{}", path.display());
        }
    }

    #[test]
    fn of_many_files_the_first_are_named_and_all_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (10..22).map(|n| dir.path().join(n.to_string())).collect();
        for path in &paths {
            std::fs::write(path, "mine").unwrap();
        }
        let error = planned(&paths.iter().map(PathBuf::as_path).collect::<Vec<_>>(), false).unwrap_err();
        assert!(error.message.starts_with("12 files ") && error.message.ends_with("/19` and 2 more"), "{error:?}");
        assert_eq!(error.details["paths"].as_array().unwrap().len(), 12);
    }
}
