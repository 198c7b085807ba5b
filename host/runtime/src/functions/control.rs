//! `dovetail:task/control`: the wish to cancel, and the task's progress.

use std::time::{Duration, Instant};

use crate::bindings::dovetail::task::control;
use crate::state::{Progress, State};
use crate::text::clean;

/// The shortest time between two reports of progress that are passed on.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// The longest note in bytes; a longer note is left out.
const MAX_NOTE: usize = 1 << 10;

impl control::Host for State {
    fn cancelled(&mut self) -> wasmtime::Result<bool> {
        self.host("dovetail:task/control.cancelled", |state| {
            let reason = state.stop.reason(Instant::now());
            state.reported_stop = state.reported_stop.or(reason);
            Ok(reason.is_some())
        })
    }

    fn progress(&mut self, fraction: f32, note: Option<String>) -> wasmtime::Result<()> {
        self.host("dovetail:task/control.progress", |state| {
            let now = Instant::now();
            let due = state.progress_last.is_none_or(|last| now.duration_since(last) >= PROGRESS_EVERY);
            if let Some(sink) = state.progress.as_ref().filter(|_| due) {
                state.progress_last = Some(now);
                let fraction = if fraction.is_nan() { 0.0 } else { fraction.clamp(0.0, 1.0) };
                sink(Progress { fraction, note: note.filter(|note| note.len() <= MAX_NOTE).map(|note| clean(&note)) });
            }
            Ok(())
        })
    }
}
