//! A partition below TCP: a worker runs in a network namespace of its own, and its only cable is pulled and put in
//! again. Neither end is told. Packets that were sent meanwhile are lost, and TCP sends them again when the cable is
//! back.
//!
//! The tests need Linux, the superuser and `ip` (iproute2). The servers listen on loopback; proxies on the host's end
//! of the cable lead to them.

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

/// The remedy if the namespace cannot be made.
const NEEDS: &str = "the test needs network namespaces: run it as root on Linux, with `ip` (Debian: apt-get install \
                     iproute2), in a container with the capabilities NET_ADMIN and SYS_ADMIN; or leave these tests \
                     out explicitly with `-- --skip partition`";

fn ip() -> PathBuf {
    let places = ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip", "/bin/ip"].map(PathBuf::from);
    places.into_iter().find(|place| place.is_file()).unwrap_or_else(|| panic!("there is no program `ip`; {NEEDS}"))
}

fn run_ip(words: &str) {
    let out = Command::new(ip()).args(words.split(' ')).output().unwrap();
    assert!(out.status.success(), "ip {words}: {}; {NEEDS}", String::from_utf8_lossy(&out.stderr).trim());
}

/// A network namespace with a cable to the host.
struct Namespace {
    name: String,
    /// The host's end of the cable.
    cable: String,
    here: IpAddr,
}

impl Namespace {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        // The addresses are of the range for benchmarks (198.18.0.0/15, RFC 2544), which no real network uses: four for
        // each namespace.
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

    /// Pulls the cable. The other end keeps its address and its routes, so packets are lost without an error.
    fn cut(&self) {
        run_ip(&format!("link set {} down", self.cable));
    }

    fn heal(&self) {
        run_ip(&format!("link set {} up", self.cable));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The cable is removed with its namespace.
        drop(Command::new(ip()).args(["netns", "delete", &self.name]).status());
        drop(Command::new(ip()).args(["link", "delete", &self.cable]).output());
    }
}

/// A fleet whose first worker runs in a namespace.
struct Parted {
    // The fleet is dropped first: its workers end before their namespace is removed.
    fleet: Fleet,
    /// The proxies to Redis, MongoDB and MinIO.
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
        // `ip` replaces itself by the worker, so signals to the process reach the worker.
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

    /// The name of the worker in the namespace.
    fn name(&self) -> String {
        self.fleet.workers[0].name.clone()
    }

    /// The worker that the step's record names.
    fn recorded_by(&self, run: &RunKey) -> Option<String> {
        use dovetail_core::record::{Form as _, OutcomeRecord};
        let record = self.fleet.meta.get(Kind::Outcome, &[run.step("go")]).unwrap().pop().flatten()?;
        Some(OutcomeRecord::decode(&record, "go").unwrap().attempts.last()?.worker.clone())
    }
}

/// The step of a worker that is cut off is run by another worker. The first worker comes back by itself, and the
/// outcome that it had meanwhile does not count.
#[test]
fn the_step_of_a_worker_that_is_cut_off_is_run_by_another_one() {
    let mut parted = Parted::new();
    let run = parted.fleet.user.submit("probe", &json!({ "behaviour": busy(3000) }));
    wait("the step runs", LONG, || parted.fleet.runs_now(&run).is_some());
    parted.fleet.worker();
    parted.space.cut();
    // The cable is out while the lease expires and the other worker runs the step and records its outcome.
    wait("another worker has run the step", LONG, || parted.fleet.is_over(&run));
    let other = parted.fleet.workers[1].name.clone();
    assert!(
        parted.recorded_by(&run).is_some_and(|worker| worker.contains(&other)),
        "{:?} and not {other}",
        parted.recorded_by(&run)
    );
    // By now the first worker has an outcome of its own, and cannot record it.
    std::thread::sleep(Duration::from_secs(3));
    parted.space.heal();
    assert_eq!(parted.fleet.all_work(), Vec::<String>::new());
    let name = parted.name();
    assert!(
        parted.fleet.executions().iter().filter(|e| e.worker == name).count() > 1,
        "the first worker executes no further step"
    );
    let report = parted.fleet.holds(1);
    assert_eq!(report.again, 1, "only that step is executed again");
}

/// The same under load, three times, each time for 1.2 to 3 leases.
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
    // S3 may also have failed a step, which is then executed again.
    parted.fleet.holds(6);
}
