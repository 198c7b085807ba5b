//! How many jobs a worker has in hand: as many as it has slots, and so many more that slots never wait for the queue's
//! round trip. Short steps are claimed many at a time, long ones one by one, so that no worker hoards what another
//! could run.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dovetail_core::blobs::Store;

/// Work that may wait here for a slot, in time.
const AHEAD: Duration = Duration::from_millis(40);
/// Jobs claimed ahead, at most.
const MOST_AHEAD: usize = 512;
/// How long a worker claims nothing after it could not run what it had claimed; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// How often it is told that a store still fails.
pub(super) const TELL: Duration = Duration::from_secs(30);
/// Changes on their way to being recorded, at most: when the records are slow, nothing new is claimed.
const MOST_UNSETTLED: usize = 4096;

/// A store that failed.
#[derive(Debug, Clone, Copy)]
struct Trouble {
    since: Instant,
    told: Instant,
    /// It did not take what was done: nothing new is claimed until it does.
    keeps: bool,
}

/// A circuit breaker: others may be able to run what this worker cannot.
#[derive(Debug, Clone)]
struct Failing {
    /// So often in a row; each claim counts once.
    times: u32,
    /// Nothing new is claimed until then.
    until: Instant,
    /// The one thing that could not be read, if it was only one: then it may be that thing that is damaged, and not
    /// this worker.
    subject: Option<String>,
}

#[derive(Debug)]
struct State {
    /// Claimed, and not begun.
    waiting: usize,
    running: usize,
    /// Begun, and not settled.
    unsettled: usize,
    /// Changes that the ledger has and has not answered.
    sent: usize,
    /// Ended since the beginning.
    ended: u64,
    /// How long a step takes, smoothed, in microseconds; none: not known yet.
    usual_us: Option<f64>,
    /// The stores that failed and have not answered since. None: whichever it was.
    troubled: BTreeMap<Option<Store>, Trouble>,
    /// A job runs alone, or is about to.
    alone: bool,
    /// This worker could not run the jobs that it claimed.
    failing: Option<Failing>,
}

#[derive(Debug)]
pub(super) struct FlowControl {
    slots: usize,
    state: Mutex<State>,
    changed: Condvar,
}

