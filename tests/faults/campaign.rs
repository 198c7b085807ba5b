//! Every fault several times, on a fleet of its own, then all of them mixed, and a table of what came of it. `scripts/faults MINUTES SEED` runs it
//! for longer.

use std::time::{Duration, Instant};

use crate::checker::Report;
use crate::fleet::{Fleet, Setup};
use crate::storm::{Fault, Load, Random};

/// Without `DOVETAIL_FAULT_MINUTES`: a short one, of mixed faults only.
const SHORT: Duration = Duration::from_secs(20);

struct Row {
    what: String,
    times: usize,
    report: Report,
}

/// Faults from the list until the time is over, under load; healed and checked at the end.
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
    let mut idle = fleet.all_work();
    let mut report = fleet.check(usize::MAX - 1);
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

#[test]
fn campaign() {
    let minutes = std::env::var("DOVETAIL_FAULT_MINUTES").ok().map(|text| text.parse::<f64>().expect("DOVETAIL_FAULT_MINUTES is a number"));
    let mut random = Random::new();
    // Each fault strikes a fleet of its own: the stand-in for MongoDB looks through all its records for each that is read, and would get slower and
    // slower.
    let mut row = |what: &str, faults: &[Fault], time: Duration| {
        let mut fleet = Fleet::new(Setup { mongodb: true, s3: true, proxies: true, lease: 2, slots: 4, apart: true });
        fleet.workers(3);
        storm(&mut fleet, &mut random, what, faults, time)
    };
    let mixed = "all of them, mixed";
    let rows: Vec<Row> = if let Some(minutes) = minutes {
        // Half of the time one by one, half of it mixed.
        let each = Duration::from_secs_f64(minutes * 30.0 / Fault::ALL.len() as f64);
        let one_by_one: Vec<Row> = Fault::ALL.iter().map(|fault| row(fault.what(), &[*fault], each)).collect();
        one_by_one.into_iter().chain([row(mixed, &Fault::ALL, Duration::from_secs_f64(minutes * 30.0))]).collect()
    } else {
        vec![row(mixed, &Fault::ALL, SHORT)]
    };
    println!("\n| fault | times | runs | executions | of them again | violations |\n|---|---|---|---|---|---|");
    for Row { what, times, report } in &rows {
        let Report { runs, executions, again, violations, .. } = report;
        println!("| {what} | {times} | {runs} | {executions} | {again} | {} |", violations.len());
    }
    let violations: Vec<&String> = rows.iter().flat_map(|row| &row.report.violations).collect();
    assert!(violations.is_empty(), "{violations:#?}");
}
