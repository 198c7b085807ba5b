//! The models of a run: each is chosen once, for all workers that run the run's steps.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use crate::bench::document;
use dovetail_core::executor::{Attempt, Executor, FailureKind, HostError, ModelUse, Models, ModelsByKind, Report};
use dovetail_core::ledger::{Kind, Listing, MODEL_KIND, Scope, exact_model};
use dovetail_core::record::{Form as _, RunRecord};
use dovetail_core::stop::Stop;
use dovetail_core::{Digest, RunId};
use dovetail_flow::{
    Daemon, Keep, Published, Shutdown, Worker, WorkerOptions, collect, model_kinds, new_run_id, push_plugin, retry,
    submit_with, waits,
};
use serde_json::json;

use crate::bench::{Bench, adder, fails, sum};

/// A detector of this name.
fn detector(name: &str) -> ModelUse {
    ModelUse::new(name, Digest::of(name.as_bytes()))
}

fn chosen(model: &ModelUse) -> Models {
    Models { by_kind: BTreeMap::from([("detector".to_owned(), model.clone())]), engine: None }
}

/// Publishes three steps that each open a detector: two side by side, and one after them.
fn publish(bench: &Bench) -> Published {
    let record = dovetail_core::record::PluginRecord { model_kinds: vec!["detector".into()], ..adder("1.1.0") };
    push_plugin(&bench.ports, &record, b"package of add@1.1.0").unwrap();
    let steps = [("left", "input.x", "input.x"), ("right", "input.x", "input.x"), ("last", "left.sum", "right.sum")];
    bench.publish(&json!({}), &steps)
}

/// An executor that has one detector and cannot open another one.
struct With {
    model: ModelUse,
    /// The steps that ran, each with its detector.
    ran: Mutex<Vec<(String, ModelUse)>>,
    /// The number of attempts, including those that could not be made.
    asked: AtomicUsize,
    /// All attempts fail.
    fails: bool,
    /// The capability of the engine in which its networks run.
    engine: &'static str,
    /// Two executors meet here, so that they choose at the same time.
    meeting: Option<Arc<Barrier>>,
}

impl With {
    fn new(name: &str) -> Arc<Self> {
        Arc::new(Self::made(name))
    }

    fn made(name: &str) -> Self {
        let (ran, asked) = (Mutex::default(), AtomicUsize::new(0));
        Self { model: detector(name), ran, asked, fails: false, engine: "engine:opencv", meeting: None }
    }

    fn steps(&self) -> Vec<String> {
        let mut steps: Vec<String> = self.ran.lock().unwrap().iter().map(|(step, _)| step.clone()).collect();
        steps.sort();
        steps
    }
}

impl Executor for With {
    fn execute(&self, attempt: &Attempt, _: &Stop) -> Result<Report, HostError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        // As the runtime does: if no model was chosen, it opens its own.
        let model = attempt.models.get("detector").unwrap_or(&self.model).clone();
        if model != self.model {
            return Err(HostError {
                operation: format!("open {}", model.name),
                transient: false,
                missing: None,
                source: None,
            });
        }
        self.ran.lock().unwrap().push((attempt.step.to_string(), model));
        Ok(if self.fails { fails(FailureKind::InvalidInput, false) } else { sum(attempt) })
    }

    fn choose_models(&self, kinds: &[&str]) -> Result<ModelsByKind, HostError> {
        assert_eq!(kinds, ["detector"]);
        if let Some(meeting) = &self.meeting {
            meeting.wait();
        }
        Ok(chosen(&self.model).by_kind)
    }
}

/// Ends the workers also if a test fails: otherwise the test would wait for them for ever.
struct Ending<'s>(&'s [&'s Shutdown]);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|shutdown| shutdown.drain());
    }
}

