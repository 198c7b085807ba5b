//! A registry of arithmetic tasks, an executor for them, and a worker.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dovetail_core::clock::Clock;
use dovetail_core::executor::{
    Attempt, Executor, Failure, FailureKind, HostError, LogLine, ModelUse, Outcome, Report, Usage,
};
use dovetail_core::ledger::RunKey;
use dovetail_core::ledger::Scope;
use dovetail_core::limits::Limits;
use dovetail_core::memory::{ManualClock, MemoryBlobs, MemoryLedger};
use dovetail_core::record::PluginRecord;
use dovetail_core::stop::Stop;
use dovetail_core::wit::{Field, Signature, Type};
use dovetail_core::{Digest, RunId};
use dovetail_flow::FlowError;
use dovetail_flow::{
    Event, Listener, Ports, Published, Shutdown, Worker, WorkerOptions, new_run_id, push_pipeline, push_plugin, submit,
};
use serde_json::{Value, json};

/// The document of a run as it is printed.
pub(crate) fn document(ports: &Ports, run: &RunId) -> Result<Value, FlowError> {
    Ok(serde_json::to_value(dovetail_flow::document(ports, run)?).unwrap())
}

/// The lineage of a run as it is printed.
pub(crate) fn lineage(ports: &Ports, key: &RunKey) -> Result<Value, FlowError> {
    Ok(serde_json::to_value(dovetail_flow::lineage(ports, key)?).unwrap())
}

/// The executor's answer for a step.
pub(crate) type Script = Arc<dyn Fn(&Attempt, &Stop) -> Result<Report, HostError> + Send + Sync>;

/// An executor that runs a script for each step, or adds `a` and `b`.
pub(crate) struct Scripted {
    steps: Mutex<BTreeMap<String, Script>>,
    /// The step and number of every attempt.
    pub(crate) made: Mutex<Vec<(String, u32)>>,
    /// Packages that the worker asked to prepare.
    pub(crate) prepared: Mutex<Vec<Digest>>,
}

impl Executor for Scripted {
    fn prepare(&self, package: &Digest) {
        self.prepared.lock().unwrap().push(*package);
    }

    fn execute(&self, attempt: &Attempt, stop: &Stop) -> Result<Report, HostError> {
        self.made.lock().unwrap().push((attempt.step.to_string(), attempt.number));
        let script = self.steps.lock().unwrap().get(attempt.step.as_str()).cloned();
        match script {
            Some(script) => script(attempt, stop),
            None => Ok(sum(attempt)),
        }
    }
}

/// `sum = a + b`.
pub(crate) fn sum(attempt: &Attempt) -> Report {
    let number = |name: &str| attempt.input[name].as_i64().expect("the inputs were checked");
    report(Outcome::Succeeded { output: json!({ "sum": number("a") + number("b") }) })
}

pub(crate) fn report(outcome: Outcome) -> Report {
    let log = vec![LogLine { at_us: 1, level: "info".into(), message: "ran".into(), fields: BTreeMap::new() }];
    let models = vec![ModelUse::new("adder", Digest::of(b"adder"))];
    Report { outcome, usage: Usage::default(), models, warnings: Vec::new(), log, log_dropped: 0 }
}

pub(crate) fn fails(kind: FailureKind, retryable: bool) -> Report {
    report(Outcome::Failed { failure: Failure { retryable, ..Failure::new(kind, "no_luck", "it did not work") } })
}

/// A registry with the plugin `add`, and everything that a worker needs.
pub(crate) struct Bench {
    pub(crate) ports: Ports,
    /// The ledger of `ports`, with its own type.
    pub(crate) records: Arc<MemoryLedger>,
    /// The blobs of `ports`, with their own type.
    pub(crate) kept: Arc<MemoryBlobs>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) executor: Arc<Scripted>,
    pub(crate) events: Arc<Mutex<Vec<Event>>>,
    pub(crate) shutdown: Shutdown,
}

