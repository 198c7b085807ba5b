//! Content-addressed bytes in a bucket of an S3 server: `PREFIX/KIND/sha256/HEX`, the same names as in the embedded
//! folder.
//!
//! Blocking, like every port (docs/decisions/0001): the backend owns the async runtime that its HTTP client needs. Not
//! to be called from inside another runtime. It makes no bucket, and removes nothing but what `check` wrote and what
//! `RemovableBlobs::remove` is told to.

mod credentials;

pub use credentials::Credentials;

#[cfg(not(feature = "s3"))]
mod absent;
#[cfg(not(feature = "s3"))]
pub use absent::S3Blobs;

#[cfg(feature = "s3")]
mod address;
#[cfg(feature = "s3")]
mod answer;
#[cfg(feature = "s3")]
mod blobs;
#[cfg(feature = "s3")]
mod request;
#[cfg(feature = "s3")]
pub use blobs::S3Blobs;

/// What [`S3Blobs::check`] saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Check {
    /// Bucket, prefix and server.
    pub address: String,
    /// How the server names itself.
    pub server: Option<String>,
    /// The server's clock minus ours in milliseconds, to half a second. Signatures are refused beyond 15 minutes.
    pub clock_ahead_ms: Option<i64>,
    /// Reading a few bytes.
    pub round_trip: std::time::Duration,
    /// Whether blobs and signatures go over a network unencrypted.
    pub unencrypted: bool,
}
