//! The cache of blobs: it passes the port's conformance suite, spares the remote store, and stays within its capacity.

#![expect(clippy::unwrap_used, reason = "a failing test panics")]

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, SystemTime};

use dovetail_core::Digest;
use dovetail_core::blobs::{BlobKind, Blobs, StoreError, StoreErrorKind};
use dovetail_core::conformance;
use dovetail_core::memory::MemoryBlobs;
use dovetail_stores::{CachedBlobs, FileBlobs};

const KIND: BlobKind = BlobKind::Artifact;

/// A remote store that counts its requests, answers after a delay, and can be set to fail.
#[derive(Default)]
struct Far {
    blobs: MemoryBlobs,
    gets: AtomicUsize,
    puts: AtomicUsize,
    fails: AtomicBool,
    takes: Duration,
}

impl Far {
    fn answer<T>(&self, count: &AtomicUsize, answer: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        count.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(self.takes);
        if self.fails.load(Ordering::SeqCst) {
            Err(StoreError::plain(StoreErrorKind::Unavailable, "far is down"))
        } else {
            answer()
        }
    }

    fn gets(&self) -> usize {
        self.gets.load(Ordering::SeqCst)
    }
}

impl Blobs for Far {
    fn put(&self, kind: BlobKind, bytes: &[u8]) -> Result<Digest, StoreError> {
        self.answer(&self.puts, || self.blobs.put(kind, bytes))
    }

    fn get(&self, kind: BlobKind, digest: &Digest, max: u64) -> Result<Vec<u8>, StoreError> {
        self.answer(&self.gets, || self.blobs.get(kind, digest, max))
    }

    fn size(&self, kind: BlobKind, digest: &Digest) -> Result<Option<u64>, StoreError> {
        self.blobs.size(kind, digest)
    }
}

fn cache(folder: &Path, far: &Arc<Far>, capacity: u64) -> CachedBlobs {
    CachedBlobs::open(folder, far.clone(), capacity).unwrap()
}

/// The path of the cached file: the layout is that of the embedded folder.
fn file(folder: &Path, digest: &Digest) -> std::path::PathBuf {
    FileBlobs::new(folder).path(KIND, digest)
}

fn is_kept(folder: &Path, digest: &Digest) -> bool {
    file(folder, digest).is_file()
}

/// Sets the last use of the cached file to this many seconds ago.
fn age(folder: &Path, digest: &Digest, seconds: u64) {
    File::open(file(folder, digest)).unwrap().set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
}

fn bytes(n: u8, length: usize) -> Vec<u8> {
    vec![n; length]
}

#[test]
fn it_keeps_the_promises() {
    let folder = tempfile::tempdir().unwrap();
    conformance::blobs(&|| Arc::new(cache(folder.path(), &Arc::default(), 1 << 20)));
    // The suite also passes if nothing fits into the cache.
    let folder = tempfile::tempdir().unwrap();
    conformance::blobs(&|| Arc::new(cache(folder.path(), &Arc::default(), 3)));
}

#[test]
fn what_is_here_is_not_fetched_again() {
    let (folder, far) = (tempfile::tempdir().unwrap(), Arc::<Far>::default());
    let fetched = far.blobs.put(KIND, b"made elsewhere").unwrap();
    let first = cache(folder.path(), &far, 1 << 20);
    let written = first.put(KIND, b"made here").unwrap();
    assert_eq!(far.puts.load(Ordering::SeqCst), 1, "the far store has it, too");
    assert_eq!(first.get(KIND, &written, 100).unwrap(), b"made here");
    assert_eq!(far.gets(), 0);
    for _ in 0..3 {
        assert_eq!(first.get(KIND, &fetched, 100).unwrap(), b"made elsewhere");
    }
    assert_eq!(far.gets(), 1);
    // A second process, or a restart.
    let second = cache(folder.path(), &far, 1 << 20);
    assert_eq!(second.get(KIND, &fetched, 100).unwrap(), b"made elsewhere");
    assert_eq!(far.gets(), 1);
    far.fails.store(true, Ordering::SeqCst);
    assert_eq!(second.size(KIND, &fetched).unwrap(), Some(14));
    assert_eq!(second.get(KIND, &fetched, 13).unwrap_err().kind, StoreErrorKind::Refused);
}

#[test]
fn a_write_that_the_far_store_does_not_take_is_an_error_and_not_kept() {
    let (folder, far) = (tempfile::tempdir().unwrap(), Arc::<Far>::default());
    far.fails.store(true, Ordering::SeqCst);
    let cache = cache(folder.path(), &far, 1 << 20);
    assert_eq!(cache.put(KIND, b"x").unwrap_err().kind, StoreErrorKind::Unavailable);
    assert!(!is_kept(folder.path(), &Digest::of(b"x")));
}

