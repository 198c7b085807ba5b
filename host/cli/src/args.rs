//! The arguments. Parsing reads only the arguments, and HOME for `~`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use dovetail_service::settings::{LogFormat, LogLevel, Overrides};

use crate::commands::schema;
use crate::output::Format;
use crate::paths;

/// Runs pipelines of sandboxed WebAssembly tasks.
#[derive(Debug, Parser)]
#[command(name = "dovetail", version, max_term_width = 100, disable_help_subcommand = true, after_help = AFTER)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER: &str =
    "Exit codes: 0 done, 1 a run failed or a check found errors, 2 wrong usage (nothing is recorded), 3 the host \
     failed, 130 interrupted.
Settings: a flag overrides a DOVETAIL_* variable, the variable overrides dovetail.toml, the file overrides the \
default.";

/// Options of every command.
#[derive(Debug, Default, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The data folder: registry, runs, artifacts, models and caches [default: ~/.local/share/dovetail]
    #[arg(long, global = true, value_name = "DIR", value_parser = paths::option())]
    pub(crate) data: Option<PathBuf>,
    /// The settings file [default: ./dovetail.toml, then ~/.config/dovetail/dovetail.toml]
    #[arg(long, global = true, value_name = "FILE", value_parser = paths::option())]
    pub(crate) config: Option<PathBuf>,
    /// The fleet's name in shared stores [default: default]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Stores of a fleet")]
    pub(crate) fleet: Option<String>,
    /// The queue: redis://[user:password@]host[:port]/[db] [default: sqlite:, in the data folder]
    #[arg(long, global = true, value_name = "URL", help_heading = "Stores of a fleet")]
    pub(crate) queue: Option<String>,
    /// The records: mongodb://[user:password@]host[:port]/database [default: sqlite:, in the data folder]
    #[arg(long, global = true, value_name = "URL", help_heading = "Stores of a fleet")]
    pub(crate) meta: Option<String>,
    /// Packages, artifacts and models: s3://bucket?endpoint=http://host:port [default: file:, in the data folder]
    #[arg(long, global = true, value_name = "URL", help_heading = "Stores of a fleet")]
    pub(crate) blobs: Option<String>,
    /// Format of results; ndjson prints one JSON document a line as soon as each run ends
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Format,
    /// Most detailed level that is logged to standard error: off, error, warn, info, debug or trace [default: warn; for
    /// worker and up: info]
    #[arg(long, global = true, value_parser = levels(), value_name = "LEVEL", hide_possible_values = true)]
    pub(crate) log_level: Option<LogLevel>,
    /// Format of the log [default: text]
    #[arg(long, global = true, value_parser = formats(), value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
}

impl Global {
    /// The options as overrides of settings.
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides {
            data: self.data.clone(),
            config: self.config.clone(),
            fleet: self.fleet.clone(),
            queue: self.queue.clone(),
            meta: self.meta.clone(),
            blobs: self.blobs.clone(),
            log_level: self.log_level,
            log_format: self.log_format,
        }
    }
}

fn levels() -> impl TypedValueParser<Value = LogLevel> {
    let known = PossibleValuesParser::new(LogLevel::ALL.map(LogLevel::name));
    known.try_map(|name| LogLevel::parse(&name).ok_or("no level of this name"))
}

