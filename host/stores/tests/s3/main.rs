//! The S3 backend: on a real server (`real`), and on one that gives wrong answers, breaks off or stays silent
//! (`faults`).

#![cfg_attr(feature = "s3", expect(clippy::unwrap_used, reason = "a failing test panics"))]

#[cfg(feature = "s3")]
mod fake;
#[cfg(feature = "s3")]
mod faults;
#[cfg(feature = "s3")]
mod owner;
#[cfg(feature = "s3")]
mod real;
#[cfg(feature = "s3")]
mod tls;
#[cfg(feature = "s3")]
#[path = "../../../../tests/shared/tls.rs"]
mod tls_server;

#[cfg(feature = "s3")]
use dovetail_core::blobs::StoreError;
use dovetail_stores::Credentials;

/// Credentials with parts that are easy to find in any text.
fn hidden() -> Option<Credentials> {
    Some(Credentials::new("ACCESS", "HIDDENSECRET"))
}

/// The text of an error in all its forms.
#[cfg(feature = "s3")]
fn shown(error: &StoreError) -> String {
    let mut text = format!("{error}\n{error:?}\n");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!("{error}\n{error:?}\n"));
        cause = error.source();
    }
    text
}

#[cfg(not(feature = "s3"))]
#[test]
fn without_the_feature_opening_says_so() {
    println!("the tests of the S3 backend DID NOT RUN: they need `--features s3`");
    let error = dovetail_stores::S3Blobs::open("s3://HIDDEN:HIDDEN@blobs", hidden()).unwrap_err();
    assert_eq!(error.kind, dovetail_core::blobs::StoreErrorKind::Invalid);
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("without the `s3` feature"));
    assert!(!format!("{error:?}").contains("HIDDEN"));
}
