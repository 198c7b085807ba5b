//! All keys of records, jobs and leases: each is built and parsed here only.
//!
//! | key | of |
//! |---|---|
//! | `RUN` | the record of a run, a [`crate::RunId`] |
//! | `RUN:GENERATION` | a generation, a cancellation, the end of a run: [`RunKey::key`] |
//! | `RUN:STEP:GENERATION` | the outcome of a step: [`RunKey::step`] |
//! | `RUN:STEP:GENERATION:NUMBER` | an attempt: [`RunKey::attempt`] |
//! | `RUN:KIND` | the model of a kind that was chosen for a run: [`model_choice`] |
//! | `NAME@VERSION` | a plugin: [`VersionKey`] |
//! | `NAME@VERSION#REVISION` | a pipeline with its pins: [`RevisionKey`] |
//! | `records` | the identity of the records: [`RECORDS`] |
//! | `RUN:GENERATION/STEP` | a job in a queue that is a separate system: [`RunKey::job`] |
//! | `INCARNATION#NUMBER` | the token of a lease from such a queue: [`lease_token`] |
//! | `TASK_001`, `output_001_FIELD`, ... | a step, a record or a field in documents: [`documented`] |
//! | `model:NAME`, `model_kind:KIND`, ... | a capability that a job requires of its worker: [`Capability`] |
//!
//! `STEP` is a [`NodeId`]: the name of a step, perhaps with indices.
//!
//! No part of a key contains a separator of that key. A run's ID consists of hex digits and hyphens. The name of a step
//! is snake_case, and its indices are digits in brackets. The name of a plugin or a pipeline is kebab-case. A parser
//! accepts only text that the corresponding function here builds.

mod capability;
pub mod documented;
mod node;
mod run;
mod version;

pub use self::capability::{Capability, MODEL, MODEL_KIND, capability_in_words, exact_model, is_grant};
pub use self::node::{BadNodeId, NodeId};
pub use self::run::{RunKey, keys_of_run, model_choice, run_of};
pub use self::version::{RevisionKey, VersionKey, reference_of};

/// The key of the record that holds the identity of this set of records.
pub const RECORDS: &str = "records";

/// `INCARNATION#NUMBER`: the token of all leases that one call of a process gets from a queue that is a separate
/// system. The process uses each call number once in its life.
#[must_use]
pub fn lease_token(incarnation: &str, call: &str) -> String {
    format!("{incarnation}#{call}")
}

/// Splits `NAME` or `NAME@PART` at the first `@`: the form in which a user names a task, a pipeline or a run.
#[must_use]
pub fn split_reference(text: &str) -> (&str, Option<&str>) {
    text.split_once('@').map_or((text, None), |(name, part)| (name, Some(part)))
}

/// Parses a number in the only spelling that keys use: without a sign, without leading zeros.
fn number(text: &str) -> Option<u32> {
    let plain = text == "0" || text.starts_with(|digit| matches!(digit, '1'..='9'));
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_spelling() {
        for known in [0, 1, 9, 10, 101, u32::MAX] {
            assert_eq!(number(&known.to_string()), Some(known));
        }
        for other in ["", "+1", "-1", "01", "00", " 1", "1 ", "1x", "4294967296"] {
            assert_eq!(number(other), None, "{other}");
        }
    }

    #[test]
    fn a_reference_is_split_at_its_first_at_sign() {
        assert_eq!(split_reference("add"), ("add", None));
        assert_eq!(split_reference("add@^1"), ("add", Some("^1")));
        assert_eq!(split_reference("add@"), ("add", Some("")));
        assert_eq!(split_reference("a@b@c"), ("a", Some("b@c")));
    }
}
