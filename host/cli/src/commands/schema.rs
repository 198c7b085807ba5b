//! `schema`: the JSON Schemas of the documents that dovetail prints and reads. They are made from the types.

use clap::builder::PossibleValue;
use dovetail_service::documents::{SCHEMAS, Schema};

use crate::app::App;
use crate::exit::Exit;
use crate::output::pretty;

/// The name of the schema of pipeline files. Users write these files; dovetail reads them.
const PIPELINE: &str = "pipeline";

fn all() -> impl Iterator<Item = &'static Schema> {
    SCHEMAS.iter().chain(dovetail_bench::SCHEMAS)
}

/// The names that `schema` takes, each with a description.
pub(crate) fn names() -> Vec<PossibleValue> {
    let documents = all().map(|schema| PossibleValue::new(schema.name).help(schema.about));
    documents.chain([PossibleValue::new(PIPELINE).help("A pipeline file; read by `pipeline push` and `run`")]).collect()
}

pub(crate) fn print(of: &str, app: &App) -> Exit {
    match all().find(|schema| schema.name == of) {
        Some(schema) => app.output.text(&pretty(&(schema.make)())),
        None => app.output.text(&pipeline()),
    }
    Exit::Done
}

pub(crate) fn pipeline() -> String {
    pretty(&dovetail_service::pipelines::file_schema())
}
