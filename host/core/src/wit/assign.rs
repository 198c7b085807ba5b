//! Assignability: whether every value of one type can be used where another type is expected, and the conversion for
//! it.
//!
//! No rule loses information, and no rule guesses:
//!
//! - integers and floats only widen, if every value is exactly representable;
//! - `T` is assignable to `option<T>`;
//! - records are compared by field name: a field that the target does not have is dropped, and a field that the source
//!   does not have must be an option;
//! - variants, enums and flags are assignable if the target has all their cases;
//! - lists, tuples, options and results are compared part by part.
//!
//! There is no conversion from `char` to `string`, from signed to unsigned numbers, and the like.
//!
//! If a type is assignable to a second one and the second to a third, two conversions in a row equal one conversion.
//! There is one exception, which the tests spell out: a field that the second type drops, and that the third type has
//! as an option of another type.

use serde_json::{Map, Value, json};

use super::json::{bytes_from_json, f32_from_json, f64_to_json};
use super::names::snake;
use super::{Case, Field, Type};

/// The relation of two types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assign {
    /// The types are the same. Values need no conversion.
    Exact,
    /// Every value can be converted with [`coerce`].
    Coerce,
    /// Some value cannot be converted.
    No {
        /// The place at which the types differ, from the root (`[].bbox.x`). Empty: the root itself.
        path: String,
        /// Why, for people.
        reason: String,
        /// The part of the source type at that place.
        from: Type,
        /// The part of the target type at that place.
        to: Type,
    },
}

/// Whether every value of `from` can be used as a value of `to`.
#[must_use]
pub fn assign(from: &Type, to: &Type) -> Assign {
    if from == to {
        return Assign::Exact;
    }
    match part(from, to, &mut String::new()) {
        Ok(()) => Assign::Coerce,
        Err(no) => *no,
    }
}

fn no(path: &str, from: &Type, to: &Type, reason: impl Into<String>) -> Result<(), Box<Assign>> {
    Err(Box::new(Assign::No { path: path.to_owned(), reason: reason.into(), from: from.clone(), to: to.clone() }))
}

/// Compares two types down to the first place at which they do not fit. `path` is the current place.
fn part(from: &Type, to: &Type, path: &mut String) -> Result<(), Box<Assign>> {
    if from == to {
        return Ok(());
    }
    match (from, to) {
        (Type::Option(from), Type::Option(to)) => part(from, to, path),
        (from, Type::Option(to)) => part(from, to, path),
        (Type::Option(_), _) => no(path, from, to, "it may be absent, and a value is needed"),
        (Type::List(from), Type::List(to)) => at(path, "[]", |path| part(from, to, path)),
        (Type::Tuple(a), Type::Tuple(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .enumerate()
            .try_for_each(|(i, (from, to))| at(path, &format!(".{i}"), |path| part(from, to, path))),
        (Type::Tuple(a), Type::Tuple(b)) => no(path, from, to, format!("{} parts are not {}", a.len(), b.len())),
        (Type::Record(have), Type::Record(want)) => want.iter().try_for_each(|field| {
            let step = format!(".{}", snake(&field.name));
            match (find(have, &field.name), &field.ty) {
                (Some(ty), want) => at(path, &step, |path| part(ty, want, path)),
                (None, Type::Option(_)) => Ok(()),
                (None, _) => no(path, from, to, format!("the field `{}` is missing", snake(&field.name))),
            }
        }),
        (Type::Variant(have), Type::Variant(want)) => have.iter().try_for_each(|case| {
            let step = format!(".{}", snake(&case.name));
            match (&case.ty, want.iter().find(|other| other.name == case.name).map(|other| &other.ty)) {
                (_, None) => no(path, from, to, format!("the case `{}` is not known there", snake(&case.name))),
                (None, Some(None)) => Ok(()),
                (Some(have), Some(Some(want))) => at(path, &step, |path| part(have, want, path)),
                (_, Some(_)) => {
                    no(path, from, to, format!("the case `{}` has a payload on one side only", snake(&case.name)))
                }
            }
        }),
        (Type::Enum(have), Type::Enum(want)) | (Type::Flags(have), Type::Flags(want)) => {
            match have.iter().find(|name| !want.contains(name)) {
                Some(name) => no(path, from, to, format!("`{}` is not known there", snake(name))),
                None => Ok(()),
            }
        }
        (Type::Result { ok: ok_a, err: err_a }, Type::Result { ok: ok_b, err: err_b }) => {
            [(".ok", ok_a, ok_b), (".error", err_a, err_b)].into_iter().try_for_each(|(step, have, want)| {
                match (have, want) {
                    (None, None) => Ok(()),
                    (Some(have), Some(want)) => at(path, step, |path| part(have, want, path)),
                    _ => no(path, from, to, format!("`{}` has a payload on one side only", &step[1..])),
                }
            })
        }
        _ if widens(from, to) => Ok(()),
        _ if number(from).is_some() && number(to).is_some() => {
            no(path, from, to, format!("not every {from} is a {to}"))
        }
        _ => no(path, from, to, format!("{} is not compatible with {}", kind(from), kind(to))),
    }
}

fn at(
    path: &mut String,
    step: &str,
    work: impl FnOnce(&mut String) -> Result<(), Box<Assign>>,
) -> Result<(), Box<Assign>> {
    let back = path.len();
    path.push_str(step);
    let done = work(path);
    path.truncate(back);
    done
}

fn find<'a>(fields: &'a [Field], name: &str) -> Option<&'a Type> {
    fields.iter().find(|field| field.name == name).map(|field| &field.ty)
}

