//! `plugin.toml`: the name of a plugin, its limits and its grants. The parser takes the text, not the file, and reports
//! all errors at once.
//!
//! ```toml
//! name = "face-attributes"
//! version = "1.0.0"
//! description = "Age, gender and emotion of each face"
//! license = "MIT OR Apache-2.0"      # may be left out
//! models = ["ssd_mobilenetv1"]       # the models that it cannot run without: in a fleet its steps wait for a worker
//!                                    # that has them. If left out: one of each kind that its component opens. []: none
//! [limits]                           # each may be left out; see `Limits::DEFAULT` and `Limits::MAXIMA`
//! memory = "64MiB"
//! time = "30s"
//! output = "4MiB"
//! log = "256KiB"
//! handles = 1024
//! artifacts = "256MiB"
//! [grants]                           # nothing is granted by default
//! clocks = true
//! random = true
//! http = ["https://api.example.com"]
//! ```

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use schemars::JsonSchema;
use semver::Version;
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::limits::Limits;
use crate::wit::names::{did_you_mean, is_kebab, listed};

mod quantity;

pub use quantity::{BadQuantity, parse_duration, parse_size, show_duration_ms, show_size};

/// The longest description, in characters.
const MAX_DESCRIPTION: usize = 500;

/// A parsed manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The task's name, in kebab-case.
    pub name: String,
    /// The version that is published.
    pub version: Version,
    /// One line for people, at most 500 characters.
    pub description: String,
    /// An SPDX expression; the text is not checked.
    pub license: Option<String>,
    /// The names of the models that the plugin cannot run without. In a fleet its steps wait for a worker that has
    /// them. `None`: the manifest does not say, and the plugin needs one model of each kind that its component opens.
    #[serde(default)]
    pub models: Option<Vec<String>>,
    /// The limits of each attempt.
    pub limits: Limits,
    /// The capabilities that are granted to the plugin.
    pub grants: Grants,
}

/// Capabilities beyond those that every task has. The default grants nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// The functions of `wasi:clocks`.
    pub clocks: bool,
    /// The functions of `wasi:random`, with real randomness.
    pub random: bool,
    /// The origins to which `wasi:http` may send requests, such as `https://api.example.com`.
    pub http: Vec<String>,
}

impl Grants {
    /// The recorded form: the grants that are asked for, by name. [`Grant`] says why this is a map.
    #[must_use]
    pub fn recorded(&self) -> BTreeMap<String, Grant> {
        let flag = |on: bool, name: &str| on.then(|| (name.to_owned(), Grant::Given(true)));
        let http = (!self.http.is_empty()).then(|| ("http".to_owned(), Grant::Origins(self.http.clone())));
        [flag(self.clocks, "clocks"), flag(self.random, "random"), http].into_iter().flatten().collect()
    }
}

/// A recorded grant of a plugin. Records and documents have a map from names to grants, so that a worker sees also the
/// names that only later versions know, and leaves such a plugin to others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Grant {
    /// Whether the whole capability is given.
    Given(bool),
    /// The origins that the capability is limited to.
    Origins(Vec<String>),
    /// A form of a later version.
    Other(serde_json::Value),
}

impl Display for Grant {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(given) => write!(f, "{given}"),
            Self::Origins(origins) => write!(f, "{origins:?}"),
            Self::Other(value) => write!(f, "{value}"),
        }
    }
}

/// One error in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ManifestError {
    /// The line, counted from 1.
    pub line: u32,
    /// The column, counted from 1 in characters.
    pub column: u32,
    /// What is wrong, and what to write instead.
    pub message: String,
}

/// All errors of a manifest, in the order of the text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ManifestErrors(pub Vec<ManifestError>);

