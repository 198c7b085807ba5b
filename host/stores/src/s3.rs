//! Content-addressed bytes in a bucket of an S3 server: `PREFIX/KIND/sha256/HEX`, with the same names as in the
//! embedded folder.
//!
//! The backend blocks, like every port (docs/decisions/0001), and owns the async runtime that its HTTP client needs. It
//! must not be called from inside another runtime. It makes no bucket. It removes only the probe of `check` and the
//! blobs that `RemovableBlobs::remove` names.

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

/// The result of [`S3Blobs::check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Check {
    /// Bucket, prefix and server.
    pub address: String,
    /// The server's name for itself.
    pub server: Option<String>,
    /// The server's clock minus ours in milliseconds, to half a second. Signatures are refused beyond 15 minutes.
    pub clock_ahead_ms: Option<i64>,
    /// The time that it takes to read a few bytes.
    pub round_trip: std::time::Duration,
    /// Whether blobs and signatures cross a network unencrypted.
    pub unencrypted: bool,
}
