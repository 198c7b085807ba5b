//! A bounded number of OS threads for native work. A caller waits for its answer or for its reason to stop, whichever comes first.
//!
//! A job that has begun runs out, even if nobody waits for it any more; one that has not is taken back. So no more jobs wait than there are callers, and
//! what they hold (pictures) is freed as soon as a caller leaves.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use dovetail_core::stop::Stop;
use dovetail_core::vision::VisionError;

type Job = Box<dyn FnOnce() + Send>;
/// Emptied by the thread that takes the job, or by the caller that takes it back.
type Place = Arc<Mutex<Option<Job>>>;

fn take(place: &Place) -> Option<Job> {
    place.lock().unwrap_or_else(PoisonError::into_inner).take()
}

pub(crate) struct Pool {
    /// None only while the pool is dropped.
    queue: Option<Sender<Place>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    pub(crate) fn new(threads: usize) -> std::io::Result<Self> {
        let (queue, jobs) = crossbeam_channel::unbounded::<Place>();
        let mut pool = Self { queue: Some(queue), threads: Vec::new() };
        for number in 0..threads.max(1) {
            let jobs: Receiver<Place> = jobs.clone();
            let work = move || {
                for place in jobs {
                    if let Some(job) = take(&place) {
                        // A panic drops the answer's sender, which is how the caller learns of it; the hook has printed it.
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
        stop: &Stop,
        work: impl FnOnce() -> Result<T, VisionError> + Send + 'static,
    ) -> Result<T, VisionError> {
        let (answer, answered) = crossbeam_channel::bounded(1);
        let job: Job = Box::new(move || {
            // Nobody may be waiting any more; then the answer is thrown away.
            answer.send(work()).ok();
        });
        let place: Place = Arc::new(Mutex::new(Some(job)));
        let crashed = || VisionError::unavailable("vision_crashed", "the vision library failed in the middle of the work");
        let queue = self.queue.as_ref().ok_or_else(crashed)?;
        queue.send(Arc::clone(&place)).map_err(|_| crashed())?;
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
    /// Waits for what has begun: a process must not end while a thread is inside OpenCV, whose globals are destroyed then.
    fn drop(&mut self) {
        self.queue = None;
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

    #[test]
    fn a_caller_leaves_at_once_and_its_waiting_job_never_begins() {
        let pool = Pool::new(1).unwrap();
        let (release, held) = crossbeam_channel::bounded::<()>(0);
        let (started, begun) = crossbeam_channel::bounded(1);
        let ran = Arc::new(std::sync::atomic::AtomicBool::new(false));
        std::thread::scope(|s| {
            s.spawn(|| {
                pool.run(&Stop::never(), move || {
                    started.send(()).unwrap();
                    held.recv().ok();
                    Ok(())
                })
            });
            begun.recv().unwrap();
            let canceller = Canceller::new();
            let stop = canceller.stop();
            let flag = Arc::clone(&ran);
            let waiting = s.spawn({
                let pool = &pool;
                move || {
                    pool.run(&stop, move || {
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
        let pool = Pool::new(1).unwrap();
        let err = pool.run::<()>(&Stop::never(), || panic!("a defect")).unwrap_err();
        assert!(matches!(err, VisionError::Unavailable { code: "vision_crashed", .. }));
        assert_eq!(pool.run(&Stop::never(), || Ok(7)), Ok(7));
    }
}
