//! One request and its attempts. rust-s3 makes the URL, the headers and the signature. Our own client sends the
//! request, because the client of rust-s3 has no timeout for connections, reads answers without a bound, and repeats
//! some requests by its own rules.

use std::hash::BuildHasher as _;
use std::time::Duration;

use dovetail_core::blobs::{StoreError, StoreErrorKind};
use reqwest::header::{HeaderMap, HeaderValue, IF_NONE_MATCH};
use reqwest::{Method, Response};
use s3::command::{Command, HttpMethod};
use s3::request::Request as _;
use s3::request::tokio_backend::ReqwestRequest;
use s3::{Bucket, Region};
use tokio::time::{Instant, timeout_at};

use super::Credentials;
use super::address::Address;
use super::answer::{Fault, MAX_ERROR_TEXT, Refusal, broken};

/// The pause before the second attempt. Each further pause is twice as long, and a random time of up to the same length
/// is added.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A connection to a server that vanished is found to be dead within this time.
const DEAD: Duration = Duration::from_secs(8);
/// The most memory, in bytes, that is reserved because of the length that an answer announces.
const MAX_RESERVED: u64 = 64 << 20;

/// The time for moving the bytes, in addition to the timeout: a second for each MiB.
fn time_for(bytes: u64) -> Duration {
    Duration::from_secs(bytes >> 20)
}

/// The client for one bucket.
pub(crate) struct Client {
    pub(crate) address: Address,
    bucket: Box<Bucket>,
    credentials: Credentials,
    http: reqwest::Client,
}

/// A request.
pub(crate) enum Ask<'a> {
    Head {
        /// A 404 need not tell whether the object or the bucket is missing, because the next request will tell.
        brief: bool,
    },
    Get,
    /// The first byte, to learn why a `HEAD` failed.
    GetFirst,
    Delete,
    /// At most `limit` objects whose keys begin with `prefix`, from the first one after `after`, in the order of their
    /// keys.
    List {
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    },
    Put {
        content: &'a [u8],
        /// Write only if no object has this key.
        if_new: bool,
    },
}

impl Ask<'_> {
    fn command(&self) -> Command<'_> {
        match self {
            Self::Head { .. } => Command::HeadObject,
            Self::Get => Command::GetObject,
            Self::GetFirst => Command::GetObjectRange { start: 0, end: Some(0) },
            Self::Delete => Command::DeleteObject,
            Self::List { prefix, after, limit } => Command::ListObjectsV2 {
                prefix: (*prefix).to_owned(),
                delimiter: None,
                continuation_token: None,
                start_after: after.map(str::to_owned),
                max_keys: Some(*limit),
            },
            Self::Put { content, if_new } => {
                let custom_headers =
                    if_new.then(|| HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static("*"))]));
                Command::PutObject {
                    content,
                    content_type: "application/octet-stream",
                    custom_headers,
                    multipart: None,
                }
            }
        }
    }

    fn size(&self) -> u64 {
        if let Self::Put { content, .. } = self { content.len() as u64 } else { 0 }
    }
}

