//! The folder of installed models.
//!
//! ```text
//! DIR/NAME.toml          the manifest (see `manifest`), with the sha256 of each of the model's files
//! DIR/files/HEX          a file, named by its sha256
//! ```
//! A model's digest is the sha256 of its installed manifest. The manifest contains the digests of the files (weights,
//! anchors, cascades), the means, the labels and the layout of the output, so two models with the same digest give the
//! same results. The store writes the files before the manifest that names them. It writes each of them to a temporary
//! file, syncs it and renames it, so a crash leaves a model either absent or complete. Each load compares the file with
//! its digest.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use dovetail_core::id::Digest;
use dovetail_core::vision::{Model, VisionError};

use super::folders::make_folder;
use super::manifest::{File, MAX_FILE, MAX_MANIFEST, Manifest, Output, Role};
use super::weights::WeightsError;
use crate::Engines;

/// Why a model cannot be installed, listed or loaded.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("{operation} `{}`", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("`{}` is too large: {bytes} bytes, and at most {max} are allowed", path.display())]
    TooLarge { path: PathBuf, bytes: u64, max: u64 },
    #[error("`{}` has the wrong content: expected {expected}, found {found}", path.display())]
    WrongDigest { path: PathBuf, expected: Digest, found: Digest },
    #[error("`{}` is not a model manifest: {message}", path.display())]
    BadManifest { path: PathBuf, message: String },
    #[error("the name `{name}` is taken by the installed model `{by}`; choose another")]
    NameTaken { name: String, by: String },
    #[error("`{}` cannot be used as model `{name}`: {message}", path.display())]
    Unusable { name: String, path: PathBuf, message: String },
    #[error("convert the weights of `{network}`")]
    Weights { network: &'static str, source: WeightsError },
    #[error("{0}")]
    Unavailable(String),
    /// The engine that should check the model cannot be used now.
    #[error(transparent)]
    Engine(VisionError),
}

impl ModelError {
    /// A stable code in snake_case.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "io",
            Self::TooLarge { .. } => "too_large",
            Self::WrongDigest { .. } => "wrong_digest",
            Self::BadManifest { .. } => "bad_manifest",
            Self::NameTaken { .. } => "name_taken",
            Self::Unusable { .. } => "unusable_model",
            Self::Weights { .. } => "bad_weights",
            Self::Unavailable(_) => "built_without_opencv",
            Self::Engine(VisionError::Unavailable { code, .. } | VisionError::Invalid { code, .. }) => code,
            Self::Engine(_) => "host_unavailable",
        }
    }
}

pub(crate) fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ModelError {
    let path = path.to_owned();
    move |source| ModelError::Io { operation, path, source }
}

/// Reads a file of at most `max` bytes, and never holds more.
///
/// # Errors
/// `Io`; `TooLarge` if the file has more than `max` bytes.
pub(crate) fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>, ModelError> {
    let file = fs::File::open(path).map_err(io_error("open", path))?;
    let bytes = file.metadata().map_err(io_error("read the size of", path))?.len();
    if bytes > max {
        return Err(ModelError::TooLarge { path: path.to_owned(), bytes, max });
    }
    let mut content = Vec::with_capacity(bytes as usize);
    file.take(max).read_to_end(&mut content).map_err(io_error("read", path))?;
    Ok(content)
}

/// One installed model.
#[derive(Debug, Clone, PartialEq)]
pub struct Installed {
    /// The model as core describes it.
    pub model: Model,
    /// The manifest as it is in the folder.
    pub manifest: Manifest,
}

/// The name of a model whose manifest cannot be read, and the reason.
pub type UnreadModel = (String, ModelError);

/// A model that is to be installed: its manifest, without the list of files, and its files.
pub(crate) struct Candidate {
    pub(crate) manifest: Manifest,
    pub(crate) files: Vec<(Role, Vec<u8>)>,
}

/// The folder of installed models.
#[derive(Debug, Clone)]
pub struct ModelStore {
    dir: PathBuf,
}

