//! Models: the default networks, the cascades of the system's OpenCV, and the user's own models; and their distribution
//! within a fleet ([`share`]).

pub mod engine;
pub(crate) mod required;
pub mod share;
pub(crate) mod trial;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dovetail_core::vision::Model;
use dovetail_vision::{Engines, FACE_API_PACKAGE, HAAR_FOLDER, Installed, ModelStore, OwnModel};
use tempfile::TempDir;

use crate::documents::{InstalledModel, ModelDocument, ModelSummary};
use crate::files::{folder, temporary};
use crate::paths::Shown as _;
use crate::runs::ReadableList;
use crate::{Error, Notice, Observer, Service};

/// The models that `models pull` installs.
pub const DEFAULT_MODELS: [&str; 7] = [
    "ssd_mobilenetv1",
    "tiny_face_detector",
    "haar",
    "face_landmark_68",
    "age_gender",
    "face_expression",
    "face_recognition",
];

/// The models that were installed before this request, and whether each was undamaged.
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

    fn document(&self, model: &Model) -> InstalledModel {
        let before = self.0.iter().find(|(one, _)| one.model.digest == model.digest).map(|(_, whole)| *whole);
        InstalledModel { model: ModelDocument::of(model), installed: before.is_none(), repaired: before == Some(false) }
    }
}

/// The unpacked package of the default models.
pub struct ModelPackage {
    folder: PathBuf,
    /// A temporary folder, which is removed with this value.
    _unpacked: Option<TempDir>,
}

impl ModelPackage {
    /// The photographs of the package: `sample*.jpg` in its folder `demo`.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn photographs(&self) -> Result<Vec<PathBuf>, Error> {
        let files = folder(&self.folder.join("demo"))?;
        let is_sample = |name: &[u8]| name.starts_with(b"sample") && name.ends_with(b".jpg");
        Ok(files
            .into_iter()
            .filter(|file| file.file_name().is_some_and(|name| is_sample(name.as_encoded_bytes())))
            .collect())
    }
}

impl ModelSummary {
    fn of(installed: &Installed) -> Self {
        Self {
            model: ModelDocument::of(&installed.model),
            source: installed.manifest.source.clone(),
            license: installed.manifest.license.clone(),
            bytes: installed.manifest.files.iter().map(|file| file.bytes).sum(),
        }
    }
}

impl Service {
    /// The installed models.
    ///
    /// # Errors
    /// If the folder of the models cannot be read.
    pub fn list_models(&self) -> Result<ReadableList<ModelSummary>, Error> {
        let (models, unread) = self.models_to_read()?.look()?;
        Ok(ReadableList {
            read: models.iter().map(ModelSummary::of).collect(),
            unread: unread.into_iter().map(|(name, error)| (name, error.into())).collect(),
        })
    }

    /// Installs the caller's own model, and publishes it in a fleet.
    ///
    /// # Errors
    /// If the file or the manifest is invalid; `name_taken`; if the model cannot be stored.
    pub fn add_model(&self, file: &Path, manifest: &Path) -> Result<InstalledModel, Error> {
        for path in [file, manifest] {
            std::fs::File::open(path).map_err(|e| Error::file(path, e))?;
        }
        let store = self.models()?;
        let before = Before::look(&store)?;
        let model = {
            let engine = self.engine_options();
            let program = crate::this_program()?;
            let trial = |model: &OwnModel<'_>| trial::try_out(&program, &engine, model, file);
            store.add_after_trial(file, manifest, &Engines::new(engine.clone()), &trial)?
        };
        let added: Vec<Installed> = store.list()?.into_iter().filter(|one| one.model.digest == model.digest).collect();
        share::publish(self, &store, &added)?;
        Ok(before.document(&model))
    }

    /// Whether all default models are installed and undamaged.
    ///
    /// # Errors
    /// If the folder of the models cannot be read.
    pub fn has_default_models(&self) -> Result<bool, Error> {
        let before = Before::look(&self.models_to_read()?)?;
        Ok(DEFAULT_MODELS.iter().all(|name| before.has_whole(name)))
    }

