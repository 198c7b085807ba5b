//! The one error type of the service: a code, a message and a remedy. Errors of other crates are converted by their
//! type, never by their text.

use std::error::Error as StdError;
use std::path::Path;

use dovetail_core::RunId;
use dovetail_core::blobs::{Store, StoreError, StoreErrorKind};
use dovetail_core::executor::HostError;
use dovetail_core::scarce::Scarce;
use dovetail_core::vision::VisionError;
use dovetail_core::wit::ValueError;
use dovetail_flow::FlowError;
use dovetail_runtime::{LoadError, Refusal};
use dovetail_vision::ModelError;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::documents::{ErrorBody, ErrorDocument};
use crate::paths::Shown as _;

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The caller's. Nothing was recorded. The command line program exits with 2.
    Usage,
    /// The program's, its machine's or a server's. The command line program exits with 3.
    Host,
}

/// Why a request failed.
#[derive(Debug)]
pub struct Error {
    /// Whose fault the error is.
    pub blame: Blame,
    /// A stable name in snake_case.
    pub code: &'static str,
    /// What failed and where, without the causes ([`Error::chain`] adds them).
    pub message: String,
    /// What the caller can do about the error.
    pub help: Option<String>,
    /// The values that the message mentions, by name, for programs.
    pub details: Box<Map<String, Value>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error that the caller made ([`Blame::Usage`]).
    pub fn usage(code: &'static str, message: impl Into<String>) -> Self {
        Self { blame: Blame::Usage, code, message: message.into(), help: None, details: Box::default(), source: None }
    }

    /// An error of the program, its machine or a server ([`Blame::Host`]).
    pub fn host(code: &'static str, message: impl Into<String>) -> Self {
        Self { blame: Blame::Host, ..Self::usage(code, message) }
    }

    /// The error with this remedy. If the cause is a limit of the system, the error keeps the remedy that names the
    /// limit.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        if self.scarce_cause().is_none() {
            self.help = Some(help.into());
        }
        self
    }

    /// The error with one more detail for programs.
    pub fn detail(mut self, name: &str, value: impl Serialize) -> Self {
        self.details.insert(name.to_owned(), serde_json::to_value(value).unwrap_or_default());
        self
    }

    /// The error with the file's path before the message.
    pub fn of_file(mut self, path: &Path) -> Self {
        self.message = format!("{}: {}", path.shown(), self.message);
        self
    }

    /// The error with the run's ID before the message.
    pub fn of_run(mut self, run: &RunId) -> Self {
        self.message = format!("run {run}: {}", self.message);
        self
    }

    /// The error with its cause. A cause that is a limit of the system (memory, descriptors, threads) makes the error
    /// the host's, with the limit's own code and remedy.
    pub fn cause(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(cause.into());
        // Neither another command nor another file helps if the system refuses this process memory, descriptors or
        // threads. The remedy of the operation would mislead.
        if let Some(scarce) = self.scarce_cause() {
            (self.blame, self.code, self.help) = (Blame::Host, scarce.code(), Some(raise(scarce)));
        }
        self
    }

    fn scarce_cause(&self) -> Option<Scarce> {
        Scarce::behind(self.source.as_deref()?)
    }

    /// A file that the caller named and that cannot be read: `missing_file`, `unreadable_file` or `not_a_file`.
    pub fn file(path: &Path, error: std::io::Error) -> Self {
        let (code, help) = match error.kind() {
            std::io::ErrorKind::NotFound => {
                ("missing_file", "check the path; it is relative to the folder in which the command is started")
            }
            std::io::ErrorKind::PermissionDenied => ("unreadable_file", "change the permissions of the file"),
            std::io::ErrorKind::IsADirectory => ("not_a_file", "name a file"),
            _ => ("unreadable_file", "check the path"),
        };
        Self::usage(code, format!("read `{}`", path.shown())).cause(error).help(help).detail("path", path.text())
    }

    /// The system refused this process memory, descriptors or threads. The remedy names the limit and its value.
    pub(crate) fn scarce(scarce: Scarce, message: impl Into<String>) -> Self {
        Self::host(scarce.code(), message).help(raise(scarce))
    }

    /// A file that this program cannot write: `unwritable_file`.
    pub fn write(path: &Path, error: std::io::Error) -> Self {
        let help = remedy(error.kind());
        Self::host("unwritable_file", format!("write `{}`", path.shown()))
            .cause(error)
            .help(help)
            .detail("path", path.text())
    }

    /// Standard output that cannot be written: `unwritable_output`.
    pub fn output(error: std::io::Error) -> Self {
        let help = "make room there, or redirect the output; the command has done its work, and its records can be \
            shown again";
        Self::host("unwritable_output", "write to standard output").cause(error).help(help)
    }

    /// Values that do not fit their types: `bad_input`, with one line for each misfit.
    pub(crate) fn values(errors: &[ValueError]) -> Self {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let mut message = "the inputs do not fit".to_owned();
        for line in &lines {
            message.push_str("\n  ");
            message.push_str(line);
        }
        Self::usage("bad_input", message).detail("errors", errors)
    }

    /// The message, and after it each cause, separated by colons.
    pub fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = self.source.as_ref().map(|cause| cause.as_ref() as &dyn StdError);
        while let Some(error) = cause {
            let next = error.to_string();
            // The message of a transparent wrapper is that of its cause.
            if !text.ends_with(&next) {
                text.push_str(": ");
                text.push_str(&next);
            }
            cause = error.source();
        }
        text
    }

    /// The error as the document that every front door gives to programs.
    #[must_use]
    pub fn document(&self) -> ErrorDocument {
        ErrorDocument { error: self.body() }
    }

    /// The body of [`Error::document`], for documents that hold more than an error.
    #[must_use]
    pub fn body(&self) -> ErrorBody {
        ErrorBody {
            code: self.code.to_owned(),
            message: self.chain(),
            help: self.help.clone(),
            details: (*self.details).clone(),
        }
    }
}

