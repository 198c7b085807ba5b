//! Measures a machine, or the servers of a fleet, in stores of its own, which it removes afterwards.
//!
//! Every figure is measured in several rounds. It has their median, lowest and highest value. This crate does not judge
//! figures and does not print.

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

use dovetail_service::documents::Schema;
use dovetail_service::{Error, Service, nearest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::figure::Figure;
pub use self::machine::Machine;
use self::suite::Suite;
pub use self::suite::{BenchRequest, Interruption};

/// The document of `dovetail bench --output json`. Compare figures only within one machine: between machines they vary
/// most with the disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Measured figures", extend("$id" = "urn:dovetail:bench:1"))]
#[serde(deny_unknown_fields)]
pub struct BenchDocument {
    pub machine: Machine,
    pub figures: Vec<Figure>,
    /// Figures that were not measured because the data folder or the servers lack something.
    pub not_measured: Vec<NotMeasured>,
}

/// A figure that could not be measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NotMeasured {
    /// A stable name in snake_case.
    #[schemars(regex(pattern = "^[a-z][a-z0-9_]*$"))]
    pub name: String,
    pub why: String,
    /// A remedy, if there is one.
    pub help: Option<String>,
}

/// The schema of the document, by its name.
pub const SCHEMAS: &[Schema] =
    &[Schema::of::<BenchDocument>("bench", "Measured figures of a machine or of servers; printed by `bench`")];

/// A figure that can be measured.
struct Measure {
    name: &'static str,
    unit: &'static str,
    /// The meaning of the figure, for people.
    meaning: &'static str,
    /// Measures. Returns one value for each round.
    rounds: fn(&Suite) -> Result<Vec<f64>, Error>,
    /// Whether the figure needs the face pipeline, which a data folder may not have.
    faces: bool,
}

impl Measure {
    const fn new(
        name: &'static str,
        unit: &'static str,
        rounds: fn(&Suite) -> Result<Vec<f64>, Error>,
        meaning: &'static str,
    ) -> Self {
        Self { name, unit, meaning, rounds, faces: false }
    }

    const fn of_faces(self) -> Self {
        Self { faces: true, ..self }
    }
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
        "commands that one idle worker and all other clients send to Redis",
    ),
    Measure::new(
        "worker_idle_mongodb_commands_per_s",
        "1/s",
        idle::mongodb_commands,
        "commands that one idle worker and all other clients send to MongoDB",
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

/// Measures the requested figures. `progress` gets the position of each figure, the number of figures, and its name.
/// Returns `None` if the measurement was interrupted.
///
/// # Errors
/// `unknown_figure` and `no_servers`; the reason why a figure in `request.only` cannot be measured; the failure of a
/// store.
pub fn run(
    service: &Service,
    request: &BenchRequest,
    interruption: Interruption,
    progress: &mut dyn FnMut(usize, usize, &str),
) -> Result<Option<BenchDocument>, Error> {
    let wanted = wanted(suite_of(request), &request.only)?;
    let mut suite = Suite::new(service, request, interruption)?;
    let measured = measure(&mut suite, &wanted, !request.only.is_empty(), progress);
    let commit = machine::commit_ms(suite.place.folder());
    let machine = machine::facts(&suite, commit);
    let removed = suite.end();
    if suite.interrupted() {
        return Ok(None);
    }
    let (figures, not_measured) = measured?;
    removed?;
    Ok(Some(BenchDocument { machine, figures, not_measured }))
}

/// The figures of the requested suite.
fn suite_of(request: &BenchRequest) -> &'static [Measure] {
    match (request.servers, request.growth) {
        (true, _) => SERVERS,
        (_, true) => growth::MEASURES,
        _ => EMBEDDED,
    }
}

/// The meaning of a figure of the requested suite, for people. Empty if the meaning is that of the figure before.
#[must_use]
pub fn meaning(request: &BenchRequest, name: &str) -> &'static str {
    suite_of(request).iter().find(|measure| measure.name == name).map_or("", |measure| measure.meaning)
}

/// The figures with these names, in the order of the suite; all figures if there are no names.
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
        return Err(Error::usage("unknown_figure", format!("`{name}` is not a figure of this suite")).help(help));
    }
    Ok(all.iter().filter(|measure| only.is_empty() || only.iter().any(|name| name == measure.name)).collect())
}

/// Codes of errors that tell what a data folder or the servers lack. Any other error ends the measurement.
const LACKING: [&str; 5] = ["no_face_pipeline", "no_photographs", "models_missing", "no_mongodb", "no_statistics"];

/// Measures the wanted figures. If `named` is set, the caller asked for each of them, and a missing one is an error.
fn measure(
    suite: &mut Suite,
    wanted: &[&'static Measure],
    named: bool,
    progress: &mut dyn FnMut(usize, usize, &str),
) -> Result<(Vec<Figure>, Vec<NotMeasured>), Error> {
    let (mut figures, mut missing) = (Vec::new(), Vec::new());
    for (n, measure) in wanted.iter().enumerate() {
        progress(n + 1, wanted.len(), measure.name);
        let ready = if measure.faces { suite.faces().map(drop) } else { Ok(()) };
        match ready.and_then(|()| (measure.rounds)(suite)) {
            Ok(rounds) => figures.push(Figure::of(measure.name, measure.unit, &rounds)),
            Err(error) if !named && LACKING.contains(&error.code) => {
                missing.push(NotMeasured { name: measure.name.to_owned(), why: error.chain(), help: error.help });
            }
            Err(error) => return Err(error),
        }
    }
    Ok((figures, missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_in_schemas_is_that_of_the_type() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/bench.schema.json");
        let made = format!("{}\n", serde_json::to_string_pretty(&(SCHEMAS[0].make)()).unwrap());
        if std::env::var_os("UPDATE_SCHEMAS").is_some() {
            std::fs::write(&path, &made).unwrap();
        }
        let stored = std::fs::read_to_string(&path).unwrap();
        assert_eq!(stored, made, "UPDATE_SCHEMAS=1 writes the file anew");
    }

    #[test]
    fn a_figure_means_what_its_suite_says() {
        let (embedded, servers) = (BenchRequest::default(), BenchRequest { servers: true, ..BenchRequest::default() });
        let name = "submit_to_result_p50_ms";
        assert!(meaning(&embedded, name).contains("worker idle") && meaning(&servers, name).contains("workers idle"));
        assert_eq!(meaning(&embedded, "noop_steps_per_s"), "", "another suite's");
    }

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
