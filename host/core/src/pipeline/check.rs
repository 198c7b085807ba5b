//! The check: every joint of a pipeline against the types of its tasks. Finds everything at once; what has been refused
//! already is not refused a second time for its consequences.
//!
//! An input that nothing reads is an error, because it would be accepted and ignored; a step whose outputs nobody reads
//! is a warning.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::catalogue::{Catalogue, TaskVersion, Unresolved};
use super::declared::{Declared, DeclaredInput, Mapping, Written};
use super::finding::{Code, Finding, Findings};
use super::infer::{Conflict, Need, infer};
use super::order::{cycles, sorted};
use super::reference::resolve;
use super::text::Text;
use super::{Binding, Format, Input, Output, Pipeline, Source, Step};
use crate::limits::Limits;
use crate::wit::json::check as check_value;
use crate::wit::names::{did_you_mean, listed};
use crate::wit::{Assign, Field, Type, assign, kebab, snake};

/// Findings told about one file.
const MAX_FINDINGS: usize = 200;
/// Characters of each of the two types of a `type_mismatch`.
const MAX_TYPE: usize = 2000;

/// What a check found, and the pipeline if nothing is wrong with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// There exactly if no finding is an error.
    pub pipeline: Option<Pipeline>,
    /// In the order of the file.
    pub findings: Vec<Finding>,
    /// Findings beyond the first 200.
    pub omitted: usize,
}

/// Checks the text of a pipeline file against the tasks that there are, and pins them.
#[must_use]
pub fn check(text: &str, catalogue: &dyn Catalogue) -> Checked {
    let (text, mut findings) = match Text::parse(text) {
        Ok(parsed) => parsed,
        Err(finding) => return Checked { pipeline: None, findings: vec![*finding], omitted: 0 },
    };
    let pipeline = Declared::read(&text, &mut findings).and_then(|declared| {
        let mut checker = Checker::new(&declared, std::mem::take(&mut findings));
        checker.resolve_tasks(catalogue);
        checker.numbers();
        checker.steps();
        checker.cycles();
        checker.inputs();
        checker.joints();
        let output = checker.output();
        checker.unused();
        let pipeline = checker.pipeline(output, text.text);
        findings = checker.findings;
        pipeline
    });
    let refused = findings.refuse();
    let (findings, omitted) = findings.finish(&text, MAX_FINDINGS);
    Checked { pipeline: pipeline.filter(|_| !refused), findings, omitted }
}

/// A mapping of a step's input whose source and target both exist.
struct Joint {
    /// Index of the step.
    step: usize,
    pointer: String,
    /// snake_case.
    field: String,
    source: Source,
    to: Type,
}

struct Checker<'d> {
    declared: &'d Declared,
    findings: Findings,
    /// One a step; none if it could not be found.
    tasks: Vec<Option<TaskVersion>>,
    joints: Vec<Joint>,
    /// Step -> steps that it reads from, with the pointer of a mapping that does.
    needs: BTreeMap<usize, BTreeMap<usize, String>>,
    /// Steps that something reads from, or was meant to.
    read: BTreeSet<String>,
    /// Inputs that a step reads, whether or not the rest of the mapping is right.
    mentioned: BTreeSet<String>,
    types: BTreeMap<String, Type>,
    inputs: Vec<Input>,
}

impl<'d> Checker<'d> {
    fn new(declared: &'d Declared, findings: Findings) -> Self {
        Self {
            declared,
            findings,
            tasks: Vec::new(),
            joints: Vec::new(),
            needs: BTreeMap::new(),
            read: BTreeSet::new(),
            mentioned: BTreeSet::new(),
            types: BTreeMap::new(),
            inputs: Vec::new(),
        }
    }