/// Starts a worker for all runs with this executor. It registers with the executor's detector.
fn work<'s>(threads: &'s std::thread::Scope<'s, '_>, bench: &'s Bench, executor: &Arc<With>, shutdown: &Shutdown) {
    let able = vec![format!("{MODEL_KIND}detector"), exact_model(&executor.model), executor.engine.to_owned()];
    let about = json!({ "able": able }).to_string().into_bytes();
    let daemon = Daemon { about: Arc::new(move |_, _| about.clone()), able: Arc::new(move || able.clone()) };
    let options = WorkerOptions {
        jobs: 1,
        lease: Duration::from_secs(1000),
        name: executor.model.name.clone(),
        on_event: None,
        daemon: Some(daemon),
    };
    let worker = Arc::new(Worker::new(bench.ports.clone(), executor.clone(), options));
    let shutdown = shutdown.clone();
    threads.spawn(move || worker.run(&Scope::All, &shutdown).unwrap());
}

fn submit(bench: &Bench, published: &Published, models: &Models) -> RunId {
    let run = new_run_id();
    submit_with(&bench.ports, published, models, vec![(run.clone(), json!({ "x": 2 }))]).unwrap().remove(0).unwrap();
    run
}

fn state(bench: &Bench, run: &RunId) -> String {
    document(&bench.ports, run).unwrap()["state"].as_str().unwrap().to_owned()
}

/// Moves the clock until `condition` holds.
fn until(bench: &Bench, what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}");
        bench.clock.advance(Duration::from_millis(100));
        bench.ports.ledger.wake();
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn every_step_of_a_run_gets_the_model_that_was_chosen_as_it_was_submitted() {
    let bench = Bench::new();
    let published = publish(&bench);
    assert_eq!(model_kinds(&published.pipeline).into_iter().collect::<Vec<_>>(), ["detector"]);
    let (one, other) = (With::new("one"), With::new("other"));
    let (shutdown, late) = (Shutdown::default(), Shutdown::default());
    std::thread::scope(|threads| {
        let _ending = Ending(&[&shutdown, &late]);
        // The worker with another detector is there first, and does not claim the steps.
        work(threads, &bench, &other, &shutdown);
        let run = submit(&bench, &published, &chosen(&one.model));
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!((state(&bench, &run).as_str(), other.asked.load(Ordering::SeqCst)), ("queued", 0));
        let waits = waits(&bench.ports, &run).unwrap();
        assert!(waits.iter().any(|line| line.contains("the model one (sha256:")), "{waits:?}");
        work(threads, &bench, &one, &late);
        until(&bench, "the run ends", || state(&bench, &run) == "succeeded");
    });
    assert_eq!(one.steps(), ["last", "left", "right"]);
    assert_eq!(other.asked.load(Ordering::SeqCst), 0, "the other worker has claimed no job");
}

#[test]
fn without_a_choice_the_first_step_chooses_for_all() {
    // Two workers with different detectors have each started a step, and neither has read a choice. The first recorded
    // choice counts for both, and the other worker gives its step back.
    for _ in 0..5 {
        let bench = Bench::new();
        let published = publish(&bench);
        let run = submit(&bench, &published, &Models::new());
        let meeting = Some(Arc::new(Barrier::new(2)));
        let [one, other] = ["one", "other"].map(|name| Arc::new(With { meeting: meeting.clone(), ..With::made(name) }));
        let shutdown = Shutdown::default();
        std::thread::scope(|threads| {
            let _ending = Ending(&[&shutdown]);
            work(threads, &bench, &one, &shutdown);
            work(threads, &bench, &other, &shutdown);
            until(&bench, "the run ends", || state(&bench, &run) == "succeeded");
        });
        let ran: Vec<usize> = [&one, &other].iter().map(|worker| worker.steps().len()).collect();
        assert!(ran == [3, 0] || ran == [0, 3], "{ran:?}");
    }
}

