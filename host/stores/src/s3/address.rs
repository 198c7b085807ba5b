//! An `s3://` URL and its parts. An error repeats no part of a URL that could be a key by mistake: see
//! [`Address::parse`].

use std::fmt;
use std::path::Path;
use std::time::Duration;

use dovetail_core::blobs::{StoreError, StoreErrorKind};
use dovetail_core::manifest::parse_duration;
use url::Url;

use super::Credentials;

/// The time limit for a connection with its TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The time limit for one operation with all its attempts, plus a second for each MiB that it moves.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Attempts after the first one.
const RETRIES: u32 = 3;
/// The highest value of the parameter `retries`.
const MAX_RETRIES: u32 = 20;

const PARAMETERS: &str = "`endpoint`, `region`, `style`, `credentials`, `connect_timeout`, `timeout` and `retries`";

/// The place of the blobs, and the settings of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) bucket: String,
    /// Empty, or ending in a slash.
    pub(crate) prefix: String,
    /// Scheme, host and port, without a slash at the end.
    pub(crate) endpoint: String,
    pub(crate) loopback: bool,
    pub(crate) region: String,
    /// `http://host/bucket/key` rather than `http://bucket.host/key`.
    pub(crate) path_style: bool,
    pub(crate) connect_timeout: Duration,
    pub(crate) timeout: Duration,
    pub(crate) retries: u32,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{} at {}", self.bucket, self.prefix, self.endpoint)
    }
}

fn refused(why: impl Into<String>) -> StoreError {
    StoreError::new(StoreErrorKind::Invalid, "read the `s3://` URL of the blob store", why.into())
}

fn percent_decoded(text: &str) -> Option<String> {
    // This is the form decoding of the `url` crate, except that `+` is kept: secret keys contain it.
    let text = text.replace('+', "%2B");
    let mut pairs = url::form_urlencoded::parse(text.as_bytes());
    let (name, value) = pairs.next()?;
    (value.is_empty() && pairs.next().is_none() && !name.contains('\u{fffd}')).then(|| name.into_owned())
}

impl Address {
    /// Parses `s3://[ACCESS_KEY:SECRET_KEY@]BUCKET[/PREFIX][?PARAMETERS]`. Keys in the URL take precedence over
    /// `credentials=FILE`, and the file over `fallback`.
    ///
    /// An unescaped `/`, `?`, `#` or `@` in a secret key moves parts of the key to other places of the URL. So an error
    /// repeats only names of parameters that look like names, and values of parameters that were understood.
    pub(crate) fn parse(text: &str, fallback: Option<Credentials>) -> Result<(Self, Credentials), StoreError> {
        const ESCAPE: &str =
            "in a secret key, write `/` as %2F, `+` as %2B, `@` as %40, `:` as %3A, `?` as %3F, `#` as %23, `%` as %25";
        let url = Url::parse(text).map_err(|e| refused(format!("it is not a valid URL: {e}; {ESCAPE}")))?;
        if url.scheme() != "s3" {
            return Err(refused("its scheme is not `s3`"));
        }
        if url.port().is_some() || url.fragment().is_some() {
            return Err(refused(format!(
                "a bucket has no port and no fragment: the server's address goes into \
                 `?endpoint=http://HOST:PORT`, and {ESCAPE}"
            )));
        }
        let bucket = url.host_str().unwrap_or_default();
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let edges = [bucket.bytes().next(), bucket.bytes().next_back()];
        if !(3..=63).contains(&bucket.len())
            || !bucket.bytes().all(|b| plain(b) || b == b'-' || b == b'.')
            || !edges.into_iter().flatten().all(plain)
        {
            return Err(refused(
                "`s3://BUCKET`: the name of a bucket has 3 to 63 of a-z, 0-9, `-` and `.`, and starts and ends with \
                 a letter or a digit",
            ));
        }
        let mut prefix = url.path().trim_matches('/').to_owned();
        let good_part = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        };
        if !prefix.is_empty() {
            if prefix.len() > 512 || !prefix.split('/').all(good_part) {
                return Err(refused(format!(
                    "the prefix after the bucket has at most 512 bytes, in parts of a-z, A-Z, 0-9, `-`, `_` and `.` \
                     between single slashes; {ESCAPE}"
                )));
            }
            prefix.push('/');
        }
        let parameters = Parameters::read(&url, ESCAPE)?;
        let (endpoint, loopback, region) = parameters.server()?;
        let path_style = match parameters.style.as_deref() {
            // Self-hosted servers rarely have a host name for each bucket.
            None => parameters.endpoint.is_some(),
            Some("path") => true,
            Some("virtual") => false,
            Some(_) => {
                return Err(refused(
                    "`style` is `path` (http://host/bucket/key) or `virtual` (http://bucket.host/key)",
                ));
            }
        };
        let address = Self {
            bucket: bucket.to_owned(),
            prefix,
            endpoint,
            loopback,
            region,
            path_style,
            connect_timeout: parameters.connect_timeout.unwrap_or(CONNECT_TIMEOUT),
            timeout: parameters.timeout.unwrap_or(TIMEOUT),
            retries: parameters.retries.unwrap_or(RETRIES),
        };
        Ok((address, credentials(&url, parameters.credentials.as_deref(), fallback)?))
    }

    /// Whether requests cross a network unencrypted.
    pub(crate) fn is_plain(&self) -> bool {
        self.endpoint.starts_with("http://") && !self.loopback
    }
}

