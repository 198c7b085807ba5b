//! Inputs of runs: small inputs are in the run's record, large inputs are blobs. Inputs that are too large, and inputs
//! that name an artifact which is not stored, are refused.

use crate::bench::document;
use crate::bench::lineage;
use dovetail_core::Digest;
use dovetail_core::blobs::{ArtifactRef, BlobKind, Blobs as _};
use dovetail_core::executor::Outcome;
use dovetail_core::ledger::{Kind, Scope, Wait};
use dovetail_core::limits::MAX_VALUE;
use dovetail_core::record::{Form as _, PluginRecord, RunRecord, StoredValue};
use dovetail_core::wit::{Field, Signature, Type};
use dovetail_flow::{FlowError, Published, Pushed, new_run_id, push_pipeline, push_plugin};
use serde_json::{Value, json};

use crate::bench::{Bench, adder, report};

/// Publishes a pipeline of two steps of the task `text`. The task takes two texts and an optional artifact, and returns
/// the first text.
pub(crate) fn texts(bench: &Bench) -> Published {
    let field = |name: &str, ty| Field { name: name.into(), ty };
    let record = PluginRecord {
        name: "text".into(),
        package: Digest::of(b"package of text"),
        signature: Signature {
            interface: "test:text/task@1.0.0".into(),
            input: vec![
                field("a", Type::String),
                field("b", Type::String),
                field("file", Type::Option(Box::new(Type::Artifact))),
            ],
            output: vec![field("text", Type::String)],
        },
        ..adder("1.0.0")
    };
    push_plugin(&bench.ports, &record, b"package of text").unwrap();
    let step = |number: u32, a: &str, b: &str| {
        let inputs = json!({ "a": a, "b": b, "file": "input.file" });
        json!({ "number": number, "task": "text@^1", "inputs": inputs })
    };
    let file = json!({
        "name": "texts", "version": "1.0.0", "inputs": { "x": {}, "file": {} },
        "steps": { "one": step(1, "input.x", "input.x"), "two": step(2, "one.text", "input.x") },
        "output": { "text": "two.text" },
    });
    let checked = dovetail_flow::check(&bench.ports, &file.to_string()).unwrap();
    let published =
        push_pipeline(&bench.ports, &checked.pipeline.unwrap_or_else(|| panic!("{:#?}", checked.findings))).unwrap().0;
    for name in ["one", "two"] {
        bench.script(name, |attempt, _| {
            Ok(report(Outcome::Succeeded { output: json!({ "text": attempt.input["a"] }) }))
        });
    }
    published
}

fn inputs(published: &Published, given: &Value) -> Value {
    published.pipeline.resolve_inputs(given.as_object().unwrap()).unwrap()
}

fn code(answer: Result<Pushed, FlowError>) -> &'static str {
    answer.unwrap_err().code()
}

#[test]
fn large_inputs_stand_apart_and_every_step_gets_them() {
    let bench = Bench::new();
    let published = texts(&bench);
    for bytes in [10, 300_000] {
        let given = inputs(&published, &json!({ "x": "a".repeat(bytes) }));
        let run = new_run_id();
        assert_eq!(dovetail_flow::submit(&bench.ports, &published, &given, &run).unwrap(), Pushed::Created);
        let record = bench.ports.ledger.get(Kind::Run, &[run.to_string()]).unwrap().remove(0).unwrap();
        let stored = RunRecord::decode(&record, "run").unwrap().inputs;
        assert_eq!(matches!(stored, StoredValue::Blob { .. }), bytes > 10_000, "{bytes}");
        // A claimed job carries the run's record, which is small.
        let scope = Scope::Runs(vec![run.clone()]);
        let job = bench.ports.ledger.claim(&scope, 1, std::time::Duration::from_secs(1), Wait::NONE).unwrap().remove(0);
        assert!(job.run.len() < 1000, "{}", job.run.len());
        bench.clock.advance(std::time::Duration::from_secs(2));
        let document = bench.work(&run);
        assert_eq!((&document["state"], &document["inputs"]), (&json!("succeeded"), &given));
        assert_eq!(document["output"]["text"].as_str().map(str::len), Some(bytes));
        let lineage = lineage(&bench.ports, &dovetail_flow::current(&bench.ports, &run).unwrap()).unwrap();
        assert_eq!(lineage["inputs"], given);
        // The same inputs again are the same run. Other inputs under the same ID are refused, large or small.
        assert_eq!(dovetail_flow::submit(&bench.ports, &published, &given, &run).unwrap(), Pushed::Same);
        for other in ["b".to_owned(), "b".repeat(bytes)] {
            let other = inputs(&published, &json!({ "x": other }));
            assert_eq!(code(dovetail_flow::submit(&bench.ports, &published, &other, &run)), "run_differs");
        }
    }
}

