//! `schema`: the JSON Schemas of what dovetail prints and reads, made from the types of the documents.

use dovetail_service::documents::SCHEMAS;

use crate::app::App;
use crate::exit::Exit;
use crate::output::pretty;

/// The schema of pipeline files: written by the program that reads them.
const PIPELINE: &str = "pipeline";

/// The documents that have a schema.
pub(crate) fn names() -> Vec<&'static str> {
    let documents = SCHEMAS.iter().chain(dovetail_bench::SCHEMAS).map(|(name, _)| *name);
    documents.chain([PIPELINE]).collect()
}

pub(crate) fn print(of: &str, app: &App) -> Exit {
    let mut documents = SCHEMAS.iter().chain(dovetail_bench::SCHEMAS);
    match documents.find(|(name, _)| *name == of) {
        Some((_, make)) => app.output.text(&pretty(&make())),
        None => app.output.text(&pipeline()),
    }
    Exit::Done
}

pub(crate) fn pipeline() -> String {
    pretty(&dovetail_service::pipelines::file_schema())
}