fn formats() -> impl TypedValueParser<Value = LogFormat> {
    let known = PossibleValuesParser::new(LogFormat::ALL.map(LogFormat::name));
    known.try_map(|name| LogFormat::parse(&name).ok_or("no format of this name"))
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a pipeline and wait for its result
    Run(Run),
    /// List, show, watch, cancel, retry and resume runs
    #[command(subcommand)]
    Runs(Runs),
    /// Run a worker that executes queued steps until SIGTERM
    Worker(WorkerArgs),
    /// Another name of `worker`
    Up(WorkerArgs),
    /// List the living workers
    #[command(subcommand)]
    Workers(Workers),
    /// Check, pack, publish, list and try tasks
    #[command(subcommand)]
    Task(Task),
    /// Check, publish, update, list and draw pipelines
    #[command(subcommand)]
    Pipeline(Pipeline),
    /// Install and list models
    #[command(subcommand)]
    Models(Models),
    /// Run the face pipeline on a folder of photographs and draw the results
    Demo(Demo),
    /// Measure this machine: calls, steps and runs per second, latency, memory
    Bench(Bench),
    /// Check this machine and the servers of its fleet, and say what to do about each problem
    Doctor {
        /// Read all packages and models, also those in an S3 store, and compare them with their digests
        #[arg(long)]
        deep: bool,
    },
    /// Remove old runs, unreferenced blobs and unused compiled code
    Gc(GcArgs),
    /// Print the JSON Schema of a document that dovetail prints or reads
    Schema {
        /// Name of the document
        #[arg(value_name = "DOCUMENT", value_parser = documents())]
        of: String,
    },
    /// Print the completion script of a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// The help of `--input`.
const INPUT_HELP: &str = "Value of an input: NAME=VALUE, NAME=@FILE (a picture, bytes or JSON), NAME=@- (standard \
    input), or @FILE.json for all inputs; write @@ for a value that begins with @";

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// A published pipeline (NAME or NAME@1.0.0), or a pipeline file, which is checked and published first
    pub(crate) pipeline: OsString,
    #[arg(short, long, value_name = "NAME=VALUE", help = INPUT_HELP)]
    pub(crate) input: Vec<OsString>,
    /// Submit one run for each file of a folder or glob: NAME=@FOLDER_OR_GLOB; may be repeated for the same input
    #[arg(long, value_name = "NAME=@FILES")]
    pub(crate) each: Vec<OsString>,
    /// Name of this submission: submitting again with the same key gives the first run, and runs nothing again
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Number of steps that run at the same time [default: 10]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) jobs: Option<u32>,
    /// Do not wait: print the ID of the run, or with --each of every run; needs a living worker
    #[arg(long)]
    pub(crate) detach: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    /// Number of steps that run at the same time [default: 10]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) jobs: Option<u32>,
    /// Name of the worker in `workers list` and in the records [default: HOST-PROCESS]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Workers {
    /// List the living workers with host, running steps, rate and memory
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Runs {
    /// List the newest runs
    List {
        /// Number of runs to list
        #[arg(short = 'n', long, default_value_t = 20, value_name = "N",
            value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Print a run; with --output json, the same document as `run`
    Show(OneGeneration),
    /// Print the values that each step consumed and produced, with digests, packages and models
    Lineage(OneGeneration),
    /// Print the logs of a run's tasks
    Logs(OneGeneration),
    /// Print the changes of a run until it is over, and then its result
    Watch(OneRun),
    /// Cancel runs: running steps are stopped, and no other step starts
    Cancel {
        /// IDs of the runs, or unique beginnings or ends of IDs
        #[arg(value_name = "RUN", required = true)]
        runs: Vec<String>,
    },
    /// Run the unsuccessful steps of a failed or cancelled run again, and wait for the result
    Retry {
        #[command(flatten)]
        run: OneRun,
        /// Do not wait: print the ID of the run; needs a living worker
        #[arg(long)]
        detach: bool,
        /// Number of steps that run at the same time [default: 10]
        #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
        jobs: Option<u32>,
    },
    /// Resume interrupted runs, and wait for their results
    #[command(override_usage = "dovetail runs resume [OPTIONS] <RUN>...\n       dovetail runs resume [OPTIONS] --all")]
    Resume {
        /// IDs of the runs, or unique beginnings or ends of IDs
        #[arg(value_name = "RUN", required_unless_present = "all")]
        runs: Vec<String>,
        /// Resume all open runs
        #[arg(long, conflicts_with = "runs")]
        all: bool,
        /// Number of steps that run at the same time [default: 10]
        #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
        jobs: Option<u32>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct OneRun {
    /// ID of the run, or a unique beginning or end of the ID
    pub(crate) run: String,
}

#[derive(Debug, Args)]
pub(crate) struct OneGeneration {
    /// ID of the run, or a unique beginning or end of the ID; with @0, @1, ... the run as it was before a retry
    pub(crate) run: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Inspect a plugin: imports, purity, types, sizes and limits
    Check {
        /// A plugin folder, a component beside its plugin.toml, or a package
        path: PathBuf,
        /// File of the component, if it is not where cargo puts it
        #[arg(long, value_name = "FILE", value_parser = paths::option())]
        component: Option<PathBuf>,
    },
    /// Make the package of a plugin; the same files give the same bytes
    Pack {
        /// The plugin folder
        folder: PathBuf,
        /// The package to write [default: NAME-VERSION.zip in the current folder]
        #[arg(short = 'o', long, value_name = "FILE", value_parser = paths::option())]
        out: Option<PathBuf>,
        /// File of the component, if it is not where cargo puts it
        #[arg(long, value_name = "FILE", value_parser = paths::option())]
        component: Option<PathBuf>,
        /// Remove the names of functions: the package is smaller, and backtraces have no names
        #[arg(long)]
        strip: bool,
    },
    /// Publish plugins; a published version never changes
    Push {
        /// Packages or plugin folders
        #[arg(required = true, value_name = "FILE_OR_FOLDER")]
        paths: Vec<PathBuf>,
        /// Allow a grant that a manifest asks for: clocks or random; may be repeated
        #[arg(long, value_name = "GRANT")]
        grant: Vec<String>,
    },
    /// List the published tasks
    List,
    /// Print a published task
    Show {
        /// NAME, NAME@1.0.0 or NAME@^1
        task: String,
    },
    /// Run a single task under its limits, and print its output and usage; nothing is recorded
    Run {
        /// A published task (NAME, NAME@1.0.0), a plugin folder, or a package
        task: OsString,
        #[arg(short, long, value_name = "NAME=VALUE", help = INPUT_HELP)]
        input: Vec<OsString>,
        /// Allow a grant that the manifest asks for: clocks or random; may be repeated
        #[arg(long, value_name = "GRANT")]
        grant: Vec<String>,
        /// Write returned images and artifacts into this folder
        #[arg(long, value_name = "DIR", value_parser = paths::option())]
        save: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Pipeline {
    /// Check a pipeline file, and list all errors and warnings
    Check {
        /// The pipeline file
        file: PathBuf,
    },
    /// Check a pipeline file and publish it, pinned to exact plugins
    Push {
        /// The pipeline file
        file: PathBuf,
    },
    /// Publish a new revision of a pipeline, pinned to the newest plugins that its file allows
    Update {
        /// NAME or NAME@1.0.0
        pipeline: String,
    },
    /// List the published pipelines
    List,
    /// Print a published pipeline
    Show {
        /// NAME or NAME@1.0.0
        pipeline: String,
        /// Print only the grants and models of each step
        #[arg(long)]
        capabilities: bool,
    },
    /// Draw a pipeline
    Graph {
        /// A pipeline file, or a published pipeline
        pipeline: OsString,
        /// Format of the drawing
        #[arg(long, value_enum, default_value_t)]
        format: GraphFormat,
    },
    /// Print the JSON Schema of pipeline files
    Schema,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphFormat {
    #[default]
    Text,
    Mermaid,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Models {
    /// Install the default models (networks from npm, cascades from OpenCV), and the engine ONNX Runtime
    Pull {
        /// Use this package (a folder or a .tgz) instead of downloading it
        #[arg(long, value_name = "FOLDER_OR_TGZ", value_parser = paths::option())]
        from: Option<PathBuf>,
        /// Use this file of ONNX Runtime, the faster engine (its wheel or its library), instead of downloading it
        #[arg(long, value_name = "WHEEL_OR_LIBRARY", value_parser = paths::option())]
        engine: Option<PathBuf>,
        /// Also copy the package's photographs into this folder
        #[arg(long, value_name = "DIR", value_parser = paths::option())]
        photographs: Option<PathBuf>,
        /// Replace existing files of that folder that have a photograph's name and other content
        #[arg(long, requires = "photographs")]
        force: bool,
    },
    /// List the installed models
    List,
    /// Install your own model: an ONNX file or a cascade
    Add {
        /// The file of the model
        file: PathBuf,
        /// The model's manifest: kind, input size, mean, scale, crop and labels
        #[arg(long, value_name = "model.toml", value_parser = paths::option())]
        manifest: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Folder of photographs
    #[arg(long, value_name = "DIR", value_parser = paths::option())]
    pub(crate) photographs: PathBuf,
    /// Folder for results and annotated pictures
    #[arg(long, value_name = "DIR", value_parser = paths::option())]
    pub(crate) out: PathBuf,
    /// Replace existing files of that folder that have a result's name and that `demo` did not make
    #[arg(long)]
    pub(crate) force: bool,
    /// The published pipeline
    #[arg(long, default_value = "face-processing", value_name = "NAME")]
    pub(crate) pipeline: String,
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Measure the fleet's servers (--queue; --meta and --blobs if they are set) instead of a temporary data folder;
    /// keys of the measurement are separate, and are removed
    #[arg(long)]
    pub(crate) servers: bool,
    /// Measure how figures grow with the number of queued runs, steps and faces, and with the size of values
    #[arg(long, conflicts_with = "servers")]
    pub(crate) growth: bool,
    /// Measure only this figure; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Vec<String>,
    /// Measure roughly, in about 20 seconds, or with --servers some minutes
    #[arg(long)]
    pub(crate) quick: bool,
    /// Number of rounds for each figure, whose value is their median [default: 5; with --quick: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: Option<u32>,
    /// Number of steps that are submitted at once to measure a rate [default: 10000; with --quick: 500]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    pub(crate) size: Option<u32>,
    /// Folder of photographs for the figures of the face pipeline [default: the inputs of its newest runs in the data
    /// folder]
    #[arg(long, value_name = "DIR", value_parser = paths::option())]
    pub(crate) photographs: Option<PathBuf>,
    /// Number of worker processes, with --servers
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100),
        requires = "servers")]
    pub(crate) workers: u32,
}

/// Parses a duration such as `30d`.
fn duration(text: &str) -> Result<Duration, String> {
    dovetail_service::parse_duration(text).map_err(|e| e.to_string())
}

#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Keep a run, with its values, pictures and logs, for this time after its end
    #[arg(long, default_value = "30d", value_name = "TIME", value_parser = duration)]
    pub(crate) keep_runs: Duration,
    /// Keep an unreferenced blob for this time, which must be longer than any step takes; below 1h only while no run is
    /// open and no worker lives
    #[arg(long, default_value = "1d", value_name = "TIME", value_parser = duration)]
    pub(crate) keep_blobs: Duration,
    /// Keep compiled code on this machine for this time after its last use
    #[arg(long, default_value = "30d", value_name = "TIME", value_parser = duration)]
    pub(crate) keep_compiled: Duration,
    /// Only print what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// The documents that have a schema.
fn documents() -> impl TypedValueParser<Value = String> {
    PossibleValuesParser::new(schema::names())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
