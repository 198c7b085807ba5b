//! Calls of WASI in an attempt's usage: their names and counts, as for every other host function.

use std::collections::BTreeMap;

use dovetail_core::executor::Report;
use dovetail_core::limits::Limits;
use dovetail_core::stop::Stop;
use serde_json::json;

use crate::support::{Bench, NUMBER, component_of, core, failed, output};

/// Interface, function, the core type of the import, and the arguments. Pointers to 0x3000 are space for results;
/// `$in`, `$out` and `$poll` are handles of a guest of [`INERT`].
type Function = (&'static str, &'static str, &'static str, &'static str);

const GRANTED: [Function; 10] = [
    ("clocks/wall-clock", "now", "(param i32)", "(i32.const 0x3000)"),
    ("clocks/wall-clock", "resolution", "(param i32)", "(i32.const 0x3000)"),
    ("clocks/monotonic-clock", "now", "(result i64)", ""),
    ("clocks/monotonic-clock", "resolution", "(result i64)", ""),
    ("clocks/monotonic-clock", "subscribe-instant", "(param i64) (result i32)", "(i64.const 1)"),
    ("clocks/monotonic-clock", "subscribe-duration", "(param i64) (result i32)", "(i64.const 1)"),
    ("random/random", "get-random-bytes", "(param i64 i32)", "(i64.const 8) (i32.const 0x3000)"),
    ("random/random", "get-random-u64", "(result i64)", ""),
    ("random/insecure", "get-insecure-random-bytes", "(param i64 i32)", "(i64.const 8) (i32.const 0x3000)"),
    ("random/insecure", "get-insecure-random-u64", "(result i64)", ""),
];

const INERT: [Function; 28] = [
    ("cli/environment", "get-environment", "(param i32)", "(i32.const 0x3000)"),
    ("cli/environment", "get-arguments", "(param i32)", "(i32.const 0x3000)"),
    ("cli/environment", "initial-cwd", "(param i32)", "(i32.const 0x3000)"),
    ("cli/stdin", "get-stdin", "(result i32)", ""),
    ("cli/stdout", "get-stdout", "(result i32)", ""),
    ("cli/stderr", "get-stderr", "(result i32)", ""),
    ("cli/terminal-stdin", "get-terminal-stdin", "(param i32)", "(i32.const 0x3000)"),
    ("cli/terminal-stdout", "get-terminal-stdout", "(param i32)", "(i32.const 0x3000)"),
    ("cli/terminal-stderr", "get-terminal-stderr", "(param i32)", "(i32.const 0x3000)"),
    ("filesystem/preopens", "get-directories", "(param i32)", "(i32.const 0x3000)"),
    ("random/insecure-seed", "insecure-seed", "(param i32)", "(i32.const 0x3000)"),
    ("io/poll", "poll", "(param i32 i32 i32)", "(i32.const 0x2000) (i32.const 1) (i32.const 0x3000)"),
    ("io/poll", "[method]pollable.ready", "(param i32) (result i32)", "(local.get $poll)"),
    ("io/poll", "[method]pollable.block", "(param i32)", "(local.get $poll)"),
    (
        "io/streams",
        "[method]input-stream.read",
        "(param i32 i64 i32)",
        "(local.get $in) (i64.const 1) (i32.const 0x3000)",
    ),
    (
        "io/streams",
        "[method]input-stream.blocking-read",
        "(param i32 i64 i32)",
        "(local.get $in) (i64.const 1) (i32.const 0x3000)",
    ),
    (
        "io/streams",
        "[method]input-stream.skip",
        "(param i32 i64 i32)",
        "(local.get $in) (i64.const 1) (i32.const 0x3000)",
    ),
    (
        "io/streams",
        "[method]input-stream.blocking-skip",
        "(param i32 i64 i32)",
        "(local.get $in) (i64.const 1) (i32.const 0x3000)",
    ),
    ("io/streams", "[method]input-stream.subscribe", "(param i32) (result i32)", "(local.get $in)"),
    ("io/streams", "[method]output-stream.check-write", "(param i32 i32)", "(local.get $out) (i32.const 0x3000)"),
    (
        "io/streams",
        "[method]output-stream.write",
        "(param i32 i32 i32 i32)",
        "(local.get $out) (i32.const 0x2000) (i32.const 1) (i32.const 0x3000)",
    ),
    (
        "io/streams",
        "[method]output-stream.blocking-write-and-flush",
        "(param i32 i32 i32 i32)",
        "(local.get $out) (i32.const 0x2000) (i32.const 1) (i32.const 0x3000)",
    ),
    ("io/streams", "[method]output-stream.flush", "(param i32 i32)", "(local.get $out) (i32.const 0x3000)"),
    ("io/streams", "[method]output-stream.blocking-flush", "(param i32 i32)", "(local.get $out) (i32.const 0x3000)"),
    (
        "io/streams",
        "[method]output-stream.write-zeroes",
        "(param i32 i64 i32)",
        "(local.get $out) (i64.const 1) (i32.const 0x3000)",
    ),
    (
        "io/streams",
        "[method]output-stream.blocking-write-zeroes-and-flush",
        "(param i32 i64 i32)",
        "(local.get $out) (i64.const 1) (i32.const 0x3000)",
    ),
    (
        "io/streams",
        "[method]output-stream.splice",
        "(param i32 i32 i64 i32)",
        "(local.get $out) (local.get $in) (i64.const 1) (i32.const 0x3000)",
    ),
    (
        "io/streams",
        "[method]output-stream.blocking-splice",
        "(param i32 i32 i64 i32)",
        "(local.get $out) (local.get $in) (i64.const 1) (i32.const 0x3000)",
    ),
];

