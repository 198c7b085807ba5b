//! [`Blobs`] by requests to a bucket.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use dovetail_core::Digest;
use dovetail_core::blobs::{BlobKind, Blobs, StoreError, StoreErrorKind};
use dovetail_core::clock::Clock;
use reqwest::Response;
use reqwest::header::{DATE, SERVER};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use super::address::Address;
use super::answer::Fault;
use super::request::{Ask, Client};
use super::{Credentials, S3Check};

/// From here on `put` asks whether the blob is there before it sends it, in bytes. Below, asking costs as much as sending.
const LOOK_FIRST: usize = 64 << 10;
/// The most that S3 takes in one request, in bytes.
const MAX_OBJECT: u64 = 5 << 30;

/// [`Blobs`] in a bucket of an S3 server. Cheap requests are one round trip; connections are kept.
pub struct S3Blobs {
    client: Client,
    /// Some until it is dropped.
    runtime: Option<Runtime>,
    /// An answer has shown that the bucket exists. Until then a 404 to a `HEAD`, which says no more, may mean the bucket.
    bucket_seen: AtomicBool,
    /// The server understands `If-None-Match: *` of a `PUT`.
    conditional: AtomicBool,
}

impl fmt::Debug for S3Blobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3Blobs({})", self.client.address)
    }
}

