//! Runs the conformance suite on the ports in memory, and tests the suite itself: it catches backends that are broken
//! on purpose.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dovetail_core::Digest;
use dovetail_core::blobs::{BlobKind, Blobs as _, StoreError};
use dovetail_core::conformance::{archive, blobs, broken_promises, ledger, owned, removable_blobs, with_manual_clock};
use dovetail_core::ledger::{Claimed, Kind, Lease, Ledger, Operation, Renewal, Reply, Scope, Wait};
use dovetail_core::memory::{ManualClock, MemoryBlobs, MemoryLedger};

#[test]
fn memory_keeps_the_promises() {
    ledger(&with_manual_clock(|clock| Arc::new(MemoryLedger::new(clock))));
    blobs(&|| Arc::new(MemoryBlobs::default()));
    let kept = MemoryBlobs::default();
    removable_blobs(&kept, &kept);
    let kept = Arc::new(MemoryBlobs::default());
    owned(&|| kept.clone(), &|| assert_eq!(kept.put(BlobKind::Log, b"x").unwrap(), Digest::of(b"x")), 8);
    let records = MemoryLedger::new(Arc::new(ManualClock::default()));
    archive(&records, &|put| {
        let items: Vec<Operation> = put.iter().map(|record| Operation::Put { record: record.clone() }).collect();
        records.commit(&items).unwrap();
    });
}

/// A fault of a backend.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fault {
    /// Every lease expires at once: jobs are handed out twice.
    ForgetsLeases,
    /// Children start before their prerequisites have succeeded.
    IgnoresNeeds,
    /// The second writer of an outcome changes nothing, but is told that it was the first.
    EveryoneIsFirst,
    /// The last job of a run is acknowledged before the run is closed.
    AcknowledgesLast,
    /// Cancel records are dropped.
    IgnoresCancel,
    /// Some submissions lose their jobs.
    LosesJobs,
    /// The lease of a job that was put back is renewed.
    RenewsWhatWasGivenBack,
}

struct Broken {
    inner: MemoryLedger,
    fault: Fault,
    calls: AtomicU32,
    given_back: Mutex<Vec<Lease>>,
}

impl Ledger for Broken {
    dovetail_core::forward_ledger!(inner: get list open_runs held over beat workers wake wakes);

    fn commit(&self, items: &[Operation]) -> Result<Vec<Reply>, StoreError> {
        let mut items = items.to_vec();
        for item in &mut items {
            match (self.fault, &mut *item) {
                (Fault::IgnoresNeeds, Operation::Finish { children, .. }) => {
                    children.iter_mut().for_each(|c| c.needs.clear());
                }
                (Fault::LosesJobs, Operation::Submit { jobs, .. })
                    if self.calls.fetch_add(1, Ordering::SeqCst) == 1 =>
                {
                    jobs.clear();
                }
                (Fault::IgnoresCancel, Operation::Cancel { .. }) => return Ok(vec![Reply::Created; items.len()]),
                _ => {}
            }
        }
        let mut replies = self.inner.commit(&items)?;
        let released = items.iter().filter_map(|item| match item {
            Operation::Release { lease, .. } | Operation::Retry { lease, .. } => Some(lease.clone()),
            _ => None,
        });
        self.given_back.lock().expect("no panic").extend(released);
        for (item, reply) in items.iter().zip(&mut replies) {
            match (self.fault, item, &*reply) {
                (Fault::EveryoneIsFirst, Operation::Finish { .. }, Reply::Exists(_)) => *reply = Reply::Created,
                (Fault::AcknowledgesLast, Operation::Finish { lease, .. }, Reply::Last) => {
                    let record =
                        dovetail_core::ledger::Record { kind: Kind::RunOutcome, key: lease.run.key(), value: vec![] };
                    self.inner.commit(&[Operation::Close { run: lease.run.clone(), record }])?;
                }
                _ => {}
            }
        }
        Ok(replies)
    }

    fn claim(&self, scope: &Scope, want: usize, lease: Duration, wait: Wait) -> Result<Vec<Claimed>, StoreError> {
        let lease = if self.fault == Fault::ForgetsLeases { Duration::ZERO } else { lease };
        self.inner.claim(scope, want, lease, wait)
    }

    fn renew(&self, leases: &[Lease], lease: Duration) -> Result<Vec<Renewal>, StoreError> {
        let given_back = self.given_back.lock().expect("no panic");
        let bent = |lease: &Lease| self.fault == Fault::RenewsWhatWasGivenBack && given_back.contains(lease);
        let answers = self.inner.renew(leases, lease)?;
        Ok(leases.iter().zip(answers).map(|(lease, a)| if bent(lease) { Renewal::Renewed } else { a }).collect())
    }
}

#[test]
fn broken_backends_are_caught() {
    for fault in [
        Fault::ForgetsLeases,
        Fault::IgnoresNeeds,
        Fault::EveryoneIsFirst,
        Fault::AcknowledgesLast,
        Fault::IgnoresCancel,
        Fault::LosesJobs,
        Fault::RenewsWhatWasGivenBack,
    ] {
        let broken = broken_promises(&with_manual_clock(move |clock| {
            let (inner, given_back) = (MemoryLedger::new(clock), Mutex::default());
            Arc::new(Broken { inner, fault, calls: AtomicU32::new(1), given_back })
        }));
        assert!(!broken.is_empty(), "{fault:?} went unnoticed");
    }
}
