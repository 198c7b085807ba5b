//! What a front door hears while its request is worked on.

use std::fmt;
use std::time::Instant;

use dovetail_core::RunId;
use dovetail_core::blobs::Store;
use dovetail_flow::Event;

use crate::patience::answering;

/// Hears what happens. Called on the thread that made the request, so that it may print without a lock.
pub trait Observer {
    /// Something that a person should know.
    fn notice(&self, notice: &Notice);

    /// A step or a run went on.
    fn event(&self, _event: &Event) {}

    /// Called several times a second while a session works, for progress.
    fn tick(&self, _now: Instant) {}

    /// A session works on nothing any more: its documents follow.
    fn rest(&self) {}
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn notice(&self, notice: &Notice) {
        tracing::debug!(%notice, "nobody hears this notice");
    }
}

/// Something that a person should know. [`fmt::Display`] gives the words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Submitted steps wait, because no worker lives.
    NoWorker,
    /// The queue knows no worker: it waits until the next heartbeats.
    WorkersUnknown,
    /// A run waits for something that no living worker has: one text for each step.
    Lacking { run: RunId, waits: Vec<String> },
    /// A store does not answer; the question is asked again each second.
    StoreSilent { operation: String, cause: String },
    /// The store answers again. None: there is one store only.
    StoreAnswers(Option<Store>),
    /// Some of an answer could not be read; the rest is given.
    Partial(String),
    /// A record of a list cannot be read.
    Unreadable { what: &'static str, name: String, error: String },
    /// A package of models is fetched.
    Fetching(&'static str),
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWorker => {
                f.write_str("no worker is alive: submitted steps wait until one is started with `dovetail worker`")
            }
            Self::WorkersUnknown => f.write_str(
                "no worker is known to the queue; each worker says every 5 s that it lives, so this command waits for that",
            ),
            Self::Lacking { run, waits } => write!(f, "run {run}: {}", waits.join("; ")),
            Self::StoreSilent { operation, cause } => {
                write!(f, "could not {operation} ({cause}); the run is recorded, and this command goes on waiting for it")
            }
            Self::StoreAnswers(store) => write!(f, "{} again", answering(*store)),
            Self::Partial(why) => write!(f, "{why}; who lives is known all the same"),
            Self::Unreadable { what, name, error } => write!(f, "warning: the {what} {name} cannot be read: {error}"),
            Self::Fetching(package) => write!(f, "fetching {package} by npm (13 MB of weights, MIT licence)"),
        }
    }
}
