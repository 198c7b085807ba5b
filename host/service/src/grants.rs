//! Grants that this machine withholds (`worker.grants`). A worker claims no job that asks for a withheld grant. A
//! process that executes its own runs, or tries a task, is refused before anything is recorded: otherwise the process
//! would wait for a worker that it is itself.

use dovetail_core::pipeline::Step;

use crate::error::Error;
use crate::settings::{GRANTS, Settings};

/// Refuses steps that this process would execute and that ask for a withheld grant. In a fleet the workers execute the
/// steps, so that this machine's grants do not matter.
///
/// # Errors
/// `grant_withheld`.
pub(crate) fn of_steps(settings: &Settings, steps: &[Step]) -> Result<(), Error> {
    if settings.is_fleet() {
        return Ok(());
    }
    let asks = |step: &Step| {
        step.requirements
            .needs()
            .filter(|need| GRANTS.contains(need))
            .map(|need| (step.id(), need.to_owned()))
            .collect::<Vec<_>>()
    };
    refuse(settings, steps.iter().flat_map(asks), "the step")
}

/// Refuses a task that is tried here and was granted a withheld grant.
///
/// # Errors
/// `grant_withheld`.
pub(crate) fn of_task(settings: &Settings, name: &str, grants: impl Iterator<Item = String>) -> Result<(), Error> {
    refuse(settings, grants.map(|grant| (name.to_owned(), grant)), "the task")
}

fn refuse(settings: &Settings, mut asked: impl Iterator<Item = (String, String)>, what: &str) -> Result<(), Error> {
    let Some((who, grant)) = asked.find(|(_, grant)| !settings.grants.contains(grant)) else { return Ok(()) };
    let given = if settings.grants.is_empty() { "none".to_owned() } else { settings.grants.join(", ") };
    let message =
        format!("{what} `{who}` needs the grant `{grant}`, which this machine withholds (`worker.grants`: {given})");
    let help = format!(
        "to allow it here, add `{grant}` to `worker.grants` in dovetail.toml or to DOVETAIL_WORKER_GRANTS; or use \
         another machine"
    );
    Err(Error::usage("grant_withheld", message).help(help).detail("grant", grant))
}
