//! The only place that prints. Results go to standard output, errors and progress to standard error.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::error::Error;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    // For people.
    #[default]
    Text,
    // One JSON document.
    Json,
    // One JSON document a line, as runs end (`run` and `runs resume` only).
    Ndjson,
}

/// Where everything is printed. A reader that goes away (`| head`) is no error.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) format: Format,
    /// Standard error is a terminal.
    pub(crate) interactive: bool,
    /// What stands in the last line of a terminal, to be removed before something else is printed.
    in_place: Mutex<bool>,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, interactive: io::stderr().is_terminal(), in_place: Mutex::new(false) }
    }

    /// The result: `json` for machines, `text` for people. Only the one that is wanted is made.
    pub(crate) fn result(&self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) {
        match self.format {
            Format::Text => self.text(&text()),
            Format::Json => self.text(&pretty(&json())),
            Format::Ndjson => self.text(&json().to_string()),
        }
    }

    /// Text for standard output, with a line end where it has none.
    pub(crate) fn text(&self, text: &str) {
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        self.raw(&format!("{text}{end}"));
    }

    /// Text for standard output as it is.
    pub(crate) fn raw(&self, text: &str) {
        self.clear();
        let mut out = io::stdout().lock();
        // Nobody is left to be told that nobody listens.
        drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
    }

    /// A line for standard error.
    pub(crate) fn note(&self, line: &str) {
        self.clear();
        drop(writeln!(io::stderr().lock(), "{line}"));
    }

    /// What replaces itself in the last line of a terminal.
    pub(crate) fn in_place(&self, line: &str) {
        let mut shown = self.in_place.lock().unwrap_or_else(PoisonError::into_inner);
        *shown = true;
        let line: String = line.chars().take(100).collect();
        let mut err = io::stderr().lock();
        drop(write!(err, "\r\x1b[2K{line}").and_then(|()| err.flush()));
    }

    /// Removes what [`Output::in_place`] shows.
    pub(crate) fn clear(&self) {
        let mut shown = self.in_place.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut *shown) {
            let mut err = io::stderr().lock();
            drop(write!(err, "\r\x1b[2K").and_then(|()| err.flush()));
        }
    }

    /// An error: on standard error for people and, where machines listen, on standard output for them.
    pub(crate) fn error(&self, error: &Error) {
        self.note(&error.to_text());
        match self.format {
            Format::Text => {}
            Format::Json => self.text(&pretty(&error.to_json())),
            Format::Ndjson => self.text(&error.to_json().to_string()),
        }
    }
}

/// How wide a JSON value may be to stay on one line.
const INLINE: usize = 110;

/// JSON with two spaces a level, except that what is short, or an array of plain values, stays on its line.
pub(crate) fn pretty(value: &Value) -> String {
    let mut text = String::new();
    write_pretty(value, 0, false, &mut text);
    text
}

/// The same for people: of many numbers only the first ones. It is no JSON then.
pub(crate) fn shortened(value: &Value) -> String {
    let mut text = String::new();
    write_pretty(value, 0, true, &mut text);
    text
}

fn write_pretty(value: &Value, depth: usize, short: bool, text: &mut String) {
    let (open, close) = match value {
        Value::Array(items) if !items.is_empty() && !plain(items) => ('[', ']'),
        Value::Object(fields) if !fields.is_empty() => ('{', '}'),
        _ => return inline(value, short, text),
    };
    let mut line = String::new();
    inline(value, short, &mut line);
    if depth > 0 && line.len() + depth * 2 <= INLINE {
        text.push_str(&line);
        return;
    }
    text.push(open);
    let mut first = true;
    let mut separate = |text: &mut String| {
        text.push_str(if std::mem::take(&mut first) { "\n" } else { ",\n" });
        text.push_str(&"  ".repeat(depth + 1));
    };
    match value {
        Value::Array(items) => {
            for item in items {
                separate(text);
                write_pretty(item, depth + 1, short, text);
            }
        }
        Value::Object(fields) => {
            for (name, item) in fields {
                separate(text);
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push_str(": ");
                write_pretty(item, depth + 1, short, text);
            }
        }
        _ => {}
    }
    text.push('\n');
    text.push_str(&"  ".repeat(depth));
    text.push(close);
}

/// Numbers, or pairs of numbers: a feature vector, landmarks.
fn plain(items: &[Value]) -> bool {
    items.iter().all(|item| match item {
        Value::Array(inner) => inner.len() <= 4 && inner.iter().all(Value::is_number),
        Value::Object(_) => false,
        _ => item.is_number(),
    })
}

/// Numbers (or pairs of them) that are all shown to people, and how many of more.
const SHOWN: usize = 8;
const BEGINNING: usize = 2;

fn inline(value: &Value, short: bool, text: &mut String) {
    match value {
        Value::Array(items) => {
            let cut = short && items.len() > SHOWN && plain(items);
            let shown = if cut { BEGINNING } else { items.len() };
            text.push('[');
            for (i, item) in items.iter().take(shown).enumerate() {
                text.push_str(if i > 0 { ", " } else { "" });
                inline(item, short, text);
            }
            if cut {
                let what = if items[0].is_number() { "numbers" } else { "items" };
                text.push_str(&format!(", ... {} {what}", items.len()));
            }
            text.push(']');
        }
        Value::Object(fields) if !fields.is_empty() => {
            text.push('{');
            for (i, (name, item)) in fields.iter().enumerate() {
                text.push_str(if i > 0 { ", " } else { "" });
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push_str(": ");
                inline(item, short, text);
            }
            text.push('}');
        }
        other => text.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pretty_json_is_the_same_value() {
        let vector: Vec<f64> = (0..128).map(f64::from).collect();
        let value = json!({ "a": [1, 2], "v": vector, "deep": {"x": [{"y": "\"z\n"}, {}], "l": "x".repeat(120)}, "e": [], "n": null });
        let text = pretty(&value);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        assert_eq!(text.lines().count(), 10, "{text}");
    }

    #[test]
    fn people_see_the_first_of_many_numbers() {
        let vector: Vec<u32> = (0..128).collect();
        let pairs: Vec<[u32; 2]> = (0..9).map(|n| [n, n]).collect();
        let text = shortened(&json!({ "v": vector, "p": pairs, "s": vec!["a"; 9] }));
        assert!(text.contains("[0, 1, ... 128 numbers]") && text.contains("[[0, 0], [1, 1], ... 9 items]"), "{text}");
        assert_eq!(text.matches("\"a\"").count(), 9, "{text}");
    }

    #[test]
    fn what_is_short_stays_on_its_line() {
        assert_eq!(pretty(&json!({"a": {"b": 1}})), "{\n  \"a\": {\"b\": 1}\n}");
        assert_eq!(pretty(&json!([])), "[]");
    }
}
