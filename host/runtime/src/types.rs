//! Converts wasmtime's component types to core's types, with bounds: a component of 3 KB can denote a type of a million
//! nodes.
//!
//! Types are read after the linker has substituted the host's resources. Before that, an image and an artifact look the
//! same.

use dovetail_core::wit::{Case, Field, Type};
use wasmtime::component::ResourceType;
use wasmtime::component::types::{self, Type as Native};

use crate::handles::{Artifact, Image};
use crate::refusal::Refusal;
use crate::text::truncate;

/// The most nodes of a task's input type and output type together. A type counts as often as it occurs.
pub const MAX_TYPE_NODES: usize = 10_000;
/// The deepest nesting of a type.
pub const MAX_TYPE_DEPTH: usize = 32;

/// The longest name of a field, case or flag, in bytes. Names are recorded as often as their type occurs, and
/// WebAssembly allows 100,000 bytes.
pub const MAX_TYPE_NAME: usize = 256;

/// Reads types and counts their nodes.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    nodes: usize,
}

impl Reader {
    /// The fields of a record. `path` is the record's position (such as `input`), for errors.
    pub(crate) fn fields(&mut self, record: &types::Record, path: &str, depth: usize) -> Result<Vec<Field>, Refusal> {
        record
            .fields()
            .map(|field| {
                let name = name(field.name, path)?;
                Ok(Field { ty: self.read(&field.ty, &format!("{path}.{name}"), depth + 1)?, name })
            })
            .collect()
    }

    fn boxed(&mut self, ty: &Native, path: &str, depth: usize) -> Result<Box<Type>, Refusal> {
        self.read(ty, path, depth).map(Box::new)
    }

    /// Reads one type.
    pub(crate) fn read(&mut self, ty: &Native, path: &str, depth: usize) -> Result<Type, Refusal> {
        self.count(path)?;
        if depth > MAX_TYPE_DEPTH {
            return Err(too_deep(format!("the type at `{path}` is nested more than {MAX_TYPE_DEPTH} deep")));
        }
        let deeper = depth + 1;
        Ok(match ty {
            Native::Bool => Type::Bool,
            Native::S8 => Type::S8,
            Native::U8 => Type::U8,
            Native::S16 => Type::S16,
            Native::U16 => Type::U16,
            Native::S32 => Type::S32,
            Native::U32 => Type::U32,
            Native::S64 => Type::S64,
            Native::U64 => Type::U64,
            Native::Float32 => Type::F32,
            Native::Float64 => Type::F64,
            Native::Char => Type::Char,
            Native::String => Type::String,
            Native::List(list) => Type::List(self.boxed(&list.ty(), &format!("{path}[]"), deeper)?),
            Native::Tuple(tuple) => {
                let items = tuple.types().enumerate().map(|(n, ty)| self.read(&ty, &format!("{path}.{n}"), deeper));
                Type::Tuple(items.collect::<Result<_, _>>()?)
            }
            Native::Record(record) => Type::Record(self.fields(record, path, depth)?),
            Native::Variant(variant) => {
                let cases = variant.cases().map(|case| {
                    let name = name(case.name, path)?;
                    // A case without a value counts as a node as well.
                    let Some(ty) = &case.ty else {
                        self.count(path)?;
                        return Ok(Case { name, ty: None });
                    };
                    let ty = self.read(ty, &format!("{path}.{name}"), deeper)?;
                    Ok(Case { name, ty: Some(ty) })
                });
                Type::Variant(cases.collect::<Result<_, Refusal>>()?)
            }
            Native::Enum(names) => Type::Enum(self.names(names.names(), path)?),
            Native::Flags(names) => Type::Flags(self.names(names.names(), path)?),
            Native::Option(option) => Type::Option(self.boxed(&option.ty(), path, deeper)?),
            Native::Result(result) => Type::Result {
                ok: result.ok().map(|ty| self.boxed(&ty, &format!("{path}.ok"), deeper)).transpose()?,
                err: result.err().map(|ty| self.boxed(&ty, &format!("{path}.error"), deeper)).transpose()?,
            },
            Native::Own(resource) if *resource == ResourceType::host::<Image>() => Type::Image,
            Native::Own(resource) if *resource == ResourceType::host::<Artifact>() => Type::Artifact,
            Native::Own(_) => {
                return Err(foreign(path, "a resource other than the host's `image` and `artifact`"));
            }
            Native::Borrow(_) => return Err(foreign(path, "a borrowed handle")),
            Native::Future(_) => return Err(foreign(path, "a future")),
            Native::Stream(_) => return Err(foreign(path, "a stream")),
            Native::Map(_) => return Err(foreign(path, "a map")),
            Native::ErrorContext => return Err(foreign(path, "an error-context")),
            Native::FixedLengthList(_) => return Err(foreign(path, "a list of fixed length")),
        })
    }

    fn names<'a>(&mut self, names: impl Iterator<Item = &'a str>, path: &str) -> Result<Vec<String>, Refusal> {
        names
            .map(|one| {
                self.count(path)?;
                name(one, path)
            })
            .collect()
    }

    fn count(&mut self, path: &str) -> Result<(), Refusal> {
        self.nodes += 1;
        if self.nodes > MAX_TYPE_NODES {
            return Err(too_large(format!(
                "the types of input and output have more than {MAX_TYPE_NODES} parts (counted up to `{path}`)"
            )));
        }
        Ok(())
    }
}

fn name(name: &str, path: &str) -> Result<String, Refusal> {
    if name.len() > MAX_TYPE_NAME {
        return Err(Refusal::new(
            "name_too_long",
            format!("a name in `{path}` has {} bytes, more than {MAX_TYPE_NAME}: `{}`", name.len(), truncate(name, 80)),
            "shorten it",
        ));
    }
    Ok(name.to_owned())
}

/// Types with too many parts.
pub(crate) fn too_large(message: String) -> Refusal {
    Refusal::new("type_too_large", message, "use smaller records, or move bulk data into an artifact")
}

/// Types that are nested too deeply.
pub(crate) fn too_deep(message: String) -> Refusal {
    Refusal::new("type_too_deep", message, "flatten the records")
}

/// A type that cannot be recorded as data.
pub(crate) fn foreign(path: &str, what: &str) -> Refusal {
    Refusal::new(
        "unsupported_type",
        format!("`{path}` is or holds {what}, which cannot be recorded between two steps"),
        "use plain values; bulk data goes into an `artifact`, pictures into an `image`",
    )
}
