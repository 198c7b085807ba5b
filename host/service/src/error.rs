//! The one error of the service: the fault, its place and its remedy. Errors of libraries enter here by type, never by
//! text.

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
use serde_json::{Map, Value, json};

use crate::documents::{ErrorBody, ErrorDocument};
use crate::paths::Shown as _;

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The caller's; nothing was recorded. Exit code 2 of the command line program.
    Usage,
    /// This program's, its machine's or a server's. Exit code 3.
    Host,
}

/// Why a request could not be done.
#[derive(Debug)]
pub struct Error {
    pub blame: Blame,
    /// Stable and snake_case.
    pub code: &'static str,
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// For machines.
    pub details: Box<Map<String, Value>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A mistake of whoever typed the command.
    pub fn usage(code: &'static str, message: impl Into<String>) -> Self {
        Self { blame: Blame::Usage, code, message: message.into(), help: None, details: Box::default(), source: None }
    }

    /// Ours, or the machine's.
    pub fn host(code: &'static str, message: impl Into<String>) -> Self {
        Self { blame: Blame::Host, ..Self::usage(code, message) }
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        if self.scarce_cause().is_none() {
            self.help = Some(help.into());
        }
        self
    }

    pub fn detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// The same, said of a file.
    pub fn of_file(mut self, path: &Path) -> Self {
        self.message = format!("{}: {}", path.shown(), self.message);
        self
    }

    /// The same, said of a run.
    pub fn of_run(mut self, run: &RunId) -> Self {
        self.message = format!("run {run}: {}", self.message);
        self
    }

    pub fn cause(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(cause.into());
        // Whatever was tried: what the system refuses this process is nothing that the command or a file could help.
        if let Some(scarce) = self.scarce_cause() {
            (self.blame, self.code, self.help) = (Blame::Host, scarce.code(), Some(raise(scarce)));
        }
        self
    }

    fn scarce_cause(&self) -> Option<Scarce> {
        Scarce::behind(self.source.as_deref()?)
    }

    /// A file that was named on the command line and cannot be read.
    pub fn file(path: &Path, error: std::io::Error) -> Self {
        let (code, help) = match error.kind() {
            std::io::ErrorKind::NotFound => {
                ("missing_file", "check the path; it is relative to the folder in which the command is started")
            }
            std::io::ErrorKind::PermissionDenied => ("unreadable_file", "give yourself the right to read it"),
            std::io::ErrorKind::IsADirectory => ("not_a_file", "name a file"),
            _ => ("unreadable_file", "check the path"),
        };
        Self::usage(code, format!("read `{}`", path.shown())).cause(error).help(help).detail("path", path.text())
    }

    /// The system refused this process something: whoever set the limit can raise it.
    pub fn scarce(scarce: Scarce, message: impl Into<String>) -> Self {
        Self::host(scarce.code(), message).help(raise(scarce))
    }

    /// A file that we cannot write.
    pub fn write(path: &Path, error: std::io::Error) -> Self {
        let help = remedy(error.kind());
        Self::host("unwritable_file", format!("write `{}`", path.shown()))
            .cause(error)
            .help(help)
            .detail("path", path.text())
    }

    /// Standard output that cannot be written.
    pub fn output(error: std::io::Error) -> Self {
        let help = "make room there, or send it elsewhere; what the command did is done, and what it recorded can be shown again";
        Self::host("unwritable_output", "write to standard output").cause(error).help(help)
    }

    /// Values that do not fit their types.
    pub fn values(errors: &[ValueError]) -> Self {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let mut message = "the inputs do not fit".to_owned();
        for line in &lines {
            message.push_str("\n  ");
            message.push_str(line);
        }
        Self::usage("bad_input", message).detail("errors", json!(errors))
    }

