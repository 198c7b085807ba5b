//! Components that are refused: each refusal has a code, and its message names the fault.

use dovetail_core::manifest::Grants;
use dovetail_core::wit::Type;
use dovetail_runtime::{
    CompileLimits, Compiler, CompilerOptions, GrantClass, LoadError, MAX_TYPE_NODES, Refusal, componentize,
};

use crate::support::{Bench, NUMBER, component, component_of, core, number_guest};

/// A compiler with its own folder.
pub(crate) fn compiler() -> (Compiler, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let options = CompilerOptions {
        cache_dir: folder.path().join("code"),
        cache_bytes: 64 << 20,
        program: None,
        limits: CompileLimits::default(),
    };
    (Compiler::new(options).unwrap(), folder)
}

#[track_caller]
pub(crate) fn refused(component: &[u8], grants: &Grants) -> Refusal {
    let (compiler, _folder) = compiler();
    match compiler.describe(component, grants) {
        Err(LoadError::Refused(refusal)) => refusal,
        Err(LoadError::Host(error)) => panic!("the host failed: {error:?}"),
        Ok(description) => panic!("taken: {description:?}"),
    }
}

/// Checks that the component is refused with this code, and that the message or the help contains these words.
#[track_caller]
pub(crate) fn refuses(component: &[u8], code: &str, words: &str) {
    let refusal = refused(component, &Grants::default());
    assert_eq!(refusal.code, code, "{refusal:?}");
    assert!(refusal.message.contains(words) || refusal.help.contains(words), "`{words}` is not in {refusal:?}");
}

#[test]
fn what_is_no_component() {
    refuses(&wat::parse_str("(module)").unwrap(), "core_module", "task pack");
    refuses(b"(component)", "text_format", "wasm-tools parse");
    refuses(b"\x7fELF\x02\x01\x01", "native_code", ".wasm");
    refuses(b"PK\x03\x04", "not_wasm", "wasm32-wasip2");
    refuses(b"", "not_wasm", "wasm32-wasip2");
    refuses(&[0, b'a', b's', b'm', 0x0d, 0, 1, 0, 99, 99], "invalid_component", "not valid");
}

#[test]
fn precompiled_code_is_refused() {
    let engine = wasmtime::Engine::default();
    let code = engine.precompile_component(&number_guest("", "(call $ok (i32.const 1))")).unwrap();
    refuses(&code, "native_code", "compiled by the host itself");
}

fn world(interfaces: &str, world: &str) -> String {
    format!("package acme:probe@1.0.0; {interfaces} world component {{ include dovetail:task/imports@0.1.0; {world} }}")
}

#[test]
fn no_run_and_two_runs() {
    let memory = r#"(memory (export "memory") 1) (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
        (unreachable))"#;
    let none = component_of(
        &world("interface other { go: func(); }", "export other;"),
        &format!(r#"(module {memory} (func (export "acme:probe/other@1.0.0#go")))"#),
    );
    refuses(&none, "no_run", "export task");
    let two = component_of(
        &world(
            &format!("interface task {{ {NUMBER} }} interface second {{ {NUMBER} }}"),
            "export task; export second;",
        ),
        &format!(
            r#"(module {memory} (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32) (unreachable))
               (func (export "acme:probe/second@1.0.0#run") (param i32) (result i32) (unreachable)))"#
        ),
    );
    refuses(&two, "two_runs", "acme:probe/second@1.0.0");
}

pub(crate) fn shape(run: &str, parameters: &str, result: &str) -> Vec<u8> {
    let module = format!(
        r#"(module (memory (export "memory") 1) (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            (unreachable))
           (func (export "acme:probe/task@1.0.0#run") {parameters} {result} (unreachable)))"#
    );
    component(&format!("use dovetail:task/types@0.1.0.{{task-error}}; record input {{ n: u32 }} {run}"), &module)
}

