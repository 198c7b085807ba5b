//! The writer of the database. It puts all waiting requests into one transaction (group commit, by flat combining): a
//! thread that finds the writer free writes its own request together with the waiting ones; otherwise the writer's
//! thread does. The processes of a data folder queue for the writer lock, because SQLite's busy handler lets one
//! process starve the others.
//!
//! A claimer that finds no job leaves its claim here (`claimers.rs`). A change that makes jobs ready hands them to
//! these claimers in its own transaction.
//!
//! The changes themselves are in `apply.rs`, and their meaning is in flow.

use std::sync::Arc;

use crossbeam_channel::Sender;
use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::clock::Clock;
use dovetail_core::event_count::EventCount;
use dovetail_core::flat_combining::CombinerGuard;
use dovetail_core::ledger::{Kind, Lease, Operation, Renewal, Reply, RunKey, Scope, Then};
use dovetail_core::meta::Writes;
use dovetail_core::panics::contain;
use rusqlite::Connection;

use super::claimers::{PendingClaim, Wakeup};
use super::notifications::{Notifications, Topic};
use super::presence::Presence;
use super::schema::sql_error;
use super::writer_lock::WriterLock;
use super::{apply, millis};

/// The most requests in one transaction: enough to share one sync among all that wait, and few enough to answer the
/// first ones soon.
const GROUP: usize = 256;

/// The channel for the answer to a request.
pub(crate) type ReplyTo<T> = Sender<Result<T, StoreError>>;

pub(crate) enum Request {
    Commit(Vec<Operation>, Then),
    Claim(PendingClaim),
    /// Look again for jobs for this waiting claimer.
    Look(u64),
    /// This claimer stops waiting.
    Withdraw(u64),
    /// Another process reports jobs that no claimer has taken.
    JobsElsewhere,
    Renew {
        leases: Vec<Lease>,
        lease_ms: u64,
        reply: ReplyTo<Vec<Renewal>>,
    },
    Write(Writes, ReplyTo<Vec<Reply>>),
    Remove {
        kind: Kind,
        keys: Vec<String>,
        reply: ReplyTo<()>,
    },
    RemoveUnchanged {
        kind: Kind,
        found: Vec<(String, Vec<u8>)>,
        reply: ReplyTo<()>,
    },
}

/// Sends the answer to one request after the commit: its result, or the error of the whole transaction.
type DeferredReply = Box<dyn FnOnce(Option<StoreError>) + Send>;

pub(crate) struct Writer {
    pub(crate) db: Connection,
    pub(crate) presence: Arc<Presence>,
    pub(crate) writer_lock: WriterLock,
    pub(crate) clock: Arc<dyn Clock>,
    /// Notified after every change.
    pub(crate) changes: Arc<EventCount>,
    /// Notified when a run may have ended.
    pub(crate) ends: Arc<EventCount>,
    pub(crate) notifications: Arc<Notifications>,
    pub(crate) waiting: WaitingClaimers,
}

/// The waiting claimers, for which there was no job.
#[derive(Default)]
pub(crate) struct WaitingClaimers {
    claimers: Vec<PendingClaim>,
    /// A scope in which no further job is ready, and the time until which no look is needed, in milliseconds of the
    /// ledger's clock.
    nothing: Option<(Scope, u64)>,
}

/// The effects of a group of requests that claimers and other processes must hear of.
#[derive(Default)]
struct ChangeSummary {
    changed: bool,
    /// Jobs may have become ready.
    ready: bool,
    /// Another process has reported ready jobs.
    jobs_elsewhere: bool,
    /// Free jobs are left, and another process waits for jobs.
    left: bool,
    /// A run may have ended.
    ended: bool,
    /// Runs that were cancelled, or that ended because a step failed. Other workers may still execute steps of them.
    over: Vec<RunKey>,
}

impl ChangeSummary {
    fn note(&mut self, item: &Operation, reply: &Reply) {
        match item {
            Operation::Submit { .. }
            | Operation::Recover { .. }
            | Operation::Retry { .. }
            | Operation::Release { .. } => self.ready = true,
            Operation::Finish { close, children, .. } => {
                self.ready |= !children.is_empty();
                // An outcome that is recorded after the end of its run also belongs to the run, and a process may wait
                // for it.
                self.ended |= close.is_some() || *reply == Reply::Closed;
            }
            Operation::Close { .. } => self.ended = true,
            Operation::Put { record } | Operation::Reopen { record, .. } | Operation::Inherit { record } => {
                self.ended |= record.kind == Kind::RunOutcome;
            }
            Operation::Cancel { .. } => {}
        }
        match item {
            Operation::Cancel { run, .. } if *reply == Reply::Created => self.over.push(run.clone()),
            Operation::Finish { lease, succeeded: false, close: Some(_), .. } if *reply == Reply::Created => {
                self.over.push(lease.run.clone());
            }
            _ => {}
        }
    }
}