impl Drop for S3Blobs {
    fn drop(&mut self) {
        // Does not wait for a name server that does not answer.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl S3Blobs {
    /// From `s3://[ACCESS_KEY:SECRET_KEY@]BUCKET[/PREFIX]?PARAMETERS`; the server is not asked yet.
    ///
    /// | parameter | |
    /// |---|---|
    /// | `endpoint` | `http://HOST:PORT` or `https://HOST:PORT`; without it Amazon S3 |
    /// | `region` | `us-east-1` by default; needed for Amazon S3 |
    /// | `style` | `path` (`http://host/bucket/key`; the default with an endpoint) or `virtual` (`http://bucket.host/key`) |
    /// | `credentials` | a file: [`Credentials::from_file`] |
    /// | `connect_timeout` | 3 s by default |
    /// | `timeout` | one operation with all its attempts, 60 s by default, and a second more for each MiB moved |
    /// | `retries` | after the first attempt, 3 by default, 20 at most; not after a refusal |
    ///
    /// Keys in the URL are percent-encoded; without keys or a file `fallback` is used ([`Credentials::from_env`]).
    ///
    /// # Errors
    /// `Invalid` if the URL is wrong, with what is; a parameter that we do not know is named, a key never is.
    pub fn open(url: &str, fallback: Option<Credentials>) -> Result<Self, StoreError> {
        let (address, credentials) = Address::parse(url, fallback)?;
        let operation = format!("open {address}");
        let client = Client::new(address, credentials)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(4)
            .thread_name("dovetail-s3")
            .enable_all()
            .build()
            .map_err(|e| StoreError::new(StoreErrorKind::Unavailable, operation, e))?;
        Ok(Self { client, runtime: Some(runtime), bucket_seen: AtomicBool::new(false), conditional: AtomicBool::new(true) })
    }

    /// Writes, reads and removes a small object, for `doctor`.
    ///
    /// # Errors
    /// `Refused` if there is no such bucket, the keys are wrong or may not write, read and remove; `Unavailable` if there is no answer.
    pub fn check(&self, clock: &dyn Clock) -> Result<S3Check, StoreError> {
        // Several may check at once.
        let name = Digest::of(format!("{} {}", std::process::id(), clock.wall_ms()).as_bytes()).hex();
        let key = self.key(&format!("doctor/{name}"));
        let content = b"dovetail doctor wrote this and removes it again";
        self.block_on(async {
            let asked_ms = clock.wall_ms();
            let put = Ask::Put { content, if_new: false };
            let operation = "write a test object";
            let response = self.client.attempts(operation, 0, async |limit| self.accepted(&key, &put, limit).await).await?;
            let answered_ms = clock.wall_ms();
            let text = |name| response.headers().get(name).and_then(|v| v.to_str().ok());
            let date_ms = text(DATE).and_then(|date| httpdate::parse_http_date(date).ok()).and_then(|date| {
                // It tells whole seconds: half of one is the best guess.
                date.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_millis() as i64 + 500)
            });
            let middle_ms = i64::try_from(asked_ms / 2 + answered_ms / 2).unwrap_or(i64::MAX);
            let server = text(SERVER).map(|s| s.chars().take(100).collect());
            let started = Instant::now();
            let back = self.read("read back a test object", &key, content.len() as u64, None).await?;
            let round_trip = started.elapsed();
            if back != content {
                let why = "it says something else than what was written: is there a cache before the server?";
                return Err(StoreError::new(StoreErrorKind::Corrupt, format!("read back a test object in {}", self.client.address), why));
            }
            self.client.attempts("remove a test object", 0, async |limit| self.accepted(&key, &Ask::Delete, limit).await).await?;
            let clock_ahead_ms = date_ms.map(|date_ms| date_ms.saturating_sub(middle_ms));
            Ok(S3Check { address: self.client.address.to_string(), server, clock_ahead_ms, round_trip, unencrypted: self.client.address.is_plain() })
        })
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.as_ref().expect("it is taken when this is dropped").block_on(future)
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.client.address.prefix)
    }

    fn blob_key(&self, kind: BlobKind, digest: &Digest) -> String {
        self.key(&format!("{}/sha256/{}", kind.folder(), digest.hex()))
    }

    /// One attempt; every answer but a success is a fault.
    async fn accepted(&self, key: &str, ask: &Ask<'_>, limit: Instant) -> Result<Response, Fault> {
        let response = self.client.send(key, ask, limit).await?;
        if response.status().is_success() {
            self.bucket_seen.store(true, Ordering::Relaxed);
            return Ok(response);
        }
        let refusal = self.client.refusal(response, limit).await;
        if refusal.code == "NoSuchKey" {
            self.bucket_seen.store(true, Ordering::Relaxed);
        }
        let Ask::Head { brief } = *ask else { return Err(refusal.fault(&self.client.address.bucket)) };
        let enough = refusal.status == 404 && (brief || self.bucket_seen.load(Ordering::Relaxed));
        if refusal.is_unclear() && !enough {
            // A body says more.
            let response = self.client.send(key, &Ask::GetFirst, limit).await?;
            if response.status().is_success() || response.status().as_u16() == 416 {
                return Err(Fault::Again(format!("HTTP {} to a HEAD, but a GET works", refusal.status)));
            }
            let refusal = self.client.refusal(response, limit).await;
            self.bucket_seen.fetch_or(refusal.code == "NoSuchKey", Ordering::Relaxed);
            return Err(refusal.fault(&self.client.address.bucket));
        }
        Err(refusal.fault(&self.client.address.bucket))
    }

    /// The bytes under `key`; they are read a second time before they are called corrupt, because they may have been damaged on their way.
    async fn read(&self, operation: &str, key: &str, max: u64, digest: Option<&Digest>) -> Result<Vec<u8>, StoreError> {
        let damaged = AtomicBool::new(false);
        self.client
            .attempts(operation, 0, async |limit| {
                let response = self.accepted(key, &Ask::Get, limit).await?;
                let bytes = self.client.body(response, max, limit).await?;
                if digest.is_none_or(|digest| Digest::of(&bytes) == *digest) {
                    return Ok(bytes);
                }
                let why = "its content has another digest: the object was damaged or overwritten; remove it and store it again";
                let again = !damaged.swap(true, Ordering::Relaxed) && self.client.address.retries > 0;
                Err(if again { Fault::Again(why.to_owned()) } else { Fault::Final(StoreErrorKind::Corrupt, why.to_owned()) })
            })
            .await
    }

    async fn head(&self, operation: &str, key: &str, brief: bool) -> Result<Option<u64>, StoreError> {
        let asked = self.client.attempts(operation, 0, async |limit| {
            let response = self.accepted(key, &Ask::Head { brief }, limit).await?;
            let length = response.headers().get("content-length").and_then(|v| v.to_str().ok()?.parse().ok());
            length.ok_or_else(|| Fault::Final(StoreErrorKind::Refused, "the server does not tell the size of an object".to_owned()))
        });
        match asked.await {
            Ok(size) => Ok(Some(size)),
            Err(e) if e.kind == StoreErrorKind::Missing => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn write(&self, operation: &str, key: &str, content: &[u8], mut if_new: bool) -> Result<(), StoreError> {
        loop {
            if_new = if_new && self.conditional.load(Ordering::Relaxed);
            let ask = Ask::Put { content, if_new };
            let written = self.client.attempts(operation, content.len() as u64, async |limit| {
                let response = self.client.send(key, &ask, limit).await?;
                match response.status().as_u16() {
                    200..=299 => Ok(true),
                    // It is there: by somebody else, or by an attempt of ours whose answer was lost.
                    412 if if_new => Ok(true),
                    // A server from before conditional writes.
                    501 if if_new => Ok(false),
                    _ => Err(self.client.refusal(response, limit).await.fault(&self.client.address.bucket)),
                }
            });
            if written.await? {
                self.bucket_seen.store(true, Ordering::Relaxed);
                return Ok(());
            }
            self.conditional.store(false, Ordering::Relaxed);
        }
    }
}

impl Blobs for S3Blobs {
    fn put(&self, kind: BlobKind, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        let operation = format!("write {} {digest}", kind.folder());
        if bytes.len() as u64 > MAX_OBJECT {
            let why = format!("it has {} bytes, S3 takes at most {MAX_OBJECT}", bytes.len());
            return Err(StoreError::new(StoreErrorKind::Refused, operation, why));
        }
        let key = self.blob_key(kind, &digest);
        self.block_on(async {
            let mut if_new = true;
            if bytes.len() >= LOOK_FIRST {
                match self.head(&operation, &key, true).await? {
                    Some(size) if size == bytes.len() as u64 => return Ok(digest),
                    // Damaged: this is the chance to mend it.
                    Some(_) => if_new = false,
                    None => {}
                }
            }
            self.write(&operation, &key, bytes, if_new).await?;
            Ok(digest)
        })
    }

    fn get(&self, kind: BlobKind, digest: &Digest, max: u64) -> Result<Vec<u8>, StoreError> {
        let operation = format!("read {} {digest}", kind.folder());
        self.block_on(self.read(&operation, &self.blob_key(kind, digest), max, Some(digest)))
    }

    fn size(&self, kind: BlobKind, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let operation = format!("look for {} {digest}", kind.folder());
        self.block_on(self.head(&operation, &self.blob_key(kind, digest), false))
    }
}
