//! Fuzz tests of text that anybody may write: JSON against a type, and pipeline files. No input may cause a panic, and
//! an accepted value must stay the same when it is checked or stored again.

#[path = "../../../tests/fuzz/mutator.rs"]
mod mutator;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use dovetail_core::pipeline::faces::{catalogue, task};
use dovetail_core::pipeline::{self, ListCatalogue, Pipeline, ready};
use dovetail_core::wit::{Type, json};
use mutator::{files, fuzz};
use serde_json::{Map, Value};

/// The corpus: a line with the type, then the value.
#[test]
fn values() {
    let (taken, refused) = (Cell::new(0), Cell::new(0));
    fuzz("values", env!("CARGO_TARGET_TMPDIR"), &files("tests/fuzz/values"), 20_000, |input| {
        let Some((ty, value)) = std::str::from_utf8(input).ok().and_then(|text| text.split_once('\n')) else { return };
        let (Ok(ty), Ok(value)) = (serde_json::from_str::<Type>(ty), serde_json::from_str::<Value>(value)) else {
            return;
        };
        match json::check(&ty, &value) {
            Ok(normal) => {
                taken.set(taken.get() + 1);
                assert_eq!(json::check(&ty, &normal).as_ref(), Ok(&normal), "the normal form is not its own");
            }
            Err(errors) => {
                refused.set(refused.get() + 1);
                assert!(!errors.is_empty(), "refused without a reason");
            }
        }
    });
    println!("values: {} fitted their type, {} did not", taken.get(), refused.get());
    assert!(taken.get() > 200 && refused.get() > 200, "mutations end in the parser: types are hardly reached");
}

/// Tasks with types of every kind. Some types fit each other, some fit with a conversion, and some do not fit.
fn tasks() -> ListCatalogue {
    let ListCatalogue(mut tasks) = catalogue();
    let shape = "variant { none, square(f32), box(tuple<f32, f32>) }";
    let odd = "result<option<u32>, string>";
    tasks.extend([
        task("count", "1.0.0", &["n: option<u32>"], &["n: u8"]),
        task("count", "1.2.0", &["n: u32", "m: option<list<f64>>"], &["n: u64", "m: list<f32>"]),
        task("count", "2.0.0", &["n: s64"], &["n: u32", "words: list<string>"]),
        task(
            "shape",
            "1.0.0",
            &["of: option<string>", &format!("like: option<{shape}>")],
            &[&format!("shape: {shape}"), &format!("odd: {odd}")],
        ),
        task(
            "gather",
            "0.1.0",
            &[
                "words: list<string>",
                "set: flags { a, b }",
                &format!("odd: option<{odd}>"),
                "file: option<artifact>",
                "deep: option<option<char>>",
            ],
            &[
                "picture: image",
                "file: artifact",
                "bytes: list<u8>",
                "at: record { x: f32, y: option<record { z: bool }> }",
            ],
        ),
    ]);
    ListCatalogue(tasks)
}

/// Uses an accepted pipeline: its text, graphs and order must exist, and it must be the same after it was stored.
fn use_it(pipeline: &Pipeline) {
    assert_eq!(
        Pipeline::from_json(&pipeline.to_json()).ok().as_ref(),
        Some(pipeline),
        "stored and read it is another one"
    );
    assert!(pipeline::diff(pipeline, pipeline).is_empty(), "it differs from itself");
    assert!(!pipeline.text_graph().is_empty() && !pipeline.mermaid().is_empty());
    assert!(pipeline.input_schema().is_object());
    let (mut done, mut order) = (BTreeSet::new(), Vec::new());
    loop {
        let next: Vec<String> = ready(pipeline, &done).iter().map(|step| step.name.clone()).collect();
        if next.is_empty() {
            break;
        }
        done.extend(next.iter().cloned());
        order.extend(next);
    }
    assert_eq!(order.len(), pipeline.steps.len(), "some step can never run: {order:?}");
    // Defaults were checked with the file, so only inputs without a default may be missing.
    let inputs = pipeline.resolve_inputs(&Map::new()).unwrap_or_else(|errors| {
        assert!(errors.iter().all(|error| error.found == "nothing"), "{errors:?}");
        Value::Null
    });
    if inputs.is_null() {
        return;
    }
    let mut outputs: BTreeMap<&str, Value> = BTreeMap::new();
    for step in &pipeline.steps {
        // The outputs of other steps do not exist here; a step that needs one cannot be bound.
        if let Ok(record) = pipeline.step_input(step, &inputs, &|need| outputs.get(need)) {
            for field in &step.signature.input {
                let value = record.get(dovetail_core::wit::snake(&field.name)).expect("each field is bound");
                // A literal or a default must fit the field's own type after all conversions.
                let fits = json::check(&field.ty, value).is_ok();
                assert!(fits, "{} of {} gets {value}, its type is {}", field.name, step.name, field.ty);
            }
        }
        outputs.insert(&step.name, Value::Object(Map::new()));
    }
}

#[test]
fn pipelines() {
    let corpus: Vec<_> = files("pipelines").into_iter().chain(files("tests/fuzz/pipelines")).collect();
    let (tasks, reached) = (tasks(), RefCell::new(BTreeMap::<&str, u32>::new()));
    fuzz("pipelines", env!("CARGO_TARGET_TMPDIR"), &corpus, 20_000, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let checked = pipeline::check(text, &tasks);
        assert!(checked.pipeline.is_some() || !checked.findings.is_empty(), "refused without a reason");
        let lines = text.lines().count().max(1);
        for finding in &checked.findings {
            assert!(!finding.message.is_empty() && finding.line as usize <= lines + 1, "{finding:?} in {lines} lines");
        }
        let mut reached = reached.borrow_mut();
        checked
            .findings
            .iter()
            .map(|finding| finding.code.as_str())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .for_each(|code| *reached.entry(code).or_default() += 1);
        if let Some(pipeline) = &checked.pipeline {
            *reached.entry("taken").or_default() += 1;
            use_it(pipeline);
        }
    });
    println!("pipelines: {:?}", reached.borrow());
    // If mutations only reach the parser, this test checks nothing.
    let least =
        [("taken", 50), ("type_mismatch", 50), ("unknown_field", 50), ("missing_input", 30), ("unknown_task", 10)];
    for (code, times) in least {
        assert!(
            reached.borrow().get(code).is_some_and(|found| *found >= times),
            "`{code}` is hardly reached: {:?}",
            reached.borrow()
        );
    }
}
