//! The writer lock: a file lock that gives the processes of a data folder their turns to write to the database. The
//! kernel gives a free lock to the first process that asks. A process that asks again at once would always be first, so
//! the process that had the lock last gives way to the waiting ones.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use dovetail_core::blobs::StoreError;

use super::io_error;

/// A process gives way only if it released the lock less than this long ago.
const RECENT: Duration = Duration::from_millis(1);
/// About the time in which a waiting process wakes up and takes the lock.
const GIVE_WAY: Duration = Duration::from_micros(100);

pub(crate) struct WriterLock {
    lock: File,
    /// Every waiting process holds a shared lock on this file.
    waiting: File,
    ended: Option<Instant>,
}

fn open(path: &Path) -> Result<File, StoreError> {
    File::options().create(true).truncate(false).write(true).open(path).map_err(|e| io_error("open", path, e))
}

impl WriterLock {
    pub(crate) fn open(data: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            lock: open(&data.join("dovetail.lock"))?,
            waiting: open(&data.join("dovetail.waiting"))?,
            ended: None,
        })
    }

    /// The lock file itself, for the preparation of the database in `schema::open`.
    pub(crate) fn lock(&self) -> &File {
        &self.lock
    }

    /// Waits for the lock and takes it.
    pub(crate) fn take(&mut self) -> io::Result<WriterGuard<'_>> {
        if self.ended.is_some_and(|ended| ended.elapsed() < RECENT) {
            match self.waiting.try_lock() {
                Ok(()) => self.waiting.unlock()?,
                Err(_) => std::thread::sleep(GIVE_WAY),
            }
        }
        if self.lock.try_lock().is_err() {
            self.waiting.lock_shared()?;
            let taken = self.lock.lock();
            self.waiting.unlock()?;
            taken?;
        }
        Ok(WriterGuard(self))
    }
}

/// Releases the lock when it is dropped, also by a panic.
pub(crate) struct WriterGuard<'a>(&'a mut WriterLock);

impl Drop for WriterGuard<'_> {
    fn drop(&mut self) {
        drop(self.0.lock.unlock());
        self.0.ended = Some(Instant::now());
    }
}