fn credentials(url: &Url, file: Option<&str>, fallback: Option<Credentials>) -> Result<Credentials, StoreError> {
    let given = match (url.username(), url.password(), file) {
        ("", None, Some(file)) => Credentials::from_file(Path::new(file))?,
        ("", None, None) => fallback.ok_or_else(|| {
            refused(
                "it has no credentials: set DOVETAIL_S3_ACCESS_KEY and DOVETAIL_S3_SECRET_KEY, name a file by \
                 `?credentials=FILE` (lines `access_key=...` and `secret_key=...`), or write \
                 `s3://ACCESS_KEY:SECRET_KEY@BUCKET`",
            )
        })?,
        (_, _, Some(_)) => return Err(refused("it has keys and `credentials=FILE`: give one of them")),
        (access_key, Some(secret_key), None) if !access_key.is_empty() => {
            match (percent_decoded(access_key), percent_decoded(secret_key)) {
                (Some(access_key), Some(secret_key)) => Credentials::new(access_key, secret_key),
                _ => return Err(refused("its keys are not well escaped")),
            }
        }
        _ => return Err(refused("it has one key only: write `s3://ACCESS_KEY:SECRET_KEY@BUCKET`, or leave both out")),
    };
    given.flaw().map_or(Ok(given), |flaw| Err(refused(flaw)))
}

/// The parameters of the query. Each may be given once.
#[derive(Default)]
struct Parameters {
    endpoint: Option<String>,
    region: Option<String>,
    style: Option<String>,
    credentials: Option<String>,
    connect_timeout: Option<Duration>,
    timeout: Option<Duration>,
    retries: Option<u32>,
}

fn set<T>(place: &mut Option<T>, name: &str, value: T) -> Result<(), StoreError> {
    place.replace(value).map_or(Ok(()), |_| Err(refused(format!("the parameter `{name}` is given twice"))))
}

fn duration(name: &str, value: &str) -> Result<Duration, StoreError> {
    match parse_duration(value) {
        Ok(duration) if !duration.is_zero() && duration <= Duration::from_secs(3600) => Ok(duration),
        _ => Err(refused(format!("`{name}` is a duration of at most an hour and more than nothing, such as `30s`"))),
    }
}

impl Parameters {
    fn read(url: &Url, escape: &str) -> Result<Self, StoreError> {
        let mut read = Self::default();
        for (name, value) in url.query_pairs() {
            let text = || value.clone().into_owned();
            match name.as_ref() {
                "endpoint" => set(&mut read.endpoint, &name, text())?,
                "region" => set(&mut read.region, &name, text())?,
                "style" => set(&mut read.style, &name, text())?,
                "credentials" => set(&mut read.credentials, &name, text())?,
                "connect_timeout" => set(&mut read.connect_timeout, &name, duration(&name, &value)?)?,
                "timeout" => set(&mut read.timeout, &name, duration(&name, &value)?)?,
                "retries" => {
                    let retries = value.parse().ok().filter(|n| *n <= MAX_RETRIES);
                    set(
                        &mut read.retries,
                        &name,
                        retries.ok_or_else(|| refused(format!("`retries` is a number from 0 to {MAX_RETRIES}")))?,
                    )?;
                }
                name if name.len() <= 32 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'-') => {
                    return Err(refused(format!("there is no parameter `{name}`: there are {PARAMETERS}")));
                }
                _ => {
                    return Err(refused(format!(
                        "it has a parameter with an odd name: there are {PARAMETERS}; {escape}"
                    )));
                }
            }
        }
        Ok(read)
    }

    /// The endpoint, whether it is on this machine, and the region.
    fn server(&self) -> Result<(String, bool, String), StoreError> {
        let region = self.region.as_deref();
        if region.is_some_and(|r| {
            r.is_empty()
                || r.len() > 64
                || !r.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        }) {
            return Err(refused("`region` has a-z, 0-9 and `-`, such as `eu-central-1`"));
        }
        let Some(endpoint) = &self.endpoint else {
            let region = region.ok_or_else(|| {
                refused("it names no server: give `?endpoint=http://HOST:PORT`, or `?region=REGION` for Amazon S3")
            })?;
            return Ok((format!("https://s3.{region}.amazonaws.com"), false, region.to_owned()));
        };
        let bad =
            || refused("`endpoint` is `http://HOST:PORT` or `https://HOST:PORT`, without keys, path or parameters");
        let endpoint = Url::parse(endpoint).map_err(|_| bad())?;
        let bare = endpoint.username().is_empty()
            && endpoint.password().is_none()
            && endpoint.path() == "/"
            && endpoint.query().is_none();
        if !matches!(endpoint.scheme(), "http" | "https") || !bare || endpoint.fragment().is_some() {
            return Err(bad());
        }
        let loopback = match endpoint.host() {
            Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
            Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
            None => return Err(bad()),
        };
        Ok((endpoint.as_str().trim_end_matches('/').to_owned(), loopback, region.unwrap_or("us-east-1").to_owned()))
    }
}

#[cfg(test)]
#[path = "address/tests.rs"]
mod tests;
