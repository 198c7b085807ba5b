//! The faults and refusals of a server, each with the reaction that the port promises.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use dovetail_core::Digest;
use dovetail_core::blobs::{BlobKind, Blobs as _, StoreErrorKind};
use dovetail_core::retention::{RemovableBlobs as _, YOUNG};
use dovetail_stores::S3Blobs;

use crate::fake::{Fake, Reply};
use crate::{hidden, shown};

const KIND: BlobKind = BlobKind::Model;

fn open(fake: &Fake, more: &str) -> S3Blobs {
    S3Blobs::open(&fake.url(more), hidden()).unwrap()
}

#[test]
fn requests_name_the_blob_and_are_signed() {
    let fake = Fake::start(|_, _| Reply::of(200, b""));
    let blobs = open(&fake, "&region=eu-7");
    let digest = blobs.put(KIND, b"weights").unwrap();
    let seen = &fake.seen()[0];
    assert_eq!((seen.method.as_str(), &seen.path), ("PUT", &format!("/blobs/pre/models/sha256/{}", digest.hex())));
    assert_eq!(seen.body, b"weights");
    assert!(
        seen.headers.contains("authorization: aws4-hmac-sha256 credential=access/")
            && seen.headers.contains("/eu-7/s3/")
    );
    assert!(
        seen.headers.contains(&format!("x-amz-content-sha256: {}", digest.hex())),
        "the server can check the content"
    );
    assert!(seen.headers.contains("if-none-match: *"));
    assert!(!format!("{seen:?}").contains("HIDDENSECRET"));
}

#[test]
fn an_answer_that_breaks_off_is_asked_for_again() {
    let fake = Fake::start(|n, _| if n < 2 { Reply::cut(10, b"01234") } else { Reply::of(200, b"0123456789") });
    let digest = Digest::of(b"0123456789");
    assert_eq!(open(&fake, "").get(KIND, &digest, 10).unwrap(), b"0123456789");
    assert_eq!(fake.methods(), "GET GET GET");
}

#[test]
fn an_answer_that_always_breaks_off_is_unavailable_after_the_retries() {
    let fake = Fake::start(|_, _| Reply::cut(10, b"01234"));
    let error = open(&fake, "&retries=2").get(KIND, &Digest::of(b"x"), 10).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unavailable);
    let text = shown(&error);
    assert!(text.contains("broke off after 5 bytes of 10") && text.contains("gave up after 3 attempts"), "{text}");
    assert_eq!(fake.methods(), "GET GET GET");
    let fake = Fake::start(|_, _| Reply::cut(10, b"01234"));
    open(&fake, "&retries=0").get(KIND, &Digest::of(b"x"), 10).unwrap_err();
    assert_eq!(fake.methods(), "GET");
}

#[test]
fn a_wrong_digest_is_read_twice_and_then_corrupt() {
    // Without a length, a broken connection looks like the end of the answer.
    let cut = || Reply::Raw(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n01234".to_vec());
    let fake = Fake::start(move |_, _| cut());
    let error = open(&fake, "").get(KIND, &Digest::of(b"0123456789"), 10).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Corrupt);
    assert!(shown(&error).contains("another digest"));
    assert_eq!(fake.methods(), "GET GET");

    let fake = Fake::start(move |n, _| if n == 0 { cut() } else { Reply::of(200, b"0123456789") });
    assert_eq!(
        open(&fake, "").get(KIND, &Digest::of(b"0123456789"), 10).unwrap(),
        b"0123456789",
        "it was damaged on its way"
    );
}

#[test]
fn more_than_is_allowed_is_refused_whether_it_is_announced_or_not() {
    let fake =
        Fake::start(|_, _| Reply::Stall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n0123456789".to_vec()));
    let error = open(&fake, "").get(KIND, &Digest::of(b"x"), 10).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Refused);
    assert!(shown(&error).contains("it has 99999999999 bytes, at most 10 are allowed"));

    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n01234567890\r\n";
    let fake = Fake::start(|_, _| Reply::Stall(chunked.to_vec()));
    let error = open(&fake, "").get(KIND, &Digest::of(b"x"), 10).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Refused);
    assert!(shown(&error).contains("more than 10 bytes, at most 10 are allowed"));
    assert_eq!(fake.methods(), "GET", "it would be no less the next time");
}

