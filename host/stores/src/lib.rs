//! The backends behind the ports of dovetail-core. This is the only crate that names a database.
//!
//! So far: the embedded one, SQLite and files in one data folder, with nothing to install. It remembers and decides nothing.

mod cached;
mod embedded;
#[cfg(feature = "mongodb")]
mod mongo;
#[cfg(feature = "redis")]
mod redis;
mod s3;

pub use crate::s3::{Credentials, S3Blobs, S3Check};
pub use cached::CachedBlobs;
pub use embedded::files::FileBlobs;
pub use embedded::sqlite::SqliteLedger;
#[cfg(feature = "mongodb")]
pub use mongo::MongoMeta;
#[cfg(feature = "redis")]
pub use redis::RedisWindow;
