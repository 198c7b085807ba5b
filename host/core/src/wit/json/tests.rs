//! Each row of the module's table, and the errors.

use proptest::prelude::*;

use super::*;
use crate::wit::arbitrary::{any_type, any_value};

fn field(name: &str, ty: Type) -> Field {
    Field { name: name.to_owned(), ty }
}

fn option(ty: Type) -> Type {
    Type::Option(Box::new(ty))
}

fn list(ty: Type) -> Type {
    Type::List(Box::new(ty))
}

fn face() -> Type {
    Type::Record(vec![
        field("face-id", Type::U32),
        field("bbox", Type::Tuple(vec![Type::F32; 4])),
        field("note", option(Type::String)),
    ])
}

/// The pointer and the message of each error.
fn wrong(ty: &Type, value: &Value) -> Vec<String> {
    check(ty, value).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_read_comes_back_in_normal_form() {
    let digest = crate::Digest::of(b"x").to_string();
    let cases = [
        (Type::Bool, json!(true), json!(true)),
        (Type::U8, json!(255), json!(255)),
        (Type::S8, json!(-128.0), json!(-128)),
        (Type::U64, json!("7"), json!(7)),
        (Type::S64, json!(-9_007_199_254_740_993_i64), json!("-9007199254740993")),
        (Type::F32, json!(0.10000000149011612), json!(0.1)),
        (Type::F32, json!(84), json!(84.0)),
        (Type::F64, json!("NaN"), json!("NaN")),
        (Type::Char, json!("ä"), json!("ä")),
        (list(Type::U8), json!([1, 2]), json!("AQI=")),
        (list(Type::U16), json!([1, 2]), json!([1, 2])),
        (
            face(),
            json!({ "bbox": [1, 2, 3, 4], "face_id": 0 }),
            json!({ "face_id": 0, "bbox": [1.0, 2.0, 3.0, 4.0], "note": null }),
        ),
        (option(option(Type::U8)), json!(null), json!(null)),
        (option(option(Type::U8)), json!({ "some": null }), json!({ "some": null })),
        (option(option(Type::U8)), json!({ "some": 3 }), json!({ "some": 3 })),
        (Type::Flags(vec!["a".into(), "b-c".into()]), json!(["b_c", "a"]), json!(["a", "b_c"])),
        (Type::Enum(vec!["b-c".into()]), json!("b_c"), json!("b_c")),
        (
            Type::Variant(vec![Case { name: "b-c".into(), ty: None }]),
            json!({ "tag": "b_c", "val": null }),
            json!({ "tag": "b_c" }),
        ),
        (
            Type::Variant(vec![Case { name: "v".into(), ty: Some(Type::U64) }]),
            json!({ "val": "1", "tag": "v" }),
            json!({ "tag": "v", "val": 1 }),
        ),
        (Type::Result { ok: None, err: Some(Box::new(Type::U8)) }, json!({ "ok": null }), json!({ "ok": null })),
        (Type::Result { ok: None, err: Some(Box::new(Type::U8)) }, json!({ "error": 1 }), json!({ "error": 1 })),
        (
            Type::Image,
            json!({ "media_type": "image/png", "$artifact": digest }),
            json!({ "$artifact": digest, "media_type": "image/png" }),
        ),
    ];
    for (ty, given, normal) in cases {
        let checked = check(&ty, &given).unwrap_or_else(|errors| panic!("{ty}: {given}: {errors:?}"));
        assert_eq!(checked.to_string(), normal.to_string(), "{ty}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let digest = crate::Digest::of(b"x").to_string();
    let cases = [
        (Type::Bool, json!("true")),
        (Type::U8, json!(256)),
        (Type::U8, json!(-1)),
        (Type::U8, json!(1.5)),
        (Type::U8, json!("1")),
        (Type::S16, json!(40_000)),
        (Type::U32, json!(4_294_967_296_u64)),
        (Type::U64, json!(-1)),
        (Type::F32, json!(1e39)),
        (Type::F32, json!("inf")),
        (Type::F64, json!(null)),
        (Type::Char, json!("")),
        (Type::Char, json!("ab")),
        (Type::String, json!(1)),
        (list(Type::U8), json!("!")),
        (list(Type::U16), json!("AQI=")),
        (Type::Tuple(vec![Type::U8]), json!([1, 2])),
        (option(option(Type::U8)), json!(3)),
        (option(option(Type::U8)), json!({ "some": 3, "x": 1 })),
        (Type::Flags(vec!["a".into()]), json!(["a", "a"])),
        (Type::Flags(vec!["a".into()]), json!("a")),
        (Type::Enum(vec!["b-c".into()]), json!("b-c")),
        (Type::Variant(vec![Case { name: "v".into(), ty: None }]), json!({ "tag": "v", "val": 1 })),
        (Type::Variant(vec![Case { name: "v".into(), ty: None }]), json!({ "tag": "v", "value": 1 })),
        (Type::Variant(vec![Case { name: "v".into(), ty: Some(Type::U8) }]), json!({ "tag": "v" })),
        (Type::Result { ok: None, err: None }, json!({ "ok": 1 })),
        (Type::Result { ok: None, err: None }, json!({ "ok": null, "error": null })),
        (Type::Image, json!("photo.jpg")),
        (Type::Image, json!({ "$artifact": "sha256:00", "media_type": "image/png" })),
        (Type::Artifact, json!({ "$artifact": digest })),
        (Type::Artifact, json!({ "$artifact": digest, "media_type": "a/b", "size": 1 })),
    ];
    for (ty, given) in cases {
        assert!(check(&ty, &given).is_err(), "{ty}: {given}");
    }
}

#[test]
fn everything_is_found_at_once_and_named() {
    let value = json!([{ "face_id": -1, "bbox": [1, "x", 3, 4], "faceid": 1 }, { "bbox": [1, 2, 3] }]);
    assert_eq!(
        wrong(&list(face()), &value),
        [
            "/0/faceid: unknown field `faceid`; did you mean `face_id`?",
            "/0/face_id: expected u32, found the number -1: write an integer from 0 to 4294967295",
            "/0/bbox/1: expected f32, found the string \"x\": write a number within its range, or \"NaN\", \
             \"Infinity\", \"-Infinity\"",
            "/1/face_id: missing: expected u32",
            "/1/bbox: expected tuple<f32, f32, f32, f32>, found an array of 3: write an array of 4",
        ]
    );
    let detector = Type::Enum(vec!["ssd".into(), "tiny".into(), "haar".into()]);
    assert_eq!(
        wrong(&detector, &json!("hear")),
        ["the value: `hear` is none of `ssd`, `tiny`, `haar`; did you mean `haar`?"]
    );
    let error = &check_record(&[field("a/b~", Type::U8)], &json!({ "a/b~": null })).unwrap_err()[0];
    assert_eq!((error.pointer.as_str(), error.expected.as_str(), error.found.as_str()), ("/a~1b~0", "u8", "null"));
    assert_eq!(
        wrong(&face(), &json!([])),
        ["the value: expected record { face-id: u32, bbox: tuple<f32, f32, f32, f32>, note: option<string> }, \
             found an array of 0: write an object"]
    );
}

#[test]
fn errors_are_told_up_to_a_number() {
    let bad = |n| vec![json!(null); n];
    assert_eq!(check(&list(Type::U16), &Value::Array(bad(MAX_ERRORS - 1))).unwrap_err().len(), MAX_ERRORS - 1);
    assert_eq!(check(&list(Type::U16), &Value::Array(bad(MAX_ERRORS + 5))).unwrap_err().len(), MAX_ERRORS);
}

#[test]
fn depth_is_limited() {
    let nest = |depth: usize| (0..depth).fold((Type::U16, json!(1)), |(ty, value), _| (list(ty), json!([value])));
    let (ty, value) = nest(MAX_DEPTH);
    assert_eq!(check(&ty, &value), Ok(value));
    let (ty, value) = nest(MAX_DEPTH + 1);
    assert_eq!(check(&ty, &value).unwrap_err()[0].message, "the type is nested more than 64 deep");
}

#[test]
fn the_number_of_parts_is_limited() {
    let value = json!([1, 2, 3]);
    let from = |nodes| {
        let mut checker = Checker { nodes, ..Checker::default() };
        let normal = checker.value(&list(Type::U16), &value, 0);
        checker.end(normal)
    };
    assert_eq!(from(MAX_NODES - 4), Ok(value.clone()));
    assert!(from(MAX_NODES - 3).unwrap_err()[0].message.contains("parts"));
}

/// A random type, and a random value of it.
fn typed_value() -> impl Strategy<Value = (Type, Value)> {
    any_type().prop_flat_map(|ty| {
        let value = any_value(&ty);
        (Just(ty), value)
    })
}

proptest! {
    #[test]
    fn normal_form_is_stable((ty, value) in typed_value()) {
        let text = value.to_string();
        prop_assert_eq!(check(&ty, &value).map(|value| value.to_string()), Ok(text.clone()));
        // The value stays the same when it is written as text and parsed again.
        let read: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(check(&ty, &read).map(|value| value.to_string()), Ok(text));
    }

    #[test]
    fn whatever_is_accepted_becomes_stable(ty in any_type(), (other, value) in typed_value()) {
        // A value of another type is refused, or its normal form is accepted again unchanged. No value causes a panic.
        if let Ok(normal) = check(&ty, &value) {
            prop_assert_eq!(check(&ty, &normal), Ok(normal), "{} as {}", other, ty);
        }
    }
}
