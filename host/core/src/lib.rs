//! The vocabulary of dovetail: identities, WIT types as data, pipelines and their check, and the ports (interfaces)
//! that the other crates implement.
//!
//! This crate depends on no wasmtime, no OpenCV and no network client. It does not read the file system, the clock or
//! the environment. Every decision depends on the arguments alone, so each can be tested in milliseconds and replayed
//! anywhere.

pub mod blobs;
pub mod clock;
#[cfg(feature = "testing")]
pub mod conformance;
pub mod error_chain;
pub mod event_count;
pub mod executor;
pub mod flat_combining;
pub mod id;
pub mod keys;
pub mod ledger;
pub mod limits;
pub mod manifest;
#[cfg(feature = "testing")]
pub mod memory;
pub mod meta;
pub mod panics;
pub mod pipeline;
pub mod policy;
pub mod record;
pub mod required_engine;
pub mod retention;
pub mod scarce;
pub mod size;
pub mod stop;
pub mod sync;
pub mod url;
pub mod vision;
pub mod window;
pub mod wit;
pub mod worker_status;

pub use id::{Digest, RunId};
