//! A simulated process death between two calls to a store, for tests that run many processes as threads of one process.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use dovetail_core::blobs::{StoreError, StoreErrorKind};

/// A process dies at its call with the number `call`; `applied` tells whether that call still takes effect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Death {
    pub(crate) call: u64,
    pub(crate) applied: bool,
}

/// Counts the calls of one simulated process, and refuses them from its death on.
#[derive(Default)]
pub(crate) struct Life {
    pub(crate) calls: AtomicU64,
    pub(crate) death: Option<Death>,
    /// The name of the call at which the process died.
    pub(crate) last: Mutex<Option<String>>,
}

impl Life {
    /// Makes the call, unless the process is dead. The call at which the process dies is made if the death says
    /// `applied`.
    pub(crate) fn call<T>(&self, what: &str, call: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        let Some(death) = self.death else { return call() };
        if number < death.call {
            return call();
        }
        if number == death.call {
            *self.last.lock().unwrap() = Some(what.to_owned());
            if death.applied {
                drop(call());
            }
        }
        Err(StoreError::plain(StoreErrorKind::Refused, "this process is dead"))
    }
}
