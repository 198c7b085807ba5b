//! All calls of OpenCV, except networks (`crate::engine`). If the library throws, the call returns an error with the
//! code `opencv_failed`.

mod detect;
mod draw;
mod edit;
mod faces;
mod haar;
mod loaded;
mod network;
mod vision;

pub use draw::annotate;
pub use vision::Opencv;

use dovetail_core::scarce::Scarce;
use dovetail_core::vision::VisionError;

use crate::engine::{Engines, broken};
use crate::models::manifest::{Manifest, Output, Role};

/// Converts an exception of OpenCV. If OpenCV could not allocate memory, the error is `Scarce`: neither the picture nor
/// the task is at fault.
pub(crate) fn failed(err: opencv::Error) -> VisionError {
    if err.code == opencv::core::StsNoMem || err.message.contains("bad_alloc") {
        return scarce(Scarce::Memory, format!("OpenCV: {}", err.message.trim()));
    }
    VisionError::unavailable("opencv_failed", format!("OpenCV: {}", err.message.trim()))
}

/// The error of work for which the system refused a resource.
pub(crate) fn scarce(scarce: Scarce, message: String) -> VisionError {
    VisionError::Scarce { scarce, message }
}

/// The version of the OpenCV that this program is linked with. `None` if OpenCV fails to report it.
#[must_use]
pub fn opencv_version() -> Option<String> {
    opencv::core::get_version_string().ok()
}

/// Stops OpenCV from writing exceptions to standard error. Each exception is already in the error of its call.
pub(crate) fn silence() {
    // This call fails only for a level that does not exist.
    opencv::core::set_log_level(opencv::core::LogLevel::LOG_LEVEL_SILENT).ok();
}

/// Checks a model before it is installed: loads it, and runs a network once on a black picture.
///
/// # Errors
/// What does not match; `Scarce` if the system refused a resource; the errors of the engine's library.
pub(crate) fn check_model(
    engines: &Engines,
    manifest: &Manifest,
    files: &[(Role, Vec<u8>)],
) -> Result<(), VisionError> {
    silence();
    for (role, bytes) in files {
        let checked = match role {
            Role::Network => network::check(engines, manifest, bytes),
            Role::Cascade | Role::ProfileCascade => haar::load_cascade(bytes).map(drop),
            Role::Anchors => Ok(()),
        };
        checked?;
    }
    // A cascade for a network's manifest, or the reverse, failed above: neither file can be read as the other kind.
    let wanted = if manifest.output == Output::Cascade { Role::Cascade } else { Role::Network };
    if files.iter().any(|(role, _)| *role == wanted) { Ok(()) } else { Err(broken("the model's file is missing")) }
}
