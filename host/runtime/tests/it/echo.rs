//! Converts every WIT type from JSON, through a guest that returns its input, back to JSON.

use serde_json::{Value, json};

use crate::support::{Bench, component, core_with, output};

/// A guest that returns its input: input and output are the same record. With more than 16 flat parameters the record
/// is passed by pointer, so the guest can copy it.
pub(crate) fn echo_guest(types: &str, fields: &str) -> Vec<u8> {
    let padding: String = (0..17).map(|n| format!(", pad{n}: option<u32>")).collect();
    let interface = format!(
        "use dovetail:task/types@0.1.0.{{task-error}}; use dovetail:vision/images@0.1.0.{{image}}; \
         use dovetail:task/artifacts@0.1.0.{{artifact}}; \
         {types} record input {{ {fields}{padding} }} run: func(input: input) -> result<input, task-error>;"
    );
    let body = "(memory.copy (i32.const 2056) (local.get 0) (i32.const 4096)) (i32.store8 (i32.const 2048) \
        (i32.const 0)) (i32.const 2048)";
    component(&interface, &core_with("(param i32)", "", body))
}

/// Sends each value through an echo guest with one field, and expects it back in the same form.
#[track_caller]
fn survives(bench: &Bench, types: &str, ty: &str, values: &[Value]) {
    let guest = echo_guest(types, &format!("the-value: {ty}"));
    let package = bench.install("probe", &guest, "");
    for value in values {
        let report = bench.attempt(
            package,
            json!({ "the_value": value }),
            Default::default(),
            &dovetail_core::stop::Stop::never(),
        );
        assert_eq!(&output(&report)["the_value"], value, "{ty}");
        assert_eq!(output(&report)["pad0"], Value::Null);
    }
}

#[test]
fn numbers_survive() {
    let b = Bench::new();
    survives(&b, "", "bool", &[json!(true), json!(false)]);
    survives(&b, "", "s8", &[json!(-128), json!(127)]);
    survives(&b, "", "u8", &[json!(0), json!(255)]);
    survives(&b, "", "s16", &[json!(-32768), json!(32767)]);
    survives(&b, "", "u16", &[json!(65535)]);
    survives(&b, "", "s32", &[json!(i32::MIN), json!(i32::MAX)]);
    survives(&b, "", "u32", &[json!(u32::MAX)]);
    survives(
        &b,
        "",
        "s64",
        &[
            json!(-9_007_199_254_740_991_i64),
            json!("-9007199254740992"),
            json!(i64::MIN.to_string()),
            json!(i64::MAX.to_string()),
        ],
    );
    survives(
        &b,
        "",
        "u64",
        &[json!(9_007_199_254_740_991_u64), json!("9007199254740992"), json!(u64::MAX.to_string())],
    );
    survives(&b, "", "f32", &[json!(0.1), json!(-2.5), json!(3.4e38), json!("NaN"), json!("-Infinity")]);
    survives(&b, "", "f64", &[json!(0.1), json!(1e300), json!("Infinity")]);
}

#[test]
fn texts_and_lists_survive() {
    let b = Bench::new();
    survives(&b, "", "char", &[json!("ß"), json!("🙂")]);
    survives(&b, "", "string", &[json!(""), json!("größer 🙂\n\"quoted\"")]);
    survives(&b, "", "list<string>", &[json!([]), json!(["a", "b"])]);
    survives(&b, "", "list<u8>", &[json!(""), json!("AAH/"), json!("AA==")]);
    survives(&b, "", "list<list<s16>>", &[json!([[1, -2], [], [3]])]);
    survives(&b, "", "tuple<u32, string, bool>", &[json!([7, "x", true])]);
}

#[test]
fn named_types_survive() {
    let b = Bench::new();
    let types = "record inner { some-name: u32, other: option<string> } variant shape { nothing, just-a-number(u32), \
        both(inner) } \
                 enum colour { red, dark-blue } flags rights { can-read, can-write, x }";
    survives(&b, types, "inner", &[json!({"some_name": 1, "other": null}), json!({"some_name": 2, "other": "y"})]);
    let both = json!({"tag": "both", "val": {"some_name": 1, "other": "z"}});
    survives(&b, types, "shape", &[json!({"tag": "nothing"}), json!({"tag": "just_a_number", "val": 9}), both]);
    survives(&b, types, "colour", &[json!("red"), json!("dark_blue")]);
    survives(&b, types, "rights", &[json!([]), json!(["can_read", "x"]), json!(["can_read", "can_write", "x"])]);
}

#[test]
fn options_and_results_survive() {
    let b = Bench::new();
    survives(&b, "", "option<u32>", &[json!(null), json!(5)]);
    survives(&b, "", "option<option<u32>>", &[json!(null), json!({"some": null}), json!({"some": 5})]);
    survives(&b, "", "result<string, u32>", &[json!({"ok": "fine"}), json!({"error": 3})]);
    survives(&b, "", "result", &[json!({"ok": null}), json!({"error": null})]);
    survives(&b, "", "result<_, string>", &[json!({"ok": null}), json!({"error": "no"})]);
}

#[test]
fn untouched_handles_keep_their_artifact() {
    let b = Bench::new();
    let picture = b.artifact(b"640x480", "image/jpeg");
    let mut named = b.artifact(b"some text", "text/plain");
    named["name"] = json!("notes.txt");
    survives(&b, "", "image", std::slice::from_ref(&picture));
    survives(&b, "", "artifact", std::slice::from_ref(&named));
    survives(&b, "", "list<image>", &[json!([picture, picture])]);
    survives(
        &b,
        "record pair { it: option<artifact>, n: u32 }",
        "list<pair>",
        &[json!([{"it": named, "n": 1}, {"it": null, "n": 2}])],
    );
    assert_eq!(
        b.vision.decoded.load(std::sync::atomic::Ordering::Relaxed),
        0,
        "a picture whose pixels are not used is not decoded"
    );
}

#[test]
fn what_core_would_have_refused_names_the_field() {
    let b = Bench::new();
    let guest = echo_guest("record inner { deep: list<u8> }", "the-value: list<inner>");
    for (value, words) in
        [(json!([{"deep": 5}]), "`the_value[0].deep`"), (json!("x"), "`the_value`"), (json!([3]), "`the_value[0]`")]
    {
        let report = b.run(&guest, json!({ "the_value": value }));
        let failure = crate::support::failure(&report);
        assert_eq!(
            (failure.kind, failure.code.as_str()),
            (dovetail_core::executor::FailureKind::InvalidInput, "bad_input")
        );
        assert!(failure.message.starts_with(words), "{}", failure.message);
    }
    let report = b.run(&guest, json!([]));
    assert_eq!(crate::support::failed(&report).1, "bad_input");
}
