//! Recorded runs: lists, documents, cancellation, retries and resumption.

use dovetail_core::RunId;
use dovetail_core::keys::split_reference;
use dovetail_core::ledger::RunKey;

use crate::documents::{CancelledRun, LineageDocument, RunDocument, RunSummary, StepLog};
use crate::{Error, Service, grants};

/// A list of records.
#[derive(Debug)]
pub struct ReadableList<T> {
    /// The records that can be read.
    pub read: Vec<T>,
    /// The name of each record that cannot be read, and why.
    pub unread: Vec<(String, Error)>,
}

impl<T> ReadableList<T> {
    pub(crate) fn of<U>(list: dovetail_flow::List<U>, made: impl Fn(U) -> T) -> Self {
        Self {
            read: list.read.into_iter().map(made).collect(),
            unread: list.unread.into_iter().map(|unread| (unread.name, unread.error.into())).collect(),
        }
    }
}

impl Service {
    /// The newest runs, at most `limit`, newest first.
    ///
    /// # Errors
    /// A store's failure.
    pub fn list_runs(&self, limit: usize) -> Result<ReadableList<RunSummary>, Error> {
        Ok(ReadableList::of(dovetail_flow::runs(self.ports_to_read()?, limit)?, |run| run))
    }

    /// The document of a run in its present state.
    ///
    /// # Errors
    /// `unknown_run`; a store's failure.
    pub fn run_document(&self, run: &RunId) -> Result<RunDocument, Error> {
        Ok(dovetail_flow::document(self.ports_to_read()?, run)?)
    }

    /// The document of a run. `named` is the run's ID, or the beginning or the end of the ID; with `@0`, `@1`, ...
    /// behind it, the document of that generation.
    ///
    /// # Errors
    /// `unknown_run`, `ambiguous_run`, `unknown_generation`; a store's failure.
    pub fn show_run(&self, named: &str) -> Result<RunDocument, Error> {
        Ok(dovetail_flow::document_of(self.ports_to_read()?, &self.find_generation(named)?)?)
    }

    /// The lineage of a run: which value each step consumed and produced.
    ///
    /// # Errors
    /// As [`Service::show_run`].
    pub fn run_lineage(&self, named: &str) -> Result<LineageDocument, Error> {
        Ok(dovetail_flow::lineage(self.ports_to_read()?, &self.find_generation(named)?)?)
    }

    /// The log of each step of a run.
    ///
    /// # Errors
    /// As [`Service::show_run`].
    pub fn run_logs(&self, named: &str) -> Result<Vec<StepLog>, Error> {
        Ok(dovetail_flow::logs(self.ports_to_read()?, &self.find_generation(named)?)?)
    }

    /// The run whose ID begins or ends with `named`.
    ///
    /// # Errors
    /// `unknown_run`, `ambiguous_run`; a store's failure.
    pub fn find_run(&self, named: &str) -> Result<RunId, Error> {
        is_id(named)?;
        Ok(dovetail_flow::find_run(self.ports_to_read()?, named)?)
    }

    /// The runs of several names, without duplicates, in the order of the names.
    ///
    /// # Errors
    /// As [`Service::find_run`].
    pub fn find_runs(&self, named: &[String]) -> Result<Vec<RunId>, Error> {
        let mut found = Vec::new();
        for one in named {
            let run = self.find_run(one)?;
            if !found.contains(&run) {
                found.push(run);
            }
        }
        Ok(found)
    }

    /// All open runs, oldest first.
    ///
    /// # Errors
    /// A store's failure.
    pub fn open_runs(&self) -> Result<Vec<RunId>, Error> {
        Ok(self.ports_to_read()?.ledger.open_runs(usize::MAX)?.into_iter().map(|key| key.run).collect())
    }

    fn find_generation(&self, named: &str) -> Result<RunKey, Error> {
        is_id(split_reference(named).0)?;
        Ok(dovetail_flow::find_generation(self.ports_to_read()?, named)?)
    }

    /// Cancels runs. All names are resolved before the first run is cancelled, so that a wrong name cancels nothing.
    ///
    /// # Errors
    /// As [`Service::find_run`].
    pub fn cancel_runs(&self, named: &[String]) -> Result<Vec<CancelledRun>, Error> {
        let mut done = Vec::new();
        for run_id in self.find_runs(named)? {
            let cancelled = dovetail_flow::cancel(self.ports()?, &run_id, "by request")?;
            done.push(CancelledRun { run_id, cancelled });
        }
        Ok(done)
    }

    /// Refuses a retry of a run if this process would execute the steps and withholds a grant that they ask for.
    ///
    /// # Errors
    /// `grant_withheld`; the errors of [`Service::retry_run`].
    pub fn may_retry_here(&self, run: &RunId) -> Result<(), Error> {
        grants::of_steps(&self.settings, &dovetail_flow::left_to_do(self.ports()?, run, true)?)
    }

    /// Starts a new generation of a failed or cancelled run: the steps that did not succeed are enqueued again.
    ///
    /// # Errors
    /// `run_open`; `nothing_to_retry` if the run succeeded; a store's failure.
    pub fn retry_run(&self, run: &RunId) -> Result<(), Error> {
        dovetail_flow::retry(self.ports()?, run, "by request")?;
        Ok(())
    }

    /// Refuses to resume a run if this process would execute the steps and withholds a grant that they ask for.
    ///
    /// # Errors
    /// `grant_withheld`; a store's failure.
    pub fn may_resume_here(&self, run: &RunId) -> Result<(), Error> {
        grants::of_steps(&self.settings, &dovetail_flow::left_to_do(self.ports()?, run, false)?)
    }

    /// Recovers an open run: reads its records, then closes the run or enqueues its missing jobs.
    ///
    /// # Errors
    /// A store's failure.
    pub fn resume_run(&self, run: &RunId) -> Result<(), Error> {
        dovetail_flow::recover(self.ports()?, run)?;
        Ok(())
    }
}

fn is_id(prefix: &str) -> Result<(), Error> {
    if prefix.is_empty() || !prefix.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-')) {
        return Err(Error::usage("unknown_run", format!("`{prefix}` is not a run ID"))
            .help("write the ID that `dovetail runs list` shows, or its beginning or end"));
    }
    Ok(())
}
