//! Where it is measured: a data folder of its own and, for servers, names of its own in them. All of it is removed in
//! the end.

use std::path::Path;
use std::process::Command;

use dovetail_flow::SystemClock;
use dovetail_stores::{Credentials, MongoMeta, RedisWindow, S3Blobs};
use tempfile::TempDir;

use super::suite::Suite;
use crate::config::{Config, Place as Address};
use crate::error::Error;
use crate::output::Output;
use crate::wire::{App, this_program};

pub(super) struct Place {
    // Closed before the folder is removed.
    app: Option<App>,
    config: Config,
    folder: TempDir,
}

impl Place {
    /// A data folder alone, or with `servers` names of this run in the servers that are configured.
    pub(super) fn new(configured: &Config, output: &Output, servers: bool) -> Result<Self, Error> {
        if servers && !configured.is_fleet() {
            return Err(Error::usage("no_servers", "there are no servers to measure")
                .help("name the queue with --queue redis://HOST:6379/0, and --meta and --blobs for the other ones"));
        }
        let folder = tempfile::Builder::new().prefix("dovetail-bench-").tempdir().map_err(|e| {
            Error::host("temporary_folder", "make a temporary folder")
                .cause(e)
                .help("set TMPDIR to a folder that is writable")
        })?;
        let mut config = Config { data: folder.path().join("data"), ..configured.clone() };
        link_models(&configured.data, &config.data)?;
        if servers {
            // Never a fleet that does real work: its name, and its database, are of this run.
            let run = dovetail_flow::new_run_id()?;
            // The end of an ID is random; it begins with the time.
            let name = format!("bench-{}", run.as_str().rsplit('-').next().unwrap_or_default());
            if config.meta.scheme() != "sqlite" {
                config.meta = Address::of(with_database(config.meta.url(), &format!("dovetail-{name}")));
            }
            // Blobs belong to one set of records: these are new in every run.
            if config.has_far_blobs() {
                config.blobs = Address::of(with_prefix(config.blobs.url(), &name));
            }
            config.fleet = name;
        } else {
            config.fleet = "default".to_owned();
            (config.queue, config.meta, config.blobs) =
                (Address::of("sqlite:"), Address::of("sqlite:"), Address::of("file:"));
        }
        // A file without settings, so that processes started here find no other one.
        let settings = folder.path().join("dovetail.toml");
        std::fs::write(&settings, "").map_err(|e| Error::write(&settings, e))?;
        let app = App::new(config.clone(), Output::new(output.format));
        Ok(Self { app: Some(app), config, folder })
    }

    /// Another data folder alone, beside the suite's servers.
    pub(super) fn embedded(suite: &Suite) -> Result<Self, Error> {
        Self::new(&suite.from.config, &suite.from.output, false)
    }

