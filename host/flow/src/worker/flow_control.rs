//! How many jobs a worker claims: as many as it has free slots, and more of them (ahead), so that no slot waits for a
//! round trip to the ledger. Short steps are claimed many at a time and long steps one by one, so that no worker holds
//! jobs that another worker could run now.

mod circuit_breaker;
mod outages;

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dovetail_core::blobs::Store;
use dovetail_core::sync::lock;

use self::circuit_breaker::CircuitBreaker;
use self::outages::Outages;
pub(super) use self::outages::REPORT_INTERVAL;

/// The jobs that are claimed ahead are expected to keep all slots busy for this time.
const AHEAD: Duration = Duration::from_millis(40);
/// The most jobs that are claimed ahead.
const MAX_AHEAD: usize = 512;
/// A worker with this many jobs in hand claims no more. The limit matters if the records are slow, so that jobs wait
/// for their commit.
const MAX_IN_HAND: usize = 4096;

/// The count that a job in hand belongs to. Each job belongs to exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// The job was claimed, and no slot has started it.
    Waiting,
    /// A slot works on the job.
    Running,
    /// The ledger has the job's change and has not replied.
    Sent,
    /// A store did not accept the job's change, which will be sent again.
    Kept,
}

/// The numbers of jobs in hand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    waiting: usize,
    running: usize,
    sent: usize,
    kept: usize,
}

impl Counts {
    fn of(&mut self, counted: Counted) -> &mut usize {
        match counted {
            Counted::Waiting => &mut self.waiting,
            Counted::Running => &mut self.running,
            Counted::Sent => &mut self.sent,
            Counted::Kept => &mut self.kept,
        }
    }

    fn all(self) -> usize {
        self.waiting + self.running + self.sent + self.kept
    }
}

#[derive(Debug, Default)]
struct State {
    jobs: Counts,
    /// The number of steps that have ended since the worker started.
    ended: u64,
    /// The exponential moving average of the steps' durations, in microseconds. `None`: no step has ended yet.
    mean_us: Option<f64>,
    outages: Outages,
    /// A job that must run alone holds a permit: it runs, or waits until the other jobs have left.
    alone: bool,
    breaker: CircuitBreaker,
}

impl State {
    /// A step has ended after this time. `None`: no step has ended.
    fn step_ended(&mut self, duration: Option<Duration>) {
        let Some(duration) = duration else { return };
        self.ended += 1;
        let us = duration.as_secs_f64() * 1e6;
        self.mean_us = Some(self.mean_us.map_or(us, |mean| mean + (us - mean) / 16.0));
    }
}

/// The counts of a worker's jobs, and the decisions that depend on the counts: when to claim, how many jobs, and
/// whether a job may start.
#[derive(Debug)]
pub(super) struct FlowControl {
    slots: usize,
    state: Mutex<State>,
    changed: Condvar,
}

/// The permission to start a job. While the permit of a job that must run alone exists, no other job starts, and the
/// worker claims no jobs.
pub(super) struct Permit<'a> {
    alone_in: Option<&'a FlowControl>,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(flow) = self.alone_in {
            flow.state().alone = false;
            flow.changed.notify_all();
        }
    }
}

