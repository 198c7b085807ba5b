//! Tests on the server in DOVETAIL_TEST_S3 (`./justw servers start`), each under a prefix of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use dovetail_core::Digest;
use dovetail_core::blobs::{BlobKind, Blobs, StoreErrorKind};
use dovetail_core::clock::Clock;
use dovetail_core::conformance;
use dovetail_core::retention::Owned as _;
use dovetail_stores::{CachedBlobs, Credentials, S3Blobs};

use crate::shown;

const KIND: BlobKind = BlobKind::Artifact;

/// The server's URL and the keys from the environment. `None` if there is no server: the test prints that, and fails if
/// servers are required.
#[expect(clippy::print_stdout, reason = "the test prints that it did not run")]
fn server(test: &str) -> Option<(String, Option<Credentials>)> {
    let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(url) = given("DOVETAIL_TEST_S3") {
        return Some((url, Credentials::from_env().unwrap()));
    }
    let promised = given("DOVETAIL_TEST_SERVERS").as_deref() == Some("1");
    assert!(
        !promised,
        "DOVETAIL_TEST_S3 is not set: run `./justw servers start` and `eval \"$(scripts/servers urls)\"`"
    );
    println!(
        "{test} DID NOT RUN: it needs an S3 server (`./justw servers start`, then `eval \"$(scripts/servers urls)\"`)"
    );
    None
}

/// `url` with a prefix that no other test uses, and with more parameters.
fn own(url: &str, more: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    let name = format!("test-{since}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    format!("{}/{name}?{query}{more}", base.trim_end_matches('/'))
}

/// The server for a test. Ends the test if there is none.
macro_rules! server_or_return {
    ($test:literal) => {
        match server($test) {
            Some(server) => server,
            None => return,
        }
    };
}

struct Offset(i64);

impl Clock for Offset {
    fn wall_ms(&self) -> u64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
        u64::try_from(now).unwrap().saturating_add_signed(self.0)
    }

    fn mono_us(&self) -> u64 {
        self.wall_ms()
    }
}

#[test]
fn a_real_server_keeps_the_promises() {
    let (url, keys) = server_or_return!("a_real_server_keeps_the_promises");
    conformance::blobs(&|| Arc::new(S3Blobs::open(&own(&url, ""), keys.clone()).unwrap()));
    let bucket = S3Blobs::open(&own(&url, ""), keys.clone()).unwrap();
    conformance::removable_blobs(&bucket, &bucket);
    let place = own(&url, "");
    let new = || Arc::new(S3Blobs::open(&place, keys.clone()).unwrap());
    conformance::owned(&|| new(), &|| assert_eq!(new().put(KIND, b"x").unwrap(), Digest::of(b"x")), 8);
    new().forget_everything().unwrap();
    assert!(new().is_empty().unwrap() && new().owner().unwrap().is_none(), "nothing is left");
}

#[test]
fn a_real_server_behind_a_cache_keeps_the_promises() {
    let (url, keys) = server_or_return!("a_real_server_behind_a_cache_keeps_the_promises");
    let folder = tempfile::tempdir().unwrap();
    conformance::blobs(&|| {
        let far = Arc::new(S3Blobs::open(&own(&url, ""), keys.clone()).unwrap());
        Arc::new(CachedBlobs::open(folder.path(), far, 1 << 20).unwrap())
    });
}

