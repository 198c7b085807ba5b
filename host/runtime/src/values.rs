//! Converts JSON to component values and back, by type. Records are built in the type's own field order, because
//! lowering requires every field by name and in order.
//!
//! Core has checked the input and brought it into its normal form. An input that still does not match is refused with
//! the name of the field; it never causes a panic. The output is in the normal form too, and its size is bounded while
//! it is built.

use dovetail_core::blobs::ArtifactRef;
use dovetail_core::executor::{Failure, FailureKind};
use dovetail_core::manifest::show_size;
use dovetail_core::wit::{Field, Type, json, kebab, snake};
use serde_json::{Map, Value};
use wasmtime::Store;
use wasmtime::component::{Resource, ResourceAny, Val};

use crate::handles::{Artifact, Image};
use crate::outcome::AttemptEnd;
use crate::state::State;

/// Stores a host object in the handle table and gives the guest a handle.
fn give<T: Send + 'static>(store: &mut Store<State>, object: T) -> wasmtime::Result<Val> {
    let handle: Resource<T> = store.data_mut().table.push(object)?;
    Ok(Val::Resource(ResourceAny::try_from_resource(handle, store)?))
}

/// Takes a returned handle's object out of the handle table.
fn take<T: Send + 'static>(store: &mut Store<State>, handle: ResourceAny) -> wasmtime::Result<T> {
    let handle = handle.try_into_resource::<T>(&mut *store)?;
    Ok(store.data_mut().table.delete(handle)?)
}

/// The position of a value in the input. It is formatted only for errors, because most values are numbers in long
/// lists.
#[derive(Clone, Copy)]
enum At<'p> {
    Input,
    Field(&'p At<'p>, &'p str),
    Item(&'p At<'p>, usize),
}

impl std::fmt::Display for At<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Input => Ok(()),
            Self::Field(Self::Input, name) => f.write_str(name),
            Self::Field(of, name) => write!(f, "{of}.{name}"),
            Self::Item(of, n) => write!(f, "{of}[{n}]"),
        }
    }
}

fn bad_input(at: &At<'_>, expected: &str) -> wasmtime::Error {
    let at = if matches!(at, At::Input) { "the input".to_owned() } else { format!("`{at}`") };
    wasmtime::Error::new(AttemptEnd::Failed(Box::new(Failure::new(
        FailureKind::InvalidInput,
        "bad_input",
        format!("{at}: expected {expected}"),
    ))))
}

/// Converts the input record.
///
/// # Errors
/// `bad_input` with the name of the field.
pub(crate) fn input(store: &mut Store<State>, fields: &[Field], value: &Value) -> wasmtime::Result<Val> {
    lower_record(store, fields, value, &At::Input)
}

fn lower_record(store: &mut Store<State>, fields: &[Field], value: &Value, at: &At<'_>) -> wasmtime::Result<Val> {
    let object = value.as_object().ok_or_else(|| bad_input(at, "an object"))?;
    let mut out = Vec::with_capacity(fields.len());
    for field in fields {
        let name = snake(&field.name);
        let value = object.get(&name).unwrap_or(&Value::Null);
        out.push((field.name.clone(), lower(store, &field.ty, value, &At::Field(at, &name))?));
    }
    Ok(Val::Record(out))
}

fn integer<T: TryFrom<i64>>(value: &Value, at: &At<'_>, expected: &str) -> wasmtime::Result<T> {
    json::s64_from_json(value).and_then(|n| T::try_from(n).ok()).ok_or_else(|| bad_input(at, expected))
}

