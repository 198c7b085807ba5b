//! SIGINT and SIGTERM. The first signal drains, the second aborts, and the third has the default action, which ends the
//! process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;

use dovetail_service::{Canceller, Error, Scarce, Shutdown};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

/// A thread that listens to signals until this value is dropped.
pub(crate) struct Listening {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
    received: Arc<AtomicU8>,
}

/// The texts that are printed at the first signal and at the second one.
#[derive(Clone, Copy)]
pub(crate) struct SignalWords {
    pub(crate) drain: &'static str,
    pub(crate) abort: &'static str,
}

impl SignalWords {
    /// For a command that executes its own runs.
    pub(crate) const WORKING: Self = Self {
        drain: "interrupted: running steps finish, and no new steps start; interrupt again to stop them at once",
        abort: "interrupted again: running steps are stopped",
    };
    /// For a command that waits for workers.
    pub(crate) const WAITING: Self =
        Self { drain: "interrupted: the workers go on, and this command stops waiting", abort: "interrupted again" };
}

/// Drains and aborts `shutdown` on signals, and passes the text of each signal to `print`.
pub(crate) fn listen(
    shutdown: Shutdown,
    words: SignalWords,
    print: impl Fn(&str) + Send + 'static,
) -> Result<Listening, Error> {
    listen_with(move |before| match before {
        0 => {
            // The drain comes first: writing to standard error may block.
            shutdown.drain();
            print(words.drain);
            true
        }
        1 => {
            shutdown.abort();
            print(words.abort);
            true
        }
        _ => false,
    })
}

/// Cancels an attempt at the first signal.
pub(crate) fn cancel(canceller: Arc<Canceller>) -> Result<Listening, Error> {
    listen_with(move |before| {
        canceller.cancel();
        before == 0
    })
}

/// Calls `act` at each signal with the number of earlier signals. If `act` returns false, the signal has its default
/// action, which ends the process.
fn listen_with(act: impl Fn(u8) -> bool + Send + 'static) -> Result<Listening, Error> {
    let failed = |e: std::io::Error| Error::host("signals", "listen to signals").cause(e);
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let handle = signals.handle();
    let received = Arc::new(AtomicU8::new(0));
    let count = received.clone();
    let listener = move || {
        for signal in signals.forever() {
            if !act(count.fetch_add(1, Ordering::SeqCst)) {
                drop(signal_hook::low_level::emulate_default_handler(signal));
            }
        }
    };
    let thread = std::thread::Builder::new().name("signals".into()).spawn(listener);
    let thread = thread.map_err(|error| failed(Scarce::thread(&error)))?;
    Ok(Listening { handle, thread: Some(thread), received })
}

impl Listening {
    /// Whether a signal came.
    pub(crate) fn interrupted(&self) -> bool {
        self.received.load(Ordering::SeqCst) > 0
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
