//! Blobs of a remote store with a cache in a local folder, so that a machine fetches each blob once.
//!
//! The remote store is the only truth: a write goes there first, and any cached file can be removed at any time. The
//! processes of a machine share the folder. Every read from the folder is compared with its digest; a damaged file is
//! fetched again.

mod folder;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use dovetail_core::Digest;
use dovetail_core::blobs::{BlobKind, Blobs, StoreError, StoreErrorKind};
use dovetail_core::sync::lock;

use folder::Folder;

/// A remote [`Blobs`] with the most recently used blobs on this machine's disk.
///
/// `size` of a cached blob is answered without the remote store; `put` always reaches the remote store. A full or
/// broken disk makes reads slower and fails none.
pub struct CachedBlobs {
    near: Folder,
    far: Arc<dyn Blobs>,
    fetches: Mutex<HashMap<(BlobKind, Digest), Arc<Fetch>>>,
}

impl fmt::Debug for CachedBlobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CachedBlobs({})", self.near)
    }
}

/// A fetch that is under way. Other threads that need the same blob wait for it instead of fetching, too.
#[derive(Default)]
struct Fetch {
    state: Mutex<FetchState>,
    ended: Condvar,
}

#[derive(Default, Clone)]
enum FetchState {
    #[default]
    Running,
    Done(Arc<Vec<u8>>),
    Failed,
}

/// Ends a fetch when it is dropped, also by a panic of the fetching thread.
struct FetchGuard<'a> {
    cache: &'a CachedBlobs,
    key: (BlobKind, Digest),
    fetch: Arc<Fetch>,
    outcome: FetchState,
}

impl Drop for FetchGuard<'_> {
    fn drop(&mut self) {
        lock(&self.cache.fetches).remove(&self.key);
        *lock(&self.fetch.state) = std::mem::replace(&mut self.outcome, FetchState::Failed);
        self.fetch.ended.notify_all();
    }
}

impl CachedBlobs {
    /// Keeps at most `capacity` bytes in `folder`, which is made if it is missing. The least recently used blobs are
    /// evicted first.
    ///
    /// If several processes share the folder, each can exceed `capacity` by a sixteenth of it, until it reads the
    /// folder again.
    ///
    /// # Errors
    /// `Refused` if the folder holds blobs but is not marked as a cache (an embedded data folder must not be emptied),
    /// or if the folder is not writable.
    pub fn open(folder: &Path, far: Arc<dyn Blobs>, capacity: u64) -> Result<Self, StoreError> {
        Ok(Self { near: Folder::open(folder, capacity)?, far, fetches: Mutex::default() })
    }

    /// The number of bytes in the folder now, from all processes that use it.
    ///
    /// # Errors
    /// `Unavailable` or `Refused` if the folder cannot be read.
    pub fn bytes(&self) -> Result<u64, StoreError> {
        self.near.bytes()
    }

    fn fetch(&self, kind: BlobKind, digest: &Digest, max: u64) -> Result<Vec<u8>, StoreError> {
        let bytes = self.far.get(kind, digest, max)?;
        self.near.keep(kind, digest, &bytes);
        Ok(bytes)
    }

    /// Registers a new fetch of this blob. `Err` is the fetch of another thread that is under way.
    fn begin(&self, key: (BlobKind, Digest)) -> Result<FetchGuard<'_>, Arc<Fetch>> {
        let mut fetches = lock(&self.fetches);
        if let Some(fetch) = fetches.get(&key) {
            return Err(fetch.clone());
        }
        let fetch = Arc::<Fetch>::default();
        fetches.insert(key, fetch.clone());
        Ok(FetchGuard { cache: self, key, fetch, outcome: FetchState::Failed })
    }
}

impl Blobs for CachedBlobs {
    fn put(&self, kind: BlobKind, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = self.far.put(kind, bytes)?;
        self.near.keep(kind, &digest, bytes);
        Ok(digest)
    }

    fn get(&self, kind: BlobKind, digest: &Digest, max: u64) -> Result<Vec<u8>, StoreError> {
        if let Some(bytes) = self.near.read(kind, digest, max)? {
            return Ok(bytes);
        }
        let fetch = match self.begin((kind, *digest)) {
            Ok(mut guard) => {
                // An earlier fetch may have ended since the first read.
                let bytes = match self.near.read(kind, digest, max)? {
                    Some(bytes) => bytes,
                    None => self.fetch(kind, digest, max)?,
                };
                let bytes = Arc::new(bytes);
                guard.outcome = FetchState::Done(bytes.clone());
                drop(guard);
                return Ok(Arc::try_unwrap(bytes).unwrap_or_else(|shared| shared.as_ref().clone()));
            }
            Err(fetch) => fetch,
        };
        let running = lock(&fetch.state);
        let ended = fetch
            .ended
            .wait_while(running, |state| matches!(state, FetchState::Running))
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        match ended {
            FetchState::Done(bytes) if bytes.len() as u64 <= max => Ok(bytes.as_ref().clone()),
            FetchState::Done(bytes) => {
                let why = format!("it has {} bytes, at most {max} are allowed", bytes.len());
                Err(StoreError::new(StoreErrorKind::Refused, format!("read {} {digest}", kind.folder()), why))
            }
            // The cause may concern only the other thread, such as a lower `max`. All waiting threads now fetch at
            // once, so that none waits for the timeout of another.
            FetchState::Running | FetchState::Failed => self.fetch(kind, digest, max),
        }
    }

    fn size(&self, kind: BlobKind, digest: &Digest) -> Result<Option<u64>, StoreError> {
        match self.near.size(kind, digest) {
            Some(size) => Ok(Some(size)),
            None => self.far.size(kind, digest),
        }
    }

    fn is_whole(&self, kind: BlobKind, digest: &Digest, max: u64) -> Result<Option<bool>, StoreError> {
        self.far.is_whole(kind, digest, max)
    }
}
