//! Advances the engine's epoch while attempts run, and wakes sleeping guests. The ticker has its own thread, which no
//! guest can starve. The thread blocks while nothing runs, and ends with its owner.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

use dovetail_core::sync::lock;

use wasmtime::Engine;

/// The time between two ticks, and so the longest delay until a spinning or sleeping guest learns that it must end.
const TICK: Duration = Duration::from_millis(8);

#[derive(Debug, Default)]
struct State {
    running: usize,
    closed: bool,
    sleepers: Vec<Waker>,
}

/// The state that attempts share with the ticker's thread.
#[derive(Debug, Default)]
pub(crate) struct Beat {
    state: Mutex<State>,
    changed: Condvar,
}

impl Beat {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Wakes `waker` at the next tick.
    pub(crate) fn wake_later(&self, waker: &Waker) {
        self.lock().sleepers.push(waker.clone());
    }
}

/// Owns the ticker's thread.
#[derive(Debug)]
pub(crate) struct Ticker(Arc<Beat>);

/// Keeps the ticks coming until it is dropped.
#[derive(Debug)]
pub(crate) struct Ticking<'t>(&'t Beat);

impl Ticker {
    /// Starts the thread, which holds the engine weakly.
    ///
    /// # Errors
    /// The system refuses the thread.
    pub(crate) fn start(engine: &Engine) -> std::io::Result<Self> {
        let beat = Arc::<Beat>::default();
        let (shared, engine) = (beat.clone(), engine.weak());
        std::thread::Builder::new().name("dovetail-ticker".to_owned()).stack_size(128 << 10).spawn(move || {
            loop {
                {
                    let state = shared.lock();
                    let state = shared
                        .changed
                        .wait_while(state, |s| s.running == 0 && !s.closed)
                        .unwrap_or_else(PoisonError::into_inner);
                    if state.closed {
                        return;
                    }
                }
                std::thread::sleep(TICK);
                let Some(engine) = engine.upgrade() else {
                    return;
                };
                engine.increment_epoch();
                for waker in std::mem::take(&mut shared.lock().sleepers) {
                    waker.wake();
                }
            }
        })?;
        Ok(Self(beat))
    }

    /// Keeps the ticks coming while an attempt runs.
    pub(crate) fn attempt(&self) -> Ticking<'_> {
        let mut state = self.0.lock();
        state.running += 1;
        if state.running == 1 {
            self.0.changed.notify_one();
        }
        Ticking(&self.0)
    }

    /// The state with which sleeping guests register for the next tick.
    pub(crate) fn beat(&self) -> Arc<Beat> {
        self.0.clone()
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_one();
    }
}

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
    }
}
