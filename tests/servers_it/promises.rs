//! The conformance suite of core on Redis and MongoDB.

use crate::bench;

#[test]
fn redis_with_mongodb_keeps_the_promises() {
    dovetail_core::conformance::ledger(&bench);
}
