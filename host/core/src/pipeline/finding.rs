//! Findings of a check: each has a code for programs, a place in the file, and a message for people.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;
use serde_json::{Map, Value};

use super::text::Text;
use crate::manifest::position;

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The pipeline is refused.
    Error,
    /// The pipeline can run, but probably does not do what its author meant.
    Warning,
}

/// The kind of a finding. The codes are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The file is not JSON.
    Syntax,
    /// A key occurs twice in one object.
    DuplicateKey,
    /// The key is not known at this place.
    UnknownKey,
    /// A mapping names a step that does not exist.
    UnknownStep,
    /// A mapping names an input or a field that does not exist.
    UnknownField,
    /// No task has this name.
    UnknownTask,
    /// The task has no such version.
    UnknownVersion,
    /// The type of a value does not fit the type of the field that it feeds.
    TypeMismatch,
    /// Steps read from one another in a cycle.
    Cycle,
    /// Two steps have the same number.
    DuplicateNumber,
    /// A required field of a task is not mapped.
    MissingInput,
    /// A value is missing, or is not allowed at this place.
    BadValue,
    /// No mapping reads any output of a step (a warning).
    UnusedOutput,
}

impl Code {
    /// The code as printed, in snake_case.
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

/// One finding of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Whether the pipeline is refused because of it.
    pub severity: Severity,
    /// The kind of the finding.
    pub code: Code,
    /// JSON Pointer of the place; empty for the whole file.
    pub pointer: String,
    /// The line, counted from 1.
    pub line: u32,
    /// The column, counted from 1 in characters.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The facts of the message for programs: a `type_mismatch` has `from`, `to` and `at`.
    pub details: Map<String, Value>,
}

impl Finding {
    /// A finding without line and column, which [`Findings::finish`] adds.
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
}

/// The findings of a check so far, in any order.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Each finding with its byte offset in the file, if that is not the offset of the value at its pointer.
    found: Vec<(Option<usize>, Finding)>,
}

impl Findings {
    /// Adds a finding about the value at its pointer. If that value does not exist, the finding is placed at the
    /// value's nearest ancestor.
    pub(super) fn push(&mut self, finding: Finding) {
        self.found.push((None, finding));
    }

    /// Adds a finding about another place: the key at this byte offset.
    pub(super) fn push_at(&mut self, offset: usize, finding: Finding) {
        self.found.push((Some(offset), finding));
    }

    /// Whether any finding is an error.
    pub(super) fn refuse(&self) -> bool {
        self.found.iter().any(|(_, finding)| finding.severity == Severity::Error)
    }

    /// At most `most` findings in the order of the file, with lines and columns, and the number of the others. Warnings
    /// are left out before errors.
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

/// The form for people, over several lines, without the name of the file:
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
