//! A thread that serves many callers must survive a panic over one of them.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The panic message, or a substitute for a panic without one.
#[must_use]
pub fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

/// Runs one piece of `work` of a thread that serves many callers. A panic of the work is logged, and the thread can go
/// on: without the thread, every later caller would wait without end. The values that the work owned are dropped, so a
/// caller that waits for one of them sees its channel close.
///
/// # Errors
/// The panic.
pub fn contain<T>(operation: &str, work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let message = message(panic.as_ref());
        tracing::error!(operation, panic = message, "the host panicked");
        Panicked(message.to_owned())
    })
}

/// A contained panic. As the cause of an error it tells that this program is at fault, and no store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the host panicked: {0}")]
pub struct Panicked(pub String);

impl Panicked {
    /// Whether a panic is behind this error.
    #[must_use]
    pub fn is_behind(error: &(dyn std::error::Error + 'static)) -> bool {
        std::iter::successors(Some(error), |error| error.source()).any(<dyn std::error::Error>::is::<Self>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_the_turn_and_not_the_thread() {
        let (caller, waits) = std::sync::mpsc::channel::<()>();
        let number = 7;
        let work = move || {
            let _caller = caller;
            assert!(number < 7, "number {number}");
        };
        assert_eq!(contain("serve", work), Err(Panicked("number 7".to_owned())));
        assert!(waits.recv().is_err(), "the caller sees that its request is gone");
        assert_eq!(contain("serve", || 1), Ok(1));
        let panic = catch_unwind(|| std::panic::panic_any(1)).unwrap_err();
        assert_eq!(message(panic.as_ref()), "no message");
    }
}
