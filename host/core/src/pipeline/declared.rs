//! The shape of a pipeline file: its keys, and the values that can be checked without the rest of the file.
//! [`super::check()`] checks how the parts fit together.

use semver::{Version, VersionReq};
use serde_json::Value;

use super::catalogue::task_reference;
use super::finding::{Code, Finding, Findings};
use super::reference::is_reserved;
use super::text::{Member, Node, Text};
use super::{MAX_ATTEMPTS, MAX_BACKOFF_MS, MAX_NUMBER, MAX_PIPELINE_TIMEOUT_MS, MAX_STEPS, OnFailure, Retry};
use crate::limits::Limits;
use crate::manifest::{parse_duration, show_duration_ms};
use crate::wit::json::{describe, pointer_step};
use crate::wit::names::{did_you_mean, is_kebab, is_snake, listed};

const TOP: [&str; 9] =
    ["$schema", "name", "version", "description", "timeout", "on_failure", "inputs", "steps", "output"];
const STEP: [&str; 6] = ["number", "task", "inputs", "timeout", "retry", "description"];
const RETRY: [&str; 3] = ["max_attempts", "backoff", "max_backoff"];
const INPUT: [&str; 2] = ["default", "description"];

/// The declarations of a file. A part that could not be parsed is `None` or missing, and a finding reports it.
pub(super) struct Declared {
    pub(super) name: Option<String>,
    pub(super) version: Option<Version>,
    pub(super) description: Option<String>,
    pub(super) timeout_ms: Option<u64>,
    pub(super) on_failure: OnFailure,
    pub(super) inputs: Vec<DeclaredInput>,
    pub(super) steps: Vec<DeclaredStep>,
    pub(super) output: Vec<Mapping>,
}

pub(super) struct DeclaredInput {
    pub(super) name: String,
    pub(super) pointer: String,
    pub(super) description: Option<String>,
    pub(super) default: Option<Value>,
}

pub(super) struct DeclaredStep {
    pub(super) name: String,
    pub(super) pointer: String,
    pub(super) description: Option<String>,
    pub(super) number: Option<u32>,
    /// The task's name and the required version.
    pub(super) task: Option<(String, VersionReq)>,
    pub(super) inputs: Vec<Mapping>,
    pub(super) timeout_ms: Option<u64>,
    pub(super) retry: Retry,
}

/// A mapping `"target": source`.
pub(super) struct Mapping {
    pub(super) target: String,
    pub(super) pointer: String,
    pub(super) source: Option<Written>,
}

/// A source in the form of the file.
pub(super) enum Written {
    Reference(String),
    Literal(Value),
}

impl Declared {
    /// Parses every part of the file, and reports all errors. `None` if the file is not an object.
    pub(super) fn read(text: &Text<'_>, findings: &mut Findings) -> Option<Self> {
        let mut reader = Reader { findings };
        let root = &text.root;
        if root.members().is_none() {
            reader.bad(
                "",
                format!("a pipeline is an object, and this is {}", describe(&root.value())),
                "begin with { \"name\": ...",
            );
            return None;
        }
        reader.known(root, "", &TOP);
        let name = reader.string(root, "", "name", true).filter(|name| {
            let good = is_kebab(name);
            if !good {
                reader.bad(
                    "/name",
                    format!("`{name}` is not a valid name of a pipeline"),
                    "write 1 to 64 lower-case letters, digits and single `-` between them, a letter first",
                );
            }
            good
        });
        let version = reader.string(root, "", "version", true).and_then(|version| match Version::parse(&version) {
            Ok(version) => Some(version),
            Err(error) => {
                reader.bad(
                    "/version",
                    format!("`{version}` is not a valid version: {error}"),
                    "write three numbers, such as \"1.0.0\"",
                );
                None
            }
        });
        let on_failure = match reader.string(root, "", "on_failure", false).as_deref() {
            None | Some("cancel") => OnFailure::Cancel,
            Some("finish") => OnFailure::Finish,
            Some(other) => {
                reader.bad(
                    "/on_failure",
                    format!("`{other}` is not a valid policy"),
                    "write \"cancel\" (running steps are cancelled) or \"finish\" (they may end)",
                );
                OnFailure::Cancel
            }
        };
        Some(Self {
            name,
            version,
            description: reader.string(root, "", "description", false),
            timeout_ms: reader.duration(root, "", "timeout", 1, MAX_PIPELINE_TIMEOUT_MS),
            on_failure,
            inputs: reader.inputs(root),
            steps: reader.steps(root),
            output: reader.output(root),
        })
    }
}

struct Reader<'f> {
    findings: &'f mut Findings,
}

