//! The memory that all attempts of a process hold together beyond their own parts: decoded pictures and artifacts.
//! Without this budget, ten tasks, each within its own budget, could hold ten budgets.
//!
//! If the shared budget is exhausted, the oldest attempt waits up to 2 s; younger ones fail and are requeued,
//! uncharged. Younger attempts fail at once, because the oldest one waits for the memory that they hold. If the oldest
//! attempt waits in vain, it fails and is requeued as well. An attempt that runs alone always gets its memory, so the
//! amount that a task may hold does not depend on concurrent attempts.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use dovetail_core::stop::{Stop, StopReason};
use dovetail_core::sync::lock;

/// The longest wait for memory. Another attempt may be in the middle of a long operation.
const PATIENCE: Duration = Duration::from_secs(2);

/// The budget, shared by all attempts of a runtime. In bytes.
#[derive(Debug)]
pub(crate) struct MemoryBudget {
    /// Bytes that each attempt may hold without a claim on the shared budget.
    own: u64,
    /// Bytes that all attempts together may hold beyond their own parts.
    shared: u64,
    state: Mutex<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Bytes in use of the shared budget.
    taken: u64,
    /// The number of attempts so far.
    begun: u64,
    /// The age of the waiting attempt, and the channel that wakes it when memory was released. If the sender is
    /// dropped, an older attempt has taken its place.
    waiting: Option<(u64, Sender<()>)>,
}

/// Why an attempt gets no memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Other attempts hold the shared budget.
    Exhausted,
    /// The attempt must end.
    Stopped(StopReason),
}

/// The bytes that one attempt holds. Dropping it releases them.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<MemoryBudget>,
    held: u64,
    /// The lower the number, the older the attempt.
    age: u64,
}

impl MemoryBudget {
    /// A budget of `shared` bytes beyond the `own` bytes of each attempt.
    pub(crate) fn new(own: u64, shared: u64) -> Arc<Self> {
        Arc::new(Self { own, shared, state: Mutex::default() })
    }

    /// The share of a new attempt, which holds nothing yet.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        let mut state = self.lock();
        state.begun += 1;
        Share { budget: self.clone(), held: 0, age: state.begun }
    }

    /// Bytes in use of the shared budget.
    pub(crate) fn taken(&self) -> u64 {
        self.lock().taken
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        lock(&self.state)
    }
}

impl Share {
    /// The part of `held` bytes that counts towards the shared budget.
    fn beyond(&self, held: u64) -> u64 {
        held.saturating_sub(self.budget.own)
    }

    /// Takes `more` bytes if they fit. An attempt that alone uses the shared budget is not limited.
    fn take(&mut self, shared: &mut Shared, more: u64) -> bool {
        let before = self.beyond(self.held);
        let others = shared.taken - before;
        let wanted = self.beyond(self.held.saturating_add(more));
        let fits = wanted == before || others == 0 || others.saturating_add(wanted) <= self.budget.shared;
        if fits {
            shared.taken = others + wanted;
            self.held += more;
        }
        fits
    }

    /// Takes `more` bytes if they are available now.
    pub(crate) fn try_grow(&mut self, more: u64) -> bool {
        let budget = self.budget.clone();
        let mut shared = budget.lock();
        self.take(&mut shared, more)
    }

    /// Takes `more` bytes. The oldest attempt without memory waits for them, at most for [`PATIENCE`].
    ///
    /// # Errors
    /// `Exhausted` if an older attempt waits or the wait was in vain; `Stopped` if `stop` fires first.
    pub(crate) fn grow(&mut self, more: u64, stop: &Stop) -> Result<(), Denied> {
        let (budget, until) = (self.budget.clone(), Instant::now() + PATIENCE);
        loop {
            let freed = {
                let mut shared = budget.lock();
                // This attempt is not waiting now; remove its entry from an earlier round.
                shared.waiting.take_if(|(age, _)| *age == self.age);
                if self.take(&mut shared, more) {
                    return Ok(());
                }
                if shared.waiting.as_ref().is_some_and(|(age, _)| *age < self.age) {
                    return Err(Denied::Exhausted);
                }
                let (free, freed) = crossbeam_channel::bounded(1);
                shared.waiting = Some((self.age, free));
                freed
            };
            match stop.clone().by(until).wait(&freed) {
                Ok(Some(())) => {}
                // An older attempt has taken the place.
                Ok(None) => return Err(Denied::Exhausted),
                Err(_) => {
                    budget.lock().waiting.take_if(|(age, _)| *age == self.age);
                    return Err(stop.reason(Instant::now()).map_or(Denied::Exhausted, Denied::Stopped));
                }
            }
        }
    }

