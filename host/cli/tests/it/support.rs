//! A data folder, the program on it, and the program's answers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A plugin's folder; its component must have been built.
pub(crate) fn plugin(name: &str) -> PathBuf {
    let component = component(name);
    assert!(component.is_file(), "{} is missing: run `./justw plugins`", component.display());
    ["plugins/tests", "plugins"]
        .iter()
        .map(|folder| root().join(folder).join(name))
        .find(|folder| folder.is_dir())
        .unwrap()
}

/// The component that cargo built.
pub(crate) fn component(name: &str) -> PathBuf {
    root().join("plugins/target/wasm32-wasip2/release").join(format!("{}.wasm", name.replace('-', "_")))
}

/// The package of a test plugin, packed once for all tests: packing takes a second.
fn package(name: &str) -> String {
    static PACKED: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());
    let mut packed = PACKED.lock().unwrap_or_else(PoisonError::into_inner);
    let pack = || {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli-packages");
        std::fs::create_dir_all(&folder).unwrap();
        let (file, source) =
            (folder.join(format!("{name}.zip")).display().to_string(), plugin(name).display().to_string());
        let args = ["task", "pack", &source, "-o", &file];
        Ran::of(&command(&folder, &folder, &args).output().unwrap(), &args).exits(0);
        file
    };
    packed.entry(name.to_owned()).or_insert_with(pack).clone()
}

/// An empty folder, which is removed afterwards. It is also the user's home folder.
pub(crate) struct Home(tempfile::TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file, making its folder.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    /// The program, with no settings but the data folder.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        command(&self.path("data"), self.0.path(), args)
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&self.command(args).output().unwrap(), args)
    }

    /// Publishes the test plugins of these names.
    pub(crate) fn push(&self, plugins: &[&str]) -> &Self {
        self.again(plugins, "text");
        self
    }

    /// The answer to publishing the test plugins of these names.
    pub(crate) fn again(&self, plugins: &[&str], format: &str) -> Ran {
        let packages: Vec<String> = plugins.iter().map(|name| package(name)).collect();
        let args: Vec<&str> =
            ["task", "push", "--output", format].into_iter().chain(packages.iter().map(String::as_str)).collect();
        self.run(&args).exits(0)
    }

    /// Publishes a pipeline.
    pub(crate) fn pipeline(&self, name: &str, content: &Value) -> &Self {
        let file = self.write(&format!("{name}.json"), content.to_string());
        self.run(&["pipeline", "push", &file]).exits(0);
        self
    }
}

pub(crate) fn command(data: &Path, folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dovetail"));
    command
        .arg("--data")
        .arg(data)
        .args(args)
        .current_dir(folder)
        .env_clear()
        .env("HOME", folder)
        .env("COLUMNS", "100");
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// Submits a run without inputs, which no process executes. Gives its ID.
pub(crate) fn open_run(home: &Home, pipeline: &str) -> String {
    let clock = Arc::new(dovetail_flow::SystemClock);
    let data = home.path("data");
    let ledger = Arc::new(dovetail_stores::SqliteLedger::open(&data, clock.clone()).unwrap());
    let ports = dovetail_flow::Ports { ledger, blobs: Arc::new(dovetail_stores::FileBlobs::new(&data)), clock };
    let (published, run) = (dovetail_flow::pipeline(&ports, pipeline).unwrap(), dovetail_flow::new_run_id());
    dovetail_flow::submit(&ports, &published, &serde_json::json!({}), &run).unwrap();
    run.to_string()
}

/// The answer of a process.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    said: String,
}

impl Ran {
    pub(crate) fn of(output: &Output, args: &[&str]) -> Self {
        let (stdout, stderr) =
            (String::from_utf8(output.stdout.clone()).unwrap(), String::from_utf8(output.stderr.clone()).unwrap());
        let said = format!(
            "dovetail {}\n{}\n--- standard output\n{stdout}\n--- standard error\n{stderr}",
            args.join(" "),
            output.status
        );
        Self { code: output.status.code().unwrap_or(-1), stdout, stderr, said }
    }

    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}", self.said);
        self
    }

    /// Its whole standard output is one JSON document.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}\n{}", self.said))
    }
}

/// Fails unless `value` is valid against the schema in `host/service/schemas` or `host/bench/schemas`.
#[track_caller]
pub(crate) fn valid(schema: &str, value: &Value) {
    let files = ["host/service/schemas", "host/bench/schemas"].map(|folder| root().join(folder).join(schema));
    let file = files.iter().find(|file| file.is_file()).unwrap_or_else(|| panic!("there is no {schema}"));
    let text = std::fs::read_to_string(file).unwrap();
    let errors = crate::schema::errors(&serde_json::from_str(&text).unwrap(), value);
    assert!(errors.is_empty(), "not what {schema} says:\n{}\n{value:#}", errors.join("\n"));
}

/// A text for a snapshot, without the parts that differ from run to run.
pub(crate) fn normal(home: &Home, text: &str) -> String {
    let rules = [
        ("sha256:[0-9a-f]{64}", "sha256:HEX"),
        ("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "RUN"),
        (r"[0-9]+(\.[0-9]+)? (ms|s|B|KiB|MiB)\b", "N $2"),
        (r"\b[0-9]+\.[0-9]{2}s\b", "N.NNs"),
    ];
    let text = text.replace(home.path("").display().to_string().trim_end_matches('/'), "HOME");
    rules
        .iter()
        .fold(text, |text, (pattern, name)| regex::Regex::new(pattern).unwrap().replace_all(&text, *name).into_owned())
}
