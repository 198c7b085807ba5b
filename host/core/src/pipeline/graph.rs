//! A pipeline to look at: as text for a terminal and as Mermaid for a page.

use std::fmt::Write as _;

use super::{Pipeline, Source, Step};
use crate::wit::{Type, snake};

impl Pipeline {
    /// The steps by rounds (steps of one round run side by side), each with where its inputs come from and what it
    /// gives.
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
        let mut text = format!("\n  {:03} {}: {}", step.number, step.name, step.task_reference());
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

    /// A Mermaid flowchart: steps as boxes, an arrow for each pair of steps with the fields that it carries.
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
                format!("  {}[\"{:03} {}<br/>{}\"]\n", node(&step.name), step.number, step.name, step.task_reference())
            })
            .collect();
        let output = "  output([output])\n";
        text.insert_str("flowchart LR\n  input([input])\n".len(), &(boxes + output));
        text
    }

    /// Adds what `source` carries to the arrow that ends at `to`.
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

/// A prefix keeps steps called `end` or `output` from meaning something to Mermaid.
fn node(step: &str) -> String {
    format!("step_{step}")
}