#[test]
fn inputs_may_have_four_mebibytes_and_no_more_and_one_that_has_keeps_no_other_back() {
    let bench = Bench::new();
    let published = texts(&bench);
    let around = inputs(&published, &json!({ "x": "" })).to_string().len();
    let most = usize::try_from(MAX_VALUE).unwrap() - around;
    let run = |bytes| (new_run_id(), inputs(&published, &json!({ "x": "a".repeat(bytes) })));
    let runs = vec![run(1), run(most + 1), run(most), run(2)];
    let ids: Vec<_> = runs.iter().map(|(id, _)| id.clone()).collect();
    let mut answers = dovetail_flow::submit_many(&bench.ports, &published, runs).unwrap();
    let refused = answers.remove(1).unwrap_err();
    assert_eq!(refused.code(), "input_too_large");
    let said = refused.to_string();
    assert!(said.contains("`x`") && said.contains("4194305 bytes") && said.contains("the most is 4MiB"), "{said}");
    assert!(answers.iter().all(|answer| matches!(answer, Ok(Pushed::Created))), "{answers:?}");
    assert_eq!(document(&bench.ports, &ids[1]).unwrap_err().code(), "unknown_run", "no record of the run is written");
}

#[test]
fn what_a_step_binds_may_have_four_mebibytes_and_no_more() {
    let bench = Bench::new();
    let published = texts(&bench);
    // A step takes the text twice.
    let around = json!({ "a": "", "b": "", "file": null }).to_string().len() - "\"a\":\"b\":\"file\":{},,".len() + 6;
    let half = (usize::try_from(MAX_VALUE).unwrap() - around) / 2;
    for (bytes, state) in [(half - 20, "succeeded"), (half + 20, "failed")] {
        let run = new_run_id();
        let given = inputs(&published, &json!({ "x": "a".repeat(bytes) }));
        dovetail_flow::submit(&bench.ports, &published, &given, &run).unwrap();
        let document = bench.work(&run);
        assert_eq!(document["state"], state, "{bytes}: {}", document["error"]);
        if state == "failed" {
            assert_eq!(document["error"]["code"], "input_too_large");
            let said = document["error"]["message"].as_str().unwrap();
            assert!(said.contains("of them in `a`") && said.contains("the most is 4MiB"), "{said}");
            let attempts = document["processing_summary"]["steps"][0]["attempts"].as_array().unwrap();
            assert_eq!(attempts.len(), 1, "the step is not tried again");
        }
    }
    let made = bench.made();
    assert_eq!(made, [("one".to_owned(), 1), ("two".to_owned(), 1)], "the task was not called with the larger input");
}

#[test]
fn a_run_that_names_what_is_not_stored_is_refused_and_keeps_no_other_back() {
    let bench = Bench::new();
    let published = texts(&bench);
    let there = bench.kept.put(BlobKind::Artifact, b"there").unwrap();
    let file = |digest| ArtifactRef { digest, media_type: "text/plain".into(), name: None }.to_json();
    let run = |digest| (new_run_id(), inputs(&published, &json!({ "x": "a", "file": file(digest) })));
    let absent = run(Digest::of(b"not there"));
    let runs = vec![run(there), absent.clone(), run(there)];
    let mut answers = dovetail_flow::submit_many(&bench.ports, &published, runs).unwrap();
    let refused = answers.remove(1).unwrap_err();
    assert_eq!(refused.code(), "missing_artifact");
    assert!(refused.to_string().contains("the input `file` names"), "{refused}");
    assert!(answers.iter().all(|answer| matches!(answer, Ok(Pushed::Created))), "{answers:?}");
    // With its artifact stored, the run is accepted. Afterwards it is the same run, even if the artifact is removed.
    bench.kept.put(BlobKind::Artifact, b"not there").unwrap();
    let submit = || dovetail_flow::submit(&bench.ports, &published, &absent.1, &absent.0);
    assert_eq!(submit().unwrap(), Pushed::Created);
    use dovetail_core::retention::RemovableBlobs as _;
    let removed = bench.kept.remove(BlobKind::Artifact, &Digest::of(b"not there"), std::time::Duration::ZERO).unwrap();
    assert!(removed && submit().unwrap() == Pushed::Same);
}

#[test]
fn a_pipeline_whose_package_is_gone_is_not_submitted() {
    use dovetail_core::retention::RemovableBlobs as _;
    let bench = Bench::new();
    drop(texts(&bench));
    bench.kept.remove(BlobKind::Package, &Digest::of(b"package of text"), std::time::Duration::ZERO).unwrap();
    let published = dovetail_flow::pipeline(&bench.ports, "texts").unwrap();
    let given = inputs(&published, &json!({ "x": "a" }));
    let submit = || dovetail_flow::submit(&bench.ports, &published, &given, &new_run_id());
    let refused = submit().unwrap_err();
    assert_eq!(refused.code(), "missing_package");
    assert!(refused.to_string().contains("text@1.0.0") && refused.to_string().contains("step `one`"), "{refused}");
    bench.kept.put(BlobKind::Package, b"package of text").unwrap();
    assert_eq!(submit().unwrap(), Pushed::Created);
    // A run that was accepted before is the same run, even if the package has been removed since.
    let run = new_run_id();
    dovetail_flow::submit(&bench.ports, &published, &given, &run).unwrap();
    bench.kept.remove(BlobKind::Package, &Digest::of(b"package of text"), std::time::Duration::ZERO).unwrap();
    let published = dovetail_flow::pipeline(&bench.ports, "texts").unwrap();
    let both = vec![(run, given.clone()), (new_run_id(), given.clone())];
    let answers = dovetail_flow::submit_many(&bench.ports, &published, both).unwrap();
    assert!(matches!(answers[0], Ok(Pushed::Same)), "{answers:?}");
    assert_eq!(answers[1].as_ref().unwrap_err().code(), "missing_package");
}
