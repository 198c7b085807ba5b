//! The ends of attempts: the outcome tells each kind of end apart.

use std::time::{Duration, Instant};

use dovetail_core::executor::{Executor as _, FailureKind};
use dovetail_core::limits::Limits;
use dovetail_core::stop::{Canceller, Stop};
use serde_json::json;

use crate::support::{Bench, attempt, component, core, core_with, failed, failure, number_guest, output};

/// Stores a failure in the result: `case` is 0 to 3, the code is at 0x2000 (5 bytes), the message at 0x2010
/// (`message_bytes` bytes).
fn failing(case: u32, message_bytes: u32, retryable: u32) -> String {
    format!(
        "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store8 (i32.const 1032) (i32.const {case}))
         (i32.store (i32.const 1040) (i32.const 0x2000)) (i32.store (i32.const 1044) (i32.const 5))
         (i32.store (i32.const 1048) (i32.const 0x2010)) (i32.store (i32.const 1052) (i32.const {message_bytes}))
         (i32.store8 (i32.const 1056) (i32.const {retryable})) (i32.store8 (i32.const 1064) (i32.const 1)) \
         (i64.store (i32.const 1072) (i64.const 250))
         (i32.store (i32.const 1080) (i32.const 0)) (i32.store (i32.const 1084) (i32.const 0)) (i32.const 1024)"
    )
}

const TEXTS: &str = r#"(data (i32.const 0x2000) "No Go") (data (i32.const 0x2010) "a\1b[31mb\nc")"#;

#[test]
fn a_number_comes_back() {
    let report =
        Bench::new().run(&number_guest("", "(call $ok (i32.add (local.get 0) (i32.const 1)))"), json!({ "n": 41 }));
    assert_eq!(output(&report), &json!({ "n": 42 }));
    assert_eq!(report.usage.output_bytes, 8);
    assert_eq!(report.usage.peak_memory, 2 * 65536);
    assert!(report.usage.host_calls.is_empty());
}

#[test]
fn a_task_without_output_gives_an_empty_object() {
    let interface = "use dovetail:task/types@0.1.0.{task-error}; record input { n: u32 } \
        run: func(input: input) -> result<_, task-error>;";
    let report = Bench::new().run(&component(interface, &core("", "(call $ok (i32.const 0))")), json!({ "n": 1 }));
    assert_eq!(output(&report), &json!({}));
}

#[test]
fn errors_of_the_task_are_kept_and_cleaned() {
    let bench = Bench::new();
    for (case, kind, retryable) in [
        (0, FailureKind::InvalidInput, false),
        (2, FailureKind::Unavailable, true),
        (3, FailureKind::Failed, true),
        (3, FailureKind::Failed, false),
    ] {
        let report = bench.run(&number_guest(TEXTS, &failing(case, 9, retryable.into())), json!({ "n": 1 }));
        let failure = failure(&report);
        assert_eq!((failure.kind, failure.code.as_str(), failure.message.as_str()), (kind, "no_go", "a[31mb c"));
        assert_eq!((failure.retryable, failure.retry_after_ms), (retryable, Some(250)));
    }
    let report = bench.run(&number_guest(TEXTS, &failing(1, 0, 0)), json!({ "n": 1 }));
    assert_eq!(failed(&report), (FailureKind::Cancelled, "cancelled"));
    // A message of 8 KiB is cut.
    let report = bench.run(&number_guest(TEXTS, &failing(3, 8192, 0)), json!({ "n": 1 }));
    assert!(failure(&report).message.len() <= 4096, "{}", failure(&report).message.len());
}

