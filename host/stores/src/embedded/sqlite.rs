//! [`Ledger`] on one SQLite file. One writer at a time takes whatever is waiting into one transaction (group commit): whoever has something to
//! write, if nobody else does, or a thread of its own. Processes queue for it at a lock file: without that SQLite's busy handler lets one of
//! them starve the others.
//!
//! Not here: what the changes are (`apply.rs`), and what they mean (flow).

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, SendError, Sender};
use dovetail_core::bell::Bell;
use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::clock::Clock;
use dovetail_core::desk::{Desk, Seat};
use dovetail_core::ledger::{Claimed, Item, Kind, Lease, Ledger, Listing, Record, Renewal, Reply, RunKey, Scope, Then, Wait};
use dovetail_core::meta::{MetaStore, Put, Writes};
use dovetail_core::retention::Archive;
use rusqlite::{Connection, params};

use super::bells::Bells;
use super::presence::Presence;
use super::reading::Reader;
use super::schema::{self, sql_error};
use super::{apply, io_error, make_folder};

/// How often a claimer looks for the work of other processes on the same folder; our own wakes it at once.
const LOOK_ROUND: Duration = Duration::from_secs(1);
/// Requests taken into one transaction: enough to share a sync among all that wait, few enough to answer the first ones soon.
const GROUP: usize = 256;

/// Where an answer goes.
type ReplyTo<T> = Sender<Result<T, StoreError>>;
/// What was claimed, and when the next job becomes free by itself.
type ClaimReply = (Vec<Claimed>, Option<u64>);

enum Request {
    Commit(Vec<Item>, Then),
    Claim { scope: Scope, want: usize, lease_ms: u64, reply: ReplyTo<ClaimReply> },
    Renew { leases: Vec<Lease>, lease_ms: u64, reply: ReplyTo<Vec<Renewal>> },
    Write(Writes, ReplyTo<Vec<Reply>>),
    Remove { kind: Kind, keys: Vec<String>, reply: ReplyTo<()> },
}

/// An answer that is sent once the transaction is on the disk, or the error in its place.
type Answer = Box<dyn FnOnce(Option<StoreError>) + Send>;

/// Where changes are written, and the thread for those that nobody waits for or that come while another one is written.
struct Writing {
    desk: Arc<Desk<Writer, Request>>,
    requests: Sender<Request>,
    thread: JoinHandle<()>,
}

/// Records and jobs in `DATA/dovetail.db`.
pub struct SqliteLedger {
    writer: Option<Writing>,
    reader: Reader,
    presence: Arc<Presence>,
    bell: Arc<Bell>,
    bells: Arc<Bells>,
    clock: Arc<dyn Clock>,
}

impl SqliteLedger {
    /// Opens the data folder, making what is missing. Leases are told by `clock` ([`Clock::mono_ms`] must count from the machine's start,
    /// so that processes agree).
    ///
    /// # Errors
    /// `Refused` where we may not write, `Newer` for a database of a newer dovetail, `Corrupt` for what is none.
    pub fn open(data: &Path, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        make_folder(data)?;
        let path = data.join("dovetail.lock");
        let turn = File::options().create(true).truncate(false).write(true).open(&path).map_err(|e| io_error("open", &path, e))?;
        let db = schema::open(data, &turn)?;
        let reader = Reader::Beside(Mutex::new(schema::open(data, &turn)?));
        let presence = Arc::new(Presence::announce(data)?);
        presence.sweep();
        let bell = Arc::new(Bell::default());
        let bells = Arc::new(Bells::new(data, presence.clone()));
        let writer = Writer { db, presence: presence.clone(), turn, clock: clock.clone(), bell: bell.clone(), bells: bells.clone() };
        let (desk, requests) = Desk::new(writer);
        let here = desk.clone();
        let write = move || {
            while let Ok(first) = here.wait(None) {
                write_with_others(here.sit(), first);
            }
        };
        let thread = std::thread::Builder::new().name("sqlite-writer".into()).spawn(write);
        let thread = thread.map_err(|e| StoreError::new(StoreErrorKind::Unavailable, "start the writer thread", e))?;
        Ok(Self { writer: Some(Writing { desk, requests, thread }), reader, presence, bell, bells, clock })
    }

