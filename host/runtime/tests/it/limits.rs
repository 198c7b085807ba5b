//! Every limit from both sides. (Other modules test time (`outcomes`), packages (`packages`) and types (`refusals`).)

use dovetail_core::executor::{Executor as _, FailureKind};
use dovetail_core::limits::Limits;
use dovetail_core::stop::{Canceller, Stop};
use dovetail_runtime::Budgets;
use serde_json::json;

use crate::support::{Bench, attempt, component, core, core_with, failed, failure, number_guest, output};

/// Grows the memory by `n` pages of 64 KiB, and aborts if the growth is refused.
const GROW: &str =
    "(if (i32.eq (memory.grow (local.get 0)) (i32.const -1)) (then (unreachable))) (call $ok (memory.size))";

#[test]
fn memory_within_its_limit() {
    let report = Bench::new().run_within(
        &number_guest("", GROW),
        json!({ "n": 30 }),
        Limits { memory: 2 << 20, ..Limits::DEFAULT },
    );
    assert_eq!(output(&report), &json!({ "n": 32 }));
    assert_eq!(report.usage.peak_memory, 2 << 20);
}

/// The guest counts to `n`.
#[test]
fn what_an_attempt_used_is_measured() {
    let count = "(loop $on (global.set $i (i32.add (global.get $i) (i32.const 1))) \
        (br_if $on (i32.lt_u (global.get $i) (local.get 0))))
        (call $ok (global.get $i))";
    let component = number_guest("(global $i (mut i32) (i32.const 0))", count);
    let used = |n: u32| {
        let report = Bench::new().run_within(&component, json!({ "n": n }), Limits::DEFAULT);
        assert_eq!(output(&report), &json!({ "n": n }));
        report.usage
    };
    let (little, much) = (used(1), used(100_000_000));
    assert!(much.guest_cpu_us > 10_000 && much.guest_cpu_us > 10 * little.guest_cpu_us, "{little:?} {much:?}");
    assert!(much.guest_cpu_us <= much.wall_us, "{much:?}");
    assert_eq!((little.input_bytes, much.input_bytes), (7, 15), "as compact JSON");
    assert_eq!((little.output_bytes, much.output_bytes), (7, 15));
}

#[test]
fn memory_over_its_limit() {
    let report = Bench::new().run_within(
        &number_guest("", GROW),
        json!({ "n": 31 }),
        Limits { memory: 2 << 20, ..Limits::DEFAULT },
    );
    assert_eq!(failed(&report), (FailureKind::Limit, "out_of_memory"));
    assert!(failure(&report).message.contains("2MiB"), "{}", failure(&report).message);
    assert_eq!(report.usage.peak_memory, 2 * 65536);
}

#[test]
fn a_guest_may_survive_a_refused_allocation() {
    let report = Bench::new().run_within(
        &number_guest("", "(call $ok (i32.eq (memory.grow (local.get 0)) (i32.const -1)))"),
        json!({ "n": 31 }),
        Limits { memory: 2 << 20, ..Limits::DEFAULT },
    );
    assert_eq!(output(&report), &json!({ "n": 1 }));
}

#[test]
fn a_component_that_starts_over_its_memory_limit() {
    let report = Bench::new().run_within(
        &number_guest("", "(call $ok (i32.const 1))"),
        json!({ "n": 1 }),
        Limits { memory: 65536, ..Limits::DEFAULT },
    );
    assert_eq!(failed(&report), (FailureKind::Limit, "out_of_memory"));
}

/// A guest that returns a text of `n` bytes.
fn text_guest() -> Vec<u8> {
    let interface = "use dovetail:task/types@0.1.0.{task-error}; record input { n: u32 } \
        record output { text: string } \
                     run: func(input: input) -> result<output, task-error>;";
    let body = "(local $at i32) (local.set $at (call $alloc (i32.const 0) (i32.const 0) (i32.const 1) (local.get 0)))
      (memory.fill (local.get $at) (i32.const 120) (local.get 0))
      (i32.store (i32.const 1032) (local.get $at)) (i32.store (i32.const 1036) (local.get 0)) \
      (i32.store8 (i32.const 1024) (i32.const 0)) (i32.const 1024)";
    component(interface, &core("", body))
}

