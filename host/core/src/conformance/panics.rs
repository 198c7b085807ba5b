//! Cases of [`super::ledger`] about callers that panic.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use super::cases::Case;
use super::{Bench, job};
use crate::ledger::{Lease, Operation, Reply};

/// Many times as long as an answer takes.
const LONG: Duration = Duration::from_secs(20);

fn release(lease: &Lease) -> Vec<Operation> {
    vec![Operation::Release { lease: lease.clone(), delay: Duration::ZERO }]
}

/// Commits, with a receiver of the replies that panics.
fn commit_and_panic(b: &Bench, lease: &Lease) {
    // A ledger may answer on the thread of its caller.
    let commit = || b.ledger.commit_then(release(lease), Box::new(|_| resume_unwind(Box::new("a bug of the caller"))));
    drop(catch_unwind(AssertUnwindSafe(commit)));
}

pub(super) const LEDGER: &[Case] = &[("a receiver of replies that panics keeps no other change from its reply", |b| {
    b.submit(1, &[job("a", &[]), job("b", &[]), job("c", &[])]);
    let mut leases: Vec<Lease> = b.claim(3).into_iter().map(|claimed| claimed.lease).collect();
    let third = leases.pop().expect("three jobs are claimed");
    leases.iter().for_each(|lease| commit_and_panic(b, lease));
    let (reply, replied) = std::sync::mpsc::channel();
    b.ledger.commit_then(release(&third), Box::new(move |replies| drop(reply.send(replies))));
    let replies = replied.recv_timeout(LONG).expect("the ledger still answers").expect("commit works");
    assert_eq!(replies, [Reply::Created]);
    let mut steps = b.steps(9);
    steps.sort();
    assert_eq!(steps, ["a", "b", "c"], "every change was made");
})];
