//! `doctor`: checks this machine and each server of its fleet. Each check gives one line; each problem has a remedy.

mod servers;

use std::path::Path;

use dovetail_core::ledger::capability_in_words;
use dovetail_vision::{EngineFound, Engines, Installed};
use rustix::fs::Access;

use crate::documents::{DoctorCheck, DoctorDocument};
use crate::error::{Error, unwritable};
use crate::models::DEFAULT_MODELS;
use crate::paths::Shown as _;
use crate::words::{bytes, count};
use crate::{Service, VERSION};

/// Less free disk space than this is a problem, in bytes.
const LITTLE_SPACE: u64 = 1 << 30;
/// How many of the oldest open runs are checked for capabilities that no living worker has.
const LOOKED_THROUGH: usize = 100;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Grade {
    Good,
    /// Works, but should be changed.
    Warning,
    Problem,
}

struct Finding {
    what: &'static str,
    grade: Grade,
    found: String,
    remedy: String,
}

fn good(what: &'static str, found: impl Into<String>) -> Finding {
    Finding { what, grade: Grade::Good, found: found.into(), remedy: String::new() }
}

fn warning(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { what, grade: Grade::Warning, found: found.into(), remedy: remedy.into() }
}

fn problem(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { what, grade: Grade::Problem, found: found.into(), remedy: remedy.into() }
}

fn failed(what: &'static str, error: Error) -> Finding {
    // A remedy that says to run doctor is useless in doctor's own output.
    problem(what, error.chain(), error.help.filter(|help| !help.contains("dovetail doctor")).unwrap_or_default())
}

impl Service {
    /// Makes all checks. With `deep`, all packages and models, also those in an S3 store, are read and compared with
    /// their digests.
    pub fn doctor(&self, deep: bool) -> DoctorDocument {
        let findings = findings(self, deep);
        let ok = findings.iter().all(|finding| finding.grade != Grade::Problem);
        let check = |finding: Finding| DoctorCheck {
            what: finding.what.to_owned(),
            ok: finding.grade != Grade::Problem,
            warning: finding.grade == Grade::Warning,
            found: finding.found,
            remedy: finding.remedy,
        };
        DoctorDocument { ok, checks: findings.into_iter().map(check).collect() }
    }
}

fn findings(service: &Service, deep: bool) -> Vec<Finding> {
    let data = &service.settings.data;
    let mut findings = vec![good("dovetail", VERSION), folder(data), space(data)];
    let servers = servers::check(service, &mut findings);
    if servers.records {
        findings.push(database(service));
        findings.extend(servers::owner(service, &servers).unwrap_or_else(|error| Some(failed("blobs", error))));
        findings.extend(unserved(service).unwrap_or_else(|error| Some(failed("open runs", error))));
    }
    findings.push(match dovetail_vision::opencv_version() {
        Some(version) => good("OpenCV", version),
        None => problem(
            "OpenCV",
            "this dovetail was built without it",
            "build it with the feature `opencv`, on a machine with libopencv-dev",
        ),
    });
    findings.push(engine(service));
    findings.push(models(service));
    findings.push(compiler(service));
    if servers.records {
        findings.push(registry(service));
        servers::contents(service, &servers, deep, &mut findings);
    }
    findings.push(good(
        "processors",
        std::thread::available_parallelism().map_or_else(|_| "unknown".to_owned(), |n| n.to_string()),
    ));
    findings
}

/// The engine of the networks. Opens its library.
fn engine(service: &Service) -> Finding {
    match Engines::new(service.engine_options()).find() {
        Ok(EngineFound { engine, library, digest, why, is_fallback }) => {
            let library = library.map_or_else(String::new, |path| format!(", {}", path.shown()));
            let digest = digest.map_or_else(String::new, |digest| format!(", {digest}"));
            let found = format!("{engine}{library}{digest} ({why})");
            if is_fallback {
                return warning(
                    "engine",
                    found,
                    "repair the library as described, or set `vision.engine = \"opencv\"`",
                );
            }
            good("engine", found)
        }
        Err(error) => failed("engine", error.into()),
    }
}

fn folder(data: &Path) -> Finding {
    const REMEDY: &str = "name another folder with --data DIR, or change the permissions";
    let nearest = nearest_folder(data);
    // A check does not make the folder. The first write makes it.
    if nearest != data && !matches!(data.try_exists(), Ok(true)) {
        return match rustix::fs::access(nearest, Access::WRITE_OK | Access::EXEC_OK) {
            Ok(()) => good("data folder", format!("{} does not exist yet, and can be made", data.shown())),
            Err(error) => problem(
                "data folder",
                format!("{} does not exist, and cannot be made in {}: {error}", data.shown(), nearest.shown()),
                REMEDY,
            ),
        };
    }
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".doctor-").tempfile_in(data)?;
        std::io::Write::write_all(&mut file, b"x")?;
        file.as_file().sync_all()
    };
    match write() {
        Ok(()) => good("data folder", format!("{} is writable", data.shown())),
        Err(error) => problem("data folder", format!("{}: {error}", data.shown()), unwritable(error.kind(), REMEDY)),
    }
}

/// The nearest existing folder above the data folder, or the data folder itself.
fn nearest_folder(data: &Path) -> &Path {
    data.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"))
}

