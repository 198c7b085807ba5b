//! Several runs in one request (`run --each`, `runs resume`). One thread submits the runs in batches while the session
//! executes earlier batches. The documents are given in order: each one as soon as its run is over and all documents
//! before it have been given.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, SyncSender};
use std::time::Instant;

use dovetail_core::RunId;
use dovetail_flow::Shutdown;
use serde::Serialize;

use crate::documents::{RunDocument, RunStatus, RunsSummary};
use crate::paths::Shown;
use crate::session::BATCH;
use crate::watch::Reader;
use crate::{Blame, Error, Session, start_thread};

/// The number of runs in the first batch. The first batch is small, so that the first results come soon. Each batch is
/// four times as large as the one before, up to [`BATCH`].
const FIRST_BATCH: usize = 16;
/// How many refusals the message of an error lists.
const SHOWN: usize = 10;

/// The runs of one request.
pub enum Several<'a> {
    /// One new run for each of these files.
    Files(&'a [PathBuf]),
    /// Open runs, which were submitted before.
    Open(&'a [RunId]),
}

impl Several<'_> {
    /// The number of runs.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Files(files) => files.len(),
            Self::Open(runs) => runs.len(),
        }
    }

    /// Whether there are no runs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The file of the n-th run, counted from 0.
    #[must_use]
    pub fn file(&self, n: usize) -> Option<&Path> {
        match self {
            Self::Files(files) => files.get(n).map(PathBuf::as_path),
            Self::Open(_) => None,
        }
    }
}

/// The index of a run among all runs of the request, and the run.
type Numbered = (usize, RunId);

/// The outcome of a request for several runs.
pub struct Batch {
    /// The number of runs in each state.
    pub summary: RunsSummary,
    /// The runs before this index were submitted or refused.
    pub reached: usize,
    /// Why not all runs were submitted or finished. The error is blamed on the host, since [`Blame::Usage`] would say
    /// that nothing was recorded.
    pub error: Option<Error>,
}

/// Submits all runs and executes them until they are over. `submit` submits or resumes the n-th run. If its error is
/// the caller's, only this run is refused; any other error ends the submission. `give` gets the documents in order.
///
/// # Errors
/// The first error of `submit`, of the session or of a store, if no run was submitted. Otherwise it is
/// [`Batch::error`].
pub fn run_all(
    mut session: Session<'_>,
    several: &Several<'_>,
    submit: impl Fn(usize) -> Result<RunId, Error> + Send,
    give: impl FnMut(usize, &RunDocument),
) -> Result<Batch, Error> {
    let shutdown = session.shutdown();
    let mut results = Results::new(session.reader(), give);
    // At most three batches are in memory: one is executed, one waits in the channel, one is being submitted.
    let (send, batches) = mpsc::sync_channel::<Vec<Numbered>>(1);
    let (submitted, worked) = std::thread::scope(|threads| {
        let (count, stop) = (several.len(), shutdown.clone());
        let submitting = start_thread(threads, "submit", move || submit_all(count, &submit, &stop, &send));
        let mut worked = Ok(());
        for batch in batches {
            let runs: Vec<RunId> = batch.iter().map(|(_, run)| run.clone()).collect();
            results.expect(batch);
            if worked.is_ok() {
                worked = session.work(&runs, |run| results.ended(run));
            }
            if worked.is_err() {
                // The loop goes on: runs that were submitted meanwhile must be counted as open.
                shutdown.drain();
            }
        }
        let submitted = match submitting {
            Ok(submitting) => submitting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(error) => Submitted { reached: 0, refused: Vec::new(), fault: Some(error) },
        };
        (submitted, worked)
    });
    if let Several::Open(runs) = several {
        // Runs after an error of the submission are open as well.
        results.expect((submitted.reached..runs.len()).map(|n| (n, runs[n].clone())).collect());
    }
    let any = results.any();
    let worked = worked.and_then(|()| submitted.fault.map_or(Ok(()), Err));
    // After an error, the documents that can still be read are given.
    let worked = if any { worked.and(results.rest()) } else { worked };
    let error = worked.err().or_else(|| refusals(several, submitted.refused, any));
    match error {
        Some(error) if !any => Err(error),
        error => Ok(results.close(several, submitted.reached, error)),
    }
}

