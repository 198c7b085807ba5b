//! Settings. A flag has precedence over a `DOVETAIL_*` variable, the variable over `dovetail.toml`, and the file over
//! the default. They are resolved once into one immutable [`Settings`].
//!
//! Only [`Settings::load`] reads files. A setting that cannot take effect is refused, never ignored.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dovetail_core::manifest::{parse_duration, parse_size};
use dovetail_core::required_engine::RequiredEngine;
use dovetail_core::url::without_credentials;

use crate::error::Error;
use crate::paths::{self, Shown as _};

mod levels;
mod sources;

pub use dovetail_vision::EngineChoice;
pub use levels::{LogFormat, LogLevel};
use sources::{FileSettings, VARIABLES, from_environment, known_variables, parse, variable};

/// The settings of this process.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The data folder, as an absolute path.
    pub data: PathBuf,
    /// The fleet's name, which is part of every key in shared stores.
    pub fleet: String,
    /// The queue: `sqlite:` or `redis://...`.
    pub queue: StoreUrl,
    /// The records: `sqlite:` or `mongodb://...`.
    pub meta: StoreUrl,
    /// Packages, artifacts, values and models: `file:` or `s3://...`.
    pub blobs: StoreUrl,
    /// Grants that this machine does not withhold from tasks: its worker claims jobs that ask for no other grants.
    pub grants: Vec<String>,
    /// How many steps run at the same time.
    pub jobs: u32,
    /// How long a lease lasts without renewal. Then another worker may claim the job.
    pub lease: Duration,
    /// Threads of the vision pool.
    pub vision_threads: usize,
    /// The engine of the networks.
    pub engine: EngineChoice,
    /// The engine that the runs which this process submits require of their workers.
    pub required_engine: Option<RequiredEngine>,
    /// Threads of the engine inside one pass of a detector; in OpenCV, of every pass.
    pub engine_threads: usize,
    /// The library of ONNX Runtime, as an absolute path.
    pub onnxruntime: Option<PathBuf>,
    /// The size of the cache of decoded pictures, in bytes.
    pub image_cache: u64,
    /// The most detailed level that is logged. None: the default of the command.
    pub log_level: Option<LogLevel>,
    /// The form of the log.
    pub log_format: LogFormat,
}

/// The options of a front door. They have precedence over the environment and the settings file.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Overrides {
    /// As [`Settings::data`]; a relative path is relative to the current folder.
    pub data: Option<PathBuf>,
    /// The settings file.
    pub config: Option<PathBuf>,
    /// As [`Settings::fleet`].
    pub fleet: Option<String>,
    /// As [`Settings::queue`].
    pub queue: Option<String>,
    /// As [`Settings::meta`].
    pub meta: Option<String>,
    /// As [`Settings::blobs`].
    pub blobs: Option<String>,
    /// As [`Settings::log_level`].
    pub log_level: Option<LogLevel>,
    /// As [`Settings::log_format`].
    pub log_format: Option<LogFormat>,
}

/// The URL of a store. Its `Debug` form leaves out user, password and parameters, since they may be secret.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(String);

impl StoreUrl {
    /// A URL with its scheme, unchecked.
    pub fn of(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The whole URL, with user and password, to open the store.
    pub fn url(&self) -> &str {
        &self.0
    }

    /// The part before the first colon, such as `redis`.
    pub fn scheme(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }
}

impl std::fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", shown(&self.0))
    }
}

/// All grants that a task can have, and the default of `worker.grants`.
pub(crate) const GRANTS: [&str; 2] = ["clocks", "random"];

/// The variables of the environment, by name.
pub type Environment = BTreeMap<String, OsString>;

impl Settings {
    /// Whether machines share the queue.
    pub fn is_fleet(&self) -> bool {
        self.queue.scheme() != "sqlite"
    }

    /// Whether the blobs are in a store that machines share, and not in the data folder.
    pub fn has_far_blobs(&self) -> bool {
        self.blobs.scheme() != "file"
    }

    /// Whether records and blobs are both in the data folder.
    pub(crate) fn is_together(&self) -> bool {
        self.meta.scheme() == "sqlite" && !self.has_far_blobs()
    }

