//! Makes typed JSON values from `--input` and `--each`. Files are read; nothing is stored yet.

mod files;
mod pattern;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use dovetail_service::Error;
use dovetail_service::files::{MAX_ARTIFACT, bounded, read};
use dovetail_service::inputs::{InputTypes, Inputs, JsonError, Type, duplicate, members, snake, value};
use dovetail_service::paths::{Shown as _, path_of};
use serde_json::Value;

use crate::streams;

pub(crate) use files::Each;

/// The largest JSON file, in bytes. A value has at most 4 MiB; the file may have spaces as well.
const MAX_JSON: u64 = 16 << 20;

/// The source of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// The text in the argument.
    Text(String),
    File(PathBuf),
    Stdin,
}

impl Source {
    /// The source in the bytes after `=`; None for a text that is not UTF-8.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = |bytes| std::str::from_utf8(bytes).ok().map(|text| Self::Text(text.to_owned()));
        match bytes.strip_prefix(b"@") {
            None => text(bytes),
            Some(b"-") => Some(Self::Stdin),
            // `@@x` is the literal `@x`.
            Some(rest) if rest.starts_with(b"@") => text(rest),
            Some(path) => Some(Self::File(path_of(path))),
        }
    }
}

/// The sources in the arguments.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Given {
    /// The file with all inputs: `--input @all.json`.
    whole: Option<Source>,
    named: Vec<(String, Source)>,
}

impl Given {
    /// Parses the values of `--input`.
    pub(crate) fn parse(args: &[impl AsRef<OsStr>]) -> Result<Self, Error> {
        let mut given = Self::default();
        for arg in args {
            let (arg, bytes) = (arg.as_ref().shown(), arg.as_ref().as_bytes());
            let not_text = || {
                Error::usage("bad_input", format!("`--input {arg}` is not UTF-8 text"))
                    .help("only the name of a file may have other bytes: NAME=@FILE")
            };
            if bytes.starts_with(b"@") && !bytes.starts_with(b"@@") {
                if given.whole.replace(Source::parse(bytes).ok_or_else(not_text)?).is_some() {
                    return Err(Error::usage("input_twice", "the whole input object is given twice")
                        .help("write `--input @FILE` once"));
                }
                continue;
            }
            let Some(at) = bytes.iter().position(|b| *b == b'=') else {
                return Err(Error::usage("bad_input", format!("`--input {arg}` has no value"))
                    .help("write --input NAME=VALUE, --input NAME=@FILE or --input @FILE.json"));
            };
            let name = std::str::from_utf8(&bytes[..at]).map_err(|_| not_text())?;
            if name.is_empty() {
                return Err(
                    Error::usage("bad_input", format!("`--input {arg}` has no name")).help("write --input NAME=VALUE")
                );
            }
            if given.named.iter().any(|(other, _)| other == name) {
                return Err(twice(name));
            }
            given.named.push((name.to_owned(), Source::parse(&bytes[at + 1..]).ok_or_else(not_text)?));
        }
        let stdin = given
            .named
            .iter()
            .map(|(_, source)| source)
            .chain(&given.whole)
            .filter(|source| **source == Source::Stdin)
            .count();
        if stdin > 1 {
            return Err(
                Error::usage("stdin_twice", "standard input is given to several inputs").help("write `@-` once")
            );
        }
        Ok(given)
    }

    /// Whether the input of this name has a value of its own.
    pub(crate) fn names(&self, name: &str) -> bool {
        self.named.iter().any(|(other, _)| other == name)
    }
}

fn twice(name: &str) -> Error {
    Error::usage("input_twice", format!("the input `{name}` is given twice"))
        .help("give each input once; --each makes one run for each of many files")
        .detail("input", name)
}

/// Reads all sources.
pub(crate) fn read_inputs(given: &Given, types: &InputTypes) -> Result<Inputs, Error> {
    let mut reader = Reader::default();
    reader.read(given, types)?;
    Ok(reader.inputs)
}