/// Submits all runs for workers to execute. `submitted` is called with each submitted run. The result is the error that
/// kept other runs from being submitted, if there is one.
///
/// # Errors
/// The first error of `submit`, if no run was submitted.
pub fn submit_only(
    several: &Several<'_>,
    submit: impl Fn(usize) -> Result<RunId, Error>,
    mut submitted: impl FnMut(usize, &RunId),
) -> Result<Option<Error>, Error> {
    let (mut count, mut refused, mut fault) = (0, Vec::new(), None);
    for n in 0..several.len() {
        match submit(n) {
            Ok(run) => {
                count += 1;
                submitted(n, &run);
            }
            Err(error) if error.blame == Blame::Usage => refused.push((n, error)),
            Err(error) => {
                fault = Some(error);
                break;
            }
        }
    }
    match fault.or_else(|| refusals(several, refused, count > 0)) {
        Some(error) if count == 0 => Err(error),
        error => Ok(error.map(of_the_host)),
    }
}

/// The error, blamed on the host: [`Blame::Usage`] would say that nothing was recorded.
fn of_the_host(mut error: Error) -> Error {
    error.blame = Blame::Host;
    error
}

/// The outcome of the submission.
struct Submitted {
    /// The runs before this index were submitted or refused.
    reached: usize,
    refused: Vec<(usize, Error)>,
    fault: Option<Error>,
}

fn submit_all(
    count: usize,
    submit: &dyn Fn(usize) -> Result<RunId, Error>,
    shutdown: &Shutdown,
    send: &SyncSender<Vec<Numbered>>,
) -> Submitted {
    let mut submitted = Submitted { reached: 0, refused: Vec::new(), fault: None };
    let mut size = FIRST_BATCH;
    let goes_on =
        |submitted: &Submitted| submitted.reached < count && submitted.fault.is_none() && !shutdown.draining();
    while goes_on(&submitted) {
        let mut batch = Vec::with_capacity(size);
        while batch.len() < size && goes_on(&submitted) {
            let n = submitted.reached;
            match submit(n) {
                Ok(run) => batch.push((n, run)),
                Err(error) if error.blame == Blame::Usage => submitted.refused.push((n, error)),
                Err(error) => submitted.fault = Some(error),
            }
            submitted.reached += usize::from(submitted.fault.is_none());
        }
        // The receiver is dropped early only if the thread of the session panicked.
        if !batch.is_empty() && send.send(batch).is_err() {
            break;
        }
        size = (size * 4).min(BATCH);
    }
    submitted
}

/// A refused file or run in the details of an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct RefusedItem {
    /// The file of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// The run that was to be resumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    run_id: Option<RunId>,
    code: &'static str,
    message: String,
}

impl RefusedItem {
    /// The n-th item, which this error refused.
    fn of(several: &Several<'_>, n: usize, error: &Error) -> Self {
        let (path, run_id) = match several {
            Several::Files(files) => (files.get(n).map(|file| file.text()), None),
            Several::Open(runs) => (None, runs.get(n).cloned()),
        };
        Self { path, run_id, code: error.code, message: error.chain() }
    }
}

