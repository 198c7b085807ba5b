//! `task pack`, `push`, `list` and `show`: from a plugin to a published, immutable version.

use std::fs::Metadata;
use std::path::{Path, PathBuf};

use dovetail_core::Digest;
use dovetail_core::record::PluginRecord;
use dovetail_core::wit::show as wit;
use dovetail_flow::Pushed;
use dovetail_runtime::{MAX_PACKAGE, Package, Parts, Refusal};
use serde_json::{Value, json};

use super::check::{Good, limits_json, limits_text, look, refused, signature_json};
use super::{all_asked_for, allowed, asked, grants_json, recorded};
use crate::error::{Error, Exit};
use crate::inputs::read;
use crate::paths::Shown as _;
use crate::plugin::Stale;
use crate::results::{Target, is_same_file, targets};
use crate::table::{bytes, table};
use crate::unread::{print_list, say_unread};
use crate::wire::App;

pub(super) fn pack(
    app: &App,
    folder: &Path,
    out: Option<&Path>,
    component: Option<&Path>,
    strip: bool,
) -> Result<Exit, Error> {
    if !std::fs::metadata(folder).map_err(|e| Error::file(folder, e))?.is_dir() {
        return Err(Error::usage("not_a_folder", format!("`{}` is no folder", folder.shown()))
            .help("name the folder with the plugin's plugin.toml"));
    }
    let Good { manifest, package, .. } = match look(&app.compiler()?, folder, component, Stale::Refused)? {
        Ok(good) => good,
        Err(findings) => return Ok(refused(app, folder, &findings)),
    };
    let package =
        if strip { stripped(&package).map_err(|refusal| Error::from(refusal).of_file(folder))? } else { package };
    let default = format!("{}-{}.zip", manifest.name, manifest.version);
    let target = place(out, &default, folder, component)?;
    target.write(&package)?;
    let path = &target.path;
    let digest = Digest::of(&package);
    app.output.result(
        || json!({ "file": path.text(), "name": manifest.name, "version": manifest.version, "package": digest, "bytes": package.len() }),
        || format!("{}  {}  {digest}\n", path.shown(), bytes(package.len() as u64)),
    );
    Ok(Exit::Done)
}

/// The same package with a component that has no names.
fn stripped(package: &[u8]) -> Result<Vec<u8>, Refusal> {
    let package = Package::read(package)?;
    let component = dovetail_runtime::strip(&package.component)?;
    dovetail_runtime::pack(Parts {
        manifest: &package.manifest_text,
        component: &component,
        wit: &package.wit,
        readme: package.readme.as_deref(),
        examples: &package.examples,
    })
}

/// Where the package goes. A file that the user names is replaced. The file of the default name is replaced only if it
/// is a package. No file of which the package is made is replaced.
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
    let remedy = "name a file with -o, or a path where nothing is yet";
    let mut found = targets([path.clone()], may_replace, remedy)?;
    found.pop().ok_or_else(|| Error::host("no_place", format!("find a place for `{}`", path.shown())))
}