#[test]
fn a_server_that_stays_silent_is_given_up_within_the_timeout() {
    let stalls: [fn() -> Reply; 2] =
        [|| Reply::Stall(vec![]), || Reply::Stall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234".to_vec())];
    for stall in stalls {
        let fake = Fake::start(move |_, _| stall());
        let blobs = open(&fake, "&timeout=900ms");
        let started = Instant::now();
        let error = blobs.get(KIND, &Digest::of(b"x"), 10).unwrap_err();
        let took = started.elapsed();
        assert_eq!(error.kind, StoreErrorKind::Unavailable);
        assert!(took >= Duration::from_millis(300) && took < Duration::from_millis(1500), "{took:?}");
        assert!(fake.seen().len() >= 2, "one attempt does not take all the time");
    }
}

/// The machine of a server vanishes silently, before its answer or in the middle of it. The client must not wait for as
/// long as the whole call may take.
#[test]
fn a_connection_that_says_nothing_more_is_made_anew_within_ten_seconds() {
    let stalls: [fn() -> Reply; 2] =
        [|| Reply::Stall(vec![]), || Reply::Stall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234".to_vec())];
    std::thread::scope(|threads| {
        for stall in stalls {
            threads.spawn(move || {
                let fake = Fake::start(move |n, _| if n == 0 { stall() } else { Reply::of(200, b"0123456789") });
                let started = Instant::now();
                assert_eq!(open(&fake, "").get(KIND, &Digest::of(b"0123456789"), 10).unwrap(), b"0123456789");
                assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
                assert_eq!(fake.methods(), "GET GET");
            });
        }
    });
}

#[test]
fn a_server_that_is_slow_once_does_not_fail_the_call() {
    let fake = Fake::start(|n, _| if n == 0 { Reply::Stall(vec![]) } else { Reply::of(200, b"x") });
    assert_eq!(open(&fake, "&timeout=3s").get(KIND, &Digest::of(b"x"), 10).unwrap(), b"x");
}

#[test]
fn what_passes_is_tried_again_and_what_stays_is_not() {
    for (status, code) in
        [(500, "InternalError"), (503, "SlowDown"), (429, "TooManyRequests"), (502, ""), (400, "BadDigest")]
    {
        let fake = Fake::start(move |n, _| if n < 2 { Reply::error(status, code) } else { Reply::of(200, b"") });
        open(&fake, "").put(KIND, b"x").unwrap();
        assert_eq!(fake.methods(), "PUT PUT PUT", "{status} {code}");
    }
    for (status, code, says) in [
        (403, "AccessDenied", "access denied"),
        (403, "SignatureDoesNotMatch", "does not accept the access key"),
        (403, "RequestTimeTooSkewed", "clock"),
        (404, "NoSuchBucket", "no bucket `blobs`"),
        (400, "InvalidRequest", "InvalidRequest"),
        (507, "XMinioStorageFull", "full"),
    ] {
        let fake = Fake::start(move |_, _| Reply::error(status, code));
        let error = open(&fake, "").put(KIND, b"x").unwrap_err();
        let kind = if says == "full" { StoreErrorKind::Full } else { StoreErrorKind::Refused };
        assert_eq!(error.kind, kind, "{status} {code}");
        assert!(shown(&error).contains(says), "{}", shown(&error));
        assert_eq!(fake.methods(), "PUT", "{status} {code}");
    }
}

#[test]
fn nobody_listening_is_unavailable_soon() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let blobs = S3Blobs::open(&format!("s3://blobs?endpoint=http://{free}"), hidden()).unwrap();
    let started = Instant::now();
    for error in [blobs.put(KIND, b"x").unwrap_err(), blobs.size(KIND, &Digest::of(b"x")).unwrap_err()] {
        assert_eq!(error.kind, StoreErrorKind::Unavailable);
        let text = shown(&error);
        assert!(text.contains("cannot connect: Connection refused") && text.contains(&free.to_string()), "{text}");
        assert!(text.contains("gave up after 4 attempts"), "{text}");
    }
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_server_that_comes_back_is_found_again() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let blobs = S3Blobs::open(&format!("s3://blobs?endpoint=http://{free}&retries=10"), hidden()).unwrap();
    std::thread::scope(|s| {
        let asks = s.spawn(|| blobs.get(KIND, &Digest::of(b"x"), 1));
        std::thread::sleep(Duration::from_millis(300));
        let fake = Fake::on(TcpListener::bind(free).unwrap(), |_, _| Reply::of(200, b"x"));
        assert_eq!(asks.join().unwrap().unwrap(), b"x");
        assert_eq!(fake.methods(), "GET");
    });
}

#[test]
fn a_connection_that_is_not_made_is_given_up() {
    // A listener whose queue is full drops connections: it neither accepts nor refuses them.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    while held.len() < 10_000 {
        match std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            Ok(stream) => held.push(stream),
            Err(_) => break,
        }
    }
    let url = format!("s3://blobs?endpoint=http://{address}&connect_timeout=200ms&retries=1");
    let started = Instant::now();
    let error = S3Blobs::open(&url, hidden()).unwrap().get(KIND, &Digest::of(b"x"), 1).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unavailable);
    assert!(shown(&error).contains("cannot connect within 0.2 s"), "{}", shown(&error));
    assert!(started.elapsed() < Duration::from_secs(2));
}

