//! Infers the type of a pipeline's input from the fields that it feeds: the narrowest type that fits all of them.
//!
//! The inference never converts types. If two consumers need different numeric types, one of these types must be
//! assignable to the other. Records are the exception: if one consumer needs `{x}` and another needs `{y}`, the
//! inferred record has both fields.

use crate::wit::{Assign, Field, Type, assign, kebab};

/// A consumer of an input.
pub(super) struct Need<'a> {
    /// The part of the input that it reads: fields of nested records in snake_case; empty for the whole input.
    pub(super) path: &'a [String],
    /// The type that it needs.
    pub(super) ty: &'a Type,
}

/// Two consumers that no type fits, as indices in the list of needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    pub(super) first: usize,
    pub(super) second: usize,
}

/// The type that fits all `needs`; `None` if there are no needs.
pub(super) fn infer(needs: &[Need<'_>]) -> Result<Option<Type>, Conflict> {
    let all: Vec<Read<'_>> = needs.iter().enumerate().map(|(i, need)| (i, need.path, need.ty)).collect();
    Ok(narrow(&all)?.map(|(_, ty)| ty))
}

/// A need: its index in the list, the part that it reads, the type that it needs.
type Read<'a> = (usize, &'a [String], &'a Type);

/// The inferred type, and the index of the first need that contributed to it.
fn narrow(needs: &[Read<'_>]) -> Result<Option<(usize, Type)>, Conflict> {
    let mut wanted: Vec<(usize, Type)> = Vec::new();
    let mut parts: Vec<(&str, Vec<Read<'_>>)> = Vec::new();
    for (i, path, ty) in needs {
        match path.split_first() {
            None => wanted.push((*i, (*ty).clone())),
            Some((name, rest)) => match parts.iter_mut().find(|(part, _)| part == name) {
                Some((_, group)) => group.push((*i, rest, *ty)),
                None => parts.push((name.as_str(), vec![(*i, rest, *ty)])),
            },
        }
    }
    // The needs that read parts together need a record with these parts.
    let mut fields = Vec::new();
    let mut reader = None;
    for (name, group) in &parts {
        if let Some((i, ty)) = narrow(group)? {
            reader.get_or_insert(i);
            fields.push(Field { name: kebab(name), ty });
        }
    }
    if let Some(i) = reader {
        wanted.push((i, Type::Record(fields)));
    }
    let mut wanted = wanted.into_iter();
    let Some((first, mut ty)) = wanted.next() else { return Ok(None) };
    for (i, other) in wanted {
        ty = meet(&ty, &other).ok_or(Conflict { first, second: i })?;
    }
    Ok(Some((first, ty)))
}

/// A type that is assignable to both types.
fn meet(a: &Type, b: &Type) -> Option<Type> {
    let met = match (a, b) {
        (a, b) if a == b => return Some(a.clone()),
        (Type::Option(a), Type::Option(b)) => Type::Option(Box::new(meet(a, b)?)),
        (Type::Option(a), b) | (b, Type::Option(a)) => meet(a, b)?,
        (Type::List(a), Type::List(b)) => Type::List(Box::new(meet(a, b)?)),
        (Type::Tuple(a), Type::Tuple(b)) if a.len() == b.len() => {
            Type::Tuple(a.iter().zip(b).map(|(a, b)| meet(a, b)).collect::<Option<_>>()?)
        }
        (Type::Record(a), Type::Record(b)) => {
            let mut fields = a.clone();
            for field in b {
                match fields.iter_mut().find(|other| other.name == field.name) {
                    Some(other) => other.ty = meet(&other.ty, &field.ty)?,
                    None => fields.push(field.clone()),
                }
            }
            Type::Record(fields)
        }
        (a, b) if fits(a, b) => a.clone(),
        (a, b) if fits(b, a) => b.clone(),
        _ => return None,
    };
    (fits(&met, a) && fits(&met, b)).then_some(met)
}

fn fits(from: &Type, to: &Type) -> bool {
    !matches!(assign(from, to), Assign::No { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wit::arbitrary::{any_type, wider};
    use proptest::prelude::*;

    fn all(types: &[Type]) -> Result<Option<Type>, Conflict> {
        infer(&types.iter().map(|ty| Need { path: &[], ty }).collect::<Vec<_>>())
    }

    fn option(ty: Type) -> Type {
        Type::Option(Box::new(ty))
    }

    fn record(fields: &[(&str, Type)]) -> Type {
        Type::Record(fields.iter().map(|(name, ty)| Field { name: (*name).to_owned(), ty: ty.clone() }).collect())
    }

    #[test]
    fn the_narrowest_that_fits_all() {
        assert_eq!(all(&[]), Ok(None));
        assert_eq!(all(&[Type::F64, Type::F32]), Ok(Some(Type::F32)));
        assert_eq!(all(&[option(Type::U32), Type::U8, option(Type::U64)]), Ok(Some(Type::U8)));
        assert_eq!(all(&[option(Type::U32), option(Type::U8)]), Ok(Some(option(Type::U8))));
        assert_eq!(
            all(&[record(&[("x", Type::U8)]), record(&[("y", option(Type::U8))])]),
            Ok(Some(record(&[("x", Type::U8), ("y", option(Type::U8))])))
        );
        assert_eq!(all(&[Type::Image, Type::Image, Type::String]), Err(Conflict { first: 0, second: 2 }));
        assert_eq!(all(&[Type::U16, Type::S16]), Err(Conflict { first: 0, second: 1 }));
    }

    #[test]
    fn parts_make_a_record() {
        let (x, area) = (vec!["top_left".to_owned(), "x".to_owned()], vec!["area".to_owned()]);
        let needs =
            [Need { path: &x, ty: &Type::F64 }, Need { path: &area, ty: &Type::U8 }, Need { path: &x, ty: &Type::F32 }];
        let whole = record(&[("top-left", record(&[("x", Type::F32)])), ("area", Type::U8)]);
        assert_eq!(infer(&needs), Ok(Some(whole)));
        let clash = [Need { path: &[], ty: &Type::Image }, Need { path: &area, ty: &Type::U8 }];
        assert_eq!(infer(&clash), Err(Conflict { first: 0, second: 1 }));
    }

    proptest! {
        #[test]
        fn what_is_inferred_fits_every_consumer(
            types in any_type().prop_flat_map(|ty| vec![wider(&ty), wider(&ty), wider(&ty)]),
        ) {
            if let Ok(Some(ty)) = all(&types) {
                for consumer in &types {
                    prop_assert!(fits(&ty, consumer), "{} -> {}", ty, consumer);
                }
            }
        }
    }
}
