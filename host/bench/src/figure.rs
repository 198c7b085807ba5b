//! A measured figure: the median of its rounds, and their lowest and highest value. This module has no side effects.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A measured figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// A stable name in snake_case.
    #[schemars(regex(pattern = "^[a-z][a-z0-9_]*$"))]
    pub name: String,
    /// The median of the rounds.
    pub value: f64,
    /// Empty for a ratio.
    #[schemars(extend("enum" = ["us", "ms", "1/s", "MB", ""]))]
    pub unit: String,
    /// The lowest of the rounds.
    pub low: f64,
    /// The highest of the rounds.
    pub high: f64,
}

impl Figure {
    /// The figure of these rounds, at least one. Its values are rounded to four digits.
    pub(crate) fn of(name: &str, unit: &str, rounds: &[f64]) -> Self {
        let bound = |pick: fn(f64, f64) -> f64| rounded(rounds.iter().copied().reduce(pick).unwrap_or_default());
        Self {
            name: name.to_owned(),
            value: rounded(median(rounds)),
            unit: unit.to_owned(),
            low: bound(f64::min),
            high: bound(f64::max),
        }
    }
}

/// Rounds to four digits, because further digits are noise.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let digits = 3 - i32::try_from(value.abs().log10().floor() as i64).unwrap_or_default();
    // A power of ten with a positive exponent is exact; one with a negative exponent is not.
    if digits >= 0 {
        (value * 10_f64.powi(digits)).round() / 10_f64.powi(digits)
    } else {
        (value / 10_f64.powi(-digits)).round() * 10_f64.powi(-digits)
    }
}

/// The middle value, or the mean of the two middle values. 0 if there are no values.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// The smallest value that is at least as large as `parts` percent of the values.
pub(crate) fn percentile(values: &[f64], parts: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() * parts).div_ceil(100).max(1) - 1;
    sorted.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_the_median_of_its_rounds() {
        let figure = Figure::of("x", "1/s", &[3.0, 100.0, 1.0]);
        let json = serde_json::json!({ "name": "x", "value": 3.0, "unit": "1/s", "low": 1.0, "high": 100.0 });
        assert_eq!(serde_json::to_value(figure).unwrap(), json);
        assert!((median(&[1.0, 2.0, 4.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(&[]).abs() < 1e-9);
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!((percentile(&values, 50), percentile(&values, 99), percentile(&values, 100)), (100.0, 198.0, 200.0));
        assert_eq!((percentile(&[7.0], 1), percentile(&[], 50)), (7.0, 0.0));
    }

    #[test]
    fn four_digits_are_shown() {
        let shown = |value: f64| rounded(value).to_string();
        let all = [shown(12345.678), shown(1.234_567), shown(0.012_345_6), shown(-99.999_9), shown(0.0), shown(9999.9)];
        assert_eq!(all, ["12350", "1.235", "0.01235", "-100", "0", "10000"]);
    }
}
