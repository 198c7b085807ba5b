//! The real guests of `plugins/`, written with the SDK and built by cargo for wasm32-wasip2.

use std::path::Path;
use std::time::{Duration, Instant};

use dovetail_core::blobs::{ArtifactRef, BlobKind, Blobs as _, StoreErrorKind};
use dovetail_core::executor::{Attempt, Executor as _, FailureKind, Report};
use dovetail_core::limits::Limits;
use dovetail_core::stop::{Canceller, Stop};
use dovetail_runtime::Live;
use serde_json::{Value, json};

use crate::support::{Bench, attempt, failed, failure, output};

/// The component of a plugin, which must have been built.
fn built(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("../../plugins/target/wasm32-wasip2/release/{}.wasm", name.replace('-', "_")));
    std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}: build the plugins with `./justw plugins`", path.display()))
}

/// The table `[grants]` of the plugin's manifest, as it is written.
fn grants(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../plugins/tests/{name}/plugin.toml"));
    let text = std::fs::read_to_string(&path).unwrap();
    text.split_once("[grants]").map(|(_, grants)| format!("[grants]{grants}")).unwrap_or_default()
}

fn run_plugin(bench: &Bench, name: &str, input: Value) -> Report {
    let package = bench.install(name, &built(name), &grants(name));
    bench.attempt(package, input, Limits::DEFAULT, &Stop::never())
}

fn probe_within(behaviour: Value, limits: Limits) -> Report {
    let bench = Bench::new();
    let package = bench.install("probe", &built("probe"), "");
    bench.attempt(package, json!({ "behaviour": behaviour }), limits, &Stop::never())
}

fn probe(tag: &str, val: Value) -> Report {
    probe_within(json!({ "tag": tag, "val": val }), Limits::DEFAULT)
}

fn plain(tag: &str) -> Report {
    probe_within(json!({ "tag": tag }), Limits::DEFAULT)
}

#[test]
fn a_sum() {
    let bench = Bench::new();
    assert_eq!(output(&run_plugin(&bench, "add", json!({ "a": 2, "b": -5 }))), &json!({ "sum": -3 }));
    let report = run_plugin(&bench, "add", json!({ "a": i64::MAX.to_string(), "b": 1 }));
    assert_eq!(failed(&report), (FailureKind::InvalidInput, "overflow"));
}

#[test]
fn everything_is_echoed() {
    let place = json!({ "name": "hübsch", "position": [0.5, -1e300] });
    let everything = json!({
        "a_bool": true, "a_u8": 255, "a_u16": 65535, "a_u32": u32::MAX, "a_u64": u64::MAX.to_string(),
        "a_s8": -128, "a_s16": -32768, "a_s32": i32::MIN,
        "a_s64": i64::MIN.to_string(), "a_f32": 0.1, "a_f64": 0.1, "a_char": "🙂", "a_string": "\u{0}\"",
        "some_bytes": "AAEC/w==", "some_strings": ["", "x"],
        "some_places": [place, place], "a_tuple": [1, "two", false], "an_enum": "dark_green",
        "some_flags": ["read", "run_it"],
        "a_variant": { "tag": "named", "val": place }, "an_option": null,
        "a_nested_option": { "some": null }, "a_result": { "error": "no" },
        "a_bare_result": { "ok": null },
    });
    assert_eq!(output(&probe("echo", everything.clone()))["echo"], everything);
}

#[test]
fn an_artifact_is_read_and_written() {
    let bench = Bench::new();
    let mut text = "The quick brown fox. ".repeat(100_000);
    text.push('ß');
    let artifact = bench.artifact(text.as_bytes(), "text/plain");
    let report = run_plugin(&bench, "copy-artifact", json!({ "artifact": artifact }));
    let output = output(&report);
    assert_eq!((&output["same"], &output["size"]), (&artifact, &json!(text.len())));
    let upper = ArtifactRef::from_json(&output["upper"]).unwrap();
    assert_eq!(upper.media_type, "text/plain");
    assert_eq!(
        bench.blobs.get(BlobKind::Artifact, &upper.digest, u64::MAX).unwrap(),
        text.to_ascii_uppercase().as_bytes()
    );
}

#[test]
fn pictures_are_cut() {
    let bench = Bench::new();
    let image = bench.artifact(b"640x480", "image/jpeg");
    let area = |width: u32| json!({ "bbox": { "x": 1, "y": 2, "width": width, "height": 4 } });
    let report = run_plugin(&bench, "crop-faces", json!({ "image": image, "areas": [area(3), area(5)], "size": null }));
    let crops = output(&report);
    assert_eq!(crops["sizes"], json!([{ "width": 3, "height": 4 }, { "width": 5, "height": 4 }]));
    assert_eq!((&crops["image"], crops["crops"][1]["media_type"].as_str()), (&image, Some("image/png")));
    let report = run_plugin(&bench, "crop-faces", json!({ "image": image, "areas": [area(0)], "size": null }));
    assert_eq!(failed(&report), (FailureKind::InvalidInput, "empty_area"));
}

