//! The failure policy: whether a step is attempted again, and when. Pure arithmetic.

use std::time::Duration;

use crate::executor::{Failure, FailureKind};

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryDecision {
    /// Another attempt is made after at least this delay.
    Retry(Duration),
    /// The failure is final: the step has failed.
    Final,
}

/// Delays between attempts: exponential backoff with an upper bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The delay before the first retry. Each further retry doubles the delay.
    pub first: Duration,
    /// The upper bound of the delay. A failure may itself ask for a longer one.
    pub max: Duration,
}

/// The longest delay that a task may ask for.
pub const MAX_ASKED: Duration = Duration::from_secs(3600);
/// The number of workers that may die while they run a job. One more death makes the job fail as poison.
pub const MAX_CRASHES: u32 = 3;
/// A job with at least this number of crashes runs alone in its worker. If the worker dies again, no other job can be
/// the cause.
pub const SUSPECT_CRASHES: u32 = 2;

/// The delays after which a job is tried again if its step names an object that is not stored, in order. The store may
/// be restored in the meantime. If the object is still missing after the last delay, the step fails.
pub const LOOK_AGAIN: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];

/// The consequence of the failure of attempt `number` (1 for the first) of at most `max_attempts`.
///
/// The delay is exponential backoff with jitter: between half of the delay and the whole delay. `spread` (0 to 1)
/// selects the point in that interval, so that many steps that failed together are not retried together. The caller
/// passes it because core has no source of randomness.
///
/// A failure of the kind `LostWorker` is final here: crashes are counted by the ledger, up to [`MAX_CRASHES`].
#[must_use]
pub fn after(failure: &Failure, number: u32, max_attempts: u32, backoff: Backoff, spread: f64) -> RetryDecision {
    if failure.kind == FailureKind::LostWorker || !failure.may_retry() || number >= max_attempts {
        return RetryDecision::Final;
    }
    let doubled = backoff.first.saturating_mul(1 << number.saturating_sub(1).min(16)).min(backoff.max);
    let jittered = doubled.mul_f64(0.5 + 0.5 * spread.clamp(0.0, 1.0));
    RetryDecision::Retry(jittered.max(Duration::from_millis(failure.retry_after_ms.unwrap_or(0)).min(MAX_ASKED)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { first: Duration::from_millis(200), max: Duration::from_secs(60) };

    fn failure(kind: FailureKind, retryable: bool) -> Failure {
        Failure { retryable, ..Failure::new(kind, "c", "m") }
    }

    #[test]
    fn only_what_may_succeed_later_is_retried() {
        use FailureKind::{BadOutput, Cancelled, Failed, InvalidInput, Limit, Panic, Timeout, Trap, Unavailable};
        for (kind, retryable, again) in [
            (InvalidInput, true, false),
            (Cancelled, true, false),
            (Trap, true, false),
            (Panic, true, false),
            (Limit, true, false),
            (BadOutput, true, false),
            (Failed, false, false),
            (Failed, true, true),
            (Unavailable, false, false),
            (Unavailable, true, true),
            (Timeout, false, true),
        ] {
            assert_eq!(
                matches!(after(&failure(kind, retryable), 1, 3, BACKOFF, 0.0), RetryDecision::Retry(_)),
                again,
                "{kind:?} {retryable}"
            );
        }
    }

    #[test]
    fn the_last_attempt_is_final() {
        let f = failure(FailureKind::Timeout, true);
        assert!(matches!(after(&f, 2, 3, BACKOFF, 0.0), RetryDecision::Retry(_)));
        assert_eq!(after(&f, 3, 3, BACKOFF, 0.0), RetryDecision::Final);
    }

    #[test]
    fn the_delay_doubles_up_to_its_bound_and_honours_what_the_task_asks() {
        let mut f = failure(FailureKind::Failed, true);
        assert_eq!(after(&f, 1, 99, BACKOFF, 1.0), RetryDecision::Retry(Duration::from_millis(200)));
        assert_eq!(after(&f, 3, 99, BACKOFF, 1.0), RetryDecision::Retry(Duration::from_millis(800)));
        assert_eq!(after(&f, 3, 99, BACKOFF, 0.0), RetryDecision::Retry(Duration::from_millis(400)));
        assert_eq!(after(&f, 60, 99, BACKOFF, 1.0), RetryDecision::Retry(BACKOFF.max));
        f.retry_after_ms = Some(90_000);
        assert_eq!(after(&f, 1, 99, BACKOFF, 1.0), RetryDecision::Retry(Duration::from_secs(90)));
        f.retry_after_ms = Some(u64::MAX);
        assert_eq!(after(&f, 1, 99, BACKOFF, 1.0), RetryDecision::Retry(MAX_ASKED));
    }
}