    /// The package of the default models, from this path (a folder or a .tgz), or downloaded by npm.
    ///
    /// # Errors
    /// `bad_package`, `npm_missing`, `npm_failed`, `tar_failed`, `missing_file`.
    pub fn model_package(&self, from: Option<&Path>, observer: &dyn Observer) -> Result<ModelPackage, Error> {
        let (folder, unpacked) = match from {
            Some(path) if path.is_dir() => (path.to_owned(), None),
            from => {
                let scratch = temporary("dovetail-")?;
                let archive = match from {
                    Some(path) => {
                        std::fs::File::open(path).map_err(|e| Error::file(path, e))?;
                        path.to_owned()
                    }
                    None => {
                        observer.notice(&Notice::Fetching(FACE_API_PACKAGE));
                        npm_pack(scratch.path())?
                    }
                };
                (untar(&archive, scratch.path())?, Some(scratch))
            }
        };
        if !folder.join("model").is_dir() {
            let error = Error::usage("bad_package", format!("`{}` has no folder `model`", folder.shown()));
            return Err(error.help(format!("name the unpacked folder of {FACE_API_PACKAGE}, or its .tgz")));
        }
        Ok(ModelPackage { folder, _unpacked: unpacked })
    }

    /// Installs the default models of a package, and the cascades of the system's OpenCV.
    ///
    /// # Errors
    /// `no_cascades`; if a model is damaged, or cannot be stored.
    pub fn install_models(&self, package: &ModelPackage) -> Result<Vec<InstalledModel>, Error> {
        let before = Before::look(&self.models_to_read()?)?;
        let store = self.models()?;
        let mut pulled = store.import_face_api(&package.folder)?;
        let cascades = Path::new(HAAR_FOLDER);
        if !cascades.is_dir() {
            let error = Error::host(
                "no_cascades",
                format!("OpenCV's cascades are not installed: there is no folder `{HAAR_FOLDER}`"),
            );
            return Err(error.help("install them (Debian, Ubuntu: apt-get install opencv-data), then pull again"));
        }
        pulled.push(store.import_haar(cascades)?);
        Ok(pulled.iter().map(|model| before.document(model)).collect())
    }

    /// Publishes this machine's default models in its fleet, also those that were installed earlier: the fleet may lack
    /// them.
    ///
    /// # Errors
    /// `name_taken`; a store's failure.
    pub fn publish_default_models(&self) -> Result<(), Error> {
        let store = self.models()?;
        let ours: Vec<Installed> =
            store.list()?.into_iter().filter(|one| DEFAULT_MODELS.contains(&one.model.name.as_str())).collect();
        share::publish(self, &store, &ours)
    }
}

/// Downloads the package with the user's npm, and so with the user's registry, proxy and cache.
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
            "install Node.js (it brings npm), or download the package elsewhere and name it with --from FOLDER_OR_TGZ",
        )
    })?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let error =
            Error::host("npm_failed", format!("`npm pack {FACE_API_PACKAGE}` failed ({}): {stderr}", output.status));
        return Err(error.help(
            "check the network and npm's settings, or download the package elsewhere and name it with --from \
             FOLDER_OR_TGZ",
        ));
    }
    let found = folder(into)?.into_iter().find(|file| file.extension().is_some_and(|extension| extension == "tgz"));
    found.ok_or_else(|| Error::host("npm_failed", format!("`npm pack {FACE_API_PACKAGE}` wrote no .tgz")))
}

/// Unpacks an npm package, which holds one folder named `package`.
fn untar(archive: &Path, into: &Path) -> Result<PathBuf, Error> {
    let ran = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(into).stdin(Stdio::null()).output();
    let output = ran.map_err(|e| {
        Error::host("tar_failed", "start tar")
            .cause(e)
            .help("install tar, or unpack the package yourself and name its folder with --from")
    })?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let error = Error::usage("bad_package", format!("`{}` cannot be unpacked: {stderr}", archive.shown()));
        return Err(error.help("download it again; it must be a .tgz of npm"));
    }
    Ok(into.join("package"))
}
