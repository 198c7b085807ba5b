//! The port to a queue that is a system of its own: a *window* on the work, which may be lost at any moment and is
//! rebuilt from the records.
//!
//! Nothing that exists only here matters. An epoch, minted by the window itself, tells every caller that something was
//! lost; a delivery that may repeat work comes with `verify`, and its worker reads the records first. The rules, each
//! with the failure that it prevents, stand in `docs/window.md`.

use std::time::Duration;

use crate::blobs::StoreError;
use crate::keys::NodeId;
use crate::ledger::{HeldStep, Job, RunKey, Scope};

/// Taken before the records are read, and shown to the window when what was read is written into it: if something was
/// lost in between, the window answers `Stale`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    pub epoch: String,
    /// The window's own milliseconds.
    pub now: u64,
    /// How many times, in this epoch, runs were refused because there was no room: where it has grown, some are
    /// recorded that the window does not know, and that begin only when somebody looks for them.
    pub refused: u64,
}

/// A lease as the window knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowLease {
    pub run: RunKey,
    pub step: NodeId,
    /// Whoever shows it owns the job.
    pub token: String,
    /// In which it was claimed.
    pub epoch: String,
}

/// A change of the window.
#[derive(Debug, Clone)]
pub enum Change {
    /// A step ended and this caller's outcome was the one recorded. Replies `Ok`, or one of those that do not
    /// acknowledge: `Complete`, `Last`, `Lost`, `Cancelled`; or `Closed`.
    Finish { lease: WindowLease, succeeded: bool, value: Vec<u8>, children: Vec<Job> },
    /// Opens a run or rebuilds it from records that were read after `stamp`. Replies `Ok`, `Stale`, `Closed`,
    /// `Cancelled` or `Full`.
    Open {
        run: RunKey,
        stamp: Stamp,
        verify: bool,
        envelope: Vec<u8>,
        steps: u32,
        done: Vec<(NodeId, Option<Vec<u8>>)>,
        jobs: Vec<Job>,
    },
    /// The run's outcome is recorded: everything of it goes. Replies `Ok`.
    Close { run: RunKey },
    /// The cancellation is recorded: no children, no unverified delivery. Replies `Ok`.
    Cancel { run: RunKey },
    /// Back into the queue after `delay`, as this attempt. By its owner only, or by whoever might take the job back with
    /// a renewal: `Ok` or `NotOwner`. From then on no renewal under this lease takes the job, however late it comes.
    Back { lease: WindowLease, attempt: u32, verify: bool, delay: Duration },
    /// Runs were refused for want of room: counted, so that everybody hears of it ([`Stamp::refused`]). The window
    /// makes it of an `Open` that it answers with `Full`. Replies `Ok`.
    Refused,
}

/// What came of a [`Change`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Ok,
    /// All steps of the run have succeeded.
    Complete,
    /// No job of the run is left.
    Last,
    Lost,
    Stale,
    Closed,
    Cancelled,
    NotOwner,
    /// There is no room for more work: nothing was done. What is there goes on, and makes room.
    Full,
}

/// A job handed out.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub lease: WindowLease,
    pub attempt: u32,
    /// Leases over it that lapsed.
    pub crashes: u32,
    pub verify: bool,
    /// As given to [`Change::Open`].
    pub envelope: Vec<u8>,
    /// Of the steps it needs, as given to [`Change::Finish`].
    pub values: Vec<(NodeId, Vec<u8>)>,
}

/// What became of a lease that was to be renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    Renewed,
    /// The window does not know it (it was lost): go on, and renew again after the rebuild.
    Unknown,
    /// The run is over or cancelled, or the job is another's: stop.
    Gone,
}

/// What a call came to.
#[derive(Debug, Clone)]
pub struct Called {
    /// One a change.
    pub statuses: Vec<Status>,
    pub jobs: Vec<Delivery>,
    /// When the next job becomes free by itself, in milliseconds from now.
    pub next_ms: Option<u64>,
    /// Of the window as it was when it answered: for whoever reads records next.
    pub stamp: Stamp,
}

/// What a bell says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ring {
    /// There may be work.
    Jobs,
    /// The run's outcome is recorded.
    Over(RunKey),
    /// The run's cancellation is recorded.
    Cancelled(RunKey),
    /// Notifications may have been missed: everybody looks.
    Missed,
}

/// The window. Blocking; calls of one process are answered one after the other.
pub trait Window: Send + Sync {
    /// A stamp for a reader of the records.
    ///
    /// # Errors
    /// `Unavailable`.
    fn peek(&self) -> Result<Stamp, StoreError>;

    /// Applies changes and then hands out up to `want` jobs, in one round trip. A reply that was lost is asked for
    /// again, and nothing is done twice.
    ///
    /// # Errors
    /// `Unavailable`: nothing is known; what was to be acknowledged comes again.
    fn call(&self, changes: &[Change], scope: &Scope, want: usize, lease: Duration) -> Result<Called, StoreError>;

    /// Extends leases. A job that a rebuild queued again while its worker lives goes back to that worker; one that was
    /// given back does not.
    ///
    /// # Errors
    /// `Unavailable`.
    fn renew(&self, leases: &[WindowLease], lease: Duration) -> Result<Vec<Held>, StoreError>;

    /// Calls `ring` whenever jobs came or a run was closed or cancelled anywhere in the fleet. Best effort: whoever
    /// waits looks now and then all the same.
    fn listen(&self, ring: Box<dyn Fn(Ring) + Send + Sync>);

    /// Whether each run is open here with at least one job that leads on: what is not so has been lost.
    ///
    /// # Errors
    /// `Unavailable`.
    fn knows(&self, runs: &[RunKey]) -> Result<Vec<bool>, StoreError>;

    /// The steps of the run that somebody leases now.
    ///
    /// # Errors
    /// `Unavailable`.
    fn held(&self, run: &RunKey) -> Result<Vec<HeldStep>, StoreError>;

    /// Says that a worker lives, for `keep`; a loss of the window is noticed with it.
    ///
    /// # Errors
    /// `Unavailable`.
    fn beat(&self, worker: &str, about: &[u8], keep: Duration) -> Result<Stamp, StoreError>;

    /// The identity of the records whose work this is: `records` from now on, if there is none yet; none if none are
    /// given either.
    ///
    /// # Errors
    /// `Unavailable`.
    fn belongs(&self, records: Option<&str>) -> Result<Option<String>, StoreError>;

    /// What living workers say of themselves, by name.
    ///
    /// # Errors
    /// `Unavailable`.
    fn workers(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError>;
}
