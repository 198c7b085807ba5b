//! Notifications between the processes on a data folder, so that a process hears of a change now, not at its next look.
//! There are three kinds. A run was cancelled or has failed: for the processes that execute steps (socket
//! `bells/PROCESS`). Jobs are ready: for the processes that wait for jobs (`bells/PROCESS~jobs`). A run has ended: for
//! the processes that wait for that (`bells/PROCESS~ends`). A listening process has the socket of that name, and a
//! thread that sleeps until a message comes.
//!
//! A notification is a hint. If a socket cannot be made or is full, the next renewal of a lease or the next look finds
//! the change. If no other process listens on the folder, a change costs one read of the modification time of `bells/`.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use dovetail_core::ledger::RunKey;
use dovetail_core::panics::contain;
use dovetail_core::scarce::Scarce;
use dovetail_core::sync::lock;

use super::presence::Presence;

/// A callback for runs that are over. It must not block.
type EndListener = Arc<dyn Fn(&RunKey) + Send + Sync>;

/// The longest message in bytes. The key of a run is much shorter.
const LONGEST: usize = 256;
/// Separates the process's name from the topic, in the name of a socket.
const ABOUT: char = '~';
/// The pause after a notification, so that all that arrive within it are handled together: each costs its receiver a
/// look into the database.
const TOGETHER: Duration = Duration::from_millis(5);
/// If the modification time of `bells/` is at least this old, any later change sets another time, however coarse the
/// file system's clock is.
const SETTLED: Duration = Duration::from_millis(50);

/// A kind of notification that names no run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topic {
    /// There are jobs that no claimer has taken.
    Jobs,
    /// A run has ended.
    Ends,
}

impl Topic {
    fn name(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Ends => "ends",
        }
    }
}

/// A socket of this process and the thread that reads from it, until it is dropped.
struct OpenSocket {
    folder: PathBuf,
    name: String,
    thread: Option<JoinHandle<()>>,
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        // An empty message ends the thread. If it cannot be sent, the thread sleeps until a message comes or the
        // process ends. The thread itself may drop this value, and cannot join itself.
        let ended = send(&self.folder, &self.name, b"").is_ok();
        drop(std::fs::remove_file(self.folder.join(&self.name)));
        if ended && thread.thread().id() != std::thread::current().id() {
            drop(thread.join());
        }
    }
}

#[derive(Default)]
struct Listening {
    listeners: Vec<EndListener>,
    socket: Option<OpenSocket>,
}

/// The sockets of the other processes, as of one state of the folder.
#[derive(Default)]
struct Others {
    /// The modification time of the folder. `None` if the folder must be read again.
    changed: Option<SystemTime>,
    sockets: Vec<(Topic, UnixDatagram)>,
}

/// The sockets of a folder. This process has its own once it listens.
pub(crate) struct Notifications {
    folder: PathBuf,
    presence: Arc<Presence>,
    listening: Arc<Mutex<Listening>>,
    others: Mutex<Others>,
    jobs: OnceLock<Option<OpenSocket>>,
    ends: OnceLock<Option<OpenSocket>>,
}

/// Calls the listeners without the lock: a listener may drop the last reference to the ledger, and this value with it.
fn call_listeners(listening: &Mutex<Listening>, run: &RunKey) {
    let all = lock(listening).listeners.clone();
    for listener in &all {
        // The listening thread must outlive a listener that panics.
        drop(contain("tell of the end of a run", || listener(run)));
    }
}

/// A path for a socket in this folder that is short enough for a socket address, however long the folder's path is. The
/// path is valid while the folder is open.
fn short(folder: &File, name: &str) -> PathBuf {
    format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()).into()
}

/// Sends to one socket without blocking.
fn send(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let (socket, folder) = (UnixDatagram::unbound()?, File::open(folder)?);
    socket.set_nonblocking(true)?;
    socket.send_to(bytes, short(&folder, name)).map(drop)
}

