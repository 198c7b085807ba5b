//! What an answer of the server, or the lack of one, means: try again, or give up and why.

use std::error::Error;
use std::io;

use dovetail_core::blobs::StoreErrorKind;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::Event;
use quick_xml::reader::Reader;
use reqwest::header::{HeaderMap, HeaderValue};
use serde::Deserialize;

use crate::check::{certificate, unknown_host};

/// Why one attempt failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It may go well the next time.
    Again(String),
    /// It will not.
    Final(StoreErrorKind, String),
}

/// The most that is read of an error's text, in bytes.
pub(crate) const MAX_ERROR_TEXT: usize = 16 << 10;

/// The text of the first element `name`, without control characters and with at most 300 characters.
///
/// The document is read event by event, because a server may cut off its explanation, and a proxy answers in HTML.
fn element(xml: &str, name: &str) -> Option<String> {
    let mut reader = Reader::from_str(xml);
    let config = reader.config_mut();
    (config.check_end_names, config.allow_unmatched_ends, config.allow_dangling_amp) = (false, true, true);
    loop {
        match reader.read_event().ok()? {
            Event::Start(tag) if tag.local_name().as_ref() == name.as_bytes() => break,
            Event::Eof => return None,
            _ => {}
        }
    }
    let mut text = String::new();
    loop {
        match reader.read_event().ok()? {
            Event::Text(part) => text.push_str(&part.xml10_content().ok()?),
            Event::CData(part) => text.push_str(&part.xml10_content().ok()?),
            Event::GeneralRef(part) => match (part.resolve_char_ref(), part.decode().ok()?) {
                (Ok(Some(char)), _) => text.push(char),
                (_, entity) => text.push_str(resolve_predefined_entity(&entity).unwrap_or_default()),
            },
            Event::End(_) => return Some(text.chars().filter(|c| !c.is_control()).take(300).collect()),
            Event::Eof => return None,
            _ => {}
        }
    }
}

/// A document whose root is a listing.
#[derive(Deserialize)]
enum ListResponse {
    ListBucketResult(Listing),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listing {
    #[serde(default)]
    contents: Vec<Object>,
    #[serde(default)]
    is_truncated: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Object {
    key: String,
    size: u64,
}

/// The objects of a listing, with their sizes, and whether there are more.
///
/// # Errors
/// What is missing in it.
pub(crate) fn listing(xml: &str) -> Result<(Vec<(String, u64)>, bool), String> {
    let ListResponse::ListBucketResult(listing) = quick_xml::de::from_str(xml).map_err(|error| {
        let why: String = error.to_string().chars().filter(|c| !c.is_control()).take(300).collect();
        format!("the answer is not a listing: {why}")
    })?;
    Ok((listing.contents.into_iter().map(|object| (object.key, object.size)).collect(), listing.is_truncated))
}

fn text_of(value: Option<&HeaderValue>) -> Option<String> {
    value.and_then(|v| v.to_str().ok()).map(|v| v.chars().take(100).collect())
}

/// An answer that is no success, as the server explains it.
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// Such as `NoSuchKey`; empty where the server does not say, as in every answer to a `HEAD`.
    pub(crate) code: String,
    message: String,
    /// The region that the bucket is in, where we asked in another.
    region: Option<String>,
}

impl Refusal {
    /// Only `Code` and `Message` are taken: other elements repeat the request, with the access key.
    pub(crate) fn read(status: u16, headers: &HeaderMap, body: &str) -> Self {
        let code = element(body, "Code").or_else(|| text_of(headers.get("x-minio-error-code"))).unwrap_or_default();
        let message =
            element(body, "Message").or_else(|| text_of(headers.get("x-minio-error-desc"))).unwrap_or_default();
        Self { status, code, message, region: text_of(headers.get("x-amz-bucket-region")) }
    }

    fn shown(&self) -> String {
        match (self.code.is_empty(), self.message.is_empty()) {
            (true, true) => format!("HTTP {}", self.status),
            (true, false) => format!("HTTP {}: {}", self.status, self.message),
            (false, true) => format!("HTTP {} {}", self.status, self.code),
            (false, false) => format!("HTTP {} {}: {}", self.status, self.code, self.message),
        }
    }

    /// Whether a `HEAD` can have meant several things by it.
    pub(crate) fn is_unclear(&self) -> bool {
        self.code.is_empty() && matches!(self.status, 400 | 401 | 403 | 404)
    }

