//! [`Ledger`] on one SQLite file: sends changes to the writer (`writer.rs`), and reads beside it.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, SendError, Sender};
use dovetail_core::blobs::{Store, StoreError, StoreErrorKind};
use dovetail_core::clock::Clock;
use dovetail_core::event_count::EventCount;
use dovetail_core::flat_combining::FlatCombiner;
use dovetail_core::ledger::{
    Claimed, HeldStep, Kind, Lease, Ledger, Listing, Operation, Record, Renewal, Reply, RunKey, Scope, Then, Wait,
};
use dovetail_core::meta::{MetaStore, Put, Writes};
use dovetail_core::panics::contain;
use dovetail_core::retention::Archive;
use dovetail_core::scarce::Scarce;
use rusqlite::{Connection, params};

use super::claimers::{Claimers, LOOK_ROUND, PendingClaim, Wakeup};
use super::notifications::{Notifications, Topic};
use super::presence::Presence;
use super::reading::Reader;
use super::schema;
use super::writer::{Request, WaitingClaimers, Writer, write_with_others};
use super::writer_lock::WriterLock;
use super::{apply, make_folder, millis};

/// If a claimer gets no answer for this long after its deadline, the thread that serves it has panicked.
const UNANSWERED: Duration = Duration::from_secs(60);
/// A caller that waits for this long subscribes to the notifications of other processes. Most callers wait for less,
/// and a subscription takes a socket and a thread.
const LONG: Duration = Duration::from_millis(20);

/// The writer behind its flat combiner, and the thread that writes two kinds of requests: those whose sender does not
/// wait, and those that arrive while another thread writes.
struct Writing {
    combiner: Arc<FlatCombiner<Writer, Request>>,
    requests: Arc<Sender<Request>>,
    thread: JoinHandle<()>,
}

/// Records and jobs in `DATA/dovetail.db`.
pub struct SqliteLedger {
    writer: Option<Writing>,
    reader: Reader,
    presence: Arc<Presence>,
    changes: Arc<EventCount>,
    /// Notified when a run may have ended. `changes` is notified after every change.
    ends: Arc<EventCount>,
    claimers: Arc<Claimers>,
    /// How often a waiting caller looks without a notification.
    round: Duration,
    notifications: Arc<Notifications>,
    clock: Arc<dyn Clock>,
}

impl SqliteLedger {
    /// Opens the data folder and makes the missing parts of it. Leases are in the time of `clock`: [`Clock::mono_ms`]
    /// must count from the machine's start, so that all processes agree on the time.
    ///
    /// # Errors
    /// `Refused` without the right to write. `Newer` for a database of a newer dovetail. `Corrupt` for a file that is
    /// no database.
    pub fn open(data: &Path, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        make_folder(data)?;
        let writer_lock = WriterLock::open(data)?;
        let db = schema::open(data, writer_lock.lock())?;
        let reader = Reader::Beside(Mutex::new(schema::open(data, writer_lock.lock())?));
        let presence = Arc::new(Presence::announce(data)?);
        presence.sweep();
        let (changes, ends) = (Arc::new(EventCount::default()), Arc::new(EventCount::default()));
        let notifications = Arc::new(Notifications::new(data, presence.clone()));
        let (clock_, presence_, waiting) = (clock.clone(), presence.clone(), WaitingClaimers::default());
        let writer = Writer {
            db,
            presence: presence_,
            writer_lock,
            clock: clock_,
            changes: changes.clone(),
            ends: ends.clone(),
            notifications: notifications.clone(),
            waiting,
        };
        let (combiner, requests) = FlatCombiner::new(writer);
        let claimers = Arc::new(Claimers::default());
        let (here, callers) = (combiner.clone(), claimers.clone());
        let write = move || {
            while let Ok(first) = here.wait(None) {
                write_contained(&callers, || write_with_others(here.lock(), first));
            }
        };
        let thread = std::thread::Builder::new().name("sqlite-writer".into()).spawn(write);
        let thread = thread.map_err(|error| {
            StoreError::new(StoreErrorKind::Unavailable, "start the writer thread", Scarce::thread(&error))
        })?;
        let writer = Some(Writing { combiner, requests: Arc::new(requests), thread });
        Ok(Self { writer, reader, presence, changes, ends, claimers, round: LOOK_ROUND, notifications, clock })
    }

