//! How many jobs a worker claims: as many as it has slots, and so many more that slots never wait for the queue's round
//! trip. Short steps are claimed many at a time, long ones one by one, so that no worker hoards what another could run.

mod circuit_breaker;
mod outages;

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dovetail_core::blobs::Store;

use self::circuit_breaker::CircuitBreaker;
use self::outages::Outages;
pub(super) use self::outages::TELL;

/// Work that may wait here for a slot, in time.
const AHEAD: Duration = Duration::from_millis(40);
/// Jobs claimed ahead, at most.
const MOST_AHEAD: usize = 512;
/// Jobs in hand, at most: when the records are slow, nothing new is claimed.
const MOST_IN_HAND: usize = 4096;

/// As what a job in hand is counted: as exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// It was claimed, and no slot has begun it.
    Waiting,
    /// A slot is busy with it.
    Running,
    /// The ledger has its change, and has not answered.
    Sent,
    /// A store did not take its change, which will be sent again.
    Kept,
}

/// Jobs in hand.
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
    /// Steps that ended since the beginning.
    ended: u64,
    /// How long a step takes, smoothed, in microseconds; none: not known yet.
    usual_us: Option<f64>,
    outages: Outages,
    /// A job runs alone, or is about to.
    alone: bool,
    breaker: CircuitBreaker,
}

impl State {
    fn step_took(&mut self, took: Option<Duration>) {
        let Some(took) = took else { return };
        self.ended += 1;
        let took = took.as_secs_f64() * 1e6;
        self.usual_us = Some(self.usual_us.map_or(took, |usual| usual + (took - usual) / 16.0));
    }
}

#[derive(Debug)]
pub(super) struct FlowControl {
    slots: usize,
    state: Mutex<State>,
    changed: Condvar,
}

