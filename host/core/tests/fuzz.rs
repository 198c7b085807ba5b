//! What anybody may write, read from anything: JSON against a type, and pipeline files. Never a panic, and what is taken stays what it is.

#[path = "../../../tests/fuzz/mutator.rs"]
mod mutator;

use dovetail_core::pipeline::{self, Listed};
use dovetail_core::wit::{Type, json};
use mutator::{files, fuzz};
use serde_json::Value;

/// A line with the type, then the value.
#[test]
fn values() {
    fuzz("values", env!("CARGO_TARGET_TMPDIR"), &files("tests/fuzz/values"), 20_000, |input| {
        let Some((ty, value)) = std::str::from_utf8(input).ok().and_then(|text| text.split_once('\n')) else { return };
        let (Ok(ty), Ok(value)) = (serde_json::from_str::<Type>(ty), serde_json::from_str::<Value>(value)) else { return };
        match json::check(&ty, &value) {
            Ok(normal) => assert_eq!(json::check(&ty, &normal).as_ref(), Ok(&normal), "the normal form is not its own"),
            Err(errors) => assert!(!errors.is_empty(), "refused without a reason"),
        }
    });
}

#[test]
fn pipelines() {
    let corpus: Vec<_> = files("pipelines").into_iter().chain(files("tests/fuzz/pipelines")).collect();
    fuzz("pipelines", env!("CARGO_TARGET_TMPDIR"), &corpus, 5_000, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let checked = pipeline::check(text, &Listed::default());
        assert!(checked.pipeline.is_some() || !checked.findings.is_empty(), "refused without a reason");
        let lines = text.lines().count().max(1);
        for finding in &checked.findings {
            assert!(!finding.message.is_empty() && finding.line as usize <= lines + 1, "{finding:?} in {lines} lines");
        }
    });
}
