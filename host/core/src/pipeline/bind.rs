//! Values along the edges: a run's inputs, the input record of a step, the run's output. No store: whoever runs a
//! pipeline hands in what has been made so far.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Pipeline, Source, Step};
use crate::wit::json::{ValueError, check, pointer_step};
use crate::wit::names::{did_you_mean, listed};
use crate::wit::{coerce, snake};

/// A value is not there yet: the step was not ready, or its need's output is not the one that its type promises.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{target}` needs `{source_id}`, which is not there")]
pub struct Unbound {
    /// `input_002_faces_array` or `output.faces`.
    pub target: String,
    /// `output_001_faces_array` or `input.image`.
    pub source_id: String,
}

impl Pipeline {
    /// A run's inputs in normal form, one entry for each input of the pipeline in declared order: as given, else the
    /// default, else `null`.
    ///
    /// # Errors
    /// Everything that does not fit: unknown names, missing values, values of the wrong type.
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

    /// The input record of `step` in normal form, from the run's resolved inputs and the outputs of the steps that it
    /// needs (by step name).
    ///
    /// # Errors
    /// A value is not there.
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

    /// Where each field of a step's input comes from: `output_001_faces_array`, or `input.image` for the pipeline's
    /// own. A field that a literal or nothing feeds has no entry.
    #[must_use]
    pub fn origins(&self, step: &Step) -> BTreeMap<String, String> {
        step.inputs
            .iter()
            .filter_map(|binding| Some((binding.field.clone(), self.source_id(&binding.source)?)))
            .collect()
    }

    /// The run's output, from its resolved inputs and the outputs of its steps (by step name).
    ///
    /// # Errors
    /// A value is not there.
    pub fn result<'a>(&self, inputs: &Value, outputs: &dyn Fn(&str) -> Option<&'a Value>) -> Result<Value, Unbound> {
        let field = |output: &super::Output| {
            fetch(&output.source, inputs, outputs).map(|value| (output.name.clone(), value)).ok_or_else(|| Unbound {
                target: format!("output.{}", output.name),
                source_id: self.source_id(&output.source).unwrap_or_default(),
            })
        };
        self.output.iter().map(field).collect::<Result<Map<_, _>, _>>().map(Value::Object)
    }

    /// The unique ID of what a source names, with the fields that are followed; none for a literal.
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
