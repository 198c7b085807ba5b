//! The primary port of flow: write-once records and the jobs that follow from them, changed together by
//! [`Ledger::commit`].
//!
//! Everything that safety needs is a record inserted once under a unique key; jobs are a window on what is ready and
//! can be rebuilt from the records at any time. A backend remembers; it decides nothing: which steps are ready, and
//! when a run is over, flow says, and the backend only tests whether what a job needs is there. Where queue and records
//! are two systems, an adapter keeps the same promises by doing the steps in order (records, then children, then the
//! acknowledgement).

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::blobs::StoreError;
use crate::executor::Models;
use crate::id::RunId;
use crate::keys::NodeId;
pub use crate::keys::{MODEL, MODEL_KIND, RunKey, capability_in_words, exact_model, is_grant};
use crate::vision::ModelKind;

/// What a record is about. Together with its key it is unique for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `name@version` of a plugin.
    Plugin,
    /// `name@version#revision` of a pipeline with its pins.
    Pipeline,
    /// A submitted run; key: the run's ID.
    Run,
    /// `run:generation`: why there is a second generation and what it inherits.
    Generation,
    /// `run:step:generation`: how a step ended.
    Outcome,
    /// `run:step:generation:number`: an attempt from the second on, and why the one before it failed.
    Attempt,
    /// `run:generation`: somebody asked for the end.
    Cancel,
    /// `run:generation`: how the run ended.
    RunOutcome,
    /// `name`: a model of the fleet with its files.
    Model,
    /// `run:kind`: the model of a kind that was chosen for a run after its submission.
    ModelChoice,
    /// `records`: which records these are, for a queue that is a system of its own.
    Identity,
}

impl Kind {
    /// How it is written in a backend.
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

/// A step that somebody holds a lease on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldStep {
    pub step: NodeId,
    /// The worker, if it said that it lives ([`Ledger::beat`]); a program that runs its own runs does not.
    pub worker: Option<String>,
}

/// A record to be inserted once. `value` is JSON in a versioned form (see [`crate::record`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub kind: Kind,
    pub key: String,
    pub value: Vec<u8>,
}

/// A step that is to run once everything it needs has succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    pub step: NodeId,
    /// Steps whose succeeded outcomes must be there.
    pub needs: Vec<NodeId>,
    /// The attempt that is to be made: 1, or more where a job is enqueued again whose earlier attempts are on record.
    pub attempt: u32,
    /// Which workers may run it.
    #[serde(default)]
    pub lane: Requirements,
}

/// What a job asks of its worker beyond what every worker has: names of capabilities (`clocks`,
/// `model:ssd_mobilenetv1`, `model_kind:detector`), sorted, each once, joined by commas. Empty: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Requirements(String);

impl Requirements {
    /// Of these capabilities.
    #[must_use]
    pub fn of(needs: impl IntoIterator<Item = String>) -> Self {
        let needs: std::collections::BTreeSet<String> = needs.into_iter().collect();
        Self(needs.into_iter().collect::<Vec<_>>().join(","))
    }

    /// The same for a run with these models: in place of any model of a kind it asks for the chosen one.
    #[must_use]
    pub fn with_models(&self, chosen: &Models) -> Self {
        if chosen.is_empty() {
            return self.clone();
        }
        Self::of(self.needs().flat_map(|need| {
            let kind = need.strip_prefix(MODEL_KIND);
            let Some(model) = kind.and_then(|kind| chosen.get(kind)) else { return vec![need.to_owned()] };
            // A model that looks at a face may cut it out by the points of the run's landmarker.
            let by_points = kind.is_some_and(|kind| kind != ModelKind::Detector.name());
            let landmarker = by_points.then(|| chosen.get(ModelKind::Landmarker.name())).flatten();
            std::iter::once(model).chain(landmarker).map(exact_model).collect()
        }))
    }

    /// The kinds of models of which any one is asked for.
    pub fn model_kinds(&self) -> impl Iterator<Item = &str> {
        self.needs().filter_map(|need| need.strip_prefix(MODEL_KIND))
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As it was written.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self::of(text.split(',').filter(|need| !need.is_empty()).map(str::to_owned))
    }

    /// The capabilities.
    pub fn needs(&self) -> impl Iterator<Item = &str> {
        self.0.split(',').filter(|need| !need.is_empty())
    }

    /// Whether somebody with these capabilities may run its jobs.
    #[must_use]
    pub fn is_served_by(&self, able: &[String]) -> bool {
        self.needs().all(|need| able.iter().any(|have| have == need))
    }
}

/// The right to run a job for a while. The token fences: after the lease has passed to another, it opens nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub run: RunKey,
    pub step: NodeId,
    pub token: u64,
}

