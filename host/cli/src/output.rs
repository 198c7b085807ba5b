//! All printing. Results go to standard output, errors and progress to standard error.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io::{self, IsTerminal, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use dovetail_service::Error;
use serde::Serialize;
use serde_json::Value;
use unicode_width::UnicodeWidthChar as _;

use crate::exit::error_text;
use crate::streams;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    // Text for people.
    #[default]
    Text,
    // One JSON document.
    Json,
    // One JSON document a line, as soon as each run ends (`run` and `runs resume` only).
    Ndjson,
}

/// Prints results and errors. A reader that goes away (`| head`) is no error; a full disk is one.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) format: Format,
    /// Standard error is a terminal that understands control sequences.
    pub(crate) interactive: bool,
    /// Whether the terminal's last line shows progress, which must be removed before anything else is printed.
    in_place: Arc<Mutex<bool>>,
    /// Why standard output could not be written. After that nothing more is written: a result with a gap would be
    /// wrong.
    lost: Mutex<Option<io::Error>>,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, interactive: may_steer(&io::stderr()), in_place: Arc::default(), lost: Mutex::new(None) }
    }

    /// Prints a result: `document` as JSON for programs, or `text` for people. Only the wanted form is made.
    pub(crate) fn result<D: Serialize + ?Sized>(&self, document: &D, text: impl FnOnce() -> String) {
        match self.format {
            Format::Text => self.text(&text()),
            Format::Json => self.text(&pretty(&value(document))),
            Format::Ndjson => self.text(&value(document).to_string()),
        }
    }

    /// Prints text on standard output, and a line end if the text has none. In text for people control characters are
    /// made visible.
    pub(crate) fn text(&self, text: &str) {
        let text = if self.format == Format::Text { visible(text) } else { Cow::Borrowed(text) };
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        self.raw(&format!("{text}{end}"));
    }

    /// Prints text on standard output unchanged: JSON, or text that only this program wrote.
    pub(crate) fn raw(&self, text: &str) {
        self.clear();
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if lost.is_some() {
            return;
        }
        let mut out = io::stdout().lock();
        let written = streams::output().and_then(|()| out.write_all(text.as_bytes())).and_then(|()| out.flush());
        match written {
            // The reader has gone away on purpose, so that this is no error.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => *lost = Some(error),
            _ => {}
        }
    }

    /// An error if standard output could not be written. The error is given once.
    pub(crate) fn written(&self) -> Result<(), Error> {
        match self.lost.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(Error::output(error)),
            None => Ok(()),
        }
    }

    /// Prints a line on standard error.
    pub(crate) fn note(&self, line: &str) {
        self.notes().note(line);
    }

    /// A printer of lines on standard error, for any thread.
    pub(crate) fn notes(&self) -> Notes {
        Notes { in_place: self.in_place.clone() }
    }

    /// Shows a line that the next one replaces, as the last line of the terminal. The line is cut at the terminal's
    /// width, since a wrapped line could not be removed.
    pub(crate) fn in_place(&self, line: &str) {
        let mut shown = self.in_place.lock().unwrap_or_else(PoisonError::into_inner);
        *shown = true;
        let line = visible(line);
        let line = beginning(&line, columns().saturating_sub(1));
        let mut err = io::stderr().lock();
        drop(write!(err, "\r\x1b[2K{line}").and_then(|()| err.flush()));
    }

    /// Removes the line of [`Output::in_place`].
    pub(crate) fn clear(&self) {
        self.notes().clear();
    }

    /// Prints an error on standard error for people, and with a JSON format also on standard output for programs.
    pub(crate) fn error(&self, error: &Error) {
        self.note(&error_text(error));
        match self.format {
            Format::Text => {}
            Format::Json => self.text(&pretty(&value(&error.document()))),
            Format::Ndjson => self.text(&value(&error.document()).to_string()),
        }
    }
}

/// A printer of lines on standard error.
pub(crate) struct Notes {
    in_place: Arc<Mutex<bool>>,
}

impl Notes {
    pub(crate) fn note(&self, line: &str) {
        // The lock is held until the line is written, so that no other thread shows progress in between.
        let mut shown = self.in_place.lock().unwrap_or_else(PoisonError::into_inner);
        remove(&mut shown);
        drop(writeln!(io::stderr().lock(), "{}", visible(line)));
    }