const PACKAGES: &str = "
    package wasi:io@0.2.6 {
        interface error { resource error; }
        interface poll { resource pollable { ready: func() -> bool; block: func(); } \
        poll: func(in: list<borrow<pollable>>) -> list<u32>; }
        interface streams {
            use error.{error};
            use poll.{pollable};
            variant stream-error { last-operation-failed(error), closed }
            resource input-stream {
                read: func(len: u64) -> result<list<u8>, stream-error>;
                blocking-read: func(len: u64) -> result<list<u8>, stream-error>;
                skip: func(len: u64) -> result<u64, stream-error>;
                blocking-skip: func(len: u64) -> result<u64, stream-error>;
                subscribe: func() -> pollable;
            }
            resource output-stream {
                check-write: func() -> result<u64, stream-error>;
                write: func(contents: list<u8>) -> result<_, stream-error>;
                blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
                flush: func() -> result<_, stream-error>;
                blocking-flush: func() -> result<_, stream-error>;
                subscribe: func() -> pollable;
                write-zeroes: func(len: u64) -> result<_, stream-error>;
                blocking-write-zeroes-and-flush: func(len: u64) -> result<_, stream-error>;
                splice: func(src: borrow<input-stream>, len: u64) -> result<u64, stream-error>;
                blocking-splice: func(src: borrow<input-stream>, len: u64) -> result<u64, stream-error>;
            }
        }
    }
    package wasi:clocks@0.2.6 {
        interface wall-clock {
            record datetime { seconds: u64, nanoseconds: u32 }
            now: func() -> datetime;
            resolution: func() -> datetime;
        }
        interface monotonic-clock {
            use wasi:io/poll@0.2.6.{pollable};
            now: func() -> u64;
            resolution: func() -> u64;
            subscribe-instant: func(when: u64) -> pollable;
            subscribe-duration: func(when: u64) -> pollable;
        }
    }
    package wasi:random@0.2.6 {
        interface random { get-random-bytes: func(len: u64) -> list<u8>; get-random-u64: func() -> u64; }
        interface insecure { get-insecure-random-bytes: func(len: u64) -> list<u8>; \
        get-insecure-random-u64: func() -> u64; }
        interface insecure-seed { insecure-seed: func() -> tuple<u64, u64>; }
    }
    package wasi:filesystem@0.2.6 {
        interface types { resource descriptor; }
        interface preopens { use types.{descriptor}; get-directories: func() -> list<tuple<descriptor, string>>; }
    }
    package wasi:cli@0.2.6 {
        interface environment {
            get-environment: func() -> list<tuple<string, string>>;
            get-arguments: func() -> list<string>;
            initial-cwd: func() -> option<string>;
        }
        interface exit { exit: func(status: result); }
        interface stdin { use wasi:io/streams@0.2.6.{input-stream}; get-stdin: func() -> input-stream; }
        interface stdout { use wasi:io/streams@0.2.6.{output-stream}; get-stdout: func() -> output-stream; }
        interface stderr { use wasi:io/streams@0.2.6.{output-stream}; get-stderr: func() -> output-stream; }
        interface terminal-input { resource terminal-input; }
        interface terminal-output { resource terminal-output; }
        interface terminal-stdin { use terminal-input.{terminal-input}; \
        get-terminal-stdin: func() -> option<terminal-input>; }
        interface terminal-stdout { use terminal-output.{terminal-output}; \
        get-terminal-stdout: func() -> option<terminal-output>; }
        interface terminal-stderr { use terminal-output.{terminal-output}; \
        get-terminal-stderr: func() -> option<terminal-output>; }
    }";

