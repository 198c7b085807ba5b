//! The turn to write to the database, among the processes of a data folder: a lock on a file, which the kernel gives to
//! whoever asks first when it is free. One that asks again at once would be the first each time; so whoever had the
//! last turn lets those go before who wait.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use dovetail_core::blobs::StoreError;

use super::io_error;

/// Whoever had a turn so long ago is as good as any other.
const RECENT: Duration = Duration::from_millis(1);
/// About as long as it takes until a process that waits has been woken and has the turn.
const GIVE_WAY: Duration = Duration::from_micros(100);

pub(crate) struct WriterLock {
    lock: File,
    /// Locked, shared, by all that wait.
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

    /// The lock itself, for what is written once.
    pub(crate) fn lock(&self) -> &File {
        &self.lock
    }

    /// Waits for the turn.
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

/// It is given back when this is dropped: also where a panic ends the work.
pub(crate) struct WriterGuard<'a>(&'a mut WriterLock);

impl Drop for WriterGuard<'_> {
    fn drop(&mut self) {
        drop(self.0.lock.unlock());
        self.0.ended = Some(Instant::now());
    }
}