    /// How to react, with the remedy where we know one.
    pub(crate) fn fault(&self, bucket: &str) -> Fault {
        use StoreErrorKind::{Full, Missing, Refused};
        let shown = self.shown();
        match (self.status, self.code.as_str()) {
            (_, "NoSuchBucket") => Fault::Final(
                Refused,
                format!("there is no bucket `{bucket}`: make it, or name another in the URL ({shown})"),
            ),
            (404, _) => Fault::Final(Missing, shown),
            (_, "RequestTimeTooSkewed") => Fault::Final(
                Refused,
                format!("this machine's clock and the server's differ by more than 15 minutes: set it ({shown})"),
            ),
            (
                _,
                "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" | "ExpiredToken" | "InvalidTokenId",
            ) => Fault::Final(
                Refused,
                format!("the server does not accept the access key, its secret or the session token ({shown})"),
            ),
            (_, "XMinioStorageFull" | "QuotaExceeded" | "XMinioAdminBucketQuotaExceeded") | (507, _) => {
                Fault::Final(Full, format!("the server is full ({shown})"))
            }
            // What was damaged or cut off on its way to the server.
            (_, "RequestTimeout" | "IncompleteBody" | "BadDigest" | "XAmzContentSHA256Mismatch") => Fault::Again(shown),
            (401 | 403, _) => Fault::Final(
                Refused,
                format!("access denied: these keys need to read, write and list the bucket `{bucket}` ({shown})"),
            ),
            (300..=399, _) => {
                let region =
                    self.region.as_ref().map_or_else(String::new, |region| format!(", it is in the region `{region}`"));
                Fault::Final(Refused, format!("the bucket is not at this endpoint{region}: correct the URL ({shown})"))
            }
            (408 | 409 | 425 | 429, _) => Fault::Again(shown),
            (501 | 505, _) => Fault::Final(Refused, format!("the server cannot do this ({shown})")),
            (500..=599, _) => Fault::Again(shown),
            _ => Fault::Final(Refused, shown),
        }
    }
}

/// Whether the other side spoke, but not as TLS wants it. Errors of I/O stand inside one another without being each
/// other's source.
fn is_invalid(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<io::Error>());
    error.kind() == io::ErrorKind::InvalidData || inner.is_some_and(is_invalid)
}

