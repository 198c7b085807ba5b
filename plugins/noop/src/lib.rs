//! Returns its input record: `dovetail bench` measures a call with it. An ordinary task, with std and the SDK.

use dovetail_sdk::prelude::*;

#[dovetail_sdk::task]
fn run(input: Input) -> Result<Output> {
    let Input { n, text } = input;
    Ok(Output { n, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_hands_on() {
        assert_eq!(run(Input { n: 1, text: "a".to_owned() }), Ok(Output { n: 1, text: "a".to_owned() }));
    }
}
