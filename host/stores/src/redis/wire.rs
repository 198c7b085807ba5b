//! The arguments and the replies of the script, as Redis carries them.

use std::time::Duration;

use dovetail_core::keys::{NodeId, RunKey};
use dovetail_core::ledger::{Job, Scope};
use dovetail_core::window::{Change, Delivery, Notification, Status, WindowLease};
use redis::{FromRedisValue as _, Value};

pub(super) fn args_of(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|w| w.as_bytes().to_vec()).collect()
}

pub(super) fn push_jobs(args: &mut Vec<Vec<u8>>, jobs: &[Job]) {
    args.push(jobs.len().to_string().into_bytes());
    for job in jobs {
        let needs = job.needs.iter().map(NodeId::as_str).collect::<Vec<_>>().join("\x1e");
        args.extend(args_of(&[job.step.as_str(), &job.attempt.to_string(), job.requirements.as_str(), &needs]));
    }
}

/// The arguments of [`Change::Back`].
pub(super) fn back_args(job: &[u8], token: &str, attempt: u32, verify: bool, delay: Duration) -> Vec<Vec<u8>> {
    let verify = if verify { "1" } else { "0" };
    let mut args = args_of(&["B", "", token, &attempt.to_string(), verify, &delay.as_millis().to_string()]);
    args[1] = job.to_vec();
    args
}

pub(super) fn push_change(args: &mut Vec<Vec<u8>>, change: &Change) {
    match change {
        Change::Finish { lease, succeeded, value, children } => {
            args.extend(args_of(&[
                "F",
                &lease.run.key(),
                lease.step.as_str(),
                &lease.epoch,
                if *succeeded { "1" } else { "0" },
            ]));
            args.push(value.clone());
            push_jobs(args, children);
        }
        Change::Open { run, stamp, verify, envelope, steps, done, jobs } => {
            args.extend(args_of(&[
                "O",
                &run.key(),
                &stamp.epoch,
                &stamp.now.to_string(),
                if *verify { "1" } else { "0" },
            ]));
            args.push(envelope.clone());
            args.push(steps.to_string().into_bytes());
            args.push(done.len().to_string().into_bytes());
            for (step, value) in done {
                args.extend(args_of(&[step.as_str(), if value.is_some() { "1" } else { "0" }]));
                args.push(value.clone().unwrap_or_default());
            }
            push_jobs(args, jobs);
        }
        Change::Close { run } => args.extend(args_of(&["X", &run.key()])),
        Change::Cancel { run } => args.extend(args_of(&["C", &run.key()])),
        Change::Refused => args.extend(args_of(&["R", ""])),
        Change::Back { lease, attempt, verify, delay } => {
            args.extend(back_args(lease.run.job(&lease.step).as_bytes(), &lease.token, *attempt, *verify, *delay));
        }
    }
}

pub(super) fn status(word: &str) -> Option<Status> {
    Some(match word {
        "ok" => Status::Ok,
        "complete" => Status::Complete,
        "last" => Status::Last,
        "lost" => Status::Lost,
        "stale" => Status::Stale,
        "closed" => Status::Closed,
        "cancelled" => Status::Cancelled,
        "not_owner" => Status::NotOwner,
        _ => return None,
    })
}

/// Key, verify, crashes, attempt, envelope, and the needed values after their steps' names.
type RawJob = (Vec<u8>, u8, u32, u32, Vec<u8>, Vec<Vec<u8>>);

/// A claimed job that this version cannot read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnreadableJob {
    pub(super) key: Vec<u8>,
    pub(super) attempt: u32,
    pub(super) verify: bool,
}

/// The job that was handed out. `Err`: this version cannot read the job.
pub(super) fn delivery(job: Value, token: &str, epoch: &str) -> Result<Delivery, UnreadableJob> {
    // Even of a job with a malformed field the key is known, so that the job can be given back.
    let key = match &job {
        Value::Array(fields) => fields.first().and_then(|key| Vec::<u8>::from_redis_value_ref(key).ok()),
        _ => None,
    };
    let Ok((key, verify, crashes, attempt, envelope, values)) = RawJob::from_redis_value(job) else {
        return Err(UnreadableJob { key: key.unwrap_or_default(), attempt: 1, verify: true });
    };
    let named = |pair: &[Vec<u8>]| {
        let step: NodeId = std::str::from_utf8(pair.first()?).ok()?.parse().ok()?;
        Some((step, pair.get(1)?.clone()))
    };
    let names = std::str::from_utf8(&key).ok().and_then(RunKey::of_job);
    let verify = verify == 1;
    match names.zip(values.chunks(2).map(named).collect::<Option<Vec<_>>>()) {
        Some(((run, step), values)) => {
            let lease = WindowLease { run, step, token: token.to_owned(), epoch: epoch.to_owned() };
            Ok(Delivery { lease, attempt, crashes, verify, envelope, values })
        }
        None => Err(UnreadableJob { key, attempt, verify }),
    }
}

/// The capabilities of the claiming worker, in the format of the script.
pub(super) fn able(scope: &Scope) -> String {
    match scope {
        Scope::Able(able) => able.join(","),
        Scope::All | Scope::Runs(_) => "*".to_owned(),
    }
}

pub(super) fn parse_notification(message: &str) -> Notification {
    let run = |word: &str| message.strip_prefix(word).and_then(RunKey::parse);
    run("over ")
        .map(Notification::Over)
        .or_else(|| run("cancel ").map(Notification::Cancelled))
        .unwrap_or(Notification::Jobs)
}

/// A pattern that only this text matches.
pub(super) fn glob_of(text: &str) -> String {
    let escaped = |c: char| if matches!(c, '[' | ']' | '*' | '?' | '\\') { vec!['\\', c] } else { vec![c] };
    text.chars().flat_map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_its_text_alone() {
        assert_eq!(glob_of("dovetail:{a}:"), "dovetail:{a}:");
        assert_eq!(glob_of(r"a[b]*?\c"), r"a\[b\]\*\?\\c");
    }

    #[test]
    fn a_job_that_cannot_be_read_comes_back_with_its_key() {
        let run = "01010101-0101-0101-0101-010101010101:0";
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let job = |key: &str, attempt: &str, need: &str| {
            let needs = Value::Array(vec![text(need), text("value")]);
            Value::Array(vec![text(key), Value::Int(0), Value::Int(2), text(attempt), text("envelope"), needs])
        };
        let read = delivery(job(&format!("{run}/a"), "3", "b"), "token", "epoch").unwrap();
        assert_eq!((read.lease.step.as_str(), read.attempt, read.crashes, read.verify), ("a", 3, 2, false));
        let unreadable = |key: &str, attempt, verify| UnreadableJob { key: key.as_bytes().to_vec(), attempt, verify };
        for (key, need) in [(format!("{run}/Not-A-Step"), "b"), ("run/a".into(), "b"), (format!("{run}/a"), "B")] {
            let found = delivery(job(&key, "3", need), "token", "epoch").unwrap_err();
            assert_eq!(found, unreadable(&key, 3, false));
        }
        assert_eq!(delivery(job("k", "many", "b"), "token", "epoch").unwrap_err(), unreadable("k", 1, true));
        assert_eq!(delivery(Value::Nil, "token", "epoch").unwrap_err(), unreadable("", 1, true));
    }
}
