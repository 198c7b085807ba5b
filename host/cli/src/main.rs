//! dovetail: runs pipelines of sandboxed tasks. Parses what was typed, resolves the configuration, runs the command,
//! gives back its exit code.

mod again;
mod args;
mod commands;
mod config;
mod error;
mod freshness;
mod grants;
mod help;
mod inputs;
mod media;
mod out_of_memory;
mod output;
mod paths;
mod patience;
mod plugin;
mod progress;
mod results;
mod show;
mod signals;
mod streams;
mod table;
mod telemetry;
mod unread;
mod wire;
mod work;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::args::Cli;
use crate::config::{Config, Environment};
use crate::error::{Error, Exit};
use crate::output::{Format, Output};
use crate::wire::App;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // The compiling child must come up with no thread and no setting of its own: it limits itself first.
    if arguments.get(1).is_some_and(|first| first == dovetail_runtime::SUBCOMMAND) {
        return dovetail_runtime::compile_child(&arguments[2..]);
    }
    out_of_memory::exit_when_refused();
    let cli = match help::parse(&arguments) {
        Ok(cli) => cli,
        Err(error) => return wrong_usage(&error, &arguments),
    };
    let output = Output::new(cli.global.output);
    let app = match configure(&cli) {
        Ok(config) => App::new(config, output).typed(cli.global.clone()),
        Err(error) => {
            output.error(&error);
            return ExitCode::from(error.exit_code());
        }
    };
    match commands::run(cli.command, &app) {
        Ok(exit) => ExitCode::from(if_written(exit, &app.output)),
        // It is on standard error, wherever else it should have been.
        Err(error) => {
            app.output.error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// The exit code, which is another one if what was to be printed could not be.
fn if_written(exit: Exit, output: &Output) -> u8 {
    match output.written() {
        Ok(()) => exit.code(),
        Err(error) => {
            output.note(&error.to_text());
            error.exit_code()
        }
    }
}

fn configure(cli: &Cli) -> Result<Config, Error> {
    if cli.global.output == Format::Ndjson && !commands::streams(&cli.command) {
        return Err(Error::usage("bad_option", "only `run` and `runs resume` print one document a line")
            .help("use --output json"));
    }
    // No setting has a name that is not UTF-8: one that looks like ours is unknown all the same.
    let environment: Environment =
        std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value)).collect();
    let folder = std::env::current_dir().map_err(|e| Error::usage("no_folder", "find the current folder").cause(e))?;
    let config = Config::load(&cli.global, &environment, &folder)?;
    telemetry::start(&config, commands::log_level(&cli.command));
    Ok(config)
}

/// What clap says, in our form; help and version are no errors.
fn wrong_usage(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    let rendered = error.render();
    if !error.use_stderr() {
        let coloured = output::may_steer(&std::io::stdout());
        let output = Output::new(Format::Text);
        output.raw(&if coloured { rendered.ansi().to_string() } else { rendered.to_string() });
        return ExitCode::from(if_written(Exit::Done, &output));
    }
    let text = rendered.to_string();
    let (message, help) = text.split_once("\n\n").unwrap_or((&text, ""));
    // Asked for nothing, clap answers with the help text, which begins with what the command does.
    let missing = error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    let message = if missing { "a command is missing" } else { message.trim_start_matches("error: ").trim() };
    let shown = Error::usage("usage", message).help(help.trim());
    Output::new(wanted_format(arguments)).error(&shown);
    ExitCode::from(shown.exit_code())
}

/// The format that was asked for, as far as it can be told of arguments that are wrong.
fn wanted_format(arguments: &[OsString]) -> Format {
    let named = |text: &str| <Format as clap::ValueEnum>::from_str(text, false).unwrap_or_default();
    let mut arguments = arguments.iter().filter_map(|argument| argument.to_str());
    while let Some(argument) = arguments.next() {
        if let Some(format) = argument.strip_prefix("--output=") {
            return named(format);
        }
        if argument == "--output" {
            return arguments.next().map(named).unwrap_or_default();
        }
    }
    Format::Text
}
