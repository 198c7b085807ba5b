//! The runtime against guests: tiny ones written in WebAssembly text for one purpose each, and the real ones of
//! `plugins/`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failing test should panic")]

mod allocation;
mod bombs;
mod cache;
mod echo;
mod fuzz;
mod handles;
mod hostile;
mod hostile_packages;
mod limits;
mod metering;
mod outcomes;
mod packages;
mod plugins;
mod refusals;
mod scarce;
mod support;
mod types;
