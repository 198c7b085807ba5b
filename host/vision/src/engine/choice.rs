//! The choice of an engine: by the settings, and by the libraries that are found.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use dovetail_core::sync::lock;
use dovetail_core::vision::{ENGINE_FAILED, ENGINE_UNAVAILABLE, Engine, ModelKind, VisionError};

use super::graph::{Graph as _, LoadedGraph, Onnx};
use super::library::{LIBRARY, ONNXRUNTIME_VERSION, file_digest, installed, of_system, release};
use super::onnxruntime::{self, Library, OpenError};
use super::{EngineChoice, EngineFound, EngineOptions, opencv};
use crate::cv::scarce;
use crate::models::manifest::Manifest;

/// The engine that was chosen.
#[derive(Clone)]
enum Chosen {
    Opencv { why: String, is_fallback: bool },
    OnnxRuntime { library: Library, why: String },
}

/// The engine that will be chosen, unless its library cannot be opened.
#[derive(Clone)]
enum Plan {
    Opencv { why: String },
    OnnxRuntime { path: PathBuf, place: Place },
}

/// The engines of a process. ONNX Runtime is opened when the first network is loaded.
pub struct Engines {
    options: EngineOptions,
    /// Made once, so that every look at the library is at the same file.
    planned: OnceLock<Plan>,
    /// What [`Engines::expected`] found.
    expected: OnceLock<Engine>,
    chosen: Mutex<Option<Chosen>>,
}

impl std::fmt::Debug for Engines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engines").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Where a library was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Setting,
    Data,
    System,
}

impl Place {
    fn words(self) -> &'static str {
        match self {
            Self::Setting => "the setting `vision.onnxruntime` names its library",
            Self::Data => "its library is in the data folder",
            Self::System => "the system has its library",
        }
    }
}

impl Engines {
    /// Opens nothing.
    #[must_use]
    pub fn new(options: EngineOptions) -> Self {
        Self { options, planned: OnceLock::new(), expected: OnceLock::new(), chosen: Mutex::default() }
    }

    /// The engine of this process, with what a person needs to know of it. Opens the library.
    ///
    /// # Errors
    /// `Unavailable` with [`ENGINE_UNAVAILABLE`] if ONNX Runtime is asked for and cannot be used; `Scarce`.
    pub fn find(&self) -> Result<EngineFound, VisionError> {
        Ok(match self.choose()? {
            Chosen::Opencv { why, is_fallback } => {
                EngineFound { engine: opencv::engine(), library: None, digest: None, why, is_fallback }
            }
            Chosen::OnnxRuntime { library, why } => EngineFound {
                engine: library.engine(),
                digest: file_digest(&library.path).ok(),
                library: Some(library.path),
                why,
                is_fallback: false,
            },
        })
    }

    /// The engine that was chosen when the first network was loaded.
    pub(crate) fn chosen(&self) -> Option<Engine> {
        lock(&self.chosen).as_ref().map(|chosen| match chosen {
            Chosen::Opencv { .. } => opencv::engine(),
            Chosen::OnnxRuntime { library, .. } => library.engine(),
        })
    }

    /// The engine that this process runs networks in. Does not open the library if that is the pinned release: a worker
    /// tells its engine before a network is needed.
    ///
    /// # Errors
    /// As [`Engines::find`].
    pub fn expected(&self) -> Result<Engine, VisionError> {
        if let Some(chosen) = self.chosen() {
            return Ok(chosen);
        }
        let Plan::OnnxRuntime { path, .. } = self.plan()? else { return Ok(opencv::engine()) };
        if let Some(expected) = self.expected.get() {
            return Ok(expected.clone());
        }
        if is_pinned(&path).is_ok() {
            return Ok(self.expected.get_or_init(onnxruntime::pinned).clone());
        }
        Ok(self.find()?.engine)
    }

    fn choose(&self) -> Result<Chosen, VisionError> {
        let mut chosen = lock(&self.chosen);
        if let Some(chosen) = &*chosen {
            return Ok(chosen.clone());
        }
        let made = self.look()?;
        match &made {
            Chosen::Opencv { why, is_fallback: true } => tracing::warn!("networks run in OpenCV: {why}"),
            Chosen::Opencv { why, .. } => tracing::info!("networks run in OpenCV: {why}"),
            Chosen::OnnxRuntime { library, why } => {
                let (version, path) = (&library.version, library.path.display());
                tracing::info!(version, %path, "networks run in ONNX Runtime: {why}");
            }
        }
        Ok(chosen.insert(made).clone())
    }

    /// The engine by the settings and by the files that are there.
    fn plan(&self) -> Result<Plan, VisionError> {
        if let Some(planned) = self.planned.get() {
            return Ok(planned.clone());
        }
        let EngineOptions { choice, library, folder, .. } = &self.options;
        let made = if *choice == EngineChoice::Opencv {
            Plan::Opencv { why: "the setting `vision.engine` asks for it".to_owned() }
        } else if let Some(path) = library {
            Plan::OnnxRuntime { path: path.clone(), place: Place::Setting }
        } else if is_there(&installed(folder)) {
            Plan::OnnxRuntime { path: installed(folder), place: Place::Data }
        } else if let Some(path) = of_system() {
            Plan::OnnxRuntime { path, place: Place::System }
        } else if *choice == EngineChoice::OnnxRuntime {
            return Err(unavailable(&format!("no library of it is installed; {}", how_to_get(folder))));
        } else {
            // Not kept: `models pull` may install the library before the first network is loaded.
            return Ok(Plan::Opencv { why: "no library of ONNX Runtime is installed".to_owned() });
        };
        Ok(self.planned.get_or_init(|| made).clone())
    }

