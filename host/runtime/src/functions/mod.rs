//! The host functions, one interface in each file. Each function goes through
//! [`State::host`](crate::state::State::host), which counts and times it and contains a panic. No function trusts a
//! guest's arguments.

mod artifacts;
mod context;
mod control;
pub(crate) mod faces;
mod images;
mod inert;
mod logging;
mod wasi;