    /// Its stores.
    pub(super) fn app(&self) -> Result<&App, Error> {
        self.app.as_ref().ok_or_else(|| Error::host("bench_over", "the measurement is over"))
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn is_fleet(&self) -> bool {
        self.config.is_fleet()
    }

    /// This program on the same stores. Settings go by the environment: URLs may have passwords, and everybody sees a
    /// command line.
    pub(super) fn command(&self, args: &[&str]) -> Result<Command, Error> {
        let Config {
            data, fleet, queue, meta, blobs, jobs, lease, vision_threads, opencv_threads, image_cache, ..
        } = &self.config;
        let mut command = Command::new(this_program()?);
        command.args(args).current_dir(self.folder());
        for (name, _) in std::env::vars_os() {
            let ours =
                name.to_str().is_some_and(|name| name.starts_with("DOVETAIL_") && !name.starts_with("DOVETAIL_S3_"));
            if ours {
                command.env_remove(name);
            }
        }
        command
            .env("DOVETAIL_CONFIG", self.folder().join("dovetail.toml"))
            .env("DOVETAIL_DATA", data)
            .env("DOVETAIL_FLEET", fleet)
            .env("DOVETAIL_QUEUE", queue.url())
            .env("DOVETAIL_META", meta.url())
            .env("DOVETAIL_BLOBS", blobs.url())
            .env("DOVETAIL_WORKER_JOBS", jobs.to_string())
            .env("DOVETAIL_WORKER_LEASE", format!("{}ms", lease.as_millis()))
            .env("DOVETAIL_VISION_THREADS", vision_threads.to_string())
            .env("DOVETAIL_VISION_OPENCV_THREADS", opencv_threads.to_string())
            .env("DOVETAIL_VISION_IMAGES", format!("{}KiB", image_cache / 1024))
            // A line for each of thousands of steps is nobody's daily use.
            .env("DOVETAIL_LOG_LEVEL", "warn");
        Ok(command)
    }

    /// Removes what is of this run in servers; the folder goes with `self`.
    pub(super) fn clear(&mut self) -> Result<(), Error> {
        // Threads of the ledger must not write any more.
        self.app = None;
        if !self.is_fleet() {
            return Ok(());
        }
        let Config { fleet, queue, meta, blobs, .. } = &self.config;
        let stored = match blobs.scheme() {
            "file" => Ok(()),
            _ => Credentials::from_env()
                .and_then(|keys| S3Blobs::open(blobs.url(), keys))
                .and_then(|blobs| blobs.forget_everything()),
        };
        let queue = RedisWindow::open(queue.url(), fleet, "bench").and_then(|window| window.forget_everything());
        let records = match meta.scheme() {
            "sqlite" => Ok(()),
            _ => MongoMeta::open(meta.url(), fleet, std::sync::Arc::new(SystemClock))
                .and_then(|records| records.forget_everything()),
        };
        Ok(queue.and(records).and(stored)?)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.app.is_some()
            && let Err(error) = self.clear()
        {
            tracing::warn!(
                error = error.chain(),
                fleet = self.config.fleet,
                "what was measured with could not be removed"
            );
        }
    }
}

/// Models are tens of megabytes that need no copy: whoever works here only reads them. Without a folder of them there
/// are none.
fn link_models(from: &Path, data: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(data).map_err(|e| Error::write(data, e))?;
    let Ok(models) = std::fs::canonicalize(from.join("models")) else { return Ok(()) };
    let here = data.join("models");
    std::os::unix::fs::symlink(models, &here).map_err(|e| Error::write(&here, e))
}

/// The same URL with another database. Whoever is known in the old one stays known there.
fn with_database(url: &str, name: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (rest, options) = rest.split_once('?').map_or((rest, ""), |(rest, options)| (rest, options));
    let (hosts, old) = rest.split_once('/').unwrap_or((rest, ""));
    let mut options: Vec<String> = options.split('&').filter(|option| !option.is_empty()).map(str::to_owned).collect();
    let says_where = options.iter().any(|option| option.to_ascii_lowercase().starts_with("authsource="));
    if hosts.contains('@') && !says_where && !old.is_empty() {
        options.push(format!("authSource={old}"));
    }
    let options = if options.is_empty() { String::new() } else { format!("?{}", options.join("&")) };
    format!("{scheme}://{hosts}/{name}{options}")
}

/// The same URL with a prefix below that of the old one.
fn with_prefix(url: &str, name: &str) -> String {
    let (place, parameters) =
        url.split_once('?').map_or((url, String::new()), |(place, rest)| (place, format!("?{rest}")));
    format!("{}/{name}{parameters}", place.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_stands_below_the_old_one() {
        for (url, expected) in [
            ("s3://b?endpoint=http://h:1", "s3://b/x?endpoint=http://h:1"),
            ("s3://A:S%2F@b/team/?region=eu-1", "s3://A:S%2F@b/team/x?region=eu-1"),
            ("s3://b/team", "s3://b/team/x"),
        ] {
            assert_eq!(with_prefix(url, "x"), expected);
        }
    }

    #[test]
    fn a_database_is_replaced_and_nothing_else() {
        for (url, expected) in [
            ("mongodb://h/real", "mongodb://h/x"),
            ("mongodb://h:1,g:2/real?tls=true", "mongodb://h:1,g:2/x?tls=true"),
            ("mongodb://h", "mongodb://h/x"),
            ("mongodb://u:p@h/real", "mongodb://u:p@h/x?authSource=real"),
            ("mongodb://u:p@h/?tls=true", "mongodb://u:p@h/x?tls=true"),
            ("mongodb+srv://u:p@h/real?a=b&authSource=admin", "mongodb+srv://u:p@h/x?a=b&authSource=admin"),
        ] {
            assert_eq!(with_database(url, "x"), expected);
        }
    }
}