/// One change. All of a call's items are applied, each for itself, in order; the answer has one [`Reply`] an item.
#[derive(Debug, Clone)]
pub enum Item {
    /// Inserts the record and, if it is new, opens the run, which has these steps, and enqueues the jobs.
    /// Replies `Created` or `Exists`.
    Submit { run: RunKey, record: Record, jobs: Vec<Job>, steps: Arc<[NodeId]> },
    /// Inserts the outcome; if it is new and the run is open: enqueues those children whose needs are there and that
    /// are neither queued nor finished, then acknowledges the lease's job. With `close`, the run's outcome is inserted
    /// too and all its jobs go. Without, and if no job of the run would be left, the lease's job stays and the reply is
    /// `Complete` (as far as the backend knows every step of the run has succeeded) or `Last`. Replies `Created`,
    /// `Complete`, `Last`, `Exists` (nothing else was done), `Closed` or `Cancelled` (the outcome was inserted, the job
    /// stays).
    Finish { lease: Lease, record: Record, succeeded: bool, close: Option<Record>, children: Vec<Job> },
    /// Inserts the record of the next attempt and puts the job back for `delay`. Replies `Created`, `Exists`, or
    /// `NotOwner`.
    Retry { lease: Lease, record: Record, delay: Duration },
    /// Puts the job back for `delay` and charges nothing. Replies `Created` or `NotOwner`.
    Release { lease: Lease, delay: Duration },
    /// Enqueues what is neither queued nor finished, opening the run if it is not closed. `steps` are all its
    /// steps: their outcomes are looked up by key. Replies `Created`, or `Closed` where the run is over or its
    /// record is gone: then whatever jobs are left of it go.
    Recover { run: RunKey, jobs: Vec<Job>, steps: Arc<[NodeId]> },
    /// Inserts the record of a re-run and notes that the run is open again; its jobs come by `Recover`. Replies
    /// `Created`, `Exists`, or `Closed` where the run's own record is gone.
    Reopen { run: RunKey, record: Record },
    /// Inserts the record of a success that a re-run takes over from the generation before. Replies `Created` or
    /// `Exists`.
    Inherit { record: Record },
    /// Inserts the record; from then on no child of the run is enqueued. Replies `Created`, `Exists` or `Closed`.
    Cancel { run: RunKey, record: Record },
    /// Inserts the run's outcome and removes all its jobs. Replies `Created` or `Exists` (the jobs are removed in
    /// either case).
    Close { run: RunKey, record: Record },
    /// Inserts any other record. Replies `Created` or `Exists`.
    Put { record: Record },
}

/// What came of an [`Item`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Created,
    /// The record was there before; this is its value.
    Exists(Vec<u8>),
    /// Every step of the run has succeeded: whoever got this reply closes it, without reading a record.
    Complete,
    /// Nothing of the run is left to do: it is over, and whoever got this reply reads how, and closes it.
    Last,
    /// The run has an outcome.
    Closed,
    /// The run was cancelled and is still open.
    Cancelled,
    /// The lease has passed to another, or its job is gone.
    NotOwner,
}

/// A job handed out, with all that is needed to run it.
#[derive(Debug, Clone)]
pub struct Claimed {
    pub lease: Lease,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// How many workers died, or lost their lease, over this job.
    pub crashes: u32,
    /// Read the records before running: the step may have an outcome, or the run may be cancelled.
    pub verify: bool,
    /// The run's record.
    pub run: Vec<u8>,
    /// Outcome records of the steps that the job needs.
    pub needs: Vec<(NodeId, Vec<u8>)>,
}

/// What became of a lease that was to be renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    Renewed,
    /// Stop: the job is gone, passed to another, or the run is cancelled or closed.
    Lost,
}

/// Which jobs a claimer takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Of every run.
    All,
    /// Of every run, in the lanes that these capabilities serve.
    Able(Vec<String>),
    /// Of these runs only.
    Runs(Vec<RunId>),
}

impl Scope {
    /// Whether jobs of this run and lane are in it.
    #[must_use]
    pub fn has(&self, run: &RunId, lane: &Requirements) -> bool {
        match self {
            Self::All => true,
            Self::Able(able) => lane.is_served_by(able),
            Self::Runs(runs) => runs.contains(run),
        }
    }
}

/// What is told of the replies to a change, and when: see [`Ledger::commit_then`].
pub type Then = Box<dyn FnOnce(Result<Vec<Reply>, StoreError>) + Send>;

/// How long a claimer waits for work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// Not at all, if [`Ledger::wakes`] is no longer this.
    pub seen: u64,
    pub at_most: Duration,
}

