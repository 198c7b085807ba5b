//! Models: their description ([`Manifest`]), their folder ([`ModelStore`]), and their import (this code converts
//! tensorflow.js weights to ONNX).
//!
//! Nothing here runs a network. Everything except the check of a user's model compiles without OpenCV.

mod default;
mod folders;
mod graph;
mod import;
#[cfg(feature = "opencv")]
mod listed;
pub mod manifest;
mod networks;
mod protobuf;
mod store;
#[cfg(all(test, feature = "opencv"))]
mod user_models;
mod weights;

pub use default::{default_model, default_models};
pub use import::{FACE_API_PACKAGE, HAAR_FOLDER};
#[cfg(feature = "opencv")]
pub(crate) use listed::ModelListCache;
pub use manifest::Manifest;
pub use store::{Installed, ModelError, ModelStore, OwnModel, UnreadModel, try_model};
pub use weights::WeightsError;
