//! `doctor`: whether this machine, and each server of its fleet, has what dovetail needs, one line each, with what to
//! do about what is missing.

mod servers;

use std::path::Path;

use dovetail_core::ledger::capability_in_words;
use dovetail_vision::Installed;
use rustix::fs::Access;
use serde_json::json;

use super::models::DEFAULT_MODELS;
use crate::error::{Error, Exit, unwritable};
use crate::paths::Shown as _;
use crate::table::{bytes, count, table};
use crate::wire::App;

/// Less than this is called little, in bytes.
const LITTLE_SPACE: u64 = 1 << 30;
/// Open runs that are looked through for what they wait for.
const LOOKED_THROUGH: usize = 100;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Grade {
    Good,
    /// It works, and could be better.
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
    // That doctor is to be asked is no help here.
    problem(what, error.chain(), error.help.filter(|help| !help.contains("dovetail doctor")).unwrap_or_default())
}

pub(crate) fn run(app: &App, deep: bool) -> Result<Exit, Error> {
    let data = &app.config.data;
    let mut findings = vec![good("dovetail", env!("CARGO_PKG_VERSION")), folder(data), space(data)];
    let servers = servers::look(app, &mut findings);
    if servers.records {
        findings.push(database(app));
        findings.extend(servers::owner(app, &servers).unwrap_or_else(|error| Some(failed("blobs", error))));
        findings.extend(unserved(app).unwrap_or_else(|error| Some(failed("open runs", error))));
    }
    findings.push(match dovetail_vision::opencv_version() {
        Some(version) => good("OpenCV", version),
        None => problem(
            "OpenCV",
            "this dovetail was built without it",
            "build it with the feature `opencv`, on a machine with libopencv-dev",
        ),
    });
    findings.push(models(app));
    findings.push(compiler(app));
    if servers.records {
        findings.push(registry(app));
        servers::contents(app, &servers, deep, &mut findings);
    }
    findings.push(good(
        "processors",
        std::thread::available_parallelism().map_or_else(|_| "unknown".to_owned(), |n| n.to_string()),
    ));
    let healthy = findings.iter().all(|finding| finding.grade != Grade::Problem);
    app.output.result(
        || {
            let line = |f: &Finding| {
                json!({ "what": f.what, "ok": f.grade != Grade::Problem, "warning": f.grade == Grade::Warning, "found": f.found, "remedy": f.remedy })
            };
            let lines: Vec<_> = findings.iter().map(line).collect();
            json!({ "ok": healthy, "checks": lines })
        },
        || {
            let mut rows = Vec::new();
            for finding in &findings {
                let grade = match finding.grade {
                    Grade::Good => "ok",
                    Grade::Warning => "WARNING",
                    Grade::Problem => "PROBLEM",
                };
                rows.push(vec![grade.to_owned(), finding.what.to_owned(), finding.found.clone()]);
                if !finding.remedy.is_empty() {
                    rows.push(vec![String::new(), String::new(), format!("-> {}", finding.remedy)]);
                }
            }
            table(&["", "what", "found"], &rows)
        },
    );
    Ok(if healthy { Exit::Done } else { Exit::Failed })
}

fn folder(data: &Path) -> Finding {
    const REMEDY: &str = "name another with --data DIR, or give yourself the right to write there";
    let nearest = nearest_folder(data);
    // To look is not to make: whoever writes there first makes it.
    if nearest != data && !matches!(data.try_exists(), Ok(true)) {
        return match rustix::fs::access(nearest, Access::WRITE_OK | Access::EXEC_OK) {
            Ok(()) => good("data folder", format!("{} is not there yet, and can be made", data.shown())),
            Err(error) => problem(
                "data folder",
                format!("{} is not there, and cannot be made in {}: {error}", data.shown(), nearest.shown()),
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

/// The folder itself may not be there.
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
                problem("disk", found, "make room: photographs, compiled code and results are kept there")
            } else {
                good("disk", found)
            }
        }
        Err(error) => problem("disk", format!("{}: {error}", place.shown()), "name another folder with --data DIR"),
    }
}

