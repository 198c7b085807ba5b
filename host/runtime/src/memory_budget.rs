//! What all attempts of a process hold together beyond their own parts: decoded pictures and artifacts. Without it ten
//! tasks, each within its own budget, take as much memory as ten budgets.
//!
//! Who finds no room waits for others to let something go, and then gives up: that is the host's affair, not the
//! task's, and the attempt is made again later. Only the oldest attempt of those without room waits, and the others
//! give up at once: what they hold is what it waits for. Alone an attempt always finds room, so what a task may hold
//! does not depend on who runs beside it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use dovetail_core::stop::{Stop, StopReason};

/// How long is waited for room: who holds it may be in the middle of something that takes long.
const PATIENCE: Duration = Duration::from_secs(2);

/// Shared by all attempts of a runtime. In bytes.
#[derive(Debug)]
pub(crate) struct MemoryBudget {
    /// Held by each attempt without asking.
    own: u64,
    /// Held by all together beyond that.
    shared: u64,
    state: Mutex<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    taken: u64,
    /// Attempts so far.
    begun: u64,
    /// The age of who waits, and how it hears that there may be room; dropped, it hears that an older one waits.
    waiting: Option<(u64, Sender<()>)>,
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// Others hold it.
    Taken,
    /// The attempt must end.
    Stopped(StopReason),
}

/// What one attempt holds; it goes back with it.
#[derive(Debug)]
pub(crate) struct Share {
    room: Arc<MemoryBudget>,
    held: u64,
    /// The lower, the older.
    age: u64,
}

impl MemoryBudget {
    pub(crate) fn new(own: u64, shared: u64) -> Arc<Self> {
        Arc::new(Self { own, shared, state: Mutex::default() })
    }

    pub(crate) fn share(self: &Arc<Self>) -> Share {
        let mut state = self.lock();
        state.begun += 1;
        Share { room: self.clone(), held: 0, age: state.begun }
    }

