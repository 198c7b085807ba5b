//! The WASI interfaces that this crate implements: standard output and standard error, which become log lines;
//! sleeping, which the host can interrupt; and interfaces that need a grant. Interfaces that can do nothing are in
//! `inert.rs`.

use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::{Duration, Instant};

use dovetail_core::stop::{Stop, StopReason};
use wasmtime::component::Resource;
use wasmtime_wasi::clocks::WasiClocksView as _;
use wasmtime_wasi::p2::bindings::cli::{stderr, stdout};
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::bindings::random::{insecure, random};
use wasmtime_wasi::p2::{DynOutputStream, DynPollable, OutputStream, Pollable, StreamResult, subscribe};
use wasmtime_wasi::random::WasiRandomView as _;
use wasmtime_wasi_io::async_trait;
use wasmtime_wasi_io::bytes::Bytes;

use crate::log::{Output, SharedLog};
use crate::state::State;
use crate::ticker::Beat;

/// The most bytes of one write.
const PERMIT: usize = 64 << 10;

/// A stream that never blocks, fails or fills up: the log drops and counts lines over its limit. (WASI's own pipe
/// closes when it is full, and `println!` then panics.)
struct LogStream {
    output: Output,
    log: SharedLog,
}

#[async_trait]
impl Pollable for LogStream {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for LogStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.log.lock().write(self.output, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PERMIT)
    }
}

impl State {
    fn output(&mut self, output: Output) -> wasmtime::Result<Resource<DynOutputStream>> {
        let stream: DynOutputStream = Box::new(LogStream { output, log: self.log.clone() });
        Ok(self.wasi_table().push(stream)?)
    }

    fn sleep(&mut self, until: Option<Instant>) -> wasmtime::Result<Resource<DynPollable>> {
        let sleep = Sleep { until, stop: self.stop.clone(), cut: self.sleep_cut.clone(), beat: self.beat.clone() };
        let table = self.wasi_table();
        let sleep = table.push(sleep)?;
        subscribe(table, sleep)
    }
}

impl stdout::Host for State {
    fn get_stdout(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.host("wasi:cli/stdout.get-stdout", |state| state.output(Output::Out))
    }
}

impl stderr::Host for State {
    fn get_stderr(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.host("wasi:cli/stderr.get-stderr", |state| state.output(Output::Err))
    }
}

/// A guest's sleep. It checks the attempt's [`Stop`] at each tick, so it ends soon after the attempt must end.
struct Sleep {
    /// The end of the sleep. `None`: later than any clock reaches.
    until: Option<Instant>,
    stop: Stop,
    /// Set when the sleep ends because the attempt must end. The guest's result is then ignored.
    cut: Arc<OnceLock<StopReason>>,
    beat: Arc<Beat>,
}

#[async_trait]
impl Pollable for Sleep {
    async fn ready(&mut self) {
        poll_fn(|context| {
            let now = Instant::now();
            if self.until.is_some_and(|until| now >= until) {
                return Poll::Ready(());
            }
            if let Some(reason) = self.stop.reason(now) {
                self.cut.get_or_init(|| reason);
                return Poll::Ready(());
            }
            self.beat.wake_later(context.waker());
            Poll::Pending
        })
        .await;
    }
}

impl State {
    /// The zero of the guest's monotonic clock.
    fn zero(&mut self) -> Instant {
        *self.clock_zero.get_or_insert_with(Instant::now)
    }
}

impl monotonic_clock::Host for State {
    fn now(&mut self) -> wasmtime::Result<u64> {
        self.host("wasi:clocks/monotonic-clock.now", |state| {
            Ok(u64::try_from(state.zero().elapsed().as_nanos()).unwrap_or(u64::MAX))
        })
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        self.host("wasi:clocks/monotonic-clock.resolution", |_| Ok(1))
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.host("wasi:clocks/monotonic-clock.subscribe-instant", |state| {
            let until = state.zero().checked_add(Duration::from_nanos(when));
            state.sleep(until)
        })
    }

    fn subscribe_duration(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.host("wasi:clocks/monotonic-clock.subscribe-duration", |state| {
            state.sleep(Instant::now().checked_add(Duration::from_nanos(when)))
        })
    }
}

impl wall_clock::Host for State {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        self.host("wasi:clocks/wall-clock.now", |state| wall_clock::Host::now(&mut state.clocks()))
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        self.host("wasi:clocks/wall-clock.resolution", |state| wall_clock::Host::resolution(&mut state.clocks()))
    }
}

impl random::Host for State {
    fn get_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.host("wasi:random/random.get-random-bytes", |state| random::Host::get_random_bytes(state.random(), len))
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.host("wasi:random/random.get-random-u64", |state| random::Host::get_random_u64(state.random()))
    }
}

impl insecure::Host for State {
    fn get_insecure_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.host("wasi:random/insecure.get-insecure-random-bytes", |state| {
            insecure::Host::get_insecure_random_bytes(state.random(), len)
        })
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.host("wasi:random/insecure.get-insecure-random-u64", |state| {
            insecure::Host::get_insecure_random_u64(state.random())
        })
    }
}
