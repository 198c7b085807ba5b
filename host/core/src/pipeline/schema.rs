//! The JSON Schema of a pipeline file, for editors, and the JSON Schema of a run's inputs. The check finds more errors
//! than a schema can express.

use serde_json::{Map, Value, json};

use super::{MAX_ATTEMPTS, MAX_NUMBER, MAX_STEPS, Pipeline};
use crate::wit::schema::{DIALECT, schema as type_schema};

const SNAKE: &str = "^[a-z][a-z0-9]*(_[a-z0-9]+)*$";
const KEBAB: &str = "^[a-z][a-z0-9]*(-[a-z0-9]+)*$";

/// The JSON Schema of a pipeline file.
#[must_use]
pub fn schema() -> Value {
    let names = json!({ "pattern": SNAKE, "maxLength": 64 });
    json!({
        "$schema": DIALECT,
        "title": "dovetail pipeline",
        "type": "object",
        "required": ["name", "version", "steps", "output"],
        "additionalProperties": false,
        "properties": {
            "$schema": { "type": "string" },
            "name": { "type": "string", "pattern": KEBAB, "maxLength": 64, "description": "kebab-case" },
            "version": { "type": "string", "description": "semantic version, such as 1.0.0" },
            "description": { "type": "string" },
            "timeout": {
                "$ref": "#/$defs/duration",
                "description": "of a whole run; at most 7d. The limit covers the attempts and the delays between \
                                them, along the longest path of steps, but not the time in the queue or interruptions",
            },
            "on_failure": { "enum": ["cancel", "finish"], "default": "cancel",
                "description": "whether running steps are cancelled or finished when a step has failed for good" },
            "inputs": {
                "type": "object",
                "propertyNames": names,
                "description": "types are inferred from the fields that the inputs feed",
                "additionalProperties": {
                    "type": "object",
                    "additionalProperties": false,
                    "properties": {
                        "description": { "type": "string" },
                        "default": { "description": "makes the input optional" },
                    },
                },
            },
            "steps": {
                "type": "object",
                "minProperties": 1,
                "maxProperties": MAX_STEPS,
                "propertyNames": {
                    "allOf": [names, { "not": { "pattern": "^input$|(^|_)(input|output)_[0-9]+(_|$)" } }],
                },
                "additionalProperties": { "$ref": "#/$defs/step" },
            },
            "output": {
                "type": "object",
                "minProperties": 1,
                "propertyNames": names,
                "additionalProperties": { "$ref": "#/$defs/reference" },
            },
        },
        "$defs": {
            "duration": { "type": "string", "pattern": "^[0-9]+ *(ms|s|m|h|d)$", "examples": ["30s", "5m"] },
            "reference": {
                "type": "string",
                "description": "input.NAME, STEP.FIELD, or a unique ID such as output_001_faces_array; dotted further \
                                into records",
                "examples": ["input.image", "detect.faces_array", "output_001_faces_array"],
            },
            "step": {
                "type": "object",
                "required": ["number", "task"],
                "additionalProperties": false,
                "properties": {
                    "number": {
                        "type": "integer",
                        "minimum": 1,
                        "maximum": MAX_NUMBER,
                        "description": "unique in the pipeline; unique IDs are made of it",
                    },
                    "task": {
                        "type": "string",
                        "description": "NAME (the newest), NAME@1.2.0 (exactly this one) or NAME@^1",
                        "examples": ["face-detection@^1"],
                    },
                    "description": { "type": "string" },
                    "inputs": {
                        "type": "object",
                        "additionalProperties": {
                            "anyOf": [
                                { "$ref": "#/$defs/reference" },
                                {
                                    "type": "object",
                                    "required": ["value"],
                                    "additionalProperties": false,
                                    "properties": { "value": {} },
                                },
                            ],
                        },
                    },
                    "timeout": {
                        "$ref": "#/$defs/duration",
                        "description": "of one attempt, in place of the task's own; at most 10m",
                    },
                    "retry": {
                        "type": "object",
                        "additionalProperties": false,
                        "properties": {
                            "max_attempts": {
                                "type": "integer",
                                "minimum": 1,
                                "maximum": MAX_ATTEMPTS,
                                "default": 3,
                                "description": "the first one included",
                            },
                            "backoff": {
                                "$ref": "#/$defs/duration",
                                "description": "before the second attempt, doubled for each further one; 500ms unless \
                                                set",
                            },
                            "max_backoff": { "$ref": "#/$defs/duration", "description": "30s unless set" },
                        },
                    },
                },
            },
        },
    })
}

impl Pipeline {
    /// The JSON Schema of a run's inputs.
    #[must_use]
    pub fn input_schema(&self) -> Value {
        let mut properties = Map::new();
        for input in &self.inputs {
            let mut schema = type_schema(&input.ty);
            if let Some(description) = &input.description {
                schema["description"] = json!(description);
            }
            if let Some(default) = &input.default {
                schema["default"] = default.clone();
            }
            properties.insert(input.name.clone(), schema);
        }
        let required: Vec<&str> =
            self.inputs.iter().filter(|input| !input.optional).map(|input| input.name.as_str()).collect();
        json!({
            "$schema": DIALECT,
            "title": self.reference(),
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        })
    }
}
