//! Numbers as text for people.

pub use dovetail_core::size::rounded_size as bytes;

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
