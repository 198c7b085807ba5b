//! Plugins: checking, packing and publishing; and trying a single task.

mod allowed;
mod folder;
mod freshness;
mod inspect;
mod overlay;
mod publish;
mod try_out;

pub use allowed::asked;
pub use dovetail_core::wit::show::signature as show_signature;
pub use dovetail_runtime::{GrantClass, MAX_PACKAGE, Package, Refusal};
pub use folder::Stale;
pub use inspect::AcceptedPlugin;
pub use publish::{plugin_record, stripped};
pub use try_out::{Attempted, TaskToTry, Trial};
