//! Changes in flight to the fleet's two stores: submitted by a caller of the ledger, and waiting for their replies.
//!
//! A change first writes its records, then changes the window. Each of the two is a [`FlatCombiner`] with a thread of
//! its own. A caller that waits for the replies and finds a combiner free does the work on its own thread, together
//! with the work that other callers have left; otherwise it leaves its work to the combiner's thread.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{SendError, Sender};
use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::flat_combining::FlatCombiner;
use dovetail_core::ledger::{Operation, Reply, RunKey, Scope, Then};
use dovetail_core::panics::contain;
use dovetail_core::scarce::Scarce;
use dovetail_core::window::Change;

use super::Shared;
use super::records::{self, Forget, Holder, RecordsCombiner, Repair, ToRecords};
use super::work::{self, ClaimRequest, ClaimedJobs, ToWindow, WindowCombiner};

/// A change as its caller submitted it. `then` gets one reply for each item.
pub(super) struct Request {
    pub(super) items: Vec<Operation>,
    pub(super) then: Then,
}

/// A request whose records are written. `slots` has one entry for each item of the request.
pub(super) struct RecordedRequest {
    pub(super) slots: Vec<Slot>,
    pub(super) then: Then,
}

/// The state of an item whose records are written.
pub(super) enum Slot {
    /// The item has its reply.
    Done(Reply),
    /// The window is to be changed; its answer decides the reply.
    Ask(Change, Following),
}

/// The work that follows from the window's answer to a change.
pub(super) enum Following {
    Submitted(Repair),
    Finished { lease: u64 },
    Closed { run: RunKey, lease: Option<u64>, reply: Reply },
    Back { lease: u64 },
}

/// The way of every change and claim to the stores: the two combiners, their inboxes and their threads.
pub(super) struct InFlight {
    shared: Arc<Shared>,
    /// `None` only while the threads are being ended.
    combiners: Option<Combiners>,
    threads: Vec<JoinHandle<()>>,
}

struct Combiners {
    records: Arc<RecordsCombiner>,
    to_records: Sender<ToRecords>,
    window: Arc<WindowCombiner>,
    to_window: Sender<ToWindow>,
}

impl InFlight {
    /// Starts the threads of both combiners.
    ///
    /// # Errors
    /// `Unavailable` if a thread cannot be started.
    pub(super) fn start(shared: &Arc<Shared>) -> Result<Self, StoreError> {
        let (records, to_records) = FlatCombiner::new(Forget::default());
        let (window, to_window) = FlatCombiner::new(());
        let (state, combiner, next) = (shared.clone(), records.clone(), to_window.clone());
        let records_thread = spawn("fleet-records", move || records::run(&state, &combiner, &next))?;
        let (state, combiner, back) = (shared.clone(), window.clone(), to_records.clone());
        let window_thread = spawn("fleet-work", move || work::run(&state, &combiner, &back))?;
        Ok(Self {
            shared: shared.clone(),
            combiners: Some(Combiners { records, to_records, window, to_window }),
            threads: vec![records_thread, window_thread],
        })
    }

    fn combiners(&self) -> Result<&Combiners, StoreError> {
        self.combiners.as_ref().ok_or_else(ended)
    }

    #[cfg(test)]
    pub(super) fn records_combiner(&self) -> Arc<RecordsCombiner> {
        self.combiners.as_ref().unwrap().records.clone()
    }

    /// Applies the items, in order, with as few round trips as possible. One reply for each item.
    ///
    /// # Errors
    /// A store's failure: then no item is known to be applied.
    pub(super) fn submit_and_wait(&self, items: Vec<Operation>) -> Result<Vec<Reply>, StoreError> {
        let (reply, replies) = crossbeam_channel::bounded(1);
        let request = Request { items, then: Box::new(move |replies| drop(reply.send(replies))) };
        let combiners = self.combiners()?;
        if request.items.iter().all(needs_no_records) {
            self.call_window(combiners, ToWindow::Changes(vec![self.shared.unrecorded(request)]));
            return replies.recv().map_err(|_| ended())?;
        }
        match combiners.records.try_lock() {
            Some(guard) => {
                let (first, holder) = (ToRecords::Commit(request), Holder::Caller(&combiners.to_records));
                let write = || records::write_with_others(&self.shared, guard, Some(first), &holder);
                // The caller writes for others, too: a panic over another caller's request must not become this
                // caller's. The channels of the dropped requests close.
                if let Ok(Some(recorded)) = contain("write records", write) {
                    self.call_window(combiners, ToWindow::Changes(recorded));
                }
            }
            None => self.submit(request),
        }
        replies.recv().map_err(|_| ended())?
    }

    /// Asks the window for up to `want` jobs, each leased for `lease`. Also says in how many milliseconds the next job
    /// becomes free by itself.
    ///
    /// # Errors
    /// A failure of the window.
    pub(super) fn claim(&self, scope: &Scope, want: usize, lease: Duration) -> ClaimedJobs {
        let (reply, answer) = crossbeam_channel::bounded(1);
        let request = ClaimRequest { scope: scope.clone(), want, lease, reply };
        self.call_window(self.combiners()?, ToWindow::Claim(request));
        answer.recv().map_err(|_| ended())?
    }

    /// For a caller that waits for the answer.
    fn call_window(&self, combiners: &Combiners, message: ToWindow) {
        match combiners.window.try_lock() {
            Some(guard) => {
                let call = || work::call_with_others(&self.shared, &guard, message, &combiners.to_records);
                drop(contain("change the window", call));
            }
            None => work::leave(&combiners.to_window, message),
        }
    }

    /// Leaves the request to the combiners' threads. They call `then` of the request.
    pub(super) fn submit(&self, request: Request) {
        match &self.combiners {
            Some(combiners) if request.items.iter().all(needs_no_records) => {
                work::leave(&combiners.to_window, ToWindow::Changes(vec![self.shared.unrecorded(request)]));
            }
            Some(combiners) => {
                if let Err(SendError(ToRecords::Commit(Request { then, .. }))) =
                    combiners.to_records.send(ToRecords::Commit(request))
                {
                    then(Err(ended()));
                }
            }
            None => (request.then)(Err(ended())),
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        // The window's thread ends once the records' thread has ended, because then no sender to its inbox is left.
        if let Some(combiners) = self.combiners.take() {
            drop(combiners.to_records.send(ToRecords::End));
        }
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
        // If the window does not answer, these leases expire.
        drop(self.shared.release_unread());
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|error| {
        StoreError::new(StoreErrorKind::Unavailable, format!("start the thread {name}"), Scarce::thread(&error))
    })
}

/// Gives a caller its replies. A receiver that panics must not keep the other callers from theirs.
pub(super) fn answer(then: Then, replies: Result<Vec<Reply>, StoreError>) {
    drop(contain("answer a change", || then(replies)));
}

/// The error of a change that comes after the end of the threads.
pub(super) fn ended() -> StoreError {
    StoreError::plain(StoreErrorKind::Unavailable, "the fleet's ledger has ended")
}

/// Whether an item only changes the window. Such an item must not wait for the records, nor fail with them: a job may
/// be given back because the records fail.
fn needs_no_records(item: &Operation) -> bool {
    matches!(item, Operation::Release { .. })
}
