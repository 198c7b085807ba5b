//! Whole pipelines on the in-memory ports, with a scripted executor: these tests check flow's decisions in
//! milliseconds.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failing test panics")]

mod alone;
mod answers;
mod bench;
mod blob_owner;
mod failures;
mod gc;
mod inputs;
mod interleavings;
mod missing;
mod models;
mod panics;
mod registry;
mod runs;
mod shutdown;
