//! `models`: installs the default networks from the package that `npm pack` fetches, cascades from the system's OpenCV,
//! and models of one's own.

pub(crate) mod share;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dovetail_core::vision::Model;
use dovetail_vision::{FACE_API_PACKAGE, HAAR_FOLDER, Installed, ModelStore};
use serde_json::{Value, json};

use crate::args::Models;
use crate::error::{Error, Exit};
use crate::inputs::{MAX_PHOTOGRAPH, folder, read};
use crate::paths::Shown as _;
use crate::results::{Target, holds, targets};
use crate::table::{bytes, count, table};
use crate::unread;
use crate::wire::App;

/// What `models pull` installs.
pub(crate) const DEFAULT_MODELS: [&str; 7] = [
    "ssd_mobilenetv1",
    "tiny_face_detector",
    "haar",
    "face_landmark_68",
    "age_gender",
    "face_expression",
    "face_recognition",
];

pub(crate) fn run(command: &Models, app: &App) -> Result<Exit, Error> {
    match command {
        Models::Pull { from, photographs, force } => pull(app, from.as_deref(), photographs.as_deref(), *force),
        Models::List => {
            let (models, unread) = app.models_to_read()?.look()?;
            let unread: Vec<(String, Error)> = unread.into_iter().map(|(name, error)| (name, error.into())).collect();
            unread::print(app, (&models, &unread), "model", |name| json!({ "name": name }), installed_json, list);
            Ok(Exit::Done)
        }
        Models::Add { file, manifest } => {
            for path in [file, manifest] {
                std::fs::File::open(path).map_err(|e| Error::file(path, e))?;
            }
            let store = app.models()?;
            let before = Before::look(&store)?;
            let model = store.add(file, manifest)?;
            let added: Vec<Installed> =
                store.list()?.into_iter().filter(|one| one.model.digest == model.digest).collect();
            share::publish(app, &store, &added)?;
            let how = before.became(&model);
            app.output.result(|| how.json(&model), || format!("{} {}  {}\n", how.words(), model.name, model.digest));
            Ok(Exit::Done)
        }
    }
}

/// What installing a model came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Installed,
    Same,
    /// It was there, and a file of it was damaged or gone.
    Repaired,
}

impl How {
    fn words(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Same => "was installed",
            Self::Repaired => "repaired",
        }
    }

    fn json(self, model: &Model) -> Value {
        let mut json = model_json(model);
        json["installed"] = json!(self == Self::Installed);
        json["repaired"] = json!(self == Self::Repaired);
        json
    }
}

/// The models that were there before something was installed, and whether each was whole.
struct Before(Vec<(Installed, bool)>);

impl Before {
    fn look(store: &ModelStore) -> Result<Self, Error> {
        let whole = |one: Installed| {
            let whole = store.damaged(&one).is_empty();
            (one, whole)
        };
        Ok(Self(store.list()?.into_iter().map(whole).collect()))
    }

    fn has_whole(&self, name: &str) -> bool {
        self.0.iter().any(|(one, whole)| *whole && one.model.name == name)
    }

    fn became(&self, model: &Model) -> How {
        match self.0.iter().find(|(one, _)| one.model.digest == model.digest) {
            None => How::Installed,
            Some((_, true)) => How::Same,
            Some((_, false)) => How::Repaired,
        }
    }
}

fn pull(app: &App, from: Option<&Path>, photographs: Option<&Path>, force: bool) -> Result<Exit, Error> {
    let before = Before::look(&app.models_to_read()?)?;
    let complete = DEFAULT_MODELS.iter().all(|name| before.has_whole(name));
    let mut pulled = Vec::new();
    let mut copied = Vec::new();
    if !complete || photographs.is_some() || from.is_some() {
        let scratch = tempfile::Builder::new()
            .prefix("dovetail-")
            .tempdir()
            .map_err(|e| Error::host("temporary_folder", "make a temporary folder").cause(e))?;
        let package = match from {
            Some(path) if path.is_dir() => path.to_owned(),
            Some(path) => {
                std::fs::File::open(path).map_err(|e| Error::file(path, e))?;
                untar(path, scratch.path())?
            }
            None => {
                app.output.note(&format!("fetching {FACE_API_PACKAGE} by npm (13 MB of weights, MIT licence)"));
                untar(&npm_pack(scratch.path())?, scratch.path())?
            }
        };
        if !package.join("model").is_dir() {
            let error = Error::usage("bad_package", format!("`{}` has no folder `model`", package.shown()));
            return Err(error.help(format!("name the unpacked folder of {FACE_API_PACKAGE}, or its .tgz")));
        }
        // Looked at before anything is installed.
        let photographs =
            photographs.map(|folder| Photographs::plan(&package.join("demo"), folder, force)).transpose()?;
        let store = app.models()?;
        pulled.extend(store.import_face_api(&package)?);
        let cascades = Path::new(HAAR_FOLDER);
        if !cascades.is_dir() {
            let error = Error::host(
                "no_cascades",
                format!("OpenCV's cascades are not installed: there is no folder `{HAAR_FOLDER}`"),
            );
            return Err(error.help("install them (Debian, Ubuntu: apt-get install opencv-data), then pull again"));
        }
        pulled.push(store.import_haar(cascades)?);
        if let Some(photographs) = photographs {
            copied = photographs.copy()?;
        }
    }
    // All of the default ones: what this machine has had for long, the fleet may not have.
    let store = app.models()?;
    let ours: Vec<Installed> =
        store.list()?.into_iter().filter(|one| DEFAULT_MODELS.contains(&one.model.name.as_str())).collect();
    share::publish(app, &store, &ours)?;
    app.output.result(
        || json!({ "models": pulled.iter().map(|model| before.became(model).json(model)).collect::<Vec<_>>(), "photographs": copied.iter().map(|path| path.text()).collect::<Vec<_>>(), "complete": true }),
        || {
            if pulled.is_empty() {
                return format!("all {} models are installed already\n", DEFAULT_MODELS.len());
            }
            let row = |model: &Model| {
                vec![model.name.clone(), model.kind.name().to_owned(), before.became(model).words().to_owned(), model.digest.to_string()]
            };
            let mut text = table(&["model", "kind", "", "digest"], &pulled.iter().map(row).collect::<Vec<_>>());
            if !copied.is_empty() {
                text.push_str(&format!("{} copied\n", count(copied.len(), "photograph")));
            }
            text
        },
    );
    Ok(Exit::Done)
}

