//! An old run is removed while other actors submit it again under its key, retry it, or remove it too: every order of
//! their calls to the ledger (systematic concurrency testing).
//!
//! Each actor is a thread that stops before each call, and one thread at a time continues. All schedules are tried,
//! except schedules that only exchange neighbouring calls which do not touch each other's records ("sleep sets", P.
//! Godefroid, Partial-Order Methods for the Verification of Concurrent Systems, 1996). If there are too many schedules,
//! only those with a few preemptions are tried (M. Musuvathi and S. Qadeer, Iterative Context Bounding for Systematic
//! Testing of Multithreaded Programs, 2007).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use dovetail_core::RunId;
use dovetail_core::blobs::StoreError;
use dovetail_core::executor::{FailureKind, Models};
use dovetail_core::ledger::{Kind, Ledger, Listing, Operation, Reply, Scope, Wait};
use dovetail_core::memory::MemoryLedger;
use dovetail_core::retention::Archive;
use dovetail_flow::{FlowError, Keep, Ports, Published, Pushed, collect, keyed_run_id, retry, submit_patiently};
use serde_json::{Value, json};

use crate::bench::{Bench, fails};

const DAY: Duration = Duration::from_secs(24 * 3600);
const KEEP: Keep = Keep { runs: Duration::from_secs(30 * 24 * 3600), blobs: Duration::from_secs(24 * 3600) };
const OF_RUNS: [Kind; 6] = [Kind::Run, Kind::Generation, Kind::Outcome, Kind::Attempt, Kind::Cancel, Kind::RunOutcome];

/// The effect of a call.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    Reads(Kind),
    Writes(Kind),
    /// A change, which may touch records of any kind.
    Changes,
    /// Waits until another actor has changed something.
    Pauses,
}

impl Step {
    fn touches(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Reads(_), Self::Reads(_)) => false,
            (Self::Reads(a) | Self::Writes(a), Self::Reads(b) | Self::Writes(b)) => a == b,
            _ => true,
        }
    }
}

/// A message of a scheduled thread to the scheduler.
enum Report {
    Stops(Step),
    Ended,
}

/// A scheduled thread's connection to the scheduler: the thread reports the call before which it stops, and waits until
/// it may continue.
struct Connection {
    report: Sender<Report>,
    resume: Receiver<()>,
}

thread_local! {
    static CONNECTION: RefCell<Option<Connection>> = const { RefCell::new(None) };
}

/// Stops the thread if it is scheduled.
fn before(step: Step) {
    CONNECTION.with_borrow(|connection| {
        if let Some(connection) = connection {
            connection.report.send(Report::Stops(step)).unwrap();
            connection.resume.recv().unwrap();
        }
    });
}

/// A ledger whose callers stop before each call.
struct Stepping(Arc<MemoryLedger>);

impl Ledger for Stepping {
    dovetail_core::forward_ledger!(0: claim renew open_runs held over beat workers wake wakes);

    fn commit(&self, items: &[Operation]) -> Result<Vec<Reply>, StoreError> {
        before(Step::Changes);
        self.0.commit(items)
    }

    fn get(&self, kind: Kind, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        if OF_RUNS.contains(&kind) && !keys.is_empty() {
            before(Step::Reads(kind));
        }
        self.0.get(kind, keys)
    }

    fn list(&self, kind: Kind, listing: &Listing) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        if OF_RUNS.contains(&kind) {
            before(Step::Reads(kind));
        }
        self.0.list(kind, listing)
    }
}

impl Archive for Stepping {
    fn scan(&self, kind: Kind, after: &str, limit: usize) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        // Records of other kinds are scanned only for digests of blobs, after all removals.
        if kind == Kind::RunOutcome {
            before(Step::Reads(kind));
        }
        Archive::scan(&*self.0, kind, after, limit)
    }

    fn remove(&self, kind: Kind, keys: &[String]) -> Result<(), StoreError> {
        before(Step::Writes(kind));
        Archive::remove(&*self.0, kind, keys)
    }

    fn remove_unchanged(&self, kind: Kind, found: &[(String, Vec<u8>)]) -> Result<(), StoreError> {
        if !found.is_empty() {
            before(Step::Writes(kind));
        }
        self.0.remove_unchanged(kind, found)
    }
}

