//! Hostile types: the number of parts, the depth and the lengths of names in a signature are bounded.

use dovetail_core::manifest::Grants;
use dovetail_runtime::{MAX_TYPE_NAME, MAX_TYPE_NODES};

use crate::refusals::{compiler, refused, refuses, shape};

/// A guest whose `run` takes `input`, with these types in WIT, as one number or by pointer.
fn taking(types: &str) -> Vec<u8> {
    taking_flat(types, "(param i32)")
}

/// The same with these flat parameters.
fn taking_flat(types: &str, parameters: &str) -> Vec<u8> {
    shape(&format!("{types} run: func(input: taken) -> result<input, task-error>;"), parameters, "(result i32)")
}

/// The flat parameters of three lists.
const LISTS: &str = "(param i32 i32 i32 i32 i32 i32)";

/// A record of two records of two records ..., `doublings` deep: `2^(doublings + 1) - 1` parts.
fn doubling(doublings: usize) -> String {
    let mut types =
        String::from("record r0 { a: u32, b: u32, c: u32, d: u32, e: u32, f: u32, g: u32, h: u32, i: u32, j: u32 }");
    for n in 1..=doublings {
        types += &format!("record r{n} {{ a: r{}, b: r{} }}", n - 1, n - 1);
    }
    types + &format!("record taken {{ it: r{doublings} }}")
}

#[test]
fn a_type_that_doubles() {
    let (compiler, _folder) = compiler();
    // 2^9 records of ten numbers and the records around them: about 6,144 parts.
    let description = compiler.describe(&taking(&doubling(9)), &Grants::default()).unwrap();
    assert_eq!(description.signature.input[0].name, "it");
    refuses(&taking(&doubling(10)), "type_too_large", &MAX_TYPE_NODES.to_string());
    refuses(&taking(&doubling(13)), "type_too_large", &MAX_TYPE_NODES.to_string());
    // A thousand million parts: the compiler's validator fails first, and the author gets the same refusal.
    refuses(&bare_doubling(30), "type_too_large", "counted as often as it occurs");
}

/// The same types alone, which no encoder has checked.
fn bare_doubling(doublings: usize) -> Vec<u8> {
    let mut text = String::from(r#"(type $r0 (record (field "a" u8) (field "b" u8)))"#);
    for n in 1..=doublings {
        text += &format!(r#"(type $r{n} (record (field "a" $r{}) (field "b" $r{})))"#, n - 1, n - 1);
    }
    wat::parse_str(format!("(component {text})")).unwrap()
}

#[test]
fn thousands_of_types() {
    let (compiler, _folder) = compiler();
    // Each record has three parts, and adds one part to `taken`.
    let many = |count: usize| {
        let types: String = (0..count).map(|n| format!("record t{n} {{ a: u8, b: u8 }} ")).collect();
        let fields: String = (0..count).map(|n| format!("x{n}: t{n}, ")).collect();
        taking(&format!("{types} record taken {{ {fields} }}"))
    };
    assert_eq!(compiler.describe(&many(300), &Grants::default()).unwrap().signature.input.len(), 300);
    let names = |count: usize| {
        let cases: String = (0..count).map(|n| format!("c{n}, ")).collect();
        taking_flat(
            &format!("enum many {{ {cases} }} record taken {{ a: list<many>, b: list<many>, c: list<many> }}"),
            LISTS,
        )
    };
    assert!(compiler.describe(&names(3_000), &Grants::default()).is_ok());
    refuses(&names(4_000), "type_too_large", &MAX_TYPE_NODES.to_string());
    let cases = |count: usize| {
        let cases: String = (0..count).map(|n| format!("c{n}, ")).collect();
        taking_flat(
            &format!(
                "variant many {{ {cases} value(u8) }} record taken {{ a: list<many>, b: list<many>, c: list<many> }}"
            ),
            LISTS,
        )
    };
    assert!(compiler.describe(&cases(3_000), &Grants::default()).is_ok());
    refuses(&cases(4_000), "type_too_large", &MAX_TYPE_NODES.to_string());
}

#[test]
fn a_type_deeper_than_the_compiler_takes() {
    let mut text = String::from("(type $l0 (list u8))");
    for n in 1..5_000 {
        text += &format!("(type $l{n} (list $l{}))", n - 1);
    }
    refuses(&wat::parse_str(format!("(component {text})")).unwrap(), "type_too_deep", "nested too deep");
}

#[test]
fn names_as_long_as_allowed_and_longer() {
    let (compiler, _folder) = compiler();
    let named = |length: usize| "n".repeat(length);
    for types in [
        |name: &str| format!("record taken {{ {name}: u8 }}"),
        |name: &str| format!("enum e {{ {name} }} record taken {{ it: e }}"),
        |name: &str| format!("flags e {{ {name} }} record taken {{ it: e }}"),
        |name: &str| format!("variant e {{ {name} }} record taken {{ it: e }}"),
    ] {
        assert!(compiler.describe(&taking(&types(&named(MAX_TYPE_NAME))), &Grants::default()).is_ok());
        let refusal = refused(&taking(&types(&named(MAX_TYPE_NAME + 1))), &Grants::default());
        assert_eq!(refusal.code, "name_too_long", "{refusal:?}");
        // The refusal names the long name, and is short.
        let refusal = refused(&taking(&types(&named(50_000))), &Grants::default());
        assert!(
            refusal.message.contains("50000 bytes") && refusal.message.contains("nnn") && refusal.message.len() < 200,
            "{refusal:?}"
        );
    }
}

#[test]
fn the_field_to_blame_is_looked_for_within_the_same_bound() {
    refuses(&taking_flat("record taken { it: list<stream<u8>> }", "(param i32 i32)"), "unsupported_type", "input.it[]");
    // The stream comes after 160,000 parts: the refusal mentions the stream but not its position.
    let types = format!(
        "{} record other {{ it: r13, last: stream<u8> }}",
        doubling(13).replace("record taken { it: r13 }", "")
    );
    let refusal = refused(&taking(&format!("{types} record taken {{ it: other }}")), &Grants::default());
    assert_eq!(refusal.code, "invalid_component", "{refusal:?}");
    assert!(refusal.message.contains("stream"), "{refusal:?}");
}
