//! Checks JSON against a type. Reports everything that does not fit, and returns the value in its one normal form.
//!
//! | WIT | JSON |
//! |---|---|
//! | bool, string, char | the same; a char is a string of one code point |
//! | s8 to s32, u8 to u32 | integer |
//! | s64, u64 | integer up to 2^53 - 1, otherwise its digits as a string; both forms are accepted for all values |
//! | f32, f64 | number (f32 with the fewest digits), or `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | list, tuple | array; `list<u8>` is a base64 string, and an array of integers is accepted |
//! | record | object with names in snake_case; unknown names are refused |
//! | option | the value or `null`; an absent field means `null`; a nested option has `{"some": value}` as its value |
//! | variant | `{"tag": "case", "val": ...}`; a case without payload has no `val` |
//! | enum, flags | string; array of unique strings; both in snake_case |
//! | result | `{"ok": ...}` or `{"error": ...}`; `null` if there is no payload |
//! | image, artifact | `{"$artifact": "sha256:...", "media_type": "image/jpeg", "name": "photo.jpg"}`; `name` if known
//! |
//!
//! In normal form, a record has all its fields in WIT order, and flags are in declared order. So equal values have
//! equal texts.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::names::{did_you_mean, listed, snake};
use super::{Case, Field, Type};
use crate::blobs::ArtifactRef;
use crate::limits::MAX_VALUE;

mod scalar;

pub use scalar::{
    MAX_SAFE, bytes_from_json, bytes_to_json, f32_from_json, f32_to_json, f64_from_json, f64_to_json, s64_from_json,
    s64_to_json, u64_from_json, u64_to_json,
};

/// The most errors that are reported for one value.
pub const MAX_ERRORS: usize = 20;
/// The deepest nesting of a type that is accepted.
pub const MAX_DEPTH: usize = 64;
/// The most parts that one value may have. No JSON text of [`MAX_VALUE`] bytes has more.
pub const MAX_NODES: usize = (MAX_VALUE / 2) as usize;
/// The most characters of a value that an error shows.
const SHOWN: usize = 40;

/// A place at which a value does not fit its type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{}: {message}", if pointer.is_empty() { "the value" } else { pointer.as_str() })]
pub struct ValueError {
    /// JSON Pointer of the place; empty for the whole value.
    pub pointer: String,
    /// The expected WIT type.
    pub expected: String,
    /// A description of the value at that place.
    pub found: String,
    /// What is wrong and, if that is not obvious, what to write instead.
    pub message: String,
}

/// Checks `value` against `ty`, and returns it in normal form.
///
/// # Errors
/// Everything that does not fit, at most [`MAX_ERRORS`] places.
pub fn check(ty: &Type, value: &Value) -> Result<Value, Vec<ValueError>> {
    let mut checker = Checker::default();
    let normal = checker.value(ty, value, 0);
    checker.end(normal)
}

/// The same for the input or the output of a task, which is a record without a type of its own.
///
/// # Errors
/// Everything that does not fit, at most [`MAX_ERRORS`] places.
pub fn check_record(fields: &[Field], value: &Value) -> Result<Value, Vec<ValueError>> {
    let mut checker = Checker::default();
    let normal = checker.record(fields, value, 0);
    checker.end(normal)
}

/// `name` as one step of a JSON Pointer (RFC 6901), with its slash.
#[must_use]
pub fn pointer_step(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// A short description of a value: `the string "abc"`, `an array of 3`.
#[must_use]
pub fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => format!("the number {n}"),
        Value::String(text) if text.chars().count() > SHOWN => {
            format!("the string {:?} and more", text.chars().take(SHOWN).collect::<String>())
        }
        Value::String(text) => format!("the string {text:?}"),
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Object(fields) if fields.is_empty() => "an empty object".to_owned(),
        Value::Object(fields) => format!("an object with {}", listed(fields.keys().map(String::as_str))),
    }
}

/// Collects errors. A method that returns `None` has added an error, or the list of errors is full.
#[derive(Default)]
struct Checker {
    /// The current place, as a JSON Pointer.
    at: String,
    errors: Vec<ValueError>,
    nodes: usize,
}

