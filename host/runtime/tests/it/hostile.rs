//! The guests of `tests/hostile/`: the first lines of each file declare the expected outcome. The tests check all of it
//! while neighbours run in the same runtime.
//!
//! The lines begin with `;;!` and are TOML ([`Header`] has the keys). A `(module` gets the WIT of its header and
//! becomes a component; a `(component` is used as it is. For every guest the tests check: it is refused, fails or
//! returns as declared, within its time; a neighbour that holds its instance, and a neighbour that runs again and
//! again, return the right results to the last bit; the guest's log, output and memory are within their limits; and
//! after the guest has ended, its instances in the pool, its handles, its files and its memory in this process are
//! released. Guests that use pictures also run on OpenCV with the default models.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use std::{fs, iter};

use dovetail_core::executor::{FailureKind, Outcome, Report};
use dovetail_core::limits::Limits;
use dovetail_core::stop::Stop;
use dovetail_core::vision::{Image, Rect, Size, Vision as _};
use dovetail_core::{Digest, blobs::BlobKind};
use dovetail_runtime::{Budgets, CompileLimits, Compiler, CompilerOptions, Live, LoadError, Occupancy};
use dovetail_vision::{ModelStore, Opencv, Options};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cache::program;
use crate::support::{Bench, attempt, component_of, manifest};

/// How long after its deadline an attempt may end: a tick of 8 ms, on a machine that may be busy with other tests.
const SLACK: Duration = Duration::from_millis(500);
/// The most bytes by which a guest may leave this process larger.
const LEFT_OVER: u64 = 16 << 20;
/// How often a quick guest runs: the leak of one run may be too small to be seen.
const RUNS: usize = 20;
/// The most time for the repeated runs.
const AGAIN_FOR: Duration = Duration::from_millis(150);

/// The header of a guest's file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    /// Types of the guest's interface, in WIT.
    #[serde(default)]
    types: String,
    /// Fields of the guest's input and of its output, in WIT.
    #[serde(default = "number")]
    takes: String,
    #[serde(default = "number")]
    gives: String,
    /// Further imports of the guest's world, and their packages, in WIT.
    #[serde(default)]
    world: String,
    #[serde(default)]
    packages: String,
    /// The guest's input. A text after `@` is stored as an artifact, whose reference replaces the text.
    #[serde(default = "one")]
    input: Value,
    /// The content of the table `[grants]` in the guest's manifest.
    #[serde(default)]
    grants: String,
    #[serde(default)]
    limits: BTreeMap<String, u64>,
    /// Limits of the process that compiles the guest.
    #[serde(default)]
    compile: BTreeMap<String, u64>,

    /// The expected outcome, exactly one of three: the code of the refusal; the kind and code of the failure; the JSON
    /// of the output.
    refused: Option<String>,
    fails: Option<String>,
    returns: Option<String>,
    /// Words in the message or in the help.
    says: Option<String>,
    /// The most linear memory that the guest may hold, in bytes.
    peak_memory: Option<u64>,
    log_lines: Option<usize>,
    log_dropped: Option<u64>,
    /// The number of artifacts that the guest adds to the store.
    artifacts: Option<usize>,
    /// The outcome holds on OpenCV only, because the fake vision does not check boxes and sizes.
    #[serde(default)]
    opencv: bool,
}

fn number() -> String {
    "n: u32".to_owned()
}

fn one() -> Value {
    json!({ "n": 1 })
}

/// The values of `base`, replaced by those of the header's table. An unknown key is an error.
fn over<T: serde::Serialize + for<'de> Deserialize<'de>>(base: &T, table: &BTreeMap<String, u64>) -> T {
    let mut all = serde_json::to_value(base).unwrap();
    for (key, value) in table {
        *all.get_mut(key).unwrap_or_else(|| panic!("there is no limit `{key}`")) = json!(value);
    }
    serde_json::from_value(all).unwrap()
}

