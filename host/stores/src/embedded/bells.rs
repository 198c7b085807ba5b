//! Telling the other processes on a folder that a run was cancelled or has failed, so that they stop its steps now and not when they next renew
//! their leases. Who listens has a socket of its own, `bells/PROCESS`, and sleeps until something comes.
//!
//! It is a hint. Where no socket can be made, or one is full, the next renewal tells.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use dovetail_core::ledger::RunKey;

use super::presence::Presence;

/// Who is told; it must not block.
type Told = Arc<dyn Fn(&RunKey) + Send + Sync>;

/// The most that is sent at once, in bytes: the key of a run is much shorter.
const MOST: usize = 256;

#[derive(Default)]
struct Listening {
    told: Vec<Told>,
    thread: Option<JoinHandle<()>>,
}

/// The sockets of a folder, and our own once somebody listens.
pub(crate) struct Bells {
    folder: PathBuf,
    presence: Arc<Presence>,
    listening: Arc<Mutex<Listening>>,
}

fn locked(listening: &Mutex<Listening>) -> MutexGuard<'_, Listening> {
    listening.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Not under the lock: whoever is told may drop the last of the ledger, and us with it.
fn tell(listening: &Mutex<Listening>, run: &RunKey) {
    let all = locked(listening).told.clone();
    all.iter().for_each(|told| told(run));
}

/// A socket of this folder by a name that is short enough for one, however long the folder's is. It holds as long as the open folder.
fn short(folder: &File, name: &str) -> PathBuf {
    format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()).into()
}

impl Bells {
    /// Of this process, whose name `presence` has. Nobody listens yet.
    pub(crate) fn new(data: &Path, presence: Arc<Presence>) -> Self {
        Self { folder: data.join("bells"), presence, listening: Arc::default() }
    }

    /// Has `told` called from now on.
    pub(crate) fn listen(&self, told: Box<dyn Fn(&RunKey) + Send + Sync>) {
        let mut listening = locked(&self.listening);
        listening.told.push(told.into());
        if listening.thread.is_none() {
            match self.hang() {
                Ok(thread) => listening.thread = Some(thread),
                Err(error) => tracing::warn!(%error, folder = %self.folder.display(), "runs that other processes cancel are noticed late"),
            }
        }
    }

    fn hang(&self) -> std::io::Result<JoinHandle<()>> {
        std::fs::create_dir_all(&self.folder)?;
        self.sweep();
        // Of an earlier process that had our name, before the machine was started anew.
        drop(std::fs::remove_file(self.folder.join(self.presence.name())));
        let socket = UnixDatagram::bind(short(&File::open(&self.folder)?, self.presence.name()))?;
        let listening = Arc::downgrade(&self.listening);
        let listen = move || {
            let mut buffer = [0; MOST];
            loop {
                let bytes = match socket.recv(&mut buffer) {
                    // Nothing is what the end is called.
                    Ok(0) => return,
                    Ok(bytes) => bytes,
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(error) => return tracing::warn!(%error, "runs that other processes cancel are noticed late from now on"),
                };
                let Some(listening) = listening.upgrade() else { return };
                if let Some(run) = std::str::from_utf8(&buffer[..bytes]).ok().and_then(RunKey::parse) {
                    tell(&listening, &run);
                }
            }
        };
        std::thread::Builder::new().name("bell".into()).stack_size(256 << 10).spawn(listen)
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Removes the sockets of dead processes. Best effort: nobody is hurt by one that stays.
    fn sweep(&self) {
        for name in self.names().iter().filter(|name| self.presence.is_dead(name)) {
            drop(std::fs::remove_file(self.folder.join(name)));
        }
    }

    /// Sends to one process, never waiting.
    fn send(&self, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        let (socket, folder) = (UnixDatagram::unbound()?, File::open(&self.folder)?);
        socket.set_nonblocking(true)?;
        socket.send_to(bytes, short(&folder, name)).map(drop)
    }

    /// Tells everybody, this process included.
    pub(crate) fn ring(&self, runs: &[RunKey]) {
        if runs.is_empty() {
            return;
        }
        for name in self.names().iter().filter(|name| *name != self.presence.name()) {
            if let Err(error) = runs.iter().try_for_each(|run| self.send(name, run.key().as_bytes())) {
                tracing::debug!(%error, process = name, "a process was not told that a run is over");
            }
        }
        runs.iter().for_each(|run| tell(&self.listening, run));
    }
}

impl Drop for Bells {
    fn drop(&mut self) {
        let Some(thread) = locked(&self.listening).thread.take() else { return };
        // Where that cannot be said, it sleeps on until the process ends. It may itself be who drops us.
        let ended = self.send(self.presence.name(), b"").is_ok();
        drop(std::fs::remove_file(self.folder.join(self.presence.name())));
        if ended && thread.thread().id() != std::thread::current().id() {
            drop(thread.join());
        }
    }
}
