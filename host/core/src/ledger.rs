//! The primary port of flow: write-once records, and the jobs that follow from them. [`Ledger::commit`] changes records
//! and jobs together.
//!
//! Safety depends only on records, and each record is inserted once under a unique key. Jobs are a view of the work
//! that is ready; they can be rebuilt from the records at any time. Flow decides which steps are ready and when a run
//! is over. A backend stores records and jobs, and only tests whether the prerequisites of a job are stored.
//!
//! A fleet keeps its queue and its records in two systems. Its adapter keeps the same promises by doing the steps in
//! order: it writes the records, then enqueues the children, then acknowledges the job.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::blobs::StoreError;
use crate::executor::Models;
use crate::id::RunId;
use crate::keys::NodeId;
pub use crate::keys::{Capability, MODEL, MODEL_KIND, RunKey, capability_in_words, exact_model, is_grant};
use crate::vision::ModelKind;

/// The kind of a record. A kind and a key together identify one record for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A published plugin; key: `name@version`.
    Plugin,
    /// A published pipeline with its pins; key: `name@version#revision`.
    Pipeline,
    /// A submitted run; key: the run's ID.
    Run,
    /// Why a further generation of a run exists, and which outcomes it inherits; key: `run:generation`.
    Generation,
    /// How a step ended; key: `run:step:generation`.
    Outcome,
    /// An attempt from the second on, and why the attempt before it failed; key: `run:step:generation:number`.
    Attempt,
    /// A request to cancel a run; key: `run:generation`.
    Cancel,
    /// How a run ended; key: `run:generation`.
    RunOutcome,
    /// A model of the fleet with its files; key: the model's name.
    Model,
    /// The model of a kind that was chosen for a run after the run's submission; key: `run:kind`.
    ModelChoice,
    /// The identity of this set of records; key: `records`. A queue or blob store that is a separate system keeps a
    /// copy of the identity, and refuses other records.
    Identity,
}

impl Kind {
    /// The name under which backends store the kind.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plugin => "plugin",
            Self::Pipeline => "pipeline",
            Self::Run => "run",
            Self::Generation => "generation",
            Self::Outcome => "outcome",
            Self::Attempt => "attempt",
            Self::Cancel => "cancel",
            Self::RunOutcome => "run_outcome",
            Self::Model => "model",
            Self::ModelChoice => "model_choice",
            Self::Identity => "identity",
        }
    }
}

/// A step on which a worker or a program holds a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldStep {
    /// The leased step.
    pub step: NodeId,
    /// The worker that holds the lease, if it registers with [`Ledger::beat`]. A program that executes its own runs
    /// does not register.
    pub worker: Option<String>,
}

/// A record to be inserted once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What the record is about.
    pub kind: Kind,
    /// Unique among the records of its kind; built by [`crate::keys`].
    pub key: String,
    /// JSON in a versioned form ([`crate::record`]).
    pub value: Vec<u8>,
}

/// A step to run as soon as all its prerequisites have succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The step to run.
    pub step: NodeId,
    /// The prerequisites: the job is ready when each of these steps has a succeeded outcome.
    pub needs: Vec<NodeId>,
    /// The number of the attempt to make. 1, or more if the job is enqueued again after recorded attempts.
    pub attempt: u32,
    /// The requirements on the worker that runs the job.
    #[serde(default)]
    pub requirements: Requirements,
}

/// The capabilities that a job requires of its worker, beyond those that every worker has: names such as `clocks`,
/// `model:ssd_mobilenetv1` or `model_kind:detector`. The names are sorted, each occurs once, and commas join them. An
/// empty list requires nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Requirements(String);

impl Requirements {
    /// The requirement of all these capabilities.
    #[must_use]
    pub fn of(needs: impl IntoIterator<Item = String>) -> Self {
        let needs: std::collections::BTreeSet<String> = needs.into_iter().collect();
        Self(needs.into_iter().collect::<Vec<_>>().join(","))
    }