/// Sets one input to the content of a file.
pub(crate) fn set_file(inputs: &mut Inputs, name: &str, ty: &Type, path: &Path) -> Result<(), Error> {
    let mut reader = Reader { inputs: std::mem::take(inputs) };
    let value = reader.value(name, ty, &Source::File(path.to_owned()));
    *inputs = reader.inputs;
    inputs.values.insert(name.to_owned(), value?);
    Ok(())
}

/// Reads values and the files that they name.
#[derive(Default)]
struct Reader {
    inputs: Inputs,
}

impl Reader {
    fn read(&mut self, given: &Given, types: &InputTypes) -> Result<(), Error> {
        if let Some(source) = &given.whole {
            let (text, base, shown) = match source {
                Source::File(path) => {
                    (text_of(path)?, path.parent().unwrap_or(Path::new(".")).to_owned(), format!("`{}`", path.shown()))
                }
                _ => (text_of_stdin()?, PathBuf::from("."), "standard input".to_owned()),
            };
            for (name, mut value) in object(&text, &shown)? {
                let ty = types.ty(&name)?;
                self.files(ty, &mut value, &base)?;
                if self.inputs.values.insert(name.clone(), value).is_some() || given.names(&name) {
                    return Err(twice(&name));
                }
            }
        }
        for (name, source) in &given.named {
            let ty = types.ty(name)?;
            let value = self.value(name, ty, source)?;
            self.inputs.values.insert(name.clone(), value);
        }
        Ok(())
    }

    fn value(&mut self, name: &str, ty: &Type, source: &Source) -> Result<Value, Error> {
        let plain = without_option(ty);
        let (text, base) = match (source, plain) {
            (Source::Text(text), Type::String | Type::Char | Type::Enum(_)) => return Ok(Value::from(text.as_str())),
            (Source::Text(text), Type::Image | Type::Artifact) if !text.trim_start().starts_with('{') => {
                let message = format!("the input `{name}` takes {}, but `{text}` is text", an(plain));
                // The text of `@@photo.jpg` is `@photo.jpg`. The user means the file.
                let file = Some(text.trim_start_matches('@')).filter(|file| !file.is_empty()).unwrap_or("FILE");
                return Err(Error::usage("bad_input", message).help(format!("for a file, write {name}=@{file}")));
            }
            (Source::Text(text), _) => (text.clone(), PathBuf::from(".")),
            (Source::File(path), Type::Image | Type::Artifact) => return self.artifact(path),
            (Source::Stdin, Type::Image | Type::Artifact) => {
                let bytes =
                    stdin(MAX_ARTIFACT).map_err(|e| Error::usage("unreadable_file", "read standard input").cause(e))?;
                return Ok(self.inputs.artifact(bytes, None));
            }
            (Source::File(path), _) => (text_of(path)?, path.parent().unwrap_or(Path::new(".")).to_owned()),
            (Source::Stdin, _) => (text_of_stdin()?, PathBuf::from(".")),
        };
        let mut value = match value(&text) {
            Ok(value) => value,
            Err(JsonError::DuplicateKey(duplicate_key)) => {
                return Err(duplicate(&duplicate_key, &format!("the input `{name}`")));
            }
            Err(JsonError::Syntax(e)) => {
                let shown: String = text.chars().take(60).collect();
                let message = format!("the input `{name}` takes {}, but `{shown}` is not JSON", ty.short());
                let error = Error::usage("bad_input", message).cause(e).detail("input", name);
                let typed = *source == Source::Text(text.clone());
                return Err(error.help(if typed {
                    how_to_type(name, plain)
                } else {
                    "a file's text is read as JSON; put quotes around a string".to_owned()
                }));
            }
        };
        self.files(ty, &mut value, &base)?;
        Ok(value)
    }

