//! A cache of the list of installed models. A step asks for models by name several times. Reading and parsing every
//! manifest each time would take longer than the rest of the call except its networks.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use dovetail_core::sync::lock;

use super::{Installed, ModelError, ModelStore};

/// The list is read again after this time even if the folder has not changed: a manifest that is overwritten in place
/// does not change the folder's modification time.
const AGE: Duration = Duration::from_secs(1);
/// A folder that changed less than this before the read is not cached: it may change again within one tick of the file
/// system's clock.
const TICK: Duration = Duration::from_millis(100);

struct Read {
    list: Arc<[Installed]>,
    at: Instant,
    /// The folder's modification time before the read.
    changed: SystemTime,
}

#[derive(Default)]
pub(crate) struct ModelListCache(Mutex<Option<Read>>);

impl ModelListCache {
    /// Every installed model, sorted by kind and name. An added or removed manifest is noticed at once, an overwritten
    /// one within a second.
    pub(crate) fn get(&self, store: &ModelStore) -> Result<Arc<[Installed]>, ModelError> {
        let changed = store.changed()?;
        let mut last = lock(&self.0);
        if let Some(read) = last.as_ref().filter(|read| read.changed == changed && read.at.elapsed() < AGE) {
            return Ok(read.list.clone());
        }
        *last = None;
        let list: Arc<[Installed]> = store.list()?.into();
        if changed.elapsed().is_ok_and(|age| age > TICK) {
            *last = Some(Read { list: list.clone(), at: Instant::now(), changed });
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_is_installed_is_there_at_once_and_the_list_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = ModelStore::open(folder.path().join("models")).unwrap();
        let listed = ModelListCache::default();
        assert!(listed.get(&store).unwrap().is_empty());
        std::thread::sleep(2 * TICK);
        let first = listed.get(&store).unwrap();
        assert!(Arc::ptr_eq(&first, &listed.get(&store).unwrap()), "nothing changed: it is the same list");
        std::fs::write(folder.path().join("models/new.toml"), "nonsense").unwrap();
        assert!(listed.get(&store).is_err(), "the folder changed: it is read again");
    }
}
