//! dovetail: runs pipelines of sandboxed tasks. This program parses the arguments, resolves the settings, runs the
//! command on the service, prints the answer, and returns an exit code. The service makes all decisions.

mod again;
mod app;
mod args;
mod commands;
mod exit;
mod help;
mod inputs;
mod out_of_memory;
mod output;
mod paths;
mod progress;
mod results;
mod show;
mod signals;
mod streams;
mod table;
mod telemetry;
mod unread;

use std::ffi::OsString;
use std::process::ExitCode;

use dovetail_service::settings::{Environment, Settings};
use dovetail_service::{Error, Service};

use crate::app::App;
use crate::args::Cli;
use crate::exit::{Exit, error_text, exit_code, with_options};
use crate::output::{Format, Output};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // The compiling child sets its own limits first, so that it must have no thread and no settings before.
    if arguments.get(1).is_some_and(|first| first == dovetail_service::SUBCOMMAND) {
        return dovetail_service::compile_child(&arguments[2..]);
    }
    forbid_telemetry();
    // The trial ends as it ends: its parent judges by the signal.
    if arguments.get(1).is_some_and(|first| first == dovetail_service::TRY_MODEL) {
        return dovetail_service::try_model_child(&arguments[2..], std::io::stdin());
    }
    out_of_memory::exit_when_refused();
    let cli = match help::parse(&arguments) {
        Ok(cli) => cli,
        Err(error) => return wrong_usage(&error, &arguments),
    };
    let output = Output::new(cli.global.output);
    let app = match configure(&cli) {
        Ok(settings) => App::new(Service::new(settings), output, cli.global.clone()),
        Err(error) => {
            output.error(&error);
            return ExitCode::from(exit_code(&error));
        }
    };
    match commands::run(cli.command, &app) {
        Ok(exit) => ExitCode::from(if_written(exit, &app.output)),
        // Standard error has the error, even if standard output cannot be written.
        Err(error) => {
            let error = with_options(error);
            app.output.error(&error);
            ExitCode::from(exit_code(&error))
        }
    }
}

#[expect(unsafe_code, reason = "the environment is changed before any thread starts")]
fn forbid_telemetry() {
    // SAFETY: this is the first action of the program, so that it has no other thread.
    unsafe { dovetail_service::forbid_telemetry() };
}

/// The exit code of the command, or that of the error if standard output could not be written.
fn if_written(exit: Exit, output: &Output) -> u8 {
    match output.written() {
        Ok(()) => exit.code(),
        Err(error) => {
            output.note(&error_text(&error));
            exit_code(&error)
        }
    }
}

fn configure(cli: &Cli) -> Result<Settings, Error> {
    if cli.global.output == Format::Ndjson && !commands::streams(&cli.command) {
        return Err(Error::usage("bad_option", "only `run` and `runs resume` support --output ndjson")
            .help("use --output json"));
    }
    // The names of all settings are UTF-8. Another name with the prefix `DOVETAIL_` is unknown, also after a lossy
    // conversion.
    let environment: Environment =
        std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value)).collect();
    let folder = std::env::current_dir().map_err(|e| Error::usage("no_folder", "find the current folder").cause(e))?;
    let settings = Settings::load(&cli.global.overrides(), &environment, &folder)?;
    telemetry::start(&settings, commands::log_level(&cli.command));
    Ok(settings)
}

/// Prints an error of clap in the form of all errors; or the help text or version, which are no errors.
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
    // Without a subcommand, clap's error is the help text, whose first paragraph describes the command.
    let missing = error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    let message = if missing { "a command is missing" } else { message.trim_start_matches("error: ").trim() };
    let shown = Error::usage("usage", message).help(help.trim());
    Output::new(wanted_format(arguments)).error(&shown);
    ExitCode::from(exit_code(&shown))
}

/// The value of `--output`, if it can be found among invalid arguments.
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
