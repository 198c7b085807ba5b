//! What the figures were measured on: without it they mean nothing.

use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::figure::median;
use super::suite::Suite;
use crate::wire::App;

/// Writes that are timed.
const WRITES: usize = 25;

pub(super) fn facts(app: &App, suite: &Suite, commit_ms: Option<f64>) -> Value {
    let mut facts = Map::new();
    let mut fact = |name: &str, value: Value| drop(facts.insert(name.to_owned(), value));
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let line = |text: &str, name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    fact("dovetail", json!(env!("CARGO_PKG_VERSION")));
    fact("cores", json!(std::thread::available_parallelism().map_or(1, usize::from)));
    if let Some(processor) = line(&read("/proc/cpuinfo"), "model name") {
        fact("processor", json!(processor));
    }
    let kib =
        line(&read("/proc/meminfo"), "MemTotal").and_then(|text| text.strip_suffix("kB")?.trim().parse::<u64>().ok());
    if let Some(kib) = kib {
        fact("memory_mb", json!(kib * 1024 / 1_000_000));
    }
    fact(
        "system",
        json!(format!(
            "{} {} {}",
            std::env::consts::OS,
            read("/proc/sys/kernel/osrelease").trim(),
            std::env::consts::ARCH
        )),
    );
    // Who else uses the machine: with others at work the figures are theirs, too.
    if let Some(load) = suite.load_before {
        fact("load_before", json!(load));
    }
    // What a durable change costs at the least: rates of one machine's stores hang on it.
    if let Some(commit_ms) = commit_ms {
        fact("disk_commit_ms", json!((commit_ms * 1000.0).round() / 1000.0));
    }
    let config = suite.place.config();
    // Without passwords: that is how a place is shown.
    fact("queue", json!(format!("{:?}", config.queue)));
    fact("records", json!(format!("{:?}", config.meta)));
    fact("blobs", json!(format!("{:?}", config.blobs)));
    fact("workers", json!(if suite.place.is_fleet() { suite.workers } else { 1 }));
    fact("jobs", json!(app.config.jobs));
    Value::Object(facts)
}

/// How many processes wanted to run over the last minute; none where it cannot be told.
pub(super) fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// How long a small write takes until it is on the disk, in milliseconds; none where it cannot be told.
pub(super) fn commit_ms(folder: &Path) -> Option<f64> {
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
