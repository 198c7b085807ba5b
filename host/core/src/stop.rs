//! Cancellation as an argument: a flag that a thread can poll or wait for, combined with a deadline. The caller
//! supplies the deadline.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::sync::lock;

use crossbeam_channel::{Receiver, Sender};

/// Why work must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The holder of the [`Canceller`] cancelled the work.
    Cancelled,
    /// The deadline is over.
    Deadline,
}

/// The side of the working thread. Cheap to clone and to poll.
#[derive(Debug, Clone)]
pub struct Stop {
    flag: Arc<AtomicBool>,
    closed: Receiver<Infallible>,
    // Shared with the canceller. Only `cancel` takes the sender out, so that dropping the canceller does not cancel.
    open: Arc<Mutex<Option<Sender<Infallible>>>>,
    /// The time at which the work must end; `None`: the work has no deadline.
    pub deadline: Option<Instant>,
}

/// The side of the controlling thread. Dropping it does not cancel.
#[derive(Debug)]
pub struct Canceller(Stop);

impl Canceller {
    /// A canceller that has not cancelled yet.
    #[must_use]
    pub fn new() -> Self {
        let (open, closed) = crossbeam_channel::bounded(0);
        Self(Stop { flag: Arc::default(), closed, open: Arc::new(Mutex::new(Some(open))), deadline: None })
    }

    /// The [`Stop`] to pass to the working thread. Add a deadline with [`Stop::by`].
    #[must_use]
    pub fn stop(&self) -> Stop {
        self.0.clone()
    }

    /// Cancels the work, for good, and wakes the threads in [`Stop::wait`].
    pub fn cancel(&self) {
        self.0.flag.store(true, Ordering::Release);
        lock(&self.0.open).take();
    }
}

impl Default for Canceller {
    fn default() -> Self {
        Self::new()
    }
}

impl Stop {
    /// A [`Stop`] that is never cancelled and has no deadline.
    #[must_use]
    pub fn never() -> Self {
        Canceller::new().stop()
    }

    /// The same [`Stop`] with a deadline. The earlier of two deadlines counts.
    #[must_use]
    pub fn by(mut self, deadline: Instant) -> Self {
        self.deadline = Some(self.deadline.map_or(deadline, |d| d.min(deadline)));
        self
    }

    /// Whether the work was cancelled. Ignores the deadline, reads no clock, never blocks.
    #[must_use]
    pub fn cancelled(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    /// Why the work must end, as of the time `now`; `None` if it may go on.
    #[must_use]
    pub fn reason(&self, now: Instant) -> Option<StopReason> {
        if self.cancelled() {
            Some(StopReason::Cancelled)
        } else if self.deadline.is_some_and(|d| now >= d) {
            Some(StopReason::Deadline)
        } else {
            None
        }
    }

    /// Waits for an answer, a cancellation or the deadline, whichever comes first. Returns `None` if every sender of
    /// the answer is dropped.
    ///
    /// # Errors
    /// The reason to stop.
    pub fn wait<T>(&self, answer: &Receiver<T>) -> Result<Option<T>, StopReason> {
        let late = self.deadline.map_or_else(crossbeam_channel::never, crossbeam_channel::at);
        crossbeam_channel::select! {
            recv(answer) -> got => Ok(got.ok()),
            recv(self.closed) -> _ => Err(StopReason::Cancelled),
            recv(late) -> _ => Err(StopReason::Deadline),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_cancellation_wakes_waiting_threads() {
        let canceller = Canceller::new();
        let stop = canceller.stop();
        let (_keep, answer) = crossbeam_channel::bounded::<()>(1);
        let waiter = std::thread::spawn(move || stop.wait(&answer));
        canceller.cancel();
        assert_eq!(waiter.join().unwrap(), Err(StopReason::Cancelled));
    }

    #[test]
    fn a_dropped_canceller_is_no_cancellation() {
        let stop = Stop::never();
        let (send, answer) = crossbeam_channel::bounded(1);
        send.send(7).unwrap();
        assert_eq!(stop.wait(&answer), Ok(Some(7)));
        assert!(!stop.cancelled());
    }

    #[test]
    fn a_deadline_ends_the_waiting() {
        let now = Instant::now();
        let stop = Stop::never().by(now + Duration::from_millis(5));
        let (_keep, answer) = crossbeam_channel::bounded::<()>(1);
        assert_eq!(stop.reason(now), None);
        assert_eq!(stop.wait(&answer), Err(StopReason::Deadline));
        assert_eq!(stop.reason(now + Duration::from_millis(6)), Some(StopReason::Deadline));
    }
}