#[test]
fn an_output_of_exactly_its_limit() {
    // {"text":"xxx"} has 11 bytes besides the text.
    let report =
        Bench::new().run_within(&text_guest(), json!({ "n": 1000 - 11 }), Limits { output: 1000, ..Limits::DEFAULT });
    assert_eq!(output(&report)["text"].as_str().map(str::len), Some(989));
    assert_eq!(report.usage.output_bytes, 1000);
}

#[test]
fn an_output_over_its_limit() {
    let report =
        Bench::new().run_within(&text_guest(), json!({ "n": 1000 - 10 }), Limits { output: 1000, ..Limits::DEFAULT });
    assert_eq!(failed(&report), (FailureKind::BadOutput, "output_too_large"));
    assert!(failure(&report).message.contains("1000"), "{}", failure(&report).message);
}

#[test]
fn the_default_output_limit() {
    let report = Bench::new().run(&text_guest(), json!({ "n": (4 << 20) - 11 }));
    assert_eq!(report.usage.output_bytes, 4 << 20);
    let report = Bench::new().run(&text_guest(), json!({ "n": 4 << 20 }));
    assert_eq!(failed(&report), (FailureKind::BadOutput, "output_too_large"));
}

/// A guest that logs `n` lines of 34 bytes; each counts 50 bytes.
fn logging_guest() -> Vec<u8> {
    let log = r#"(import "dovetail:task/logging@0.1.0" "log" (func $log (param i32 i32 i32 i32 i32)))
      (data (i32.const 0x2000) "0123456789012345678901234567890123")"#;
    let body = "(local $i i32) (block $out (loop $l (br_if $out (i32.ge_u (local.get $i) (local.get 0)))
      (call $log (i32.const 2) (i32.const 0x2000) (i32.const 34) (i32.const 0) (i32.const 0))
      (local.set $i (i32.add (local.get $i) (i32.const 1))) (br $l))) (call $ok (local.get $i))";
    number_guest(log, body)
}

#[test]
fn a_log_within_its_limit() {
    let report = Bench::new().run_within(&logging_guest(), json!({ "n": 20 }), Limits { log: 1000, ..Limits::DEFAULT });
    assert_eq!((report.log.len(), report.log_dropped), (20, 0));
    assert_eq!((report.log[0].level.as_str(), report.log[0].message.len()), ("info", 34));
}

#[test]
fn a_log_over_its_limit_drops_and_counts() {
    let report =
        Bench::new().run_within(&logging_guest(), json!({ "n": 100_000 }), Limits { log: 1000, ..Limits::DEFAULT });
    assert_eq!(output(&report), &json!({ "n": 100_000 }));
    assert_eq!((report.log.len(), report.log_dropped), (20, 99_980));
    assert_eq!(report.usage.host_calls["dovetail:task/logging.log"], 100_000);
}

/// A guest that makes `n` writers and keeps them.
fn leaking_guest() -> Vec<u8> {
    let writer = r#"(import "dovetail:task/artifacts@0.1.0" "[constructor]writer" (func $writer (param i32 i32)
        (result i32)))
      (data (i32.const 0x2000) "text/plain")"#;
    let body = "(local $i i32) (block $out (loop $l (br_if $out (i32.ge_u (local.get $i) (local.get 0)))
      (drop (call $writer (i32.const 0x2000) (i32.const 10)))
      (local.set $i (i32.add (local.get $i) (i32.const 1))) (br $l))) (call $ok (local.get $i))";
    number_guest(writer, body)
}

#[test]
fn handles_within_their_limit() {
    let report =
        Bench::new().run_within(&leaking_guest(), json!({ "n": 100 }), Limits { handles: 100, ..Limits::DEFAULT });
    assert_eq!(output(&report), &json!({ "n": 100 }));
}