impl FlowControl {
    pub(super) fn new(slots: usize) -> Self {
        Self { slots: slots.max(1), state: Mutex::default(), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The worker claims only if at most this number of jobs wait. It is half of the jobs that are claimed ahead, for
    /// fewer and larger claims.
    fn claim_threshold(&self, state: &State) -> usize {
        ahead(self.slots, state.mean_us) / 2
    }

    /// Waits until the worker may claim, and returns how many jobs. `None`: `is_over` became true.
    pub(super) fn wait_for_capacity(&self, is_over: impl Fn() -> bool) -> Option<usize> {
        let mut state = self.state();
        loop {
            if is_over() {
                return None;
            }
            let ahead = ahead(self.slots, state.mean_us);
            let capacity = (self.slots + ahead).saturating_sub(state.jobs.waiting + state.jobs.running);
            // While outcomes are kept, no jobs are claimed: the next commit shows whether the store answers again. If
            // no change is on its way, there is no next commit, so a claim must show it.
            let waits_for_store = state.jobs.kept + state.jobs.sent > 0 && state.outages.keep_outcomes();
            let may_claim = capacity > 0
                && state.jobs.waiting <= self.claim_threshold(&state)
                && state.jobs.all() < MAX_IN_HAND
                && !waits_for_store
                && !state.alone;
            let pause = state.breaker.pause(Instant::now());
            if may_claim && pause.is_zero() {
                return Some(capacity);
            }
            if may_claim {
                (state, _) = self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Adds this number of claimed jobs, counted as waiting.
    pub(super) fn claimed(&self, jobs: usize) {
        self.state().jobs.waiting += jobs;
    }

    /// Moves a job from one count to another. `step_duration`: the job's step has ended with this move, after this
    /// time.
    pub(super) fn recount(&self, from: Counted, to: Counted, step_duration: Option<Duration>) {
        let mut state = self.state();
        *state.jobs.of(from) -= 1;
        *state.jobs.of(to) += 1;
        state.step_ended(step_duration);
        let reaches_threshold = from == Counted::Waiting && state.jobs.waiting == self.claim_threshold(&state);
        drop(state);
        // Until this move too many jobs waited for another claim. Without a notification here, a worker with a free
        // slot would claim no job for as long as the step runs.
        if to != Counted::Running || reaches_threshold {
            self.changed.notify_all();
        }
    }

    /// Removes a job from its count. `step_duration`: the job's step has ended with this, after this time.
    pub(super) fn remove(&self, from: Counted, step_duration: Option<Duration>) {
        let mut state = self.state();
        *state.jobs.of(from) -= 1;
        state.step_ended(step_duration);
        drop(state);
        self.changed.notify_all();
    }

    /// Permits a job that is counted as running to start. `None`: another job must run alone.
    ///
    /// With `alone`, this job must run alone: the call waits until no other job runs or waits in this worker. It calls
    /// `give_back` at least once a second, to give back jobs that were claimed and have not started.
    pub(super) fn try_begin(&self, alone: bool, give_back: impl Fn()) -> Option<Permit<'_>> {
        let mut state = self.state();
        if state.alone {
            return None;
        }
        if !alone {
            return Some(Permit { alone_in: None });
        }
        state.alone = true;
        drop(state);
        // Made before `give_back` is called, so that a panic of `give_back` also resets `alone`.
        let permit = Permit { alone_in: Some(self) };
        let is_alone = |state: &State| state.jobs.running <= 1 && state.jobs.waiting == 0;
        while !is_alone(&self.state()) {
            give_back();
            let state = self.state();
            if !is_alone(&state) {
                // With a timeout, because a claim that began before `alone` was set may add waiting jobs without a
                // notification. They must be given back.
                drop(self.changed.wait_timeout(state, Duration::from_secs(1)).unwrap_or_else(PoisonError::into_inner));
            }
        }
        Some(permit)
    }

    /// Whether the caller's job is the only one that waits or runs. Then its thread has no other job to do.
    pub(super) fn is_last_in_hand(&self) -> bool {
        let state = self.state();
        state.jobs.waiting + state.jobs.running == 1
    }

    /// Whether a job that must run alone runs, or waits for the other jobs to leave.
    pub(super) fn is_alone(&self) -> bool {
        self.state().alone
    }

    /// Whether no job is in hand.
    pub(super) fn is_empty(&self) -> bool {
        self.state().jobs.all() == 0
    }

    #[cfg(test)]
    pub(super) fn in_hand(&self, counted: Counted) -> usize {
        *self.state().jobs.of(counted)
    }

    #[cfg(test)]
    pub(super) fn all_in_hand(&self) -> usize {
        self.state().jobs.all()
    }

    /// A job could not be run, for a reason that is not the job's: the circuit breaker opens. The next claim waits for
    /// at most `max_pause`.
    pub(super) fn could_not_run(&self, max_pause: Duration) {
        self.state().breaker.failed(None, max_pause, Instant::now());
    }

    /// As [`FlowControl::could_not_run`], for a failed read (`subject`) of one stored object. Has no effect as long as
    /// nothing but that read has failed, so that jobs which need one damaged object do not delay other jobs.
    pub(super) fn could_not_read(&self, subject: String, max_pause: Duration) {
        self.state().breaker.failed(Some(subject), max_pause, Instant::now());
    }

    /// A job could be run: closes the circuit breaker.
    pub(super) fn could_run(&self) {
        let mut state = self.state();
        if state.breaker.close() {
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Notes that a store did not accept an outcome (`is_outcome`), or that a claim failed. If the failure is to be
    /// reported, returns the time since the store's first failure. The first failure is reported, and then one in each
    /// [`REPORT_INTERVAL`].
    pub(super) fn store_failed(&self, store: Option<Store>, is_outcome: bool) -> Option<Duration> {
        let failing_for = self.state().outages.failed(store, is_outcome, Instant::now());
        self.changed.notify_all();
        failing_for
    }

    /// Notes that these stores answer, and returns the ones that had failed. `is_recorded`: an outcome was recorded, so
    /// the worker may claim again.
    pub(super) fn stores_answered(&self, stores: &[Store], is_recorded: bool) -> Vec<Option<Store>> {
        let mut state = self.state();
        if state.outages.is_empty() {
            return Vec::new();
        }
        let recovered = state.outages.answered(stores, is_recorded);
        drop(state);
        self.changed.notify_all();
        recovered
    }

    /// Wakes all waiting threads, so that each checks again whether to wait.
    pub(super) fn wake(&self) {
        // The lock is taken once, so that no thread misses the notification between its check and its sleep.
        drop(self.state());
        self.changed.notify_all();
    }

    /// Waits for this time, or until `is_over` is true. `is_over` is checked after each notification.
    pub(super) fn pause(&self, at_most: Duration, is_over: impl Fn() -> bool) {
        let until = Instant::now() + at_most;
        let mut state = self.state();
        while !is_over() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            (state, _) = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The number of steps that run now, and of steps that have ended since the worker started.
    pub(super) fn step_counts(&self) -> (usize, u64) {
        let state = self.state();
        (state.jobs.running, state.ended)
    }
}

/// How many jobs to claim beyond the free slots.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a small, positive number of jobs"
)]
fn ahead(slots: usize, mean_us: Option<f64>) -> usize {
    mean_us.map_or(0, |mean| ((slots as f64 * AHEAD.as_secs_f64() * 1e6 / mean.max(1.0)) as usize).min(MAX_AHEAD))
}

#[cfg(test)]
mod tests {
    use super::circuit_breaker::FIRST_PAUSE;
    use super::*;

    #[test]
    fn short_steps_are_claimed_ahead_and_long_ones_are_not() {
        assert_eq!(ahead(10, None), 0);
        assert_eq!(ahead(10, Some(20.0)), MAX_AHEAD);
        assert_eq!(ahead(10, Some(4_000.0)), 100);
        assert_eq!(ahead(10, Some(100_000.0)), 4);
        assert_eq!(ahead(2, Some(300_000.0)), 0);
    }

    #[test]
    fn a_store_that_failed_is_tried_again_where_nothing_else_would_try() {
        let flow = FlowControl::new(2);
        assert!(flow.store_failed(Some(Store::Queue), false).is_some());
        assert_eq!(
            flow.wait_for_capacity(|| false),
            Some(2),
            "a claim failed, and no kept outcome will be sent again, so a claim tries the store"
        );
        flow.claimed(1);
        flow.recount(Counted::Waiting, Counted::Running, None);
        assert_eq!(flow.wait_for_capacity(|| false), Some(1), "a running step does not try the store either");
    }

    #[test]
    fn a_store_answers_again_when_it_does_and_not_another_one() {
        let flow = FlowControl::new(2);
        assert_eq!(flow.store_failed(Some(Store::Records), true), Some(Duration::ZERO));
        assert_eq!(flow.store_failed(Some(Store::Records), true), None, "it was reported a moment ago");
        assert_eq!(
            flow.stores_answered(&[Store::Queue], false),
            [],
            "the queue answered a claim, and the records are down"
        );
        flow.claimed(1);
        assert_eq!(flow.wait_for_capacity(|| true), None);
        assert!(flow.state().outages.keep_outcomes(), "outcomes are still kept");
        assert_eq!(
            flow.store_failed(Some(Store::Queue), false),
            Some(Duration::ZERO),
            "another store is reported separately"
        );
        assert_eq!(
            flow.stores_answered(&[Store::Queue, Store::Records], true),
            [Some(Store::Queue), Some(Store::Records)]
        );
        assert_eq!(flow.stores_answered(&[Store::Queue, Store::Records], true), [], "reported once");
        let long_ago = Instant::now().checked_sub(REPORT_INTERVAL).unwrap();
        assert!(flow.state().outages.failed(None, true, long_ago).is_some());
        assert!(flow.store_failed(None, true).is_some(), "it is reported again after the interval");
        assert_eq!(
            flow.stores_answered(&[Store::Queue], false),
            [None],
            "any answer counts for a store without a name"
        );
    }

    #[test]
    fn a_worker_that_cannot_run_its_claimed_steps_pauses_before_the_next_claim() {
        let flow = FlowControl::new(2);
        let waits = || {
            let began = Instant::now();
            assert_eq!(flow.wait_for_capacity(|| false), Some(2));
            began.elapsed()
        };
        assert!(waits() < FIRST_PAUSE / 2);
        // Two jobs of one claim count once.
        flow.could_not_run(Duration::from_secs(9));
        flow.could_not_run(Duration::from_secs(9));
        assert!(waits() >= FIRST_PAUSE.mul_f64(0.9));
        flow.could_not_run(Duration::from_secs(9));
        assert!(waits() >= FIRST_PAUSE.mul_f64(1.9), "the pause doubles");
        flow.could_not_run(FIRST_PAUSE);
        let waited = waits();
        assert!(
            waited >= FIRST_PAUSE.mul_f64(0.9) && waited < FIRST_PAUSE * 3,
            "the pause is at most the given one: {waited:?}"
        );
        flow.could_not_run(Duration::from_secs(9));
        flow.could_run();
        assert!(waits() < FIRST_PAUSE / 2, "the breaker is closed");
    }

    #[test]
    fn one_thing_that_cannot_be_read_keeps_nothing_else_waiting() {
        let flow = FlowControl::new(2);
        let waits = || {
            let began = Instant::now();
            assert_eq!(flow.wait_for_capacity(|| false), Some(2));
            began.elapsed()
        };
        for _ in 0..100 {
            flow.could_not_read("read package a".into(), Duration::from_secs(9));
        }
        assert!(waits() < FIRST_PAUSE / 2);
        // A worker that can read nothing soon fails to read another object.
        flow.could_not_read("read package b".into(), Duration::from_secs(9));
        assert!(waits() >= FIRST_PAUSE.mul_f64(0.9));
        flow.could_run();
        flow.could_not_read("read package b".into(), Duration::from_secs(9));
        assert!(waits() < FIRST_PAUSE / 2);
    }

    #[test]
    fn beside_a_job_that_is_to_be_alone_nothing_begins_and_nothing_is_claimed() {
        let flow = FlowControl::new(2);
        flow.claimed(2);
        flow.recount(Counted::Waiting, Counted::Running, None);
        let permit = flow.try_begin(true, || flow.remove(Counted::Waiting, None));
        assert!(permit.is_some());
        assert!(flow.is_alone() && flow.try_begin(false, || ()).is_none() && flow.try_begin(true, || ()).is_none());
        std::thread::scope(|threads| {
            let claimer = threads.spawn(|| flow.wait_for_capacity(|| false));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!claimer.is_finished(), "no claim while a job runs alone");
            drop(permit);
            assert_eq!(claimer.join().unwrap(), Some(1));
        });
        assert!(flow.try_begin(false, || ()).is_some());
    }

    #[test]
    fn a_free_slot_is_claimed_for_as_soon_as_a_slot_began_what_waited() {
        let flow = FlowControl::new(2);
        flow.claimed(1);
        let (sender, capacity) = std::sync::mpsc::channel();
        std::thread::scope(|threads| {
            threads.spawn(|| sender.send(flow.wait_for_capacity(|| false)).unwrap());
            assert!(capacity.recv_timeout(Duration::from_millis(50)).is_err(), "a job waits: no claim ahead");
            flow.recount(Counted::Waiting, Counted::Running, None);
            let woken = capacity.recv_timeout(Duration::from_secs(5));
            flow.wake();
            assert_eq!(woken, Ok(Some(1)));
        });
    }

    #[test]
    fn no_more_is_claimed_than_there_is_room_for() {
        let flow = FlowControl::new(2);
        assert_eq!(flow.wait_for_capacity(|| false), Some(2));
        flow.claimed(2);
        assert_eq!(flow.wait_for_capacity(|| true), None);
        flow.recount(Counted::Waiting, Counted::Running, None);
        flow.recount(Counted::Running, Counted::Sent, Some(Duration::from_secs(1)));
        // One job runs, and no jobs are claimed ahead while steps take a second.
        flow.recount(Counted::Waiting, Counted::Running, None);
        assert_eq!(flow.wait_for_capacity(|| false), Some(1));
        flow.remove(Counted::Sent, None);
        assert_eq!(flow.wait_for_capacity(|| false), Some(1));
        assert_eq!(flow.step_counts(), (1, 1));
    }
}