    /// The message with the causes behind it.
    pub fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = self.source.as_ref().map(|cause| cause.as_ref() as &dyn StdError);
        while let Some(error) = cause {
            let next = error.to_string();
            // A transparent wrapper repeats its cause.
            if !text.ends_with(&next) {
                text.push_str(": ");
                text.push_str(&next);
            }
            cause = error.source();
        }
        text
    }

    /// As every front door tells it to machines.
    #[must_use]
    pub fn document(&self) -> ErrorDocument {
        ErrorDocument { error: self.body() }
    }

    /// What [`ErrorDocument`] holds, for documents that hold more than an error.
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
                "it is not stored: push the task again with `dovetail task push`, or restore the store; \
                 `dovetail doctor --deep` names all that is missing",
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
                ("store_unavailable", "try again; `dovetail doctor` looks at the data folder and at each server")
            }
            StoreErrorKind::Missing => {
                ("store_missing", "the data folder is incomplete: restore it, or publish and submit again")
            }
            StoreErrorKind::Corrupt => ("store_corrupt", "the data folder is damaged: restore it from a copy"),
            StoreErrorKind::Conflict => ("store_conflict", "try again"),
            StoreErrorKind::Refused => (
                "store_refused",
                "`dovetail doctor` looks at the data folder, its disk and each server, and says what to change",
            ),
            StoreErrorKind::Full => ("store_refused", MAKE_ROOM),
            StoreErrorKind::Invalid if error.store == Some(Store::Blobs) => (
                "bad_setting",
                "mend DOVETAIL_S3_ACCESS_KEY and DOVETAIL_S3_SECRET_KEY, or the file that `credentials=` of the setting `blobs` names",
            ),
            StoreErrorKind::Invalid => (
                "bad_setting",
                "mend the setting: `queue`, `meta` and `blobs` of dovetail.toml, DOVETAIL_* or the flags name the stores",
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
            "`dovetail doctor` looks at what the program needs"
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
            ModelError::Io { .. } | ModelError::Unavailable(_) => Self::host,
            _ => Self::usage,
        };
        let made = new(code, error.to_string());
        let made = match &error {
            ModelError::BadManifest { .. } => made.help("docs/models.md tells what a model.toml says, with examples"),
            ModelError::Unusable { .. } => {
                made.help("give a network or a cascade that is what its model.toml says; docs/models.md lists what each `output` means")
            }
            ModelError::WrongDigest { .. } => made.help("fetch it again: the package, or with `dovetail models pull` or `add` the model"),
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

/// Which limit it is, how high it is now, and how to raise it.
fn raise(scarce: Scarce) -> String {
    use rustix::process::{Resource, getrlimit};
    let now = |resource, divisor: u64| match getrlimit(resource).current {
        Some(limit) => format!("it is {} now", limit / divisor),
        None => "it is unlimited now, so the machine or its container has no more".to_owned(),
    };
    match scarce {
        Scarce::Memory => format!(
            "raise the limit of address space (`ulimit -v`, in KiB: {}), give the machine or the container more memory, \
             or let fewer tasks run at once with --jobs; each task that runs reserves 4 GiB of addresses",
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

const MAKE_ROOM: &str = "make room on that disk and do it again; nothing is there by half";

/// Whether the cause is that there was no room.
fn is_full(error: &(dyn StdError + 'static)) -> bool {
    let of_store = || error.downcast_ref::<StoreError>().is_some_and(|error| error.kind == StoreErrorKind::Full);
    let of_disk = || error.downcast_ref::<std::io::Error>().is_some_and(|error| no_room(error.kind()));
    of_store() || of_disk() || error.source().is_some_and(is_full)
}

/// What to do about the data folder; where there is no room, rights are no remedy.
pub(crate) fn unwritable(kind: std::io::ErrorKind, otherwise: &'static str) -> &'static str {
    if no_room(kind) { "make room on that disk, or name another folder with --data DIR" } else { otherwise }
}

fn no_room(kind: std::io::ErrorKind) -> bool {
    matches!(kind, std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// What to do about a file of ours.
fn remedy(kind: std::io::ErrorKind) -> &'static str {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    match kind {
        _ if no_room(kind) => MAKE_ROOM,
        PermissionDenied | ReadOnlyFilesystem => {
            "give yourself the right to write there, or name another place (--data DIR for the data folder)"
        }
        _ => "`dovetail doctor` looks at the data folder and its disk",
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
        // Any other error stays what it is.
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
