//! `task pack`, `push`, `list` and `show`: makes packages of plugins, publishes and lists them.

use std::fs::Metadata;
use std::path::{Path, PathBuf};

use dovetail_service::documents::{PackedTask, PushedTask, TaskName, TaskSummary};
use dovetail_service::files::read;
use dovetail_service::paths::Shown as _;
use dovetail_service::plugins::{AcceptedPlugin, MAX_PACKAGE, Package, Stale, stripped};
use dovetail_service::words::bytes;
use dovetail_service::{Digest, Error};

use super::check::{limits_text, refused};
use crate::app::App;
use crate::exit::Exit;
use crate::results::{Target, is_same_file, targets};
use crate::table::table;
use crate::unread::print_list;

pub(super) fn pack(
    app: &App,
    folder: &Path,
    out: Option<&Path>,
    component: Option<&Path>,
    strip: bool,
) -> Result<Exit, Error> {
    if !std::fs::metadata(folder).map_err(|e| Error::file(folder, e))?.is_dir() {
        return Err(Error::usage("not_a_folder", format!("`{}` is not a folder", folder.shown()))
            .help("name the folder with the plugin's plugin.toml"));
    }
    let AcceptedPlugin { manifest, package, .. } =
        match app.service.look_at_plugin(folder, component, Stale::Refused)? {
            Ok(good) => good,
            Err(findings) => return Ok(refused(app, folder, &findings)),
        };
    let package =
        if strip { stripped(&package).map_err(|refusal| Error::from(refusal).of_file(folder))? } else { package };
    let default = format!("{}-{}.zip", manifest.name, manifest.version);
    let target = place(out, &default, folder, component)?;
    target.write(&package)?;
    let document = PackedTask {
        file: target.path.text(),
        name: manifest.name,
        version: manifest.version,
        package: Digest::of(&package),
        bytes: package.len(),
    };
    app.output.result(&document, || {
        format!("{}  {}  {}\n", target.path.shown(), bytes(package.len() as u64), document.package)
    });
    Ok(Exit::Done)
}

/// The path of the package. A file that the user names is replaced. A file with the default name is replaced only if it
/// is a package. No source of the package is replaced.
fn place(out: Option<&Path>, default: &str, folder: &Path, component: Option<&Path>) -> Result<Target, Error> {
    let path = out.map_or_else(|| PathBuf::from(default), Path::to_owned);
    let may_replace = |path: &Path, meta: &Metadata| {
        if is_source(path, meta, folder, component)? {
            let message = format!("`{}` is a file of the plugin, and is not replaced", path.shown());
            return Err(Error::usage("result_is_input", message)
                .help("name another file with -o")
                .detail("path", path.text()));
        }
        Ok(out.is_some() || is_package(path))
    };
    let remedy = "name another file with -o";
    let mut found = targets([path.clone()], may_replace, remedy)?;
    found.pop().ok_or_else(|| Error::host("no_place", format!("find a place for `{}`", path.shown())))
}

/// Whether this file is the component, or a file of the plugin's folder that is not a package.
fn is_source(path: &Path, meta: &Metadata, folder: &Path, component: Option<&Path>) -> Result<bool, Error> {
    if let Some(component) = component
        && std::fs::metadata(component).is_ok_and(|component| is_same_file(&component, meta))
    {
        return Ok(true);
    }
    let real = |path: &Path| path.canonicalize().map_err(|e| Error::file(path, e));
    Ok(real(path)?.starts_with(real(folder)?) && !is_package(path))
}

fn is_package(path: &Path) -> bool {
    read(path, MAX_PACKAGE).is_ok_and(|bytes| Package::read(&bytes).is_ok())
}

pub(super) fn push(app: &App, paths: &[PathBuf], given: &[String]) -> Result<Exit, Error> {
    let Some(tasks) = app.service.push_plugins(paths, given, &app.output, |path, findings| {
        refused(app, path, findings);
    })?
    else {
        return Ok(Exit::Failed);
    };
    app.output.result(&tasks, || tasks.iter().map(pushed).collect());
    Ok(Exit::Done)
}

fn pushed(task: &PushedTask) -> String {
    let how = match (task.created, task.repaired) {
        (true, _) => "published",
        (false, true) => "was published before; its stored package was damaged or missing, and was repaired",
        (false, false) => "was published before, unchanged",
    };
    format!("{}  {}  {how}\n", task.reference(), task.package)
}

pub(super) fn list(app: &App) -> Result<Exit, Error> {
    let tasks = app.service.list_tasks()?;
    let text = |tasks: &[TaskSummary]| {
        if tasks.is_empty() {
            return "no tasks yet; publish one with `dovetail task push FOLDER`\n".to_owned();
        }
        let row = |task: &TaskSummary| {
            let grants =
                if task.pure { "pure".to_owned() } else { task.grants.keys().cloned().collect::<Vec<_>>().join(", ") };
            vec![
                task.name.clone(),
                task.version.to_string(),
                grants,
                task.package.to_string().chars().take(19).collect(),
                task.description.clone(),
            ]
        };
        table(&["task", "version", "reaches", "package", "description"], &tasks.iter().map(row).collect::<Vec<_>>())
    };
    print_list(app, &tasks, "task", TaskName::of, TaskSummary::clone, text);
    Ok(Exit::Done)
}

pub(super) fn show(app: &App, reference: &str) -> Result<Exit, Error> {
    let (document, signature) = app.service.task(reference)?;
    app.output.result(&document, || {
        let task = &document.summary;
        let grants = if task.grants.is_empty() {
            "none".to_owned()
        } else {
            task.grants.iter().map(|(name, value)| format!("{name} = {value}")).collect::<Vec<_>>().join(", ")
        };
        let purity = if task.pure { "pure: the same input gives the same output" } else { "not pure" };
        format!(
            "{}\n{}\n\npackage {}\nlimits  {}\ngrants  {grants}\npurity  {purity}\n\n{signature}",
            task.reference(),
            task.description,
            task.package,
            limits_text(&document.limits),
        )
    });
    Ok(Exit::Done)
}
