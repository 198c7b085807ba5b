//! The search for lost runs (`docs/window.md`): the index of open runs against the window, when that was lost and once
//! a minute.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dovetail_core::blobs::StoreError;
use dovetail_core::clock::Clock as _;
use dovetail_core::ledger::{Kind, RunKey};
use dovetail_core::window::Stamp;

use super::{Shared, locked};
use crate::SystemClock;
use crate::submit::made_ms;

/// How often all open runs are compared with the window although it was not lost.
const SWEEP_ROUND: Duration = Duration::from_secs(60);
/// Where runs are refused all the time because the queue is full, they are compared at most in one of so many parts of
/// it.
const SWEEP_SHARE: u32 = 20;
/// Lost runs that one worker puts back before it looks which of the next ones others have put back.
const HANDED_OUT: usize = 16;
/// How old the last answer may be that tells the window's epoch: heartbeats come more often.
const EPOCH_AGE: Duration = Duration::from_secs(10);

/// The index of open runs is written before the window is told of one, and forgets it after the window: a run that the
/// window does not know may be between the two, and is lost only if it is unknown so long afterwards, too.
const DOUBT: Duration = Duration::from_secs(2);
/// Where the window was lost, a run that was submitted longer ago than this is lost with it and in no doubt. Clocks
/// differ.
const YOUNG_MS: u64 = 30_000;

/// When the open runs were last compared with the window, and in which epoch.
#[derive(Default)]
pub(super) struct Sweep {
    epoch: String,
    /// What the window had refused by then.
    refused: u64,
    at: Option<Instant>,
    took: Duration,
    /// What it did not know and has not been handed out yet.
    lost: Vec<RunKey>,
    /// What it does not know and may be on its way, since when.
    doubted: HashMap<RunKey, Instant>,
    /// Those of them that turned out to be over. They are in the index at the next comparison only if whoever ended
    /// them did not come to that.
    over: HashMap<RunKey, Instant>,
}

/// Whether the run was certainly submitted some time ago: its ID tells when (`new_run_id`), unless it was made from a
/// key. When it was run again, nothing tells.
fn is_old(run: &RunKey, wall_ms: u64) -> bool {
    run.generation == 0 && made_ms(&run.run).is_some_and(|ms| ms.saturating_add(YOUNG_MS) < wall_ms)
}

impl Shared {
    /// Open runs that the window does not know, some at a time: the search of `docs/window.md`.
    ///
    /// # Errors
    /// Of either store; `Refused` where the window belongs to other records by now.
    pub(super) fn lost(&self) -> Result<Vec<RunKey>, StoreError> {
        self.search(Instant::now(), SystemClock.wall_ms())
    }

    /// The same, at this time.
    pub(super) fn search(&self, time: Instant, wall_ms: u64) -> Result<Vec<RunKey>, StoreError> {
        // A worker that claims hears the window's epoch all the time.
        let heard =
            locked(&self.stamp).as_ref().filter(|(_, at)| at.elapsed() < EPOCH_AGE).map(|(stamp, _)| stamp.clone());
        let Stamp { epoch, refused, .. } = match heard {
            Some(stamp) => stamp,
            None => self.window.peek()?,
        };
        let fresh = {
            let sweep = locked(&self.sweep);
            // What was refused is looked for at once, unless looking takes so long that little else would be done while
            // the queue is full.
            let round = if sweep.refused == refused { SWEEP_ROUND } else { SWEEP_ROUND.min(sweep.took * SWEEP_SHARE) };
            sweep.epoch == epoch && sweep.at.is_some_and(|at| time.saturating_duration_since(at) < round)
        };
        if !fresh {
            // With the window it was lost to whom that belongs; by now it may be another's.
            self.paired.store(false, Ordering::Release);
            self.pair()?;
            let began = Instant::now();
            let open = self.meta.open_runs(usize::MAX)?;
            let unknown = self.unknown(open)?;
            let (is_new, before) = {
                let mut sweep = locked(&self.sweep);
                let mut before = std::mem::take(&mut sweep.doubted);
                before.extend(std::mem::take(&mut sweep.over));
                (sweep.epoch != epoch, before)
            };
            // What is not in the index any more, or known by now, is in no doubt.
            let (mut lost, mut doubted) = (Vec::new(), HashMap::new());
            for run in unknown {
                let since = before.get(&run).copied().unwrap_or(time);
                if is_new && is_old(&run, wall_ms) || time.saturating_duration_since(since) >= DOUBT {
                    lost.push(run);
                } else {
                    doubted.insert(run, since);
                }
            }
            // All workers find the same ones at the same time: each begins elsewhere, and leaves out what others have
            // put back by then.
            let begin = usize::try_from(RandomState::new().hash_one(&epoch)).unwrap_or_default() % lost.len().max(1);
            lost.rotate_left(begin);
            *locked(&self.sweep) =
                Sweep { epoch, refused, at: Some(time), took: began.elapsed(), lost, doubted, over: HashMap::new() };
        } else {
            let sure = self.undoubted(time)?;
            locked(&self.sweep).lost.extend(sure);
        }
        loop {
            let some: Vec<RunKey> = {
                let lost = &mut locked(&self.sweep).lost;
                lost.drain(..lost.len().min(HANDED_OUT)).collect()
            };
            // Those that come right after the comparison are what it said.
            if some.is_empty() || !fresh {
                return Ok(some);
            }
            match self.unknown(some.clone()) {
                Ok(unknown) if unknown.is_empty() => {}
                Ok(unknown) => return Ok(unknown),
                Err(error) => {
                    locked(&self.sweep).lost.extend(some);
                    return Err(error);
                }
            }
        }
    }

    /// Those that have been in doubt long enough, and are lost.
    fn undoubted(&self, time: Instant) -> Result<Vec<RunKey>, StoreError> {
        let due: Vec<RunKey> = {
            let sweep = locked(&self.sweep);
            let due = sweep.doubted.iter().filter(|(_, since)| time.saturating_duration_since(**since) >= DOUBT);
            due.map(|(run, _)| run.clone()).collect()
        };
        if due.is_empty() {
            return Ok(due);
        }
        let unknown = self.unknown(due.clone())?;
        // In this order: whoever ends a run writes that down before the window forgets it.
        let keys: Vec<String> = unknown.iter().map(RunKey::key).collect();
        let outcomes = self.meta.get(Kind::RunOutcome, &keys)?;
        let (over, sure): (Vec<_>, Vec<_>) =
            unknown.into_iter().zip(outcomes).partition(|(_, outcome)| outcome.is_some());
        let mut sweep = locked(&self.sweep);
        let since: HashMap<RunKey, Instant> =
            due.into_iter().filter_map(|run| sweep.doubted.remove_entry(&run)).collect();
        sweep.over.extend(over.into_iter().filter_map(|(run, _)| since.get(&run).map(|since| (run, *since))));
        Ok(sure.into_iter().map(|(run, _)| run).collect())
    }

    /// Those of them that the window does not know.
    fn unknown(&self, runs: Vec<RunKey>) -> Result<Vec<RunKey>, StoreError> {
        let known = self.window.knows(&runs)?;
        Ok(runs.into_iter().zip(known).filter(|(_, known)| !known).map(|(run, _)| run).collect())
    }
}