/// A request that got no answer, or not all of it.
pub(crate) fn broken(stage: &str, error: &reqwest::Error) -> Fault {
    // The last one in the chain is the system's; those above it say "error sending request".
    let mut cause: &dyn Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let not_tls = cause.downcast_ref::<io::Error>().is_some_and(is_invalid);
    let text: String = cause.to_string().chars().take(300).collect();
    if let Some(why) = certificate(&text, "trusted are this system's certificates and those in SSL_CERT_FILE")
        .filter(|_| error.is_connect())
    {
        return Fault::Final(StoreErrorKind::Refused, format!("no TLS connection: {why}"));
    }
    if not_tls && error.is_connect() {
        let help = "is it a TLS server, or does the URL say https:// of one that speaks http?";
        return Fault::Final(StoreErrorKind::Refused, format!("no TLS connection: {text}; {help}"));
    }
    if error.is_connect() {
        let help = unknown_host(&text).unwrap_or("is it running, are host and port right, and is it http or https?");
        return Fault::Again(format!("cannot connect: {text}: {help}"));
    }
    if error.is_builder() {
        return Fault::Final(StoreErrorKind::Refused, format!("{stage}: {text}"));
    }
    Fault::Again(format!("{stage}: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(status: u16, body: &str) -> Fault {
        Refusal::read(status, &HeaderMap::new(), body).fault("blobs")
    }

    fn xml(code: &str) -> String {
        format!(
            "<Error><Code>{code}</Code><Message>It &quot;was&quot; so</Message>\
             <AWSAccessKeyId>HIDDEN</AWSAccessKeyId></Error>"
        )
    }

    #[test]
    fn every_answer_has_its_reaction() {
        use StoreErrorKind::{Full, Missing, Refused};
        for (status, code, kind, says) in [
            (404, "NoSuchKey", Missing, "NoSuchKey"),
            (404, "NoSuchBucket", Refused, "no bucket `blobs`"),
            (403, "AccessDenied", Refused, "access denied"),
            (403, "SignatureDoesNotMatch", Refused, "does not accept the access key"),
            (403, "RequestTimeTooSkewed", Refused, "clock"),
            (507, "XMinioStorageFull", Full, "full"),
            (301, "PermanentRedirect", Refused, "not at this endpoint"),
            (400, "InvalidArgument", Refused, "InvalidArgument"),
            (501, "NotImplemented", Refused, "cannot do this"),
        ] {
            match fault(status, &xml(code)) {
                Fault::Final(got, why) => assert!(
                    got == kind && why.contains(says) && !why.contains("HIDDEN"),
                    "{status} {code}: {got:?} {why}"
                ),
                Fault::Again(why) => panic!("{status} {code} is not tried again: {why}"),
            }
        }
        for (status, code) in [
            (500, "InternalError"),
            (503, "SlowDown"),
            (429, ""),
            (409, "OperationAborted"),
            (400, "BadDigest"),
            (502, ""),
        ] {
            assert!(matches!(fault(status, &xml(code)), Fault::Again(_)), "{status} {code}");
        }
    }

    #[test]
    fn a_listing_is_read() {
        let one = |key: &str| {
            format!(
                "<Contents><Key>{key}</Key>\
                 <LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>7</Size></Contents>"
            )
        };
        let xml = format!(
            "<ListBucketResult xmlns=\"x\"><IsTruncated>true</IsTruncated>{}{}</ListBucketResult>",
            one("a/b"),
            one("a/&amp;")
        );
        assert_eq!(listing(&xml), Ok((vec![("a/b".to_owned(), 7), ("a/&".to_owned(), 7)], true)));
        assert_eq!(listing("<ListBucketResult></ListBucketResult>"), Ok((vec![], false)));
        assert!(
            listing("<html></html>").is_err()
                && listing("<ListBucketResult><Contents><Key>a</Key></Contents>").is_err()
        );
        let no_size = listing("<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>").unwrap_err();
        assert!(no_size.contains("`Size`"), "{no_size}");
    }

    #[test]
    fn a_listing_is_read_as_servers_write_it() {
        let key = "k".repeat(400);
        let xml = format!(
            r#"<?xml version="1.0" encoding="UTF-8"?>
<s3:ListBucketResult xmlns:s3="http://s3.amazonaws.com/doc/2006-03-01/">
  <s3:Name>blobs</s3:Name><s3:Prefix></s3:Prefix><s3:StartAfter/><s3:KeyCount>2</s3:KeyCount>
  <s3:IsTruncated>false</s3:IsTruncated>
  <s3:Contents>
    <s3:Key>{key}</s3:Key><s3:ETag>&#34;d4&#34;</s3:ETag><s3:Size>1</s3:Size>
    <s3:Owner><s3:ID>Key</s3:ID><s3:DisplayName></s3:DisplayName></s3:Owner><s3:StorageClass>STANDARD</s3:StorageClass>
  </s3:Contents>
  <s3:Contents><s3:Key><![CDATA[a<b]]>&#x26;&#39;</s3:Key><s3:Size>18446744073709551615</s3:Size></s3:Contents>
</s3:ListBucketResult>
"#
        );
        assert_eq!(listing(&xml), Ok((vec![(key, 1), ("a<b&'".to_owned(), u64::MAX)], false)));
    }

    #[test]
    fn a_listing_that_is_cut_off_is_no_listing() {
        let one = "<Contents><Key>a</Key><Size>7</Size></Contents>";
        let whole = format!("<ListBucketResult><IsTruncated>false</IsTruncated>{one}{one}</ListBucketResult>");
        for end in 0..whole.len() {
            assert!(listing(&whole[..end]).is_err(), "{}", &whole[..end]);
        }
        assert!(listing(&whole).is_ok());
    }

    #[test]
    fn an_answer_in_other_words_is_shown_by_its_status() {
        assert_eq!(Refusal::read(502, &HeaderMap::new(), "<html>bad gateway</html>").shown(), "HTTP 502");
        assert_eq!(Refusal::read(503, &HeaderMap::new(), &xml("SlowDown")).shown(), "HTTP 503 SlowDown: It \"was\" so");
        for (body, shown) in [
            // As Go's servers escape it, MinIO for one.
            ("<Error><Code>A</Code><Message>&#34;a&#34; &#x3c;b&#x1b;[31m&#xA;c</Message></Error>", "A: \"a\" <b[31mc"),
            ("<e:Error xmlns:e=\"x\"><e:Code a=\"1\">A</e:Code><e:Message>&odd;b</e:Message></e:Error>", "A: b"),
            ("<Error><Code>A</Code><Message>b & c</Message><Resource>/x</Res", "A: b & c"),
            ("<Error><Code>A</Code><Message>cut o", "A"),
        ] {
            assert_eq!(Refusal::read(503, &HeaderMap::new(), body).shown(), format!("HTTP 503 {shown}"), "{body}");
        }
    }

    #[test]
    fn the_right_region_is_named() {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-bucket-region", HeaderValue::from_static("eu-west-1"));
        let Fault::Final(_, why) = Refusal::read(301, &headers, "").fault("blobs") else {
            panic!("a redirect is final")
        };
        assert!(why.contains("region `eu-west-1`"), "{why}");
    }
}
