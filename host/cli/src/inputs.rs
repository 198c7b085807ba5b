//! From `--input` and `--each` to typed JSON values: first read and checked, then, if nothing is wrong, stored.

mod files;
mod pattern;
mod strict;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use dovetail_core::Digest;
use dovetail_core::blobs::{ArtifactRef, BlobKind, Blobs};
use dovetail_core::wit::names::nearest;
use dovetail_core::wit::{Type, ValueError, snake};
use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::Error;
use crate::media::sniff;
use crate::paths::{Shown as _, path_of};
use crate::streams;
use strict::{Strict, Twin, Twins};

pub(crate) use files::{Each, MAX_PHOTOGRAPH, folder, look_at_artifact, photographs};

/// The largest file taken as an artifact, in bytes. Arbitrary: it is held in memory once.
const MAX_ARTIFACT: u64 = 256 << 20;
/// The largest file taken as JSON, in bytes: values have at most 4 MiB, written with spaces.
const MAX_JSON: u64 = 16 << 20;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// As it stands.
    Text(String),
    File(PathBuf),
    Stdin,
}

impl Source {
    /// None for a text that is not UTF-8.
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

/// What was given, as it was typed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Given {
    /// `@all.json`.
    whole: Option<Source>,
    named: Vec<(String, Source)>,
}

impl Given {
    /// From the `--input`s.
    pub(crate) fn parse(args: &[impl AsRef<OsStr>]) -> Result<Self, Error> {
        let mut given = Self::default();
        for arg in args {
            let (arg, bytes) = (arg.as_ref().shown(), arg.as_ref().as_bytes());
            let not_text = || {
                Error::usage("bad_input", format!("`--input {arg}` is not UTF-8 text"))
                    .help("only the name of a file may be any bytes: NAME=@FILE")
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

    /// Whether this input is named.
    pub(crate) fn names(&self, name: &str) -> bool {
        self.named.iter().any(|(other, _)| other == name)
    }
}

fn twice(name: &str) -> Error {
    Error::usage("input_twice", format!("the input `{name}` is given twice"))
        .help("give each input once; --each makes one run for each of many files")
        .detail("input", name)
}

/// The inputs that there are, with their types.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    /// What has them, for messages: `face-processing@1.0.0`.
    pub(crate) of: String,
    /// snake_case.
    pub(crate) types: Vec<(String, Type)>,
}

impl Expected {
    /// Of a pipeline.
    pub(crate) fn of_pipeline(pipeline: &dovetail_core::pipeline::Pipeline) -> Self {
        Self {
            of: pipeline.reference(),
            types: pipeline.inputs.iter().map(|input| (input.name.clone(), input.ty.clone())).collect(),
        }
    }

    /// Of a task.
    pub(crate) fn of_task(name: &str, signature: &dovetail_core::wit::Signature) -> Self {
        Self {
            of: name.to_owned(),
            types: signature.input.iter().map(|field| (snake(&field.name), field.ty.clone())).collect(),
        }
    }

    /// Values that do not fit.
    pub(crate) fn misfits(&self, errors: &[ValueError]) -> Error {
        let inputs: Vec<String> = self.types.iter().map(|(name, ty)| format!("{name}: {}", ty.short())).collect();
        Error::values(errors).help(format!("the inputs of {} are {}", self.of, inputs.join(", ")))
    }

    /// The type of an input.
    pub(crate) fn ty(&self, name: &str) -> Result<&Type, Error> {
        self.types.iter().find(|(other, _)| other == name).map(|(_, ty)| ty).ok_or_else(|| {
            let names = self.types.iter().map(|(name, _)| name.as_str());
            let help = match nearest(name, names.clone()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    format!("its inputs are {}", names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))
                }
            };
            Error::usage("unknown_input", format!("{} has no input `{name}`", self.of)).help(help).detail("input", name)
        })
    }
}

/// Values that were read, and the bytes that they refer to, which are not stored yet.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) values: Map<String, Value>,
    bytes: BTreeMap<Digest, Vec<u8>>,
}

