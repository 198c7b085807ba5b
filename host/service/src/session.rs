//! A session executes the runs of one request in this process until they are over or the caller interrupts. In a fleet
//! the workers execute the runs, and the session waits for them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use dovetail_core::RunId;
use dovetail_core::executor::Executor;
use dovetail_core::ledger::{Kind, RunKey, Scope, Wait};
use dovetail_core::record::{Form as _, RunOutcomeRecord};
use dovetail_core::scarce::Scarce;
use dovetail_flow::{Event, FlowError, Ports, Shutdown, Worker, WorkerOptions};

use crate::patience::Patience;
use crate::{Error, Notice, Observer, Service};

/// How many runs a session executes together. The bound exists because every claim names all of these runs.
pub(crate) const BATCH: usize = 256;
/// How often [`Observer::tick`] is called if no event arrives.
const ROUND: Duration = Duration::from_millis(200);
/// How long a session waits for the workers of a fleet before it reads the records again.
const LOOK: Duration = Duration::from_secs(10);
/// How many of the awaited runs are checked for capabilities that no living worker has.
const LOOKED_THROUGH: usize = 4;

/// The options of a session.
pub struct Work<'a> {
    /// The front door, such as `cli`. With the ID of this process it is the worker's name in records.
    pub front_door: &'static str,
    /// How many steps run at the same time.
    pub jobs: u32,
    /// Stops the session. The caller connects it with signals or with the end of a connection.
    pub shutdown: &'a Shutdown,
    /// Is told what happens.
    pub observer: &'a dyn Observer,
}

/// Executes the runs of one request. It is begun before the first run is submitted and kept until the last document is
/// read, so that the runtime loads each model once.
pub struct Session<'a> {
    service: &'a Service,
    /// None in a fleet, where the workers execute the runs.
    runtime: Option<Arc<dyn Executor>>,
    work: Work<'a>,
    given: GivenNotices,
    /// The worker's threads send messages. The thread of [`Session::work`] receives them.
    sender: Sender<Message>,
    receiver: Receiver<Message>,
}

/// Whether notices were given that are given once only.
#[derive(Default)]
struct GivenNotices {
    /// [`Notice::NoWorker`].
    no_worker: AtomicBool,
    /// [`Notice::Lacking`].
    lacking: AtomicBool,
}

enum Message {
    Event(Event),
    Notice(Notice),
    Over,
}

impl<'a> Session<'a> {
    /// Begins a session.
    ///
    /// # Errors
    /// If the stores cannot be opened; `foreign_blobs`; if the runtime cannot be started.
    pub fn begin(service: &'a Service, work: Work<'a>) -> Result<Self, Error> {
        let others_work = service.settings.is_fleet();
        let runtime = if others_work {
            None
        } else {
            service.own_blobs()?;
            let blobs = service.ports()?.blobs.clone();
            Some(Arc::new(service.runtime(blobs, work.jobs, None)?) as Arc<dyn Executor>)
        };
        let mut no_worker = false;
        if others_work && service.ports()?.ledger.workers()?.is_empty() {
            work.observer.notice(&Notice::NoWorker);
            no_worker = true;
        }
        let (sender, receiver) = mpsc::channel();
        let given = GivenNotices { no_worker: AtomicBool::new(no_worker), ..GivenNotices::default() };
        Ok(Self { service, runtime, work, given, sender, receiver })
    }

    /// The shutdown of this session, for other threads.
    pub(crate) fn shutdown(&self) -> Shutdown {
        self.work.shutdown.clone()
    }