struct Guest {
    name: String,
    /// Whether the guest uses pictures or models.
    looks: bool,
    header: Header,
    limits: Limits,
    component: Vec<u8>,
}

impl Guest {
    fn read(path: &Path) -> Self {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(path).unwrap();
        Self::parse(name, &text)
    }

    fn parse(name: String, text: &str) -> Self {
        let lines: String = text
            .lines()
            .filter_map(|line| line.strip_prefix(";;!"))
            .flat_map(|line| [line.trim_start(), "\n"])
            .collect();
        let header: Header = toml::from_str(&lines).unwrap_or_else(|error| panic!("{name}: {error}"));
        let ends = [&header.refused, &header.fails, &header.returns];
        assert_eq!(ends.iter().filter(|end| end.is_some()).count(), 1, "{name} says not one way in which it ends");
        assert!(text.starts_with(";; "), "{name} does not say what it is");
        let code: String = text.lines().filter(|line| !line.starts_with(";;")).flat_map(|line| [line, "\n"]).collect();
        let component = if code.starts_with("(component") {
            wat::parse_str(&code).unwrap_or_else(|error| panic!("{name}: {error}"))
        } else {
            component_of(&header.wit(), &code)
        };
        let limits = over(&Limits::DEFAULT, &header.limits);
        Self { name, looks: code.contains("dovetail:vision/"), header, limits, component }
    }
}

impl Header {
    fn wit(&self) -> String {
        let Self { types, takes, gives, world, packages, .. } = self;
        let mentions = |word: &str| [takes, gives, types].iter().any(|text| text.contains(word));
        let image = if mentions("image") { "use dovetail:vision/images@0.1.0.{image};" } else { "" };
        let artifact = if mentions("artifact") { "use dovetail:task/artifacts@0.1.0.{artifact};" } else { "" };
        format!(
            "package acme:probe@1.0.0; interface task {{ use dovetail:task/types@0.1.0.{{task-error}}; \
             {image} {artifact} {types} \
             record input {{ {takes} }} record output {{ {gives} }} \
             run: func(input: input) -> result<output, task-error>; }} \
             world component {{ include dovetail:task/imports@0.1.0; include dovetail:vision/imports@0.1.0; {world} \
             export task; }} {packages}"
        )
    }

    fn grants(&self) -> String {
        if self.grants.is_empty() { String::new() } else { format!("[grants]\n{}", self.grants) }
    }
}

/// The result of one run of a guest that was not refused.
struct Seen {
    report: Report,
    took: Duration,
    artifacts: usize,
}

