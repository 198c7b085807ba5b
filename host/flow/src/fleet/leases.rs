//! The leases that this process holds: their tokens, as the window knows them, from the claim until the job is
//! acknowledged, given back, lost or let go. A job that was claimed and cannot be handed to a worker, because its
//! values cannot be read, is given back uncharged.

use std::collections::HashMap;
use std::time::Duration;

use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::ledger::{Claimed, Kind, Lease, Renewal, Scope};
use dovetail_core::window::{Change, Delivery, Held, WindowLease};

use super::{NOT_CARRIED, Shared, locked};

/// How long a job is put off whose values could not be read here: another worker may be able to read them.
const UNREAD: Duration = Duration::from_secs(1);

/// What must be known of a lease to acknowledge its job, to renew it or to give it back.
struct Mine {
    lease: WindowLease,
    attempt: u32,
    verify: bool,
    /// The window is being told that the job is given back.
    leaving: bool,
}

#[derive(Default)]
pub(super) struct Leases {
    last: u64,
    held: HashMap<u64, Mine>,
    /// Jobs that could not be read and that the window could not be told of either. No claim is made before it is.
    owed: Vec<Change>,
}

impl Leases {
    /// The lease as the window knows it. One that is not held here (any more) shows no token.
    pub(super) fn known(&self, lease: &Lease) -> WindowLease {
        let none = || WindowLease {
            run: lease.run.clone(),
            step: lease.step.clone(),
            token: String::new(),
            epoch: String::new(),
        };
        self.held.get(&lease.token).map_or_else(none, |mine| mine.lease.clone())
    }

    /// The attempt of the job, and whether it was to be verified.
    pub(super) fn facts(&self, lease: &Lease) -> Option<(u32, bool)> {
        self.held.get(&lease.token).map(|mine| (mine.attempt, mine.verify))
    }

    pub(super) fn add(&mut self, lease: WindowLease, attempt: u32, verify: bool) -> Lease {
        self.last += 1;
        let ours = Lease { run: lease.run.clone(), step: lease.step.clone(), token: self.last };
        self.held.insert(self.last, Mine { lease, attempt, verify, leaving: false });
        ours
    }

    pub(super) fn remove(&mut self, token: u64) {
        self.held.remove(&token);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// While its job is being given back, a lease is not renewed.
    pub(super) fn set_leaving(&mut self, token: u64, leaving: bool) {
        if let Some(mine) = self.held.get_mut(&token) {
            mine.leaving = leaving;
        }
    }
}

impl Shared {
    /// Claimed jobs with all that is needed to run them. Those whose values cannot be read are given back.
    ///
    /// # Errors
    /// Why none of them could be read.
    pub(super) fn take(&self, jobs: Vec<Delivery>) -> Result<Vec<Claimed>, StoreError> {
        let (mut claimed, mut unread, mut failed) = (Vec::with_capacity(jobs.len()), Vec::new(), None);
        for job in jobs {
            let back =
                Change::Back { lease: job.lease.clone(), attempt: job.attempt, verify: job.verify, delay: UNREAD };
            // Where the records do not answer, each further question would wait as long, and leases lapse meanwhile.
            let silent = failed.as_ref().is_some_and(|error: &StoreError| error.kind == StoreErrorKind::Unavailable);
            if silent && needs_records(&job) {
                unread.push(back);
                continue;
            }
            match self.claimed(job) {
                Ok(job) => claimed.push(job),
                Err(error) => {
                    unread.push(back);
                    failed.get_or_insert(error);
                }
            }
        }
        let Some(error) = failed else { return Ok(claimed) };
        tracing::warn!(jobs = unread.len(), err = &error as &dyn std::error::Error, "claimed jobs could not be read");
        locked(&self.leases).owed.append(&mut unread);
        // If this fails too, the window is told before the next claim.
        if let Err(error) = self.give_back_owed() {
            tracing::warn!(err = &error as &dyn std::error::Error, "claimed jobs could not be given back");
        }
        if claimed.is_empty() { Err(error) } else { Ok(claimed) }
    }

    /// Gives back what could not be read, uncharged. No worker knows of these jobs, so nobody else does.
    ///
    /// # Errors
    /// Of the window: they are kept, and given back the next time.
    pub(super) fn give_back_owed(&self) -> Result<(), StoreError> {
        let owed = std::mem::take(&mut locked(&self.leases).owed);
        if owed.is_empty() {
            return Ok(());
        }
        // One that has lapsed meanwhile and went to another worker is that one's: `NotOwner`.
        self.call(&owed, &Scope::All, 0, Duration::ZERO).map(drop).inspect_err(|_| {
            locked(&self.leases).owed.splice(0..0, owed);
        })
    }

    fn claimed(&self, delivery: Delivery) -> Result<Claimed, StoreError> {
        let Delivery { lease, attempt, crashes, mut verify, envelope, values } = delivery;
        let run = if envelope.is_empty() {
            // The window forgot the run and kept the job: the records have it, and whoever runs this looks at them
            // first.
            verify = true;
            self.meta.get(Kind::Run, &[lease.run.run.to_string()])?.pop().flatten().unwrap_or_default()
        } else {
            envelope
        };
        let mut needs = Vec::with_capacity(values.len());
        for (step, value) in values {
            let value = if value == NOT_CARRIED {
                self.meta.get(Kind::Outcome, &[lease.run.step(&step)])?.pop().flatten()
            } else {
                Some(value)
            };
            if let Some(value) = value {
                needs.push((step, value));
            }
        }
        let lease = locked(&self.leases).add(lease, attempt, verify);
        Ok(Claimed { lease, attempt, crashes, verify, run, needs })
    }

    /// Renews the leases that are held here. One that was given back or let go is lost; one whose job is being given
    /// back is left alone: a renewal that came after that would take the job again, for nobody.
    pub(super) fn renew(&self, leases: &[Lease], lease: Duration) -> Result<Vec<Renewal>, StoreError> {
        let (mut answers, mut asked, mut places) = (vec![Renewal::Lost; leases.len()], Vec::new(), Vec::new());
        {
            let held = &locked(&self.leases).held;
            for (at, lease) in leases.iter().enumerate() {
                match held.get(&lease.token) {
                    Some(mine) if mine.leaving => answers[at] = Renewal::Renewed,
                    Some(mine) => {
                        asked.push(mine.lease.clone());
                        places.push(at);
                    }
                    None => {}
                }
            }
        }
        if asked.is_empty() {
            return Ok(answers);
        }
        let held = self.window.renew(&asked, lease)?;
        if held.len() != asked.len() {
            return Err(StoreError::plain(StoreErrorKind::Corrupt, "renew leases: an answer is missing"));
        }
        let mut ours = locked(&self.leases);
        for (at, held) in places.into_iter().zip(held) {
            match held {
                // What the window forgot, it will be told again by a rebuild; the step goes on.
                Held::Renewed | Held::Unknown => answers[at] = Renewal::Renewed,
                Held::Gone => ours.remove(leases[at].token),
            }
        }
        Ok(answers)
    }
}

fn needs_records(job: &Delivery) -> bool {
    job.envelope.is_empty() || job.values.iter().any(|(_, value)| value == NOT_CARRIED)
}
