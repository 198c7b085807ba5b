//! Lists of records. A record that this version cannot read does not hide the others.

use dovetail_core::blobs::{StoreError, StoreErrorKind};

use crate::FlowError;

/// A list of records.
#[derive(Debug)]
pub struct List<T> {
    pub read: Vec<T>,
    /// Records that this version cannot read.
    pub unread: Vec<UnreadRecord>,
}

/// A record that exists and cannot be read: a newer dovetail wrote it, it is damaged, or something that it names is
/// missing.
#[derive(Debug)]
pub struct UnreadRecord {
    /// The record's name: a run's ID, or `name@version`.
    pub name: String,
    pub error: StoreError,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { read: Vec::new(), unread: Vec::new() }
    }
}

impl<T> List<T> {
    /// Adds the record `name`, or notes that it cannot be read.
    ///
    /// # Errors
    /// Every error that is not about this record alone: the store failed, or the request is refused.
    pub fn take(&mut self, name: &str, read: Result<T, FlowError>) -> Result<(), FlowError> {
        match read {
            Ok(one) => self.read.push(one),
            Err(FlowError::Store(error)) if is_of_the_record(error.kind) => {
                self.unread.push(UnreadRecord { name: name.to_owned(), error });
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// One record. `None` if it cannot be read.
///
/// # Errors
/// As [`List::take`].
pub(crate) fn readable<T>(read: Result<T, FlowError>) -> Result<Option<T>, FlowError> {
    let mut list = List::default();
    list.take("", read)?;
    Ok(list.read.pop())
}

/// Whether the error is about the record alone. `Missing`: a pipeline or a value that the record names is not stored.
fn is_of_the_record(kind: StoreErrorKind) -> bool {
    matches!(kind, StoreErrorKind::Newer | StoreErrorKind::Corrupt | StoreErrorKind::Missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_about_the_record_is_passed_over() {
        let failed = |kind| Err::<(), _>(FlowError::Store(StoreError::plain(kind, "read the record of x")));
        let mut list = List::default();
        list.take("a", Ok(())).unwrap();
        for kind in [StoreErrorKind::Newer, StoreErrorKind::Corrupt, StoreErrorKind::Missing] {
            list.take("b", failed(kind)).unwrap();
        }
        assert_eq!((list.read.len(), list.unread.len()), (1, 3));
        for kind in [StoreErrorKind::Unavailable, StoreErrorKind::Refused, StoreErrorKind::Full] {
            assert!(list.take("c", failed(kind)).is_err(), "{kind:?}");
        }
    }
}
