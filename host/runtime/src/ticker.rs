//! Advances the engine's epoch while attempts run, on a thread of its own that no guest can starve, and wakes guests
//! that sleep. It blocks while nothing runs, and ends with its owner.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

use wasmtime::Engine;

/// How soon a spinning or sleeping guest learns that it must end.
const TICK: Duration = Duration::from_millis(8);

#[derive(Debug, Default)]
struct State {
    running: usize,
    closed: bool,
    sleepers: Vec<Waker>,
}

#[derive(Debug, Default)]
pub(crate) struct Beat {
    state: Mutex<State>,
    changed: Condvar,
}

impl Beat {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes `waker` at the next tick.
    pub(crate) fn wake_later(&self, waker: &Waker) {
        self.lock().sleepers.push(waker.clone());
    }
}

/// Owns the thread.
#[derive(Debug)]
pub(crate) struct Ticker(Arc<Beat>);

/// Ticks go on while one of these lives.
#[derive(Debug)]
pub(crate) struct Ticking<'t>(&'t Beat);

impl Ticker {
    /// Starts the thread. It holds the engine weakly.
    pub(crate) fn start(engine: &Engine) -> std::io::Result<Self> {
        let beat = Arc::<Beat>::default();
        let (seen, engine) = (beat.clone(), engine.weak());
        std::thread::Builder::new().name("dovetail-ticker".to_owned()).stack_size(128 << 10).spawn(move || {
            loop {
                {
                    let state = seen.lock();
                    let state = seen
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
                for waker in std::mem::take(&mut seen.lock().sleepers) {
                    waker.wake();
                }
            }
        })?;
        Ok(Self(beat))
    }

    /// Keeps the ticks coming.
    pub(crate) fn attempt(&self) -> Ticking<'_> {
        let mut state = self.0.lock();
        state.running += 1;
        if state.running == 1 {
            self.0.changed.notify_one();
        }
        Ticking(&self.0)
    }

    /// For guests that sleep.
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
