//! What every front door asks: settings, the opening of stores, submission with all its checks, waiting and watching,
//! lists, cancellation, retries, publishing, models, `doctor`, `gc`, and the worker daemon.
//!
//! Requests and answers are types ([`documents`]); an error has a code, its place and its remedy ([`Error`]). Nothing here
//! prints, and nothing here speaks HTTP: the command line program and a server stand above this crate, and give it an
//! [`Observer`] that hears what happens while a request is worked on.

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
pub mod runs;
mod session;
pub mod settings;
pub mod submit;
pub mod watch;
pub mod words;
pub mod worker;

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

pub use error::{Blame, Error};
pub use grants::{of_steps as grants_of_steps, of_task as grants_of_task};
pub use observer::{Notice, Observer, Silent};
pub use open::{Service, this_program};
pub use patience::answering;
pub use session::{Session, Work, start_thread};

/// The version of this dovetail.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
