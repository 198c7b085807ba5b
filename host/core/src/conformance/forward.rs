//! A ledger around another ledger, for tests: methods that only forward their arguments are named, not written.

/// Makes methods of [`crate::ledger::Ledger`] that forward to a field: `forward_ledger!(inner: get list wake)` within
/// the `impl` block. The other methods are written beside the invocation, or keep the trait's default.
#[macro_export]
macro_rules! forward_ledger {
    ($field:tt: $($method:ident)*) => { $($crate::forward_ledger!(@$method $field);)* };
    (@claim $field:tt) => {
        fn claim(
            &self,
            scope: &$crate::ledger::Scope,
            want: usize,
            lease: ::std::time::Duration,
            wait: $crate::ledger::Wait,
        ) -> Result<Vec<$crate::ledger::Claimed>, $crate::blobs::StoreError> {
            self.$field.claim(scope, want, lease, wait)
        }
    };
    (@renew $field:tt) => {
        fn renew(
            &self,
            leases: &[$crate::ledger::Lease],
            lease: ::std::time::Duration,
        ) -> Result<Vec<$crate::ledger::Renewal>, $crate::blobs::StoreError> {
            self.$field.renew(leases, lease)
        }
    };
    (@get $field:tt) => {
        fn get(
            &self,
            kind: $crate::ledger::Kind,
            keys: &[String],
        ) -> Result<Vec<Option<Vec<u8>>>, $crate::blobs::StoreError> {
            self.$field.get(kind, keys)
        }
    };
    (@list $field:tt) => {
        fn list(
            &self,
            kind: $crate::ledger::Kind,
            listing: &$crate::ledger::Listing,
        ) -> Result<Vec<(String, Vec<u8>)>, $crate::blobs::StoreError> {
            self.$field.list(kind, listing)
        }
    };
    (@open_runs $field:tt) => {
        fn open_runs(&self, limit: usize) -> Result<Vec<$crate::ledger::RunKey>, $crate::blobs::StoreError> {
            self.$field.open_runs(limit)
        }
    };
    (@held $field:tt) => {
        fn held(
            &self,
            run: &$crate::ledger::RunKey,
        ) -> Result<Vec<$crate::ledger::HeldStep>, $crate::blobs::StoreError> {
            self.$field.held(run)
        }
    };
    (@over $field:tt) => {
        fn over(
            &self,
            runs: &[$crate::ledger::RunKey],
            wait: $crate::ledger::Wait,
        ) -> Result<Vec<$crate::ledger::RunKey>, $crate::blobs::StoreError> {
            self.$field.over(runs, wait)
        }
    };
    (@beat $field:tt) => {
        fn beat(
            &self,
            worker: &str,
            about: &[u8],
            keep: ::std::time::Duration,
        ) -> Result<(), $crate::blobs::StoreError> {
            self.$field.beat(worker, about, keep)
        }
    };
    (@workers $field:tt) => {
        fn workers(&self) -> Result<Vec<(String, Vec<u8>)>, $crate::blobs::StoreError> {
            self.$field.workers()
        }
    };
    (@wake $field:tt) => {
        fn wake(&self) {
            self.$field.wake();
        }
    };
    (@wakes $field:tt) => {
        fn wakes(&self) -> u64 {
            self.$field.wakes()
        }
    };
}
