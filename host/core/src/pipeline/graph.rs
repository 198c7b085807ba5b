//! Drawings of a pipeline: as text for a terminal, and as Mermaid for a web page.

use std::fmt::Write as _;

use super::{Pipeline, Source, Step};
use crate::keys::documented::padded;
use crate::wit::{Type, snake};

impl Pipeline {
    /// The steps by stages. Each step is shown with the sources of its inputs and with its outputs. Steps of one stage
    /// can run at the same time.
    #[must_use]
    pub fn text_graph(&self) -> String {
        let mut text = self.reference();
        if let Some(description) = &self.description {
            text += &format!("\n{description}");
        }
        text += "\n\ninputs";
        for input in &self.inputs {
            let ty = match (&input.ty, input.optional) {
                (Type::Option(some), _) => some.short(),
                (ty, _) => ty.short(),
            };
            let rest = match &input.default {
                Some(default) => format!(" = {default}"),
                None if input.optional => " (optional)".to_owned(),
                None => String::new(),
            };
            text += &format!("\n  {}: {ty}{rest}", input.name);
        }
        for (i, stage) in self.stages().iter().enumerate() {
            let together = if stage.len() > 1 { format!(" ({} side by side)", stage.len()) } else { String::new() };
            text += &format!("\n\nstage {}{together}", i + 1);
            for step in stage {
                text += &self.step_text(step);
            }
        }
        text += "\n\noutput";
        for output in &self.output {
            text += &format!("\n  {} <- {}", output.name, self.shown(&output.source));
        }
        text + "\n"
    }

    fn step_text(&self, step: &Step) -> String {
        let mut text = format!("\n  {} {}: {}", padded(step.number), step.name, step.task_reference());
        for binding in &step.inputs {
            text += &format!("\n    {} <- {}", step.input_field_id(&binding.field), self.shown(&binding.source));
        }
        for field in &step.signature.output {
            text += &format!("\n    {}: {}", step.output_field_id(&snake(&field.name)), field.ty.short());
        }
        text
    }

    fn shown(&self, source: &Source) -> String {
        match source {
            Source::Literal { value } => {
                let text = value.to_string();
                let cut: String = text.chars().take(40).collect();
                if cut.len() < text.len() { format!("{cut}…") } else { cut }
            }
            other => self.source_id(other).unwrap_or_default(),
        }
    }

    /// A Mermaid flowchart. Each step is a box. Each pair of connected steps has one arrow, labelled with the fields
    /// that flow along it.
    #[must_use]
    pub fn mermaid(&self) -> String {
        let mut text = "flowchart LR\n  input([input])\n".to_owned();
        let mut arrow = |from: &str, to: &str, fields: &[String]| {
            let mut label = fields.to_vec();
            label.dedup();
            writeln!(text, "  {from} -->|{}| {to}", label.join("<br/>"))
        };
        let mut lines: Vec<(String, String, Vec<String>)> = Vec::new();
        for step in &self.steps {
            for binding in &step.inputs {
                self.carry(&mut lines, &binding.source, &node(&step.name));
            }
        }
        for output in &self.output {
            self.carry(&mut lines, &output.source, "output");
        }
        for (from, to, fields) in &lines {
            // Writing to a string does not fail.
            arrow(from, to, fields).unwrap_or_default();
        }
        let boxes: String = self
            .steps
            .iter()
            .map(|step| {
                format!(
                    "  {}[\"{} {}<br/>{}\"]\n",
                    node(&step.name),
                    padded(step.number),
                    step.name,
                    step.task_reference()
                )
            })
            .collect();
        let output = "  output([output])\n";
        text.insert_str("flowchart LR\n  input([input])\n".len(), &(boxes + output));
        text
    }

    /// Adds the field of `source` to the arrow that ends at `to`.
    fn carry(&self, lines: &mut Vec<(String, String, Vec<String>)>, source: &Source, to: &str) {
        let (from, field) = match source {
            Source::Input { name, path } => ("input".to_owned(), [std::slice::from_ref(name), path].concat().join(".")),
            Source::Output { step, path } => (node(step), path.join(".")),
            Source::Literal { .. } => return,
        };
        match lines.iter_mut().find(|(a, b, _)| *a == from && b == to) {
            Some((_, _, fields)) => fields.push(field),
            None => lines.push((from, to.to_owned(), vec![field])),
        }
    }
}

/// The ID of a step in Mermaid. The prefix avoids Mermaid's own words, such as `end`, and our own `input` and `output`.
fn node(step: &str) -> String {
    format!("step_{step}")
}
