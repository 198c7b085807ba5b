//! The invariants of a fleet under faults, checked on its stores and its workers' logs:
//!
//! - I1: every acknowledged run has one outcome, which never changes;
//! - I2: a step has at most one outcome, which never changes, and exactly one if its run succeeded;
//! - I3: a step consumed the values that the step before produced, and their bytes are stored;
//! - I4: no step starts before the outcomes that it needs are recorded (I3 and I4: `tests/shared/lineage.rs`);
//! - I5: a step is executed again only if a fault touched it, and never after its outcome is recorded;
//! - I6: at the end the window is empty;
//! - I7: all this is reached within a bound;
//! - I8: a job that kills its workers is given up;
//! - I10: no keys are left in Redis.

use std::collections::BTreeMap;
use std::time::Duration;

use dovetail_core::ledger::{Kind, Listing, RunKey};
use dovetail_core::record::{Form, OutcomeRecord, RunOutcomeRecord, RunState, StoredValue};
use redis::Commands as _;

use crate::fleet::{Fleet, wait};
use crate::lineage;

/// The result of a check.
#[derive(Debug, Default, Clone)]
pub(crate) struct Report {
    pub(crate) runs: usize,
    pub(crate) steps: usize,
    pub(crate) executions: usize,
    /// Executions beyond the first one of each step.
    pub(crate) again: usize,
    /// The most executions of one step.
    pub(crate) most: usize,
    pub(crate) violations: Vec<String>,
}

/// After the last fault every run must end within this time: a lease, the search for lost runs, and the steps
/// themselves, on a machine with other load.
pub(crate) const HEALED: Duration = Duration::from_secs(90);
/// The longest time from the end of an execution, as the record tells it, to the record itself: on a busy machine, with
/// a slow store.
const COMMIT_MS: u64 = 3_000;
/// The keys that a fleet keeps in Redis when no run is open.
const KEPT: [&str; 6] = ["meta", "tomb", "w", "wt", "idle", "rq"];

impl Fleet {
    fn records(&self, kind: Kind) -> BTreeMap<String, Vec<u8>> {
        let listing = Listing { prefix: String::new(), limit: usize::MAX, newest_first: false };
        self.meta.list(kind, &listing).unwrap().into_iter().collect()
    }

    /// Reads all outcomes; an outcome that was read before must be unchanged.
    pub(crate) fn observe(&mut self, violations: &mut Vec<String>) {
        for kind in [Kind::Outcome, Kind::RunOutcome] {
            let now = self.records(kind);
            for ((_, key), value) in self.seen.iter().filter(|((of, _), _)| *of == kind) {
                if now.get(key) != Some(value) {
                    violations.push(format!("I1/I2: {kind:?} {key} has changed"));
                }
            }
            self.seen.extend(now.into_iter().map(|(key, value)| ((kind, key), value)));
        }
    }

    /// Waits until every run is over and the window is empty.
    pub(crate) fn quiet(&mut self, violations: &mut Vec<String>) {
        let began = std::time::Instant::now();
        let is_open = || self.open_upto(1).map_or(true, |open| !open.is_empty());
        while is_open() && began.elapsed() < HEALED {
            std::thread::sleep(Duration::from_millis(100));
        }
        match self.open() {
            Ok(open) if open.is_empty() => {}
            Ok(open) => {
                let names: Vec<String> = open.iter().map(RunKey::key).take(5).collect();
                violations.push(format!(
                    "I7: {} runs are not over {HEALED:?} after the last fault, such as {}",
                    open.len(),
                    names.join(" ")
                ));
                open.first().into_iter().for_each(|run| println!("{}", self.standing(run)));
                return;
            }
            Err(error) => return violations.push(format!("I7: the records cannot be read: {error:?}")),
        }
        let left = || -> Vec<String> {
            let index =
                self.meta.open_runs(10).unwrap_or_default().into_iter().map(|run| format!("open run {}", run.key()));
            index.chain(self.left_in_redis()).collect()
        };
        while !left().is_empty() && began.elapsed() < HEALED {
            std::thread::sleep(Duration::from_millis(100));
        }
        let left = left();
        if !left.is_empty() {
            violations.push(format!("I6/I10: this is left when all is done: {}", left.join(", ")));
        }
    }

