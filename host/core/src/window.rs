//! The port to a queue that is a separate system: the *window*, a view of the open work. The window may be lost at any
//! moment, and workers rebuild it from the records.
//!
//! Nothing that exists only in the window matters. The window mints an *epoch* (an incarnation number), and a new epoch
//! tells every caller that something may have been lost. A delivery that may repeat work is marked `verify`; its worker
//! reads the records before it runs the step. `docs/window.md` has the rules, each with the failure that it prevents.

use std::time::Duration;

use crate::blobs::StoreError;
use crate::keys::NodeId;
use crate::ledger::{HeldStep, Job, RunKey, Scope};

/// The state of the window before a caller reads records. When the caller writes what it read into the window, it
/// passes the stamp. If the window was lost in between, the window answers `Stale`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// The incarnation of the window.
    pub epoch: String,
    /// The time by the window's own clock, in milliseconds.
    pub now: u64,
    /// The number of runs in this epoch that the window refused because it was full. If the number has grown, there are
    /// recorded runs that the window does not know. They start only after a worker has searched for them.
    pub refused: u64,
}

/// A lease of the window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowLease {
    /// The run of the job.
    pub run: RunKey,
    /// The step of the job.
    pub step: NodeId,
    /// The fencing token. A caller with this token owns the job.
    pub token: String,
    /// The epoch in which the job was claimed.
    pub epoch: String,
}

/// One change of the window.
#[derive(Debug, Clone)]
pub enum Change {
    /// A step ended, and the outcome of this caller is the recorded one. Enqueues the children whose prerequisites are
    /// complete, and acknowledges the job.
    ///
    /// Replies `Ok` or `Closed`; or `Complete`, `Last`, `Lost` or `Cancelled`, which do not acknowledge the job.
    Finish { lease: WindowLease, succeeded: bool, value: Vec<u8>, children: Vec<Job> },
    /// Opens a run, or rebuilds it from records that were read after `stamp` was taken.
    ///
    /// Replies `Ok`, `Stale`, `Closed`, `Cancelled` or `Full`.
    Open {
        run: RunKey,
        stamp: Stamp,
        verify: bool,
        envelope: Vec<u8>,
        steps: u32,
        done: Vec<(NodeId, Option<Vec<u8>>)>,
        jobs: Vec<Job>,
    },
    /// The run's outcome is recorded. Removes everything that the window keeps for the run. Replies `Ok`.
    Close { run: RunKey },
    /// The run's cancellation is recorded. From now on no children are enqueued, and every delivery is marked `verify`.
    /// Replies `Ok`.
    Cancel { run: RunKey },
    /// Puts a job back into the queue, due after `delay`, with this number of the next attempt. Only the owner of the
    /// lease may do so, or the worker whose renewal could still take the job back. From then on no renewal under this
    /// lease takes the job, however late the renewal arrives.
    ///
    /// Replies `Ok` or `NotOwner`.
    Back { lease: WindowLease, attempt: u32, verify: bool, delay: Duration },
    /// Counts a run that was refused because the window was full, so that every caller learns of it
    /// ([`Stamp::refused`]). The window itself makes this change of an `Open` that it answers with `Full`. Replies
    /// `Ok`.
    Refused,
}

/// The result of a [`Change`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The change was applied.
    Ok,
    /// All steps of the run have succeeded.
    Complete,
    /// No other job of the run is left.
    Last,
    /// The window does not know the run: it was lost. Nothing was changed.
    Lost,
    /// The stamp is from an earlier epoch, or older than what the window remembers: read the records again.
    Stale,
    /// The run is over.
    Closed,
    /// The run is cancelled and not over yet.
    Cancelled,
    /// The caller does not own the job any more.
    NotOwner,
    /// The window has no memory left for more work, and nothing was changed. Started work continues, and frees memory.
    Full,
}

