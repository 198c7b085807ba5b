//! The workers of a measurement: one worker in this process for a data folder, or processes of this program for a
//! fleet. They end when the value is dropped, also by a panic.

use std::process::{Child, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dovetail_core::ledger::Scope;
use dovetail_core::sync::lock;
use dovetail_flow::{Daemon, FlowError, Shutdown, Worker, WorkerOptions};
use dovetail_runtime::Runtime;
use rustix::process::{Pid, Signal, kill_process};

use crate::suite::Suite;
use dovetail_service::Error;
use dovetail_service::Service;
use dovetail_service::models::share::Sync;

/// The longest time in which a process may start, and in which it may end.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often we look whether a process has started or ended, because neither sends a notification.
const LOOK: Duration = Duration::from_millis(50);

pub(crate) enum Workers {
    Here { shutdown: Shutdown, thread: Option<JoinHandle<Result<(), FlowError>>> },
    Processes(Vec<Process>),
}

impl Workers {
    /// Starts the workers of the suite: in this process if the stores are embedded, otherwise in processes.
    pub(crate) fn start(suite: &Suite) -> Result<Self, Error> {
        if suite.place.is_fleet() { Self::processes(suite, suite.workers) } else { Self::here(suite) }
    }

    fn here(suite: &Suite) -> Result<Self, Error> {
        let service = suite.place.service()?;
        Self::here_with(service, service.runtime(service.ports()?.blobs.clone(), service.settings.jobs, None)?)
    }

    /// Starts a worker in this process, on the stores of `service`.
    pub(crate) fn here_with(service: &Service, runtime: Runtime) -> Result<Self, Error> {
        let (ports, jobs, runtime) = (service.ports()?.clone(), service.settings.jobs, Arc::new(runtime));
        // This worker works as the daemon does, without its settings.
        let models = Sync::new(service)?;
        models.once()?;
        let daemon = Daemon { about: Arc::new(|_, _| Vec::new()), able: Arc::new(move || models.able()) };
        let options = WorkerOptions {
            jobs: jobs as usize,
            lease: service.settings.lease,
            name: "bench".to_owned(),
            on_event: None,
            daemon: Some(daemon),
        };
        let (worker, shutdown) = (Arc::new(Worker::new(ports, runtime, options)), Shutdown::default());
        let stop = shutdown.clone();
        let thread = std::thread::Builder::new().name("worker".into()).spawn(move || worker.run(&Scope::All, &stop));
        let thread = thread.map_err(|e| Error::host("bench_worker", "start a thread").cause(e))?;
        Ok(Self::Here { shutdown, thread: Some(thread) })
    }

    /// Starts `count` processes and waits until the ledger lists each as alive.
    pub(crate) fn processes(suite: &Suite, count: u32) -> Result<Self, Error> {
        let mut all = Vec::new();
        for n in 1..=count {
            all.push(Process::start(suite, &format!("bench-{}-{n}", std::process::id()))?);
        }
        let workers = Self::Processes(all);
        let ledger = &suite.place.service()?.ports()?.ledger;
        let began = Instant::now();
        while ledger.workers()?.iter().filter(|(name, _)| workers.has(name)).count() < count as usize {
            workers.check()?;
            if began.elapsed() > PATIENCE {
                return Err(Error::host("bench_worker", format!("a worker sends no heartbeat within {PATIENCE:?}")));
            }
            suite.sleep(LOOK)?;
        }
        Ok(workers)
    }

    fn has(&self, name: &str) -> bool {
        matches!(self, Self::Processes(all) if all.iter().any(|process| process.name == name))
    }

    /// Returns an error if a worker has ended.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self {
            Self::Here { thread, .. } => {
                let ended = thread.as_ref().is_none_or(JoinHandle::is_finished);
                if ended { Err(Error::host("bench_worker", "the worker ended while it was measured")) } else { Ok(()) }
            }
            Self::Processes(all) => all.iter().try_for_each(Process::check),
        }
    }

    /// The resident memory of each process now, in bytes.
    pub(crate) fn memory(&self) -> Result<Vec<u64>, Error> {
        self.each("VmRSS:")
    }

    /// The peak resident memory of each process, in bytes.
    pub(crate) fn peak(&self) -> Result<Vec<u64>, Error> {
        self.each("VmHWM:")
    }

    fn each(&self, field: &str) -> Result<Vec<u64>, Error> {
        match self {
            Self::Here { .. } => Ok(Vec::new()),
            Self::Processes(all) => all.iter().map(|process| process.memory(field)).collect(),
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        match self {
            Self::Here { shutdown, thread } => {
                shutdown.abort();
                if let Some(thread) = thread.take() {
                    drop(thread.join());
                }
            }
            // Signal all processes first; each is waited for when it is dropped.
            Self::Processes(all) => all.iter().for_each(Process::terminate),
        }
    }
}

pub(crate) struct Process {
    name: String,
    child: std::sync::Mutex<Child>,
    log: std::path::PathBuf,
}

impl Process {
    fn start(suite: &Suite, name: &str) -> Result<Self, Error> {
        let log = suite.place.folder().join(format!("{name}.log"));
        let file = std::fs::File::create(&log).map_err(|e| Error::write(&log, e))?;
        let mut command = suite.place.command(&["worker", "--name", name])?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn();
        let child = child.map_err(|e| Error::host("bench_worker", "start a worker process").cause(e))?;
        Ok(Self { name: name.to_owned(), child: child.into(), log })
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        lock(&self.child)
    }

    fn check(&self) -> Result<(), Error> {
        match self.child().try_wait() {
            Ok(None) => Ok(()),
            ended => {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                let last =
                    log.lines().rev().take(10).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n  ");
                let how = ended
                    .ok()
                    .flatten()
                    .map_or_else(|| "is not there".to_owned(), |status| format!("ended ({status})"));
                Err(Error::host(
                    "bench_worker",
                    format!("a worker {how} while it was measured; it said last:\n  {last}"),
                ))
            }
        }
    }

    /// The value of `field` in the process's `/proc` status, in bytes.
    fn memory(&self, field: &str) -> Result<u64, Error> {
        let path = format!("/proc/{}/status", self.child().id());
        let status = std::fs::read_to_string(&path)
            .map_err(|e| Error::host("bench_memory", format!("read `{path}`")).cause(e))?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| Error::host("bench_memory", format!("`{path}` has no `{field}`")))
    }

    /// Asks the process to finish its running work and end.
    fn terminate(&self) {
        kill_process(Pid::from_child(&self.child()), Signal::TERM).ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.terminate();
        let mut child = self.child();
        let began = Instant::now();
        while matches!(child.try_wait(), Ok(None)) {
            if began.elapsed() > PATIENCE {
                drop(child.kill());
                drop(child.wait());
                return;
            }
            std::thread::sleep(LOOK);
        }
    }
}