    /// Sets how often a caller that waits looks for the changes of other processes without a notification. The default
    /// is 1 s. Public only for tests, which show with a long interval that notifications alone suffice.
    #[doc(hidden)]
    #[must_use]
    pub fn looking_every(mut self, round: Duration) -> Self {
        self.round = round;
        self
    }

    /// Opens a data folder that cannot be written, for reading only.
    ///
    /// # Errors
    /// `Refused` if even reading needs free space or the right to write. `Newer` and `Corrupt` as for [`Self::open`].
    pub fn open_to_read(data: &Path, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let (reader, presence) = (Reader::open(data)?, Arc::new(Presence::none(data)));
        let notifications = Arc::new(Notifications::new(data, presence.clone()));
        let (changes, ends) = (Arc::new(EventCount::default()), Arc::new(EventCount::default()));
        Ok(Self {
            writer: None,
            reader,
            presence,
            changes,
            ends,
            claimers: Arc::default(),
            round: LOOK_ROUND,
            notifications,
            clock,
        })
    }

    /// The longest sleep of a waiting caller: until its next look if it is subscribed, otherwise until it subscribes.
    fn longest_sleep(&self, subscribed: bool) -> Duration {
        if subscribed { self.round } else { LONG }
    }

    /// Subscribes to the jobs that other processes leave.
    fn subscribe_to_jobs(&self) {
        if let Some(writing) = &self.writer {
            // A weak reference, because the writer's thread ends when the last sender is gone.
            let requests = Arc::downgrade(&writing.requests);
            self.notifications.subscribe(Topic::Jobs, move || {
                requests.upgrade().is_some_and(|requests| requests.send(Request::JobsElsewhere).is_ok())
            });
        }
    }

    /// Subscribes to the ends of runs in other processes.
    fn subscribe_to_ends(&self) {
        // A ledger that only reads makes no socket.
        if self.writer.is_some() {
            let (ends, claimers) = (Arc::downgrade(&self.ends), self.claimers.clone());
            let on_end = move || {
                claimers.wake_for_ends();
                ends.upgrade().map(|ends| ends.notify()).is_some()
            };
            self.notifications.subscribe(Topic::Ends, on_end);
        }
    }

    fn send(&self, request: Request) -> Result<(), StoreError> {
        let writing = self.writer.as_ref().ok_or_else(to_read)?;
        match writing.combiner.try_lock() {
            // The caller writes for others, too: a panic over another caller's request must not become this caller's.
            Some(guard) => write_contained(&self.claimers, || write_with_others(guard, request)),
            None => writing.requests.send(request).map_err(|_| gone())?,
        }
        Ok(())
    }

    fn ask<T>(&self, request: Request, reply: &Receiver<Result<T, StoreError>>) -> Result<T, StoreError> {
        self.send(request)?;
        reply.recv().map_err(|_| gone())?
    }