    /// Opens a data folder in which nothing can be written, to read only.
    ///
    /// # Errors
    /// `Refused` where even reading needs room or the right to write; `Newer` and `Corrupt` as for [`Self::open`].
    pub fn open_to_read(data: &Path, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let (reader, presence) = (Reader::open(data)?, Arc::new(Presence::none(data)));
        let bells = Arc::new(Bells::new(data, presence.clone()));
        Ok(Self { writer: None, reader, presence, bell: Arc::new(Bell::default()), bells, clock })
    }

    fn ask<T>(&self, request: Request, reply: &Receiver<Result<T, StoreError>>) -> Result<T, StoreError> {
        let writing = self.writer.as_ref().ok_or_else(to_read)?;
        match writing.desk.try_sit() {
            Some(seat) => write_with_others(seat, request),
            None => writing.requests.send(request).map_err(|_| gone())?,
        }
        reply.recv().map_err(|_| gone())?
    }

    fn runs(&self, operation: &str, sql: &str, with: impl rusqlite::Params) -> Result<Vec<RunKey>, StoreError> {
        let rows: Vec<(String, u32)> =
            self.read(operation, |db| db.prepare_cached(sql)?.query_map(with, |row| Ok((row.get(0)?, row.get(1)?)))?.collect())?;
        let parse = |(run, generation): (String, u32)| {
            let run = run.parse().map_err(|e: dovetail_core::id::BadRunId| StoreError::new(StoreErrorKind::Corrupt, operation, e))?;
            Ok(RunKey { run, generation })
        };
        rows.into_iter().map(parse).collect()
    }

    fn read<T>(&self, operation: &str, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        self.reader.read(operation, query)
    }
}

fn to_read() -> StoreError {
    StoreError::plain(StoreErrorKind::Refused, "write to the database: it was opened to read only")
}

fn gone() -> StoreError {
    StoreError::plain(StoreErrorKind::Unavailable, "the database's writer thread has ended")
}

impl Drop for SqliteLedger {
    fn drop(&mut self) {
        let Some(Writing { requests, thread, .. }) = self.writer.take() else { return };
        // That ends the thread, after what it still holds.
        drop(requests);
        // It tells of runs that are over: who was told may have held the last of us.
        if thread.thread().id() != std::thread::current().id() {
            drop(thread.join());
        }
    }
}

struct Writer {
    db: Connection,
    presence: Arc<Presence>,
    turn: File,
    clock: Arc<dyn Clock>,
    bell: Arc<Bell>,
    bells: Arc<Bells>,
}

/// What others want to hear of a group of changes.
#[derive(Default)]
struct News {
    changed: bool,
    /// Runs that were cancelled, or that a step's failure has ended: others may be at steps of theirs.
    over: Vec<RunKey>,
}

impl News {
    fn note(&mut self, item: &Item, reply: &Reply) {
        match item {
            Item::Cancel { run, .. } if *reply == Reply::Created => self.over.push(run.clone()),
            Item::Finish { lease, succeeded: false, close: Some(_), .. } if *reply == Reply::Created => self.over.push(lease.run.clone()),
            _ => {}
        }
    }
}

/// One transaction of a request and of those that wait, and then their answers.
fn write_with_others(mut seat: Seat<'_, Writer, Request>, first: Request) {
    let mut group = vec![first];
    group.extend(seat.left(GROUP - 1));
    let mut news = News::default();
    let (answers, error) = seat.transact(group, &mut news);
    if news.changed {
        seat.bell.ring();
    }
    let bells = seat.bells.clone();
    // Whoever hears of it may have something to write in his turn.
    drop(seat);
    if error.is_none() {
        bells.ring(&news.over);
    }
    for answer in answers {
        answer(error.as_ref().map(again));
    }
}

