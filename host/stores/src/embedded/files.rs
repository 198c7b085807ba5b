//! Content-addressed bytes as files: `blobs/KIND/sha256/HEX`. Each file is written under another name, synced and
//! renamed, so that it is there whole or not at all.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use dovetail_core::Digest;
use dovetail_core::blobs::{BlobKind, Blobs, StoreError, StoreErrorKind};
use dovetail_core::retention::{BlobVisitor, MAX_IDENTITY, Owned, RemovableBlobs, YOUNG, identity_of};

use super::{io_error, make_folder};

/// The prefix of the names of files that are being written.
const ASIDE: &str = ".new-";
/// The file with the identity of the records that these blobs belong to.
const OWNER: &str = "owner";

/// [`Blobs`] in a folder.
#[derive(Debug)]
pub struct FileBlobs {
    root: PathBuf,
}

impl FileBlobs {
    /// A store under `data/blobs`, which is made on first use.
    #[must_use]
    pub fn new(data: &Path) -> Self {
        Self { root: data.join("blobs") }
    }

    /// The path of a blob, whether it exists or not.
    #[must_use]
    pub fn path(&self, kind: BlobKind, digest: &Digest) -> PathBuf {
        self.folder(kind).join(digest.hex())
    }

    fn folder(&self, kind: BlobKind) -> PathBuf {
        self.root.join(kind.folder()).join("sha256")
    }

    /// Whether the blob is there. If so, sets its time to now, so that no removal of old blobs takes it.
    fn is_kept(&self, kind: BlobKind, path: &Path) -> std::io::Result<bool> {
        if !path.try_exists()? {
            return Ok(false);
        }
        // A process that removes a blob locks the folder exclusively while it checks the blob's age and removes it.
        let folder = File::open(self.folder(kind))?;
        folder.lock_shared()?;
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        };
        // If the time cannot be set (another user's file), the blob is written again.
        Ok(age_of(&file.metadata()?) < YOUNG || file.set_modified(SystemTime::now()).is_ok())
    }
}

/// Whether the file has exactly these bytes. This comparison is made for packages only: they are few and small, and the
/// tasks of a whole folder need them, so that publishing a package again repairs a damaged file.
fn holds(path: &Path, bytes: &[u8]) -> std::io::Result<bool> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    if file.metadata()?.len() != bytes.len() as u64 {
        return Ok(false);
    }
    let (mut left, mut buffer) = (bytes, vec![0; 64 << 10]);
    while !left.is_empty() {
        let read = file.read(&mut buffer)?;
        if read == 0 || !left.starts_with(&buffer[..read]) {
            return Ok(false);
        }
        left = &left[read..];
    }
    Ok(true)
}

fn age_of(meta: &std::fs::Metadata) -> Duration {
    meta.modified().ok().and_then(|at| at.elapsed().ok()).unwrap_or_default()
}

impl Blobs for FileBlobs {
    fn put(&self, kind: BlobKind, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        let path = self.path(kind, &digest);
        let kept =
            self.is_kept(kind, &path).and_then(|kept| Ok(kept && (kind != BlobKind::Package || holds(&path, bytes)?)));
        if kept.map_err(|e| io_error("look for", &path, e))? {
            return Ok(digest);
        }
        let folder = self.folder(kind);
        make_folder(&folder)?;
        let write = || -> std::io::Result<()> {
            let mut aside = tempfile::Builder::new().prefix(ASIDE).tempfile_in(&folder)?;
            aside.write_all(bytes)?;
            aside.as_file().sync_all()?;
            aside.persist(&path)?;
            // The new name survives a power failure only after the folder is synced.
            File::open(&folder)?.sync_all()
        };
        write().map_err(|e| io_error("write", &path, e))?;
        Ok(digest)
    }

