//! SIGINT and SIGTERM: the first one drains, the second one aborts, the third one ends the process as if nobody had
//! listened.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;

use dovetail_service::{Canceller, Error, Scarce, Shutdown};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

/// Listens until it is dropped.
pub(crate) struct Listening {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
    seen: Arc<AtomicU8>,
}

/// What is said at the first signal and at the second one.
#[derive(Clone, Copy)]
pub(crate) struct SignalWords {
    pub(crate) drain: &'static str,
    pub(crate) abort: &'static str,
}

impl SignalWords {
    /// Of a command that works on runs of its own.
    pub(crate) const WORKING: Self = Self {
        drain: "interrupted: running steps finish, no new ones start; once more to stop them at once",
        abort: "interrupted again: running steps are stopped",
    };
    /// Of a command that waits for what others do.
    pub(crate) const WAITING: Self = Self {
        drain: "interrupted: the workers go on, and nobody waits for them here any longer",
        abort: "interrupted again",
    };
}

/// Hands signals on to `shutdown`, and says on `told` what that means.
pub(crate) fn listen(
    shutdown: Shutdown,
    words: SignalWords,
    told: impl Fn(&str) + Send + 'static,
) -> Result<Listening, Error> {
    listen_with(move |before| match before {
        0 => {
            // Before the words: standard error may not take them.
            shutdown.drain();
            told(words.drain);
            true
        }
        1 => {
            shutdown.abort();
            told(words.abort);
            true
        }
        _ => false,
    })
}

/// The first signal cancels an attempt.
pub(crate) fn cancel(canceller: Arc<Canceller>) -> Result<Listening, Error> {
    listen_with(move |before| {
        canceller.cancel();
        before == 0
    })
}

/// Calls `act` with the number of signals before this one. If it answers false, the signal ends the process as if nobody
/// had listened.
fn listen_with(act: impl Fn(u8) -> bool + Send + 'static) -> Result<Listening, Error> {
    let failed = |e: std::io::Error| Error::host("signals", "listen to signals").cause(e);
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let handle = signals.handle();
    let seen = Arc::new(AtomicU8::new(0));
    let count = seen.clone();
    let listener = move || {
        for signal in signals.forever() {
            if !act(count.fetch_add(1, Ordering::SeqCst)) {
                drop(signal_hook::low_level::emulate_default_handler(signal));
            }
        }
    };
    let thread = std::thread::Builder::new().name("signals".into()).spawn(listener);
    let thread = thread.map_err(|error| failed(Scarce::thread(&error)))?;
    Ok(Listening { handle, thread: Some(thread), seen })
}

impl Listening {
    /// Whether a signal came.
    pub(crate) fn interrupted(&self) -> bool {
        self.seen.load(Ordering::SeqCst) > 0
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
