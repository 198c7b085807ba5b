//! The settings as they are written: in the settings file, and in variables of the environment.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use dovetail_core::wit::names::nearest;
use dovetail_vision::EngineChoice;
use serde::Deserialize;

use super::{Environment, LogFormat, LogLevel, bad};
use crate::Error;
use crate::paths::Shown as _;

/// The content of `dovetail.toml`. The variables of the environment are collected into the same type.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileSettings {
    pub(super) data: Option<PathBuf>,
    pub(super) fleet: Option<String>,
    pub(super) queue: Option<String>,
    pub(super) meta: Option<String>,
    pub(super) blobs: Option<String>,
    #[serde(default)]
    pub(super) worker: Worker,
    #[serde(default)]
    pub(super) vision: Vision,
    #[serde(default)]
    pub(super) log: Log,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Worker {
    pub(super) jobs: Option<u32>,
    pub(super) lease: Option<String>,
    pub(super) grants: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vision {
    pub(super) threads: Option<usize>,
    pub(super) engine: Option<EngineChoice>,
    pub(super) required_engine: Option<String>,
    /// The old name is from the time when OpenCV was the only engine.
    #[serde(alias = "opencv_threads")]
    pub(super) engine_threads: Option<usize>,
    pub(super) onnxruntime: Option<PathBuf>,
    pub(super) images: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    pub(super) format: Option<LogFormat>,
    pub(super) level: Option<LogLevel>,
}

/// Variables, and the key of the settings file that each stands for.
pub(super) const VARIABLES: &[(&str, &str)] = &[
    ("DOVETAIL_CONFIG", "--config"),
    ("DOVETAIL_DATA", "data"),
    ("DOVETAIL_FLEET", "fleet"),
    ("DOVETAIL_QUEUE", "queue"),
    ("DOVETAIL_META", "meta"),
    ("DOVETAIL_BLOBS", "blobs"),
    ("DOVETAIL_WORKER_JOBS", "worker.jobs"),
    ("DOVETAIL_WORKER_LEASE", "worker.lease"),
    ("DOVETAIL_WORKER_GRANTS", "worker.grants"),
    ("DOVETAIL_VISION_THREADS", "vision.threads"),
    ("DOVETAIL_VISION_ENGINE", "vision.engine"),
    ("DOVETAIL_VISION_REQUIRED_ENGINE", "vision.required_engine"),
    // The old name comes first, so that the new one wins.
    ("DOVETAIL_VISION_OPENCV_THREADS", "vision.engine_threads"),
    ("DOVETAIL_VISION_ENGINE_THREADS", "vision.engine_threads"),
    ("DOVETAIL_VISION_ONNXRUNTIME", "vision.onnxruntime"),
    ("DOVETAIL_VISION_IMAGES", "vision.images"),
    ("DOVETAIL_LOG_FORMAT", "log.format"),
    ("DOVETAIL_LOG_LEVEL", "log.level"),
];
/// Credentials of an S3 server. `dovetail_stores::Credentials` reads them; no settings file holds them.
const KEYS: [&str; 3] = ["DOVETAIL_S3_ACCESS_KEY", "DOVETAIL_S3_SECRET_KEY", "DOVETAIL_S3_SESSION_TOKEN"];
/// Names, and prefixes of names, of variables that only the test suites read.
const FOREIGN: &[&str] = &["DOVETAIL_FACE_API", "DOVETAIL_TEST_"];

/// The value of a variable. An empty variable counts as unset.
pub(super) fn variable<'e>(environment: &'e Environment, name: &str) -> Option<&'e OsStr> {
    environment.get(name).map(OsString::as_os_str).filter(|value| !value.is_empty())
}

