//! A URL is parsed, and a wrong URL is refused without repeating a key.

use super::*;

fn parse(text: &str) -> Result<(Address, Credentials), StoreError> {
    Address::parse(text, Some(Credentials::new("fallback", "fallback")))
}

fn why(text: &str) -> String {
    let error = parse(text).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Invalid);
    error.source.unwrap().to_string()
}

#[test]
fn a_url_is_read() {
    let (address, credentials) = parse("s3://blobs?endpoint=http://127.0.0.1:9000").unwrap();
    assert_eq!(address.to_string(), "s3://blobs/ at http://127.0.0.1:9000");
    assert!(address.path_style && address.loopback && !address.is_plain());
    assert_eq!((address.region.as_str(), address.retries), ("us-east-1", RETRIES));
    assert_eq!((address.connect_timeout, address.timeout), (CONNECT_TIMEOUT, TIMEOUT));
    assert_eq!(credentials, Credentials::new("fallback", "fallback"));

    let all = "s3://AK:a%2Fb+c%3D@my.blobs/team/a?endpoint=https://s3.example.com/&region=eu-1&style=virtual\
               &connect_timeout=500ms&timeout=2m&retries=0";
    let (address, credentials) = parse(all).unwrap();
    assert_eq!(address.to_string(), "s3://my.blobs/team/a/ at https://s3.example.com");
    assert!(!address.path_style && !address.loopback);
    assert_eq!((address.region.as_str(), address.retries), ("eu-1", 0));
    assert_eq!((address.connect_timeout, address.timeout), (Duration::from_millis(500), Duration::from_secs(120)));
    assert_eq!(credentials, Credentials::new("AK", "a/b+c="));
}

#[test]
fn amazon_needs_a_region_only() {
    let (address, _) = parse("s3://blobs?region=eu-central-1").unwrap();
    assert_eq!((address.endpoint.as_str(), address.path_style), ("https://s3.eu-central-1.amazonaws.com", false));
    assert!(why("s3://blobs").contains("names no server"));
}

#[test]
fn unencrypted_traffic_over_a_network_is_known() {
    assert!(parse("s3://blobs?endpoint=http://minio.example:9000").unwrap().0.is_plain());
    assert!(!parse("s3://blobs?endpoint=https://minio.example:9000").unwrap().0.is_plain());
    assert!(!parse("s3://blobs?endpoint=http://[::1]:9000").unwrap().0.is_plain());
}

#[test]
fn an_unknown_parameter_is_named() {
    assert!(why("s3://blobs?endpoint=http://h:1&retires=3").contains("no parameter `retires`"));
    assert!(why("s3://blobs?endpoint=http://h:1&endpoint=http://h:2").contains("`endpoint` is given twice"));
}

#[test]
fn bad_values_are_refused() {
    for (url, says) in [
        ("blobs", "not a valid URL"),
        ("http://blobs", "scheme"),
        ("s3://blobs:9000", "no port"),
        ("s3://Blobs?endpoint=http://h:1", "name of a bucket"),
        ("s3://bl?endpoint=http://h:1", "name of a bucket"),
        ("s3://-blobs?endpoint=http://h:1", "name of a bucket"),
        ("s3://blobs/a//b?endpoint=http://h:1", "prefix"),
        ("s3://blobs/a%20b?endpoint=http://h:1", "prefix"),
        ("s3://blobs?endpoint=127.0.0.1:9000", "`endpoint` is"),
        ("s3://blobs?endpoint=ftp://h:1", "`endpoint` is"),
        ("s3://blobs?endpoint=http://h:1/path", "`endpoint` is"),
        ("s3://blobs?endpoint=http://h:1&style=vhost", "`style` is"),
        ("s3://blobs?endpoint=http://h:1&timeout=0s", "`timeout` is"),
        ("s3://blobs?endpoint=http://h:1&timeout=2h", "`timeout` is"),
        ("s3://blobs?endpoint=http://h:1&connect_timeout=5", "`connect_timeout` is"),
        ("s3://blobs?endpoint=http://h:1&retries=21", "`retries` is"),
        ("s3://blobs?region=Europe", "`region` has"),
        ("s3://AK@blobs?endpoint=http://h:1", "one key only"),
        ("s3://:SK@blobs?endpoint=http://h:1", "one key only"),
        ("s3://AK:SK@blobs?endpoint=http://h:1&credentials=f", "give one of them"),
        ("s3://A%20K:SK@blobs?endpoint=http://h:1", "access key"),
        ("s3://AK:S%0AK@blobs?endpoint=http://h:1", "secret key"),
    ] {
        let why = why(url);
        assert!(why.contains(says), "{url}: {why}");
    }
    let none = Address::parse("s3://blobs?endpoint=http://h:1", None).unwrap_err();
    assert!(none.source.unwrap().to_string().contains("no credentials: set DOVETAIL_S3_ACCESS_KEY"));
}

/// All ways in which an unescaped key, or a key in a wrong place, breaks the URL.
#[test]
fn keys_are_not_repeated() {
    for url in [
        "s3://HIDDEN:HIDDEN@blobs",
        "s3://HIDDEN:HIDDEN/HIDDEN@blobs?endpoint=http://h:1",
        "s3://HIDDEN:HIDDEN?HIDDEN@blobs?endpoint=http://h:1",
        "s3://HIDDEN:1?HIDDEN@blobs?endpoint=http://h:1",
        "s3://HIDDEN:1#HIDDEN@blobs?endpoint=http://h:1",
        "s3://hidden/HIDDEN@blobs?endpoint=http://h:1",
        "s3://hidden?HIDDEN@blobs=1",
        "s3://HIDDEN:HIDDEN@Blobs?endpoint=http://h:1",
        "s3://blobs?endpoint=http://HIDDEN:HIDDEN@h:1",
        "s3://blobs?endpoint=http://h:1&timeout=HIDDEN",
        "s3://blobs?endpoint=http://h:1&style=HIDDEN",
        "s3://blobs?endpoint=http://h:1&region=HIDDEN",
        "s3://blobs?endpoint=http://h:1&retries=HIDDEN",
        "HIDDEN",
        "HIDDEN://HIDDEN",
    ] {
        let error = parse(url).unwrap_err();
        let shown = format!("{error:?} {error}").to_uppercase();
        assert!(!shown.contains("HIDDEN"), "{url}: {shown}");
    }
}
