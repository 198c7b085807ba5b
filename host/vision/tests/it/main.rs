//! Vision through its public interface, on real photographs with real weights: compared with the reference, at its
//! limits, and with hostile input.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failing test should panic, in its helpers too; figures are printed for people"
)]

mod common;
mod damaged;
mod drawing;
mod engines;
mod fuzz;
mod hostile;
mod images;
mod install;
mod orientation;
mod reference;
mod stopping;