impl Checker {
    fn end(self, normal: Option<Value>) -> Result<Value, Vec<ValueError>> {
        normal.filter(|_| self.errors.is_empty()).ok_or(self.errors)
    }

    fn full(&self) -> bool {
        self.errors.len() >= MAX_ERRORS
    }

    fn error(&mut self, expected: impl Into<String>, value: Option<&Value>, message: impl Into<String>) {
        if !self.full() {
            let found = value.map_or_else(|| "nothing".to_owned(), describe);
            self.errors.push(ValueError {
                pointer: self.at.clone(),
                expected: expected.into(),
                found,
                message: message.into(),
            });
        }
    }

    /// The common error: the value has another kind than the type. `hint` tells how to write the value.
    fn mismatch(&mut self, ty: &Type, value: &Value, hint: &str) -> Option<Value> {
        let found = describe(value);
        let hint = if hint.is_empty() { String::new() } else { format!(": {hint}") };
        let expected = ty.short();
        self.error(expected.clone(), Some(value), format!("expected {expected}, found {found}{hint}"));
        None
    }

    fn within<T>(&mut self, step: &str, work: impl FnOnce(&mut Self) -> T) -> T {
        let back = self.at.len();
        self.at.push_str(&pointer_step(step));
        let done = work(self);
        self.at.truncate(back);
        done
    }

    fn value(&mut self, ty: &Type, value: &Value, depth: usize) -> Option<Value> {
        self.nodes += 1;
        if self.full() {
            return None;
        }
        if depth > MAX_DEPTH || self.nodes > MAX_NODES {
            let message = if depth > MAX_DEPTH {
                format!("the type is nested more than {MAX_DEPTH} deep")
            } else {
                format!("the value has more than {MAX_NODES} parts; larger things are artifacts")
            };
            self.error(ty.short(), Some(value), message);
            return None;
        }
        match ty {
            Type::Bool => value.as_bool().map(Value::from).or_else(|| self.mismatch(ty, value, "write true or false")),
            Type::S8 => self.integer(ty, value, i8::MIN.into(), i8::MAX.into()),
            Type::U8 => self.integer(ty, value, 0, u8::MAX.into()),
            Type::S16 => self.integer(ty, value, i16::MIN.into(), i16::MAX.into()),
            Type::U16 => self.integer(ty, value, 0, u16::MAX.into()),
            Type::S32 => self.integer(ty, value, i32::MIN.into(), i32::MAX.into()),
            Type::U32 => self.integer(ty, value, 0, u32::MAX.into()),
            Type::S64 => s64_from_json(value)
                .map(s64_to_json)
                .or_else(|| self.mismatch(ty, value, "write an integer, or its digits as a string")),
            Type::U64 => u64_from_json(value)
                .map(u64_to_json)
                .or_else(|| self.mismatch(ty, value, "write an integer from 0, or its digits as a string")),
            Type::F32 => f32_from_json(value).map(f32_to_json).or_else(|| self.mismatch(ty, value, FLOAT)),
            Type::F64 => f64_from_json(value).map(f64_to_json).or_else(|| self.mismatch(ty, value, FLOAT)),
            Type::Char => match value.as_str() {
                Some(text) if text.chars().count() == 1 => Some(value.clone()),
                _ => self.mismatch(ty, value, "write a string of one character"),
            },
            Type::String if value.is_string() => Some(value.clone()),
            Type::String => self.mismatch(ty, value, "put it in quotes"),
            Type::List(item) if **item == Type::U8 => self.bytes(ty, value),
            Type::List(item) => match value {
                Value::Array(values) => self.items(values.iter().map(|value| (&**item, value)), depth),
                _ => self.mismatch(ty, value, "write an array"),
            },
            Type::Tuple(types) => match value {
                Value::Array(values) if values.len() == types.len() => self.items(types.iter().zip(values), depth),
                _ => self.mismatch(ty, value, &format!("write an array of {}", types.len())),
            },
            Type::Record(fields) => self.record(fields, value, depth),
            Type::Variant(cases) => self.variant(ty, cases, value, depth),
            Type::Enum(names) => self.enumeration(ty, names, value),
            Type::Flags(names) => self.flags(ty, names, value),
            Type::Option(some) => self.option(ty, some, value, depth),
            Type::Result { ok, err } => self.result(ty, ok.as_deref(), err.as_deref(), value, depth),
            Type::Image | Type::Artifact => match ArtifactRef::from_json(value) {
                Some(artifact) => Some(artifact.to_json()),
                None => self.mismatch(
                    ty,
                    value,
                    r#"write {"$artifact": "sha256:...", "media_type": "..."}, with "name" if it has one"#,
                ),
            },
        }
    }

