//! Deaths of a process between its calls to a store, for tests that run many processes as threads of one.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use dovetail_core::blobs::{StoreError, StoreErrorKind};

/// When a process dies: at the call of this number, which is then applied or not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Death {
    pub(crate) call: u64,
    pub(crate) applied: bool,
}

/// Counts the calls of one process, and ends them.
#[derive(Default)]
pub(crate) struct Life {
    pub(crate) calls: AtomicU64,
    pub(crate) death: Option<Death>,
    /// What the call was at which it died.
    pub(crate) last: Mutex<Option<String>>,
}

impl Life {
    /// Serves the call, unless the process is dead; the call at which it dies may be applied all the same.
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