/// Writes a request and the waiting ones in one transaction, and then sends their answers.
pub(crate) fn write_with_others(mut guard: CombinerGuard<'_, Writer, Request>, first: Request) {
    let group: Vec<Request> = std::iter::once(first).chain(guard.take_waiting(GROUP - 1)).collect();
    let group: Vec<Request> = group.into_iter().filter_map(|request| guard.without_the_database(request)).collect();
    if group.is_empty() {
        return;
    }
    let mut summary = ChangeSummary::default();
    let (answers, error) = guard.transact(group, &mut summary);
    if error.is_some() {
        guard.waiting.nothing = None;
    }
    if summary.changed {
        guard.changes.notify();
    }
    if summary.ended {
        guard.ends.notify();
    }
    let notifications = guard.notifications.clone();
    // Free the writer first: a thread that receives a notification may want to write.
    drop(guard);
    if error.is_none() {
        notifications.notify_over(&summary.over);
        if summary.left {
            notifications.notify(Topic::Jobs);
        }
        if summary.ended {
            notifications.notify(Topic::Ends);
        }
    }
    for answer in answers {
        // A receiver that panics must not keep the others from their answers.
        drop(contain("answer a write", || answer(error.as_ref().map(StoreError::again))));
    }
}

impl Writer {
    /// Answers a request that needs no database. Returns every other request.
    fn without_the_database(&mut self, request: Request) -> Option<Request> {
        match request {
            Request::Withdraw(claimer) => {
                if let Some(wanted) = self.waiting.take(claimer) {
                    wanted.send(Ok(Wakeup::Jobs(Vec::new())));
                }
                None
            }
            Request::JobsElsewhere => {
                self.waiting.nothing = None;
                (!self.waiting.claimers.is_empty()).then_some(Request::JobsElsewhere)
            }
            Request::Look(claimer) => self.waiting.take(claimer).map(Request::Claim),
            Request::Claim(wanted) if wanted.waits => match &self.waiting.nothing {
                Some((scope, until)) if *scope == wanted.scope && self.clock.mono_ms() < *until => {
                    wanted.send(Ok(Wakeup::Nothing(Some(*until))));
                    self.waiting.claimers.push(wanted);
                    None
                }
                _ => Some(Request::Claim(wanted)),
            },
            other => Some(other),
        }
    }

    fn transact(
        &mut self,
        group: Vec<Request>,
        summary: &mut ChangeSummary,
    ) -> (Vec<DeferredReply>, Option<StoreError>) {
        let mut answers = Vec::with_capacity(group.len());
        let writer_lock = match self.writer_lock.take() {
            Ok(writer_lock) => writer_lock,
            Err(e) => {
                let error =
                    StoreError::new(StoreErrorKind::Unavailable, "wait for the turn to write to the database", e);
                return (group.into_iter().map(refusal).collect(), Some(error));
            }
        };
        let failed = match self.db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate) {
            Ok(tx) => {
                let mut serving = Serving {
                    db: &tx,
                    now: self.clock.mono_ms(),
                    presence: &self.presence,
                    waiting: &mut self.waiting,
                    summary,
                };
                for request in group {
                    answers.extend(serving.serve(request));
                }
                if serving.summary.ready || serving.summary.jobs_elsewhere {
                    answers.extend(serving.hand_out());
                }
                // A process that begins to wait after this check has not looked for jobs yet, so it finds these.
                if serving.summary.ready && self.notifications.has_listeners(Topic::Jobs) {
                    serving.summary.left = apply::is_any_free(&tx).unwrap_or(true);
                }
                tx.commit().err()
            }
            Err(error) => {
                // No request was served, so every request gets the error.
                answers.extend(group.into_iter().map(refusal));
                Some(error)
            }
        };
        drop(writer_lock);
        (answers, failed.map(|e| unwritten(&self.db, e)))
    }
}

impl WaitingClaimers {
    fn take(&mut self, claimer: u64) -> Option<PendingClaim> {
        let at = self.claimers.iter().position(|wanted| wanted.claimer == claimer)?;
        Some(self.claimers.remove(at))
    }
}

/// Adds the path of the database to the error, so that an operator knows which disk is full.
fn unwritten(db: &Connection, error: rusqlite::Error) -> StoreError {
    sql_error(&format!("write to the database {}", db.path().unwrap_or_default()), error)
}

fn answer<T: Send + 'static>(
    result: Result<T, StoreError>,
    then: impl FnOnce(Result<T, StoreError>) + Send + 'static,
) -> DeferredReply {
    Box::new(move |failed| then(failed.map_or(result, Err)))
}

/// Ignores a closed channel: the change stands although its requester is gone.
fn reply<T: Send + 'static>(to: ReplyTo<T>, result: Result<T, StoreError>) -> DeferredReply {
    answer(result, move |result| drop(to.send(result)))
}

