//! Work of many that only one at a time can do, and that is cheaper done together: a group commit, a round trip to a
//! server. Whoever brings some and finds nobody at the desk does it himself, with whatever others bring meanwhile;
//! otherwise it is left for the desk's thread. So one that comes alone waits for no other thread, and among many one
//! sync or one answer still serves all that wait.
//!
//! Not here: what the work is. The one at the desk may not bring work to it and wait.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

/// Where work of the kind `T` is done with the means `S`.
#[derive(Debug)]
pub struct FlatCombiner<S, T> {
    means: Mutex<S>,
    inbox: Receiver<T>,
}

/// Being the one at the desk. Dereferences to its means.
#[derive(Debug)]
pub struct Seat<'a, S, T> {
    means: MutexGuard<'a, S>,
    inbox: &'a Receiver<T>,
}

impl<S, T> FlatCombiner<S, T> {
    /// A desk, and where to leave work for its thread, which ends when nobody can leave any more.
    pub fn new(means: S) -> (Arc<Self>, Sender<T>) {
        let (leave, inbox) = crossbeam_channel::unbounded();
        (Arc::new(Self { means: Mutex::new(means), inbox }), leave)
    }

    /// The seat, if it is free and no work waits before ours.
    pub fn try_sit(&self) -> Option<Seat<'_, S, T>> {
        if !self.inbox.is_empty() {
            return None;
        }
        let means = match self.means.try_lock() {
            Ok(means) => means,
            // A transaction that a panic interrupted has been rolled back by then.
            Err(TryLockError::Poisoned(means)) => means.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(Seat { means, inbox: &self.inbox })
    }

    /// For the desk's thread: the seat, whoever has it now.
    pub fn sit(&self) -> Seat<'_, S, T> {
        Seat { means: self.means.lock().unwrap_or_else(PoisonError::into_inner), inbox: &self.inbox }
    }

    /// For the desk's thread: waits for work until then, and without end if there is no such time.
    ///
    /// # Errors
    /// `Timeout`, or `Disconnected` when nobody can leave any work.
    pub fn wait(&self, until: Option<Instant>) -> Result<T, RecvTimeoutError> {
        match until {
            Some(until) => self.inbox.recv_deadline(until),
            None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }
}

impl<S, T> Seat<'_, S, T> {
    /// Work that was left meanwhile, at most so much.
    pub fn left(&self, at_most: usize) -> impl Iterator<Item = T> {
        self.inbox.try_iter().take(at_most)
    }
}

impl<S, T> Deref for Seat<'_, S, T> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.means
    }
}

impl<S, T> DerefMut for Seat<'_, S, T> {
    fn deref_mut(&mut self) -> &mut S {
        &mut self.means
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_sits_and_gets_what_others_left() {
        let (desk, leave) = FlatCombiner::new(0);
        let mut seat = desk.try_sit().unwrap();
        assert!(desk.try_sit().is_none(), "taken");
        leave.send(1).unwrap();
        leave.send(2).unwrap();
        leave.send(3).unwrap();
        *seat += seat.left(2).sum::<i32>();
        assert_eq!(*seat, 3);
        drop(seat);
        assert!(desk.try_sit().is_none(), "what waits comes first");
        assert_eq!(desk.wait(None), Ok(3));
        assert_eq!(*desk.sit(), 3);
        assert_eq!(desk.wait(Some(Instant::now())), Err(RecvTimeoutError::Timeout));
        drop(leave);
        assert_eq!(desk.wait(None), Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn a_panic_at_the_desk_does_not_close_it() {
        let (desk, _leave) = FlatCombiner::<i32, i32>::new(7);
        std::thread::scope(|threads| {
            let fallen = threads.spawn(|| {
                let _seat = desk.try_sit();
                panic!("amid the work");
            });
            assert!(fallen.join().is_err());
        });
        assert_eq!(desk.try_sit().map(|seat| *seat), Some(7));
        assert_eq!(*desk.sit(), 7);
    }
}