#[test]
fn handles_over_their_limit() {
    let report =
        Bench::new().run_within(&leaking_guest(), json!({ "n": 101 }), Limits { handles: 100, ..Limits::DEFAULT });
    assert_eq!(failed(&report), (FailureKind::Limit, "too_many_handles"));
    assert!(failure(&report).message.contains("100"), "{}", failure(&report).message);
}

#[test]
fn handles_in_the_input_count() {
    let bench = Bench::new();
    let guest = crate::echo::echo_guest("", "the-value: list<artifact>");
    let one = bench.artifact(b"x", "text/plain");
    let input = |n: usize| json!({ "the_value": vec![one.clone(); n] });
    let limits = Limits { handles: 10, ..Limits::DEFAULT };
    assert_eq!(output(&bench.run_within(&guest, input(10), limits))["the_value"].as_array().map(Vec::len), Some(10));
    assert_eq!(failed(&bench.run_within(&guest, input(11), limits)), (FailureKind::Limit, "too_many_handles"));
}

/// A guest that writes `n` artifacts of 16 KiB one after the other, each beginning with its number, and keeps none.
fn writing_guest() -> Vec<u8> {
    let imports = r#"(import "dovetail:task/artifacts@0.1.0" "[constructor]writer" (func $writer (param i32 i32)
        (result i32)))
      (import "dovetail:task/artifacts@0.1.0" "[method]writer.write" (func $write (param i32 i32 i32 i32)))
      (import "dovetail:task/artifacts@0.1.0" "[static]writer.finish" (func $finish (param i32 i32)))
      (import "dovetail:task/artifacts@0.1.0" "[resource-drop]artifact" (func $forget (param i32)))
      (data (i32.const 0x2000) "text/plain")"#;
    let body = "(local $i i32) (local $w i32) (block $out (loop $l (br_if $out (i32.ge_u (local.get $i) (local.get 0)))
      (i32.store (i32.const 0x8000) (local.get $i))
      (local.set $w (call $writer (i32.const 0x2000) (i32.const 10)))
      (call $write (local.get $w) (i32.const 0x8000) (i32.const 0x4000) (i32.const 0x3000))
      (call $finish (local.get $w) (i32.const 0x3000))
      (call $forget (i32.load (i32.const 0x3008)))
      (local.set $i (i32.add (local.get $i) (i32.const 1))) (br $l))) (call $ok (local.get $i))";
    number_guest(imports, body)
}

#[test]
fn artifacts_within_their_limit() {
    let report = Bench::new().run_within(
        &writing_guest(),
        json!({ "n": 8 }),
        Limits { artifacts: 128 << 10, ..Limits::DEFAULT },
    );
    assert_eq!(output(&report), &json!({ "n": 8 }));
}

#[test]
fn artifacts_over_their_limit_though_none_is_held() {
    let report = Bench::new().run_within(
        &writing_guest(),
        json!({ "n": 9 }),
        Limits { artifacts: 128 << 10, ..Limits::DEFAULT },
    );
    assert_eq!(failed(&report), (FailureKind::Limit, "too_many_artifacts"));
    let message = &failure(&report).message;
    assert!(message.contains("128KiB") && message.contains("`artifacts` under `[limits]`"), "{message}");
}

#[test]
fn the_stack_within_its_limit_and_over_it() {
    let bench = Bench::new();
    let deep = "(func $deep (param i32) (result i32) (if (result i32) (local.get 0)
      (then (i32.add (i32.const 1) (call $deep (i32.sub (local.get 0) (i32.const 1))))) (else (i32.const 0))))";
    let guest = number_guest(deep, "(call $ok (call $deep (local.get 0)))");
    assert_eq!(output(&bench.run(&guest, json!({ "n": 5_000 }))), &json!({ "n": 5_000 }));
    assert_eq!(failed(&bench.run(&guest, json!({ "n": 1_000_000 }))), (FailureKind::Trap, "stack_overflow"));
}

