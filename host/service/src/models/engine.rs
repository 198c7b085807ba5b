//! The library of ONNX Runtime, the faster engine of the networks: downloads the pinned wheel with the user's pip, and
//! installs the library of the wheel in the data folder. The digests of the wheel and of the library are checked before
//! the library is written, and the engine checks the library again before it opens it.

use std::io::{Cursor, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use dovetail_core::Digest;
use dovetail_vision::{EngineChoice, LIBRARY, ONNXRUNTIME_VERSION, Release, file_digest, release};

use crate::documents::InstalledEngine;
use crate::files::{folder, look, temporary};
use crate::open::ENGINES;
use crate::paths::Shown as _;
use crate::{Error, Notice, Observer, Service};

/// The most bytes that a library or a notice in the wheel may have.
const MAX_MEMBER: u64 = 256 << 20;
/// The licence and the notices of the library, which are installed beside it.
const NOTICES: [&str; 2] = ["LICENSE", "ThirdPartyNotices.txt"];
/// Commands that start pip, in the order in which they are tried.
const PIPS: [&[&str]; 3] = [&["python3", "-m", "pip"], &["pip3"], &["pip"]];

/// The code of a download that is not the pinned file.
const WRONG_CONTENT: &str = "wrong_engine";
const UNUSED: &str = "leave --engine out; or remove `vision.engine` and `vision.onnxruntime` from the settings";

/// Where the library comes from.
#[derive(Debug, Clone, Copy)]
pub enum EngineSource<'a> {
    /// The wheel, or the library, in a file.
    File(&'a Path),
    /// The package index of the user's pip.
    Index,
    /// Nowhere: the library is only looked for in the data folder.
    None,
}

impl Service {
    /// Installs the pinned library of ONNX Runtime, unless the data folder has it. None: the library is not installed,
    /// because the settings ask for OpenCV, because there is no release for this machine, or because it could not be
    /// downloaded (the observer gets a notice, since OpenCV runs the networks then).
    ///
    /// # Errors
    /// `missing_file`, `bad_engine`, `engine_not_used`; if the library cannot be written; `wrong_engine` if the
    /// download is not the pinned file; if the settings ask for ONNX Runtime and the library cannot be downloaded:
    /// `pip_missing`, `pip_failed`, `no_engine_release`.
    pub fn install_engine(
        &self,
        source: EngineSource<'_>,
        observer: &dyn Observer,
    ) -> Result<Option<InstalledEngine>, Error> {
        let settings = &self.settings;
        let must = settings.engine == EngineChoice::OnnxRuntime;
        let named = matches!(source, EngineSource::File(_));
        if settings.engine == EngineChoice::Opencv || settings.onnxruntime.is_some() {
            let message = "the settings ask for OpenCV or name another library, so this one would have no effect";
            return if named { Err(Error::usage("engine_not_used", message).help(UNUSED)) } else { Ok(None) };
        }
        let place = settings.data.join(ENGINES).join(LIBRARY);
        let Some(release) = release() else {
            return if must || named { Err(no_release()) } else { Ok(None) };
        };
        let digest = release.digest().ok_or_else(no_release)?;
        // A file that the caller names is looked at in any case.
        let from_file = match source {
            EngineSource::File(file) => Some(Members::of_file(file, &release)?),
            EngineSource::Index | EngineSource::None => None,
        };
        if file_digest(&place).is_ok_and(|found| found == digest) {
            return Ok(Some(installed(&place, digest, false)));
        }
        let got = match (from_file, source) {
            (Some(members), _) => members,
            (None, EngineSource::Index) => match download(&release, observer) {
                Ok(members) => members,
                // A file with another content is no matter of the network, and must not be passed over.
                Err(error) if must || error.code == WRONG_CONTENT => return Err(error),
                Err(error) => {
                    observer.notice(&Notice::NoEngine(format!("{}; {}", error.chain(), offline(&release, &place))));
                    return Ok(None);
                }
            },
            (None, _) => {
                observer.notice(&Notice::NoEngine(offline(&release, &place)));
                return Ok(None);
            }
        };
        // Makes the data folder, or says why that is not possible.
        self.models()?;
        let into = settings.data.join(ENGINES);
        crate::make_folder(&into).map_err(|e| Error::write(&into, e))?;
        for (name, bytes) in got.notices {
            write(&into.join(name), &bytes)?;
        }
        // A process that has the library open keeps the old file: the new one is another file of the same name.
        write(&place, &got.library)?;
        Ok(Some(installed(&place, digest, true)))
    }
}

fn installed(place: &Path, digest: Digest, new: bool) -> InstalledEngine {
    InstalledEngine {
        name: "onnxruntime".to_owned(),
        version: ONNXRUNTIME_VERSION.to_owned(),
        library: place.text(),
        digest,
        installed: new,
    }
}

fn no_release() -> Error {
    let arch = std::env::consts::ARCH;
    Error::usage("no_engine_release", format!("there is no pinned release of ONNX Runtime for {arch}"))
        .help("set `vision.engine = \"opencv\"`, or name a library of ONNX Runtime in `vision.onnxruntime`")
}

/// What to do without a network.
fn offline(release: &Release, place: &Path) -> String {
    format!(
        "to install it without a network, download the wheel of Python's package onnxruntime {ONNXRUNTIME_VERSION} for \
         {} elsewhere, and name it with `dovetail models pull --engine WHEEL`; or copy its {LIBRARY} (sha256 {}) \
         to `{}`",
        release.platform,
        release.library,
        place.shown()
    )
}

/// The files of a release.
struct Members {
    library: Vec<u8>,
    notices: Vec<(&'static str, Vec<u8>)>,
}

impl Members {
    /// The members of a wheel; or the library alone.
    fn of_file(path: &Path, release: &Release) -> Result<Self, Error> {
        look(path)?;
        let file = std::fs::File::open(path).map_err(|e| Error::file(path, e))?;
        let mut bytes = Vec::new();
        file.take(MAX_MEMBER).read_to_end(&mut bytes).map_err(|e| Error::file(path, e))?;
        Self::of_bytes(bytes, release).map_err(|why| {
            Error::usage("bad_engine", format!("`{}` {why}", path.shown())).help(format!(
                "name the wheel of onnxruntime {ONNXRUNTIME_VERSION} for {} and CPython 3.11 (sha256 {}), or its \
                 {LIBRARY} (sha256 {})",
                release.platform, release.wheel, release.library
            ))
        })
    }

    /// As [`Members::of_file`]. The error continues a sentence that begins with the file's name.
    fn of_bytes(bytes: Vec<u8>, release: &Release) -> Result<Self, String> {
        let found = Digest::of(&bytes);
        if Some(found) == release.digest() {
            return Ok(Self { library: bytes, notices: Vec::new() });
        }
        if release.wheel.parse() != Ok(found) {
            return Err(format!("is neither the pinned wheel nor its library: its digest is {found}"));
        }
        let members = Self::of_wheel(bytes).map_err(|why| format!("cannot be unpacked: {why}"))?;
        let found = Digest::of(&members.library);
        if Some(found) != release.digest() {
            return Err(format!("has a library with the digest {found}"));
        }
        Ok(members)
    }

    fn of_wheel(bytes: Vec<u8>) -> Result<Self, String> {
        let mut wheel = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
        let mut member = |name: &str| {
            let member = wheel.by_name(name).map_err(|error| format!("{name}: {error}"))?;
            let mut bytes = Vec::new();
            member.take(MAX_MEMBER).read_to_end(&mut bytes).map_err(|error| format!("{name}: {error}"))?;
            Ok::<_, String>(bytes)
        };
        let library = member(&format!("onnxruntime/capi/{LIBRARY}"))?;
        let notices = NOTICES.map(|name| member(&format!("onnxruntime/{name}")).map(|bytes| (name, bytes)));
        Ok(Self { library, notices: notices.into_iter().collect::<Result<_, _>>()? })
    }
}

/// Writes a file by a rename, durably: a reader sees the old file or the whole new one.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(path);
    let failed = |e| Error::write(path, e);
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(parent).map_err(failed)?;
    // Workers of other users of this machine read the library, too.
    let readable = std::fs::Permissions::from_mode(0o644);
    file.as_file().set_permissions(readable).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    std::fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)
}

