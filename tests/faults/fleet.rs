//! A fleet of real worker processes on servers of its own, with the runs that were submitted to it and the executions
//! that its workers' logs tell.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use dovetail_core::RunId;
use dovetail_core::blobs::StoreError;
use dovetail_core::ledger::{Kind, RunKey};
use dovetail_core::meta::MetaStore;
use dovetail_flow::{FleetLedger, FlowError, Ports, Published, SystemClock};
use dovetail_stores::{open_blobs, open_meta, open_window};
use rustix::process::Signal;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::disks::Disk;
use crate::files;
use crate::http::HttpProxy;
use crate::proxy::Proxy;
use crate::root;
use crate::servers::{Server, What, signal};

/// The parts of a fleet.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    /// Records in the MongoDB stand-in instead of SQLite.
    pub(crate) mongodb: bool,
    /// Blobs in MinIO instead of files.
    pub(crate) s3: bool,
    /// The workers reach Redis, MongoDB and MinIO through proxies that can fail.
    pub(crate) proxies: bool,
    /// Each worker has a data folder of its own, as on another machine, so it fetches the blobs that another worker
    /// has. Not possible with SQLite.
    pub(crate) apart: bool,
    /// The server that has a small disk of its own.
    pub(crate) small: Option<What>,
    /// Redis has a clock that can be set (`Server::set_clock`).
    pub(crate) redis_clock: bool,
    /// The lease of a job, in seconds.
    pub(crate) lease: u64,
    pub(crate) slots: u32,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            mongodb: false,
            s3: false,
            proxies: false,
            apart: false,
            small: None,
            redis_clock: false,
            lease: 2,
            slots: 4,
        }
    }
}

/// A worker process and its log.
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) child: Child,
    pub(crate) log: PathBuf,
}

/// An execution of a step, as a worker's log tells it.
#[derive(Debug, Clone)]
pub(crate) struct Execution {
    pub(crate) worker: String,
    pub(crate) run: String,
    pub(crate) step: String,
    pub(crate) at_ms: u64,
}

/// Submits runs to the fleet; the faults do not touch its connections.
pub(crate) struct User {
    pub(crate) ports: Ports,
    pub(crate) published: BTreeMap<&'static str, Published>,
    /// The acknowledged runs, each with its expected output if it has one.
    pub(crate) submitted: Mutex<BTreeMap<RunKey, Option<Value>>>,
}

impl User {
    /// Submits until the run is acknowledged.
    pub(crate) fn submit(&self, pipeline: &str, inputs: &Value) -> RunKey {
        let run = dovetail_flow::new_run_id();
        self.submit_as(&run, pipeline, inputs)
    }

