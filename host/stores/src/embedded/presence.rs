//! Which processes are alive on a data folder: each holds a lock on a file of its own, which the kernel drops when the
//! process ends, however it ends. So a dead worker's jobs are free at once, without waiting for a lease.

use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use dovetail_core::blobs::StoreError;

use super::{io_error, make_folder};

/// Between a process's name and its worker's, in the name of the file with what that worker says.
const ABOUT: &str = "~";

/// What a worker says of itself.
#[derive(serde::Serialize, serde::Deserialize)]
struct Said {
    worker: String,
    until_ms: u64,
    about: String,
}

/// This ledger's own presence, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Presence {
    folder: PathBuf,
    name: String,
    // Held, never read: closing it ends the presence. None: it only looks at others.
    lock: Option<File>,
}

impl Presence {
    pub(crate) fn announce(data: &Path) -> Result<Self, StoreError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = data.join("processes");
        make_folder(&folder)?;
        loop {
            // Identity is the process, not a name: its number and start time, and a counter for several ledgers in one
            // process.
            let name = format!("{}-{}-{}", std::process::id(), started(), COUNT.fetch_add(1, Ordering::Relaxed));
            let path = folder.join(&name);
            let fail = |e| io_error("announce this process in", &path, e);
            let mut lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(fail)?;
            match lock.try_lock() {
                // Somebody who swept may have removed the file between the two calls: a lock on a nameless file
                // announces nobody.
                Ok(()) if same_file(&lock, &path) => {
                    lock.write_all(b"locked while the process lives\n").map_err(fail)?;
                    return Ok(Self { folder, name, lock: Some(lock) });
                }
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(e)) => return Err(fail(e)),
            }
        }
    }

    /// Looks at others and announces nobody: for whoever only reads.
    pub(crate) fn none(data: &Path) -> Self {
        Self { folder: data.join("processes"), name: String::new(), lock: None }
    }

    /// Removes what dead processes left behind. Best effort: a file that stays does no harm.
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

    /// Keeps what a worker of this process says of itself, until then.
    pub(crate) fn say(&self, worker: &str, about: &[u8], until_ms: u64) -> Result<(), StoreError> {
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') { c } else { '_' };
        let path = self.folder.join(format!("{}{ABOUT}{}", self.name, worker.chars().map(plain).collect::<String>()));
        let said = Said { worker: worker.to_owned(), until_ms, about: String::from_utf8_lossy(about).into_owned() };
        let write = || -> std::io::Result<()> {
            let mut aside = tempfile::Builder::new().prefix(".new-").tempfile_in(&self.folder)?;
            serde_json::to_writer(&mut aside, &said)?;
            aside.persist(&path)?;
            Ok(())
        };
        write().map_err(|e| io_error("write", &path, e))
    }

    /// What workers of living processes say, by name.
    pub(crate) fn said(&self, now_ms: u64) -> Vec<(String, Vec<u8>)> {
        let read = |name: &String| -> Option<Said> {
            let (process, _) = name.split_once(ABOUT)?;
            if self.is_dead(process) {
                return None;
            }
            serde_json::from_slice(&std::fs::read(self.folder.join(name)).ok()?).ok()
        };
        let files = self.files();
        let fresh = files.iter().filter_map(read).filter(|said| said.until_ms > now_ms);
        let mut said: Vec<_> = fresh.map(|said| (said.worker, said.about.into_bytes())).collect();
        said.sort();
        said
    }

    /// The worker that the process of this name is, if it said so.
    pub(crate) fn worker_of(&self, process: &str) -> Option<String> {
        let file = self.files().into_iter().find(|file| file.split_once(ABOUT).is_some_and(|(of, _)| of == process))?;
        Some(serde_json::from_slice::<Said>(&std::fs::read(self.folder.join(file)).ok()?).ok()?.worker)
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
                    // Nobody holds it, and no process takes a name a second time. In a folder that is read-only it
                    // stays.
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
        // A file that stays behind does no harm: it is not locked, so whoever asks finds the process dead.
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
