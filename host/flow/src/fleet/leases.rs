//! The leases that this process holds: their tokens, as the window knows them, from the claim until the job is
//! acknowledged, given back, lost or let go.

use std::collections::HashMap;
use std::time::Duration;

use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::ledger::{Claimed, Kind, Lease, Renewal};
use dovetail_core::window::{Delivery, Held, WindowLease};

use super::{NOT_CARRIED, Shared, locked};

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
    /// A claimed job with all that is needed to run it.
    pub(super) fn claimed(&self, delivery: Delivery) -> Result<Claimed, StoreError> {
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
        for (at, held) in places.into_iter().zip(held) {
            match held {
                // What the window forgot, it will be told again by a rebuild; the step goes on.
                Held::Renewed | Held::Unknown => answers[at] = Renewal::Renewed,
                Held::Gone => {}
            }
        }
        Ok(answers)
    }
}
