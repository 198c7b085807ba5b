//! If the system refuses a resource to this process (address space, writable memory, descriptors), the host is at
//! fault, not the attempt. The limits apply to a whole process, so each test has its own process.

use std::fs::{self, File};
use std::process::Command;

use dovetail_core::executor::{Executor as _, HostError};
use dovetail_core::limits::Limits;
use dovetail_core::scarce::Scarce;
use dovetail_core::stop::Stop;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use crate::support::{Bench, attempt, number_guest, output};

/// A task that works for a while and returns its number.
const BUSY: &str = "(local $i i32) (loop $l (local.set $i (i32.add (local.get $i) (i32.const 1)))
    (br_if $l (i32.lt_u (local.get $i) (i32.const 200000000)))) (call $ok (local.get 0))";
/// A task that grows its memory by `n` pages and returns the number of its pages.
const GROW: &str =
    "(if (i32.eq (memory.grow (local.get 0)) (i32.const -1)) (then (unreachable))) (call $ok (memory.size))";

fn limit(resource: Resource, soft: u64) {
    setrlimit(resource, Rlimit { current: Some(soft), maximum: getrlimit(resource).maximum }).unwrap();
}

/// Bytes of this process: the address space, or the writable part of it.
fn has(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// A bench without reserved slots: each attempt maps its own 4 GiB.
fn without_pool() -> Bench {
    let before = has("VmSize:");
    limit(Resource::As, before + (4 << 30));
    let bench = Bench::with(|options| options.jobs = 4);
    assert!(!bench.runtime.pooled());
    bench
}

#[track_caller]
fn refused(error: &HostError, scarce: Scarce) {
    assert_eq!((error.scarce(), error.transient), (Some(scarce), false), "{error:?}");
}

#[test]
#[ignore = "started by a test below, in a process of its own"]
fn address_space() {
    let bench = without_pool();
    let package = bench.install("probe", &number_guest("", BUSY), "");
    let run = |n: u32| bench.runtime.execute(&attempt(package, json!({ "n": n }), Limits::DEFAULT), &Stop::never());
    let own = has("VmSize:");
    // Address space for no attempt.
    limit(Resource::As, own + (1 << 30));
    refused(&run(1).unwrap_err(), Scarce::Memory);
    // Address space for one attempt at a time: attempts without address space are run again alone.
    limit(Resource::As, own + (6 << 30));
    assert_eq!(output(&run(2).unwrap()), &json!({ "n": 2 }));
    std::thread::scope(|threads| {
        let runs: Vec<_> = (0..4).map(|n| threads.spawn(move || (n, run(n)))).collect();
        for one in runs {
            let (n, report) = one.join().unwrap();
            assert_eq!(output(&report.unwrap()), &json!({ "n": n }));
        }
    });
    // All slots are free again.
    limit(Resource::As, own + (100 << 30));
    std::thread::scope(|threads| {
        let runs: Vec<_> = (0..8).map(|n| threads.spawn(move || run(n).is_ok())).collect();
        assert!(runs.into_iter().all(|one| one.join().unwrap()));
    });
}

#[test]
#[ignore = "started by a test below, in a process of its own"]
fn memory_within_the_limit_of_the_task() {
    let bench = Bench::new();
    let package = bench.install("probe", &number_guest("", GROW), "");
    let limits = Limits { memory: 128 << 20, ..Limits::DEFAULT };
    let run = |pages: u32| bench.runtime.execute(&attempt(package, json!({ "n": pages }), limits), &Stop::never());
    assert_eq!(output(&run(1000).unwrap()), &json!({ "n": 1002 }));
    // The growth is within the task's limit, and the system refuses it: the guest does not see the refusal.
    limit(Resource::Data, has("VmData:") + (8 << 20));
    refused(&run(1900).unwrap_err(), Scarce::Memory);
    limit(Resource::Data, has("VmData:") + (1 << 30));
    assert_eq!(output(&run(1900).unwrap()), &json!({ "n": 1902 }));
}

#[test]
#[ignore = "started by a test below, in a process of its own"]
fn descriptors() {
    let folder = tempfile::tempdir().unwrap();
    let code = folder.path().join("code");
    let fresh = || {
        let code = code.clone();
        Bench::with(move |options| options.cache_dir = code)
    };
    let component = number_guest("", "(call $ok (local.get 0))");
    let bench = fresh();
    let package = bench.install("probe", &component, "");
    let run =
        |bench: &Bench| bench.runtime.execute(&attempt(package, json!({ "n": 7 }), Limits::DEFAULT), &Stop::never());
    run(&bench).unwrap();
    let files = || {
        let mut files: Vec<_> = fs::read_dir(&code).unwrap().map(|file| file.unwrap().file_name()).collect();
        files.sort();
        files
    };
    // Another process, which has loaded nothing yet and may open no further files.
    let (bench, before) = (fresh(), files());
    bench.install("probe", &component, "");
    limit(Resource::Nofile, 64);
    let mut open = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        open.push(file);
    }
    let error = run(&bench).unwrap_err();
    open.clear();
    refused(&error, Scarce::Descriptors);
    assert_eq!(files(), before, "a file that could not be opened is not damaged");
    assert_eq!(output(&run(&bench).unwrap()), &json!({ "n": 7 }));
}

fn in_a_process_of_its_own(name: &str) {
    let alone = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("scarce::{name}"), "--ignored", "--nocapture"])
        .output()
        .unwrap();
    assert!(alone.status.success(), "{}", String::from_utf8_lossy(&alone.stderr));
    assert!(String::from_utf8_lossy(&alone.stdout).contains("1 passed"), "{alone:?}");
}

#[test]
fn an_attempt_without_address_space_is_made_again_alone_and_then_is_the_hosts_fault() {
    in_a_process_of_its_own("address_space");
}

#[test]
fn memory_that_only_the_system_refuses_is_the_hosts_fault() {
    in_a_process_of_its_own("memory_within_the_limit_of_the_task");
}

#[test]
fn compiled_code_that_cannot_be_opened_for_want_of_descriptors_is_the_hosts_fault() {
    in_a_process_of_its_own("descriptors");
}
