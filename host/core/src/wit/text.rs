//! For tests: parses the text form of [`Type`], so that a test can write `list<record { x: u32 }>`.

use super::{Case, Field, Signature, Type};

/// Parses one type.
///
/// # Errors
/// The place at which parsing stopped.
pub fn parse(text: &str) -> Result<Type, String> {
    let mut reader = Reader { rest: text };
    let ty = reader.ty()?;
    if reader.rest.trim().is_empty() { Ok(ty) } else { Err(reader.stuck("the end")) }
}

/// A signature whose fields are written `name: type`.
///
/// # Errors
/// The place at which parsing stopped.
pub fn signature(interface: &str, input: &[&str], output: &[&str]) -> Result<Signature, String> {
    let fields = |fields: &[&str]| match parse(&format!("record {{ {} }}", fields.join(", ")))? {
        Type::Record(fields) => Ok(fields),
        _ => Err("no record".to_owned()),
    };
    Ok(Signature { interface: interface.to_owned(), input: fields(input)?, output: fields(output)? })
}

struct Reader<'t> {
    rest: &'t str,
}

impl<'t> Reader<'t> {
    fn stuck(&self, wanted: &str) -> String {
        format!("expected {wanted} at `{}`", self.rest.chars().take(40).collect::<String>())
    }

    fn eat(&mut self, token: &str) -> bool {
        match self.rest.trim_start().strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.eat(token) { Ok(()) } else { Err(self.stuck(token)) }
    }

    fn word(&mut self) -> Result<&'t str, String> {
        let text = self.rest.trim_start();
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(text.len());
        if end == 0 {
            return Err(self.stuck("a name"));
        }
        self.rest = &text[end..];
        Ok(&text[..end])
    }

    /// Parses parts that are separated by commas, up to `end`.
    fn parts<T>(&mut self, end: &str, mut each: impl FnMut(&mut Self) -> Result<T, String>) -> Result<Vec<T>, String> {
        let mut parts = Vec::new();
        while !self.eat(end) {
            parts.push(each(self)?);
            if !self.eat(",") {
                self.expect(end)?;
                break;
            }
        }
        Ok(parts)
    }

    fn one(&mut self) -> Result<Box<Type>, String> {
        self.expect("<")?;
        let ty = self.ty()?;
        self.expect(">")?;
        Ok(Box::new(ty))
    }

    fn names(&mut self) -> Result<Vec<String>, String> {
        self.expect("{")?;
        self.parts("}", |reader| reader.word().map(str::to_owned))
    }

    fn ty(&mut self) -> Result<Type, String> {
        Ok(match self.word()? {
            "bool" => Type::Bool,
            "s8" => Type::S8,
            "u8" => Type::U8,
            "s16" => Type::S16,
            "u16" => Type::U16,
            "s32" => Type::S32,
            "u32" => Type::U32,
            "s64" => Type::S64,
            "u64" => Type::U64,
            "f32" => Type::F32,
            "f64" => Type::F64,
            "char" => Type::Char,
            "string" => Type::String,
            "image" => Type::Image,
            "artifact" => Type::Artifact,
            "list" => Type::List(self.one()?),
            "option" => Type::Option(self.one()?),
            "tuple" => {
                self.expect("<")?;
                Type::Tuple(self.parts(">", Self::ty)?)
            }
            "record" => {
                self.expect("{")?;
                Type::Record(self.parts("}", |reader| {
                    let name = reader.word()?.to_owned();
                    reader.expect(":")?;
                    Ok(Field { name, ty: reader.ty()? })
                })?)
            }
            "variant" => {
                self.expect("{")?;
                Type::Variant(self.parts("}", |reader| {
                    let name = reader.word()?.to_owned();
                    let ty = reader.eat("(").then(|| reader.ty()).transpose()?;
                    if ty.is_some() {
                        reader.expect(")")?;
                    }
                    Ok(Case { name, ty })
                })?)
            }
            "enum" => Type::Enum(self.names()?),
            "flags" => Type::Flags(self.names()?),
            "result" => {
                let mut sides = if self.eat("<") {
                    self.parts(
                        ">",
                        |reader| if reader.eat("_") { Ok(None) } else { reader.ty().map(|ty| Some(Box::new(ty))) },
                    )?
                } else {
                    Vec::new()
                };
                sides.resize(2, None);
                let err = sides.pop().flatten();
                Type::Result { ok: sides.pop().flatten(), err }
            }
            other => return Err(format!("`{other}` is not a valid type")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wit::arbitrary::any_type;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_displayed_can_be_read(ty in any_type()) {
            prop_assert_eq!(parse(&ty.to_string()), Ok(ty));
        }
    }
}
