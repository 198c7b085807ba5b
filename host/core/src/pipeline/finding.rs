//! What a check found: a code for machines, a place in the file, and words for people.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::text::Text;
use crate::manifest::position;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The pipeline is refused.
    Error,
    /// It runs, but probably not as meant.
    Warning,
}

/// What kind of thing it is: stable, for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The file is no JSON.
    Syntax,
    /// A key stands twice in one object.
    DuplicateKey,
    /// A key that means nothing there.
    UnknownKey,
    /// A mapping names a step that does not exist.
    UnknownStep,
    /// A mapping names an input or a field that does not exist.
    UnknownField,
    /// No task has this name.
    UnknownTask,
    /// The task has no such version.
    UnknownVersion,
    /// A value does not fit where it is to go.
    TypeMismatch,
    /// Steps wait for one another.
    Cycle,
    /// Two steps have one number.
    DuplicateNumber,
    /// A field that a task needs is not mapped.
    MissingInput,
    /// A value is missing, or not one that is allowed there.
    BadValue,
    /// Nothing reads what a step gives (a warning).
    UnusedOutput,
}

impl Code {
    /// snake_case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::DuplicateKey => "duplicate_key",
            Self::UnknownKey => "unknown_key",
            Self::UnknownStep => "unknown_step",
            Self::UnknownField => "unknown_field",
            Self::UnknownTask => "unknown_task",
            Self::UnknownVersion => "unknown_version",
            Self::TypeMismatch => "type_mismatch",
            Self::Cycle => "cycle",
            Self::DuplicateNumber => "duplicate_number",
            Self::MissingInput => "missing_input",
            Self::BadValue => "bad_value",
            Self::UnusedOutput => "unused_output",
        }
    }

    fn severity(self) -> Severity {
        if self == Self::UnusedOutput { Severity::Warning } else { Severity::Error }
    }
}

/// One thing that a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    pub code: Code,
    /// JSON Pointer; empty for the whole file.
    pub pointer: String,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// The same for machines (`from`, `to` and `at` of a `type_mismatch`).
    pub details: Map<String, Value>,
}

impl Finding {
    /// Without a place: [`Findings::finish`] fills it in.
    pub(super) fn new(code: Code, pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: code.severity(),
            code,
            pointer: pointer.into(),
            line: 1,
            column: 1,
            message: message.into(),
            help: None,
            details: Map::new(),
        }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// As `pipeline check --output json` prints it: `code`, `message`, `path`, `line`, `column`, `details`, and `help`
    /// where there is some.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut value = json!({
            "code": self.code,
            "message": self.message,
            "path": self.pointer,
            "line": self.line,
            "column": self.column,
            "details": self.details,
        });
        if let Some(help) = &self.help {
            value["help"] = json!(help);
        }
        value
    }
}

/// What has been found so far, in any order.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// With the byte that each is about, if that is not the value at its pointer.
    found: Vec<(Option<usize>, Finding)>,
}

impl Findings {
    /// About the value at the finding's pointer, or about what is there of it.
    pub(super) fn push(&mut self, finding: Finding) {
        self.found.push((None, finding));
    }

    /// About something else there: a key.
    pub(super) fn push_at(&mut self, offset: usize, finding: Finding) {
        self.found.push((Some(offset), finding));
    }

    /// Whether the pipeline is refused.
    pub(super) fn refuse(&self) -> bool {
        self.found.iter().any(|(_, finding)| finding.severity == Severity::Error)
    }

    /// In the order of the text, with lines and columns; and how many are left out because there are more than `most`:
    /// warnings before errors.
    pub(super) fn finish(self, text: &Text<'_>, most: usize) -> (Vec<Finding>, usize) {
        let mut found: Vec<(usize, Finding)> = self
            .found
            .into_iter()
            .map(|(at, finding)| (at.unwrap_or_else(|| text.root.offset(&finding.pointer)), finding))
            .collect();
        let omitted = found.len().saturating_sub(most);
        found.sort_by_key(|(at, finding)| (finding.severity == Severity::Warning, *at));
        found.truncate(most);
        found.sort_by_key(|(at, _)| *at);
        let placed = found.into_iter().map(|(at, mut finding)| {
            (finding.line, finding.column) = position(text.text, at);
            finding
        });
        (placed.collect(), omitted)
    }
}

/// For people, over several lines, without the file's name:
///
/// ```text
/// 12:30 error[type_mismatch] /steps/report/inputs/faces_array: ...
///     gives  list<record { x: f32 }>
///     needs  list<record { x: u32 }>
///     help   ...
/// ```
impl Display for Finding {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let place = if self.pointer.is_empty() { String::new() } else { format!(" {}", self.pointer) };
        write!(f, "{}:{} {severity}[{}]{place}: {}", self.line, self.column, self.code.as_str(), self.message)?;
        for (title, key) in [("gives", "from"), ("needs", "to")] {
            if let Some(ty) = self.details.get(key).and_then(Value::as_str) {
                write!(f, "\n    {title}  {ty}")?;
            }
        }
        if let Some(help) = &self.help {
            write!(f, "\n    help   {help}")?;
        }
        Ok(())
    }
}