    /// Releases `less` bytes.
    pub(crate) fn shrink(&mut self, less: u64) {
        let held = self.held.saturating_sub(less);
        let back = self.beyond(self.held) - self.beyond(held);
        self.held = held;
        if back > 0 {
            let mut shared = self.budget.lock();
            shared.taken -= back;
            if let Some((_, free)) = &shared.waiting {
                // If the channel is full, the waiting attempt has an unread message already.
                _ = free.try_send(());
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink(self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_part_is_never_asked_for_and_the_rest_is_shared() {
        let budget = MemoryBudget::new(10, 100);
        let (mut a, mut b, mut c) = (budget.share(), budget.share(), budget.share());
        assert!(a.try_grow(110), "10 of its own, and all that is shared");
        assert!(b.try_grow(10) && !b.try_grow(1), "the own part is left, and no more");
        a.shrink(40);
        assert!(b.try_grow(40) && !b.try_grow(1));
        drop(a);
        assert!(b.try_grow(60) && !c.try_grow(11));
        drop(b);
        assert!(c.try_grow(1000), "a single attempt is limited only by its own limits");
        assert!(budget.share().try_grow(10) && !budget.share().try_grow(11));
        drop(c);
        assert_eq!(budget.lock().taken, 0);
    }

    #[test]
    fn a_waiting_attempt_gets_the_memory_that_another_releases() {
        let budget = MemoryBudget::new(0, 100);
        let (mut a, mut b) = (budget.share(), budget.share());
        assert!(a.try_grow(80) && b.try_grow(20));
        std::thread::scope(|threads| {
            let waiting = threads.spawn(|| b.grow(50, &Stop::never()));
            while budget.lock().waiting.is_none() {
                std::thread::yield_now();
            }
            a.shrink(50);
            assert_eq!(waiting.join().unwrap(), Ok(()));
        });
        assert_eq!((a.held, b.held, budget.lock().taken), (30, 70, 100));
        assert!(budget.lock().waiting.is_none(), "no attempt waits any more");
    }

    #[test]
    fn an_attempt_waits_for_memory_until_it_is_stopped_or_for_2_s() {
        let budget = MemoryBudget::new(0, 100);
        let (mut a, mut b) = (budget.share(), budget.share());
        assert!(a.try_grow(80));
        let began = Instant::now();
        assert_eq!(b.grow(50, &Stop::never()), Err(Denied::Exhausted));
        assert!(began.elapsed() >= PATIENCE);
        let canceller = dovetail_core::stop::Canceller::new();
        canceller.cancel();
        assert_eq!(b.grow(50, &canceller.stop()), Err(Denied::Stopped(StopReason::Cancelled)));
        let late = Stop::never().by(Instant::now() + Duration::from_millis(10));
        assert_eq!(b.grow(50, &late), Err(Denied::Stopped(StopReason::Deadline)));
        assert_eq!((b.held, budget.taken()), (0, 80));
        assert!(budget.lock().waiting.is_none());
    }

    /// In either order of waiting, the younger attempts fail, and the oldest one gets the memory that they release.
    #[test]
    fn of_those_that_wait_for_one_another_the_oldest_goes_on() {
        for first in [0, 2] {
            let budget = MemoryBudget::new(0, 90);
            let mut shares: Vec<Option<Share>> = (0..3).map(|_| Some(budget.share())).collect();
            assert!(shares.iter_mut().flatten().all(|share| share.try_grow(30)));
            let begins = Instant::now();
            let ends = std::thread::scope(|threads| {
                let mut waiting = Vec::new();
                for n in [first, 1, 2 - first] {
                    let mut share = shares[n].take().unwrap();
                    // An attempt that fails drops its share at once. The attempt that gets its memory keeps the share
                    // until all have ended.
                    waiting.push((n, threads.spawn(move || share.grow(60, &Stop::never()).map(|()| share))));
                    std::thread::sleep(Duration::from_millis(50));
                }
                let mut ends: Vec<_> =
                    waiting.into_iter().map(|(n, end)| (n, end.join().unwrap().map(|share| share.held))).collect();
                ends.sort_by_key(|(n, _)| *n);
                ends
            });
            assert_eq!(ends, [(0, Ok(90)), (1, Err(Denied::Exhausted)), (2, Err(Denied::Exhausted))]);
            assert!(begins.elapsed() < PATIENCE, "no attempt waited for the full patience");
        }
    }
}
