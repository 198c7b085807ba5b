//! Faults by name, and load beside them. Each fault strikes, lasts for its time, and heals.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::fleet::{Fleet, LONG, User, busy, wait};
use crate::http::Spoil;
use crate::proxy::{Mode, Proxy};
use crate::servers::{Server, free_port};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    WorkerKilled,
    WorkerFrozen,
    WorkersReplaced,
    RedisKilled,
    RedisEmptied,
    RedisRestored,
    RedisCutShort,
    RedisLoads,
    RedisFrozen,
    RedisSleeps,
    RedisFull,
    RedisReadOnly,
    ScriptsForgotten,
    RedisSlow,
    RedisCutOff,
    RedisResets,
    RedisAnswersLost,
    RecordsKilled,
    RecordsFrozen,
    RecordsSlow,
    RecordsCutOff,
    RecordsAnswersLost,
    BlobsKilled,
    BlobsSlow,
    BlobsRefuse,
    BlobsCutShort,
    BlobsDamaged,
    BlobsCutOff,
}

impl Fault {
    pub(crate) const ALL: [Self; 28] = [
        Self::WorkerKilled,
        Self::WorkerFrozen,
        Self::WorkersReplaced,
        Self::RedisKilled,
        Self::RedisEmptied,
        Self::RedisRestored,
        Self::RedisCutShort,
        Self::RedisLoads,
        Self::RedisFrozen,
        Self::RedisSleeps,
        Self::RedisFull,
        Self::RedisReadOnly,
        Self::ScriptsForgotten,
        Self::RedisSlow,
        Self::RedisCutOff,
        Self::RedisResets,
        Self::RedisAnswersLost,
        Self::RecordsKilled,
        Self::RecordsFrozen,
        Self::RecordsSlow,
        Self::RecordsCutOff,
        Self::RecordsAnswersLost,
        Self::BlobsKilled,
        Self::BlobsSlow,
        Self::BlobsRefuse,
        Self::BlobsCutShort,
        Self::BlobsDamaged,
        Self::BlobsCutOff,
    ];