impl Display for ManifestErrors {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            let separator = if i > 0 { "\n" } else { "" };
            write!(f, "{separator}line {}, column {}: {}", error.line, error.column, error.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for ManifestErrors {}

impl Manifest {
    /// Parses the text of a `plugin.toml`.
    ///
    /// # Errors
    /// All errors: text that is not TOML (then only its first error), unknown keys, missing keys, malformed names,
    /// versions, sizes, durations and origins, and limits of zero or above [`Limits::MAXIMA`].
    pub fn parse(text: &str) -> Result<Self, ManifestErrors> {
        let table = DeTable::parse(text).map_err(|error| {
            let (line, column) = position(text, error.span().map_or(0, |span| span.start));
            let message = format!("this is not valid TOML: {}", error.message().trim_end().replace('\n', ", "));
            ManifestErrors(vec![ManifestError { line, column, message }])
        })?;
        let mut reader = Reader { text, errors: Vec::new() };
        let manifest = reader.manifest(table.get_ref());
        reader.errors.sort_by_key(|error| (error.line, error.column));
        manifest.filter(|_| reader.errors.is_empty()).ok_or(ManifestErrors(reader.errors))
    }
}

/// The line and column of a byte offset, both counted from 1. The column counts characters.
pub(crate) fn position(text: &str, offset: usize) -> (u32, u32) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

struct Reader<'t> {
    text: &'t str,
    errors: Vec<ManifestError>,
}

type Entry<'a, 'i> = &'a Spanned<DeValue<'i>>;

impl Reader<'_> {
    fn error(&mut self, offset: usize, message: impl Into<String>) {
        let (line, column) = position(self.text, offset);
        self.errors.push(ManifestError { line, column, message: message.into() });
    }

    fn manifest(&mut self, table: &DeTable<'_>) -> Option<Manifest> {
        self.known(table, "", &["name", "version", "description", "license", "models", "limits", "grants"]);
        let name = self.required(table, "name").filter(|(at, name)| {
            let good = is_kebab(name);
            if !good {
                self.error(
                    *at,
                    format!(
                        "`{name}` is not a valid name: write 1 to 64 lower-case letters, digits and single `-` \
                         between them, a letter first"
                    ),
                );
            }
            good
        });
        let version = self.required(table, "version").and_then(|(at, version)| {
            Version::parse(&version)
                .map_err(|error| {
                    self.error(at, format!("`{version}` is not a valid version (such as `1.0.0`): {error}"));
                })
                .ok()
        });
        let description = self.required(table, "description").filter(|(at, text)| {
            let good = !text.trim().is_empty() && text.chars().count() <= MAX_DESCRIPTION;
            if !good {
                self.error(*at, format!("the description must have 1 to {MAX_DESCRIPTION} characters"));
            }
            good
        });
        let license = table.get("license").and_then(|entry| self.string("license", entry)).map(|(_, license)| license);
        let models = self.models(table);
        let limits = self.limits(table);
        let grants = self.grants(table);
        Some(Manifest {
            name: name?.1,
            version: version?,
            description: description?.1,
            license,
            models,
            limits,
            grants,
        })
    }

