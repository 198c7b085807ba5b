//! Where claimed jobs wait for a slot. Of slots that wait for a job, the one that began to wait last gets the next: its
//! memory is still in the processor's caches, and those that are not needed sleep on.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

struct State<T> {
    jobs: VecDeque<T>,
    /// Slots that wait, the last one last.
    idle: Vec<usize>,
    /// No more jobs come.
    closed: bool,
}

pub(super) struct Slots<T> {
    state: Mutex<State<T>>,
    /// What each slot sleeps on.
    wakers: Vec<Condvar>,
}

impl<T> Slots<T> {
    pub(super) fn new(slots: usize) -> Self {
        let state = State { jobs: VecDeque::new(), idle: Vec::new(), closed: false };
        Self { state: Mutex::new(state), wakers: (0..slots).map(|_| Condvar::new()).collect() }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn give(&self, job: T) {
        let mut state = self.state();
        state.jobs.push_back(job);
        let wake = state.idle.pop();
        drop(state);
        if let Some(waker) = wake.and_then(|slot| self.wakers.get(slot)) {
            waker.notify_one();
        }
    }

    /// Each slot ends when it has no more to do.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.wakers.iter().for_each(Condvar::notify_one);
    }

    /// What waits now, without waiting for more.
    pub(super) fn take_waiting(&self) -> Option<T> {
        self.state().jobs.pop_front()
    }

    /// The next job for this slot; none: there are no more.
    pub(super) fn next(&self, slot: usize) -> Option<T> {
        let mut state = self.state();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                // It may have been woken by something else, and stand there still.
                state.idle.retain(|idle| *idle != slot);
                return Some(job);
            }
            let waker = self.wakers.get(slot).filter(|_| !state.closed)?;
            if !state.idle.contains(&slot) {
                state.idle.push(slot);
            }
            state = waker.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn wait_for(slots: &Slots<u32>, idle: &[usize]) {
        while slots.state().idle != idle {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn the_slot_that_waits_shortest_gets_the_next_job_and_all_end() {
        let slots = Slots::new(2);
        let (told, heard) = crossbeam_channel::unbounded();
        std::thread::scope(|threads| {
            let slot = |n: usize| {
                let (slots, told) = (&slots, told.clone());
                move || {
                    while let Some(job) = slots.next(n) {
                        told.send((n, job)).unwrap();
                    }
                }
            };
            threads.spawn(slot(0));
            wait_for(&slots, &[0]);
            threads.spawn(slot(1));
            for job in 0..20 {
                wait_for(&slots, &[0, 1]);
                slots.give(job);
                assert_eq!(heard.recv(), Ok((1, job)));
            }
            slots.close();
        });
        assert!(slots.next(0).is_none());
    }

    #[test]
    fn every_job_is_done_once_before_the_end() {
        let slots = Slots::new(4);
        let (told, heard) = crossbeam_channel::unbounded();
        std::thread::scope(|threads| {
            for n in 0..4 {
                let (slots, told) = (&slots, told.clone());
                threads.spawn(move || {
                    while let Some(job) = slots.next(n) {
                        told.send(job).unwrap();
                    }
                });
            }
            (0..10_000).for_each(|job| slots.give(job));
            slots.close();
        });
        let mut done: Vec<u32> = heard.try_iter().collect();
        done.sort_unstable();
        assert_eq!(done, (0..10_000).collect::<Vec<_>>());
        slots.give(7);
        assert_eq!((slots.take_waiting(), slots.take_waiting()), (Some(7), None));
    }
}