#[test]
fn what_one_process_writes_another_reads() {
    let (url, keys) = server_or_return!("what_one_process_writes_another_reads");
    let url = own(&url, "");
    let writer = S3Blobs::open(&url, keys.clone()).unwrap();
    // Several times the size of one packet or one buffer.
    let large: Vec<u8> = (0..8 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let digest = writer.put(BlobKind::Model, &large).unwrap();
    assert_eq!(writer.put(BlobKind::Model, &large).unwrap(), digest, "again");
    drop(writer);
    let reader = S3Blobs::open(&url, keys).unwrap();
    assert_eq!(reader.size(BlobKind::Model, &digest).unwrap(), Some(8 << 20));
    assert!(reader.get(BlobKind::Model, &digest, 8 << 20).unwrap() == large);
    assert_eq!(reader.get(BlobKind::Model, &digest, (8 << 20) - 1).unwrap_err().kind, StoreErrorKind::Refused);
}

/// Direct access to the objects, without the backend.
fn behind(url: &str, keys: Option<Credentials>) -> (tokio::runtime::Runtime, Box<s3::Bucket>, String) {
    assert!(keys.is_some(), "this test needs the keys in DOVETAIL_S3_ACCESS_KEY and DOVETAIL_S3_SECRET_KEY");
    let key = |name| std::env::var(name).unwrap();
    let credentials = s3::creds::Credentials::new(
        Some(&key("DOVETAIL_S3_ACCESS_KEY")),
        Some(&key("DOVETAIL_S3_SECRET_KEY")),
        None,
        None,
        None,
    )
    .unwrap();
    let rest = url.strip_prefix("s3://").unwrap();
    let (path, query) = rest.split_once('?').unwrap();
    let (bucket, prefix) = path.split_once('/').unwrap();
    let endpoint = query.split('&').find_map(|pair| pair.strip_prefix("endpoint=")).unwrap();
    let region = s3::Region::Custom { region: "us-east-1".into(), endpoint: endpoint.into() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    (runtime, s3::Bucket::new(bucket, region, credentials).unwrap().with_path_style(), prefix.to_owned())
}

#[test]
fn an_object_that_somebody_overwrote_is_corrupt() {
    let (url, keys) = server_or_return!("an_object_that_somebody_overwrote_is_corrupt");
    let url = own(&url, "");
    let blobs = S3Blobs::open(&url, keys.clone()).unwrap();
    let (runtime, bucket, prefix) = behind(&url, keys);
    let overwrite = |digest: &Digest, bytes: &[u8]| {
        let key = format!("{prefix}/artifacts/sha256/{}", digest.hex());
        assert_eq!(runtime.block_on(bucket.put_object(key, bytes)).unwrap().status_code(), 200);
    };
    let digest = blobs.put(KIND, b"weights").unwrap();
    overwrite(&digest, b"weighty");
    let error = blobs.get(KIND, &digest, 100).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Corrupt);
    assert!(shown(&error).contains(&digest.to_string()), "{}", shown(&error));
    // Another write repairs a large object that was cut off.
    let large = vec![7; 200_000];
    let digest = blobs.put(KIND, &large).unwrap();
    overwrite(&digest, &large[..100_000]);
    assert_eq!(blobs.get(KIND, &digest, 1 << 20).unwrap_err().kind, StoreErrorKind::Corrupt);
    blobs.put(KIND, &large).unwrap();
    assert!(blobs.get(KIND, &digest, 1 << 20).unwrap() == large);
}

#[test]
fn a_package_that_somebody_overwrote_is_noticed_behind_a_cache_and_stored_again() {
    let (url, keys) = server_or_return!("a_package_that_somebody_overwrote_is_noticed_behind_a_cache_and_stored_again");
    let (url, folder) = (own(&url, ""), tempfile::tempdir().unwrap());
    let far = Arc::new(S3Blobs::open(&url, keys.clone()).unwrap());
    let blobs = CachedBlobs::open(folder.path(), far.clone(), 1 << 20).unwrap();
    let (runtime, bucket, prefix) = behind(&url, keys);
    let overwrite = |digest: &Digest, bytes: &[u8]| {
        let key = format!("{prefix}/packages/sha256/{}", digest.hex());
        assert_eq!(runtime.block_on(bucket.put_object(key, bytes)).unwrap().status_code(), 200);
    };
    let whole = |digest: &Digest| blobs.is_whole(BlobKind::Package, digest, 1 << 20).unwrap();
    // Lengths below and above the size from which `put` looks for the blob first. The damaged content has the same
    // length, or is longer or shorter.
    for length in [100, 100_000] {
        let content = vec![7; length];
        assert_eq!(whole(&Digest::of(&content)), None);
        let digest = blobs.put(BlobKind::Package, &content).unwrap();
        assert_eq!(whole(&digest), Some(true));
        for damaged in [vec![8; length], vec![7; length + 1], vec![7; length - 1]] {
            overwrite(&digest, &damaged);
            assert_eq!(whole(&digest), Some(false), "the cached copy does not count as stored");
            blobs.put(BlobKind::Package, &content).unwrap();
            assert_eq!(whole(&digest), Some(true), "{} bytes were left as they were", damaged.len());
            assert!(far.get(BlobKind::Package, &digest, 1 << 20).unwrap() == content);
        }
    }
}

#[test]
fn wrong_keys_are_refused_and_not_repeated() {
    let (url, keys) = server_or_return!("wrong_keys_are_refused_and_not_repeated");
    assert!(keys.is_some(), "this test needs the keys in the environment, not in the URL");
    let right = std::env::var("DOVETAIL_S3_ACCESS_KEY").unwrap();
    for wrong in [Credentials::new("ACCESS", "HIDDENSECRET"), Credentials::new(right, "HIDDENSECRET")] {
        let blobs = S3Blobs::open(&own(&url, ""), Some(wrong)).unwrap();
        let digest = Digest::of(b"x");
        for error in [
            blobs.put(KIND, b"x").unwrap_err(),
            blobs.put(KIND, &[1; 100_000]).unwrap_err(),
            blobs.get(KIND, &digest, 1).unwrap_err(),
            blobs.size(KIND, &digest).unwrap_err(),
            blobs.check(&Offset(0)).unwrap_err(),
        ] {
            assert_eq!(error.kind, StoreErrorKind::Refused, "{}", shown(&error));
            let text = shown(&error);
            assert!(text.contains("does not accept the access key") && !text.contains("HIDDEN"), "{text}");
        }
    }
}

#[test]
fn keys_from_a_file_and_from_the_url_work() {
    let (url, keys) = server_or_return!("keys_from_a_file_and_from_the_url_work");
    assert!(keys.is_some(), "this test needs the keys in the environment, not in the URL");
    let (access, secret) =
        (std::env::var("DOVETAIL_S3_ACCESS_KEY").unwrap(), std::env::var("DOVETAIL_S3_SECRET_KEY").unwrap());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("access_key={access}\nsecret_key={secret}\n")).unwrap();
    let wrong = || Some(Credentials::new("wrong", "wrong"));
    let by_file = S3Blobs::open(&own(&url, &format!("&credentials={}", file.path().display())), wrong()).unwrap();
    by_file.put(KIND, b"x").unwrap();
    let by_url = own(&url, "").replacen("s3://", &format!("s3://{access}:{secret}@"), 1);
    let by_url = S3Blobs::open(&by_url, wrong()).unwrap();
    by_url.put(KIND, b"x").unwrap();
    assert!(!format!("{by_url:?}").contains(&secret));
}