impl Loaded {
    /// Values that were read and stored before.
    pub(crate) fn of(values: Map<String, Value>) -> Self {
        Self { values, bytes: BTreeMap::new() }
    }

    /// Reads everything that was given.
    pub(crate) fn read(given: &Given, expected: &Expected) -> Result<Self, Error> {
        let mut loaded = Self::default();
        if let Some(source) = &given.whole {
            let (text, base, shown) = match source {
                Source::File(path) => {
                    (text_of(path)?, path.parent().unwrap_or(Path::new(".")).to_owned(), format!("`{}`", path.shown()))
                }
                _ => (text_of_stdin()?, PathBuf::from("."), "standard input".to_owned()),
            };
            for (name, mut value) in object(&text, &shown)? {
                let ty = expected.ty(&name)?;
                loaded.files(ty, &mut value, &base)?;
                if loaded.values.insert(name.clone(), value).is_some() || given.names(&name) {
                    return Err(twice(&name));
                }
            }
        }
        for (name, source) in &given.named {
            let ty = expected.ty(name)?;
            let value = loaded.value(name, ty, source)?;
            loaded.values.insert(name.clone(), value);
        }
        Ok(loaded)
    }

    /// One input from a file, in place of what stood there.
    pub(crate) fn set_file(&mut self, name: &str, ty: &Type, path: &Path) -> Result<(), Error> {
        let value = self.value(name, ty, &Source::File(path.to_owned()))?;
        self.values.insert(name.to_owned(), value);
        Ok(())
    }

    fn value(&mut self, name: &str, ty: &Type, source: &Source) -> Result<Value, Error> {
        let plain = without_option(ty);
        let (text, base) = match (source, plain) {
            (Source::Text(text), Type::String | Type::Char | Type::Enum(_)) => return Ok(Value::from(text.as_str())),
            (Source::Text(text), Type::Image | Type::Artifact) if !text.trim_start().starts_with('{') => {
                let message = format!("the input `{name}` takes {} and `{text}` is a text", an(plain));
                // `@@photo.jpg` has lost one of its signs, and means the file all the same.
                let file = Some(text.trim_start_matches('@')).filter(|file| !file.is_empty()).unwrap_or("FILE");
                return Err(Error::usage("bad_input", message).help(format!("for a file, write {name}=@{file}")));
            }
            (Source::Text(text), _) => (text.clone(), PathBuf::from(".")),
            (Source::File(path), Type::Image | Type::Artifact) => return self.artifact(path),
            (Source::Stdin, Type::Image | Type::Artifact) => {
                let bytes =
                    stdin(MAX_ARTIFACT).map_err(|e| Error::usage("unreadable_file", "read standard input").cause(e))?;
                return Ok(self.keep(bytes, None));
            }
            (Source::File(path), _) => (text_of(path)?, path.parent().unwrap_or(Path::new(".")).to_owned()),
            (Source::Stdin, _) => (text_of_stdin()?, PathBuf::from(".")),
        };
        let twins = Twins::default();
        let read = strict::value(&text, &twins);
        // Twins in a text that is no JSON are not what is wrong with it.
        if let (Ok(_), Some(twin)) = (&read, twins.take()) {
            return Err(duplicate(&twin, &format!("the input `{name}`")));
        }
        let mut value = read.map_err(|e| {
            let shown: String = text.chars().take(60).collect();
            let error =
                Error::usage("bad_input", format!("the input `{name}` takes {} and `{shown}` is no JSON", ty.short()))
                    .cause(e)
                    .detail("input", name);
            let typed = *source == Source::Text(text.clone());
            error.help(if typed {
                how_to_type(name, plain)
            } else {
                "a file's text is read as JSON; put quotes around a string".to_owned()
            })
        })?;
        self.files(ty, &mut value, &base)?;
        Ok(value)
    }