    fn resolve_tasks(&mut self, catalogue: &dyn Catalogue) {
        for step in &self.declared.steps {
            let found = step.task.as_ref().map(|(name, req)| (name, req, catalogue.resolve(name, req)));
            let pointer = format!("{}/task", step.pointer);
            self.tasks.push(match found {
                None => None,
                Some((_, _, Ok(task))) => Some(task),
                Some((name, _, Err(Unresolved::NoSuchTask { similar }))) => {
                    let near = similar.first().map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
                    let finding = Finding::new(Code::UnknownTask, pointer, format!("there is no task `{name}`{near}"));
                    self.findings.push(
                        finding.help("`dovetail task list` shows those that there are; `dovetail task push` adds one"),
                    );
                    None
                }
                Some((name, req, Err(Unresolved::NoSuchVersion { available }))) => {
                    let versions: Vec<String> = available.iter().map(ToString::to_string).collect();
                    let finding = Finding::new(
                        Code::UnknownVersion,
                        pointer,
                        format!("`{name}` has no version that satisfies `{req}`"),
                    );
                    self.findings.push(
                        finding
                            .help(format!("its versions are {}", listed(versions.iter().map(String::as_str))))
                            .detail("available", versions),
                    );
                    None
                }
            });
        }
    }

    fn numbers(&mut self) {
        let mut owners: BTreeMap<u32, &str> = BTreeMap::new();
        let mut next = self.declared.steps.iter().filter_map(|step| step.number).max().unwrap_or(0);
        for step in &self.declared.steps {
            let Some(number) = step.number else { continue };
            if let Some(owner) = owners.insert(number, &step.name) {
                next += 1;
                let message = format!("the steps `{owner}` and `{}` have the same number, {number}", step.name);
                let finding = Finding::new(Code::DuplicateNumber, format!("{}/number", step.pointer), message);
                self.findings.push(finding.help(format!("unique IDs are made of it; {next} is free")));
            }
        }
    }

    /// Every mapping of every step: what it names and where it goes.
    fn steps(&mut self) {
        let declared = self.declared;
        for (index, step) in declared.steps.iter().enumerate() {
            for mapping in &step.inputs {
                let source = self.source(mapping);
                if let Some(Source::Input { name, .. }) = &source {
                    self.mentioned.insert(name.clone());
                }
                if let Some(Source::Output { step: from, .. }) = &source
                    && let Some(from) = declared.steps.iter().position(|step| step.name == *from)
                {
                    self.needs.entry(index).or_default().entry(from).or_insert_with(|| mapping.pointer.clone());
                }
                let Some(task) = &self.tasks[index] else { continue };
                let fields = &task.signature.input;
                let Some(field) =
                    fields.iter().find(|field| field.name == kebab(&mapping.target) && !mapping.target.contains('-'))
                else {
                    let names: Vec<String> = fields.iter().map(|field| snake(&field.name)).collect();
                    let near = did_you_mean(&mapping.target, names.iter().map(String::as_str));
                    let message = format!("{}@{} has no input `{}`{near}", task.name, task.version, mapping.target);
                    let help = format!("its inputs are {}", listed(names.iter().map(String::as_str)));
                    self.findings.push(Finding::new(Code::UnknownField, &mapping.pointer, message).help(help));
                    continue;
                };
                if let Some(source) = source {
                    let (pointer, field, to) = (mapping.pointer.clone(), mapping.target.clone(), field.ty.clone());
                    self.joints.push(Joint { step: index, pointer, field, source, to });
                }
            }
            let Some(task) = &self.tasks[index] else { continue };
            for field in task.signature.input.iter().filter(|field| !matches!(field.ty, Type::Option(_))) {
                let name = snake(&field.name);
                if step.inputs.iter().all(|mapping| mapping.target != name) {
                    let message = format!(
                        "`{name}` of {}@{} is not mapped, and it must be: it is {}",
                        task.name,
                        task.version,
                        field.ty.short()
                    );
                    let finding = Finding::new(Code::MissingInput, format!("{}/inputs", step.pointer), message);
                    self.findings.push(
                        finding
                            .help(format!("add \"{name}\": \"STEP.FIELD\", \"input.NAME\" or {{\"value\": ...}}"))
                            .detail("field", name),
                    );
                }
            }
        }
    }

    /// What a mapping names; notes what it does not.
    fn source(&mut self, mapping: &Mapping) -> Option<Source> {
        let reference = match mapping.source.as_ref()? {
            Written::Literal(value) => return Some(Source::Literal { value: value.clone() }),
            Written::Reference(reference) => reference,
        };
        match resolve(reference, &mapping.pointer, self.declared) {
            Ok(source) => {
                if let Source::Output { step, .. } = &source {
                    self.read.insert(step.clone());
                }
                Some(source)
            }
            Err((finding, meant)) => {
                self.read.extend(meant);
                self.findings.push(*finding);
                None
            }
        }
    }

