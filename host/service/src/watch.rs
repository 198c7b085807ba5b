//! Waiting for one run, which a session or other processes execute.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dovetail_core::RunId;
use dovetail_core::ledger::Wait;
use dovetail_flow::{FlowError, Ports, Shutdown};

use crate::documents::{RunDocument, RunStatus, StepDocument, StepState};
use crate::patience::Patience;
use crate::{Error, Notice, Observer, Service, Session};

/// How often a watcher reads the steps of its run. The end of the run arrives at once, by a notification.
const WATCH: Duration = Duration::from_secs(1);

impl<'a> Session<'a> {
    /// Executes one run until it is over, and gives its document. None if no store answers and the session was shut
    /// down.
    ///
    /// # Errors
    /// A store's failure, or the host's.
    pub fn finish(&mut self, run: &RunId) -> Result<Option<RunDocument>, Error> {
        self.work(std::slice::from_ref(run), |_| Ok(()))?;
        let (ports, shutdown, observer) = (self.service().ports()?, self.shutdown(), self.observer());
        let tell = |notice: Notice| observer.notice(&notice);
        let mut patience = Patience::new(&shutdown, &tell);
        let mut document = patience.ask(|| dovetail_flow::document(ports, run))?;
        let settings = &self.service().settings;
        if settings.is_fleet() && document.as_ref().is_some_and(|document| document.state != RunStatus::Succeeded) {
            until_recorded(ports, settings.lease, run, &mut patience)?;
            document = patience.ask(|| dovetail_flow::document(ports, run))?;
        }
        Ok(document)
    }

    /// A reader of documents for use while the session works.
    pub(crate) fn reader(&self) -> Reader<'a> {
        Reader { service: self.service(), shutdown: self.shutdown(), observer: self.observer() }
    }
}

/// Reads documents, and repeats the operation while a store does not answer.
pub(crate) struct Reader<'a> {
    service: &'a Service,
    shutdown: Shutdown,
    observer: &'a dyn Observer,
}

impl Reader<'_> {
    /// The document of a run in its present state. None if no store answers and the session was shut down.
    ///
    /// # Errors
    /// A store's failure.
    pub(crate) fn document(&self, run: &RunId) -> Result<Option<RunDocument>, Error> {
        let ports = self.service.ports()?;
        let tell = |notice: Notice| self.observer.notice(&notice);
        Ok(Patience::new(&self.shutdown, &tell).ask(|| dovetail_flow::document(ports, run))?)
    }
}

impl Service {
    /// Calls `changed` with each step whose state changes, until the run is over and its running steps have stopped, or
    /// until the shutdown. Gives the document at that time; None if no store answers and the shutdown came. Executes
    /// nothing.
    ///
    /// # Errors
    /// `unknown_run`; a store's failure.
    pub fn watch(
        &self,
        run: &RunId,
        shutdown: &Shutdown,
        observer: &dyn Observer,
        mut changed: impl FnMut(&StepDocument),
    ) -> Result<Option<RunDocument>, Error> {
        let ports = self.ports_to_read()?;
        shutdown.wakes(&ports.ledger);
        let tell = |notice: Notice| observer.notice(&notice);
        let mut patience = Patience::new(shutdown, &tell);
        let Some(key) = patience.ask(|| dovetail_flow::current(ports, run))? else { return Ok(None) };
        let mut reported: BTreeMap<String, StepState> = BTreeMap::new();
        let mut over_since = None;
        loop {
            let seen = ports.ledger.wakes();
            let looked = patience.ask(|| {
                let document = dovetail_flow::document(ports, run)?;
                // The state is `cancelled` as soon as the cancellation is recorded. The end is recorded a moment later.
                let over = document.finished_at.is_some();
                let lease = self.settings.lease;
                let stopping = if over { stopping(ports, run, &reported, lease)? } else { Stopping::default() };
                Ok((document, over, stopping))
            })?;
            let Some((document, over, stopping)) = looked else { return Ok(None) };
            let since = if over { over_since.get_or_insert_with(Instant::now).elapsed() } else { Duration::ZERO };
            let left = stopping.at_most.saturating_sub(since);
            for step in &document.processing_summary.steps {
                let is_stopping = !left.is_zero() && stopping.steps.contains(&step.id);
                if !is_stopping && reported.get(&step.id) != Some(&step.state) {
                    changed(step);
                    reported.insert(step.id.clone(), step.state);
                }
            }
            if over && left.is_zero() || shutdown.draining() {
                return Ok(Some(document));
            }
            // No end of run is awaited if the run is over: then only the outcomes of its steps are.
            let (awaited, at_most) =
                if over { (&[][..], left.min(WATCH)) } else { (std::slice::from_ref(&key), WATCH) };
            patience.ask(|| Ok(ports.ledger.over(awaited, Wait { seen, at_most })?))?;
        }
    }
}

/// Waits until the outcomes of the running steps of an ended run are recorded, for at most a second. Workers of a fleet
/// executed the run; the session does not know which steps ran when the run ended.
fn until_recorded(ports: &Ports, lease: Duration, run: &RunId, patience: &mut Patience<'_>) -> Result<(), Error> {
    let began = Instant::now();
    loop {
        let seen = ports.ledger.wakes();
        let Some((steps, over_for)) = patience.ask(|| dovetail_flow::unrecorded(ports, run))? else { return Ok(()) };
        let left = WATCH.saturating_sub(began.elapsed());
        // A run that ended longer ago than a lease has no attempt any more.
        if steps.is_empty() || left.is_zero() || over_for > lease {
            return Ok(());
        }
        patience.ask(|| Ok(ports.ledger.over(&[], Wait { seen, at_most: left })?))?;
    }
}

/// Steps that may still be stopping although their run is over.
#[derive(Default)]
struct Stopping {
    steps: Vec<String>,
    /// How long the watcher waits for these steps, from the time when it found the run to be over.
    at_most: Duration,
}

/// The steps without an outcome, and how long to wait for them. A step that the watcher saw running is awaited for one
/// lease, since its worker may have died. Other steps may have started after the last look; they are awaited for
/// [`WATCH`], since their outcomes are recorded soon.
fn stopping(
    ports: &Ports,
    run: &RunId,
    reported: &BTreeMap<String, StepState>,
    lease: Duration,
) -> Result<Stopping, FlowError> {
    let (steps, over_for) = dovetail_flow::unrecorded(ports, run)?;
    let ran = steps.iter().any(|id| reported.get(id) == Some(&StepState::Running));
    let at_most = match steps.is_empty() {
        true => Duration::ZERO,
        false if ran => lease,
        // The run was over for a while when the watch began: no attempt runs any more.
        false if reported.is_empty() && over_for > WATCH => Duration::ZERO,
        false => WATCH,
    };
    Ok(Stopping { steps, at_most })
}
