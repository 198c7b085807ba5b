//! The place of a measurement: a data folder of its own and, for servers, names of its own on them. All of it is
//! removed at the end.

use std::path::Path;
use std::process::Command;

use dovetail_flow::SystemClock;
use dovetail_stores::{Credentials, MongoMeta, RedisWindow, S3Blobs};
use tempfile::TempDir;

use crate::suite::Suite;
use dovetail_service::Error;
use dovetail_service::settings::{Settings, StoreUrl};
use dovetail_service::{Service, this_program};

pub(crate) struct TestBed {
    // The service is dropped before the folder is removed.
    service: Option<Service>,
    settings: Settings,
    folder: TempDir,
}

impl TestBed {
    /// A data folder alone or, with `servers`, also names of this measurement on the configured servers.
    pub(crate) fn new(configured: &Settings, servers: bool) -> Result<Self, Error> {
        if servers && !configured.is_fleet() {
            return Err(Error::usage("no_servers", "there are no servers to measure")
                .help("name the queue with --queue redis://HOST:6379/0, and --meta and --blobs for the other ones"));
        }
        let folder = dovetail_service::files::temporary("dovetail-bench-")?;
        let mut settings = Settings { data: folder.path().join("data"), ..configured.clone() };
        link_models(&configured.data, &settings.data)?;
        if servers {
            // The name of the fleet and its database are new, so that no fleet with real work is touched.
            let run = dovetail_flow::new_run_id();
            // An ID begins with the time, and its end is random.
            let name = format!("bench-{}", run.as_str().rsplit('-').next().unwrap_or_default());
            if settings.meta.scheme() != "sqlite" {
                settings.meta = StoreUrl::of(with_database(settings.meta.url(), &format!("dovetail-{name}")));
            }
            // Blobs belong to one set of records, and the records are new in every measurement.
            if settings.has_far_blobs() {
                settings.blobs = StoreUrl::of(with_prefix(settings.blobs.url(), &name));
            }
            settings.fleet = name;
        } else {
            settings.fleet = "default".to_owned();
            (settings.queue, settings.meta, settings.blobs) =
                (StoreUrl::of("sqlite:"), StoreUrl::of("sqlite:"), StoreUrl::of("file:"));
        }
        // A settings file without settings, so that processes that are started here read no other one.
        let file = folder.path().join("dovetail.toml");
        std::fs::write(&file, "").map_err(|e| Error::write(&file, e))?;
        let service = Service::new(settings.clone());
        Ok(Self { service: Some(service), settings, folder })
    }

    /// A further data folder alone, beside the suite's servers.
    pub(crate) fn embedded(suite: &Suite) -> Result<Self, Error> {
        Self::new(&suite.from.settings, false)
    }

    /// The service on the stores of this place.
    pub(crate) fn service(&self) -> Result<&Service, Error> {
        self.service.as_ref().ok_or_else(|| Error::host("bench_over", "the measurement is over"))
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn is_fleet(&self) -> bool {
        self.settings.is_fleet()
    }

    /// This program on the same stores. The settings are passed in the environment: URLs may contain passwords, and
    /// every user of the machine can read a command line.
    pub(crate) fn command(&self, args: &[&str]) -> Result<Command, Error> {
        let Settings {
            data,
            fleet,
            queue,
            meta,
            blobs,
            jobs,
            lease,
            vision_threads,
            engine,
            engine_threads,
            onnxruntime,
            image_cache,
            ..
        } = &self.settings;
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
            .env("DOVETAIL_VISION_ENGINE", engine.name())
            .env("DOVETAIL_VISION_ENGINE_THREADS", engine_threads.to_string())
            .env("DOVETAIL_VISION_ONNXRUNTIME", onnxruntime.as_deref().unwrap_or(Path::new("")))
            .env("DOVETAIL_VISION_IMAGES", format!("{}KiB", image_cache / 1024))
            // At a lower level the log has a line for each of thousands of steps, which is not normal operation.
            .env("DOVETAIL_LOG_LEVEL", "warn");
        Ok(command)
    }

    /// Removes everything of this measurement from the servers. The folder is removed when `self` is dropped.
    pub(crate) fn clear(&mut self) -> Result<(), Error> {
        // The threads of the ledger must end first, so that they write nothing afterwards.
        self.service = None;
        if !self.is_fleet() {
            return Ok(());
        }
        let Settings { fleet, queue, meta, blobs, .. } = &self.settings;
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

impl Drop for TestBed {
    fn drop(&mut self) {
        if self.service.is_some()
            && let Err(error) = self.clear()
        {
            tracing::warn!(
                error = error.chain(),
                fleet = self.settings.fleet,
                "the records and blobs of the measurement could not be removed"
            );
        }
    }
}

/// Links the folder of models, because models are tens of megabytes and are only read here. If there is no such folder,
/// there are no models.
fn link_models(from: &Path, data: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(data).map_err(|e| Error::write(data, e))?;
    let Ok(models) = std::fs::canonicalize(from.join("models")) else { return Ok(()) };
    let here = data.join("models");
    std::os::unix::fs::symlink(models, &here).map_err(|e| Error::write(&here, e))
}

/// The same URL with another database. A user is still authenticated in the old database.
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

/// The same URL with a prefix below the old one.
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