impl FlowControl {
    pub(super) fn new(slots: usize) -> Self {
        let troubled = BTreeMap::new();
        let state = State {
            waiting: 0,
            running: 0,
            unsettled: 0,
            sent: 0,
            ended: 0,
            usual_us: None,
            troubled,
            alone: false,
            failing: None,
        };
        Self { slots: slots.max(1), state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it makes sense to claim, and says how many; none: `over` became true.
    pub(super) fn wait_for_room(&self, over: impl Fn() -> bool) -> Option<usize> {
        let mut state = self.state();
        loop {
            if over() {
                return None;
            }
            let ahead = ahead(self.slots, state.usual_us);
            let room = (self.slots + ahead).saturating_sub(state.waiting + state.running);
            // What is to be recorded finds out when the store answers again; where there is nothing of that kind, the
            // next claim does.
            let held_back = state.unsettled > 0 && state.troubled.values().any(|trouble| trouble.keeps);
            // Half of what is claimed ahead may be used up first: fewer, larger claims.
            let claims = room > 0
                && state.waiting <= ahead / 2
                && state.unsettled < MOST_UNSETTLED
                && !held_back
                && !state.alone;
            let pause = state
                .failing
                .as_ref()
                .map_or(Duration::ZERO, |failing| failing.until.saturating_duration_since(Instant::now()));
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

    pub(super) fn claimed(&self, jobs: usize) {
        let mut state = self.state();
        state.waiting += jobs;
        state.unsettled += jobs;
    }

    pub(super) fn started(&self) {
        let mut state = self.state();
        state.waiting -= 1;
        state.running += 1;
    }

    /// None: it was not begun.
    pub(super) fn ended(&self, took: Option<Duration>) {
        let mut state = self.state();
        state.running -= 1;
        if let Some(took) = took {
            state.ended += 1;
            let took = took.as_secs_f64() * 1e6;
            state.usual_us = Some(state.usual_us.map_or(took, |usual| usual + (took - usual) / 16.0));
        }
        drop(state);
        self.changed.notify_all();
    }

    pub(super) fn settled(&self) {
        self.state().unsettled -= 1;
        self.changed.notify_all();
    }

    /// Whether a job may begin: not while another one is to be alone. With `alone` it waits until this worker runs
    /// nothing else and nothing waits; `give_back` is called now and then for what was claimed and not begun.
    pub(super) fn may_begin(&self, alone: bool, give_back: impl Fn()) -> bool {
        let mut state = self.state();
        if state.alone || !alone {
            return !state.alone;
        }
        state.alone = true;
        while state.running > 1 || state.waiting > 0 {
            drop(state);
            give_back();
            state = self.state();
            if state.running > 1 || state.waiting > 0 {
                // A claim may be on its way that began before this.
                (state, _) =
                    self.changed.wait_timeout(state, Duration::from_secs(1)).unwrap_or_else(PoisonError::into_inner);
            }
        }
        true
    }

    /// Whether nothing waits and nothing runs but whoever asks: there is nothing that his slot could do sooner.
    pub(super) fn is_last_in_hand(&self) -> bool {
        let state = self.state();
        state.waiting == 0 && state.running == 1
    }

    pub(super) fn is_alone(&self) -> bool {
        self.state().alone
    }

    pub(super) fn alone_no_more(&self) {
        self.state().alone = false;
        self.changed.notify_all();
    }

    /// It was not this job's fault: the next claim waits, longer each time, and no longer than `at_most`. What is
    /// claimed at once counts once.
    pub(super) fn could_not_run(&self, at_most: Duration) {
        self.count_failure(None, at_most);
    }

    /// As [`FlowControl::could_not_run`], if something else could not be read before either: jobs of one damaged thing
    /// keep no others waiting.
    pub(super) fn could_not_read(&self, subject: String, at_most: Duration) {
        self.count_failure(Some(subject), at_most);
    }

    fn count_failure(&self, subject: Option<String>, at_most: Duration) {
        let (mut state, now) = (self.state(), Instant::now());
        let times = match &state.failing {
            Some(failing) if failing.until > now => return,
            Some(failing) if subject.is_some() && failing.subject == subject => return,
            Some(failing) => failing.times.saturating_add(1),
            None => u32::from(subject.is_none()),
        };
        let pause = match times.checked_sub(1) {
            Some(doubled) => FIRST_PAUSE.saturating_mul(1 << doubled.min(16)).min(at_most),
            None => Duration::ZERO,
        };
        state.failing = Some(Failing { times, until: now + pause, subject: subject.filter(|_| times == 0) });
    }

    pub(super) fn could_run(&self) {
        let mut state = self.state();
        if state.failing.take().is_some() {
            drop(state);
            self.changed.notify_all();
        }
    }

    pub(super) fn sent(&self) {
        self.state().sent += 1;
    }

    pub(super) fn answered(&self) {
        self.state().sent -= 1;
    }

    pub(super) fn all_answered(&self) -> bool {
        self.state().sent == 0
    }

    /// A store failed, with something that was done (`keeps`) or with a claim. How long it has, where it is time to
    /// tell that: at first, and then now and then.
    pub(super) fn failed(&self, store: Option<Store>, keeps: bool) -> Option<Duration> {
        let (mut state, now) = (self.state(), Instant::now());
        let before = state.troubled.get(&store).copied();
        let mut trouble = before.unwrap_or(Trouble { since: now, told: now, keeps });
        let tell = before.is_none() || now - trouble.told >= TELL;
        trouble.keeps |= keeps;
        trouble.told = if tell { now } else { trouble.told };
        state.troubled.insert(store, trouble);
        drop(state);
        self.changed.notify_all();
        tell.then_some(now - trouble.since)
    }

    /// Those of these stores that had failed: they answer again. `took`: what was done was recorded, so that new work
    /// can be claimed.
    pub(super) fn answered_by(&self, stores: &[Store], took: bool) -> Vec<Option<Store>> {
        let mut state = self.state();
        if state.troubled.is_empty() {
            return Vec::new();
        }
        // A store without a name is the only one.
        let again: Vec<_> =
            state.troubled.keys().filter(|store| store.is_none_or(|store| stores.contains(&store))).copied().collect();
        state.troubled.retain(|store, trouble| {
            trouble.keeps &= !took;
            !again.contains(store)
        });
        drop(state);
        self.changed.notify_all();
        again
    }

    /// Whoever waits looks whether there is still something to wait for.
    pub(super) fn wake(&self) {
        // Behind the lock, so that nobody misses it between his look and his sleep.
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
        (state.running, state.ended)
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
        assert!(flow.failed(Some(Store::Queue), false).is_some());
        assert_eq!(
            flow.wait_for_room(|| false),
            Some(2),
            "a claim failed, and nothing is on its way that could tell that the store answers"
        );
        flow.claimed(1);
        flow.started();
        assert_eq!(flow.wait_for_room(|| false), Some(1), "nor does a long step tell it");
    }

    #[test]
    fn a_store_answers_again_when_it_does_and_not_another_one() {
        let flow = FlowControl::new(2);
        assert_eq!(flow.failed(Some(Store::Records), true), Some(Duration::ZERO));
        assert_eq!(flow.failed(Some(Store::Records), true), None, "it was told a moment ago");
        assert_eq!(
            flow.answered_by(&[Store::Queue], false),
            [],
            "a claim was answered by the queue, and the records are down"
        );
        flow.claimed(1);
        assert_eq!(flow.wait_for_room(|| true), None);
        assert!(flow.state().troubled.values().any(|trouble| trouble.keeps), "what was done is still kept");
        assert_eq!(flow.failed(Some(Store::Queue), false), Some(Duration::ZERO), "another one is told of on its own");
        assert_eq!(flow.answered_by(&[Store::Queue, Store::Records], true), [Some(Store::Queue), Some(Store::Records)]);
        assert_eq!(flow.answered_by(&[Store::Queue, Store::Records], true), [], "once");
        flow.state().troubled.insert(
            None,
            Trouble { since: Instant::now(), told: Instant::now().checked_sub(TELL).unwrap(), keeps: true },
        );
        assert!(flow.failed(None, true).is_some(), "after a while it is told again");
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
        flow.started();
        let give_back = || {
            flow.started();
            flow.settled();
            flow.ended(None);
        };
        assert!(flow.may_begin(true, give_back));
        assert!(flow.is_alone() && !flow.may_begin(false, || ()) && !flow.may_begin(true, || ()));
        std::thread::scope(|threads| {
            let claimer = threads.spawn(|| flow.wait_for_room(|| false));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!claimer.is_finished(), "nothing is claimed beside it");
            flow.alone_no_more();
            assert_eq!(claimer.join().unwrap(), Some(1));
        });
        assert!(flow.may_begin(false, || ()));
    }

    #[test]
    fn no_more_is_claimed_than_there_is_room_for() {
        let flow = FlowControl::new(2);
        assert_eq!(flow.wait_for_room(|| false), Some(2));
        flow.claimed(2);
        assert_eq!(flow.wait_for_room(|| true), None);
        flow.started();
        flow.ended(Some(Duration::from_secs(1)));
        // One waits, and nothing is claimed ahead of a step that takes a second.
        flow.started();
        assert_eq!(flow.wait_for_room(|| false), Some(1));
        flow.settled();
        flow.settled();
        assert_eq!(flow.figures(), (1, 1));
    }
}