/// Every way in which a run differs from its file's header or exceeds a limit.
fn wrong(guest: &Guest, seen: &Seen) -> Vec<String> {
    let Guest { header, limits, .. } = guest;
    let Report { outcome, usage, log, log_dropped, .. } = &seen.report;
    let mut wrong = Vec::new();
    let mut check = |right: bool, what: String| {
        if !right {
            wrong.push(what);
        }
    };
    match outcome {
        Outcome::Succeeded { output } => {
            let expected = header.returns.as_ref().map(|text| serde_json::from_str::<Value>(text).unwrap());
            check(expected.as_ref() == Some(output), format!("it returned {output}"));
        }
        Outcome::Failed { failure } => {
            let kind = serde_json::to_value(failure.kind).unwrap();
            let ended = format!("{} {}", kind.as_str().unwrap(), failure.code);
            let said = failure.message.contains(header.says.as_deref().unwrap_or_default());
            check(header.fails.as_ref() == Some(&ended) && said, format!("it failed: {ended}: {}", failure.message));
            check(
                failure.message.len() <= 4 << 10 && failure.code.len() <= 64,
                "its failure is not bounded".to_owned(),
            );
            check(!failure.message.is_empty(), "its failure says nothing".to_owned());
            check(
                failure.kind != FailureKind::Timeout || seen.took >= Duration::from_millis(limits.time_ms),
                "it ran out of time early".to_owned(),
            );
        }
    }
    let time = Duration::from_millis(limits.time_ms) + SLACK;
    check(seen.took <= time, format!("it took {:?}, its limit is {} ms", seen.took, limits.time_ms));
    check(usage.peak_memory <= limits.memory, format!("it held {} bytes of memory", usage.peak_memory));
    check(
        header.peak_memory.is_none_or(|peak| peak == usage.peak_memory),
        format!("it held {} bytes of memory", usage.peak_memory),
    );
    check(usage.output_bytes <= limits.output, format!("its output has {} bytes", usage.output_bytes));
    let text: usize = log
        .iter()
        .map(|line| {
            line.message.len()
                + line.fields.iter().map(|(key, value)| key.len() + value.to_string().len()).sum::<usize>()
        })
        .sum();
    // The JSON of a field may be written with other spaces.
    check(text as u64 <= limits.log * 2, format!("its log has {text} bytes"));
    check(header.log_lines.is_none_or(|lines| lines == log.len()), format!("{} lines of its log were kept", log.len()));
    check(
        header.log_dropped.is_none_or(|lines| lines == *log_dropped),
        format!("{log_dropped} lines of its log were dropped"),
    );
    check(
        header.artifacts.is_none_or(|number| number == seen.artifacts),
        format!("it stored {} artifacts", seen.artifacts),
    );
    wrong
}

/// Writes a megabyte, logs a line and blocks in that call. Then it adds up the written bytes, crops its picture and
/// returns both.
const NEIGHBOUR: &str = r#";; A task that does as it should.
;;! takes = "image: image, n: u32"
;;! gives = "images: list<image>, sum: u32"
;;! returns = "{}"
(module
  (import "dovetail:task/logging@0.1.0" "log" (func $log (param i32 i32 i32 i32 i32)))
  (import "dovetail:vision/images@0.1.0" "[method]image.crop" (func $crop (param i32 f32 f32 f32 f32 i32)))
  (memory (export "memory") 20)
  (data (i32.const 0x2000) "the neighbour is at work")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x4000))
  (func (export "acme:probe/task@1.0.0#run") (param $image i32) (param $n i32) (result i32)
    (local $i i32) (local $sum i32)
    (memory.fill (i32.const 0x10000) (local.get $n) (i32.const 0x100000))
    (call $log (i32.const 2) (i32.const 0x2000) (i32.const 24) (i32.const 0) (i32.const 0))
    (loop $again
      (local.set $sum (i32.add (local.get $sum) (i32.load8_u offset=0x10000 (local.get $i))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $i) (i32.const 0x100000))))
    (call $crop (local.get $image) (f32.const 1) (f32.const 2) (f32.convert_i32_u (local.get $n)) (f32.const 40)
    (i32.const 0x3000))
    (i32.store (i32.const 0x3100) (i32.load (i32.const 0x3008)))
    (i32.store (i32.const 1032) (i32.const 0x3100))
    (i32.store (i32.const 1036) (i32.const 1))
    (i32.store (i32.const 1040) (local.get $sum))
    (i32.const 1024)))"#;
/// The number of the held neighbour; the busy neighbour has its own.
const HELD: u32 = 77;
const BUSY: u32 = 11;

/// Where the held neighbour blocks, in its call of the log, until the guest has ended.
#[derive(Default)]
struct Gate(Mutex<[bool; 2]>, Condvar);

impl Gate {
    const ARRIVED: usize = 0;
    const OPEN: usize = 1;

    fn set(&self, which: usize, value: bool) {
        self.0.lock().unwrap()[which] = value;
        self.1.notify_all();
    }

    /// The wait is bounded, so that a defect fails the test instead of blocking it.
    fn wait(&self, which: usize) {
        let (state, _) =
            self.1.wait_timeout_while(self.0.lock().unwrap(), Duration::from_secs(60), |state| !state[which]).unwrap();
        assert!(state[which], "no call reached the gate");
    }
}

