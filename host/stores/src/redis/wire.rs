//! The arguments and the replies of the script, as Redis carries them.

use std::time::Duration;

use dovetail_core::keys::{NodeId, RunKey};
use dovetail_core::ledger::{Job, Scope};
use dovetail_core::window::{Change, Delivery, Notification, Status, WindowLease};

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
pub(super) fn back_args(job: &str, token: &str, attempt: u32, verify: bool, delay: Duration) -> Vec<Vec<u8>> {
    let verify = if verify { "1" } else { "0" };
    args_of(&["B", job, token, &attempt.to_string(), verify, &delay.as_millis().to_string()])
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
            args.extend(back_args(&lease.run.job(&lease.step), &lease.token, *attempt, *verify, *delay));
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

pub(super) type RawJob = (String, u8, u32, u32, Vec<u8>, Vec<Vec<u8>>);

/// The job that was handed out. `Err`: this version cannot read one of its names.
pub(super) fn delivery(raw: RawJob, token: &str, epoch: &str) -> Result<Delivery, RawJob> {
    let named = |pair: &[Vec<u8>]| {
        let step: NodeId = std::str::from_utf8(pair.first()?).ok()?.parse().ok()?;
        Some((step, pair.get(1)?.clone()))
    };
    let names = RunKey::of_job(&raw.0);
    let Some(((run, step), values)) = names.zip(raw.5.chunks(2).map(named).collect::<Option<Vec<_>>>()) else {
        return Err(raw);
    };
    let (_, verify, crashes, attempt, envelope, _) = raw;
    let lease = WindowLease { run, step, token: token.to_owned(), epoch: epoch.to_owned() };
    Ok(Delivery { lease, attempt, crashes, verify: verify == 1, envelope, values })
}

/// The capabilities of the claiming worker, in the format of the script.
pub(super) fn able(scope: &Scope) -> String {
    match scope {
        Scope::Able(able) => able.join(","),
        Scope::All | Scope::Runs(_) => "*".to_owned(),
    }
}

pub(super) fn ring_of(message: &str) -> Notification {
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
    fn a_job_with_a_name_that_cannot_be_read_comes_back_as_it_is() {
        let run = "01010101-0101-0101-0101-010101010101:0";
        let raw = |key: String, need: &str| (key, 0, 0, 1, vec![1], vec![need.as_bytes().to_vec(), vec![2]]);
        assert!(delivery(raw(format!("{run}/a"), "b"), "token", "epoch").is_ok());
        for bad in [raw(format!("{run}/Not-A-Step"), "b"), raw("run/a".into(), "b"), raw(format!("{run}/a"), "B")] {
            assert_eq!(delivery(bad.clone(), "token", "epoch").err(), Some(bad));
        }
    }
}
