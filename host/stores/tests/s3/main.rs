//! The S3 backend: on a real server (`real`), and against one that lies, breaks off or stays silent (`faults`).

#![cfg(feature = "s3")]
#![expect(clippy::unwrap_used, reason = "a failing test panics")]

mod fake;
mod faults;
mod real;
mod tls;

use dovetail_core::blobs::StoreError;
use dovetail_stores::Credentials;

/// Credentials whose parts are easy to find where they must not be.
fn hidden() -> Option<Credentials> {
    Some(Credentials::new("HIDDENACCESS", "HIDDENSECRET"))
}

/// Everything that an error says, in every form.
fn shown(error: &StoreError) -> String {
    let mut text = format!("{error}\n{error:?}\n");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!("{error}\n{error:?}\n"));
        cause = error.source();
    }
    text
}