impl Wait {
    /// No waiting.
    pub const NONE: Self = Self { seen: 0, at_most: Duration::ZERO };
}

/// How to list records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// Only keys that begin so.
    pub prefix: String,
    /// At most so many.
    pub limit: usize,
    /// Newest first instead of oldest first.
    pub newest_first: bool,
}

/// Durable write-once records with their jobs. Blocking. Safe to call from many threads, and from many processes on one
/// backend.
pub trait Ledger: Send + Sync {
    /// Applies the items. Durable when it returns.
    ///
    /// # Errors
    /// `Unavailable`, `Refused` or `Corrupt`: then none of the items is known to be applied, and all may be sent again.
    fn commit(&self, items: &[Item]) -> Result<Vec<Reply>, StoreError>;

    /// The same without waiting for it: `then` is told, maybe on a thread of the backend, so it must neither block nor
    /// call this ledger. Many such changes share what makes a change durable.
    fn commit_then(&self, items: Vec<Item>, then: Then) {
        then(self.commit(&items));
    }

    /// Takes up to `want` ready jobs, the oldest first, each leased for `lease`. While there are none it waits as
    /// `wait` says, and may come back empty-handed as soon as something changed.
    ///
    /// # Errors
    /// `Unavailable`.
    fn claim(&self, scope: &Scope, want: usize, lease: Duration, wait: Wait) -> Result<Vec<Claimed>, StoreError>;

    /// Extends leases. One whose job was given back is lost, however late its renewal comes.
    ///
    /// # Errors
    /// `Unavailable`: nothing is known about the leases.
    fn renew(&self, leases: &[Lease], lease: Duration) -> Result<Vec<Renewal>, StoreError>;

    /// The caller does nothing more with this lease, whether or not its job was acknowledged or given back: the backend
    /// forgets what it remembers of it. The lease itself goes on until it lapses.
    fn let_go(&self, lease: &Lease) {
        let _: &Lease = lease;
    }

    /// Records by key.
    ///
    /// # Errors
    /// `Unavailable`.
    fn get(&self, kind: Kind, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError>;

    /// Records by the beginning of their key, in the order in which they were inserted.
    ///
    /// # Errors
    /// `Unavailable`.
    fn list(&self, kind: Kind, listing: &Listing) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// Runs that were submitted and have no outcome, the oldest first.
    ///
    /// # Errors
    /// `Unavailable`.
    fn open_runs(&self, limit: usize) -> Result<Vec<RunKey>, StoreError>;

    /// The steps of the run that somebody holds a lease on now, as far as the backend knows: for people, never for
    /// decisions.
    ///
    /// # Errors
    /// `Unavailable`.
    fn held(&self, run: &RunKey) -> Result<Vec<HeldStep>, StoreError>;

    /// Waits until one of the runs is over, at most so long, and says which are; may come back empty-handed as soon as
    /// something changed. For whoever submitted them. Of no runs: until something changed, as far as the backend hears
    /// of it; what a step of a run that is over came to is such a change.
    ///
    /// # Errors
    /// `Unavailable`.
    fn over(&self, runs: &[RunKey], wait: Wait) -> Result<Vec<RunKey>, StoreError>;

    /// Has `told` called whenever a run was cancelled or ended anywhere, as far as the backend hears of it: a hint, so
    /// that whoever works on it need not wait for its next renewal. It must not block.
    fn on_end(&self, told: Box<dyn Fn(&RunKey) + Send + Sync>) {
        drop(told);
    }

    /// Says that a worker lives: `about` is what [`Ledger::workers`] shows of it until `keep` has passed. For no time
    /// at all: it goes.
    ///
    /// # Errors
    /// `Unavailable`.
    fn beat(&self, worker: &str, about: &[u8], keep: Duration) -> Result<(), StoreError>;

    /// What living workers say of themselves, by name: several may have the same.
    ///
    /// # Errors
    /// `Unavailable`.
    fn workers(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// Some open runs that the queue does not know, or of which it has no job: something was lost, and they need to be
    /// recovered. Ask again until there are none. Several who ask at once begin at different ones. A backend whose
    /// queue is as durable as its records has none.
    ///
    /// # Errors
    /// `Unavailable`.
    fn lost(&self) -> Result<Vec<RunKey>, StoreError> {
        Ok(Vec::new())
    }

    /// Wakes everybody in this process who waits in [`Ledger::claim`], so that they look whether they should still
    /// wait.
    fn wake(&self);

    /// How often something changed or somebody called [`Ledger::wake`], in this process: taken before looking, and
    /// given to [`Wait`], it makes sure that nothing that came after the look is slept through.
    fn wakes(&self) -> u64;
}