#[test]
fn traps_have_codes_and_frames() {
    let bench = Bench::new();
    for (code, body) in [
        ("unreachable", "(unreachable)"),
        ("integer_divide_by_zero", "(call $ok (i32.div_u (i32.const 1) (i32.const 0)))"),
        ("out_of_bounds", "(call $ok (i32.load (i32.const 0x7fffffff)))"),
        ("bad_conversion_to_integer", "(call $ok (i32.trunc_f32_u (f32.const nan)))"),
        ("stack_overflow", "(call $run (local.get 0))"),
    ] {
        let report = bench.run(&number_guest("", body), json!({ "n": 1 }));
        assert_eq!(failed(&report), (FailureKind::Trap, code));
        assert!(failure(&report).backtrace.iter().any(|frame| frame.contains("run")), "{:?}", failure(&report));
    }
}

#[test]
fn a_start_function_that_traps_is_the_guest_s_failure() {
    let guest = number_guest("(func $begin (unreachable)) (start $begin)", "(call $ok (i32.const 0))");
    assert_eq!(failed(&Bench::new().run(&guest, json!({ "n": 1 }))), (FailureKind::Trap, "unreachable"));
}

#[test]
fn a_panic_that_is_logged_is_told_from_an_abort() {
    // The call of the SDK's panic hook: log(error, "panic", [("panic.file", "src/lib.rs"), ("panic.line", "7"),
    // ("panic.message", "no")]).
    let data = r#"
      (import "dovetail:task/logging@0.1.0" "log" (func $log (param i32 i32 i32 i32 i32)))
      (data (i32.const 0x2000) "panicpanic.filesrc/lib.rspanic.line7panic.messageno")
      (data (i32.const 0x3000)
        "\05\20\00\00\0a\00\00\00\0f\20\00\00\0a\00\00\00\19\20\00\00\0a\00\00\00"
        "\23\20\00\00\01\00\00\00\24\20\00\00\0d\00\00\00\31\20\00\00\02\00\00\00")"#;
    let guest = number_guest(
        data,
        "(call $log (i32.const 4) (i32.const 0x2000) (i32.const 5) (i32.const 0x3000) (i32.const 3)) (unreachable)",
    );
    let report = Bench::new().run(&guest, json!({ "n": 1 }));
    let failure = failure(&report);
    assert_eq!(
        (failure.kind, failure.code.as_str(), failure.message.as_str()),
        (FailureKind::Panic, "panic", "the task panicked at src/lib.rs:7: no")
    );
    assert_eq!((&failure.details["file"], &failure.details["line"]), (&json!("src/lib.rs"), &json!(7)));
    assert_eq!(report.log[0].message, "panic");
    assert_eq!(report.usage.host_calls["dovetail:task/logging.log"], 1);
}

#[test]
fn exit_is_an_end_of_its_own() {
    let wit = format!(
        "package acme:probe@1.0.0; interface task {{ {} }} \
         world component {{ import wasi:cli/exit@0.2.6; export task; }} \
         package wasi:cli@0.2.6 {{ interface exit {{ exit: func(status: result); }} }}",
        crate::support::NUMBER
    );
    let exit = r#"(import "wasi:cli/exit@0.2.6" "exit" (func $exit (param i32)))"#;
    let guest = crate::support::component_of(&wit, &core(exit, "(call $exit (i32.const 1)) (unreachable)"));
    assert_eq!(failed(&Bench::new().run(&guest, json!({ "n": 1 }))), (FailureKind::Trap, "exit"));
}