/// Receives the keys of runs that are over, and calls `callback` for each, until it returns false.
fn receive_runs(socket: &UnixDatagram, callback: impl Fn(&RunKey) -> bool) -> std::io::Result<()> {
    let mut buffer = [0; LONGEST];
    loop {
        let bytes = match socket.recv(&mut buffer) {
            // An empty message ends the thread.
            Ok(0) => return Ok(()),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let run = std::str::from_utf8(&buffer[..bytes]).ok().and_then(RunKey::parse);
        if !run.is_none_or(|run| callback(&run)) {
            return Ok(());
        }
    }
}

/// Receives notifications and calls `callback` once for all that have arrived together, until it returns false.
fn receive_topic(socket: &UnixDatagram, callback: impl Fn() -> bool) -> std::io::Result<()> {
    let mut buffer = [0; 1];
    loop {
        match socket.recv(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        // Empty the socket before the call: a message that arrives during the call leads to another call.
        socket.set_nonblocking(true)?;
        while let Ok(bytes) = socket.recv(&mut buffer) {
            if bytes == 0 {
                return Ok(());
            }
        }
        socket.set_nonblocking(false)?;
        if contain("tell of news of another process", &callback) == Ok(false) {
            return Ok(());
        }
        std::thread::sleep(TOGETHER);
    }
}

impl Notifications {
    /// Notifications for this process, whose name is in `presence`. It does not listen yet.
    pub(crate) fn new(data: &Path, presence: Arc<Presence>) -> Self {
        let (listening, others) = (Arc::default(), Mutex::default());
        Self { folder: data.join("bells"), presence, listening, others, jobs: OnceLock::new(), ends: OnceLock::new() }
    }

    /// Calls `listener` from now on for every run that is over.
    pub(crate) fn listen(&self, listener: Box<dyn Fn(&RunKey) + Send + Sync>) {
        let mut listening = lock(&self.listening);
        listening.listeners.push(listener.into());
        if listening.socket.is_none() {
            let weak = Arc::downgrade(&self.listening);
            let callback =
                move |run: &RunKey| weak.upgrade().map(|listening| call_listeners(&listening, run)).is_some();
            match self.open_socket(self.presence.name().to_owned(), move |socket| receive_runs(socket, callback)) {
                Ok(socket) => listening.socket = Some(socket),
                Err(error) => {
                    tracing::warn!(
                        %error,
                        folder = %self.folder.display(),
                        "a run that another process cancels stops only when its lease is renewed"
                    );
                }
            }
        }
    }

    fn socket(&self, topic: Topic) -> &OnceLock<Option<OpenSocket>> {
        match topic {
            Topic::Jobs => &self.jobs,
            Topic::Ends => &self.ends,
        }
    }

    /// Whether [`Self::subscribe`] was called for this topic, even if no socket could be made.
    pub(crate) fn is_subscribed(&self, topic: Topic) -> bool {
        self.socket(topic).get().is_some()
    }

    /// Calls `callback` for notifications of this topic from now on, until it returns false.
    pub(crate) fn subscribe(&self, topic: Topic, callback: impl Fn() -> bool + Send + 'static) {
        self.socket(topic).get_or_init(|| {
            let name = format!("{}{ABOUT}{}", self.presence.name(), topic.name());
            let socket = self.open_socket(name, move |socket| receive_topic(socket, callback));
            socket
                .inspect_err(|error| {
                    let topic = topic.name();
                    tracing::debug!(%error, topic, "changes by other processes are noticed up to 1 s late");
                })
                .ok()
        });
    }

    fn open_socket(
        &self,
        name: String,
        listen: impl FnOnce(&UnixDatagram) -> std::io::Result<()> + Send + 'static,
    ) -> std::io::Result<OpenSocket> {
        std::fs::create_dir_all(&self.folder)?;
        self.sweep();
        // Before the machine restarted, another process may have had the same name.
        drop(std::fs::remove_file(self.folder.join(&name)));
        let socket = UnixDatagram::bind(short(&File::open(&self.folder)?, &name))?;
        let listen = move || {
            if let Err(error) = listen(&socket) {
                tracing::warn!(%error, "from now on, changes by other processes are noticed up to 1 s late, and their \
                    cancellations at the next renewal of a lease");
            }
        };
        let thread = std::thread::Builder::new().name("notifications".into()).stack_size(256 << 10).spawn(listen);
        let thread = thread.map_err(|error| Scarce::thread(&error))?;
        Ok(OpenSocket { folder: self.folder.clone(), name, thread: Some(thread) })
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Removes the sockets of dead processes. Best effort: a socket that stays does no harm.
    fn sweep(&self) {
        for name in self.names() {
            if self.presence.is_dead(name.split(ABOUT).next().unwrap_or_default()) {
                drop(std::fs::remove_file(self.folder.join(name)));
            }
        }
    }

    /// Notifies every process that executes steps, including this one, of runs that are over.
    pub(crate) fn notify_over(&self, runs: &[RunKey]) {
        if runs.is_empty() {
            return;
        }
        for name in self.names().iter().filter(|name| *name != self.presence.name() && !name.contains(ABOUT)) {
            if let Err(error) = runs.iter().try_for_each(|run| send(&self.folder, name, run.key().as_bytes())) {
                tracing::debug!(%error, process = name, "a process was not told that a run is over");
            }
        }
        runs.iter().for_each(|run| call_listeners(&self.listening, run));
    }

    fn others(&self) -> MutexGuard<'_, Others> {
        let mut others = lock(&self.others);
        let changed = std::fs::metadata(&self.folder).and_then(|meta| meta.modified()).ok();
        if changed.is_none() || others.changed != changed {
            let settled = changed.filter(|at| at.elapsed().is_ok_and(|age| age > SETTLED));
            *others = Others { changed: settled, sockets: if changed.is_some() { self.connect() } else { Vec::new() } };
        }
        others
    }

    fn connect(&self) -> Vec<(Topic, UnixDatagram)> {
        let Ok(folder) = File::open(&self.folder) else { return Vec::new() };
        let mut sockets = Vec::new();
        for name in self.names() {
            let Some((process, about)) = name.split_once(ABOUT) else { continue };
            let Some(topic) = [Topic::Jobs, Topic::Ends].into_iter().find(|topic| topic.name() == about) else {
                continue;
            };
            if process == self.presence.name() {
                continue;
            }
            let connected = UnixDatagram::unbound().and_then(|socket| {
                socket.set_nonblocking(true)?;
                socket.connect(short(&folder, &name))?;
                Ok(socket)
            });
            match connected {
                Ok(socket) => sockets.push((topic, socket)),
                Err(_) if self.presence.is_dead(process) => drop(std::fs::remove_file(self.folder.join(&name))),
                Err(error) => tracing::debug!(%error, socket = name, "a process cannot be told anything"),
            }
        }
        sockets
    }

    /// Whether another process listens to this topic.
    pub(crate) fn has_listeners(&self, topic: Topic) -> bool {
        self.others().sockets.iter().any(|(about, _)| *about == topic)
    }

    /// Notifies all other processes that listen to this topic.
    pub(crate) fn notify(&self, topic: Topic) {
        let mut others = self.others();
        // A full socket needs no further message: its receiver has unread ones.
        let failed = |sent: std::io::Result<usize>| sent.is_err_and(|error| error.kind() != ErrorKind::WouldBlock);
        let listeners = others.sockets.iter().filter(|(about, _)| *about == topic);
        if listeners.fold(false, |any, (_, socket)| any | failed(socket.send(b"!"))) {
            others.changed = None;
        }
    }
}
