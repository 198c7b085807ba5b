//! A temporary blob store above another one, for `task run`. All writes go to the temporary store, so that the other
//! store does not change.

use std::sync::Arc;

use dovetail_core::Digest;
use dovetail_core::blobs::{BlobKind, Blobs, StoreError, StoreErrorKind};

/// Writes to `above`; reads from `above`, then from `below`.
pub(crate) struct Overlay {
    pub(crate) above: Arc<dyn Blobs>,
    pub(crate) below: Arc<dyn Blobs>,
}

impl Blobs for Overlay {
    fn put(&self, kind: BlobKind, bytes: &[u8]) -> Result<Digest, StoreError> {
        self.above.put(kind, bytes)
    }

    fn get(&self, kind: BlobKind, digest: &Digest, max: u64) -> Result<Vec<u8>, StoreError> {
        match self.above.get(kind, digest, max) {
            Err(error) if error.kind == StoreErrorKind::Missing => self.below.get(kind, digest, max),
            other => other,
        }
    }

    fn size(&self, kind: BlobKind, digest: &Digest) -> Result<Option<u64>, StoreError> {
        match self.above.size(kind, digest)? {
            None => self.below.size(kind, digest),
            some => Ok(some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dovetail_stores::FileBlobs;

    #[test]
    fn what_is_below_is_seen_and_left_alone() {
        let (above, below) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let under: Arc<dyn Blobs> = Arc::new(FileBlobs::new(below.path()));
        let old = under.put(BlobKind::Artifact, b"old").unwrap();
        let overlay = Overlay { above: Arc::new(FileBlobs::new(above.path())), below: under.clone() };
        let new = overlay.put(BlobKind::Artifact, b"new").unwrap();
        assert_eq!(overlay.get(BlobKind::Artifact, &old, 9).unwrap(), b"old");
        assert_eq!(overlay.get(BlobKind::Artifact, &new, 9).unwrap(), b"new");
        assert_eq!(under.size(BlobKind::Artifact, &new).unwrap(), None);
        assert_eq!(overlay.size(BlobKind::Artifact, &old).unwrap(), Some(3));
    }
}
