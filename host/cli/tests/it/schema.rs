//! A validator for the part of JSON Schema 2020-12 that the schemas in `host/service/schemas` and those of tasks use. A
//! keyword that this validator does not know fails the test. (A full validator would change the features of crates that
//! wasmtime is built with, and so build wasmtime twice.)

use serde_json::Value;

/// All violations of the schema.
pub(crate) fn errors(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, schema, value, "", &mut found);
    found
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let Some(keywords) = schema.as_object() else {
        assert_eq!(schema, &Value::Bool(true), "a schema is an object or `true`");
        return;
    };
    let fits = |schema: &Value| {
        let mut inner = Vec::new();
        check(root, schema, value, at, &mut inner);
        inner.is_empty()
    };
    for (keyword, rule) in keywords {
        let mut expect = |good: bool| {
            if !good {
                found.push(format!("{at}: {keyword} {rule} does not hold for {value}"));
            }
        };
        match keyword.as_str() {
            "$schema" | "$id" | "$defs" | "title" | "description" | "default" | "then" | "contentEncoding" => {}
            "$ref" => {
                // Each schema is self-contained.
                let pointer = rule.as_str().unwrap().strip_prefix('#').expect("a reference within the document");
                check(root, root.pointer(pointer).expect("each reference resolves"), value, at, found);
            }
            "type" => {
                expect(rule.as_array().map_or_else(|| is(rule, value), |types| types.iter().any(|ty| is(ty, value))));
            }
            "const" => expect(rule == value),
            "enum" => expect(rule.as_array().unwrap().contains(value)),
            "oneOf" => expect(rule.as_array().unwrap().iter().filter(|schema| fits(schema)).count() == 1),
            "anyOf" => expect(rule.as_array().unwrap().iter().any(fits)),
            "if" => {
                if let Some(then) = keywords.get("then").filter(|_| fits(rule)) {
                    check(root, then, value, at, found);
                }
            }
            "uniqueItems" => {
                let items = value.as_array().map_or(&[][..], Vec::as_slice);
                expect((1..items.len()).all(|n| !items[..n].contains(&items[n])));
            }
            "minimum" => expect(value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap())),
            "maximum" => expect(value.as_f64().is_none_or(|number| number <= rule.as_f64().unwrap())),
            "pattern" => expect(
                value.as_str().is_none_or(|text| regex::Regex::new(rule.as_str().unwrap()).unwrap().is_match(text)),
            ),
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, rule, item, &format!("{at}/{n}"), found);
                }
            }
            "required" => {
                let missing = |name: &&Value| value.is_object() && value.get(name.as_str().unwrap()).is_none();
                if let Some(name) = rule.as_array().unwrap().iter().find(missing) {
                    found.push(format!("{at}: {name} is missing in {value}"));
                }
            }
            "properties" => {
                for (name, schema) in rule.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        check(root, schema, value, &format!("{at}/{name}"), found);
                    }
                }
            }
            "additionalProperties" => {
                let known = keywords.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
                let others = value.as_object().into_iter().flatten().filter(|(name, _)| !known.contains_key(*name));
                for (name, other) in others {
                    if rule == &Value::Bool(false) {
                        found.push(format!("{at}: {name} is not known to {schema}"));
                    } else {
                        check(root, rule, other, &format!("{at}/{name}"), found);
                    }
                }
            }
            note if note.starts_with("x-") => {}
            other => panic!("the keyword `{other}` of {schema} is not known to this test"),
        }
    }
}

fn is(ty: &Value, value: &Value) -> bool {
    match ty.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("`{other}` is not a valid type"),
    }
}

#[test]
fn the_validator_finds_what_does_not_fit() {
    use serde_json::json;
    let schema = json!({ "type": "object", "required": ["a"], "additionalProperties": false,
        "$defs": { "n": { "type": "integer", "minimum": 1 } },
        "properties": {
            "a": { "$ref": "#/$defs/n" },
            "b": { "oneOf": [{ "type": "null" }, { "pattern": "^x" , "type": "string"}] },
            "c": { "items": { "enum": [1, 2] } } } });
    assert_eq!(errors(&schema, &json!({ "a": 1, "b": "xy", "c": [1, 2] })), Vec::<String>::new());
    for bad in [
        json!({}),
        json!({ "a": 0 }),
        json!({ "a": 1.5 }),
        json!({ "a": 1, "b": "y" }),
        json!({ "a": 1, "c": [3] }),
        json!({ "a": 1, "d": 1 }),
        json!([]),
    ] {
        assert_eq!(errors(&schema, &bad).len(), 1, "{bad}");
    }
}