/// Leave to begin a job. While that of a job which is to be alone lives, no other job begins and nothing is claimed.
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is claimed while more jobs than this wait: half of the jobs that are claimed ahead may be used up first,
    /// for fewer and larger claims.
    fn claims_at(&self, state: &State) -> usize {
        ahead(self.slots, state.usual_us) / 2
    }

    /// Waits until it makes sense to claim, and says how many; none: `over` became true.
    pub(super) fn wait_for_room(&self, over: impl Fn() -> bool) -> Option<usize> {
        let mut state = self.state();
        loop {
            if over() {
                return None;
            }
            let ahead = ahead(self.slots, state.usual_us);
            let room = (self.slots + ahead).saturating_sub(state.jobs.waiting + state.jobs.running);
            // What is to be recorded finds out when the store answers again; where there is nothing of that kind, the
            // next claim does.
            let held_back = state.jobs.all() > 0 && state.outages.hold_back();
            let claims = room > 0
                && state.jobs.waiting <= self.claims_at(&state)
                && state.jobs.all() < MOST_IN_HAND
                && !held_back
                && !state.alone;
            let pause = state.breaker.pause(Instant::now());
            if claims && pause.is_zero() {
                return Some(room);
            }
            if claims {
                (state, _) = self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Jobs come in hand, as waiting.
    pub(super) fn claimed(&self, jobs: usize) {
        self.state().jobs.waiting += jobs;
    }

    /// A job is counted otherwise from now on. `took`: its step ended with that, after this time.
    pub(super) fn moves(&self, from: Counted, to: Counted, took: Option<Duration>) {
        let mut state = self.state();
        *state.jobs.of(from) -= 1;
        *state.jobs.of(to) += 1;
        state.step_took(took);
        let is_used_up = from == Counted::Waiting && state.jobs.waiting == self.claims_at(&state);
        drop(state);
        // Jobs that waited kept the next claim from being made until now: without this a worker with a free slot would
        // claim nothing for as long as the step runs.
        if to != Counted::Running || is_used_up {
            self.changed.notify_all();
        }
    }

    /// A job is in hand no more.
    pub(super) fn let_go(&self, from: Counted, took: Option<Duration>) {
        let mut state = self.state();
        *state.jobs.of(from) -= 1;
        state.step_took(took);
        drop(state);
        self.changed.notify_all();
    }

    /// Leave to begin a job; none while another one is to be alone. With `alone` it waits until this worker runs
    /// nothing else and nothing waits; `give_back` is called now and then for what was claimed and not begun.
    pub(super) fn may_begin(&self, alone: bool, give_back: impl Fn()) -> Option<Permit<'_>> {
        let mut state = self.state();
        if state.alone {
            return None;
        }
        if !alone {
            return Some(Permit { alone_in: None });
        }
        state.alone = true;
        // Also where `give_back` panics.
        drop(state);
        let permit = Permit { alone_in: Some(self) };
        let is_alone = |state: &State| state.jobs.running <= 1 && state.jobs.waiting == 0;
        while !is_alone(&self.state()) {
            give_back();
            let state = self.state();
            if !is_alone(&state) {
                // A claim may be on its way that began before this.
                drop(self.changed.wait_timeout(state, Duration::from_secs(1)).unwrap_or_else(PoisonError::into_inner));
            }
        }
        Some(permit)
    }

    /// Whether only one job waits or runs, the caller's: there is nothing that its thread could do sooner.
    pub(super) fn is_last_in_hand(&self) -> bool {
        let state = self.state();
        state.jobs.waiting + state.jobs.running == 1
    }

    pub(super) fn is_alone(&self) -> bool {
        self.state().alone
    }

    /// Whether every job was let go.
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

    /// A job could not be run, and the job was not at fault: see [`CircuitBreaker`].
    pub(super) fn could_not_run(&self, at_most: Duration) {
        self.state().breaker.failed(None, at_most, Instant::now());
    }

    /// As [`FlowControl::could_not_run`], if something else could not be read before either: jobs of one damaged thing
    /// keep no others waiting.
    pub(super) fn could_not_read(&self, subject: String, at_most: Duration) {
        self.state().breaker.failed(Some(subject), at_most, Instant::now());
    }

    pub(super) fn could_run(&self) {
        let mut state = self.state();
        if state.breaker.close() {
            drop(state);
            self.changed.notify_all();
        }
    }

    /// A store failed, with something that was done (`keeps`) or with a claim. How long it has, where it is time to
    /// tell that: at first, and then now and then.
    pub(super) fn store_failed(&self, store: Option<Store>, keeps: bool) -> Option<Duration> {
        let told = self.state().outages.failed(store, keeps, Instant::now());
        self.changed.notify_all();
        told
    }

    /// Those of these stores that had failed: they answer again. `took`: what was done was recorded, so that new work
    /// can be claimed.
    pub(super) fn answered_by(&self, stores: &[Store], took: bool) -> Vec<Option<Store>> {
        let mut state = self.state();
        if state.outages.is_empty() {
            return Vec::new();
        }
        let again = state.outages.answered(stores, took);
        drop(state);
        self.changed.notify_all();
        again
    }

    /// Whoever waits looks whether there is still something to wait for.
    pub(super) fn wake(&self) {
        // Behind the lock, so that no thread misses it between its look and its sleep.
        drop(self.state());
        self.changed.notify_all();
    }

    /// Waits so long, or until `over`.
    pub(super) fn pause(&self, at_most: Duration, over: impl Fn() -> bool) {
        let until = Instant::now() + at_most;
        let mut state = self.state();
        while !over() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            (state, _) = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Steps that run now, and those that have ended.
    pub(super) fn figures(&self) -> (usize, u64) {
        let state = self.state();
        (state.jobs.running, state.ended)
    }
}

/// Jobs to claim beyond the free slots.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a small, positive number of jobs"
)]
fn ahead(slots: usize, usual_us: Option<f64>) -> usize {
    usual_us.map_or(0, |usual| ((slots as f64 * AHEAD.as_secs_f64() * 1e6 / usual.max(1.0)) as usize).min(MOST_AHEAD))
}

#[cfg(test)]
mod tests {
    use super::circuit_breaker::FIRST_PAUSE;
    use super::*;

    #[test]
    fn short_steps_are_claimed_ahead_and_long_ones_are_not() {
        assert_eq!(ahead(10, None), 0);
        assert_eq!(ahead(10, Some(20.0)), MOST_AHEAD);
        assert_eq!(ahead(10, Some(4_000.0)), 100);
        assert_eq!(ahead(10, Some(100_000.0)), 4);
        assert_eq!(ahead(2, Some(300_000.0)), 0);
    }

    #[test]
    fn a_store_that_failed_is_tried_again_where_nothing_else_would_try() {
        let flow = FlowControl::new(2);
        assert!(flow.store_failed(Some(Store::Queue), false).is_some());
        assert_eq!(
            flow.wait_for_room(|| false),
            Some(2),
            "a claim failed, and nothing is on its way that could tell that the store answers"
        );
        flow.claimed(1);
        flow.moves(Counted::Waiting, Counted::Running, None);
        assert_eq!(flow.wait_for_room(|| false), Some(1), "nor does a long step tell it");
    }