    pub(crate) fn submit_as(&self, run: &RunId, pipeline: &str, inputs: &Value) -> RunKey {
        let began = Instant::now();
        while let Err(error) = self.try_submit(run, pipeline, inputs) {
            assert!(began.elapsed() < LONG, "a submission is never acknowledged: {error:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
        RunKey { run: run.clone(), generation: 0 }
    }

    pub(crate) fn try_submit(&self, run: &RunId, pipeline: &str, inputs: &Value) -> Result<(), FlowError> {
        dovetail_flow::submit(&self.ports, &self.published[pipeline], inputs, run)?;
        let total = |key: &str| inputs[key].as_i64();
        let expected = match pipeline {
            "diamond" => total("x").map(|x| json!({ "total": 2 * x + 112 })),
            "chain" => total("x").map(|x| json!({ "sum": x + 3 })),
            "hasty" => None,
            "files" => Some(files::expected(&*self.ports.blobs, inputs)),
            // The step succeeds, unless its task loops for ever.
            _ => (inputs["behaviour"]["tag"] != "endless_loop").then(|| json!({})),
        };
        self.submitted.lock().unwrap().insert(RunKey { run: run.clone(), generation: 0 }, expected);
        Ok(())
    }

    /// Submits a run over new files; storing them is tried again until it succeeds.
    pub(crate) fn submit_files(&self) -> RunKey {
        let began = Instant::now();
        loop {
            match files::inputs(&*self.ports.blobs) {
                Ok(inputs) => return self.submit("files", &inputs),
                Err(error) => assert!(began.elapsed() < LONG, "files are never stored: {error:?}"),
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Submits this many runs, chains and diamonds, with steps of a few milliseconds.
    pub(crate) fn load(&self, runs: i64) {
        for n in 0..runs {
            if n % 3 == 0 {
                self.submit("chain", &json!({ "x": n }));
            } else {
                self.submit("diamond", &json!({ "x": n, "behaviour": busy(10) }));
            }
        }
    }
}

pub(crate) struct Fleet {
    pub(crate) setup: Setup,
    pub(crate) redis: Server,
    pub(crate) mongodb: Option<Server>,
    pub(crate) s3: Option<Server>,
    pub(crate) to_redis: Option<Proxy>,
    pub(crate) to_mongodb: Option<Proxy>,
    pub(crate) to_s3: Option<HttpProxy>,
    pub(crate) user: Arc<User>,
    pub(crate) meta: Arc<dyn MetaStore>,
    pub(crate) workers: Vec<Process>,
    /// The logs of workers that have ended; they count, too.
    pub(crate) ended: Vec<PathBuf>,
    /// Outcomes as they were first read.
    pub(crate) seen: BTreeMap<(Kind, String), Vec<u8>>,
    /// Submitted runs whose outcome was found. An outcome stays, so these runs are not looked up again.
    over: Mutex<BTreeSet<RunKey>>,
    count: usize,
    // The fields below are dropped last: the disk is unmounted after the servers have ended.
    pub(crate) disk: Option<Disk>,
    folder: tempfile::TempDir,
}

pub(crate) fn program() -> PathBuf {
    let program = root().join("target/release/dovetail");
    assert!(program.is_file(), "{} is missing: run `cargo build --release -p dovetail`", program.display());
    program
}

/// Waits for a condition. `within` is generous, and is reached only if the condition never becomes true.
#[track_caller]
pub(crate) fn wait(what: &str, within: Duration, mut until: impl FnMut() -> bool) {
    let began = Instant::now();
    while !until() {
        assert!(began.elapsed() < within, "not true within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) const LONG: Duration = Duration::from_secs(60);

/// The package of a test plugin, packed once for all tests.
fn package(name: &str) -> PathBuf {
    static PACKED: OnceLock<Mutex<BTreeMap<String, PathBuf>>> = OnceLock::new();
    let mut packed = PACKED.get_or_init(Mutex::default).lock().unwrap();
    let pack = || {
        let component =
            root().join("plugins/target/wasm32-wasip2/release").join(format!("{}.wasm", name.replace('-', "_")));
        assert!(component.is_file(), "{} is missing: run `./justw plugins`", component.display());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults-packages");
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("{name}.zip"));
        let mut command = Command::new(program());
        command
            .arg("--data")
            .arg(&folder)
            .args(["task", "pack"])
            .arg(root().join("plugins/tests").join(name))
            .arg("-o")
            .arg(&file);
        ran(command.env_clear().env("HOME", &folder));
        file
    };
    packed.entry(name.to_owned()).or_insert_with(pack).clone()
}

fn ran(command: &mut Command) {
    let out = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        out.status.success(),
        "{command:?}\n{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
}

/// A head, two branches, their join, and a step beside them: either sink can be the run's last step.
fn diamond() -> Value {
    json!({ "name": "diamond", "version": "1.0.0", "inputs": { "x": {}, "behaviour": {} },
        "steps": {
            "head": { "number": 1, "task": "add@^1", "inputs": { "a": "input.x", "b": {"value": 1} } },
            "left": { "number": 2, "task": "add@^1", "inputs": { "a": "head.sum", "b": {"value": 10} } },
            "right": { "number": 3, "task": "add@^1", "inputs": { "a": "head.sum", "b": {"value": 100} } },
            "work": { "number": 4, "task": "probe@^1", "inputs": { "behaviour": "input.behaviour" } },
            "join": { "number": 5, "task": "add@^1", "inputs": { "a": "left.sum", "b": "right.sum" } } },
        "output": { "total": "join.sum", "work": "work.count" } })
}

/// Three steps, each of which uses the output of the step before: the last one closes the run.
fn chain() -> Value {
    let step = |number: u32, from: &str| {
        json!({ "number": number, "task": "add@^1",
        "inputs": { "a": from, "b": {"value": 1} } })
    };
    json!({ "name": "chain", "version": "1.0.0", "inputs": { "x": {} },
        "steps": { "one": step(1, "input.x"), "two": step(2, "one.sum"), "three": step(3, "two.sum") },
        "output": { "sum": "three.sum" } })
}

/// One step that behaves as its input says.
fn probe() -> Value {
    json!({ "name": "probe", "version": "1.0.0", "inputs": { "behaviour": {} },
        "steps": { "go": { "number": 1, "task": "probe@^1", "inputs": { "behaviour": "input.behaviour" } } },
        "output": { "count": "go.count" } })
}

/// The same with a short timeout.
fn hasty() -> Value {
    let mut hasty = probe();
    hasty["name"] = json!("hasty");
    hasty["steps"]["go"]["timeout"] = json!(format!("{HASTY_MS}ms"));
    hasty["steps"]["go"]["retry"] = json!({ "max_attempts": 1 });
    hasty
}

/// The timeout of the step of `hasty`, in milliseconds.
pub(crate) const HASTY_MS: u64 = 60;

/// A behaviour that computes for about this many milliseconds.
pub(crate) fn busy(millis: u64) -> Value {
    json!({ "tag": "busy", "val": millis * 1000 })
}

impl Fleet {
    /// Starts the servers, and publishes packages and pipelines; there is no worker yet.
    pub(crate) fn new(setup: Setup) -> Self {
        // The folder is in memory if `/dev/shm` exists: a process that is killed loses no file there either, and disks
        // differ from machine to machine.
        let memory = Path::new("/dev/shm");
        let folder = tempfile::Builder::new().prefix("dovetail-faults-").tempdir_in(if memory.is_dir() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        });
        let folder = folder.unwrap();
        // MinIO gets a larger disk, because it keeps some hundred MiB free.
        let size = |what| if what == What::S3 { 1500 } else { 64 };
        let disk = setup.small.map(|what| Disk::new(&Server::folder_of(what, folder.path()), size(what)));
        if setup.redis_clock {
            Server::give_clock(What::Redis, folder.path());
        }
        let redis = Server::start(What::Redis, folder.path());
        let mongodb = setup.mongodb.then(|| Server::start(What::MongoDb, folder.path()));
        let s3 = setup.s3.then(|| Server::start(What::S3, folder.path()));
        let to_redis = setup.proxies.then(|| Proxy::to(redis.port()));
        let to_mongodb = mongodb.as_ref().filter(|_| setup.proxies).map(|server| Proxy::to(server.port()));
        let to_s3 = s3.as_ref().filter(|_| setup.proxies).map(|server| HttpProxy::to(server.port()));
        assert!(mongodb.is_some() || !setup.apart, "workers with data folders of their own share no SQLite");
        let data = folder.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        let meta = mongodb.as_ref().map_or_else(|| "sqlite:".to_owned(), |server| mongodb_url(LOCAL, server.port()));
        let meta = open_meta(&meta, &data, "faults", Arc::new(SystemClock)).unwrap();
        let window = open_window(&redis_url("127.0.0.1", redis.port()), "faults", "the-test").unwrap();
        let blobs =
            open_blobs(&s3.as_ref().map_or_else(|| "file:".to_owned(), |server| s3_url(LOCAL, server.port())), &data)
                .unwrap();
        let ledger = Arc::new(FleetLedger::new(meta.clone(), window).unwrap());
        let ports = Ports { ledger, blobs, clock: Arc::new(SystemClock) };
        let user = Arc::new(User { ports: ports.clone(), published: BTreeMap::new(), submitted: Mutex::default() });
        let (workers, ended, seen) = (Vec::new(), Vec::new(), BTreeMap::new());
        let mut fleet = Self {
            setup,
            redis,
            mongodb,
            s3,
            to_redis,
            to_mongodb,
            to_s3,
            user,
            meta,
            workers,
            ended,
            seen,
            over: Mutex::default(),
            count: 0,
            disk,
            folder,
        };
        let published = fleet.publish();
        fleet.user = Arc::new(User { ports, published, submitted: Mutex::default() });
        fleet
    }

    fn publish(&self) -> BTreeMap<&'static str, Published> {
        let mut push = self.command(false);
        push.args(["task", "push"]).args([package("add"), package("probe")]);
        if self.setup.s3 {
            push.args([package("copy-artifact"), package("crop-faces")]);
        }
        ran(&mut push);
        let push = |(name, pipeline): (&'static str, Value)| {
            let file = self.folder.path().join(format!("{name}.json"));
            std::fs::write(&file, pipeline.to_string()).unwrap();
            ran(self.command(false).args(["pipeline", "push"]).arg(&file));
            (name, dovetail_flow::pipeline(&self.user.ports, name).unwrap())
        };
        let files = self.setup.s3.then(|| ("files", files::pipeline()));
        [("diamond", diamond()), ("chain", chain()), ("probe", probe()), ("hasty", hasty())]
            .into_iter()
            .chain(files)
            .map(push)
            .collect()
    }

    /// The program with this fleet's settings.
    pub(crate) fn command(&self, through_proxies: bool) -> Command {
        self.command_in("data", through_proxies)
    }

    /// The same, with a data folder of this name.
    fn command_in(&self, data: &str, through_proxies: bool) -> Command {
        let mut command = Command::new(program());
        let through =
            |proxy: &Option<Proxy>, direct: u16| proxy.as_ref().filter(|_| through_proxies).map_or(direct, Proxy::port);
        command.arg("--data").arg(self.folder.path().join(data)).env_clear().env("HOME", self.folder.path());
        command.env("DOVETAIL_FLEET", "faults");
        command.env("DOVETAIL_QUEUE", redis_url(LOCAL, through(&self.to_redis, self.redis.port())));
        if let Some(server) = &self.mongodb {
            command.env("DOVETAIL_META", mongodb_url(LOCAL, through(&self.to_mongodb, server.port())));
        }
        if let Some(server) = &self.s3 {
            let proxy = self.to_s3.as_ref().filter(|_| through_proxies);
            command.env("DOVETAIL_BLOBS", s3_url(LOCAL, proxy.map_or(server.port(), HttpProxy::port)));
        }
        command
            .env("DOVETAIL_WORKER_LEASE", format!("{}s", self.setup.lease))
            .env("DOVETAIL_WORKER_JOBS", self.setup.slots.to_string());
        command.env("DOVETAIL_LOG_FORMAT", "json").env("DOVETAIL_LOG_LEVEL", "debug").stdin(Stdio::null());
        command
    }

    /// Starts a worker and waits until its log says that it works.
    pub(crate) fn worker(&mut self) -> usize {
        self.worker_with(&[])
    }

    pub(crate) fn worker_with(&mut self, variables: &[(&str, &str)]) -> usize {
        self.start_worker(variables);
        let worker = self.workers.last().unwrap();
        let log = worker.log.clone();
        wait("the worker works", LONG, || std::fs::read_to_string(&log).unwrap().contains("\"working\""));
        self.workers.len() - 1
    }

    /// Starts a worker without waiting: its servers may not answer yet.
    pub(crate) fn start_worker(&mut self, variables: &[(&str, &str)]) {
        let command = self.worker_command();
        self.start_as_worker(command, variables);
    }

    /// The command of the next worker, with its settings.
    pub(crate) fn worker_command(&self) -> Command {
        if self.setup.apart { self.command_in(&format!("data-{}", self.count + 1), true) } else { self.command(true) }
    }

    /// Starts a worker of another version of the program.
    pub(crate) fn worker_of(&mut self, program: &Path) {
        let usual = self.worker_command();
        let mut command = Command::new(program);
        command
            .args(usual.get_args())
            .env_clear()
            .envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .stdin(Stdio::null());
        self.start_as_worker(command, &[]);
    }

    pub(crate) fn start_as_worker(&mut self, mut command: Command, variables: &[(&str, &str)]) {
        self.count += 1;
        let name = format!("w{}", self.count);
        let log = self.folder.path().join(format!("{name}.log"));
        command.args(["worker", "--name", &name]).envs(variables.iter().copied());
        let child = command.stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
        self.workers.push(Process { name, child, log });
    }

    pub(crate) fn workers(&mut self, count: usize) {
        for _ in 0..count {
            self.worker();
        }
    }

    /// Kills a worker (SIGKILL); its log still counts.
    pub(crate) fn kill(&mut self, worker: usize) {
        let mut process = self.workers.remove(worker);
        drop(process.child.kill());
        drop(process.child.wait());
        self.ended.push(process.log);
    }

    /// Stops a worker (SIGTERM), and waits until it ends with exit code 0.
    pub(crate) fn drain(&mut self, worker: usize) {
        let mut process = self.workers.remove(worker);
        signal(&process.child, Signal::TERM);
        wait("the worker ends", LONG, || process.child.try_wait().unwrap().is_some());
        let code = process.child.wait().unwrap().code();
        assert_eq!(code, Some(0), "{}", std::fs::read_to_string(&process.log).unwrap());
        self.ended.push(process.log);
    }

    pub(crate) fn freeze(&self, worker: usize) {
        signal(&self.workers[worker].child, Signal::STOP);
    }

    pub(crate) fn thaw(&self, worker: usize) {
        signal(&self.workers[worker].child, Signal::CONT);
    }

    /// The submitted runs that have no outcome yet.
    pub(crate) fn open(&self) -> Result<BTreeSet<RunKey>, StoreError> {
        self.open_upto(usize::MAX)
    }

    /// The oldest runs without an outcome; stops soon after `enough` of them.
    pub(crate) fn open_upto(&self, enough: usize) -> Result<BTreeSet<RunKey>, StoreError> {
        let mut over = self.over.lock().unwrap();
        let left: Vec<RunKey> =
            self.user.submitted.lock().unwrap().keys().filter(|run| !over.contains(run)).cloned().collect();
        let mut open = BTreeSet::new();
        // The stand-in reads a small batch key by key, by its index. Large batches would keep the server busy with this
        // check.
        for part in left.chunks(32) {
            let keys: Vec<String> = part.iter().map(RunKey::key).collect();
            for (run, outcome) in part.iter().zip(self.meta.get(Kind::RunOutcome, &keys)?) {
                if outcome.is_some() { &mut *over } else { &mut open }.insert(run.clone());
            }
            if open.len() >= enough {
                break;
            }
        }
        Ok(open)
    }

    /// Whether a run has ended.
    pub(crate) fn is_over(&self, run: &RunKey) -> bool {
        self.meta.get(Kind::RunOutcome, &[run.key()]).unwrap()[0].is_some()
    }

    /// The lines about steps in the workers' logs, as JSON, ordered by time.
    fn lines(&self) -> Vec<(String, Value)> {
        let living = self.workers.iter().map(|worker| &worker.log);
        let mut lines = Vec::new();
        for log in living.chain(&self.ended) {
            let worker = log.file_stem().unwrap().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(log).unwrap();
            // The last line of a log may be cut.
            lines.extend(
                text.lines()
                    .filter(|l| l.contains("step "))
                    .filter_map(|l| Some((worker.clone(), serde_json::from_str::<Value>(l).ok()?))),
            );
        }
        lines.sort_by(|(_, a), (_, b)| a["timestamp"].as_str().cmp(&b["timestamp"].as_str()));
        lines
    }

    /// Every attempt that a worker began.
    pub(crate) fn executions(&self) -> Vec<Execution> {
        let begun = |(worker, line): (String, Value)| {
            let fields = &line["fields"];
            let at_ms = millis(line["timestamp"].as_str()?)?;
            let text = |key: &str| Some(fields[key].as_str()?.to_owned());
            (fields["message"] == "step started").then_some(())?;
            Some(Execution { worker, run: text("run")?, step: text("step")?, at_ms })
        };
        self.lines().into_iter().filter_map(begun).collect()
    }

    /// The worker that began a step of this run last, if that step has not ended.
    pub(crate) fn runs_now(&self, run: &RunKey) -> Option<usize> {
        let (mut running, name) = (None, run.run.to_string());
        for (worker, line) in self.lines() {
            if line["fields"]["run"] == name.as_str() {
                running = (line["fields"]["message"] == "step started").then_some(worker);
            }
        }
        running.and_then(|name| self.workers.iter().position(|worker| worker.name == name))
    }
}

pub(crate) const LOCAL: &str = "127.0.0.1";

pub(crate) fn redis_url(host: &str, port: u16) -> String {
    format!("redis://{host}:{port}/0")
}

pub(crate) fn mongodb_url(host: &str, port: u16) -> String {
    format!("mongodb://{host}:{port}/faults")
}

pub(crate) fn s3_url(host: &str, port: u16) -> String {
    format!("s3://faults:of-a-test@faults?endpoint=http://{host}:{port}")
}

/// Milliseconds since 1970 of `2026-11-25T23:16:01.123456Z`.
fn millis(timestamp: &str) -> Option<u64> {
    let at = OffsetDateTime::parse(timestamp, &Rfc3339).ok()?;
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for mut worker in self.workers.drain(..) {
            drop(worker.child.kill());
            drop(worker.child.wait());
        }
        if std::thread::panicking()
            && let Some(kept) = std::env::var_os("DOVETAIL_FAULT_KEEP")
        {
            let to = Path::new(&kept).join(self.folder.path().file_name().unwrap());
            drop(Command::new("cp").arg("-r").arg(self.folder.path()).arg(&to).status());
            println!("kept in {}", to.display());
        }
    }
}

#[test]
fn a_logs_time_is_read() {
    assert_eq!(millis("1970-01-01T00:00:00.001000Z"), Some(1));
    assert_eq!(millis("2024-02-29T12:30:15.250000Z"), Some(1_709_209_815_250));
    assert_eq!(millis("2024-02-30T12:30:15.250000Z"), None);
}