#[test]
fn run_of_another_shape() {
    refuses(
        &shape("run: func(n: u32) -> result<input, task-error>;", "(param i32)", "(result i32)"),
        "wrong_run",
        "a record",
    );
    refuses(
        &shape("run: func(a: input, b: input) -> result<input, task-error>;", "(param i32 i32)", "(result i32)"),
        "wrong_run",
        "takes 2 parameters",
    );
    refuses(
        &shape("run: func(input: input) -> u32;", "(param i32)", "(result i32)"),
        "wrong_run",
        "returns no `result`",
    );
    refuses(
        &shape("run: func(input: input) -> result<u32, task-error>;", "(param i32)", "(result i32)"),
        "wrong_run",
        "other than a record",
    );
    refuses(
        &shape("run: func(input: input) -> result<input, string>;", "(param i32)", "(result i32)"),
        "wrong_error_type",
        "task-error",
    );
    refuses(
        &shape("run: func(input: input) -> result<input>;", "(param i32)", "(result i32)"),
        "wrong_error_type",
        "task-error",
    );
}

#[test]
fn types_that_cannot_be_recorded() {
    let guest = |types: &str, field: &str| {
        shape(
            &format!(
                "{types} record bad {{ inner: {field} }} record taken {{ some-field: bad }} \
                 run: func(input: taken) -> result<input, task-error>;"
            ),
            "(param i32)",
            "(result i32)",
        )
    };
    refuses(&guest("", "future<u32>"), "unsupported_type", "some-field.inner");
    refuses(&guest("", "stream<u8>"), "unsupported_type", "a stream");
    refuses(&guest("resource mine;", "mine"), "unsupported_type", "some-field.inner");
}

