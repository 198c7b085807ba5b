//! Content-addressed bytes as files: `blobs/KIND/sha256/HEX`, each written aside, synced and renamed, so that it is there whole or not at all.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use dovetail_core::Digest;
use dovetail_core::blobs::{BlobKind, Blobs, StoreError, StoreErrorKind};

use super::{io_error, make_folder};

/// [`Blobs`] in a folder.
#[derive(Debug)]
pub struct FileBlobs {
    root: PathBuf,
}

impl FileBlobs {
    /// Under `data/blobs`, which is made on first use.
    #[must_use]
    pub fn new(data: &Path) -> Self {
        Self { root: data.join("blobs") }
    }

    /// Where a blob stands, whether it is there or not.
    #[must_use]
    pub fn path(&self, kind: BlobKind, digest: &Digest) -> PathBuf {
        self.folder(kind).join(digest.hex())
    }

    fn folder(&self, kind: BlobKind) -> PathBuf {
        self.root.join(kind.folder()).join("sha256")
    }
}

impl Blobs for FileBlobs {
    fn put(&self, kind: BlobKind, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        let path = self.path(kind, &digest);
        if path.try_exists().map_err(|e| io_error("look for", &path, e))? {
            return Ok(digest);
        }
        let folder = self.folder(kind);
        make_folder(&folder)?;
        let write = || -> std::io::Result<()> {
            let mut aside = tempfile::Builder::new().prefix(".new-").tempfile_in(&folder)?;
            aside.write_all(bytes)?;
            aside.as_file().sync_all()?;
            aside.persist(&path)?;
            // The name is durable only once the folder is.
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
        let mut bytes = Vec::with_capacity(usize::try_from(size.min(max)).unwrap_or(0));
        file.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(fail)?;
        if bytes.len() as u64 > max {
            let why = format!("it has {size} bytes, at most {max} are allowed");
            return Err(StoreError::new(StoreErrorKind::Refused, format!("read {} {digest}", kind.folder()), why));
        }
        if Digest::of(&bytes) != *digest {
            let why = "its content has another digest: the file was damaged; remove it and store it again";
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