fn lower(store: &mut Store<State>, ty: &Type, value: &Value, at: &At<'_>) -> wasmtime::Result<Val> {
    let bad = |expected: &str| bad_input(at, expected);
    Ok(match ty {
        Type::Bool => Val::Bool(value.as_bool().ok_or_else(|| bad("true or false"))?),
        Type::S8 => Val::S8(integer(value, at, "an s8")?),
        Type::U8 => Val::U8(integer(value, at, "a u8")?),
        Type::S16 => Val::S16(integer(value, at, "an s16")?),
        Type::U16 => Val::U16(integer(value, at, "a u16")?),
        Type::S32 => Val::S32(integer(value, at, "an s32")?),
        Type::U32 => Val::U32(integer(value, at, "a u32")?),
        Type::S64 => Val::S64(json::s64_from_json(value).ok_or_else(|| bad("an s64"))?),
        Type::U64 => Val::U64(json::u64_from_json(value).ok_or_else(|| bad("a u64"))?),
        Type::F32 => Val::Float32(json::f32_from_json(value).ok_or_else(|| bad("a number"))?),
        Type::F64 => Val::Float64(json::f64_from_json(value).ok_or_else(|| bad("a number"))?),
        Type::Char => {
            let mut chars = value.as_str().unwrap_or_default().chars();
            match (chars.next(), chars.next()) {
                (Some(c), None) => Val::Char(c),
                _ => return Err(bad("a string of one character")),
            }
        }
        Type::String => Val::String(value.as_str().ok_or_else(|| bad("a string"))?.to_owned()),
        Type::List(item) if **item == Type::U8 => {
            let bytes = json::bytes_from_json(value).ok_or_else(|| bad("bytes in base64"))?;
            Val::List(bytes.into_iter().map(Val::U8).collect())
        }
        Type::List(item) => {
            let items = value.as_array().ok_or_else(|| bad("a list"))?;
            let items = items.iter().enumerate().map(|(n, value)| lower(store, item, value, &At::Item(at, n)));
            Val::List(items.collect::<Result<_, _>>()?)
        }
        Type::Tuple(types) => {
            let items = value
                .as_array()
                .filter(|items| items.len() == types.len())
                .ok_or_else(|| bad(&format!("a list of {} items", types.len())))?;
            let items =
                types.iter().zip(items).enumerate().map(|(n, (ty, value))| lower(store, ty, value, &At::Item(at, n)));
            Val::Tuple(items.collect::<Result<_, _>>()?)
        }
        Type::Record(fields) => lower_record(store, fields, value, at)?,
        Type::Variant(cases) => {
            let tag = value
                .get("tag")
                .and_then(Value::as_str)
                .ok_or_else(|| bad("a variant: {\"tag\": ..., \"val\": ...}"))?;
            let case =
                cases.iter().find(|case| snake(&case.name) == tag).ok_or_else(|| bad("one of the variant's tags"))?;
            let payload = value.get("val").unwrap_or(&Value::Null);
            let payload =
                case.ty.as_ref().map(|ty| lower(store, ty, payload, &At::Field(at, tag)).map(Box::new)).transpose()?;
            Val::Variant(case.name.clone(), payload)
        }
        Type::Enum(names) => {
            let wanted = value.as_str().ok_or_else(|| bad("one of the enum's names"))?;
            Val::Enum(
                names.iter().find(|name| snake(name) == wanted).ok_or_else(|| bad("one of the enum's names"))?.clone(),
            )
        }
        Type::Flags(names) => {
            let set = value.as_array().ok_or_else(|| bad("a list of flags"))?;
            let known = |flag: &Value| flag.as_str().is_some_and(|flag| names.iter().any(|name| snake(name) == flag));
            if !set.iter().all(known) {
                return Err(bad("a list of the type's flags"));
            }
            Val::Flags(
                set.iter()
                    .filter_map(Value::as_str)
                    .map(|flag| names.iter().find(|name| snake(name) == flag).cloned().unwrap_or_else(|| kebab(flag)))
                    .collect(),
            )
        }
        Type::Option(inner) => {
            let present = match (value, inner.as_ref()) {
                (Value::Null, _) => None,
                (value, Type::Option(_)) => Some(value.get("some").ok_or_else(|| bad("null or {\"some\": ...}"))?),
                (value, _) => Some(value),
            };
            Val::Option(present.map(|value| lower(store, inner, value, at).map(Box::new)).transpose()?)
        }
        Type::Result { ok, err } => {
            let mut side = |ty: &Option<Box<Type>>, value: &Value, name: &str| {
                ty.as_ref().map(|ty| lower(store, ty, value, &At::Field(at, name)).map(Box::new)).transpose()
            };
            match (value.get("ok"), value.get("error")) {
                (Some(value), None) => Val::Result(Ok(side(ok, value, "ok")?)),
                (None, Some(value)) => Val::Result(Err(side(err, value, "error")?)),
                _ => return Err(bad("a result: {\"ok\": ...} or {\"error\": ...}")),
            }
        }
        Type::Image => {
            let reference = ArtifactRef::from_json(value)
                .ok_or_else(|| bad("an image: {\"$artifact\": \"sha256:...\", \"media_type\": ...}"))?;
            give(store, Image { reference: Some(reference), decoded: None })?
        }
        Type::Artifact => {
            let reference = ArtifactRef::from_json(value)
                .ok_or_else(|| bad("an artifact: {\"$artifact\": \"sha256:...\", \"media_type\": ...}"))?;
            give(store, Artifact { reference, size: None, bytes: None })?
        }
    })
}

