//! A circuit breaker over a worker's claims: other workers may be able to run what this worker cannot.

use std::time::{Duration, Instant};

/// How long a worker claims nothing after it could not run what it had claimed; it doubles.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Closed: jobs could be run. Open: this worker could not run the jobs that it claimed.
#[derive(Debug, Clone, Default)]
pub(super) struct CircuitBreaker(Option<Open>);

#[derive(Debug, Clone)]
struct Open {
    /// So often in a row; each claim counts once.
    times: u32,
    /// Nothing new is claimed until then.
    until: Instant,
    /// The one thing that could not be read, if it was only one: then it may be that thing that is damaged, and not
    /// this worker.
    subject: Option<String>,
}

impl CircuitBreaker {
    /// How long nothing is to be claimed, seen at `now`.
    pub(super) fn pause(&self, now: Instant) -> Duration {
        self.0.as_ref().map_or(Duration::ZERO, |open| open.until.saturating_duration_since(now))
    }

    /// A job could not be run, and the job was not at fault: the next claim waits, longer each time, and no longer than
    /// `at_most`. Jobs that were claimed at once count once. `subject`: what could not be read; of one such thing
    /// alone nothing follows for the worker.
    pub(super) fn failed(&mut self, subject: Option<String>, at_most: Duration, now: Instant) {
        let times = match &self.0 {
            Some(open) if open.until > now => return,
            Some(open) if subject.is_some() && open.subject == subject => return,
            Some(open) => open.times.saturating_add(1),
            None => u32::from(subject.is_none()),
        };
        let pause = match times.checked_sub(1) {
            Some(doubled) => FIRST_PAUSE.saturating_mul(1 << doubled.min(16)).min(at_most),
            None => Duration::ZERO,
        };
        self.0 = Some(Open { times, until: now + pause, subject: subject.filter(|_| times == 0) });
    }

    /// A job could be run. True: the breaker was open.
    pub(super) fn close(&mut self) -> bool {
        self.0.take().is_some()
    }
}
