//! The differences between two pipelines, for people. `pipeline update` prints them before it changes anything.

use std::fmt::Display;

use super::{Input, Output, Pipeline, Retry, Source, Step};
use crate::manifest::{show_duration_ms, show_size};

/// One line for each difference, in the order of the pipeline. Empty if both pipelines run the same way.
#[must_use]
pub fn diff(old: &Pipeline, new: &Pipeline) -> Vec<String> {
    let mut lines = Vec::new();
    changed(&mut lines, "name", &old.name, &new.name);
    changed(&mut lines, "version", &old.version, &new.version);
    changed(&mut lines, "timeout", &timeout(old), &timeout(new));
    changed(&mut lines, "on_failure", &old.on_failure.as_str(), &new.on_failure.as_str());
    pairs(&mut lines, "input", &old.inputs, &new.inputs, |input| &input.name, input);
    pairs(
        &mut lines,
        "step",
        &old.steps,
        &new.steps,
        |step| &step.name,
        |lines, was, is| step(lines, (old, was), (new, is)),
    );
    pairs(
        &mut lines,
        "output",
        &old.output,
        &new.output,
        |output| &output.name,
        |lines, was, is| output(lines, (old, was), (new, is)),
    );
    lines
}

fn changed<T: Display + PartialEq>(lines: &mut Vec<String>, what: &str, old: &T, new: &T) {
    if old != new {
        lines.push(format!("{what}: {old} -> {new}"));
    }
}

/// Adds a line for each item that only one of the lists has, by name, and calls `each` for the items in both.
fn pairs<T>(
    lines: &mut Vec<String>,
    what: &str,
    old: &[T],
    new: &[T],
    name: impl Fn(&T) -> &str,
    mut each: impl FnMut(&mut Vec<String>, &T, &T),
) {
    for was in old {
        match new.iter().find(|is| name(is) == name(was)) {
            Some(is) => each(lines, was, is),
            None => lines.push(format!("{what} {}: removed", name(was))),
        }
    }
    for is in new.iter().filter(|is| old.iter().all(|was| name(was) != name(is))) {
        lines.push(format!("{what} {}: added", name(is)));
    }
}

fn timeout(pipeline: &Pipeline) -> String {
    pipeline.timeout_ms.map_or_else(|| "none".to_owned(), show_duration_ms)
}

fn input(lines: &mut Vec<String>, old: &Input, new: &Input) {
    let name = &new.name;
    changed(lines, &format!("input {name}: type"), &old.ty.short(), &new.ty.short());
    let default = |input: &Input| input.default.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
    changed(lines, &format!("input {name}: default"), &default(old), &default(new));
    let need = |input: &Input| if input.optional { "optional" } else { "required" };
    changed(lines, &format!("input {name}"), &need(old), &need(new));
}

fn step(lines: &mut Vec<String>, (before, old): (&Pipeline, &Step), (after, new): (&Pipeline, &Step)) {
    let name = &new.name;
    changed(lines, &format!("step {name}: number"), &old.number, &new.number);
    if old.task_reference() != new.task_reference() {
        changed(lines, &format!("step {name}: task"), &old.task_reference(), &new.task_reference());
    } else {
        changed(lines, &format!("step {name}: package of {}", new.task_reference()), &old.package, &new.package);
    }
    let needs = |step: &Step| {
        if step.requirements.as_str().is_empty() {
            "nothing".to_owned()
        } else {
            step.requirements.needs().collect::<Vec<_>>().join(", ")
        }
    };
    changed(lines, &format!("step {name}: asks its worker for"), &needs(old), &needs(new));
    let fields = |step: &Step| step.signature.output.clone();
    pairs(
        lines,
        &format!("step {name}: output"),
        &fields(old),
        &fields(new),
        |field| &field.name,
        |lines, was, is| {
            changed(lines, &format!("step {name}: type of output {}", is.name), &was.ty.short(), &is.ty.short());
        },
    );
    let feeds = |pipeline: &Pipeline, step: &Step, field: &str| {
        step.binding(field).map_or_else(|| "nothing".to_owned(), |binding| shown(pipeline, &binding.source))
    };
    let mut all: Vec<&str> = old.inputs.iter().chain(&new.inputs).map(|binding| binding.field.as_str()).collect();
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|field| seen.insert(*field));
    for field in all {
        changed(lines, &format!("step {name}: {field} from"), &feeds(before, old, field), &feeds(after, new, field));
    }
    let retry = |Retry { max_attempts, backoff_ms, max_backoff_ms }: Retry| {
        format!(
            "{max_attempts} attempts, {} to {} apart",
            show_duration_ms(backoff_ms),
            show_duration_ms(max_backoff_ms)
        )
    };
    changed(lines, &format!("step {name}: retry"), &retry(old.retry), &retry(new.retry));
    changed(
        lines,
        &format!("step {name}: time"),
        &show_duration_ms(old.limits.time_ms),
        &show_duration_ms(new.limits.time_ms),
    );
    changed(lines, &format!("step {name}: memory"), &show_size(old.limits.memory), &show_size(new.limits.memory));
    changed(lines, &format!("step {name}: output limit"), &show_size(old.limits.output), &show_size(new.limits.output));
    changed(lines, &format!("step {name}: log limit"), &show_size(old.limits.log), &show_size(new.limits.log));
    changed(lines, &format!("step {name}: handles"), &old.limits.handles, &new.limits.handles);
    changed(
        lines,
        &format!("step {name}: artifacts"),
        &show_size(old.limits.artifacts),
        &show_size(new.limits.artifacts),
    );
}

fn output(lines: &mut Vec<String>, (before, old): (&Pipeline, &Output), (after, new): (&Pipeline, &Output)) {
    changed(lines, &format!("output {}: from", new.name), &shown(before, &old.source), &shown(after, &new.source));
    changed(lines, &format!("output {}: type", new.name), &old.ty.short(), &new.ty.short());
}

fn shown(pipeline: &Pipeline, source: &Source) -> String {
    match source {
        Source::Literal { value } => value.to_string(),
        other => pipeline.source_id(other).unwrap_or_default(),
    }
}
