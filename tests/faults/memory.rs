//! Workers that the kernel kills because a task needs more memory than their machine has.
//!
//! The test needs Linux with writable control groups, and the superuser.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dovetail_core::ledger::Kind;
use dovetail_core::record::{Form as _, OutcomeRecord};
use serde_json::json;

use crate::fleet::{Fleet, LONG, Setup, busy, wait};

/// The remedy if the control group cannot be made.
const NEEDS: &str = "the test needs a control group with a memory limit: run it as root on Linux, where /sys/fs/cgroup \
                     is writable; or leave this test out explicitly with `-- --skip memory`";
/// The memory limit of a worker, in bytes: an idle worker has some 20 MiB of its own, and its task would take 60 MiB
/// more.
const LIMIT: u64 = 48 << 20;

/// A control group: processes that share a memory limit.
struct Group(PathBuf);

impl Group {
    fn new(limit: u64) -> Self {
        let name = format!("dovetail-faults-{}", std::process::id());
        // Version 2 of control groups has one tree for all controllers.
        let (root, file) = match Path::new("/sys/fs/cgroup/memory") {
            first if first.is_dir() => (first, "memory.limit_in_bytes"),
            _ => (Path::new("/sys/fs/cgroup"), "memory.max"),
        };
        let group = Self(root.join(name));
        let made = std::fs::create_dir(&group.0).and_then(|()| std::fs::write(group.0.join(file), limit.to_string()));
        assert!(made.is_ok(), "{}: {made:?}; {NEEDS}", group.0.display());
        group
    }

    /// The command, run in the control group from its start on.
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
    wait("the poisonous job is given up", LONG, || {
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
    assert_eq!(killed, dovetail_core::policy::MAX_CRASHES as usize + 1, "the number of workers killed by the job");
    let outcome = fleet.meta.get(Kind::Outcome, &[poison.step("go")]).unwrap().pop().flatten().expect("an outcome");
    let failure = OutcomeRecord::decode(&outcome, "poison").unwrap().failure().cloned().expect("a failure");
    assert_eq!(failure.code, "poison");
    // The last worker has memory enough for other jobs.
    let other = fleet.user.submit("probe", &json!({ "behaviour": busy(10) }));
    wait("another job ends", LONG, || fleet.is_over(&other));
    // The poisonous run fails as it must: no output is expected of it.
    fleet.user.submitted.lock().unwrap().insert(poison, None);
    fleet.holds(killed);
    fleet.drain(0);
}
