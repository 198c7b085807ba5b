//! Static lineage: the origin and the destinations of every value, field by field, as unique IDs. It is known before
//! anything has run.

use serde::Serialize;

use super::{Pipeline, Source};
use crate::wit::snake;

/// One edge on the path of a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Edge {
    /// What the edge means.
    pub kind: EdgeKind,
    /// The origin: `face_detection`, `output_001_faces_array` or `input.image`.
    pub from: String,
    /// The destination: `output_001_faces_array`, `input_002_faces_array` or `output.faces`.
    pub to: String,
    /// The name of the step that gives the value; `None` for the pipeline's own inputs.
    pub from_step: Option<String>,
    /// The name of the step that takes the value; `None` for an edge from a task to its output, and for the run's
    /// output.
    pub to_step: Option<String>,
}

/// The meaning of an [`Edge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EdgeKind {
    /// An input of the pipeline feeds a field of a step.
    Given,
    /// A task produces a field of its output.
    Made,
    /// A field of an output feeds a field of another step.
    Passed,
    /// A value becomes part of the run's output.
    Result,
}

impl Pipeline {
    /// All edges. For each step: what it is given, what it produces, and the steps that take this. Then the run's
    /// output.
    #[must_use]
    pub fn edges(&self) -> Vec<Edge> {
        let mut edges = Vec::new();
        for step in &self.steps {
            for binding in &step.inputs {
                if let (Source::Input { .. }, Some(from)) = (&binding.source, self.source_id(&binding.source)) {
                    let to = step.input_field_id(&binding.field);
                    edges.push(Edge {
                        kind: EdgeKind::Given,
                        from,
                        to,
                        from_step: None,
                        to_step: Some(step.name.clone()),
                    });
                }
            }
            for field in &step.signature.output {
                let name = snake(&field.name);
                let (from, to, from_step) = (snake(&step.task), step.output_field_id(&name), Some(step.name.clone()));
                edges.push(Edge { kind: EdgeKind::Made, from, to, from_step: from_step.clone(), to_step: None });
                for consumer in &self.steps {
                    for binding in consumer.inputs.iter().filter(|binding| is_field(&binding.source, &step.name, &name))
                    {
                        let from = self.source_id(&binding.source).unwrap_or_default();
                        let to = consumer.input_field_id(&binding.field);
                        edges.push(Edge {
                            kind: EdgeKind::Passed,
                            from,
                            to,
                            from_step: from_step.clone(),
                            to_step: Some(consumer.name.clone()),
                        });
                    }
                }
            }
        }
        for output in &self.output {
            let from_step = match &output.source {
                Source::Output { step, .. } => Some(step.clone()),
                Source::Input { .. } | Source::Literal { .. } => None,
            };
            let from = self.source_id(&output.source).unwrap_or_default();
            edges.push(Edge {
                kind: EdgeKind::Result,
                from,
                to: format!("output.{}", output.name),
                from_step,
                to_step: None,
            });
        }
        edges
    }

    /// The edges as text, such as `face_detection -> output_001_faces_array` and `output_001_faces_array ->
    /// input_002_faces_array`: what tasks produce and where it goes, the run's output last. Only edges for which
    /// `happened` returns true are listed. Edges from the pipeline's inputs are left out; [`Pipeline::edges`] has them.
    #[must_use]
    pub fn lineage(&self, happened: impl Fn(&Edge) -> bool) -> Vec<String> {
        let shown = self.edges().into_iter().filter(|edge| edge.kind != EdgeKind::Given && happened(edge));
        shown.map(|edge| format!("{} -> {}", edge.from, edge.to)).collect()
    }
}

/// Whether `source` reads this field of the step `wanted`, or a part of the field.
fn is_field(source: &Source, wanted: &str, field: &str) -> bool {
    let Source::Output { step, path } = source else { return false };
    step == wanted && path.first().is_some_and(|first| first == field)
}
