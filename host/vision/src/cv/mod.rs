//! Everything that calls OpenCV. An exception of the library is an error of the call, with the code `opencv_failed`.

mod detect;
mod draw;
mod faces;
mod haar;
mod network;
mod vision;

pub use draw::annotate;
pub use vision::Opencv;

use dovetail_core::scarce::Scarce;
use dovetail_core::vision::VisionError;

use crate::models::manifest::{Manifest, Output, Role};

/// What the library says when it throws. That it gets no memory is no fault of the picture, nor of the task.
pub(crate) fn failed(err: opencv::Error) -> VisionError {
    if err.code == opencv::core::StsNoMem || err.message.contains("bad_alloc") {
        return scarce(Scarce::Memory, format!("OpenCV: {}", err.message.trim()));
    }
    VisionError::unavailable("opencv_failed", format!("OpenCV: {}", err.message.trim()))
}

/// The system refused this process what the work needs.
pub(crate) fn scarce(scarce: Scarce, message: String) -> VisionError {
    VisionError::Scarce { scarce, message }
}

/// The version of the library that this program is linked with.
#[must_use]
pub fn opencv_version() -> Option<String> {
    opencv::core::get_version_string().ok()
}

/// OpenCV writes what it throws to standard error as well; it is in the error already.
pub(crate) fn silence() {
    // It cannot fail but for a level that does not exist.
    opencv::core::set_log_level(opencv::core::LogLevel::LOG_LEVEL_SILENT).ok();
}

/// Loads a model and runs it once on an empty picture, before it is installed.
///
/// # Errors
/// A sentence about what does not fit.
pub(crate) fn check_model(manifest: &Manifest, files: &[(Role, Vec<u8>)]) -> Result<(), String> {
    silence();
    for (role, bytes) in files {
        let checked = match role {
            Role::Network => network::Network::check(manifest, bytes),
            Role::Cascade | Role::ProfileCascade => haar::load_cascade(bytes).map(drop),
            Role::Anchors => Ok(()),
        };
        checked.map_err(|err| err.to_string())?;
    }
    // A cascade of a network's manifest or the reverse is caught above: neither can be read as the other.
    let wanted = if manifest.output == Output::Cascade { Role::Cascade } else { Role::Network };
    if files.iter().any(|(role, _)| *role == wanted) { Ok(()) } else { Err("the model's file is missing".to_owned()) }
}
