//! Stopping as an argument: a flag that can be asked, waited for and combined with a deadline. It reads no clock: the
//! deadline is given.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};

/// Why work must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// Somebody asked for it.
    Cancelled,
    /// The attempt's time is over.
    Deadline,
}

/// Seen by whoever works. Cheap to clone and to ask.
#[derive(Debug, Clone)]
pub struct Stop {
    flag: Arc<AtomicBool>,
    closed: Receiver<Infallible>,
    // Shared with the canceller and emptied by `cancel` only: a canceller that is dropped looks like no cancellation.
    open: Arc<Mutex<Option<Sender<Infallible>>>>,
    /// When the work's time is over; none: it may take as long as it wants.
    pub deadline: Option<Instant>,
}

/// Held by whoever may ask for the end. Dropping it asks for nothing.
#[derive(Debug)]
pub struct Canceller(Stop);

impl Canceller {
    /// A new pair of canceller and [`Stop`].
    #[must_use]
    pub fn new() -> Self {
        let (open, closed) = crossbeam_channel::bounded(0);
        Self(Stop { flag: Arc::default(), closed, open: Arc::new(Mutex::new(Some(open))), deadline: None })
    }

    /// What the worker is given; add a deadline with [`Stop::by`].
    #[must_use]
    pub fn stop(&self) -> Stop {
        self.0.clone()
    }

    /// Asks for the end, once and for all: whoever waits wakes up.
    pub fn cancel(&self) {
        self.0.flag.store(true, Ordering::Release);
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Default for Canceller {
    fn default() -> Self {
        Self::new()
    }
}

impl Stop {
    /// One that nobody ever cancels.
    #[must_use]
    pub fn never() -> Self {
        Canceller::new().stop()
    }

    /// The same, with a deadline (the earlier one wins).
    #[must_use]
    pub fn by(mut self, deadline: Instant) -> Self {
        self.deadline = Some(self.deadline.map_or(deadline, |d| d.min(deadline)));
        self
    }

    /// Whether somebody asked for the end. No clock is read; never blocks.
    #[must_use]
    pub fn cancelled(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    /// Whether the work must end, seen at `now`.
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

    /// Waits for an answer, for a cancellation or for the deadline, whichever is first. `None`: the answering side is
    /// gone.
    ///
    /// # Errors
    /// The reason to stop, if that came first.
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
    fn a_cancellation_wakes_who_waits() {
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