impl Reader<'_> {
    fn bad(&mut self, pointer: &str, message: impl Into<String>, help: impl Into<String>) {
        self.findings.push(Finding::new(Code::BadValue, pointer, message).help(help));
    }

    fn known(&mut self, node: &Node, pointer: &str, keys: &[&str]) {
        for member in node.members().unwrap_or_default().iter().filter(|member| !keys.contains(&member.key.as_str())) {
            let near = did_you_mean(&member.key, keys.iter().copied());
            let message = format!("unknown key `{}`{near}", member.key);
            let finding = Finding::new(Code::UnknownKey, pointer.to_owned() + &pointer_step(&member.key), message);
            self.findings.push_at(member.at, finding.help(format!("known here are {}", listed(keys.iter().copied()))));
        }
    }

    fn string(&mut self, node: &Node, pointer: &str, key: &str, required: bool) -> Option<String> {
        let Some(value) = node.get(key) else {
            if required {
                self.bad(pointer, format!("`{key}` is missing"), format!("add \"{key}\": \"...\""));
            }
            return None;
        };
        if value.str().is_none() {
            self.bad(
                &format!("{pointer}/{key}"),
                format!("`{key}` must be a string, and this is {}", describe(&value.value())),
                "put it in quotes",
            );
        }
        value.str().map(str::to_owned)
    }

    /// A duration between `least` and `most`. All three are in milliseconds.
    fn duration(&mut self, node: &Node, pointer: &str, key: &str, least: u64, most: u64) -> Option<u64> {
        let text = self.string(node, pointer, key, false)?;
        let help =
            format!("write {} to {}, such as \"30s\" or \"5m\"", show_duration_ms(least), show_duration_ms(most));
        let pointer = format!("{pointer}/{key}");
        match parse_duration(&text).map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)) {
            Ok(ms) if (least..=most).contains(&ms) => Some(ms),
            Ok(_) => {
                self.bad(&pointer, format!("`{key}` is {text}, which is not allowed"), help);
                None
            }
            Err(error) => {
                self.bad(&pointer, format!("`{key}`: {error}"), help);
                None
            }
        }
    }

    /// The members of the object under `key`, each name once. Reports a required object that is missing or empty.
    fn members<'n>(&mut self, node: &'n Node, pointer: &str, key: &str, required: bool) -> Vec<&'n Member> {
        let at = format!("{pointer}/{key}");
        let Some(value) = node.get(key) else {
            if required {
                self.bad(pointer, format!("`{key}` is missing"), format!("add \"{key}\": {{ ... }}"));
            }
            return Vec::new();
        };
        let Some(members) = value.members() else {
            self.bad(
                &at,
                format!("`{key}` must be an object, and this is {}", describe(&value.value())),
                "write { \"name\": ... }",
            );
            return Vec::new();
        };
        if members.is_empty() && required {
            self.bad(&at, format!("`{key}` is empty"), "a pipeline has at least one of them");
        }
        // The parser has reported duplicate keys. Here the first one counts.
        let mut seen = std::collections::HashSet::new();
        members.iter().filter(|member| seen.insert(member.key.as_str())).collect()
    }

    fn name(&mut self, what: &str, pointer: &str, member: &Member) {
        if !is_snake(&member.key) {
            let message = format!("`{}` is not a valid name of {what}", member.key);
            let help = "write 1 to 64 lower-case letters, digits and single `_` between them, a letter first";
            self.findings.push_at(member.at, Finding::new(Code::BadValue, pointer, message).help(help));
        }
    }

    fn inputs(&mut self, root: &Node) -> Vec<DeclaredInput> {
        let mut inputs = Vec::new();
        for member in self.members(root, "", "inputs", false) {
            let pointer = format!("/inputs{}", pointer_step(&member.key));
            self.name("an input", &pointer, member);
            if member.value.members().is_none() {
                self.bad(
                    &pointer,
                    format!("an input is an object, and this is {}", describe(&member.value.value())),
                    "write {} or {\"default\": ...}; its type is inferred from the fields that it feeds",
                );
            }
            self.known(&member.value, &pointer, &INPUT);
            let description = self.string(&member.value, &pointer, "description", false);
            let default = member.value.get("default").map(Node::value);
            inputs.push(DeclaredInput { name: member.key.clone(), pointer, description, default });
        }
        inputs
    }

    fn steps(&mut self, root: &Node) -> Vec<DeclaredStep> {
        let members = self.members(root, "", "steps", true);
        if members.len() > MAX_STEPS {
            self.bad(
                "/steps",
                format!("there are {} steps", members.len()),
                format!("a pipeline has at most {MAX_STEPS}"),
            );
        }
        members.into_iter().take(MAX_STEPS).map(|member| self.step(member)).collect()
    }

    fn step(&mut self, member: &Member) -> DeclaredStep {
        let (node, pointer) = (&member.value, format!("/steps{}", pointer_step(&member.key)));
        self.name("a step", &pointer, member);
        if is_reserved(&member.key) {
            let message = format!(
                "`{}` is reserved: mappings use such names for the pipeline's inputs and for unique IDs",
                member.key
            );
            self.findings.push_at(
                member.at,
                Finding::new(Code::BadValue, pointer.clone(), message).help("give the step another name"),
            );
        }
        let mut step = DeclaredStep {
            name: member.key.clone(),
            pointer: pointer.clone(),
            description: None,
            number: None,
            task: None,
            inputs: Vec::new(),
            timeout_ms: None,
            retry: Retry::DEFAULT,
        };
        if node.members().is_none() {
            self.bad(
                &pointer,
                format!("a step is an object, and this is {}", describe(&node.value())),
                "write {\"number\": 1, \"task\": \"NAME@^1\", \"inputs\": { ... }}",
            );
            return step;
        }
        self.known(node, &pointer, &STEP);
        step.description = self.string(node, &pointer, "description", false);
        step.number = self.integer(node, &pointer, "number", true, MAX_NUMBER);
        step.task = self.string(node, &pointer, "task", true).and_then(|text| match task_reference(&text) {
            Ok(task) => Some(task),
            Err(message) => {
                self.bad(&format!("{pointer}/task"), message, "write NAME, NAME@1.2.0 or NAME@^1");
                None
            }
        });
        step.inputs = self.mappings(node, &pointer, "inputs", false);
        step.timeout_ms = self.duration(node, &pointer, "timeout", 1, Limits::MAXIMA.time_ms);
        step.retry = self.retry(node, &pointer);
        step
    }

    fn integer(&mut self, node: &Node, pointer: &str, key: &str, required: bool, most: u32) -> Option<u32> {
        let Some(value) = node.get(key) else {
            if required {
                self.bad(
                    pointer,
                    format!("`{key}` is missing"),
                    format!("add \"{key}\": 1, a whole number that no other step has"),
                );
            }
            return None;
        };
        let value = value.value();
        let number = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| (1..=most).contains(n));
        if number.is_none() {
            self.bad(
                &format!("{pointer}/{key}"),
                format!("`{key}` cannot be {}", describe(&value)),
                format!("write a whole number from 1 to {most}"),
            );
        }
        number
    }

    fn retry(&mut self, step: &Node, pointer: &str) -> Retry {
        let mut retry = Retry::DEFAULT;
        let Some(node) = step.get("retry") else { return retry };
        let pointer = format!("{pointer}/retry");
        if node.members().is_none() {
            self.bad(
                &pointer,
                format!("`retry` must be an object, and this is {}", describe(&node.value())),
                "write {\"max_attempts\": 3}",
            );
            return retry;
        }
        self.known(node, &pointer, &RETRY);
        if let Some(n) = self.integer(node, &pointer, "max_attempts", false, MAX_ATTEMPTS) {
            retry.max_attempts = n;
        }
        if let Some(ms) = self.duration(node, &pointer, "backoff", 0, MAX_BACKOFF_MS) {
            retry.backoff_ms = ms;
            retry.max_backoff_ms = retry.max_backoff_ms.max(ms);
        }
        if let Some(ms) = self.duration(node, &pointer, "max_backoff", 0, MAX_BACKOFF_MS) {
            if ms < retry.backoff_ms {
                let message =
                    format!("`max_backoff` is less than `backoff`, which is {}", show_duration_ms(retry.backoff_ms));
                self.bad(&format!("{pointer}/max_backoff"), message, "make it at least as long");
            }
            retry.max_backoff_ms = ms;
        }
        retry
    }

    fn output(&mut self, root: &Node) -> Vec<Mapping> {
        let mappings = self.mappings(root, "", "output", true);
        for member in root.get("output").and_then(Node::members).unwrap_or_default() {
            self.name("an output", &format!("/output{}", pointer_step(&member.key)), member);
        }
        mappings
    }

    fn mappings(&mut self, node: &Node, pointer: &str, key: &str, required: bool) -> Vec<Mapping> {
        let members = self.members(node, pointer, key, required);
        members
            .into_iter()
            .map(|member| {
                let pointer = format!("{pointer}/{key}{}", pointer_step(&member.key));
                let source = self.source(&member.value, &pointer);
                Mapping { target: member.key.clone(), pointer, source }
            })
            .collect()
    }

    fn source(&mut self, node: &Node, pointer: &str) -> Option<Written> {
        if let Some(reference) = node.str() {
            return Some(Written::Reference(reference.to_owned()));
        }
        let help =
            "write \"input.NAME\", \"STEP.FIELD\", a unique ID such as \"output_001_faces_array\", or {\"value\": ...}";
        match node.get("value") {
            Some(value) => {
                self.known(node, pointer, &["value"]);
                Some(Written::Literal(value.value()))
            }
            None => {
                self.bad(pointer, format!("{} is not a valid source", describe(&node.value())), help);
                None
            }
        }
    }
}