#[test]
fn it_is_bounded_and_the_oldest_used_goes_first() {
    let (folder, far) = (tempfile::tempdir().unwrap(), Arc::<Far>::default());
    let cache = cache(folder.path(), &far, 1000);
    let digests: Vec<Digest> = (0..3).map(|n| cache.put(KIND, &bytes(n, 300)).unwrap()).collect();
    assert_eq!(cache.bytes().unwrap(), 900);
    for (digest, seconds) in digests.iter().zip([300, 200, 100]) {
        age(folder.path(), digest, seconds);
    }
    // A read makes the oldest file the youngest.
    cache.get(KIND, &digests[0], 300).unwrap();
    cache.put(KIND, &bytes(9, 300)).unwrap();
    assert_eq!(digests.iter().map(|digest| is_kept(folder.path(), digest)).collect::<Vec<_>>(), [true, false, true]);
    for n in 20..60 {
        cache.put(KIND, &bytes(n, usize::from(n) * 5)).unwrap();
        let held = cache.bytes().unwrap();
        assert!(held <= 1000, "{held} bytes after {n}");
    }
    assert_eq!(cache.get(KIND, &digests[1], 300).unwrap(), bytes(1, 300), "an evicted blob is fetched again");
    assert_eq!(far.gets(), 1);
}

#[test]
fn many_threads_stay_within_the_bound() {
    let (folder, far) = (tempfile::tempdir().unwrap(), Arc::<Far>::default());
    let cache = cache(folder.path(), &far, 10_000);
    std::thread::scope(|s| {
        for thread in 0..4_u8 {
            let cache = &cache;
            s.spawn(move || {
                for n in 0..50_u8 {
                    cache.put(KIND, &[bytes(thread, 400), bytes(n, 400)].concat()).unwrap();
                    assert!(cache.bytes().unwrap() <= 10_000);
                }
            });
        }
    });
    assert!(cache.bytes().unwrap() > 5_000, "and it is used");
}

#[test]
fn two_processes_stay_near_the_bound() {
    let (folder, far) = (tempfile::tempdir().unwrap(), Arc::<Far>::default());
    let (one, two) = (cache(folder.path(), &far, 16_000), cache(folder.path(), &far, 16_000));
    for n in 0..200_u8 {
        one.put(KIND, &[bytes(1, 150), bytes(n, 150)].concat()).unwrap();
        two.put(KIND, &[bytes(2, 150), bytes(n, 150)].concat()).unwrap();
        let held = one.bytes().unwrap();
        assert!(held <= 16_000 + 2 * 1_000, "{held} bytes: each may pass the bound by a sixteenth");
    }
}

#[test]
fn a_smaller_capacity_takes_effect_when_it_is_opened() {
    let (folder, far) = (tempfile::tempdir().unwrap(), Arc::<Far>::default());
    let large = cache(folder.path(), &far, 10_000);
    for n in 0..10 {
        large.put(KIND, &bytes(n, 1000)).unwrap();
    }
    assert!(large.bytes().unwrap() > 5_000);
    assert!(cache(folder.path(), &far, 2500).bytes().unwrap() <= 2500);
}

#[test]
fn what_is_too_large_is_served_and_not_kept() {
    let (folder, far) = (tempfile::tempdir().unwrap(), Arc::<Far>::default());
    let cache = cache(folder.path(), &far, 1000);
    let small = cache.put(KIND, &bytes(1, 1000)).unwrap();
    let large = cache.put(KIND, &bytes(2, 1001)).unwrap();
    assert_eq!(cache.get(KIND, &large, 2000).unwrap(), bytes(2, 1001));
    assert!(is_kept(folder.path(), &small), "and evicts nothing");
    assert!(!is_kept(folder.path(), &large));
}

#[test]
fn what_is_being_read_is_not_evicted() {
    let (folder, far) = (tempfile::tempdir().unwrap(), Arc::<Far>::default());
    let cache = cache(folder.path(), &far, 1000);
    let read = cache.put(KIND, &bytes(1, 600)).unwrap();
    age(folder.path(), &read, 1000);
    // A reader in any process holds this lock.
    let reader = File::open(file(folder.path(), &read)).unwrap();
    reader.lock_shared().unwrap();
    let other = cache.put(KIND, &bytes(2, 600)).unwrap();
    assert!(is_kept(folder.path(), &read));
    assert!(!is_kept(folder.path(), &other), "there was no room for it");
    assert_eq!(cache.get(KIND, &other, 600).unwrap(), bytes(2, 600));
    drop(reader);
    cache.put(KIND, &bytes(3, 600)).unwrap();
    assert!(!is_kept(folder.path(), &read), "now there is");
}

#[test]
fn a_damaged_file_is_fetched_again() {
    let (folder, far) = (tempfile::tempdir().unwrap(), Arc::<Far>::default());
    let cache = cache(folder.path(), &far, 1000);
    let digest = cache.put(KIND, b"weights").unwrap();
    for damage in [&b"weighty"[..], b"weig", b""] {
        std::fs::write(file(folder.path(), &digest), damage).unwrap();
        assert_eq!(cache.get(KIND, &digest, 100).unwrap(), b"weights");
        assert_eq!(std::fs::read(file(folder.path(), &digest)).unwrap(), b"weights", "and mended");
    }
    assert_eq!(far.gets(), 3);
}