#[test]
fn an_interface_that_nobody_offers() {
    let wit = format!(
        "package acme:probe@1.0.0; interface task {{ {NUMBER} }} world component \
         {{ import acme:store/database@2.0.0; export task; }} \
         package acme:store@2.0.0 {{ interface database {{ ask: func(); }} }}"
    );
    let guest = component_of(
        &wit,
        &core(r#"(import "acme:store/database@2.0.0" "ask" (func $ask))"#, "(call $ask) (unreachable)"),
    );
    refuses(&guest, "unknown_import", "acme:store/database@2.0.0");
}

/// A guest that imports one function without parameters that returns a u64.
fn wasi_guest(package: &str, interface: &str) -> Vec<u8> {
    let wit = format!(
        "package acme:probe@1.0.0; interface task {{ {NUMBER} }} world component \
         {{ import {package}/{interface}@0.2.6; export task; }} \
         package {package}@0.2.6 {{ interface {interface} {{ now: func() -> u64; get-random-u64: func() -> u64; }} }}"
    );
    let name = if package == "wasi:clocks" { "now" } else { "get-random-u64" };
    component_of(
        &wit,
        &core(
            &format!(r#"(import "{package}/{interface}@0.2.6" "{name}" (func $it (result i64)))"#),
            "(drop (call $it)) (call $ok (i32.const 1))",
        ),
    )
}

#[test]
fn an_import_that_needs_a_grant() {
    let clock = wasi_guest("wasi:clocks", "monotonic-clock");
    refuses(&clock, "missing_grant", "wasi:clocks/monotonic-clock@0.2.6");
    refuses(&clock, "missing_grant", "clocks = true");
    refuses(&wasi_guest("wasi:random", "random"), "missing_grant", "random = true");
    refuses(&wasi_guest("wasi:sockets", "tcp"), "unsupported_import", "wasi:sockets/tcp@0.2.6");
    refuses(&wasi_guest("wasi:http", "outgoing-handler"), "unsupported_import", "http");
    // A grant allows only its own imports.
    let clocks = Grants { clocks: true, ..Grants::default() };
    assert_eq!(refused(&wasi_guest("wasi:random", "random"), &clocks).code, "missing_grant");
}

#[test]
fn a_grant_that_nothing_would_honour() {
    let clock = wasi_guest("wasi:clocks", "monotonic-clock");
    let grants = Grants { clocks: true, random: false, http: vec!["https://api.example.com".into()] };
    let refusal = refused(&clock, &grants);
    assert_eq!(refusal.code, "unsupported_grant");
    assert!(refusal.message.contains("https://api.example.com"), "{refusal:?}");
}

#[test]
fn with_its_grant_it_runs_and_is_not_pure() {
    let (compiler, _folder) = compiler();
    let bench = Bench::new();
    let with = [("wasi:clocks", "monotonic-clock", "clocks"), ("wasi:random", "random", "random")];
    for (package, interface, grant) in with {
        let guest = wasi_guest(package, interface);
        let grants = Grants { clocks: grant == "clocks", random: grant == "random", http: Vec::new() };
        let description = compiler.describe(&guest, &grants).unwrap();
        assert!(!description.pure);
        assert_eq!(description.imports[0].class, GrantClass::Needs(grant));
        let digest = bench.install("probe", &guest, &format!("[grants]\n{grant} = true"));
        let report = bench.attempt(
            digest,
            serde_json::json!({ "n": 1 }),
            Default::default(),
            &dovetail_core::stop::Stop::never(),
        );
        assert_eq!(crate::support::output(&report)["n"], 1);
    }
}

#[test]
fn a_function_of_a_newer_host() {
    let wit = format!(
        "package acme:probe@1.0.0; interface task {{ {NUMBER} }} world component \
         {{ import wasi:random/insecure-seed@0.2.6; export task; }} \
         package wasi:random@0.2.6 {{ interface insecure-seed {{ newer: func() -> u64; }} }}"
    );
    let guest = component_of(
        &wit,
        &core(
            r#"(import "wasi:random/insecure-seed@0.2.6" "newer" (func $it (result i64)))"#,
            "(drop (call $it)) (unreachable)",
        ),
    );
    refuses(&guest, "incompatible_import", "newer");
}

/// A record with `fields` numbers. Each number counts as one node, and so does the record.
fn wide(fields: usize) -> Vec<u8> {
    let fields: String = (0..fields).map(|n| format!("x{n}: u8,")).collect();
    shape(
        &format!("record wide {{ {fields} }} run: func(input: wide) -> result<input, task-error>;"),
        "(param i32)",
        "(result i32)",
    )
}

#[test]
fn types_within_their_bound_and_over_it() {
    let (compiler, _folder) = compiler();
    // wasmparser itself accepts at most 10,000 fields; `input` has one more node.
    let description = compiler.describe(&wide(900), &Grants::default()).unwrap();
    assert_eq!(description.signature.input.len(), 900);
    // 17 doublings: 131,071 nodes in a few hundred bytes.
    let mut types = String::from("record r0 { a: u8, b: u8 }");
    for n in 1..15 {
        types += &format!("record r{n} {{ a: list<r{}>, b: list<r{}> }}", n - 1, n - 1);
    }
    let bomb = shape(
        &format!("{types} run: func(input: r14) -> result<input, task-error>;"),
        "(param i32 i32 i32 i32)",
        "(result i32)",
    );
    refuses(&bomb, "type_too_large", &MAX_TYPE_NODES.to_string());
}

#[test]
fn types_as_deep_as_allowed_and_deeper() {
    let (compiler, _folder) = compiler();
    let nested = |depth: usize| {
        let ty = format!("{}u8{}", "list<".repeat(depth), ">".repeat(depth));
        shape(
            &format!("record deep {{ it: {ty} }} run: func(input: deep) -> result<input, task-error>;"),
            "(param i32 i32)",
            "(result i32)",
        )
    };
    assert!(compiler.describe(&nested(31), &Grants::default()).is_ok());
    refuses(&nested(32), "type_too_deep", "32");
}

#[test]
fn a_description_says_what_there_is() {
    let (compiler, _folder) = compiler();
    let log = r#"(import "dovetail:task/logging@0.1.0" "enabled" (func $enabled (param i32) (result i32)))"#;
    let guest = number_guest(log, "(call $ok (call $enabled (i32.const 0)))");
    let description = compiler.describe(&guest, &Grants::default()).unwrap();
    assert_eq!(description.signature.interface, "acme:probe/task@1.0.0");
    assert_eq!((description.signature.input[0].name.as_str(), &description.signature.input[0].ty), ("n", &Type::U32));
    assert!(description.pure);
    assert_eq!(
        description.imports.iter().map(|import| import.name.as_str()).collect::<Vec<_>>(),
        ["dovetail:task/types@0.1.0", "dovetail:task/logging@0.1.0"]
    );
    assert_eq!(description.initial_memory, Some(2 * 65536));
    assert_eq!(description.component_bytes, guest.len() as u64);
    assert!(description.code_bytes > 1000);
}

#[test]
fn only_core_modules_are_componentized() {
    assert_eq!(componentize(&number_guest("", "(call $ok (i32.const 1))")).unwrap_err().code, "not_wasm");
    assert_eq!(componentize(b"text").unwrap_err().code, "not_wasm");
    assert_eq!(componentize(b"\0asm\x01\0\0\0\xff\xff").unwrap_err().code, "invalid_component");
}