    /// The same requirements for a run whose models are chosen: the requirement of any model of a kind becomes the
    /// requirement of the chosen model. If an engine is required, whoever opens a model needs this engine.
    #[must_use]
    pub fn with_models(&self, chosen: &Models) -> Self {
        if chosen.is_empty() {
            return self.clone();
        }
        let opens = |need: &str| !is_grant(need);
        let engine = chosen.engine.as_ref().filter(|_| self.needs().any(opens)).map(ToString::to_string);
        let engine = engine.map(|engine| Capability::Engine(&engine).to_string());
        Self::of(engine.into_iter().chain(self.needs().flat_map(|need| {
            let kind = need.strip_prefix(MODEL_KIND);
            let Some(model) = kind.and_then(|kind| chosen.get(kind)) else { return vec![need.to_owned()] };
            // A model that looks at a face may align the face by the points of the run's landmarker, so the worker
            // needs that landmarker too.
            let by_points = kind.is_some_and(|kind| kind != ModelKind::Detector.name());
            let landmarker = by_points.then(|| chosen.get(ModelKind::Landmarker.name())).flatten();
            std::iter::once(model).chain(landmarker).map(exact_model).collect()
        })))
    }

    /// The kinds of which the worker needs some model, whichever it is.
    pub fn model_kinds(&self) -> impl Iterator<Item = &str> {
        self.needs().filter_map(|need| need.strip_prefix(MODEL_KIND))
    }

    /// The stored form: the names, joined by commas.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads the stored form.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self::of(text.split(',').filter(|need| !need.is_empty()).map(str::to_owned))
    }

    /// The names of the required capabilities.
    pub fn needs(&self) -> impl Iterator<Item = &str> {
        self.0.split(',').filter(|need| !need.is_empty())
    }

    /// Whether a worker with the capabilities `able` may run a job with these requirements.
    #[must_use]
    pub fn is_served_by(&self, able: &[String]) -> bool {
        self.needs().all(|need| able.iter().any(|have| have == need))
    }
}

/// The right to run one job for a limited time.
///
/// `token` is a fencing token: once another worker has claimed the job, the ledger refuses every change under the old
/// token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The run of the job.
    pub run: RunKey,
    /// The step of the job.
    pub step: NodeId,
    /// Identifies this claim; no other claim of the backend has the same token.
    pub token: u64,
}

/// One change of the ledger. [`Ledger::commit`] applies its items one after the other, in order, and returns one
/// [`Reply`] for each.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Inserts the record of a run. If the record is new, opens the run, whose steps are `steps`, and enqueues the
    /// jobs.
    ///
    /// Replies `Created` or `Exists`.
    Submit { run: RunKey, record: Record, jobs: Vec<Job>, steps: Arc<[NodeId]> },
    /// Records the outcome of a leased step, and applies the consequences.
    ///
    /// Inserts `record` first. If a record is there already, nothing else happens (`Exists`). If the run already has an
    /// outcome, or has a cancel record, nothing else starts (`Closed`, or `Cancelled`; a cancelled run keeps the
    /// lease's job).
    ///
    /// Otherwise, with `close`: inserts `close` as the run's outcome, and removes all jobs of the run (`Created`).
    ///
    /// Otherwise, without `close`: enqueues each child whose prerequisites have succeeded and that is neither queued
    /// nor finished, then acknowledges the lease's job (`Created`). If no other job of the run is left, the lease's job
    /// is not acknowledged: the reply is `Complete` if the backend knows that every step of the run has succeeded, and
    /// `Last` if it does not know that.
    Finish { lease: Lease, record: Record, succeeded: bool, close: Option<Record>, children: Vec<Job> },
    /// Inserts the record of the next attempt, and puts the job back into the queue, due after `delay`.
    ///
    /// Replies `Created`, `Exists` or `NotOwner`.
    Retry { lease: Lease, record: Record, delay: Duration },
    /// Puts the job back into the queue, due after `delay`, without charging an attempt or a crash.
    ///
    /// Replies `Created` or `NotOwner`.
    Release { lease: Lease, delay: Duration },
    /// Enqueues the jobs that are neither queued nor finished, and opens the run if it is not open. `steps` are all
    /// steps of the run: the backend looks up their outcomes by key.
    ///
    /// Replies `Created`, or `Closed` if the run has an outcome or its record is gone; the backend then removes any
    /// jobs of the run.
    Recover { run: RunKey, jobs: Vec<Job>, steps: Arc<[NodeId]> },
    /// Inserts the record of a re-run, and notes that the run is open again. `Recover` enqueues the jobs of the re-run.
    ///
    /// Replies `Created`, `Exists`, or `Closed` if the run's own record is gone.
    Reopen { run: RunKey, record: Record },
    /// Inserts the outcome of a succeeded step that a re-run takes over from the generation before.
    ///
    /// Replies `Created` or `Exists`.
    Inherit { record: Record },
    /// Inserts the cancel record. From then on the backend enqueues no child of the run.
    ///
    /// Replies `Created`, `Exists` or `Closed`.
    Cancel { run: RunKey, record: Record },
    /// Inserts the run's outcome, and removes all jobs of the run, also if the outcome exists already.
    ///
    /// Replies `Created` or `Exists`.
    Close { run: RunKey, record: Record },
    /// Inserts any other record.
    ///
    /// Replies `Created` or `Exists`.
    Put { record: Record },
}

