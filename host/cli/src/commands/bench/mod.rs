//! `bench`: measures this machine, or with `--servers` a fleet's servers from it, in stores of its own that it removes.
//!
//! Every figure is measured in several rounds: its value is their median, beside the lowest and the highest. Nothing
//! here decides whether a figure is good.

mod call;
mod faces;
mod figure;
mod growth;
mod idle;
mod load;
mod machine;
mod pictures;
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
    /// Whether it needs the face pipeline, which a data folder may not have.
    faces: bool,
}

impl Measure {
    const fn new(
        name: &'static str,
        unit: &'static str,
        rounds: fn(&Suite) -> Result<Vec<f64>, Error>,
        what: &'static str,
    ) -> Self {
        Self { name, unit, what, rounds, faces: false }
    }

    const fn of_faces(self) -> Self {
        Self { faces: true, ..self }
    }
}

/// What came of a suite.
#[derive(Default)]
struct Measured {
    figures: Vec<Figure>,
    /// Figures that the data folder lacks something for: their names, and why.
    missing: Vec<(&'static str, Error)>,
}

const EMBEDDED: &[Measure] = &[
    Measure::new(
        "call_overhead_us",
        "us",
        call::overhead,
        "one call of a task in Rust, with std, that hands a record on: fresh instance, JSON in and out",
    ),
    Measure::new("call_overhead_no_std_us", "us", call::overhead_no_std, "the same of a task without std"),
    Measure::new(
        "embedded_steps_per_s",
        "1/s",
        load::independent_steps,
        "steps in runs of 10 independent ones, from the first submission to the last result, durable",
    ),
    Measure::new("embedded_one_step_per_s", "1/s", load::single_steps, "the same in runs of one step"),
    Measure::new("embedded_fork_join_per_s", "1/s", load::fork_joins, "runs of 1 -> 2 -> join (4 steps)"),
    Measure::new(
        "cli_noop_ms",
        "ms",
        call::whole_process,
        "the whole process `dovetail run` of one step, compiled before",
    ),
    Measure::new(
        "submit_to_result_p50_ms",
        "ms",
        load::latency_p50,
        "one step, worker idle: submission to result, median",
    ),
    Measure::new("worker_idle_mb", "MB", idle::memory, "resident memory of a worker that has run a task and waits"),
    Measure::new("worker_vision_mb", "MB", pictures::memory, "most that a worker holds that works on photographs")
        .of_faces(),
    Measure::new(
        "pipeline_native_cpu_ratio",
        "",
        pictures::cpu_ratio,
        "face pipeline over the library's calls alone: processor time, photograph by photograph",
    )
    .of_faces(),
    Measure::new("pipeline_native_wall_ratio", "", pictures::wall_ratio, "the same: time on the clock").of_faces(),
];

const SERVERS: &[Measure] = &[
    Measure::new(
        "noop_steps_per_s",
        "1/s",
        load::independent_steps,
        "steps in runs of 10 independent ones, from the first submission to the last result",
    ),
    Measure::new("one_step_per_s", "1/s", load::single_steps, "the same in runs of one step"),
    Measure::new("fork_join_per_s", "1/s", load::fork_joins, "runs of 1 -> 2 -> join (4 steps)"),
    Measure::new(
        "submit_to_result_p50_ms",
        "ms",
        load::latency_p50,
        "one step, workers idle: submission to result, median",
    ),
    Measure::new("submit_to_result_p99_ms", "ms", load::latency_p99, "the same, one in a hundred takes longer"),
    Measure::new("worker_idle_mb", "MB", idle::memory, "resident memory of a worker that has run a task and waits"),
    Measure::new(
        "worker_idle_redis_commands_per_s",
        "1/s",
        idle::redis_commands,
        "commands that one idle worker sends to Redis (with those of anybody else who uses it meanwhile)",
    ),
    Measure::new(
        "worker_idle_mongodb_commands_per_s",
        "1/s",
        idle::mongodb_commands,
        "commands that one idle worker sends to MongoDB (with those of anybody else who uses it meanwhile)",
    ),
    Measure::new(
        "queue_depth_ratio",
        "",
        servers::queue_depth,
        "rate of runs of one step out of a deep queue over that out of a short one",
    ),
    Measure::new("metadata_inserts_per_s", "1/s", servers::inserts, "records that the store inserts, 500 at a time"),
    Measure::new(
        "pipeline_fleet_ratio",
        "",
        pictures::fleet_ratio,
        "photographs a second through the face pipeline over the servers, over those of this machine alone",
    )
    .of_faces(),
];

pub(crate) fn run(args: &args::Bench, app: &App) -> Result<Exit, Error> {
    let all = match (args.servers, args.growth) {
        (true, _) => SERVERS,
        (_, true) => growth::MEASURES,
        _ => EMBEDDED,
    };
    let wanted = wanted(all, &args.only)?;
    let mut suite = Suite::new(app, args)?;
    let measured = measure(&mut suite, &wanted, !args.only.is_empty(), app);
    let commit = machine::commit_ms(suite.place.folder());
    let machine = machine::facts(app, &suite, commit);
    let removed = suite.end();
    if suite.interrupted() {
        return Ok(Exit::Interrupted);
    }
    let measured = measured?;
    removed?;
    app.output.result(|| measured.to_json(&machine), || measured.text(&machine));
    Ok(Exit::Done)
}

/// Those that were named, in our order.
fn wanted(all: &'static [Measure], only: &[String]) -> Result<Vec<&'static Measure>, Error> {
    for name in only {
        if all.iter().any(|measure| measure.name == name) {
            continue;
        }
        let names = all.iter().map(|measure| measure.name);
        let help = if EMBEDDED.iter().chain(SERVERS).chain(growth::MEASURES).any(|measure| measure.name == name) {
            "it belongs to another suite: add --servers or --growth, or leave it out".to_owned()
        } else {
            let near = nearest(name, names.clone()).map_or_else(String::new, |near| format!("did you mean `{near}`? "));
            format!("{near}there are {}", names.collect::<Vec<_>>().join(", "))
        };
        return Err(Error::usage("unknown_figure", format!("`{name}` is no figure of this suite")).help(help));
    }
    Ok(all.iter().filter(|measure| only.is_empty() || only.iter().any(|name| name == measure.name)).collect())
}

/// What a data folder or the servers may lack; everything else is an error.
const LACKING: [&str; 5] = ["no_face_pipeline", "no_photographs", "models_missing", "no_mongodb", "no_statistics"];

/// `named`: somebody asked for each of these, and none may be missing.
fn measure(suite: &mut Suite, wanted: &[&'static Measure], named: bool, app: &App) -> Result<Measured, Error> {
    let mut measured = Measured::default();
    for (n, measure) in wanted.iter().enumerate() {
        if app.output.interactive {
            app.output.in_place(&format!("{} of {}: {}", n + 1, wanted.len(), measure.name));
        }
        let ready = if measure.faces { suite.faces().map(drop) } else { Ok(()) };
        let rounds = ready.and_then(|()| (measure.rounds)(suite));
        app.output.clear();
        match rounds {
            Ok(rounds) => measured.figures.push(Figure::of(measure.name, measure.unit, measure.what, &rounds)),
            Err(error) if !named && LACKING.contains(&error.code) => measured.missing.push((measure.name, error)),
            Err(error) => return Err(error),
        }
    }
    Ok(measured)
}

impl Measured {
    fn to_json(&self, machine: &Value) -> Value {
        let missing = |(name, error): &(&str, Error)| json!({ "name": name, "why": error.chain(), "help": error.help });
        json!({
            "machine": machine,
            "figures": self.figures.iter().map(Figure::to_json).collect::<Vec<_>>(),
            "not_measured": self.missing.iter().map(missing).collect::<Vec<_>>(),
        })
    }

    fn text(&self, machine: &Value) -> String {
        let fact = |(name, value): (&String, &Value)| {
            format!("{name}: {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        };
        let facts: Vec<String> = machine.as_object().into_iter().flatten().map(fact).collect();
        let titles = ["figure", " value", "unit", " low", " high", "what it is"];
        let figures = table(&titles, &self.figures.iter().map(Figure::row).collect::<Vec<_>>());
        let mut text = format!("{}\n\n{figures}", facts.join("\n"));
        // Those of one reason in one line.
        for part in self.missing.chunk_by(|(_, one), (_, other)| one.code == other.code) {
            let names: Vec<&str> = part.iter().map(|(name, _)| *name).collect();
            let why = part.first().map_or_else(String::new, |(_, why)| {
                format!("{}{}", why.chain(), why.help.as_ref().map_or_else(String::new, |help| format!("; {help}")))
            });
            text.push_str(&format!("\nnot measured: {}: {why}\n", names.join(", ")));
        }
        text
    }
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
        assert!(help("value_4mb_ms").contains("--growth"), "{}", help("value_4mb_ms"));
    }
}
