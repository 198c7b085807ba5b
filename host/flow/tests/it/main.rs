//! Whole pipelines on the ports in memory, with an executor that does as it is told: what flow decides, in
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
