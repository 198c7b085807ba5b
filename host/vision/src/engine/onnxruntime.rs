//! ONNX Runtime: a library that is opened at run time, and networks in it.
//!
//! A process opens one library for its whole life. Sessions have no memory pattern (it would take 37 MB in a process of
//! five networks, and gain no time), an arena (without it a detection takes 40 % longer), and threads that sleep while
//! they wait.

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use dovetail_core::error_chain::error_chain;
use dovetail_core::scarce::Scarce;
use dovetail_core::sync::lock;
use dovetail_core::vision::{ENGINE_FAILED, Engine, PASS_FAILED, VisionError};
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;

use super::elf;
use super::graph::{Graph, NetworkOutput, Onnx, broken, one_output};
use super::library::ONNXRUNTIME_VERSION;
use crate::cv::scarce;

/// The variable that keeps official builds from 1.29 on from writing and sending events. They read it when they start.
const NO_TELEMETRY: &str = "ORT_DISABLE_TELEMETRY";

/// An opened library.
#[derive(Clone)]
pub(crate) struct Library {
    environment: Environment,
    pub(super) path: PathBuf,
    /// The version that the library reports: `1.28.0`.
    pub(super) version: String,
    /// Held during a pass of a network that has threads of its own, so that two such passes do not overlap.
    wide: Arc<Mutex<()>>,
}

/// Why a library cannot be used.
pub(super) enum OpenError {
    /// The system refused a resource. Another try may succeed.
    Scarce(Scarce, String),
    /// The file is not a library that this program can use.
    Unusable(String),
}

static OPENED: Mutex<Option<Library>> = Mutex::new(None);

/// Opens the library, or returns the one that this process opened before from the same path.
pub(super) fn open(path: &Path) -> Result<Library, OpenError> {
    let mut opened = lock(&OPENED);
    if let Some(library) = opened.as_ref().filter(|library| library.path == path) {
        return Ok(library.clone());
    }
    elf::check(path)?;
    let (_handle, version) = reported_version(path)?;
    new_enough(&version)?;
    is_silent(&version)?;
    if let Some(library) = &*opened {
        let message = format!("this process has opened another library before: `{}`", library.path.display());
        return Err(OpenError::Unusable(message));
    }
    let builder = ort::init_from(path).map_err(|error| unopened(&error_chain(&error)))?;
    let environment = builder
        .with_name("dovetail")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build()
        .map_err(|error| unopened(&error.to_string()))?;
    // The calls return errors; the library's own lines about them would only repeat these.
    environment.set_log_level(LogLevel::Error);
    let library = Library { environment, path: path.to_owned(), version, wide: Arc::default() };
    *opened = Some(library.clone());
    Ok(library)
}

impl From<std::io::Error> for OpenError {
    fn from(error: std::io::Error) -> Self {
        match Scarce::behind(&error) {
            Some(refused) => Self::Scarce(refused, error.to_string()),
            None => Self::Unusable(error.to_string()),
        }
    }
}

fn unopened(message: &str) -> OpenError {
    match refused(message) {
        Some(scarce) => OpenError::Scarce(scarce, message.to_owned()),
        None => OpenError::Unusable(message.to_owned()),
    }
}

/// The resource that the system refused, by the words of the dynamic linker and of ONNX Runtime.
fn refused(message: &str) -> Option<Scarce> {
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    // A library with too much static storage for each thread fails in every try.
    if says(&["static TLS"]) {
        return None;
    }
    if says(&["bad_alloc", "Cannot allocate memory", "cannot allocate memory", "Failed to allocate memory"]) {
        Some(Scarce::Memory)
    } else if says(&["pthread_create", "Resource temporarily unavailable"]) {
        Some(Scarce::Threads)
    } else if says(&["Too many open files"]) {
        Some(Scarce::Descriptors)
    } else {
        None
    }
}

fn log(_: LogLevel, category: &str, _: &str, place: &str, message: &str) {
    tracing::debug!(category, place, "ONNX Runtime: {message}");
}

/// Keeps ONNX Runtime from writing and sending usage events, by a variable that official builds from 1.29 on read when
/// they start.
///
/// # Safety
/// No other thread may read or change the environment meanwhile: a program calls this before it starts a thread.
#[expect(unsafe_code, reason = "the environment is changed")]
pub unsafe fn forbid_telemetry() {
    // SAFETY: by the contract of this function.
    unsafe { std::env::set_var(NO_TELEMETRY, "1") };
}

/// Refuses a version that may send usage events, unless the variable forbids them.
fn is_silent(version: &str) -> Result<(), OpenError> {
    let sends = minor(version).is_some_and(|minor| minor >= FIRST_WITH_TELEMETRY);
    if !sends || std::env::var_os(NO_TELEMETRY).is_some_and(|value| value == "1") {
        return Ok(());
    }
    Err(OpenError::Unusable(format!("its version {version} may send usage events: set {NO_TELEMETRY}=1")))
}

