//! The leases that this process holds, with the window's tokens, from the claim until the job is acknowledged, given
//! back, lost or let go. A claimed job whose values cannot be read reaches no worker and is given back, uncharged.

use std::collections::HashMap;
use std::time::Duration;

use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::ledger::{Claimed, Kind, Lease, Renewal, Scope};
use dovetail_core::sync::lock;
use dovetail_core::window::{self, Change, Delivery, WindowLease};

use super::{NOT_CARRIED, Shared};

/// The delay of a job that is given back because its values could not be read: another worker may be able to read them.
const UNREAD: Duration = Duration::from_secs(1);

/// A lease, with the facts that are needed to acknowledge its job, to renew it or to give the job back.
struct LocalLease {
    lease: WindowLease,
    attempt: u32,
    verify: bool,
    /// A release of the job is on its way to the window.
    releasing: bool,
}

#[derive(Default)]
pub(super) struct Leases {
    last_token: u64,
    /// By the token of [`Lease`].
    held: HashMap<u64, LocalLease>,
    /// Releases of jobs that could not be read. They have failed so far, and are sent before the next claim.
    unread: Vec<Change>,
}

impl Leases {
    /// The lease as the window knows it. A lease that this process does not hold (any more) has an empty token.
    pub(super) fn known(&self, lease: &Lease) -> WindowLease {
        let none = || WindowLease {
            run: lease.run.clone(),
            step: lease.step.clone(),
            token: String::new(),
            epoch: String::new(),
        };
        self.held.get(&lease.token).map_or_else(none, |held| held.lease.clone())
    }

    /// The attempt of the job, and whether the job was to be verified.
    pub(super) fn facts(&self, lease: &Lease) -> Option<(u32, bool)> {
        self.held.get(&lease.token).map(|held| (held.attempt, held.verify))
    }

    pub(super) fn add(&mut self, lease: WindowLease, attempt: u32, verify: bool) -> Lease {
        self.last_token += 1;
        let local = Lease { run: lease.run.clone(), step: lease.step.clone(), token: self.last_token };
        self.held.insert(self.last_token, LocalLease { lease, attempt, verify, releasing: false });
        local
    }

    pub(super) fn remove(&mut self, token: u64) {
        self.held.remove(&token);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// While its job is being given back, a lease is not renewed.
    pub(super) fn set_releasing(&mut self, token: u64, releasing: bool) {
        if let Some(held) = self.held.get_mut(&token) {
            held.releasing = releasing;
        }
    }
}

impl Shared {
    /// Reads the values of claimed jobs. Jobs whose values cannot be read are given back.
    ///
    /// # Errors
    /// The first failed read, if no job could be read.
    pub(super) fn take(&self, jobs: Vec<Delivery>) -> Result<Vec<Claimed>, StoreError> {
        let (mut claimed, mut unread, mut failed) = (Vec::with_capacity(jobs.len()), Vec::new(), None);
        for job in jobs {
            let back =
                Change::Back { lease: job.lease.clone(), attempt: job.attempt, verify: job.verify, delay: UNREAD };
            // If the records do not answer, every further read would wait as long, and the leases would expire
            // meanwhile.
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
        lock(&self.leases).unread.append(&mut unread);
        // If this fails too, the releases are sent before the next claim.
        if let Err(error) = self.release_unread() {
            tracing::warn!(err = &error as &dyn std::error::Error, "claimed jobs could not be given back");
        }
        if claimed.is_empty() { Err(error) } else { Ok(claimed) }
    }

    /// Gives back the jobs that could not be read, uncharged. No worker has these jobs, so no other code gives them
    /// back.
    ///
    /// # Errors
    /// A failure of the window: the releases are kept for the next call.
    pub(super) fn release_unread(&self) -> Result<(), StoreError> {
        let unread = std::mem::take(&mut lock(&self.leases).unread);
        if unread.is_empty() {
            return Ok(());
        }
        // A job whose lease has expired may belong to another worker now: the window answers `NotOwner` and changes
        // nothing.
        self.call(&unread, &Scope::All, 0, Duration::ZERO).map(drop).inspect_err(|_| {
            lock(&self.leases).unread.splice(0..0, unread);
        })
    }

    fn claimed(&self, delivery: Delivery) -> Result<Claimed, StoreError> {
        let Delivery { lease, attempt, crashes, mut verify, envelope, values } = delivery;
        let run = if envelope.is_empty() {
            // The window lost the run and kept the job. The run's record has the envelope, and the worker verifies the
            // job against the records first.
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
        let lease = lock(&self.leases).add(lease, attempt, verify);
        Ok(Claimed { lease, attempt, crashes, verify, run, needs })
    }

    /// Renews the leases that this process holds. A lease whose job was given back, or that was let go, is `Lost`. A
    /// lease whose job is being given back is not sent to the window: a renewal that arrives after the release would
    /// take the job again although no worker runs it.
    ///
    /// # Errors
    /// A failure of the window; `Corrupt` if an answer is missing.
    pub(super) fn renew(&self, leases: &[Lease], lease: Duration) -> Result<Vec<Renewal>, StoreError> {
        let (mut answers, mut asked, mut places) = (vec![Renewal::Lost; leases.len()], Vec::new(), Vec::new());
        {
            let held = &lock(&self.leases).held;
            for (at, lease) in leases.iter().enumerate() {
                match held.get(&lease.token) {
                    Some(held) if held.releasing => answers[at] = Renewal::Renewed,
                    Some(held) => {
                        asked.push(held.lease.clone());
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
        let mut local = lock(&self.leases);
        for (at, held) in places.into_iter().zip(held) {
            match held {
                // `Unknown`: the window lost the lease. The step goes on, and a rebuild restores the job.
                window::WindowRenewal::Renewed | window::WindowRenewal::Unknown => answers[at] = Renewal::Renewed,
                window::WindowRenewal::Gone => local.remove(leases[at].token),
            }
        }
        Ok(answers)
    }
}

fn needs_records(job: &Delivery) -> bool {
    job.envelope.is_empty() || job.values.iter().any(|(_, value)| value == NOT_CARRIED)
}