    fn runs(&self, operation: &str, sql: &str, with: impl rusqlite::Params) -> Result<Vec<RunKey>, StoreError> {
        let rows: Vec<(String, u32)> = self.read(operation, |db| {
            db.prepare_cached(sql)?.query_map(with, |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })?;
        // A run that this version cannot read must not hide the others.
        let parse = |(run, generation): (String, u32)| match run.parse() {
            Ok(run) => Some(RunKey { run, generation }),
            Err(error) => {
                let err: &dyn std::error::Error = &error;
                tracing::warn!(operation, err, "the ID of a run cannot be read by this version of dovetail");
                None
            }
        };
        Ok(rows.into_iter().filter_map(parse).collect())
    }

    fn read<T>(
        &self,
        operation: &str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.reader.read(operation, query)
    }
}

fn to_read() -> StoreError {
    StoreError::plain(StoreErrorKind::Refused, "write to the database: it was opened to read only")
}

/// Writes. If the host panics, the requests of this write are dropped, so their callers see that their channels close;
/// the waiting claimers, whose channels stay open, get an error.
fn write_contained(claimers: &Claimers, write: impl FnOnce()) {
    if let Err(panic) = contain("write to the database", write) {
        claimers.fail(&panic);
    }
}

fn gone() -> StoreError {
    StoreError::plain(StoreErrorKind::Unavailable, "write to the database: the request was dropped unanswered")
}

impl Drop for SqliteLedger {
    fn drop(&mut self) {
        let Some(Writing { requests, thread, .. }) = self.writer.take() else { return };
        // The thread writes the requests that are left, and ends.
        drop(requests);
        // The writer's thread calls the listeners for runs that are over, and a listener may drop the last reference to
        // this ledger. Then this is that thread, and it cannot join itself.
        if thread.thread().id() != std::thread::current().id() {
            drop(thread.join());
        }
    }
}

impl Ledger for SqliteLedger {
    fn commit(&self, items: &[Operation]) -> Result<Vec<Reply>, StoreError> {
        let (reply, inbox) = crossbeam_channel::bounded(1);
        self.ask(Request::Commit(items.to_vec(), Box::new(move |replies| drop(reply.send(replies)))), &inbox)
    }

    fn commit_then(&self, items: Vec<Operation>, then: Then) {
        let Some(writing) = &self.writer else { return then(Err(to_read())) };
        // The caller does not wait, so it does not write on its own thread either.
        if let Err(SendError(Request::Commit(_, then))) = writing.requests.send(Request::Commit(items, then)) {
            then(Err(gone()));
        }
    }

    fn claim(&self, scope: &Scope, want: usize, lease: Duration, wait: Wait) -> Result<Vec<Claimed>, StoreError> {
        // No notification tells for certain that a run of the scope has ended in another process, so the caller looks
        // at intervals.
        let of_runs = matches!(scope, Scope::Runs(_));
        let at_most = if of_runs { wait.at_most.min(self.round) } else { wait.at_most };
        let until = Instant::now() + at_most;
        let (reply, inbox) = crossbeam_channel::unbounded();
        let place = self.claimers.enter(scope, reply.clone());
        // Read `changes` after the registration: from here on, `wake` reaches this claimer.
        let waits = !at_most.is_zero() && self.changes.count() == wait.seen;
        let claimer = place.claimer;
        self.send(Request::Claim(PendingClaim {
            claimer,
            scope: scope.clone(),
            want,
            lease_ms: millis(lease),
            waits,
            round: self.round,
            reply,
        }))?;
        let subscribed = || {
            self.notifications.is_subscribed(Topic::Jobs) && (!of_runs || self.notifications.is_subscribed(Topic::Ends))
        };
        let (mut leaving, mut nap) = (false, LONG);
        let overdue = until + UNANSWERED;
        loop {
            match inbox.recv_timeout(nap) {
                Ok(message) => match message? {
                    Wakeup::Jobs(jobs) => return Ok(jobs),
                    // Sleep until jobs come, until a job becomes free without a change, or until the next look for the
                    // work of other processes.
                    Wakeup::Nothing(next) if !leaving => {
                        let free = next.map_or(self.round, |at| {
                            Duration::from_millis(at.saturating_sub(self.clock.mono_ms()).max(1))
                        });
                        let sleep = free.min(self.longest_sleep(subscribed()));
                        nap = until.saturating_duration_since(Instant::now()).min(sleep);
                        continue;
                    }
                    // The writer served the withdrawal before the claim, so withdraw again.
                    Wakeup::Nothing(_) => {}
                    Wakeup::Woken => leaving = true,
                },
                Err(_) if Instant::now() > overdue => return Err(gone()),
                Err(_) => {
                    leaving |= Instant::now() >= until;
                    // The look that follows finds the jobs and ends from before the subscription.
                    if !leaving && !subscribed() {
                        self.subscribe_to_jobs();
                        if of_runs {
                            self.subscribe_to_ends();
                        }
                    }
                }
            }
            // Jobs may already be on their way, so a withdrawal is complete only when its answer comes.
            self.send(if leaving { Request::Withdraw(claimer) } else { Request::Look(claimer) })?;
            nap = self.round;
        }
    }