/// Converts the task's output to JSON.
pub(crate) struct Output<'s> {
    store: &'s mut Store<State>,
    limit: u64,
    /// A lower bound of the JSON's size so far, in bytes.
    size: u64,
}

impl<'s> Output<'s> {
    pub(crate) fn new(store: &'s mut Store<State>) -> Self {
        let limit = store.data().attempt.limits.output;
        Self { store, limit, size: 0 }
    }

    /// The output record, and its exact size as compact JSON in bytes.
    ///
    /// # Errors
    /// `output_too_large`; the errors of storing an image of the output.
    pub(crate) fn record(mut self, fields: &[Field], value: Option<Val>) -> wasmtime::Result<(Value, u64)> {
        let value = match value {
            Some(value) => self.fields(fields, value)?,
            None => Value::Object(Map::new()),
        };
        let mut counter = Counter { left: self.limit };
        match serde_json::to_writer(&mut counter, &value) {
            Ok(()) => Ok((value, self.limit - counter.left)),
            Err(_) => Err(self.too_large()),
        }
    }

    fn too_large(&self) -> wasmtime::Error {
        let failure = Failure::new(
            FailureKind::BadOutput,
            "output_too_large",
            format!(
                "the output is larger than its limit of {} as JSON: write bulk data into an artifact and return that",
                show_size(self.limit)
            ),
        );
        wasmtime::Error::new(AttemptEnd::Failed(Box::new(failure)))
    }

    /// Counts `bytes` more bytes of JSON.
    fn spend(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.size += bytes as u64;
        if self.size > self.limit { Err(self.too_large()) } else { Ok(()) }
    }

    fn fields(&mut self, fields: &[Field], value: Val) -> wasmtime::Result<Value> {
        let Val::Record(values) = value else {
            return Err(mismatch("a record"));
        };
        let mut object = Map::with_capacity(fields.len());
        for (field, (_, value)) in fields.iter().zip(values) {
            self.spend(field.name.len() + 4)?;
            object.insert(snake(&field.name), self.lift(&field.ty, value)?);
        }
        Ok(Value::Object(object))
    }

    fn boxed(&mut self, ty: Option<&Type>, value: Option<Box<Val>>) -> wasmtime::Result<Value> {
        match (ty, value) {
            (Some(ty), Some(value)) => self.lift(ty, *value),
            (None, None) => Ok(Value::Null),
            _ => Err(mismatch("a payload")),
        }
    }

    fn text(&mut self, text: String) -> wasmtime::Result<Value> {
        self.spend(text.len() + 2)?;
        Ok(Value::String(text))
    }