/// An actor on the run.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Actor {
    Collects,
    Submits,
    RunsAgain,
}

/// The state that the actors share.
struct World {
    bench: Bench,
    stepping: Arc<Stepping>,
    ports: Ports,
    published: Published,
    inputs: Value,
    run: RunId,
}

impl World {
    /// A world with a run under an idempotency key that ended long ago.
    fn new(failed: bool) -> Self {
        let bench = Bench::new();
        let published = bench.publish(&json!({}), &[("a", "input.x", "input.x"), ("b", "a.sum", "input.x")]);
        if failed {
            bench.script("b", |_, _| Ok(fails(FailureKind::Trap, false)));
        }
        let inputs = published.pipeline.resolve_inputs(json!({ "x": 3 }).as_object().unwrap()).unwrap();
        let run = keyed_run_id("sums", "nightly");
        dovetail_flow::submit(&bench.ports, &published, &inputs, &run).unwrap();
        bench.work(&run);
        bench.script("b", |attempt, _| Ok(crate::bench::sum(attempt)));
        bench.clock.advance(31 * DAY);
        let stepping = Arc::new(Stepping(bench.records.clone()));
        let ports = Ports { ledger: stepping.clone(), ..bench.ports.clone() };
        Self { bench, stepping, ports, published, inputs, run }
    }

    fn act(&self, actor: Actor) -> Result<Option<Pushed>, FlowError> {
        match actor {
            Actor::Collects => {
                collect(&self.ports, &*self.stepping, &*self.bench.kept, &KEEP, &std::env::temp_dir(), false)
                    .map(|_| None)
            }
            Actor::Submits => {
                let runs = vec![(self.run.clone(), self.inputs.clone())];
                let pause = || before(Step::Pauses);
                submit_patiently(&self.ports, &self.published, &Models::new(), runs, &pause)?.remove(0).map(Some)
            }
            Actor::RunsAgain => retry(&self.ports, &self.run, "the task was mended").map(|_| None),
        }
    }

    /// The kinds and keys of the run's records that exist.
    fn records(&self) -> Vec<(Kind, String)> {
        let list = |kind| self.bench.records.list(kind, &Listing { limit: 99, ..Listing::default() }).unwrap();
        OF_RUNS.into_iter().flat_map(|kind| list(kind).into_iter().map(move |(key, _)| (kind, key))).collect()
    }

    /// Checks that the final state is consistent: either no record and no job of the run is left, or the run ends with
    /// success.
    fn judge(&self, actors: &[Actor], answers: &[Result<Option<Pushed>, FlowError>]) -> Result<(), String> {
        let is_removed = |error: &FlowError| error.code() == "unknown_run";
        for (actor, answer) in actors.iter().zip(answers) {
            match (actor, answer) {
                (_, Ok(_)) => {}
                // The run was removed before it could be retried.
                (Actor::RunsAgain, Err(error)) if is_removed(error) => {}
                (_, Err(error)) => return Err(format!("{actor:?}: {error}")),
            }
        }
        let records = self.records();
        let created = answers.iter().any(|answer| matches!(answer, Ok(Some(Pushed::Created))));
        let begun = actors.iter().zip(answers).any(|(actor, answer)| *actor == Actor::RunsAgain && answer.is_ok());
        let there = records.iter().any(|(kind, _)| *kind == Kind::Run);
        if (created || begun) && !there {
            return Err("an actor was told that the run runs, but the run is gone".into());
        }
        if !there {
            let open = self.bench.records.open_runs(9).unwrap();
            let jobs = self.bench.records.claim(&Scope::All, 9, DAY, Wait::NONE).unwrap();
            let nothing = records.is_empty() && open.is_empty() && jobs.is_empty();
            return nothing.then_some(()).ok_or_else(|| format!("without the run: {records:?}, {open:?}, {jobs:?}"));
        }
        // No search for lost runs takes place here: an open run without a job would never end.
        let open = || self.bench.records.open_runs(9).unwrap();
        if !open().is_empty() {
            let jobs = self.bench.records.claim(&Scope::All, 9, Duration::ZERO, Wait::NONE).unwrap();
            if jobs.is_empty() || jobs.iter().any(|job| job.run.is_empty()) {
                return Err(format!("open, and queued for ever: {jobs:?}"));
            }
            self.bench.work(&self.run);
        }
        if !open().is_empty() {
            return Err(format!("still open: {:?}", open()));
        }
        let document = crate::bench::document(&self.bench.ports, &self.run).map_err(|error| error.to_string())?;
        if document["state"] == "succeeded" { Ok(()) } else { Err(format!("it ended as {}", document["state"])) }
    }
}