    fn renew(&self, leases: &[Lease], lease: Duration) -> Result<Vec<Renewal>, StoreError> {
        let (reply, inbox) = crossbeam_channel::bounded(1);
        self.ask(Request::Renew { leases: leases.to_vec(), lease_ms: millis(lease), reply }, &inbox)
    }

    fn get(&self, kind: Kind, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.read("read records", |db| keys.iter().map(|key| apply::get(db, kind, key)).collect())
    }

    fn list(&self, kind: Kind, listing: &Listing) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let (prefix, order) = (listing.prefix.as_str(), if listing.newest_first { "DESC" } else { "ASC" });
        let limit = i64::try_from(listing.limit).unwrap_or(i64::MAX);
        self.read("list records", |db| {
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            if prefix.is_empty() {
                return db.prepare_cached(&schema::list_all(kind, order))?.query_map([limit], read)?.collect();
            }
            // Use the index of keys. The `+` keeps SQLite from reading all records in the order of `id` instead.
            let sql = format!(
                "SELECT key, value FROM records WHERE kind = ?1 AND key >= ?2 AND key < ?2 || char(0x10FFFF) \
                 ORDER BY +id {order} LIMIT ?3"
            );
            db.prepare_cached(&sql)?.query_map(params![kind.name(), prefix, limit], read)?.collect()
        })
    }

    fn open_runs(&self, limit: usize) -> Result<Vec<RunKey>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.runs("list open runs", "SELECT run, generation FROM open_runs ORDER BY id LIMIT ?1", [limit])
    }

    fn held(&self, run: &RunKey) -> Result<Vec<HeldStep>, StoreError> {
        let now = apply::int(self.clock.mono_ms());
        let sql = "SELECT step, owner FROM jobs WHERE run = ?1 AND generation = ?2 AND owner IS NOT NULL \
                   AND expires > ?3 ORDER BY id";
        let rows: Vec<(String, String)> = self.read("look for work on a run", |db| {
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            db.prepare_cached(sql)?.query_map(params![run.run.as_str(), run.generation, now], read)?.collect()
        })?;
        let living = rows.into_iter().filter(|(_, owner)| !self.presence.is_dead(owner));
        // A step that this version cannot read must not hide the others.
        let held = |(step, owner): (String, String)| {
            Some(HeldStep { step: step.parse().ok()?, worker: self.presence.worker_of(&owner) })
        };
        Ok(living.filter_map(held).collect())
    }

    fn over(&self, runs: &[RunKey], wait: Wait) -> Result<Vec<RunKey>, StoreError> {
        let until = Instant::now() + wait.at_most;
        let before = self.ends.count();
        loop {
            let count = self.ends.count();
            let new_end = runs.is_empty() && count != before;
            let ended: Vec<RunKey> = self.read("look for the end of runs", |db| {
                runs.iter()
                    .filter_map(|run| {
                        apply::has(db, Kind::RunOutcome, &run.key()).map(|over| over.then(|| run.clone())).transpose()
                    })
                    .collect()
            })?;
            let left = until.saturating_duration_since(Instant::now());
            if !ended.is_empty() || new_end || left.is_zero() || self.changes.count() != wait.seen {
                return Ok(ended);
            }
            let subscribed = self.writer.is_none() || self.notifications.is_subscribed(Topic::Ends);
            self.ends.sleep(count, left.min(self.longest_sleep(subscribed)));
            if !subscribed && self.ends.count() == count {
                // The look that follows finds the ends from before the subscription.
                self.subscribe_to_ends();
            }
        }
    }

    fn on_end(&self, listener: Box<dyn Fn(&RunKey) + Send + Sync>) {
        // A ledger that only reads executes no step, so no listener has anything to stop.
        if self.writer.is_some() {
            self.notifications.listen(listener);
        }
    }

    fn lost(&self) -> Result<Vec<RunKey>, StoreError> {
        // The process that resumed a run may have died before it enqueued the run's jobs.
        let sql = "SELECT run, generation FROM open_runs AS o WHERE NOT EXISTS \
                   (SELECT 1 FROM jobs AS j WHERE j.run = o.run AND j.generation = o.generation) \
                   ORDER BY id LIMIT 1000";
        self.runs("look for lost runs", sql, [])
    }

    fn beat(&self, worker: &str, about: &[u8], keep: Duration) -> Result<(), StoreError> {
        self.presence.write_status(worker, about, self.clock.mono_ms().saturating_add(millis(keep)))
    }

    fn workers(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        Ok(self.presence.statuses(self.clock.mono_ms()))
    }

    fn wake(&self) {
        self.changes.notify();
        self.ends.notify();
        self.claimers.wake();
    }

    fn wakes(&self) -> u64 {
        self.changes.count()
    }
}

