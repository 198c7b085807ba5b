//! The object with the owner of the blobs: it is written once, on servers with and without conditional writes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use dovetail_core::Digest;
use dovetail_core::blobs::{BlobKind, Blobs as _, StoreErrorKind};
use dovetail_core::conformance;
use dovetail_core::retention::Owned as _;
use dovetail_stores::S3Blobs;

use crate::fake::{Fake, Reply, Seen};
use crate::{hidden, shown};

/// A bucket in memory.
fn bucket(conditional: bool) -> Fake {
    let objects: Mutex<BTreeMap<String, Vec<u8>>> = Mutex::default();
    Fake::start(move |_, seen: &Seen| {
        let mut objects = objects.lock().unwrap();
        let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
        let key = path.strip_prefix("/blobs/").unwrap_or_default();
        let if_new = seen.headers.contains("if-none-match: *");
        match seen.method.as_str() {
            "PUT" if if_new && !conditional => Reply::error(501, "NotImplemented"),
            "PUT" if if_new && objects.contains_key(key) => Reply::error(412, "PreconditionFailed"),
            "PUT" => {
                objects.insert(key.to_owned(), seen.body.clone());
                Reply::of(200, b"")
            }
            "GET" if key.is_empty() => {
                let prefix = query.split('&').find_map(|one| one.strip_prefix("prefix=")).unwrap_or_default();
                let prefix = prefix.replace("%2F", "/");
                let listed: String = objects
                    .iter()
                    .filter(|(key, _)| key.starts_with(&prefix))
                    .map(|(key, body)| format!("<Contents><Key>{key}</Key><Size>{}</Size></Contents>", body.len()))
                    .collect();
                Reply::of(200, format!("<ListBucketResult>{listed}</ListBucketResult>").as_bytes())
            }
            "GET" => objects.get(key).map_or_else(|| Reply::error(404, "NoSuchKey"), |body| Reply::of(200, body)),
            "DELETE" => {
                objects.remove(key);
                Reply::of(204, b"")
            }
            _ => Reply::error(405, "MethodNotAllowed"),
        }
    })
}

#[test]
fn one_of_several_becomes_the_owner() {
    std::thread::scope(|threads| {
        for conditional in [true, false] {
            threads.spawn(move || {
                let fake = bucket(conditional);
                let new = || S3Blobs::open(&fake.url(""), hidden()).unwrap();
                let put = || assert_eq!(new().put(BlobKind::Log, b"x").unwrap(), Digest::of(b"x"));
                // Without conditional writes only callers within a second of each other get the same owner, and a busy
                // machine may delay a thread for longer. The test below has two such callers.
                let owner = conformance::owned(&|| Arc::new(new()), &put, if conditional { 8 } else { 1 });
                let wrote = |seen: &&Seen| seen.method == "PUT" && seen.path == "/blobs/pre/owner";
                let seen = fake.seen();
                assert!(seen.iter().find(wrote).unwrap().headers.contains("if-none-match: *"));
                assert!(seen.iter().filter(wrote).any(|seen| seen.body == format!("{owner}\n").as_bytes()));
            });
        }
    });
}

/// If two writes come at once, the server keeps the last one. Both writers read the object again after a while, and one
/// gives way.
#[test]
fn without_conditional_writes_the_note_is_read_back() {
    let reads = Mutex::new(0);
    let fake = Fake::start(move |_, seen| match seen.method.as_str() {
        "PUT" if seen.headers.contains("if-none-match") => Reply::error(501, "NotImplemented"),
        "PUT" => Reply::of(200, b""),
        _ => {
            let mut reads = reads.lock().unwrap();
            *reads += 1;
            // The object is missing at first; then another process writes after us.
            if *reads == 1 { Reply::error(404, "NoSuchKey") } else { Reply::of(200, b"others\n") }
        }
    });
    let blobs = S3Blobs::open(&fake.url(""), hidden()).unwrap();
    assert_eq!(blobs.own("mine").unwrap(), "others");
    assert_eq!(fake.methods(), "GET PUT PUT GET");
}

#[test]
fn a_note_that_is_none_is_not_overwritten() {
    let fake = Fake::start(|_, _| Reply::of(200, b"\xff\xfe"));
    let blobs = S3Blobs::open(&fake.url(""), hidden()).unwrap();
    let error = blobs.own("mine").unwrap_err();
    assert_eq!((error.kind, fake.methods().as_str()), (StoreErrorKind::Corrupt, "GET"));
    let text = shown(&error);
    assert!(text.contains("s3://blobs/pre/ at") && text.contains("remove it"), "{text}");
}

#[test]
fn a_note_that_cannot_be_read_is_nobodys_note() {
    let fake = Fake::start(|_, _| Reply::error(403, "AccessDenied"));
    let blobs = S3Blobs::open(&fake.url(""), hidden()).unwrap();
    assert_eq!(blobs.own("mine").unwrap_err().kind, StoreErrorKind::Refused);
    assert!(!fake.methods().contains("PUT"), "{}", fake.methods());
}
