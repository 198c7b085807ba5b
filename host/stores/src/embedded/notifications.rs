//! Telling the other processes on a folder what they wait for, so that they hear of it now and not when they next look:
//! that a run was cancelled or has failed, to whoever runs its steps (`bells/PROCESS`); that jobs are ready, to whoever
//! waits for some (`bells/PROCESS~jobs`); and that a run has ended, to whoever waits for that (`bells/PROCESS~ends`).
//! Who listens has a socket of that name, and sleeps until something comes.
//!
//! It is a hint. Where no socket can be made, or one is full, the next renewal or look tells. A change in a folder in
//! which nobody else listens costs a look at the time at which `bells/` last changed.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use dovetail_core::ledger::RunKey;
use dovetail_core::panics::contain;
use dovetail_core::scarce::Scarce;

use super::presence::Presence;

/// Who is told; it must not block.
type EndListener = Arc<dyn Fn(&RunKey) + Send + Sync>;

/// The most that is sent at once, in bytes: the key of a run is much shorter.
const MOST: usize = 256;
/// Between a process's name and its topic, in the name of a socket.
const ABOUT: char = '~';
/// What comes within so long of the last news is told together: each costs whoever hears it a look into the database.
const TOGETHER: Duration = Duration::from_millis(5);
/// A folder whose time is so old has got another one with any later change, however coarse the file system's clock is.
const SETTLED: Duration = Duration::from_millis(50);

/// What is told without saying of which run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topic {
    /// Jobs are there that nobody has taken.
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

/// A socket of ours and the thread at it, until it is dropped.
struct Hung {
    folder: PathBuf,
    name: String,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Hung {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        // Where that cannot be said, it sleeps on until it hears something or the process ends. It may itself be who
        // drops us.
        let ended = send(&self.folder, &self.name, b"").is_ok();
        drop(std::fs::remove_file(self.folder.join(&self.name)));
        if ended && thread.thread().id() != std::thread::current().id() {
            drop(thread.join());
        }
    }
}

#[derive(Default)]
struct Listening {
    told: Vec<EndListener>,
    hung: Option<Hung>,
}

/// Who else listens, as of a state of the folder.
#[derive(Default)]
struct Others {
    /// When the folder last changed; none: it is to be read again.
    changed: Option<SystemTime>,
    sockets: Vec<(Topic, UnixDatagram)>,
}

/// The sockets of a folder, and our own once somebody listens.
pub(crate) struct Notifications {
    folder: PathBuf,
    presence: Arc<Presence>,
    listening: Arc<Mutex<Listening>>,
    others: Mutex<Others>,
    jobs: OnceLock<Option<Hung>>,
    ends: OnceLock<Option<Hung>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Not under the lock: whoever is told may drop the last of the ledger, and us with it.
fn tell(listening: &Mutex<Listening>, run: &RunKey) {
    let all = locked(listening).told.clone();
    for listener in &all {
        // The listening thread must outlive a listener that panics.
        drop(contain("tell of the end of a run", || listener(run)));
    }
}

/// A socket of this folder by a name that is short enough for one, however long the folder's is. It holds as long as
/// the open folder.
fn short(folder: &File, name: &str) -> PathBuf {
    format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()).into()
}

/// Sends to one socket, never waiting.
fn send(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let (socket, folder) = (UnixDatagram::unbound()?, File::open(folder)?);
    socket.set_nonblocking(true)?;
    socket.send_to(bytes, short(&folder, name)).map(drop)
}

