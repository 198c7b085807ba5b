//! What the author of a dovetail task sees: one attribute, one function, and the host's functions by name.
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
//! `Input`, `Output` and whatever else the task's interface declares come from the WIT package in the crate's `wit/`
//! folder; see [`task`]. [`prelude`] has all that the host offers. Natively (`cargo test` on the author's machine)
//! everything compiles, so that ordinary unit tests reach a task's own logic; functions of the host exist inside the
//! host only, and panic elsewhere.
//!
//! Deliberately absent: files, network, clocks. A task gets what its input names.

#[doc(hidden)]
pub mod bindings;

mod artifacts;
mod error;
mod json;
mod logger;
mod panics;
mod stop;

pub use artifacts::Reader;
/// Facts about this attempt.
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
/// It reads the WIT package in the crate's `wit/` folder (the host's own packages need not be there), which has one
/// world that exports one interface with `run: func(input: input) -> result<output, task-error>`, and brings the types
/// that this interface declares into scope. The function's name is free. `#[dovetail_sdk::task(world = "other")]`
/// chooses among several worlds.
///
/// Before the function runs, the `log` crate is connected to the host's log, and a panic reports its file and line
/// there.
pub use dovetail_sdk_macros::task;

/// Between the task and whoever waits for it.
pub mod control {
    pub use crate::bindings::dovetail::task::control::{cancelled, progress};
    pub use crate::stop::check;
}

/// Lines for people who look for a cause, with fields for machines. Without fields, the macros of [`log`] do the same.
pub mod logging {
    pub use crate::logger::{enabled, log};
}

/// Everything a task usually needs: `use dovetail_sdk::prelude::*;`.
pub mod prelude {
    pub use crate::{
        AgeAndGender, AgeGenderEstimator, Artifact, Detection, Detector, Embedder, EmotionClassifier, Error, Failure,
        Image, Landmarker, Point, Rect, Result, Size, Writer, context, control, failed, invalid_input, log, logging,
        unavailable,
    };
}

/// For the code that [`task`] writes; not for authors.
#[doc(hidden)]
pub mod __private {
    pub use crate::bindings;
    pub use crate::error::Error;
    pub use wit_bindgen;

    /// What happens around the author's function.
    pub fn run<I, O>(task: fn(I) -> Result<O, Error>, input: I) -> Result<O, crate::TaskError> {
        crate::panics::install();
        crate::logger::install();
        task(input).map_err(crate::TaskError::from)
    }
}
