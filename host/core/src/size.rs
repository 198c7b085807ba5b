//! Sizes in bytes: of a value as JSON, computed without storing the text; and a size as text for people.

use std::io::Write;

use serde_json::Value;

/// A size as `12 B`, `3.4 KiB`, `5.6 MiB` or `7.8 GiB`, for people.
/// [`show_size`](crate::manifest::show_size) writes the exact size instead.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "for people")]
pub fn rounded_size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

/// The length of `value` as compact JSON, in bytes.
#[must_use]
pub fn json_size(value: &Value) -> u64 {
    struct Counter(u64);
    impl Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len() as u64;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    // The counter accepts all bytes, and the keys of a `Value` are strings, so this cannot fail.
    drop(serde_json::to_writer(&mut counter, value));
    counter.0
}

/// The field of an object that takes the most bytes as JSON, with that size; `None` if there are no fields.
#[must_use]
pub fn largest_field(object: &Value) -> Option<(&str, u64)> {
    let sizes = object.as_object()?.iter().map(|(name, value)| (name.as_str(), json_size(value)));
    sizes.max_by_key(|(_, size)| *size)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_size_is_the_length_of_the_text() {
        let value = json!({ "a": [1, 2.5, null, true], "b\"": "x\u{1}y", "c": {} });
        assert_eq!(json_size(&value), value.to_string().len() as u64);
        assert_eq!(largest_field(&value), Some(("a", 17)));
        assert_eq!(largest_field(&json!({})), None);
    }
}