#[test]
fn an_endless_loop_ends_with_its_time() {
    let guest = number_guest("", "(loop $l (br $l)) (unreachable)");
    let began = Instant::now();
    let report = Bench::new().run_within(&guest, json!({ "n": 1 }), Limits { time_ms: 50, ..Limits::DEFAULT });
    assert_eq!(failed(&report), (FailureKind::Timeout, "timeout"));
    assert!(report.usage.wall_us >= 50_000 && report.usage.wall_us < 1_000_000, "{}", report.usage.wall_us);
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn an_endless_start_function_ends_with_its_time() {
    let guest = number_guest("(func $begin (loop $l (br $l))) (start $begin)", "(unreachable)");
    let report = Bench::new().run_within(&guest, json!({ "n": 1 }), Limits { time_ms: 50, ..Limits::DEFAULT });
    assert_eq!(failed(&report), (FailureKind::Timeout, "timeout"));
}

#[test]
fn a_short_task_does_not_feel_its_time() {
    let report = Bench::new().run_within(
        &number_guest("", "(call $ok (i32.const 1))"),
        json!({ "n": 1 }),
        Limits { time_ms: 5_000, ..Limits::DEFAULT },
    );
    assert_eq!(output(&report), &json!({ "n": 1 }));
}

#[test]
fn a_cancelled_loop_ends_soon() {
    let bench = Bench::new();
    let package = bench.install("probe", &number_guest("", "(loop $l (br $l)) (unreachable)"), "");
    bench.runtime.preload(&package).unwrap();
    let canceller = Canceller::new();
    let stop = canceller.stop();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| bench.attempt(package, json!({ "n": 1 }), Limits::DEFAULT, &stop));
        std::thread::sleep(Duration::from_millis(30));
        let asked = Instant::now();
        canceller.cancel();
        let report = running.join().unwrap();
        assert_eq!(failed(&report), (FailureKind::Cancelled, "cancelled"));
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    });
}

#[test]
fn a_guest_that_asks_learns_of_the_cancellation() {
    let asks = r#"(import "dovetail:task/control@0.1.0" "cancelled" (func $cancelled (result i32)))"#;
    let body = "(block $out (loop $l (br_if $out (call $cancelled)) (br $l))) (call $ok (i32.const 5))";
    let bench = Bench::new();
    let package = bench.install("probe", &number_guest(asks, body), "");
    bench.runtime.preload(&package).unwrap();
    let canceller = Canceller::new();
    canceller.cancel();
    let report = bench.attempt(package, json!({ "n": 1 }), Limits::DEFAULT, &canceller.stop());
    // The guest's result is ignored, because it depends on when the guest learned of the stop. (If the stop came first,
    // the attempt does not wait for a slot.)
    assert_eq!(failed(&report), (FailureKind::Cancelled, "cancelled"));
}

#[test]
fn attempts_over_the_number_of_jobs_wait() {
    let bench = Bench::with(|options| options.jobs = 1);
    let package = bench.install("probe", &number_guest("", "(loop $l (br $l)) (unreachable)"), "");
    bench.runtime.preload(&package).unwrap();
    let limits = Limits { time_ms: 300, ..Limits::DEFAULT };
    let began = Instant::now();
    std::thread::scope(|scope| {
        let both = [0, 1].map(|_| scope.spawn(|| bench.attempt(package, json!({ "n": 1 }), limits, &Stop::never())));
        for one in both {
            // The time limit does not include the wait for a slot.
            assert_eq!(failed(&one.join().unwrap()), (FailureKind::Timeout, "timeout"));
        }
    });
    assert!(began.elapsed() >= Duration::from_millis(600), "{:?}", began.elapsed());
}

#[test]
fn what_cannot_be_read_is_a_bad_output() {
    let bench = Bench::new();
    let interface = "use dovetail:task/types@0.1.0.{task-error}; record input { n: u32 } \
        record output { text: string } \
                     run: func(input: input) -> result<output, task-error>;";
    let answer = |pointer: u32, length: u32| {
        format!(
            "(i32.store (i32.const 1032) (i32.const {pointer})) (i32.store (i32.const 1036) (i32.const {length})) \
             (i32.store8 (i32.const 1024) (i32.const 0)) (i32.const 1024)"
        )
    };
    let data = r#"(data (i32.const 0x2000) "\ff\fe")"#;
    for (pointer, length) in [(0x2000, 2), (0x2000, 0x7fff_ffff)] {
        let report = bench.run(&component(interface, &core(data, &answer(pointer, length))), json!({ "n": 1 }));
        assert_eq!(failed(&report), (FailureKind::BadOutput, "bad_output"), "{:?}", failure(&report));
    }
}