    /// The stores' data on a run that does not end, as text for the person who looks for the reason.
    fn standing(&self, run: &RunKey) -> String {
        let key = |name: &str| format!("dovetail:{{faults}}:{name}");
        let rg = run.key();
        let ask = |words: &[&str]| format!("{words:?}: {:?}\n", self.redis.redis(words));
        let mut text = format!(
            "{rg}: index of open runs: {}\n",
            self.meta.open_runs(usize::MAX).is_ok_and(|open| open.contains(run))
        );
        let kinds = [Kind::Run, Kind::Cancel, Kind::RunOutcome];
        for kind in kinds {
            let named = if kind == Kind::Run { run.run.to_string() } else { rg.clone() };
            text.push_str(&format!(
                "{kind:?}: {}\n",
                self.meta.get(kind, &[named]).is_ok_and(|found| found[0].is_some())
            ));
        }
        let outcomes = self.records(Kind::Outcome);
        let steps: Vec<&String> = outcomes.keys().filter(|name| name.starts_with(run.run.as_str())).collect();
        text.push_str(&format!("outcomes: {steps:?}\n"));
        text.push_str(&ask(&["HKEYS", &key(&format!("h:{rg}"))]));
        text.push_str(&ask(&["SMEMBERS", &key(&format!("j:{rg}"))]));
        text.push_str(&ask(&["ZSCORE", &key("tomb"), &rg]));
        text.push_str(&ask(&["HGETALL", &key("meta")]));
        for hash in ["body", "own", "cnt"] {
            text.push_str(&ask(&["HGETALL", &key(hash)]));
        }
        for scores in ["lease", "delay"] {
            text.push_str(&ask(&["ZRANGE", &key(scores), "0", "-1", "WITHSCORES"]));
        }
        text.push_str(&ask(&["LRANGE", &key("q:"), "0", "-1"]));
        text.push_str(&ask(&["SMEMBERS", &key("lanes")]));
        text.push_str(&ask(&["TIME"]));
        for worker in &self.workers {
            let log = std::fs::read_to_string(&worker.log).unwrap();
            let lines: Vec<&str> =
                log.lines().filter(|line| line.contains(run.run.as_str()) || line.contains("WARN")).collect();
            text.push_str(&format!("{}:\n{}\n", worker.name, lines[lines.len().saturating_sub(40)..].join("\n")));
        }
        text
    }