    fn cycles(&mut self) {
        let names = |i: usize| self.declared.steps[i].name.as_str();
        let needs: BTreeMap<usize, BTreeSet<usize>> =
            self.needs.iter().map(|(step, needs)| (*step, needs.keys().copied().collect())).collect();
        for cycle in cycles(&needs) {
            let (first, second) = (cycle[0], cycle[1 % cycle.len()]);
            let pointer = self.needs[&first][&second].clone();
            let words: Vec<String> = cycle.iter().chain([&first]).map(|step| format!("`{}`", names(*step))).collect();
            let message = if cycle.len() == 1 {
                format!("{} waits for itself", words[0])
            } else {
                format!("steps wait for one another: {}", words.join(" waits for "))
            };
            let steps: Vec<&str> = cycle.iter().map(|step| names(*step)).collect();
            self.findings.push(
                Finding::new(Code::Cycle, pointer, message)
                    .help("take one of these mappings from somewhere else")
                    .detail("steps", steps),
            );
        }
    }

    /// Infers the inputs' types and checks their defaults.
    fn inputs(&mut self) {
        for input in &self.declared.inputs {
            let consumers: Vec<(&Joint, &[String])> = self
                .joints
                .iter()
                .filter_map(|joint| match &joint.source {
                    Source::Input { name, path } if *name == input.name => Some((joint, path.as_slice())),
                    _ => None,
                })
                .collect();
            let needs: Vec<Need<'_>> = consumers.iter().map(|(joint, path)| Need { path, ty: &joint.to }).collect();
            match infer(&needs) {
                Ok(Some(ty)) => {
                    let default = input
                        .default
                        .as_ref()
                        .and_then(|default| default_value(input, &ty, default, &mut self.findings));
                    self.types.insert(input.name.clone(), ty.clone());
                    let optional = input.default.is_some() || matches!(ty, Type::Option(_));
                    self.inputs.push(Input {
                        name: input.name.clone(),
                        description: input.description.clone(),
                        ty,
                        default,
                        optional,
                    });
                }
                Ok(None) if self.mentioned.contains(&input.name) => {}
                Ok(None) => {
                    let finding = Finding::new(
                        Code::BadValue,
                        &input.pointer,
                        format!("no step reads the input `{}`, so that it has no type", input.name),
                    );
                    self.findings
                        .push(finding.help(format!("map \"input.{}\" to a step, or remove the input", input.name)));
                }
                Err(Conflict { first, second }) => {
                    let (first, second) = (consumers[first].0, consumers[second].0);
                    let message = format!(
                        "the input `{}` feeds {} and {}, and no type fits both",
                        input.name,
                        self.target(first),
                        self.target(second)
                    );
                    let finding = Finding::new(Code::TypeMismatch, &second.pointer, message)
                        .help("declare two inputs, or put a step between that converts")
                        .detail("from", first.to.within(MAX_TYPE))
                        .detail("to", second.to.within(MAX_TYPE))
                        .detail("at", "");
                    self.findings.push(finding);
                }
            }
        }
    }

    /// `input_002_faces_array of attributes (face-attributes@1.0.0)`.
    fn target(&self, joint: &Joint) -> String {
        let step = &self.declared.steps[joint.step];
        let number = step.number.map_or_else(|| "input".to_owned(), |number| format!("input_{number:03}"));
        match &self.tasks[joint.step] {
            Some(task) => format!("`{number}_{}` of {} ({}@{})", joint.field, step.name, task.name, task.version),
            None => format!("`{number}_{}` of {}", joint.field, step.name),
        }
    }