impl ModelStore {
    /// Opens the folder, and creates it if it does not exist. A folder that cannot be created because of permissions or
    /// a read-only file system counts as a folder without models.
    ///
    /// # Errors
    /// `Io` for any other failure to create the folder.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, ModelError> {
        let dir = dir.into();
        let files = dir.join("files");
        match make_folder(&files) {
            Err(error)
                if !matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) =>
            {
                Err(io_error("make the folder", &files)(error))
            }
            _ => Ok(Self { dir }),
        }
    }

    /// Takes the installer's lock of this folder, which one process at a time holds, until the returned file is
    /// dropped. A caller that had to wait should look again at what is installed. Blocking.
    ///
    /// # Errors
    /// `Io`.
    pub fn lock_installs(&self) -> Result<fs::File, ModelError> {
        let path = self.dir.join(".installing");
        let file = fs::File::options().create(true).append(true).open(&path).map_err(io_error("open", &path))?;
        file.lock().map_err(io_error("lock", &path))?;
        Ok(file)
    }

    /// The folder of this store.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The last time when a manifest was added to the folder or removed from it.
    #[cfg(feature = "opencv")]
    pub(crate) fn changed(&self) -> Result<std::time::SystemTime, ModelError> {
        match fs::metadata(&self.dir).and_then(|folder| folder.modified()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(std::time::SystemTime::UNIX_EPOCH),
            changed => changed.map_err(io_error("look at", &self.dir)),
        }
    }

    /// Every installed model, sorted by kind and name.
    ///
    /// # Errors
    /// `Io`; `BadManifest` if a manifest in the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Installed>, ModelError> {
        let (found, mut unread) = self.look()?;
        if unread.is_empty() { Ok(found) } else { Err(unread.swap_remove(0).1) }
    }

    /// Every installed model, sorted by kind and name; and every manifest that cannot be read, sorted by name.
    ///
    /// # Errors
    /// `Io` if the folder cannot be listed.
    pub fn look(&self) -> Result<(Vec<Installed>, Vec<UnreadModel>), ModelError> {
        let (mut found, mut unread) = (Vec::new(), Vec::new());
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((found, unread)),
            Err(error) => return Err(io_error("list", &self.dir)(error)),
        };
        for entry in entries {
            let path = entry.map_err(io_error("list", &self.dir))?.path();
            if path.extension().is_some_and(|e| e == "toml") {
                match Self::read(&path) {
                    Ok(one) => found.push(one),
                    Err(error) => {
                        unread.push((path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), error));
                    }
                }
            }
        }
        unread.sort_by(|a, b| a.0.cmp(&b.0));
        found.sort_by(|a, b| (a.model.kind, &a.model.name).cmp(&(b.model.kind, &b.model.name)));
        Ok((found, unread))
    }

    fn read(path: &Path) -> Result<Installed, ModelError> {
        let bytes = read_bounded(path, MAX_MANIFEST)?;
        let bad = |message: String| ModelError::BadManifest { path: path.to_owned(), message };
        let text = std::str::from_utf8(&bytes).map_err(|err| bad(err.to_string()))?;
        let manifest = Manifest::parse(text).map_err(bad)?;
        Ok(Installed { model: manifest.model(Digest::of(&bytes)), manifest })
    }

    /// Reads a file of an installed model and compares it with its digest.
    ///
    /// # Errors
    /// `Io`, `TooLarge`, `WrongDigest`.
    pub fn load(&self, file: &File) -> Result<Vec<u8>, ModelError> {
        let path = self.dir.join("files").join(file.digest.hex());
        let bytes = read_bounded(&path, MAX_FILE)?;
        let found = Digest::of(&bytes);
        if found == file.digest {
            Ok(bytes)
        } else {
            Err(ModelError::WrongDigest { path, expected: file.digest, found })
        }
    }

    /// The path of a file of an installed model, after a comparison of its content with its digest. For large files
    /// that another library reads: this function reads the file in chunks.
    ///
    /// # Errors
    /// `Io`, `WrongDigest`.
    pub fn locate(&self, file: &File) -> Result<PathBuf, ModelError> {
        let path = self.dir.join("files").join(file.digest.hex());
        let mut reader = fs::File::open(&path).map_err(io_error("open", &path))?;
        let found = Digest::of_reader(&mut reader).map_err(io_error("read", &path))?;
        if found == file.digest {
            return Ok(path);
        }
        Err(ModelError::WrongDigest { path, expected: file.digest, found })
    }

    /// The paths of an installed model's files that are missing or do not match their digests. Reads every file.
    #[must_use]
    pub fn damaged(&self, model: &Installed) -> Vec<PathBuf> {
        let files = model.manifest.files.iter().filter(|file| self.locate(file).is_err());
        files.map(|file| self.dir.join("files").join(file.digest.hex())).collect()
    }

    /// An installed model for [`ModelStore::adopt`] on another machine: the text of its manifest, and its files in the
    /// manifest's order.
    ///
    /// # Errors
    /// `Io`, `TooLarge`, `WrongDigest`.
    pub fn export(&self, model: &Installed) -> Result<(String, Vec<Vec<u8>>), ModelError> {
        let path = self.dir.join(format!("{}.toml", model.model.name));
        let text = String::from_utf8_lossy(&read_bounded(&path, MAX_MANIFEST)?).into_owned();
        let files = model.manifest.files.iter().map(|file| self.load(file)).collect::<Result<_, _>>()?;
        Ok((text, files))
    }

    /// Reads the manifest of an exported model without installing anything.
    ///
    /// # Errors
    /// `BadManifest`.
    pub fn describe(&self, text: &str) -> Result<Installed, ModelError> {
        let bad = |message: String| ModelError::BadManifest { path: self.dir.clone(), message };
        let manifest = Manifest::parse(text).map_err(bad)?;
        Ok(Installed { model: manifest.model(Digest::of(text.as_bytes())), manifest })
    }

    /// Installs a model that another machine checked and exported: the manifest with the digests of the files, and the
    /// files. Installing the same model again has no effect.
    ///
    /// # Errors
    /// `BadManifest`, `NameTaken`, `WrongDigest`, `Io`.
    pub fn adopt(&self, text: &str, files: &[Vec<u8>]) -> Result<Model, ModelError> {
        let Installed { model, manifest } = self.describe(text)?;
        for other in self.list()? {
            if other.model.name == model.name && other.model.digest != model.digest {
                return Err(ModelError::NameTaken { name: model.name.clone(), by: other.model.name });
            }
        }
        if files.len() != manifest.files.len() {
            let message = format!("it names {} files, and there are {}", manifest.files.len(), files.len());
            return Err(ModelError::BadManifest { path: self.dir.clone(), message });
        }
        for (file, bytes) in manifest.files.iter().zip(files) {
            let path = self.dir.join("files").join(file.digest.hex());
            let found = Digest::of(bytes);
            if found != file.digest {
                return Err(ModelError::WrongDigest { path, expected: file.digest, found });
            }
            self.write(&path, bytes)?;
        }
        self.write(&self.dir.join(format!("{}.toml", model.name)), text.as_bytes())?;
        Ok(model)
    }

    /// Installs a user's own model: an ONNX file or a cascade, and the manifest that describes it. Before it writes
    /// anything, it loads the network, runs it once on a black picture and compares the shape of the output with the
    /// manifest, in the engine that will run the network. Installing the same model again has no effect.
    ///
    /// # Errors
    /// `BadManifest`, `NameTaken`, `TooLarge`, `Unusable`, `Io`; `Unavailable` in a build without OpenCV.
    pub fn add(&self, file: &Path, manifest: &Path, engines: &Engines) -> Result<Model, ModelError> {
        self.add_after_trial(file, manifest, engines, &|_| Ok(()))
    }

    /// As [`ModelStore::add`]. `trial` gets the bytes before the network is loaded in this process, and may refuse the
    /// model.
    ///
    /// # Errors
    /// As [`ModelStore::add`]; the error of `trial`.
    pub fn add_after_trial(
        &self,
        file: &Path,
        manifest: &Path,
        engines: &Engines,
        trial: &dyn Fn(&OwnModel<'_>) -> Result<(), ModelError>,
    ) -> Result<Model, ModelError> {
        let text = read_bounded(manifest, MAX_MANIFEST)?;
        let mut candidate = own_model(&text, manifest)?;
        let bytes = read_bounded(file, MAX_FILE)?;
        trial(&OwnModel { name: &candidate.manifest.name, manifest: &text, file: &bytes })?;
        candidate.files[0].1 = bytes;
        check(&candidate, file, engines)?;
        self.install(vec![candidate], None).map(|mut models| models.remove(0))
    }

    /// Installs all candidates. Writes nothing unless each candidate's names are free. A name is also free if a model
    /// with the candidate's name has it whose source begins with `replaces`.
    pub(crate) fn install(&self, candidates: Vec<Candidate>, replaces: Option<&str>) -> Result<Vec<Model>, ModelError> {
        let installed = self.list()?;
        let mut prepared = Vec::new();
        for Candidate { mut manifest, files } in candidates {
            manifest.files = files
                .iter()
                .map(|(role, bytes)| File { role: *role, digest: Digest::of(bytes), bytes: bytes.len() as u64 })
                .collect();
            let text = toml::to_string(&manifest).expect("a manifest serializes to TOML");
            let model = manifest.model(Digest::of(text.as_bytes()));
            let mut present = false;
            for other in &installed {
                if other.model.digest == model.digest {
                    present = true;
                    continue;
                }
                let ours = other
                    .manifest
                    .source
                    .as_deref()
                    .zip(replaces)
                    .is_some_and(|(source, prefix)| source.starts_with(prefix));
                if ours && other.model.name == model.name {
                    continue;
                }
                let names = |m: &Model| std::iter::once(m.name.clone()).chain(m.aliases.clone()).collect::<Vec<_>>();
                let taken = names(&other.model);
                if let Some(name) = names(&model).into_iter().find(|n| taken.contains(n)) {
                    return Err(ModelError::NameTaken { name, by: other.model.name.clone() });
                }
            }
            prepared.push((model, text, files, present));
        }
        for (_, _, files, _) in &prepared {
            for (_, bytes) in files {
                self.write(&self.dir.join("files").join(Digest::of(bytes).hex()), bytes)?;
            }
        }
        for (model, text, _, present) in &prepared {
            if !present {
                self.write(&self.dir.join(format!("{}.toml", model.name)), text.as_bytes())?;
            }
        }
        Ok(prepared.into_iter().map(|(model, ..)| model).collect())
    }

    /// Writes a file durably and atomically: a reader sees the old file or the new one.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
        let parent = path.parent().unwrap_or(&self.dir);
        // A file with this content is not written again; a damaged file is.
        if fs::read(path).is_ok_and(|old| old == bytes) {
            return Ok(());
        }
        let mut file =
            tempfile::Builder::new().prefix(".new-").tempfile_in(parent).map_err(io_error("write in", parent))?;
        file.write_all(bytes).map_err(io_error("write", path))?;
        file.as_file().sync_all().map_err(io_error("sync", path))?;
        file.persist(path).map_err(|err| io_error("rename to", path)(err.error))?;
        fs::File::open(parent).and_then(|dir| dir.sync_all()).map_err(io_error("sync", parent))
    }
}

