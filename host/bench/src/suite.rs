//! The parts that every measurement needs: stores, published tasks, the amount of work, and the end after an
//! interruption by the caller.

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

/// A request to measure figures.
#[derive(Debug, Clone, Default)]
pub struct BenchRequest {
    /// Measure the servers of a fleet instead of a data folder of our own.
    pub servers: bool,
    /// Measure how figures grow with the number of queued runs, of steps, of bytes in a value, and of faces.
    pub growth: bool,
    /// The names of the figures to measure. Empty for all figures of the suite.
    pub only: Vec<String>,
    /// Do less work for each figure: a check that the measurement works, with approximate figures.
    pub quick: bool,
    /// The number of rounds for each figure.
    pub rounds: Option<u32>,
    /// The number of steps that are submitted at once to measure a rate.
    pub size: Option<u32>,
    /// A folder of photographs for the figures of the face pipeline.
    pub photographs: Option<PathBuf>,
    /// The number of worker processes, with `servers`.
    pub workers: u32,
}

/// The means to end a measurement early.
pub struct Interruption {
    /// Ends the measurement when it begins to drain.
    pub shutdown: Shutdown,
    /// Gets a message when `shutdown` begins to drain.
    pub signal: Receiver<()>,
}

/// The amount of work for each figure.
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    /// The number of steps that are submitted at once to measure a rate.
    pub(crate) size: u32,
    pub(crate) calls: u32,
    /// The number of sequential runs in one round of a latency.
    pub(crate) latencies: usize,
    /// How long an idle worker is observed.
    pub(crate) idle: Duration,
    /// The number of runs in a deep queue.
    pub(crate) deep: u32,
    /// The number of batches in one round of inserts.
    pub(crate) batches: usize,
    /// The number of rounds in which photographs go through the pipeline and through the library alone.
    pub(crate) pairs: usize,
    /// The number of photographs in one round that compares the rates of two pipelines.
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
    /// The load of the system before the measurement.
    pub(crate) load_before: Option<f64>,
    /// The number of worker processes of a fleet.
    pub(crate) workers: u32,
    /// The times from submission to result, by round. Two figures use them.
    pub(crate) latencies: OnceCell<Vec<Vec<f64>>>,
    /// The rounds of photographs. Two figures use them.
    pub(crate) pairs: OnceCell<Vec<Pair>>,
    pub(crate) faces: OnceCell<Faces>,
    /// The folder of photographs, if the request names one.
    pub(crate) photographs: Option<PathBuf>,
    /// The user's own stores. They are only read, for the face pipeline.
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

    /// Returns an error if the measurement was interrupted.
    pub(crate) fn go_on(&self) -> Result<(), Error> {
        if self.interrupted() { Err(Error::host("interrupted", "interrupted")) } else { Ok(()) }
    }

    /// Waits. Returns an error as soon as the measurement is interrupted.
    pub(crate) fn sleep(&self, time: Duration) -> Result<(), Error> {
        match self.interruption.signal.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => self.go_on(),
            _ => Err(Error::host("interrupted", "interrupted")),
        }
    }

    /// Removes everything that this measurement stored.
    pub(crate) fn end(&mut self) -> Result<(), Error> {
        self.place.clear()
    }
}