    /// What is taken of the shared part.
    pub(crate) fn taken(&self) -> u64 {
        self.lock().taken
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Of so many bytes, those beyond the attempt's own part.
    fn beyond(&self, held: u64) -> u64 {
        held.saturating_sub(self.room.own)
    }

    fn take(&mut self, shared: &mut Shared, more: u64) -> bool {
        let mine = self.beyond(self.held);
        let others = shared.taken - mine;
        let wanted = self.beyond(self.held.saturating_add(more));
        let fits = wanted == mine || others == 0 || others.saturating_add(wanted) <= self.room.shared;
        if fits {
            shared.taken = others + wanted;
            self.held += more;
        }
        fits
    }

    /// Takes so much more if there is room now.
    pub(crate) fn try_grow(&mut self, more: u64) -> bool {
        let room = self.room.clone();
        let mut shared = room.lock();
        self.take(&mut shared, more)
    }

    /// Takes so much more, waiting for room.
    pub(crate) fn grow(&mut self, more: u64, stop: &Stop) -> Result<(), NoRoom> {
        let (room, until) = (self.room.clone(), Instant::now() + PATIENCE);
        loop {
            let freed = {
                let mut shared = room.lock();
                // Whether it has waited or not: it does so no more.
                shared.waiting.take_if(|(age, _)| *age == self.age);
                if self.take(&mut shared, more) {
                    return Ok(());
                }
                if shared.waiting.as_ref().is_some_and(|(age, _)| *age < self.age) {
                    return Err(NoRoom::Taken);
                }
                let (free, freed) = crossbeam_channel::bounded(1);
                shared.waiting = Some((self.age, free));
                freed
            };
            let heard = stop.clone().by(until).wait(&freed);
            match heard {
                Ok(Some(())) => {}
                // An older one waits now.
                Ok(None) => return Err(NoRoom::Taken),
                Err(_) => {
                    room.lock().waiting.take_if(|(age, _)| *age == self.age);
                    return Err(stop.reason(Instant::now()).map_or(NoRoom::Taken, NoRoom::Stopped));
                }
            }
        }
    }

    /// Gives back so much of it.
    pub(crate) fn shrink(&mut self, less: u64) {
        let held = self.held.saturating_sub(less);
        let back = self.beyond(self.held) - self.beyond(held);
        self.held = held;
        if back > 0 {
            let mut shared = self.room.lock();
            shared.taken -= back;
            if let Some((_, free)) = &shared.waiting {
                // Full: it has been told, and has not looked yet.
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
        let room = MemoryBudget::new(10, 100);
        let (mut a, mut b, mut c) = (room.share(), room.share(), room.share());
        assert!(a.try_grow(110), "10 of its own, and all that is shared");
        assert!(b.try_grow(10) && !b.try_grow(1), "the own part is left, and no more");
        a.shrink(40);
        assert!(b.try_grow(40) && !b.try_grow(1));
        drop(a);
        assert!(b.try_grow(60) && !c.try_grow(11));
        drop(b);
        assert!(c.try_grow(1000), "alone it may have what its own budget allows");
        assert!(room.share().try_grow(10) && !room.share().try_grow(11));
        drop(c);
        assert_eq!(room.lock().taken, 0);
    }

    #[test]
    fn who_waits_gets_what_another_lets_go() {
        let room = MemoryBudget::new(0, 100);
        let (mut a, mut b) = (room.share(), room.share());
        assert!(a.try_grow(80) && b.try_grow(20));
        std::thread::scope(|threads| {
            let waiting = threads.spawn(|| b.grow(50, &Stop::never()));
            while room.lock().waiting.is_none() {
                std::thread::yield_now();
            }
            a.shrink(50);
            assert_eq!(waiting.join().unwrap(), Ok(()));
        });
        assert_eq!((a.held, b.held, room.lock().taken), (30, 70, 100));
        assert!(room.lock().waiting.is_none(), "who waited does so no more");
    }

    #[test]
    fn who_waits_in_vain_gives_up_and_who_must_stop_stops() {
        let room = MemoryBudget::new(0, 100);
        let (mut a, mut b) = (room.share(), room.share());
        assert!(a.try_grow(80));
        let began = Instant::now();
        assert_eq!(b.grow(50, &Stop::never()), Err(NoRoom::Taken));
        assert!(began.elapsed() >= PATIENCE);
        let canceller = dovetail_core::stop::Canceller::new();
        canceller.cancel();
        assert_eq!(b.grow(50, &canceller.stop()), Err(NoRoom::Stopped(StopReason::Cancelled)));
        let late = Stop::never().by(Instant::now() + Duration::from_millis(10));
        assert_eq!(b.grow(50, &late), Err(NoRoom::Stopped(StopReason::Deadline)));
        assert_eq!((b.held, room.taken()), (0, 80));
        assert!(room.lock().waiting.is_none());
    }

    /// Whichever of them waits first: the younger ones give up, and with what they held the oldest goes on.
    #[test]
    fn of_those_that_wait_for_one_another_the_oldest_goes_on() {
        for first in [0, 2] {
            let room = MemoryBudget::new(0, 90);
            let mut shares: Vec<Option<Share>> = (0..3).map(|_| Some(room.share())).collect();
            assert!(shares.iter_mut().flatten().all(|share| share.try_grow(30)));
            let begins = Instant::now();
            let ends = std::thread::scope(|threads| {
                let mut waiting = Vec::new();
                for n in [first, 1, 2 - first] {
                    let mut share = shares[n].take().unwrap();
                    // What it held goes with it where it gives up; the one that goes on keeps it until all have ended.
                    waiting.push((n, threads.spawn(move || share.grow(60, &Stop::never()).map(|()| share))));
                    std::thread::sleep(Duration::from_millis(50));
                }
                let mut ends: Vec<_> =
                    waiting.into_iter().map(|(n, end)| (n, end.join().unwrap().map(|share| share.held))).collect();
                ends.sort_by_key(|(n, _)| *n);
                ends
            });
            assert_eq!(ends, [(0, Ok(90)), (1, Err(NoRoom::Taken)), (2, Err(NoRoom::Taken))]);
            assert!(begins.elapsed() < PATIENCE, "nobody waits in vain");
        }
    }
}