/// A runtime with its neighbours.
struct Street {
    bench: Bench,
    gate: Arc<Gate>,
    neighbour: Digest,
    picture: Value,
    /// The neighbours' crops of the picture, by the neighbours' numbers.
    cuts: BTreeMap<u32, Digest>,
    opencv: Option<Arc<Opencv>>,
    folder: tempfile::TempDir,
}

impl Street {
    /// Creates a street on the fake vision, or on OpenCV.
    fn new(opencv: Option<Opencv>) -> Self {
        let opencv = opencv.map(Arc::new);
        let (folder, gate) = (tempfile::tempdir().unwrap(), Arc::<Gate>::default());
        let bench = Bench::with(|options| {
            options.cache_dir = folder.path().join("code");
            options.compiler = Some(program(folder.path()));
            options.budgets = Budgets { images: 32 << 20, artifacts: 16 << 20, ..Budgets::default() };
            if let Some(opencv) = &opencv {
                options.vision = opencv.clone();
            }
            let gate = gate.clone();
            options.live = Some(Arc::new(move |facts, live| {
                if facts.idempotency_key == "held" && matches!(live, Live::Log(_)) {
                    gate.set(Gate::ARRIVED, true);
                    gate.wait(Gate::OPEN);
                }
            }));
        });
        assert!(bench.runtime.pooled(), "without a pool there is nothing to be seen of it");
        let neighbour = bench.install("probe", &Guest::parse("neighbour".to_owned(), NEIGHBOUR).component, "");
        let picture = bench.artifact(&file(opencv.as_deref(), "640x480"), "image/png");
        let cut = |n: u32| match &opencv {
            None => Digest::of(format!("{n}x40").as_bytes()),
            Some(opencv) => {
                let area = Rect { x: 1.0, y: 2.0, width: n as f32, height: 40.0 };
                let cut = opencv.crop(&gradient(640, 480), area).unwrap();
                Digest::of(&opencv.encode(&cut, "image/png", None, &Stop::never()).unwrap())
            }
        };
        let cuts = [HELD, BUSY].map(|n| (n, cut(n))).into();
        Self { bench, gate, neighbour, picture, cuts, opencv, folder }
    }

    /// Runs a neighbour once. Returns an error if any part of the result is wrong.
    fn neighbour(&self, n: u32, key: &str) -> Result<(), String> {
        let mut facts = attempt(self.neighbour, json!({ "image": self.picture, "n": n }), Limits::DEFAULT);
        facts.idempotency_key = key.to_owned();
        let report = dovetail_core::executor::Executor::execute(&self.bench.runtime, &facts, &Stop::never())
            .map_err(|error| error.to_string())?;
        let cut = json!({ "$artifact": self.cuts[&n], "media_type": "image/png" });
        let expected = json!({ "images": [cut], "sum": n << 20 });
        let lines: Vec<_> = report.log.iter().map(|line| line.message.as_str()).collect();
        match &report.outcome {
            Outcome::Succeeded { output } if *output == expected && lines == ["the neighbour is at work"] => Ok(()),
            other => Err(format!("a neighbour was disturbed: {other:?}, log {lines:?}")),
        }
    }

    fn artifacts(&self) -> usize {
        self.bench.blobs.0.lock().unwrap().keys().filter(|(kind, _)| *kind == BlobKind::Artifact).count()
    }

