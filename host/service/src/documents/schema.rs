//! The JSON Schemas (2020-12) of the documents, made from their types.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::{
    CancelledRun, CapabilitiesDocument, CheckDocument, DemoDocument, DoctorDocument, Entry, ErrorDocument, GcDocument,
    GraphDocument, InstalledModel, LineageDocument, ModelName, ModelSummary, PackedTask, PipelineDocument,
    PipelineName, PipelineSummary, PulledModels, PushedPipeline, PushedTask, RunDocument, RunName, RunSummary,
    RunsDocument, StepLog, SubmittedFiles, SubmittedRun, TaskCheck, TaskDocument, TaskName, TaskRun, TaskSummary,
    UpdatedPipeline, WorkerDocument,
};

/// The name of a document, and the maker of its schema.
pub type Schema = (&'static str, fn() -> Value);

/// Every document, by the name that `dovetail schema NAME` takes.
pub const SCHEMAS: &[Schema] = &[
    ("run", schema_of::<RunDocument>),
    ("runs", schema_of::<RunsDocument>),
    ("run-list", schema_of::<Vec<Entry<RunSummary, RunName>>>),
    ("submitted", schema_of::<SubmittedRun>),
    ("submitted-files", schema_of::<SubmittedFiles>),
    ("cancelled", schema_of::<CancelledRun>),
    ("lineage", schema_of::<LineageDocument>),
    ("logs", schema_of::<Vec<StepLog>>),
    ("check", schema_of::<CheckDocument>),
    ("pushed-pipeline", schema_of::<PushedPipeline>),
    ("updated-pipeline", schema_of::<UpdatedPipeline>),
    ("pipeline-list", schema_of::<Vec<Entry<PipelineSummary, PipelineName>>>),
    ("pipeline-record", schema_of::<PipelineDocument>),
    ("capabilities", schema_of::<CapabilitiesDocument>),
    ("graph", schema_of::<GraphDocument>),
    ("task-check", schema_of::<TaskCheck>),
    ("packed-task", schema_of::<PackedTask>),
    ("pushed-tasks", schema_of::<Vec<PushedTask>>),
    ("task-list", schema_of::<Vec<Entry<TaskSummary, TaskName>>>),
    ("task", schema_of::<TaskDocument>),
    ("task-run", schema_of::<TaskRun>),
    ("model-list", schema_of::<Vec<Entry<ModelSummary, ModelName>>>),
    ("installed-model", schema_of::<InstalledModel>),
    ("pulled-models", schema_of::<PulledModels>),
    ("workers", schema_of::<Vec<WorkerDocument>>),
    ("doctor", schema_of::<DoctorDocument>),
    ("gc", schema_of::<GcDocument>),
    ("demo", schema_of::<DemoDocument>),
    ("error", schema_of::<ErrorDocument>),
];

/// The schema of the document of this name.
#[must_use]
pub fn schema(name: &str) -> Option<Value> {
    SCHEMAS.iter().find(|(known, _)| *known == name).map(|(_, make)| make())
}

/// The schema of a type as it is serialised.
#[must_use]
pub fn schema_of<T: JsonSchema>() -> Value {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut schema = Value::from(generator.into_root_schema_for::<T>());
    tidy(&mut schema);
    // A definition with an `$id` would be a document of its own, in which `#/$defs/...` leads nowhere.
    for definition in schema.get_mut("$defs").and_then(Value::as_object_mut).into_iter().flatten() {
        if let Some(fields) = definition.1.as_object_mut() {
            fields.shift_remove("$id");
            fields.shift_remove("title");
        }
    }
    schema
}

/// `format: uint32` is no format of JSON Schema: the width of a number is this program's own affair. And descriptions are
/// not wrapped.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            let of_number =
                |format: &str| format.starts_with("uint") || format.starts_with("int") || format == "double";
            if fields.get("format").and_then(Value::as_str).is_some_and(of_number) {
                fields.shift_remove("format");
            }
            // Lines of a comment are one line here.
            if let Some(Value::String(text)) = fields.get_mut("description") {
                *text = text.split("\n\n").map(|part| part.replace('\n', " ")).collect::<Vec<_>>().join("\n\n");
            }
            fields.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `UPDATE_SCHEMAS=1 cargo test ... schemas` writes the files anew.
    #[test]
    fn the_files_in_schemas_are_those_of_the_types() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
        let mut files: Vec<String> = Vec::new();
        for (name, make) in SCHEMAS {
            let file = format!("{name}.schema.json");
            let made = format!("{}\n", serde_json::to_string_pretty(&make()).unwrap());
            let path = folder.join(&file);
            if std::env::var_os("UPDATE_SCHEMAS").is_some() {
                std::fs::write(&path, &made).unwrap();
            }
            let stored = std::fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(stored, made, "{file} is not the schema of its type; UPDATE_SCHEMAS=1 writes it anew");
            files.push(file);
        }
        for entry in std::fs::read_dir(&folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(files.contains(&name), "{name} is the schema of no document");
        }
    }
}
