//! The text of a pipeline file as a JSON tree whose nodes have byte offsets. The tree keeps duplicate keys.
//!
//! Two parsers read the text: `serde_json` decides whether it is JSON, because its messages are better; `jsonc-parser`
//! supplies the offsets.

use jsonc_parser::ast;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};
use serde_json::{Map, Number, Value};

use super::finding::{Code, Finding, Findings};
use crate::manifest::position;
use crate::wit::json::pointer_step;

/// The deepest nesting that is accepted.
const MAX_DEPTH: usize = 64;

/// A value and its byte offset.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) at: usize,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// Null, boolean, number or string.
    Scalar(Value),
    Array(Vec<Node>),
    /// All members as written, including duplicate keys.
    Object(Vec<Member>),
}

#[derive(Debug, Clone)]
pub(super) struct Member {
    /// The byte offset of the key.
    pub(super) at: usize,
    pub(super) key: String,
    pub(super) value: Node,
}

impl Node {
    pub(super) fn str(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn members(&self) -> Option<&[Member]> {
        match &self.kind {
            Kind::Object(members) => Some(members),
            _ => None,
        }
    }

    /// The value of the first member with this name.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.members()?.iter().find(|member| member.key == key).map(|member| &member.value)
    }

    /// The value without offsets. Of duplicate keys the first one counts.
    pub(super) fn value(&self) -> Value {
        match &self.kind {
            Kind::Scalar(value) => value.clone(),
            Kind::Array(items) => items.iter().map(Self::value).collect(),
            Kind::Object(members) => {
                let mut object = Map::new();
                for member in members {
                    object.entry(member.key.clone()).or_insert_with(|| member.value.value());
                }
                Value::Object(object)
            }
        }
    }