    fn clear(&self) {
        remove(&mut self.in_place.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Removes the line that shows progress.
fn remove(shown: &mut bool) {
    if std::mem::take(shown) {
        let mut err = io::stderr().lock();
        drop(write!(err, "\r\x1b[2K").and_then(|()| err.flush()));
    }
}

/// A document as a JSON value.
pub(crate) fn value<D: Serialize + ?Sized>(document: &D) -> Value {
    // This does not fail: all maps have string keys, and all parts serialise.
    serde_json::to_value(document).unwrap_or_default()
}

/// Whether control sequences (colours, a line that is replaced) may be written to a stream: the stream is a terminal,
/// the terminal understands them (TERM), and the user wants them (NO_COLOR).
pub(crate) fn may_steer(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && wanted(std::env::var_os("TERM").as_deref(), std::env::var_os("NO_COLOR").as_deref())
}

fn wanted(term: Option<&OsStr>, no_color: Option<&OsStr>) -> bool {
    let understood = term.is_some_and(|term| !term.is_empty() && term != "dumb");
    understood && no_color.is_none_or(OsStr::is_empty)
}

/// The present width of the terminal, in columns.
fn columns() -> usize {
    /// The width if the terminal does not say.
    const USUAL: usize = 80;
    let size = rustix::termios::tcgetwinsize(io::stderr());
    size.ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(USUAL)
}

/// The beginning of a line that takes at most `columns` columns of a terminal.
fn beginning(line: &str, columns: usize) -> &str {
    let mut width = 0;
    let over = line.char_indices().find(|(_, c)| {
        width += c.width().unwrap_or(0);
        width > columns
    });
    over.map_or(line, |(at, _)| &line[..at])
}

/// Text of untrusted origin (tasks, pipelines, inputs) for people: characters that control the terminal or reverse the
/// order of the text are shown as `\u{1b}`. Newlines and tabs stay.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    let steers = |c: char| {
        (c.is_control() && !matches!(c, '\n' | '\t')) || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if steers(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// The greatest width of a JSON value on one line.
const INLINE: usize = 110;

/// JSON with an indentation of two spaces a level. A short value, or an array of numbers, stays on one line.
pub(crate) fn pretty(value: &Value) -> String {
    let mut text = String::new();
    write_pretty(value, 0, false, &mut text);
    text
}

/// As [`pretty`], for people: of a long array of numbers only the first ones are shown, so that the text is not JSON.
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

/// Whether an array has only numbers, or short arrays of numbers: a feature vector, landmarks.
fn plain(items: &[Value]) -> bool {
    items.iter().all(|item| match item {
        Value::Array(inner) => inner.len() <= 4 && inner.iter().all(Value::is_number),
        Value::Object(_) => false,
        _ => item.is_number(),
    })
}

/// [`shortened`] shows at most this many numbers in full, and of a longer array only the first ones.
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
        let value = json!({ "a": [1, 2], "v": vector, "deep": {"x": [{"y": "\"z\n"}, {}], "l": "x".repeat(120)},
            "e": [], "n": null });
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
    fn what_steers_a_terminal_is_made_visible() {
        assert_eq!(visible("a\u{1b}]0;x\u{7}\u{9b}31m\r\u{7f}"), r"a\u{1b}]0;x\u{7}\u{9b}31m\u{d}\u{7f}");
        assert_eq!(visible("\u{202a}\u{202e}\u{2066}\u{2069}"), r"\u{202a}\u{202e}\u{2066}\u{2069}");
        let fine = "Grüße\n\t日本 \u{2029}\u{202f}\u{2065}\u{206a}";
        assert!(matches!(visible(fine), Cow::Borrowed(text) if text == fine));
    }

    #[test]
    fn control_sequences_are_sent_only_where_they_are_wanted() {
        let wanted =
            |term: Option<&str>, no_color: Option<&str>| wanted(term.map(OsStr::new), no_color.map(OsStr::new));
        assert!(wanted(Some("xterm"), None) && wanted(Some("xterm"), Some("")));
        assert!(!wanted(Some("dumb"), None) && !wanted(Some(""), None) && !wanted(None, None));
        assert!(!wanted(Some("xterm"), Some("1")));
    }

    #[test]
    fn a_line_in_place_is_no_wider_than_the_terminal() {
        assert_eq!(beginning("1.0 s  running a", 79), "1.0 s  running a");
        assert_eq!(beginning("abcd", 3), "abc");
        assert_eq!(beginning("日本x", 3), "日", "half a wide character does not fit");
        assert_eq!(beginning("日本x", 4), "日本");
        assert_eq!(beginning("e\u{301}te\u{301}", 2), "e\u{301}t", "a combining character takes no column");
        assert_eq!(beginning("a", 0), "");
    }

    #[test]
    fn what_is_short_stays_on_its_line() {
        assert_eq!(pretty(&json!({"a": {"b": 1}})), "{\n  \"a\": {\"b\": 1}\n}");
        assert_eq!(pretty(&json!([])), "[]");
    }
}