impl From<FlowError> for Error {
    fn from(error: FlowError) -> Self {
        match error {
            FlowError::Store(error) => error.into(),
            FlowError::Host(error) => error.into(),
            FlowError::Missing { code, source } => Self::host(code, source.operation).help(
                "push the task again with `dovetail task push`, or restore the store; `dovetail doctor --deep` lists \
                 everything that is missing",
            ),
            FlowError::Panic(message) => Self::host("host_panicked", message)
                .help("this is a bug of dovetail: please report it; the run stays open"),
            FlowError::Refused { code, message, help } => Self { help, ..Self::usage(code, message) },
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let (code, help) = match error.kind {
            StoreErrorKind::Unavailable => {
                ("store_unavailable", "try again; `dovetail doctor` checks the data folder and each server")
            }
            StoreErrorKind::Missing => {
                ("store_missing", "the data folder is incomplete: restore it, or publish and submit again")
            }
            StoreErrorKind::Corrupt => ("store_corrupt", "the data folder is damaged: restore it from a copy"),
            StoreErrorKind::Conflict => ("store_conflict", "try again"),
            StoreErrorKind::Refused => (
                "store_refused",
                "`dovetail doctor` checks the data folder, its disk and each server, and says what to change",
            ),
            StoreErrorKind::Full => ("store_refused", MAKE_ROOM),
            StoreErrorKind::Invalid if error.store == Some(Store::Blobs) => (
                "bad_setting",
                "correct DOVETAIL_S3_ACCESS_KEY and DOVETAIL_S3_SECRET_KEY, or the file that `credentials=` in the \
                 setting `blobs` names",
            ),
            StoreErrorKind::Invalid => (
                "bad_setting",
                "correct the setting: `queue`, `meta` and `blobs` in dovetail.toml, DOVETAIL_* variables or flags \
                 name the stores",
            ),
            StoreErrorKind::Newer => {
                ("store_newer", "use the newer dovetail that wrote this data folder, or another --data")
            }
        };
        let StoreError { operation, source, kind, .. } = error;
        let new = if kind == StoreErrorKind::Invalid { Self::usage } else { Self::host };
        let error = new(code, operation).help(help);
        match source {
            Some(source) => error.cause(source),
            None => error,
        }
    }
}

impl From<HostError> for Error {
    fn from(error: HostError) -> Self {
        let HostError { operation, source, transient, missing } = error;
        let code = missing.unwrap_or(if transient { "host_unavailable" } else { "host_failed" });
        let full = source.as_deref().is_some_and(|source| is_full(source));
        let error = Self::host(code, operation).help(if full {
            MAKE_ROOM
        } else {
            "`dovetail doctor` checks what the program needs"
        });
        match source {
            Some(source) => error.cause(source),
            None => error,
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::usage(refusal.code, refusal.message).help(refusal.help)
    }
}

impl From<LoadError> for Error {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Refused(refusal) => refusal.into(),
            LoadError::Host(error) => error.into(),
        }
    }
}