/// The result of an [`Operation`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The change was applied.
    Created,
    /// A record with this key was inserted earlier; this is its value.
    Exists(Vec<u8>),
    /// Every step of the run has succeeded. The caller that gets this reply closes the run, and need not read records
    /// for that.
    Complete,
    /// No other job of the run is left. The caller that gets this reply reads the outcomes, and closes the run.
    Last,
    /// The run has an outcome.
    Closed,
    /// The run has a cancel record and no outcome yet.
    Cancelled,
    /// The lease is not valid any more: another worker claimed the job, or the job is gone.
    NotOwner,
}

/// A claimed job, with everything that its worker needs to run it.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The lease, whose token acknowledges, retries or releases the job.
    pub lease: Lease,
    /// The number of the attempt to make; 1 for the first.
    pub attempt: u32,
    /// The number of leases on this job that expired before the job was acknowledged or put back: workers that died or
    /// were cut off.
    pub crashes: u32,
    /// The worker must read the records before it runs the step: the step may have an outcome, or the run may be
    /// cancelled.
    pub verify: bool,
    /// The value of the run's record.
    pub run: Vec<u8>,
    /// The outcome records of the prerequisites.
    pub needs: Vec<(NodeId, Vec<u8>)>,
}

/// The result of renewing a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The lease is valid for another full term.
    Renewed,
    /// The worker must stop: the job is gone, another worker claimed it, or the run is cancelled or closed.
    Lost,
}

/// Which jobs a claim may return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// The jobs of every run.
    All,
    /// The jobs of every run, if these capabilities meet the job's requirements.
    Able(Vec<String>),
    /// The jobs of these runs only.
    Runs(Vec<RunId>),
}

impl Scope {
    /// Whether the scope contains the jobs of `run` with the requirements `needed`.
    #[must_use]
    pub fn has(&self, run: &RunId, needed: &Requirements) -> bool {
        match self {
            Self::All => true,
            Self::Able(able) => needed.is_served_by(able),
            Self::Runs(runs) => runs.contains(run),
        }
    }
}

/// The callback of [`Ledger::commit_then`]. Gets one reply for each item, or the error of the whole change.
pub type Then = Box<dyn FnOnce(Result<Vec<Reply>, StoreError>) + Send>;

/// How long a claimer waits for work.
///
/// The caller reads [`Ledger::wakes`] before it looks at its own state, and passes the count as `seen`. So a change
/// between the two is never slept through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// The claimer does not wait at all if [`Ledger::wakes`] differs from this count.
    pub seen: u64,
    /// The longest time to wait.
    pub at_most: Duration,
}

impl Wait {
    /// No waiting.
    pub const NONE: Self = Self { seen: 0, at_most: Duration::ZERO };
}

/// How to list records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// Lists only keys that begin with this text, taken literally.
    pub prefix: String,
    /// The most records to return.
    pub limit: usize,
    /// Newest first instead of oldest first.
    pub newest_first: bool,
}

/// Durable write-once records, and the jobs that follow from them.
///
/// All functions block. Many threads may call one ledger, and many processes may use one backend.
pub trait Ledger: Send + Sync {
    /// Applies the items in order. They are durable when this returns.
    ///
    /// # Errors
    /// `Unavailable`, `Refused` or `Corrupt`. Each item may or may not have been applied, and the caller may send all
    /// of them again.
    fn commit(&self, items: &[Operation]) -> Result<Vec<Reply>, StoreError>;