/// One error for all refused runs. Their files were valid when the command began. None if no run was refused.
fn refusals(several: &Several<'_>, mut refused: Vec<(usize, Error)>, any: bool) -> Option<Error> {
    if refused.len() < 2 && !any {
        return refused.pop().map(|(_, error)| error);
    }
    let code = refused.first()?.1.code;
    let (what, others) = match several {
        Several::Files(_) => {
            ("files could not be submitted", "the others were submitted; correct these files and run them again")
        }
        Several::Open(_) => {
            ("runs could not be resumed", "the others were resumed; remove the causes above, and resume these runs")
        }
    };
    let mut message = format!("{} of {} {what}", refused.len(), several.len());
    for (_, error) in refused.iter().take(SHOWN) {
        message.push_str(&format!("\n  {}", error.chain()));
    }
    if refused.len() > SHOWN {
        message.push_str(&format!("\n  and {} more", refused.len() - SHOWN));
    }
    let details: Vec<RefusedItem> = refused.iter().map(|(n, error)| RefusedItem::of(several, *n, error)).collect();
    let help = match several {
        _ if any => others,
        Several::Files(_) => "correct the files and run them again",
        Several::Open(_) => "remove the causes above, and resume the runs",
    };
    let details_of = if matches!(several, Several::Files(_)) { "files" } else { "runs" };
    Some(Error::usage(code, message).help(help).detail(details_of, details))
}

/// Gives documents in order, and counts them by state.
struct Results<'a, G> {
    reader: Reader<'a>,
    give: G,
    began: Instant,
    /// Submitted runs whose documents were not given yet, in order.
    waiting: VecDeque<Numbered>,
    /// The runs of `waiting` that are over.
    over: BTreeSet<RunId>,
    tally: RunsSummary,
}

impl<'a, G: FnMut(usize, &RunDocument)> Results<'a, G> {
    fn new(reader: Reader<'a>, give: G) -> Self {
        let (waiting, over, tally) = (VecDeque::new(), BTreeSet::new(), RunsSummary::default());
        Self { reader, give, began: Instant::now(), waiting, over, tally }
    }

    /// Adds submitted runs.
    fn expect(&mut self, runs: Vec<Numbered>) {
        self.waiting.extend(runs);
    }

    /// Whether any run was submitted.
    fn any(&self) -> bool {
        self.tally.total + self.waiting.len() > 0
    }

    /// Notes that a run is over, and gives the documents that are next in order.
    fn ended(&mut self, run: &RunId) -> Result<(), Error> {
        self.over.insert(run.clone());
        while let Some((n, run)) = self.waiting.pop_front_if(|(_, run)| self.over.contains(run)) {
            if !self.give(n, &run)? {
                return Ok(());
            }
            self.over.remove(&run);
        }
        Ok(())
    }

    /// Gives the documents of all runs that are left, in their present states.
    fn rest(&mut self) -> Result<(), Error> {
        while let Some((n, run)) = self.waiting.pop_front() {
            if !self.give(n, &run)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Gives the document of a run. False if no store answers and the session was shut down. If the document cannot be
    /// read, the run stays in `waiting`.
    fn give(&mut self, n: usize, run: &RunId) -> Result<bool, Error> {
        let document = match self.reader.document(run) {
            Ok(Some(document)) => document,
            asked => {
                self.waiting.push_front((n, run.clone()));
                return asked.map(|_| false);
            }
        };
        (self.give)(n, &document);
        self.tally.total += 1;
        match document.state {
            RunStatus::Succeeded => self.tally.succeeded += 1,
            RunStatus::Failed => self.tally.failed += 1,
            RunStatus::Cancelled => self.tally.cancelled += 1,
            RunStatus::Queued | RunStatus::Running => self.tally.open += 1,
        }
        Ok(true)
    }

    fn close(mut self, several: &Several<'_>, reached: usize, error: Option<Error>) -> Batch {
        self.tally.total_time_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        // The state of a run whose document cannot be read is unknown. Such a run is counted as open.
        let unread = self.waiting.len();
        self.tally.open += unread;
        self.tally.total += unread;
        if let Several::Files(files) = several {
            self.tally.not_submitted = files.len() - self.tally.total;
        }
        Batch { summary: self.tally, reached, error: error.map(of_the_host) }
    }
}