#[test]
fn data_across_the_border_within_its_limit_and_over_it() {
    let bench = Bench::new();
    let interface = "use dovetail:task/types@0.1.0.{task-error}; record input { n: u32 } \
        record output { items: list<u8> } \
                     run: func(input: input) -> result<output, task-error>;";
    let body = "(drop (memory.grow (i32.const 32))) (i32.store (i32.const 1032) (i32.const 0)) \
        (i32.store (i32.const 1036) (local.get 0))
      (i32.store8 (i32.const 1024) (i32.const 0)) (i32.const 1024)";
    let guest = component(interface, &core("", body));
    let report = bench.run(&guest, json!({ "n": 500_000 }));
    assert!(matches!(report.outcome, dovetail_core::executor::Outcome::Succeeded { .. }), "{:?}", report.outcome);
    let report = bench.run(&guest, json!({ "n": 1_500_000 }));
    assert_eq!(failed(&report), (FailureKind::Limit, "too_much_data"));
}

#[test]
fn one_write_moves_at_most_a_mebibyte() {
    // write(n bytes); the output is the discriminant of the result.
    let imports = r#"(import "dovetail:task/artifacts@0.1.0" "[constructor]writer" (func $writer (param i32 i32)
        (result i32)))
      (import "dovetail:task/artifacts@0.1.0" "[method]writer.write" (func $write (param i32 i32 i32 i32)))
      (data (i32.const 0x2000) "text/plain")"#;
    let body = "(drop (memory.grow (i32.const 32)))
      (call $write (call $writer (i32.const 0x2000) (i32.const 10)) (i32.const 0) (local.get 0) (i32.const 0x3000))
      (call $ok (i32.load8_u (i32.const 0x3000)))";
    let (bench, guest) = (Bench::new(), number_guest(imports, body));
    assert_eq!(output(&bench.run(&guest, json!({ "n": 1 << 20 }))), &json!({ "n": 0 }));
    assert_eq!(output(&bench.run(&guest, json!({ "n": (1 << 20) + 1 }))), &json!({ "n": 1 }));
}

#[test]
fn unfinished_artifacts_within_their_budget_and_over_it() {
    let imports = r#"(import "dovetail:task/artifacts@0.1.0" "[constructor]writer" (func $writer (param i32 i32)
        (result i32)))
      (import "dovetail:task/artifacts@0.1.0" "[method]writer.write" (func $write (param i32 i32 i32 i32)))
      (data (i32.const 0x2000) "text/plain")"#;
    // Writes n chunks of 1000 bytes; the output is the number of accepted chunks.
    let body = "(local $w i32) (local $i i32) (local $taken i32) (local.set $w (call $writer (i32.const 0x2000) \
        (i32.const 10)))
      (loop $l (call $write (local.get $w) (i32.const 0) (i32.const 1000) (i32.const 0x3000))
        (if (i32.eqz (i32.load8_u (i32.const 0x3000))) (then (local.set $taken \
        (i32.add (local.get $taken) (i32.const 1)))))
        (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $l (i32.lt_u (local.get $i) (local.get 0))))
      (call $ok (local.get $taken))";
    let bench = Bench::with(|options| options.budgets = Budgets { artifacts: 5_000, ..Budgets::default() });
    let guest = number_guest(imports, body);
    assert_eq!(output(&bench.run(&guest, json!({ "n": 5 }))), &json!({ "n": 5 }));
    assert_eq!(output(&bench.run(&guest, json!({ "n": 8 }))), &json!({ "n": 5 }));
}