impl From<VisionError> for Error {
    fn from(error: VisionError) -> Self {
        match error {
            VisionError::Invalid { code, message } => Self::usage(code, message),
            VisionError::Stopped(_) => Self::host("stopped", error.to_string()),
            VisionError::Unavailable { code, message } => Self::host(code, message).help("see `dovetail doctor`"),
            VisionError::Scarce { scarce, message } => Self::scarce(scarce, message),
        }
    }
}

impl From<ModelError> for Error {
    fn from(error: ModelError) -> Self {
        let code = error.code();
        let new = match &error {
            ModelError::Engine(_) | ModelError::Io { .. } | ModelError::Unavailable(_) => Self::host,
            _ => Self::usage,
        };
        let made = new(code, error.to_string());
        let made = match &error {
            ModelError::BadManifest { .. } => made.help("docs/models.md describes model.toml, with examples"),
            ModelError::Unusable { .. } => made
                .help("use a network or a cascade that matches its model.toml; docs/models.md describes each `output`"),
            ModelError::WrongDigest { .. } => made.help(
                "download the package again, or install the model again with `dovetail models pull` or `models add`",
            ),
            ModelError::Io { source, .. } => made.help(remedy(source.kind())),
            ModelError::Unavailable(_) => made.help("use a dovetail that was built with OpenCV"),
            _ => made,
        };
        match error {
            ModelError::Io { source, .. } => made.cause(source),
            ModelError::Weights { source, .. } => made.cause(source),
            _ => made,
        }
    }
}

/// The remedy for a refused resource: which limit to raise, and the limit's present value.
fn raise(scarce: Scarce) -> String {
    use rustix::process::{Resource, getrlimit};
    let now = |resource, divisor: u64| match getrlimit(resource).current {
        Some(limit) => format!("it is {} now", limit / divisor),
        None => "it is unlimited now, so the machine or its container has no more".to_owned(),
    };
    match scarce {
        Scarce::Memory => format!(
            "raise the limit of address space (`ulimit -v`, in KiB: {}), give the machine or the container more \
             memory, or let fewer tasks run at once with --jobs; each task that runs reserves 4 GiB of addresses",
            now(Resource::As, 1024)
        ),
        Scarce::Descriptors => {
            format!(
                "raise the limit of open files (`ulimit -n`: {}), or use a smaller --jobs",
                now(Resource::Nofile, 1)
            )
        }
        Scarce::Threads => format!(
            "raise the limits of processes and of address space (`ulimit -u`: {}; `ulimit -v`, in KiB: {}), or use a \
             smaller --jobs",
            now(Resource::Nproc, 1),
            now(Resource::As, 1024)
        ),
    }
}

const MAKE_ROOM: &str = "make room on that disk and try again; no partial file was left";

