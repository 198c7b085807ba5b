//! A partition below TCP: a worker in a network namespace of its own, whose only cable is pulled and put in again.
//! Nobody is told of it; what was sent is lost, and sent again by TCP when the cable is back.
//!
//! Needs Linux, the superuser and `ip` (iproute2). The servers listen on loopback; a line on the host's end of the
//! cable leads to them.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dovetail_core::ledger::{Kind, RunKey};
use serde_json::json;

use crate::fleet::{Fleet, LONG, Setup, busy, mongodb_url, redis_url, s3_url, wait};
use crate::proxy::Proxy;
use crate::storm::Load;

/// What is missing where this cannot be made.
const NEEDS: &str = "network namespaces are needed: run it as root on Linux, with `ip` (Debian: apt-get install iproute2), in a container with \
                     the capabilities NET_ADMIN and SYS_ADMIN; or leave these tests out, and say so, with `-- --skip partition`";

fn ip() -> PathBuf {
    let places = ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip", "/bin/ip"].map(PathBuf::from);
    places.into_iter().find(|place| place.is_file()).unwrap_or_else(|| panic!("there is no program `ip`; {NEEDS}"))
}

fn run_ip(words: &str) {
    let out = Command::new(ip()).args(words.split(' ')).output().unwrap();
    assert!(out.status.success(), "ip {words}: {}; {NEEDS}", String::from_utf8_lossy(&out.stderr).trim());
}

/// A namespace with a cable to here.
struct Namespace {
    name: String,
    /// This end of the cable.
    cable: String,
    here: IpAddr,
}

impl Namespace {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        // Of the range for measurements, which no real network has; four addresses for each.
        let block = (process % (1 << 13) * 4 + number % 4) * 4;
        let address = |last: u32| Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + block + last);
        let space = Self {
            name: format!("dovetail-{process}-{number}"),
            cable: format!("dv{process}a{number}"),
            here: address(1).into(),
        };
        let (name, cable, far) = (&space.name, &space.cable, format!("dv{process}b{number}"));
        run_ip(&format!("netns add {name}"));
        run_ip(&format!("link add {cable} type veth peer name {far} netns {name}"));
        run_ip(&format!("addr add {}/30 dev {cable}", address(1)));
        run_ip(&format!("-n {name} addr add {}/30 dev {far}", address(2)));
        run_ip(&format!("-n {name} link set {far} up"));
        run_ip(&format!("-n {name} link set lo up"));
        space.heal();
        space
    }

    /// The other end keeps its address and its routes: what is sent from there is lost, and nobody is told.
    fn cut(&self) {
        run_ip(&format!("link set {} down", self.cable));
    }

    fn heal(&self) {
        run_ip(&format!("link set {} up", self.cable));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // With it goes the cable.
        drop(Command::new(ip()).args(["netns", "delete", &self.name]).status());
        drop(Command::new(ip()).args(["link", "delete", &self.cable]).output());
    }
}

/// A fleet with its first worker in a namespace.
struct Parted {
    // Its workers end before their namespace does.
    fleet: Fleet,
    /// To Redis, MongoDB and MinIO.
    _lines: [Proxy; 3],
    space: Namespace,
}

impl Parted {
    fn new() -> Self {
        let space = Namespace::new();
        let mut fleet = Fleet::new(Setup { mongodb: true, s3: true, apart: true, ..Setup::default() });
        let (mongodb, s3) = (fleet.mongodb.as_ref().unwrap().port(), fleet.s3.as_ref().unwrap().port());
        let lines = [fleet.redis.port(), mongodb, s3].map(|port| Proxy::at(space.here, port));
        let (here, [redis, mongodb, s3]) = (space.here.to_string(), [0, 1, 2].map(|line: usize| lines[line].port()));
        let usual = fleet.worker_command();
        let mut command = Command::new(ip());
        // `ip` becomes the worker: what is sent to the one reaches the other.
        command.args(["netns", "exec", &space.name]).arg(usual.get_program()).args(usual.get_args());
        command
            .env_clear()
            .envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .stdin(std::process::Stdio::null());
        let urls = [redis_url(&here, redis), mongodb_url(&here, mongodb), s3_url(&here, s3)];
        fleet.start_as_worker(
            command,
            &[("DOVETAIL_QUEUE", &urls[0]), ("DOVETAIL_META", &urls[1]), ("DOVETAIL_BLOBS", &urls[2])],
        );
        let log = fleet.workers[0].log.clone();
        wait("the worker in the namespace works", LONG, || {
            std::fs::read_to_string(&log).unwrap().contains("\"working\"")
        });
        Self { fleet, _lines: lines, space }
    }

    /// Of the worker in the namespace.
    fn name(&self) -> String {
        self.fleet.workers[0].name.clone()
    }

    /// The worker that a step's record names.
    fn recorded_by(&self, run: &RunKey) -> Option<String> {
        use dovetail_core::record::{Form as _, OutcomeRecord};
        let record = self.fleet.meta.get(Kind::Outcome, &[run.step("go")]).unwrap().pop().flatten()?;
        Some(OutcomeRecord::decode(&record, "go").unwrap().attempts.last()?.worker.clone())
    }
}

/// Its step is run by another one; it comes back by itself, and what it did meanwhile counts for nothing.
#[test]
fn the_step_of_a_worker_that_is_cut_off_is_run_by_another_one() {
    let mut parted = Parted::new();
    let run = parted.fleet.user.submit("probe", &json!({ "behaviour": busy(3000) }));
    wait("the step runs", LONG, || parted.fleet.runs_now(&run).is_some());
    parted.fleet.worker();
    parted.space.cut();
    // The lease lapses, the other one runs it and records it: all that while the cable is out.
    wait("another one has run it", LONG, || parted.fleet.is_over(&run));
    let other = parted.fleet.workers[1].name.clone();
    assert!(
        parted.recorded_by(&run).is_some_and(|worker| worker.contains(&other)),
        "{:?} and not {other}",
        parted.recorded_by(&run)
    );
    // By now the first one has its own outcome, and cannot tell anybody.
    std::thread::sleep(Duration::from_secs(3));
    parted.space.heal();
    assert_eq!(parted.fleet.all_work(), Vec::<String>::new());
    let name = parted.name();
    assert!(parted.fleet.executions().iter().filter(|e| e.worker == name).count() > 1, "it works again");
    let report = parted.fleet.holds(1);
    assert_eq!(report.again, 1, "that step and no other one");
}

/// The same under load, for one lease to three, several times.
#[test]
fn a_worker_that_is_cut_off_again_and_again_under_load_loses_nothing() {
    let (mut parted, mut random) = (Parted::new(), crate::storm::Random::new());
    parted.fleet.worker();
    let load = Load::start(&parted.fleet.user, Duration::from_millis(60));
    let lease = Duration::from_secs(parted.fleet.setup.lease);
    for _ in 0..3 {
        parted.fleet.progress(10);
        parted.space.cut();
        std::thread::sleep(lease.mul_f64(random.between(1.2, 3.0)));
        parted.space.heal();
    }
    parted.fleet.progress(10);
    load.stop();
    assert_eq!(parted.fleet.all_work(), Vec::<String>::new());
    // S3 may have failed a step, too, and put it off.
    parted.fleet.holds(6);
}