#[test]
fn decoded_pictures_within_their_budget_and_over_it() {
    let interface = "use dovetail:task/types@0.1.0.{task-error}; use dovetail:vision/images@0.1.0.{image}; \
        record input { image: image, n: u32 } \
                     record output { n: u32 } run: func(input: input) -> result<output, task-error>;";
    let imports =
        r#"(import "dovetail:vision/images@0.1.0" "[method]image.resize" (func $resize (param i32 i32 i32 i32)))"#;
    // Makes n resized pictures of 10 x 10 and keeps them.
    let body = "(local $i i32) (block $out (loop $l (br_if $out (i32.ge_u (local.get $i) (local.get 1)))
      (call $resize (local.get 0) (i32.const 10) (i32.const 10) (i32.const 0x3000))
      (local.set $i (i32.add (local.get $i) (i32.const 1))) (br $l))) (call $ok (local.get $i))";
    let guest = component(interface, &core_with("(param i32 i32)", imports, body));
    // The input takes 300 bytes as well.
    let bench = Bench::with(|options| options.budgets = Budgets { images: 3_000, ..Budgets::default() });
    let picture = bench.artifact(b"10x10", "image/jpeg");
    assert_eq!(output(&bench.run(&guest, json!({ "image": picture, "n": 9 }))), &json!({ "n": 9 }));
    assert_eq!(
        failed(&bench.run(&guest, json!({ "image": picture, "n": 10 }))),
        (FailureKind::Limit, "too_many_pixels")
    );
}

/// Each attempt is within its own budget, and both exceed the shared budget: the second one fails, is run again later,
/// and succeeds alone.
#[test]
fn pictures_of_two_attempts_within_what_they_share_and_over_it() {
    let interface = "use dovetail:task/types@0.1.0.{task-error}; use dovetail:vision/images@0.1.0.{image}; \
        record input { image: image, n: u32, \
                     wait: bool } record output { n: u32 } run: func(input: input) -> result<output, task-error>;";
    let imports =
        r#"(import "dovetail:vision/images@0.1.0" "[method]image.resize" (func $resize (param i32 i32 i32 i32)))"#;
    let body = "(local $i i32) (block $out (loop $l (br_if $out (i32.ge_u (local.get $i) (local.get 1)))
      (call $resize (local.get 0) (i32.const 10) (i32.const 10) (i32.const 0x3000))
      (local.set $i (i32.add (local.get $i) (i32.const 1))) (br $l)))
      (loop $w (br_if $w (local.get 2))) (call $ok (local.get $i))";
    let guest = component(interface, &core_with("(param i32 i32 i32)", imports, body));
    let bench = Bench::with(|options| {
        options.budgets = Budgets { images: 3_000, own: 300, shared: 2_700, ..Budgets::default() }
    });
    let (package, picture) = (bench.install("probe", &guest, ""), bench.artifact(b"10x10", "image/jpeg"));
    let input = |n: u32, wait: bool| json!({ "image": picture, "n": n, "wait": wait });
    let run = |n: u32| bench.runtime.execute(&attempt(package, input(n, false), Limits::DEFAULT), &Stop::never());
    let canceller = Canceller::new();
    std::thread::scope(|threads| {
        // 300 bytes of the input, which are in the attempt's own part, and 1,800 bytes of pictures that it keeps.
        let holder = threads.spawn(|| bench.attempt(package, input(6, true), Limits::DEFAULT, &canceller.stop()));
        while bench.runtime.held() < 1_800 {
            std::thread::yield_now();
        }
        assert_eq!(output(&run(3).unwrap()), &json!({ "n": 3 }), "there is room for 900 more");
        let error = run(4).unwrap_err();
        assert!(error.transient && error.operation == "hold 300B of pictures and artifacts", "{error:?}");
        canceller.cancel();
        assert_eq!(failed(&holder.join().unwrap()).0, FailureKind::Cancelled);
    });
    assert_eq!((output(&run(9).unwrap()), bench.runtime.held()), (&json!({ "n": 9 }), 0));
}

#[test]
fn the_store_is_clean_for_the_next_attempt() {
    // Each instance starts from its own data, whatever an earlier instance wrote.
    let bench = Bench::new();
    let guest =
        number_guest("", "(call $ok (i32.load8_u (i32.const 0x5000))) (i32.store8 (i32.const 0x5000) (i32.const 9))");
    let package = bench.install("probe", &guest, "");
    for _ in 0..20 {
        assert_eq!(
            output(&bench.attempt(package, json!({ "n": 1 }), Limits::DEFAULT, &Stop::never())),
            &json!({ "n": 0 })
        );
    }
}