/// Whether this file is the component, or another file of the plugin's folder than a package.
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
    // Made first, so that what is compiled here is kept for the first run.
    let parts = app.parts()?;
    let compiler = app.compiler()?;
    let (mut good, mut broken) = (Vec::new(), false);
    // All are looked at before the first one is published.
    for path in paths {
        match look(&compiler, path, None, Stale::Refused)? {
            Ok(plugin) => good.push(plugin),
            Err(findings) => {
                refused(app, path, &findings);
                broken = true;
            }
        }
    }
    if broken {
        return Ok(Exit::Failed);
    }
    // First: a misspelt grant is the reason why one is missing.
    all_asked_for(given, &good.iter().flat_map(|plugin| asked(&plugin.manifest.grants)).collect::<Vec<_>>())?;
    let before = dovetail_flow::plugins(parts)?;
    say_unread(app, "task", &before.unread);
    for Good { manifest, .. } in &good {
        // The newest one before it, whatever of it was granted then: a new version needs a yes of its own.
        let older = before.read.iter().filter(|known| known.name == manifest.name && known.version < manifest.version);
        let known = older
            .max_by(|a, b| a.version.cmp(&b.version))
            .map(|known| (known.version.to_string(), recorded(&known.grants)));
        allowed(&manifest.name, &manifest.grants, given, known.as_ref())?;
    }
    let mut pushed = Vec::new();
    for Good { manifest, description, package } in good {
        let record = PluginRecord {
            name: manifest.name,
            version: manifest.version,
            package: Digest::of(&package),
            description: manifest.description,
            signature: description.signature,
            limits: manifest.limits,
            grants: grants_json(&manifest.grants).into_iter().collect(),
            pure: description.pure,
            model_kinds: if manifest.models.is_some() {
                Vec::new()
            } else {
                description.opens.iter().map(|kind| kind.name().to_owned()).collect()
            },
            models: manifest.models.unwrap_or_default(),
            pushed_ms: parts.clock.wall_ms(),
        };
        let how = dovetail_flow::push_plugin(parts, &record, &package)?;
        pushed.push((record, how));
    }
    let json = |(record, how): &(PluginRecord, Pushed)| json!({ "name": record.name, "version": record.version, "package": record.package, "created": *how == Pushed::Created, "repaired": *how == Pushed::Mended });
    let text = |(record, how): &(PluginRecord, Pushed)| {
        let how = match how {
            Pushed::Created => "published",
            Pushed::Same => "was published before, unchanged",
            Pushed::Mended => "was published before; its stored package was damaged or gone, and is repaired",
        };
        format!("{}@{}  {}  {how}\n", record.name, record.version, record.package)
    };
    app.output.result(|| pushed.iter().map(json).collect(), || pushed.iter().map(text).collect());
    Ok(Exit::Done)
}

fn record_json(record: &PluginRecord) -> Value {
    json!({
        "name": record.name, "version": record.version, "description": record.description, "package": record.package, "pure": record.pure,
        "grants": record.grants, "limits": limits_json(&record.limits), "signature": signature_json(&record.signature),
    })
}

pub(super) fn list(app: &App) -> Result<Exit, Error> {
    let plugins = dovetail_flow::plugins(app.parts_to_read()?)?;
    let text = |plugins: &[PluginRecord]| {
        if plugins.is_empty() {
            return "no tasks yet; publish one with `dovetail task push FOLDER`\n".to_owned();
        }
        let row = |record: &PluginRecord| {
            let grants = if record.pure {
                "pure".to_owned()
            } else {
                record.grants.keys().cloned().collect::<Vec<_>>().join(", ")
            };
            vec![
                record.name.clone(),
                record.version.to_string(),
                grants,
                record.package.to_string().chars().take(19).collect(),
                record.description.clone(),
            ]
        };
        table(&["task", "version", "reaches", "package", "description"], &plugins.iter().map(row).collect::<Vec<_>>())
    };
    let json = |record: &PluginRecord| json!({ "name": record.name, "version": record.version, "description": record.description, "package": record.package, "pure": record.pure, "grants": record.grants });
    let key = |key: &str| {
        let (name, version) = key.split_once('@').unwrap_or((key, ""));
        json!({ "name": name, "version": version })
    };
    print_list(app, &plugins, "task", key, json, text);
    Ok(Exit::Done)
}

pub(super) fn show(app: &App, reference: &str) -> Result<Exit, Error> {
    let record = dovetail_flow::plugin(app.parts_to_read()?, reference)?;
    app.output.result(
        || record_json(&record),
        || {
            let grants = if record.grants.is_empty() {
                "none".to_owned()
            } else {
                record.grants.iter().map(|(name, value)| format!("{name} = {value}")).collect::<Vec<_>>().join(", ")
            };
            let purity = if record.pure { "pure: the same input gives the same output" } else { "not pure" };
            format!(
                "{}@{}\n{}\n\npackage {}\nlimits  {}\ngrants  {grants}\npurity  {purity}\n\n{}",
                record.name,
                record.version,
                record.description,
                record.package,
                limits_text(&record.limits),
                wit::signature(&record.signature)
            )
        },
    );
    Ok(Exit::Done)
}
