//! Types as text: WIT for people. The text is not a WIT file, because records and variants are written where they are
//! used, without names.

use std::fmt::{self, Display, Formatter};

use super::json::MAX_DEPTH;
use super::{Case, Field, Signature, Type};

/// The most characters of [`Type::short`].
const SHORT: usize = 120;
/// The column up to which [`signature`] keeps a type on one line.
const WIDTH: usize = 100;

impl Display for Type {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_type(f, self, usize::MAX)
    }
}

impl Type {
    /// The type in at most 120 characters. The innermost parts are shortened to `…` first.
    #[must_use]
    pub fn short(&self) -> String {
        self.within(SHORT)
    }

    /// The type in at most `most` characters. The innermost parts are shortened to `…` first.
    #[must_use]
    pub fn within(&self, most: usize) -> String {
        // Writing stops at the limit, so that a deep type is never written in full only to be dropped.
        for depth in (0..=MAX_DEPTH).rev() {
            let mut text = Bounded { text: String::new(), left: most };
            if write_type(&mut text, self, depth).is_ok() {
                return text.text;
            }
        }
        // The limit is too small even for one word.
        "…".to_owned()
    }
}

/// A text of limited length. Writing fails beyond the limit.
struct Bounded {
    text: String,
    left: usize,
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for c in s.chars() {
            self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
            self.text.push(c);
        }
        Ok(())
    }
}

/// Writes the type. Parts that are nested deeper than `depth` are written as `…`.
fn write_type(f: &mut dyn fmt::Write, ty: &Type, depth: usize) -> fmt::Result {
    let inner = depth.wrapping_sub(1);
    match ty {
        Type::Bool => f.write_str("bool"),
        Type::S8 => f.write_str("s8"),
        Type::U8 => f.write_str("u8"),
        Type::S16 => f.write_str("s16"),
        Type::U16 => f.write_str("u16"),
        Type::S32 => f.write_str("s32"),
        Type::U32 => f.write_str("u32"),
        Type::S64 => f.write_str("s64"),
        Type::U64 => f.write_str("u64"),
        Type::F32 => f.write_str("f32"),
        Type::F64 => f.write_str("f64"),
        Type::Char => f.write_str("char"),
        Type::String => f.write_str("string"),
        Type::Image => f.write_str("image"),
        Type::Artifact => f.write_str("artifact"),
        Type::Record(_) if depth == 0 => f.write_str("record {…}"),
        Type::Variant(_) if depth == 0 => f.write_str("variant {…}"),
        Type::Enum(_) if depth == 0 => f.write_str("enum {…}"),
        Type::Flags(_) if depth == 0 => f.write_str("flags {…}"),
        Type::List(_) if depth == 0 => f.write_str("list<…>"),
        Type::Option(_) if depth == 0 => f.write_str("option<…>"),
        Type::Tuple(_) if depth == 0 => f.write_str("tuple<…>"),
        Type::Result { .. } if depth == 0 => f.write_str("result<…>"),
        Type::List(item) => wrapped(f, "list", item, inner),
        Type::Option(some) => wrapped(f, "option", some, inner),
        Type::Tuple(items) => {
            f.write_str("tuple<")?;
            separated(f, items, |f, item| write_type(f, item, inner))?;
            f.write_str(">")
        }
        Type::Record(fields) => braced(f, "record", fields, |f, field| {
            write!(f, "{}: ", field.name)?;
            write_type(f, &field.ty, inner)
        }),
        Type::Variant(cases) => braced(f, "variant", cases, |f, case| {
            f.write_str(&case.name)?;
            let Some(ty) = &case.ty else { return Ok(()) };
            f.write_str("(")?;
            write_type(f, ty, inner)?;
            f.write_str(")")
        }),
        Type::Enum(names) => braced(f, "enum", names, |f, name| f.write_str(name)),
        Type::Flags(names) => braced(f, "flags", names, |f, name| f.write_str(name)),
        Type::Result { ok: None, err: None } => f.write_str("result"),
        Type::Result { ok: Some(ok), err: None } => wrapped(f, "result", ok, inner),
        Type::Result { ok, err: Some(err) } => {
            f.write_str("result<")?;
            match ok {
                Some(ok) => write_type(f, ok, inner)?,
                None => f.write_str("_")?,
            }
            f.write_str(", ")?;
            write_type(f, err, inner)?;
            f.write_str(">")
        }
    }
}

fn wrapped(f: &mut dyn fmt::Write, name: &str, ty: &Type, depth: usize) -> fmt::Result {
    write!(f, "{name}<")?;
    write_type(f, ty, depth)?;
    f.write_str(">")
}

fn separated<T>(
    f: &mut dyn fmt::Write,
    items: &[T],
    mut each: impl FnMut(&mut dyn fmt::Write, &T) -> fmt::Result,
) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        each(f, item)?;
    }
    Ok(())
}

fn braced<T>(
    f: &mut dyn fmt::Write,
    name: &str,
    items: &[T],
    each: impl FnMut(&mut dyn fmt::Write, &T) -> fmt::Result,
) -> fmt::Result {
    if items.is_empty() {
        return write!(f, "{name} {{}}");
    }
    write!(f, "{name} {{ ")?;
    separated(f, items, each)?;
    f.write_str(" }")
}