    /// Each source's type against its target's.
    fn joints(&mut self) {
        for at in 0..self.joints.len() {
            let joint = &self.joints[at];
            if let Source::Literal { value } = &joint.source {
                match check_value(&joint.to, value) {
                    Ok(normal) => self.joints[at].source = Source::Literal { value: normal },
                    Err(errors) => {
                        for error in errors {
                            let message = format!("the value does not fit {}: {}", self.target(joint), error.message);
                            let finding = Finding::new(
                                Code::BadValue,
                                format!("{}/value{}", joint.pointer, error.pointer),
                                message,
                            );
                            self.findings.push(finding.detail("expected", error.expected).detail("found", error.found));
                        }
                    }
                }
                continue;
            }
            let (source, pointer) = (joint.source.clone(), joint.pointer.clone());
            let Some(from) = self.type_of(&source, &pointer) else { continue };
            let joint = &self.joints[at];
            let Assign::No { path, reason, from: part, to: wanted } = assign(&from, &joint.to) else { continue };
            let what = match &source {
                Source::Output { step, path } => format!("`{}`", self.unique_id(step, path)),
                Source::Input { name, path } => {
                    format!("`{}`", [&["input".to_owned(), name.clone()], path.as_slice()].concat().join("."))
                }
                Source::Literal { .. } => "the value".to_owned(),
            };
            let place = if path.is_empty() { String::new() } else { format!("at `{path}`, ") };
            let message = format!(
                "{what} does not fit {}: {place}{} meets {}: {reason}",
                self.target(joint),
                part.short(),
                wanted.short()
            );
            let finding = Finding::new(Code::TypeMismatch, pointer, message)
                .detail("from", from.within(MAX_TYPE))
                .detail("to", joint.to.within(MAX_TYPE))
                .detail("at", path);
            self.findings.push(finding);
        }
    }

    /// `output_001_faces_array`, with the fields that are followed.
    fn unique_id(&self, step: &str, path: &[String]) -> String {
        let number = self.declared.steps.iter().find(|declared| declared.name == step).and_then(|step| step.number);
        number.map_or_else(
            || format!("{step}.{}", path.join(".")),
            |number| format!("output_{number:03}_{}", path.join(".")),
        )
    }

    /// What a source gives; notes a field that does not exist. None also if that cannot be known because of another
    /// mistake.
    fn type_of(&mut self, source: &Source, pointer: &str) -> Option<Type> {
        match source {
            Source::Literal { .. } => None,
            Source::Input { name, path } => {
                follow(self.types.get(name)?, path).map_err(|finding| self.findings.push(finding.at(pointer))).ok()
            }
            Source::Output { step, path } => {
                let index = self.declared.steps.iter().position(|declared| declared.name == *step)?;
                let task = self.tasks[index].as_ref()?;
                let output = Type::Record(task.signature.output.clone());
                let whose = format!("the output of {}@{}", task.name, task.version);
                follow_from(&output, path, &whose).map_err(|finding| self.findings.push(finding.at(pointer))).ok()
            }
        }
    }

    fn output(&mut self) -> Vec<Output> {
        let declared = self.declared;
        let mut output = Vec::new();
        for mapping in &declared.output {
            let Some(source) = self.source(mapping) else { continue };
            if matches!(source, Source::Literal { .. }) {
                let finding = Finding::new(
                    Code::BadValue,
                    &mapping.pointer,
                    "a run's output comes from a step or an input, not from a literal",
                );
                self.findings.push(finding.help("write \"STEP.FIELD\" or \"input.NAME\""));
                continue;
            }
            if let Some(ty) = self.type_of(&source, &mapping.pointer) {
                output.push(Output { name: mapping.target.clone(), source, ty });
            }
        }
        output
    }

    fn unused(&mut self) {
        for (step, task) in self.declared.steps.iter().zip(&self.tasks) {
            let Some(task) = task else { continue };
            if task.signature.output.is_empty() || self.read.contains(&step.name) {
                continue;
            }
            let fields: Vec<String> = task.signature.output.iter().map(|field| snake(&field.name)).collect();
            let message = format!(
                "nothing reads what the step `{}` gives: {}",
                step.name,
                listed(fields.iter().map(String::as_str))
            );
            let finding = Finding::new(Code::UnusedOutput, &step.pointer, message);
            self.findings.push(
                finding.help("map it to another step or to `output`, or remove the step").detail("fields", fields),
            );
        }
    }

