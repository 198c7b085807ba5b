//! An error with its causes as one text.

use std::error::Error;

/// The messages of the error and of all its causes, separated by colons.
#[must_use]
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let all: Vec<String> =
        std::iter::successors(Some(error), |error| (*error).source()).map(ToString::to_string).collect();
    all.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Layer(&'static str, #[source] Option<Box<Layer>>);

    #[test]
    fn every_cause_is_named_once_and_in_order() {
        let inner = Layer("the disk is full", None);
        assert_eq!(error_chain(&inner), "the disk is full");
        let outer = Layer("write the record", Some(Box::new(Layer("sync", Some(Box::new(inner))))));
        assert_eq!(error_chain(&outer), "write the record: sync: the disk is full");
    }
}
