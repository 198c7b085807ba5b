//! Numbers and bytes in JSON: the one form in which they are written, and all forms that are accepted.
//!
//! An integer beyond 2^53 - 1 is written as a string, because most JSON parsers would round it. A float that JSON
//! cannot express is a string too.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use serde_json::{Number, Value};

/// The largest integer that every JSON parser keeps exactly: 2^53 - 1 (RFC 8259, section 6).
pub const MAX_SAFE: u64 = (1 << 53) - 1;

/// An integer up to [`MAX_SAFE`]; otherwise a string of its decimal digits.
#[must_use]
pub fn u64_to_json(n: u64) -> Value {
    if n <= MAX_SAFE { Value::from(n) } else { Value::from(n.to_string()) }
}

/// An integer whose magnitude is up to [`MAX_SAFE`]; otherwise a string of its decimal digits.
#[must_use]
pub fn s64_to_json(n: i64) -> Value {
    if n.unsigned_abs() <= MAX_SAFE { Value::from(n) } else { Value::from(n.to_string()) }
}

/// Reads an integer, or a string of its decimal digits.
#[must_use]
pub fn u64_from_json(value: &Value) -> Option<u64> {
    match value {
        Value::String(digits) => decimal(digits)?.try_into().ok(),
        _ => integer(value)?.try_into().ok(),
    }
}

/// Reads an integer, or a string of its decimal digits.
#[must_use]
pub fn s64_from_json(value: &Value) -> Option<i64> {
    match value {
        Value::String(digits) => decimal(digits)?.try_into().ok(),
        _ => integer(value)?.try_into().ok(),
    }
}

/// A JSON number without a fraction: `3`, and also `3.0`, as in JSON Schema.
pub(super) fn integer(value: &Value) -> Option<i128> {
    let number = value.as_number()?;
    if let Some(n) = number.as_u64() {
        return Some(n.into());
    }
    if let Some(n) = number.as_i64() {
        return Some(n.into());
    }
    let n = number.as_f64()?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "within 2^53 both casts are exact"
    )]
    (n.fract() == 0.0 && n.abs() <= MAX_SAFE as f64).then_some(n as i128)
}

/// Reads `-` (optional) and one to twenty digits without a leading zero.
fn decimal(text: &str) -> Option<i128> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = (1..=20).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    if !plain || (digits.len() > 1 && digits.starts_with('0')) || text == "-0" {
        return None;
    }
    text.parse().ok()
}

/// The shortest digits that parse to the same `f32` (`0.1`, not `0.10000000149011612`); a string if it is not finite.
#[must_use]
pub fn f32_to_json(x: f32) -> Value {
    if !x.is_finite() {
        return Value::from(not_finite(x.into()));
    }
    // The shortest decimal form of an f32 has at most nine digits, so the f64 inside `Number` keeps it. `to_string`
    // writes the same digits but takes twice the time, and networks return thousands of numbers.
    let mut text = [0_u8; 24];
    let mut rest = text.as_mut_slice();
    let left = serde_json::to_writer(&mut rest, &x).map(|()| rest.len());
    let digits = left.ok().and_then(|left| std::str::from_utf8(&text[..text.len() - left]).ok());
    digits
        .and_then(|digits| digits.parse().ok())
        .and_then(Number::from_f64)
        .map_or(Value::from(f64::from(x)), Value::Number)
}

/// A number; a string if it is not finite.
#[must_use]
pub fn f64_to_json(x: f64) -> Value {
    Number::from_f64(x).map_or_else(|| Value::from(not_finite(x)), Value::Number)
}

fn not_finite(x: f64) -> &'static str {
    if x.is_nan() {
        "NaN"
    } else if x > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
}

/// The `f32` nearest to a number; `None` if the number is out of range.
#[must_use]
pub fn f32_from_json(value: &Value) -> Option<f32> {
    let wide = f64_from_json(value)?;
    #[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest value is intended")]
    let narrow = wide as f32;
    (narrow.is_finite() || !wide.is_finite()).then_some(narrow)
}

/// Reads a number, or `"NaN"`, `"Infinity"` or `"-Infinity"`.
#[must_use]
pub fn f64_from_json(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => value.as_f64(),
    }
}

/// Padded base64 with the standard alphabet (RFC 4648, section 4).
#[must_use]
pub fn bytes_to_json(bytes: &[u8]) -> Value {
    Value::from(STANDARD.encode(bytes))
}

/// Reads base64, padded or not, or an array of integers from 0 to 255.
#[must_use]
pub fn bytes_from_json(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => lenient().decode(text).ok(),
        Value::Array(items) => items.iter().map(|item| integer(item)?.try_into().ok()).collect(),
        _ => None,
    }
}

fn lenient() -> GeneralPurpose {
    GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn large_integers_are_strings() {
        assert_eq!(u64_to_json(MAX_SAFE), json!(9_007_199_254_740_991_u64));
        assert_eq!(u64_to_json(MAX_SAFE + 1), json!("9007199254740992"));
        assert_eq!(s64_to_json(i64::MIN), json!("-9223372036854775808"));
        assert_eq!(u64_from_json(&json!("18446744073709551615")), Some(u64::MAX));
        assert_eq!(u64_from_json(&json!(18_446_744_073_709_551_615_u64)), Some(u64::MAX));
        for bad in [
            json!("18446744073709551616"),
            json!("-1"),
            json!("01"),
            json!("+1"),
            json!(""),
            json!("1.0"),
            json!(1.5),
            json!(1e300),
        ] {
            assert_eq!(u64_from_json(&bad), None, "{bad}");
        }
        assert_eq!(s64_from_json(&json!("-0")), None);
        assert_eq!(s64_from_json(&json!(-3.0)), Some(-3));
    }

    #[test]
    fn floats_are_short_and_whole() {
        assert_eq!(f32_to_json(0.1).to_string(), "0.1");
        assert_eq!(f32_to_json(f32::MAX).to_string(), "3.4028235e+38");
        assert_eq!(f32_to_json(f32::NEG_INFINITY), json!("-Infinity"));
        assert_eq!(f64_to_json(f64::NAN), json!("NaN"));
        assert_eq!(f32_from_json(&json!(1e39)), None);
        assert_eq!(f32_from_json(&json!("Infinity")), Some(f32::INFINITY));
        assert_eq!(f64_from_json(&json!("inf")), None);
    }

    #[test]
    fn bytes_are_base64() {
        assert_eq!(bytes_to_json(b"\xff\x00"), json!("/wA="));
        for same in [json!("/wA="), json!("/wA"), json!([255, 0])] {
            assert_eq!(bytes_from_json(&same).as_deref(), Some(&b"\xff\x00"[..]), "{same}");
        }
        for bad in [json!("/w!"), json!([256]), json!([-1]), json!(1)] {
            assert_eq!(bytes_from_json(&bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_number_reads_back(u in any::<u64>(), s in any::<i64>(), x in any::<f32>(), y in any::<f64>()) {
            prop_assert_eq!(u64_from_json(&u64_to_json(u)), Some(u));
            prop_assert_eq!(s64_from_json(&s64_to_json(s)), Some(s));
            let text = |value: Value| serde_json::from_str::<Value>(&value.to_string()).unwrap();
            let x_back = f32_from_json(&text(f32_to_json(x))).unwrap();
            let y_back = f64_from_json(&text(f64_to_json(y))).unwrap();
            prop_assert!(x_back.to_bits() == x.to_bits() || (x.is_nan() && x_back.is_nan()));
            prop_assert!(y_back.to_bits() == y.to_bits() || (y.is_nan() && y_back.is_nan()));
        }
    }
}
