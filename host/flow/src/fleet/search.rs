//! The search for lost runs (reconciliation, `docs/window.md`): compares the index of open runs with the window, after
//! each loss of the window and once a minute.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dovetail_core::blobs::StoreError;
use dovetail_core::clock::Clock as _;
use dovetail_core::ledger::{Kind, RunKey};
use dovetail_core::sync::lock;
use dovetail_core::window::Stamp;

use super::Shared;
use crate::SystemClock;
use crate::submit::made_ms;

/// How often all open runs are compared with the window if the window was not lost.
const SWEEP_ROUND: Duration = Duration::from_secs(60);
/// While a full queue refuses runs, comparing takes at most this fraction of the time: one part in 20.
const SWEEP_SHARE: u32 = 20;
/// How many lost runs one worker restores before it looks which of the next ones other workers have restored.
const HANDED_OUT: usize = 16;
/// The window's epoch is taken from its last answer if that answer is younger than this. Heartbeats come more often.
const EPOCH_AGE: Duration = Duration::from_secs(10);

/// A run is added to the index of open runs before it is opened in the window, and removed after it is closed there. So
/// a run that the window does not know may just be on its way. It is lost only if it is still unknown after this time.
const DOUBT: Duration = Duration::from_secs(2);
/// After a loss of the window, a run that was submitted longer ago than this counts as lost at once. The margin is for
/// clocks that differ between machines.
const YOUNG_MS: u64 = 30_000;

/// The last comparison of the open runs with the window.
#[derive(Default)]
pub(super) struct Sweep {
    epoch: String,
    /// The window's count of refused runs ([`Stamp::refused`]) at that time.
    refused: u64,
    at: Option<Instant>,
    took: Duration,
    /// Lost runs that have not been handed out yet.
    lost: Vec<RunKey>,
    /// Runs that the window does not know and that may be on their way, each with the time since when.
    doubted: HashMap<RunKey, Instant>,
    /// Runs that were in doubt and have ended. If one is still in the index at the next comparison, its closer died
    /// before it removed the run from the index.
    over: HashMap<RunKey, Instant>,
}

/// Whether the run was certainly submitted more than [`YOUNG_MS`] ago, by the time in its ID (`new_run_id`). An ID that
/// was made from an idempotency key has no time, and nothing says when a run was retried.
fn is_old(run: &RunKey, wall_ms: u64) -> bool {
    run.generation == 0 && made_ms(&run.run).is_some_and(|ms| ms.saturating_add(YOUNG_MS) < wall_ms)
}

impl Shared {
    /// Some open runs that the window does not know. Returns none when all have been handed out.
    ///
    /// # Errors
    /// A failure of either store; `Refused` if the window belongs to other records now.
    pub(super) fn lost(&self) -> Result<Vec<RunKey>, StoreError> {
        self.search(Instant::now(), SystemClock.wall_ms())
    }

    /// As [`Shared::lost`], at a given time.
    pub(super) fn search(&self, time: Instant, wall_ms: u64) -> Result<Vec<RunKey>, StoreError> {
        // A worker that claims gets the window's epoch with every answer.
        let recent =
            lock(&self.stamp).as_ref().filter(|(_, at)| at.elapsed() < EPOCH_AGE).map(|(stamp, _)| stamp.clone());
        let Stamp { epoch, refused, .. } = match recent {
            Some(stamp) => stamp,
            None => self.window.peek()?,
        };
        let fresh = {
            let sweep = lock(&self.sweep);
            // New refusals start a comparison at once, but comparisons take at most one part in `SWEEP_SHARE` of the
            // time.
            let round = if sweep.refused == refused { SWEEP_ROUND } else { SWEEP_ROUND.min(sweep.took * SWEEP_SHARE) };
            sweep.epoch == epoch && sweep.at.is_some_and(|at| time.saturating_duration_since(at) < round)
        };
        if !fresh {
            // A lost window has also lost the identity of its records, and may be bound to other records by now.
            self.paired.store(false, Ordering::Release);
            self.pair()?;
            let began = Instant::now();
            let open = self.meta.open_runs(usize::MAX)?;
            let unknown = self.unknown(open)?;
            let (is_new, before) = {
                let mut sweep = lock(&self.sweep);
                let mut before = std::mem::take(&mut sweep.doubted);
                before.extend(std::mem::take(&mut sweep.over));
                (sweep.epoch != epoch, before)
            };
            // A run that has left the index, or that the window knows by now, is no longer in doubt.
            let (mut lost, mut doubted) = (Vec::new(), HashMap::new());
            for run in unknown {
                let since = before.get(&run).copied().unwrap_or(time);
                if is_new && is_old(&run, wall_ms) || time.saturating_duration_since(since) >= DOUBT {
                    lost.push(run);
                } else {
                    doubted.insert(run, since);
                }
            }
            // All workers find the same lost runs at the same time. Each worker starts at another one, and skips the
            // runs that other workers have restored by then.
            let begin = usize::try_from(RandomState::new().hash_one(&epoch)).unwrap_or_default() % lost.len().max(1);
            lost.rotate_left(begin);
            *lock(&self.sweep) =
                Sweep { epoch, refused, at: Some(time), took: began.elapsed(), lost, doubted, over: HashMap::new() };
        } else {
            let sure = self.undoubted(time)?;
            lock(&self.sweep).lost.extend(sure);
        }
        loop {
            let some: Vec<RunKey> = {
                let lost = &mut lock(&self.sweep).lost;
                lost.drain(..lost.len().min(HANDED_OUT)).collect()
            };
            // The result of a comparison that was made just now needs no second look.
            if some.is_empty() || !fresh {
                return Ok(some);
            }
            match self.unknown(some.clone()) {
                Ok(unknown) if unknown.is_empty() => {}
                Ok(unknown) => return Ok(unknown),
                Err(error) => {
                    lock(&self.sweep).lost.extend(some);
                    return Err(error);
                }
            }
        }
    }

    /// Runs that have been in doubt for [`DOUBT`], are still unknown to the window and have no recorded end.
    fn undoubted(&self, time: Instant) -> Result<Vec<RunKey>, StoreError> {
        let due: Vec<RunKey> = {
            let sweep = lock(&self.sweep);
            let due = sweep.doubted.iter().filter(|(_, since)| time.saturating_duration_since(**since) >= DOUBT);
            due.map(|(run, _)| run.clone()).collect()
        };
        if due.is_empty() {
            return Ok(due);
        }
        let unknown = self.unknown(due.clone())?;
        // The ends are read after the window was asked: a closer records the end before it closes the run in the
        // window.
        let keys: Vec<String> = unknown.iter().map(RunKey::key).collect();
        let outcomes = self.meta.get(Kind::RunOutcome, &keys)?;
        let (over, sure): (Vec<_>, Vec<_>) =
            unknown.into_iter().zip(outcomes).partition(|(_, outcome)| outcome.is_some());
        let mut sweep = lock(&self.sweep);
        let since: HashMap<RunKey, Instant> =
            due.into_iter().filter_map(|run| sweep.doubted.remove_entry(&run)).collect();
        sweep.over.extend(over.into_iter().filter_map(|(run, _)| since.get(&run).map(|since| (run, *since))));
        Ok(sure.into_iter().map(|(run, _)| run).collect())
    }

    /// The runs among `runs` that the window does not know.
    fn unknown(&self, runs: Vec<RunKey>) -> Result<Vec<RunKey>, StoreError> {
        let known = self.window.knows(&runs)?;
        Ok(runs.into_iter().zip(known).filter(|(_, known)| !known).map(|(run, _)| run).collect())
    }
}
