//! What was recorded of runs, and what a caller does with them: lists, one run, cancellation, retries, resumption.

use dovetail_core::RunId;
use dovetail_core::ledger::RunKey;

use crate::documents::{CancelledRun, LineageDocument, RunDocument, RunSummary, StepLog};
use crate::{Error, Service, grants};

/// What a list came to: those that were read, and those that cannot be, by name.
#[derive(Debug)]
pub struct Listed<T> {
    pub read: Vec<T>,
    pub unread: Vec<(String, Error)>,
}

impl<T> Listed<T> {
    pub(crate) fn of<U>(list: dovetail_flow::List<U>, made: impl Fn(U) -> T) -> Self {
        Self {
            read: list.read.into_iter().map(made).collect(),
            unread: list.unread.into_iter().map(|unread| (unread.name, unread.error.into())).collect(),
        }
    }
}

impl Service {
    /// The newest runs.
    ///
    /// # Errors
    /// A store's failure.
    pub fn list_runs(&self, limit: usize) -> Result<Listed<RunSummary>, Error> {
        Ok(Listed::of(dovetail_flow::runs(self.ports_to_read()?, limit)?, |run| run))
    }

    /// A run as it is now.
    ///
    /// # Errors
    /// `unknown_run`; a store's failure.
    pub fn run_document(&self, run: &RunId) -> Result<RunDocument, Error> {
        Ok(dovetail_flow::document(self.ports_to_read()?, run)?)
    }

    /// A run by its ID, or by the beginning or the end of the ID; with `@0`, `@1`, ... one of its generations.
    ///
    /// # Errors
    /// `unknown_run`, `ambiguous_run`, `unknown_generation`; a store's failure.
    pub fn show_run(&self, named: &str) -> Result<RunDocument, Error> {
        Ok(dovetail_flow::document_of(self.ports_to_read()?, &self.find_generation(named)?)?)
    }

    /// Which values went where.
    ///
    /// # Errors
    /// As [`Service::show_run`].
    pub fn run_lineage(&self, named: &str) -> Result<LineageDocument, Error> {
        Ok(dovetail_flow::lineage(self.ports_to_read()?, &self.find_generation(named)?)?)
    }

    /// What the tasks of a run logged.
    ///
    /// # Errors
    /// As [`Service::show_run`].
    pub fn run_logs(&self, named: &str) -> Result<Vec<StepLog>, Error> {
        Ok(dovetail_flow::logs(self.ports_to_read()?, &self.find_generation(named)?)?)
    }

    /// The run whose ID begins or ends so.
    ///
    /// # Errors
    /// `unknown_run`, `ambiguous_run`; a store's failure.
    pub fn find_run(&self, named: &str) -> Result<RunId, Error> {
        is_id(named)?;
        Ok(dovetail_flow::find_run(self.ports_to_read()?, named)?)
    }

    /// Those of several names, each once.
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

    /// Every open run, the oldest first.
    ///
    /// # Errors
    /// A store's failure.
    pub fn open_runs(&self) -> Result<Vec<RunId>, Error> {
        Ok(self.ports_to_read()?.ledger.open_runs(usize::MAX)?.into_iter().map(|key| key.run).collect())
    }

    fn find_generation(&self, named: &str) -> Result<RunKey, Error> {
        is_id(named.split('@').next().unwrap_or_default())?;
        Ok(dovetail_flow::find_generation(self.ports_to_read()?, named)?)
    }

    /// Ends runs. All are looked for before the first one is ended.
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

    /// Refuses a retry of a run whose steps this process would run and may not.
    ///
    /// # Errors
    /// `grant_withheld`; what keeps a run from being run again.
    pub fn may_retry_here(&self, run: &RunId) -> Result<(), Error> {
        grants::of_steps(&self.settings, &dovetail_flow::left_to_do(self.ports()?, run, true)?)
    }

    /// Runs the steps of a failed or cancelled run again that did not succeed.
    ///
    /// # Errors
    /// What keeps a run from being run again; a store's failure.
    pub fn retry_run(&self, run: &RunId) -> Result<(), Error> {
        dovetail_flow::retry(self.ports()?, run, "by request")?;
        Ok(())
    }

    /// Refuses to go on with a run whose steps this process would run and may not.
    ///
    /// # Errors
    /// `grant_withheld`; a store's failure.
    pub fn may_resume_here(&self, run: &RunId) -> Result<(), Error> {
        grants::of_steps(&self.settings, &dovetail_flow::left_to_do(self.ports()?, run, false)?)
    }

    /// Puts the missing steps of an open run into the queue.
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
        return Err(Error::usage("unknown_run", format!("`{prefix}` is no run ID"))
            .help("write the ID that `dovetail runs list` shows, or its beginning or end"));
    }
    Ok(())
}
