//! `pipeline`: checks, publishes and shows pipelines.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use dovetail_core::ledger::{MODEL, MODEL_KIND, is_grant};
use dovetail_core::pipeline::{Checked, Finding, Pipeline as Graph, Severity, Source, Step};
use dovetail_flow::{Published, Pushed};
use serde_json::{Value, json};

use crate::args::{GraphFormat, Pipeline};
use crate::commands::schema;
use crate::error::{Error, Exit};
use crate::inputs::read;
use crate::paths::Shown as _;
use crate::table::{count, table};
use crate::unread::print_list;
use crate::wire::App;

pub(crate) fn run(command: &Pipeline, app: &App) -> Result<Exit, Error> {
    match command {
        Pipeline::Check { file } => {
            let checked = checked_file(app, file)?;
            let good = checked.pipeline.is_some();
            app.output.result(
                || findings_json(&checked),
                || {
                    let mut text = findings_text(file, &checked);
                    if let Some(pipeline) = &checked.pipeline {
                        text.push_str(&format!(
                            "{} is good: {}\n",
                            pipeline.reference(),
                            count(pipeline.steps.len(), "step")
                        ));
                    }
                    text
                },
            );
            Ok(if good { Exit::Done } else { Exit::Failed })
        }
        Pipeline::Push { file } => push(app, file),
        Pipeline::Update { pipeline } => update(app, pipeline),
        Pipeline::List => {
            let all = dovetail_flow::pipelines(app.parts_to_read()?)?;
            print_list(app, &all, "pipeline", |name| json!({ "pipeline": name }), summary, list);
            Ok(Exit::Done)
        }
        Pipeline::Show { pipeline, capabilities } => {
            let published = dovetail_flow::pipeline(app.parts_to_read()?, pipeline)?;
            if *capabilities {
                app.output.result(|| capabilities_json(&published), || capabilities_text(&published));
                return Ok(Exit::Done);
            }
            app.output.result(
                || {
                    let mut json = published.pipeline.to_json();
                    json["revision"] = json!(published.revision);
                    json
                },
                || show(&published),
            );
            Ok(Exit::Done)
        }
        Pipeline::Graph { pipeline, format } => graph(app, pipeline, *format),
        Pipeline::Schema => {
            app.output.text(&schema::pipeline());
            Ok(Exit::Done)
        }
    }
}

