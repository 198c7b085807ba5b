//! `schema`: the JSON Schemas of what dovetail prints and reads. They are files, so that others can take them without
//! running anything.

use serde_json::{Value, json};

use crate::args::SchemaOf;
use crate::error::Exit;
use crate::output::pretty;
use crate::wire::App;

const RUN: &str = include_str!("../../schemas/run.schema.json");
const RUNS: &str = include_str!("../../schemas/runs.schema.json");
const CHECK: &str = include_str!("../../schemas/check.schema.json");
const BENCH: &str = include_str!("../../schemas/bench.schema.json");
const GC: &str = include_str!("../../schemas/gc.schema.json");
const ERROR: &str = include_str!("../../schemas/error.schema.json");

pub(crate) fn print(of: SchemaOf, app: &App) -> Exit {
    match of {
        SchemaOf::Run => app.output.text(RUN),
        SchemaOf::Runs => app.output.text(&runs()),
        SchemaOf::Check => app.output.text(CHECK),
        SchemaOf::Bench => app.output.text(BENCH),
        SchemaOf::Gc => app.output.text(GC),
        SchemaOf::Error => app.output.text(ERROR),
        SchemaOf::Pipeline => app.output.text(&pipeline()),
    }
    Exit::Done
}

/// With the schemas that it refers to inside: a document of several resources, each with its own `$id`.
fn runs() -> String {
    let schema = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let mut whole = schema(RUNS);
    whole["$defs"] = json!({ "run": schema(RUN), "error": schema(ERROR) });
    pretty(&whole)
}

/// Of pipeline files: written by the program that reads them.
pub(crate) fn pipeline() -> String {
    let schema: Value = dovetail_core::pipeline::schema::schema();
    pretty(&schema)
}
