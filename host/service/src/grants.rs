//! What this machine gives to tasks that were granted it (`worker.grants`). Workers take no job that asks for more; who
//! works on runs of his own, or tries a task, is refused before anything is recorded: he would wait for himself.

use dovetail_core::pipeline::Step;

use crate::error::Error;
use crate::settings::{GRANTS, Settings};

/// Refuses steps that this process would run and that ask for more. In a fleet it would not: the workers do.
pub fn of_steps(settings: &Settings, steps: &[Step]) -> Result<(), Error> {
    if settings.is_fleet() {
        return Ok(());
    }
    let asks = |step: &Step| {
        step.lane
            .needs()
            .filter(|need| GRANTS.contains(need))
            .map(|need| (step.id(), need.to_owned()))
            .collect::<Vec<_>>()
    };
    refuse(settings, steps.iter().flat_map(asks), "the step")
}

/// Refuses a task that is tried here and was granted more.
pub fn of_task(settings: &Settings, name: &str, grants: impl Iterator<Item = String>) -> Result<(), Error> {
    refuse(settings, grants.map(|grant| (name.to_owned(), grant)), "the task")
}

fn refuse(settings: &Settings, mut asked: impl Iterator<Item = (String, String)>, what: &str) -> Result<(), Error> {
    let Some((who, grant)) = asked.find(|(_, grant)| !settings.grants.contains(grant)) else { return Ok(()) };
    let given = if settings.grants.is_empty() { "none".to_owned() } else { settings.grants.join(", ") };
    let message =
        format!("{what} `{who}` was granted `{grant}`, and this machine gives no task that (`worker.grants`: {given})");
    let help = format!(
        "add `{grant}` to `worker.grants` in dovetail.toml, or to DOVETAIL_WORKER_GRANTS, if tasks may have it here; or run it elsewhere"
    );
    Err(Error::usage("grant_withheld", message).help(help).detail("grant", grant))
}