/// What was typed.
pub(crate) enum Named<'a> {
    File(&'a Path),
    Published(&'a str),
}

impl<'a> Named<'a> {
    /// A file has a slash or the extension `.json`.
    pub(crate) fn of(typed: &'a OsStr) -> Result<Self, Error> {
        let path = Path::new(typed);
        if typed.as_bytes().contains(&b'/') || path.extension().is_some_and(|extension| extension == "json") {
            return Ok(Self::File(path));
        }
        typed.to_str().map(Self::Published).ok_or_else(|| {
            Error::usage("unknown_pipeline", format!("`{}` is no name of a pipeline", typed.shown()))
                .help("see `dovetail pipeline list`; for a file, write ./FILE")
        })
    }
}

/// A file, checked against the published tasks.
pub(crate) fn checked_file(app: &App, file: &Path) -> Result<Checked, Error> {
    // One byte more than is taken, so that the check itself says that it is too long.
    let most = dovetail_core::pipeline::MAX_SOURCE as u64 * 2;
    let text = String::from_utf8(read(file, most)?).map_err(|e| {
        Error::usage("bad_pipeline", format!("`{}` is not UTF-8 text", file.shown()))
            .cause(e)
            .help("a pipeline is a JSON file")
    })?;
    Ok(dovetail_flow::check(app.parts_to_read()?, &text)?)
}

/// `{"errors": [...], "warnings": [...]}`, and how many more there are.
fn findings_json(checked: &Checked) -> Value {
    let of = |severity| {
        checked.findings.iter().filter(|finding| finding.severity == severity).map(Finding::to_json).collect::<Vec<_>>()
    };
    let mut json = json!({ "errors": of(Severity::Error), "warnings": of(Severity::Warning) });
    if checked.omitted > 0 {
        json["omitted"] = json!(checked.omitted);
    }
    json
}

fn findings_text(file: &Path, checked: &Checked) -> String {
    let mut text: String = checked.findings.iter().map(|finding| format!("{}:{finding}\n", file.shown())).collect();
    if checked.omitted > 0 {
        text.push_str(&format!("{}: and {} more\n", file.shown(), checked.omitted));
    }
    text
}

fn push(app: &App, file: &Path) -> Result<Exit, Error> {
    let checked = checked_file(app, file)?;
    let Some(pipeline) = &checked.pipeline else {
        app.output.result(|| findings_json(&checked), || findings_text(file, &checked));
        return Ok(Exit::Failed);
    };
    let (published, pushed) = dovetail_flow::push_pipeline(app.parts()?, pipeline)?;
    app.output.result(
        || {
            let mut json = findings_json(&checked);
            json["pipeline"] = json!(published.pipeline.reference());
            json["revision"] = json!(published.revision);
            json["created"] = json!(pushed == Pushed::Created);
            json
        },
        || {
            let how = if pushed == Pushed::Created { "published" } else { "was published before, unchanged" };
            format!(
                "{}{} {how} (revision {})\n{}",
                findings_text(file, &checked),
                published.pipeline.reference(),
                published.revision,
                pins(&published.pipeline)
            )
        },
    );
    Ok(Exit::Done)
}

fn pins(pipeline: &Graph) -> String {
    pipeline
        .steps
        .iter()
        .map(|step| format!("  {}  {}  {}\n", step.id(), step.task_reference(), step.package))
        .collect()
}

fn update(app: &App, reference: &str) -> Result<Exit, Error> {
    let update = dovetail_flow::update_pipeline(app.parts_to_read()?, reference)?;
    let broken =
        update.new.is_none() && update.checked.findings.iter().any(|finding| finding.severity == Severity::Error);
    let revision = update.new.as_ref().map_or(update.old.revision, |new| new.revision);
    let name = update.old.pipeline.reference();
    app.output.result(
        || {
            let mut json = findings_json(&update.checked);
            json["pipeline"] = json!(name);
            json["revision"] = json!(revision);
            json["updated"] = json!(update.new.is_some());
            json["differences"] = json!(update.differences);
            json
        },
        || {
            let mut text = if broken { findings_text(Path::new(&name), &update.checked) } else { String::new() };
            for line in &update.differences {
                text.push_str(&format!("  {line}\n"));
            }
            text.push_str(&match (&update.new, broken) {
                (Some(_), _) => format!("{name} is now revision {revision}; runs submitted before keep theirs\n"),
                (None, true) => format!("{name} stays at revision {revision}: it does not fit the newest plugins\n"),
                (None, false) => format!("{name} is up to date (revision {revision})\n"),
            });
            text
        },
    );
    Ok(if broken { Exit::Failed } else { Exit::Done })
}

fn summary(published: &Published) -> Value {
    let pipeline = &published.pipeline;
    let steps: Vec<Value> = pipeline
        .steps
        .iter()
        .map(|step| json!({ "id": step.id(), "step": step.name, "task": step.task_reference(), "package": step.package }))
        .collect();
    json!({ "pipeline": pipeline.reference(), "revision": published.revision, "description": pipeline.description, "steps": steps })
}

fn list(all: &[Published]) -> String {
    if all.is_empty() {
        return "no pipelines yet; publish one with `dovetail pipeline push FILE`\n".to_owned();
    }
    let row = |published: &Published| {
        let pipeline = &published.pipeline;
        vec![
            pipeline.reference(),
            published.revision.to_string(),
            pipeline.steps.len().to_string(),
            pipeline.description.clone().unwrap_or_default(),
        ]
    };
    table(&["pipeline", " revision", " steps", "description"], &all.iter().map(row).collect::<Vec<_>>())
}

fn show(published: &Published) -> String {
    let pipeline = &published.pipeline;
    let mut text = format!("{}  revision {}\n", pipeline.reference(), published.revision);
    if let Some(description) = &pipeline.description {
        text.push_str(&format!("{description}\n"));
    }
    text.push_str("\ninputs\n");
    for input in &pipeline.inputs {
        let default = match &input.default {
            Some(value) => format!(" = {value}"),
            None if input.optional => " (may be left out)".to_owned(),
            None => String::new(),
        };
        text.push_str(&format!("  {}: {}{default}\n", input.name, input.ty));
    }
    text.push_str("\nsteps\n");
    for step in &pipeline.steps {
        text.push_str(&format!("  {}  {} = {}, {}\n", step.id(), step.name, step.task_reference(), step.package));
        for binding in &step.inputs {
            text.push_str(&format!(
                "    {} <- {}\n",
                step.input_field_id(&binding.field),
                origin(pipeline, &binding.source)
            ));
        }
    }
    text.push_str("\noutput\n");
    for output in &pipeline.output {
        text.push_str(&format!("  {}: {} <- {}\n", output.name, output.ty.short(), origin(pipeline, &output.source)));
    }
    text
}

/// What a step asks of its worker: grants, and the models that it cannot do without, by name or by kind.
struct Capabilities<'s> {
    grants: Vec<&'s str>,
    models: Vec<&'s str>,
    kinds: Vec<&'s str>,
}

