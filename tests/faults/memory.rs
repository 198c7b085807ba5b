//! Workers that the kernel kills because a task takes more memory than their machine has.
//!
//! Needs Linux with control groups that may be written, and the superuser.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dovetail_core::ledger::Kind;
use dovetail_core::record::{Form as _, OutcomeRecord};
use serde_json::json;

use crate::fleet::{Fleet, LONG, Setup, busy, wait};

/// What is missing where this cannot be made.
const NEEDS: &str = "a control group with a memory limit is needed: run it as root on Linux, where /sys/fs/cgroup may be written; or leave this \
                     test out, and say so, with `-- --skip memory`";
/// Of a worker: idle it has some 20 MiB that are its own, and its task would take 60 more.
const LIMIT: u64 = 48 << 20;

/// Processes that share so much memory.
struct Group(PathBuf);

impl Group {
    fn new(limit: u64) -> Self {
        let name = format!("dovetail-faults-{}", std::process::id());
        // The second version of control groups has one tree for all of them.
        let (root, file) = match Path::new("/sys/fs/cgroup/memory") {
            first if first.is_dir() => (first, "memory.limit_in_bytes"),
            _ => (Path::new("/sys/fs/cgroup"), "memory.max"),
        };
        let group = Self(root.join(name));
        let made = std::fs::create_dir(&group.0).and_then(|()| std::fs::write(group.0.join(file), limit.to_string()));
        assert!(made.is_ok(), "{}: {made:?}; {NEEDS}", group.0.display());
        group
    }

    /// A program that is one of them from its start on.
    fn command(&self, usual: &Command) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ >\"$1\" && shift && exec \"$@\"", "sh"]).arg(self.0.join("cgroup.procs"));
        command.arg(usual.get_program()).args(usual.get_args()).env_clear();
        command.envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
        command
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        drop(std::fs::remove_dir(&self.0));
    }
}

#[test]
fn a_job_that_takes_all_memory_is_given_up_and_others_are_not() {
    let group = Group::new(LIMIT);
    let mut fleet = Fleet::new(Setup { lease: 1, slots: 1, ..Setup::default() });
    let poison = fleet.user.submit("probe", &json!({ "behaviour": { "tag": "allocate", "val": 60 } }));
    let mut killed = 0;
    wait("it is given up", LONG, || {
        if let Some(worker) = fleet.workers.first_mut()
            && let Some(status) = worker.child.try_wait().unwrap()
        {
            assert_eq!(status.signal(), Some(libc::SIGKILL), "{}", std::fs::read_to_string(&worker.log).unwrap());
            killed += 1;
            let gone = fleet.workers.remove(0);
            fleet.ended.push(gone.log);
        }
        if fleet.workers.is_empty() {
            let command = group.command(&fleet.worker_command());
            fleet.start_as_worker(command, &[]);
        }
        fleet.is_over(&poison)
    });
    assert_eq!(killed, dovetail_core::policy::MAX_CRASHES as usize + 1, "that many may die over it, and no more");
    let outcome = fleet.meta.get(Kind::Outcome, &[poison.step("go")]).unwrap().pop().flatten().expect("an outcome");
    let failure = OutcomeRecord::decode(&outcome, "poison").unwrap().failure().cloned().expect("a failure");
    assert_eq!(failure.code, "poison");
    // The last worker has enough for others.
    let other = fleet.user.submit("probe", &json!({ "behaviour": busy(10) }));
    wait("another job ends", LONG, || fleet.is_over(&other));
    // It was not to fail; that it did is what this is about.
    fleet.user.submitted.lock().unwrap().insert(poison, None);
    fleet.holds(killed);
    fleet.drain(0);
}
