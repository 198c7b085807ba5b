//! The window's rules, one at a time: callers on the real script, the scenarios that need each rule, and the script
//! without the rule.

mod epochs;
mod jobs;
mod mutants;
mod runs;

use std::time::Duration;

use dovetail_core::RunId;
use dovetail_core::keys::NodeId;
use dovetail_core::ledger::{Job, Requirements, RunKey, Scope};
use dovetail_core::window::{Called, Change, Delivery, Stamp, Status, Window as _, WindowLease};
use dovetail_stores::RedisWindow;
use redis::{Commands as _, Connection};

use crate::{address, fresh};

/// The script as `dovetail-stores` compiles it in.
pub(crate) const SCRIPT: &str = RedisWindow::SCRIPT;

/// Longer than any scenario takes: a lease expires only if the scenario expires it.
const LEASE: Duration = Duration::from_secs(60);

/// The result of a scenario; an error says what differs.
pub(crate) type Verdict = Result<(), String>;
pub(crate) type Scenario = fn(&Stage) -> Verdict;

/// Fails a scenario unless `got` equals `wanted`.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: T, wanted: T) -> Verdict {
    if got == wanted { Ok(()) } else { Err(format!("{what}: {got:?} instead of {wanted:?}")) }
}

fn holds(what: &str, condition: bool) -> Verdict {
    if condition { Ok(()) } else { Err(format!("not true: {what}")) }
}

/// A window of its own on the real Redis, with a script that may lack a rule.
pub(crate) struct Stage {
    fleet: String,
    script: String,
}

impl Stage {
    pub(crate) fn new(script: &str) -> Self {
        Self { fleet: fresh("rules"), script: script.to_owned() }
    }

    fn caller(&self, name: &str) -> Result<Caller, String> {
        let url = address("DOVETAIL_TEST_REDIS");
        let window =
            RedisWindow::open_with_script(&url, &self.fleet, name, &self.script).map_err(|e| format!("{e:?}"))?;
        let stamp = window.peek().map_err(|e| format!("{e:?}"))?;
        Ok(Caller { window, name: name.to_owned(), number: 0, stamp })
    }

    fn raw(&self) -> Connection {
        redis::Client::open(address("DOVETAIL_TEST_REDIS")).unwrap().get_connection().unwrap()
    }

    fn key(&self, name: &str) -> String {
        format!("dovetail:{{{}}}:{name}", self.fleet)
    }

    /// Sends a caller's call with this number once more, as after a lost reply, or as a late copy. The window compares
    /// only the number, so the other arguments do not matter. Returns the statuses and the claimed jobs.
    fn repeat(&self, caller: &Caller, number: u64) -> Result<(Vec<String>, Vec<String>), String> {
        let script = redis::Script::new(&self.script);
        let mut again = script.prepare_invoke();
        again.key(self.key(""));
        for arg in ["call", &caller.name, &number.to_string(), &caller.stamp.epoch, "0", "9", "60000", "*"] {
            again.arg(arg);
        }
        let value: redis::Value = again.invoke(&mut self.raw()).map_err(|e| e.to_string())?;
        let answer: (String, u64, u64, u64, Vec<String>, Vec<Vec<redis::Value>>, i64) =
            redis::from_redis_value(value).map_err(|e| e.to_string())?;
        let ids = answer
            .5
            .into_iter()
            .map(|mut job| redis::from_redis_value::<String>(job.swap_remove(0)).unwrap_or_default());
        Ok((answer.4, ids.collect()))
    }

    fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.raw().keys(self.key("*").replace(['[', ']', '?'], "\\$0")).unwrap();
        keys.sort();
        keys
    }

    /// All keys of the window with their values, as a copy of the server has them.
    fn copy(&self) -> Vec<(String, Vec<u8>)> {
        let mut raw = self.raw();
        self.keys()
            .into_iter()
            .map(|key| (key.clone(), redis::cmd("DUMP").arg(&key).query(&mut raw).unwrap()))
            .collect()
    }

    fn forget(&self) {
        let keys = self.keys();
        if !keys.is_empty() {
            self.raw().del::<_, ()>(keys).unwrap();
        }
    }

    fn restore(&self, copy: &[(String, Vec<u8>)]) {
        self.forget();
        let mut raw = self.raw();
        for (key, value) in copy {
            redis::cmd("RESTORE").arg(key).arg(0).arg(value.as_slice()).exec(&mut raw).unwrap();
        }
    }

    /// Changes the window to the state that another server finds when it is started on this server's files.
    fn restarted(&self) {
        self.raw().hset::<_, _, _, ()>(self.key("meta"), "rid", "another").unwrap();
    }

    fn has_job(&self, run: &RunKey, step: &str) -> bool {
        self.raw().hexists(self.key("body"), id(run, step)).unwrap()
    }

    fn has_run(&self, run: &RunKey) -> bool {
        self.raw().exists(self.key(&format!("h:{}", run.key()))).unwrap()
    }

    /// Expires the lease of a step now.
    fn lapse(&self, run: &RunKey, step: &str) {
        self.raw().zadd::<_, _, _, ()>(self.key("lease"), id(run, step), 0).unwrap();
    }
}

