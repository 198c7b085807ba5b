//! Reads the clock as ordinary Rust code does: the component imports `wasi:clocks`, which the host links only by a
//! grant.

use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dovetail_sdk::prelude::*;

#[dovetail_sdk::task]
fn run(input: Input) -> Result<Output> {
    sleep(Duration::from_millis(input.after_ms.unwrap_or(0).into()));
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(Output { milliseconds: u64::try_from(since.as_millis())? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_later_than_this_test_was_written() {
        assert!(run(Input { zone: None, after_ms: None }).unwrap().milliseconds > 1_700_000_000_000);
    }
}