    /// The guest's input, with its artifacts stored.
    fn input(&self, value: &Value) -> Value {
        match value {
            Value::String(text) if text.starts_with('@') => {
                self.bench.artifact(&file(self.opencv.as_deref(), &text[1..]), "image/png")
            }
            Value::Array(items) => items.iter().map(|item| self.input(item)).collect(),
            Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), self.input(value))).collect(),
            other => other.clone(),
        }
    }

    /// Registers the component. Returns whether it was accepted, and what is wrong with the answer.
    fn registered(&self, guest: &Guest) -> (bool, Vec<String>) {
        let manifest = manifest("probe", &guest.header.grants());
        let grants = dovetail_core::manifest::Manifest::parse(&manifest).unwrap().grants;
        let code = self.folder.path().join("register");
        let limits = over(&CompileLimits::default(), &guest.header.compile);
        let options = CompilerOptions {
            cache_dir: code.clone(),
            cache_bytes: 64 << 20,
            program: Some(self.folder.path().join("compiler")),
            limits,
        };
        let began = Instant::now();
        let described = Compiler::new(options).unwrap().describe(&guest.component, &grants);
        let took = began.elapsed();
        fs::remove_dir_all(code).unwrap();
        let mut wrong = Vec::new();
        let taken = match (&described, &guest.header.refused) {
            (Ok(_), None) => true,
            (Err(LoadError::Refused(refusal)), Some(code)) => {
                let words = guest.header.says.as_deref().unwrap_or_default();
                if refusal.code != code || !(refusal.message.contains(words) || refusal.help.contains(words)) {
                    wrong.push(format!("it was refused: {refusal:?}"));
                }
                if refusal.message.is_empty() || refusal.message.len() > 8 << 10 {
                    wrong.push(format!("its refusal has {} bytes", refusal.message.len()));
                }
                false
            }
            (other, _) => {
                wrong.push(format!("registering it: {:?}", other.as_ref().map(|_| "it was taken")));
                false
            }
        };
        let most = Duration::from_secs(limits.cpu_seconds) + Duration::from_secs(10);
        if took > most {
            wrong.push(format!("registering it took {took:?}"));
        }
        (taken, wrong)
    }

    /// Runs the guest among its neighbours, repeatedly if it is quick.
    fn runs(&self, guest: &Guest) -> Vec<String> {
        let package = self.bench.install("probe", &guest.component, &guest.header.grants());
        if let Err(error) = self.bench.runtime.preload(&package) {
            return vec![format!("loading it: {error}")];
        }
        let input = self.input(&guest.header.input);
        // The guest's code stays loaded, as in a worker.
        let before = Traces::of(&self.bench);
        let over = AtomicBool::new(false);
        self.gate.set(Gate::ARRIVED, false);
        self.gate.set(Gate::OPEN, false);
        let mut found = std::thread::scope(|scope| {
            let held = scope.spawn(|| self.neighbour(HELD, "held"));
            self.gate.wait(Gate::ARRIVED);
            let busy = scope.spawn(|| {
                // At least one whole run, which begins before the guest's last run ends.
                iter::once(())
                    .chain(iter::repeat(()).take_while(|()| !over.load(Ordering::Relaxed)))
                    .try_for_each(|()| self.neighbour(BUSY, "busy"))
            });
            let (began, stored, mut found) = (Instant::now(), self.artifacts(), Vec::new());
            for _ in 0..RUNS {
                let started = Instant::now();
                let report = self.bench.attempt(package, input.clone(), guest.limits, &Stop::never());
                let seen = Seen { took: started.elapsed(), artifacts: self.artifacts() - stored, report };
                found = wrong(guest, &seen);
                if !found.is_empty() || began.elapsed() > AGAIN_FOR {
                    break;
                }
            }
            over.store(true, Ordering::Relaxed);
            self.gate.set(Gate::OPEN, true);
            found.extend([held, busy].into_iter().filter_map(|neighbour| neighbour.join().unwrap().err()));
            found
        });
        found.extend(before.stays(&self.bench));
        found
    }
}

/// A picture of `WIDTHxHEIGHT` as a file, for the fake vision or for OpenCV. Any other text is the content of the file.
fn file(opencv: Option<&Opencv>, text: &str) -> Vec<u8> {
    let size = text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    match (opencv, size) {
        (Some(opencv), Some((width, height))) => {
            opencv.encode(&gradient(width, height), "image/png", None, &Stop::never()).unwrap()
        }
        _ => text.as_bytes().to_vec(),
    }
}

