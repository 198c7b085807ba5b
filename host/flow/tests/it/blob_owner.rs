//! A blob store belongs to one set of records. Processes with other records neither write nor remove blobs there.

use std::sync::Arc;
use std::time::Duration;

use dovetail_core::blobs::{BlobKind, Blobs, StoreErrorKind};
use dovetail_core::ledger::{Kind, Ledger, Operation, Record, Reply};
use dovetail_core::memory::{ManualClock, MemoryBlobs, MemoryLedger};
use dovetail_core::retention::Owned as _;
use dovetail_flow::{FlowError, Keep, OwnBlobs, Ownership, Ports, collect, own_blobs, own_blobs_to_work, ownership};

use crate::bench::Bench;

const NOW: Keep = Keep { runs: Duration::ZERO, blobs: Duration::ZERO };

/// Other records on the same blobs.
struct Other {
    records: Arc<MemoryLedger>,
    kept: Arc<MemoryBlobs>,
    clock: Arc<ManualClock>,
    blobs: Arc<dyn Blobs>,
}

impl Other {
    fn on(kept: &Arc<MemoryBlobs>) -> Self {
        let clock = Arc::new(ManualClock::default());
        let records = Arc::new(MemoryLedger::new(clock.clone()));
        let blobs = OwnBlobs::new(kept.clone(), kept.clone(), records.clone(), clock.clone(), false);
        Self { records, kept: kept.clone(), clock, blobs: Arc::new(blobs) }
    }

    fn collect(&self, look_only: bool) -> Result<u64, FlowError> {
        let ports = Ports { ledger: self.records.clone(), blobs: self.blobs.clone(), clock: self.clock.clone() };
        let gone = collect(&ports, &*self.records, &*self.kept, &NOW, &std::env::temp_dir(), look_only)?;
        Ok(gone.blobs.values().map(|amount| amount.number).sum())
    }