/// Whether a cause of the error is a full disk or an exceeded quota.
fn is_full(error: &(dyn StdError + 'static)) -> bool {
    let of_store = || error.downcast_ref::<StoreError>().is_some_and(|error| error.kind == StoreErrorKind::Full);
    let of_disk = || error.downcast_ref::<std::io::Error>().is_some_and(|error| no_room(error.kind()));
    of_store() || of_disk() || error.source().is_some_and(is_full)
}

/// The remedy for a data folder that cannot be written. Rights are no remedy if the disk is full.
pub(crate) fn unwritable(kind: std::io::ErrorKind, otherwise: &'static str) -> &'static str {
    if no_room(kind) { "make room on that disk, or name another folder with --data DIR" } else { otherwise }
}

fn no_room(kind: std::io::ErrorKind) -> bool {
    matches!(kind, std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// The remedy for a file that this program cannot write.
fn remedy(kind: std::io::ErrorKind) -> &'static str {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    match kind {
        _ if no_room(kind) => MAKE_ROOM,
        PermissionDenied | ReadOnlyFilesystem => {
            "change the permissions, or name another folder (--data DIR for the data folder)"
        }
        _ => "`dovetail doctor` checks the data folder and its disk",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let cause = std::io::Error::new(std::io::ErrorKind::NotFound, "no such file");
        let error = Error::file(Path::new("a.jpg"), cause);
        assert_eq!(error.chain(), "read `a.jpg`: no such file");
        assert_eq!((error.blame, error.code), (Blame::Usage, "missing_file"));
        assert!(error.help.as_deref().unwrap().starts_with("check the path"), "{error:?}");
    }

    #[test]
    fn what_the_system_refuses_is_told_with_its_limit_whatever_was_tried() {
        let refused = |code| std::io::Error::from_raw_os_error(code);
        let file = Error::file(Path::new("a.jpg"), refused(24)).help("check the path");
        assert_eq!((file.blame, file.code), (Blame::Host, "too_few_descriptors"));
        assert!(file.help.as_deref().unwrap().contains("`ulimit -n`: it is "), "{file:?}");
        let store = StoreError::new(StoreErrorKind::Unavailable, "read x", refused(23));
        let host =
            HostError { operation: "load it".into(), transient: true, missing: None, source: Some(store.into()) };
        assert_eq!(Error::from(host).code, "too_few_descriptors");
        let memory =
            HostError { operation: "map it".into(), transient: false, missing: None, source: Some(refused(12).into()) };
        let memory = Error::from(memory);
        assert_eq!((memory.blame, memory.code), (Blame::Host, "no_memory"));
        assert!(memory.help.as_deref().unwrap().contains("`ulimit -v`"), "{memory:?}");
        // An error that is no refused resource keeps its blame.
        assert_eq!(Error::file(Path::new("a.jpg"), refused(13)).blame, Blame::Usage);
    }

    #[test]
    fn stores_are_the_hosts_fault() {
        let error = Error::from(StoreError::new(StoreErrorKind::Refused, "write x", "disk full"));
        assert_eq!((error.blame, error.code), (Blame::Host, "store_refused"));
        assert_eq!(error.document().error.message, "write x: disk full");
    }

    #[test]
    fn where_there_is_no_room_the_help_is_to_make_some() {
        use std::io::ErrorKind::{PermissionDenied, StorageFull};
        let full = || StoreError::new(StoreErrorKind::Full, "write x", std::io::Error::from(StorageFull));
        let of_host = |source: StoreError| {
            Error::from(HostError {
                operation: "store an artifact".into(),
                source: Some(source.into()),
                transient: false,
                missing: None,
            })
        };
        for error in [Error::from(full()), of_host(full())] {
            assert!(error.help.as_deref().unwrap().starts_with("make room on that disk"), "{error:?}");
        }
        let else_ = of_host(StoreError::plain(StoreErrorKind::Refused, "write x"));
        assert!(else_.help.as_deref().unwrap().contains("dovetail doctor"), "{else_:?}");
        assert!(
            unwritable(StorageFull, "rights").starts_with("make room")
                && unwritable(PermissionDenied, "rights") == "rights"
        );
    }

    #[test]
    fn every_json_error_has_all_four_keys() {
        let json = serde_json::to_value(Error::usage("x", "y").document()).unwrap();
        let keys: Vec<_> = json["error"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["code", "message", "help", "details"]);
    }
}
