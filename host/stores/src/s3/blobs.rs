//! [`Blobs`] in a bucket of an S3 server.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use dovetail_core::Digest;
use dovetail_core::blobs::{BlobKind, Blobs, StoreError, StoreErrorKind};
use dovetail_core::clock::Clock;
use dovetail_core::retention::{BlobVisitor, MAX_IDENTITY, Owned, RemovableBlobs, YOUNG, identity_of};
use reqwest::Response;
use reqwest::header::{CONTENT_LENGTH, DATE, LAST_MODIFIED, SERVER};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use super::address::Address;
use super::answer::{Fault, listing};
use super::request::{Ask, Client};
use super::{Credentials, S3Check};

/// From this size in bytes on, `put` asks whether the blob exists before it sends it. Below it, asking costs as much as
/// sending.
const LOOK_FIRST: usize = 64 << 10;
/// The most bytes that S3 accepts in one request.
const MAX_OBJECT: u64 = 5 << 30;

/// The object with the identity of the records that these blobs belong to.
const OWNER: &str = "owner";
/// After this time a server without conditional writes gives all readers the same answer, even if several processes
/// wrote at once.
const SETTLED: Duration = Duration::from_secs(1);
/// The most bytes that are read of a listing: enough for a thousand objects with long keys.
const MAX_LISTING: u64 = 4 << 20;
/// The most objects in one listing of S3.
const PAGE: usize = 1000;

/// Some blobs with their sizes in bytes, and the last key of the page if more blobs follow.
type Page = (Vec<(Digest, u64)>, Option<String>);

/// The answer to a `HEAD` of an object.
struct ObjectHead {
    bytes: u64,
    /// The time since the object was written, if the server tells it.
    age: Option<Duration>,
}

impl ObjectHead {
    fn is_young(&self) -> bool {
        self.age.is_none_or(|age| age < YOUNG)
    }
}

/// [`Blobs`] in a bucket of an S3 server. A cheap request is one round trip, and connections are reused.
pub struct S3Blobs {
    client: Client,
    /// `Some` until this value is dropped.
    runtime: Option<Runtime>,
    /// Whether an answer has shown that the bucket exists. Until then a 404 to a `HEAD`, which has no body, may mean
    /// that the bucket is missing.
    bucket_seen: AtomicBool,
    /// Whether the server supports `If-None-Match: *` in a `PUT`.
    conditional: AtomicBool,
}

impl fmt::Debug for S3Blobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3Blobs({})", self.client.address)
    }
}

impl Drop for S3Blobs {
    fn drop(&mut self) {
        // This does not wait for a name server that does not answer.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl S3Blobs {
    /// Opens `s3://[ACCESS_KEY:SECRET_KEY@]BUCKET[/PREFIX]?PARAMETERS` without contacting the server.
    ///
    /// | parameter | |
    /// |---|---|
    /// | `endpoint` | `http://HOST:PORT` or `https://HOST:PORT`; without it Amazon S3 |
    /// | `region` | `us-east-1` by default; needed for Amazon S3 |
    /// | `style` | `path` (`http://host/bucket/key`, default with `endpoint`) or `virtual` (`http://bucket.host/key`) |
    /// | `credentials` | a file: [`Credentials::from_file`] |
    /// | `connect_timeout` | 3 s by default |
    /// | `timeout` | one operation with all its attempts, 60 s by default, and a second more for each MiB moved |
    /// | `retries` | after the first attempt, 3 by default, 20 at most; not after a refusal |
    ///
    /// Keys in the URL are percent-encoded. Without keys or a file, `fallback` is used ([`Credentials::from_env`]).
    ///
    /// # Errors
    /// `Invalid`, with the reason, if the URL is wrong. The error names an unknown parameter, and never repeats a key.
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
        Ok(Self {
            client,
            runtime: Some(runtime),
            bucket_seen: AtomicBool::new(false),
            conditional: AtomicBool::new(true),
        })
    }

