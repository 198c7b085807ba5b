//! Prepares strings from guests for people and records: bounds them and removes control characters.

use std::collections::BTreeMap;

use serde_json::Value;

/// The longest string of a guest's failure that is recorded, in bytes.
pub(crate) const MAX_TEXT: usize = 4 << 10;
/// The most details of a failure that are recorded.
const MAX_DETAILS: usize = 64;

/// Removes control characters. Newlines and tabs become spaces, so that one line stays one line.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .filter_map(|c| if matches!(c, '\n' | '\t') { Some(' ') } else { (!c.is_control()).then_some(c) })
        .collect()
}

/// At most `max` bytes, cut between characters. A cut text ends with an ellipsis.
pub(crate) fn truncate(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let mut end = max.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

/// A message: cleaned, and at most 4 KiB long.
pub(crate) fn message(text: &str) -> String {
    clean(&truncate(text, MAX_TEXT))
}

/// A code: snake_case, at most 64 characters, never empty.
pub(crate) fn code(text: &str) -> String {
    let code: String =
        text.chars().take(64).map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
    if code.is_empty() { "failed".to_owned() } else { code }
}

/// The value of a detail or a log field: the text parsed as JSON, or as a string if it is not JSON.
pub(crate) fn detail_value(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(Value::String(text)) => Value::String(clean(&text)),
        Ok(value) => value,
        Err(_) => Value::String(clean(text)),
    }
}

/// Bounds the details of a failure.
pub(crate) fn details(given: Vec<(String, String)>) -> BTreeMap<String, Value> {
    let bounded = |text: String| {
        if text.len() > MAX_TEXT { Value::String(message(&text)) } else { detail_value(&text) }
    };
    given.into_iter().take(MAX_DETAILS).map(|(key, value)| (code(&key), bounded(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(truncate("äöü", 6), "äöü");
        assert_eq!(truncate("äöüx", 6), "ä…");
        assert_eq!(message(&"x".repeat(MAX_TEXT)).len(), MAX_TEXT);
        assert_eq!(message(&"x".repeat(MAX_TEXT + 1)).len(), MAX_TEXT);
        assert!(message(&"x".repeat(MAX_TEXT + 1)).ends_with('…'));
    }

    #[test]
    fn codes_are_snake_case() {
        assert_eq!(code("no_face_found"), "no_face_found");
        assert_eq!(code("No face\u{1b}!"), "no_face__");
        assert_eq!(code(""), "failed");
    }

    #[test]
    fn details_are_json_or_strings() {
        let given = details(vec![
            ("count".into(), "3".into()),
            ("file".into(), "a b".into()),
            ("big".into(), "[".repeat(9000)),
        ]);
        assert_eq!((&given["count"], &given["file"]), (&Value::from(3), &Value::from("a b")));
        assert_eq!(given["big"].as_str().map(str::len), Some(MAX_TEXT));
    }
}
