//! The part of the check that compares types. It infers the types of the pipeline's inputs, and compares the type of
//! each source with the type of the field that it feeds.

use serde_json::Value;

use super::super::declared::DeclaredInput;
use super::super::finding::{Code, Finding, Findings};
use super::super::infer::{Conflict, Need, infer};
use super::super::{Input, Source};
use super::{Checker, Joint};
use crate::keys::documented;
use crate::wit::json::check as check_value;
use crate::wit::names::{did_you_mean, listed};
use crate::wit::{Assign, Type, assign, kebab, snake};

/// The most characters that are shown of each of the two types of a `type_mismatch`.
const MAX_TYPE: usize = 2000;

impl Checker<'_> {
    /// Infers the types of the inputs, and checks their defaults.
    pub(super) fn inputs(&mut self) {
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

    /// The target of a mapping in messages: `input_002_faces_array` of attributes (face-attributes@1.0.0).
    fn target(&self, joint: &Joint) -> String {
        let step = &self.declared.steps[joint.step];
        let id = step
            .number
            .map_or_else(|| format!("input_{}", joint.field), |number| documented::input_field(number, &joint.field));
        match &self.tasks[joint.step] {
            Some(task) => format!("`{id}` of {} ({})", step.name, task.key()),
            None => format!("`{id}` of {}", step.name),
        }
    }

    /// Compares the type of each source with the type of its field.
    pub(super) fn joints(&mut self) {
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

    /// The unique ID of a step's output, with the fields that are followed: `output_001_faces_array`.
    fn unique_id(&self, step: &str, path: &[String]) -> String {
        let number = self.declared.steps.iter().find(|declared| declared.name == step).and_then(|step| step.number);
        number.map_or_else(
            || format!("{step}.{}", path.join(".")),
            |number| documented::output_field(number, &path.join(".")),
        )
    }

    /// The type that a source gives. Reports a field that does not exist. `None` also if the type is unknown because of
    /// an error that is reported already.
    pub(super) fn type_of(&mut self, source: &Source, pointer: &str) -> Option<Type> {
        match source {
            Source::Literal { .. } => None,
            Source::Input { name, path } => {
                follow(self.types.get(name)?, path).map_err(|finding| self.findings.push(finding.at(pointer))).ok()
            }
            Source::Output { step, path } => {
                let index = self.declared.steps.iter().position(|declared| declared.name == *step)?;
                let task = self.tasks[index].as_ref()?;
                let output = Type::Record(task.signature.output.clone());
                let whose = format!("the output of {}", task.key());
                follow_from(&output, path, &whose).map_err(|finding| self.findings.push(finding.at(pointer))).ok()
            }
        }
    }
}

/// The default in normal form. Reports a default that does not fit.
fn default_value(input: &DeclaredInput, ty: &Type, default: &Value, findings: &mut Findings) -> Option<Value> {
    match check_value(ty, default) {
        Ok(normal) => Some(normal),
        Err(errors) => {
            for error in errors {
                let message =
                    format!("the default of `{}` does not fit the connected steps: {}", input.name, error.message);
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

pub(super) fn follow(ty: &Type, path: &[String]) -> Result<Type, Box<Finding>> {
    follow_from(ty, path, "the input")
}

/// The type of the part that `path` leads to through fields of records. `whose` names the outermost record in messages.
fn follow_from(ty: &Type, path: &[String], whose: &str) -> Result<Type, Box<Finding>> {
    let mut ty = ty;
    for (i, name) in path.iter().enumerate() {
        let whose = if i == 0 { whose.to_owned() } else { format!("`{}`", path[..i].join(".")) };
        let Type::Record(fields) = ty else {
            let message = format!("{whose} has no field `{name}`: it is {}, not a record", ty.short());
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