pub(crate) fn adder(version: &str) -> PluginRecord {
    let field = |name: &str, ty| Field { name: name.into(), ty };
    PluginRecord {
        name: "add".into(),
        version: version.parse().unwrap(),
        package: Digest::of(format!("package of add@{version}").as_bytes()),
        description: "adds".into(),
        signature: Signature {
            interface: format!("test:add/task@{version}"),
            input: vec![field("a", Type::S64), field("b", Type::S64)],
            output: vec![field("sum", Type::S64)],
        },
        limits: Limits::DEFAULT,
        grants: BTreeMap::new(),
        pure: true,
        models: Vec::new(),
        model_kinds: Vec::new(),
        pushed_ms: 0,
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        let (records, kept) = (Arc::new(MemoryLedger::new(clock.clone())), Arc::new(MemoryBlobs::default()));
        dovetail_flow::own_blobs(&*records, &*kept, true).unwrap();
        let ports = Ports { ledger: records.clone(), blobs: kept.clone(), clock: clock.clone() as Arc<dyn Clock> };
        let executor =
            Arc::new(Scripted { steps: Mutex::default(), made: Mutex::default(), prepared: Mutex::default() });
        let bench =
            Self { ports, records, kept, clock, executor, events: Arc::default(), shutdown: Shutdown::default() };
        bench.push_adder("1.0.0");
        bench
    }

    pub(crate) fn push_adder(&self, version: &str) {
        let record = adder(version);
        push_plugin(&self.ports, &record, format!("package of add@{version}").as_bytes()).unwrap();
    }

    /// Publishes a pipeline of additions. Each step is `(name, a, b)`, where `a` and `b` are mappings. `extra` adds
    /// keys to the pipeline file, or replaces them.
    pub(crate) fn publish(&self, extra: &Value, steps: &[(&str, &str, &str)]) -> Published {
        let step = |(n, (name, a, b)): (usize, &(&str, &str, &str))| {
            let retry = json!({ "max_attempts": 3, "backoff": "1ms" });
            let inputs = json!({ "a": a, "b": b });
            ((*name).to_owned(), json!({ "number": n + 1, "task": "add@^1", "inputs": inputs, "retry": retry }))
        };
        let steps_json: serde_json::Map<String, Value> = steps.iter().enumerate().map(step).collect();
        let last = steps.last().unwrap().0;
        let output = json!({ "total": format!("{last}.sum") });
        let mut file = json!({
            "name": "sums", "version": "1.0.0", "inputs": { "x": {} }, "steps": steps_json, "output": output,
        });
        file.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let checked = dovetail_flow::check(&self.ports, &file.to_string()).unwrap();
        let pipeline = checked.pipeline.unwrap_or_else(|| panic!("{:#?}", checked.findings));
        push_pipeline(&self.ports, &pipeline).unwrap().0
    }

    pub(crate) fn script(
        &self,
        step: &str,
        script: impl Fn(&Attempt, &Stop) -> Result<Report, HostError> + Send + Sync + 'static,
    ) {
        self.executor.steps.lock().unwrap().insert(step.to_owned(), Arc::new(script));
    }

    pub(crate) fn submit(&self, published: &Published, x: i64) -> RunId {
        let run = new_run_id();
        let inputs = published.pipeline.resolve_inputs(json!({ "x": x }).as_object().unwrap()).unwrap();
        submit(&self.ports, published, &inputs, &run).unwrap();
        run
    }

    pub(crate) fn worker(&self) -> Arc<Worker> {
        let events = self.events.clone();
        let on_event: Listener = Arc::new(move |event| events.lock().unwrap().push(event.clone()));
        let options = WorkerOptions {
            jobs: 4,
            lease: Duration::from_secs(10),
            name: "test".into(),
            on_event: Some(on_event),
            daemon: None,
        };
        Arc::new(Worker::new(self.ports.clone(), self.executor.clone(), options))
    }

    /// Works until the run is over, and returns the run's document. Moves the clock, so that retries become due.
    pub(crate) fn work(&self, run: &RunId) -> Value {
        self.drive(run);
        document(&self.ports, run).unwrap()
    }

    /// As [`Bench::work`], without the document.
    pub(crate) fn drive(&self, run: &RunId) {
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::SeqCst) {
                    self.clock.advance(Duration::from_millis(1));
                    self.ports.ledger.wake();
                    std::thread::yield_now();
                }
            });
            let result = self.worker().run(&Scope::Runs(vec![run.clone()]), &self.shutdown);
            done.store(true, std::sync::atomic::Ordering::SeqCst);
            result.unwrap();
        });
    }

    pub(crate) fn made(&self) -> Vec<(String, u32)> {
        let mut made = self.executor.made.lock().unwrap().clone();
        made.sort();
        made
    }
}