    pub(crate) fn observer(&self) -> &'a dyn Observer {
        self.work.observer
    }

    pub(crate) fn service(&self) -> &'a Service {
        self.service
    }

    /// Executes `runs`, or waits for the fleet's workers, until the runs are over or the session is shut down. `ended`
    /// is called with each run as the run ends, on this thread. An error of `ended` ends the work.
    ///
    /// # Errors
    /// A store's failure; the host's failure; the error of `ended`.
    pub fn work(&mut self, runs: &[RunId], mut ended: impl FnMut(&RunId) -> Result<(), Error>) -> Result<(), Error> {
        let (over, left) = split(self.service, runs)?;
        for run in over {
            ended(run)?;
        }
        for batch in left.chunks(BATCH) {
            if self.work.shutdown.draining() {
                break;
            }
            self.work_on(batch, &mut ended)?;
        }
        for message in self.receiver.try_iter() {
            if let Message::Notice(notice) = message {
                self.work.observer.notice(&notice);
            }
        }
        self.work.observer.rest();
        Ok(())
    }

    fn work_on(&mut self, batch: &[RunId], ended: &mut dyn FnMut(&RunId) -> Result<(), Error>) -> Result<(), Error> {
        let mut open: BTreeSet<&RunId> = batch.iter().collect();
        let (sender, over) = (self.sender.clone(), self.sender.clone());
        let ports = self.service.ports()?;
        let worker = self.runtime.as_ref().map(|runtime| {
            let sender = sender.clone();
            let options = WorkerOptions {
                jobs: self.work.jobs as usize,
                lease: self.service.settings.lease,
                name: format!("{}-{}", self.work.front_door, std::process::id()),
                on_event: Some(Arc::new(move |event| {
                    log(event);
                    drop(sender.send(Message::Event(event.clone())));
                })),
                daemon: None,
            };
            Arc::new(Worker::new(ports.clone(), runtime.clone(), options))
        });
        let (receiver, given) = (&self.receiver, &self.given);
        let Work { shutdown, observer, .. } = self.work;
        std::thread::scope(|threads| {
            let working = start_thread(threads, "work", move || {
                let result = match worker {
                    Some(worker) => worker.run(&Scope::Runs(batch.to_vec()), shutdown),
                    None => wait_for_others(ports, batch, &Waiting { shutdown, look: LOOK, given }, |message| {
                        drop(sender.send(message));
                    }),
                };
                drop(over.send(Message::Over));
                result
            })?;
            let mut failed = None;
            loop {
                let result = match receiver.recv_timeout(ROUND) {
                    Ok(Message::Event(event)) => {
                        observer.event(&event);
                        match &event {
                            Event::RunFinished { run, .. } if open.remove(run) => ended(run),
                            _ => Ok(()),
                        }
                    }
                    Ok(Message::Notice(notice)) => {
                        observer.notice(&notice);
                        Ok(())
                    }
                    Ok(Message::Over) => break,
                    // The thread ended without `Message::Over`: it panicked.
                    Err(_) if working.is_finished() => break,
                    Err(_) => Ok(()),
                };
                if let Err(error) = result {
                    // The caller cannot take results, so that executing more steps is useless.
                    shutdown.drain();
                    failed.get_or_insert(error);
                }
                observer.tick(Instant::now());
            }
            let result = working.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            match failed {
                Some(error) => Err(error),
                None => result.map_err(Error::from),
            }
        })
    }
}

/// Starts a scoped thread.
///
/// # Errors
/// `too_few_threads` or the code of another refused resource, if the system refuses the thread.
pub(crate) fn start_thread<'scope, T: Send + 'scope>(
    threads: &'scope std::thread::Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<std::thread::ScopedJoinHandle<'scope, T>, Error> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn_scoped(threads, work);
    started.map_err(|error| {
        Error::scarce(Scarce::Threads, format!("start the thread `{name}`")).cause(Scarce::thread(&error))
    })
}

/// How a session waits for the workers of a fleet.
struct Waiting<'a> {
    shutdown: &'a Shutdown,
    /// How long to wait for the end of a run before the records are read again.
    look: Duration,
    given: &'a GivenNotices,
}

/// Waits until the workers of a fleet have ended all runs, or until the shutdown.
fn wait_for_others(ports: &Ports, runs: &[RunId], how: &Waiting<'_>, send: impl Fn(Message)) -> Result<(), FlowError> {
    let Waiting { shutdown, look, given } = *how;
    shutdown.wakes(&ports.ledger);
    let notice = |notice: Notice| send(Message::Notice(notice));
    let mut patience = Patience::new(shutdown, &notice);
    let current = || runs.iter().map(|run| dovetail_flow::current(ports, run)).collect::<Result<_, _>>();
    let Some(mut open) = patience.ask::<Vec<RunKey>>(current)? else { return Ok(()) };
    let mut wait = Wait::NONE;
    let mut look_at = Instant::now() + look;
    while !open.is_empty() && !shutdown.draining() {
        let seen = ports.ledger.wakes();
        // The first question, and the first one after an outage, does not wait: a run may have ended before, and its
        // notification is lost.
        let mut patiently = Some(wait);
        let looked = patience.ask(|| {
            let ended = ports.ledger.over(&open, patiently.take().unwrap_or(Wait::NONE))?;
            let outcomes = ports.ledger.get(Kind::RunOutcome, &ended.iter().map(RunKey::key).collect::<Vec<_>>())?;
            Ok((ended, outcomes))
        })?;
        // The session was shut down during an outage. The workers go on.
        let Some((ended, outcomes)) = looked else { return Ok(()) };
        // No run ended for a while: maybe no worker lives, or no worker has a capability that the runs need.
        if ended.is_empty() && Instant::now() >= look_at {
            look_at = Instant::now() + look;
            if let Some(notice) = why_nothing_comes(ports, &open, given) {
                send(Message::Notice(notice));
            }
        }
        wait = Wait { seen, at_most: look };
        for (key, bytes) in ended.iter().zip(outcomes) {
            let Some(bytes) = bytes else { continue };
            let state = RunOutcomeRecord::decode(&bytes, &format!("run {}", key.run))?.state;
            open.retain(|one| one != key);
            send(Message::Event(Event::RunFinished { run: key.run.clone(), state }));
        }
    }
    Ok(())
}