pub(super) fn known_variables(environment: &Environment) -> Result<(), Error> {
    let foreign = |name: &str| FOREIGN.iter().any(|prefix| name.starts_with(prefix));
    for name in environment.keys().filter(|name| name.starts_with("DOVETAIL_") && !foreign(name)) {
        let names = VARIABLES.iter().map(|(known, _)| *known).chain(KEYS);
        if !names.clone().any(|known| known == name) {
            let near = nearest(name, names.clone()).map_or_else(
                || format!("the known variables are {}", names.collect::<Vec<_>>().join(", ")),
                |n| format!("did you mean `{n}`?"),
            );
            return Err(Error::usage("unknown_setting", format!("the environment variable `{name}` is not a setting"))
                .help(near)
                .detail("key", name.as_str()));
        }
    }
    Ok(())
}

pub(super) fn from_environment(environment: &Environment) -> Result<FileSettings, Error> {
    let mut settings = FileSettings::default();
    for (name, key) in VARIABLES {
        // An empty list of grants means no grant, and not the default, which is all grants.
        let given = if *key == "worker.grants" {
            environment.get(*name).map(OsString::as_os_str)
        } else {
            variable(environment, name)
        };
        let Some(value) = given else { continue };
        // Paths are bytes; everything else is text.
        match *key {
            "data" => settings.data = Some(value.into()),
            "vision.onnxruntime" => settings.vision.onnxruntime = Some(value.into()),
            _ => {}
        }
        if matches!(*key, "data" | "vision.onnxruntime" | "--config") {
            continue;
        }
        let value = value.to_str().ok_or_else(|| bad(name, &format!("`{}` is not UTF-8 text", value.shown())))?;
        let wrong = |expected: &str| bad(name, &format!("`{value}` is not {expected}"));
        let number = || value.parse::<u32>().map_err(|_| wrong("a whole number"));
        match *key {
            "fleet" => settings.fleet = Some(value.to_owned()),
            "queue" => settings.queue = Some(value.to_owned()),
            "meta" => settings.meta = Some(value.to_owned()),
            "blobs" => settings.blobs = Some(value.to_owned()),
            "worker.jobs" => settings.worker.jobs = Some(number()?),
            "worker.grants" => {
                settings.worker.grants =
                    Some(value.split(',').map(|name| name.trim().to_owned()).filter(|n| !n.is_empty()).collect());
            }
            "worker.lease" => settings.worker.lease = Some(value.to_owned()),
            "vision.threads" => settings.vision.threads = Some(number()? as usize),
            "vision.engine" => {
                let engine = EngineChoice::parse(value);
                settings.vision.engine = Some(engine.ok_or_else(|| wrong("`auto`, `onnxruntime` or `opencv`"))?);
            }
            "vision.required_engine" => settings.vision.required_engine = Some(value.to_owned()),
            "vision.engine_threads" => settings.vision.engine_threads = Some(number()? as usize),
            "vision.images" => settings.vision.images = Some(value.to_owned()),
            "log.format" => {
                settings.log.format = Some(LogFormat::parse(value).ok_or_else(|| wrong("`text` or `json`"))?);
            }
            "log.level" => {
                let level = LogLevel::parse(value);
                settings.log.level =
                    Some(level.ok_or_else(|| wrong("`off`, `error`, `warn`, `info`, `debug` or `trace`"))?);
            }
            // `DOVETAIL_CONFIG` was used to find the file.
            _ => {}
        }
    }
    Ok(settings)
}

pub(super) fn parse(text: &str, path: &Path) -> Result<FileSettings, Error> {
    toml::from_str(text).map_err(|error| {
        let before = text.get(..error.span().map_or(0, |span| span.start)).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        let message = format!("{}:{line}:{column}: {}", path.shown(), error.message().trim_end().replace('\n', ", "));
        if text.parse::<toml::Table>().is_err() {
            let help =
                "correct that line: the file is TOML, with lines such as `key = \"value\"`, `[table]` or `# ...`";
            let error = Error::usage("bad_config", message).help(help);
            return error.detail("line", line).detail("column", column);
        }
        let keys = "data, fleet, queue, meta, blobs, [worker] jobs, lease, grants, [vision] threads, engine, \
                    required_engine, engine_threads, onnxruntime, images, [log] format, level";
        Error::usage("bad_config", message)
            .help(format!("the keys are {keys}"))
            .detail("line", line)
            .detail("column", column)
    })
}