    fn look(&self) -> Result<Chosen, VisionError> {
        let EngineOptions { choice, folder, .. } = &self.options;
        let (path, place) = match self.plan()? {
            Plan::Opencv { why } => return Ok(Chosen::Opencv { why, is_fallback: false }),
            Plan::OnnxRuntime { path, place } => (path, place),
        };
        let opened = match place {
            Place::Data => is_pinned(&path).and_then(|()| onnxruntime::open(&path)),
            Place::Setting | Place::System => onnxruntime::open(&path),
        };
        match opened {
            Ok(library) => Ok(Chosen::OnnxRuntime { library, why: place.words().to_owned() }),
            Err(OpenError::Scarce(refused, message)) => {
                Err(scarce(refused, format!("open `{}`: {message}", path.display())))
            }
            Err(OpenError::Unusable(message)) => {
                let message = format!("`{}` cannot be used: {message}", path.display());
                let remedy = match place {
                    Place::Setting => {
                        "name another library in `vision.onnxruntime`, or leave the setting out".to_owned()
                    }
                    Place::Data => how_to_get(folder),
                    Place::System => format!("repair the system's library; or {}", how_to_get(folder)),
                };
                // An operator who named the engine or the library does not want another one without a word.
                if *choice == EngineChoice::OnnxRuntime || place == Place::Setting {
                    return Err(unavailable(&format!("{message}; {remedy}")));
                }
                Ok(Chosen::Opencv { why: format!("ONNX Runtime's {message}; {remedy}"), is_fallback: true })
            }
        }
    }

    /// Loads a network in the chosen engine. In `auto` OpenCV loads a network that ONNX Runtime refuses.
    ///
    /// # Errors
    /// The error of the engine; `Unavailable` with [`ENGINE_UNAVAILABLE`]; `Scarce`.
    pub(crate) fn load(&self, manifest: &Manifest, onnx: Onnx) -> Result<LoadedGraph, VisionError> {
        let Chosen::OnnxRuntime { library, .. } = self.choose()? else {
            return LoadedGraph::opencv(manifest, onnx);
        };
        match self.load_in(&library, manifest, onnx) {
            Err(VisionError::Unavailable { message, .. }) if self.options.choice == EngineChoice::Auto => {
                let loaded = LoadedGraph::opencv(manifest, onnx).map_err(|error| neither(&message, error))?;
                tracing::warn!(model = manifest.name, "this network runs in OpenCV, because {message}");
                Ok(loaded)
            }
            loaded => loaded,
        }
    }

    /// Loads a network in ONNX Runtime. Only detectors, which look at whole pictures, have threads of their own: face
    /// networks see one face at a time, and the threads of the pool share the faces.
    fn load_in(&self, library: &Library, manifest: &Manifest, onnx: Onnx) -> Result<LoadedGraph, VisionError> {
        let threads = if manifest.kind == ModelKind::Detector { self.options.threads } else { 1 };
        let mut graph = library.load(onnx, threads)?;
        // A user's network may have been checked in another engine, which takes types and shapes that this one refuses.
        // The default networks are known to run in both.
        if let Some(input) = manifest.input.filter(|_| !manifest.is_imported()) {
            let side = input.side as usize;
            graph.run([1, 3, side, side], &vec![0.0; 3 * side * side]).map_err(|error| match error {
                VisionError::Unavailable { message, .. } => VisionError::unavailable(ENGINE_FAILED, message),
                other => other,
            })?;
        }
        Ok(LoadedGraph { graph: Box::new(graph), engine: library.engine(), batch: 1 })
    }
}

fn neither(message: &str, error: VisionError) -> VisionError {
    match error {
        VisionError::Unavailable { code, message: other } => {
            VisionError::unavailable(code, format!("no engine can run the network: {message}; {other}"))
        }
        other => other,
    }
}

fn unavailable(message: &str) -> VisionError {
    VisionError::unavailable(ENGINE_UNAVAILABLE, format!("networks should run in ONNX Runtime: {message}"))
}

/// How the pinned library gets into the folder of engines.
fn how_to_get(folder: &Path) -> String {
    let place = installed(folder);
    match release() {
        Some(release) => format!(
            "`dovetail models pull` installs it; without a network, copy `{LIBRARY}` (sha256 {}) of the wheel \
             `onnxruntime` {ONNXRUNTIME_VERSION} for {} to `{}`",
            release.library,
            release.platform,
            place.display()
        ),
        None => format!(
            "there is no pinned library for {}; name a library of ONNX Runtime in `vision.onnxruntime`",
            std::env::consts::ARCH
        ),
    }
}

/// Compares the library in the data folder with its pinned digest, before it is opened.
fn is_pinned(path: &Path) -> Result<(), OpenError> {
    let wanted = release().and_then(|release| release.digest());
    let found = file_digest(path)?;
    if wanted == Some(found) {
        return Ok(());
    }
    let wanted = wanted.map_or_else(|| "no digest is pinned for this machine".to_owned(), |d| format!("expected {d}"));
    Err(OpenError::Unusable(format!("it is damaged, or another version: {wanted}, found {found}")))
}

/// Whether something has this path. A link that leads nowhere counts: its target should be there.
fn is_there(path: &Path) -> bool {
    !matches!(path.symlink_metadata(), Err(error) if error.kind() == std::io::ErrorKind::NotFound)
}