/// Fetches the package by the user's own npm: its registry, its proxy, its cache.
fn npm_pack(into: &Path) -> Result<PathBuf, Error> {
    let ran = Command::new("npm")
        .args(["pack", "--silent", FACE_API_PACKAGE])
        .current_dir(into)
        .stdin(Stdio::null())
        .output();
    let output = ran.map_err(|e| {
        let error = if e.kind() == std::io::ErrorKind::NotFound {
            Error::host("npm_missing", "npm is not installed")
        } else {
            Error::host("npm_failed", "start npm").cause(e)
        };
        error.help(
            "install Node.js (it brings npm), or fetch the package elsewhere and name it with --from FOLDER_OR_TGZ",
        )
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let error =
            Error::host("npm_failed", format!("`npm pack {FACE_API_PACKAGE}` failed ({}): {said}", output.status));
        return Err(error.help("check the network and npm's settings, or fetch the package elsewhere and name it with --from FOLDER_OR_TGZ"));
    }
    let found = folder(into)?.into_iter().find(|file| file.extension().is_some_and(|extension| extension == "tgz"));
    found.ok_or_else(|| Error::host("npm_failed", format!("`npm pack {FACE_API_PACKAGE}` wrote no .tgz")))
}

/// npm's packages hold one folder, `package`.
fn untar(archive: &Path, into: &Path) -> Result<PathBuf, Error> {
    let ran = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(into).stdin(Stdio::null()).output();
    let output = ran.map_err(|e| {
        Error::host("tar_failed", "start tar")
            .cause(e)
            .help("install tar, or unpack the package yourself and name its folder with --from")
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let error = Error::usage("bad_package", format!("`{}` cannot be unpacked: {said}", archive.shown()));
        return Err(error.help("fetch it again; it should be a .tgz of npm"));
    }
    Ok(into.join("package"))
}

/// Photographs of the package, and the folder that gets copies of them.
struct Photographs<'a> {
    folder: &'a Path,
    /// Where each copy goes.
    copies: Vec<PathBuf>,
    /// Those that are not there already.
    missing: Vec<(Target, Vec<u8>)>,
}

impl<'a> Photographs<'a> {
    fn plan(from: &Path, folder: &'a Path, force: bool) -> Result<Self, Error> {
        let (mut copies, mut missing) = (Vec::new(), Vec::new());
        for file in crate::inputs::folder(from)? {
            let Some(name) = file.file_name().filter(|name| is_sample(name.as_encoded_bytes())) else { continue };
            let (path, content) = (folder.join(name), read(&file, MAX_PHOTOGRAPH)?);
            if !holds(&path, &content) {
                missing.push((path.clone(), content));
            }
            copies.push(path);
        }
        let remedy = "name another folder with --photographs, or move these files away; --force replaces files";
        let targets = targets(missing.iter().map(|(path, _)| path.clone()), |_, _| Ok(force), remedy)?;
        let missing = targets.into_iter().zip(missing.into_iter().map(|(_, content)| content)).collect();
        Ok(Self { folder, copies, missing })
    }

    fn copy(self) -> Result<Vec<PathBuf>, Error> {
        dovetail_stores::make_folder(self.folder).map_err(|e| Error::write(self.folder, e))?;
        for (target, content) in &self.missing {
            target.write(content)?;
        }
        Ok(self.copies)
    }
}

fn is_sample(name: &[u8]) -> bool {
    name.starts_with(b"sample") && name.ends_with(b".jpg")
}

fn model_json(model: &Model) -> Value {
    json!({ "name": model.name, "kind": model.kind, "aliases": model.aliases, "digest": model.digest, "labels": model.labels })
}

fn installed_json(installed: &Installed) -> Value {
    let mut json = model_json(&installed.model);
    json["source"] = json!(installed.manifest.source);
    json["license"] = json!(installed.manifest.license);
    json["bytes"] = json!(size(installed));
    json
}

fn size(installed: &Installed) -> u64 {
    installed.manifest.files.iter().map(|file| file.bytes).sum()
}

fn list(models: &[Installed]) -> String {
    if models.is_empty() {
        return "no models yet; install the default ones with `dovetail models pull`\n".to_owned();
    }
    let row = |installed: &Installed| {
        let model = &installed.model;
        let digest = model.digest.to_string().chars().take(19).collect();
        vec![
            model.name.clone(),
            model.kind.name().to_owned(),
            model.aliases.join(", "),
            bytes(size(installed)),
            digest,
            installed.manifest.source.clone().unwrap_or_default(),
        ]
    };
    table(&["model", "kind", "also", " size", "digest", "source"], &models.iter().map(row).collect::<Vec<_>>())
}
