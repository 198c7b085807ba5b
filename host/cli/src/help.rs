//! Parsing of arguments, and help texts. Only `dovetail --help` explains the global options. The help of each command
//! refers to it.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Command, CommandFactory as _, Parser as _};

use crate::args::Cli;

const ELSEWHERE: &str = "Global options: --data, --config, --output, --log-level, --log-format, and the stores of a \
    fleet (--fleet, --queue, --meta, --blobs). `dovetail --help` explains them.";

/// Parses the arguments. A request for help is an error, as in clap; its text is the help.
pub(crate) fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(arguments).map_err(|error| {
        if error.kind() != ErrorKind::DisplayHelp {
            return error;
        }
        let mut command = Cli::command();
        // Propagates the global options to the subcommands, to be hidden there.
        command.build();
        folded(command).try_get_matches_from(arguments).err().unwrap_or(error)
    })
}

/// The command with the global options hidden in the help of its subcommands.
fn folded(command: Command) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| {
        command.mut_subcommand(name, |below| {
            let below = below.mut_args(|arg| if arg.is_global_set() { arg.hide(true) } else { arg });
            folded(below.after_help(ELSEWHERE))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help(words: &[&str]) -> String {
        let arguments: Vec<OsString> =
            std::iter::once("dovetail").chain(words.iter().copied()).map(OsString::from).collect();
        parse(&arguments).unwrap_err().render().to_string()
    }

    #[test]
    fn options_of_every_command_are_explained_once() {
        let explained = |text: &str| text.contains("The records: mongodb://");
        assert!(explained(&help(&["--help"])) && explained(&help(&["-h"])));
        let mut left = vec![(Cli::command(), Vec::new())];
        let mut seen = 0;
        while let Some((command, path)) = left.pop() {
            for below in command.get_subcommands() {
                let path: Vec<String> = path.iter().cloned().chain([below.get_name().to_owned()]).collect();
                for flag in ["-h", "--help"] {
                    let words: Vec<&str> = path.iter().map(String::as_str).chain([flag]).collect();
                    let text = help(&words);
                    assert!(!explained(&text) && text.contains("`dovetail --help` explains them"), "{words:?}: {text}");
                    assert!(text.contains(&format!("Usage: dovetail {}", path.join(" "))), "{words:?}: {text}");
                }
                seen += 1;
                left.push((below.clone(), path));
            }
        }
        assert!(seen > 30, "{seen}");
    }
}