#[test]
fn a_run_that_is_run_again_keeps_its_models() {
    for at_submission in [true, false] {
        let bench = Bench::new();
        let published = publish(&bench);
        let one = Arc::new(With { fails: true, ..With::made("one") });
        let models = if at_submission { chosen(&one.model) } else { Models::new() };
        let run = submit(&bench, &published, &models);
        let first = Shutdown::default();
        std::thread::scope(|threads| {
            let _ending = Ending(&[&first]);
            work(threads, &bench, &one, &first);
            until(&bench, "the run fails", || state(&bench, &run) == "failed");
        });
        let (other, mended) = (With::new("other"), With::new("one"));
        let (shutdown, late) = (Shutdown::default(), Shutdown::default());
        std::thread::scope(|threads| {
            let _ending = Ending(&[&shutdown, &late]);
            work(threads, &bench, &other, &shutdown);
            retry(&bench.ports, &run, "test").unwrap();
            std::thread::sleep(Duration::from_millis(200));
            work(threads, &bench, &mended, &late);
            until(&bench, "the run ends", || state(&bench, &run) == "succeeded");
        });
        assert_eq!(
            (mended.steps().len(), other.asked.load(Ordering::SeqCst)),
            (3, 0),
            "the other worker has another detector"
        );
    }
}

#[test]
fn a_worker_with_another_engine_leaves_the_steps_of_a_run_alone_that_requires_one() {
    // With and without a model that is chosen at submission; also after a retry, which makes the jobs anew.
    for at_submission in [true, false] {
        let bench = Bench::new();
        let published = publish(&bench);
        let other = With::new("one");
        let fast = |fails| Arc::new(With { fails, engine: "engine:fast@2", ..With::made("one") });
        let (failing, mended) = (fast(true), fast(false));
        let by_kind = if at_submission { chosen(&other.model).by_kind } else { ModelsByKind::new() };
        let models = Models { by_kind, engine: Some("fast@2".parse().unwrap()) };
        let (shutdown, first, late) = (Shutdown::default(), Shutdown::default(), Shutdown::default());
        let run = submit(&bench, &published, &models);
        std::thread::scope(|threads| {
            let _ending = Ending(&[&shutdown, &first, &late]);
            work(threads, &bench, &other, &shutdown);
            std::thread::sleep(Duration::from_millis(200));
            let waits = waits(&bench.ports, &run).unwrap();
            assert!(waits.iter().any(|line| line.contains("the engine fast 2")), "{waits:?}");
            work(threads, &bench, &failing, &first);
            until(&bench, "the run fails", || state(&bench, &run) == "failed");
            first.drain();
            retry(&bench.ports, &run, "test").unwrap();
            std::thread::sleep(Duration::from_millis(200));
            work(threads, &bench, &mended, &late);
            until(&bench, "the run ends", || state(&bench, &run) == "succeeded");
        });
        assert_eq!(other.asked.load(Ordering::SeqCst), 0, "the worker with another engine has claimed no job");
        assert_eq!(mended.steps().len(), 3);
    }
}

#[test]
fn a_choice_goes_with_its_run() {
    let bench = Bench::new();
    let published = publish(&bench);
    let run = submit(&bench, &published, &Models::new());
    let (one, shutdown) = (With::new("one"), Shutdown::default());
    std::thread::scope(|threads| {
        let _ending = Ending(&[&shutdown]);
        work(threads, &bench, &one, &shutdown);
        until(&bench, "the run ends", || state(&bench, &run) == "succeeded");
    });
    let choices = || bench.ports.ledger.list(Kind::ModelChoice, &Listing { limit: 9, ..Listing::default() }).unwrap();
    assert_eq!(choices().iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), [format!("{run}:detector")]);
    bench.clock.advance(Duration::from_secs(31 * 24 * 3600));
    let keep = Keep { runs: Duration::from_secs(30 * 24 * 3600), blobs: Duration::ZERO };
    collect(&bench.ports, &*bench.records, &*bench.kept, &keep, &std::env::temp_dir(), false).unwrap();
    assert_eq!(choices(), []);
}

#[test]
fn a_record_from_before_there_was_a_choice_is_read() {
    let old = br#"{"format":"dovetail.run_record/1","pipeline":"p@1.0.0#1","inputs":{},"submitted_ms":1}"#;
    let record = RunRecord::decode(old, "it").unwrap();
    assert_eq!(record.models, Models::new());
    assert_eq!(record.encode(), old, "the record of a run that opens no model is unchanged");
    let with = RunRecord { models: chosen(&detector("one")), ..record };
    assert_eq!(RunRecord::decode(&with.encode(), "it").unwrap(), with);
}
