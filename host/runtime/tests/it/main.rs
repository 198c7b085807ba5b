//! Tests of the runtime with guests: tiny guests in WebAssembly text, each for one purpose, and the real guests of
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