    fn hold_something(&self) {
        let record = Record { kind: Kind::Run, key: "a".to_owned(), value: b"{}".to_vec() };
        assert_eq!(self.records.commit(&[Operation::Put { record }]).unwrap(), [Reply::Created]);
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, FlowError>, says: &str) {
    let error = result.unwrap_err();
    let FlowError::Refused { code, message, help } = &error else { panic!("{error:?}") };
    assert_eq!(*code, "foreign_blobs");
    assert!(message.contains(says) && message.contains("memory"), "{message}");
    assert!(help.as_ref().is_some_and(|help| help.contains("name another prefix")), "{help:?}");
}

/// A machine with local records and the bucket of a fleet. Without the check, the machine's nightly collection removed
/// the fleet's packages.
#[test]
fn other_records_neither_remove_nor_write() {
    let bench = Bench::new();
    let artifact = bench.kept.put(BlobKind::Artifact, b"of the fleet").unwrap();
    let other = Other::on(&bench.kept);
    other.hold_something();
    refused(other.collect(false), "belong to other records than these");
    refused(other.collect(true), "belong to other records than these");
    refused(own_blobs(&*other.records, &*other.kept, false), "belong to other records than these");
    refused(own_blobs(&*other.records, &*other.kept, true), "belong to other records than these");
    let error = other.blobs.put(BlobKind::Log, b"of others").unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Refused);
    assert!(error.operation.contains("belong to other records"), "{error:?}");
    assert!(error.source.unwrap().to_string().contains("name another prefix"));
    assert_eq!(ownership(&*other.records, &*other.kept).unwrap(), Ownership::OfOthers);
    // The other records may read, and nothing was removed.
    assert_eq!(other.blobs.get(BlobKind::Artifact, &artifact, 99).unwrap(), b"of the fleet");
    let mut left = 0;
    dovetail_core::retention::RemovableBlobs::walk(&*bench.kept, BlobKind::Package, &mut |_, _| {
        left += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(left, 1, "the package that the fleet has published");
}

#[test]
fn a_new_store_belongs_to_the_first_that_writes() {
    let kept = Arc::new(MemoryBlobs::default());
    let (first, second) = (Other::on(&kept), Other::on(&kept));
    assert_eq!(first.collect(false).unwrap(), 0);
    assert_eq!(
        ownership(&*first.records, &*kept).unwrap(),
        Ownership::Nobodys { empty: true },
        "a collection of an empty store binds nothing"
    );
    first.blobs.put(BlobKind::Log, b"x").unwrap();
    assert_eq!(ownership(&*first.records, &*kept).unwrap(), Ownership::Ours);
    assert_eq!(second.blobs.put(BlobKind::Log, b"y").unwrap_err().kind, StoreErrorKind::Refused);
    refused(second.collect(false), "belong to other records than these");
    assert_eq!(first.collect(false).unwrap(), 1);
}

/// A bucket that is older than this check.
#[test]
fn an_old_store_is_taken_by_the_first_records_that_hold_something() {
    let kept = Arc::new(MemoryBlobs::default());
    kept.put(BlobKind::Package, b"of long ago").unwrap();
    let (new, old) = (Other::on(&kept), Other::on(&kept));
    assert_eq!(new.blobs.put(BlobKind::Log, b"x").unwrap_err().kind, StoreErrorKind::Refused);
    refused(own_blobs(&*new.records, &*kept, false), "these records hold nothing yet");
    old.hold_something();
    refused(old.collect(false), "may belong to other records");
    assert_eq!(old.collect(true).unwrap(), 1, "looking is allowed");
    assert_eq!(kept.owner().unwrap(), None, "the store is not bound yet");
    old.blobs.put(BlobKind::Log, b"x").unwrap();
    assert_eq!(ownership(&*old.records, &*kept).unwrap(), Ownership::Ours);
    assert_eq!(old.collect(false).unwrap(), 2);
    refused(own_blobs(&*new.records, &*kept, false), "belong to other records than these");
}

/// A machine of a fleet lacks the setting for blobs. Every step would fail there, because its package is missing.
#[test]
fn a_worker_does_not_begin_on_an_empty_store_while_the_records_name_packages() {
    let kept = Arc::new(MemoryBlobs::default());
    let other = Other::on(&kept);
    own_blobs_to_work(&*other.records, &MemoryBlobs::default(), false).unwrap();
    let record = Record { kind: Kind::Plugin, key: "add@1.0.0".to_owned(), value: b"{}".to_vec() };
    other.records.commit(&[Operation::Put { record }]).unwrap();
    let refused = own_blobs_to_work(&*other.records, &*kept, false).unwrap_err();
    assert_eq!(refused.code(), "empty_blobs");
    assert_eq!(kept.owner().unwrap(), None, "the store is not bound");
    own_blobs_to_work(&*other.records, &MemoryBlobs::default(), true).unwrap();
    // With the package stored again, the worker may start.
    other.blobs.put(BlobKind::Package, b"of add").unwrap();
    own_blobs_to_work(&*other.records, &*kept, false).unwrap();
}

#[test]
fn in_one_folder_the_records_take_what_is_beside_them() {
    let kept = Arc::new(MemoryBlobs::default());
    kept.put(BlobKind::Package, b"of long ago").unwrap();
    let alone = Other::on(&kept);
    own_blobs(&*alone.records, &*kept, true).unwrap();
    assert_eq!(alone.collect(false).unwrap(), 1);
}

/// The owner may change while a process lives: an operator binds the store to other records.
#[test]
fn the_owner_is_looked_at_again() {
    let kept = Arc::new(MemoryBlobs::default());
    let first = Other::on(&kept);
    first.blobs.put(BlobKind::Log, b"x").unwrap();
    kept.disown();
    kept.own("others").unwrap();
    first.clock.advance(Duration::from_secs(59));
    first.blobs.put(BlobKind::Log, b"y").unwrap();
    first.clock.advance(Duration::from_secs(2));
    assert_eq!(first.blobs.put(BlobKind::Log, b"z").unwrap_err().kind, StoreErrorKind::Refused);
}