/// A decision of the scheduler. Threads are named by their index.
struct Node {
    /// The threads that could continue, with their next calls.
    ready: Vec<(usize, Step)>,
    /// The threads that need not be tried here (the sleep set).
    asleep: Vec<(usize, Step)>,
    /// The thread that continued.
    chosen: usize,
    /// The threads that have been tried here.
    done: Vec<(usize, Step)>,
}

impl Node {
    fn step(&self) -> &Step {
        &self.ready.iter().find(|(at, _)| *at == self.chosen).expect("the chosen thread was ready").1
    }

    /// The next thread to be tried here.
    fn next(&self) -> Option<usize> {
        let tried = |at: usize| self.asleep.iter().chain(&self.done).any(|(other, _)| *other == at);
        self.ready.iter().map(|(at, _)| *at).find(|at| !tried(*at))
    }
}

/// Tries all schedules. Returns their number, and an error text for each schedule that went wrong.
fn explore(actors: &[Actor], failed: bool, interruptions: Option<usize>) -> (usize, Vec<String>) {
    let (mut path, mut schedules, mut wrong): (Vec<Node>, usize, BTreeSet<String>) = Default::default();
    loop {
        let world = World::new(failed);
        let (answers, whole) = follow(&world, actors, interruptions, &mut path);
        if whole {
            schedules += 1;
            if let Err(why) = world.judge(actors, &answers) {
                let order: Vec<String> = path.iter().map(|node| format!("{}:{:?}", node.chosen, node.step())).collect();
                wrong.insert(format!("{why}\n    {}", order.join(" ")));
            }
        }
        loop {
            let Some(mut node) = path.pop() else { return (schedules, wrong.into_iter().collect()) };
            node.done.push((node.chosen, node.step().clone()));
            if let Some(next) = node.next() {
                node.chosen = next;
                path.push(node);
                break;
            }
        }
    }
}

/// The sleep set after the last decision: threads whose next call was tried before and does not touch the records of
/// the call that was chosen.
fn still_asleep(path: &[Node]) -> Vec<(usize, Step)> {
    path.last().map_or_else(Vec::new, |last| {
        let still = |(at, step): &&(usize, Step)| *at != last.chosen && !step.touches(last.step());
        last.asleep.iter().chain(&last.done).filter(still).cloned().collect()
    })
}

/// The threads that may continue if at most `at_most` preemptions are allowed. The thread that ran last comes first.
fn uninterrupted(path: &[Node], ready: &[(usize, Step)], at_most: usize) -> Vec<(usize, Step)> {
    let interrupts = |pair: &&[Node]| {
        let before = pair[0].chosen;
        pair[1].chosen != before && pair[1].ready.iter().any(|(at, _)| *at == before)
    };
    let used = path.windows(2).filter(interrupts).count();
    let last = path.last().map(|last| last.chosen);
    let (mut first, others): (Vec<_>, Vec<_>) = ready.iter().cloned().partition(|(at, _)| Some(*at) == last);
    if first.is_empty() || used < at_most {
        first.extend(others);
    }
    first
}

