//! A bounded number of OS threads for native work. A caller waits for its answer or for its reason to stop, whichever
//! comes first.
//!
//! A job that has begun runs out, even if nobody waits for it any more; one that has not is taken back. So no more jobs
//! wait than there are callers, and what they hold (pictures) is freed as soon as a caller leaves.
//!
//! Passes over pictures that are there go before the decoding of further ones, which also waits while others are in
//! use: else ten steps that begin together hold ten pictures before the first face is found. It waits for passes alone:
//! where none runs or waits, a picture is decoded. (A picture that is let go while a pass runs is noticed when that
//! ends.)

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use dovetail_core::stop::Stop;
use dovetail_core::vision::VisionError;

/// So many jobs go before one that waits for its turn after them, at the most.
const SHARE: u32 = 8;

type Job = Box<dyn FnOnce() + Send>;
/// Emptied by the thread that takes the job, or by the caller that takes it back.
type JobSlot = Arc<Mutex<Option<Job>>>;

fn take(place: &JobSlot) -> Option<Job> {
    place.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// When a job is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Priority {
    /// Works on what is in memory already.
    First,
    /// Will take memory.
    After,
}

#[derive(Default)]
struct Waiting {
    first: VecDeque<JobSlot>,
    after: VecDeque<JobSlot>,
    /// Taken from the first since one was taken from the other, while it waited.
    passed: u32,
    running: usize,
    closed: bool,
}

impl Waiting {
    fn next(&mut self, room: &dyn Fn() -> bool) -> Option<JobSlot> {
        let turn = self.first.is_empty() || self.passed >= SHARE;
        if !self.after.is_empty()
            && turn
            && (room() || self.passed >= SHARE || (self.first.is_empty() && self.running == 0))
        {
            self.passed = 0;
            return self.after.pop_front();
        }
        let next = self.first.pop_front()?;
        self.passed = if self.after.is_empty() { 0 } else { self.passed + 1 };
        Some(next)
    }
}

struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// Whether there is room for what takes memory.
    room: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Queue {
    fn add(&self, turn: Priority, place: JobSlot) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match turn {
            Priority::First => waiting.first.push_back(place),
            Priority::After => waiting.after.push_back(place),
        }
        self.changed.notify_one();
    }

    fn close(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.changed.notify_all();
    }

    /// The next job; none when it is closed and empty. Whoever took one before has done it.
    fn next(&self, done: bool) -> Option<JobSlot> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if done {
            waiting.running -= 1;
            // What waited for this pass may begin, on another thread if this one takes something else; and whoever is
            // to end must hear of it.
            if waiting.closed || !waiting.after.is_empty() {
                self.changed.notify_all();
            }
        }
        loop {
            if let Some(place) = waiting.next(&*self.room) {
                waiting.running += 1;
                return Some(place);
            }
            if waiting.closed && waiting.after.is_empty() {
                return None;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

pub(crate) struct Pool {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// `room`: whether what takes memory may begin beside what runs.
    pub(crate) fn new(threads: usize, room: impl Fn() -> bool + Send + Sync + 'static) -> std::io::Result<Self> {
        let queue = Queue { waiting: Mutex::default(), changed: Condvar::new(), room: Box::new(room) };
        let mut pool = Self { queue: Arc::new(queue), threads: Vec::new() };
        for number in 0..threads.max(1) {
            let queue = pool.queue.clone();
            let work = move || {
                let mut done = false;
                while let Some(place) = queue.next(done) {
                    done = true;
                    if let Some(job) = take(&place) {
                        // A panic drops the answer's sender, which is how the caller learns of it; the hook has printed
                        // it.
                        drop(catch_unwind(AssertUnwindSafe(job)));
                    }
                }
            };
            pool.threads.push(std::thread::Builder::new().name(format!("vision-{number}")).spawn(work)?);
        }
        Ok(pool)
    }

    /// Runs `work` on a thread of the pool.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        turn: Priority,
        stop: &Stop,
        work: impl FnOnce() -> Result<T, VisionError> + Send + 'static,
    ) -> Result<T, VisionError> {
        let (answer, answered) = crossbeam_channel::bounded(1);
        let job: Job = Box::new(move || {
            // Nobody may be waiting any more; then the answer is thrown away.
            answer.send(work()).ok();
        });
        let place: JobSlot = Arc::new(Mutex::new(Some(job)));
        let crashed =
            || VisionError::unavailable("vision_crashed", "the vision library failed in the middle of the work");
        self.queue.add(turn, Arc::clone(&place));
        match stop.wait(&answered) {
            Ok(Some(done)) => done,
            Ok(None) => Err(crashed()),
            Err(reason) => {
                drop(take(&place));
                Err(VisionError::Stopped(reason))
            }
        }
    }
}

impl Drop for Pool {
    /// Waits for what has begun: a process must not end while a thread is inside OpenCV, whose globals are destroyed
    /// then.
    fn drop(&mut self) {
        self.queue.close();
        for thread in self.threads.drain(..) {
            // It catches every panic itself.
            thread.join().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dovetail_core::stop::{Canceller, StopReason};
    use std::time::{Duration, Instant};

    /// A job that has begun, and ends with a message.
    fn hold<'s>(s: &'s std::thread::Scope<'s, '_>, pool: &'s Pool) -> crossbeam_channel::Sender<()> {
        let (release, held) = crossbeam_channel::bounded::<()>(0);
        let (started, begun) = crossbeam_channel::bounded(1);
        s.spawn(move || {
            pool.run(Priority::First, &Stop::never(), move || {
                started.send(()).unwrap();
                Ok(held.recv().ok())
            })
        });
        begun.recv().unwrap();
        release
    }

    #[test]
    fn a_caller_leaves_at_once_and_its_waiting_job_never_begins() {
        let pool = Pool::new(1, || true).unwrap();
        let ran = Arc::new(std::sync::atomic::AtomicBool::new(false));
        std::thread::scope(|s| {
            let release = hold(s, &pool);
            let canceller = Canceller::new();
            let stop = canceller.stop();
            let flag = Arc::clone(&ran);
            let waiting = s.spawn({
                let pool = &pool;
                move || {
                    pool.run(Priority::First, &stop, move || {
                        flag.store(true, std::sync::atomic::Ordering::SeqCst);
                        Ok(())
                    })
                }
            });
            std::thread::sleep(Duration::from_millis(20));
            let asked = Instant::now();
            canceller.cancel();
            assert_eq!(waiting.join().unwrap(), Err(VisionError::Stopped(StopReason::Cancelled)));
            assert!(asked.elapsed() < Duration::from_millis(100));
            release.send(()).unwrap();
        });
        drop(pool);
        assert!(!ran.load(std::sync::atomic::Ordering::SeqCst));
    }

    #[test]
    fn a_panic_is_an_error_of_the_call_and_the_thread_lives_on() {
        let pool = Pool::new(1, || true).unwrap();
        let err = pool.run::<()>(Priority::First, &Stop::never(), || panic!("a defect")).unwrap_err();
        assert!(matches!(err, VisionError::Unavailable { code: "vision_crashed", .. }));
        assert_eq!(pool.run(Priority::First, &Stop::never(), || Ok(7)), Ok(7));
    }
    #[test]
    fn what_takes_memory_goes_after_what_has_it_but_is_not_left_waiting() {
        let pool = Pool::new(1, || true).unwrap();
        let (tell, told) = crossbeam_channel::unbounded();
        std::thread::scope(|s| {
            let wait_for = |count: usize| {
                let all = || {
                    let waiting = pool.queue.waiting.lock().unwrap();
                    waiting.first.len() + waiting.after.len()
                };
                while all() < count {
                    std::thread::yield_now();
                }
            };
            let release = hold(s, &pool);
            for (n, turn) in
                [Priority::After, Priority::After].into_iter().chain([Priority::First; 2 * SHARE as usize]).enumerate()
            {
                let (pool, tell) = (&pool, tell.clone());
                s.spawn(move || pool.run(turn, &Stop::never(), move || Ok(tell.send(turn).ok())));
                wait_for(n + 1);
            }
            release.send(()).unwrap();
        });
        let order: Vec<Priority> = told.try_iter().collect();
        let after: Vec<usize> = (0..order.len()).filter(|n| order[*n] == Priority::After).collect();
        assert_eq!(after, [SHARE as usize, 2 * SHARE as usize + 1], "{order:?}");
    }

    #[test]
    fn without_room_it_is_waited_for_passes_and_for_nothing_else() {
        let pool = Pool::new(2, || false).unwrap();
        let decoded = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|s| {
            let release = hold(s, &pool);
            let decode = s.spawn(|| {
                pool.run(Priority::After, &Stop::never(), || Ok(()))
                    .map(|()| decoded.store(true, std::sync::atomic::Ordering::SeqCst))
            });
            std::thread::sleep(Duration::from_millis(50));
            assert!(!decoded.load(std::sync::atomic::Ordering::SeqCst), "a pass runs, and there is no room");
            // Another pass goes on beside it.
            assert_eq!(pool.run(Priority::First, &Stop::never(), || Ok(1)), Ok(1));
            release.send(()).unwrap();
            decode.join().unwrap().unwrap();
        });
        assert!(decoded.load(std::sync::atomic::Ordering::SeqCst));
    }

    #[test]
    fn many_that_wait_for_room_do_not_make_it() {
        let pool = Pool::new(2, || false).unwrap();
        let decoded = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|s| {
            let release = hold(s, &pool);
            for _ in 0..3 * SHARE {
                s.spawn(|| {
                    pool.run(Priority::After, &Stop::never(), || Ok(()))
                        .map(|()| decoded.fetch_add(1, std::sync::atomic::Ordering::SeqCst))
                });
            }
            while pool.queue.waiting.lock().unwrap().after.len() < 3 * SHARE as usize {
                std::thread::yield_now();
            }
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(
                decoded.load(std::sync::atomic::Ordering::SeqCst),
                0,
                "each of them woke the idle thread, and none may begin"
            );
            release.send(()).unwrap();
        });
        assert_eq!(decoded.load(std::sync::atomic::Ordering::SeqCst), 3 * SHARE as usize);
    }
}
