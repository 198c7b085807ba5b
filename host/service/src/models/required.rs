//! The engine that `vision.required_engine` requires, for runs that this process executes.

use dovetail_core::keys::is_grant;
use dovetail_core::pipeline::Step;
use dovetail_core::vision::ENGINE_UNAVAILABLE;
use dovetail_vision::Engines;

use crate::{Error, Service};

/// Refuses steps that this process would execute and that open models, if the settings require another engine than that
/// of this process. In a fleet the workers execute the steps.
///
/// # Errors
/// `engine_unavailable`.
pub(crate) fn is_here(service: &Service, steps: &[Step]) -> Result<(), Error> {
    let settings = &service.settings;
    let Some(required) = settings.required_engine.as_ref().filter(|_| !settings.is_fleet()) else { return Ok(()) };
    if steps.iter().all(|step| step.requirements.needs().all(is_grant)) {
        return Ok(());
    }
    let why = match Engines::new(service.engine_options()).expected() {
        Ok(engine) if required.is_met_by(&engine) => return Ok(()),
        Ok(engine) => format!("networks run in {engine} here"),
        Err(error) => error.to_string(),
    };
    let message = format!("`vision.required_engine` requires the engine {required}, and {why}");
    let help = "set `vision.engine` to the required engine (`dovetail models pull` installs ONNX Runtime), or leave \
                `vision.required_engine` out";
    Err(Error::host(ENGINE_UNAVAILABLE, message).help(help))
}
