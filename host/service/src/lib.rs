//! The service below every front door: settings, the opening of stores, submission with all its checks, waiting and
//! watching, lists, cancellation, retries, publishing, models, `doctor`, `gc`, and the worker daemon.
//!
//! Requests and answers are types ([`documents`]). An [`Error`] has a code, a message and a remedy. This crate neither
//! prints nor speaks HTTP. The command line program, and later a server, call this crate and pass an [`Observer`],
//! which is told what happens while a request is worked on.

pub mod batch;
pub mod doctor;
pub mod documents;
pub mod drawing;
mod error;
pub mod files;
pub mod gc;
mod grants;
pub mod inputs;
pub mod media;
pub mod models;
mod observer;
mod open;
pub mod paths;
mod patience;
pub mod pipelines;
pub mod plugins;
pub mod remedy;
pub mod runs;
mod session;
pub mod settings;
pub mod submit;
pub mod watch;
pub mod words;
pub mod worker;

pub use dovetail_core::error_chain::error_chain;
pub use dovetail_core::executor::{Failure, FailureKind};
pub use dovetail_core::keys::NodeId;
pub use dovetail_core::limits::Limits;
pub use dovetail_core::manifest::{parse_duration, show_duration_ms, show_size};
pub use dovetail_core::record::RunState;
pub use dovetail_core::scarce::Scarce;
pub use dovetail_core::stop::Canceller;
pub use dovetail_core::wit::names::nearest;
pub use dovetail_core::{Digest, RunId};
pub use dovetail_flow::{Event, Shutdown, StepFailure, seconds};
pub use dovetail_runtime::{SUBCOMMAND, compile_child};
pub use dovetail_stores::make_folder;
pub use dovetail_vision::forbid_telemetry;
pub use models::trial::{TRY_MODEL, try_model_child};

pub use error::{Blame, Error};
pub use observer::{Notice, Observer};
pub use open::{Service, this_program};
pub(crate) use session::start_thread;
pub use session::{Session, Work};

/// The version of dovetail: that of the workspace.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