#[test]
fn a_damaged_package_is_not_given_out_even_where_there_is_no_other() {
    let (folder, far) = (tempfile::tempdir().unwrap(), Arc::<Far>::default());
    let cache = cache(folder.path(), &far, 1000);
    let digest = cache.put(BlobKind::Package, b"package").unwrap();
    let file = FileBlobs::new(folder.path()).path(BlobKind::Package, &digest);
    std::fs::write(&file, b"packagf").unwrap();
    far.fails.store(true, Ordering::SeqCst);
    assert_eq!(cache.get(BlobKind::Package, &digest, 100).unwrap_err().kind, StoreErrorKind::Unavailable);
    far.fails.store(false, Ordering::SeqCst);
    assert_eq!(cache.get(BlobKind::Package, &digest, 100).unwrap(), b"package");
    assert_eq!(std::fs::read(&file).unwrap(), b"package", "and mended");
}

#[test]
fn a_disk_that_fails_fails_nobody() {
    let (folder, far) = (tempfile::tempdir().unwrap(), Arc::<Far>::default());
    let cache = cache(folder.path(), &far, 1000);
    std::fs::create_dir_all(folder.path().join("blobs")).unwrap();
    std::fs::write(folder.path().join("blobs/artifacts"), b"in the way").unwrap();
    let digest = cache.put(KIND, b"weights").unwrap();
    assert_eq!(cache.get(KIND, &digest, 100).unwrap(), b"weights");
    assert_eq!(far.gets(), 1);
}

#[test]
fn an_embedded_data_folder_is_not_taken_for_a_cache() {
    let folder = tempfile::tempdir().unwrap();
    let truth = FileBlobs::new(folder.path()).put(KIND, b"only here").unwrap();
    let error = CachedBlobs::open(folder.path(), Arc::<Far>::default(), 1).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Refused);
    assert!(error.source.unwrap().to_string().contains("CACHEDIR.TAG"));
    assert!(is_kept(folder.path(), &truth));
}

#[test]
fn what_a_killed_process_left_half_written_goes() {
    let (folder, far) = (tempfile::tempdir().unwrap(), Arc::<Far>::default());
    let digest = cache(folder.path(), &far, 1000).put(KIND, b"x").unwrap();
    let leave = |name: &str, age: u64| {
        let path = file(folder.path(), &digest).with_file_name(name);
        std::fs::write(&path, b"half").unwrap();
        File::open(&path).unwrap().set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        path
    };
    let (old, new) = (leave(".new-old", 7200), leave(".new-new", 60));
    assert_eq!(cache(folder.path(), &far, 1000).bytes().unwrap(), 1);
    assert!(!old.is_file() && new.is_file(), "the new one may be being written");
}

#[test]
fn many_readers_of_one_blob_fetch_it_once() {
    let folder = tempfile::tempdir().unwrap();
    // This also holds for a blob that the cache does not keep.
    for capacity in [1 << 20, 10] {
        let far = Arc::new(Far { takes: Duration::from_millis(200), ..Far::default() });
        let digest = far.blobs.put(KIND, &bytes(1, 1000)).unwrap();
        let cache = cache(&folder.path().join(capacity.to_string()), &far, capacity);
        let start = Barrier::new(8);
        std::thread::scope(|s| {
            for _ in 0..8 {
                s.spawn(|| {
                    start.wait();
                    assert_eq!(cache.get(KIND, &digest, 1000).unwrap(), bytes(1, 1000));
                });
            }
        });
        assert_eq!(far.gets(), 1, "capacity {capacity}");
    }
}

#[test]
fn many_readers_waiting_for_a_fetch_that_fails_learn_it_soon() {
    let folder = tempfile::tempdir().unwrap();
    let far = Arc::new(Far { takes: Duration::from_millis(200), fails: AtomicBool::new(true), ..Far::default() });
    let cache = cache(folder.path(), &far, 1000);
    let start = Barrier::new(8);
    let began = std::time::Instant::now();
    std::thread::scope(|s| {
        for _ in 0..8 {
            s.spawn(|| {
                start.wait();
                assert_eq!(cache.get(KIND, &Digest::of(b"x"), 1000).unwrap_err().kind, StoreErrorKind::Unavailable);
            });
        }
    });
    assert!(began.elapsed() < Duration::from_millis(1200), "not one after another: {:?}", began.elapsed());
    // The next fetch does not wait for the failed one.
    far.fails.store(false, Ordering::SeqCst);
    let digest = far.blobs.put(KIND, b"x").unwrap();
    assert_eq!(cache.get(KIND, &digest, 1000).unwrap(), b"x");
}