fn capabilities(step: &Step) -> Capabilities<'_> {
    let with = |prefix: &'static str| step.lane.needs().filter_map(move |need| need.strip_prefix(prefix)).collect();
    let grants = step.lane.needs().filter(|need| is_grant(need)).collect();
    Capabilities { grants, models: with(MODEL), kinds: with(MODEL_KIND) }
}

fn capabilities_json(published: &Published) -> Value {
    let step = |step: &Step| {
        let Capabilities { grants, models, kinds } = capabilities(step);
        json!({ "id": step.id(), "step": step.name, "task": step.task_reference(), "grants": grants, "models": models, "model_kinds": kinds })
    };
    let pipeline = &published.pipeline;
    let all: std::collections::BTreeSet<&str> =
        pipeline.steps.iter().flat_map(|step| capabilities(step).grants).collect();
    json!({
        "pipeline": pipeline.reference(), "revision": published.revision, "grants": all,
        "steps": pipeline.steps.iter().map(step).collect::<Vec<_>>(),
    })
}

fn capabilities_text(published: &Published) -> String {
    let row = |step: &Step| {
        let Capabilities { grants, models, kinds } = capabilities(step);
        let or_none = |names: Vec<String>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let models =
            models.into_iter().map(str::to_owned).chain(kinds.into_iter().map(|kind| format!("any {kind}"))).collect();
        vec![
            step.id(),
            step.task_reference(),
            or_none(grants.into_iter().map(str::to_owned).collect()),
            or_none(models),
        ]
    };
    let rows: Vec<Vec<String>> = published.pipeline.steps.iter().map(row).collect();
    format!(
        "{}  revision {}\n\n{}",
        published.pipeline.reference(),
        published.revision,
        table(&["step", "task", "grants", "models"], &rows)
    )
}

fn origin(pipeline: &Graph, source: &Source) -> String {
    match source {
        Source::Input { name, path } => std::iter::once("input")
            .chain([name.as_str()])
            .chain(path.iter().map(String::as_str))
            .collect::<Vec<_>>()
            .join("."),
        Source::Output { step, path } => {
            let (field, rest) = path.split_first().map_or(("", &path[..]), |(field, rest)| (field.as_str(), rest));
            let id = pipeline.step(step).map_or_else(|| format!("{step}.{field}"), |step| step.output_field_id(field));
            std::iter::once(id).chain(rest.iter().cloned()).collect::<Vec<_>>().join(".")
        }
        Source::Literal { value } => value.to_string(),
    }
}

fn graph(app: &App, reference: &OsStr, format: GraphFormat) -> Result<Exit, Error> {
    let pipeline = match Named::of(reference)? {
        Named::File(file) => {
            let checked = checked_file(app, file)?;
            let Some(pipeline) = checked.pipeline else {
                app.output.result(|| findings_json(&checked), || findings_text(file, &checked));
                return Ok(Exit::Failed);
            };
            pipeline
        }
        Named::Published(name) => dovetail_flow::pipeline(app.parts_to_read()?, name)?.pipeline,
    };
    let text = match format {
        GraphFormat::Text => pipeline.text_graph(),
        GraphFormat::Mermaid => pipeline.mermaid(),
    };
    app.output.result(|| json!({ "pipeline": pipeline.reference(), "graph": text }), || text.clone());
    Ok(Exit::Done)
}
