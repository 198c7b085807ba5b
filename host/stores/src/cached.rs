//! Blobs of a far store, kept in a folder near by, so that a machine fetches them once.
//!
//! The far store is the only truth: what is written goes there first, and what is kept here can be removed at any time.
//! The folder is shared by the processes of a machine. What is read from it has been compared with its digest; a
//! damaged file is fetched again.

mod folder;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use dovetail_core::Digest;
use dovetail_core::blobs::{BlobKind, Blobs, StoreError, StoreErrorKind};

use folder::Folder;

/// [`Blobs`] elsewhere, with the ones used last on this machine's disk.
///
/// `size` of what is kept is answered without asking the far store; `put` always reaches it. A full or broken disk
/// slows reading down and fails nothing.
pub struct CachedBlobs {
    near: Folder,
    far: Arc<dyn Blobs>,
    flights: Mutex<HashMap<(BlobKind, Digest), Arc<Fetch>>>,
}

impl fmt::Debug for CachedBlobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CachedBlobs({})", self.near)
    }
}

/// A blob on its way here, which others wait for instead of fetching it, too.
#[derive(Default)]
struct Fetch {
    state: Mutex<FlightState>,
    landed: Condvar,
}

#[derive(Default, Clone)]
enum FlightState {
    #[default]
    Flying,
    Arrived(Arc<Vec<u8>>),
    Failed,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends a flight whatever happens to the thread that flies it.
struct Pilot<'a> {
    cache: &'a CachedBlobs,
    key: (BlobKind, Digest),
    flight: Arc<Fetch>,
    outcome: FlightState,
}

impl Drop for Pilot<'_> {
    fn drop(&mut self) {
        locked(&self.cache.flights).remove(&self.key);
        *locked(&self.flight.state) = std::mem::replace(&mut self.outcome, FlightState::Failed);
        self.flight.landed.notify_all();
    }
}

impl CachedBlobs {
    /// Keeps at most `capacity` bytes in `folder`, which is made where it is missing. What was used longest ago goes
    /// first.
    ///
    /// Several processes on one folder may pass `capacity` by a sixteenth of it each, until they look again.
    ///
    /// # Errors
    /// `Refused` if the folder holds blobs that nobody marked as a cache (an embedded data folder must not be emptied),
    /// or is not writable.
    pub fn open(folder: &Path, far: Arc<dyn Blobs>, capacity: u64) -> Result<Self, StoreError> {
        Ok(Self { near: Folder::open(folder, capacity)?, far, flights: Mutex::default() })
    }

    /// The bytes kept now, by all the processes that use the folder.
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

    /// The flight of this blob that another thread flies, or a new one of ours.
    fn board(&self, key: (BlobKind, Digest)) -> Result<Pilot<'_>, Arc<Fetch>> {
        let mut flights = locked(&self.flights);
        if let Some(flight) = flights.get(&key) {
            return Err(flight.clone());
        }
        let flight = Arc::<Fetch>::default();
        flights.insert(key, flight.clone());
        Ok(Pilot { cache: self, key, flight, outcome: FlightState::Failed })
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
        let flight = match self.board((kind, *digest)) {
            Ok(mut pilot) => {
                // The last flight may have landed since we looked.
                if let Some(bytes) = self.near.read(kind, digest, max)? {
                    return Ok(bytes);
                }
                let bytes = Arc::new(self.fetch(kind, digest, max)?);
                pilot.outcome = FlightState::Arrived(bytes.clone());
                drop(pilot);
                return Ok(Arc::try_unwrap(bytes).unwrap_or_else(|shared| shared.as_ref().clone()));
            }
            Err(flight) => flight,
        };
        let flying = locked(&flight.state);
        let landed = flight
            .landed
            .wait_while(flying, |state| matches!(state, FlightState::Flying))
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        match landed {
            FlightState::Arrived(bytes) if bytes.len() as u64 <= max => Ok(bytes.as_ref().clone()),
            FlightState::Arrived(bytes) => {
                let why = format!("it has {} bytes, at most {max} are allowed", bytes.len());
                Err(StoreError::new(StoreErrorKind::Refused, format!("read {} {digest}", kind.folder()), why))
            }
            // Its error may have been its own, such as a lower `max`. All who waited now try at once: none waits for
            // another's timeout.
            FlightState::Flying | FlightState::Failed => self.fetch(kind, digest, max),
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
