//! `dovetail:task/context`: facts about the attempt.

use std::time::Instant;

use dovetail_core::wit::snake;

use crate::bindings::dovetail::task::context;
use crate::state::State;

impl context::Host for State {
    fn run_id(&mut self) -> wasmtime::Result<String> {
        self.host("dovetail:task/context.run-id", |state| Ok(state.attempt.run.as_str().to_owned()))
    }

    fn step(&mut self) -> wasmtime::Result<String> {
        self.host("dovetail:task/context.step", |state| Ok(state.attempt.step.to_string()))
    }

    fn attempt(&mut self) -> wasmtime::Result<u32> {
        self.host("dovetail:task/context.attempt", |state| Ok(state.attempt.number))
    }

    fn idempotency_key(&mut self) -> wasmtime::Result<String> {
        self.host("dovetail:task/context.idempotency-key", |state| Ok(state.attempt.idempotency_key.clone()))
    }

    fn remaining_ms(&mut self) -> wasmtime::Result<u64> {
        self.host("dovetail:task/context.remaining-ms", |state| {
            let left = state.stop.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            // Rounded up, so that 0 means that the time is over.
            Ok(left.map_or(u64::MAX, |left| u64::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)))
        })
    }

    fn origin(&mut self, field: String) -> wasmtime::Result<Option<String>> {
        self.host("dovetail:task/context.origin", |state| Ok(state.attempt.origins.get(&snake(&field)).cloned()))
    }
}