/// A picture of which no two parts are alike.
fn gradient(width: u32, height: u32) -> Image {
    let pixels: Vec<u8> =
        (0..height).flat_map(|y| (0..width).flat_map(move |x| [(x / 4) as u8, (y / 4) as u8, (x ^ y) as u8])).collect();
    Image::new(pixels, Size { width, height }).unwrap()
}

#[test]
fn a_run_that_is_not_as_the_file_says_is_noticed() {
    let log = r#"(import "dovetail:task/logging@0.1.0" "log" (func $log (param i32 i32 i32 i32 i32)))"#;
    let says = |header: &str, end: &str| {
        let text = format!(
            ";; One line, and an end.\n{}\n(module {log} (memory (export \"memory\") 1)\n\
             (func (export \"acme:probe/task@1.0.0#run\") (param i32) (result i32)\n\
             (call $log (i32.const 2) (i32.const 0) (i32.const 4) (i32.const 0) (i32.const 0)) {end}))",
            header.lines().map(|line| format!(";;! {}", line.trim())).collect::<Vec<_>>().join("\n")
        );
        let guest = Guest::parse("one".to_owned(), &text);
        let (began, report) =
            (Instant::now(), Bench::new().run_within(&guest.component, json!({ "n": 1 }), guest.limits));
        wrong(
            &guest,
            &Seen { report, took: began.elapsed().min(Duration::from_millis(guest.limits.time_ms)), artifacts: 0 },
        )
    };
    let (good, bad) = ("(i32.const 1024)", "(unreachable)");
    let returns = "returns = '{\"n\": 0}'";
    let all = "peak_memory = 65536\nlog_lines = 1\nlog_dropped = 0\nartifacts = 0";
    assert_eq!(says(&format!("{returns}\n{all}"), good), Vec::<String>::new());
    assert_eq!(says("fails = 'trap unreachable'\nsays = 'aborted'", bad), Vec::<String>::new());
    for (header, end, words) in [
        ("returns = '{\"n\": 1}'", good, "it returned"),
        (returns, bad, "it failed"),
        ("fails = 'trap unreachable'", good, "it returned"),
        ("fails = 'trap exit'", bad, "it failed"),
        ("fails = 'panic unreachable'", bad, "it failed"),
        ("fails = 'trap unreachable'\nsays = 'something else'", bad, "it failed"),
        (&format!("{returns}\npeak_memory = 1"), good, "bytes of memory"),
        (&format!("{returns}\nlog_lines = 2"), good, "lines of its log were kept"),
        (&format!("{returns}\nlog_dropped = 1"), good, "lines of its log were dropped"),
        (&format!("{returns}\nartifacts = 1"), good, "it stored 0 artifacts"),
    ] {
        let wrong = says(header, end);
        assert!(wrong.len() == 1 && wrong[0].contains(words), "{header}: {wrong:?}");
    }
    // Limits that no header can change.
    let guest = Guest::parse("one".to_owned(), &NEIGHBOUR.replace("{}", "{}\"\n;;! says = \""));
    let (bench, limits) = (Bench::new(), Limits { time_ms: 1, output: 1, memory: 1, ..Limits::DEFAULT });
    let input = json!({ "image": bench.artifact(b"640x480", "image/png"), "n": 1 });
    let report = bench.run(&guest.component, input);
    let seen = Seen { report, took: Duration::from_secs(1), artifacts: 0 };
    let wrong = wrong(&Guest { limits, ..guest }, &seen);
    for words in ["it took 1s, its limit is 1 ms", "bytes of memory", "its output has"] {
        assert!(wrong.iter().any(|one| one.contains(words)), "{words} is not in {wrong:?}");
    }
}