/// The answer to a `HEAD` of an object that was stored an hour and a half ago, or just now.
fn head(old: bool) -> Reply {
    let stored = if old { "Thu, 01 Jan 2026 10:30:00 GMT" } else { "Thu, 01 Jan 2026 11:59:59 GMT" };
    Reply::with(200, &[("Last-Modified", stored), ("Date", "Thu, 01 Jan 2026 12:00:00 GMT")], b"")
}

#[test]
fn a_small_blob_is_one_request_and_one_that_is_there_is_kept() {
    let fake = Fake::start(|n, _| {
        if n == 0 {
            Reply::of(200, b"")
        } else if n == 1 {
            Reply::error(412, "PreconditionFailed")
        } else {
            head(false)
        }
    });
    let blobs = open(&fake, "");
    blobs.put(KIND, b"weights").unwrap();
    blobs.put(KIND, b"weights").unwrap();
    assert_eq!(fake.methods(), "PUT PUT HEAD");
}

#[test]
fn an_old_blob_that_is_stored_again_is_new_again() {
    let fake = Fake::start(|n, _| match n {
        0 => Reply::error(412, "PreconditionFailed"),
        1 => head(true),
        _ => Reply::of(200, b""),
    });
    open(&fake, "").put(KIND, b"weights").unwrap();
    assert_eq!(fake.methods(), "PUT HEAD PUT");
    assert!(fake.seen()[0].headers.contains("if-none-match") && !fake.seen()[2].headers.contains("if-none-match"));
}

#[test]
fn what_is_young_is_not_removed() {
    let digest = Digest::of(b"weights");
    let young = Fake::start(|_, _| head(false));
    assert!(!open(&young, "").remove(KIND, &digest, YOUNG).unwrap());
    assert_eq!(young.methods(), "HEAD");
    let old = Fake::start(|n, _| if n == 0 { head(true) } else { Reply::of(204, b"") });
    assert!(open(&old, "").remove(KIND, &digest, YOUNG).unwrap());
    assert_eq!(old.methods(), "HEAD DELETE");
    // If a server does not tell the age of a blob, the blob is not removed.
    let silent = Fake::start(|_, _| Reply::of(200, b""));
    assert!(!open(&silent, "").remove(KIND, &digest, YOUNG).unwrap());
}

#[test]
fn a_listing_is_read_page_by_page() {
    let mut digests = [0_u8, 1, 2].map(|n| Digest::of(&[n]));
    digests.sort();
    let listed = digests;
    let page = move |names: &[String], more| {
        let objects: String = names
            .iter()
            .map(|name| format!("<Contents><Key>pre/models/sha256/{name}</Key><Size>5</Size></Contents>"))
            .collect();
        Reply::of(
            200,
            format!("<ListBucketResult><IsTruncated>{more}</IsTruncated>{objects}</ListBucketResult>").as_bytes(),
        )
    };
    let fake = Fake::start(move |n, _| match n {
        0 => page(&[listed[0].hex(), listed[1].hex(), "README".to_owned()], true),
        _ => page(&[listed[2].hex()], false),
    });
    let mut found = Vec::new();
    let told = &mut |digest, bytes| {
        found.push((digest, bytes));
        Ok(())
    };
    open(&fake, "").walk(KIND, told).unwrap();
    assert_eq!(found, digests.map(|digest| (digest, 5)), "foreign objects are skipped");
    assert_eq!(fake.seen().len(), 2, "each page is asked for once");
    assert!(fake.seen()[1].path.contains("start-after=pre%2Fmodels%2Fsha256%2FREADME"), "{}", fake.seen()[1].path);
}