fn put_of(reply: Reply) -> Put {
    match reply {
        Reply::Exists(value) => Put::Exists(value),
        _ => Put::Created,
    }
}

fn of_records(error: StoreError) -> StoreError {
    error.of(Store::Records)
}

/// The records alone, for a fleet on one machine whose queue is in another store. The table of jobs stays empty.
impl MetaStore for SqliteLedger {
    fn put(&self, records: &[Record]) -> Result<Vec<Put>, StoreError> {
        self.write(&Writes {
            records: records.iter().map(|record| (record.clone(), None)).collect(),
            ..Writes::default()
        })
    }

    fn write(&self, writes: &Writes) -> Result<Vec<Put>, StoreError> {
        let (reply, inbox) = crossbeam_channel::bounded(1);
        Ok(self
            .ask(Request::Write(writes.clone(), reply), &inbox)
            .map_err(of_records)?
            .into_iter()
            .map(put_of)
            .collect())
    }

    fn get(&self, kind: Kind, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        Ledger::get(self, kind, keys).map_err(of_records)
    }

    fn list(&self, kind: Kind, listing: &Listing) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        Ledger::list(self, kind, listing).map_err(of_records)
    }

    fn open(&self, runs: &[RunKey]) -> Result<(), StoreError> {
        self.write(&Writes { open: runs.to_vec(), ..Writes::default() }).map(drop)
    }

    fn forget(&self, runs: &[RunKey]) -> Result<(), StoreError> {
        self.write(&Writes { forget: runs.to_vec(), ..Writes::default() }).map(drop)
    }

    fn open_runs(&self, limit: usize) -> Result<Vec<RunKey>, StoreError> {
        Ledger::open_runs(self, limit).map_err(of_records)
    }
}

impl Archive for SqliteLedger {
    fn scan(&self, kind: Kind, after: &str, limit: usize) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let sql = "SELECT key, value FROM records WHERE kind = ?1 AND key > ?2 ORDER BY key LIMIT ?3";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        self.read("list records", |db| {
            db.prepare_cached(sql)?.query_map(params![kind.name(), after, limit], read)?.collect()
        })
    }

    fn remove(&self, kind: Kind, keys: &[String]) -> Result<(), StoreError> {
        let (reply, inbox) = crossbeam_channel::bounded(1);
        self.ask(Request::Remove { kind, keys: keys.to_vec(), reply }, &inbox)
    }

    fn remove_unchanged(&self, kind: Kind, found: &[(String, Vec<u8>)]) -> Result<(), StoreError> {
        let (reply, inbox) = crossbeam_channel::bounded(1);
        self.ask(Request::RemoveUnchanged { kind, found: found.to_vec(), reply }, &inbox)
    }
}
