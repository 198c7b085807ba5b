//! Each rule of assignability, and the laws of the rules on random types.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::wit::arbitrary::{any_type, any_value, wider};
use crate::wit::json::check;

fn option(ty: Type) -> Type {
    Type::Option(Box::new(ty))
}

fn list(ty: Type) -> Type {
    Type::List(Box::new(ty))
}

fn record(fields: &[(&str, Type)]) -> Type {
    Type::Record(fields.iter().map(|(name, ty)| Field { name: (*name).to_owned(), ty: ty.clone() }).collect())
}

fn parts(from: &Type, to: &Type) -> (String, String) {
    match assign(from, to) {
        Assign::No { path, reason, .. } => (path, reason),
        other => panic!("{from} -> {to}: {other:?}"),
    }
}

#[test]
fn numbers_only_widen() {
    use Type::{F32, F64, S8, S16, S32, S64, U8, U16, U32, U64};
    let all = [S8, U8, S16, U16, S32, U32, S64, U64, F32, F64];
    let wider: &[&[Type]] = &[
        &[S16, S32, S64, F32, F64],
        &[S16, U16, S32, U32, S64, U64, F32, F64],
        &[S32, S64, F32, F64],
        &[S32, U32, S64, U64, F32, F64],
        &[S64, F64],
        &[S64, U64, F64],
        &[],
        &[],
        &[F64],
        &[],
    ];
    for (from, wider) in all.iter().zip(wider) {
        for to in &all {
            let expected = if from == to { Some(Assign::Exact) } else { wider.contains(to).then_some(Assign::Coerce) };
            match expected {
                Some(expected) => assert_eq!(assign(from, to), expected, "{from} -> {to}"),
                None => assert_eq!(parts(from, to), (String::new(), format!("not every {from} is a {to}"))),
            }
        }
    }
}

#[test]
fn nothing_else_is_a_string() {
    for from in [Type::Char, Type::Bool, Type::Enum(vec!["a".into()]), Type::U8, Type::Image] {
        assert!(matches!(assign(&from, &Type::String), Assign::No { .. }), "{from}");
    }
    assert!(matches!(assign(&Type::Image, &Type::Artifact), Assign::No { .. }));
    assert_eq!(parts(&list(Type::U8), &Type::String).1, "list is not compatible with string");
}

#[test]
fn the_place_where_types_part_is_named() {
    let from = list(record(&[("face-id", Type::U32), ("bbox", record(&[("x", Type::F32)]))]));
    let to = list(record(&[("bbox", record(&[("x", Type::U32)]))]));
    assert_eq!(parts(&from, &to), ("[].bbox.x".into(), "not every f32 is a u32".into()));
    assert_eq!(
        parts(&from, &list(record(&[("score", Type::F32)]))),
        ("[]".into(), "the field `score` is missing".into())
    );
    assert_eq!(parts(&option(Type::U8), &Type::U8).1, "it may be absent, and a value is needed");
    let tuple = |n| Type::Tuple(vec![Type::U8; n]);
    assert_eq!(parts(&tuple(2), &tuple(3)).1, "2 parts are not 3");
    let result = |ok: Option<Type>| Type::Result { ok: ok.map(Box::new), err: None };
    assert_eq!(parts(&result(None), &result(Some(Type::U8))).1, "`ok` has a payload on one side only");
    assert_eq!(parts(&result(Some(Type::U16)), &result(Some(Type::U8))).0, ".ok");
    let variant = |ty| Type::Variant(vec![Case { name: "b-c".into(), ty }]);
    assert_eq!(parts(&variant(None), &variant(Some(Type::U8))).1, "the case `b_c` has a payload on one side only");
    assert_eq!(
        parts(&Type::Enum(vec!["a".into(), "b-c".into()]), &Type::Enum(vec!["a".into()])).1,
        "`b_c` is not known there"
    );
}

#[test]
fn values_change_their_form() {
    let cases = [
        (Type::U8, Type::F32, json!(5), json!(5.0)),
        (Type::F32, Type::F64, json!(0.1), json!(0.10000000149011612)),
        (Type::F32, Type::F64, json!("NaN"), json!("NaN")),
        (Type::U32, option(option(Type::U64)), json!(5), json!({ "some": 5 })),
        (option(Type::U8), option(option(Type::U8)), json!(null), json!(null)),
        (option(option(Type::U8)), option(option(Type::U16)), json!({ "some": null }), json!({ "some": null })),
        (list(Type::U8), list(Type::U16), json!("AQI="), json!([1, 2])),
        (
            record(&[("a", Type::U8), ("b-c", Type::Bool)]),
            record(&[("b-c", option(Type::Bool)), ("d", option(Type::Image))]),
            json!({ "a": 1, "b_c": true }),
            json!({ "b_c": true, "d": null }),
        ),
        (
            Type::Flags(vec!["a".into(), "b".into()]),
            Type::Flags(vec!["b".into(), "c".into(), "a".into()]),
            json!(["a", "b"]),
            json!(["b", "a"]),
        ),
    ];
    for (from, to, value, expected) in cases {
        assert_eq!(assign(&from, &to), Assign::Coerce, "{from} -> {to}");
        assert_eq!(coerce(value, &from, &to), expected, "{from} -> {to}");
    }
}

