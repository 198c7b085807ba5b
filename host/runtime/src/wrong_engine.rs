//! The engine that a run requires, compared with the engines that its networks ran in.

use dovetail_core::executor::{Failure, FailureKind, HostError, ModelUse};
use dovetail_core::required_engine::RequiredEngine;
use dovetail_core::vision::{ENGINE_FAILED, ENGINE_UNAVAILABLE, Vision};

use crate::outcome::host_error;

/// Refuses the result of a network that ran in another engine than the run requires.
///
/// The failure of the step, if this process has the required engine, which refused the network: every worker with this
/// engine would do the same.
///
/// # Errors
/// If this process has another engine: its library has become unusable after the worker told its engine, or a program
/// runs its own runs.
pub(crate) fn wrong_engine(
    model: &ModelUse,
    required: Option<&RequiredEngine>,
    vision: &dyn Vision,
) -> Result<Option<Failure>, HostError> {
    let (Some(required), Some(engine)) = (required, &model.engine) else { return Ok(None) };
    if required.is_met_by(engine) {
        return Ok(None);
    }
    if vision.process_engine().is_some_and(|own| required.is_met_by(&own)) {
        let name = &model.name;
        let message =
            format!("the run requires the engine {required}, which cannot load the model `{name}`: it ran in {engine}");
        return Ok(Some(Failure::new(FailureKind::Unavailable, ENGINE_FAILED, message)));
    }
    let message =
        format!("{ENGINE_UNAVAILABLE}: the run requires the engine {required}, and its network runs in {engine} here");
    Err(host_error(format!("use the model {}", model.name), false, message))
}