/// The version that the library reports. Opens the library; it stays open if the caller opens it again before this
/// handle is dropped.
#[expect(unsafe_code, reason = "a library is opened, and a function in it is called")]
fn reported_version(path: &Path) -> Result<(libloading::Library, String), OpenError> {
    // SAFETY: opening runs the initialisers of the file. The file is one that the operator named, that the system has,
    // or whose digest is pinned.
    let library = unsafe { libloading::Library::new(path) }.map_err(|error| unopened(&error_chain(&error)))?;
    let none = || OpenError::Unusable("it is not ONNX Runtime: it has no `OrtGetApiBase`".to_owned());
    let version = {
        // SAFETY: every version of ONNX Runtime exports this function with this signature (onnxruntime_c_api.h).
        let base = unsafe { library.get::<unsafe extern "C" fn() -> *const ort::sys::OrtApiBase>(b"OrtGetApiBase") };
        let base = base.map_err(|_| none())?;
        // SAFETY: as above; the function has no precondition.
        let base = unsafe { base() };
        if base.is_null() {
            return Err(none());
        }
        // SAFETY: the base is a constant in the library, which `library` keeps open. Its first members are the same in
        // every version. The string is a constant that ends with a zero.
        unsafe { CStr::from_ptr(((*base).GetVersionString)()) }.to_string_lossy().into_owned()
    };
    Ok((library, version))
}

/// The oldest version that has the functions which this program calls, as the second number of `1.17.0`.
const OLDEST: u32 = 17;

/// The first version whose official builds send usage events.
const FIRST_WITH_TELEMETRY: u32 = 29;

/// The second number of a version `1.N...`.
fn minor(version: &str) -> Option<u32> {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
    (numbers.next()? == Some(1)).then(|| numbers.next().flatten())?
}

fn new_enough(version: &str) -> Result<(), OpenError> {
    if minor(version).is_some_and(|minor| minor >= OLDEST) {
        return Ok(());
    }
    Err(OpenError::Unusable(format!("its version is {version}: this program needs 1.{OLDEST} or a later 1.x")))
}

/// An error of the library about a network, with this code.
fn failed(code: &'static str) -> impl Fn(ort::Error) -> VisionError {
    move |error| {
        let message = format!("ONNX Runtime: {}", error.to_string().trim());
        match refused(&message) {
            Some(refused) => scarce(refused, message),
            None => VisionError::unavailable(code, message),
        }
    }
}

fn engine(version: &str) -> Engine {
    Engine { name: "onnxruntime".to_owned(), version: version.to_owned() }
}

/// The engine of the pinned release.
pub(super) fn pinned() -> Engine {
    engine(ONNXRUNTIME_VERSION)
}

impl Library {
    /// The engine's name and version, for the lineage.
    pub(crate) fn engine(&self) -> Engine {
        engine(&self.version)
    }

    /// Loads a network. `threads`: those of a pass. With one thread a pass runs on its caller's thread.
    ///
    /// # Errors
    /// `Unavailable` with [`ENGINE_FAILED`], or with `broken_model` if the network does not have exactly one input
    /// and one output; `Scarce`.
    pub(crate) fn load(&self, onnx: Onnx, threads: usize) -> Result<OrtGraph, VisionError> {
        may_start(threads.saturating_sub(1))
            .map_err(|error| scarce(Scarce::Threads, format!("start the threads of a network: {error}")))?;
        let session = self.session(onnx, threads.max(1)).map_err(failed(ENGINE_FAILED))?;
        one_output(session.outputs().len())?;
        if session.inputs().len() != 1 {
            return Err(broken(format!("the network has {} inputs: it must have exactly one", session.inputs().len())));
        }
        Ok(OrtGraph { session, wide: (threads > 1).then(|| Arc::clone(&self.wide)) })
    }

    fn session(&self, onnx: Onnx, threads: usize) -> Result<Session, ort::Error> {
        let mut builder = Session::builder(&self.environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(threads)?
            .with_inter_threads(1)?
            .with_intra_op_spinning(false)?
            .with_memory_pattern(false)?;
        match onnx {
            Onnx::File(path) => builder.commit_from_file(path),
            Onnx::Bytes(bytes) => builder.commit_from_memory(bytes),
        }
    }
}

/// Starts and ends this number of threads. ONNX Runtime 1.28 waits for ever if the system refuses one of several
/// threads of a session, so the system is asked before.
///
/// # Errors
/// The system refuses a thread.
fn may_start(threads: usize) -> std::io::Result<()> {
    let (end, until) = crossbeam_channel::bounded::<()>(0);
    let started: Vec<_> = (0..threads)
        .map(|_| {
            let until = until.clone();
            std::thread::Builder::new().stack_size(64 << 10).spawn(move || until.recv().is_err())
        })
        .collect();
    drop(end);
    started.into_iter().try_for_each(|thread| {
        // The thread only waits, so it cannot panic.
        thread?.join().ok();
        Ok(())
    })
}

/// A network in ONNX Runtime.
pub(crate) struct OrtGraph {
    session: Session,
    wide: Option<Arc<Mutex<()>>>,
}

impl Graph for OrtGraph {
    fn run(&mut self, dims: [usize; 4], values: &[f32]) -> Result<NetworkOutput, VisionError> {
        let failed = failed(PASS_FAILED);
        let _wide = self.wide.as_deref().map(lock);
        let input = TensorRef::from_array_view((dims, values)).map_err(&failed)?;
        let outputs = self.session.run(ort::inputs![input]).map_err(&failed)?;
        let (shape, values) = outputs[0].try_extract_tensor::<f32>().map_err(&failed)?;
        let dims = shape.iter().map(|&side| usize::try_from(side).unwrap_or(0)).collect();
        Ok(NetworkOutput { dims, values: values.to_vec() })
    }
}
