//! A bounded number of OS threads for native work. A caller waits until its job has an answer or until its [`Stop`]
//! fires, whichever comes first.
//!
//! A job that has begun runs to its end, even if its caller no longer waits. A caller that leaves takes back a job that
//! has not begun. So at most one job for each caller waits, and a waiting job's pictures are freed as soon as its
//! caller leaves.
//!
//! There are two priorities. Passes over decoded pictures ([`Priority::First`]) run before the decoding of further
//! pictures ([`Priority::After`]). A decode also waits while the pictures in use take too much memory: otherwise ten
//! steps that begin together would hold ten pictures before the first face is found. If no job runs and no pass waits,
//! a decode starts in any case, and so does one decode after eight passes in a row. (The pool notices that a picture
//! was dropped when the next job ends or is added.)

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use dovetail_core::stop::Stop;
use dovetail_core::sync::lock;
use dovetail_core::vision::VisionError;

/// At most this many [`Priority::First`] jobs run in a row while a [`Priority::After`] job waits.
const SHARE: u32 = 8;

type Job = Box<dyn FnOnce() + Send>;
/// A job that waits. Emptied by the thread that runs the job, or by the caller that takes the job back.
type JobSlot = Arc<Mutex<Option<Job>>>;

fn take(slot: &JobSlot) -> Option<Job> {
    lock(slot).take()
}

/// The order in which jobs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Priority {
    /// A pass over a picture that is already in memory.
    First,
    /// A job that will allocate memory: the decoding of a picture.
    After,
    /// A job that nobody waits for. It starts when no other job can, and not at all in a closed pool.
    Idle,
}

#[derive(Default)]
struct Waiting {
    first: VecDeque<JobSlot>,
    after: VecDeque<JobSlot>,
    idle: VecDeque<JobSlot>,
    /// `First` jobs that were started in a row while an `After` job waited.
    passed: u32,
    running: usize,
    closed: bool,
}

impl Waiting {
    /// Removes the job that starts next. `None` if no job may start now.
    fn next(&mut self, memory_allows: &dyn Fn() -> bool) -> Option<JobSlot> {
        let due = self.first.is_empty() || self.passed >= SHARE;
        if !self.after.is_empty()
            && due
            && (memory_allows() || self.passed >= SHARE || (self.first.is_empty() && self.running == 0))
        {
            self.passed = 0;
            return self.after.pop_front();
        }
        let Some(next) = self.first.pop_front() else { return self.idle.pop_front() };
        self.passed = if self.after.is_empty() { 0 } else { self.passed + 1 };
        Some(next)
    }
}

struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// Whether an `After` job may start while others run: the memory of the pictures in use is below its limit.
    memory_allows: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Queue {
    fn add(&self, priority: Priority, slot: JobSlot) {
        let mut waiting = lock(&self.waiting);
        match priority {
            Priority::First => waiting.first.push_back(slot),
            Priority::After => waiting.after.push_back(slot),
            Priority::Idle if waiting.closed => return,
            Priority::Idle => waiting.idle.push_back(slot),
        }
        self.changed.notify_one();
    }

    fn close(&self) {
        let mut waiting = lock(&self.waiting);
        waiting.closed = true;
        waiting.idle.clear();
        drop(waiting);
        self.changed.notify_all();
    }

    /// Waits for the next job. Returns `None` when the queue is closed and no job waits. `done`: the calling thread has
    /// finished a job that an earlier call returned.
    fn next(&self, done: bool) -> Option<JobSlot> {
        let mut waiting = lock(&self.waiting);
        if done {
            waiting.running -= 1;
            // An `After` job that waited for this pass may start now, on another thread if this thread takes another
            // job. If the queue is closed, the sleeping threads must end.
            if waiting.closed || !waiting.after.is_empty() {
                self.changed.notify_all();
            }
        }
        loop {
            if let Some(slot) = waiting.next(&*self.memory_allows) {
                waiting.running += 1;
                return Some(slot);
            }
            if waiting.closed && waiting.after.is_empty() {
                return None;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The queue of the jobs that nobody waits for.
pub(crate) struct IdleJobs(Arc<Queue>);

impl IdleJobs {
    /// Runs `work` on a thread of the pool as [`Priority::Idle`].
    pub(crate) fn add(&self, work: impl FnOnce() + Send + 'static) {
        self.0.add(Priority::Idle, Arc::new(Mutex::new(Some(Box::new(work)))));
    }
}

/// The threads and their queue. Dropping the pool waits for every job in it.
pub(crate) struct Pool {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts `threads` threads, at least one. `memory_allows` says whether an `After` job may start while others run.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(crate) fn new(
        threads: usize,
        memory_allows: impl Fn() -> bool + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let queue =
            Queue { waiting: Mutex::default(), changed: Condvar::new(), memory_allows: Box::new(memory_allows) };
        let mut pool = Self { queue: Arc::new(queue), threads: Vec::new() };
        for number in 0..threads.max(1) {
            let queue = pool.queue.clone();
            let work = move || {
                let mut done = false;
                while let Some(slot) = queue.next(done) {
                    done = true;
                    if let Some(job) = take(&slot) {
                        // A panic drops the answer's sender, which reports the panic to the caller. The panic hook has
                        // already printed the panic.
                        drop(catch_unwind(AssertUnwindSafe(job)));
                    }
                }
            };
            pool.threads.push(std::thread::Builder::new().name(format!("vision-{number}")).spawn(work)?);
        }
        Ok(pool)
    }

    /// The queue of the jobs that nobody waits for. A job of the pool may hold it.
    pub(crate) fn idle_jobs(&self) -> IdleJobs {
        IdleJobs(Arc::clone(&self.queue))
    }

    /// Runs `work` on a thread of the pool and waits for its answer.
    ///
    /// # Errors
    /// The error of `work`; `Unavailable` with `vision_crashed` if `work` panics; `Stopped` if `stop` fires first.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        priority: Priority,
        stop: &Stop,
        work: impl FnOnce() -> Result<T, VisionError> + Send + 'static,
    ) -> Result<T, VisionError> {
        let (answer, answered) = crossbeam_channel::bounded(1);
        let job: Job = Box::new(move || {
            // If the caller has left, nothing receives the answer, and it is dropped.
            answer.send(work()).ok();
        });
        let slot: JobSlot = Arc::new(Mutex::new(Some(job)));
        let crashed = || VisionError::unavailable("vision_crashed", "the vision library crashed during the call");
        self.queue.add(priority, Arc::clone(&slot));
        match stop.wait(&answered) {
            Ok(Some(done)) => done,
            Ok(None) => Err(crashed()),
            Err(reason) => {
                drop(take(&slot));
                Err(VisionError::Stopped(reason))
            }
        }
    }
}

impl Drop for Pool {
    /// Waits for every job that has begun. The process must not end while a thread is inside OpenCV, because OpenCV's
    /// globals are destroyed at the end of the process.
    fn drop(&mut self) {
        self.queue.close();
        for thread in self.threads.drain(..) {
            // The thread catches every panic of its jobs.
            thread.join().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dovetail_core::stop::{Canceller, StopReason};
    use std::time::{Duration, Instant};

    /// Starts a job that blocks until it receives a message.
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
    fn an_idle_job_runs_after_all_others_and_not_at_all_in_a_closed_pool() {
        let pool = Pool::new(1, || true).unwrap();
        let (report, ran) = crossbeam_channel::unbounded();
        std::thread::scope(|s| {
            let release = hold(s, &pool);
            let idle = report.clone();
            pool.idle_jobs().add(move || idle.send("idle").unwrap());
            let first = report.clone();
            let waiting = s.spawn(|| pool.run(Priority::First, &Stop::never(), move || Ok(first.send("first").ok())));
            while pool.queue.waiting.lock().unwrap().first.is_empty() {
                std::thread::yield_now();
            }
            release.send(()).unwrap();
            waiting.join().unwrap().unwrap();
        });
        assert_eq!([ran.recv().unwrap(), ran.recv().unwrap()], ["first", "idle"]);
        let late = pool.idle_jobs();
        drop(pool);
        late.add(move || report.send("late").unwrap());
        assert!(ran.recv().is_err(), "the job was dropped, and with it the sender");
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
        let (report, ran) = crossbeam_channel::unbounded();
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
            let priorities = [Priority::After, Priority::After].into_iter();
            for (n, priority) in priorities.chain([Priority::First; 2 * SHARE as usize]).enumerate() {
                let (pool, report) = (&pool, report.clone());
                s.spawn(move || pool.run(priority, &Stop::never(), move || Ok(report.send(priority).ok())));
                wait_for(n + 1);
            }
            release.send(()).unwrap();
        });
        let order: Vec<Priority> = ran.try_iter().collect();
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
            // Another pass starts while the first one runs.
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
