//! A bounded folder of blobs. No fault here fails a reader or a writer: a blob that cannot be kept is fetched again.

use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use dovetail_core::Digest;
use dovetail_core::blobs::{BlobKind, Blobs as _, StoreError, StoreErrorKind};
use dovetail_core::sync::lock;

use crate::FileBlobs;
use crate::embedded::{io_error, make_folder};

/// The file that marks a folder as a cache (<https://bford.info/cachedir/>): backups skip the folder, and we know that
/// it may be emptied.
const TAG: &str = "CACHEDIR.TAG";
const TAG_TEXT: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # Blobs that dovetail can fetch again. This folder may be removed at any time.\n";

/// The prefix of the names of files that are being written.
const ASIDE: &str = ".new-";
/// A file with this prefix that is older belongs to a killed process.
const ABANDONED: Duration = Duration::from_secs(3600);

pub(super) struct Folder {
    near: FileBlobs,
    path: PathBuf,
    capacity: u64,
    usage: Mutex<FolderUsage>,
}

/// The known usage of the folder, in bytes.
#[derive(Default)]
struct FolderUsage {
    /// In the folder at our last look.
    found: u64,
    /// Added by this process since then.
    added: u64,
    /// Being added by this process now.
    arriving: u64,
}

struct CachedFile {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, at most {} bytes", self.path.display(), self.capacity)
    }
}

impl Folder {
    pub(super) fn open(path: &Path, capacity: u64) -> Result<Self, StoreError> {
        let blobs = path.join("blobs");
        let tag = path.join(TAG);
        let there = |path: &Path| path.try_exists().map_err(|e| io_error("look for", path, e));
        if there(&blobs)? && !there(&tag)? {
            let why = format!(
                "it has blobs but no {TAG}: this may be an embedded data folder, which must not be emptied; \
                 name another folder"
            );
            return Err(StoreError::new(StoreErrorKind::Refused, format!("use {} as a cache", path.display()), why));
        }
        make_folder(path)?;
        if !there(&tag)? {
            std::fs::write(&tag, TAG_TEXT).map_err(|e| io_error("write", &tag, e))?;
        }
        let folder = Self { near: FileBlobs::new(path), path: path.to_owned(), capacity, usage: Mutex::default() };
        // The capacity may be smaller than at the last open.
        let mut usage = lock(&folder.usage);
        folder.free_space(&mut usage, 0)?;
        drop(usage);
        Ok(folder)
    }

    pub(super) fn bytes(&self) -> Result<u64, StoreError> {
        Ok(self.look()?.iter().map(|kept| kept.bytes).sum())
    }

    pub(super) fn size(&self, kind: BlobKind, digest: &Digest) -> Option<u64> {
        self.near.size(kind, digest).unwrap_or(None)
    }

    /// The bytes if the file is here and undamaged. The only error is `Refused`: there are more than `max` bytes.
    pub(super) fn read(&self, kind: BlobKind, digest: &Digest, max: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.near.path(kind, digest);
        let Ok(file) = File::open(&path) else { return Ok(None) };
        // While this lock is held, no process evicts the file. The wait for the lock is no longer than the eviction of
        // one file.
        let held = file.lock_shared();
        match self.near.get(kind, digest, max) {
            Ok(bytes) => {
                self.mark_used(&file, &path);
                drop(held);
                Ok(Some(bytes))
            }
            Err(e) if e.kind == StoreErrorKind::Refused && file.metadata().is_ok_and(|meta| meta.len() > max) => Err(e),
            Err(e) if e.kind == StoreErrorKind::Corrupt => {
                tracing::warn!(file = %path.display(), "a cached blob was damaged and is fetched again");
                if let Err(e) = std::fs::remove_file(&path) {
                    tracing::warn!(file = %path.display(), error = %e, "cannot remove a damaged file from the cache");
                }
                Ok(None)
            }
            Err(e) => {
                if e.kind != StoreErrorKind::Missing {
                    tracing::warn!(file = %path.display(), error = ?e, "cannot read a cached blob");
                }
                Ok(None)
            }
        }
    }

    /// Sets the file's modification time to the time of this use: evictions go by it, and no other change sets it.
    fn mark_used(&self, file: &File, path: &Path) {
        if let Err(e) = file.set_modified(SystemTime::now()) {
            tracing::debug!(file = %path.display(), error = %e, "cannot mark a cached blob as used");
        }
    }

