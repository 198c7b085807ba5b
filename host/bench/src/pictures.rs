//! The face pipeline on photographs: compared with the library alone, in the memory of a worker, and on servers
//! compared with this machine alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dovetail_core::RunId;
use dovetail_core::ledger::RunKey;
use dovetail_vision::Opencv;
use rustix::time::{ClockId, clock_gettime};

use crate::faces::{Faces, native};
use crate::load::results;
use crate::place::TestBed;
use crate::suite::Suite;
use crate::workers::Workers;
use dovetail_service::Error;
use dovetail_service::Service;

/// The ratio of the pipeline to the library alone, for one round of photographs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair {
    cpu: f64,
    wall: f64,
}

/// The processor time of this process with all its threads, and the elapsed time, in seconds.
#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    cpu: f64,
    wall: f64,
}

impl Spent {
    fn by<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<(T, Self), Error> {
        let (cpu, wall) = (cpu_time(), Instant::now());
        let done = work()?;
        Ok((done, Self { cpu: (cpu_time() - cpu).as_secs_f64(), wall: wall.elapsed().as_secs_f64() }))
    }

    fn add(&mut self, other: Self) {
        self.cpu += other.cpu;
        self.wall += other.wall;
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

pub(crate) fn cpu_ratio(suite: &Suite) -> Result<Vec<f64>, Error> {
    Ok(pairs(suite)?.iter().map(|pair| pair.cpu).collect())
}

pub(crate) fn wall_ratio(suite: &Suite) -> Result<Vec<f64>, Error> {
    Ok(pairs(suite)?.iter().map(|pair| pair.wall).collect())
}

/// Rounds in which each photograph goes through the pipeline, from its bytes in memory to the recorded result, and
/// through the library alone, one after the other. The order alternates from one photograph to the next. Both use the
/// same library object.
fn pairs(suite: &Suite) -> Result<&Vec<Pair>, Error> {
    if let Some(known) = suite.pairs.get() {
        return Ok(known);
    }
    let (faces, service) = (suite.faces()?, suite.place.service()?);
    let vision = Arc::new(service.vision()?);
    let workers = Workers::here_with(
        service,
        service.runtime_with(vision.clone(), service.ports()?.blobs.clone(), service.settings.jobs, None)?,
    )?;
    let round = |n: usize| -> Result<Pair, Error> {
        let (mut piped, mut alone) = (Spent::default(), Spent::default());
        for (m, photograph) in faces.photographs.iter().enumerate() {
            suite.go_on()?;
            let pictures = [faces.copy(photograph), faces.copy(photograph)];
            let (mut run, mut found) = (None, 0);
            for way in [n + m, n + m + 1] {
                if way % 2 == 0 {
                    let (id, spent) = Spent::by(|| one(suite, service, faces, &workers, &pictures[0]))?;
                    piped.add(spent);
                    run = Some(id);
                } else {
                    let (count, spent) = Spent::by(|| library(&vision, &pictures[1], faces))?;
                    alone.add(spent);
                    found = count;
                }
            }
            let piped_faces = run.map_or(Ok(0), |run| faces.found(service, &run))?;
            if piped_faces != found {
                return Err(Error::host(
                    "bench_failed",
                    format!("the pipeline found {piped_faces} faces where the library alone found {found}"),
                ));
            }
        }
        Ok(Pair { cpu: piped.cpu / alone.cpu, wall: piped.wall / alone.wall })
    };
    // The first round loads networks and compiles, so it is not counted.
    round(0)?;
    let all = (0..suite.plan.pairs).map(round).collect::<Result<Vec<Pair>, Error>>()?;
    Ok(suite.pairs.get_or_init(|| all))
}

fn one(suite: &Suite, service: &Service, faces: &Faces, workers: &Workers, picture: &[u8]) -> Result<RunId, Error> {
    let run = faces.submit(service, &[picture.to_vec()])?.remove(0);
    results(suite, service, workers, &faces.graph, &[RunKey { run: run.clone(), generation: 0 }])?;
    Ok(run)
}

fn library(vision: &Opencv, picture: &[u8], faces: &Faces) -> Result<usize, Error> {
    native(vision, picture, faces.number())
}

/// The peak memory, in MB, of a worker process that works on as many photographs at once as it takes. Each round starts
/// a new process.
#[expect(clippy::cast_precision_loss, reason = "far less than 2^52 bytes")]
pub(crate) fn memory(suite: &Suite) -> Result<Vec<f64>, Error> {
    let (faces, service) = (suite.faces()?, suite.place.service()?);
    let mut rounds = Vec::new();
    for _ in 0..suite.plan.rounds {
        let workers = Workers::processes(suite, 1)?;
        all(suite, service, faces, &workers, 2 * faces.photographs.len())?;
        rounds.extend(workers.peak()?.into_iter().map(|bytes| bytes as f64 / 1e6));
    }
    Ok(rounds)
}

/// The number of photographs per second on the servers, with the suite's workers, over that of this machine alone with
/// one process. The two are measured alternately.
pub(crate) fn fleet_ratio(suite: &Suite) -> Result<Vec<f64>, Error> {
    let fleet = suite.faces()?;
    let alone = TestBed::embedded(suite)?;
    let here = Faces::publish(&suite.from, suite.photographs.as_deref(), &alone)?;
    let rate = |service: &Service, faces: &Faces, workers: &Workers| -> Result<f64, Error> {
        // After this, every process has loaded its networks.
        all(suite, service, faces, workers, 2 * suite.workers as usize * faces.photographs.len())?;
        let began = Instant::now();
        all(suite, service, faces, workers, suite.plan.photographs)?;
        Ok(1.0 / began.elapsed().as_secs_f64())
    };
    let round = |_| -> Result<f64, Error> {
        let over_servers = {
            let workers = Workers::processes(suite, suite.workers)?;
            rate(suite.place.service()?, fleet, &workers)?
        };
        let service = alone.service()?;
        let workers =
            Workers::here_with(service, service.runtime(service.ports()?.blobs.clone(), service.settings.jobs, None)?)?;
        Ok(over_servers / rate(service, &here, &workers)?)
    };
    (0..suite.plan.rounds).map(round).collect()
}

/// Processes `count` photographs at once, all different.
fn all(suite: &Suite, service: &Service, faces: &Faces, workers: &Workers, count: usize) -> Result<(), Error> {
    let pictures: Vec<Vec<u8>> =
        faces.photographs.iter().cycle().take(count).map(|photograph| faces.copy(photograph)).collect();
    let runs = faces.submit(service, &pictures)?;
    let runs: Vec<RunKey> = runs.into_iter().map(|run| RunKey { run, generation: 0 }).collect();
    results(suite, service, workers, &faces.graph, &runs)
}