/// Whatever operation the task tries, the host must run the attempt again: it is no failure of the task and does not
/// count as one of its attempts.
#[test]
fn a_store_that_fails_is_the_hosts_fault() {
    let bench = Bench::new();
    let (text, image) = (bench.artifact(b"text", "text/plain"), bench.artifact(b"640x480", "image/jpeg"));
    let area = json!([{ "bbox": { "x": 1, "y": 2, "width": 3, "height": 4 } }]);
    let tries = [
        ("copy-artifact", json!({ "artifact": text })),
        ("crop-faces", json!({ "image": image, "areas": area, "size": null })),
    ];
    for (name, input) in tries {
        let package = bench.install(name, &built(name), &grants(name));
        for (kind, transient) in
            [(StoreErrorKind::Unavailable, true), (StoreErrorKind::Corrupt, false), (StoreErrorKind::Refused, false)]
        {
            *bench.blobs.1.lock().unwrap() = Some(kind);
            let error =
                bench.runtime.execute(&attempt(package, input.clone(), Limits::DEFAULT), &Stop::never()).unwrap_err();
            assert_eq!(
                (error.operation.as_str(), error.transient),
                ("use the artifact store", transient),
                "{name}: {error:?}"
            );
        }
        *bench.blobs.1.lock().unwrap() = None;
        assert!(
            output(&bench.attempt(package, input, Limits::DEFAULT, &Stop::never())).is_object(),
            "and goes on when it works again"
        );
    }
}

#[test]
fn a_clock_needs_its_grant() {
    let bench = Bench::new();
    let now = run_plugin(&bench, "clock", json!({ "zone": null }));
    assert!(output(&now)["milliseconds"].as_u64().is_some_and(|ms| ms > 1_700_000_000_000));
    assert_eq!(now.usage.host_calls["wasi:clocks/wall-clock.now"], 1);
    let without = bench.install("clock", &built("clock"), "");
    let error =
        bench.runtime.execute(&attempt(without, json!({ "zone": null }), Limits::DEFAULT), &Stop::never()).unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("wasi:clocks/"), "{error:?}");
}

#[test]
fn the_probe_is_pure_and_small() {
    let (compiler, _folder) = crate::refusals::compiler();
    let description = compiler.describe(&built("probe"), &Default::default()).unwrap();
    assert!(description.pure, "{:?}", description.imports);
    assert_eq!(description.signature.interface, "dovetail:probe/task@1.0.0");
    // 256 KiB of stack and the data stay within the memory that the pool keeps resident.
    assert!(
        description.initial_memory.is_some_and(|bytes| bytes > 65536 && bytes <= 512 << 10),
        "{:?}",
        description.initial_memory
    );
}

#[test]
fn a_panic_has_its_place() {
    let report = probe("panic", json!("out of cheese\nredo from start"));
    let failure = failure(&report);
    assert_eq!((failure.kind, failure.code.as_str()), (FailureKind::Panic, "panic"));
    assert!(failure.message.contains("out of cheese redo from start"), "{}", failure.message);
    assert!(
        failure.details["file"].as_str().is_some_and(|file| file.ends_with("probe/src/lib.rs")),
        "{:?}",
        failure.details
    );
    assert!(failure.details["line"].as_u64().is_some_and(|line| line > 10), "{:?}", failure.details);
    assert!(
        failure.backtrace.iter().any(|frame| frame.contains("panic_with") || frame.contains("run")),
        "{:?}",
        failure.backtrace
    );
}

#[test]
fn memory_that_is_refused_is_told_from_a_panic() {
    assert_eq!(output(&probe("allocate", json!(40)))["count"], 40 << 20);
    let report = probe("allocate", json!(80));
    assert_eq!(failed(&report), (FailureKind::Limit, "out_of_memory"), "{:?}", failure(&report));
}

#[test]
fn endless_recursion_is_a_trap() {
    let report = plain("recurse");
    let (kind, code) = failed(&report);
    assert_eq!(kind, FailureKind::Trap);
    // Either the shadow stack in linear memory or the native stack overflows first.
    assert!(matches!(code, "stack_overflow" | "out_of_bounds"), "{code}");
}

#[test]
fn failures_keep_their_kind() {
    for (how, kind, code, retryable, after) in [
        ("invalid_input", FailureKind::InvalidInput, "told_to_fail", false, None),
        ("cancelled", FailureKind::Cancelled, "cancelled", false, None),
        ("unavailable", FailureKind::Unavailable, "told_to_fail", true, None),
        ("unavailable_later", FailureKind::Unavailable, "told_to_fail", true, Some(50)),
        ("failed", FailureKind::Failed, "told_to_fail", false, None),
        ("failed_retryable", FailureKind::Failed, "told_to_fail", true, None),
    ] {
        let report = probe("fail", json!(how));
        let failure = failure(&report);
        assert_eq!(
            (failure.kind, failure.code.as_str(), failure.retryable, failure.retry_after_ms),
            (kind, code, retryable, after),
            "{how}"
        );
    }
    let report = probe("fail", json!("ordinary"));
    assert_eq!(failure(&report).message, "invalid digit found in string");
    assert_eq!(failure(&probe("fail", json!("failed"))).details["times"], 1);
}