/// A claimed job.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The lease under which the job was claimed.
    pub lease: WindowLease,
    /// The number of the attempt to make; 1 for the first.
    pub attempt: u32,
    /// The number of leases on this job that expired.
    pub crashes: u32,
    /// The worker must read the records before it runs the step.
    pub verify: bool,
    /// The run's envelope, as [`Change::Open`] passed it.
    pub envelope: Vec<u8>,
    /// The values of the prerequisites, as [`Change::Finish`] passed them.
    pub values: Vec<(NodeId, Vec<u8>)>,
}

/// The result of renewing a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowRenewal {
    /// The lease is valid for another full term.
    Renewed,
    /// The window does not know the lease, because the window was lost. The worker goes on, and renews again after the
    /// rebuild.
    Unknown,
    /// The worker must stop: the run is over or cancelled, or another worker owns the job.
    Gone,
}

/// The answer to a call.
#[derive(Debug, Clone)]
pub struct Called {
    /// One status for each change, in order.
    pub statuses: Vec<Status>,
    /// The jobs that were claimed.
    pub jobs: Vec<Delivery>,
    /// The time until the next job becomes free by itself (its delay or its lease ends), in milliseconds.
    pub next_ms: Option<u64>,
    /// The state of the window at the time of the answer, for the caller's next read of the records.
    pub stamp: Stamp,
}

/// A notification of the window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notification {
    /// There may be work.
    Jobs,
    /// The run's outcome is recorded.
    Over(RunKey),
    /// The run's cancellation is recorded.
    Cancelled(RunKey),
    /// Notifications may have been missed: every waiting caller looks for itself.
    Missed,
}

/// The window. All functions block. The window answers the calls of one process one after the other.
pub trait Window: Send + Sync {
    /// A stamp for a caller that is about to read records.
    ///
    /// # Errors
    /// `Unavailable`.
    fn peek(&self) -> Result<Stamp, StoreError>;

    /// Applies the changes, then hands out up to `want` jobs, in one round trip. If the answer is lost, the
    /// implementation asks for it again, and the window does nothing twice.
    ///
    /// # Errors
    /// `Unavailable`. The caller does not know what was applied. Jobs that were not acknowledged are delivered again.
    fn call(&self, changes: &[Change], scope: &Scope, want: usize, lease: Duration) -> Result<Called, StoreError>;

    /// Renews leases. If a rebuild has queued a job again while its worker lives, the renewal gives the job back to
    /// that worker. A job that was put back does not return to the worker.
    ///
    /// # Errors
    /// `Unavailable`.
    fn renew(&self, leases: &[WindowLease], lease: Duration) -> Result<Vec<WindowRenewal>, StoreError>;

    /// Registers a callback for notifications: jobs were enqueued, or a run was closed or cancelled, anywhere in the
    /// fleet. Best effort: a caller that waits must also look from time to time.
    fn listen(&self, listener: Box<dyn Fn(Notification) + Send + Sync>);

    /// For each run, whether it is open in the window with at least one job that can continue it. A run for which this
    /// is false has been lost.
    ///
    /// # Errors
    /// `Unavailable`.
    fn knows(&self, runs: &[RunKey]) -> Result<Vec<bool>, StoreError>;

    /// The steps of the run that are leased now.
    ///
    /// # Errors
    /// `Unavailable`.
    fn held(&self, run: &RunKey) -> Result<Vec<HeldStep>, StoreError>;

    /// Registers a living worker for `keep`, with `about` for [`Window::workers`]. Returns a stamp, by which the worker
    /// notices a loss of the window.
    ///
    /// # Errors
    /// `Unavailable`.
    fn beat(&self, worker: &str, about: &[u8], keep: Duration) -> Result<Stamp, StoreError>;

    /// The identity of the records whose work is in this window. If there is none yet, it becomes `records`. Returns
    /// `None` if there is none and `records` is `None`.
    ///
    /// # Errors
    /// `Unavailable`.
    fn belongs(&self, records: Option<&str>) -> Result<Option<String>, StoreError>;

    /// The name and the `about` of each living worker.
    ///
    /// # Errors
    /// `Unavailable`.
    fn workers(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError>;
}