/// A guest that imports these functions as `$f0`, `$f1`, ...
fn guest_of(functions: &[Function], body: &str) -> Vec<u8> {
    let (mut world, mut imports) = (BTreeMap::new(), String::new());
    for (n, (interface, function, shape, _)) in functions.iter().enumerate() {
        world.insert(*interface, format!("import wasi:{interface}@0.2.6;"));
        imports += &format!(r#"(import "wasi:{interface}@0.2.6" "{function}" (func $f{n} {shape}))"#);
    }
    let world: String = world.into_values().collect();
    let wit = format!(
        "package acme:probe@1.0.0; interface task {{ {NUMBER} }} world component {{ {world} export task; }} {PACKAGES}"
    );
    component_of(&wit, &core(&imports, body))
}

/// Calls the first function `n` times, the second `n + 1` times, and so on, ignores their results, and returns `n`.
fn calls(functions: &[Function]) -> String {
    let mut body = String::new();
    for (n, (_, _, shape, arguments)) in functions.iter().enumerate() {
        let call = if shape.contains("result") {
            format!("(drop (call $f{n} {arguments}))")
        } else {
            format!("(call $f{n} {arguments})")
        };
        body += &format!(
            "(local.set $i (i32.add (local.get 0) (i32.const {n})))
             (block $out{n} (loop $next{n} (br_if $out{n} (i32.eqz (local.get $i)))
                {call} (local.set $i (i32.sub (local.get $i) (i32.const 1))) (br $next{n})))"
        );
    }
    body + "(call $ok (local.get 0))"
}

pub(crate) fn granted_guest() -> Vec<u8> {
    guest_of(&GRANTED, &format!("(local $i i32) {}", calls(&GRANTED)))
}

/// The expected counts of the functions that are called.
fn counted(functions: &[Function], n: u64) -> BTreeMap<String, u64> {
    let name =
        |(interface, function, ..): &Function| format!("wasi:{interface}.{}", function.trim_start_matches("[method]"));
    functions.iter().map(name).zip(n..).filter(|(_, calls)| *calls > 0).collect()
}

fn ran(component: &[u8], n: u64) -> Report {
    let bench = Bench::new();
    let package = bench.install("probe", component, "[grants]\nclocks = true\nrandom = true");
    bench.attempt(package, json!({ "n": n }), Limits::DEFAULT, &Stop::never())
}

#[test]
fn every_granted_call_is_counted_by_name() {
    // A function that is not called has no count. Subscriptions are kept, and each takes two of the 1024
    // handles.
    for n in [0, 1, 200] {
        let report = ran(&granted_guest(), n);
        assert_eq!(output(&report), &json!({ "n": n }));
        assert_eq!(report.usage.host_calls, counted(&GRANTED, n));
    }
}

#[test]
fn every_inert_call_is_counted_by_name() {
    // A subscription to the output stream. The call of `poll` finds its handle in memory.
    let mut functions = INERT.to_vec();
    let subscribe = ("io/streams", "[method]output-stream.subscribe", "(param i32) (result i32)", "(local.get $out)");
    functions.push(subscribe);
    let place = |name: &str| functions.iter().position(|function| function.1 == name).unwrap();
    let prologue = format!(
        "(local $i i32) (local $in i32) (local $out i32) (local $poll i32)
         (local.set $in (call $f{})) (local.set $out (call $f{})) (local.set $poll (call $f{} (local.get $out)))
         (i32.store (i32.const 0x2000) (local.get $poll))",
        place("get-stdin"),
        place("get-stdout"),
        place("[method]output-stream.subscribe")
    );
    let guest = guest_of(&functions, &(prologue + &calls(&functions)));
    for n in [0, 1, 100] {
        let report = ran(&guest, n);
        assert_eq!(output(&report), &json!({ "n": n }));
        let mut expected = counted(&functions, n);
        for name in
            ["wasi:cli/stdin.get-stdin", "wasi:cli/stdout.get-stdout", "wasi:io/streams.output-stream.subscribe"]
        {
            *expected.entry(name.to_owned()).or_default() += 1;
        }
        assert_eq!(report.usage.host_calls, expected);
    }
}

#[test]
fn the_call_that_ends_an_attempt_is_counted() {
    let exit = [("cli/exit", "exit", "(param i32)", "")];
    let report = ran(&guest_of(&exit, "(call $f0 (i32.const 1)) (unreachable)"), 0);
    failed(&report);
    assert_eq!(report.usage.host_calls, counted(&exit, 1));
}
