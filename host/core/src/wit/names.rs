//! Names in WIT (kebab-case) and everywhere else (snake_case), and the most similar known name for a misspelt one.
//!
//! The translation is reversible: a WIT name never contains an underscore, and any other name never contains a hyphen.

/// Converts `faces-array` to `faces_array`.
#[must_use]
pub fn snake(kebab: &str) -> String {
    kebab.replace('-', "_")
}

/// Converts `faces_array` to `faces-array`.
#[must_use]
pub fn kebab(snake: &str) -> String {
    snake.replace('_', "-")
}

/// The longest name of a plugin, pipeline, step or input, in characters.
pub const MAX_NAME: usize = 64;

/// Whether `text` is a name in kebab-case: lower-case words of letters and digits, joined by `-`, with a letter first.
/// Plugins and pipelines have such names.
#[must_use]
pub fn is_kebab(text: &str) -> bool {
    is_words(text, '-')
}

/// Whether `text` is a name in snake_case: lower-case words of letters and digits, joined by `_`, with a letter first.
/// Steps, fields and inputs have such names.
#[must_use]
pub fn is_snake(text: &str) -> bool {
    is_words(text, '_')
}

fn is_words(text: &str, joint: char) -> bool {
    text.len() <= MAX_NAME
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .split(joint)
            .all(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()))
}

/// The known name that is most similar to `wrong`; `None` if no name is similar enough.
pub fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = fold(wrong);
    let allowed = (folded.chars().count() / 3).max(1);
    names
        .into_iter()
        .map(|name| (strsim::osa_distance(&folded, &fold(name)), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Removes case and separators, so that `minConfidence` and `min-confidence` have the distance 0 from `min_confidence`.
/// Cuts the name at [`MAX_NAME`] characters, so that a hostile name costs little.
fn fold(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).flat_map(char::to_lowercase).take(MAX_NAME).collect()
}

/// The end of a message about an unknown name: `; did you mean `x`?`, or nothing.
#[must_use]
pub(crate) fn did_you_mean<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    nearest(wrong, names).map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

/// The first eight of `names` in backticks, and the number of the others.
#[must_use]
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 8;
    let names: Vec<&str> = names.into_iter().collect();
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    match names.len() {
        0 => "none".to_owned(),
        n if n > SHOWN => format!("{} and {} more", shown.join(", "), n - SHOWN),
        _ => shown.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn translation_is_its_own_inverse() {
        assert_eq!(snake("faces-array"), "faces_array");
        assert_eq!(kebab(&snake("a-b-c2")), "a-b-c2");
    }

    #[test]
    fn shapes_of_names() {
        for good in ["a", "face-detection", "a1-2b"] {
            assert!(is_kebab(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a--b", "A", "1a", "a_b", "ä", &"a".repeat(65)] {
            assert!(!is_kebab(bad), "{bad}");
        }
        assert!(is_snake("faces_array") && !is_snake("faces-array") && is_kebab(&"a".repeat(64)));
    }

    #[test]
    fn the_nearest_name_is_near() {
        let names = ["image", "detector", "min_confidence"];
        assert_eq!(nearest("imgae", names), Some("image"));
        assert_eq!(nearest("minConfidence", names), Some("min_confidence"));
        assert_eq!(nearest("threshold", names), None);
        assert_eq!(nearest("detectors", names), Some("detector"));
        assert_eq!(nearest("", names), None);
        assert_eq!(nearest("grösen", ["größen"]), Some("größen"), "letters count, not bytes");
        assert_eq!(nearest("größen", ["gr"]), None, "four edits of six letters");
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<String> = (0..10).map(|n| format!("n{n}")).collect();
        assert!(listed(names.iter().map(String::as_str)).ends_with("`n7` and 2 more"));
        assert_eq!(listed([]), "none");
    }
}