/// The resources of this process that a guest must release.
#[derive(Debug, Clone, Copy)]
struct Traces {
    /// Resident memory after free memory was returned to the system, in bytes.
    memory: u64,
    files: usize,
    threads: usize,
    /// The number of references to the runtime's ports. The state of each attempt holds one.
    holders: usize,
    pool: Occupancy,
    /// Bytes in use of the memory budget that attempts share.
    held: u64,
}

impl Traces {
    fn of(bench: &Bench) -> Self {
        trim();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap()
                .trim()
                .trim_end_matches(" kB")
                .parse::<u64>()
                .unwrap()
        };
        Self {
            memory: field("VmRSS:") << 10,
            files: fs::read_dir("/proc/self/fd").unwrap().count(),
            threads: field("Threads:") as usize,
            holders: Arc::strong_count(&bench.blobs) + Arc::strong_count(&bench.vision),
            pool: bench.runtime.occupancy().unwrap(),
            held: bench.runtime.held(),
        }
    }

    /// The traces in excess of `self` that stay. The system releases a thread a moment after it was joined, so this
    /// waits for up to 5 s.
    fn stays(&self, bench: &Bench) -> Vec<String> {
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            let more = self.more(&Self::of(bench));
            if more.is_empty() || Instant::now() >= until {
                return more;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The traces in `now` in excess of `self`.
    fn more(&self, now: &Self) -> Vec<String> {
        let mut more = Vec::new();
        if now.pool != Occupancy::default() {
            more.push(format!("the pool is not empty: {:?}", now.pool));
        }
        if now.held > 0 {
            more.push(format!("{} bytes of pictures or artifacts are still held", now.held));
        }
        if now.memory > self.memory + LEFT_OVER {
            more.push(format!("{} KiB of memory are left over", (now.memory - self.memory) >> 10));
        }
        for (what, then, now) in [
            ("files", self.files, now.files),
            ("threads", self.threads, now.threads),
            ("holders of the ports", self.holders, now.holders),
        ] {
            if now > then {
                more.push(format!("{what}: {now}, there were {then}"));
            }
        }
        more
    }
}

/// Checks that leaks are detected at all; otherwise their absence would prove nothing.
fn what_is_left_behind_is_noticed(bench: &Bench) {
    let before = Traces::of(bench);
    let (file, holder, held) =
        (fs::File::open("/dev/null").unwrap(), bench.blobs.clone(), vec![1_u8; LEFT_OVER as usize * 5 / 4]);
    let (end, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || wait.recv().is_err());
    let now = Traces { pool: Occupancy { memories: 1, ..Occupancy::default() }, held: 1, ..Traces::of(bench) };
    let more = before.more(&now);
    for words in [
        "the pool is not empty",
        "pictures or artifacts are still held",
        "memory are left over",
        "files",
        "threads",
        "holders of the ports",
    ] {
        assert_eq!(more.iter().filter(|one| one.contains(words)).count(), 1, "{words} is not in {more:?}");
    }
    drop((file, holder, std::hint::black_box(held), end));
    thread.join().unwrap();
    assert_eq!(before.stays(bench), Vec::<String>::new());
}

/// Returns free memory to the system, so that the remaining memory is in use.
#[expect(unsafe_code, reason = "std has no name for it")]
fn trim() {
    // SAFETY: `malloc_trim` takes a number and touches only free memory.
    unsafe { libc::malloc_trim(0) };
}

fn corpus() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/hostile");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(
        files.iter().all(|file| file.extension().is_some_and(|ending| ending == "wat")),
        "{} holds something else",
        folder.display()
    );
    files
}

