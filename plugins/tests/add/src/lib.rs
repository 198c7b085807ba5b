//! Adds two numbers: the smallest task, for tests of flows.

use dovetail_sdk::prelude::*;

#[dovetail_sdk::task]
fn run(input: Input) -> Result<Output> {
    let sum = input
        .a
        .checked_add(input.b)
        .ok_or_else(|| invalid_input("overflow", "the sum of `a` and `b` does not fit in 64 bits"))?;
    Ok(Output { sum })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums() {
        assert_eq!(run(Input { a: 2, b: -5 }), Ok(Output { sum: -3 }));
        assert_eq!(run(Input { a: i64::MAX, b: 1 }).unwrap_err().code(), "overflow");
    }
}
