//! The stand-in for the S3 backend in a build without it. Opening is an error that tells so, and nothing else can be
//! called.

use std::time::Duration;

use dovetail_core::Digest;
use dovetail_core::blobs::{BlobKind, Blobs, StoreError, StoreErrorKind};
use dovetail_core::clock::Clock;
use dovetail_core::retention::{BlobVisitor, Owned, RemovableBlobs};

use super::{Credentials, S3Check};

/// The S3 backend, which this build does not include. The type has no values.
#[derive(Debug)]
pub enum S3Blobs {}

impl S3Blobs {
    /// Refuses to open.
    ///
    /// # Errors
    /// `Invalid`, always: this build does not include the S3 backend.
    pub fn open(_url: &str, _fallback: Option<Credentials>) -> Result<Self, StoreError> {
        let why = "this program was built without the `s3` feature: build it with `--features s3`, or keep the blobs \
                   in files";
        Err(StoreError::new(StoreErrorKind::Invalid, "open the blob store", why))
    }

    /// As in the S3 backend.
    ///
    /// # Errors
    /// None: the type has no values.
    pub fn check(&self, _clock: &dyn Clock) -> Result<S3Check, StoreError> {
        match *self {}
    }

    /// As in the S3 backend.
    ///
    /// # Errors
    /// None: the type has no values.
    pub fn forget_everything(&self) -> Result<(), StoreError> {
        match *self {}
    }
}

impl Blobs for S3Blobs {
    fn put(&self, _kind: BlobKind, _bytes: &[u8]) -> Result<Digest, StoreError> {
        match *self {}
    }

    fn get(&self, _kind: BlobKind, _digest: &Digest, _max: u64) -> Result<Vec<u8>, StoreError> {
        match *self {}
    }

    fn size(&self, _kind: BlobKind, _digest: &Digest) -> Result<Option<u64>, StoreError> {
        match *self {}
    }
}

impl Owned for S3Blobs {
    fn owner(&self) -> Result<Option<String>, StoreError> {
        match *self {}
    }

    fn own(&self, _records: &str) -> Result<String, StoreError> {
        match *self {}
    }

    fn is_empty(&self) -> Result<bool, StoreError> {
        match *self {}
    }

    fn place(&self) -> String {
        match *self {}
    }
}

impl RemovableBlobs for S3Blobs {
    fn walk(&self, _kind: BlobKind, _visit: &mut BlobVisitor<'_>) -> Result<(), StoreError> {
        match *self {}
    }

    fn age(&self, _kind: BlobKind, _digest: &Digest) -> Result<Option<Duration>, StoreError> {
        match *self {}
    }

    fn remove(&self, _kind: BlobKind, _digest: &Digest, _at_least: Duration) -> Result<bool, StoreError> {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opening_names_the_feature() {
        let error = S3Blobs::open("s3://bucket", None).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Invalid);
        assert!(error.source.unwrap().to_string().contains("built without the `s3` feature"));
    }
}
