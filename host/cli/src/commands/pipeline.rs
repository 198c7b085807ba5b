//! `pipeline`: checks, publishes and shows pipelines.

use std::ffi::OsStr;
use std::path::Path;

use dovetail_service::Error;
use dovetail_service::documents::{
    CapabilitiesDocument, CheckDocument, GraphDocument, PipelineDocument, PipelineName as NameDocument,
    PipelineSummary, PushedPipeline, StepCapabilities, UpdatedPipeline,
};
use dovetail_service::paths::Shown as _;
use dovetail_service::pipelines::{Checked, Pipeline as Graph, Published, Source};
use dovetail_service::submit::PipelineName;
use dovetail_service::words::count;

use crate::app::App;
use crate::args::{GraphFormat, Pipeline};
use crate::commands::schema;
use crate::exit::Exit;
use crate::table::table;
use crate::unread::print_list;

pub(crate) fn run(command: &Pipeline, app: &App) -> Result<Exit, Error> {
    match command {
        Pipeline::Check { file } => {
            let checked = app.service.check_pipeline_file(file)?;
            let good = checked.pipeline.is_some();
            app.output.result(&CheckDocument::of(&checked), || {
                let mut text = findings_text(file, &checked);
                if let Some(pipeline) = &checked.pipeline {
                    let steps = count(pipeline.steps.len(), "step");
                    text.push_str(&format!("{} is good: {steps}\n", pipeline.reference()));
                }
                text
            });
            Ok(if good { Exit::Done } else { Exit::Failed })
        }
        Pipeline::Push { file } => push(app, file),
        Pipeline::Update { pipeline } => update(app, pipeline),
        Pipeline::List => {
            let all = app.service.list_pipelines()?;
            let key = |name: &str| NameDocument { pipeline: name.to_owned() };
            print_list(app, &all, "pipeline", key, PipelineSummary::of, list);
            Ok(Exit::Done)
        }
        Pipeline::Show { pipeline, capabilities } => {
            let published = app.service.pipeline(pipeline)?;
            if *capabilities {
                let document = CapabilitiesDocument::of(&published);
                app.output.result(&document, || capabilities_text(&document));
            } else {
                app.output.result(&PipelineDocument::of(&published), || show(&published));
            }
            Ok(Exit::Done)
        }
        Pipeline::Graph { pipeline, format } => graph(app, pipeline, *format),
        Pipeline::Schema => {
            app.output.text(&schema::pipeline());
            Ok(Exit::Done)
        }
    }
}

fn findings_text(file: &Path, checked: &Checked) -> String {
    let mut text: String = checked.findings.iter().map(|finding| format!("{}:{finding}\n", file.shown())).collect();
    if checked.omitted > 0 {
        text.push_str(&format!("{}: and {} more\n", file.shown(), checked.omitted));
    }
    text
}

/// Prints the findings of a pipeline file that has errors.
fn refused(app: &App, file: &Path, checked: &Checked) -> Exit {
    app.output.result(&CheckDocument::of(checked), || findings_text(file, checked));
    Exit::Failed
}

fn push(app: &App, file: &Path) -> Result<Exit, Error> {
    let checked = app.service.check_pipeline_file(file)?;
    let Some(pipeline) = &checked.pipeline else { return Ok(refused(app, file, &checked)) };
    let pushed = app.service.push_pipeline(pipeline)?;
    let document = PushedPipeline::of(&checked, &pushed);
    app.output.result(&document, || {
        let how = if document.created { "published" } else { "was published before, unchanged" };
        let (found, pins) = (findings_text(file, &checked), pins(&pushed.published.pipeline));
        format!("{found}{} {how} (revision {})\n{pins}", document.pipeline, document.revision)
    });
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
    let update = app.service.update_pipeline(reference)?;
    let document = UpdatedPipeline::of(&update);
    app.output.result(&document, || {
        let (name, revision) = (&document.pipeline, document.revision);
        let mut text =
            if update.is_refused() { findings_text(Path::new(name), &update.checked) } else { String::new() };
        for line in &document.differences {
            text.push_str(&format!("  {line}\n"));
        }
        text.push_str(&match (document.updated, update.is_refused()) {
            (true, _) => format!("{name} is now revision {revision}; runs submitted before keep theirs\n"),
            (false, true) => format!("{name} stays at revision {revision}: it does not fit the newest plugins\n"),
            (false, false) => format!("{name} is up to date (revision {revision})\n"),
        });
        text
    });
    Ok(if update.is_refused() { Exit::Failed } else { Exit::Done })
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

fn capabilities_text(document: &CapabilitiesDocument) -> String {
    let row = |step: &StepCapabilities| {
        let or_none = |names: Vec<String>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let kinds = step.model_kinds.iter().map(|kind| format!("any {kind}"));
        vec![
            step.id.clone(),
            step.task.clone(),
            or_none(step.grants.clone()),
            or_none(step.models.iter().cloned().chain(kinds).collect()),
        ]
    };
    let rows: Vec<Vec<String>> = document.steps.iter().map(row).collect();
    let table = table(&["step", "task", "grants", "models"], &rows);
    format!("{}  revision {}\n\n{table}", document.pipeline, document.revision)
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
    let pipeline = match app.service.pipeline_or_file(PipelineName::of(reference)?)? {
        Ok(pipeline) => pipeline,
        Err(checked) => return Ok(refused(app, Path::new(reference), &checked)),
    };
    let graph = match format {
        GraphFormat::Text => pipeline.text_graph(),
        GraphFormat::Mermaid => pipeline.mermaid(),
    };
    let document = GraphDocument { pipeline: pipeline.reference(), graph };
    app.output.result(&document, || document.graph.clone());
    Ok(Exit::Done)
}