/// Runs that are over, one by one.
fn hear_runs(socket: &UnixDatagram, hears: impl Fn(&RunKey) -> bool) -> std::io::Result<()> {
    let mut buffer = [0; MOST];
    loop {
        let bytes = match socket.recv(&mut buffer) {
            // Nothing is what the end is called.
            Ok(0) => return Ok(()),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let run = std::str::from_utf8(&buffer[..bytes]).ok().and_then(RunKey::parse);
        if !run.is_none_or(|run| hears(&run)) {
            return Ok(());
        }
    }
}

/// News, all that have come at once.
fn hear_news(socket: &UnixDatagram, hears: impl Fn() -> bool) -> std::io::Result<()> {
    let mut buffer = [0; 1];
    loop {
        match socket.recv(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        // Before it is told: what comes from here on is told once more.
        socket.set_nonblocking(true)?;
        while let Ok(bytes) = socket.recv(&mut buffer) {
            if bytes == 0 {
                return Ok(());
            }
        }
        socket.set_nonblocking(false)?;
        if contain("tell of news of another process", &hears) == Ok(false) {
            return Ok(());
        }
        std::thread::sleep(TOGETHER);
    }
}

impl Notifications {
    /// Of this process, whose name `presence` has. Nobody listens yet.
    pub(crate) fn new(data: &Path, presence: Arc<Presence>) -> Self {
        let (listening, others) = (Arc::default(), Mutex::default());
        Self { folder: data.join("bells"), presence, listening, others, jobs: OnceLock::new(), ends: OnceLock::new() }
    }

    /// Has `told` called from now on.
    pub(crate) fn listen(&self, told: Box<dyn Fn(&RunKey) + Send + Sync>) {
        let mut listening = locked(&self.listening);
        listening.told.push(told.into());
        if listening.hung.is_none() {
            let heard = Arc::downgrade(&self.listening);
            let hears = move |run: &RunKey| heard.upgrade().map(|listening| tell(&listening, run)).is_some();
            match self.hang(self.presence.name().to_owned(), move |socket| hear_runs(socket, hears)) {
                Ok(hung) => listening.hung = Some(hung),
                Err(error) => {
                    tracing::warn!(%error, folder = %self.folder.display(), "runs that other processes cancel are noticed late");
                }
            }
        }
    }

    fn hung(&self, topic: Topic) -> &OnceLock<Option<Hung>> {
        match topic {
            Topic::Jobs => &self.jobs,
            Topic::Ends => &self.ends,
        }
    }

    /// Whether news of this kind come by a bell, or cannot.
    pub(crate) fn is_heard(&self, topic: Topic) -> bool {
        self.hung(topic).get().is_some()
    }

    /// Has `hears` called with news of this kind from now on, until it returns false.
    pub(crate) fn hear(&self, topic: Topic, hears: impl Fn() -> bool + Send + 'static) {
        self.hung(topic).get_or_init(|| {
            let name = format!("{}{ABOUT}{}", self.presence.name(), topic.name());
            let hung = self.hang(name, move |socket| hear_news(socket, hears));
            hung.inspect_err(
                |error| tracing::debug!(%error, topic = topic.name(), "what other processes do is noticed late"),
            )
            .ok()
        });
    }

    fn hang(
        &self,
        name: String,
        listen: impl FnOnce(&UnixDatagram) -> std::io::Result<()> + Send + 'static,
    ) -> std::io::Result<Hung> {
        std::fs::create_dir_all(&self.folder)?;
        self.sweep();
        // Of an earlier process that had our name, before the machine was started anew.
        drop(std::fs::remove_file(self.folder.join(&name)));
        let socket = UnixDatagram::bind(short(&File::open(&self.folder)?, &name))?;
        let listen = move || {
            if let Err(error) = listen(&socket) {
                tracing::warn!(%error, "what other processes do is noticed late from now on");
            }
        };
        let thread = std::thread::Builder::new().name("bell".into()).stack_size(256 << 10).spawn(listen);
        let thread = thread.map_err(|error| Scarce::thread(&error))?;
        Ok(Hung { folder: self.folder.clone(), name, thread: Some(thread) })
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Removes the sockets of dead processes. Best effort: nobody is hurt by one that stays.
    fn sweep(&self) {
        for name in self.names() {
            if self.presence.is_dead(name.split(ABOUT).next().unwrap_or_default()) {
                drop(std::fs::remove_file(self.folder.join(name)));
            }
        }
    }

    /// Tells everybody who runs steps, this process included, of runs that are over.
    pub(crate) fn ring(&self, runs: &[RunKey]) {
        if runs.is_empty() {
            return;
        }
        for name in self.names().iter().filter(|name| *name != self.presence.name() && !name.contains(ABOUT)) {
            if let Err(error) = runs.iter().try_for_each(|run| send(&self.folder, name, run.key().as_bytes())) {
                tracing::debug!(%error, process = name, "a process was not told that a run is over");
            }
        }
        runs.iter().for_each(|run| tell(&self.listening, run));
    }

    fn others(&self) -> MutexGuard<'_, Others> {
        let mut others = locked(&self.others);
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

    /// Whether another process wants to hear of this.
    pub(crate) fn anybody(&self, topic: Topic) -> bool {
        self.others().sockets.iter().any(|(about, _)| *about == topic)
    }

    /// Tells all other processes that want to hear of it.
    pub(crate) fn tell(&self, topic: Topic) {
        let mut others = self.others();
        // Where there is no room for it, what is there already tells the same.
        let gone = |sent: std::io::Result<usize>| sent.is_err_and(|error| error.kind() != ErrorKind::WouldBlock);
        let news = others.sockets.iter().filter(|(about, _)| *about == topic);
        if news.fold(false, |any, (_, socket)| any | gone(socket.send(b"!"))) {
            others.changed = None;
        }
    }
}