impl Writer {
    fn transact(&mut self, group: Vec<Request>, news: &mut News) -> (Vec<Answer>, Option<StoreError>) {
        let mut answers = Vec::with_capacity(group.len());
        if let Err(e) = self.turn.lock() {
            let error = StoreError::new(StoreErrorKind::Unavailable, "wait for the turn to write to the database", e);
            return (group.into_iter().map(refusal).collect(), Some(error));
        }
        let failed = match self.db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate) {
            Ok(tx) => {
                let now = self.clock.mono_ms();
                for request in group {
                    answers.push(serve(&tx, request, now, &self.presence, news));
                }
                tx.commit().err()
            }
            Err(error) => {
                // Nobody has been served: all are told why.
                answers.extend(group.into_iter().map(refusal));
                Some(error)
            }
        };
        drop(self.turn.unlock());
        (answers, failed.map(|e| sql_error("write to the database", e)))
    }
}

/// The same error once more: each of a failed group's callers gets its own.
fn again(error: &StoreError) -> StoreError {
    let source = error.source.as_ref().map_or_else(String::new, ToString::to_string);
    StoreError::new(error.kind, error.operation.clone(), source)
}

fn answer<T: Send + 'static>(reply: ReplyTo<T>, result: rusqlite::Result<T>) -> Answer {
    Box::new(move |failed| {
        let result = match failed {
            Some(error) => Err(error),
            None => result.map_err(|e| sql_error("write to the database", e)),
        };
        // Whoever asked may have gone; the change stands all the same.
        drop(reply.send(result));
    })
}

/// The same for whoever does not wait.
fn tell(then: Then, result: rusqlite::Result<Vec<Reply>>) -> Answer {
    Box::new(move |failed| {
        then(match failed {
            Some(error) => Err(error),
            None => result.map_err(|e| sql_error("write to the database", e)),
        });
    })
}

fn refusal(request: Request) -> Answer {
    match request {
        Request::Commit(_, then) => tell(then, Err(rusqlite::Error::InvalidQuery)),
        Request::Write(_, reply) => answer(reply, Err(rusqlite::Error::InvalidQuery)),
        Request::Remove { reply, .. } => answer(reply, Err(rusqlite::Error::InvalidQuery)),
        Request::Claim { reply, .. } => answer(reply, Err(rusqlite::Error::InvalidQuery)),
        Request::Renew { reply, .. } => answer(reply, Err(rusqlite::Error::InvalidQuery)),
    }
}

/// Serves one request in a savepoint of its own: what fails leaves nothing behind and does not hurt its neighbours.
fn within<T>(db: &Connection, work: impl FnOnce() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    db.prepare_cached("SAVEPOINT request")?.execute([])?;
    let result = work();
    if result.is_err() {
        db.prepare_cached("ROLLBACK TO request")?.execute([])?;
    }
    db.prepare_cached("RELEASE request")?.execute([])?;
    result
}

