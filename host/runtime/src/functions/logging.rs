//! `dovetail:task/logging`: lines that are kept with the attempt.

use crate::bindings::dovetail::task::logging::{self, Level};
use crate::bindings::dovetail::task::types::Details;
use crate::state::State;

impl logging::Host for State {
    fn log(&mut self, level: Level, message: String, fields: Details) -> wasmtime::Result<()> {
        self.host("dovetail:task/logging.log", |state| {
            let level = match level {
                Level::Trace => "trace",
                Level::Debug => "debug",
                Level::Info => "info",
                Level::Warn => "warn",
                Level::Error => "error",
            };
            state.log.lock().record(level, &message, fields);
            Ok(())
        })
    }

    /// Every level is kept until the log is full.
    fn enabled(&mut self, _: Level) -> wasmtime::Result<bool> {
        self.host("dovetail:task/logging.enabled", |state| Ok(state.log.lock().has_room()))
    }
}
