//! Names and versions.

use dovetail_flow::{Pushed, pipeline, pipelines, plugin, push_pipeline, push_plugin, update_pipeline};
use serde_json::json;

use crate::bench::{Bench, adder};

#[test]
fn a_published_version_never_changes() {
    let bench = Bench::new();
    assert_eq!(push_plugin(&bench.ports, &adder("1.0.0"), b"package of add@1.0.0").unwrap(), Pushed::Same);
    let mut other = adder("1.0.0");
    other.package = dovetail_core::Digest::of(b"other");
    assert_eq!(push_plugin(&bench.ports, &other, b"other").unwrap_err().code(), "version_exists");
    assert_eq!(plugin(&bench.ports, "add").unwrap().package, adder("1.0.0").package);
}

#[test]
fn references_find_the_newest_that_matches() {
    let bench = Bench::new();
    for version in ["1.2.0", "2.0.0", "1.1.0"] {
        bench.push_adder(version);
    }
    let found = |reference: &str| plugin(&bench.ports, reference).map(|p| p.version.to_string()).map_err(|e| e.code());
    assert_eq!(found("add"), Ok("2.0.0".into()));
    assert_eq!(found("add@^1"), Ok("1.2.0".into()));
    assert_eq!(found("add@1.1.0"), Ok("1.1.0".into()));
    assert_eq!(found("add@^3"), Err("unknown_version"));
    assert_eq!(found("ad"), Err("unknown_task"));
}

#[test]
fn a_pipeline_stays_pinned_until_it_is_updated() {
    let bench = Bench::new();
    let steps = &[("a", "input.x", "input.x")];
    let first = bench.publish(&json!({}), steps);
    assert_eq!((first.key.as_str(), first.revision), ("sums@1.0.0#1", 1));
    assert_eq!(push_pipeline(&bench.ports, &first.pipeline).unwrap().1, Pushed::Same);
    bench.push_adder("1.1.0");
    assert_eq!(pipeline(&bench.ports, "sums").unwrap().pipeline.steps[0].version.to_string(), "1.0.0");
    let old_run = bench.submit(&first, 1);
    let update = update_pipeline(&bench.ports, "sums").unwrap();
    assert!(update.differences.iter().any(|d| d.contains("1.0.0") && d.contains("1.1.0")), "{:?}", update.differences);
    let newest = pipeline(&bench.ports, "sums@1.0.0").unwrap();
    assert_eq!((newest.revision, newest.pipeline.steps[0].version.to_string().as_str()), (2, "1.1.0"));
    assert!(update_pipeline(&bench.ports, "sums").unwrap().new.is_none(), "nothing newer");
    assert_eq!(pipelines(&bench.ports).unwrap().read.len(), 1);
    // Submitted again under the new revision, it is still the same run.
    let again = dovetail_flow::submit(&bench.ports, &newest, &json!({ "x": 1 }), &old_run).unwrap();
    assert_eq!(again, Pushed::Same);
    // The run that was submitted before keeps its revision.
    let document = bench.work(&old_run);
    assert_eq!(document["processing_summary"]["steps"][0]["task"], "add@1.0.0");
}

#[test]
fn line_ends_and_spaces_of_a_file_are_not_its_content() {
    let bench = Bench::new();
    let file = |end: &str| {
        let steps = json!({ "a": { "number": 1, "task": "add@^1", "inputs": { "a": "input.x", "b": {"value": 1} } } });
        let file = json!({
            "name": "sums", "version": "1.0.0", "inputs": { "x": {} }, "steps": steps, "output": { "total": "a.sum" },
        });
        let text = serde_json::to_string_pretty(&file).unwrap().replace('\n', end);
        dovetail_flow::check(&bench.ports, &text).unwrap().pipeline.unwrap()
    };
    let first = push_pipeline(&bench.ports, &file("\n")).unwrap().0;
    for end in ["\r\n", "", "\n\n  "] {
        let (published, pushed) = push_pipeline(&bench.ports, &file(end)).unwrap();
        assert_eq!((pushed, published.key.as_str()), (Pushed::Same, first.key.as_str()), "{end:?}");
    }
    let changed = file("\r\n").source.replace("\"value\": 1", "\"value\": 2");
    let changed = dovetail_flow::check(&bench.ports, &changed).unwrap().pipeline.unwrap();
    assert!(push_pipeline(&bench.ports, &changed).unwrap_err().to_string().contains("with another content"));
    // With newer plugins the same file is pinned otherwise, with any line ends.
    bench.push_adder("1.1.0");
    let error = push_pipeline(&bench.ports, &file("\r\n")).unwrap_err();
    assert!(error.code() == "version_exists" && error.to_string().contains("other plugin versions"), "{error}");
    assert!(update_pipeline(&bench.ports, "sums").unwrap().new.is_some());
}

/// As with tasks: a prerelease is found only by its version.
#[test]
fn a_name_alone_means_no_prerelease() {
    let bench = Bench::new();
    let steps = &[("a", "input.x", "input.x")];
    let publish = |version: &str| drop(bench.publish(&json!({ "version": version }), steps));
    let found = |reference: &str| {
        pipeline(&bench.ports, reference).map(|p| p.pipeline.version.to_string()).map_err(|e| e.to_string())
    };
    publish("1.1.0-rc.1");
    let refused = pipeline(&bench.ports, "sums").unwrap_err();
    assert!(refused.code() == "unknown_pipeline" && refused.to_string().contains("only prereleases"), "{refused}");
    publish("1.0.0");
    publish("1.1.0-rc.2");
    assert_eq!(found("sums"), Ok("1.0.0".into()));
    assert_eq!(found("sums@1.1.0-rc.1"), Ok("1.1.0-rc.1".into()));
    bench.push_adder("1.1.0-rc.1");
    assert_eq!(plugin(&bench.ports, "add").unwrap().version.to_string(), "1.0.0");
    publish("1.1.0");
    assert_eq!(found("sums"), Ok("1.1.0".into()));
}

#[test]
fn another_content_under_a_published_version_is_refused() {
    let bench = Bench::new();
    bench.publish(&json!({}), &[("a", "input.x", "input.x")]);
    let other = json!({
        "name": "sums", "version": "1.0.0", "inputs": { "x": {} },
        "steps": { "a": { "number": 7, "task": "add@^1", "inputs": { "a": "input.x", "b": "input.x" } } },
        "output": { "total": "a.sum" },
    });
    let checked = dovetail_flow::check(&bench.ports, &other.to_string()).unwrap().pipeline.unwrap();
    assert_eq!(push_pipeline(&bench.ports, &checked).unwrap_err().code(), "version_exists");
    assert_eq!(pipeline(&bench.ports, "nosuch").unwrap_err().code(), "unknown_pipeline");
    assert_eq!(pipeline(&bench.ports, "sums@9.0.0").unwrap_err().code(), "unknown_pipeline");
}
