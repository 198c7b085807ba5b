//! A reader of JSON that finds duplicate keys. `serde_json` would silently keep the last of the two values.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A duplicate key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuplicateKey {
    /// The key.
    pub key: String,
    /// The object with the key, as a JSON Pointer.
    pub place: String,
}

/// The first duplicate key that was found.
pub(super) type FirstDuplicate = RefCell<Option<DuplicateKey>>;

/// Reads a text as a value, and notes the first duplicate key.
pub(super) fn value(text: &str, first_duplicate: &FirstDuplicate) -> serde_json::Result<Value> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Strict { place: String::new(), first_duplicate }.deserialize(&mut reader)?;
    reader.end().map(|()| value)
}

/// Reads the value at this JSON Pointer.
pub(super) struct Strict<'t> {
    pub(super) place: String,
    pub(super) first_duplicate: &'t FirstDuplicate,
}

impl Strict<'_> {
    fn within(&self, step: &str) -> Self {
        let step = step.replace('~', "~0").replace('/', "~1");
        Self { place: format!("{}/{step}", self.place), first_duplicate: self.first_duplicate }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.within(&list.len().to_string()))? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            let value = members.next_value_seed(self.within(&key))?;
            if object.contains_key(&key) {
                let duplicate_key = || DuplicateKey { key: key.clone(), place: self.place.clone() };
                self.first_duplicate.borrow_mut().get_or_insert_with(duplicate_key);
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_as_everywhere_else() {
        for text in [
            "null",
            "[true, -3, 18446744073709551615, 0.1, 1e300, \"\\u00e9\\n\"]",
            "{\"b\": {\"a\": []}, \"a\": {}, \"\": 1}",
        ] {
            let first_duplicate = FirstDuplicate::default();
            assert_eq!(value(text, &first_duplicate).unwrap(), serde_json::from_str::<Value>(text).unwrap(), "{text}");
            assert_eq!(first_duplicate.take(), None);
        }
        for text in ["", "{", "[1,]", "{} {}", "nul", &"[".repeat(1000)] {
            assert!(value(text, &FirstDuplicate::default()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_key_that_stands_twice_is_found_at_any_depth() {
        for (text, key, place) in [
            ("{\"a\": 1, \"a\": 1}", "a", ""),
            ("[0, {\"b/c\": {\"x\": 1, \"y\": 2, \"x\": 3}}]", "x", "/1/b~1c"),
            ("{\"a\": {\"\\u0062\": 1, \"b\": 2}, \"a\": 1}", "b", "/a"),
        ] {
            let first_duplicate = FirstDuplicate::default();
            value(text, &first_duplicate).unwrap();
            assert_eq!(first_duplicate.take(), Some(DuplicateKey { key: key.into(), place: place.into() }), "{text}");
        }
    }
}
