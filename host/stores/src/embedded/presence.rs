//! Which processes on a data folder are alive. Each holds a lock on a file of its own. The kernel releases the lock
//! when the process ends for any reason, so a dead worker's jobs are free at once, before their leases expire.

use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use dovetail_core::blobs::StoreError;

use super::{io_error, make_folder};

/// Separates the process's name from the worker's name, in the name of the file with the worker's status.
const ABOUT: &str = "~";

/// The status file of a worker.
#[derive(serde::Serialize, serde::Deserialize)]
struct StatusFile {
    worker: String,
    until_ms: u64,
    about: String,
}

/// The presence of one ledger, until it is dropped.
#[derive(Debug)]
pub(crate) struct Presence {
    folder: PathBuf,
    name: String,
    // Held, never read: closing the file ends the presence. `None` if this process only looks at others.
    lock: Option<File>,
}

impl Presence {
    pub(crate) fn announce(data: &Path) -> Result<Self, StoreError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = data.join("processes");
        make_folder(&folder)?;
        loop {
            // The name identifies the process by its number and start time, and a counter tells several ledgers in one
            // process apart.
            let name = format!("{}-{}-{}", std::process::id(), started(), COUNT.fetch_add(1, Ordering::Relaxed));
            let path = folder.join(&name);
            let fail = |e| io_error("announce this process in", &path, e);
            let mut lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(fail)?;
            match lock.try_lock() {
                // A sweep may have removed the file between the two calls. A lock on a file without a name announces
                // nothing.
                Ok(()) if same_file(&lock, &path) => {
                    lock.write_all(b"locked while the process lives\n").map_err(fail)?;
                    return Ok(Self { folder, name, lock: Some(lock) });
                }
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(e)) => return Err(fail(e)),
            }
        }
    }

    /// A presence that looks at other processes and does not announce its own, for a ledger that only reads.
    pub(crate) fn none(data: &Path) -> Self {
        Self { folder: data.join("processes"), name: String::new(), lock: None }
    }

    /// Removes the files of dead processes. Best effort: a file that stays does no harm.
    pub(crate) fn sweep(&self) {
        for name in self.files() {
            match name.split_once(ABOUT) {
                Some((process, _)) if self.is_dead(process) => drop(std::fs::remove_file(self.folder.join(&name))),
                Some(_) => {}
                None => drop(self.is_dead(&name)),
            }
        }
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Stores the status of a worker of this process, valid until `until_ms` of the ledger's clock.
    pub(crate) fn write_status(&self, worker: &str, about: &[u8], until_ms: u64) -> Result<(), StoreError> {
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') { c } else { '_' };
        let path = self.folder.join(format!("{}{ABOUT}{}", self.name, worker.chars().map(plain).collect::<String>()));
        let status =
            StatusFile { worker: worker.to_owned(), until_ms, about: String::from_utf8_lossy(about).into_owned() };
        let write = || -> std::io::Result<()> {
            let mut aside = tempfile::Builder::new().prefix(".new-").tempfile_in(&self.folder)?;
            serde_json::to_writer(&mut aside, &status)?;
            aside.persist(&path)?;
            Ok(())
        };
        write().map_err(|e| io_error("write", &path, e))
    }

    /// The status of each worker in a living process that is valid at `now_ms`, sorted by name.
    pub(crate) fn statuses(&self, now_ms: u64) -> Vec<(String, Vec<u8>)> {
        let read = |name: &String| -> Option<StatusFile> {
            let (process, _) = name.split_once(ABOUT)?;
            if self.is_dead(process) {
                return None;
            }
            serde_json::from_slice(&std::fs::read(self.folder.join(name)).ok()?).ok()
        };
        let files = self.files();
        let fresh = files.iter().filter_map(read).filter(|status| status.until_ms > now_ms);
        let mut statuses: Vec<_> = fresh.map(|status| (status.worker, status.about.into_bytes())).collect();
        statuses.sort();
        statuses
    }

    /// The name of the worker in the process of this name, if it has written a status.
    pub(crate) fn worker_of(&self, process: &str) -> Option<String> {
        let file = self.files().into_iter().find(|file| file.split_once(ABOUT).is_some_and(|(of, _)| of == process))?;
        Some(serde_json::from_slice::<StatusFile>(&std::fs::read(self.folder.join(file)).ok()?).ok()?.worker)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the process of this name is certainly dead. In doubt it counts as alive, and its lease decides.
    pub(crate) fn is_dead(&self, name: &str) -> bool {
        if name == self.name {
            return false;
        }
        let path = self.folder.join(name);
        match File::open(&path) {
            Err(e) => e.kind() == std::io::ErrorKind::NotFound,
            Ok(file) => match file.try_lock() {
                Ok(()) => {
                    // No process holds the lock, and no other process will take the same name. In a read-only folder
                    // the file stays.
                    drop(std::fs::remove_file(&path));
                    true
                }
                Err(_) => false,
            },
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if self.lock.is_none() {
            return;
        }
        // A file that stays behind does no harm: it is not locked, so other processes find this process dead.
        for name in self.files() {
            if name == self.name || name.split_once(ABOUT).is_some_and(|(process, _)| process == self.name) {
                drop(std::fs::remove_file(self.folder.join(name)));
            }
        }
    }
}

fn same_file(open: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (open.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// The process's start time in the kernel's ticks. It makes the name unique if the kernel uses a process number again.
fn started() -> String {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    after_name.split_whitespace().nth(19).unwrap_or("0").to_owned()
}

/// The ID of this boot of the machine. Times of an earlier boot mean nothing now.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}