#[test]
fn a_package_that_is_not_there_is_the_host_s_fault() {
    let bench = Bench::new();
    let error = bench
        .runtime
        .execute(&attempt(dovetail_core::Digest::of(b"x"), json!({}), Limits::DEFAULT), &Stop::never())
        .unwrap_err();
    assert!(!error.transient && error.operation.starts_with("load package sha256:"), "{error:?}");
}

#[test]
fn facts_reach_the_guest() {
    let imports = r#"(import "dovetail:task/context@0.1.0" "attempt" (func $attempt (result i32)))
      (import "dovetail:task/context@0.1.0" "remaining-ms" (func $left (result i64)))
      (import "dovetail:task/context@0.1.0" "origin" (func $origin (param i32 i32 i32)))
      (data (i32.const 0x2000) "n")"#;
    // n = attempt + length of the origin, if time is left.
    let body = "(call $origin (i32.const 0x2000) (i32.const 1) (i32.const 0x3000))
      (if (i64.gt_u (call $left) (i64.const 30000)) (then (unreachable)))
      (call $ok (i32.add (call $attempt) (i32.load (i32.const 0x3008))))";
    let report = Bench::new()
        .run(&component(crate::support::NUMBER, &core_with("(param i32)", imports, body)), json!({ "n": 1 }));
    assert_eq!(output(&report), &json!({ "n": 1 + "output_001_n".len() }));
}

/// A guest that sleeps `n` milliseconds with WASI's clock.
fn sleeping_guest() -> Vec<u8> {
    let wit = format!(
        "package acme:probe@1.0.0; interface task {{ {} }} \
         world component {{ import wasi:clocks/monotonic-clock@0.2.6; export task; }} \
         package wasi:io@0.2.6 {{ interface poll {{ resource pollable {{ block: func(); }} }} }} \
         package wasi:clocks@0.2.6 {{ interface monotonic-clock {{ use wasi:io/poll@0.2.6.{{pollable}}; \
         subscribe-duration: func(when: u64) -> pollable; }} }}",
        crate::support::NUMBER
    );
    let imports = r#"(import "wasi:clocks/monotonic-clock@0.2.6" "subscribe-duration" (func $sleep (param i64)
        (result i32)))
      (import "wasi:io/poll@0.2.6" "[method]pollable.block" (func $block (param i32)))"#;
    let body = "(call $block (call $sleep (i64.mul (i64.extend_i32_u (local.get 0)) (i64.const 1000000)))) \
        (call $ok (local.get 0))";
    crate::support::component_of(&wit, &core(imports, body))
}

#[test]
fn a_guest_sleeps_as_long_as_it_wants_within_its_time() {
    let bench = Bench::new();
    let package = bench.install("probe", &sleeping_guest(), "[grants]\nclocks = true");
    let report = bench.attempt(package, json!({ "n": 40 }), Limits::DEFAULT, &Stop::never());
    assert_eq!(output(&report), &json!({ "n": 40 }));
    assert!(report.usage.wall_us >= 40_000, "{}", report.usage.wall_us);
}

#[test]
fn a_sleeping_guest_is_stopped() {
    let bench = Bench::new();
    let package = bench.install("probe", &sleeping_guest(), "[grants]\nclocks = true");
    let limits = Limits { time_ms: 60, ..Limits::DEFAULT };
    let report = bench.attempt(package, json!({ "n": 60_000 }), limits, &Stop::never());
    assert_eq!(failed(&report), (FailureKind::Timeout, "timeout"));
    assert!(report.usage.wall_us < 1_000_000, "{}", report.usage.wall_us);
    let canceller = Canceller::new();
    let stop = canceller.stop();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| bench.attempt(package, json!({ "n": 60_000 }), Limits::DEFAULT, &stop));
        std::thread::sleep(Duration::from_millis(30));
        let asked = Instant::now();
        canceller.cancel();
        assert_eq!(failed(&running.join().unwrap()), (FailureKind::Cancelled, "cancelled"));
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    });
}
