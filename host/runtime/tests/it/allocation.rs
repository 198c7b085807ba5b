//! The two ways in which instances get their memory: from the slots of a pool, or, without the address space for slots,
//! mapped for each attempt. The same attempts have the same outcome on both. The pool has enough entries for every
//! attempt within its limits.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use dovetail_core::executor::{Executor as _, FailureKind};
use dovetail_core::limits::Limits;
use dovetail_core::manifest::Grants;
use dovetail_core::stop::Stop;
use dovetail_runtime::Live;
use serde_json::json;

use crate::refusals::{compiler, refuses};
use crate::support::{Bench, attempt, failed, failure, number_guest, output};

/// More slots than any processor can address: 2^20 memories of 4 GiB.
const TOO_MANY: u32 = 1 << 17;

/// A bench with a pool and one without.
fn both() -> [Bench; 2] {
    let benches = [Bench::new(), Bench::with(|options| options.jobs = TOO_MANY)];
    assert_eq!(benches.each_ref().map(|bench| bench.runtime.pooled()), [true, false]);
    benches
}

/// An unsigned number in WebAssembly's encoding.
fn leb(mut n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (n & 0x7f) as u8;
        n >>= 7;
        if n == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

/// The number of core modules at the top level of a component.
fn modules(component: &[u8]) -> usize {
    let (mut at, mut found) = (8, 0);
    while at < component.len() {
        let id = component[at];
        at += 1;
        let (mut size, mut shift) = (0, 0);
        loop {
            let byte = component[at];
            at += 1;
            size |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        found += usize::from(id == 1);
        at += size;
    }
    found
}

/// The component with `times` instances of one more module, given in text.
fn with_instances(mut component: Vec<u8>, module: &str, times: usize) -> Vec<u8> {
    let index = leb(modules(&component));
    let module = wat::parse_str(module).unwrap();
    component.push(1);
    component.extend(leb(module.len()));
    component.extend(module);
    let mut instances = leb(times);
    for _ in 0..times {
        instances.push(0);
        instances.extend(&index);
        instances.push(0);
    }
    component.push(2);
    component.extend(leb(instances.len()));
    component.extend(instances);
    component
}

const LOG: &str = r#"(import "dovetail:task/logging@0.1.0" "log" (func $log (param i32 i32 i32 i32 i32)))"#;
/// Logs one line.
const SAY: &str = "(call $log (i32.const 2) (i32.const 0x2000) (i32.const 1) (i32.const 0) (i32.const 0))";

#[test]
fn memory_is_limited_on_both() {
    let grow = number_guest(
        "",
        "(if (i32.eq (memory.grow (local.get 0)) (i32.const -1)) (then (unreachable))) (call $ok (memory.size))",
    );
    let limits = Limits { memory: 2 << 20, ..Limits::DEFAULT };
    for bench in both() {
        let report = bench.run_within(&grow, json!({ "n": 30 }), limits);
        assert_eq!((output(&report), report.usage.peak_memory), (&json!({ "n": 32 }), 2 << 20));
        let report = bench.run_within(&grow, json!({ "n": 31 }), limits);
        assert_eq!(failed(&report), (FailureKind::Limit, "out_of_memory"));
        let report = bench.run_within(&grow, json!({ "n": 0 }), Limits { memory: 65536, ..Limits::DEFAULT });
        assert_eq!(failed(&report), (FailureKind::Limit, "out_of_memory"));
    }
}

#[test]
fn a_limit_above_the_slots_is_the_size_of_a_slot_on_both() {
    let grow = number_guest(
        "",
        "(if (i32.eq (memory.grow (local.get 0)) (i32.const -1)) (then (unreachable))) (call $ok (memory.size))",
    );
    let limits = Limits { memory: 1 << 30, ..Limits::DEFAULT };
    for bench in both() {
        assert_eq!(output(&bench.run_within(&grow, json!({ "n": 4096 - 2 }), limits)), &json!({ "n": 4096 }));
        let report = bench.run_within(&grow, json!({ "n": 4096 - 1 }), limits);
        assert_eq!(failed(&report), (FailureKind::Limit, "out_of_memory"));
        assert!(failure(&report).message.contains("256MiB"), "{}", failure(&report).message);
    }
}

#[test]
fn time_is_limited_on_both() {
    // With 0 the guest returns at once; with any other number it never returns.
    let spin = number_guest("", "(loop $l (br_if $l (local.get 0))) (call $ok (i32.const 1))");
    for bench in both() {
        assert_eq!(output(&bench.run(&spin, json!({ "n": 0 }))), &json!({ "n": 1 }));
        let report = bench.run_within(&spin, json!({ "n": 1 }), Limits { time_ms: 50, ..Limits::DEFAULT });
        assert_eq!(failed(&report), (FailureKind::Timeout, "timeout"));
        let stop = Stop::never();
        let stopped = bench.attempt(
            bench.install("probe", &spin, ""),
            json!({ "n": 1 }),
            Limits::DEFAULT,
            &stop.by(std::time::Instant::now()),
        );
        assert_eq!(failed(&stopped), (FailureKind::Timeout, "timeout"));
    }
}

#[test]
fn a_trap_and_a_full_stack_end_an_attempt_on_both() {
    let deep = "(func $deep (param i32) (result i32) (if (result i32) (local.get 0)
      (then (i32.add (i32.const 1) (call $deep (i32.sub (local.get 0) (i32.const 1))))) (else (i32.const 0))))";
    let deep = number_guest(deep, "(call $ok (call $deep (local.get 0)))");
    let wild = number_guest("", "(call $ok (i32.load (local.get 0)))");
    for bench in both() {
        assert_eq!(output(&bench.run(&deep, json!({ "n": 5_000 }))), &json!({ "n": 5_000 }));
        assert_eq!(failed(&bench.run(&deep, json!({ "n": 1_000_000 }))), (FailureKind::Trap, "stack_overflow"));
        assert_eq!(output(&bench.run(&wild, json!({ "n": 0x5000 }))), &json!({ "n": 0 }));
        assert_eq!(failed(&bench.run(&wild, json!({ "n": 0x7fff_0000 }))), (FailureKind::Trap, "out_of_bounds"));
    }
}

