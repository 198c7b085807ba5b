//! The program with wrong settings, and with servers that cannot be used: every command gives one clear error with the
//! remedy, and shows no password. Also: what `doctor` finds at good servers and at bad ones.

mod fakes;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dovetail_core::ledger::{Kind, Record};
use dovetail_core::meta::MetaStore as _;
use dovetail_core::record::{Form as _, ModelFile, ModelRecord};
use dovetail_flow::SystemClock;
use dovetail_stores::MongoMeta;
use serde_json::{Value, json};

use crate::{address, fresh, mongodb, redis};

/// The password in every URL that has one.
const SECRET: &str = "secret-word";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// A machine of a fleet: a folder of its own, and the addresses of good servers until a test changes one.
struct Machine {
    home: tempfile::TempDir,
    fleet: String,
    queue: String,
    meta: String,
    blobs: String,
    /// A file with a certificate that the program trusts besides the system's certificates.
    trusts: Option<PathBuf>,
}

impl Machine {
    fn new() -> Self {
        let name = fresh("commands");
        let fleet = name.replace('_', "-");
        Self {
            home: tempfile::tempdir().unwrap(),
            fleet,
            queue: redis(),
            meta: mongodb(&name),
            blobs: bucket("dovetail-test", &name),
            trusts: None,
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let program = root().join("target/release/dovetail");
        assert!(program.is_file(), "{} is missing: run `cargo build --release -p dovetail`", program.display());
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("HOME", self.home.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .current_dir(self.home.path());
        for (name, value) in
            [("FLEET", &self.fleet), ("QUEUE", &self.queue), ("META", &self.meta), ("BLOBS", &self.blobs)]
        {
            command.env(format!("DOVETAIL_{name}"), value);
        }
        if let Some(file) = &self.trusts {
            command.env("SSL_CERT_FILE", file);
        }
        for name in ["DOVETAIL_S3_ACCESS_KEY", "DOVETAIL_S3_SECRET_KEY"] {
            if let Ok(value) = std::env::var(name) {
                command.env(name, value);
            }
        }
        command.arg("--data").arg(self.home.path().join("data")).args(args);
        command
    }

    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let output = self.command(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let ran = (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr));
        assert!(!format!("{ran:?}").contains(SECRET), "a password is shown: {ran:?}");
        ran
    }

    /// Starts a worker of this machine, which logs to the file `log` in the machine's folder.
    fn worker(&self, log: &str) -> Child {
        let log = std::fs::File::create(self.home.path().join(log)).unwrap();
        self.command(&["worker"]).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    #[track_caller]
    fn succeeds(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = args.iter().copied().chain(["--output", "json"]).collect();
        let (code, out, err) = self.run(&args);
        assert_eq!(code, 0, "{args:?}: {out}{err}");
        serde_json::from_str(&out).unwrap()
    }

    /// Each of the commands must end with this exit code, and its error must contain all texts of `says`.
    #[track_caller]
    fn refuses(&self, code: i32, says: &[&str], commands: &[&[&str]]) {
        for args in commands {
            let args: Vec<&str> = args.iter().copied().chain(["--output", "json"]).collect();
            let (ended, out, err) = self.run(&args);
            assert_eq!(ended, code, "{args:?}: {out}{err}");
            let document: Value = serde_json::from_str(&out).unwrap();
            let (message, help) =
                (document["error"]["message"].as_str().unwrap(), document["error"]["help"].as_str().unwrap());
            assert!(says.iter().all(|says| message.contains(says)), "{args:?}: not all of {says:?} in {message}");
            assert!(!help.is_empty(), "{document}");
            if code == 2 {
                assert_eq!(document["error"]["code"], "bad_setting");
            }
        }
    }

    /// The exit code and the findings of `doctor`.
    fn doctor(&self) -> (i32, Vec<Value>) {
        let (code, out, err) = self.run(&["doctor", "--output", "json"]);
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
        assert_eq!(report["ok"] == true, code == 0, "{report:#}");
        (code, report["checks"].as_array().unwrap().clone())
    }
}

/// The URL of a bucket of the S3 server under test, with a prefix of its own.
fn bucket(name: &str, prefix: &str) -> String {
    let url = address("DOVETAIL_TEST_S3");
    let (_, parameters) = url.split_once('?').unwrap();
    format!("s3://{name}/{prefix}?{parameters}")
}

/// A command that only reads, a worker, and a command that lists tasks.
const ANY: &[&[&str]] = &[&["runs", "list"], &["worker"], &["task", "list"]];
const LOOK: &[&[&str]] = &[&["runs", "list"]];

fn plugin() -> String {
    let built = root().join("plugins/target/wasm32-wasip2/release/add.wasm");
    assert!(built.is_file(), "{} is missing: run `./justw plugins`", built.display());
    root().join("plugins/tests/add").display().to_string()
}

fn line<'f>(findings: &'f [Value], what: &str) -> &'f Value {
    findings
        .iter()
        .find(|finding| finding["what"] == what)
        .unwrap_or_else(|| panic!("no line `{what}` in {findings:#?}"))
}