    /// The settings of a process that was started in `folder`. The settings file is the one that the flags or the
    /// environment name, else `dovetail.toml` in `folder`, else `dovetail/dovetail.toml` in the user's configuration.
    ///
    /// # Errors
    /// `missing_file`, `unreadable_file`, `bad_config`, `bad_setting`, `unknown_setting`, `no_home`.
    pub fn load(flags: &Overrides, environment: &Environment, folder: &Path) -> Result<Self, Error> {
        let named = flags.config.clone().or_else(|| variable(environment, "DOVETAIL_CONFIG").map(PathBuf::from));
        let home = variable(environment, "HOME").map(Path::new);
        let file = match named.map(|path| at_home(path, home)).transpose()? {
            Some(path) => Some((std::fs::read_to_string(&path).map_err(|e| Error::file(&path, e))?, path)),
            None => {
                let user = variable(environment, "XDG_CONFIG_HOME").map(PathBuf::from);
                let user = user.or_else(|| variable(environment, "HOME").map(|home| Path::new(home).join(".config")));
                let places = [Some(folder.join("dovetail.toml")), user.map(|user| user.join("dovetail/dovetail.toml"))];
                let mut found = None;
                for path in places.into_iter().flatten() {
                    match std::fs::read_to_string(&path) {
                        Ok(text) => {
                            found = Some((text, path));
                            break;
                        }
                        // A link without a target is an error: the user means the file to be read.
                        Err(e)
                            if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
                                && !paths::leads_nowhere(&path) => {}
                        Err(e) => return Err(Error::file(&path, e)),
                    }
                }
                found
            }
        };
        Self::resolve(flags, environment, file.as_ref().map(|(text, path)| (text.as_str(), path.as_path())), folder)
    }

    /// As [`Settings::load`], with the text of the file. Reads no file.
    fn resolve(
        flags: &Overrides,
        environment: &Environment,
        file: Option<(&str, &Path)>,
        folder: &Path,
    ) -> Result<Self, Error> {
        known_variables(environment)?;
        let (written, beside) = match file {
            Some((text, path)) => (parse(text, path)?, path.parent().unwrap_or(folder)),
            None => (FileSettings::default(), folder),
        };
        let set = from_environment(environment)?;
        let home = variable(environment, "HOME").map(Path::new);
        let FileSettings { data, fleet, queue, meta, blobs, worker, vision, log } = set;
        let fleet = flags.fleet.clone().or(fleet).or(written.fleet).unwrap_or_else(|| "default".to_owned());
        let queue = place("queue", [flags.queue.clone(), queue, written.queue], "sqlite:", &["redis", "rediss"])?;
        let meta = place("meta", [flags.meta.clone(), meta, written.meta], "sqlite:", &["mongodb"])?;
        let blobs = place("blobs", [flags.blobs.clone(), blobs, written.blobs], "file:", &["s3"])?;
        fits_together(&fleet, &queue, &meta)?;

        // A path of a flag or a variable is relative to the current folder; one of the file, to the file's folder.
        let path = |set: Option<PathBuf>, written: Option<PathBuf>| match (set, written) {
            (Some(set), _) => Ok(Some(folder.join(at_home(set, home)?))),
            (None, Some(written)) => Ok(Some(folder.join(beside).join(at_home(written, home)?))),
            (None, None) => Ok::<_, Error>(None),
        };
        let data = match path(flags.data.clone().or(data), written.data)? {
            Some(data) => data,
            None => match variable(environment, "XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute()) {
                Some(base) => base.join("dovetail"),
                None => at_home("~/.local/share/dovetail".into(), home)?,
            },
        };
        for source in [&vision, &written.vision] {
            if source.engine == Some(EngineChoice::Opencv) && source.onnxruntime.is_some() {
                let why = "it has no effect with `vision.engine = \"opencv\"`";
                return Err(bad("vision.onnxruntime", &why).help("leave one of the two settings out"));
            }
        }
        let onnxruntime = path(vision.onnxruntime, written.vision.onnxruntime)?;
        let lease = worker.lease.or(written.worker.lease).unwrap_or_else(|| "10s".to_owned());
        let lease = parse_duration(&lease).map_err(|e| bad("worker.lease", &e))?;
        let images = vision.images.or(written.vision.images).unwrap_or_else(|| "32MiB".to_owned());
        let grants = worker.grants.or(written.worker.grants).unwrap_or_else(|| GRANTS.map(str::to_owned).to_vec());
        if let Some(unknown) = grants.iter().find(|name| !GRANTS.contains(&name.as_str())) {
            let error = bad(
                "worker.grants",
                &format!("`{unknown}` is not a grant of this version; the grants are {}", GRANTS.join(", ")),
            );
            return Err(error.help(
                "write `worker.grants = [\"clocks\"]` in dovetail.toml or DOVETAIL_WORKER_GRANTS=clocks,random; or \
                 leave it out",
            ));
        }
        Ok(Self {
            data,
            fleet,
            queue,
            meta,
            blobs,
            grants,
            jobs: within("worker.jobs", worker.jobs.or(written.worker.jobs).unwrap_or(10), 1, 1000)?,
            lease: within("worker.lease", lease, Duration::from_secs(1), Duration::from_secs(3600))?,
            vision_threads: within("vision.threads", vision.threads.or(written.vision.threads).unwrap_or(2), 1, 256)?,
            engine: vision.engine.or(written.vision.engine).unwrap_or_default(),
            required_engine: required_engine(vision.required_engine.or(written.vision.required_engine))?,
            engine_threads: within(
                "vision.engine_threads",
                vision.engine_threads.or(written.vision.engine_threads).unwrap_or(2),
                1,
                256,
            )?,
            onnxruntime,
            image_cache: parse_size(&images).map_err(|e| bad("vision.images", &e))?,
            log_level: flags.log_level.or(log.level).or(written.log.level),
            log_format: flags.log_format.or(log.format).or(written.log.format).unwrap_or(LogFormat::Text),
        })
    }
}