    fn left_in_redis(&self) -> Vec<String> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/", self.redis.port())).unwrap();
        let Ok(mut connection) = client.get_connection_with_timeout(Duration::from_secs(2)) else {
            return vec!["no Redis".into()];
        };
        let keys: Vec<String> = connection.keys("*").unwrap_or_default();
        let kept = |key: &String| {
            let name = key.strip_prefix("dovetail:{faults}:").unwrap_or(key);
            KEPT.contains(&name.split(':').next().unwrap_or(name))
        };
        keys.into_iter().filter(|key| !kept(key)).map(|key| key.replace("dovetail:{faults}:", "")).collect()
    }

    /// After the last fault: waits until all runs have ended, and checks all invariants. `faults` is the number of
    /// faults that may have touched one step.
    pub(crate) fn check(&mut self, faults: usize) -> Report {
        let mut report = Report::default();
        self.quiet(&mut report.violations);
        self.observe(&mut report.violations);
        let decode = |key: &String, value: &Vec<u8>| OutcomeRecord::decode(value, key).unwrap();
        let outcomes: BTreeMap<String, OutcomeRecord> =
            self.records(Kind::Outcome).iter().map(|(k, v)| (k.clone(), decode(k, v))).collect();
        let ends = self.records(Kind::RunOutcome);
        let submitted = self.user.submitted.lock().unwrap().clone();
        for (run, expected) in &submitted {
            let Some(end) = ends.get(&run.key()) else { continue };
            let end = RunOutcomeRecord::decode(end, &run.key()).unwrap();
            self.check_run(run, expected.as_ref(), &end, &outcomes, &mut report.violations);
        }
        self.check_executions(faults, &outcomes, &mut report);
        (report.runs, report.steps) = (submitted.len(), outcomes.len());
        report
    }

    fn check_run(
        &self,
        run: &RunKey,
        expected: Option<&serde_json::Value>,
        end: &RunOutcomeRecord,
        outcomes: &BTreeMap<String, OutcomeRecord>,
        violations: &mut Vec<String>,
    ) {
        let record = self.meta.get(Kind::Run, &[run.run.to_string()]).unwrap().pop().flatten();
        let record = dovetail_core::record::RunRecord::decode(&record.unwrap(), &run.key()).unwrap();
        let pipeline = self
            .user
            .published
            .values()
            .find(|p| p.key == record.pipeline)
            .map(|p| &p.pipeline)
            .expect("the test's own pipelines");
        let succeeded = end.state == RunState::Succeeded;
        violations.extend(lineage::broken(run, pipeline, succeeded, outcomes, &*self.user.ports.blobs));
        let Some(expected) = expected else { return };
        if end.state == RunState::Failed {
            violations.push(format!(
                "I1: run {} failed in {:?}, and its tasks do not fail",
                run.key(),
                end.failed_step
            ));
        }
        let of = |name: &str, step, place| expected.get(name).map(|wanted| (step, place, wanted));
        let wanted = of("total", "join", "/sum")
            .or_else(|| of("sum", "three", "/sum"))
            .or_else(|| of("upper", "again", "/upper/$artifact"));
        if let (true, Some((step, place, wanted))) = (succeeded, wanted) {
            let got = outcomes.get(&run.step(step)).and_then(|outcome| match outcome.output() {
                Some(StoredValue::Inline(value)) => value.pointer(place),
                _ => None,
            });
            if got != Some(wanted) {
                violations.push(format!("I3: run {} came to {got:?} instead of {wanted}", run.key()));
            }
        }
    }

    fn check_executions(&self, faults: usize, outcomes: &BTreeMap<String, OutcomeRecord>, report: &mut Report) {
        let mut by_step: BTreeMap<(String, String), usize> = BTreeMap::new();
        for execution in self.executions() {
            report.executions += 1;
            let recorded = outcomes.get(&format!("{}:{}:0", execution.run, execution.step));
            if let Some(recorded) = recorded
                && execution.at_ms > recorded.finished_ms + COMMIT_MS
            {
                let late = execution.at_ms - recorded.finished_ms;
                report.violations.push(format!(
                    "I5: {} began {}/{} {late} ms after its outcome had come from {}",
                    execution.worker,
                    execution.run,
                    execution.step,
                    recorded.attempts.last().map_or("nobody", |a| a.worker.as_str())
                ));
            }
            *by_step.entry((execution.run, execution.step)).or_default() += 1;
        }
        for ((run, step), times) in by_step {
            report.again += times - 1;
            report.most = report.most.max(times);
            if times > 1 + faults {
                report
                    .violations
                    .push(format!("I5: {run}/{step} was executed {times} times, and there were {faults} faults"));
            }
        }
    }

    /// The executions beyond the first one of each step, until now.
    pub(crate) fn again(&self) -> usize {
        let executions = self.executions();
        let steps: std::collections::BTreeSet<_> = executions.iter().map(|e| (&e.run, &e.step)).collect();
        executions.len() - steps.len()
    }

    /// Submits runs until each living worker has executed a step. Returns a violation for each worker that executes
    /// none.
    pub(crate) fn all_work(&self) -> Vec<String> {
        let now = || {
            u64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis())
                .unwrap()
        };
        let (since, began) = (now(), std::time::Instant::now());
        loop {
            let executions = self.executions();
            let works = |name: &String| executions.iter().any(|e| e.at_ms > since && e.worker == *name);
            let idle: Vec<&String> =
                self.workers.iter().map(|worker| &worker.name).filter(|name| !works(name)).collect();
            if idle.is_empty() {
                return Vec::new();
            }
            if began.elapsed() > HEALED {
                return idle
                    .iter()
                    .map(|name| format!("I7: {name} lives and does not work, {HEALED:?} after the last fault"))
                    .collect();
            }
            self.user.load(6);
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The same as `check`; panics if an invariant is violated.
    #[track_caller]
    pub(crate) fn holds(&mut self, faults: usize) -> Report {
        let report = self.check(faults);
        println!(
            "{} runs, {} steps, {} executions, {} again, at most {} of one step; {} faults",
            report.runs, report.steps, report.executions, report.again, report.most, faults
        );
        assert!(report.violations.is_empty(), "{}", report.violations.join("\n"));
        report
    }

    /// Waits until `runs` more runs have ended.
    #[track_caller]
    pub(crate) fn progress(&self, runs: usize) {
        let over = || {
            let submitted = self.user.submitted.lock().unwrap().len();
            self.open().map(|open| submitted.saturating_sub(open.len()))
        };
        let before = over().unwrap();
        wait("runs end", HEALED, || over().is_ok_and(|now| now >= before + runs));
    }
}
