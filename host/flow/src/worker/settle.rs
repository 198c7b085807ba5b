//! What follows when a job's change has been recorded: the run is closed or brought on its way, its lease is let go,
//! and whoever watches is told. A change that a store did not take is kept and sent again, with its lease renewed, for
//! as long as the worker may.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use dovetail_core::RunId;
use dovetail_core::blobs::{Store, StoreError, StoreErrorKind};
use dovetail_core::ledger::{Item, Lease, Reply};
use dovetail_core::record::RunState;

use super::{Event, Worker, locked};
use crate::FlowError;
use crate::shutdown::Shutdown;
use crate::step::{After, Done, Settled};

/// How long a change waits that a store did not take.
const AGAIN: Duration = Duration::from_millis(500);

/// A change that was sent.
pub(super) struct Sent {
    pub(super) lease: Lease,
    pub(super) attempt: u32,
    pub(super) item: Item,
    pub(super) after: After,
}

pub(super) enum ToSettle {
    Answered(Sent, Result<Reply, StoreError>),
    /// A store did not take it: it is to be sent again a little later.
    Later(Sent),
    /// No more are begun: when all that were sent are settled, there is nothing left to do.
    NoMore,
}

/// What is left to do for a change that was answered.
enum Left {
    Nothing,
    /// Another change follows from it.
    Send(Sent),
    /// A store did not take it.
    Later(Sent),
}

fn only(replies: Result<Vec<Reply>, StoreError>) -> Result<Reply, StoreError> {
    replies?.pop().ok_or_else(|| StoreError::plain(StoreErrorKind::Corrupt, "commit: an answer is missing"))
}

impl Worker {
    /// Commits a change on this thread, with all that follows from it. For whoever has nothing else in hand: nobody
    /// needs to be woken for it.
    pub(super) fn settle_here(&self, mut sent: Sent, settle: &Sender<ToSettle>) {
        loop {
            let reply = only(self.parts.ledger.commit(std::slice::from_ref(&sent.item)));
            match self.settle(sent, reply) {
                Left::Nothing => return,
                Left::Send(next) => sent = next,
                Left::Later(sent) => return drop(settle.send(ToSettle::Later(sent))),
            }
        }
    }

    /// Hands a change to the ledger; its answer comes to whoever receives from `settle`.
    pub(super) fn send(&self, sent: Sent, settle: &Sender<ToSettle>) {
        let settle = settle.clone();
        self.flow.sent();
        let item = sent.item.clone();
        self.parts.ledger.commit_then(
            vec![item],
            Box::new(move |replies| {
                // Its receiver waits for all that were sent.
                drop(settle.send(ToSettle::Answered(sent, only(replies))));
            }),
        );
    }

    /// Settles what is answered until there is no more.
    pub(super) fn settle_all(
        self: &Arc<Self>,
        answers: &Receiver<ToSettle>,
        settle: &Sender<ToSettle>,
        shutdown: &Shutdown,
    ) {
        let (mut later, mut no_more): (Vec<(Instant, Sent)>, bool) = (Vec::new(), false);
        loop {
            if no_more && later.is_empty() && self.flow.all_answered() {
                return;
            }
            let due = later.iter().map(|(due, _)| *due).min();
            let message = match due {
                None => answers.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => answers.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            let mut put_off = |sent: Sent| {
                // If it was stopped at once, the lease decides.
                if shutdown.aborting() {
                    self.let_go(sent.lease.token, &sent.lease.run.run, None);
                } else {
                    later.push((Instant::now() + AGAIN, sent));
                }
            };
            match message {
                Ok(ToSettle::NoMore) => no_more = true,
                Ok(ToSettle::Later(sent)) => put_off(sent),
                Ok(ToSettle::Answered(sent, reply)) => {
                    self.flow.answered();
                    match self.settle(sent, reply) {
                        Left::Nothing => {}
                        Left::Send(sent) => self.send(sent, settle),
                        Left::Later(sent) => put_off(sent),
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    let now = Instant::now();
                    let (ready, rest) = later.into_iter().partition(|(due, _)| *due <= now);
                    later = rest;
                    for (_, sent) in ready {
                        self.send(sent, settle);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn settle(&self, sent: Sent, reply: Result<Reply, StoreError>) -> Left {
        let run = sent.lease.run.run.clone();
        let asked: &[Store] = match (&sent.item, &reply) {
            // Nothing was to be recorded.
            (Item::Release { .. }, _) => &[Store::Queue],
            (_, Ok(Reply::Exists(_))) => &[Store::Records],
            _ => &[Store::Queue, Store::Records, Store::Blobs],
        };
        let settled = reply
            .map_err(FlowError::from)
            .and_then(|reply| self.runner.settle(&sent.lease.run, sent.after.clone(), &reply));
        match settled {
            Ok(Settled::Commit(item, after)) => return Left::Send(Sent { item, after, ..sent }),
            Ok(Settled::Over(done, state)) => {
                self.store_answers(asked, true);
                let (step, attempt) = (sent.lease.step.clone(), sent.attempt);
                match done {
                    Done::Step { failure, micros } => {
                        self.tell(|| Event::StepFinished {
                            run: run.clone(),
                            step,
                            attempt,
                            failure,
                            millis: micros / 1000,
                        });
                    }
                    Done::Skipped { failed_step } => {
                        self.tell(|| Event::StepSkipped { run: run.clone(), step, failed_step });
                    }
                    Done::Retried { code, delay } => {
                        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                        self.tell(|| Event::StepRetried { run: run.clone(), step, attempt, code, delay_ms });
                    }
                    Done::Released => self.tell(|| Event::StepReleased { run: run.clone(), step, attempt }),
                    Done::Nothing => {}
                }
                self.let_go(sent.lease.token, &run, state);
            }
            Err(error) if self.is_daemon() => {
                self.store_failed("record what was done", true, &error);
                return Left::Later(sent);
            }
            Err(error) => {
                tracing::error!(%run, step = %sent.lease.step, err = &error as &dyn std::error::Error, "what came of a step could not be recorded");
                self.fail(error);
                self.let_go(sent.lease.token, &run, None);
            }
        }
        Left::Nothing
    }

    /// A job is no longer this worker's.
    pub(super) fn let_go(&self, token: u64, run: &RunId, state: Option<RunState>) {
        let held = locked(&self.held).remove(&token);
        if let Some(held) = held {
            self.parts.ledger.let_go(&held.lease);
        }
        self.flow.settled();
        match state {
            Some(state) => self.ended(run, state),
            None => self.tell_ended(run),
        }
    }

    /// Told once and then now and then, however many changes it is that wait. `keeps`: it is something that was done.
    pub(super) fn store_failed(&self, operation: &str, keeps: bool, error: &FlowError) {
        tracing::debug!(operation, err = error as &dyn std::error::Error, "a store failed");
        let store = error.store();
        if let Some(since) = self.flow.failed(store, keeps) {
            let kept = locked(&self.held).values().filter(|held| held.ended).count();
            self.tell(|| Event::StoreFailed {
                store,
                operation: operation.to_owned(),
                error: error.in_words(),
                since,
                kept,
            });
        }
    }

    pub(super) fn store_answers(&self, asked: &[Store], took: bool) {
        for store in self.flow.answered_by(asked, took) {
            self.tell(|| Event::StoreAnswers { store });
        }
    }
}