fn bad(key: &str, why: &dyn std::fmt::Display) -> Error {
    let error = Error::usage("bad_setting", format!("the setting `{key}`: {why}")).detail("key", key);
    // The setting is given by its key or by its variable.
    let known = VARIABLES.iter().rfind(|(variable, name)| *variable == key || *name == key);
    let example =
        known.and_then(|(variable, name)| Some((variable, name, EXAMPLES.iter().find(|(of, ..)| of == name)?)));
    match example {
        Some((variable, name, (_, example, what))) => error.help(format!(
            "write {what}, such as `{name} = {example}` in dovetail.toml or {variable}={}; or leave it out",
            example.trim_matches('"')
        )),
        None => error,
    }
}

/// Key, example as in a file, and description of settings.
const EXAMPLES: &[(&str, &str, &str)] = &[
    ("worker.jobs", "10", "a whole number from 1 to 1000"),
    ("worker.lease", "\"10s\"", "a time from 1s to 1h"),
    ("vision.threads", "2", "a whole number from 1 to 256"),
    ("vision.engine", "\"onnxruntime\"", "`auto`, `onnxruntime` or `opencv`"),
    ("vision.required_engine", "\"onnxruntime@1.28.0\"", "`opencv` or `onnxruntime`, perhaps with `@VERSION`"),
    ("vision.engine_threads", "2", "a whole number from 1 to 256"),
    ("vision.onnxruntime", "\"/opt/onnxruntime/libonnxruntime.so\"", "the path of a shared library"),
    ("vision.images", "\"32MiB\"", "a size"),
    ("log.format", "\"json\"", "`text` or `json`"),
    ("log.level", "\"info\"", "`off`, `error`, `warn`, `info`, `debug` or `trace`"),
];

/// The engine of the setting `vision.required_engine`. No worker could ever have an engine of another name.
fn required_engine(text: Option<String>) -> Result<Option<RequiredEngine>, Error> {
    const KEY: &str = "vision.required_engine";
    let Some(text) = text else { return Ok(None) };
    let engine: RequiredEngine = text.parse().map_err(|error| bad(KEY, &error))?;
    if EngineChoice::parse(engine.name()).is_none_or(|choice| choice == EngineChoice::Auto) {
        return Err(bad(KEY, &format!("there is no engine `{}`", engine.name())));
    }
    Ok(Some(engine))
}

