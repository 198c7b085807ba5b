//! The conformance suite of core on Redis with each of the stores for records.

use std::sync::{Arc, Mutex};

use dovetail_core::ledger::{Kind, Record};
use dovetail_core::meta::MetaStore;
use dovetail_flow::SystemClock;
use dovetail_stores::{MongoMeta, SqliteLedger};

use crate::{bench, fresh, meta, mongodb};

#[test]
fn redis_with_mongodb_keeps_the_promises() {
    dovetail_core::conformance::ledger(&|| bench(meta));
}

/// A real MongoDB reads many keys by one request. The stand-in is slow at that, so small batches are read key by key
/// there.
#[test]
fn redis_with_mongodb_that_is_read_many_keys_at_a_time_keeps_the_promises() {
    let meta = |database: &str| -> Arc<dyn MetaStore> {
        Arc::new(MongoMeta::open(&mongodb(database), "tests", Arc::new(SystemClock)).unwrap().reading_together_from(2))
    };
    dovetail_core::conformance::ledger(&|| bench(meta));
}

/// The keys are more than one request takes and in another order than they were written; one key stands twice, and one
/// is not stored.
#[test]
fn many_records_of_mongodb_are_read_by_key() {
    let url = mongodb(&fresh("many"));
    let open = |from| MongoMeta::open(&url, "tests", Arc::new(SystemClock)).unwrap().reading_together_from(from);
    let value = |n: usize| format!("value {n}").into_bytes();
    let records: Vec<Record> =
        (0..1200).map(|n| Record { kind: Kind::Outcome, key: format!("r:{n}"), value: value(n) }).collect();
    open(2).put(&records).unwrap();
    let mut keys: Vec<String> = (0..1200).rev().map(|n| format!("r:{n}")).collect();
    keys.insert(7, "r:none".into());
    keys.push("r:1199".into());
    let mut wanted: Vec<Option<Vec<u8>>> = (0..1200).rev().map(|n| Some(value(n))).collect();
    wanted.insert(7, None);
    wanted.push(Some(value(1199)));
    for from in [2, usize::MAX] {
        let meta = open(from);
        assert_eq!(meta.get(Kind::Outcome, &keys).unwrap(), wanted, "together from {from} keys");
        assert_eq!(meta.get(Kind::Outcome, &[]).unwrap(), Vec::new());
    }
}

#[test]
fn redis_with_sqlite_keeps_the_promises() {
    let folders = Mutex::new(Vec::new());
    dovetail_core::conformance::ledger(&|| {
        bench(|_| {
            let folder = tempfile::tempdir().unwrap();
            let meta = Arc::new(SqliteLedger::open(folder.path(), Arc::new(SystemClock)).unwrap());
            folders.lock().unwrap().push(folder);
            meta
        })
    });
}

#[test]
fn what_is_recorded_in_mongodb_can_be_removed() {
    let meta = MongoMeta::open(&mongodb(&fresh("removal")), "tests", Arc::new(SystemClock)).unwrap();
    dovetail_core::conformance::archive(&meta, &|records| drop(meta.put(records).unwrap()));
}
