//! What every measurement has: stores, published tasks, how much is to be done, and an ear for whoever interrupts.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use dovetail_flow::Shutdown;

use super::faces::Faces;
use super::pictures::Pair;
use super::place::Place;
use super::tasks::Tasks;
use crate::args;
use crate::error::Error;
use crate::output::Output;
use crate::signals::{self, Listening, Told};
use crate::wire::App;

const WORDS: Told = Told { drain: "interrupted: what was measured with is being removed", abort: "interrupted again" };

/// How much is done for each figure.
pub(super) struct Plan {
    pub(super) rounds: usize,
    /// Steps that are submitted at once where a rate is measured.
    pub(super) size: u32,
    pub(super) calls: u32,
    /// Runs, one after the other, of one round of a latency.
    pub(super) latencies: usize,
    /// How long an idle worker is watched.
    pub(super) idle: Duration,
    /// Runs in a deep queue.
    pub(super) deep: u32,
    /// Batches of one round of inserts.
    pub(super) batches: usize,
    /// Rounds of photographs through the pipeline and through the library alone.
    pub(super) pairs: usize,
    /// Photographs of one round where the rates of two pipelines are compared.
    pub(super) photographs: usize,
}

impl Plan {
    fn of(args: &args::Bench) -> Self {
        let rounds = |default: u32| args.rounds.unwrap_or(default) as usize;
        if args.quick {
            let idle = Duration::from_secs(3);
            return Self {
                rounds: rounds(2),
                size: args.size.unwrap_or(500),
                calls: 2000,
                latencies: 20,
                idle,
                deep: 5000,
                batches: 4,
                pairs: rounds(2),
                photographs: 12,
            };
        }
        let idle = Duration::from_secs(20);
        Self {
            rounds: rounds(5),
            size: args.size.unwrap_or(10_000),
            calls: 20_000,
            latencies: 200,
            idle,
            deep: 100_000,
            batches: 20,
            pairs: rounds(15),
            photographs: 60,
        }
    }
}

pub(super) struct Suite {
    pub(super) plan: Plan,
    pub(super) tasks: Tasks,
    /// The system's load before anything was measured.
    pub(super) load_before: Option<f64>,
    /// Processes, where a fleet works.
    pub(super) workers: u32,
    /// Rounds of times from submission to result: two figures are made of them.
    pub(super) latencies: OnceCell<Vec<Vec<f64>>>,
    /// Of the rounds of photographs: two figures, too.
    pub(super) pairs: OnceCell<Vec<Pair>>,
    pub(super) faces: OnceCell<Faces>,
    /// Where photographs are taken from, if it was said.
    pub(super) photographs: Option<PathBuf>,
    /// The user's own stores: only read, for the face pipeline.
    pub(super) from: App,
    signal: Receiver<()>,
    listening: Listening,
    pub(super) place: Place,
}

impl Suite {
    pub(super) fn new(app: &App, args: &args::Bench) -> Result<Self, Error> {
        let shutdown = Shutdown::default();
        let (tell, signal) = mpsc::channel();
        let listening = signals::listen(shutdown.clone(), WORDS, move |note| {
            tracing::warn!("{note}");
            tell.send(()).ok();
        })?;
        let place = Place::new(&app.config, &app.output, args.servers)?;
        let tasks = Tasks::publish(place.app()?)?;
        shutdown.wakes(&place.app()?.parts()?.ledger);
        Ok(Self {
            plan: Plan::of(args),
            tasks,
            load_before: super::machine::load(),
            workers: args.workers,
            latencies: OnceCell::new(),
            pairs: OnceCell::new(),
            faces: OnceCell::new(),
            photographs: args.photographs.clone(),
            from: App::new(app.config.clone(), Output::new(app.output.format)),
            signal,
            listening,
            place,
        })
    }

    pub(super) fn interrupted(&self) -> bool {
        self.listening.interrupted()
    }

    /// An error as soon as somebody interrupts.
    pub(super) fn go_on(&self) -> Result<(), Error> {
        if self.interrupted() { Err(Error::host("interrupted", "interrupted")) } else { Ok(()) }
    }

    /// Waits; an error as soon as somebody interrupts.
    pub(super) fn sleep(&self, time: Duration) -> Result<(), Error> {
        match self.signal.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => self.go_on(),
            _ => Err(Error::host("interrupted", "interrupted")),
        }
    }

    /// Removes what is of this run.
    pub(super) fn end(&mut self) -> Result<(), Error> {
        self.place.clear()
    }
}