#[test]
fn a_server_without_conditional_writes_is_asked_once_whether_it_has_them() {
    let fake = Fake::start(|_, seen| {
        if seen.headers.contains("if-none-match") { Reply::error(501, "NotImplemented") } else { Reply::of(200, b"") }
    });
    let blobs = open(&fake, "");
    blobs.put(KIND, b"x").unwrap();
    blobs.put(KIND, b"y").unwrap();
    assert_eq!(fake.methods(), "PUT PUT PUT");
}

#[test]
fn a_large_blob_is_looked_for_before_it_is_sent() {
    let large = vec![7; 100_000];
    let there = |length: usize| {
        Reply::Raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n").into_bytes())
    };
    let fake = Fake::start(move |_, _| there(100_000));
    open(&fake, "").put(KIND, &large).unwrap();
    assert_eq!(fake.methods(), "HEAD", "it is there");

    let fake =
        Fake::start(|_, seen| if seen.method == "PUT" { Reply::of(200, b"") } else { Reply::error(404, "NoSuchKey") });
    open(&fake, "").put(KIND, &large).unwrap();
    assert_eq!(fake.methods(), "HEAD PUT");
    assert_eq!(fake.seen()[1].body, large);

    let fake = Fake::start(move |_, seen| if seen.method == "PUT" { Reply::of(200, b"") } else { there(99_999) });
    open(&fake, "").put(KIND, &large).unwrap();
    assert!(
        fake.methods() == "HEAD PUT" && !fake.seen()[1].headers.contains("if-none-match"),
        "the existing object is damaged, so it is replaced"
    );
}

#[test]
fn a_head_that_says_nothing_is_followed_by_a_question() {
    // The answers of Amazon S3: an answer to a HEAD has no body.
    for (code, kind) in [("NoSuchKey", None), ("NoSuchBucket", Some(StoreErrorKind::Refused))] {
        let fake = Fake::start(
            move |_, seen| if seen.method == "HEAD" { Reply::of(404, b"") } else { Reply::error(404, code) },
        );
        let blobs = open(&fake, "");
        let size = blobs.size(KIND, &Digest::of(b"x"));
        assert_eq!(size.as_ref().err().map(|e| e.kind), kind, "{code}");
        assert_eq!(fake.methods(), "HEAD GET");
        if kind.is_none() {
            assert_eq!(blobs.size(KIND, &Digest::of(b"x")).unwrap(), None);
            assert_eq!(fake.methods(), "HEAD GET HEAD", "now the bucket is known to be there");
        }
    }
}

#[test]
fn a_redirect_is_not_followed() {
    let other = Fake::start(|_, _| Reply::of(200, b"x"));
    let to = format!("http://{}/elsewhere", other.address);
    let fake = Fake::start(move |_, _| Reply::with(307, &[("Location", &to), ("x-amz-bucket-region", "eu-9")], b""));
    let error = open(&fake, "").get(KIND, &Digest::of(b"x"), 1).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Refused);
    assert!(shown(&error).contains("region `eu-9`"));
    assert!(other.seen().is_empty(), "the signature is not for it");
}

#[test]
fn secret_keys_are_shown_nowhere() {
    let repeats = "<Error><Code>SignatureDoesNotMatch</Code><Message>HIDDENSECRET with HIDDENSECRET</Message>\
                   <AWSAccessKeyId>ACCESS</AWSAccessKeyId></Error>";
    let fake =
        Fake::start(
            move |n, _| if n == 0 { Reply::of(403, repeats.as_bytes()) } else { Reply::of(503, repeats.as_bytes()) },
        );
    let blobs = open(&fake, "&retries=0");
    for error in [blobs.put(KIND, b"x").unwrap_err(), blobs.get(KIND, &Digest::of(b"x"), 1).unwrap_err()] {
        let text = shown(&error);
        assert!(!text.contains("HIDDEN") && text.contains("*** with ***"), "{text}");
    }
    assert!(!format!("{blobs:?}").contains("HIDDEN"), "{blobs:?}");
    assert!(format!("{blobs:?}").contains("s3://blobs/pre/"), "{blobs:?}");
}