    /// Applies the items like [`Ledger::commit`], without blocking until they are durable. A backend applies many such
    /// changes in one group commit.
    ///
    /// The backend calls `then` once with the replies, perhaps on a thread of its own. `then` must neither block nor
    /// call this ledger.
    fn commit_then(&self, items: Vec<Operation>, then: Then) {
        then(self.commit(&items));
    }

    /// Claims up to `want` ready jobs, the oldest first, each under a lease of the length `lease`.
    ///
    /// If there are none, waits as `wait` says. May return no jobs before that time is over, as soon as something has
    /// changed.
    ///
    /// # Errors
    /// `Unavailable`.
    fn claim(&self, scope: &Scope, want: usize, lease: Duration, wait: Wait) -> Result<Vec<Claimed>, StoreError>;

    /// Renews leases: each is valid for the length `lease` from now. A lease whose job was put back is lost, however
    /// late the renewal arrives.
    ///
    /// # Errors
    /// `Unavailable`. The caller knows nothing about the leases then.
    fn renew(&self, leases: &[Lease], lease: Duration) -> Result<Vec<Renewal>, StoreError>;

    /// Tells the backend that the caller does nothing more under this lease, whether or not the job was acknowledged or
    /// put back. The backend drops what it keeps in memory for the lease. The stored lease stays valid until it
    /// expires.
    fn let_go(&self, lease: &Lease) {
        let _: &Lease = lease;
    }

    /// Reads records by key. Returns one entry for each key, in order; `None` if there is no such record.
    ///
    /// # Errors
    /// `Unavailable`.
    fn get(&self, kind: Kind, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError>;

    /// Lists records by the beginning of their key, in the order of insertion.
    ///
    /// # Errors
    /// `Unavailable`.
    fn list(&self, kind: Kind, listing: &Listing) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// The runs that were submitted and have no outcome, the oldest first, at most `limit`.
    ///
    /// # Errors
    /// `Unavailable`.
    fn open_runs(&self, limit: usize) -> Result<Vec<RunKey>, StoreError>;

    /// The steps of the run that are leased now, as far as the backend knows. The answer is for people; nothing may be
    /// decided by it.
    ///
    /// # Errors
    /// `Unavailable`.
    fn held(&self, run: &RunKey) -> Result<Vec<HeldStep>, StoreError>;

    /// Waits until one of the runs is over, or until `wait` ends, and returns those that are over. May return an empty
    /// list earlier, as soon as something has changed.
    ///
    /// With an empty list of runs: waits until the backend hears of any change. The outcome of a step in a run that is
    /// over is such a change.
    ///
    /// # Errors
    /// `Unavailable`.
    fn over(&self, runs: &[RunKey], wait: Wait) -> Result<Vec<RunKey>, StoreError>;

    /// Registers a callback. The backend calls it whenever it hears that a run was cancelled or ended, in any process.
    /// Notifications may be lost; they only save a worker the wait until its next renewal. The callback must not block.
    fn on_end(&self, notify: Box<dyn Fn(&RunKey) + Send + Sync>) {
        drop(notify);
    }

    /// Registers a living worker: [`Ledger::workers`] shows `about` until `keep` has passed. With a `keep` of zero, the
    /// worker is removed at once.
    ///
    /// # Errors
    /// `Unavailable`.
    fn beat(&self, worker: &str, about: &[u8], keep: Duration) -> Result<(), StoreError>;

    /// The name and the `about` of each living worker. Several workers may have the same name.
    ///
    /// # Errors
    /// `Unavailable`.
    fn workers(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// Some of the open runs that the queue does not know, or for which it has no job. Part of the queue was lost, and
    /// these runs need recovery.
    ///
    /// The caller recovers them, and asks again until the list is empty. Concurrent callers get lists that begin at
    /// different runs. A backend whose queue is as durable as its records returns only runs whose re-run was
    /// interrupted, or none.
    ///
    /// # Errors
    /// `Unavailable`.
    fn lost(&self) -> Result<Vec<RunKey>, StoreError> {
        Ok(Vec::new())
    }

    /// Wakes every thread of this process that waits in [`Ledger::claim`], so that it checks again whether to wait.
    fn wake(&self);

    /// The number of changes and of calls to [`Ledger::wake`] so far, as far as this process knows. See [`Wait`].
    fn wakes(&self) -> u64;
}