    /// Whether the fault strikes the server of the records, or the proxy before that server.
    pub(crate) fn is_of_mongodb(self) -> bool {
        matches!(
            self,
            Self::RecordsKilled
                | Self::RecordsFrozen
                | Self::RecordsSlow
                | Self::RecordsCutOff
                | Self::RecordsAnswersLost
        )
    }

    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::WorkerKilled => "worker: SIGKILL, another one starts",
            Self::WorkerFrozen => "worker: SIGSTOP for 1 to 2.5 leases, SIGCONT",
            Self::WorkersReplaced => "all workers: SIGTERM one by one, others start",
            Self::RedisKilled => "Redis: SIGKILL, started again (AOF everysec)",
            Self::RedisEmptied => "Redis: FLUSHALL",
            Self::RedisRestored => "Redis: SIGKILL, started on a copy 1 to 2 s old",
            Self::RedisCutShort => {
                "Redis: SIGKILL, started without the last 1 to 64 KiB of its file, which is rewritten"
            }
            Self::RedisLoads => "Redis: SIGKILL, started with a file that takes long to read",
            Self::RedisSleeps => "Redis: DEBUG SLEEP for 1 to 2 leases",
            Self::RedisFrozen => "Redis: SIGSTOP for 1 to 2 leases, SIGCONT",
            Self::RedisFull => "Redis: maxmemory 1mb for 2 s",
            Self::RedisReadOnly => "Redis: a replica of an unreachable primary for 2 s",
            Self::ScriptsForgotten => "Redis: SCRIPT FLUSH 50 times in a second",
            Self::RedisSlow => "to Redis: 50 ms each way for 3 s",
            Self::RedisCutOff => "to Redis: nothing passes for 1.5 leases",
            Self::RedisResets => "to Redis: connections are reset for 1 s",
            Self::RedisAnswersLost => "to Redis: each 7th answer is lost for 3 s",
            Self::RecordsKilled => "records: SIGKILL, started again",
            Self::RecordsFrozen => "records: SIGSTOP for 3 s, SIGCONT",
            Self::RecordsSlow => "to the records: 50 ms each way for 3 s",
            Self::RecordsCutOff => "to the records: nothing passes for 1.5 leases",
            Self::RecordsAnswersLost => "to the records: each 7th answer is lost for 3 s",
            Self::BlobsKilled => "blobs: SIGKILL, started again",
            Self::BlobsSlow => "to the blobs: 100 ms and 400 KB/s each way for 4 s",
            Self::BlobsRefuse => "to the blobs: 503 SlowDown for 3 s",
            Self::BlobsCutShort => "to the blobs: each 2nd object breaks off for 3 s",
            Self::BlobsDamaged => "to the blobs: a byte of each 2nd object is changed for 3 s",
            Self::BlobsCutOff => "to the blobs: nothing passes for 1.5 leases",
        }
    }

    /// Strikes, and heals again.
    pub(crate) fn strike(self, fleet: &mut Fleet, random: &mut Random) {
        let lease = Duration::from_secs(fleet.setup.lease);
        let line = |proxy: &Option<Proxy>, mode: Mode, time: Duration| {
            let proxy = proxy.as_ref().expect("a fleet with lines");
            proxy.set(mode);
            std::thread::sleep(time);
            proxy.set(Mode::Pass);
        };
        let blobs = |spoil: Spoil, time: Duration| {
            let proxy = fleet.to_s3.as_ref().expect("a fleet with S3 and lines");
            proxy.set(spoil);
            std::thread::sleep(time);
            proxy.set(Spoil::Nothing);
        };
        let short = Duration::from_millis(50);
        match self {
            Self::WorkerKilled => {
                let worker = random.below(fleet.workers.len());
                fleet.kill(worker);
                fleet.worker();
            }
            Self::WorkerFrozen => {
                let worker = random.below(fleet.workers.len());
                fleet.freeze(worker);
                std::thread::sleep(lease.mul_f64(random.between(1.0, 2.5)));
                fleet.thaw(worker);
            }
            Self::WorkersReplaced => {
                for _ in 0..fleet.workers.len() {
                    fleet.worker();
                    fleet.drain(0);
                }
            }
            Self::RedisKilled => {
                fleet.redis.kill();
                std::thread::sleep(Duration::from_secs_f64(random.between(0.0, 1.5)));
                fleet.redis.again();
            }
            Self::RedisEmptied => drop(fleet.redis.redis(&["FLUSHALL"]).unwrap()),
            Self::RedisRestored => {
                let files = fleet.redis.folder().join("appendonlydir");
                let old = files.with_extension("old");
                copy(&files, &old);
                std::thread::sleep(Duration::from_secs_f64(random.between(1.0, 2.0)));
                fleet.redis.kill();
                std::fs::remove_dir_all(&files).unwrap();
                std::fs::rename(&old, &files).unwrap();
                fleet.redis.again();
            }
            Self::RedisCutShort => {
                fleet.redis.kill();
                cut_short(&fleet.redis.folder().join("appendonlydir"), random);
                fleet.redis.again();
                // docs/operations.md asks for the same: otherwise the beginning of a transaction that was cut stays in
                // the file, and Redis executes it when the file is read again.
                rewrite(&fleet.redis);
            }
            Self::RedisLoads => {
                // The data are in a database of their own, which no fleet reads.
                let redis = &mut fleet.redis;
                drop(redis.redis_in(1, &["DEBUG", "POPULATE", "2000000"]).unwrap());
                rewrite(redis);
                redis.kill();
                redis.again();
                drop(redis.redis_in(1, &["FLUSHDB", "ASYNC"]).unwrap());
                assert!(redis.was_loading(), "Redis read its file too quickly: no process has met it loading");
            }
            Self::RedisSleeps => {
                let time = lease.mul_f64(random.between(1.0, 2.0)).as_secs_f64();
                drop(fleet.redis.redis(&["DEBUG", "SLEEP", &time.to_string()]).unwrap());
            }
            Self::RedisFrozen => {
                fleet.redis.freeze();
                std::thread::sleep(lease.mul_f64(random.between(1.0, 2.0)));
                fleet.redis.thaw();
            }
            Self::RedisFull => {
                drop(fleet.redis.redis(&["CONFIG", "SET", "maxmemory", "1mb"]).unwrap());
                std::thread::sleep(Duration::from_secs(2));
                drop(fleet.redis.redis(&["CONFIG", "SET", "maxmemory", "0"]).unwrap());
            }
            Self::RedisReadOnly => {
                drop(fleet.redis.redis(&["REPLICAOF", "127.0.0.1", &free_port().to_string()]).unwrap());
                std::thread::sleep(Duration::from_secs(2));
                drop(fleet.redis.redis(&["REPLICAOF", "NO", "ONE"]).unwrap());
            }
            Self::ScriptsForgotten => {
                for _ in 0..50 {
                    drop(fleet.redis.redis(&["SCRIPT", "FLUSH"]).unwrap());
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            Self::RedisSlow => line(&fleet.to_redis, Mode::Slow(short), Duration::from_secs(3)),
            Self::RedisCutOff => line(&fleet.to_redis, Mode::Dead, lease.mul_f64(1.5)),
            Self::RedisResets => line(&fleet.to_redis, Mode::Reset, Duration::from_secs(1)),
            Self::RedisAnswersLost => line(&fleet.to_redis, Mode::LoseAnswers(7), Duration::from_secs(3)),
            Self::RecordsKilled => {
                let records = fleet.mongodb.as_mut().expect("a fleet with MongoDB");
                records.kill();
                std::thread::sleep(Duration::from_secs_f64(random.between(0.5, 2.0)));
                records.again();
            }
            Self::RecordsFrozen => {
                let records = fleet.mongodb.as_ref().expect("a fleet with MongoDB");
                records.freeze();
                std::thread::sleep(Duration::from_secs(3));
                records.thaw();
            }
            Self::RecordsSlow => line(&fleet.to_mongodb, Mode::Slow(short), Duration::from_secs(3)),
            Self::RecordsCutOff => line(&fleet.to_mongodb, Mode::Dead, lease.mul_f64(1.5)),
            Self::RecordsAnswersLost => line(&fleet.to_mongodb, Mode::LoseAnswers(7), Duration::from_secs(3)),
            Self::BlobsKilled => {
                let server = fleet.s3.as_mut().expect("a fleet with S3");
                server.kill();
                std::thread::sleep(Duration::from_secs_f64(random.between(0.5, 2.0)));
                server.again();
            }
            Self::BlobsSlow => blobs(Spoil::Slow { late: short * 2, rate: 400_000 }, Duration::from_secs(4)),
            Self::BlobsRefuse => blobs(Spoil::Refuse, Duration::from_secs(3)),
            Self::BlobsCutShort => blobs(Spoil::CutBodies { of: 2 }, Duration::from_secs(3)),
            Self::BlobsDamaged => blobs(Spoil::FlipBytes { of: 2 }, Duration::from_secs(3)),
            Self::BlobsCutOff => blobs(Spoil::Dead, lease.mul_f64(1.5)),
        }
    }
}

fn copy(from: &Path, to: &Path) {
    drop(std::fs::remove_dir_all(to));
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Makes Redis write a new append-only file from its memory.
fn rewrite(redis: &Server) {
    drop(redis.redis(&["BGREWRITEAOF"]).unwrap());
    wait("the file is written", LONG, || {
        redis.info("aof_rewrite_in_progress") + redis.info("aof_rewrite_scheduled") == 0
    });
}

/// Cuts the end of the append-only file that was written last, as a loss of power does.
fn cut_short(files: &Path, random: &mut Random) {
    let names = std::fs::read_dir(files).unwrap().map(|entry| entry.unwrap().path());
    let last = names
        .filter(|path| path.extension().is_some_and(|end| end == "aof") && path.to_string_lossy().contains(".incr."))
        .max()
        .unwrap();
    let file = std::fs::File::options().write(true).open(last).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length.saturating_sub(u64::try_from(random.below(64 << 10)).unwrap() + 1)).unwrap();
}

/// A random plan that can be repeated: `DOVETAIL_FAULT_SEED` sets its seed.
pub(crate) struct Random(u64);

impl Random {
    /// Prints its seed.
    pub(crate) fn new() -> Self {
        let given = std::env::var("DOVETAIL_FAULT_SEED")
            .ok()
            .map(|seed| seed.parse().expect("DOVETAIL_FAULT_SEED is a number"));
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos();
        let seed = given.unwrap_or_else(|| u64::from(time));
        println!("the same again: DOVETAIL_FAULT_SEED={seed}");
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }

    pub(crate) fn between(&mut self, least: f64, most: f64) -> f64 {
        let part = f64::from(u32::try_from(self.next() >> 32).unwrap()) / f64::from(u32::MAX);
        least + (most - least) * part
    }
}

/// Submits runs, one after the other, until it is stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(user: &Arc<User>, pause: Duration) -> Self {
        let (stop, user) = (Arc::new(AtomicBool::new(false)), user.clone());
        let until = stop.clone();
        let submit = move || {
            let (began, files) = (Instant::now(), user.published.contains_key("files"));
            for n in 0..i64::MAX {
                if until.load(Ordering::SeqCst) {
                    return;
                }
                match n % 4 {
                    0 => user.submit("chain", &json!({ "x": n })),
                    // The output is too large for the outcome's record, so it goes to the blobs.
                    2 if files => user.submit_files(),
                    1 => user.submit("probe", &json!({ "behaviour": { "tag": "huge_output", "val": 20_000 } })),
                    _ => user
                        .submit("diamond", &json!({ "x": n, "behaviour": busy(u64::try_from(n % 5).unwrap() * 10) })),
                };
                let due = pause * u32::try_from(n).unwrap();
                std::thread::sleep(due.saturating_sub(began.elapsed()).min(pause));
            }
        };
        Self { stop, thread: Some(std::thread::spawn(submit)) }
    }

    pub(crate) fn stop(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().expect("every submission was acknowledged");
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}