/// The input and output of a task over several lines, with wide records broken into lines. Has no line break at the
/// end.
#[must_use]
pub fn signature(signature: &Signature) -> String {
    let mut text = signature.interface.clone();
    for (title, fields) in [("input", &signature.input), ("output", &signature.output)] {
        let nothing = if fields.is_empty() { " (nothing)" } else { "" };
        text.push_str(&format!("\n  {title}{nothing}"));
        for field in fields {
            text.push_str(&format!("\n    {}: ", field.name));
            open(&mut text, &field.ty, 4);
        }
    }
    text
}

/// Writes `ty` on the current line if it fits, otherwise with one part per line. `indent` is the indentation of the
/// line.
fn open(text: &mut String, ty: &Type, indent: usize) {
    let line = ty.to_string();
    let column = text.len() - text.rfind('\n').map_or(0, |at| at + 1);
    if column + line.chars().count() <= WIDTH {
        text.push_str(&line);
        return;
    }
    match ty {
        Type::List(item) => around(text, "list", item, indent),
        Type::Option(some) => around(text, "option", some, indent),
        Type::Record(fields) => opened(text, "record", indent, fields, |text, Field { name, ty }| {
            text.push_str(&format!("{name}: "));
            open(text, ty, indent + 2);
        }),
        Type::Variant(cases) => opened(text, "variant", indent, cases, |text, Case { name, ty }| {
            text.push_str(name);
            if let Some(ty) = ty {
                text.push('(');
                open(text, ty, indent + 2);
                text.push(')');
            }
        }),
        Type::Enum(names) => opened(text, "enum", indent, names, |text, name| text.push_str(name)),
        Type::Flags(names) => opened(text, "flags", indent, names, |text, name| text.push_str(name)),
        _ => text.push_str(&line),
    }
}

fn around(text: &mut String, name: &str, ty: &Type, indent: usize) {
    text.push_str(&format!("{name}<"));
    open(text, ty, indent);
    text.push('>');
}

fn opened<T>(text: &mut String, name: &str, indent: usize, items: &[T], mut each: impl FnMut(&mut String, &T)) {
    text.push_str(&format!("{name} {{"));
    for item in items {
        text.push_str(&format!("\n{:1$}", "", indent + 2));
        each(text, item);
        text.push(',');
    }
    text.push_str(&format!("\n{:1$}}}", "", indent));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(fields: &[(&str, Type)]) -> Type {
        Type::Record(fields.iter().map(|(name, ty)| Field { name: (*name).to_owned(), ty: ty.clone() }).collect())
    }

    fn list(ty: Type) -> Type {
        Type::List(Box::new(ty))
    }

    #[test]
    fn reads_as_wit() {
        let face = record(&[("face-id", Type::U32), ("box", Type::Tuple(vec![Type::F32, Type::F32]))]);
        assert_eq!(list(face).to_string(), "list<record { face-id: u32, box: tuple<f32, f32> }>");
        let result = |ok, err| Type::Result { ok, err }.to_string();
        assert_eq!(result(None, None), "result");
        assert_eq!(result(None, Some(Box::new(Type::String))), "result<_, string>");
        assert_eq!(result(Some(Box::new(Type::U8)), Some(Box::new(Type::String))), "result<u8, string>");
        let variant = Type::Variant(vec![
            Case { name: "none".to_owned(), ty: None },
            Case { name: "some".to_owned(), ty: Some(Type::Option(Box::new(Type::Image))) },
        ]);
        assert_eq!(variant.to_string(), "variant { none, some(option<image>) }");
        assert_eq!(record(&[]).to_string(), "record {}");
        assert_eq!(Type::Flags(vec!["a".to_owned(), "b".to_owned()]).to_string(), "flags { a, b }");
    }

    #[test]
    fn short_leaves_out_the_innermost_parts_first() {
        let deep =
            record(&[("inner", record(&[("a", Type::Enum(vec!["x".repeat(60), "y".repeat(60)])), ("b", Type::U8)]))]);
        assert_eq!(deep.short(), "record { inner: record { a: enum {…}, b: u8 } }");
        let wide = Type::Record((0..100).map(|n| Field { name: format!("field-{n}"), ty: Type::U8 }).collect());
        assert_eq!(list(wide.clone()).short(), "list<record {…}>");
        assert_eq!(Type::Tuple(vec![wide; 40]).short(), "tuple<…>");
        assert_eq!(Type::U8.short(), "u8");
    }

    #[test]
    fn a_type_that_doubles_at_every_level_is_shortened_at_once() {
        let mut ty = Type::U8;
        for _ in 0..20 {
            ty = record(&[("l", ty.clone()), ("r", ty)]);
        }
        assert!(ty.short().chars().count() <= 120, "{}", ty.short());
    }

    #[test]
    fn a_wide_signature_is_opened_out() {
        let face = record(&[
            ("face-id", Type::U32),
            ("a-rather-long-name-of-a-field", Type::F32),
            ("another-long-name-of-a-field", Type::F32),
        ]);
        let text = signature(&Signature {
            interface: "dovetail:x/task@1.0.0".to_owned(),
            input: vec![Field { name: "image".to_owned(), ty: Type::Image }],
            output: vec![Field { name: "faces".to_owned(), ty: list(face) }],
        });
        assert_eq!(
            text,
            "dovetail:x/task@1.0.0
  input
    image: image
  output
    faces: list<record {
      face-id: u32,
      a-rather-long-name-of-a-field: f32,
      another-long-name-of-a-field: f32,
    }>"
        );
        let empty = Signature { interface: "i".to_owned(), input: vec![], output: vec![] };
        assert_eq!(signature(&empty), "i\n  input (nothing)\n  output (nothing)");
    }
}
