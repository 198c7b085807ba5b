//! The program as users see it: real processes, each test on its own data folder. Tasks come from the plugins'
//! workspace, models from the model package; where one of them is not there, a test fails and says how to get it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failing test should panic")]

mod bench;
mod damage;
mod documents;
mod engines;
mod faces;
mod gc;
mod grants;
mod names;
mod newer;
mod pipelines;
mod reading;
mod runs;
mod schema;
mod several;
mod support;
mod tasks;
mod terminal;
mod usage;
mod workers;
