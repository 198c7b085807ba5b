//! Which processes are alive on a data folder: each holds a lock on a file of its own, which the kernel drops when the process ends,
//! however it ends. So a dead worker's jobs are free at once, without waiting for a lease.

use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use dovetail_core::blobs::StoreError;

use super::{io_error, make_folder};

/// This ledger's own presence, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Presence {
    folder: PathBuf,
    name: String,
    // Held, never read: closing it ends the presence.
    _lock: File,
}

impl Presence {
    pub(crate) fn announce(data: &Path) -> Result<Self, StoreError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = data.join("processes");
        make_folder(&folder)?;
        loop {
            // Identity is the process, not a name: its number and start time, and a counter for several ledgers in one process.
            let name = format!("{}-{}-{}", std::process::id(), started(), COUNT.fetch_add(1, Ordering::Relaxed));
            let path = folder.join(&name);
            let fail = |e| io_error("announce this process in", &path, e);
            let mut lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(fail)?;
            match lock.try_lock() {
                // Somebody who swept may have removed the file between the two calls: a lock on a nameless file announces nobody.
                Ok(()) if same_file(&lock, &path) => {
                    lock.write_all(b"locked while the process lives\n").map_err(fail)?;
                    return Ok(Self { folder, name, _lock: lock });
                }
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(e)) => return Err(fail(e)),
            }
        }
    }

    /// Removes what dead processes left behind. Best effort: a file that stays does no harm.
    pub(crate) fn sweep(&self) {
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if let Ok(name) = entry.file_name().into_string() {
                self.is_dead(&name);
            }
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the process of this name is certainly gone. When in doubt it lives, and its lease decides.
    pub(crate) fn is_dead(&self, name: &str) -> bool {
        if name == self.name {
            return false;
        }
        let path = self.folder.join(name);
        match File::open(&path) {
            Err(e) => e.kind() == std::io::ErrorKind::NotFound,
            Ok(file) => match file.try_lock() {
                Ok(()) => {
                    // Nobody holds it, and no process takes a name a second time.
                    std::fs::remove_file(&path).is_ok()
                }
                Err(_) => false,
            },
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        // A file that stays behind does no harm: it is not locked, so whoever asks finds the process dead.
        drop(std::fs::remove_file(self.folder.join(&self.name)));
    }
}

fn same_file(open: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (open.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// The process's start time in the kernel's ticks, so that a process number that is used again makes another name.
fn started() -> String {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    after_name.split_whitespace().nth(19).unwrap_or("0").to_owned()
}

/// This boot of the machine: times of an earlier one mean nothing now.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}