impl Client {
    pub(crate) fn new(address: Address, credentials: Credentials) -> Result<Self, StoreError> {
        let refused = |e: Box<dyn std::error::Error + Send + Sync>| {
            StoreError::new(StoreErrorKind::Refused, format!("open {address}"), e)
        };
        let region = Region::Custom { region: address.region.clone(), endpoint: address.endpoint.clone() };
        let mut bucket =
            Bucket::new(&address.bucket, region, credentials.for_signing()).map_err(|e| refused(e.into()))?;
        if address.path_style {
            bucket.set_path_style();
        }
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("dovetail/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(address.connect_timeout)
            // A redirect would carry the signature to another server.
            .redirect(reqwest::redirect::Policy::none())
            .pool_idle_timeout(Duration::from_secs(30))
            // A server can take long to answer (a listing of very many objects), so the kernel checks whether it is
            // still there.
            .tcp_keepalive(DEAD / 2)
            .tcp_keepalive_interval(DEAD / 8)
            .tcp_keepalive_retries(3)
            .tcp_nodelay(true);
        #[cfg(target_os = "linux")]
        {
            http = http.tcp_user_timeout(DEAD);
        }
        if address.loopback {
            http = http.no_proxy();
        }
        let http = http.build().map_err(|e| refused(e.into()))?;
        Ok(Self { address, bucket, credentials, http })
    }

    /// Calls `attempt` until it succeeds, a fault is final, or the retries or the time are used up. `bytes` is the
    /// number of bytes that the request moves.
    ///
    /// # Errors
    /// The fault of the last attempt. The message begins with `operation`.
    pub(crate) async fn attempts<T>(
        &self,
        operation: &str,
        bytes: u64,
        attempt: impl AsyncFn(Instant) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let fail = |kind, why: String| {
            let operation = format!("{operation} in {}", self.address);
            StoreError::new(kind, operation, self.credentials.removed_from(&why))
        };
        let (started, extra) = (Instant::now(), time_for(bytes));
        let end = started + self.address.timeout + extra;
        let mut pause = FIRST_PAUSE;
        for number in 1.. {
            // A single attempt gets only part of the time, so that a hanging one leaves time for others.
            let share = if self.address.retries == 0 { self.address.timeout } else { self.address.timeout / 3 };
            let limit = end.min(Instant::now() + share + extra);
            let why = match attempt(limit).await {
                Ok(done) => return Ok(done),
                Err(Fault::Final(kind, why)) => return Err(fail(kind, why)),
                Err(Fault::Again(why)) => why,
            };
            let jitter = std::hash::RandomState::new().hash_one(number) % 1000;
            let rest = pause + pause.mul_f64(f64::from(u32::try_from(jitter).unwrap_or(0)) / 1000.0);
            if number > self.address.retries || Instant::now() + rest >= end {
                let (attempts, s) = (number, if number == 1 { "" } else { "s" });
                let spent = started.elapsed().as_secs_f64();
                return Err(fail(
                    StoreErrorKind::Unavailable,
                    format!("{why} (gave up after {attempts} attempt{s} in {spent:.1} s)"),
                ));
            }
            tracing::debug!(
                operation,
                attempt = number,
                why = self.credentials.removed_from(&why),
                "an S3 request failed and is tried again"
            );
            tokio::time::sleep(rest).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
        unreachable!("the numbers do not end")
    }

    /// Makes one attempt. Returns the answer with its status and headers, before its body is read.
    pub(crate) async fn send(&self, key: &str, ask: &Ask<'_>, limit: Instant) -> Result<Response, Fault> {
        let signing =
            |e: s3::error::S3Error| Fault::Final(StoreErrorKind::Refused, format!("cannot sign the request: {e}"));
        let request = ReqwestRequest::new(&self.bucket, key, ask.command()).await.map_err(signing)?;
        let method = match ask.command().http_verb() {
            HttpMethod::Delete => Method::DELETE,
            HttpMethod::Get => Method::GET,
            HttpMethod::Post => Method::POST,
            HttpMethod::Put => Method::PUT,
            HttpMethod::Head => Method::HEAD,
        };
        let (url, headers) = (request.url().map_err(signing)?, request.headers().await.map_err(signing)?);
        let mut http = self.http.request(method, url).headers(headers);
        if let Ask::Put { content, .. } = ask {
            http = http.body(content.to_vec());
        }
        let request = http.build().map_err(|e| broken("cannot make the request", &e))?;
        let waited = Instant::now();
        // A server answers soon about one object, but may take long to list very many.
        let limit = match ask {
            Ask::List { .. } => limit,
            _ => limit.min(waited + DEAD + time_for(ask.size())),
        };
        match timeout_at(limit, self.http.execute(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(e)) if e.is_connect() && e.is_timeout() => {
                Err(Fault::Again(format!("cannot connect within {:.1} s", self.address.connect_timeout.as_secs_f64())))
            }
            Ok(Err(e)) => Err(broken("the connection broke off before the answer", &e)),
            Err(_) => {
                let sent = ask.size();
                let what = if sent == 0 { String::new() } else { format!(" to {sent} bytes") };
                Err(Fault::Again(format!("no answer{what} within {:.1} s", waited.elapsed().as_secs_f64())))
            }
        }
    }

    /// The server's explanation of its refusal.
    pub(crate) async fn refusal(&self, mut response: Response, limit: Instant) -> Refusal {
        let mut body = Vec::new();
        // An explanation that does not come, or not completely, is not waited for.
        while body.len() < MAX_ERROR_TEXT {
            let Ok(Ok(Some(chunk))) = timeout_at(limit, response.chunk()).await else { break };
            body.extend_from_slice(&chunk);
        }
        body.truncate(MAX_ERROR_TEXT);
        Refusal::read(response.status().as_u16(), response.headers(), &String::from_utf8_lossy(&body))
    }

    /// Reads the body, at most `max` bytes, within `limit` and a second for each MiB that the answer announces.
    pub(crate) async fn body(&self, mut response: Response, max: u64, limit: Instant) -> Result<Vec<u8>, Fault> {
        let length = response.content_length();
        let too_long = |has: String| {
            Fault::Final(StoreErrorKind::Refused, format!("it has {has} bytes, at most {max} are allowed"))
        };
        if let Some(length) = length.filter(|length| *length > max) {
            return Err(too_long(length.to_string()));
        }
        let limit = limit + time_for(length.unwrap_or(0));
        let mut bytes = Vec::with_capacity(usize::try_from(length.unwrap_or(0).min(MAX_RESERVED)).unwrap_or(0));
        loop {
            let stage = || {
                format!(
                    "the answer broke off after {} bytes of {}",
                    bytes.len(),
                    length.map_or("an unknown number".to_owned(), |n| n.to_string())
                )
            };
            match timeout_at(limit.min(Instant::now() + DEAD), response.chunk()).await {
                Ok(Ok(Some(chunk))) if (bytes.len() + chunk.len()) as u64 > max => {
                    return Err(too_long(format!("more than {max}")));
                }
                Ok(Ok(Some(chunk))) => bytes.extend_from_slice(&chunk),
                Ok(Ok(None)) => return Ok(bytes),
                Ok(Err(e)) => return Err(broken(&stage(), &e)),
                Err(_) if Instant::now() < limit => {
                    return Err(Fault::Again(format!("{}: nothing came for {} s", stage(), DEAD.as_secs())));
                }
                Err(_) => return Err(Fault::Again(format!("{}: the time is over", stage()))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url_and_host(url: &str) -> (String, String) {
        let (address, credentials) = Address::parse(url, Some(Credentials::new("a", "s"))).unwrap();
        let client = Client::new(address, credentials).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let request = ReqwestRequest::new(&client.bucket, "models/sha256/00", Command::GetObject).await.unwrap();
            let host = request.headers().await.unwrap()["host"].to_str().unwrap().to_owned();
            (request.url().unwrap().to_string(), host)
        })
    }

    /// In both styles, the signed host is the host that gets the request.
    #[test]
    fn both_styles_of_urls() {
        let expected = |url: &str, host: &str| (url.to_owned(), host.to_owned());
        assert_eq!(
            url_and_host("s3://blobs?endpoint=http://minio:9000"),
            expected("http://minio:9000/blobs/models/sha256/00", "minio:9000")
        );
        assert_eq!(
            url_and_host("s3://blobs?endpoint=http://minio:9000&style=virtual"),
            expected("http://blobs.minio:9000/models/sha256/00", "blobs.minio:9000")
        );
        assert_eq!(
            url_and_host("s3://blobs?region=eu-1"),
            expected("https://blobs.s3.eu-1.amazonaws.com/models/sha256/00", "blobs.s3.eu-1.amazonaws.com")
        );
        assert_eq!(
            url_and_host("s3://blobs?region=eu-1&style=path"),
            expected("https://s3.eu-1.amazonaws.com/blobs/models/sha256/00", "s3.eu-1.amazonaws.com")
        );
    }
}