/// The answer to a request that was not served. The caller of the returned `DeferredReply` supplies the actual error.
fn refusal(request: Request) -> DeferredReply {
    let unserved = || StoreError::plain(StoreErrorKind::Unavailable, "write to the database");
    match request {
        Request::Commit(_, then) => answer(Err(unserved()), then),
        Request::Write(_, to) => reply(to, Err(unserved())),
        Request::Remove { reply: to, .. } | Request::RemoveUnchanged { reply: to, .. } => reply(to, Err(unserved())),
        Request::Claim(wanted) => answer(Err(unserved()), move |result| wanted.send(result)),
        Request::Renew { reply: to, .. } => reply(to, Err(unserved())),
        // These requests expect no answer from the database.
        Request::Look(_) | Request::Withdraw(_) | Request::JobsElsewhere => Box::new(|_| {}),
    }
}

/// Serves one request in a savepoint of its own: if it fails or panics, its changes are undone, and the other requests
/// of the transaction are not affected.
fn within<T>(db: &Connection, work: impl FnOnce() -> rusqlite::Result<T>) -> Result<T, StoreError> {
    let in_savepoint = || {
        db.prepare_cached("SAVEPOINT request")?.execute([])?;
        let result = contain("serve a request", work);
        if !matches!(result, Ok(Ok(_))) {
            db.prepare_cached("ROLLBACK TO request")?.execute([])?;
        }
        db.prepare_cached("RELEASE request")?.execute([])?;
        Ok(result)
    };
    match in_savepoint() {
        Ok(Ok(Ok(value))) => Ok(value),
        Ok(Ok(Err(error))) | Err(error) => Err(unwritten(db, error)),
        Ok(Err(panic)) => Err(StoreError::new(StoreErrorKind::Unavailable, "write to the database", panic)),
    }
}

/// The state of one transaction.
struct Serving<'w> {
    db: &'w Connection,
    now: u64,
    presence: &'w Presence,
    waiting: &'w mut WaitingClaimers,
    summary: &'w mut ChangeSummary,
}

impl Serving<'_> {
    /// Serves one request. Returns `None` if the request needs no answer now, such as a claim that waits.
    fn serve(&mut self, request: Request) -> Option<DeferredReply> {
        let db = self.db;
        Some(match request {
            Request::Commit(items, then) => {
                let result: Result<Vec<Reply>, StoreError> =
                    within(db, || items.iter().map(|item| apply::item(db, item, self.now)).collect());
                if let Ok(replies) = &result {
                    self.summary.changed = true;
                    items.iter().zip(replies).for_each(|(item, reply)| self.summary.note(item, reply));
                    if self.summary.ready {
                        self.waiting.nothing = None;
                    }
                }
                answer(result, then)
            }
            Request::Write(writes, to) => reply(to, within(db, || apply::write(db, &writes))),
            Request::Remove { kind, keys, reply: to } => {
                reply(to, within(db, || keys.iter().try_for_each(|key| apply::remove(db, kind, key))))
            }
            Request::RemoveUnchanged { kind, found, reply: to } => {
                reply(to, within(db, || found.iter().try_for_each(|found| apply::remove_unchanged(db, kind, found))))
            }
            Request::Claim(wanted) => return self.claim(wanted),
            Request::Renew { leases, lease_ms, reply: to } => {
                let result = within(db, || apply::renew(db, &leases, self.now.saturating_add(lease_ms)));
                reply(to, result)
            }
            Request::JobsElsewhere => {
                self.summary.jobs_elsewhere = true;
                return None;
            }
            Request::Look(_) | Request::Withdraw(_) => return None,
        })
    }

    fn claim(&mut self, wanted: PendingClaim) -> Option<DeferredReply> {
        let (db, now, presence) = (self.db, self.now, self.presence);
        let claim = apply::Claim {
            scope: &wanted.scope,
            want: wanted.want,
            lease_ms: wanted.lease_ms,
            now,
            owner: presence.name(),
        };
        let result = within(db, || {
            apply::reap(db, now, &|owner| presence.is_dead(owner))?;
            let claimed = apply::claim(db, &claim)?;
            let more = claimed.len() == wanted.want;
            Ok((claimed, if more { None } else { Some(apply::next_change(db, &wanted.scope, now)?) }))
        });
        let jobs = match result {
            Ok((jobs, next)) => {
                let until = now.saturating_add(millis(wanted.round));
                self.waiting.nothing =
                    next.map(|next| (wanted.scope.clone(), next.map_or(until, |next| next.min(until))));
                if jobs.is_empty() && wanted.waits {
                    wanted.send(Ok(Wakeup::Nothing(next.flatten())));
                    self.waiting.claimers.push(wanted);
                    return None;
                }
                Ok(Wakeup::Jobs(jobs))
            }
            Err(error) => Err(error),
        };
        Some(answer(jobs, move |jobs| wanted.send(jobs)))
    }

    /// Hands ready jobs to the waiting claimers, in the transaction that made the jobs ready.
    fn hand_out(&mut self) -> Vec<DeferredReply> {
        std::mem::take(&mut self.waiting.claimers).into_iter().filter_map(|wanted| self.claim(wanted)).collect()
    }
}