    /// Replaces each `"@file"` in the place of an image or an artifact by a reference to the file's content. Paths are
    /// relative to `base`.
    fn files(&mut self, ty: &Type, value: &mut Value, base: &Path) -> Result<(), Error> {
        match (ty, value) {
            (Type::Image | Type::Artifact, value) => {
                if let Some(path) = value.as_str().and_then(|text| text.strip_prefix('@')) {
                    let read = self.artifact(&base.join(path));
                    *value = if base == Path::new(".") { read? } else { read.map_err(beside)? };
                }
            }
            (Type::Option(inner), Value::Object(fields)) if matches!(**inner, Type::Option(_)) => {
                for value in fields.values_mut() {
                    self.files(inner, value, base)?;
                }
            }
            (Type::Option(inner), value) => self.files(inner, value, base)?,
            (Type::List(inner), Value::Array(items)) => {
                for item in items {
                    self.files(inner, item, base)?;
                }
            }
            (Type::Tuple(types), Value::Array(items)) => {
                for (ty, item) in types.iter().zip(items) {
                    self.files(ty, item, base)?;
                }
            }
            (Type::Record(fields), Value::Object(values)) => {
                for field in fields {
                    if let Some(value) = values.get_mut(&snake(&field.name)) {
                        self.files(&field.ty, value, base)?;
                    }
                }
            }
            (Type::Variant(cases), Value::Object(values)) => {
                let case =
                    cases.iter().find(|case| values.get("tag").and_then(Value::as_str) == Some(&snake(&case.name)));
                if let (Some(ty), Some(value)) = (case.and_then(|case| case.ty.as_ref()), values.get_mut("val")) {
                    self.files(ty, value, base)?;
                }
            }
            (Type::Result { ok, err }, Value::Object(values)) => {
                for (name, ty) in [("ok", ok), ("error", err)] {
                    if let (Some(ty), Some(value)) = (ty, values.get_mut(name)) {
                        self.files(ty, value, base)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn artifact(&mut self, path: &Path) -> Result<Value, Error> {
        let bytes = read(path, MAX_ARTIFACT)?;
        Ok(self.inputs.artifact(bytes, path.file_name().map(OsStr::text)))
    }
}

/// The remedy for a value that is not JSON, with an example of the type.
fn how_to_type(name: &str, ty: &Type) -> String {
    let example = match ty {
        Type::Bool => "true",
        Type::F32 | Type::F64 => "0.5",
        Type::U8 | Type::U16 | Type::U32 | Type::U64 | Type::S8 | Type::S16 | Type::S32 | Type::S64 => "3",
        Type::List(_) | Type::Tuple(_) => "'[...]'",
        _ => "'{...}'",
    };
    format!("write JSON, such as {name}={example}, or {name}=@FILE.json")
}

/// The error about a file that a JSON file names.
fn beside(error: Error) -> Error {
    if error.code == "missing_file" { error.help("a path in a JSON file is relative to that file") } else { error }
}

fn an(ty: &Type) -> &'static str {
    if *ty == Type::Image { "an image" } else { "an artifact" }
}

fn without_option(ty: &Type) -> &Type {
    match ty {
        Type::Option(inner) if !matches!(**inner, Type::Option(_)) => inner,
        other => other,
    }
}

fn stdin(most: u64) -> std::io::Result<Vec<u8>> {
    streams::input()?;
    bounded(std::io::stdin().lock(), most)
}

fn text_of(path: &Path) -> Result<String, Error> {
    let not_text = |e| {
        Error::usage("bad_input", format!("`{}` is not UTF-8 text", path.shown()))
            .cause(e)
            .help("only images and artifacts may be binary files")
    };
    String::from_utf8(read(path, MAX_JSON)?).map(without_mark).map_err(not_text)
}

/// The text without a byte order mark, which some editors write.
fn without_mark(text: String) -> String {
    text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)
}

fn text_of_stdin() -> Result<String, Error> {
    let failed = |e| Error::usage("unreadable_file", "read standard input").cause(e);
    String::from_utf8(stdin(MAX_JSON).map_err(failed)?)
        .map(without_mark)
        .map_err(|e| Error::usage("bad_input", "standard input is not UTF-8 text").cause(e))
}

/// The members of a JSON object, duplicates included. `place` names the object in errors.
fn object(text: &str, place: &str) -> Result<Vec<(String, Value)>, Error> {
    members(text).map_err(|no| match no {
        JsonError::DuplicateKey(duplicate_key) => duplicate(&duplicate_key, place),
        JsonError::Syntax(e) => Error::usage("bad_input", format!("{place} is not a JSON object with the inputs"))
            .cause(e)
            .help(r#"write {"NAME": VALUE, ...}"#),
    })
}

#[cfg(test)]
mod tests;
