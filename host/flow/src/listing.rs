//! Lists of records, in which one that this version cannot read does not hide the others.

use dovetail_core::blobs::{StoreError, StoreErrorKind};

use crate::FlowError;

/// What a list came to.
#[derive(Debug)]
pub struct List<T> {
    pub read: Vec<T>,
    pub unread: Vec<Unread>,
}

/// A record that is there and cannot be read: a newer dovetail wrote it, or it is damaged.
#[derive(Debug)]
pub struct Unread {
    /// Of the record: a run's ID, or `name@version`.
    pub name: String,
    pub error: StoreError,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { read: Vec::new(), unread: Vec::new() }
    }
}

impl<T> List<T> {
    /// Takes what was read of the record `name`, or notes that it cannot be read.
    ///
    /// # Errors
    /// What is about the store and not about this record.
    pub fn take(&mut self, name: &str, read: Result<T, FlowError>) -> Result<(), FlowError> {
        match read {
            Ok(one) => self.read.push(one),
            Err(FlowError::Store(error)) if is_of_the_record(error.kind) => {
                self.unread.push(Unread { name: name.to_owned(), error });
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// The same of one: none where it cannot be read.
pub(crate) fn readable<T>(read: Result<T, FlowError>) -> Result<Option<T>, FlowError> {
    let mut list = List::default();
    list.take("", read)?;
    Ok(list.read.pop())
}

/// Whether the record is at fault. `Missing` is what it names: a pipeline, a value.
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
