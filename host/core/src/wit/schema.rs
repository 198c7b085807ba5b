//! The JSON Schema (2020-12) of a type, according to the table of [`super::json`].
//!
//! A schema cannot express all rules: for example, that a u64 above 2^53 - 1 is written as digits, or the order of
//! flags. Such types are marked with `x-wit`.

use serde_json::{Map, Value, json};

use super::names::snake;
use super::{Field, Type};

/// The URI of the JSON Schema dialect.
pub const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The schema of one type.
#[must_use]
pub fn schema(ty: &Type) -> Value {
    match ty {
        Type::Bool => json!({ "type": "boolean" }),
        Type::String => json!({ "type": "string" }),
        Type::Char => json!({ "type": "string", "minLength": 1, "maxLength": 1 }),
        Type::S8 => integer(i8::MIN.into(), i8::MAX.into()),
        Type::U8 => integer(0, u8::MAX.into()),
        Type::S16 => integer(i16::MIN.into(), i16::MAX.into()),
        Type::U16 => integer(0, u16::MAX.into()),
        Type::S32 => integer(i32::MIN.into(), i32::MAX.into()),
        Type::U32 => integer(0, u32::MAX.into()),
        Type::S64 => json!({ "type": ["integer", "string"], "pattern": "^(0|-?[1-9][0-9]{0,18})$", "x-wit": "s64" }),
        Type::U64 => {
            json!({ "type": ["integer", "string"], "minimum": 0, "pattern": "^(0|[1-9][0-9]{0,19})$", "x-wit": "u64" })
        }
        Type::F32 => float("f32"),
        Type::F64 => float("f64"),
        Type::List(item) if **item == Type::U8 => json!({ "type": "string", "contentEncoding": "base64" }),
        Type::List(item) => json!({ "type": "array", "items": schema(item) }),
        Type::Tuple(items) => {
            let schemas: Vec<Value> = items.iter().map(schema).collect();
            json!({ "type": "array", "prefixItems": schemas, "items": false, "minItems": items.len() })
        }
        Type::Record(fields) => object(fields),
        Type::Variant(cases) => {
            let one_of: Vec<Value> = cases
                .iter()
                .map(|case| {
                    let tag = json!({ "const": snake(&case.name) });
                    match &case.ty {
                        None => closed(json!({ "tag": tag }), &["tag"]),
                        Some(ty @ Type::Option(_)) => closed(json!({ "tag": tag, "val": schema(ty) }), &["tag"]),
                        Some(ty) => closed(json!({ "tag": tag, "val": schema(ty) }), &["tag", "val"]),
                    }
                })
                .collect();
            json!({ "oneOf": one_of })
        }
        Type::Enum(names) => json!({ "enum": snakes(names) }),
        Type::Flags(names) => json!({ "type": "array", "items": { "enum": snakes(names) }, "uniqueItems": true }),
        Type::Option(some) if matches!(**some, Type::Option(_)) => {
            json!({ "anyOf": [{ "type": "null" }, closed(json!({ "some": schema(some) }), &["some"])] })
        }
        Type::Option(some) => json!({ "anyOf": [{ "type": "null" }, schema(some)] }),
        Type::Result { ok, err } => {
            let payload =
                |ty: &Option<Box<Type>>| ty.as_ref().map_or_else(|| json!({ "type": "null" }), |ty| schema(ty));
            let ok = closed(json!({ "ok": payload(ok) }), &["ok"]);
            let err = closed(json!({ "error": payload(err) }), &["error"]);
            json!({ "oneOf": [ok, err] })
        }
        Type::Image => artifact("image"),
        Type::Artifact => artifact("artifact"),
    }
}

/// The schema of a whole document: the input or the output of a task.
#[must_use]
pub fn record(title: &str, fields: &[Field]) -> Value {
    let mut document = Map::new();
    document.insert("$schema".to_owned(), json!(DIALECT));
    document.insert("title".to_owned(), json!(title));
    if let Value::Object(schema) = object(fields) {
        document.extend(schema);
    }
    Value::Object(document)
}

fn object(fields: &[Field]) -> Value {
    let properties: Map<String, Value> = fields.iter().map(|field| (snake(&field.name), schema(&field.ty))).collect();
    let required: Vec<String> =
        fields.iter().filter(|field| !matches!(field.ty, Type::Option(_))).map(|field| snake(&field.name)).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn closed(properties: Value, required: &[&str]) -> Value {
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn integer(min: i64, max: i64) -> Value {
    json!({ "type": "integer", "minimum": min, "maximum": max })
}

fn float(wit: &str) -> Value {
    json!({ "anyOf": [{ "type": "number" }, { "enum": ["NaN", "Infinity", "-Infinity"] }], "x-wit": wit })
}

fn artifact(resource: &str) -> Value {
    let mut schema = closed(
        json!({
            "$artifact": { "type": "string", "pattern": "^sha256:[0-9a-f]{64}$" },
            "media_type": { "type": "string" },
            "name": { "type": "string" },
        }),
        &["$artifact", "media_type"],
    );
    schema["x-dovetail-resource"] = json!(resource);
    schema
}

fn snakes(names: &[String]) -> Vec<String> {
    names.iter().map(|name| snake(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_record() {
        let fields = [
            Field { name: "image".into(), ty: Type::Image },
            Field { name: "min-confidence".into(), ty: Type::Option(Box::new(Type::F32)) },
            Field { name: "faces".into(), ty: Type::List(Box::new(Type::Tuple(vec![Type::U8, Type::U64]))) },
        ];
        let schema = record("face-detection", &fields);
        assert_eq!(schema["$schema"], DIALECT);
        assert_eq!(schema["required"], json!(["image", "faces"]));
        assert_eq!(schema["additionalProperties"], json!(false));
        assert_eq!(schema["properties"]["image"]["x-dovetail-resource"], "image");
        assert_eq!(
            schema["properties"]["min_confidence"],
            json!({
                "anyOf": [
                    { "type": "null" },
                    { "anyOf": [{ "type": "number" }, { "enum": ["NaN", "Infinity", "-Infinity"] }], "x-wit": "f32" },
                ],
            })
        );
        assert_eq!(
            schema["properties"]["faces"]["items"]["prefixItems"][0],
            json!({ "type": "integer", "minimum": 0, "maximum": 255 })
        );
        assert_eq!(schema["properties"]["faces"]["items"]["minItems"], 2);
    }

    #[test]
    fn sums() {
        let variant = Type::Variant(vec![
            super::super::Case { name: "no-face".into(), ty: None },
            super::super::Case { name: "found".into(), ty: Some(Type::U32) },
        ]);
        assert_eq!(schema(&variant)["oneOf"][0]["properties"]["tag"]["const"], "no_face");
        assert_eq!(schema(&variant)["oneOf"][1]["required"], json!(["tag", "val"]));
        let result = Type::Result { ok: None, err: Some(Box::new(Type::String)) };
        assert_eq!(schema(&result)["oneOf"][0]["properties"]["ok"]["type"], "null");
        let nested = Type::Option(Box::new(Type::Option(Box::new(Type::Bool))));
        assert_eq!(schema(&nested)["anyOf"][1]["required"], json!(["some"]));
        assert_eq!(
            schema(&Type::Flags(vec!["a-b".into()])),
            json!({ "type": "array", "items": { "enum": ["a_b"] }, "uniqueItems": true })
        );
    }
}