/// A Redis of the test's own, which may be configured wrongly. `start` takes lines of its configuration.
struct OwnRedis {
    server: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl OwnRedis {
    fn start(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let file = folder.path().join("redis.conf");
        let own = format!(
            "port {port}\nbind 127.0.0.1\nsave \"\"\ndir {}\n{}\n",
            folder.path().display(),
            settings.join("\n")
        );
        std::fs::write(&file, own).unwrap();
        let server = Command::new("redis-server").arg(&file).stdout(Stdio::null()).spawn().unwrap();
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "redis-server does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { server, port, _folder: folder }
    }

    fn url(&self, user: &str) -> String {
        format!("redis://{user}127.0.0.1:{}/0", self.port)
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

#[test]
fn a_setting_that_is_none_is_wrong_usage() {
    for (queue, says) in [
        ("http://u:secret-word@h/0", "http://h/0"),
        ("redis://u:secret-word@h:port/0", "its URL cannot be used"),
        ("redis://u:secret-word@h/first", "database number"),
    ] {
        Machine { queue: queue.to_owned(), ..Machine::new() }.refuses(2, &[says], ANY);
    }
    for (meta, says) in [
        ("mongodb://u:secret-word@h:port/db", "got port"),
        ("mongodb://u:secret-word@h", "names no database"),
        ("mongodb://u:secret-word/x@h/db", "%2F"),
        ("mongodb://u:secret-word@h/db?w=0", "w=0"),
        ("mongodb+srv://u:secret-word@h/db", "is not a store that this version has a backend for"),
    ] {
        Machine { meta: meta.to_owned(), ..Machine::new() }.refuses(2, &[says], ANY);
    }
    for (blobs, says) in [
        ("s3://u:secret-word@x?endpoint=http://h:1", "the name of a bucket"),
        ("s3://bucket?endpoint=nonsense&credentials=/secret-word", "endpoint"),
        ("s3://u:secret-word@bucket?endpoint=http://h:1&colour=red", "colour"),
        ("s3://bucket?endpoint=http://h:1&credentials=/no/such/file", "/no/such/file"),
    ] {
        Machine { blobs: blobs.to_owned(), ..Machine::new() }.refuses(2, &[says], ANY);
    }
}

#[test]
fn where_nobody_answers_the_address_and_the_remedy_are_told() {
    let says = &["127.0.0.1:1", "Connection refused", "is it running"];
    Machine { queue: "redis://u:secret-word@127.0.0.1:1/0".to_owned(), ..Machine::new() }.refuses(3, says, ANY);
    Machine { meta: "mongodb://u:secret-word@127.0.0.1:1/db".to_owned(), ..Machine::new() }.refuses(3, says, LOOK);
    let blobs = "s3://u:secret-word@bucket?endpoint=http://127.0.0.1:1&retries=0".to_owned();
    Machine { blobs, ..Machine::new() }.refuses(
        3,
        &["http://127.0.0.1:1", "cannot connect"],
        &[&["task", "push", &plugin()]],
    );
}

#[test]
fn wrong_passwords_and_missing_rights_are_told_apart() {
    let limited = "user limited on >secret-word ~other:* &* +@all";
    let enough = "user enough on >secret-word ~dovetail:* &dovetail:* +@all -@admin";
    let own = OwnRedis::start(&["requirepass secret-word", limited, enough]);
    let with = |user: &str| Machine { queue: own.url(user), ..Machine::new() };
    with("").refuses(3, &["NOAUTH", "write it into the URL"], ANY);
    with("enough:wrong@").refuses(3, &["correct user and password"], ANY);
    with("limited:secret-word@").refuses(3, &["no permissions", "~dovetail:*"], &[&["workers", "list"]]);
    // The remedies of the errors are sufficient.
    for user in [":secret-word@", "enough:secret-word@"] {
        let machine = with(user);
        assert_eq!(machine.succeeds(&["workers", "list"]), json!([]));
        machine.succeeds(&["runs", "list"]);
        assert_eq!(line(&machine.doctor().1, "queue")["ok"], true);
    }
    Machine { meta: mongodb(&fresh("password")).replace("://", "://u:secret-word@"), ..Machine::new() }.refuses(
        3,
        &["correct user and password"],
        LOOK,
    );
}

/// A user of MongoDB may have no rights, or may only read.
#[test]
fn a_mongodb_user_without_rights_is_told_which_are_missing() {
    for may in [&[][..], &["find"]] {
        let machine = Machine { meta: format!("mongodb://127.0.0.1:{}/d", fakes::mongodb(may)), ..Machine::new() };
        let says = &[
            "not authorized on d",
            "give this user the role `readWrite` on this database",
            "the metadata store at 127.0.0.1",
        ];
        machine.refuses(3, says, &[&["worker"], &["task", "push", &plugin()]]);
        if may.is_empty() {
            machine.refuses(3, says, ANY);
        } else {
            assert_eq!(machine.succeeds(&["runs", "list"]), json!([]), "a user who may read can list runs");
        }
        let (code, findings) = machine.doctor();
        let problems: Vec<&Value> = findings.iter().filter(|finding| finding["ok"] == false).collect();
        assert!(code == 1 && problems.len() == 1 && problems[0]["what"] == "records", "{findings:#?}");
        let text = problems[0].to_string();
        assert!(text.contains("not authorized on d") && text.contains("`readWrite`"), "{text}");
    }
}

#[test]
fn a_redis_that_would_lose_jobs_is_refused_by_every_command() {
    let evicting = OwnRedis::start(&["maxmemory 50mb", "maxmemory-policy allkeys-lru"]);
    Machine { queue: evicting.url(""), ..Machine::new() }.refuses(
        3,
        &["allkeys-lru", "set `maxmemory-policy noeviction`"],
        ANY,
    );
    let old = fakes::redis("6.2.14");
    Machine { queue: format!("redis://127.0.0.1:{old}/0"), ..Machine::new() }.refuses(
        3,
        &["Redis 6.2.14", "upgrade"],
        ANY,
    );
    let replica = OwnRedis::start(&["replicaof 127.0.0.1 1"]);
    Machine { queue: replica.url(""), ..Machine::new() }.refuses(3, &["replica", "name its primary"], ANY);
}

#[test]
fn two_fleets_in_one_database_are_refused() {
    let first = Machine::new();
    first.succeeds(&["task", "push", &plugin()]);
    let fleet = first.fleet.clone();
    let second = Machine { fleet: "second".to_owned(), meta: first.meta.clone(), ..Machine::new() };
    second.refuses(3, &[&format!("belongs to the fleet `{fleet}`"), "this is `second`", "name another database"], ANY);
    let (code, findings) = second.doctor();
    let problem = findings.iter().find(|finding| finding["ok"] == false).unwrap();
    assert!(
        code == 1 && problem["what"] == "records" && problem["found"].as_str().unwrap().contains(&fleet),
        "{findings:#?}"
    );
}

/// Two machines use one queue, and each machine has the records of its own data folder.
#[test]
fn a_queue_that_holds_the_work_of_other_records_is_refused() {
    let own = OwnRedis::start(&[]);
    let first = Machine { queue: own.url(""), meta: "sqlite:".to_owned(), ..Machine::new() };
    let second =
        Machine { fleet: first.fleet.clone(), queue: own.url(""), meta: "sqlite:".to_owned(), ..Machine::new() };
    // Commands that only read do not bind the queue.
    second.succeeds(&["runs", "list"]);
    second.succeeds(&["workers", "list"]);
    second.doctor();
    first.succeeds(&["task", "push", &plugin()]);
    let says = &["holds the work of other records", "DOVETAIL_META", "`--data`", "`dovetail:{FLEET}:*`"];
    second.refuses(3, says, ANY);
    let (code, findings) = second.doctor();
    let problem = findings.iter().find(|finding| finding["ok"] == false).unwrap();
    assert!(code == 1 && problem.to_string().contains("other records"), "{findings:#?}");
    let reported = findings.iter().filter(|finding| finding.to_string().contains("other records")).count();
    assert!(reported == 1 && problem["what"] == "records", "the problem is reported once: {findings:#?}");
    first.succeeds(&["runs", "list"]);
    // The remedy in the error works: the emptied queue belongs to the process that writes next.
    let emptied = Command::new("redis-cli").args(["-p", &own.port.to_string(), "flushall"]).output().unwrap();
    assert!(emptied.status.success(), "{emptied:?}");
    second.succeeds(&["task", "push", &plugin()]);
    first.refuses(3, says, LOOK);
}

/// A worker of a machine, or another command, until it is dropped.
struct Running(Child);

impl Running {
    fn start(machine: &Machine, name: &str) -> Self {
        Self::command(machine, name, &mut machine.command(&["worker", "--name", name]))
    }

    /// Starts a command that logs to the file `name.log`.
    fn command(machine: &Machine, name: &str, command: &mut Command) -> Self {
        let log = std::fs::File::create(machine.home.path().join(format!("{name}.log"))).unwrap();
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[track_caller]
fn wait(what: &str, mut until: impl FnMut() -> bool) {
    let began = Instant::now();
    while !until() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Workers send a heartbeat every 5 s. A queue that has just lost its data has received none.
#[test]
fn a_run_can_be_left_to_workers_that_the_queue_has_forgotten() {
    let own = OwnRedis::start(&[]);
    let machine = Machine { queue: own.url(""), meta: "sqlite:".to_owned(), ..Machine::new() };
    machine.succeeds(&["task", "push", &plugin()]);
    let file = machine.home.path().join("it.json");
    let pipeline = json!({ "name": "it", "version": "1.0.0", "inputs": { "a": {} },
        "steps": { "sum": { "number": 1, "task": "add@^1", "inputs": { "a": "input.a", "b": {"value": 1} } } },
        "output": { "sum": "sum.sum" } });
    std::fs::write(&file, pipeline.to_string()).unwrap();
    machine.succeeds(&["pipeline", "push", file.to_str().unwrap()]);
    let run = ["run", "it", "--input", "a=2", "--detach", "--output", "json"];
    let (code, out, _) = machine.run(&run);
    assert!(code == 2 && out.contains("no_worker"), "no worker lives: {code} {out}");
    let _worker = Running::start(&machine, "one");
    let seen = || machine.succeeds(&["workers", "list"]).pointer("/0/seen_ms").and_then(Value::as_u64);
    wait("the worker lives", || seen().is_some());
    let before = seen();
    wait("the worker sends another heartbeat", || seen() != before);
    let emptied = Command::new("redis-cli").args(["-p", &own.port.to_string(), "flushall"]).output().unwrap();
    assert!(emptied.status.success(), "{emptied:?}");
    assert_eq!(machine.succeeds(&["workers", "list"]), json!([]), "a heartbeat came before the list was read");
    let (code, out, err) = machine.run(&run);
    assert_eq!(code, 0, "{out}{err}");
    let id = serde_json::from_str::<Value>(&out).unwrap()["run_id"].as_str().unwrap().to_owned();
    wait("the run ends", || machine.succeeds(&["runs", "show", &id])["state"] == "succeeded");
    // A second worker of the same name is listed as another worker.
    let _other = Running::start(&machine, "one");
    wait("both workers are listed", || {
        machine.succeeds(&["workers", "list"]).as_array().is_some_and(|living| living.len() == 2)
    });
    let (_, listed, _) = machine.run(&["workers", "list"]);
    assert_eq!(listed.matches("one (process ").count(), 2, "{listed}");
}

/// A worker lives, so the run would wait without a message.
#[test]
fn missing_capabilities_are_reported_once_while_a_command_waits() {
    let machine = Machine { meta: "sqlite:".to_owned(), ..Machine::new() };
    let clock = root().join("plugins/tests/clock").display().to_string();
    machine.succeeds(&["task", "push", &clock, "--grant", "clocks"]);
    let file = machine.home.path().join("it.json");
    let steps = json!({ "now": { "number": 1, "task": "clock@^1", "inputs": {} } });
    let pipeline = json!({ "name": "it", "version": "1.0.0", "inputs": {},
        "steps": steps, "output": { "it": "now.milliseconds" } });
    std::fs::write(&file, pipeline.to_string()).unwrap();
    machine.succeeds(&["pipeline", "push", file.to_str().unwrap()]);
    let _poor = Running::command(
        &machine,
        "poor",
        machine.command(&["worker", "--name", "poor"]).env("DOVETAIL_WORKER_GRANTS", "random"),
    );
    wait("a worker lives", || machine.succeeds(&["workers", "list"]) != json!([]));
    let mut run = Running::command(&machine, "run", &mut machine.command(&["run", "it"]));
    let said = || {
        std::fs::read_to_string(machine.home.path().join("run.log"))
            .unwrap()
            .matches("no living worker has the grant clocks")
            .count()
    };
    wait("the missing grant is reported", || said() == 1);
    // Longer than the time until the next look.
    std::thread::sleep(Duration::from_secs(12));
    let _rich = Running::start(&machine, "rich");
    wait("the run ends", || run.0.try_wait().unwrap().is_some());
    assert!(run.0.wait().unwrap().success());
    assert_eq!(said(), 1);
}

/// The worker's steps wait for the store, and so does a model of the fleet that this machine lacks.
#[test]
fn a_worker_starts_while_the_blob_store_does_not_answer() {
    let good = Machine::new();
    good.succeeds(&["task", "push", &plugin()]);
    let manifest = "kind = 'emotion_classifier'\nname = 'mine'\nlabels = ['calm', 'other']\noutput = 'logits'\n\
        [input]\nside = 64\n\
        mean = [127.5, 127.5, 127.5]\nscale = 0.0078\n[crop]\nfrom = 'landmarks'\n";
    let files = vec![ModelFile { digest: dovetail_core::Digest::of(b"weights"), bytes: 7 }];
    let value = ModelRecord { manifest: manifest.to_owned(), files, pushed_ms: 0 }.encode();
    let records = MongoMeta::open(&good.meta, &good.fleet, Arc::new(SystemClock)).unwrap();
    records.put(&[Record { kind: Kind::Model, key: "mine".to_owned(), value }]).unwrap();
    let down = "s3://u:secret-word@bucket?endpoint=http://127.0.0.1:1&retries=0".to_owned();
    let machine = Machine { fleet: good.fleet.clone(), meta: good.meta.clone(), blobs: down, ..Machine::new() };
    let mut worker = Running::start(&machine, "one");
    let log = || std::fs::read_to_string(machine.home.path().join("one.log")).unwrap();
    wait("the worker lives", || {
        assert!(worker.0.try_wait().unwrap().is_none(), "{}", log());
        machine.succeeds(&["workers", "list"]).as_array().is_some_and(|living| living.len() == 1)
    });
    assert!(log().contains("the fleet's models cannot be read now") && !log().contains(SECRET), "{}", log());
}

/// The database of another fleet, or a new database, is named by mistake. A command that is refused for another reason
/// must leave the database unchanged.
#[test]
fn a_refused_command_binds_no_database() {
    let (home, mistyped) = (Machine::new(), mongodb(&fresh("mistyped")));
    home.succeeds(&["task", "push", &plugin()]);
    let unused = || {
        let found = line(&Machine { meta: mistyped.clone(), ..Machine::new() }.doctor().1, "records")["found"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(found.contains("used by no fleet yet"), "{found}");
    };
    let work: &[&[&str]] = &[&["worker"], &["up"], &["task", "push", &plugin()]];
    // First the right queue, which belongs to other records; then an unused queue, and a bucket that cannot be used.
    let queue = Machine {
        fleet: home.fleet.clone(),
        queue: home.queue.clone(),
        meta: mistyped.clone(),
        blobs: home.blobs.clone(),
        ..Machine::new()
    };
    queue.refuses(3, &["holds the work of other records"], work);
    unused();
    let bucket = Machine { meta: mistyped.clone(), blobs: bucket("no-such-bucket", "x"), ..Machine::new() };
    bucket.refuses(3, &["no bucket `no-such-bucket`"], work);
    unused();
    Machine { meta: mistyped.clone(), ..Machine::new() }.succeeds(&["runs", "list"]);
    unused();
    // A command that succeeds takes the database.
    let fine = Machine { meta: mistyped.clone(), ..Machine::new() };
    fine.succeeds(&["task", "push", &plugin()]);
    assert!(
        line(&fine.doctor().1, "records")["found"]
            .as_str()
            .unwrap()
            .contains(&format!("of the fleet `{}`", fine.fleet))
    );
}

#[test]
fn buckets_that_cannot_be_used_are_refused_when_something_is_to_be_stored() {
    // Workers are refused, too: they would take steps that they cannot run.
    let push: &[&[&str]] = &[&["task", "push", &plugin()], &["worker"], &["up"]];
    Machine { blobs: bucket("no-such-bucket", "x"), ..Machine::new() }.refuses(
        3,
        &["no bucket `no-such-bucket`", "make it"],
        push,
    );
    let wrong = bucket("dovetail-test", "x").replace("s3://", "s3://nobody:secret-word@");
    Machine { blobs: wrong, ..Machine::new() }.refuses(3, &["does not accept the access key"], push);
    let read_only = fakes::s3_read_only();
    let url = format!("s3://bucket?endpoint=http://127.0.0.1:{read_only}");
    let machine = Machine { blobs: url, ..Machine::new() };
    machine.refuses(3, &["access denied", "read, write and list the bucket"], push);
    assert_eq!(machine.succeeds(&["task", "list"]), json!([]), "no task is published whose package is not stored");
}

#[test]
fn a_certificate_that_does_not_match_is_refused() {
    // The certificate is trusted, but is for another name.
    let (port, authority) = fakes::tls("elsewhere.example");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), authority).unwrap();
    let machine = || Machine { trusts: Some(file.path().to_owned()), ..Machine::new() };
    let says = &["certificate not valid for name \"localhost\"", "certificate must hold for"];
    Machine { queue: format!("rediss://u:secret-word@localhost:{port}/0"), ..machine() }.refuses(3, says, LOOK);
    let meta = format!("mongodb://u:secret-word@localhost:{port}/db?tls=true&tlsCAFile={}", file.path().display());
    Machine { meta, ..machine() }.refuses(3, says, LOOK);
    let blobs = format!("s3://u:secret-word@bucket?endpoint=https://localhost:{port}");
    Machine { blobs, ..machine() }.refuses(
        3,
        &["certificate not valid for name \"localhost\"", "certificate must hold for"],
        &[&["task", "push", &plugin()]],
    );
}

#[test]
fn doctor_looks_at_each_server_and_says_what_it_found() {
    let machine = Machine::new();
    let (code, findings) = machine.doctor();
    assert_eq!(code, 0, "{findings:#?}");
    let found = |what: &str| line(&findings, what)["found"].as_str().unwrap().to_owned();
    assert!(
        found("queue").contains("primary") && found("queue").contains("noeviction, appendonly"),
        "{}",
        found("queue")
    );
    assert!(
        found("records").contains("used by no fleet yet")
            && found("records").contains("inserts are atomic (64 at once)"),
        "{}",
        found("records")
    );
    assert!(found("blobs").contains("writes, reads and removes"), "{}", found("blobs"));
    assert!(!findings.iter().any(|finding| finding["what"] == "registry"), "`doctor` takes no database: {findings:#?}");
    machine.succeeds(&["task", "push", &plugin()]);
    let (_, findings) = machine.doctor();
    let found = |what: &str| line(&findings, what)["found"].as_str().unwrap().to_owned();
    assert!(found("records").contains(&format!("of the fleet `{}`", machine.fleet)), "{}", found("records"));
    assert!(
        line(&findings, "workers")["warning"] == true && found("workers").contains("no worker is alive"),
        "{findings:#?}"
    );
    assert_eq!(
        (found("open runs"), found("registry")),
        ("none".to_owned(), "1 plugin version, 0 pipeline versions".to_owned())
    );
    assert!(found("packages").starts_with("all 1 are stored"), "{}", found("packages"));
    assert!(found("fleet's models").contains("ssd_mobilenetv1"), "{}", found("fleet's models"));
    // The package is at another place, so it is missing here.
    let moved = Machine { blobs: bucket("dovetail-test", &fresh("empty")), ..machine };
    let (code, findings) = moved.doctor();
    let packages = line(&findings, "packages");
    assert!(
        code == 1 && packages["ok"] == false && packages["found"].as_str().unwrap().contains("add@1.0.0"),
        "{packages:#}"
    );
    assert!(packages["remedy"].as_str().unwrap().contains("task push"), "{packages:#}");
}

/// The missing shared store is reported where a user looks: in the worker's log, and by `doctor` on this machine.
#[test]
fn blobs_in_the_folder_of_each_machine_are_warned_of() {
    let machine = Machine { blobs: "file:".to_owned(), ..Machine::new() };
    machine.succeeds(&["runs", "list"]);
    let (_, findings) = machine.doctor();
    let warned = findings.iter().find(|finding| finding["what"] == "blobs").unwrap();
    assert!(warned["warning"] == true && warned["remedy"].as_str().unwrap().contains("s3://"), "{findings:#?}");
    let (_, findings) = Machine { meta: "sqlite:".to_owned(), ..machine }.doctor();
    assert!(!findings.iter().any(|finding| finding["what"] == "blobs"), "one machine: {findings:#?}");
}

#[test]
fn doctor_goes_on_where_a_server_fails() {
    let good = Machine::new();
    good.succeeds(&["runs", "list"]);
    let problems = |machine: &Machine| -> Vec<String> {
        let (code, findings) = machine.doctor();
        assert_eq!(code, 1);
        let problems = findings.iter().filter(|finding| finding["ok"] == false);
        problems.map(|finding| finding["what"].as_str().unwrap().to_owned()).collect()
    };
    let same = || Machine { fleet: good.fleet.clone(), meta: good.meta.clone(), ..Machine::new() };
    assert_eq!(problems(&Machine { queue: "redis://u:secret-word@127.0.0.1:1/0".to_owned(), ..same() }), ["queue"]);
    assert_eq!(problems(&Machine { meta: "mongodb://u:secret-word@127.0.0.1:1/d".to_owned(), ..same() }), ["records"]);
    assert_eq!(problems(&Machine { blobs: bucket("no-such-bucket", "x"), ..same() }), ["blobs"]);
    assert_eq!(problems(&Machine { blobs: "s3://u:secret-word@bucket?colour=red".to_owned(), ..same() }), ["blobs"]);
    let evicting = OwnRedis::start(&["maxmemory 50mb", "maxmemory-policy allkeys-lru"]);
    assert_eq!(problems(&Machine { queue: evicting.url(""), ..same() }), ["queue"]);
    let own = OwnRedis::start(&[]);
    let (code, findings) = Machine { queue: own.url(""), ..same() }.doctor();
    let warned = findings.iter().find(|finding| finding["what"] == "queue" && finding["warning"] == true).unwrap();
    assert!(code == 0 && warned["remedy"].as_str().unwrap().contains("appendonly yes"), "{findings:#?}");
}

/// A model of the fleet is fetched once for a machine, however many workers of the machine start at the same time.
#[test]
fn workers_that_begin_together_install_each_model_once() {
    const NAMES: [&str; 4] = ["alt", "alt2", "alt_tree", "default"];
    let publisher = Machine::new();
    for name in NAMES {
        let manifest = publisher.home.path().join(format!("{name}.toml"));
        std::fs::write(&manifest, format!("name = \"{name}\"\nkind = \"detector\"\noutput = \"cascade\"\n")).unwrap();
        let cascade = format!("/usr/share/opencv4/haarcascades/haarcascade_frontalface_{name}.xml");
        publisher.succeeds(&["models", "add", &cascade, "--manifest", &manifest.display().to_string()]);
    }
    let (fleet, queue) = (publisher.fleet.clone(), publisher.queue.clone());
    let machine =
        Machine { fleet, queue, meta: publisher.meta.clone(), blobs: publisher.blobs.clone(), ..Machine::new() };
    let logs: Vec<String> = (0..4).map(|n| format!("{n}.log")).collect();
    let mut workers: Vec<Child> = logs.iter().map(|log| machine.worker(log)).collect();
    let have_all = |worker: &Value| worker["models"] == NAMES.len();
    let began = Instant::now();
    let listed = loop {
        let listed = machine.succeeds(&["workers", "list"]);
        if listed.as_array().unwrap().iter().filter(|worker| have_all(worker)).count() == 4
            || began.elapsed() > Duration::from_secs(60)
        {
            break listed;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    // Workers register in the queue, so they are listed without the records.
    let name =
        |listed: &Value| listed.as_array().unwrap().iter().map(|worker| worker["name"].clone()).collect::<Vec<_>>();
    let (fleet, queue) = (machine.fleet.clone(), machine.queue.clone());
    let without = Machine { fleet, queue, meta: "mongodb://127.0.0.1:1/none".to_owned(), ..Machine::new() };
    let (code, out, err) = without.run(&["workers", "list", "--output", "json"]);
    assert_eq!((code, name(&serde_json::from_str(&out).unwrap())), (0, name(&listed)), "{out}{err}");
    assert!(err.contains("127.0.0.1:1"), "{err}");
    for worker in &mut workers {
        worker.kill().unwrap();
        worker.wait().unwrap();
    }
    let text: String = logs.iter().map(|log| std::fs::read_to_string(machine.home.path().join(log)).unwrap()).collect();
    assert_eq!(listed.as_array().unwrap().iter().filter(|worker| have_all(worker)).count(), 4, "{listed:#}\n{text}");
    assert_eq!(text.matches("model installed from the fleet").count(), NAMES.len(), "{text}");
    // No half-installed model is left, and each model can be used.
    assert!(line(&machine.doctor().1, "models")["found"].as_str().unwrap().contains("4 installed"));
}

/// A command that waits for a run of a fleet shows the outcomes of the running steps, although the run's end is
/// recorded before them.
#[test]
fn waiting_for_a_cancelled_run_shows_the_stopped_attempt() {
    let machine = Machine::new();
    let probe = root().join("plugins/tests/probe").display().to_string();
    machine.succeeds(&["task", "push", &probe]);
    let endless =
        json!({ "number": 1, "task": "probe", "inputs": { "behaviour": {"value": {"tag": "endless_loop"}} } });
    let pipeline = json!({ "name": "it", "version": "1.0.0", "inputs": {},
        "steps": { "go": endless }, "output": { "it": "go.count" } });
    let file = machine.home.path().join("it.json");
    std::fs::write(&file, pipeline.to_string()).unwrap();
    machine.succeeds(&["pipeline", "push", &file.display().to_string()]);
    let mut worker = machine.worker("worker.log");
    for watches in [false, true] {
        let waits = machine
            .command(&["run", "it", "--output", "json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let running = || {
            let runs = machine.succeeds(&["runs", "list"]);
            runs.as_array()
                .unwrap()
                .iter()
                .find(|run| run["state"] == "running")
                .map(|run| run["run_id"].as_str().unwrap().to_owned())
        };
        let began = Instant::now();
        let run = loop {
            if let Some(run) = running() {
                break run;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "the run does not begin");
            std::thread::sleep(Duration::from_millis(100));
        };
        let watch = watches.then(|| {
            let child = machine
                .command(&["runs", "watch", &run, "--output", "json"])
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            // By then `runs watch` has seen that the step runs.
            std::thread::sleep(Duration::from_secs(1));
            child
        });
        machine.succeeds(&["runs", "cancel", &run]);
        for child in std::iter::once(waits).chain(watch) {
            let output = child.wait_with_output().unwrap();
            let document: Value = serde_json::from_slice(&output.stdout).unwrap();
            let step = &document["processing_summary"]["steps"][0];
            assert_eq!((&document["state"], &step["state"]), (&json!("cancelled"), &json!("stopped")), "{document:#}");
            assert_eq!(step["attempts"].as_array().unwrap().len(), 1, "{document:#}");
        }
    }
    worker.kill().unwrap();
    worker.wait().unwrap();
}