    /// Whole if nothing is missing; the caller knows whether anything is wrong.
    fn pipeline(&self, output: Vec<Output>, source: &str) -> Option<Pipeline> {
        if self.findings.refuse() {
            return None;
        }
        let mut steps = Vec::new();
        for (index, (step, task)) in self.declared.steps.iter().zip(&self.tasks).enumerate() {
            let task = task.as_ref()?;
            let inputs = task.signature.input.iter().filter_map(|field| self.binding(index, field)).collect();
            steps.push(Step {
                number: step.number?,
                name: step.name.clone(),
                description: step.description.clone(),
                task: task.name.clone(),
                version: task.version.clone(),
                package: task.package,
                signature: task.signature.clone(),
                inputs,
                retry: step.retry,
                limits: Limits { time_ms: step.timeout_ms.unwrap_or(task.limits.time_ms), ..task.limits },
                lane: task.lane.clone(),
            });
        }
        Some(Pipeline {
            format: Format,
            name: self.declared.name.clone()?,
            version: self.declared.version.clone()?,
            description: self.declared.description.clone(),
            timeout_ms: self.declared.timeout_ms,
            on_failure: self.declared.on_failure,
            inputs: self.inputs.clone(),
            steps: sorted(steps),
            output,
            source: source.to_owned(),
        })
    }

    fn binding(&self, step: usize, field: &Field) -> Option<Binding> {
        let name = snake(&field.name);
        let joint = self.joints.iter().find(|joint| joint.step == step && joint.field == name)?;
        let from = match &joint.source {
            Source::Literal { .. } => joint.to.clone(),
            Source::Input { name, path } => follow(self.types.get(name)?, path).ok()?,
            Source::Output { step, path } => {
                let index = self.declared.steps.iter().position(|declared| declared.name == *step)?;
                follow(&Type::Record(self.tasks[index].as_ref()?.signature.output.clone()), path).ok()?
            }
        };
        Some(Binding { field: name, source: joint.source.clone(), from, to: joint.to.clone() })
    }
}

/// The default in normal form.
fn default_value(input: &DeclaredInput, ty: &Type, default: &Value, findings: &mut Findings) -> Option<Value> {
    match check_value(ty, default) {
        Ok(normal) => Some(normal),
        Err(errors) => {
            for error in errors {
                let message =
                    format!("the default of `{}` does not fit what the input feeds: {}", input.name, error.message);
                let finding =
                    Finding::new(Code::BadValue, format!("{}/default{}", input.pointer, error.pointer), message);
                findings.push(finding.detail("expected", error.expected).detail("found", error.found));
            }
            None
        }
    }
}

impl Finding {
    fn at(mut self, pointer: &str) -> Self {
        pointer.clone_into(&mut self.pointer);
        self
    }
}

fn follow(ty: &Type, path: &[String]) -> Result<Type, Box<Finding>> {
    follow_from(ty, path, "the input")
}

/// The type of the part that `path` leads to, through fields of records; `whose` is what the first of them belongs to.
fn follow_from(ty: &Type, path: &[String], whose: &str) -> Result<Type, Box<Finding>> {
    let mut ty = ty;
    for (i, name) in path.iter().enumerate() {
        let whose = if i == 0 { whose.to_owned() } else { format!("`{}`", path[..i].join(".")) };
        let Type::Record(fields) = ty else {
            let message = format!("{whose} has no field `{name}`: it is {}, no record", ty.short());
            return Err(Box::new(
                Finding::new(Code::UnknownField, "", message)
                    .help("only fields of records can be followed; take the whole value"),
            ));
        };
        let found = fields.iter().find(|field| field.name == kebab(name) && !name.contains('-'));
        let Some(found) = found else {
            let names: Vec<String> = fields.iter().map(|field| snake(&field.name)).collect();
            let known = || names.iter().map(String::as_str);
            let message = format!("{whose} has no field `{name}`{}", did_you_mean(name, known()));
            return Err(Box::new(
                Finding::new(Code::UnknownField, "", message).help(format!("its fields are {}", listed(known()))),
            ));
        };
        ty = &found.ty;
    }
    Ok(ty.clone())
}
