//! `bench`: measures this machine, or with `--servers` a fleet's servers from it, in stores of its own that it removes.
//!
//! Every figure is measured in several rounds: its value is their median, beside the lowest and the highest. Nothing here decides whether a
//! figure is good.

mod call;
mod figure;
mod idle;
mod load;
mod machine;
mod place;
mod servers;
mod suite;
mod tasks;
mod workers;

use dovetail_core::wit::names::nearest;
use serde_json::{Value, json};

use self::figure::Figure;
use self::suite::Suite;
use crate::args;
use crate::error::{Error, Exit};
use crate::table::table;
use crate::wire::App;

/// A figure that can be measured.
struct Measure {
    name: &'static str,
    unit: &'static str,
    /// For people.
    what: &'static str,
    /// One value a round.
    rounds: fn(&Suite) -> Result<Vec<f64>, Error>,
}

const EMBEDDED: &[Measure] = &[
    Measure {
        name: "call_overhead_us",
        unit: "us",
        what: "one call of a task that does nothing: fresh instance, JSON in and out (guest without std)",
        rounds: call::overhead,
    },
    Measure {
        name: "embedded_steps_per_s",
        unit: "1/s",
        what: "steps in runs of 10 independent ones, from the first submission to the last result, durable",
        rounds: load::independent_steps,
    },
    Measure { name: "embedded_one_step_per_s", unit: "1/s", what: "the same in runs of one step", rounds: load::single_steps },
    Measure { name: "embedded_fork_join_per_s", unit: "1/s", what: "runs of 1 -> 2 -> join (4 steps)", rounds: load::fork_joins },
    Measure { name: "cli_noop_ms", unit: "ms", what: "the whole process `dovetail run` of one step, compiled before", rounds: call::whole_process },
    Measure { name: "submit_to_result_p50_ms", unit: "ms", what: "one step, worker idle: submission to result, median", rounds: load::latency_p50 },
    Measure { name: "worker_idle_mb", unit: "MB", what: "resident memory of a worker that has run a task and waits", rounds: idle::memory },
];

const SERVERS: &[Measure] = &[
    Measure {
        name: "noop_steps_per_s",
        unit: "1/s",
        what: "steps in runs of 10 independent ones, from the first submission to the last result",
        rounds: load::independent_steps,
    },
    Measure { name: "one_step_per_s", unit: "1/s", what: "the same in runs of one step", rounds: load::single_steps },
    Measure { name: "fork_join_per_s", unit: "1/s", what: "runs of 1 -> 2 -> join (4 steps)", rounds: load::fork_joins },
    Measure { name: "submit_to_result_p50_ms", unit: "ms", what: "one step, workers idle: submission to result, median", rounds: load::latency_p50 },
    Measure { name: "submit_to_result_p99_ms", unit: "ms", what: "the same, one in a hundred takes longer", rounds: load::latency_p99 },
    Measure { name: "worker_idle_mb", unit: "MB", what: "resident memory of a worker that has run a task and waits", rounds: idle::memory },
    Measure {
        name: "worker_idle_redis_commands_per_s",
        unit: "1/s",
        what: "commands that one idle worker sends to Redis (with those of anybody else who uses it meanwhile)",
        rounds: idle::redis_commands,
    },
    Measure {
        name: "queue_depth_ratio",
        unit: "",
        what: "rate of runs of one step out of a deep queue over that out of a short one",
        rounds: servers::queue_depth,
    },
    Measure { name: "metadata_inserts_per_s", unit: "1/s", what: "records that the store inserts, 500 at a time", rounds: servers::inserts },
];

pub(crate) fn run(args: &args::Bench, app: &App) -> Result<Exit, Error> {
    let all = if args.servers { SERVERS } else { EMBEDDED };
    let wanted = wanted(all, &args.only)?;
    let mut suite = Suite::new(app, args)?;
    let measured = measure(&mut suite, &wanted, app);
    let commit = machine::commit_ms(suite.place.folder());
    let machine = machine::facts(app, &suite, commit);
    let removed = suite.end();
    if suite.interrupted() {
        return Ok(Exit::Interrupted);
    }
    let figures = measured?;
    removed?;
    app.output
        .result(|| json!({ "machine": machine, "figures": figures.iter().map(Figure::to_json).collect::<Vec<_>>() }), || text(&machine, &figures));
    Ok(Exit::Done)
}

/// Those that were named, in our order.
fn wanted(all: &'static [Measure], only: &[String]) -> Result<Vec<&'static Measure>, Error> {
    for name in only {
        if all.iter().any(|measure| measure.name == name) {
            continue;
        }
        let names = all.iter().map(|measure| measure.name);
        let help = if EMBEDDED.iter().chain(SERVERS).any(|measure| measure.name == name) {
            "it belongs to the other suite: add --servers, or leave it out".to_owned()
        } else {
            let near = nearest(name, names.clone()).map_or_else(String::new, |near| format!("did you mean `{near}`? "));
            format!("{near}there are {}", names.collect::<Vec<_>>().join(", "))
        };
        return Err(Error::usage("unknown_figure", format!("`{name}` is no figure of this suite")).help(help));
    }
    Ok(all.iter().filter(|measure| only.is_empty() || only.iter().any(|name| name == measure.name)).collect())
}

fn measure(suite: &mut Suite, wanted: &[&'static Measure], app: &App) -> Result<Vec<Figure>, Error> {
    let mut figures = Vec::new();
    for (n, measure) in wanted.iter().enumerate() {
        if app.output.interactive {
            app.output.in_place(&format!("{} of {}: {}", n + 1, wanted.len(), measure.name));
        }
        let rounds = (measure.rounds)(suite);
        app.output.clear();
        figures.push(Figure::of(measure.name, measure.unit, measure.what, &rounds?));
    }
    Ok(figures)
}

fn text(machine: &Value, figures: &[Figure]) -> String {
    let fact = |(name, value): (&String, &Value)| format!("{name}: {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    let facts: Vec<String> = machine.as_object().into_iter().flatten().map(fact).collect();
    let titles = ["figure", " value", "unit", " low", " high", "what it is"];
    format!("{}\n\n{}", facts.join("\n"), table(&titles, &figures.iter().map(Figure::row).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_chosen_by_name() {
        let names = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
            wanted(EMBEDDED, &only).map(|wanted| wanted.iter().map(|measure| measure.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap().len(), EMBEDDED.len());
        assert_eq!(names(&["worker_idle_mb", "cli_noop_ms"]).unwrap(), ["cli_noop_ms", "worker_idle_mb"]);
        let help = |name: &str| names(&[name]).unwrap_err().help.unwrap();
        assert!(help("cli_nop_ms").starts_with("did you mean `cli_noop_ms`?"), "{}", help("cli_nop_ms"));
        assert!(help("noop_steps_per_s").contains("add --servers"), "{}", help("noop_steps_per_s"));
    }
}