fn database(app: &App) -> Finding {
    let what = if app.config.is_fleet() { "open runs" } else { "database" };
    let read = || -> Result<Option<usize>, Error> {
        Ok(if app.has_data()? { Some(app.parts_to_read()?.ledger.open_runs(usize::MAX)?.len()) } else { None })
    };
    match read() {
        Ok(None) => good(what, "none yet"),
        Ok(Some(0)) => good(what, if app.config.is_fleet() { "none" } else { "opens, no open runs" }),
        Ok(Some(open)) if app.config.is_fleet() => good(what, format!("{open} (see `dovetail runs list`)")),
        Ok(Some(open)) => good(what, format!("opens, {} (see `dovetail runs list`)", count(open, "open run"))),
        Err(error) => failed(what, error),
    }
}

/// Open runs that wait for what no worker has: nobody else would say so to an operator.
fn unserved(app: &App) -> Result<Option<Finding>, Error> {
    if !app.has_data()? {
        return Ok(None);
    }
    let parts = app.parts_to_read()?;
    if parts.ledger.workers()?.is_empty() {
        // That none lives is said, and that runs wait for one.
        return Ok(None);
    }
    let (waiting, lacking) = dovetail_flow::unserved(parts, LOOKED_THROUGH)?;
    let lacking = lacking.iter().map(|need| capability_in_words(need)).collect::<Vec<_>>().join(", ");
    let wait = if waiting == 1 { "waits" } else { "wait" };
    let found =
        format!("{waiting} of the oldest {LOOKED_THROUGH} open runs {wait} for what no living worker has: {lacking}");
    let remedy = "start a worker that has it: grants by `worker.grants`, models by `dovetail models pull` or `add`";
    Ok((waiting > 0).then(|| warning("open runs", found, remedy)))
}

fn models(app: &App) -> Finding {
    let read = || -> Result<(Vec<Installed>, Vec<String>), Error> {
        let store = app.models_to_read()?;
        let installed = store.list()?;
        // Whoever loads one compares it with its digest, too, and can only say so when a step needs it.
        let damaged =
            |one: &Installed| store.damaged(one).first().map(|file| format!("{} ({})", one.model.name, file.shown()));
        let damaged = installed.iter().filter_map(damaged).collect();
        Ok((installed, damaged))
    };
    match read() {
        Err(error) => failed("models", error),
        Ok((_, damaged)) if !damaged.is_empty() => {
            let remedy = "install them again: the default ones with `dovetail models pull`, others with `models add`; then `runs resume --all`";
            problem("models", format!("damaged, or files are missing: {}", servers::listed(&damaged)), remedy)
        }
        Ok((installed, _)) => {
            let missing: Vec<&str> =
                DEFAULT_MODELS.into_iter().filter(|name| installed.iter().all(|one| one.model.name != *name)).collect();
            if missing.is_empty() {
                good(
                    "models",
                    format!("{} installed, the {} default ones among them", installed.len(), DEFAULT_MODELS.len()),
                )
            } else if app.config.has_far_blobs() {
                // A worker gets what its fleet has; whether the fleet has them is told below.
                good("models", format!("{} installed here; a worker gets those of its fleet", installed.len()))
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

fn compiler(app: &App) -> Finding {
    let made = || -> Result<u64, Error> {
        app.compiler()?;
        let folder = app.compiled_folder()?;
        let entries = match std::fs::read_dir(&folder) {
            // In a folder that is read-only there may be none.
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

fn registry(app: &App) -> Finding {
    let read = || -> Result<Finding, Error> {
        let parts = app.parts_to_read()?;
        let (plugins, pipelines) = (dovetail_flow::plugins(parts)?, dovetail_flow::pipelines(parts)?);
        let found = format!(
            "{}, {}",
            count(plugins.read.len(), "plugin version"),
            count(pipelines.read.len(), "pipeline version")
        );
        let unread: Vec<String> = plugins.unread.iter().chain(&pipelines.unread).map(|one| one.name.clone()).collect();
        if unread.is_empty() {
            return Ok(good("registry", found));
        }
        let remedy = "`dovetail task list` and `pipeline list` say why; what a newer dovetail wrote is read by it";
        Ok(warning("registry", format!("{found}; cannot be read: {}", servers::listed(&unread)), remedy))
    };
    read().unwrap_or_else(|error| failed("registry", error))
}
