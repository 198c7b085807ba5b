//! Flat combining: many threads have work that only one thread can do at a time, and that is cheaper in a batch.
//! Examples are a group commit and a round trip to a server. (Hendler, Incze, Shavit, Tzafrir: Flat Combining and the
//! Synchronization-Parallelism Tradeoff, SPAA 2010.)
//!
//! A thread that finds the resource free does its own work at once, together with the work that other threads queue
//! meanwhile. A thread that finds the resource busy queues its work; the resource's own thread does it. So a thread
//! that is alone waits for no other thread, and under load one sync or one reply serves all threads that wait.
//!
//! This module does not know what the work is. The thread that holds the resource must not queue work for the resource
//! and wait for it: that would be a deadlock.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::Instant;

use crate::sync::lock;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

/// A resource `S` that one thread uses at a time, and the queue of work `T` for it.
#[derive(Debug)]
pub struct FlatCombiner<S, T> {
    means: Mutex<S>,
    inbox: Receiver<T>,
}

/// Exclusive access to the resource; dereferences to it.
#[derive(Debug)]
pub struct CombinerGuard<'a, S, T> {
    means: MutexGuard<'a, S>,
    inbox: &'a Receiver<T>,
}

impl<S, T> FlatCombiner<S, T> {
    /// The combiner of a resource, and the sender that queues work for the resource's own thread. That thread ends when
    /// every sender is dropped.
    pub fn new(means: S) -> (Arc<Self>, Sender<T>) {
        let (sender, inbox) = crossbeam_channel::unbounded();
        (Arc::new(Self { means: Mutex::new(means), inbox }), sender)
    }

    /// Takes the resource if it is free and no earlier work is queued; never blocks.
    pub fn try_lock(&self) -> Option<CombinerGuard<'_, S, T>> {
        if !self.inbox.is_empty() {
            return None;
        }
        let means = match self.means.try_lock() {
            Ok(means) => means,
            // A transaction that a panic interrupted has been rolled back before the mutex counts as poisoned.
            Err(TryLockError::Poisoned(means)) => means.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(CombinerGuard { means, inbox: &self.inbox })
    }

    /// For the resource's own thread: waits until the resource is free, and takes it.
    pub fn lock(&self) -> CombinerGuard<'_, S, T> {
        CombinerGuard { means: lock(&self.means), inbox: &self.inbox }
    }

    /// For the resource's own thread: waits for queued work until the given time, or without end if there is none.
    ///
    /// # Errors
    /// `Timeout`; or `Disconnected` if every sender is dropped.
    pub fn wait(&self, until: Option<Instant>) -> Result<T, RecvTimeoutError> {
        match until {
            Some(until) => self.inbox.recv_deadline(until),
            None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }
}

impl<S, T> CombinerGuard<'_, S, T> {
    /// Takes queued work, at most `at_most` items; never blocks.
    pub fn take_waiting(&self, at_most: usize) -> impl Iterator<Item = T> {
        self.inbox.try_iter().take(at_most)
    }
}

impl<S, T> Deref for CombinerGuard<'_, S, T> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.means
    }
}

impl<S, T> DerefMut for CombinerGuard<'_, S, T> {
    fn deref_mut(&mut self) -> &mut S {
        &mut self.means
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_sits_and_gets_what_others_left() {
        let (combiner, sender) = FlatCombiner::new(0);
        let mut guard = combiner.try_lock().unwrap();
        assert!(combiner.try_lock().is_none(), "taken");
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        sender.send(3).unwrap();
        *guard += guard.take_waiting(2).sum::<i32>();
        assert_eq!(*guard, 3);
        drop(guard);
        assert!(combiner.try_lock().is_none(), "waiting requests come first");
        assert_eq!(combiner.wait(None), Ok(3));
        assert_eq!(*combiner.lock(), 3);
        assert_eq!(combiner.wait(Some(Instant::now())), Err(RecvTimeoutError::Timeout));
        drop(sender);
        assert_eq!(combiner.wait(None), Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn a_panic_at_the_desk_does_not_close_it() {
        let (combiner, _sender) = FlatCombiner::<i32, i32>::new(7);
        std::thread::scope(|threads| {
            let panicked = threads.spawn(|| {
                let _seat = combiner.try_lock();
                panic!("amid the work");
            });
            assert!(panicked.join().is_err());
        });
        assert_eq!(combiner.try_lock().map(|guard| *guard), Some(7));
        assert_eq!(*combiner.lock(), 7);
    }
}
