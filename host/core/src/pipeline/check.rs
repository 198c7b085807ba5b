//! The check of a pipeline file against the types of its tasks. It reports all errors at once. An error that only
//! follows from a reported error is not reported.
//!
//! An input that no step reads is an error, because the pipeline would accept it and ignore it. A step whose outputs
//! are not read is a warning.

use std::collections::{BTreeMap, BTreeSet};

use super::catalogue::{Catalogue, TaskVersion, Unresolved};
use super::declared::{Declared, Mapping, Written};
use super::finding::{Code, Finding, Findings, Severity};
use super::order::{cycles, sorted};
use super::reference::resolve;
use super::text::Text;
use super::{Binding, Format, Input, Output, Pipeline, Source, Step};
use crate::limits::Limits;
use crate::wit::names::{did_you_mean, listed};
use crate::wit::{Field, Type, kebab, snake};

mod types;

use self::types::follow;

/// The most findings that are reported for one file.
const MAX_FINDINGS: usize = 200;

/// The result of a check.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// The checked pipeline; present exactly if no finding is an error.
    pub pipeline: Option<Pipeline>,
    /// The findings, in the order of the file.
    pub findings: Vec<Finding>,
    /// The number of findings beyond the first 200, which are not reported.
    pub omitted: usize,
}

impl Checked {
    /// Whether any finding is an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }
}

/// Checks the text of a pipeline file, and pins each task to the newest matching version in `catalogue`.
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

/// A mapping of a step's input whose source and whose field both exist.
struct Joint {
    /// Index in `Declared::steps`.
    step: usize,
    /// JSON Pointer of the mapping.
    pointer: String,
    /// The name of the field, in snake_case.
    field: String,
    source: Source,
    /// The type of the field.
    to: Type,
}

struct Checker<'d> {
    declared: &'d Declared,
    findings: Findings,
    /// The task of each step; `None` if it was not found.
    tasks: Vec<Option<TaskVersion>>,
    joints: Vec<Joint>,
    /// For each step, its prerequisites, each with the JSON Pointer of a mapping that reads from it.
    needs: BTreeMap<usize, BTreeMap<usize, String>>,
    /// The steps from which some mapping reads, or probably was meant to read.
    read: BTreeSet<String>,
    /// The inputs that some step reads, whether or not the rest of the mapping is correct.
    mentioned: BTreeSet<String>,
    /// The inferred type of each input.
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

    /// Checks every mapping of every step: its source and its field.
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
                    let message = format!("{} has no input `{}`{near}", task.key(), mapping.target);
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
                    let message =
                        format!("`{name}` of {} is not mapped, and it must be: it is {}", task.key(), field.ty.short());
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

    /// The source of a mapping. Reports a source that does not exist.
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
                "the pipeline uses no output of the step `{}`: {}",
                step.name,
                listed(fields.iter().map(String::as_str))
            );
            let finding = Finding::new(Code::UnusedOutput, &step.pointer, message);
            self.findings.push(
                finding.help("map it to another step or to `output`, or remove the step").detail("fields", fields),
            );
        }
    }

    /// The pipeline; `None` if a finding is an error.
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
                requirements: task.requirements.clone(),
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