/// Downloads the wheel with the user's pip, and so with the user's index, proxy and cache.
fn download(release: &Release, observer: &dyn Observer) -> Result<Members, Error> {
    observer.notice(&Notice::FetchingEngine);
    let scratch = temporary("dovetail-")?;
    let output = run_pip(scratch.path(), release)?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let last = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned();
        return Err(Error::host(
            "pip_failed",
            format!("pip could not download ONNX Runtime ({}): {last}", output.status),
        )
        .help("check the network and pip's settings, or name the wheel with --engine"));
    }
    let wheel = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "whl");
    let wheel = folder(scratch.path())?.into_iter().find(wheel);
    let wheel = wheel.ok_or_else(|| Error::host("pip_failed", "pip downloaded no wheel of ONNX Runtime"))?;
    look(&wheel)?;
    let bytes = std::fs::read(&wheel).map_err(|e| Error::file(&wheel, e))?;
    Members::of_bytes(bytes, release).map_err(|why| {
        Error::host(WRONG_CONTENT, format!("the file that pip downloaded {why}"))
            .help("the index of pip gives another content than the pinned one: check its settings (`pip config list`)")
    })
}

fn run_pip(into: &Path, release: &Release) -> Result<Output, Error> {
    let package = format!("onnxruntime=={ONNXRUNTIME_VERSION}");
    for pip in PIPS {
        let (program, first) = pip.split_first().unwrap_or((&"pip", &[]));
        let ran = Command::new(program)
            .args(first)
            .args(["download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"])
            .args(["--only-binary=:all:", "--implementation", "cp", "--python-version", "3.11"])
            .args(["--platform", release.platform, "--dest", ".", &package])
            .current_dir(into)
            .stdin(Stdio::null())
            .output();
        match ran {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::host("pip_failed", format!("start {program}")).cause(error)),
            // Python is here without pip.
            Ok(output) if String::from_utf8_lossy(&output.stderr).contains("No module named pip") => {}
            Ok(output) => return Ok(output),
        }
    }
    Err(Error::host("pip_missing", "pip is not installed, which downloads ONNX Runtime")
        .help("install it (Debian: apt-get install python3-pip), or name the wheel with --engine"))
}
