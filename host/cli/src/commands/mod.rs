//! The commands, one file for each group.

mod bench;
mod demo;
mod doctor;
mod gc;
mod models;
mod pipeline;
mod run;
mod runs;
pub(crate) mod schema;
mod several;
mod task;
mod wait;
mod worker;

use clap::CommandFactory as _;
use dovetail_service::Error;
use dovetail_service::settings::LogLevel;

use crate::app::App;
use crate::args::{self, Cli, Command};
use crate::exit::Exit;

/// Runs a command.
pub(crate) fn run(command: Command, app: &App) -> Result<Exit, Error> {
    match command {
        Command::Run(args) => run::run(&args, app),
        Command::Runs(command) => runs::run(&command, app),
        Command::Worker(args) | Command::Up(args) => worker::run(&args, app),
        Command::Workers(command) => worker::workers(&command, app),
        Command::Task(command) => task::run(&command, app),
        Command::Pipeline(command) => pipeline::run(&command, app),
        Command::Models(command) => models::run(&command, app),
        Command::Demo(args) => demo::run(&args, app),
        Command::Bench(args) => bench::run(&args, app),
        Command::Doctor { deep } => Ok(doctor::run(app, deep)),
        Command::Gc(args) => gc::run(&args, app),
        Command::Schema { of } => Ok(schema::print(&of, app)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "dovetail", &mut script);
            app.output.raw(&String::from_utf8_lossy(&script));
            Ok(Exit::Done)
        }
    }
}

/// The default level of the log: a daemon logs its work.
pub(crate) fn log_level(command: &Command) -> LogLevel {
    if matches!(command, Command::Worker(_) | Command::Up(_)) { LogLevel::Info } else { LogLevel::Warn }
}

/// Whether the command supports `--output ndjson`.
pub(crate) fn streams(command: &Command) -> bool {
    matches!(command, Command::Run(_) | Command::Runs(args::Runs::Resume { .. }))
}
