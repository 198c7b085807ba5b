//! The unique IDs of steps, records and fields in documents and in lineage. Numbers have at least three digits.
//!
//! | ID | of |
//! |---|---|
//! | `face_detection_001` | the step with the number 1: [`step`] |
//! | `face_detection_input_001`, `face_detection_output_001` | its input and output record: [`input`], [`output`] |
//! | `input_001_image`, `output_001_faces_array` | a field of these: [`input_field`], [`output_field`] |
//! | `RUN/output_001_faces_array` | the value of this field in a run: [`in_run`] |

use crate::wit::snake;

/// The number of a step, with at least three digits.
#[must_use]
pub fn padded(number: u32) -> String {
    format!("{number:03}")
}

/// The ID of the step with this number, which runs `task` (in kebab-case).
#[must_use]
pub fn step(task: &str, number: u32) -> String {
    format!("{}_{number:03}", snake(task))
}

/// The ID of the step's input record.
#[must_use]
pub fn input(task: &str, number: u32) -> String {
    format!("{}_input_{number:03}", snake(task))
}

/// The ID of the step's output record.
#[must_use]
pub fn output(task: &str, number: u32) -> String {
    format!("{}_output_{number:03}", snake(task))
}

/// The ID of a field of the step's input. `field`: in snake_case.
#[must_use]
pub fn input_field(number: u32, field: &str) -> String {
    format!("input_{number:03}_{field}")
}

/// The ID of a field of the step's output. `field`: in snake_case; with dots, a field of a record in it.
#[must_use]
pub fn output_field(number: u32, field: &str) -> String {
    format!("{}_{field}", output_prefix(number))
}

/// The part of output IDs that has the number: `output_001`.
#[must_use]
pub fn output_prefix(number: u32) -> String {
    format!("output_{number:03}")
}

/// The ID of a value in a generation of a run. `run`: the reference of the generation.
#[must_use]
pub fn in_run(run: &str, id: &str) -> String {
    format!("{run}/{id}")
}

/// An ID of a step's output, which names its step by the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputId<'a> {
    /// `output_001_faces_array`.
    Field {
        /// The number of the step.
        number: u32,
        /// The field, in snake_case.
        field: &'a str,
    },
    /// `face_detection_output_001`.
    Record {
        /// The task, in snake_case.
        task: &'a str,
        /// The number of the step.
        number: u32,
    },
}

/// Parses the ID of a step's output. Accepts any padding of the number; [`is_padded`] tests it.
#[must_use]
pub fn output_of(id: &str) -> Option<OutputId<'_>> {
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?;
    if let Some((digits, field)) = id.strip_prefix("output_").and_then(|rest| rest.split_once('_')) {
        return Some(OutputId::Field { number: number(digits)?, field });
    }
    let (task, digits) = id.rsplit_once("_output_")?;
    Some(OutputId::Record { task, number: number(digits)? })
}

/// Whether the output ID has this number in the spelling that this module writes.
#[must_use]
pub fn is_padded(id: &str, number: u32) -> bool {
    pairs(id).any(|pair| pair.join("_") == output_prefix(number))
}

/// Whether a name could be taken for an ID: it contains `input` or `output` before a number. Steps have no such names.
#[must_use]
pub fn may_be_id(name: &str) -> bool {
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
    pairs(name).any(|[first, second]| matches!(first, "input" | "output") && is_number(second))
}

/// Each word of a name with the next one.
fn pairs(name: &str) -> impl Iterator<Item = [&str; 2]> {
    name.split('_').zip(name.split('_').skip(1)).map(|(first, second)| [first, second])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_id_is_read_as_it_is_written() {
        for number in [1, 12, 123, 4567, u32::MAX] {
            let id = output_field(number, "faces_array");
            assert_eq!(output_of(&id), Some(OutputId::Field { number, field: "faces_array" }));
            let record = output("face-detection", number);
            assert_eq!(output_of(&record), Some(OutputId::Record { task: "face_detection", number }));
            for id in [id, record] {
                assert!(is_padded(&id, number) && may_be_id(&id), "{id}");
                assert!(!is_padded(&id, number - 1), "{id}");
            }
        }
        assert!(!is_padded("output_1_x", 1));
        assert!(may_be_id("output_1_x") && may_be_id("input_001_image") && may_be_id("a_input_1"));
    }

    #[test]
    fn other_names_are_no_output_ids() {
        for name in ["detect", "output", "output_x_1", "input_001_image", "output_001", "a_output_b"] {
            assert_eq!(output_of(name), None, "{name}");
        }
        for name in ["output", "input_faces", "an_output_x_1", "face_detection_001"] {
            assert!(!may_be_id(name), "{name}");
        }
        assert_eq!(in_run("r1@2", &input_field(1, "image")), "r1@2/input_001_image");
        assert_eq!(step("face-detection", 1), "face_detection_001");
        assert_eq!(input("face-detection", 1), "face_detection_input_001");
    }
}
