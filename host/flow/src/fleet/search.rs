//! The search for lost runs (`docs/window.md`): the index of open runs against the window, when that was lost and once a minute.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dovetail_core::blobs::StoreError;
use dovetail_core::ledger::RunKey;
use dovetail_core::window::Stamp;

use super::{Shared, locked};

/// How often all open runs are compared with the window although it was not lost.
const SWEEP_ROUND: Duration = Duration::from_secs(60);
/// Where runs are refused all the time because the queue is full, they are compared at most in one of so many parts of it.
const SWEEP_SHARE: u32 = 20;
/// Lost runs that one worker puts back before it looks which of the next ones others have put back.
const HANDED_OUT: usize = 16;
/// How old the last answer may be that tells the window's epoch: heartbeats come more often.
const EPOCH_AGE: Duration = Duration::from_secs(10);

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
}

impl Shared {
    /// Open runs that the window does not know, some at a time: the search of `docs/window.md`.
    ///
    /// # Errors
    /// Of either store; `Refused` where the window belongs to other records by now.
    pub(super) fn lost(&self) -> Result<Vec<RunKey>, StoreError> {
        // A worker that claims hears the window's epoch all the time.
        let heard = locked(&self.stamp).as_ref().filter(|(_, at)| at.elapsed() < EPOCH_AGE).map(|(stamp, _)| stamp.clone());
        let Stamp { epoch, refused, .. } = match heard {
            Some(stamp) => stamp,
            None => self.window.peek()?,
        };
        let fresh = {
            let sweep = locked(&self.sweep);
            // What was refused is looked for at once, unless looking takes so long that little else would be done while the queue is full.
            let round = if sweep.refused == refused { SWEEP_ROUND } else { SWEEP_ROUND.min(sweep.took * SWEEP_SHARE) };
            sweep.epoch == epoch && sweep.at.is_some_and(|at| at.elapsed() < round)
        };
        if !fresh {
            // With the window it was lost to whom that belongs; by now it may be another's.
            self.paired.store(false, Ordering::Release);
            self.pair()?;
            let began = Instant::now();
            let open = self.meta.open_runs(usize::MAX)?;
            let mut lost = self.unknown(open)?;
            // All workers find the same ones at the same time: each begins elsewhere, and leaves out what others have put back by then.
            let begin = usize::try_from(RandomState::new().hash_one(&epoch)).unwrap_or_default() % lost.len().max(1);
            lost.rotate_left(begin);
            *locked(&self.sweep) = Sweep { epoch, refused, at: Some(Instant::now()), took: began.elapsed(), lost };
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

    /// Those of them that the window does not know.
    fn unknown(&self, runs: Vec<RunKey>) -> Result<Vec<RunKey>, StoreError> {
        let known = self.window.knows(&runs)?;
        Ok(runs.into_iter().zip(known).filter(|(_, known)| !known).map(|(run, _)| run).collect())
    }
}
