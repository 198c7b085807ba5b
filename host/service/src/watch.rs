//! Waiting for one run: on which a session works, or which others work on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dovetail_core::RunId;
use dovetail_core::ledger::Wait;
use dovetail_flow::{FlowError, Ports, Shutdown};

use crate::documents::{RunDocument, RunStatus, StepDocument, StepState};
use crate::patience::Patience;
use crate::{Error, Notice, Observer, Service, Session};

/// How often a watcher looks at the steps of its run; the end of the run is told at once.
const WATCH: Duration = Duration::from_secs(1);

impl<'a> Session<'a> {
    /// Works on one run until it is over: its document. None if no store answers and the session was shut down.
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

    /// Reads documents beside the work of the session.
    #[must_use]
    pub fn reader(&self) -> Reader<'a> {
        Reader { service: self.service(), shutdown: self.shutdown(), observer: self.observer() }
    }
}

/// Reads documents, and outlasts stores that do not answer.
pub struct Reader<'a> {
    service: &'a Service,
    shutdown: Shutdown,
    observer: &'a dyn Observer,
}

impl Reader<'_> {
    /// The document of a run as it is now. None if no store answers and the session was shut down.
    ///
    /// # Errors
    /// A store's failure.
    pub fn document(&self, run: &RunId) -> Result<Option<RunDocument>, Error> {
        let ports = self.service.ports()?;
        let tell = |notice: Notice| self.observer.notice(&notice);
        Ok(Patience::new(&self.shutdown, &tell).ask(|| dovetail_flow::document(ports, run))?)
    }
}

impl Service {
    /// Tells each change of a run's steps as it happens, until the run is over and its running steps have stopped, or
    /// until the shutdown: its document then. None if no store answers and the shutdown came. Works on nothing.
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
        let mut told: BTreeMap<String, StepState> = BTreeMap::new();
        let mut over_since = None;
        loop {
            let seen = ports.ledger.wakes();
            let looked = patience.ask(|| {
                let document = dovetail_flow::document(ports, run)?;
                // A run whose cancellation is recorded is called so, and is over a moment later.
                let over = document.finished_at.is_some();
                let lease = self.settings.lease;
                let stopping = if over { stopping(ports, run, &told, lease)? } else { Stopping::default() };
                Ok((document, over, stopping))
            })?;
            let Some((document, over, stopping)) = looked else { return Ok(None) };
            let since = if over { over_since.get_or_insert_with(Instant::now).elapsed() } else { Duration::ZERO };
            let left = stopping.at_most.saturating_sub(since);
            for step in &document.processing_summary.steps {
                let is_stopping = !left.is_zero() && stopping.steps.contains(&step.id);
                if !is_stopping && told.get(&step.id) != Some(&step.state) {
                    changed(step);
                    told.insert(step.id.clone(), step.state);
                }
            }
            if over && left.is_zero() || shutdown.draining() {
                return Ok(Some(document));
            }
            // A run that is over tells no end; the outcomes of its steps are awaited.
            let (awaited, at_most) =
                if over { (&[][..], left.min(WATCH)) } else { (std::slice::from_ref(&key), WATCH) };
            patience.ask(|| Ok(ports.ledger.over(awaited, Wait { seen, at_most })?))?;
        }
    }
}

/// After the end of a run on which others worked: waits until the outcomes of its running steps are recorded, for a
/// second at most. A session that only waited for the end does not know which steps ran.
fn until_recorded(ports: &Ports, lease: Duration, run: &RunId, patience: &mut Patience<'_>) -> Result<(), Error> {
    let began = Instant::now();
    loop {
        let seen = ports.ledger.wakes();
        let Some((steps, over_for)) = patience.ask(|| dovetail_flow::unrecorded(ports, run))? else { return Ok(()) };
        let left = WATCH.saturating_sub(began.elapsed());
        // The run may have been over before the session waited.
        if steps.is_empty() || left.is_zero() || over_for > lease {
            return Ok(());
        }
        patience.ask(|| Ok(ports.ledger.over(&[], Wait { seen, at_most: left })?))?;
    }
}

/// Steps of a run that is over which may still be stopping.
#[derive(Default)]
struct Stopping {
    steps: Vec<String>,
    /// How long the watcher waits for them, from when the run was seen to be over.
    at_most: Duration,
}

/// A step that was seen running is waited for as long as a lease: its worker may have died. A step may have begun since
/// the last look; its outcome is recorded soon.
fn stopping(
    ports: &Ports,
    run: &RunId,
    told: &BTreeMap<String, StepState>,
    lease: Duration,
) -> Result<Stopping, FlowError> {
    let (steps, over_for) = dovetail_flow::unrecorded(ports, run)?;
    let ran = steps.iter().any(|id| told.get(id) == Some(&StepState::Running));
    let at_most = match steps.is_empty() {
        true => Duration::ZERO,
        false if ran => lease,
        // No attempt is on its way in a run that is long over.
        false if told.is_empty() && over_for > WATCH => Duration::ZERO,
        false => WATCH,
    };
    Ok(Stopping { steps, at_most })
}
