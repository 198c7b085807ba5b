//! Runs tasks: compiles, caches and links components, limits their resources, and calls them with JSON values. Only
//! this crate names wasmtime.
//!
//! A task exports its own interface. The runtime reads that interface from the component and calls it with dynamic
//! values; the host's interfaces are bound statically. The runtime knows neither queues nor runs: it takes one attempt
//! and returns one report ([`dovetail_core::executor::Executor`]).

mod bindings;
mod cache;
mod call;
mod compile;
mod compiler;
mod component;
mod embed;
mod engine;
mod functions;
mod handles;
mod limiter;
mod linker;
mod log;
mod memory_budget;
mod outcome;
mod package;
mod refusal;
mod runtime;
mod state;
mod strip;
mod text;
mod ticker;
mod types;
mod values;
mod warnings;
mod wrong_engine;

pub use compile::{CompileLimits, SUBCOMMAND, compile_child, limit_child};
pub use compiler::{Compiler, CompilerOptions};
pub use component::{Description, Import, componentize};
pub use embed::componentize_world;
pub use functions::faces::DEFAULT_VIEWS;
pub use linker::GrantClass;
pub use package::{
    MAX_COMPONENT, MAX_ENTRIES, MAX_PACKAGE, MAX_RATIO, MAX_TEXT, MAX_UNPACKED, Package, PackageContent, pack,
};
pub use refusal::{LoadError, Refusal};
pub use runtime::{Live, LiveSink, Occupancy, Options, Runtime};
pub use state::{Budgets, Progress};
pub use strip::strip;
pub use types::{MAX_TYPE_DEPTH, MAX_TYPE_NAME, MAX_TYPE_NODES};
