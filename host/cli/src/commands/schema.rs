//! `schema`: the JSON Schemas of what dovetail prints and reads. They are files, so that others can take them without running anything.

use serde_json::Value;

use crate::args::SchemaOf;
use crate::error::Exit;
use crate::output::pretty;
use crate::wire::App;

pub(crate) fn print(of: SchemaOf, app: &App) -> Exit {
    match of {
        SchemaOf::Run => app.output.text(include_str!("../../schemas/run.schema.json")),
        SchemaOf::Error => app.output.text(include_str!("../../schemas/error.schema.json")),
        SchemaOf::Pipeline => app.output.text(&pipeline()),
    }
    Exit::Done
}

/// Of pipeline files: written by the program that reads them.
pub(crate) fn pipeline() -> String {
    let schema: Value = dovetail_core::pipeline::schema::schema();
    pretty(&schema)
}
