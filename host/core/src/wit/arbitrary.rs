//! For tests: random types, and random values of a type in normal form.

use proptest::prelude::*;
use proptest::strategy::Union;
use serde_json::{Map, Value, json};

use super::json::{bytes_to_json, f32_to_json, f64_to_json, s64_to_json, u64_to_json};
use super::{Case, Field, Type, snake};

/// There are few names, so that random records and variants often share some.
const NAMES: [&str; 5] = ["a", "b-c", "d", "face-id", "x2"];

fn scalar() -> impl Strategy<Value = Type> {
    prop::sample::select(vec![
        Type::Bool,
        Type::S8,
        Type::U8,
        Type::S16,
        Type::U16,
        Type::S32,
        Type::U32,
        Type::S64,
        Type::U64,
        Type::F32,
        Type::F64,
        Type::Char,
        Type::String,
        Type::Image,
        Type::Artifact,
    ])
}

fn names() -> impl Strategy<Value = Vec<String>> {
    prop::sample::subsequence(NAMES.to_vec(), 1..=NAMES.len())
        .prop_shuffle()
        .prop_map(|names| names.into_iter().map(str::to_owned).collect())
}

/// A random type with few levels of nesting.
pub(crate) fn any_type() -> impl Strategy<Value = Type> {
    let leaf = prop_oneof![8 => scalar(), 1 => names().prop_map(Type::Enum), 1 => names().prop_map(Type::Flags)];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let boxed = inner.clone().prop_map(Box::new);
        let maybe = prop::option::of(boxed.clone());
        prop_oneof![
            2 => boxed.clone().prop_map(Type::List),
            2 => boxed.prop_map(Type::Option),
            1 => prop::collection::vec(inner.clone(), 1..4).prop_map(Type::Tuple),
            3 => (names(), prop::collection::vec(inner.clone(), NAMES.len())).prop_map(|(names, types)| {
                Type::Record(names.into_iter().zip(types).map(|(name, ty)| Field { name, ty }).collect())
            }),
            2 => (names(), prop::collection::vec(prop::option::of(inner), NAMES.len())).prop_map(|(names, types)| {
                Type::Variant(names.into_iter().zip(types).map(|(name, ty)| Case { name, ty }).collect())
            }),
            1 => (maybe.clone(), maybe).prop_map(|(ok, err)| Type::Result { ok, err }),
        ]
    })
}

/// A random type to which `from` is often assignable: wider numbers, options, and fewer, more or reordered fields.
pub(crate) fn wider(from: &Type) -> BoxedStrategy<Type> {
    let same = Just(from.clone()).boxed();
    let inside = match from {
        Type::U8 => prop::sample::select(vec![Type::U16, Type::S16, Type::U64, Type::F32, Type::F64]).boxed(),
        Type::S16 | Type::U16 => prop::sample::select(vec![Type::S32, Type::S64, Type::F32]).boxed(),
        Type::U32 => prop::sample::select(vec![Type::U64, Type::S64, Type::F64]).boxed(),
        Type::F32 => Just(Type::F64).boxed(),
        Type::List(item) => wider(item).prop_map(|item| Type::List(Box::new(item))).boxed(),
        Type::Option(some) => wider(some).prop_map(|some| Type::Option(Box::new(some))).boxed(),
        Type::Tuple(items) => items.iter().map(wider).collect::<Vec<_>>().prop_map(Type::Tuple).boxed(),
        Type::Record(fields) => {
            let wide: Vec<_> = fields.iter().map(|field| (Just(field.name.clone()), wider(&field.ty))).collect();
            let extra = (prop::sample::select(NAMES.to_vec()), any_type());
            (wide, prop::option::of(extra), any::<prop::sample::Index>())
                .prop_map(|(mut fields, extra, drop)| {
                    // A field that was just dropped must not return with another type.
                    let extra = extra.filter(|(name, _)| fields.iter().all(|field| field.0 != *name));
                    if fields.len() > 1 {
                        fields.remove(drop.index(fields.len()));
                    }
                    if let Some((name, ty)) = extra {
                        fields.push((name.to_owned(), Type::Option(Box::new(ty))));
                    }
                    fields.reverse();
                    Type::Record(fields.into_iter().map(|(name, ty)| Field { name, ty }).collect())
                })
                .boxed()
        }
        Type::Variant(cases) => {
            let wide: Vec<_> = cases
                .iter()
                .map(|case| {
                    (
                        Just(case.name.clone()),
                        case.ty.as_ref().map_or(Just(None).boxed(), |ty| wider(ty).prop_map(Some).boxed()),
                    )
                })
                .collect();
            wide.prop_map(|cases| {
                Type::Variant(
                    cases.into_iter().map(|(name, ty)| Case { name, ty }).rev().chain([extra_case()]).collect(),
                )
            })
            .boxed()
        }
        Type::Enum(names) => {
            Just(Type::Enum(names.iter().cloned().chain(["extra".to_owned()]).rev().collect())).boxed()
        }
        Type::Flags(names) => {
            Just(Type::Flags(names.iter().cloned().chain(["extra".to_owned()]).rev().collect())).boxed()
        }
        _ => same.clone(),
    };
    prop_oneof![2 => same, 4 => inside.clone(), 1 => inside.prop_map(|ty| Type::Option(Box::new(ty)))].boxed()
}