    /// Keeps the bytes if they fit, after evictions if necessary.
    pub(super) fn keep(&self, kind: BlobKind, digest: &Digest, bytes: &[u8]) {
        let path = self.near.path(kind, digest);
        let length = bytes.len() as u64;
        // A file of another length was cut off by a crash. The write below replaces it.
        if let Ok(file) = File::open(&path)
            && file.metadata().is_ok_and(|meta| meta.len() == length)
        {
            return self.mark_used(&file, &path);
        }
        let warn = |e: &StoreError| {
            tracing::warn!(folder = %self.path.display(), error = ?e, "a blob is not kept in the cache");
        };
        match self.reserve(length) {
            Ok(true) => {}
            Ok(false) => return tracing::debug!(bytes = length, "no room in the cache for a blob"),
            Err(e) => return warn(&e),
        }
        let written = self.write(&path, bytes);
        let mut usage = lock(&self.usage);
        usage.arriving -= length;
        match written {
            Ok(()) => usage.added += length,
            Err(e) => warn(&e),
        }
    }

    /// Writes the file so that readers see it whole or not at all. It is not synced, because every read checks its
    /// digest.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let folder = path.parent().unwrap_or(&self.path);
        make_folder(folder)?;
        let write = || -> std::io::Result<()> {
            let mut aside = tempfile::Builder::new().prefix(ASIDE).tempfile_in(folder)?;
            aside.write_all(bytes)?;
            aside.persist(path)?;
            Ok(())
        };
        write().map_err(|e| io_error("write", path, e))
    }

    /// Reserves `length` bytes. Returns false if they do not fit, whatever is evicted.
    fn reserve(&self, length: u64) -> Result<bool, StoreError> {
        if length > self.capacity {
            return Ok(false);
        }
        let mut usage = lock(&self.usage);
        let ours = usage.added + usage.arriving + length;
        // Other processes add to the folder, too, so we read it again before our own share exceeds a sixteenth of the
        // capacity.
        let fits = usage.found + ours <= self.capacity && (ours <= self.capacity / 16 || ours == length);
        if !fits && !self.free_space(&mut usage, length)? {
            return Ok(false);
        }
        usage.arriving += length;
        Ok(true)
    }

    /// Reads the folder and evicts until `length` more bytes fit. Returns false if that is impossible.
    fn free_space(&self, usage: &mut FolderUsage, length: u64) -> Result<bool, StoreError> {
        // One process at a time, so that two processes do not both evict for the need of one.
        let path = self.path.join("lock");
        let lock =
            File::create(&path).and_then(|file| file.lock().map(|()| file)).map_err(|e| io_error("lock", &path, e))?;
        let mut kept = self.look()?;
        let mut bytes: u64 = kept.iter().map(|kept| kept.bytes).sum();
        let most = self.capacity.saturating_sub(length + usage.arriving);
        if bytes > most {
            kept.sort_by_key(|kept| kept.used);
            // Evict somewhat more than necessary, so that the next blob does not need another look.
            let goal = most.min(self.capacity - self.capacity / 16);
            for kept in kept {
                if bytes <= goal {
                    break;
                }
                if evict(&kept.path) {
                    bytes -= kept.bytes;
                }
            }
        }
        drop(lock);
        (usage.found, usage.added) = (bytes, 0);
        Ok(length + usage.arriving + bytes <= self.capacity)
    }

    /// Lists every blob in the folder, and removes the half-written files of killed processes.
    fn look(&self) -> Result<Vec<CachedFile>, StoreError> {
        let mut found = Vec::new();
        let root = self.path.join("blobs");
        let entries = |path: &Path| match std::fs::read_dir(path) {
            Ok(entries) => {
                Ok(entries.collect::<Result<Vec<_>, _>>().map_err(|e| io_error("read the folder", path, e))?)
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(io_error("read the folder", path, e)),
        };
        for kind in entries(&root)? {
            for entry in entries(&kind.path().join("sha256"))? {
                // Another process may have evicted the file since.
                let Ok(meta) = entry.metadata() else { continue };
                let (path, used) = (entry.path(), meta.modified().unwrap_or(SystemTime::UNIX_EPOCH));
                if entry.file_name().to_string_lossy().starts_with(ASIDE) {
                    if used.elapsed().is_ok_and(|age| age > ABANDONED) {
                        evict(&path);
                    }
                    continue;
                }
                found.push(CachedFile { path, bytes: meta.len(), used });
            }
        }
        Ok(found)
    }
}

/// Removes the file unless a process reads it. Returns true if the file is gone.
fn evict(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return !path.try_exists().unwrap_or(true) };
    if file.try_lock().is_err() {
        return false;
    }
    match std::fs::remove_file(path) {
        Ok(()) => true,
        Err(e) => {
            tracing::warn!(file = %path.display(), error = %e, "cannot evict a cached blob");
            false
        }
    }
}