    fn lift(&mut self, ty: &Type, value: Val) -> wasmtime::Result<Value> {
        self.spend(1)?;
        Ok(match (ty, value) {
            (Type::Bool, Val::Bool(v)) => v.into(),
            (Type::S8, Val::S8(v)) => v.into(),
            (Type::U8, Val::U8(v)) => v.into(),
            (Type::S16, Val::S16(v)) => v.into(),
            (Type::U16, Val::U16(v)) => v.into(),
            (Type::S32, Val::S32(v)) => v.into(),
            (Type::U32, Val::U32(v)) => v.into(),
            (Type::S64, Val::S64(v)) => json::s64_to_json(v),
            (Type::U64, Val::U64(v)) => json::u64_to_json(v),
            (Type::F32, Val::Float32(v)) => json::f32_to_json(v),
            (Type::F64, Val::Float64(v)) => json::f64_to_json(v),
            (Type::Char, Val::Char(v)) => self.text(v.to_string())?,
            (Type::String, Val::String(v)) => self.text(v)?,
            (Type::List(item), Val::List(values)) if **item == Type::U8 => {
                self.spend(values.len().div_ceil(3) * 4 + 1)?;
                let bytes = values
                    .into_iter()
                    .map(|value| if let Val::U8(byte) = value { Ok(byte) } else { Err(mismatch("a byte")) });
                json::bytes_to_json(&bytes.collect::<Result<Vec<u8>, _>>()?)
            }
            (Type::List(item), Val::List(values)) => {
                self.spend(values.len())?;
                Value::Array(values.into_iter().map(|value| self.lift(item, value)).collect::<Result<_, _>>()?)
            }
            (Type::Tuple(types), Val::Tuple(values)) => Value::Array(
                types.iter().zip(values).map(|(ty, value)| self.lift(ty, value)).collect::<Result<_, _>>()?,
            ),
            (Type::Record(fields), value @ Val::Record(_)) => self.fields(fields, value)?,
            (Type::Variant(cases), Val::Variant(name, payload)) => {
                let case = cases.iter().find(|case| case.name == name).ok_or_else(|| mismatch("a case"))?;
                let mut object = Map::new();
                object.insert("tag".to_owned(), self.text(snake(&name))?);
                if case.ty.is_some() {
                    object.insert("val".to_owned(), self.boxed(case.ty.as_ref(), payload)?);
                }
                Value::Object(object)
            }
            (Type::Enum(_), Val::Enum(name)) => self.text(snake(&name))?,
            (Type::Flags(names), Val::Flags(set)) => {
                let mut flags = Vec::new();
                for name in names.iter().filter(|name| set.contains(name)) {
                    flags.push(self.text(snake(name))?);
                }
                Value::Array(flags)
            }
            (Type::Option(_), Val::Option(None)) => Value::Null,
            (Type::Option(inner), Val::Option(Some(value))) => {
                let value = self.lift(inner, *value)?;
                if matches!(**inner, Type::Option(_)) {
                    Value::Object(Map::from_iter([("some".to_owned(), value)]))
                } else {
                    value
                }
            }
            (Type::Result { ok, .. }, Val::Result(Ok(value))) => {
                Value::Object(Map::from_iter([("ok".to_owned(), self.boxed(ok.as_deref(), value)?)]))
            }
            (Type::Result { err, .. }, Val::Result(Err(value))) => {
                Value::Object(Map::from_iter([("error".to_owned(), self.boxed(err.as_deref(), value)?)]))
            }
            (Type::Image, Val::Resource(handle)) => self.image(handle)?,
            (Type::Artifact, Val::Resource(handle)) => {
                let artifact: Artifact = take(self.store, handle)?;
                self.reference(&artifact.reference)?
            }
            (ty, _) => return Err(mismatch(&ty.short())),
        })
    }

    fn reference(&mut self, reference: &ArtifactRef) -> wasmtime::Result<Value> {
        let value = reference.to_json();
        self.spend(100)?;
        Ok(value)
    }

    /// The artifact that the image was opened from, or a new artifact with its pixels as PNG.
    fn image(&mut self, handle: ResourceAny) -> wasmtime::Result<Value> {
        let image: Image = take(self.store, handle)?;
        let state = self.store.data_mut();
        state.release_image(&image);
        let reference = match (image.reference, image.decoded) {
            (Some(reference), _) => reference,
            (None, Some(pixels)) => {
                let encoded = state.host("encode the output", |state| {
                    state
                        .vision
                        .encode(&pixels, "image/png", None, &state.stop)
                        .map_err(|error| crate::state::end(state.vision_fault(error)))
                })?;
                state.store_bytes("image/png".to_owned(), &encoded).map_err(crate::state::end)?
            }
            (None, None) => {
                return Err(wasmtime::Error::new(AttemptEnd::Host(crate::state::broken(
                    "an image has neither pixels nor an artifact",
                ))));
            }
        };
        self.reference(&reference)
    }
}

/// The types were read from the component itself, so a mismatch is a defect of the host.
fn mismatch(expected: &str) -> wasmtime::Error {
    wasmtime::Error::new(AttemptEnd::Host(crate::state::broken(&format!("read the output: expected {expected}"))))
}

/// Counts the bytes of a serialised value without keeping them, and fails at a limit.
struct Counter {
    left: u64,
}

impl std::io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.left.checked_sub(bytes.len() as u64) {
            Some(left) => {
                self.left = left;
                Ok(bytes.len())
            }
            None => Err(std::io::ErrorKind::FileTooLarge.into()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