    #[test]
    fn a_store_answers_again_when_it_does_and_not_another_one() {
        let flow = FlowControl::new(2);
        assert_eq!(flow.store_failed(Some(Store::Records), true), Some(Duration::ZERO));
        assert_eq!(flow.store_failed(Some(Store::Records), true), None, "it was told a moment ago");
        assert_eq!(
            flow.answered_by(&[Store::Queue], false),
            [],
            "a claim was answered by the queue, and the records are down"
        );
        flow.claimed(1);
        assert_eq!(flow.wait_for_room(|| true), None);
        assert!(flow.state().outages.hold_back(), "what was done is still kept");
        assert_eq!(
            flow.store_failed(Some(Store::Queue), false),
            Some(Duration::ZERO),
            "another one is told of on its own"
        );
        assert_eq!(flow.answered_by(&[Store::Queue, Store::Records], true), [Some(Store::Queue), Some(Store::Records)]);
        assert_eq!(flow.answered_by(&[Store::Queue, Store::Records], true), [], "once");
        let long_ago = Instant::now().checked_sub(TELL).unwrap();
        assert!(flow.state().outages.failed(None, true, long_ago).is_some());
        assert!(flow.store_failed(None, true).is_some(), "after a while it is told again");
        assert_eq!(flow.answered_by(&[Store::Queue], false), [None], "where there is one store any success is its own");
    }

    #[test]
    fn whoever_cannot_run_what_he_claims_leaves_it_to_others() {
        let flow = FlowControl::new(2);
        let waits = || {
            let began = Instant::now();
            assert_eq!(flow.wait_for_room(|| false), Some(2));
            began.elapsed()
        };
        assert!(waits() < FIRST_PAUSE / 2);
        // Two of one claim count once.
        flow.could_not_run(Duration::from_secs(9));
        flow.could_not_run(Duration::from_secs(9));
        assert!(waits() >= FIRST_PAUSE.mul_f64(0.9));
        flow.could_not_run(Duration::from_secs(9));
        assert!(waits() >= FIRST_PAUSE.mul_f64(1.9), "longer each time");
        flow.could_not_run(FIRST_PAUSE);
        let at_most = waits();
        assert!(
            at_most >= FIRST_PAUSE.mul_f64(0.9) && at_most < FIRST_PAUSE * 3,
            "and no longer than is said: {at_most:?}"
        );
        flow.could_not_run(Duration::from_secs(9));
        flow.could_run();
        assert!(waits() < FIRST_PAUSE / 2, "until it can");
    }

    #[test]
    fn one_thing_that_cannot_be_read_keeps_nothing_else_waiting() {
        let flow = FlowControl::new(2);
        let waits = || {
            let began = Instant::now();
            assert_eq!(flow.wait_for_room(|| false), Some(2));
            began.elapsed()
        };
        for _ in 0..100 {
            flow.could_not_read("read package a".into(), Duration::from_secs(9));
        }
        assert!(waits() < FIRST_PAUSE / 2);
        // A worker that can read nothing meets something else soon.
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
        flow.moves(Counted::Waiting, Counted::Running, None);
        let permit = flow.may_begin(true, || flow.let_go(Counted::Waiting, None));
        assert!(permit.is_some());
        assert!(flow.is_alone() && flow.may_begin(false, || ()).is_none() && flow.may_begin(true, || ()).is_none());
        std::thread::scope(|threads| {
            let claimer = threads.spawn(|| flow.wait_for_room(|| false));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!claimer.is_finished(), "nothing is claimed beside it");
            drop(permit);
            assert_eq!(claimer.join().unwrap(), Some(1));
        });
        assert!(flow.may_begin(false, || ()).is_some());
    }

    #[test]
    fn a_free_slot_is_claimed_for_as_soon_as_a_slot_began_what_waited() {
        let flow = FlowControl::new(2);
        flow.claimed(1);
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::scope(|threads| {
            threads.spawn(|| tell.send(flow.wait_for_room(|| false)).unwrap());
            assert!(told.recv_timeout(Duration::from_millis(50)).is_err(), "a job waits, and nothing is claimed ahead");
            flow.moves(Counted::Waiting, Counted::Running, None);
            let woken = told.recv_timeout(Duration::from_secs(5));
            flow.wake();
            assert_eq!(woken, Ok(Some(1)));
        });
    }

    #[test]
    fn no_more_is_claimed_than_there_is_room_for() {
        let flow = FlowControl::new(2);
        assert_eq!(flow.wait_for_room(|| false), Some(2));
        flow.claimed(2);
        assert_eq!(flow.wait_for_room(|| true), None);
        flow.moves(Counted::Waiting, Counted::Running, None);
        flow.moves(Counted::Running, Counted::Sent, Some(Duration::from_secs(1)));
        // One waits, and nothing is claimed ahead of a step that takes a second.
        flow.moves(Counted::Waiting, Counted::Running, None);
        assert_eq!(flow.wait_for_room(|| false), Some(1));
        flow.let_go(Counted::Sent, None);
        assert_eq!(flow.wait_for_room(|| false), Some(1));
        assert_eq!(flow.figures(), (1, 1));
    }
}