    fn models(&mut self, table: &DeTable<'_>) -> Option<Vec<String>> {
        let mut models = Vec::new();
        match table.get("models").map(|entry| (entry.span().start, entry.get_ref()))? {
            (_, DeValue::Array(names)) => {
                for (at, name) in names.iter().filter_map(|entry| self.string("models", entry)).collect::<Vec<_>>() {
                    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '.');
                    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
                        self.error(
                            at,
                            format!(
                                "`{name}` is not a valid name of a model: it has 1 to 64 of a-z, 0-9, `_`, `-` and `.`"
                            ),
                        );
                    } else if !models.contains(&name) {
                        models.push(name);
                    }
                }
            }
            (at, _) => self.error(at, "`models` must be an array of names, such as [\"ssd_mobilenetv1\"]"),
        }
        Some(models)
    }

    fn limits(&mut self, table: &DeTable<'_>) -> Limits {
        let (mut limits, most) = (Limits::DEFAULT, Limits::MAXIMA);
        let Some(section) = self.section(table, "limits", &["memory", "time", "output", "log", "handles", "artifacts"])
        else {
            return limits;
        };
        let sizes = [
            ("memory", &mut limits.memory, most.memory),
            ("output", &mut limits.output, most.output),
            ("log", &mut limits.log, most.log),
            ("artifacts", &mut limits.artifacts, most.artifacts),
        ];
        for (key, limit, most) in sizes {
            self.quantity(section, key, limit, most, &|text| parse_size(text), &show_size);
        }
        let milliseconds =
            |text: &str| parse_duration(text).map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        self.quantity(section, "time", &mut limits.time_ms, most.time_ms, &milliseconds, &show_duration_ms);
        if let Some(entry) = section.get("handles") {
            let number = match entry.get_ref() {
                DeValue::Integer(digits) => u32::from_str_radix(digits.as_str(), digits.radix()).ok(),
                _ => None,
            };
            match number.filter(|n| (1..=most.handles).contains(n)) {
                Some(number) => limits.handles = number,
                None => self
                    .error(entry.span().start, format!("`handles` must be a whole number from 1 to {}", most.handles)),
            }
        }
        limits
    }

    fn quantity(
        &mut self,
        section: &DeTable<'_>,
        key: &str,
        limit: &mut u64,
        most: u64,
        parse: &dyn Fn(&str) -> Result<u64, BadQuantity>,
        show: &dyn Fn(u64) -> String,
    ) {
        let Some((at, text)) = section.get(key).and_then(|entry| self.string(key, entry)) else { return };
        match parse(&text) {
            Err(bad) => self.error(at, format!("`{key}`: {bad}")),
            Ok(0) => self.error(at, format!("`{key}` must be more than nought")),
            Ok(n) if n > most => {
                self.error(at, format!("`{key}` is {}, and the host allows at most {}", show(n), show(most)));
            }
            Ok(n) => *limit = n,
        }
    }

    fn grants(&mut self, table: &DeTable<'_>) -> Grants {
        let mut grants = Grants::default();
        let Some(section) = self.section(table, "grants", &["clocks", "random", "http"]) else {
            return grants;
        };
        for (key, grant) in [("clocks", &mut grants.clocks), ("random", &mut grants.random)] {
            match section.get(key).map(|entry| (entry.span().start, entry.get_ref())) {
                None => {}
                Some((_, DeValue::Boolean(granted))) => *grant = *granted,
                Some((at, _)) => self.error(at, format!("`{key}` must be true or false")),
            }
        }
        match section.get("http").map(|entry| (entry.span().start, entry.get_ref())) {
            None => {}
            Some((_, DeValue::Array(origins))) => {
                for entry in origins.iter() {
                    if let Some((at, origin)) = self.string("http", entry) {
                        if is_origin(&origin) {
                            grants.http.push(origin);
                        } else {
                            self.error(
                                at,
                                format!(
                                    "`{origin}` is not a valid origin: write scheme and host, without a path, such as \
                                     `https://api.example.com`"
                                ),
                            );
                        }
                    }
                }
            }
            Some((at, _)) => {
                self.error(at, "`http` must be an array of origins, such as [\"https://api.example.com\"]");
            }
        }
        grants
    }

    fn section<'a, 'i>(&mut self, table: &'a DeTable<'i>, name: &str, keys: &[&str]) -> Option<&'a DeTable<'i>> {
        let entry = table.get(name)?;
        let DeValue::Table(section) = entry.get_ref() else {
            self.error(entry.span().start, format!("`{name}` must be a table: write [{name}] on a line of its own"));
            return None;
        };
        self.known(section, name, keys);
        Some(section)
    }

    fn known(&mut self, table: &DeTable<'_>, section: &str, keys: &[&str]) {
        for key in table.keys().filter(|key| !keys.contains(&key.get_ref().as_ref())) {
            let name = key.get_ref();
            let place = if section.is_empty() { String::new() } else { format!(" in [{section}]") };
            let hint = match did_you_mean(name, keys.iter().copied()) {
                none if none.is_empty() => format!("; known are {}", listed(keys.iter().copied())),
                near => near,
            };
            self.error(key.span().start, format!("unknown key `{name}`{place}{hint}"));
        }
    }

    /// The value of a required key, with its byte offset in the text.
    fn required(&mut self, table: &DeTable<'_>, key: &str) -> Option<(usize, String)> {
        let Some(entry) = table.get(key) else {
            self.error(0, format!("`{key}` is missing: write {key} = \"...\" at the top"));
            return None;
        };
        self.string(key, entry)
    }

    fn string(&mut self, key: &str, entry: Entry<'_, '_>) -> Option<(usize, String)> {
        let at = entry.span().start;
        match entry.get_ref() {
            DeValue::String(text) => Some((at, text.to_string())),
            _ => {
                self.error(at, format!("`{key}` must be a string: put it in quotes"));
                None
            }
        }
    }
}

/// Whether the text is `http(s)://HOST[:PORT]` and nothing else.
fn is_origin(text: &str) -> bool {
    let Some(authority) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return false;
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().is_ok_and(|port| port > 0)),
        None => (authority, true),
    };
    let label = |label: &str| !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    port && host.len() <= 253 && host.split('.').all(label)
}

#[cfg(test)]
mod tests;