#[test]
fn a_bucket_that_does_not_exist_is_named() {
    let (url, keys) = server_or_return!("a_bucket_that_does_not_exist_is_named");
    let (_, query) = url.split_once('?').unwrap();
    let blobs = S3Blobs::open(&format!("s3://no-such-bucket?{query}"), keys).unwrap();
    let digest = Digest::of(b"x");
    for error in [
        blobs.size(KIND, &digest).unwrap_err(),
        blobs.put(KIND, b"x").unwrap_err(),
        blobs.put(KIND, &[1; 100_000]).unwrap_err(),
        blobs.get(KIND, &digest, 1).unwrap_err(),
        blobs.check(&Offset(0)).unwrap_err(),
    ] {
        assert_eq!(error.kind, StoreErrorKind::Refused, "not missing: {}", shown(&error));
        assert!(shown(&error).contains("no bucket `no-such-bucket`"), "{}", shown(&error));
    }
}

#[test]
fn the_check_sees_the_server_and_its_clock() {
    let (url, keys) = server_or_return!("the_check_sees_the_server_and_its_clock");
    let blobs = S3Blobs::open(&own(&url, ""), keys).unwrap();
    let seen = blobs.check(&Offset(0)).unwrap();
    assert!(seen.server.is_some() && seen.round_trip < Duration::from_secs(5), "{seen:?}");
    assert!(seen.clock_ahead_ms.unwrap().abs() < 60_000, "{seen:?}");
    // Our clock is an hour ahead, so the server's seems an hour behind.
    let skewed = blobs.check(&Offset(3_600_000)).unwrap().clock_ahead_ms.unwrap();
    assert!((skewed - seen.clock_ahead_ms.unwrap() + 3_600_000).abs() < 5_000, "{skewed}");
}

#[test]
fn many_threads_share_one_backend() {
    let (url, keys) = server_or_return!("many_threads_share_one_backend");
    let blobs = S3Blobs::open(&own(&url, ""), keys).unwrap();
    std::thread::scope(|s| {
        for thread in 0..8_u32 {
            let blobs = &blobs;
            s.spawn(move || {
                for n in 0..20_u32 {
                    let bytes = [thread.to_be_bytes(), n.to_be_bytes()].concat().repeat(1000);
                    let digest = blobs.put(KIND, &bytes).unwrap();
                    assert!(blobs.get(KIND, &digest, 8000).unwrap() == bytes);
                }
            });
        }
    });
}