fn extra_case() -> Case {
    Case { name: "extra".to_owned(), ty: None }
}

/// A random value of `ty` in normal form.
pub(crate) fn any_value(ty: &Type) -> BoxedStrategy<Value> {
    match ty {
        Type::Bool => any::<bool>().prop_map(Value::from).boxed(),
        Type::S8 => any::<i8>().prop_map(Value::from).boxed(),
        Type::U8 => any::<u8>().prop_map(Value::from).boxed(),
        Type::S16 => any::<i16>().prop_map(Value::from).boxed(),
        Type::U16 => any::<u16>().prop_map(Value::from).boxed(),
        Type::S32 => any::<i32>().prop_map(Value::from).boxed(),
        Type::U32 => any::<u32>().prop_map(Value::from).boxed(),
        Type::S64 => any::<i64>().prop_map(s64_to_json).boxed(),
        Type::U64 => any::<u64>().prop_map(u64_to_json).boxed(),
        Type::F32 => any::<f32>().prop_map(f32_to_json).boxed(),
        Type::F64 => any::<f64>().prop_map(f64_to_json).boxed(),
        Type::Char => any::<char>().prop_map(|c| Value::from(c.to_string())).boxed(),
        Type::String => ".{0,6}".prop_map(Value::from).boxed(),
        Type::List(item) if **item == Type::U8 => {
            prop::collection::vec(any::<u8>(), 0..6).prop_map(|bytes| bytes_to_json(&bytes)).boxed()
        }
        Type::List(item) => prop::collection::vec(any_value(item), 0..3).prop_map(Value::Array).boxed(),
        Type::Tuple(items) => items.iter().map(any_value).collect::<Vec<_>>().prop_map(Value::Array).boxed(),
        Type::Record(fields) => {
            let names: Vec<String> = fields.iter().map(|field| snake(&field.name)).collect();
            let values: Vec<_> = fields.iter().map(|field| any_value(&field.ty)).collect();
            values
                .prop_map(move |values| Value::Object(names.iter().cloned().zip(values).collect::<Map<_, _>>()))
                .boxed()
        }
        Type::Variant(cases) => Union::new(cases.iter().map(|case| {
            let tag = snake(&case.name);
            case.ty.as_ref().map_or(Just(json!({ "tag": tag })).boxed(), |ty| {
                any_value(ty).prop_map(move |val| json!({ "tag": tag, "val": val })).boxed()
            })
        }))
        .boxed(),
        Type::Enum(names) => {
            prop::sample::select(names.iter().map(|name| Value::from(snake(name))).collect::<Vec<_>>()).boxed()
        }
        Type::Flags(names) => prop::sample::subsequence(
            names.iter().map(|name| Value::from(snake(name))).collect::<Vec<_>>(),
            0..=names.len(),
        )
        .prop_map(Value::Array)
        .boxed(),
        Type::Option(some) => {
            let nested = matches!(**some, Type::Option(_));
            prop_oneof![
                Just(Value::Null),
                any_value(some).prop_map(move |value| if nested { json!({ "some": value }) } else { value })
            ]
            .boxed()
        }
        Type::Result { ok, err } => {
            let side = |name: &'static str, ty: &Option<Box<Type>>| {
                ty.as_ref()
                    .map_or(Just(Value::Null).boxed(), |ty| any_value(ty))
                    .prop_map(move |value| json!({ name: value }))
                    .boxed()
            };
            prop_oneof![side("ok", ok), side("error", err)].boxed()
        }
        Type::Image | Type::Artifact => (any::<u8>(), prop::option::of("[a-z]{1,3}"))
            .prop_map(|(seed, name)| {
                let mut value = json!({ "$artifact": crate::Digest::of(&[seed]), "media_type": "image/png" });
                if let Some(name) = name {
                    value["name"] = json!(name);
                }
                value
            })
            .boxed(),
    }
}