/// Runs in its own process, whose memory is measured. To print the table: `MALLOC_ARENA_MAX=1 cargo test --release -p
/// dovetail-runtime --test it -- --exact hostile::alone --ignored --nocapture`.
#[test]
#[ignore = "started by the test below, in a process of its own"]
fn alone() {
    let guests: Vec<Guest> =
        corpus().iter().map(|file| Guest::read(file)).filter(|guest| !guest.header.opencv).collect();
    // Warm up everything that is made once and kept: the neighbours' code, WASI's thread, the allocator's arenas.
    judge(&Street::new(None), &guests, |guest| {
        ["inert-poll-of-nothing", "memory-one-step"].contains(&guest.name.as_str())
    });
}

/// The guests that use pictures, on OpenCV.
#[test]
#[ignore = "started by a test below, in a process of its own"]
fn alone_on_opencv() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/face-api/package");
    let package = std::env::var_os("DOVETAIL_FACE_API").map_or(package, PathBuf::from);
    let models = tempfile::tempdir().unwrap();
    let store = ModelStore::open(models.path()).unwrap();
    store.import_face_api(&package).unwrap_or_else(|error| {
        panic!(
            "no models from `{}`: {error}; run `./justw setup`, or name the package's folder in DOVETAIL_FACE_API",
            package.display()
        )
    });
    let guests: Vec<Guest> = corpus().iter().map(|file| Guest::read(file)).filter(|guest| guest.looks).collect();
    assert!(
        guests.iter().filter(|guest| guest.header.opencv).count() >= 4 && guests.len() >= 15,
        "guests that look at pictures are not found"
    );
    // The networks are also made once and kept.
    judge(&Street::new(Some(Opencv::new(Options::new(models.path())).unwrap())), &guests, |_| true);
}

/// Runs and judges every guest. Guests for which `warms` is true also run once before, unjudged.
#[expect(clippy::print_stdout, reason = "the table is printed for people")]
fn judge(street: &Street, guests: &[Guest], warms: impl Fn(&Guest) -> bool) {
    for guest in guests.iter().filter(|guest| warms(guest)) {
        drop(street.runs(guest));
    }
    what_is_left_behind_is_noticed(&street.bench);
    let base = Traces::of(&street.bench).memory;
    let mut failed = 0;
    for guest in guests {
        let began = Instant::now();
        let before = Traces::of(&street.bench);
        let (taken, mut wrong) = street.registered(guest);
        wrong.extend(before.stays(&street.bench));
        if taken {
            wrong.extend(street.runs(guest));
        }
        let now = Traces::of(&street.bench);
        if now.memory > base + LEFT_OVER {
            wrong.push(format!("since the first guest {} KiB of memory were lost", (now.memory - base) >> 10));
        }
        let Header { refused, fails, returns, .. } = &guest.header;
        let end = [("refused", refused), ("fails", fails), ("returns", returns)]
            .into_iter()
            .find_map(|(how, what)| Some(format!("{how} {}", what.as_ref()?)));
        println!(
            "{:40} {:55} {:5} ms {:+6} KiB {}",
            guest.name,
            end.unwrap_or_default(),
            began.elapsed().as_millis(),
            (now.memory as i64 - base as i64) >> 10,
            wrong.join("; ")
        );
        failed += usize::from(!wrong.is_empty());
    }
    assert_eq!(failed, 0, "of {} guests; the table above says which", guests.len());
}

fn in_a_process_of_its_own(test: &str) {
    let mut alone = Command::new(std::env::current_exe().unwrap());
    // Free memory in the allocator's other arenas cannot be returned, and would count as a leak.
    let alone =
        alone.args(["--exact", test, "--ignored", "--nocapture"]).env("MALLOC_ARENA_MAX", "1").output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&alone.stdout), String::from_utf8_lossy(&alone.stderr));
    assert!(alone.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn every_hostile_guest_ends_as_it_should_and_harms_nobody() {
    in_a_process_of_its_own("hostile::alone");
}

#[test]
fn so_does_every_one_that_looks_at_pictures_on_opencv() {
    in_a_process_of_its_own("hostile::alone_on_opencv");
}
