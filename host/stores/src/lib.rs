//! The backends behind the ports of dovetail-core. This is the only crate that names a database.
//!
//! Embedded: SQLite and files in one data folder, without any installation. For a fleet, behind features: Redis,
//! MongoDB and S3. The backends store; they decide nothing.

mod cached;
mod check;
mod embedded;
mod folders;
#[cfg(feature = "mongodb")]
mod mongo;
mod open;
#[cfg(feature = "redis")]
mod redis;
mod s3;

pub use crate::s3::{Credentials, S3Blobs, S3Check};
pub use cached::CachedBlobs;
pub use check::{ServerIssue, ServerReport, check_blobs, check_meta, check_window};
pub use embedded::files::FileBlobs;
pub use embedded::sqlite::SqliteLedger;
pub use folders::make_folder;
#[cfg(feature = "mongodb")]
pub use mongo::MongoMeta;
pub use open::{open_archive, open_blobs, open_blobs_to_write, open_meta, open_removable_blobs, open_window};
#[cfg(feature = "redis")]
pub use redis::RedisWindow;
