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

/// A document, and how to make its JSON Schema.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// The name that `dovetail schema NAME` takes.
    pub name: &'static str,
    /// One line for people: what the document is, and which command prints it.
    pub about: &'static str,
    /// Makes the schema.
    pub make: fn() -> Value,
}

impl Schema {
    /// The schema of a type.
    #[must_use]
    pub const fn of<T: JsonSchema>(name: &'static str, about: &'static str) -> Self {
        Self { name, about, make: schema_of::<T> }
    }
}

/// All documents of the service.
pub const SCHEMAS: &[Schema] = &[
    Schema::of::<RunDocument>(
        "run",
        "A run: state, inputs, output, steps, usage and error; printed by `run` and `runs show`",
    ),
    Schema::of::<RunsDocument>("runs", "Several runs with a summary; printed by `run --each` and `runs resume`"),
    Schema::of::<Vec<Entry<RunSummary, RunName>>>("run-list", "The newest runs; printed by `runs list`"),
    Schema::of::<SubmittedRun>("submitted", "The ID of a submitted run; printed by `run --detach`"),
    Schema::of::<SubmittedFiles>("submitted-files", "The submitted run of each file; printed by `run --each --detach`"),
    Schema::of::<CancelledRun>("cancelled", "A cancelled run; printed by `runs cancel`"),
    Schema::of::<LineageDocument>(
        "lineage",
        "The values that each step consumed and produced; printed by `runs lineage`",
    ),
    Schema::of::<Vec<StepLog>>("logs", "The log lines of each step; printed by `runs logs`"),
    Schema::of::<CheckDocument>("check", "Errors and warnings of a pipeline file; printed by `pipeline check`"),
    Schema::of::<PushedPipeline>(
        "pushed-pipeline",
        "A published pipeline and its revision; printed by `pipeline push`",
    ),
    Schema::of::<UpdatedPipeline>(
        "updated-pipeline",
        "A pipeline moved to newer plugins; printed by `pipeline update`",
    ),
    Schema::of::<Vec<Entry<PipelineSummary, PipelineName>>>(
        "pipeline-list",
        "The published pipelines; printed by `pipeline list`",
    ),
    Schema::of::<PipelineDocument>("pipeline-record", "A published pipeline with its pins; printed by `pipeline show`"),
    Schema::of::<CapabilitiesDocument>(
        "capabilities",
        "Grants and models of each step; printed by `pipeline show --capabilities`",
    ),
    Schema::of::<GraphDocument>("graph", "A drawing of a pipeline; printed by `pipeline graph`"),
    Schema::of::<TaskCheck>(
        "task-check",
        "Imports, types, sizes and limits of a plugin, or why it is refused; printed by `task check`",
    ),
    Schema::of::<PackedTask>("packed-task", "A package that was written; printed by `task pack`"),
    Schema::of::<Vec<PushedTask>>("pushed-tasks", "The published tasks; printed by `task push`"),
    Schema::of::<Vec<Entry<TaskSummary, TaskName>>>("task-list", "The published tasks; printed by `task list`"),
    Schema::of::<TaskDocument>("task", "A published task with its types; printed by `task show`"),
    Schema::of::<TaskRun>("task-run", "One attempt of a single task; printed by `task run`"),
    Schema::of::<Vec<Entry<ModelSummary, ModelName>>>("model-list", "The installed models; printed by `models list`"),
    Schema::of::<InstalledModel>("installed-model", "A model of your own; printed by `models add`"),
    Schema::of::<PulledModels>("pulled-models", "The default models; printed by `models pull`"),
    Schema::of::<Vec<WorkerDocument>>("workers", "The living workers; printed by `workers list`"),
    Schema::of::<DoctorDocument>("doctor", "The checks of a machine and its fleet; printed by `doctor`"),
    Schema::of::<GcDocument>("gc", "Removed runs, blobs and compiled code; printed by `gc`"),
    Schema::of::<DemoDocument>("demo", "The runs of the demo, one for each photograph; printed by `demo`"),
    Schema::of::<ErrorDocument>(
        "error",
        "Code, message and remedy of an error; printed by a command that fails with exit code 2 or 3",
    ),
];

/// The JSON Schema of the serialised form of a type.
fn schema_of<T: JsonSchema>() -> Value {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut schema = Value::from(generator.into_root_schema_for::<T>());
    tidy(&mut schema);
    // A definition with an `$id` would be a document of its own, in which `#/$defs/...` does not resolve.
    for definition in schema.get_mut("$defs").and_then(Value::as_object_mut).into_iter().flatten() {
        if let Some(fields) = definition.1.as_object_mut() {
            fields.shift_remove("$id");
            fields.shift_remove("title");
        }
    }
    schema
}

/// Removes the formats of numbers (`uint32`, ...), which are no formats of JSON Schema, and joins the lines of
/// descriptions.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            let of_number =
                |format: &str| format.starts_with("uint") || format.starts_with("int") || format == "double";
            if fields.get("format").and_then(Value::as_str).is_some_and(of_number) {
                fields.shift_remove("format");
            }
            // A paragraph of a comment becomes one line.
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

    /// `UPDATE_SCHEMAS=1 cargo test ... schemas` rewrites the files.
    #[test]
    fn the_files_in_schemas_are_those_of_the_types() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
        let mut files: Vec<String> = Vec::new();
        for Schema { name, make, .. } in SCHEMAS {
            let file = format!("{name}.schema.json");
            let made = format!("{}\n", serde_json::to_string_pretty(&make()).unwrap());
            let path = folder.join(&file);
            if std::env::var_os("UPDATE_SCHEMAS").is_some() {
                std::fs::write(&path, &made).unwrap();
            }
            let stored = std::fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(stored, made, "{file} is not the schema of its type; UPDATE_SCHEMAS=1 rewrites the file");
            files.push(file);
        }
        for entry in std::fs::read_dir(&folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(files.contains(&name), "{name} is the schema of no document");
        }
    }
}