    fn get(&self, kind: BlobKind, digest: &Digest, max: u64) -> Result<Vec<u8>, StoreError> {
        let path = self.path(kind, digest);
        let fail = |e| io_error("read", &path, e);
        let file = File::open(&path).map_err(fail)?;
        let size = file.metadata().map_err(fail)?.len();
        if size > max {
            let why = format!("it has {size} bytes, at most {max} are allowed");
            return Err(StoreError::new(StoreErrorKind::Refused, format!("read {} {digest}", kind.folder()), why));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        file.take(max).read_to_end(&mut bytes).map_err(fail)?;
        if Digest::of(&bytes) != *digest {
            let why = "its content has another digest: the file was damaged; store it again (a package: `dovetail \
                       task push`; anything else: remove the file first)";
            return Err(StoreError::new(StoreErrorKind::Corrupt, format!("read {}", path.display()), why));
        }
        Ok(bytes)
    }

    fn size(&self, kind: BlobKind, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let path = self.path(kind, digest);
        match std::fs::metadata(&path) {
            Ok(meta) => Ok(Some(meta.len())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(io_error("look for", &path, e)),
        }
    }
}

impl Owned for FileBlobs {
    fn owner(&self) -> Result<Option<String>, StoreError> {
        let path = self.root.join(OWNER);
        let read = || -> std::io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            File::open(&path)?.take(MAX_IDENTITY + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        match read() {
            Ok(bytes) => identity_of(&bytes, &path.display().to_string()).map(Some),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(io_error("read", &path, e)),
        }
    }

    fn own(&self, records: &str) -> Result<String, StoreError> {
        let path = self.root.join(OWNER);
        make_folder(&self.root)?;
        let write = || -> std::io::Result<()> {
            let mut aside = tempfile::Builder::new().prefix(ASIDE).tempfile_in(&self.root)?;
            aside.write_all(format!("{records}\n").as_bytes())?;
            aside.as_file().sync_all()?;
            // The first owner stays: the file is written whole, and never replaced.
            match aside.persist_noclobber(&path) {
                Err(e) if e.error.kind() != std::io::ErrorKind::AlreadyExists => return Err(e.error),
                _ => {}
            }
            File::open(&self.root)?.sync_all()
        };
        write().map_err(|e| io_error("write", &path, e))?;
        self.owner()?.ok_or_else(|| StoreError::plain(StoreErrorKind::Unavailable, format!("read {}", path.display())))
    }

    fn is_empty(&self) -> Result<bool, StoreError> {
        for kind in BlobKind::ALL {
            let folder = self.folder(kind);
            match std::fs::read_dir(&folder).map(|mut entries| entries.next().transpose()) {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(_))) => return Ok(false),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Ok(Err(e)) | Err(e) => return Err(io_error("read the folder", &folder, e)),
            }
        }
        Ok(true)
    }

    fn place(&self) -> String {
        self.root.display().to_string()
    }
}

impl RemovableBlobs for FileBlobs {
    fn walk(&self, kind: BlobKind, visit: &mut BlobVisitor<'_>) -> Result<(), StoreError> {
        self.each_file(&self.folder(kind), &mut |name, bytes| {
            // Files that are being written have no digest for a name.
            format!("sha256:{name}").parse().map_or(Ok(()), |digest| visit(digest, bytes))
        })
    }

    fn age(&self, kind: BlobKind, digest: &Digest) -> Result<Option<Duration>, StoreError> {
        let path = self.path(kind, digest);
        match std::fs::metadata(&path) {
            Ok(meta) => Ok(Some(age_of(&meta))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(io_error("look for", &path, e)),
        }
    }

    fn remove(&self, kind: BlobKind, digest: &Digest, at_least: Duration) -> Result<bool, StoreError> {
        let path = self.path(kind, digest);
        let fail = |e| io_error("remove", &path, e);
        let Ok(folder) = File::open(self.folder(kind)) else { return Ok(false) };
        // With the lock, no process can renew the blob's time between the check and the removal.
        folder.lock().map_err(fail)?;
        if self.age(kind, digest)?.is_none_or(|age| age < at_least) {
            return Ok(false);
        }
        std::fs::remove_file(&path).map(|()| true).map_err(fail)
    }

    fn remove_abandoned(&self, look_only: bool) -> Result<u64, StoreError> {
        let mut total = 0;
        let folders = BlobKind::ALL.map(|kind| self.folder(kind));
        for folder in folders.iter().chain([&self.root]) {
            self.each_file(folder, &mut |name, bytes| {
                let path = folder.join(name);
                // No blob takes this long to be written, so its writer is dead.
                let old = |meta: std::fs::Metadata| age_of(&meta) >= YOUNG;
                if !name.starts_with(ASIDE) || !std::fs::metadata(&path).is_ok_and(old) {
                    return Ok(());
                }
                if !look_only {
                    std::fs::remove_file(&path).map_err(|e| io_error("remove", &path, e))?;
                }
                total += bytes;
                Ok(())
            })?;
        }
        Ok(total)
    }
}

impl FileBlobs {
    /// Calls `visit` with the name and size of each file in the folder. A missing folder has no files.
    fn each_file(
        &self,
        folder: &Path,
        visit: &mut dyn FnMut(&str, u64) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let fail = |e| io_error("read the folder", folder, e);
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(fail(e)),
        };
        for entry in entries {
            let entry = entry.map_err(fail)?;
            // Another process may have removed the file since.
            if let (Ok(meta), Ok(name)) = (entry.metadata(), entry.file_name().into_string()) {
                visit(&name, meta.len())?;
            }
        }
        Ok(())
    }
}