#[test]
fn failed_attempts_leave_room_and_clean_memory_on_both() {
    // Writes to its memory, then fails for every second input.
    let dirty = number_guest(
        "",
        "(if (i32.load8_u (i32.const 0x5000)) (then (return (call $ok (i32.const 666)))))
         (i32.store8 (i32.const 0x5000) (i32.const 9))
         (if (i32.and (local.get 0) (i32.const 1)) (then (unreachable))) (call $ok (local.get 0))",
    );
    for bench in both() {
        let package = bench.install("probe", &dirty, "");
        // Far more failures than there are slots.
        for n in 0..200 {
            let report = bench.attempt(package, json!({ "n": n }), Limits::DEFAULT, &Stop::never());
            if n % 2 == 0 {
                assert_eq!(output(&report), &json!({ "n": n }));
            } else {
                assert_eq!(failed(&report), (FailureKind::Trap, "unreachable"));
            }
        }
    }
}

/// Blocks each arrival until all have arrived: only then do all instances exist at the same time.
#[derive(Default)]
struct Gate(Mutex<usize>, Condvar);

impl Gate {
    /// Returns whether all arrived. The wait is bounded, so that a missing arrival fails the test instead of blocking
    /// it.
    fn pass(&self, all: usize) -> bool {
        let mut arrived = self.0.lock().unwrap();
        *arrived += 1;
        self.1.notify_all();
        let (arrived, _) =
            self.1.wait_timeout_while(arrived, Duration::from_secs(60), |arrived| *arrived < all).unwrap();
        *arrived >= all
    }
}

