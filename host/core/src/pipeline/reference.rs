//! The sources that a mapping may name: an input of the pipeline, or a field of a step's output. A field is named with
//! the step's name or by its unique ID.
//!
//! | written | means |
//! |---|---|
//! | `input.image`, `input.area.x` | an input of the pipeline; a field of the record in it |
//! | `detect.faces_array`, `detect.best.bbox` | a field of the output of the step `detect`; a field of the record in it
//! |
//! | `output_001_faces_array`, `output_001_best.bbox` | the same by the unique ID of the field; the step has the number
//! 1 |
//! | `face_detection_output_001.faces_array` | the same by the unique ID of the output record |

use super::Source;
use super::declared::Declared;
use super::finding::{Code, Finding};
use crate::keys::documented::{self, OutputId, output_of};
use crate::wit::names::{did_you_mean, listed, nearest};
use crate::wit::snake;

/// The source that a mapping names; or the error, with the step that was probably meant.
pub(super) type Resolved = Result<Source, (Box<Finding>, Option<String>)>;

/// Whether a step must not have this name: `input`, and every name that could be a unique ID (`output_1_x`,
/// `face_detection_output_001`).
pub(super) fn is_reserved(name: &str) -> bool {
    name == "input" || documented::may_be_id(name)
}

/// Resolves `text`, the source of the mapping at `pointer`. Does not check whether the fields exist.
pub(super) fn resolve(text: &str, pointer: &str, declared: &Declared) -> Resolved {
    let mut parts = text.split('.').map(str::to_owned);
    let head = parts.next().unwrap_or_default();
    let path: Vec<String> = parts.collect();
    if head.is_empty() || path.iter().any(String::is_empty) {
        let finding = Finding::new(Code::BadValue, pointer, format!("`{text}` is not a valid source"));
        return Err((
            Box::new(
                finding.help("write \"input.NAME\", \"STEP.FIELD\" or a unique ID; a literal is {\"value\": ...}"),
            ),
            None,
        ));
    }
    if head == "input" {
        return input(path, pointer, declared);
    }
    if let Some(step) = declared.steps.iter().find(|step| step.name == head) {
        return output(&step.name, path, text, pointer);
    }
    match output_of(&head) {
        Some(OutputId::Field { number, field }) => {
            let step = numbered(&head, number, pointer, declared)?;
            let path = [field.to_owned()].into_iter().chain(path).collect();
            output(&step, path, text, pointer)
        }
        Some(OutputId::Record { task, number }) => {
            let name = numbered(&head, number, pointer, declared)?;
            let step = declared.steps.iter().find(|step| step.name == name);
            match step.and_then(|step| step.task.as_ref()) {
                Some((actual, _)) if snake(actual) != task => {
                    let right = documented::output(actual, number);
                    let finding = Finding::new(
                        Code::UnknownStep,
                        pointer,
                        format!("`{head}` does not exist: the step {number} runs {actual}"),
                    );
                    Err((Box::new(finding.help(format!("write `{right}`"))), Some(name)))
                }
                _ => output(&name, path, text, pointer),
            }
        }
        None => {
            let names = || declared.steps.iter().map(|step| step.name.as_str());
            let near = nearest(&head, names().chain(["input"])).map(str::to_owned);
            let message = format!("there is no step `{head}`{}", did_you_mean(&head, names().chain(["input"])));
            let finding =
                Finding::new(Code::UnknownStep, pointer, message).help(format!("the steps are {}", listed(names())));
            Err((Box::new(finding), near))
        }
    }
}

fn input(path: Vec<String>, pointer: &str, declared: &Declared) -> Resolved {
    let names = || declared.inputs.iter().map(|input| input.name.as_str());
    let mut path = path.into_iter();
    let Some(name) = path.next() else {
        let finding = Finding::new(Code::UnknownField, pointer, "`input` alone names no input");
        return Err((
            Box::new(finding.help(format!("write \"input.NAME\"; the inputs are {}", listed(names())))),
            None,
        ));
    };
    if !names().any(|known| known == name) {
        let message = format!("the pipeline has no input `{name}`{}", did_you_mean(&name, names()));
        let finding = Finding::new(Code::UnknownField, pointer, message);
        return Err((
            Box::new(finding.help(format!("the inputs are {}; declare it under `inputs`", listed(names())))),
            None,
        ));
    }
    Ok(Source::Input { name, path: path.collect() })
}

fn output(step: &str, path: Vec<String>, text: &str, pointer: &str) -> Resolved {
    if path.is_empty() {
        let finding = Finding::new(Code::UnknownField, pointer, format!("`{text}` names a whole step"));
        return Err((
            Box::new(finding.help(format!("name a field of its output: \"{text}.FIELD\""))),
            Some(step.to_owned()),
        ));
    }
    Ok(Source::Output { step: step.to_owned(), path })
}

/// The name of the step with this number. Reports a number that no step has, or that is padded otherwise.
fn numbered(
    head: &str,
    number: u32,
    pointer: &str,
    declared: &Declared,
) -> Result<String, (Box<Finding>, Option<String>)> {
    let step = declared.steps.iter().find(|step| step.number == Some(number));
    if !documented::is_padded(head, number) {
        let padded = documented::output_prefix(number);
        let finding =
            Finding::new(Code::UnknownStep, pointer, format!("`{head}` is not a unique ID: numbers have three digits"));
        return Err((Box::new(finding.help(format!("write `{padded}`"))), step.map(|step| step.name.clone())));
    }
    match step {
        Some(step) => Ok(step.name.clone()),
        None => {
            let numbers: Vec<String> =
                declared.steps.iter().filter_map(|step| Some(documented::padded(step.number?))).collect();
            let finding = Finding::new(
                Code::UnknownStep,
                pointer,
                format!("`{head}` does not exist: no step has the number {number}"),
            );
            Err((
                Box::new(finding.help(format!("the numbers are {}", listed(numbers.iter().map(String::as_str))))),
                None,
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_names() {
        for name in ["input", "output_1_x", "input_001_image", "face_detection_output_001", "output_1"] {
            assert!(is_reserved(name), "{name}");
        }
        for name in ["inputs", "detect", "output", "output_x", "output_1x", "my_input"] {
            assert!(!is_reserved(name), "{name}");
        }
    }
}
