//! The conformance suite of core on Redis with each of the stores for records.

use std::sync::{Arc, Mutex};

use dovetail_core::meta::MetaStore as _;
use dovetail_flow::SystemClock;
use dovetail_stores::{MongoMeta, SqliteLedger};

use crate::{bench, fresh, meta, mongodb};

#[test]
fn redis_with_mongodb_keeps_the_promises() {
    dovetail_core::conformance::ledger(&|| bench(meta));
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