/// Collects the paths of fields that only one of the two types has.
fn lone_fields(have: &Type, want: &Type, path: &str, lone: &mut BTreeSet<String>) {
    match (have, want) {
        (Type::Option(have), want) => lone_fields(have, want, path, lone),
        (have, Type::Option(want)) => lone_fields(have, want, path, lone),
        (Type::List(have), Type::List(want)) => lone_fields(have, want, &format!("{path}[]"), lone),
        (Type::Tuple(have), Type::Tuple(want)) => {
            for (i, (have, want)) in have.iter().zip(want).enumerate() {
                lone_fields(have, want, &format!("{path}.{i}"), lone);
            }
        }
        (Type::Record(have), Type::Record(want)) => {
            for Field { name, ty } in have {
                match find(want, name) {
                    Some(want) => lone_fields(ty, want, &format!("{path}.{name}"), lone),
                    None => drop(lone.insert(format!("{path}.{name}"))),
                }
            }
        }
        (Type::Variant(have), Type::Variant(want)) => {
            for case in have {
                let other = want.iter().find(|other| other.name == case.name).and_then(|other| other.ty.as_ref());
                if let (Some(have), Some(want)) = (&case.ty, other) {
                    lone_fields(have, want, &format!("{path}.{}", case.name), lone);
                }
            }
        }
        (Type::Result { ok: ok_a, err: err_a }, Type::Result { ok: ok_b, err: err_b }) => {
            for (step, have, want) in [("ok", ok_a, ok_b), ("error", err_a, err_b)] {
                if let (Some(have), Some(want)) = (have, want) {
                    lone_fields(have, want, &format!("{path}.{step}"), lone);
                }
            }
        }
        _ => {}
    }
}

/// Whether a field is dropped from `a` to `b` and returns from `b` to `c`: the exception in the documentation of the
/// module.
fn asks_again(a: &Type, b: &Type, c: &Type) -> bool {
    let (mut dropped, mut added) = (BTreeSet::new(), BTreeSet::new());
    lone_fields(a, b, "", &mut dropped);
    lone_fields(c, b, "", &mut added);
    !dropped.is_disjoint(&added)
}

fn chain() -> impl Strategy<Value = (Type, Type, Type)> {
    any_type()
        .prop_flat_map(|a| {
            let b = wider(&a);
            (Just(a), b)
        })
        .prop_flat_map(|(a, b)| {
            let c = wider(&b);
            (Just(a), Just(b), c)
        })
}

#[test]
fn the_one_exception_to_transitivity() {
    let a = record(&[("x", Type::String), ("y", Type::U8)]);
    let b = record(&[("y", Type::U8)]);
    let c = record(&[("y", Type::U8), ("x", option(Type::U32))]);
    assert_eq!((assign(&a, &b), assign(&b, &c)), (Assign::Coerce, Assign::Coerce));
    assert_eq!(parts(&a, &c).0, ".x");
    assert!(asks_again(&a, &b, &c));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn what_is_assignable_fits_after_coercion((from, to, value) in any_type().prop_flat_map(|from| {
        let (to, value) = (wider(&from), any_value(&from));
        (Just(from), to, value)
    })) {
        prop_assert!(fits(&from, &to), "{} -> {}", from, to);
        let coerced = coerce(value.clone(), &from, &to);
        // The converted value is in normal form, including the order of fields.
        let text = coerced.to_string();
        prop_assert_eq!(check(&to, &coerced).map(|value| value.to_string()), Ok(text), "{} -> {}: {}", from, to, value);
    }

    #[test]
    fn exact_means_equal(a in any_type(), b in any_type()) {
        prop_assert_eq!(assign(&a, &b) == Assign::Exact, a == b);
        prop_assert_eq!(assign(&a, &a), Assign::Exact);
        if let Assign::No { from, to, .. } = assign(&a, &b) {
            // The two parts that the answer names do not fit by themselves.
            let by_themselves = assign(&from, &to);
            prop_assert!(matches!(by_themselves, Assign::No { path, .. } if path.is_empty()), "{} -> {}", from, to);
        }
    }

    #[test]
    fn two_steps_are_one((a, b, c) in chain()) {
        prop_assert!(fits(&a, &b));
        prop_assert!(fits(&b, &c));
        if !asks_again(&a, &b, &c) {
            prop_assert!(fits(&a, &c), "{} -> {} -> {}: {:?}", a, b, c, assign(&a, &c));
        }
    }

    #[test]
    fn coercing_never_panics(
        from in any_type(),
        to in any_type(),
        value in any_type().prop_flat_map(|ty| any_value(&ty)),
    ) {
        let _value = coerce(value, &from, &to);
    }
}

fn fits(from: &Type, to: &Type) -> bool {
    !matches!(assign(from, to), Assign::No { .. })
}
