//! What every measurement has: stores, published tasks, how much is to be done, and the end of it all when the caller
//! interrupts.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use dovetail_flow::Shutdown;

use crate::faces::Faces;
use crate::pictures::Pair;
use crate::place::TestBed;
use crate::tasks::Tasks;
use dovetail_service::Error;
use dovetail_service::Service;

/// What to measure, and how much of it.
#[derive(Debug, Clone, Default)]
pub struct BenchRequest {
    /// The servers of a fleet, instead of a data folder of its own.
    pub servers: bool,
    /// How figures grow with runs in the queue, steps, sizes of values, faces.
    pub growth: bool,
    /// Only these figures; none: all of the suite.
    pub only: Vec<String>,
    /// Less of everything: whether it works, and about how fast it is.
    pub quick: bool,
    /// Rounds of each figure.
    pub rounds: Option<u32>,
    /// Steps that are submitted at once where a rate is measured.
    pub size: Option<u32>,
    /// A folder of photographs for the figures of the face pipeline.
    pub photographs: Option<PathBuf>,
    /// Worker processes, with `servers`.
    pub workers: u32,
}

/// Ends a measurement early.
pub struct Interruption {
    pub shutdown: Shutdown,
    /// Gets a message when `shutdown` begins to drain.
    pub signal: Receiver<()>,
}

/// How much is done for each figure.
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    /// Steps that are submitted at once where a rate is measured.
    pub(crate) size: u32,
    pub(crate) calls: u32,
    /// Runs, one after the other, of one round of a latency.
    pub(crate) latencies: usize,
    /// How long an idle worker is watched.
    pub(crate) idle: Duration,
    /// Runs in a deep queue.
    pub(crate) deep: u32,
    /// Batches of one round of inserts.
    pub(crate) batches: usize,
    /// Rounds of photographs through the pipeline and through the library alone.
    pub(crate) pairs: usize,
    /// Photographs of one round where the rates of two pipelines are compared.
    pub(crate) photographs: usize,
}

impl Plan {
    fn of(args: &BenchRequest) -> Self {
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

pub(crate) struct Suite {
    pub(crate) plan: Plan,
    pub(crate) tasks: Tasks,
    /// The system's load before anything was measured.
    pub(crate) load_before: Option<f64>,
    /// Processes, where a fleet works.
    pub(crate) workers: u32,
    /// Rounds of times from submission to result: two figures are made of them.
    pub(crate) latencies: OnceCell<Vec<Vec<f64>>>,
    /// Of the rounds of photographs: two figures, too.
    pub(crate) pairs: OnceCell<Vec<Pair>>,
    pub(crate) faces: OnceCell<Faces>,
    /// Where photographs are taken from, if it was said.
    pub(crate) photographs: Option<PathBuf>,
    /// The user's own stores: only read, for the face pipeline.
    pub(crate) from: Service,
    interruption: Interruption,
    pub(crate) place: TestBed,
}

impl Suite {
    pub(crate) fn new(service: &Service, args: &BenchRequest, interruption: Interruption) -> Result<Self, Error> {
        let place = TestBed::new(&service.settings, args.servers)?;
        let tasks = Tasks::publish(place.service()?)?;
        interruption.shutdown.wakes(&place.service()?.ports()?.ledger);
        Ok(Self {
            plan: Plan::of(args),
            tasks,
            load_before: super::machine::load(),
            workers: args.workers,
            latencies: OnceCell::new(),
            pairs: OnceCell::new(),
            faces: OnceCell::new(),
            photographs: args.photographs.clone(),
            from: Service::new(service.settings.clone()),
            interruption,
            place,
        })
    }

    pub(crate) fn interrupted(&self) -> bool {
        self.interruption.shutdown.draining()
    }

    /// An error as soon as somebody interrupts.
    pub(crate) fn go_on(&self) -> Result<(), Error> {
        if self.interrupted() { Err(Error::host("interrupted", "interrupted")) } else { Ok(()) }
    }

    /// Waits; an error as soon as somebody interrupts.
    pub(crate) fn sleep(&self, time: Duration) -> Result<(), Error> {
        match self.interruption.signal.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => self.go_on(),
            _ => Err(Error::host("interrupted", "interrupted")),
        }
    }

    /// Removes what is of this run.
    pub(crate) fn end(&mut self) -> Result<(), Error> {
        self.place.clear()
    }
}
