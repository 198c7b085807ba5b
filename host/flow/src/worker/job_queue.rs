//! The queue in which claimed jobs wait for a slot. If several slots wait for a job, the slot that began to wait last
//! gets the next job: its memory is still in the processor's caches, and slots that are not needed keep sleeping.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use dovetail_core::sync::lock;

struct State<T> {
    jobs: VecDeque<T>,
    /// The slots that wait, in the order in which they began to wait.
    idle: Vec<usize>,
    /// No more jobs are pushed.
    closed: bool,
}

pub(super) struct JobQueue<T> {
    state: Mutex<State<T>>,
    /// One for each slot, so that exactly one chosen slot can be woken.
    wakers: Vec<Condvar>,
}

impl<T> JobQueue<T> {
    pub(super) fn new(slots: usize) -> Self {
        let state = State { jobs: VecDeque::new(), idle: Vec::new(), closed: false };
        Self { state: Mutex::new(state), wakers: (0..slots).map(|_| Condvar::new()).collect() }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        lock(&self.state)
    }

    /// Adds a job and wakes the slot that began to wait last.
    pub(super) fn push(&self, job: T) {
        let mut state = self.state();
        state.jobs.push_back(job);
        let wake = state.idle.pop();
        drop(state);
        if let Some(waker) = wake.and_then(|slot| self.wakers.get(slot)) {
            waker.notify_one();
        }
    }

    /// No more jobs are pushed: [`JobQueue::pop`] returns `None` once the queue is empty.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.wakers.iter().for_each(Condvar::notify_one);
    }

    /// The oldest waiting job. `None`: no job waits now. Does not block.
    pub(super) fn try_pop(&self) -> Option<T> {
        self.state().jobs.pop_front()
    }

    /// The oldest job, for this slot. Blocks while the queue is empty. `None`: the queue is closed and empty.
    pub(super) fn pop(&self, slot: usize) -> Option<T> {
        let mut state = self.state();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                // After a spurious wake-up the slot may still be in the list.
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

    fn wait_for(queue: &JobQueue<u32>, idle: &[usize]) {
        while queue.state().idle != idle {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn the_slot_that_waits_shortest_gets_the_next_job_and_all_end() {
        let queue = JobQueue::new(2);
        let (results, received) = crossbeam_channel::unbounded();
        std::thread::scope(|threads| {
            let slot = |n: usize| {
                let (queue, results) = (&queue, results.clone());
                move || {
                    while let Some(job) = queue.pop(n) {
                        results.send((n, job)).unwrap();
                    }
                }
            };
            threads.spawn(slot(0));
            wait_for(&queue, &[0]);
            threads.spawn(slot(1));
            for job in 0..20 {
                wait_for(&queue, &[0, 1]);
                queue.push(job);
                assert_eq!(received.recv(), Ok((1, job)));
            }
            queue.close();
        });
        assert!(queue.pop(0).is_none());
    }

    #[test]
    fn every_job_is_done_once_before_the_end() {
        let queue = JobQueue::new(4);
        let (results, received) = crossbeam_channel::unbounded();
        std::thread::scope(|threads| {
            for n in 0..4 {
                let (queue, results) = (&queue, results.clone());
                threads.spawn(move || {
                    while let Some(job) = queue.pop(n) {
                        results.send(job).unwrap();
                    }
                });
            }
            (0..10_000).for_each(|job| queue.push(job));
            queue.close();
        });
        let mut done: Vec<u32> = received.try_iter().collect();
        done.sort_unstable();
        assert_eq!(done, (0..10_000).collect::<Vec<_>>());
        queue.push(7);
        assert_eq!((queue.try_pop(), queue.try_pop()), (Some(7), None));
    }
}