/// Why no run ends: no worker lives, or no living worker has a capability. Each reason is given once. If a store fails,
/// the reason is looked for again later.
fn why_nothing_comes(ports: &Ports, open: &[RunKey], given: &GivenNotices) -> Option<Notice> {
    let first = |notice: &AtomicBool| !notice.swap(true, Ordering::Relaxed);
    if ports.ledger.workers().ok()?.is_empty() {
        return first(&given.no_worker).then_some(Notice::NoWorker);
    }
    if given.lacking.load(Ordering::Relaxed) {
        return None;
    }
    let lacking = open.iter().take(LOOKED_THROUGH).find_map(|key| {
        let waits = dovetail_flow::waits(ports, &key.run).ok()?;
        (!waits.is_empty()).then(|| Notice::Lacking { run: key.run.clone(), waits })
    })?;
    first(&given.lacking).then_some(lacking)
}

/// The runs that are over already (submitted before under the same key), and the open ones.
fn split<'r>(service: &Service, runs: &'r [RunId]) -> Result<(Vec<&'r RunId>, Vec<RunId>), Error> {
    if service.settings.is_fleet() {
        // `wait_for_others` finds the runs that are over already.
        return Ok((Vec::new(), runs.to_vec()));
    }
    let ports = service.ports()?;
    let keys =
        runs.iter().map(|run| Ok(dovetail_flow::current(ports, run)?.key())).collect::<Result<Vec<String>, Error>>()?;
    let outcomes = ports.ledger.get(Kind::RunOutcome, &keys)?;
    let (mut over, mut left) = (Vec::new(), Vec::new());
    for (run, outcome) in runs.iter().zip(outcomes) {
        match outcome {
            Some(_) => over.push(run),
            None => left.push(run.clone()),
        }
    }
    Ok((over, left))
}

/// Logs the starts and ends of steps.
fn log(event: &Event) {
    match event {
        Event::StepStarted { run, step, attempt } => tracing::debug!(%run, %step, attempt, "step started"),
        Event::StepFinished { run, step, attempt, failure, millis } => {
            tracing::debug!(%run, %step, attempt, succeeded = failure.is_none(), millis, "step ended");
        }
        Event::StepSkipped { run, step, failed_step } => tracing::debug!(%run, %step, %failed_step, "step skipped"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dovetail_flow::SystemClock;
    use dovetail_stores::{FileBlobs, SqliteLedger};
    use std::sync::Mutex;

    #[test]
    fn that_no_worker_lives_is_said_once_while_a_session_waits() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(SystemClock);
        let ledger = Arc::new(SqliteLedger::open(folder.path(), clock.clone()).unwrap());
        let ports = Ports { ledger, blobs: Arc::new(FileBlobs::new(folder.path())), clock };
        let wait = |known: &GivenNotices| {
            let (shutdown, messages) = (Shutdown::default(), Mutex::new(Vec::new()));
            let how = Waiting { shutdown: &shutdown, look: Duration::from_millis(10), given: known };
            std::thread::scope(|threads| {
                threads.spawn(|| {
                    std::thread::sleep(Duration::from_millis(500));
                    shutdown.drain();
                });
                let send = |message| messages.lock().unwrap().push(message);
                wait_for_others(&ports, &[RunId::from_bytes([1; 16])], &how, send).unwrap();
            });
            let messages = messages.into_inner().unwrap().into_iter();
            messages
                .filter_map(|message| if let Message::Notice(notice) = message { Some(notice) } else { None })
                .collect::<Vec<_>>()
        };
        let known = GivenNotices::default();
        assert_eq!(wait(&known), [Notice::NoWorker]);
        assert!(wait(&known).is_empty(), "it has been said");
    }
}