    /// Replaces `"@file"` where an image or an artifact belongs; paths are relative to `base`.
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
        Ok(self.keep(bytes, path.file_name().map(OsStr::text)))
    }

    fn keep(&mut self, bytes: Vec<u8>, name: Option<String>) -> Value {
        let reference = ArtifactRef { digest: Digest::of(&bytes), media_type: sniff(&bytes).to_owned(), name };
        self.bytes.insert(reference.digest, bytes);
        reference.to_json()
    }

    /// Stores the bytes. Artifacts that the values name and that came with no file must be there.
    pub(crate) fn store(self, values: &Value, blobs: &dyn Blobs) -> Result<(), Error> {
        for artifact in ArtifactRef::all_in(values) {
            let digest = artifact.digest;
            if !self.bytes.contains_key(&digest) && blobs.size(BlobKind::Artifact, &digest)?.is_none() {
                let error =
                    Error::usage("unknown_artifact", format!("there is no artifact {digest} in the data folder"));
                return Err(error.help("name the file itself, NAME=@FILE").detail("digest", digest.to_string()));
            }
        }
        for bytes in self.bytes.values() {
            blobs.put(BlobKind::Artifact, bytes)?;
        }
        Ok(())
    }
}

/// What to type where a value of this type was meant, and could not be read.
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

/// A file that is named within a JSON file.
fn beside(error: Error) -> Error {
    if error.code == "missing_file" {
        error.help("a path that stands in a JSON file is relative to that file")
    } else {
        error
    }
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

fn bounded(reader: impl Read, most: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(too_large(most)) } else { Ok(bytes) }
}

fn stdin(most: u64) -> std::io::Result<Vec<u8>> {
    streams::input()?;
    bounded(std::io::stdin().lock(), most)
}

fn too_large(most: u64) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::FileTooLarge, format!("it has more than {} MiB", most >> 20))
}

/// A file of at most `most` bytes.
pub(crate) fn read(path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    File::open(path).and_then(|file| bounded(file, most)).map_err(|e| {
        let folder = e.kind() == std::io::ErrorKind::IsADirectory;
        let error = Error::file(path, e);
        if folder { error.help("name a file; --each NAME=@FOLDER makes one run for each of its files") } else { error }
    })
}

fn text_of(path: &Path) -> Result<String, Error> {
    let not_text = |e| {
        Error::usage("bad_input", format!("`{}` is no text", path.shown()))
            .cause(e)
            .help("only images and artifacts are taken from other files")
    };
    String::from_utf8(read(path, MAX_JSON)?).map(without_mark).map_err(not_text)
}

/// A byte order mark, as some editors write it, is not part of the text.
fn without_mark(text: String) -> String {
    text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)
}

fn text_of_stdin() -> Result<String, Error> {
    let failed = |e| Error::usage("unreadable_file", "read standard input").cause(e);
    String::from_utf8(stdin(MAX_JSON).map_err(failed)?)
        .map(without_mark)
        .map_err(|e| Error::usage("bad_input", "standard input is no text").cause(e))
}

/// The members of the JSON object that stands in `place`, twins included.
fn object(text: &str, place: &str) -> Result<Vec<(String, Value)>, Error> {
    struct Members<'t>(&'t Twins);
    impl<'de> Visitor<'de> for Members<'_> {
        type Value = Vec<(String, Value)>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(name) = map.next_key::<String>()? {
                let value = map.next_value_seed(Strict { place: format!("/{name}"), twins: self.0 })?;
                members.push((name, value));
            }
            Ok(members)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let twins = Twins::default();
    let members = reader.deserialize_map(Members(&twins)).and_then(|members| reader.end().map(|()| members));
    let members = members.map_err(|e| {
        Error::usage("bad_input", format!("{place} is no JSON object with the inputs"))
            .cause(e)
            .help(r#"write {"NAME": VALUE, ...}"#)
    })?;
    twins.take().map_or(Ok(members), |twin| Err(duplicate(&twin, place)))
}

fn duplicate(Twin { key, place }: &Twin, what: &str) -> Error {
    let within = if place.is_empty() { what.to_owned() } else { format!("`{place}` of {what}") };
    Error::usage("duplicate_key", format!("the key `{key}` stands twice in {within}"))
        .help("remove or rename one of them")
        .detail("key", key.as_str())
        .detail("place", place.as_str())
}

#[cfg(test)]
mod tests;