    /// The byte offset of the value at `pointer`, or of its nearest ancestor that exists.
    pub(super) fn offset(&self, pointer: &str) -> usize {
        let mut node = self;
        for step in pointer.split('/').skip(1) {
            let name = step.replace("~1", "/").replace("~0", "~");
            let next = match &node.kind {
                Kind::Array(items) => name.parse::<usize>().ok().and_then(|i| items.get(i)),
                _ => node.get(&name),
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node.at
    }
}

/// A file that is valid JSON.
pub(super) struct Text<'t> {
    pub(super) text: &'t str,
    pub(super) root: Node,
}

impl<'t> Text<'t> {
    /// Parses a file. Returns a `duplicate_key` finding for each key that occurs twice.
    ///
    /// # Errors
    /// A `syntax` finding, which is then the only finding of the file.
    pub(super) fn parse(text: &'t str) -> Result<(Self, Findings), Box<Finding>> {
        if text.len() > super::MAX_SOURCE {
            let message =
                format!("the file has {} bytes, and a pipeline has at most {}", text.len(), super::MAX_SOURCE);
            return Err(Box::new(Finding::new(Code::Syntax, "", message)));
        }
        if let Err(error) = serde_json::from_str::<Value>(text) {
            return Err(Box::new(syntax(text, &error)));
        }
        let ast = parse_to_ast(text, &CollectOptions::default(), &strict()).map_err(|error| {
            let mut finding = Finding::new(Code::Syntax, "", format!("this is not valid JSON: {}", error.kind()));
            (finding.line, finding.column) = position(text, error.range().start);
            Box::new(finding)
        })?;
        let mut findings = Findings::default();
        let root = ast.value.as_ref().and_then(|value| read(value, &mut String::new(), 0, &mut findings));
        let Some(root) = root else {
            let message =
                format!("the file is nested more than {MAX_DEPTH} deep, or holds a number that cannot be read");
            return Err(Box::new(Finding::new(Code::Syntax, "", message)));
        };
        Ok((Self { text, root }, findings))
    }
}

fn syntax(text: &str, error: &serde_json::Error) -> Finding {
    let whole = error.to_string();
    let message = whole.rsplit_once(" at line ").map_or(whole.as_str(), |(message, _)| message);
    let mut finding = Finding::new(Code::Syntax, "", format!("this is not valid JSON: {message}"));
    let line = error.line().max(1);
    // The column of `serde_json` counts bytes, ours counts characters. It may point beyond the last byte.
    let start: usize = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let rest = text[start..].lines().next().unwrap_or_default();
    let bytes = error.column().saturating_sub(1).min(rest.len());
    let column = rest.char_indices().take_while(|(at, _)| *at < bytes).count() + 1;
    finding.line = u32::try_from(line).unwrap_or(u32::MAX);
    finding.column = u32::try_from(column).unwrap_or(u32::MAX);
    if text.starts_with('\u{feff}') {
        return finding.help("save the file without a byte order mark");
    }
    if message.contains("key must be a string") {
        return finding.help("comments and bare words are not allowed: keys stand in double quotes");
    }
    if message.contains("trailing comma") {
        return finding.help("remove the comma behind the last item");
    }
    finding
}

fn strict() -> ParseOptions {
    ParseOptions {
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_trailing_commas: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    }
}

/// Converts a parsed value. `None` if it is nested too deeply, or contains a number that cannot be read.
fn read(value: &ast::Value<'_>, pointer: &mut String, depth: usize, findings: &mut Findings) -> Option<Node> {
    if depth > MAX_DEPTH {
        return None;
    }
    let mut within = |step: &str, value: &ast::Value<'_>, findings: &mut Findings| {
        let back = pointer.len();
        pointer.push_str(&pointer_step(step));
        let node = read(value, pointer, depth + 1, findings);
        let inside = pointer.clone();
        pointer.truncate(back);
        node.map(|node| (node, inside))
    };
    let node = |at, kind| Some(Node { at, kind });
    match value {
        ast::Value::NullKeyword(null) => node(null.range.start, Kind::Scalar(Value::Null)),
        ast::Value::BooleanLit(boolean) => node(boolean.range.start, Kind::Scalar(Value::Bool(boolean.value))),
        ast::Value::NumberLit(number) => {
            let value: Number = serde_json::from_str(number.value).ok()?;
            node(number.range.start, Kind::Scalar(Value::Number(value)))
        }
        ast::Value::StringLit(string) => node(string.range.start, Kind::Scalar(Value::from(string.value.as_ref()))),
        ast::Value::Array(array) => {
            let items: Option<Vec<Node>> = array
                .elements
                .iter()
                .enumerate()
                .map(|(i, item)| within(&i.to_string(), item, findings).map(|(node, _)| node))
                .collect();
            node(array.range.start, Kind::Array(items?))
        }
        ast::Value::Object(object) => {
            let mut members: Vec<Member> = Vec::new();
            // A set, so that the time stays linear in the number of keys.
            let mut seen = std::collections::HashSet::new();
            for property in &object.properties {
                let (at, key) = match &property.name {
                    ast::ObjectPropName::String(name) => (name.range.start, name.value.to_string()),
                    ast::ObjectPropName::Word(name) => (name.range.start, name.value.to_owned()),
                };
                let (value, inside) = within(&key, &property.value, findings)?;
                if !seen.insert(key.clone()) {
                    let message = format!("the key `{key}` stands here twice");
                    findings.push_at(
                        at,
                        Finding::new(Code::DuplicateKey, inside, message).help("remove or rename one of them"),
                    );
                }
                members.push(Member { at, key, value });
            }
            node(object.range.start, Kind::Object(members))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syntax_of(text: &str) -> String {
        let finding = Text::parse(text).err().unwrap();
        format!("{}:{} {}", finding.line, finding.column, finding.message)
    }

    #[test]
    fn parts_know_their_places() {
        let source = "{\n  \"ä\": {\"b/c\": [1, {\"d\": null}]},\n  \"ä\": 2 }";
        let (text, findings) = Text::parse(source).unwrap();
        let at = |pointer: &str| {
            let mut findings = Findings::default();
            findings.push(Finding::new(Code::BadValue, pointer, ""));
            let (found, _) = findings.finish(&text, 1);
            (found[0].line, found[0].column)
        };
        assert_eq!(at(""), (1, 1));
        assert_eq!(at("/ä/b~1c/1/d"), (2, 26));
        // A place that does not exist gets the offset of its nearest ancestor.
        assert_eq!(at("/ä/b~1c/7"), (2, 16));
        assert_eq!(text.root.value(), serde_json::json!({ "ä": { "b/c": [1, { "d": null }] } }));
        let (findings, _) = findings.finish(&text, 9);
        assert_eq!(
            (findings.len(), findings[0].pointer.as_str(), findings[0].line, findings[0].column),
            (1, "/ä", 3, 3)
        );
    }

    #[test]
    fn what_is_no_json() {
        for (text, expected) in [
            ("", "1:1 this is not valid JSON: EOF while parsing a value"),
            ("{\n \"ä\": ,}", "2:7 this is not valid JSON: expected value"),
            ("{\"a\": 1,}", "1:9 this is not valid JSON: trailing comma"),
            ("{\"a\": 1 // c\n}", "1:9 this is not valid JSON: expected `,` or `}`"),
            ("{a: 1}", "1:2 this is not valid JSON: key must be a string"),
            ("{} {}", "1:4 this is not valid JSON: trailing characters"),
            ("\u{feff}{}", "1:1 this is not valid JSON: expected value"),
            ("{\"a\": 01}", "1:8 this is not valid JSON: invalid number"),
            ("{\"a\": NaN}", "1:7 this is not valid JSON: expected value"),
        ] {
            assert_eq!(syntax_of(text), expected, "{text}");
        }
    }

    #[test]
    fn size_and_depth_are_limited() {
        let sized = |n: usize| format!("{{\"a\": \"{}\"}}", "x".repeat(n - 9));
        assert_eq!(sized(20).len(), 20);
        assert!(Text::parse(&sized(super::super::MAX_SOURCE)).is_ok());
        assert!(syntax_of(&sized(super::super::MAX_SOURCE + 1)).contains("at most 1048576"));
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(Text::parse(&nested(MAX_DEPTH)).is_ok());
        assert!(syntax_of(&nested(MAX_DEPTH + 1)).contains("more than 64 deep"));
        assert!(syntax_of(&nested(100_000)).contains("recursion limit"));
    }
}
