//! New folders that survive a power failure: the name of a folder is durable only once its parent folder is synced.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Makes the folder and its missing parents, and syncs the parent of each new folder.
///
/// # Errors
/// The I/O error of the first folder that cannot be made or whose parent cannot be synced.
pub fn make_folder(path: &Path) -> io::Result<()> {
    make(path, &mut sync)
}

fn make(path: &Path, sync: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let above = path.parent().map(|above| if above.as_os_str().is_empty() { Path::new(".") } else { above });
    let mut made = std::fs::create_dir(path);
    if let (Err(error), Some(above)) = (&made, above)
        && error.kind() == ErrorKind::NotFound
    {
        make(above, sync)?;
        made = std::fs::create_dir(path);
    }
    match (made, above) {
        (Ok(()), Some(above)) => sync(above),
        (Ok(()), None) => Ok(()),
        // Another process has made the folder.
        (Err(_), _) if path.is_dir() => Ok(()),
        (Err(error), _) => Err(error),
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    let file = match File::open(folder) {
        // The right to write into a folder does not include the right to read it, which a sync needs.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(()),
        opened => opened?,
    };
    match file.sync_all() {
        // Some file systems do not sync folders.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn the_folder_above_each_new_one_is_synced() {
        let dir = tempfile::tempdir().unwrap();
        let at = |rest: &str| dir.path().join(rest);
        let made = |path: PathBuf| {
            let mut synced = Vec::new();
            make(&path, &mut |folder| {
                synced.push(folder.to_owned());
                sync(folder)
            })
            .map(|()| synced)
        };
        assert_eq!(made(at("a/b/c")).unwrap(), [dir.path().to_owned(), at("a"), at("a/b")]);
        assert!(at("a/b/c").is_dir());
        assert_eq!(made(at("a/b/c")).unwrap(), Vec::<PathBuf>::new(), "nothing is new");
        assert_eq!(made(at("a/b/d")).unwrap(), [at("a/b")]);
        std::fs::write(at("file"), "x").unwrap();
        assert!(made(at("file")).is_err() && made(at("file/below")).is_err());
        let mut fails = |_: &Path| Err(io::Error::from(ErrorKind::StorageFull));
        assert_eq!(make(&at("e"), &mut fails).unwrap_err().kind(), ErrorKind::StorageFull);
    }
}