fn space(data: &Path) -> Finding {
    let place = nearest_folder(data);
    match rustix::fs::statvfs(place) {
        Ok(about) => {
            let free = about.f_bavail.saturating_mul(about.f_frsize);
            let found = format!("{} free", bytes(free));
            if free < LITTLE_SPACE {
                problem("disk", found, "make room: photographs, compiled code and results are stored there")
            } else {
                good("disk", found)
            }
        }
        Err(error) => problem("disk", format!("{}: {error}", place.shown()), "name another folder with --data DIR"),
    }
}

fn database(service: &Service) -> Finding {
    let what = if service.settings.is_fleet() { "open runs" } else { "database" };
    let read = || -> Result<Option<usize>, Error> {
        Ok(if service.has_data()? { Some(service.ports_to_read()?.ledger.open_runs(usize::MAX)?.len()) } else { None })
    };
    match read() {
        Ok(None) => good(what, "none yet"),
        Ok(Some(0)) => good(what, if service.settings.is_fleet() { "none" } else { "opens, no open runs" }),
        Ok(Some(open)) if service.settings.is_fleet() => good(what, format!("{open} (see `dovetail runs list`)")),
        Ok(Some(open)) => good(what, format!("opens, {} (see `dovetail runs list`)", count(open, "open run"))),
        Err(error) => failed(what, error),
    }
}

/// Open runs that wait for a capability that no living worker has. No other command tells an operator about them.
fn unserved(service: &Service) -> Result<Option<Finding>, Error> {
    if !service.has_data()? {
        return Ok(None);
    }
    let ports = service.ports_to_read()?;
    if ports.ledger.workers()?.is_empty() {
        // Another line says that no worker lives.
        return Ok(None);
    }
    let (waiting, lacking) = dovetail_flow::unserved(ports, LOOKED_THROUGH)?;
    let lacking = lacking.iter().map(|need| capability_in_words(need)).collect::<Vec<_>>().join(", ");
    let wait = if waiting == 1 { "waits" } else { "wait" };
    let found = format!(
        "{waiting} of the oldest {LOOKED_THROUGH} open runs {wait} for capabilities that no living worker has: \
         {lacking}"
    );
    let remedy = "start a worker with them: set grants with `worker.grants`, install models with `dovetail models \
        pull` or `models add`";
    Ok((waiting > 0).then(|| warning("open runs", found, remedy)))
}

fn models(service: &Service) -> Finding {
    let read = || -> Result<(Vec<Installed>, Vec<String>), Error> {
        let store = service.models_to_read()?;
        let installed = store.list()?;
        // The loader of a model compares digests too, but only when a step needs the model.
        let damaged =
            |one: &Installed| store.damaged(one).first().map(|file| format!("{} ({})", one.model.name, file.shown()));
        let damaged = installed.iter().filter_map(damaged).collect();
        Ok((installed, damaged))
    };
    match read() {
        Err(error) => failed("models", error),
        Ok((_, damaged)) if !damaged.is_empty() => {
            let remedy = "install them again: the default ones with `dovetail models pull`, others with `models add`; \
                then `runs resume --all`";
            problem("models", format!("damaged, or files are missing: {}", servers::listed(&damaged)), remedy)
        }
        Ok((installed, _)) => {
            let missing: Vec<&str> =
                DEFAULT_MODELS.into_iter().filter(|name| installed.iter().all(|one| one.model.name != *name)).collect();
            if missing.is_empty() {
                good(
                    "models",
                    format!("{} installed, including the {} default models", installed.len(), DEFAULT_MODELS.len()),
                )
            } else if service.settings.has_far_blobs() {
                // A worker installs the fleet's models. Another line says which models the fleet has.
                good("models", format!("{} installed here; a worker installs its fleet's models", installed.len()))
            } else {
                problem(
                    "models",
                    format!("missing: {}", missing.join(", ")),
                    "install them with `dovetail models pull`",
                )
            }
        }
    }
}

fn compiler(service: &Service) -> Finding {
    let made = || -> Result<u64, Error> {
        service.compiler()?;
        let folder = service.compiled_folder()?;
        let entries = match std::fs::read_dir(&folder) {
            // A read-only data folder may have no folder of compiled code.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            entries => entries.map_err(|e| Error::write(&folder, e))?,
        };
        Ok(entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum())
    };
    match made() {
        Ok(size) => good("compiled code", format!("{} in the cache", bytes(size))),
        Err(error) => failed("compiled code", error),
    }
}

fn registry(service: &Service) -> Finding {
    let read = || -> Result<Finding, Error> {
        let ports = service.ports_to_read()?;
        let (plugins, pipelines) = (dovetail_flow::plugins(ports)?, dovetail_flow::pipelines(ports)?);
        let found = format!(
            "{}, {}",
            count(plugins.read.len(), "plugin version"),
            count(pipelines.read.len(), "pipeline version")
        );
        let unread: Vec<String> = plugins.unread.iter().chain(&pipelines.unread).map(|one| one.name.clone()).collect();
        if unread.is_empty() {
            return Ok(good("registry", found));
        }
        let remedy =
            "`dovetail task list` and `pipeline list` say why; a newer dovetail reads the records that it wrote";
        Ok(warning("registry", format!("{found}; cannot be read: {}", servers::listed(&unread)), remedy))
    };
    read().unwrap_or_else(|error| failed("registry", error))
}
