//! Servers of a test's own, on loopback and in a folder of the test. They can be killed, frozen, and started again on
//! the same port.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::root;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Redis,
    MongoDb,
    S3,
}

/// A running server; dropping the value kills it.
pub(crate) struct Server {
    what: What,
    folder: PathBuf,
    port: u16,
    child: Option<Child>,
    /// Redis has answered LOADING at least once: it was reading its file.
    loading: std::cell::Cell<bool>,
}

/// A port that is free now.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A program that `scripts/servers` installs.
fn tool(name: &str) -> PathBuf {
    let path = root().join(".tools/bin").join(name);
    assert!(path.is_file(), "{} is missing: `./justw servers start` builds it", path.display());
    path
}

/// Sends a signal to a process of ours.
pub(crate) fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap_or_else(|e| panic!("{signal:?} to {}: {e}", child.id()));
}

impl Server {
    /// The folder of a server's files, below a test's folder.
    pub(crate) fn folder_of(what: What, folder: &Path) -> PathBuf {
        folder.join(format!("{what:?}").to_lowercase())
    }

    /// The file that says how far the server's clock is ahead.
    fn clock(folder: &Path) -> PathBuf {
        folder.join("clock")
    }

    /// Gives the server, before its start, a clock that can be set; the clock is right at first.
    pub(crate) fn give_clock(what: What, folder: &Path) {
        let folder = Self::folder_of(what, folder);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(Self::clock(&folder), 0_i64.to_ne_bytes()).unwrap();
        crate::clocks::settable(&folder);
    }

    /// Sets the server's clock this many seconds ahead of this machine's clock.
    pub(crate) fn set_clock(&self, ahead: u64) {
        use std::os::unix::fs::FileExt as _;
        // The server has mapped the file, so the change takes effect at once.
        let file = std::fs::File::options().write(true).open(Self::clock(&self.folder)).unwrap();
        file.write_all_at(&i64::try_from(ahead).unwrap().to_ne_bytes(), 0).unwrap();
    }

    /// Starts the server and waits until it answers.
    pub(crate) fn start(what: What, folder: &Path) -> Self {
        let folder = Self::folder_of(what, folder);
        for _ in 0..5 {
            let mut server =
                Self { what, folder: folder.clone(), port: free_port(), child: None, loading: false.into() };
            // Another process may have taken the port in between.
            if server.try_start() {
                return server;
            }
        }
        panic!("{what:?} does not start in {}", folder.display())
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn command(&self) -> Command {
        let port = self.port.to_string();
        match self.what {
            What::Redis => {
                let mut command = Command::new("redis-server");
                command.args([
                    "--bind",
                    "127.0.0.1",
                    "--port",
                    &port,
                    "--save",
                    "",
                    "--appendonly",
                    "yes",
                    "--appendfsync",
                    "everysec",
                ]);
                command
                    .args(["--maxmemory-policy", "noeviction", "--enable-debug-command", "local", "--dir"])
                    .arg(&self.folder);
                let clock = Self::clock(&self.folder);
                if clock.is_file() {
                    command.env("LD_PRELOAD", self.folder.join("clock.so")).env("DOVETAIL_TEST_CLOCK", clock);
                }
                command
            }
            What::MongoDb => {
                let mut command = Command::new(tool("dovetail-test-mongodb"));
                command.arg("serve").arg(format!("127.0.0.1:{port}")).arg(&self.folder);
                command
            }
            What::S3 => {
                // MinIO takes a folder below its data folder as a bucket.
                std::fs::create_dir_all(self.folder.join("faults")).unwrap();
                let mut command = Command::new(tool("minio"));
                command.args(["server", "--quiet", "--address", &format!("127.0.0.1:{port}")]).arg(&self.folder);
                command
                    .env("MINIO_ROOT_USER", "faults")
                    .env("MINIO_ROOT_PASSWORD", "of-a-test")
                    .env("MINIO_BROWSER", "off")
                    .env("MINIO_UPDATE", "off");
                command.env("HOME", &self.folder);
                command
            }
        }
    }

    fn answers(&self) -> bool {
        match self.what {
            What::Redis => {
                let client = redis::Client::open(format!("redis://127.0.0.1:{}/", self.port)).unwrap();
                let asked = client
                    .get_connection_with_timeout(Duration::from_secs(1))
                    .and_then(|mut c| redis::cmd("PING").query::<String>(&mut c));
                self.loading
                    .set(self.loading.get() || asked.as_ref().is_err_and(|error| error.code() == Some("LOADING")));
                asked.is_ok()
            }
            What::MongoDb => {
                let mut probe = Command::new(tool("dovetail-test-mongodb"));
                let status = probe
                    .arg("probe")
                    .arg(format!("127.0.0.1:{}", self.port))
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .status();
                status.unwrap().success()
            }
            What::S3 => (|| -> std::io::Result<bool> {
                let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
                stream.set_read_timeout(Some(Duration::from_secs(2)))?;
                stream.write_all(b"GET /minio/health/cluster HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer)?;
                Ok(answer.lines().next().is_some_and(|line| line.contains(" 200 ")))
            })()
            .unwrap_or(false),
        }
    }

    fn try_start(&mut self) -> bool {
        std::fs::create_dir_all(&self.folder).unwrap();
        let log = std::fs::File::options().create(true).append(true).open(self.folder.with_extension("log")).unwrap();
        let mut child =
            self.command().stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(30) {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            if self.answers() {
                self.child = Some(child);
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(child.kill());
        drop(child.wait());
        false
    }

    /// Starts the server again on the same port and folder, after it ended.
    pub(crate) fn again(&mut self) {
        assert!(self.try_start(), "{:?} does not start again on port {}", self.what, self.port);
    }

    fn child(&self) -> &Child {
        self.child.as_ref().expect("the server runs")
    }

    /// Kills the server (SIGKILL), as a loss of power does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Stops the server (SIGTERM), and waits for its end.
    pub(crate) fn stop(&mut self) {
        signal(self.child(), Signal::TERM);
        self.child.take().unwrap().wait().unwrap();
    }

    /// Stops the process (SIGSTOP): it stands still, and its connections stay open.
    pub(crate) fn freeze(&self) {
        signal(self.child(), Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        signal(self.child(), Signal::CONT);
    }

    /// Whether a start of this server found Redis reading its file.
    pub(crate) fn was_loading(&self) -> bool {
        self.loading.get()
    }

    /// Sends a command to Redis.
    pub(crate) fn redis(&self, words: &[&str]) -> redis::RedisResult<redis::Value> {
        self.redis_in(0, words)
    }

    /// The same, in the database of this number.
    pub(crate) fn redis_in(&self, database: u8, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/{database}", self.port))?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(5))?;
        connection.set_read_timeout(Some(Duration::from_secs(30)))?;
        redis::cmd(words[0]).arg(&words[1..]).query(&mut connection)
    }

    /// A number from Redis's `INFO`.
    pub(crate) fn info(&self, name: &str) -> u64 {
        let info: String = redis::from_redis_value(self.redis(&["INFO", "everything"]).unwrap()).unwrap();
        let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("INFO has it");
        value.trim_start_matches("calls=").split([',', '\r']).next().unwrap().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
