//! The machine of a measurement: figures mean nothing without it.

use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::time::Instant;

use dovetail_service::VERSION;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::figure::median;
use crate::suite::Suite;

/// The number of writes that are timed.
const WRITES: usize = 25;

/// The machine on which figures were measured, as far as its properties are known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Machine {
    /// The version of dovetail.
    pub dovetail: String,
    /// Processors that this program may use.
    #[schemars(range(min = 1))]
    pub cores: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub memory_mb: Option<u64>,
    /// Operating system, its version, architecture.
    pub system: String,
    /// Processes that were ready to run, averaged over the minute before the measurement. Other work lowers the
    /// figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub load_before: Option<f64>,
    /// Time in ms until a write of 4 KiB is on the disk of the data folder, median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub disk_commit_ms: Option<f64>,
    /// The URL of the queue, without the password.
    pub queue: String,
    /// The URL of the records, without the password.
    pub records: String,
    /// The URL of the blobs, without the password.
    pub blobs: String,
    /// The number of worker processes.
    #[schemars(range(min = 1))]
    pub workers: u32,
    /// The most steps that each worker ran at the same time.
    #[schemars(range(min = 1))]
    pub jobs: u32,
}

pub(crate) fn facts(suite: &Suite, commit_ms: Option<f64>) -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let line = |text: &str, name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let kib = line(&read("/proc/meminfo"), "MemTotal");
    let kib = kib.and_then(|text| text.strip_suffix("kB")?.trim().parse::<u64>().ok());
    let (os, release) = (std::env::consts::OS, read("/proc/sys/kernel/osrelease"));
    let settings = suite.place.settings();
    Machine {
        dovetail: VERSION.to_owned(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        processor: line(&read("/proc/cpuinfo"), "model name"),
        memory_mb: kib.map(|kib| kib * 1024 / 1_000_000),
        system: format!("{os} {} {}", release.trim(), std::env::consts::ARCH),
        load_before: suite.load_before,
        disk_commit_ms: commit_ms.map(|ms| (ms * 1000.0).round() / 1000.0),
        // The `Debug` form of a URL leaves out the password.
        queue: format!("{:?}", settings.queue),
        records: format!("{:?}", settings.meta),
        blobs: format!("{:?}", settings.blobs),
        workers: if suite.place.is_fleet() { suite.workers } else { 1 },
        jobs: suite.from.settings.jobs,
    }
}

/// The number of processes that were ready to run, averaged over the last minute. `None` if the system does not tell
/// it.
pub(crate) fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// The median time of a small write until it is on the disk, in milliseconds. `None` if a write fails.
pub(crate) fn commit_ms(folder: &Path) -> Option<f64> {
    let measure = || -> std::io::Result<Vec<f64>> {
        let mut file = tempfile::tempfile_in(folder)?;
        let mut times = Vec::new();
        for _ in 0..WRITES {
            let began = Instant::now();
            file.rewind()?;
            file.write_all(&[0; 4096])?;
            file.sync_data()?;
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
        Ok(times)
    };
    measure().ok().map(|times| median(&times))
}