/// Runs all actors once: along `path`, then with further decisions. Returns their answers, and `false` if the schedule
/// ended in decisions that need not be tried.
fn follow(
    world: &World,
    actors: &[Actor],
    interruptions: Option<usize>,
    path: &mut Vec<Node>,
) -> (Vec<Result<Option<Pushed>, FlowError>>, bool) {
    std::thread::scope(|threads| {
        let (mut connections, mut handles) = (Vec::new(), Vec::new());
        for actor in actors {
            let (report, reports) = channel();
            let (resume, resumed) = channel();
            handles.push(threads.spawn(move || {
                CONNECTION.set(Some(Connection { report: report.clone(), resume: resumed }));
                let answer = world.act(*actor);
                report.send(Report::Ended).unwrap();
                answer
            }));
            connections.push((reports, resume));
        }
        let stops = |at: usize| match connections[at].0.recv().unwrap() {
            Report::Stops(step) => Some(step),
            Report::Ended => None,
        };
        let mut waiting: Vec<Option<Step>> = (0..actors.len()).map(stops).collect();
        // A thread that has paused once is idle until another thread has changed something.
        let (mut idle, mut whole, mut depth) = (vec![false; actors.len()], true, 0);
        while waiting.iter().any(Option::is_some) {
            let may = |at: usize, step: &Step| *step != Step::Pauses || !idle[at];
            let all: Vec<(usize, Step)> =
                waiting.iter().enumerate().filter_map(|(at, step)| Some((at, step.clone()?))).collect();
            let awake: Vec<(usize, Step)> = all.iter().filter(|(at, step)| may(*at, step)).cloned().collect();
            let ready = if awake.is_empty() { all } else { awake };
            if depth == path.len() && whole {
                let (asleep, ready) = match interruptions {
                    None => (still_asleep(path), ready.clone()),
                    Some(at_most) => (Vec::new(), uninterrupted(path, &ready, at_most)),
                };
                let mut node = Node { ready, asleep, chosen: 0, done: Vec::new() };
                match node.next() {
                    Some(next) => {
                        node.chosen = next;
                        path.push(node);
                    }
                    None => whole = false,
                }
            }
            let chosen = if whole { path[depth].chosen } else { ready[0].0 };
            depth += 1;
            let pauses = waiting[chosen] == Some(Step::Pauses);
            let changes = matches!(waiting[chosen], Some(Step::Writes(_) | Step::Changes));
            connections[chosen].1.send(()).unwrap();
            waiting[chosen] = stops(chosen);
            if changes {
                idle.iter_mut().for_each(|idle| *idle = false);
            }
            idle[chosen] |= pauses;
        }
        (handles.into_iter().map(|handle| handle.join().unwrap()).collect(), whole)
    })
}

fn is_right_in_every_order(actors: &[Actor], failed: bool, interruptions: Option<usize>, at_least: usize) {
    let (schedules, wrong) = explore(actors, failed, interruptions);
    assert!(schedules >= at_least, "only {schedules} schedules were tried");
    let some = wrong[..wrong.len().min(5)].join("\n");
    assert!(wrong.is_empty(), "{} of {schedules} schedules are wrong:\n{some}", wrong.len());
}

#[test]
fn an_old_run_is_removed_while_it_is_submitted_again() {
    is_right_in_every_order(&[Actor::Collects, Actor::Submits], false, None, 30);
}

#[test]
fn an_old_run_is_removed_while_it_is_run_again() {
    is_right_in_every_order(&[Actor::Collects, Actor::RunsAgain], true, Some(3), 500);
}

#[test]
fn an_old_run_is_removed_twice_while_it_is_submitted_again() {
    is_right_in_every_order(&[Actor::Collects, Actor::Collects, Actor::Submits], false, Some(2), 1000);
}

#[test]
fn an_old_run_is_removed_while_it_is_submitted_again_twice() {
    is_right_in_every_order(&[Actor::Collects, Actor::Submits, Actor::Submits], false, Some(2), 500);
}
