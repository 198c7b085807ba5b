//! A circuit breaker for a worker's claims. A worker that cannot run its jobs claims less often, because other workers
//! may be able to run them.

use std::time::{Duration, Instant};

/// The first pause between claims of a worker that could not run its jobs. Each further failure doubles the pause.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Closed (`None`): jobs could be run. Open: this worker could not run the jobs that it claimed.
#[derive(Debug, Clone, Default)]
pub(super) struct CircuitBreaker(Option<Open>);

#[derive(Debug, Clone)]
struct Open {
    /// The number of failures in a row that count. All jobs of one claim count once.
    failures: u32,
    /// The worker claims no jobs until this time.
    until: Instant,
    /// The failed read, while only one and the same read has failed: then the stored object may be damaged and the
    /// worker healthy.
    subject: Option<String>,
}

impl CircuitBreaker {
    /// The time from `now` until the worker may claim again.
    pub(super) fn pause(&self, now: Instant) -> Duration {
        self.0.as_ref().map_or(Duration::ZERO, |open| open.until.saturating_duration_since(now))
    }

    /// A job could not be run, for a reason that is not the job's. The next claim waits: twice as long as after the
    /// last failure, but at most `max_pause`. A failure during the pause is ignored, so that the jobs of one claim
    /// count once. `subject`: the failed read, if the content of one stored object could not be read. As long as only
    /// that read fails, there is no pause.
    pub(super) fn failed(&mut self, subject: Option<String>, max_pause: Duration, now: Instant) {
        let failures = match &self.0 {
            Some(open) if open.until > now => return,
            Some(open) if subject.is_some() && open.subject == subject => return,
            Some(open) => open.failures.saturating_add(1),
            None => u32::from(subject.is_none()),
        };
        let pause = match failures.checked_sub(1) {
            Some(doublings) => FIRST_PAUSE.saturating_mul(1 << doublings.min(16)).min(max_pause),
            None => Duration::ZERO,
        };
        self.0 = Some(Open { failures, until: now + pause, subject: subject.filter(|_| failures == 0) });
    }

    /// A job could be run. Returns whether the breaker was open.
    pub(super) fn close(&mut self) -> bool {
        self.0.take().is_some()
    }
}
