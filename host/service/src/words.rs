//! Numbers as text for people.

/// A size as `12 B`, `3.4 KiB`, `5.6 MiB` or `7.8 GiB`.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "for people")]
pub fn bytes(n: u64) -> String {
    match n {
        0..1024 => format!("{n} B"),
        1024..1_048_576 => format!("{:.1} KiB", n as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", n as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", n as f64 / 1_073_741_824.0),
    }
}

/// A number with a noun: `1 step`, `2 steps`. Only for nouns whose plural is made with `s`.
#[must_use]
pub fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_units() {
        assert_eq!(
            (count(1, "step"), count(0, "step"), count(2, "step")),
            ("1 step".into(), "0 steps".into(), "2 steps".into())
        );
        assert_eq!((bytes(12), bytes(3482), bytes(5 << 20)), ("12 B".into(), "3.4 KiB".into(), "5.0 MiB".into()));
    }
}
