//! Behaves well or badly, as its input says: the tests check the host's reaction. Nothing here is an example for real
//! tasks.

use std::hint::black_box;
use std::time::Duration;

use dovetail_sdk::prelude::*;

#[dovetail_sdk::task]
fn run(input: Input) -> Result<Output> {
    let mut output = Output { echo: None, text: None, facts: None, count: None };
    match input.behaviour {
        Behaviour::NoOp => {}
        Behaviour::Echo(everything) => output.echo = Some(everything),
        Behaviour::Log(lines) => log_lines(lines),
        Behaviour::Println(text) => print(&text),
        Behaviour::Panic(message) => panic_with(&message),
        Behaviour::EndlessLoop => loop {
            black_box(());
        },
        Behaviour::Allocate(mebibytes) => output.count = Some(allocate(mebibytes)),
        Behaviour::Recurse => output.count = Some(recurse(0)),
        Behaviour::Fail(how) => return Err(failing(how)),
        Behaviour::BusyUntilCancelled => loop {
            work(1000);
            control::check()?;
        },
        Behaviour::Busy(rounds) => output.count = Some(work(rounds)),
        Behaviour::HugeOutput(bytes) => output.text = Some("x".repeat(usize::try_from(bytes)?)),
        Behaviour::LeakHandles(handles) => leak(handles),
        Behaviour::TellContext(field) => output.facts = Some(facts(&field)),
        Behaviour::ReportProgress(times) => {
            for n in 0..times {
                control::progress(n as f32 / times as f32, Some("probing"));
            }
        }
        Behaviour::SucceedAtAttempt(attempt) => output.count = Some(succeed_at(attempt, context::attempt())?),
    }
    Ok(output)
}

fn log_lines(lines: u32) {
    let levels = [log::Level::Trace, log::Level::Debug, log::Level::Info, log::Level::Warn, log::Level::Error];
    for (n, level) in (0..lines).zip(levels.into_iter().cycle()) {
        logging::log(level, "a line", &[("line", n.into())]);
    }
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the tests check the host's reaction")]
fn print(text: &str) {
    println!("{text}");
    eprintln!("{text}");
}

#[expect(clippy::panic, reason = "the tests check the host's reaction")]
fn panic_with(message: &str) -> ! {
    panic!("{message}")
}

fn allocate(mebibytes: u32) -> u64 {
    let bytes = black_box(vec![1_u8; (mebibytes as usize) << 20]);
    bytes.len() as u64
}

#[expect(unconditional_recursion, reason = "the tests check the host's reaction")]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 16]);
    recurse(depth + 1) + black_box(frame)[0]
}

fn failing(how: Failing) -> Error {
    match how {
        Failing::InvalidInput => invalid_input("told_to_fail", "an input that is refused").with("field", "behaviour"),
        Failing::Cancelled => Error::from(dovetail_sdk::TaskError::Cancelled),
        Failing::Unavailable => unavailable("told_to_fail", "a service that is away"),
        Failing::UnavailableLater => {
            unavailable("told_to_fail", "a service that is away").retry_after(Duration::from_millis(50))
        }
        Failing::Failed => failed("told_to_fail", "a failure").with("times", 1),
        Failing::FailedRetryable => failed("told_to_fail", "a failure").retryable(),
        Failing::Ordinary => match "no number".parse::<u32>() {
            Ok(_) => failed("impossible", "that was no number"),
            Err(error) => error.into(),
        },
    }
}

/// Computes for about a microsecond a round.
fn work(rounds: u64) -> u64 {
    let mut state = 1_u64;
    for _ in 0..rounds {
        for _ in 0..500 {
            state = black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
    }
    black_box(state);
    rounds
}

#[expect(clippy::mem_forget, reason = "the tests check the host's reaction")]
fn leak(handles: u32) {
    for _ in 0..handles {
        std::mem::forget(Writer::new("text/plain"));
    }
}

fn facts(field: &str) -> Facts {
    Facts {
        run_id: context::run_id(),
        step: context::step(),
        attempt: context::attempt(),
        idempotency_key: context::idempotency_key(),
        remaining_ms: context::remaining_ms(),
        origin: context::origin(field),
    }
}

fn succeed_at(wanted: u32, attempt: u32) -> Result<u64> {
    if attempt < wanted {
        return Err(failed("too_early", format!("attempt {attempt} of {wanted}")).retryable());
    }
    Ok(u64::from(attempt))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fails_until_the_attempt_that_is_wanted() {
        assert_eq!(succeed_at(3, 2).unwrap_err().code(), "too_early");
        assert_eq!(succeed_at(3, 3), Ok(3));
    }

    #[test]
    fn an_ordinary_error_is_told() {
        assert_eq!(failing(Failing::Ordinary).message(), "invalid digit found in string");
    }
}