fn serve(db: &Connection, request: Request, now: u64, presence: &Presence, news: &mut News) -> Answer {
    match request {
        Request::Commit(items, then) => {
            let result: rusqlite::Result<Vec<Reply>> = within(db, || items.iter().map(|item| apply::item(db, item, now)).collect());
            if let Ok(replies) = &result {
                news.changed = true;
                items.iter().zip(replies).for_each(|(item, reply)| news.note(item, reply));
            }
            tell(then, result)
        }
        Request::Write(writes, reply) => {
            let result = within(db, || apply::write(db, &writes));
            answer(reply, result)
        }
        Request::Remove { kind, keys, reply } => answer(reply, within(db, || keys.iter().try_for_each(|key| apply::remove(db, kind, key)))),
        Request::Claim { scope, want, lease_ms, reply } => {
            let claim = apply::Claim { scope: &scope, want, lease_ms, now, owner: presence.name() };
            let result = within(db, || {
                apply::reap(db, now, &|owner| presence.is_dead(owner))?;
                let claimed = apply::claim(db, &claim)?;
                let next = if claimed.is_empty() { apply::next_change(db, &scope)? } else { None };
                Ok((claimed, next))
            });
            answer(reply, result)
        }
        Request::Renew { leases, lease_ms, reply } => {
            let result = within(db, || apply::renew(db, &leases, now.saturating_add(lease_ms)));
            answer(reply, result)
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Ledger for SqliteLedger {
    fn commit(&self, items: &[Item]) -> Result<Vec<Reply>, StoreError> {
        let (reply, inbox) = crossbeam_channel::bounded(1);
        self.ask(Request::Commit(items.to_vec(), Box::new(move |replies| drop(reply.send(replies)))), &inbox)
    }

    fn commit_then(&self, items: Vec<Item>, then: Then) {
        let Some(writing) = &self.writer else { return then(Err(to_read())) };
        // Whoever does not wait writes nothing himself.
        if let Err(SendError(Request::Commit(_, then))) = writing.requests.send(Request::Commit(items, then)) {
            then(Err(gone()));
        }
    }

    fn claim(&self, scope: &Scope, want: usize, lease: Duration, wait: Wait) -> Result<Vec<Claimed>, StoreError> {
        let until = Instant::now() + wait.at_most;
        loop {
            let (reply, inbox) = crossbeam_channel::bounded(1);
            let (claimed, next) = self.ask(Request::Claim { scope: scope.clone(), want, lease_ms: millis(lease), reply }, &inbox)?;
            let left = until.saturating_duration_since(Instant::now());
            if !claimed.is_empty() || left.is_zero() || self.bell.rung() != wait.seen {
                return Ok(claimed);
            }
            // Asleep until something changes here, until a job becomes free by itself, or until it is time to look for others' work.
            let free = next.map_or(LOOK_ROUND, |at| Duration::from_millis(at.saturating_sub(self.clock.mono_ms()).max(1)));
            let nap = left.min(LOOK_ROUND).min(free);
            self.bell.sleep(wait.seen, nap);
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
        let (kind, prefix, order) = (kind.name(), listing.prefix.as_str(), if listing.newest_first { "DESC" } else { "ASC" });
        let limit = i64::try_from(listing.limit).unwrap_or(i64::MAX);
        self.read("list records", |db| {
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            if prefix.is_empty() {
                // The kind stands in the text: only so does SQLite know that the index of listed records (schema.rs) is one of this kind, too.
                let sql = format!("SELECT key, value FROM records WHERE kind = '{kind}' ORDER BY id {order} LIMIT ?1");
                return db.prepare_cached(&sql)?.query_map([limit], read)?.collect();
            }
            // By the index of keys, and `+` because it is no help in sorting.
            let sql =
                format!("SELECT key, value FROM records WHERE kind = ?1 AND key >= ?2 AND key < ?2 || char(0x10FFFF) ORDER BY +id {order} LIMIT ?3");
            db.prepare_cached(&sql)?.query_map(params![kind, prefix, limit], read)?.collect()
        })
    }

    fn open_runs(&self, limit: usize) -> Result<Vec<RunKey>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.runs("list open runs", "SELECT run, generation FROM open_runs ORDER BY id LIMIT ?1", [limit])
    }

    fn held(&self, run: &RunKey) -> Result<Vec<String>, StoreError> {
        let now = apply::int(self.clock.mono_ms());
        let sql = "SELECT step, owner FROM jobs WHERE run = ?1 AND generation = ?2 AND owner IS NOT NULL AND expires > ?3 ORDER BY id";
        let rows: Vec<(String, String)> = self.read("look for work on a run", |db| {
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            db.prepare_cached(sql)?.query_map(params![run.run.as_str(), run.generation, now], read)?.collect()
        })?;
        Ok(rows.into_iter().filter(|(_, owner)| !self.presence.is_dead(owner)).map(|(step, _)| step).collect())
    }

    fn over(&self, runs: &[RunKey], wait: Wait) -> Result<Vec<RunKey>, StoreError> {
        let until = Instant::now() + wait.at_most;
        loop {
            let ended: Vec<RunKey> = self.read("look for the end of runs", |db| {
                runs.iter().filter_map(|run| apply::has(db, Kind::RunOutcome, &run.key()).map(|over| over.then(|| run.clone())).transpose()).collect()
            })?;
            let left = until.saturating_duration_since(Instant::now());
            if !ended.is_empty() || left.is_zero() || self.bell.rung() != wait.seen {
                return Ok(ended);
            }
            self.bell.sleep(wait.seen, left.min(LOOK_ROUND));
        }
    }

    fn on_end(&self, told: Box<dyn Fn(&RunKey) + Send + Sync>) {
        // Whoever only reads runs no step that could be stopped.
        if self.writer.is_some() {
            self.bells.listen(told);
        }
    }

    fn lost(&self) -> Result<Vec<RunKey>, StoreError> {
        // Whoever ran a run again may have died before its jobs were there.
        let sql = "SELECT run, generation FROM open_runs AS o WHERE NOT EXISTS \
                   (SELECT 1 FROM jobs AS j WHERE j.run = o.run AND j.generation = o.generation) ORDER BY id LIMIT 1000";
        self.runs("look for lost runs", sql, [])
    }

    fn beat(&self, worker: &str, about: &[u8], keep: Duration) -> Result<(), StoreError> {
        self.presence.say(worker, about, self.clock.mono_ms().saturating_add(millis(keep)))
    }

    fn workers(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        Ok(self.presence.said(self.clock.mono_ms()))
    }

    fn wake(&self) {
        self.bell.ring();
    }

    fn wakes(&self) -> u64 {
        self.bell.rung()
    }
}

fn put_of(reply: Reply) -> Put {
    match reply {
        Reply::Exists(value) => Put::Exists(value),
        _ => Put::Created,
    }
}

/// The records alone, for a fleet on one machine whose queue is elsewhere. Its table of jobs stays empty.
impl MetaStore for SqliteLedger {
    fn put(&self, records: &[Record]) -> Result<Vec<Put>, StoreError> {
        self.write(&Writes { records: records.iter().map(|record| (record.clone(), None)).collect(), ..Writes::default() })
    }

    fn write(&self, writes: &Writes) -> Result<Vec<Put>, StoreError> {
        let (reply, inbox) = crossbeam_channel::bounded(1);
        Ok(self.ask(Request::Write(writes.clone(), reply), &inbox)?.into_iter().map(put_of).collect())
    }

    fn get(&self, kind: Kind, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        Ledger::get(self, kind, keys)
    }

    fn list(&self, kind: Kind, listing: &Listing) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        Ledger::list(self, kind, listing)
    }

    fn open(&self, runs: &[RunKey]) -> Result<(), StoreError> {
        self.write(&Writes { open: runs.to_vec(), ..Writes::default() }).map(drop)
    }

    fn forget(&self, runs: &[RunKey]) -> Result<(), StoreError> {
        self.write(&Writes { forget: runs.to_vec(), ..Writes::default() }).map(drop)
    }

    fn open_runs(&self, limit: usize) -> Result<Vec<RunKey>, StoreError> {
        Ledger::open_runs(self, limit)
    }
}

impl Archive for SqliteLedger {
    fn scan(&self, kind: Kind, after: &str, limit: usize) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let sql = "SELECT key, value FROM records WHERE kind = ?1 AND key > ?2 ORDER BY key LIMIT ?3";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        self.read("list records", |db| db.prepare_cached(sql)?.query_map(params![kind.name(), after, limit], read)?.collect())
    }

    fn remove(&self, kind: Kind, keys: &[String]) -> Result<(), StoreError> {
        let (reply, inbox) = crossbeam_channel::bounded(1);
        self.ask(Request::Remove { kind, keys: keys.to_vec(), reply }, &inbox)
    }
}