#[test]
fn prints_and_logs_become_lines() {
    let report = probe("println", json!("hello\u{1b}[0m"));
    let lines: Vec<_> = report.log.iter().map(|line| (line.level.as_str(), line.message.as_str())).collect();
    assert_eq!(lines, [("info", "hello[0m"), ("warn", "hello[0m")]);
    let report = probe("log", json!(6));
    let lines: Vec<_> = report.log.iter().map(|line| (line.level.as_str(), line.fields["line"].clone())).collect();
    assert_eq!(lines[..2], [("trace", json!(0)), ("debug", json!(1))]);
    assert_eq!((lines.len(), report.usage.host_calls["dovetail:task/logging.log"]), (6, 6));
}

#[test]
fn a_flood_of_output_is_dropped_and_counted() {
    let report = probe_within(
        json!({ "tag": "println", "val": "x\n".repeat(50_000) }),
        Limits { log: 10_000, ..Limits::DEFAULT },
    );
    output(&report);
    assert!(report.log.len() < 1_000 && report.log_dropped > 90_000, "{} {}", report.log.len(), report.log_dropped);
}

#[test]
fn handles_that_leak_are_limited() {
    output(&probe("leak_handles", json!(1024)));
    assert_eq!(failed(&probe("leak_handles", json!(1025))), (FailureKind::Limit, "too_many_handles"));
}

#[test]
fn an_output_that_is_too_large() {
    assert_eq!(failed(&probe("huge_output", json!(5 << 20))), (FailureKind::BadOutput, "output_too_large"));
}

#[test]
fn an_endless_loop_ends_with_its_time() {
    let report = probe_within(json!({ "tag": "endless_loop" }), Limits { time_ms: 100, ..Limits::DEFAULT });
    assert_eq!(failed(&report), (FailureKind::Timeout, "timeout"));
    assert!(report.usage.wall_us < 1_000_000, "{}", report.usage.wall_us);
}

#[test]
fn a_guest_notices_its_cancellation() {
    let bench = Bench::new();
    let package = bench.install("probe", &built("probe"), "");
    bench.runtime.preload(&package).unwrap();
    let canceller = Canceller::new();
    let stop = canceller.stop();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            bench.attempt(package, json!({ "behaviour": { "tag": "busy_until_cancelled" } }), Limits::DEFAULT, &stop)
        });
        std::thread::sleep(Duration::from_millis(50));
        let asked = Instant::now();
        canceller.cancel();
        assert_eq!(failed(&running.join().unwrap()), (FailureKind::Cancelled, "cancelled"));
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    });
}

#[test]
fn facts_are_told() {
    let bench = Bench::new();
    let package = bench.install("probe", &built("probe"), "");
    let mut attempt: Attempt =
        attempt(package, json!({ "behaviour": { "tag": "tell_context", "val": "faces-array" } }), Limits::DEFAULT);
    attempt.number = 3;
    attempt.origins.insert("faces_array".to_owned(), "output_001_faces_array".to_owned());
    let report = bench.runtime.execute(&attempt, &Stop::never()).unwrap();
    let facts = &output(&report)["facts"];
    assert_eq!((&facts["run_id"], &facts["step"]), (&json!(attempt.run), &json!("probe")));
    assert_eq!(
        (&facts["attempt"], &facts["idempotency_key"], &facts["origin"]),
        (&json!(3), &json!("key"), &json!("output_001_faces_array"))
    );
    assert!(facts["remaining_ms"].as_u64().is_some_and(|ms| ms > 20_000 && ms <= 30_000), "{facts}");
}

#[test]
fn progress_and_lines_arrive_while_it_runs() {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = seen.clone();
    let bench = Bench::with(|options| {
        options.live = Some(std::sync::Arc::new(move |attempt: &Attempt, live: Live<'_>| {
            let said = match live {
                Live::Log(line) => line.message.clone(),
                Live::Progress(progress) => {
                    format!("{} {:?}", progress.fraction, progress.note)
                }
            };
            sink.lock().unwrap().push((attempt.step.to_string(), said));
        }));
    });
    let package = bench.install("probe", &built("probe"), "");
    let run =
        |behaviour: Value| bench.attempt(package, json!({ "behaviour": behaviour }), Limits::DEFAULT, &Stop::never());
    output(&run(json!({ "tag": "report_progress", "val": 1000 })));
    output(&run(json!({ "tag": "log", "val": 1 })));
    let seen = seen.lock().unwrap();
    assert_eq!(seen.first().unwrap(), &("probe".to_owned(), "0 Some(\"probing\")".to_owned()));
    assert_eq!(seen.last().unwrap(), &("probe".to_owned(), "a line".to_owned()));
    assert!(seen.len() < 20, "a thousand reports within a moment are thinned out: {}", seen.len());
}