/// Runs `attempts` attempts that wait for one another in the middle. Each uses the most entries that a component may
/// use: 8 memories and 16 tables.
fn crowd(jobs: u32, attempts: usize) {
    let gate = Arc::new(Gate::default());
    let met = Arc::new(Mutex::new(0));
    let bench = Bench::with(|options| {
        options.jobs = jobs;
        let (gate, met) = (gate.clone(), met.clone());
        options.live = Some(Arc::new(move |_, live| {
            if matches!(live, Live::Log(_)) && gate.pass(attempts) {
                *met.lock().unwrap() += 1;
            }
        }));
    });
    assert_eq!(bench.runtime.pooled(), jobs != TOO_MANY);
    let guest = number_guest(LOG, &format!("{SAY} (call $ok (local.get 0))"));
    let guest = with_instances(guest, "(module (memory 1) (table 10 funcref))", 7);
    // The table that joins a component's own modules counts as well.
    let guest = with_instances(guest, "(module (table 10 funcref))", 8);
    let package = bench.install("probe", &guest, "");
    std::thread::scope(|scope| {
        for n in 0..attempts {
            let bench = &bench;
            scope.spawn(move || {
                let report = bench
                    .runtime
                    .execute(&attempt(package, json!({ "n": n }), Limits::DEFAULT), &Stop::never())
                    .unwrap();
                assert_eq!(output(&report), &json!({ "n": n }));
                assert_eq!(report.usage.peak_memory, (2 + 7) * 65536);
            });
        }
    });
    assert_eq!(*met.lock().unwrap(), attempts);
}

#[test]
fn every_attempt_of_a_full_pool_finds_its_room() {
    crowd(8, 8);
}

#[test]
fn as_many_attempts_fit_without_a_pool() {
    crowd(TOO_MANY, 8);
}

#[test]
fn more_attempts_than_slots_wait_for_one_another() {
    let bench = Bench::with(|options| options.jobs = 2);
    assert!(bench.runtime.pooled());
    let package = bench.install("probe", &number_guest("", "(call $ok (i32.add (local.get 0) (i32.const 1)))"), "");
    std::thread::scope(|scope| {
        for n in 0..32 {
            let bench = &bench;
            scope.spawn(move || {
                let report = bench.attempt(package, json!({ "n": n }), Limits::DEFAULT, &Stop::never());
                assert_eq!(output(&report), &json!({ "n": n + 1 }));
            });
        }
    });
}

#[test]
fn what_no_slot_can_hold_is_refused_before_it_is_run() {
    let (compiler, _folder) = compiler();
    let guest = || number_guest("", "(call $ok (i32.const 1))");
    let own = modules(&guest());
    let fits = [
        ("(module (memory 1))", 7),
        ("(module (memory 4096))", 1),
        ("(module (table 20000 funcref))", 1),
        ("(module)", 64 - own),
    ];
    for (module, times) in fits {
        compiler.describe(&with_instances(guest(), module, times), &Grants::default()).unwrap();
    }
    let not = [
        ("(module (memory 1))", 8, "memories"),
        ("(module (memory 4097))", 1, "memory"),
        ("(module (table 20001 funcref))", 1, "table"),
        ("(module)", 64, "64"),
    ];
    for (module, times, words) in not {
        refuses(&with_instances(guest(), module, times), "component_too_large", words);
    }
}

#[test]
fn what_no_slot_can_hold_fails_alone_without_slots() {
    let bench = Bench::with(|options| options.jobs = TOO_MANY);
    let guest = || number_guest("", "(call $ok (i32.const 1))");
    for (module, times, code) in [
        ("(module (memory 4097))", 1, "out_of_memory"),
        ("(module (table 20001 funcref))", 1, "too_many_instances"),
        ("(module)", 64, "too_many_instances"),
    ] {
        let report = bench.run_within(&with_instances(guest(), module, times), json!({ "n": 1 }), Limits::MAXIMA);
        assert_eq!(failed(&report), (FailureKind::Limit, code), "{module}");
    }
    assert_eq!(output(&bench.run(&guest(), json!({ "n": 1 }))), &json!({ "n": 1 }));
}
