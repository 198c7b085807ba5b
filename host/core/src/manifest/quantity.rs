//! Sizes and durations in the form that people write (`64MiB`, `30s`), in manifests, pipelines, the configuration and
//! on the command line.
//!
//! A quantity is a whole number with one unit. Decimal units (`MB`) are refused, because their meaning is ambiguous.

use std::time::Duration;

use crate::wit::names::listed;

/// The text is not a size or not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {what}: write a whole number and one of {units}, such as `{example}`")]
pub struct BadQuantity {
    text: String,
    what: &'static str,
    units: String,
    example: &'static str,
}

const SIZES: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
const DURATIONS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Parses a size such as `512B`, `64MiB` or `256 KiB` into bytes.
///
/// # Errors
/// Any other text, and sizes of more than 2^64 - 1 bytes.
pub fn parse_size(text: &str) -> Result<u64, BadQuantity> {
    parse(text, "size", &SIZES, "64MiB")
}

/// Parses a duration such as `500ms`, `30s`, `5m`, `2h` or `1d`.
///
/// # Errors
/// Any other text, and durations of more than 2^64 - 1 milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration, BadQuantity> {
    parse(text, "duration", &DURATIONS, "30s").map(Duration::from_millis)
}

fn parse(text: &str, what: &'static str, units: &[(&str, u64)], example: &'static str) -> Result<u64, BadQuantity> {
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit.trim_start()).map(|(_, factor)| *factor);
    let quantity = factor.and_then(|factor| number.parse::<u64>().ok()?.checked_mul(factor));
    quantity.ok_or_else(|| BadQuantity {
        text: text.chars().take(40).collect(),
        what,
        units: listed(units.iter().map(|(name, _)| *name)),
        example,
    })
}

/// A size in the largest unit that divides it, such as `64MiB`. [`parse_size`] reads the text back.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    show(bytes, &SIZES)
}

/// A duration in the largest unit that divides it, such as `30s`. [`parse_duration`] reads the text back.
#[must_use]
pub fn show_duration_ms(ms: u64) -> String {
    show(ms, &DURATIONS)
}

fn show(quantity: u64, units: &[(&str, u64)]) -> String {
    let fits = |(_, factor): &&(&str, u64)| quantity > 0 && quantity.is_multiple_of(*factor);
    // The first unit divides every number. Zero has no largest unit and is shown in the first unit.
    let (name, factor) = units.iter().rev().find(fits).unwrap_or(&units[0]);
    format!("{}{name}", quantity / factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("0B", 0), ("512B", 512), ("64MiB", 64 << 20), ("256 KiB", 256 << 10), (" 1GiB ", 1 << 30)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "64", "MiB", "64MB", "64mib", "1.5GiB", "-1B", "+1B", "99999999999GiB", "1 Ki B", "1GiB2"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert_eq!(
            parse_size("64MB").unwrap_err().to_string(),
            "`64MB` is not a valid size: write a whole number and one of `B`, `KiB`, `MiB`, `GiB`, such as `64MiB`"
        );
    }

    #[test]
    fn durations() {
        for (text, ms) in [("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("2 h", 7_200_000), ("1d", 86_400_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "30", "s", "30sec", "1m30s", "0.5s", "-1s", "99999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read(n in any::<u64>(), shift in 0_u32..64) {
            let n = n >> shift;
            prop_assert_eq!(parse_size(&show_size(n)), Ok(n));
            prop_assert_eq!(parse_duration(&show_duration_ms(n)), Ok(Duration::from_millis(n)));
        }
    }
}
