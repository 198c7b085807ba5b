//! The host functions, one interface a file. Each goes through [`State::host`](crate::state::State::host), which counts
//! it, times it and contains a panic. None trusts what a guest passes.

mod artifacts;
mod context;
mod control;
pub(crate) mod faces;
mod images;
mod inert;
mod logging;
mod wasi;