fn within<T: PartialOrd + std::fmt::Debug>(key: &str, value: T, least: T, most: T) -> Result<T, Error> {
    if value >= least && value <= most {
        Ok(value)
    } else {
        Err(bad(key, &format!("{value:?} is not within {least:?} and {most:?}")))
    }
}

/// The URL of the source with the highest precedence, if this version has a backend for its scheme.
fn place(key: &str, given: [Option<String>; 3], default: &str, schemes: &[&str]) -> Result<StoreUrl, Error> {
    let place = StoreUrl(given.into_iter().flatten().next().unwrap_or_else(|| default.to_owned()));
    let far = schemes.contains(&place.scheme()) && place.url().contains("://");
    if place.url() == default || far {
        return Ok(place);
    }
    let known = schemes.iter().map(|scheme| format!("`{scheme}://...`")).collect::<Vec<_>>().join(", ");
    Err(bad(key, &format!("`{place:?}` is not a store that this version has a backend for"))
        .help(format!("leave `{key}` out, or write `{default}` or one of {known}")))
}

/// Refuses combinations of stores that cannot work together.
fn fits_together(fleet: &str, queue: &StoreUrl, meta: &StoreUrl) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if fleet.is_empty() || fleet.len() > 63 || !fleet.chars().all(plain) {
        return Err(bad(
            "fleet",
            &format!("`{fleet}` is not a valid name of a fleet: use 1 to 63 of a-z, 0-9 and `-`"),
        ));
    }
    if queue.scheme() == "sqlite" && meta.scheme() != "sqlite" {
        let why = "records in MongoDB need a queue in Redis: SQLite's queue keeps its own records";
        return Err(bad("meta", &why).help("set `queue = \"redis://HOST:6379/0\"` as well, or leave `meta` out"));
    }
    if queue.scheme() == "sqlite" && fleet != "default" {
        let why = format!("`{fleet}` has no meaning without shared stores: a data folder is a fleet of its own");
        return Err(bad("fleet", &why).help("leave `fleet` out, or set `queue = \"redis://HOST:6379/0\"`"));
    }
    Ok(())
}

/// The URL without user, password and parameters, also if the URL is malformed. The parameter `endpoint` is kept, since
/// it says which server is meant.
fn shown(url: &str) -> String {
    let plain = without_credentials(url);
    let Some((scheme, rest)) = plain.split_once("://") else {
        // The user forgot a slash. Without `@` and `?` the URL holds no password.
        if url.contains(":/") && !url.contains(['@', '?']) {
            return url.to_owned();
        }
        return url.split_inclusive(':').next().unwrap_or_default().to_owned();
    };
    let rest = rest.split('#').next().unwrap_or_default();
    let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    // A percent-encoded endpoint could hide a password.
    let endpoint = parameters
        .split('&')
        .find_map(|parameter| parameter.strip_prefix("endpoint="))
        .filter(|endpoint| !endpoint.contains('%'));
    endpoint.map_or_else(|| format!("{scheme}://{place}"), |endpoint| format!("{scheme}://{place}?endpoint={endpoint}"))
}

/// The path with a leading `~` replaced by the home folder. A shell replaces `~` only at the beginning of a word, so
/// not in `--data=~/x`.
fn at_home(path: PathBuf, home: Option<&Path>) -> Result<PathBuf, Error> {
    let first = path.iter().next().unwrap_or_default().as_encoded_bytes();
    if first.starts_with(b"~") && first != b"~" {
        let message = format!("`{}`: home folders of other users are not supported", path.shown());
        return Err(Error::usage("bad_setting", message)
            .help(format!("write the full path; for a folder of this name write ./{}", path.shown())));
    }
    match path.strip_prefix("~") {
        Err(_) => Ok(path),
        Ok(rest) => home.map(|home| home.join(rest)).ok_or_else(|| {
            Error::usage("no_home", format!("`{}` is relative to your home folder, and HOME is not set", path.shown()))
                .help("write the full path; --data DIR names the data folder")
        }),
    }
}

#[cfg(test)]
mod tests;
