//! The SDK for authors of dovetail tasks: one attribute, one function, and the host's functions by name.
//!
//! ```ignore
//! use dovetail_sdk::prelude::*;
//!
//! #[dovetail_sdk::task]
//! fn run(input: Input) -> Result<Output> {
//!     let detector = Detector::open(None)?;
//!     let faces = detector.detect(&input.photo)?;
//!     log::info!("{} faces", faces.len());
//!     Ok(Output { count: faces.len() as u32 })
//! }
//! ```
//!
//! `Input`, `Output` and the other types of the task's interface come from the WIT package in the crate's `wit/`
//! folder; see [`task`]. [`prelude`] has everything that the host offers.
//!
//! The crate also compiles natively, so ordinary unit tests (`cargo test` on the author's machine) reach a task's own
//! logic. The functions of the host exist only inside the host; elsewhere they panic.
//!
//! There are no files, no network and no clocks: a task gets the values of its input.

#[doc(hidden)]
pub mod bindings;

mod artifacts;
mod error;
mod json;
mod logger;
mod panics;
mod stop;

pub use artifacts::Reader;
/// Facts about the current attempt.
pub use bindings::dovetail::task::context;
pub use bindings::dovetail::{
    task::{
        artifacts::{Artifact, Writer},
        types::{Failure, TaskError},
    },
    vision::{
        faces::{
            AgeAndGender, AgeGenderEstimator, Detection, Detector, Embedder, EmotionClassifier, Landmarker, Model,
        },
        images::{Image, Point, Rect, Size},
    },
};
pub use error::{Error, Result, failed, invalid_input, unavailable};
pub use json::Json;
pub use log;

/// Makes a function the task of its crate.
///
/// ```ignore
/// #[dovetail_sdk::task]
/// fn run(input: Input) -> Result<Output> { ... }
/// ```
///
/// The macro reads the WIT package in the crate's `wit/` folder, which need not contain the host's own packages. The
/// package has one world, which exports one interface with `run: func(input: input) -> result<output, task-error>`. The
/// macro brings the types that this interface declares into scope. The function may have any name. If there are several
/// worlds, `#[dovetail_sdk::task(world = "other")]` selects one.
///
/// Before the function runs, the macro connects the `log` crate to the host's log. It also installs a panic hook that
/// reports the file and line of a panic there.
pub use dovetail_sdk_macros::task;

/// Progress and cancellation of the current attempt.
pub mod control {
    pub use crate::bindings::dovetail::task::control::{cancelled, progress};
    pub use crate::stop::check;
}

/// Log lines for people, with fields for programs. The macros of [`log`] write lines without fields.
pub mod logging {
    pub use crate::logger::{enabled, log};
}

/// Everything that a task usually needs: `use dovetail_sdk::prelude::*;`.
pub mod prelude {
    pub use crate::{
        AgeAndGender, AgeGenderEstimator, Artifact, Detection, Detector, Embedder, EmotionClassifier, Error, Failure,
        Image, Landmarker, Point, Rect, Result, Size, Writer, context, control, failed, invalid_input, log, logging,
        unavailable,
    };
}

/// For the code that [`task`] generates, not for authors.
#[doc(hidden)]
pub mod __private {
    pub use crate::bindings;
    pub use crate::error::Error;
    pub use wit_bindgen;

    /// Runs the author's function, after it has installed the panic hook and the logger.
    pub fn run<I, O>(task: fn(I) -> Result<O, Error>, input: I) -> Result<O, crate::TaskError> {
        crate::panics::install();
        crate::logger::install();
        task(input).map_err(crate::TaskError::from)
    }
}
