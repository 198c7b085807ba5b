//! Values along the edges of a pipeline: the inputs of a run, the input record of a step, and the output of the run.
//! This module reads no store; the caller passes the outputs that exist so far.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Pipeline, Source, Step};
use crate::wit::json::{ValueError, check, pointer_step};
use crate::wit::names::{did_you_mean, listed};
use crate::wit::{coerce, snake};

/// A value is missing: the step was not ready, or the output of a prerequisite does not have the promised type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{target}` needs `{source_id}`, which is not there")]
pub struct Unbound {
    /// The field that needs the value: `input_002_faces_array` or `output.faces`.
    pub target: String,
    /// The missing value: `output_001_faces_array` or `input.image`.
    pub source_id: String,
}

impl Pipeline {
    /// The inputs of a run in normal form: one entry for each input of the pipeline, in declared order. An input that
    /// is not given has its default, or `null`.
    ///
    /// # Errors
    /// All errors: unknown names, missing values, values of the wrong type.
    pub fn resolve_inputs(&self, given: &Map<String, Value>) -> Result<Value, Vec<ValueError>> {
        let names = || self.inputs.iter().map(|input| input.name.as_str());
        let mut errors = Vec::new();
        for (name, value) in given.iter().filter(|(name, _)| self.input(name).is_none()) {
            let hint = match did_you_mean(name, names()) {
                none if none.is_empty() => format!("; its inputs are {}", listed(names())),
                near => near,
            };
            errors.push(ValueError {
                pointer: pointer_step(name),
                expected: "nothing".to_owned(),
                found: crate::wit::json::describe(value),
                message: format!("{} has no input `{name}`{hint}", self.reference()),
            });
        }
        let mut resolved = Map::new();
        for input in &self.inputs {
            let value = match (given.get(&input.name), &input.default) {
                (Some(value), _) => check(&input.ty, value),
                (None, Some(default)) => Ok(default.clone()),
                (None, None) if input.optional => Ok(Value::Null),
                (None, None) => Err(vec![ValueError {
                    pointer: String::new(),
                    expected: input.ty.short(),
                    found: "nothing".to_owned(),
                    message: format!(
                        "missing: {} needs the input `{}`, {}",
                        self.reference(),
                        input.name,
                        input.ty.short()
                    ),
                }]),
            };
            match value {
                Ok(value) => drop(resolved.insert(input.name.clone(), value)),
                Err(wrong) => errors.extend(wrong.into_iter().map(|error| {
                    let pointer = pointer_step(&input.name) + &error.pointer;
                    ValueError { pointer, ..error }
                })),
            }
        }
        if errors.is_empty() { Ok(Value::Object(resolved)) } else { Err(errors) }
    }

    /// The input record of `step` in normal form. `inputs` are the resolved inputs of the run; `outputs` returns the
    /// output of a step by its name.
    ///
    /// # Errors
    /// A value is missing.
    pub fn step_input<'a>(
        &self,
        step: &Step,
        inputs: &Value,
        outputs: &dyn Fn(&str) -> Option<&'a Value>,
    ) -> Result<Value, Unbound> {
        let mut record = Map::new();
        for field in &step.signature.input {
            let name = snake(&field.name);
            let value = match step.binding(&name) {
                None => Value::Null,
                Some(binding) => {
                    let value = fetch(&binding.source, inputs, outputs).ok_or_else(|| Unbound {
                        target: step.input_field_id(&name),
                        source_id: self.source_id(&binding.source).unwrap_or_default(),
                    })?;
                    coerce(value, &binding.from, &binding.to)
                }
            };
            record.insert(name, value);
        }
        Ok(Value::Object(record))
    }

    /// For each field of the step's input, the unique ID of its origin: `output_001_faces_array`, or `input.image` for
    /// an input of the pipeline. A field that gets a literal or no value has no entry.
    #[must_use]
    pub fn origins(&self, step: &Step) -> BTreeMap<String, String> {
        step.inputs
            .iter()
            .filter_map(|binding| Some((binding.field.clone(), self.source_id(&binding.source)?)))
            .collect()
    }

    /// The output of a run. `inputs` are the resolved inputs of the run; `outputs` returns the output of a step by its
    /// name.
    ///
    /// # Errors
    /// A value is missing.
    pub fn result<'a>(&self, inputs: &Value, outputs: &dyn Fn(&str) -> Option<&'a Value>) -> Result<Value, Unbound> {
        let field = |output: &super::Output| {
            fetch(&output.source, inputs, outputs).map(|value| (output.name.clone(), value)).ok_or_else(|| Unbound {
                target: format!("output.{}", output.name),
                source_id: self.source_id(&output.source).unwrap_or_default(),
            })
        };
        self.output.iter().map(field).collect::<Result<Map<_, _>, _>>().map(Value::Object)
    }

    /// The unique ID of a source, including the fields that are followed; `None` for a literal.
    pub(super) fn source_id(&self, source: &Source) -> Option<String> {
        match source {
            Source::Input { name, path } => {
                Some(["input", name].into_iter().chain(path.iter().map(String::as_str)).collect::<Vec<_>>().join("."))
            }
            Source::Output { step, path } => Some(self.step(step)?.output_field_id(&path.join("."))),
            Source::Literal { .. } => None,
        }
    }
}

fn fetch<'a>(source: &Source, inputs: &Value, outputs: &dyn Fn(&str) -> Option<&'a Value>) -> Option<Value> {
    let follow = |value: &Value, path: &[String]| path.iter().try_fold(value, |value, name| value.get(name)).cloned();
    match source {
        Source::Input { name, path } => follow(inputs.get(name)?, path),
        Source::Output { step, path } => follow(outputs(step)?, path),
        Source::Literal { value } => Some(value.clone()),
    }
}
