//! Each fault several times on a fleet of its own, then all faults mixed, and a table of the results. `scripts/faults
//! MINUTES SEED` runs the campaign for longer.

use std::time::{Duration, Instant};

use crate::checker::Report;
use crate::fleet::{Fleet, Setup};
use crate::storm::{Fault, Load, Random};

/// The time for each row without `DOVETAIL_FAULT_MINUTES`; then there are only the rows with mixed faults.
const SHORT: Duration = Duration::from_secs(20);

struct Row {
    what: String,
    times: usize,
    report: Report,
}

/// Strikes with random faults from the list, under load, until `time` is over. Then it waits until the fleet is healed,
/// and checks the fleet.
fn storm(fleet: &mut Fleet, random: &mut Random, what: &str, faults: &[Fault], time: Duration) -> Row {
    let (runs, executions) = (fleet.user.submitted.lock().unwrap().len(), fleet.executions().len());
    let again = fleet.again();
    let load = Load::start(&fleet.user, Duration::from_millis(30));
    let (began, mut times) = (Instant::now(), 0);
    while times == 0 || began.elapsed() < time {
        std::thread::sleep(Duration::from_secs_f64(random.between(0.2, 1.5)));
        let fault = faults[random.below(faults.len())];
        println!("{:>6.1} s {}", began.elapsed().as_secs_f64(), fault.what());
        fault.strike(fleet, random);
        times += 1;
    }
    load.stop();
    println!(
        "{:>6.1} s healed, {} runs are open",
        began.elapsed().as_secs_f64(),
        fleet.open().map_or(usize::MAX, |open| open.len())
    );
    let mut idle = fleet.all_work();
    let healed = Instant::now();
    let mut report = fleet.check(usize::MAX - 1);
    println!("checked within {:.1?}", healed.elapsed());
    report.violations.append(&mut idle);
    report.runs -= runs;
    report.executions -= executions;
    report.again -= again;
    println!(
        "{what}: {times} times, {} runs, {} executions, {} again, {} violations",
        report.runs,
        report.executions,
        report.again,
        report.violations.len()
    );
    report.violations.iter().for_each(|violation| println!("  {violation}"));
    Row { what: what.to_owned(), times, report }
}

/// The records are in the MongoDB stand-in, and each worker has a data folder of its own, as on a machine of its own.
const APART: Setup =
    Setup { mongodb: true, s3: true, proxies: true, lease: 2, slots: 4, apart: true, small: None, redis_clock: false };
/// The records are in SQLite, on one machine.
const TOGETHER: Setup = Setup { mongodb: false, apart: false, ..APART };

#[test]
fn campaign() {
    let minutes = std::env::var("DOVETAIL_FAULT_MINUTES")
        .ok()
        .map(|text| text.parse::<f64>().expect("DOVETAIL_FAULT_MINUTES is a number"));
    let only = std::env::var("DOVETAIL_FAULT_ONLY").unwrap_or_default();
    let mut random = Random::new();
    let without_server: Vec<Fault> = Fault::ALL.into_iter().filter(|fault| !fault.is_of_mongodb()).collect();
    let mixed = |time: Duration| {
        let (one, other) = ("all of them, mixed", "all but those of MongoDB, mixed, with SQLite records");
        [(one, APART, Fault::ALL.to_vec(), time), (other, TOGETHER, without_server.clone(), time)]
    };
    let plan: Vec<(&str, Setup, Vec<Fault>, Duration)> = if let Some(minutes) = minutes {
        // Half of the time is for each fault by itself, half for the mixed faults.
        let each = Duration::from_secs_f64(minutes * 30.0 / Fault::ALL.len() as f64);
        let one_by_one = Fault::ALL.iter().map(|fault| (fault.what(), APART, vec![*fault], each));
        one_by_one.chain(mixed(Duration::from_secs_f64(minutes * 15.0))).collect()
    } else {
        mixed(SHORT).into_iter().collect()
    };
    // Each row has a fleet of its own.
    let chosen = plan.into_iter().filter(|(what, ..)| what.contains(&only));
    let rows: Vec<Row> = chosen
        .map(|(what, setup, faults, time)| {
            let mut fleet = Fleet::new(setup);
            fleet.workers(3);
            storm(&mut fleet, &mut random, what, &faults, time)
        })
        .collect();
    assert!(!rows.is_empty(), "no row has `{only}` in its name");
    println!("\n| fault | times | runs | executions | of them again | violations |\n|---|---|---|---|---|---|");
    for Row { what, times, report } in &rows {
        let Report { runs, executions, again, violations, .. } = report;
        println!("| {what} | {times} | {runs} | {executions} | {again} | {} |", violations.len());
    }
    let violations: Vec<&String> = rows.iter().flat_map(|row| &row.report.violations).collect();
    assert!(violations.is_empty(), "{violations:#?}");
}
