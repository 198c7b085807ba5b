//! Creates folders that survive a power failure: a folder's name is durable once its parent folder has been synced.

use std::fs;
use std::io;
use std::path::Path;

/// Creates the folder and its missing parents, and syncs the parent of each new folder.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    make(path, &mut |folder| match fs::File::open(folder) {
        // Write permission on a folder does not imply read permission. A folder that cannot be opened for reading
        // cannot be synced.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        opened => opened?.sync_all(),
    })
}

fn make(path: &Path, sync: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make(above, sync)?;
    match fs::create_dir(path) {
        // Another process created the folder.
        Err(_) if path.is_dir() => Ok(()),
        made => made.and_then(|()| sync(above)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_above_each_new_one_is_synced() {
        let dir = tempfile::tempdir().unwrap();
        let at = |rest: &str| dir.path().join(rest);
        let mut synced = Vec::new();
        let mut sync = |folder: &Path| {
            synced.push(folder.to_owned());
            Ok(())
        };
        for _ in 0..2 {
            make(&at("a/b"), &mut sync).unwrap();
        }
        assert_eq!(synced, [dir.path().to_owned(), at("a")]);
        make_folder(&at("a/b/c")).unwrap();
        assert!(at("a/b/c").is_dir());
        fs::write(at("file"), "x").unwrap();
        assert!(make_folder(&at("file")).is_err());
    }
}