/// A user's own model as it was read.
#[derive(Debug, Clone, Copy)]
pub struct OwnModel<'a> {
    /// The name in the manifest.
    pub name: &'a str,
    /// The text of `model.toml`.
    pub manifest: &'a [u8],
    /// The network or the cascade.
    pub file: &'a [u8],
}

/// A user's own model by the text of its `model.toml`, with an empty file. `path` is the file that an error names.
fn own_model(text: &[u8], path: &Path) -> Result<Candidate, ModelError> {
    let bad = |message: String| ModelError::BadManifest { path: path.to_owned(), message };
    let manifest = Manifest::parse(std::str::from_utf8(text).map_err(|err| bad(err.to_string()))?).map_err(bad)?;
    if !manifest.files.is_empty() {
        return Err(bad("`files` is written by the store; leave it out".to_owned()));
    }
    let role = match manifest.output {
        Output::Cascade => Role::Cascade,
        Output::SsdAnchors => return Err(bad("`ssd_anchors` is only for imported models; use `boxes`".to_owned())),
        _ => Role::Network,
    };
    Ok(Candidate { files: vec![(role, Vec::new())], manifest })
}

/// Checks a user's own model as [`ModelStore::add`] does, and installs nothing. For a process of its own: a network can
/// end the process that runs it.
///
/// # Errors
/// As [`ModelStore::add`].
pub fn try_model(manifest: &[u8], file: Vec<u8>, engines: &Engines) -> Result<(), ModelError> {
    let mut candidate = own_model(manifest, Path::new("model.toml"))?;
    candidate.files[0].1 = file;
    check(&candidate, Path::new("model"), engines)
}

/// Loads the candidate and runs it once. `path` is the file that an error names.
pub(crate) fn check(candidate: &Candidate, path: &Path, engines: &Engines) -> Result<(), ModelError> {
    #[cfg(feature = "opencv")]
    {
        use dovetail_core::vision::ENGINE_UNAVAILABLE;

        let refused = |error| match error {
            VisionError::Scarce { .. } | VisionError::Unavailable { code: ENGINE_UNAVAILABLE, .. } => {
                ModelError::Engine(error)
            }
            error => {
                let (name, message) = (candidate.manifest.name.clone(), error.to_string());
                ModelError::Unusable { name, path: path.to_owned(), message }
            }
        };
        crate::cv::check_model(engines, &candidate.manifest, &candidate.files).map_err(refused)
    }
    #[cfg(not(feature = "opencv"))]
    {
        // The function keeps the signature of the build with OpenCV.
        let (_, _, _) = (candidate, path, engines);
        Err(ModelError::Unavailable(crate::BUILT_WITHOUT.to_owned()))
    }
}