fn id(run: &RunKey, step: &str) -> String {
    format!("{}/{step}", run.key())
}

fn run(number: u8) -> RunKey {
    RunKey { run: RunId::from_bytes([number; 16]), generation: 0 }
}

fn job(step: &str, needs: &[&str]) -> Job {
    let needs = needs.iter().map(|need| NodeId::of_step(need)).collect();
    Job { step: NodeId::of_step(step), needs, attempt: 1, requirements: Requirements::default() }
}

/// A process with numbered calls.
struct Caller {
    window: RedisWindow,
    name: String,
    number: u64,
    stamp: Stamp,
}

impl Caller {
    fn call(&mut self, want: usize, changes: &[Change]) -> Result<Called, String> {
        self.call_able(want, changes, &Scope::All)
    }

    fn call_able(&mut self, want: usize, changes: &[Change], scope: &Scope) -> Result<Called, String> {
        self.number += 1;
        let called = self.window.call(changes, scope, want, LEASE).map_err(|e| format!("{e:?}"))?;
        self.stamp = called.stamp.clone();
        Ok(called)
    }

    fn one(&mut self, change: Change) -> Result<Status, String> {
        self.call(0, &[change])?.statuses.pop().ok_or_else(|| "no status".to_owned())
    }

    /// Opens a run as at its submission, or as a rebuild does (`verify`).
    fn open(&self, run: &RunKey, steps: u32, done: &[&str], jobs: Vec<Job>, verify: bool) -> Change {
        let done = done.iter().map(|step| (NodeId::of_step(step), Some(value(step)))).collect();
        Change::Open {
            run: run.clone(),
            stamp: self.stamp.clone(),
            verify,
            envelope: b"envelope".to_vec(),
            steps,
            done,
            jobs,
        }
    }

    fn renew(&self, lease: &WindowLease) -> Result<dovetail_core::window::WindowRenewal, String> {
        let held = self.window.renew(std::slice::from_ref(lease), LEASE).map_err(|e| format!("{e:?}"))?;
        held.first().copied().ok_or_else(|| "no answer".to_owned())
    }
}

fn value(step: &str) -> Vec<u8> {
    format!("value of {step}").into_bytes()
}

fn finish(lease: &WindowLease, children: &[Job]) -> Change {
    Change::Finish {
        lease: lease.clone(),
        succeeded: true,
        value: value(lease.step.as_str()),
        children: children.to_vec(),
    }
}

fn fail(lease: &WindowLease) -> Change {
    Change::Finish { lease: lease.clone(), succeeded: false, value: Vec::new(), children: Vec::new() }
}

/// The lease of another step that was claimed by the same call.
fn lease(like: &WindowLease, step: &str) -> WindowLease {
    WindowLease { step: NodeId::of_step(step), ..like.clone() }
}

/// The claimed jobs: each step, and whether the step must be verified.
fn handed(called: &Called) -> Vec<(&str, bool)> {
    let mut found: Vec<_> = called.jobs.iter().map(|job| (job.lease.step.as_str(), job.verify)).collect();
    found.sort_unstable();
    found
}

/// The steps of run 1 that are leased, and the workers that hold the leases.
fn held(caller: &Caller) -> Result<Vec<(String, Option<String>)>, String> {
    let held = caller.window.held(&run(1)).map_err(|e| format!("{e:?}"))?;
    Ok(held.into_iter().map(|held| (held.step.to_string(), held.worker)).collect())
}

/// The run of most scenarios has the steps a, then b and c, then d, which needs both.
fn below_a() -> [Job; 2] {
    [job("b", &["a"]), job("c", &["a"])]
}

fn join() -> [Job; 1] {
    [job("d", &["b", "c"])]
}

/// A submitter `s` that has submitted the run, and a worker `w` that holds the lease of `a`.
fn started(stage: &Stage) -> Result<(Caller, Caller, Delivery), String> {
    let (mut s, mut w) = (stage.caller("s")?, stage.caller("w")?);
    let open = s.open(&run(1), 4, &[], vec![job("a", &[])], false);
    same("the submission", s.one(open)?, Status::Ok)?;
    let mut called = w.call(1, &[])?;
    same("the first claim", handed(&called), vec![("a", false)])?;
    let a = called.jobs.pop().ok_or("no job")?;
    Ok((s, w, a))
}

/// Makes the scenarios of a file into tests and into a list.
macro_rules! scenarios {
    ($($name:ident)*) => {
        pub(crate) const ALL: &[(&str, $crate::window::Scenario)] = &[$((stringify!($name), $name)),*];
        mod each {
            $(#[test]
            fn $name() {
                let verdict = super::$name(&$crate::window::Stage::new($crate::window::SCRIPT));
                assert_eq!(verdict, Ok(()));
            })*
        }
    };
}
pub(crate) use scenarios;
