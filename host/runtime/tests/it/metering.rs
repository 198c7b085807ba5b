//! What a granted call of WASI leaves in an attempt's usage: its name and how often, as every other host function does.

use std::collections::BTreeMap;

use dovetail_core::limits::Limits;
use dovetail_core::stop::Stop;
use serde_json::json;

use crate::support::{Bench, NUMBER, component_of, core, output};

/// Interface, function, the core type of its import, and a call of it (a pointer to 0x3000 is room for what it returns).
const GRANTED: [(&str, &str, &str, &str); 10] = [
    ("clocks/wall-clock", "now", "(param i32)", "(call $f0 (i32.const 0x3000))"),
    ("clocks/wall-clock", "resolution", "(param i32)", "(call $f1 (i32.const 0x3000))"),
    ("clocks/monotonic-clock", "now", "(result i64)", "(drop (call $f2))"),
    ("clocks/monotonic-clock", "resolution", "(result i64)", "(drop (call $f3))"),
    ("clocks/monotonic-clock", "subscribe-instant", "(param i64) (result i32)", "(call $forget (call $f4 (i64.const 1)))"),
    ("clocks/monotonic-clock", "subscribe-duration", "(param i64) (result i32)", "(call $forget (call $f5 (i64.const 1)))"),
    ("random/random", "get-random-bytes", "(param i64 i32)", "(call $f6 (i64.const 8) (i32.const 0x3000))"),
    ("random/random", "get-random-u64", "(result i64)", "(drop (call $f7))"),
    ("random/insecure", "get-insecure-random-bytes", "(param i64 i32)", "(call $f8 (i64.const 8) (i32.const 0x3000))"),
    ("random/insecure", "get-insecure-random-u64", "(result i64)", "(drop (call $f9))"),
];

const PACKAGES: &str = "
    package wasi:io@0.2.6 { interface poll { resource pollable { block: func(); } } }
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
        interface insecure { get-insecure-random-bytes: func(len: u64) -> list<u8>; get-insecure-random-u64: func() -> u64; }
    }";

/// Calls the first function `n` times, the second `n + 1` times, and so on; answers `n`.
pub(crate) fn guest() -> Vec<u8> {
    let wit = format!(
        "package acme:probe@1.0.0; interface task {{ {NUMBER} }}
         world component {{
             import wasi:clocks/wall-clock@0.2.6; import wasi:clocks/monotonic-clock@0.2.6;
             import wasi:random/random@0.2.6; import wasi:random/insecure@0.2.6; export task;
         }}
         {PACKAGES}"
    );
    let mut imports = r#"(import "wasi:io/poll@0.2.6" "[resource-drop]pollable" (func $forget (param i32)))"#.to_owned();
    let mut body = "(local $i i32)".to_owned();
    for (n, (interface, function, shape, call)) in GRANTED.iter().enumerate() {
        imports += &format!(r#"(import "wasi:{interface}@0.2.6" "{function}" (func $f{n} {shape}))"#);
        body += &format!(
            "(local.set $i (i32.add (local.get 0) (i32.const {n})))
             (block $out{n} (loop $next{n} (br_if $out{n} (i32.eqz (local.get $i)))
                {call} (local.set $i (i32.sub (local.get $i) (i32.const 1))) (br $next{n})))"
        );
    }
    component_of(&wit, &core(&imports, &(body + "(call $ok (local.get 0))")))
}

#[test]
fn every_granted_call_is_counted_by_name() {
    let bench = Bench::new();
    let package = bench.install("probe", &guest(), "[grants]\nclocks = true\nrandom = true");
    for n in [0, 1, 1000] {
        let report = bench.attempt(package, json!({ "n": n }), Limits::DEFAULT, &Stop::never());
        assert_eq!(output(&report), &json!({ "n": n }));
        let calls = GRANTED.iter().zip(n..).map(|((interface, function, ..), calls)| (format!("wasi:{interface}.{function}"), calls));
        // What was not called has no line.
        let expected: BTreeMap<String, u64> = calls.filter(|(_, calls)| *calls > 0).collect();
        assert_eq!(report.usage.host_calls, expected);
    }
}