    /// Writes, reads and removes a small object, for `doctor`.
    ///
    /// # Errors
    /// `Refused` if the bucket does not exist, the keys are wrong, or they lack the right to write, read and remove.
    /// `Unavailable` if no answer comes. `Corrupt` if the object that is read differs from the one that was written.
    pub fn check(&self, clock: &dyn Clock) -> Result<S3Check, StoreError> {
        // The key is unique, because several processes may check at once.
        let name = Digest::of(format!("{} {}", std::process::id(), clock.wall_ms()).as_bytes()).hex();
        let key = self.key(&format!("doctor/{name}"));
        let content = b"dovetail doctor wrote this and removes it again";
        self.block_on(async {
            let asked_ms = clock.wall_ms();
            let put = Ask::Put { content, if_new: false };
            let operation = "write a test object";
            let response =
                self.client.attempts(operation, 0, async |limit| self.accepted(&key, &put, limit).await).await?;
            let answered_ms = clock.wall_ms();
            let text = |name| response.headers().get(name).and_then(|v| v.to_str().ok());
            let date_ms = text(DATE).and_then(|date| httpdate::parse_http_date(date).ok()).and_then(|date| {
                // The server tells whole seconds, so add half a second as the best guess.
                date.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_millis() as i64 + 500)
            });
            let middle_ms = i64::try_from(asked_ms / 2 + answered_ms / 2).unwrap_or(i64::MAX);
            let server = text(SERVER).map(|s| s.chars().take(100).collect());
            let started = Instant::now();
            let back = self.read("read back a test object", &key, content.len() as u64, None).await?;
            let round_trip = started.elapsed();
            if back != content {
                let why = "the object differs from the one that was written: is there a cache in front of the server?";
                return Err(StoreError::new(
                    StoreErrorKind::Corrupt,
                    format!("read back a test object in {}", self.client.address),
                    why,
                ));
            }
            self.client
                .attempts("remove a test object", 0, async |limit| self.accepted(&key, &Ask::Delete, limit).await)
                .await?;
            let clock_ahead_ms = date_ms.map(|date_ms| date_ms.saturating_sub(middle_ms));
            Ok(S3Check {
                address: self.client.address.to_string(),
                server,
                clock_ahead_ms,
                round_trip,
                unencrypted: self.client.address.is_plain(),
            })
        })
    }

    /// Removes all blobs under the prefix, whatever their age, and the object with their owner: for measurements, each
    /// of which has a prefix of its own.
    ///
    /// # Errors
    /// As [`RemovableBlobs::remove`].
    pub fn forget_everything(&self) -> Result<(), StoreError> {
        for kind in BlobKind::ALL {
            self.walk(kind, &mut |digest, _| self.remove(kind, &digest, Duration::ZERO).map(drop))?;
        }
        let key = self.key(OWNER);
        let remove = async |limit| self.accepted(&key, &Ask::Delete, limit).await.map(drop);
        self.block_on(self.client.attempts("remove the owner of the blobs", 0, remove))
    }

    /// Blobs of a kind in the order of their keys, from the first one after the key `after`. Also returns the last key
    /// if more blobs follow.
    fn page(&self, kind: BlobKind, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        let prefix = self.key(&format!("{}/sha256/", kind.folder()));
        let operation = format!("list {}", kind.folder());
        let ask = Ask::List { prefix: &prefix, after, limit };
        let (objects, more) = self.block_on(self.client.attempts(&operation, 0, async |until| {
            let response = self.accepted("/", &ask, until).await?;
            let body = self.client.body(response, MAX_LISTING, until).await?;
            listing(&String::from_utf8_lossy(&body)).map_err(Fault::Again)
        }))?;
        let last = objects.last().filter(|_| more).map(|(key, _)| key.clone());
        // Skip objects that other programs put under our prefix.
        let found = objects.iter().filter_map(|(key, bytes)| {
            let hex = key.strip_prefix(&prefix)?;
            Some((format!("sha256:{hex}").parse().ok()?, *bytes))
        });
        Ok((found.collect(), last))
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

    /// Makes one attempt. Every answer but a success is a fault.
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
            // A `GET` has an answer with a body, which tells the reason.
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

    /// The bytes under `key`. If they do not match `digest`, they are read a second time before they count as corrupt,
    /// because they may have been damaged in transfer.
    async fn read(&self, operation: &str, key: &str, max: u64, digest: Option<&Digest>) -> Result<Vec<u8>, StoreError> {
        let damaged = AtomicBool::new(false);
        self.client
            .attempts(operation, 0, async |limit| {
                let response = self.accepted(key, &Ask::Get, limit).await?;
                let bytes = self.client.body(response, max, limit).await?;
                if digest.is_none_or(|digest| Digest::of(&bytes) == *digest) {
                    return Ok(bytes);
                }
                let why = "its content has another digest: the object was damaged or overwritten; remove it and store \
                           it again";
                let again = !damaged.swap(true, Ordering::Relaxed) && self.client.address.retries > 0;
                let why = why.to_owned();
                Err(if again { Fault::Again(why) } else { Fault::Final(StoreErrorKind::Corrupt, why) })
            })
            .await
    }

    async fn holds(&self, operation: &str, key: &str, digest: &Digest, bytes: u64) -> Result<bool, StoreError> {
        match self.read(operation, key, bytes, Some(digest)).await {
            Ok(_) => Ok(true),
            Err(e) if matches!(e.kind, StoreErrorKind::Corrupt | StoreErrorKind::Missing) => Ok(false),
            Err(e) => Err(e),
        }
    }

    async fn head(&self, operation: &str, key: &str, brief: bool) -> Result<Option<ObjectHead>, StoreError> {
        let asked = self.client.attempts(operation, 0, async |limit| {
            let response = self.accepted(key, &Ask::Head { brief }, limit).await?;
            let text = |name| response.headers().get(name).and_then(|v| v.to_str().ok());
            let time = |name| text(name).and_then(|date| httpdate::parse_http_date(date).ok());
            let bytes = text(CONTENT_LENGTH).and_then(|length| length.parse().ok());
            let bytes = bytes.ok_or_else(|| {
                Fault::Final(StoreErrorKind::Refused, "the server does not tell the size of an object".to_owned())
            })?;
            // Both times come from the server's clock, so ours may be wrong.
            let age =
                time(LAST_MODIFIED).zip(time(DATE)).map(|(stored, now)| now.duration_since(stored).unwrap_or_default());
            Ok(ObjectHead { bytes, age })
        });
        match asked.await {
            Ok(head) => Ok(Some(head)),
            Err(e) if e.kind == StoreErrorKind::Missing => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Writes the object. Returns false if `if_new` is set and the object exists.
    async fn write(&self, operation: &str, key: &str, content: &[u8], mut if_new: bool) -> Result<bool, StoreError> {
        loop {
            if_new = if_new && self.conditional.load(Ordering::Relaxed);
            let ask = Ask::Put { content, if_new };
            let written = self.client.attempts(operation, content.len() as u64, async |limit| {
                let response = self.client.send(key, &ask, limit).await?;
                match response.status().as_u16() {
                    200..=299 => Ok(Some(true)),
                    // The object exists: another process wrote it, or an attempt of ours whose answer was lost.
                    412 if if_new => Ok(Some(false)),
                    // The server does not support conditional writes.
                    501 if if_new => Ok(None),
                    _ => Err(self.client.refusal(response, limit).await.fault(&self.client.address.bucket)),
                }
            });
            if let Some(written) = written.await? {
                self.bucket_seen.store(true, Ordering::Relaxed);
                return Ok(written);
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
            // Packages are few and small, and the tasks of a whole fleet need them, so publishing a package again
            // repairs a damaged object.
            let mends = kind == BlobKind::Package;
            if mends || bytes.len() >= LOOK_FIRST {
                match self.head(&operation, &key, true).await? {
                    Some(head) if head.bytes == bytes.len() as u64 && head.is_young() => {
                        if !mends || self.holds(&operation, &key, &digest, bytes.len() as u64).await? {
                            return Ok(digest);
                        }
                        if_new = false;
                    }
                    // The object is damaged, and this write repairs it; or it is old, and this write makes it young.
                    Some(_) => if_new = false,
                    None => {}
                }
            }
            let written = self.write(&operation, &key, bytes, if_new).await?;
            if !written && self.head(&operation, &key, true).await?.is_none_or(|head| !head.is_young()) {
                self.write(&operation, &key, bytes, false).await?;
            }
            Ok(digest)
        })
    }

    fn get(&self, kind: BlobKind, digest: &Digest, max: u64) -> Result<Vec<u8>, StoreError> {
        let operation = format!("read {} {digest}", kind.folder());
        self.block_on(self.read(&operation, &self.blob_key(kind, digest), max, Some(digest)))
    }

    fn size(&self, kind: BlobKind, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let operation = format!("look for {} {digest}", kind.folder());
        Ok(self.block_on(self.head(&operation, &self.blob_key(kind, digest), false))?.map(|head| head.bytes))
    }
}

impl Owned for S3Blobs {
    fn owner(&self) -> Result<Option<String>, StoreError> {
        let key = self.key(OWNER);
        match self.block_on(self.read("read the owner of the blobs", &key, MAX_IDENTITY, None)) {
            Ok(bytes) => identity_of(&bytes, &format!("{}{OWNER}", self.client.address)).map(Some),
            Err(e) if e.kind == StoreErrorKind::Missing => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn own(&self, records: &str) -> Result<String, StoreError> {
        let key = self.key(OWNER);
        let gone = || {
            let operation = format!("read back the owner of the blobs in {}", self.client.address);
            StoreError::new(StoreErrorKind::Unavailable, operation, "it was written a moment ago, and is not there")
        };
        // An existing owner stays, whatever the server supports.
        if let Some(owner) = self.owner()? {
            return Ok(owner);
        }
        let content = format!("{records}\n");
        self.block_on(self.write("write the owner of the blobs", &key, content.as_bytes(), true))?;
        if !self.conditional.load(Ordering::Relaxed) {
            // If several processes write at once, such a server keeps the last object.
            std::thread::sleep(SETTLED);
        }
        self.owner()?.ok_or_else(gone)
    }

    fn is_empty(&self) -> Result<bool, StoreError> {
        for kind in BlobKind::ALL {
            // A whole page is listed, because a single object may belong to another program.
            if !self.page(kind, None, PAGE)?.0.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn place(&self) -> String {
        self.client.address.to_string()
    }
}

impl RemovableBlobs for S3Blobs {
    fn walk(&self, kind: BlobKind, visit: &mut BlobVisitor<'_>) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let (found, last) = self.page(kind, after.as_deref(), PAGE)?;
            for (digest, bytes) in found {
                visit(digest, bytes)?;
            }
            if last.is_none() {
                return Ok(());
            }
            after = last;
        }
    }

    fn age(&self, kind: BlobKind, digest: &Digest) -> Result<Option<Duration>, StoreError> {
        let operation = format!("look for {} {digest}", kind.folder());
        let head = self.block_on(self.head(&operation, &self.blob_key(kind, digest), false))?;
        // If the server does not tell the age of its objects, their age is zero and none is removed.
        Ok(head.map(|head| head.age.unwrap_or_default()))
    }

    fn remove(&self, kind: BlobKind, digest: &Digest, at_least: Duration) -> Result<bool, StoreError> {
        if self.age(kind, digest)?.is_none_or(|age| age < at_least) {
            return Ok(false);
        }
        let key = self.blob_key(kind, digest);
        let operation = format!("remove {} {digest}", kind.folder());
        self.block_on(async {
            self.client.attempts(&operation, 0, async |limit| self.accepted(&key, &Ask::Delete, limit).await).await
        })?;
        Ok(true)
    }
}