    fn integer(&mut self, ty: &Type, value: &Value, min: i64, max: i64) -> Option<Value> {
        let within = scalar::integer(value).and_then(|n| i64::try_from(n).ok()).filter(|n| (min..=max).contains(n));
        within.map(Value::from).or_else(|| self.mismatch(ty, value, &format!("write an integer from {min} to {max}")))
    }

    fn bytes(&mut self, ty: &Type, value: &Value) -> Option<Value> {
        self.nodes += value.as_array().map_or(0, Vec::len);
        bytes_from_json(value)
            .map(|bytes| bytes_to_json(&bytes))
            .or_else(|| self.mismatch(ty, value, "write base64, or an array of integers from 0 to 255"))
    }

    fn items<'a>(&mut self, items: impl Iterator<Item = (&'a Type, &'a Value)>, depth: usize) -> Option<Value> {
        let mut normal = Some(Vec::new());
        for (i, (ty, value)) in items.enumerate() {
            let item = self.within(&i.to_string(), |this| this.value(ty, value, depth + 1));
            normal = normal.zip(item).map(|(mut normal, item)| {
                normal.push(item);
                normal
            });
            if self.full() {
                return None;
            }
        }
        normal.map(Value::Array)
    }

    fn record(&mut self, fields: &[Field], value: &Value, depth: usize) -> Option<Value> {
        let Value::Object(given) = value else {
            return self.mismatch(&Type::Record(fields.to_vec()), value, "write an object");
        };
        let names: Vec<String> = fields.iter().map(|field| snake(&field.name)).collect();
        for unknown in given.keys().filter(|key| !names.contains(key)) {
            let known = names.iter().map(String::as_str);
            let hint = match did_you_mean(unknown, known.clone()) {
                none if none.is_empty() => format!("; there is {}", listed(known)),
                near => near,
            };
            let expected = Type::Record(fields.to_vec()).short();
            self.within(unknown, |this| {
                this.error(expected, given.get(unknown), format!("unknown field `{unknown}`{hint}"));
            });
        }
        let mut normal = Some(Map::new());
        for (field, name) in fields.iter().zip(names) {
            let one = self.within(&name, |this| match (given.get(&name), &field.ty) {
                (Some(value), ty) => this.value(ty, value, depth + 1),
                (None, Type::Option(_)) => Some(Value::Null),
                (None, ty) => {
                    this.error(ty.short(), None, format!("missing: expected {}", ty.short()));
                    None
                }
            });
            normal = normal.zip(one).map(|(mut normal, one)| {
                normal.insert(name, one);
                normal
            });
        }
        normal.map(Value::Object)
    }

    fn variant(&mut self, ty: &Type, cases: &[Case], value: &Value, depth: usize) -> Option<Value> {
        let names = || cases.iter().map(|case| snake(&case.name)).collect::<Vec<_>>();
        let tag = value.get("tag").and_then(Value::as_str);
        let stray = value.as_object().and_then(|fields| fields.keys().find(|key| *key != "tag" && *key != "val"));
        let (Some(tag), None) = (tag, stray) else {
            return self.mismatch(ty, value, r#"write {"tag": "case", "val": ...}"#);
        };
        let Some(case) = cases.iter().find(|case| snake(&case.name) == tag) else {
            return self.within("tag", |this| this.unknown_word(ty, tag, &names()));
        };
        let val = value.get("val").unwrap_or(&Value::Null);
        match &case.ty {
            None if val.is_null() => Some(json!({ "tag": tag })),
            None => self.within("val", |this| {
                this.error(ty.short(), Some(val), format!("the case `{tag}` has no payload: leave `val` out"));
                None
            }),
            Some(ty) => {
                self.within("val", |this| this.value(ty, val, depth + 1)).map(|val| json!({ "tag": tag, "val": val }))
            }
        }
    }

    fn enumeration(&mut self, ty: &Type, names: &[String], value: &Value) -> Option<Value> {
        let known: Vec<String> = names.iter().map(|name| snake(name)).collect();
        match value.as_str() {
            Some(word) if known.iter().any(|name| name == word) => Some(value.clone()),
            Some(word) => self.unknown_word(ty, word, &known),
            None => self.mismatch(ty, value, &format!("write one of {}", listed(known.iter().map(String::as_str)))),
        }
    }

    fn flags(&mut self, ty: &Type, names: &[String], value: &Value) -> Option<Value> {
        let known: Vec<String> = names.iter().map(|name| snake(name)).collect();
        let Value::Array(items) = value else {
            return self.mismatch(
                ty,
                value,
                &format!("write an array of {}", listed(known.iter().map(String::as_str))),
            );
        };
        let mut set = vec![false; known.len()];
        let mut good = true;
        for (i, item) in items.iter().enumerate() {
            let found = item.as_str().and_then(|word| known.iter().position(|name| name == word));
            good &= self.within(&i.to_string(), |this| match found {
                Some(flag) if set[flag] => {
                    this.error(ty.short(), Some(item), format!("the flag `{}` is named twice", known[flag]));
                    false
                }
                Some(flag) => {
                    set[flag] = true;
                    true
                }
                None => match item.as_str() {
                    Some(word) => this.unknown_word(ty, word, &known).is_some(),
                    None => this.mismatch(ty, item, "write strings").is_some(),
                },
            });
        }
        let flags: Vec<Value> =
            known.into_iter().zip(set).filter(|(_, set)| *set).map(|(name, _)| Value::from(name)).collect();
        good.then_some(Value::Array(flags))
    }

    fn unknown_word(&mut self, ty: &Type, word: &str, known: &[String]) -> Option<Value> {
        let names = || known.iter().map(String::as_str);
        let shown: String = word.chars().take(SHOWN).collect();
        let near = did_you_mean(word, names());
        self.error(ty.short(), Some(&Value::from(word)), format!("`{shown}` is none of {}{near}", listed(names())));
        None
    }

    fn option(&mut self, ty: &Type, some: &Type, value: &Value, depth: usize) -> Option<Value> {
        if value.is_null() {
            return Some(Value::Null);
        }
        if !matches!(some, Type::Option(_)) {
            return self.value(some, value, depth + 1);
        }
        match value.as_object().filter(|fields| fields.len() == 1).and_then(|fields| fields.get("some")) {
            Some(value) => {
                self.within("some", |this| this.value(some, value, depth + 1)).map(|value| json!({ "some": value }))
            }
            None => self.mismatch(ty, value, r#"write null or {"some": ...}"#),
        }
    }

    fn result(
        &mut self,
        ty: &Type,
        ok: Option<&Type>,
        err: Option<&Type>,
        value: &Value,
        depth: usize,
    ) -> Option<Value> {
        let one = value.as_object().filter(|fields| fields.len() == 1).and_then(|fields| fields.iter().next());
        let (name, payload, value) = match one {
            Some((name, value)) if name == "ok" => ("ok", ok, value),
            Some((name, value)) if name == "error" => ("error", err, value),
            _ => return self.mismatch(ty, value, r#"write {"ok": ...} or {"error": ...}"#),
        };
        let payload = self.within(name, |this| match payload {
            Some(ty) => this.value(ty, value, depth + 1),
            None if value.is_null() => Some(Value::Null),
            None => {
                this.error(ty.short(), Some(value), format!("`{name}` has no payload: write null"));
                None
            }
        });
        payload.map(|payload| json!({ name: payload }))
    }
}

const FLOAT: &str = r#"write a number within its range, or "NaN", "Infinity", "-Infinity""#;

#[cfg(test)]
mod tests;