fn kind(ty: &Type) -> String {
    match ty {
        Type::List(_) => "list".to_owned(),
        Type::Tuple(_) => "tuple".to_owned(),
        Type::Record(_) => "record".to_owned(),
        Type::Variant(_) => "variant".to_owned(),
        Type::Enum(_) => "enum".to_owned(),
        Type::Flags(_) => "flags".to_owned(),
        Type::Option(_) => "option".to_owned(),
        Type::Result { .. } => "result".to_owned(),
        scalar => scalar.to_string(),
    }
}

/// A numeric type by the range in which it is exact: bits of magnitude, whether it has a sign, whether it is a float.
fn number(ty: &Type) -> Option<(u32, bool, bool)> {
    Some(match ty {
        Type::U8 => (8, false, false),
        Type::U16 => (16, false, false),
        Type::U32 => (32, false, false),
        Type::U64 => (64, false, false),
        Type::S8 => (7, true, false),
        Type::S16 => (15, true, false),
        Type::S32 => (31, true, false),
        Type::S64 => (63, true, false),
        Type::F32 => (24, true, true),
        Type::F64 => (53, true, true),
        _ => return None,
    })
}

/// Whether every value of `from` is exactly one value of `to`.
fn widens(from: &Type, to: &Type) -> bool {
    let (Some((from_bits, from_signed, from_float)), Some((to_bits, to_signed, to_float))) = (number(from), number(to))
    else {
        return false;
    };
    from_bits <= to_bits && (to_signed || !from_signed) && (to_float || !from_float)
}

/// Converts `value` from the type `from` to the type `to`. `assign(from, to)` must not be [`Assign::No`].
///
/// `value` must be of the type `from` and in normal form. The parts of any other value are converted as far as
/// possible, so callers check values at the edge ([`super::json::check`]).
#[must_use]
pub fn coerce(value: Value, from: &Type, to: &Type) -> Value {
    if from == to {
        return value;
    }
    match (from, to, value) {
        (Type::Option(from), Type::Option(to), value) => {
            let inner = match (&**from, value) {
                (_, Value::Null) => return Value::Null,
                (Type::Option(_), Value::Object(mut some)) => some.remove("some").unwrap_or_default(),
                (_, value) => value,
            };
            wrap(coerce(inner, from, to), to)
        }
        (from, Type::Option(to), value) => wrap(coerce(value, from, to), to),
        (Type::List(from), Type::List(to), value) => {
            let items = match value {
                // `list<u8>` is the only list that is not a JSON array.
                Value::String(_) if **from == Type::U8 => {
                    bytes_from_json(&value).unwrap_or_default().into_iter().map(Value::from).collect()
                }
                Value::Array(items) => items,
                other => return other,
            };
            items.into_iter().map(|item| coerce(item, from, to)).collect()
        }
        (Type::Tuple(from), Type::Tuple(to), Value::Array(items)) => {
            items.into_iter().zip(from.iter().zip(to)).map(|(item, (from, to))| coerce(item, from, to)).collect()
        }
        (Type::Record(have), Type::Record(want), Value::Object(mut fields)) => {
            let mut record = Map::new();
            for field in want {
                let name = snake(&field.name);
                let value = match (fields.remove(&name), find(have, &field.name)) {
                    (Some(value), Some(from)) => coerce(value, from, &field.ty),
                    _ => Value::Null,
                };
                record.insert(name, value);
            }
            Value::Object(record)
        }
        (Type::Variant(have), Type::Variant(want), Value::Object(mut fields)) => {
            let payload = |cases: &[Case]| {
                cases
                    .iter()
                    .find(|case| fields.get("tag").and_then(Value::as_str).is_some_and(|tag| snake(&case.name) == tag))
                    .and_then(|case| case.ty.clone())
            };
            if let (Some(from), Some(to), Some(val)) = (payload(have), payload(want), fields.get("val").cloned()) {
                fields.insert("val".to_owned(), coerce(val, &from, &to));
            }
            Value::Object(fields)
        }
        // Flags take the order of the target type.
        (Type::Flags(_), Type::Flags(want), Value::Array(set)) => {
            want.iter().map(|name| Value::from(snake(name))).filter(|name| set.contains(name)).collect()
        }
        (Type::Result { ok: ok_a, err: err_a }, Type::Result { ok: ok_b, err: err_b }, Value::Object(fields)) => fields
            .into_iter()
            .map(|(name, value)| {
                let (from, to) = if name == "ok" { (ok_a, ok_b) } else { (err_a, err_b) };
                let value = match (from, to) {
                    (Some(from), Some(to)) => coerce(value, from, to),
                    _ => value,
                };
                (name, value)
            })
            .collect(),
        // The f64 must be exactly the f32. The shortest digits of the f32 would denote another f64.
        (Type::F32, Type::F64, value) => f32_from_json(&value).map_or(value, |x| f64_to_json(x.into())),
        (_, Type::F32 | Type::F64, value) => value.as_f64().map_or(value, f64_to_json),
        (_, _, value) => value,
    }
}

/// Wraps the value of a nested option, which states its presence.
fn wrap(value: Value, some: &Type) -> Value {
    if matches!(some, Type::Option(_)) { json!({ "some": value }) } else { value }
}

#[cfg(test)]
mod tests;
